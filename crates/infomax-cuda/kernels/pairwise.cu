//! Squared distances, and log-sum-exps and gradient weights of a strip of scores: some rows against all columns.
//!
//! A strip holds inner products; the scores are made of them on the way: `c x_i . x_j`, or, with `squares`,
//! `-c |x_i - x_j|^2`, never above 0 and exactly 0 on the diagonal.
#include "common.cuh"

/// `|x_i - x_j|^2` of rows of `d` elements from their product and their squares. Rows are close when it is below 1/64 of
/// the sum of the squares: the products have lost more than six bits there, and the differences themselves are taken, so
/// that equal rows have the distance 0. No shift of the columns changes it.
__device__ __forceinline__ float squared_distance(const float* x, u32 d, u64 i, u64 j, float product, float own, float other) {
    if (i == j) return 0.0f;
    const float r2 = own + other - 2.0f * product;
    if (!(r2 < (own + other) * 0.015625f)) return r2;
    double sum = 0.0;
    for (u32 k = 0; k < d; ++k) {
        const double difference = (double)x[i * d + k] - x[j * d + k];
        sum += difference * difference;
    }
    return (float)sum;
}

/// Squared distances of the inner products `(n, n)` of the shifted rows; one block a row.
extern "C" __global__ void distances(const float* products, float* out, const float* squares, const float* x, u32 n, u32 d) {
    const u64 i = blockIdx.x;
    for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
        out[i * n + j] = squared_distance(x, d, i, j, products[i * n + j], squares[i], squares[j]);
    }
}

/// The diagonal of a square matrix.
extern "C" __global__ void diagonal(const float* a, float* out, u32 n) {
    const u64 i = own_first();
    if (i < n) out[i] = a[i * n + i];
}

/// `diag(H 1) - H` of `H` `(n, n)`, whose diagonal has no part; one block a row.
extern "C" __global__ void laplacian(const float* h, float* out, u32 n) {
    const u64 i = blockIdx.x;
    h += i * n;
    out += i * n;
    float sum = 0.0f;
    for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
        if (j != i) {
            sum += h[j];
            out[j] = -h[j];
        }
    }
    sum = over_row(sum, Sum(), 0.0f);
    if (threadIdx.x == 0) out[i] = sum;
}

/// What a strip of scores is.
struct Strip {
    const float* squares;
    const float* x;
    u64 first;
    u32 n;
    u32 d;
    float c;
    /// 0: every column counts; otherwise columns with `j = i` modulo `period` do not.
    u32 period;
};

__device__ __forceinline__ bool excluded(const Strip& s, u64 i, u32 j) { return s.period && i % s.period == j % s.period; }

__device__ __forceinline__ float score(const Strip& s, float product, u64 i, u32 j) {
    if (!s.squares) return s.c * product;
    return -s.c * squared_distance(s.x, s.d, i, j, product, s.squares[i], s.squares[j]);
}

/// One block a row of the strip.
extern "C" __global__ void strip_log_sums(const float* products, const float* squares, const float* x, float* logs, u64 first, u32 n,
                                          u32 d, float c, u32 period) {
    const Strip s = {squares, x, first, n, d, c, period};
    const u64 row = blockIdx.x, i = first + row;
    products += row * n;
    float top = -INFINITY;
    for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
        if (!excluded(s, i, j)) top = Max()(top, score(s, products[j], i, j));
    }
    top = over_row(top, Max(), -INFINITY);
    float total = 0.0f;
    if (top != -INFINITY) {
        for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
            if (!excluded(s, i, j)) total += expf(score(s, products[j], i, j) - top);
        }
    }
    total = over_row(total, Sum(), 0.0f);
    if (threadIdx.x == 0) logs[i] = top == -INFINITY ? top : top + logf(total);
}

/// The weights `e^s (g_i e^-l_i + g_j e^-l_j)` of the products, and the sum of each row of them.
extern "C" __global__ void strip_weights(const float* products, float* weights, const float* squares, const float* x, const float* logs,
                                         const float* g, float* sums, u64 first, u32 n, u32 d, float c, u32 period) {
    const Strip s = {squares, x, first, n, d, c, period};
    const u64 row = blockIdx.x, i = first + row;
    products += row * n;
    weights += row * n;
    const float own = logs[i], slope = g[i];
    float sum = 0.0f;
    for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
        float w = 0.0f;
        // The weight of a row with itself stands on both sides of the gradient of distances, and is left out.
        if (!excluded(s, i, j) && !(squares && j == i)) {
            const float v = score(s, products[j], i, j);
            w = slope * expf(v - own) + g[j] * expf(v - logs[j]);
        }
        weights[j] = w;
        sum += w;
    }
    sum = over_row(sum, Sum(), 0.0f);
    if (threadIdx.x == 0) sums[row] = sum;
}
