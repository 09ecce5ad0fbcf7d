//! Batch norm: two sums for each channel, then one pass over the elements, in each direction.
//!
//! A tensor is `(n, c, inner)`, contiguous; `inner` is 1 for matrices and for images with the channels last. The
//! `m = n inner` elements of a channel are cut into parts whose number depends on the shape alone, each is summed
//! in f32 by thread and in f64 between threads, and the parts are added in order: the same bits in every run.
#include "common.cuh"

/// Where element `m` of channel `c` lies. The host refuses tensors of 2^31 elements and more: 32 bits do, and
/// divide much faster than 64.
__device__ __forceinline__ u32 place(u32 m, u32 c, u32 channels, u32 inner) {
    return inner == 1 ? m * channels + c : (m / inner * channels + c) * inner + m % inner;
}

/// A number near the mean of the channel: that of its first (at most 8) elements. Sums of squares are taken around
/// it, so that a large mean does not cancel.
template <class T> __device__ __forceinline__ float origin(const T* x, u32 c, u32 m, u32 channels, u32 inner) {
    const u32 count = m < 8 ? m : 8;
    float sum = 0.0f;
    for (u32 i = 0; i < count; ++i) sum += widen(x[place(i, c, channels, inner)]);
    return sum / count;
}

/// `x - origin` and its square, of one channel (`of`) or of `V` neighbors (`across`).
template <class T, int V> struct Moments {
    const T* x;
    float shift[V];
    __device__ __forceinline__ void across(u32 i, float (&a)[V], float (&b)[V]) const {
        const Pack<T, V> in = load<T, V>(x, i);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const float d = widen(in.v[k]) - shift[k];
            a[k] += d;
            b[k] += d * d;
        }
    }
    __device__ __forceinline__ void of(u32 i, float& a, float& b) const {
        const Pack<T, V> in = load<T, V>(x, i);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const float d = widen(in.v[k]) - shift[0];
            a += d;
            b += d * d;
        }
    }
};

/// `g` and `g x^`, with `g` the gradient behind the activation, which is kept for the second pass if asked for.
template <class T, int V> struct Grads {
    const T* x;
    const T* y;
    const T* dy;
    T* kept;
    float mean[V], scale[V];
    /// `step` 0: all of one channel; 1: neighbors are channels.
    template <int step> __device__ __forceinline__ void add(u32 i, float* a, float* b) const {
        const Pack<T, V> in = load<T, V>(x, i), grad = load<T, V>(dy, i);
        Pack<T, V> result, masked;
        if (y) result = load<T, V>(y, i);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            float g = widen(grad.v[k]);
            if (y && !(widen(result.v[k]) > 0.0f)) g = 0.0f;
            masked.v[k] = narrow<T>(g);
            a[k * step] += g;
            b[k * step] += g * (widen(in.v[k]) - mean[k * step]) * scale[k * step];
        }
        if (kept) store<T, V>(kept, i, masked);
    }
    __device__ __forceinline__ void of(u32 i, float& a, float& b) const { add<0>(i, &a, &b); }
    __device__ __forceinline__ void across(u32 i, float (&a)[V], float (&b)[V]) const { add<1>(i, a, b); }
};

/// Channels of planes: block `(c, part)`, 256 threads along the elements of the channel.
/// The neighbors of a pack lie in one plane: `V` divides `inner` and `per`.
template <int V, class F>
__device__ void plane_sums(const F& f, double* parts, u32 c, u32 m, u32 channels, u32 inner, u32 per) {
    const u32 begin = blockIdx.y * per, stop = begin + per, end = stop < m ? stop : m;
    float a = 0.0f, b = 0.0f;
#pragma unroll 2
    for (u32 i = begin + threadIdx.x * V; i < end; i += blockDim.x * V) {
        f.of(place(i, c, channels, inner), a, b);
    }
    const double first = over_row((double)a, Sum(), 0.0), second = over_row((double)b, Sum(), 0.0);
    if (threadIdx.x == 0) {
        parts[(u64)blockIdx.y * channels + c] = first;
        parts[((u64)gridDim.y + blockIdx.y) * channels + c] = second;
    }
}

/// Channels side by side: a block takes `blockDim.x V` channels of one part, `V` neighbors by thread, `blockDim.y`
/// rows at a time. `f[k]` sums channel `c + k`. A block has 512 threads.
template <int V, class F> __device__ void column_pairs(const F& f, double* parts, u32 c, u32 m, u32 channels, u32 per) {
    __shared__ double sums[2][512 * V];
    const u32 begin = blockIdx.y * per, stop = begin + per, end = stop < m ? stop : m;
    float a[V], b[V];
#pragma unroll
    for (int k = 0; k < V; ++k) a[k] = b[k] = 0.0f;
    if (c < channels) {
#pragma unroll 4
        for (u32 i = begin + threadIdx.y; i < end; i += blockDim.y) f.across(i * channels + c, a, b);
    }
    const u32 tile = blockDim.x * V, own = threadIdx.x * V;
#pragma unroll
    for (int k = 0; k < V; ++k) {
        sums[0][threadIdx.y * tile + own + k] = a[k];
        sums[1][threadIdx.y * tile + own + k] = b[k];
    }
    __syncthreads();
    const u32 flat = threadIdx.y * blockDim.x + threadIdx.x, first = blockIdx.x * tile;
    for (u32 i = flat; i < tile; i += 512) {
        if (first + i >= channels) continue;
        double s = 0.0, t = 0.0;
        for (u32 row = 0; row < blockDim.y; ++row) {
            s += sums[0][row * tile + i];
            t += sums[1][row * tile + i];
        }
        parts[(u64)blockIdx.y * channels + first + i] = s;
        parts[((u64)gridDim.y + blockIdx.y) * channels + first + i] = t;
    }
}

/// The first channel of this thread.
template <int V> __device__ __forceinline__ u32 own_channel(u32 inner) {
    return inner == 1 ? (blockIdx.x * blockDim.x + threadIdx.x) * V : blockIdx.x;
}

template <class T, int V>
__device__ void moments(const T* x, double* parts, u32 m, u32 channels, u32 inner, u32 per) {
    const u32 c = own_channel<V>(inner);
    Moments<T, V> f;
    f.x = x;
#pragma unroll
    for (int k = 0; k < V; ++k) {
        f.shift[k] = c + k < channels && (inner == 1 || k == 0) ? origin(x, c + k, m, channels, inner) : 0.0f;
    }
    if (inner == 1) {
        column_pairs<V>(f, parts, c, m, channels, per);
    } else {
        plane_sums<V>(f, parts, c, m, channels, inner, per);
    }
}

template <class T, int V>
__device__ void grad_sums(const T* x, const T* y, const T* dy, T* kept, const float* means, const float* scales, double* parts,
                          u32 m, u32 channels, u32 inner, u32 per) {
    const u32 c = own_channel<V>(inner);
    Grads<T, V> f;
    f.x = x;
    f.y = y;
    f.dy = dy;
    f.kept = kept;
#pragma unroll
    for (int k = 0; k < V; ++k) {
        const bool inside = c + k < channels && (inner == 1 || k == 0);
        f.mean[k] = inside ? means[c + k] : 0.0f;
        f.scale[k] = inside ? scales[c + k] : 0.0f;
    }
    if (inner == 1) {
        column_pairs<V>(f, parts, c, m, channels, per);
    } else {
        plane_sums<V>(f, parts, c, m, channels, inner, per);
    }
}

/// Both sums of a channel over its parts, by one warp.
__device__ __forceinline__ void gather(const double* parts, u32 c, u32 channels, u32 count, double& first, double& second) {
    double a = 0.0, b = 0.0;
    for (u32 i = threadIdx.x; i < count; i += 32) {
        a += parts[(u64)i * channels + c];
        b += parts[((u64)count + i) * channels + c];
    }
    first = over_row(a, Sum(), 0.0);
    second = over_row(b, Sum(), 0.0);
}

/// Mean, biased variance and `1 / sqrt(var + eps)` of each channel.
template <class T>
__device__ void moments_finish(const T* x, const double* parts, float* means, float* vars, float* scales, u32 m, u32 channels,
                               u32 inner, u32 count, double eps) {
    const u64 c = own_row();
    if (c >= channels) return;
    double first, second;
    gather(parts, (u32)c, channels, count, first, second);
    const double shift = origin(x, (u32)c, m, channels, inner), mean = first / m;
    double var = second / m - mean * mean;
    if (var < 0.0) var = 0.0;
    if (threadIdx.x == 0) {
        means[c] = (float)(shift + mean);
        vars[c] = (float)var;
        scales[c] = (float)(1.0 / sqrt(var + eps));
    }
}

/// `dbias`, `dweight` and their means over the elements.
extern "C" __global__ void grad_finish(const double* parts, float* dbias, float* dweight, float* mean_g, float* mean_gx, u32 m,
                                       u32 channels, u32 count) {
    const u64 c = own_row();
    if (c >= channels) return;
    double first, second;
    gather(parts, (u32)c, channels, count, first, second);
    if (threadIdx.x == 0) {
        dbias[c] = (float)first;
        dweight[c] = (float)second;
        mean_g[c] = (float)(first / m);
        mean_gx[c] = (float)(second / m);
    }
}

/// The channel of element `i`.
__device__ __forceinline__ u32 channel(u32 i, u32 channels, u32 inner) { return i / inner % channels; }

/// The numbers of the channels of `V` neighbors from channel `c` on; `none` without a vector.
template <int V> __device__ __forceinline__ Pack<float, V> of_channels(const float* v, u32 c, u32 inner, float none) {
    Pack<float, V> out;
    if (v && inner == 1) return load<float, V>(v, c);
    const float all = v ? v[c] : none;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = all;
    return out;
}

/// `y = act((x - mean) scale w + b + residual)`; `V` neighbors lie in one channel (planes) or in `V` (columns).
template <class T, int V>
__device__ void apply(const T* x, const T* residual, const float* means, const float* scales, const float* w, const float* b,
                      T* y, u32 count, u32 channels, u32 inner, u32 relu) {
    for (u32 p = (u32)own_first(); p < count / V; p += (u32)own_step()) {
        const u32 i = p * V;
        const Pack<T, V> in = load<T, V>(x, i);
        Pack<T, V> add, out;
        if (residual) add = load<T, V>(residual, i);
        const u32 c = channel(i, channels, inner);
        const Pack<float, V> mean = of_channels<V>(means, c, inner, 0.0f), scale = of_channels<V>(scales, c, inner, 1.0f);
        const Pack<float, V> weight = of_channels<V>(w, c, inner, 1.0f), bias = of_channels<V>(b, c, inner, 0.0f);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            float v = (widen(in.v[k]) - mean.v[k]) * (scale.v[k] * weight.v[k]) + bias.v[k];
            if (residual) v += widen(add.v[k]);
            // The comparison keeps NaN.
            if (relu && v <= 0.0f) v = 0.0f;
            out.v[k] = narrow<T>(v);
        }
        store<T, V>(y, i, out);
    }
}

/// `dx = w scale (g - mean(g) - x^ mean(g x^))`, or without the means (null) for constant statistics.
template <class T, int V>
__device__ void grad_apply(const T* x, const T* y, const T* dy, T* kept, const float* means, const float* scales, const float* w,
                           const float* mean_g, const float* mean_gx, T* dx, u32 count, u32 channels, u32 inner) {
    for (u32 p = (u32)own_first(); p < count / V; p += (u32)own_step()) {
        const u32 i = p * V;
        const Pack<T, V> grad = load<T, V>(dy, i);
        Pack<T, V> in, out, masked, result;
        if (mean_g) in = load<T, V>(x, i);
        if (y) result = load<T, V>(y, i);
        const u32 c = channel(i, channels, inner);
        const Pack<float, V> mean = of_channels<V>(means, c, inner, 0.0f), scale = of_channels<V>(scales, c, inner, 1.0f);
        const Pack<float, V> weight = of_channels<V>(w, c, inner, 1.0f);
        Pack<float, V> first, second;
        if (mean_g) {
            first = of_channels<V>(mean_g, c, inner, 0.0f);
            second = of_channels<V>(mean_gx, c, inner, 0.0f);
        }
#pragma unroll
        for (int k = 0; k < V; ++k) {
            float g = widen(grad.v[k]);
            if (y && !(widen(result.v[k]) > 0.0f)) g = 0.0f;
            masked.v[k] = narrow<T>(g);
            if (mean_g) g -= first.v[k] + (widen(in.v[k]) - mean.v[k]) * scale.v[k] * second.v[k];
            out.v[k] = narrow<T>(g * (scale.v[k] * weight.v[k]));
        }
        if (kept) store<T, V>(kept, i, masked);
        store<T, V>(dx, i, out);
    }
}

/// `1 / sqrt(var + eps)`.
extern "C" __global__ void scales_of(const float* vars, float* scales, u32 channels, double eps) {
    const u64 c = own_first();
    if (c < channels) scales[c] = (float)(1.0 / sqrt((double)vars[c] + eps));
}

#define ENTRIES(T, S)                                                                                                        \
    extern "C" __global__ void moments_finish_##S(const T* x, const double* parts, float* means, float* vars, float* scales, \
                                                  u32 m, u32 channels, u32 inner, u32 count, double eps) {                   \
        moments_finish(x, parts, means, vars, scales, m, channels, inner, count, eps);                                       \
    }                                                                                                                        \
    APPLY(T, S, 1)                                                                                                           \
    APPLY(T, S, 4)

#define APPLY(T, S, V)                                                                                                       \
    extern "C" __global__ void moments_##S##_##V(const T* x, double* parts, u32 m, u32 channels, u32 inner, u32 per) {       \
        moments<T, V>(x, parts, m, channels, inner, per);                                                                    \
    }                                                                                                                        \
    extern "C" __global__ void grad_sums_##S##_##V(const T* x, const T* y, const T* dy, T* kept, const float* means,         \
                                                   const float* scales, double* parts, u32 m, u32 channels, u32 inner,       \
                                                   u32 per) {                                                                \
        grad_sums<T, V>(x, y, dy, kept, means, scales, parts, m, channels, inner, per);                                      \
    }                                                                                                                        \
    extern "C" __global__ void apply_##S##_##V(const T* x, const T* residual, const float* means, const float* scales,       \
                                               const float* w, const float* b, T* y, u32 count, u32 channels, u32 inner,     \
                                               u32 relu) {                                                                   \
        apply<T, V>(x, residual, means, scales, w, b, y, count, channels, inner, relu);                                      \
    }                                                                                                                        \
    extern "C" __global__ void grad_apply_##S##_##V(const T* x, const T* y, const T* dy, T* kept, const float* means,        \
                                                    const float* scales, const float* w, const float* mean_g,                \
                                                    const float* mean_gx, T* dx, u32 count, u32 channels, u32 inner) {       \
        grad_apply<T, V>(x, y, dy, kept, means, scales, w, mean_g, mean_gx, dx, count, channels, inner);                     \
    }

ENTRIES(float, f32)
ENTRIES(bf16, bf16)
#undef ENTRIES
#undef APPLY
