//! One step of an optimizer for all parameters in one launch, and the norms that LARS needs.
//!
//! A row of the table describes one parameter; a block takes one chunk of one parameter.
#include "common.cuh"

/// As the host writes it: nine words of 64 bits.
struct Entry {
    float* p;
    const float* g;
    float* m;
    float* v;
    u64 count;
    /// The number of chunks of all entries before.
    u64 first;
    double a, b, c;
};

/// The entry of a chunk, by bisection.
__device__ __forceinline__ u32 entry_of(const Entry* table, u32 count, u64 chunk) {
    u32 low = 0, high = count;
    while (high - low > 1) {
        const u32 middle = (low + high) / 2;
        if (table[middle].first <= chunk) low = middle; else high = middle;
    }
    return low;
}

/// `d = a (g + b p)`, `m <- mu m + d`, `p <- p - lr m`, or with Nesterov's step `p <- p - lr (d + mu m)`.
extern "C" __global__ void sgd(const Entry* table, u32 count, u32 chunk, double lr, double mu, u32 nesterov) {
    const Entry e = table[entry_of(table, count, blockIdx.x)];
    const u64 begin = (blockIdx.x - e.first) * chunk, stop = begin + chunk, end = stop < e.count ? stop : e.count;
    const float scale = (float)e.a, decay = (float)e.b, rate = (float)lr, keep = (float)mu;
    for (u64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const float d = scale * (e.g[i] + decay * e.p[i]);
        const float m = keep * e.m[i] + d;
        e.m[i] = m;
        e.p[i] -= rate * (nesterov ? d + keep * m : m);
    }
}

/// `m <- m + (1 - b1)(g - m)`, `v <- b2 v + (1 - b2) g^2`, `p <- a p - b m / (sqrt(v) / c + eps)`.
extern "C" __global__ void adamw(const Entry* table, u32 count, u32 chunk, double beta1, double beta2, double eps) {
    const Entry e = table[entry_of(table, count, blockIdx.x)];
    const u64 begin = (blockIdx.x - e.first) * chunk, stop = begin + chunk, end = stop < e.count ? stop : e.count;
    const float keep = (float)e.a, rate = (float)e.b, root = (float)e.c;
    const float one = (float)(1.0 - beta1), old = (float)beta2, new_ = (float)(1.0 - beta2), small = (float)eps;
    for (u64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const float g = e.g[i];
        const float m = e.m[i] + one * (g - e.m[i]);
        const float v = old * e.v[i] + new_ * g * g;
        e.m[i] = m;
        e.v[i] = v;
        e.p[i] = keep * e.p[i] - rate * (m / (sqrtf(v) / root + small));
    }
}

/// `sum p^2`, `sum g^2`, `sum p g` of each chunk.
extern "C" __global__ void norms(const Entry* table, u32 count, u32 chunk, double* sums) {
    const Entry e = table[entry_of(table, count, blockIdx.x)];
    const u64 begin = (blockIdx.x - e.first) * chunk, stop = begin + chunk, end = stop < e.count ? stop : e.count;
    double pp = 0.0, gg = 0.0, pg = 0.0;
    for (u64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const double p = e.p[i], g = e.g[i];
        pp += p * p;
        gg += g * g;
        pg += p * g;
    }
    pp = over_row(pp, Sum(), 0.0);
    gg = over_row(gg, Sum(), 0.0);
    pg = over_row(pg, Sum(), 0.0);
    if (threadIdx.x == 0) {
        sums[3 * (u64)blockIdx.x] = pp;
        sums[3 * (u64)blockIdx.x + 1] = gg;
        sums[3 * (u64)blockIdx.x + 2] = pg;
    }
}

/// The direction of LAMB: `m / b / (sqrt(v) / c + eps) + a p`.
__device__ __forceinline__ float lamb_direction(const Entry& e, u64 i, float decay, float rate, float root, float small) {
    return rate * (e.m[i] / (sqrtf(e.v[i]) / root + small)) + decay * e.p[i];
}

/// `m <- m + (1 - b1)(g - m)`, `v <- b2 v + (1 - b2) g^2`, and `sum p^2`, `sum r^2` of each chunk with the direction `r`.
extern "C" __global__ void lamb_moments(const Entry* table, u32 count, u32 chunk, double beta1, double beta2, double eps, double* sums) {
    const Entry e = table[entry_of(table, count, blockIdx.x)];
    const u64 begin = (blockIdx.x - e.first) * chunk, stop = begin + chunk, end = stop < e.count ? stop : e.count;
    const float decay = (float)e.a, rate = (float)e.b, root = (float)e.c, small = (float)eps;
    const float one = (float)(1.0 - beta1), old = (float)beta2, new_ = (float)(1.0 - beta2);
    double pp = 0.0, rr = 0.0;
    for (u64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const float g = e.g[i];
        e.m[i] = e.m[i] + one * (g - e.m[i]);
        e.v[i] = old * e.v[i] + new_ * g * g;
        const double p = e.p[i], r = lamb_direction(e, i, decay, rate, root, small);
        pp += p * p;
        rr += r * r;
    }
    pp = over_row(pp, Sum(), 0.0);
    rr = over_row(rr, Sum(), 0.0);
    if (threadIdx.x == 0) {
        sums[2 * (u64)blockIdx.x] = pp;
        sums[2 * (u64)blockIdx.x + 1] = rr;
    }
}

/// `p <- p - lr q r` with the trust ratio `q = |p| / |r|`, at most `most`; 1 where a norm is 0 or with `adapt = 0`.
extern "C" __global__ void lamb(const Entry* table, u32 count, u32 chunk, double lr, double eps, double most, u32 adapt, const double* sums) {
    const Entry e = table[entry_of(table, count, blockIdx.x)];
    const u64 begin = (blockIdx.x - e.first) * chunk, stop = begin + chunk, end = stop < e.count ? stop : e.count;
    double q = 1.0;
    if (adapt) {
        // Every block of a parameter adds its chunks in the same order.
        double pp = 0.0, rr = 0.0;
        const u64 chunks = (e.count + chunk - 1) / chunk;
        for (u64 k = 0; k < chunks; ++k) {
            pp += sums[2 * (e.first + k)];
            rr += sums[2 * (e.first + k) + 1];
        }
        if (pp > 0.0 && rr > 0.0) {
            q = sqrt(pp) / sqrt(rr);
            q = q < most ? q : most;
        }
    }
    const float decay = (float)e.a, rate = (float)e.b, root = (float)e.c, small = (float)eps, step = (float)(lr * q);
    for (u64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
        e.p[i] -= step * lamb_direction(e, i, decay, rate, root, small);
    }
}
