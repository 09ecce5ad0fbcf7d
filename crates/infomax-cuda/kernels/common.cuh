//! What all kernels share: element types, reductions over a row of threads, names of entry points.
//!
//! The kernels compile with nvcc, and with a plain C++ compiler against the emulation in `tests/emulated`, which
//! checks their index arithmetic without a card.
#pragma once

typedef unsigned int u32;
typedef unsigned long long u64;

/// A bfloat16 number: the upper half of a float.
struct bf16 {
    unsigned short bits;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

template <class T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
/// Rounds to nearest, ties to even; NaN stays a NaN.
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
    u32 bits = __float_as_uint(x);
    bf16 y;
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        y.bits = (unsigned short)((bits >> 16) | 0x40u);
    } else {
        y.bits = (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    }
    return y;
}

/// `V` neighboring elements, read and written at once.
template <class T, int V> struct alignas(sizeof(T) * V) Pack {
    T v[V];
};

template <class T, int V> __device__ __forceinline__ Pack<T, V> load(const T* x, u64 i) {
    return *reinterpret_cast<const Pack<T, V>*>(x + i);
}
template <class T, int V> __device__ __forceinline__ void store(T* y, u64 i, Pack<T, V> p) {
    *reinterpret_cast<Pack<T, V>*>(y + i) = p;
}

struct Sum {
    template <class A> __device__ __forceinline__ A operator()(A a, A b) const { return a + b; }
};
/// The larger of two; NaN wins.
struct Max {
    __device__ __forceinline__ float operator()(float a, float b) const { return (a > b || a != a) ? a : b; }
};

/// Reduces over the `blockDim.x` threads of a row, and gives the result to all of them. `blockDim.x` is 32 with
/// any number of rows in the block, or a multiple of 32 with one row. The order of operations is fixed.
template <class A, class F> __device__ __forceinline__ A over_row(A value, F op, A none) {
    for (int offset = 16; offset > 0; offset >>= 1) {
        value = op(value, __shfl_xor_sync(0xffffffffu, value, offset));
    }
    if (blockDim.x == 32) return value;
    __shared__ A parts[32];
    const u32 warp = threadIdx.x / 32, warps = blockDim.x / 32;
    if (threadIdx.x % 32 == 0) parts[warp] = value;
    __syncthreads();
    value = none;
    for (u32 i = 0; i < warps; ++i) value = op(value, parts[i]);
    __syncthreads();
    return value;
}

/// The row of this thread.
__device__ __forceinline__ u64 own_row() { return (u64)blockIdx.x * blockDim.y + threadIdx.y; }

/// The first element of this thread in a pass over all elements, and the step to the next.
__device__ __forceinline__ u64 own_first() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ u64 own_step() { return (u64)gridDim.x * blockDim.x; }
