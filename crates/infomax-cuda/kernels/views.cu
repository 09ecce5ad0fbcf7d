//! Random views of small images that all lie in the memory of the device: crop and resize, changes of color, gray, blur,
//! solarization, flips and normalization in one launch, with what the host drew.
//!
//! The arithmetic is that of the views on the host (Pillow's), to the bit: whole numbers for resizing and blur, and in
//! floating point one rounding after each operation, which `__fmul_rn` and `__fadd_rn` keep from being fused. A block
//! computes one view in its shared memory.
#include "common.cuh"

typedef unsigned char u8;

/// The words of a view, as `ViewTables::words` of the host writes them.
struct View {
    u32 image, x, y, width, height, flags, threshold, reserved;
    u32 steps[8];
    u32 radius, weights[9];
};
enum Flag { FLIP = 1, VERTICAL = 2, GRAY = 4, COLUMNS_FIRST = 8, SOLARIZE = 16 };
enum Step { NOTHING, BRIGHTNESS, CONTRAST, SATURATION, HUE };

/// The integer part of a number in 0..=255.
__device__ __forceinline__ u8 truncated(float x) { return (u8)(int)floorf(x); }

/// `level + factor (v - level)`, clamped.
__device__ __forceinline__ u8 blend(int level, u8 v, float factor) {
    const float mixed = __fadd_rn((float)level, __fmul_rn(factor, (float)((int)v - level)));
    return truncated(fminf(fmaxf(mixed, 0.0f), 255.0f));
}

__device__ __forceinline__ u8 luma(u8 r, u8 g, u8 b) { return (u8)((r * 19595u + g * 38470u + b * 7471u + 0x8000u) >> 16); }

/// The integer part of the exact product `255 x`, for `x` in 0..=1.
__device__ __forceinline__ u8 scaled(float x) {
    const float whole = floorf(__fmul_rn(x, 255.0f));
    return truncated(__fadd_rn(__fmul_rn(x, 256.0f), -whole) < x ? whole - 1.0f : whole);
}

/// Turns the hue of a pixel by `offset / 255` of a full turn, through Pillow's HSV of 8 bits.
__device__ __forceinline__ void turn(u8& r, u8& g, u8& b, u8 offset) {
    const u8 low_rg = r < g ? r : g, high_rg = r > g ? r : g;
    const u8 least = low_rg < b ? low_rg : b, v = high_rg > b ? high_rg : b;
    if (v == least) return;
    const float range = (float)(v - least);
    const float rc = (float)(v - r) / range, gc = (float)(v - g) / range, bc = (float)(v - b) / range;
    float hue;
    if (r == v) hue = bc - gc;
    else if (g == v) hue = bc == 1.0f ? 1.0f + rc : 3.0f - bc;
    else hue = rc == 1.0f ? 3.0f + gc : 5.0f - rc;
    const double turned = (double)hue / 6.0 + 1.0;
    const float part = (float)(turned >= 1.0 ? turned - 1.0 : turned);
    const u8 h = (u8)(scaled(part) + offset), s = scaled(range / (float)v);

    const float sector = __fmul_rn((float)h, 6.0f) / 255.0f, whole = floorf(sector), f = __fadd_rn(sector, -whole);
    const float fs = (float)s / 255.0f, value = (float)v;
    const u8 p = truncated(__fadd_rn(__fmul_rn(value, __fadd_rn(1.0f, -fs)), 0.5f));
    const u8 q = truncated(__fadd_rn(__fmul_rn(value, __fadd_rn(1.0f, -__fmul_rn(fs, f))), 0.5f));
    const u8 t = truncated(__fadd_rn(__fmul_rn(value, __fadd_rn(1.0f, -__fmul_rn(fs, __fadd_rn(1.0f, -f)))), 0.5f));
    switch ((int)whole) {
        case 1: r = q, g = v, b = p; break;
        case 2: r = p, g = v, b = t; break;
        case 3: r = p, g = q, b = v; break;
        case 4: r = t, g = p, b = v; break;
        case 5: r = v, g = p, b = q; break;
        default: r = v, g = t, b = p; break;
    }
}

/// The index that a mirror at the first and the last pixel shows at `i`.
__device__ __forceinline__ int reflected(int i, int n) {
    if (n == 1) return 0;
    while (i < 0 || i >= n) i = i < 0 ? -i : 2 * (n - 1) - i;
    return i;
}

__device__ __forceinline__ u8 clipped(int sum) {
    const int v = sum >> 22;
    return (u8)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/// The weights of one axis: how many there are for a pixel, the first input pixel of each output pixel, the weights.
struct Axis {
    int count;
    const int *first, *weights;
    __device__ Axis(const int* axes, u32 length, u32 size) {
        const int* at = axes + axes[length];
        count = at[0];
        first = at + 1;
        weights = at + 1 + size;
    }
};

/// Resizes the crop of one channel into `plane`; `between` holds it after the first of the two passes.
__device__ __forceinline__ void resize(const View& view, const u8* image, u32 width, const int* axes, u32 size, u8* between, u8* plane) {
    const Axis across(axes, view.width, size), down(axes, view.height, size);
    const u8* crop = image + ((u64)view.y * width + view.x) * 3;
    const bool columns = view.flags & COLUMNS_FIRST;
    const u32 row = columns ? view.width : size, rows = columns ? size : view.height;
    for (u32 i = threadIdx.x; i < row * rows; i += blockDim.x) {
        const u32 y = i / row, x = i % row;
        const Axis& axis = columns ? down : across;
        const u32 out = columns ? y : x;
        const u8* from = columns ? crop + ((u64)axis.first[out] * width + x) * 3 : crop + ((u64)y * width + axis.first[out]) * 3;
        const u64 step = columns ? 3 * (u64)width : 3;
        int sum = 1 << 21;
        for (int k = 0; k < axis.count; ++k) sum += from[k * step] * axis.weights[out * axis.count + k];
        between[i] = clipped(sum);
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < size * size; i += blockDim.x) {
        const u32 y = i / size, x = i % size;
        const Axis& axis = columns ? across : down;
        const u32 out = columns ? x : y;
        const u8* from = columns ? between + y * row + axis.first[out] : between + axis.first[out] * row + x;
        const u32 step = columns ? 1 : row;
        int sum = 1 << 21;
        for (int k = 0; k < axis.count; ++k) sum += from[k * step] * axis.weights[out * axis.count + k];
        plane[i] = clipped(sum);
    }
    __syncthreads();
}

/// Blurs one plane: columns, then rows; values have 7 bits behind the binary point, weights 16.
__device__ __forceinline__ void blurred(const View& view, u32 size, unsigned short* between, u8* plane) {
    const int radius = (int)view.radius, n = (int)size;
    const u32 bias = (view.radius + 1) / 2;
    for (u32 i = threadIdx.x; i < size * size; i += blockDim.x) {
        const int y = (int)(i / size), x = (int)(i % size);
        u32 sum = bias;
        for (int k = 0; k <= radius; ++k) {
            u32 values = (u32)plane[reflected(y - k, n) * n + x] << 7;
            if (k > 0) values += (u32)plane[reflected(y + k, n) * n + x] << 7;
            sum += (values * view.weights[k]) >> 16;
        }
        between[i] = (unsigned short)sum;
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < size * size; i += blockDim.x) {
        const int y = (int)(i / size), x = (int)(i % size);
        u32 sum = bias;
        for (int k = 0; k <= radius; ++k) {
            u32 values = between[y * n + reflected(x - k, n)];
            if (k > 0) values += between[y * n + reflected(x + k, n)];
            sum += (values * view.weights[k]) >> 16;
        }
        const u32 v = (sum + 64) >> 7;
        plane[i] = (u8)(v > 255 ? 255 : v);
    }
    __syncthreads();
}

/// One change of color of all pixels.
__device__ __forceinline__ void change(u32 step, u32 value, u32 pixels, u8* r, u8* g, u8* b) {
    const float factor = __uint_as_float(value);
    int level = 0;
    if (step == CONTRAST) {
        u32 sum = 0;
        for (u32 i = threadIdx.x; i < pixels; i += blockDim.x) sum += luma(r[i], g[i], b[i]);
        sum = over_row(sum, Sum(), 0u);
        level = (int)((double)sum / (double)pixels + 0.5);
    }
    for (u32 i = threadIdx.x; i < pixels; i += blockDim.x) {
        if (step == HUE) {
            turn(r[i], g[i], b[i], (u8)value);
        } else {
            const int l = step == SATURATION ? luma(r[i], g[i], b[i]) : level;
            r[i] = blend(l, r[i], factor);
            g[i] = blend(l, g[i], factor);
            b[i] = blend(l, b[i], factor);
        }
    }
    __syncthreads();
}

/// `out` is `(views, 3, size, size)`; `images` are `(count, height, width, 3)`; `normal` holds the normalized value of each
/// of the 256 values of each channel. No side of an image or of a view is longer than `SIDE`.
template <int SIDE>
__device__ __forceinline__ void views(const u8* images, const View* table, const int* axes, const float* normal, float* out,
                                      u32 width, u32 height, u32 size) {
    __shared__ u8 planes[3 * SIDE * SIDE];
    __shared__ unsigned short between[SIDE * SIDE];
    const View& view = table[blockIdx.x];
    const u32 pixels = size * size;
    const u8* image = images + (u64)view.image * width * height * 3;
    u8 *r = planes, *g = planes + pixels, *b = planes + 2 * pixels;
    for (u32 c = 0; c < 3; ++c) resize(view, image + c, width, axes, size, (u8*)between, planes + c * pixels);
    for (u32 k = 0; k < 4; ++k) {
        if (view.steps[2 * k] != NOTHING) change(view.steps[2 * k], view.steps[2 * k + 1], pixels, r, g, b);
    }
    if (view.flags & GRAY) {
        for (u32 i = threadIdx.x; i < pixels; i += blockDim.x) r[i] = g[i] = b[i] = luma(r[i], g[i], b[i]);
        __syncthreads();
    }
    if (view.radius > 0) {
        for (u32 c = 0; c < 3; ++c) blurred(view, size, between, planes + c * pixels);
    }
    for (u32 i = threadIdx.x; i < 3 * pixels; i += blockDim.x) {
        const u32 c = i / pixels, at = i % pixels, y = at / size, x = at % size;
        const u32 from_y = view.flags & VERTICAL ? size - 1 - y : y, from_x = view.flags & FLIP ? size - 1 - x : x;
        u32 v = planes[c * pixels + from_y * size + from_x];
        if (view.flags & SOLARIZE && v >= view.threshold) v = 255 - v;
        out[(u64)blockIdx.x * 3 * pixels + i] = normal[c * 256 + v];
    }
}

extern "C" __global__ void views_32(const u8* images, const View* table, const int* axes, const float* normal, float* out, u32 width,
                                    u32 height, u32 size) {
    views<32>(images, table, axes, normal, out, width, height, size);
}
extern "C" __global__ void views_64(const u8* images, const View* table, const int* axes, const float* normal, float* out, u32 width,
                                    u32 height, u32 size) {
    views<64>(images, table, axes, normal, out, width, height, size);
}
extern "C" __global__ void views_96(const u8* images, const View* table, const int* axes, const float* normal, float* out, u32 width,
                                    u32 height, u32 size) {
    views<96>(images, table, axes, normal, out, width, height, size);
}
