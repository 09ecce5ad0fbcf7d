//! Pooling of images with the channels first (`last` 0) or last (1).
//!
//! Both directions gather: a thread owns one pixel of what it writes, so nothing is added atomically.
#include "common.cuh"

/// A pixel of a batch of images, from its place in memory. The host refuses 2^31 elements and more.
struct Pixel {
    u32 n, c, h, w;
};

__device__ __forceinline__ Pixel pixel(u32 i, u32 channels, u32 height, u32 width, u32 last) {
    Pixel p;
    if (last) {
        p.c = i % channels;
        i /= channels;
        p.w = i % width;
        i /= width;
        p.h = i % height;
        p.n = i / height;
    } else {
        p.w = i % width;
        i /= width;
        p.h = i % height;
        i /= height;
        p.c = i % channels;
        p.n = i / channels;
    }
    return p;
}

__device__ __forceinline__ u32 index(u32 n, u32 c, u32 h, u32 w, u32 channels, u32 height, u32 width, u32 last) {
    return last ? ((n * height + h) * width + w) * channels + c : ((n * channels + c) * height + h) * width + w;
}

/// Sizes of one pooling.
struct Sizes {
    u32 n, c, h, w, p, q, kernel, stride, padding, last;
};

/// The first row (or column) of window `i`, and the one behind its last, inside of the image.
__device__ __forceinline__ u32 from(u32 i, const Sizes& s) { return i * s.stride < s.padding ? 0 : i * s.stride - s.padding; }
__device__ __forceinline__ u32 to(u32 i, u32 len, const Sizes& s) {
    const u32 end = i * s.stride + s.kernel - s.padding;
    return end < len ? end : len;
}
/// The first window that holds row `i`, and the one behind the last.
__device__ __forceinline__ u32 first_window(u32 i, const Sizes& s) {
    const u32 at = i + s.padding;
    return at < s.kernel ? 0 : (at - s.kernel) / s.stride + 1;
}
__device__ __forceinline__ u32 last_window(u32 i, u32 count, const Sizes& s) {
    const u32 end = (i + s.padding) / s.stride + 1;
    return end < count ? end : count;
}

/// The largest pixel of each window, the first of equal ones, the last NaN; `places` keeps its `h w` index.
template <class T> __device__ void max_forward(const T* x, T* y, u32* places, Sizes s) {
    const u32 count = s.n * s.c * s.p * s.q;
    for (u32 i = (u32)own_first(); i < count; i += (u32)own_step()) {
        const Pixel o = pixel(i, s.c, s.p, s.q, s.last);
        const u32 top = from(o.h, s), bottom = to(o.h, s.h, s), left = from(o.w, s), right = to(o.w, s.w, s);
        u32 place = top * s.w + left;
        float best = widen(x[index(o.n, o.c, top, left, s.c, s.h, s.w, s.last)]);
        for (u32 h = top; h < bottom; ++h) {
            for (u32 w = left; w < right; ++w) {
                const float v = widen(x[index(o.n, o.c, h, w, s.c, s.h, s.w, s.last)]);
                if (v > best || v != v) {
                    best = v;
                    place = h * s.w + w;
                }
            }
        }
        y[i] = narrow<T>(best);
        places[i] = place;
    }
}

template <class T> __device__ void max_backward(const u32* places, const T* g, T* dx, Sizes s) {
    const u32 count = s.n * s.c * s.h * s.w;
    for (u32 i = (u32)own_first(); i < count; i += (u32)own_step()) {
        const Pixel o = pixel(i, s.c, s.h, s.w, s.last);
        const u32 place = o.h * s.w + o.w;
        float sum = 0.0f;
        for (u32 p = first_window(o.h, s); p < last_window(o.h, s.p, s); ++p) {
            for (u32 q = first_window(o.w, s); q < last_window(o.w, s.q, s); ++q) {
                const u32 at = index(o.n, o.c, p, q, s.c, s.p, s.q, s.last);
                if (places[at] == place) sum += widen(g[at]);
            }
        }
        dx[i] = narrow<T>(sum);
    }
}

/// The mean of each window; padding counts as zeros.
template <class T> __device__ void avg_forward(const T* x, T* y, Sizes s) {
    const u32 count = s.n * s.c * s.p * s.q;
    const float scale = 1.0f / (s.kernel * s.kernel);
    for (u32 i = (u32)own_first(); i < count; i += (u32)own_step()) {
        const Pixel o = pixel(i, s.c, s.p, s.q, s.last);
        float sum = 0.0f;
        for (u32 h = from(o.h, s); h < to(o.h, s.h, s); ++h) {
            for (u32 w = from(o.w, s); w < to(o.w, s.w, s); ++w) {
                sum += widen(x[index(o.n, o.c, h, w, s.c, s.h, s.w, s.last)]);
            }
        }
        y[i] = narrow<T>(sum * scale);
    }
}

template <class T> __device__ void avg_backward(const T* g, T* dx, Sizes s) {
    const u32 count = s.n * s.c * s.h * s.w;
    const float scale = 1.0f / (s.kernel * s.kernel);
    for (u32 i = (u32)own_first(); i < count; i += (u32)own_step()) {
        const Pixel o = pixel(i, s.c, s.h, s.w, s.last);
        float sum = 0.0f;
        for (u32 p = first_window(o.h, s); p < last_window(o.h, s.p, s); ++p) {
            for (u32 q = first_window(o.w, s); q < last_window(o.w, s.q, s); ++q) {
                sum += widen(g[index(o.n, o.c, p, q, s.c, s.p, s.q, s.last)]);
            }
        }
        dx[i] = narrow<T>(sum * scale);
    }
}

/// The mean over the middle dimension of `(n, pixels, channels)`.
template <class T> __device__ void middle_mean(const T* x, T* y, u32 n, u32 pixels, u32 channels) {
    const u32 i = (u32)own_first();
    if (i >= n * channels) return;
    const u32 image = i / channels, c = i % channels;
    float sum = 0.0f;
    for (u32 p = 0; p < pixels; ++p) sum += widen(x[(image * pixels + p) * channels + c]);
    y[i] = narrow<T>(sum / pixels);
}

/// `dx[i] = g[plane of i] / pixels`, for both layouts.
template <class T> __device__ void mean_backward(const T* g, T* dx, u32 count, u32 pixels, u32 channels, u32 last) {
    const float scale = 1.0f / pixels;
    for (u32 i = (u32)own_first(); i < count; i += (u32)own_step()) {
        const u32 plane = last ? i / (pixels * channels) * channels + i % channels : i / pixels;
        dx[i] = narrow<T>(widen(g[plane]) * scale);
    }
}

#define SIZES u32 n, u32 c, u32 h, u32 w, u32 p, u32 q, u32 kernel, u32 stride, u32 padding, u32 last
#define GIVEN Sizes{n, c, h, w, p, q, kernel, stride, padding, last}
#define ENTRIES(T, S)                                                                                                        \
    extern "C" __global__ void max_forward_##S(const T* x, T* y, u32* places, SIZES) { max_forward(x, y, places, GIVEN); }   \
    extern "C" __global__ void max_backward_##S(const u32* places, const T* g, T* dx, SIZES) {                               \
        max_backward(places, g, dx, GIVEN);                                                                                  \
    }                                                                                                                        \
    extern "C" __global__ void avg_forward_##S(const T* x, T* y, SIZES) { avg_forward(x, y, GIVEN); }                        \
    extern "C" __global__ void avg_backward_##S(const T* g, T* dx, SIZES) { avg_backward(g, dx, GIVEN); }                    \
    extern "C" __global__ void middle_mean_##S(const T* x, T* y, u32 n, u32 pixels, u32 channels) {                          \
        middle_mean(x, y, n, pixels, channels);                                                                              \
    }                                                                                                                        \
    extern "C" __global__ void mean_backward_##S(const T* g, T* dx, u32 count, u32 pixels, u32 channels, u32 last) {         \
        mean_backward(g, dx, count, pixels, channels, last);                                                                 \
    }

ENTRIES(float, f32)
ENTRIES(bf16, bf16)
#undef ENTRIES
#undef SIZES
#undef GIVEN
