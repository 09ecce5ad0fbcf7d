//! Functions of one element with their exact derivatives, and sums of squared differences.
#include "common.cuh"

/// In the order of `Function` on the host.
enum { RELU, GELU, SILU, SIGMOID, TANH, ERF, EXP };

__device__ __forceinline__ float value(u32 f, float x) {
    switch (f) {
        case RELU: return x <= 0.0f ? 0.0f : x;
        case GELU: return 0.5f * x * erfcf(-x * 0.70710678118654752f);
        case SILU: return x / (1.0f + expf(-x));
        case SIGMOID: return 1.0f / (1.0f + expf(-x));
        case TANH: return tanhf(x);
        case ERF: return erff(x);
        default: return expf(x);
    }
}

__device__ __forceinline__ float slope(u32 f, float x) {
    switch (f) {
        case RELU: return x > 0.0f ? 1.0f : 0.0f;
        case GELU: return 0.5f * erfcf(-x * 0.70710678118654752f) + x * 0.39894228040143268f * expf(-0.5f * x * x);
        case SILU: {
            const float s = 1.0f / (1.0f + expf(-x));
            return s * (1.0f + x * (1.0f - s));
        }
        case SIGMOID: {
            const float s = 1.0f / (1.0f + expf(-x));
            return s * (1.0f - s);
        }
        case TANH: {
            const float t = tanhf(x);
            return 1.0f - t * t;
        }
        case ERF: return 1.1283791670955126f * expf(-x * x);
        default: return expf(x);
    }
}

template <class T, int V> __device__ void unary_forward(const T* x, T* y, u64 count, u32 f) {
    for (u64 p = own_first(); p < count / V; p += own_step()) {
        Pack<T, V> v = load<T, V>(x, p * V);
#pragma unroll
        for (int k = 0; k < V; ++k) v.v[k] = narrow<T>(value(f, widen(v.v[k])));
        store<T, V>(y, p * V, v);
    }
}

template <class T, int V> __device__ void unary_backward(const T* x, const T* g, T* dx, u64 count, u32 f) {
    for (u64 p = own_first(); p < count / V; p += own_step()) {
        Pack<T, V> v = load<T, V>(x, p * V);
        const Pack<T, V> d = load<T, V>(g, p * V);
#pragma unroll
        for (int k = 0; k < V; ++k) v.v[k] = narrow<T>(slope(f, widen(v.v[k])) * widen(d.v[k]));
        store<T, V>(dx, p * V, v);
    }
}

#define ENTRIES(T, S, V)                                                                                                     \
    extern "C" __global__ void unary_forward_##S##_##V(const T* x, T* y, u64 count, u32 f) {                                 \
        unary_forward<T, V>(x, y, count, f);                                                                                 \
    }                                                                                                                        \
    extern "C" __global__ void unary_backward_##S##_##V(const T* x, const T* g, T* dx, u64 count, u32 f) {                   \
        unary_backward<T, V>(x, g, dx, count, f);                                                                            \
    }

ENTRIES(float, f32, 1)
ENTRIES(float, f32, 4)
ENTRIES(bf16, bf16, 1)
ENTRIES(bf16, bf16, 4)
#undef ENTRIES
