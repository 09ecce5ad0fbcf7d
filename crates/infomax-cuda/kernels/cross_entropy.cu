//! Cross-entropy of rows of logits, with labels or with distributions as targets; one pass forward, one backward.
#include "common.cuh"

/// The target of column `j` of a row.
struct Target {
    /// The row of distributions, or null.
    const float* t;
    u32 label;
    float hit, everywhere;
    __device__ __forceinline__ float operator()(u32 j) const { return t ? t[j] : (j == label ? hit : 0.0f) + everywhere; }
};

/// `sum_j t_j (ln sum exp x - x_j)` of each row, the two parts of `ln sum exp x`, which are the maximum and the logarithm of
/// the sum below it, and `sum_j t_j`.
extern "C" __global__ void entropy_forward(const float* x, const float* targets, const u32* labels, float* losses, float* logs,
                                           float* masses, u32 rows, u32 width, float smoothing) {
    const u64 row = own_row();
    if (row >= rows) return;
    x += row * width;
    const Target target = {targets ? targets + row * width : nullptr, labels ? labels[row] : 0, 1.0f - smoothing, smoothing / width};
    float top = -INFINITY, total = 0.0f, mass = 0.0f, loss = 0.0f;
    for (u32 j = threadIdx.x; j < width; j += blockDim.x) top = Max()(top, x[j]);
    top = over_row(top, Max(), -INFINITY);
    for (u32 j = threadIdx.x; j < width; j += blockDim.x) total += expf(x[j] - top);
    total = over_row(total, Sum(), 0.0f);
    const float log = logf(total);
    for (u32 j = threadIdx.x; j < width; j += blockDim.x) {
        const float t = target(j);
        mass += t;
        // The differences come first, and keep their digits where all logits are large. A target of 0 has no part, also of
        // minus infinity.
        if (t != 0.0f) loss += t * ((top - x[j]) + log);
    }
    mass = over_row(mass, Sum(), 0.0f);
    loss = over_row(loss, Sum(), 0.0f);
    if (threadIdx.x == 0) {
        losses[row] = loss;
        logs[2 * row] = top;
        logs[2 * row + 1] = log;
        masses[row] = mass;
    }
}

/// `dx = g / N (softmax(x) sum(t) - t)`, and of distributions `dt = g / N (ln sum exp x - x)`; either may be left out.
extern "C" __global__ void entropy_backward(const float* x, const float* targets, const u32* labels, const float* logs,
                                            const float* masses, const float* g, float* dx, float* dt, u32 rows, u32 width,
                                            float smoothing) {
    const u64 row = own_row();
    if (row >= rows) return;
    const Target target = {targets ? targets + row * width : nullptr, labels ? labels[row] : 0, 1.0f - smoothing, smoothing / width};
    const float scale = g[0] / rows, top = logs[2 * row], log = logs[2 * row + 1], mass = masses[row];
    for (u32 j = threadIdx.x; j < width; j += blockDim.x) {
        const u64 at = row * width + j;
        const float v = (x[at] - top) - log;
        if (dx) dx[at] = scale * (expf(v) * mass - target(j));
        if (dt) dt[at] = -scale * v;
    }
}

/// The mean of the losses; one block.
extern "C" __global__ void entropy_mean(const float* losses, float* mean, u32 rows) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < rows; i += blockDim.x) sum += losses[i];
    sum = over_row(sum, Sum(), 0.0);
    if (threadIdx.x == 0) mean[0] = (float)(sum / rows);
}
