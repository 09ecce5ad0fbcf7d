//! Log-sum-exps and gradient weights of a strip of scores: some rows against all columns.
//!
//! A strip holds inner products; the scores are made of them on the way: `c x_i . x_j`, or, with `squares`,
//! `-c max(0, |x_i|^2 + |x_j|^2 - 2 x_i . x_j)`, exactly 0 on the diagonal.
#include "common.cuh"

/// What a strip of scores is.
struct Strip {
    const float* squares;
    u64 first;
    u32 n;
    float c;
    /// 0: every column counts; otherwise columns with `j = i` modulo `period` do not.
    u32 period;
};

__device__ __forceinline__ bool excluded(const Strip& s, u64 i, u32 j) { return s.period && i % s.period == j % s.period; }

__device__ __forceinline__ float score(const Strip& s, float product, u64 i, u32 j) {
    if (!s.squares) return s.c * product;
    if (i == j) return 0.0f;
    const float r2 = s.squares[i] + s.squares[j] - 2.0f * product;
    return -s.c * (r2 > 0.0f || r2 != r2 ? r2 : 0.0f);
}

/// One block a row of the strip.
extern "C" __global__ void strip_log_sums(const float* products, const float* squares, float* logs, u64 first, u32 n, float c,
                                          u32 period) {
    const Strip s = {squares, first, n, c, period};
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
extern "C" __global__ void strip_weights(const float* products, float* weights, const float* squares, const float* logs, const float* g, float* sums,
                                         u64 first, u32 n, float c, u32 period) {
    const Strip s = {squares, first, n, c, period};
    const u64 row = blockIdx.x, i = first + row;
    products += row * n;
    weights += row * n;
    const float own = logs[i], d = g[i];
    float sum = 0.0f;
    for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
        float w = 0.0f;
        if (!excluded(s, i, j)) {
            const float v = score(s, products[j], i, j);
            w = d * expf(v - own) + g[j] * expf(v - logs[j]);
        }
        weights[j] = w;
        sum += w;
    }
    sum = over_row(sum, Sum(), 0.0f);
    if (threadIdx.x == 0) sums[row] = sum;
}
