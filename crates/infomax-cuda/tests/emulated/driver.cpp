//! A stand-in for `libcuda.so.1` (and for what is needed of cuBLAS and cuDNN, as plain loops): device memory is host memory,
//! kernels run in the emulation of `cuda.hpp`, everything at once. With it `device_check` runs its groups of own kernels
//! on a machine without a card: it checks the launches, their arguments and the backward passes.
//!
//! Functions that are not here are made by `driver.sh` and return success. Of Candle's kernels only those are here that
//! the check needs (indices contiguous); a program that asks for another one is told its name.
#include "cuda.hpp"

#include "../../kernels/batch_norm.cu"
#include "../../kernels/characteristic.cu"
#include "../../kernels/cross_entropy.cu"
#include "../../kernels/elementwise.cu"
#include "../../kernels/moments.cu"
#include "../../kernels/optim.cu"
#include "../../kernels/pairwise.cu"
#include "../../kernels/pool.cu"
#include "../../kernels/rows.cu"
#include "../../kernels/views.cu"

#include <unistd.h>

#include <cmath>
#include <map>
#include <string>
#include <tuple>
#include <utility>

using std::string;

/// A kernel: takes the addresses of its arguments, and gives the function that one thread runs.
using Kernel = std::function<std::function<void()>(void**)>;

template <class... A, size_t... I> static std::function<void()> bound(void (*f)(A...), void** p, std::index_sequence<I...>) {
    std::tuple<A...> args(*static_cast<A*>(p[I])...);
    return [f, args] { std::apply(f, args); };
}
template <class... A> static Kernel of(void (*f)(A...)) {
    return [f](void** p) { return bound(f, p, std::index_sequence_for<A...>{}); };
}

// Candle's kernels, one thread doing everything: (count, dims, info, ...), where info is dims and strides, or null.
static size_t strided(size_t i, size_t rank, const size_t* dims, const size_t* strides) {
    size_t at = 0;
    for (size_t d = rank; d-- > 0;) {
        at += i % dims[d] * strides[d];
        i /= dims[d];
    }
    return at;
}
static bool once() { return blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0 && threadIdx.y == 0; }

template <class T, char op> static void binary(size_t n, size_t rank, const size_t* info, const T* a, const T* b, T* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        const float x = widen(a[info ? strided(i, rank, info, info + rank) : i]);
        const float y = widen(b[info ? strided(i, rank, info, info + 2 * rank) : i]);
        out[i] = narrow<T>(op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : x / y);
    }
}
template <class T, char op> static void unary(size_t n, size_t rank, const size_t* info, const T* a, T* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        const float x = widen(a[info ? strided(i, rank, info, info + rank) : i]);
        out[i] = narrow<T>(op == '=' ? x : op == '2' ? x * x : op == 'r' ? std::sqrt(x) : -x);
    }
}
template <class T, class U> static void cast(size_t n, size_t rank, const size_t* info, const T* a, U* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) out[i] = narrow<U>(widen(a[info ? strided(i, rank, info, info + rank) : i]));
}
template <class T> static void affine(size_t n, size_t rank, const size_t* info, const T* a, T* out, T mul, T add) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        out[i] = narrow<T>(widen(a[info ? strided(i, rank, info, info + rank) : i]) * widen(mul) + widen(add));
    }
}
template <class T> static void const_set(size_t n, size_t rank, const size_t* info, T value, T* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) out[info ? strided(i, rank, info, info + rank) : i] = value;
}
template <class T> static void copy2d(const T* a, T* out, u32 rows, u32 width, u32 from, u32 to) {
    if (!once()) return;
    for (size_t i = 0; i < rows; ++i)
        for (size_t j = 0; j < width; ++j) out[i * to + j] = a[i * from + j];
}
template <class T, bool small>
static void fast_sum(size_t n, size_t each, size_t rank, const size_t* info, const T* a, T* out) {
    if (!once()) return;
    const size_t outs = small ? n : n / each;
    for (size_t i = 0; i < outs; ++i) {
        double sum = 0;
        for (size_t j = 0; j < each; ++j) sum += widen(a[info ? strided(i * each + j, rank, info, info + rank) : i * each + j]);
        out[i] = narrow<T>((float)sum);
    }
}

// The same for any type, and more operations, in f64; `number` and `made` are the conversions.
template <class T> static double number(T x) { return (double)x; }
template <> double number<bf16>(bf16 x) { return widen(x); }
template <class T> static T made(double x) { return (T)x; }
template <> bf16 made<bf16>(double x) { return narrow<bf16>((float)x); }

template <class T, int op> static void more_unary(size_t n, size_t rank, const size_t* info, const T* a, T* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        const double x = number(a[info ? strided(i, rank, info, info + rank) : i]);
        const double y[] = {x, x * x, std::sqrt(x), -x, std::exp(x), std::log(x), std::sin(x), std::cos(x), std::fabs(x), 1 / x,
                            x > 0 ? x : 0, std::erf(x), std::tanh(x), 1 / (1 + std::exp(-x)), std::floor(x), std::ceil(x), std::round(x),
                            (double)((x > 0) - (x < 0))};
        out[i] = made<T>(y[op]);
    }
}
template <class T, int op> static void more_binary(size_t n, size_t rank, const size_t* info, const T* a, const T* b, T* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        const double x = number(a[info ? strided(i, rank, info, info + rank) : i]);
        const double y = number(b[info ? strided(i, rank, info, info + 2 * rank) : i]);
        const double z[] = {x + y, x - y, x * y, x / y, std::fmax(x, y), std::fmin(x, y)};
        out[i] = made<T>(z[op]);
    }
}
template <class T, int op>
static void compare(size_t n, size_t rank, const size_t* info, const T* a, const T* b, unsigned char* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        const double x = number(a[info ? strided(i, rank, info, info + rank) : i]);
        const double y = number(b[info ? strided(i, rank, info, info + 2 * rank) : i]);
        const bool z[] = {x == y, x != y, x < y, x <= y, x > y, x >= y};
        out[i] = z[op];
    }
}
template <class T, class U> static void convert(size_t n, size_t rank, const size_t* info, const T* a, U* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) out[i] = made<U>(number(a[info ? strided(i, rank, info, info + rank) : i]));
}
template <class T> static void more_affine(size_t n, size_t rank, const size_t* info, const T* a, T* out, T mul, T add) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        out[i] = made<T>(number(a[info ? strided(i, rank, info, info + rank) : i]) * number(mul) + number(add));
    }
}
template <class T> static void power(size_t n, size_t rank, const size_t* info, T param, const T* a, T* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        out[i] = made<T>(std::pow(number(a[info ? strided(i, rank, info, info + rank) : i]), number(param)));
    }
}
template <class T, int op> static void reduce(size_t n, size_t each, size_t rank, const size_t* info, const T* a, T* out) {
    if (!once()) return;
    const size_t outs = op == 3 ? n : n / each;
    for (size_t i = 0; i < outs; ++i) {
        double sum = op == 1 ? -INFINITY : op == 2 ? INFINITY : 0;
        for (size_t j = 0; j < each; ++j) {
            const double x = number(a[info ? strided(i * each + j, rank, info, info + rank) : i * each + j]);
            sum = op == 1 ? std::fmax(sum, x) : op == 2 ? std::fmin(sum, x) : sum + x;
        }
        out[i] = made<T>(sum);
    }
}
template <class T>
static void choose(size_t n, size_t rank, const size_t* info, const unsigned char* c, const T* t, const T* f, T* out) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        auto at = [&](int k) { return info ? strided(i, rank, info, info + k * rank) : i; };
        out[i] = c[at(1)] ? t[at(2)] : f[at(3)];
    }
}
template <class T>
static void select(size_t n, size_t, const size_t*, const u32* ids, const T* a, T* out, size_t, size_t from, size_t count, size_t right) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) {
        const size_t at = i / (count * right) * (from * right) + ids[i / right % count] * right + i % right;
        out[i] = a[at];
    }
}
template <class T> static void pick(size_t n, const u32* ids, const T* a, T* out, size_t, size_t from, size_t count, size_t right) {
    if (!once()) return;
    for (size_t i = 0; i < n; ++i) out[i] = a[(i / (right * count) * from + ids[i]) * right + i % right];
}
template <class T>
static void index_add(const u32* ids, size_t count, const T* a, T* out, size_t left, size_t, size_t to, size_t right) {
    if (!once()) return;
    for (size_t i = 0; i < left * right; ++i)
        for (size_t j = 0; j < count; ++j) {
            T& o = out[(i / right * to + ids[j]) * right + i % right];
            o = made<T>(number(o) + number(a[(i / right * count + j) * right + i % right]));
        }
}
template <class T> static void scatter_add(const u32* ids, const T* a, T* out, size_t left, size_t from, size_t to, size_t right) {
    if (!once()) return;
    for (size_t i = 0; i < left * right; ++i)
        for (size_t j = 0; j < from; ++j) {
            const size_t at = (i / right * from + j) * right + i % right;
            T& o = out[(i / right * to + ids[at]) * right + i % right];
            o = made<T>(number(o) + number(a[at]));
        }
}

template <class T, size_t... I> static void add_typed(std::map<string, Kernel>& all, const string& t, std::index_sequence<I...>) {
    const char* ones[] = {"ucopy", "usqr", "usqrt", "uneg", "uexp", "ulog", "usin", "ucos", "uabs", "urecip", "urelu", "uerf", "utanh",
                          "usigmoid", "ufloor", "uceil", "uround", "usign"};
    (all.emplace(string(ones[I]) + "_" + t, of(more_unary<T, (int)I>)), ...);
    const char* twos[] = {"badd", "bsub", "bmul", "bdiv", "bmaximum", "bminimum"};
    const char* orders[] = {"eq", "ne", "lt", "le", "gt", "ge"};
    auto two = [&]<size_t... J>(std::index_sequence<J...>) {
        (all.emplace(string(twos[J]) + "_" + t, of(more_binary<T, (int)J>)), ...);
        (all.emplace(string(orders[J]) + "_" + t, of(compare<T, (int)J>)), ...);
    };
    two(std::make_index_sequence<6>());
    all.emplace("affine_" + t, of(more_affine<T>));
    all.emplace("upowf_" + t, of(power<T>));
    all.emplace("const_set_" + t, of(const_set<T>));
    all.emplace("copy2d_" + t, of(copy2d<T>));
    all.emplace("fast_sum_" + t, of(reduce<T, 0>));
    all.emplace("fast_max_" + t, of(reduce<T, 1>));
    all.emplace("fast_min_" + t, of(reduce<T, 2>));
    all.emplace("fast_sum_small_" + t, of(reduce<T, 3>));
    all.emplace("where_u8_" + t, of(choose<T>));
    all.emplace("is_u32_" + t, of(select<T>));
    all.emplace("gather_u32_" + t, of(pick<T>));
    all.emplace("ia_u32_" + t, of(index_add<T>));
    all.emplace("sa_u32_" + t, of(scatter_add<T>));
    all.emplace("cast_" + t + "_f32", of(convert<T, float>));
    all.emplace("cast_" + t + "_f64", of(convert<T, double>));
    all.emplace("cast_" + t + "_u32", of(convert<T, u32>));
    all.emplace("cast_" + t + "_u8", of(convert<T, unsigned char>));
    all.emplace("cast_" + t + "_bf16", of(convert<T, bf16>));
}

#define BOTH(name) {#name "_f32", of(name##_f32)}, {#name "_bf16", of(name##_bf16)}
#define PACKS(name) {#name "_f32_1", of(name##_f32_1)}, {#name "_f32_4", of(name##_f32_4)}, {#name "_bf16_1", of(name##_bf16_1)}, {#name "_bf16_4", of(name##_bf16_4)}
#define CANDLE(name, f, op) {name "_f32", of(f<float, op>)}, {name "_bf16", of(f<bf16, op>)}
#define TYPED(name, f) {name "_f32", of(f<float>)}, {name "_bf16", of(f<bf16>)}

static const std::map<string, Kernel>& kernels() {
    static std::map<string, Kernel> all = {
        BOTH(norm_forward), BOTH(norm_backward), BOTH(norm_columns), BOTH(softmax_forward), BOTH(softmax_backward),
        BOTH(lse_forward), BOTH(lse_backward), BOTH(unit_forward), BOTH(unit_backward), BOTH(mean_forward),
        BOTH(max_forward), BOTH(max_backward), BOTH(avg_forward), BOTH(avg_backward), BOTH(middle_mean), BOTH(mean_backward),
        BOTH(moments_finish), PACKS(moments), PACKS(grad_sums), PACKS(apply), PACKS(grad_apply),
        PACKS(unary_forward), PACKS(unary_backward),
        {"column_sums", of(column_sums)}, {"grad_finish", of(grad_finish)}, {"scales_of", of(scales_of)},
        {"strip_log_sums", of(strip_log_sums)}, {"strip_weights", of(strip_weights)}, {"distances", of(distances)},
        {"diagonal", of(diagonal)}, {"laplacian", of(laplacian)}, {"column_parts", of(column_parts)},
        {"column_finish", of(column_finish)}, {"center_parts", of(center_parts)}, {"hinge_terms", of(hinge_terms)},
        {"row_powers", of(row_powers)}, {"moment_values", of(moment_values)}, {"moment_grad", of(moment_grad)},
        {"with_transpose", of(with_transpose)}, {"error_parts", of(error_parts)}, {"error_grad", of(error_grad)},
        {"power_parts", of(power_parts)}, {"sum_parts", of(sum_parts)}, {"over_norm", of(over_norm)},
        {"split_parts", of(split_parts)}, {"wave_sums", of(wave_sums)}, {"wave_errors", of(wave_errors)},
        {"wave_slopes", of(wave_slopes)}, {"entropy_forward", of(entropy_forward)},
        {"entropy_backward", of(entropy_backward)}, {"entropy_mean", of(entropy_mean)},
        {"sgd", of(sgd)}, {"adamw", of(adamw)}, {"norms", of(norms)}, {"lamb_moments", of(lamb_moments)}, {"lamb", of(lamb)},
        {"views_32", of(views_32)}, {"views_64", of(views_64)}, {"views_96", of(views_96)},
        CANDLE("badd", binary, '+'), CANDLE("bsub", binary, '-'), CANDLE("bmul", binary, '*'), CANDLE("bdiv", binary, '/'),
        CANDLE("ucopy", unary, '='), CANDLE("usqr", unary, '2'), CANDLE("usqrt", unary, 'r'), CANDLE("uneg", unary, '-'),
        CANDLE("fast_sum", fast_sum, false), CANDLE("fast_sum_small", fast_sum, true),
        TYPED("affine", affine), TYPED("const_set", const_set), TYPED("copy2d", copy2d),
        {"cast_f32_bf16", of(cast<float, bf16>)}, {"cast_bf16_f32", of(cast<bf16, float>)},
        {"cast_f32_f32", of(cast<float, float>)}, {"cast_bf16_bf16", of(cast<bf16, bf16>)},
    };
    static bool filled = false;
    if (!filled) {
        filled = true;
        const auto ones = std::make_index_sequence<18>();
        add_typed<float>(all, "f32", ones);
        add_typed<double>(all, "f64", ones);
        add_typed<u32>(all, "u32", ones);
        add_typed<unsigned char>(all, "u8", ones);
        add_typed<bf16>(all, "bf16", ones);
    }
    return all;
}

static std::map<void*, size_t> sizes;
static size_t used = 0, high = 0;

extern "C" {
int cuInit(unsigned) { return 0; }
int cuDeviceGet(int* device, int) { return *device = 0; }
int cuDeviceGetCount(int* count) { return *count = 1, 0; }
int cuDeviceGetName(char* name, int count, int) { return std::snprintf(name, count, "stand-in"), 0; }
/// Each process has a card of its own.
int cuDeviceGetUuid(char* uuid, int) { return std::snprintf(uuid, 16, "%015d", (int)getpid()), 0; }
int cuDeviceGetUuid_v2(char* uuid, int device) { return cuDeviceGetUuid(uuid, device); }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = (size_t)8 << 30, 0; }
int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
int cuDeviceGetAttribute(int* value, int, int) { return *value = 1, 0; }
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = (void*)1, 0; }
int cuCtxGetCurrent(void** context) { return *context = (void*)1, 0; }
int cuStreamCreate(void** stream, unsigned) { return *stream = (void*)1, 0; }
int cuEventCreate(void** event, unsigned) { return *event = (void*)1, 0; }
int cuDeviceGetDefaultMemPool(void** pool, int) { return *pool = (void*)1, 0; }
int cuMemPoolSetAttribute(void*, int attribute, void*) {
    if (attribute == 8) high = used;
    return 0;
}
int cuMemPoolGetAttribute(void*, int attribute, void* value) {
    *(u64*)value = attribute == 8 ? high : used;
    return 0;
}
int cuMemAllocAsync(u64* address, size_t bytes, void*) {
    // Space behind the end that must stay as it is.
    char* p = (char*)std::aligned_alloc(256, (bytes + 256 + 255) / 256 * 256);
    std::memset(p + bytes, 0x5a, 256);
    sizes[p] = bytes;
    used += bytes;
    if (used > high) high = used;
    *address = (u64)p;
    return 0;
}
int cuMemFreeAsync(u64 address, void*) {
    char* p = (char*)address;
    const size_t bytes = sizes.at(p);
    for (size_t i = 0; i < 256; ++i) {
        if (p[bytes + i] != 0x5a) {
            std::fprintf(stderr, "a write behind the end of a buffer of %zu bytes\n", bytes);
            std::abort();
        }
    }
    std::memset(p, 0xff, bytes);
    used -= bytes;
    sizes.erase(p);
    std::free(p);
    return 0;
}
int cuMemHostAlloc(void** memory, size_t bytes, unsigned) { return *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096), 0; }
int cuMemFreeHost(void* memory) { return std::free(memory), 0; }
int cuMemsetD8Async(u64 address, unsigned char value, size_t count, void*) { return std::memset((void*)address, value, count), 0; }
int cuMemcpyHtoDAsync_v2(u64 to, const void* from, size_t bytes, void*) { return std::memcpy((void*)to, from, bytes), 0; }
int cuMemcpyDtoHAsync_v2(void* to, u64 from, size_t bytes, void*) { return std::memcpy(to, (void*)from, bytes), 0; }
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, void*) { return std::memmove((void*)to, (void*)from, bytes), 0; }
int cuMemcpyHtoD_v2(u64 to, const void* from, size_t bytes) { return std::memcpy((void*)to, from, bytes), 0; }
int cuMemcpyDtoH_v2(void* to, u64 from, size_t bytes) { return std::memcpy(to, (void*)from, bytes), 0; }
int cuModuleLoadData(void** module, const void*) { return *module = (void*)1, 0; }
int cuModuleGetFunction(void** function, void*, const char* name) {
    const auto found = kernels().find(name);
    if (found == kernels().end()) {
        std::fprintf(stderr, "no kernel %s in the stand-in\n", name);
        return 500;
    }
    *function = (void*)&found->second;
    return 0;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned, unsigned bx, unsigned by, unsigned, unsigned, void*, void** args,
                   void**) {
    emulated::launch(Dim{gx, gy, 1}, Dim{bx, by, 1}, (*(const Kernel*)function)(args));
    return 0;
}
int cublasCreate_v2(void** handle) { return *handle = (void*)1, 0; }
int curandCreateGenerator(void** handle, int) { return *handle = (void*)1, 0; }
/// f64, columns first, as cuBLAS.
int cublasDgemmStridedBatched(void*, int ta, int tb, int m, int n, int k, const double* alpha, const double* a, int lda, long long sa,
                              const double* b, int ldb, long long sb, const double* beta, double* c, int ldc, long long sc, int batch) {
    for (int z = 0; z < batch; ++z)
        for (int j = 0; j < n; ++j)
            for (int i = 0; i < m; ++i) {
                double sum = 0;
                for (int l = 0; l < k; ++l) {
                    sum += a[z * sa + (ta ? l + (long long)i * lda : i + (long long)l * lda)] *
                           b[z * sb + (tb ? j + (long long)l * ldb : l + (long long)j * ldb)];
                }
                double& out = c[z * sc + i + (long long)j * ldc];
                out = *alpha * sum + (*beta != 0 ? *beta * out : 0);
            }
    return 0;
}
/// A factor of f32 as TF32 takes it: rounded to 10 bits of mantissa, where the type of the computation (77) says so.
static double factor(float x, int compute) {
    if (compute != 77 || !std::isfinite(x)) return x;
    return __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xffffe000u);
}
/// f32.
int cublasGemmStridedBatchedEx(void*, int ta, int tb, int m, int n, int k, const float* alpha, const float* a, int, int lda, long long sa,
                               const float* b, int, int ldb, long long sb, const float* beta, float* c, int, int ldc, long long sc,
                               int batch, int compute, int) {
    for (int z = 0; z < batch; ++z)
        for (int j = 0; j < n; ++j)
            for (int i = 0; i < m; ++i) {
                double sum = 0;
                for (int l = 0; l < k; ++l) {
                    sum += factor(a[z * sa + (ta ? l + (long long)i * lda : i + (long long)l * lda)], compute) *
                           factor(b[z * sb + (tb ? j + (long long)l * ldb : l + (long long)j * ldb)], compute);
                }
                float& out = c[z * sc + i + (long long)j * ldc];
                out = (float)(*alpha * sum) + (*beta != 0 ? *beta * out : 0);
            }
    return 0;
}
}

// Convolutions: descriptors hold what they were given.
struct Images {
    int format, type, n, c, h, w;
    size_t at(int i, int k, int y, int x) const {
        return format == 0 ? ((size_t)(i * c + k) * h + y) * w + x : ((size_t)(i * h + y) * w + x) * c + k;
    }
};
struct Geometry {
    int ph, pw, sh, sw, dh, dw, mode, groups = 1, math = 0;
};
struct Performance {
    int algorithm;
    unsigned status;
    float time;
    size_t memory;
    unsigned determinism, math;
    int reserved[3];
};
static float get(const void* p, int type, size_t i) { return type == 0 ? ((const float*)p)[i] : widen(((const bf16*)p)[i]); }
static void put(void* p, int type, size_t i, double v) {
    if (type == 0) ((float*)p)[i] = (float)v;
    else ((bf16*)p)[i] = narrow<bf16>((float)v);
}
/// Calls `f` with the places of the image, of the weight and of the result of every product.
template <class F> static void products(const Images& x, const Images& w, const Geometry& g, const Images& y, F f) {
    const int per = y.c / g.groups;
    for (int n = 0; n < y.n; ++n)
        for (int k = 0; k < y.c; ++k)
            for (int p = 0; p < y.h; ++p)
                for (int q = 0; q < y.w; ++q)
                    for (int c = 0; c < w.c; ++c)
                        for (int r = 0; r < w.h; ++r)
                            for (int s = 0; s < w.w; ++s) {
                                const int a = p * g.sh + r * g.dh - g.ph, b = q * g.sw + s * g.dw - g.pw;
                                if (a < 0 || b < 0 || a >= x.h || b >= x.w) continue;
                                f(x.at(n, k / per * w.c + c, a, b), w.at(k, c, r, s), y.at(n, k, p, q));
                            }
}
static size_t count(const Images& d) { return (size_t)d.n * d.c * d.h * d.w; }
/// Two algorithms; the first turns out not to run, so that the second must be tried.
static int list(int* found, void* out) {
    Performance* p = (Performance*)out;
    p[0] = {0, 0, 1.0f, 64, 1, 0, {}};
    p[1] = {1, 0, 2.0f, 0, 1, 0, {}};
    *found = 2;
    return 0;
}
extern "C" {
int cudnnCreate(void** handle) { return *handle = (void*)1, 0; }
int cudnnSetStream(void*, void*) { return 0; }
int cudnnDestroy(void*) { return 0; }
int cudnnCreateTensorDescriptor(Images** d) { return *d = new Images{}, 0; }
int cudnnCreateFilterDescriptor(Images** d) { return *d = new Images{}, 0; }
int cudnnCreateConvolutionDescriptor(Geometry** d) { return *d = new Geometry{}, 0; }
int cudnnDestroyTensorDescriptor(Images* d) { return delete d, 0; }
int cudnnDestroyFilterDescriptor(Images* d) { return delete d, 0; }
int cudnnDestroyConvolutionDescriptor(Geometry* d) { return delete d, 0; }
int cudnnSetTensor4dDescriptor(Images* d, int format, int type, int n, int c, int h, int w) { return *d = {format, type, n, c, h, w}, 0; }
int cudnnSetFilter4dDescriptor(Images* d, int type, int format, int k, int c, int h, int w) { return *d = {format, type, k, c, h, w}, 0; }
int cudnnSetConvolution2dDescriptor(Geometry* d, int ph, int pw, int sh, int sw, int dh, int dw, int mode, int) {
    return *d = {ph, pw, sh, sw, dh, dw, mode}, mode == 1 ? 0 : 3000;
}
int cudnnSetConvolutionGroupCount(Geometry* d, int groups) { return d->groups = groups, 0; }
int cudnnSetConvolutionMathType(Geometry* d, int math) { return d->math = math, 0; }
int cudnnGetConvolutionForwardAlgorithm_v7(void*, void*, void*, void*, void*, int, int* n, void* out) { return list(n, out); }
int cudnnGetConvolutionBackwardDataAlgorithm_v7(void*, void*, void*, void*, void*, int, int* n, void* out) { return list(n, out); }
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void*, void*, void*, void*, void*, int, int* n, void* out) { return list(n, out); }
int cudnnGetConvolutionForwardWorkspaceSize(void*, void*, void*, void*, void*, int, size_t* bytes) { return *bytes = 8, 0; }
int cudnnGetConvolutionBackwardDataWorkspaceSize(void*, void*, void*, void*, void*, int, size_t* bytes) { return *bytes = 8, 0; }
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void*, void*, void*, void*, void*, int, size_t* bytes) { return *bytes = 8, 0; }
#define FIND(name) \
    int name(void*, void*, const void*, void*, const void*, void*, void*, void*, int, int* n, void* out, void*, size_t) { return list(n, out); }
FIND(cudnnFindConvolutionForwardAlgorithmEx)
FIND(cudnnFindConvolutionBackwardDataAlgorithmEx)
FIND(cudnnFindConvolutionBackwardFilterAlgorithmEx)
int cudnnConvolutionForward(void*, const float* alpha, Images* xd, const void* x, Images* wd, const void* w, Geometry* g, int algorithm,
                            void*, size_t, const float* beta, Images* yd, void* y) {
    if (algorithm == 0 || *alpha != 1 || *beta != 0) return 3000;
    std::vector<double> sum(count(*yd));
    products(*xd, *wd, *g, *yd, [&](size_t i, size_t j, size_t k) { sum[k] += (double)get(x, xd->type, i) * get(w, wd->type, j); });
    for (size_t i = 0; i < sum.size(); ++i) put(y, yd->type, i, sum[i]);
    return 0;
}
int cudnnConvolutionBackwardData(void*, const float* alpha, Images* wd, const void* w, Images* yd, const void* y, Geometry* g, int algorithm,
                                 void*, size_t, const float* beta, Images* xd, void* x) {
    if (algorithm == 0 || *alpha != 1 || *beta != 0) return 3000;
    std::vector<double> sum(count(*xd));
    products(*xd, *wd, *g, *yd, [&](size_t i, size_t j, size_t k) { sum[i] += (double)get(y, yd->type, k) * get(w, wd->type, j); });
    for (size_t i = 0; i < sum.size(); ++i) put(x, xd->type, i, sum[i]);
    return 0;
}
int cudnnConvolutionBackwardFilter(void*, const float* alpha, Images* xd, const void* x, Images* yd, const void* y, Geometry* g,
                                   int algorithm, void*, size_t, const float* beta, Images* wd, void* w) {
    if (algorithm == 0 || *alpha != 1 || *beta != 0) return 3000;
    std::vector<double> sum(count(*wd));
    products(*xd, *wd, *g, *yd, [&](size_t i, size_t j, size_t k) { sum[j] += (double)get(y, yd->type, k) * get(x, xd->type, i); });
    for (size_t i = 0; i < sum.size(); ++i) put(w, wd->type, i, sum[i]);
    return 0;
}
}
