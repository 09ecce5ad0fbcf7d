//! Functions of rows: layer norm, softmax, log-softmax, log-sum-exp, L2 normalization, means.
//!
//! A row belongs to one warp, or to one block if it is long. Accumulation is in f32, each thread over every
//! 32nd (or 256th) element.
#include "common.cuh"

template <class T>
__device__ void norm_forward(const T* x, const float* w, const float* b, T* y, float* means, float* scales, u32 rows, u32 width,
                             u32 center, float eps) {
    const u64 row = own_row();
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    float mean = 0.0f;
    if (center) {
        float sum = 0.0f;
        for (u32 i = threadIdx.x; i < width; i += blockDim.x) sum += widen(x[i]);
        mean = over_row(sum, Sum(), 0.0f) / width;
    }
    float power = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float d = widen(x[i]) - mean;
        power += d * d;
    }
    const float scale = 1.0f / sqrtf(over_row(power, Sum(), 0.0f) / width + eps);
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        float v = (widen(x[i]) - mean) * scale;
        if (w) v *= w[i];
        if (b) v += b[i];
        y[i] = narrow<T>(v);
    }
    if (threadIdx.x == 0) {
        means[row] = mean;
        scales[row] = scale;
    }
}

template <class T>
__device__ void norm_backward(const T* x, const float* w, const float* means, const float* scales, const T* g, T* dx, u32 rows,
                              u32 width, u32 center) {
    const u64 row = own_row();
    if (row >= rows) return;
    x += row * width;
    g += row * width;
    dx += row * width;
    const float mean = means[row], scale = scales[row];
    float first = 0.0f, second = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float h = widen(g[i]) * (w ? w[i] : 1.0f);
        first += h;
        second += h * (widen(x[i]) - mean) * scale;
    }
    first = center ? over_row(first, Sum(), 0.0f) / width : 0.0f;
    second = over_row(second, Sum(), 0.0f) / width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float h = widen(g[i]) * (w ? w[i] : 1.0f);
        const float v = (widen(x[i]) - mean) * scale;
        dx[i] = narrow<T>((h - first - v * second) * scale);
    }
}

/// Sums of `g` and `g x^` of 32 columns over the rows of one part: `parts[0][part][column]`, `parts[1][..]`.
template <class T>
__device__ void norm_columns(const T* x, const float* means, const float* scales, const T* g, float* parts, u32 rows, u32 width,
                             u32 per) {
    __shared__ float first[8][33], second[8][33];
    const u32 column = blockIdx.x * 32 + threadIdx.x;
    const u64 begin = (u64)blockIdx.y * per, stop = begin + per;
    const u64 end = stop < rows ? stop : rows;
    float a = 0.0f, b = 0.0f;
    if (column < width) {
        for (u64 row = begin + threadIdx.y; row < end; row += 8) {
            const float d = widen(g[row * width + column]);
            a += d;
            b += d * (widen(x[row * width + column]) - means[row]) * scales[row];
        }
    }
    first[threadIdx.y][threadIdx.x] = a;
    second[threadIdx.y][threadIdx.x] = b;
    __syncthreads();
    if (threadIdx.y == 0 && column < width) {
        for (u32 i = 1; i < 8; ++i) {
            a += first[i][threadIdx.x];
            b += second[i][threadIdx.x];
        }
        parts[(u64)blockIdx.y * width + column] = a;
        parts[((u64)gridDim.y + blockIdx.y) * width + column] = b;
    }
}

/// Adds the parts in order: `sums[0][column]`, `sums[1][column]`.
extern "C" __global__ void column_sums(const float* parts, float* sums, u32 width, u32 count) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const float* own = parts + (u64)blockIdx.y * count * width;
    double sum = 0.0;
    for (u32 i = 0; i < count; ++i) sum += own[(u64)i * width + column];
    sums[(u64)blockIdx.y * width + column] = (float)sum;
}

/// The maximum of a row and `sum exp(x - maximum)`.
template <class T> __device__ __forceinline__ void shifted(const T* x, u32 width, float& top, float& total) {
    top = -INFINITY;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) top = Max()(top, widen(x[i]));
    top = over_row(top, Max(), -INFINITY);
    total = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) total += expf(widen(x[i]) - top);
    total = over_row(total, Sum(), 0.0f);
}

/// `exp x / sum exp x` (`logarithm` 0), or its logarithm (1).
template <class T> __device__ void softmax_forward(const T* x, T* y, u32 rows, u32 width, u32 logarithm) {
    const u64 row = own_row();
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    float top, total;
    shifted(x, width, top, total);
    const float shift = logf(total), scale = 1.0f / total;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float d = widen(x[i]) - top;
        y[i] = narrow<T>(logarithm ? d - shift : expf(d) * scale);
    }
}

template <class T> __device__ void softmax_backward(const T* y, const T* g, T* dx, u32 rows, u32 width, u32 logarithm) {
    const u64 row = own_row();
    if (row >= rows) return;
    y += row * width;
    g += row * width;
    dx += row * width;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) sum += widen(g[i]) * (logarithm ? 1.0f : widen(y[i]));
    sum = over_row(sum, Sum(), 0.0f);
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float d = widen(g[i]), v = widen(y[i]);
        dx[i] = narrow<T>(logarithm ? d - expf(v) * sum : v * (d - sum));
    }
}

/// `ln sum exp x`: one value a row. A row of minus infinity gives minus infinity.
template <class T> __device__ void lse_forward(const T* x, float* y, u32 rows, u32 width) {
    const u64 row = own_row();
    if (row >= rows) return;
    float top = -INFINITY, total = 0.0f;
    x += row * width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) top = Max()(top, widen(x[i]));
    top = over_row(top, Max(), -INFINITY);
    const float shift = (top == INFINITY || top == -INFINITY) ? 0.0f : top;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) total += expf(widen(x[i]) - shift);
    total = over_row(total, Sum(), 0.0f);
    if (threadIdx.x == 0) y[row] = shift + logf(total);
}

template <class T> __device__ void lse_backward(const T* x, const float* y, const float* g, T* dx, u32 rows, u32 width) {
    const u64 row = own_row();
    if (row >= rows) return;
    const float log = y[row], d = g[row];
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float v = widen(x[row * width + i]);
        dx[row * width + i] = narrow<T>(log == -INFINITY ? 0.0f : d * expf(v - log));
    }
}

/// `x / max(|x|, eps)`; `norms` keeps `|x|`, negated where it is not above `eps`.
template <class T> __device__ void unit_forward(const T* x, T* y, float* norms, u32 rows, u32 width, float eps) {
    const u64 row = own_row();
    if (row >= rows) return;
    x += row * width;
    y += row * width;
    float power = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        const float v = widen(x[i]);
        power += v * v;
    }
    power = over_row(power, Sum(), 0.0f);
    const bool free = power > eps * eps;
    const float norm = free ? sqrtf(power) : eps;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) y[i] = narrow<T>(widen(x[i]) / norm);
    if (threadIdx.x == 0) norms[row] = free ? norm : -norm;
}

template <class T>
__device__ void unit_backward(const T* x, const float* norms, const T* g, T* dx, u32 rows, u32 width) {
    const u64 row = own_row();
    if (row >= rows) return;
    x += row * width;
    g += row * width;
    dx += row * width;
    const bool free = norms[row] > 0.0f;
    const float norm = fabsf(norms[row]);
    float along = 0.0f;
    if (free) {
        for (u32 i = threadIdx.x; i < width; i += blockDim.x) along += widen(g[i]) * (widen(x[i]) / norm);
        along = over_row(along, Sum(), 0.0f);
    }
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        dx[i] = narrow<T>((widen(g[i]) - (widen(x[i]) / norm) * along) / norm);
    }
}

/// The mean of each row.
template <class T> __device__ void mean_forward(const T* x, T* y, u32 rows, u32 width) {
    const u64 row = own_row();
    if (row >= rows) return;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) sum += widen(x[row * width + i]);
    sum = over_row(sum, Sum(), 0.0f);
    if (threadIdx.x == 0) y[row] = narrow<T>(sum / width);
}

#define ENTRIES(T, S)                                                                                                        \
    extern "C" __global__ void norm_forward_##S(const T* x, const float* w, const float* b, T* y, float* means,              \
                                                float* scales, u32 rows, u32 width, u32 center, float eps) {                 \
        norm_forward(x, w, b, y, means, scales, rows, width, center, eps);                                                   \
    }                                                                                                                        \
    extern "C" __global__ void norm_backward_##S(const T* x, const float* w, const float* means, const float* scales,        \
                                                 const T* g, T* dx, u32 rows, u32 width, u32 center) {                       \
        norm_backward(x, w, means, scales, g, dx, rows, width, center);                                                      \
    }                                                                                                                        \
    extern "C" __global__ void norm_columns_##S(const T* x, const float* means, const float* scales, const T* g,             \
                                                float* parts, u32 rows, u32 width, u32 per) {                                \
        norm_columns(x, means, scales, g, parts, rows, width, per);                                                          \
    }                                                                                                                        \
    extern "C" __global__ void softmax_forward_##S(const T* x, T* y, u32 rows, u32 width, u32 logarithm) {                   \
        softmax_forward(x, y, rows, width, logarithm);                                                                       \
    }                                                                                                                        \
    extern "C" __global__ void softmax_backward_##S(const T* y, const T* g, T* dx, u32 rows, u32 width, u32 logarithm) {     \
        softmax_backward(y, g, dx, rows, width, logarithm);                                                                  \
    }                                                                                                                        \
    extern "C" __global__ void lse_forward_##S(const T* x, float* y, u32 rows, u32 width) { lse_forward(x, y, rows, width); } \
    extern "C" __global__ void lse_backward_##S(const T* x, const float* y, const float* g, T* dx, u32 rows, u32 width) {    \
        lse_backward(x, y, g, dx, rows, width);                                                                              \
    }                                                                                                                        \
    extern "C" __global__ void unit_forward_##S(const T* x, T* y, float* norms, u32 rows, u32 width, float eps) {            \
        unit_forward(x, y, norms, rows, width, eps);                                                                         \
    }                                                                                                                        \
    extern "C" __global__ void unit_backward_##S(const T* x, const float* norms, const T* g, T* dx, u32 rows, u32 width) {   \
        unit_backward(x, norms, g, dx, rows, width);                                                                         \
    }                                                                                                                        \
    extern "C" __global__ void mean_forward_##S(const T* x, T* y, u32 rows, u32 width) { mean_forward(x, y, rows, width); }

ENTRIES(float, f32)
ENTRIES(bf16, bf16)
#undef ENTRIES
