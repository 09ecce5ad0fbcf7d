//! Second moments: centered columns, sums over symmetric products, and the gradients of what is made of them.
//!
//! Sums over many elements are in f64, in an order that depends on shapes alone.
#include "common.cuh"

/// Adds the values of the 8 rows of a block for each of its 32 columns; the first row gets the sums.
__device__ __forceinline__ double over_block_rows(double value) {
    __shared__ double lines[8][33];
    lines[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.y == 0) {
        for (u32 i = 1; i < 8; ++i) value += lines[i][threadIdx.x];
    }
    return value;
}

/// Sums of 32 columns of `z` `(n, d)` over the rows of one part: `parts[part][column]`.
extern "C" __global__ void column_parts(const float* z, double* parts, u32 n, u32 d, u32 per) {
    const u32 column = blockIdx.x * 32 + threadIdx.x;
    const u64 begin = (u64)blockIdx.y * per, stop = begin + per, end = stop < n ? stop : n;
    double sum = 0.0;
    if (column < d) {
        for (u64 row = begin + threadIdx.y; row < end; row += 8) sum += z[row * d + column];
    }
    sum = over_block_rows(sum);
    if (threadIdx.y == 0 && column < d) parts[(u64)blockIdx.y * d + column] = sum;
}

/// `factor` times the sum of the parts of each column.
extern "C" __global__ void column_finish(const double* parts, double* sums, u32 d, u32 count, double factor) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= d) return;
    double sum = 0.0;
    for (u32 i = 0; i < count; ++i) sum += parts[(u64)i * d + column];
    sums[column] = sum * factor;
}

/// `x = z - mean`, and, with `parts`, the sums of its squares as in `column_parts`.
extern "C" __global__ void center_parts(const float* z, const double* means, float* x, double* parts, u32 n, u32 d, u32 per) {
    const u32 column = blockIdx.x * 32 + threadIdx.x;
    const u64 begin = (u64)blockIdx.y * per, stop = begin + per, end = stop < n ? stop : n;
    double sum = 0.0;
    if (column < d) {
        const double mean = means[column];
        for (u64 row = begin + threadIdx.y; row < end; row += 8) {
            const double deviation = z[row * d + column] - mean;
            x[row * d + column] = (float)deviation;
            sum += deviation * deviation;
        }
    }
    if (!parts) return;
    sum = over_block_rows(sum);
    if (threadIdx.y == 0 && column < d) parts[(u64)blockIdx.y * d + column] = sum;
}

/// Of the sums of squared deviations `s` of each column: the term `max(0, gamma - std)` of the hinge with
/// `std = sqrt(s / (n - 1) + eps)`, and the factor of the gradient that belongs to it.
extern "C" __global__ void hinge_terms(const double* squares, double* terms, float* slopes, u32 d, double dof, double gamma,
                                       double eps) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= d) return;
    const double std = sqrt(squares[column] / dof + eps);
    // A std that is not a number stays one.
    terms[column] = std >= gamma ? 0.0 : gamma - std;
    slopes[column] = std < gamma ? (float)(-1.0 / (d * dof * std)) : 0.0f;
}

/// Sums of the squares of each row of a square matrix `(n, n)`; one block a row. With `clear` the diagonal is set to
/// 0 and has no part.
extern "C" __global__ void row_powers(float* a, double* powers, u32 n, u32 clear) {
    const u64 row = blockIdx.x;
    a += row * n;
    double sum = 0.0;
    for (u32 j = threadIdx.x; j < n; j += blockDim.x) {
        if (clear && j == row) {
            a[j] = 0.0f;
        } else {
            sum += (double)a[j] * a[j];
        }
    }
    sum = over_row(sum, Sum(), 0.0);
    if (threadIdx.x == 0) powers[row] = sum;
}

/// `[variance, covariance]` of one block: the mean of the `d` terms; `factor` times the sum of the `count` powers,
/// with `gram` without the squares of the `d` sums of squares, and never below 0.
extern "C" __global__ void moment_values(const double* terms, const double* squares, const double* powers, float* values, u32 d,
                                         u32 count, u32 gram, double factor) {
    double variance = 0.0, diagonal = 0.0, power = 0.0;
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) {
        variance += terms[i];
        diagonal += squares[i] * squares[i];
    }
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) power += powers[i];
    variance = over_row(variance, Sum(), 0.0);
    diagonal = over_row(diagonal, Sum(), 0.0);
    power = over_row(power, Sum(), 0.0);
    if (threadIdx.x == 0) {
        const double off = gram ? power - diagonal : power;
        values[0] = (float)(variance / d);
        // `max` would turn the NaN of an overflow into 0.
        values[1] = (float)((off < 0.0 ? 0.0 : off) * factor);
    }
}

/// The gradient in place of the product `p` `(n, d)`: `g_1 alpha p + f x` with `f = g_0 slope`, and with `gram`
/// `f - g_1 alpha s`. Blocks of 32 x 8 threads.
extern "C" __global__ void moment_grad(float* p, const float* x, const float* slopes, const double* squares, const float* g, u32 n,
                                       u32 d, double alpha, u32 gram, u32 per) {
    const u32 column = blockIdx.x * 32 + threadIdx.x;
    if (column >= d) return;
    const u64 begin = (u64)blockIdx.y * per, stop = begin + per, end = stop < n ? stop : n;
    const double outer = g[1] * alpha;
    const float scale = (float)outer;
    const float f = (float)(g[0] * (double)slopes[column] - (gram ? outer * squares[column] : 0.0));
    for (u64 row = begin + threadIdx.y; row < end; row += 8) {
        const u64 at = row * d + column;
        p[at] = scale * p[at] + f * x[at];
    }
}

/// `b = a + a^T` of a square matrix; blocks of 32 x 8 threads, each a tile of 32 x 32.
extern "C" __global__ void with_transpose(const float* a, float* b, u32 n) {
    __shared__ float tile[32][33];
    const u64 left = (u64)blockIdx.x * 32, top = (u64)blockIdx.y * 32;
    for (u32 i = threadIdx.y; i < 32; i += 8) {
        const u64 row = left + i, column = top + threadIdx.x;
        tile[i][threadIdx.x] = row < n && column < n ? a[row * n + column] : 0.0f;
    }
    __syncthreads();
    for (u32 i = threadIdx.y; i < 32; i += 8) {
        const u64 row = top + i, column = left + threadIdx.x;
        if (row < n && column < n) b[row * n + column] = a[row * n + column] + tile[threadIdx.x][i];
    }
}

/// Sums of the squared differences of two tensors, one a block.
extern "C" __global__ void error_parts(const float* a, const float* b, double* parts, u64 count) {
    double sum = 0.0;
    for (u64 i = own_first(); i < count; i += own_step()) {
        const float difference = a[i] - b[i];
        sum += (double)difference * difference;
    }
    sum = over_row(sum, Sum(), 0.0);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/// `2 g (a - b)` and its negative; either may be left out.
extern "C" __global__ void error_grad(const float* a, const float* b, const float* g, float* da, float* db, u64 count) {
    const float factor = 2.0f * g[0];
    for (u64 i = own_first(); i < count; i += own_step()) {
        const float slope = factor * (a[i] - b[i]);
        if (da) da[i] = slope;
        if (db) db[i] = -slope;
    }
}

/// The sum of the squares of a tensor, one a block.
extern "C" __global__ void power_parts(const float* a, double* parts, u64 count) {
    double sum = 0.0;
    for (u64 i = own_first(); i < count; i += own_step()) sum += (double)a[i] * a[i];
    sum = over_row(sum, Sum(), 0.0);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/// `factor` times the sum of some parts; one block.
extern "C" __global__ void sum_parts(const double* parts, float* sum, u32 count, double factor) {
    double total = 0.0;
    for (u32 i = threadIdx.x; i < count; i += blockDim.x) total += parts[i];
    total = over_row(total, Sum(), 0.0);
    if (threadIdx.x == 0) sum[0] = (float)(total * factor);
}

/// `y = x / (sqrt(power) + eps)` with a `power` of one number.
extern "C" __global__ void over_norm(const float* x, const float* power, float* y, u64 count, float eps) {
    const float scale = 1.0f / (sqrtf(power[0]) + eps);
    for (u64 i = own_first(); i < count; i += own_step()) y[i] = x[i] * scale;
}

/// `x = high + low` with a `high` of 10 bits of mantissa, rounded, and the rest, which is exact.
extern "C" __global__ void split_parts(const float* x, float* high, float* low, u64 count) {
    for (u64 i = own_first(); i < count; i += own_step()) {
        const float v = x[i];
        const u32 bits = __float_as_uint(v);
        float h = __uint_as_float((bits + 0xfffu + ((bits >> 13) & 1u)) & 0xffffe000u);
        // What rounds to infinity is cut; infinities and NaN stay, without a rest.
        if ((__float_as_uint(h) & 0x7f800000u) == 0x7f800000u) h = __uint_as_float(bits & 0xffffe000u);
        const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
        high[i] = finite ? h : v;
        low[i] = finite ? v - h : 0.0f;
    }
}
