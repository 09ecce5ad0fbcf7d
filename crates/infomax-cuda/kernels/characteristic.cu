//! Errors of empirical characteristic functions on an equispaced grid, and their gradient.
//!
//! A thread has one column and turns through up to 24 points of the grid with one sine and cosine an element; longer
//! grids take several launches.
#include "common.cuh"

/// Points of one launch.
constexpr u32 POINTS = 24;

/// The turn of one point of the grid to the next, and the first one of this launch.
__device__ __forceinline__ void turn(float y, float step, u32 first, float& a, float& b, float& c, float& s) {
    const float angle = y * step;
    sincosf(angle, &b, &a);
    if (first) {
        // Of the exact multiple of the rounded angle, as turning would give.
        const double round = 6.283185307179586476925, far = (double)angle * first;
        sincosf((float)(far - round * rint(far / round)), &s, &c);
    } else {
        c = 1.0f;
        s = 0.0f;
    }
}

/// Sums over the rows of one part of cosines, and of sines, of `(first + q) step y`:
/// `parts[part][0 or 1][q][column]`. Blocks of 32 columns x 8 rows.
extern "C" __global__ void wave_sums(const float* y, float* parts, u32 n, u32 m, u32 points, u32 first, float step, u32 per) {
    __shared__ float lines[8][33];
    const u32 column = blockIdx.x * 32 + threadIdx.x;
    const u64 begin = (u64)blockIdx.y * per, stop = begin + per, end = stop < n ? stop : n;
    float cosines[POINTS], sines[POINTS];
#pragma unroll
    for (u32 q = 0; q < POINTS; ++q) cosines[q] = sines[q] = 0.0f;
    if (column < m) {
        for (u64 row = begin + threadIdx.y; row < end; row += 8) {
            float a, b, c, s;
            turn(y[row * m + column], step, first, a, b, c, s);
#pragma unroll
            for (u32 q = 0; q < POINTS; ++q) {
                if (q >= points) break;
                cosines[q] += c;
                sines[q] += s;
                const float next = c * a - s * b;
                s = s * a + c * b;
                c = next;
            }
        }
    }
#pragma unroll
    for (u32 q = 0; q < POINTS; ++q) {
        // The same for all threads.
        if (q >= points) break;
        for (u32 half = 0; half < 2; ++half) {
            lines[threadIdx.y][threadIdx.x] = half ? sines[q] : cosines[q];
            __syncthreads();
            if (threadIdx.y == 0 && column < m) {
                float sum = lines[0][threadIdx.x];
                for (u32 i = 1; i < 8; ++i) sum += lines[i][threadIdx.x];
                parts[(((u64)blockIdx.y * 2 + half) * points + q) * m + column] = sum;
            }
            __syncthreads();
        }
    }
}

/// `mean cos - target` and `mean sin` of each column at the points of a launch, `[q][column]`, and
/// `n sum_q w_q (c^2 + s^2)`, added to what the launches before it left where `first` is not 0.
extern "C" __global__ void wave_errors(const float* parts, const double* targets, const double* weights, double* cosines,
                                       double* sines, double* errors, float* values, u32 n, u32 m, u32 points, u32 first, u32 count) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= m) return;
    double error = first ? errors[column] : 0.0;
    for (u32 q = 0; q < points; ++q) {
        double c = 0.0, s = 0.0;
        for (u32 i = 0; i < count; ++i) {
            c += parts[(((u64)i * 2) * points + q) * m + column];
            s += parts[(((u64)i * 2 + 1) * points + q) * m + column];
        }
        c = c / n - targets[first + q];
        s /= n;
        cosines[(u64)(first + q) * m + column] = c;
        sines[(u64)(first + q) * m + column] = s;
        error += weights[first + q] * (c * c + s * s);
    }
    errors[column] = error;
    values[column] = (float)(error * n);
}

/// `dy_ij = g_j sum_q 2 w_q t_q [mean sin cos(t_q y_ij) - (mean cos - target) sin(t_q y_ij)]` over the points of a launch,
/// added where `first` is not 0. Blocks of 32 columns x 8 rows.
extern "C" __global__ void wave_slopes(const float* y, const double* cosines, const double* sines, const double* weights,
                                       const float* g, float* dy, u32 n, u32 m, u32 points, u32 first, double step, u32 per) {
    const u32 column = blockIdx.x * 32 + threadIdx.x;
    if (column >= m) return;
    const u64 begin = (u64)blockIdx.y * per, stop = begin + per, end = stop < n ? stop : n;
    float along[POINTS], across[POINTS];
#pragma unroll
    for (u32 q = 0; q < POINTS; ++q) {
        along[q] = across[q] = 0.0f;
        if (q < points) {
            const double factor = g[column] * 2.0 * weights[first + q] * step * (first + q);
            along[q] = (float)(factor * sines[(u64)(first + q) * m + column]);
            across[q] = (float)(-factor * cosines[(u64)(first + q) * m + column]);
        }
    }
    for (u64 row = begin + threadIdx.y; row < end; row += 8) {
        const u64 at = row * m + column;
        float a, b, c, s;
        turn(y[at], (float)step, first, a, b, c, s);
        float slope = 0.0f;
#pragma unroll
        for (u32 q = 0; q < POINTS; ++q) {
            if (q >= points) break;
            slope += along[q] * c + across[q] * s;
            const float next = c * a - s * b;
            s = s * a + c * b;
            c = next;
        }
        dy[at] = first ? dy[at] + slope : slope;
    }
}
