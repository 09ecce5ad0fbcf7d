//! Runs every kernel on the CPU, with the launches of the host code, against plain loops in f64.
//!
//! Outputs are filled with NaN first; inputs are drawn afresh from a fixed seed. Prints the failures and their count.
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

#include <algorithm>
#include <random>
#include <string>

using std::string;
using std::vector;
using emulated::launch;

static std::mt19937 rng(7);
static int passed = 0, failed = 0;

static vector<float> draw(size_t n, double mean = 0.3, double spread = 1.0) {
    std::normal_distribution<double> normal(mean, spread);
    vector<float> v(n);
    for (float& x : v) x = (float)normal(rng);
    return v;
}
static vector<float> hole(size_t n) { return vector<float>(n, NAN); }
static vector<bf16> half(const vector<float>& v) {
    vector<bf16> out(v.size());
    for (size_t i = 0; i < v.size(); ++i) out[i] = narrow<bf16>(v[i]);
    return out;
}
static vector<float> wide(const vector<bf16>& v) {
    vector<float> out(v.size());
    for (size_t i = 0; i < v.size(); ++i) out[i] = widen(v[i]);
    return out;
}

template <class A> static void close(const string& name, const vector<A>& got, const vector<double>& expected, double tolerance = 1e-5) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        error += std::pow((double)got[i] - expected[i], 2);
        norm += expected[i] * expected[i];
    }
    const double relative = std::sqrt(error / std::max(norm, 1e-30));
    if (got.size() == expected.size() && relative <= tolerance) {
        ++passed;
    } else {
        ++failed;
        std::printf("FAILED %s: %g\n", name.c_str(), relative);
    }
}

/// As `types::parts` on the host.
static std::pair<unsigned, unsigned> parts(size_t len, size_t least, size_t most) {
    size_t per = (len + most - 1) / most;
    per = (per + least - 1) / least * least;
    return {(unsigned)std::max<size_t>((len + per - 1) / per, 1), (unsigned)per};
}
static Dim rows_grid(size_t rows, size_t width) { return width <= 1024 ? Dim{(unsigned)((rows + 7) / 8), 1, 1} : Dim{(unsigned)rows, 1, 1}; }
static Dim rows_block(size_t width) { return width <= 1024 ? Dim{32, 8, 1} : Dim{256, 1, 1}; }
/// Few blocks, so that threads have to step.
static const Dim OVER{3, 1, 1}, THREADS{64, 1, 1};

static void norms_of_rows(unsigned rows, unsigned width, bool centre, bool affine) {
    const string name = "norm " + std::to_string(rows) + "x" + std::to_string(width);
    auto x = draw((size_t)rows * width, 3.0), g = draw(x.size()), w = draw(width), b = draw(width);
    auto y = hole(x.size()), dx = hole(x.size()), means = hole(rows), scales = hole(rows);
    const float *wp = affine ? w.data() : nullptr, *bp = affine ? b.data() : nullptr;
    const float eps = 1e-5f;
    launch(rows_grid(rows, width), rows_block(width), [&] {
        norm_forward_f32(x.data(), wp, bp, y.data(), means.data(), scales.data(), rows, width, centre, eps);
    });
    launch(rows_grid(rows, width), rows_block(width), [&] {
        norm_backward_f32(x.data(), wp, means.data(), scales.data(), g.data(), dx.data(), rows, width, centre);
    });
    const unsigned across = (width + 31) / 32;
    const auto [count, per] = parts(rows, 32, 2);
    auto sums = hole(2 * (size_t)count * width), both = hole(2 * width);
    launch(Dim{across, count, 1}, Dim{32, 8, 1}, [&, per = per] {
        norm_columns_f32(x.data(), means.data(), scales.data(), g.data(), sums.data(), rows, width, per);
    });
    launch(Dim{(width + 255) / 256, 2, 1}, Dim{256, 1, 1}, [&, count = count] { column_sums(sums.data(), both.data(), width, count); });
    vector<double> ey(x.size()), edx(x.size()), eboth(2 * width);
    for (unsigned r = 0; r < rows; ++r) {
        double mean = 0, var = 0, first = 0, second = 0;
        for (unsigned i = 0; i < width; ++i) mean += x[r * width + i];
        mean = centre ? mean / width : 0;
        for (unsigned i = 0; i < width; ++i) var += std::pow(x[r * width + i] - mean, 2) / width;
        const double s = 1 / std::sqrt(var + eps);
        for (unsigned i = 0; i < width; ++i) {
            const double v = (x[r * width + i] - mean) * s, h = g[r * width + i] * (affine ? w[i] : 1.0);
            ey[r * width + i] = affine ? v * w[i] + b[i] : v;
            first += h / width;
            second += h * v / width;
            eboth[i] += g[r * width + i];
            eboth[width + i] += g[r * width + i] * v;
        }
        for (unsigned i = 0; i < width; ++i) {
            const double v = (x[r * width + i] - mean) * s, h = g[r * width + i] * (affine ? w[i] : 1.0);
            edx[r * width + i] = (h - (centre ? first : 0) - v * second) * s;
        }
    }
    close(name + " forward", y, ey);
    close(name + " backward", dx, edx);
    close(name + " parameters", both, eboth);
}

static void functions_of_rows(unsigned rows, unsigned width) {
    const string name = std::to_string(rows) + "x" + std::to_string(width);
    auto x = draw((size_t)rows * width, 1.0, 3.0), g = draw(x.size()), gr = draw(rows);
    const Dim grid = rows_grid(rows, width), block = rows_block(width);
    for (unsigned logarithm = 0; logarithm < 2; ++logarithm) {
        auto y = hole(x.size()), dx = hole(x.size());
        launch(grid, block, [&] { softmax_forward_f32(x.data(), y.data(), rows, width, logarithm); });
        launch(grid, block, [&] { softmax_backward_f32(y.data(), g.data(), dx.data(), rows, width, logarithm); });
        vector<double> ey(x.size()), edx(x.size());
        for (unsigned r = 0; r < rows; ++r) {
            double total = 0, sum = 0;
            for (unsigned i = 0; i < width; ++i) total += std::exp((double)x[r * width + i]);
            for (unsigned i = 0; i < width; ++i) {
                const double p = std::exp((double)x[r * width + i]) / total;
                ey[r * width + i] = logarithm ? std::log(p) : p;
                sum += g[r * width + i] * (logarithm ? 1 : p);
            }
            for (unsigned i = 0; i < width; ++i) {
                const double p = std::exp((double)x[r * width + i]) / total;
                edx[r * width + i] = logarithm ? g[r * width + i] - p * sum : p * (g[r * width + i] - sum);
            }
        }
        close("softmax " + name, y, ey);
        close("softmax backward " + name, dx, edx);
    }
    auto lse = hole(rows), dx = hole(x.size()), mean = hole(rows);
    launch(grid, block, [&] { lse_forward_f32(x.data(), lse.data(), rows, width); });
    launch(grid, block, [&] { lse_backward_f32(x.data(), lse.data(), gr.data(), dx.data(), rows, width); });
    launch(grid, block, [&] { mean_forward_f32(x.data(), mean.data(), rows, width); });
    vector<double> elog(rows), edx(x.size()), emean(rows);
    for (unsigned r = 0; r < rows; ++r) {
        double total = 0;
        for (unsigned i = 0; i < width; ++i) {
            total += std::exp((double)x[r * width + i]);
            emean[r] += (double)x[r * width + i] / width;
        }
        elog[r] = std::log(total);
        for (unsigned i = 0; i < width; ++i) edx[r * width + i] = gr[r] * std::exp((double)x[r * width + i]) / total;
    }
    close("lse " + name, lse, elog);
    close("lse backward " + name, dx, edx);
    close("mean " + name, mean, emean);

    // The first row lies below eps.
    for (unsigned i = 0; i < width; ++i) x[i] *= 1e-6f;
    const double eps = 1e-2;
    auto y = hole(x.size()), norms = hole(rows);
    launch(grid, block, [&] { unit_forward_f32(x.data(), y.data(), norms.data(), rows, width, (float)eps); });
    launch(grid, block, [&] { unit_backward_f32(x.data(), norms.data(), g.data(), dx.data(), rows, width); });
    vector<double> ey(x.size());
    for (unsigned r = 0; r < rows; ++r) {
        double power = 0, along = 0;
        for (unsigned i = 0; i < width; ++i) power += std::pow((double)x[r * width + i], 2);
        const double norm = std::max(std::sqrt(power), eps);
        for (unsigned i = 0; i < width; ++i) {
            ey[r * width + i] = x[r * width + i] / norm;
            if (std::sqrt(power) > eps) along += g[r * width + i] * ey[r * width + i];
        }
        for (unsigned i = 0; i < width; ++i) edx[r * width + i] = (g[r * width + i] - ey[r * width + i] * along) / norm;
    }
    close("unit " + name, y, ey);
    close("unit backward " + name, dx, edx);
}

/// Both directions of batch norm on `(n, c, inner)`, in packs of `V`, with everything or with nothing.
template <int V> static void batch_norm(unsigned n, unsigned c, unsigned inner, bool all, bool relu, unsigned most) {
    const string name = "batch norm " + std::to_string(n) + "," + std::to_string(c) + "," + std::to_string(inner) + "/" + std::to_string(V);
    const unsigned m = n * inner, count = n * c * inner;
    auto x = draw(count, 100.0), g = draw(count), r = draw(count), w = draw(c, 1.0), b = draw(c);
    auto y = hole(count), dx = hole(count), kept = hole(count);
    auto mean = hole(c), var = hole(c), scale = hole(c), db = hole(c), dw = hole(c), mg = hole(c), mgx = hole(c);
    const double eps = 1e-5;
    const auto cut = inner == 1 ? parts(m, 64, most) : parts(m, 256 * V, most);
    const unsigned split = cut.first, per = cut.second;
    const unsigned lanes = V == 4 && c <= 64 ? 16 : 32;
    const Dim grid{inner == 1 ? (c + lanes * V - 1) / (lanes * V) : c, split, 1};
    const Dim block = inner == 1 ? Dim{lanes, 512 / lanes, 1} : Dim{256, 1, 1};
    const Dim warps{(c + 7) / 8, 1, 1}, eight{32, 8, 1};
    vector<double> sums(2 * (size_t)split * c, NAN);
    const auto moments = V == 4 ? moments_f32_4 : moments_f32_1;
    const auto grad_sums = V == 4 ? grad_sums_f32_4 : grad_sums_f32_1;
    const auto apply = V == 4 ? apply_f32_4 : apply_f32_1;
    const auto grad_apply = V == 4 ? grad_apply_f32_4 : grad_apply_f32_1;
    const float *wp = all ? w.data() : nullptr, *bp = all ? b.data() : nullptr, *rp = all ? r.data() : nullptr;
    launch(grid, block, [&] { moments(x.data(), sums.data(), m, c, inner, per); });
    launch(warps, eight, [&] {
        moments_finish_f32(x.data(), sums.data(), mean.data(), var.data(), scale.data(), m, c, inner, split, eps);
    });
    launch(OVER, THREADS, [&] { apply(x.data(), rp, mean.data(), scale.data(), wp, bp, y.data(), count, c, inner, relu); });
    std::fill(sums.begin(), sums.end(), NAN);
    const bool keep = all && relu;
    launch(grid, block, [&] {
        grad_sums(x.data(), relu ? y.data() : nullptr, g.data(), keep ? kept.data() : nullptr, mean.data(), scale.data(), sums.data(),
                  m, c, inner, per);
    });
    launch(warps, eight, [&] { grad_finish(sums.data(), db.data(), dw.data(), mg.data(), mgx.data(), m, c, split); });
    launch(OVER, THREADS, [&] {
        grad_apply(x.data(), relu && !keep ? y.data() : nullptr, keep ? kept.data() : g.data(), nullptr, mean.data(), scale.data(), wp,
                   mg.data(), mgx.data(), dx.data(), count, c, inner);
    });
    vector<double> emean(c), evar(c), ey(count), edx(count), eg(count), edb(c), edw(c);
    auto at = [&](unsigned k, unsigned i) { return (k / inner * c + i) * inner + k % inner; };
    for (unsigned i = 0; i < c; ++i) {
        for (unsigned k = 0; k < m; ++k) emean[i] += (double)x[at(k, i)] / m;
        for (unsigned k = 0; k < m; ++k) evar[i] += std::pow(x[at(k, i)] - emean[i], 2) / m;
        const double s = 1 / std::sqrt(evar[i] + eps), weight = all ? w[i] : 1;
        for (unsigned k = 0; k < m; ++k) {
            const double v = (x[at(k, i)] - emean[i]) * s;
            const double z = v * weight + (all ? b[i] + r[at(k, i)] : 0.0);
            ey[at(k, i)] = relu ? std::max(z, 0.0) : z;
            eg[at(k, i)] = relu && !(y[at(k, i)] > 0) ? 0 : g[at(k, i)];
            edb[i] += eg[at(k, i)];
            edw[i] += eg[at(k, i)] * v;
        }
        for (unsigned k = 0; k < m; ++k) {
            const double v = (x[at(k, i)] - emean[i]) * s;
            edx[at(k, i)] = weight * s * (eg[at(k, i)] - edb[i] / m - v * edw[i] / m);
        }
    }
    close(name + " mean", mean, emean);
    close(name + " var", var, evar, 1e-4);
    close(name + " forward", y, ey, 1e-4);
    close(name + " dbias", db, edb);
    close(name + " dweight", dw, edw, 1e-4);
    close(name + " backward", dx, edx, 1e-4);
    if (keep) close(name + " residual", kept, eg);

    // With constant statistics, and the kept gradient from the second pass.
    launch(Dim{(c + 255) / 256, 1, 1}, Dim{256, 1, 1}, [&] { scales_of(var.data(), scale.data(), c, eps); });
    std::fill(dx.begin(), dx.end(), NAN);
    std::fill(kept.begin(), kept.end(), NAN);
    launch(OVER, THREADS, [&] {
        grad_apply(x.data(), relu ? y.data() : nullptr, g.data(), kept.data(), mean.data(), scale.data(), wp, nullptr, nullptr, dx.data(),
                   count, c, inner);
    });
    for (unsigned i = 0; i < c; ++i) {
        for (unsigned k = 0; k < m; ++k) edx[at(k, i)] = eg[at(k, i)] * (all ? w[i] : 1.0) / std::sqrt(evar[i] + eps);
    }
    close(name + " eval backward", dx, edx, 1e-4);
    close(name + " eval residual", kept, eg);
    // bf16: the same up to its rounding.
    const auto hx = half(draw(count, 1.0));
    const auto wx = wide(hx);
    vector<bf16> hy(count, bf16{0x7fff});
    const auto apply_half = V == 4 ? apply_bf16_4 : apply_bf16_1;
    launch(OVER, THREADS, [&] { apply_half(hx.data(), nullptr, mean.data(), scale.data(), wp, bp, hy.data(), count, c, inner, 0); });
    for (unsigned i = 0; i < count; ++i) {
        const unsigned k = i / inner % c;
        ey[i] = ((double)wx[i] - mean[k]) * scale[k] * (all ? w[k] : 1.0) + (all ? b[k] : 0.0);
    }
    close(name + " bf16", wide(hy), ey, 5e-3);
}

static void pooling(unsigned n, unsigned c, unsigned h, unsigned w, unsigned kernel, unsigned stride, unsigned padding, unsigned last) {
    const string name = "pool " + std::to_string(kernel) + "/" + std::to_string(stride) + "+" + std::to_string(padding) + (last ? " last" : "");
    const unsigned p = (h + 2 * padding - kernel) / stride + 1, q = (w + 2 * padding - kernel) / stride + 1;
    const unsigned from_count = n * c * h * w, to_count = n * c * p * q;
    auto x = draw(from_count), g = draw(to_count);
    // Ties.
    for (float& v : x) v = std::round(v * 2) / 2;
    auto at = [&](unsigned i, unsigned k, unsigned a, unsigned b, unsigned hh, unsigned ww) {
        return last ? ((i * hh + a) * ww + b) * c + k : ((i * c + k) * hh + a) * ww + b;
    };
    vector<double> emax(to_count), eavg(to_count), edmax(from_count), edavg(from_count);
    for (unsigned i = 0; i < n; ++i)
        for (unsigned k = 0; k < c; ++k)
            for (unsigned a = 0; a < p; ++a)
                for (unsigned b = 0; b < q; ++b) {
                    double best = -INFINITY, sum = 0;
                    unsigned place = 0;
                    for (unsigned r = 0; r < kernel; ++r)
                        for (unsigned s = 0; s < kernel; ++s) {
                            const int hh = (int)(a * stride + r) - (int)padding, ww = (int)(b * stride + s) - (int)padding;
                            if (hh < 0 || ww < 0 || hh >= (int)h || ww >= (int)w) continue;
                            const unsigned j = at(i, k, hh, ww, h, w);
                            sum += x[j];
                            edavg[j] += (double)g[at(i, k, a, b, p, q)] / (kernel * kernel);
                            if (x[j] > best) {
                                best = x[j];
                                place = j;
                            }
                        }
                    emax[at(i, k, a, b, p, q)] = best;
                    eavg[at(i, k, a, b, p, q)] = sum / (kernel * kernel);
                    edmax[place] += g[at(i, k, a, b, p, q)];
                }
    auto y = hole(to_count), dx = hole(from_count);
    vector<u32> places(to_count, 0xffffffffu);
    launch(OVER, THREADS, [&] { max_forward_f32(x.data(), y.data(), places.data(), n, c, h, w, p, q, kernel, stride, padding, last); });
    close("max " + name, y, emax);
    launch(OVER, THREADS, [&] { max_backward_f32(places.data(), g.data(), dx.data(), n, c, h, w, p, q, kernel, stride, padding, last); });
    close("max backward " + name, dx, edmax);
    std::fill(y.begin(), y.end(), NAN);
    std::fill(dx.begin(), dx.end(), NAN);
    launch(OVER, THREADS, [&] { avg_forward_f32(x.data(), y.data(), n, c, h, w, p, q, kernel, stride, padding, last); });
    close("avg " + name, y, eavg);
    launch(OVER, THREADS, [&] { avg_backward_f32(g.data(), dx.data(), n, c, h, w, p, q, kernel, stride, padding, last); });
    close("avg backward " + name, dx, edavg);

    auto plane = hole(n * c), gp = draw(n * c);
    vector<double> eplane(n * c);
    std::fill(dx.begin(), dx.end(), NAN);
    for (unsigned i = 0; i < from_count; ++i) {
        const unsigned own = last ? i / (h * w * c) * c + i % c : i / (h * w);
        eplane[own] += (double)x[i] / (h * w);
        edavg[i] = (double)gp[own] / (h * w);
    }
    if (last) {
        launch(Dim{(n * c + 255) / 256, 1, 1}, Dim{256, 1, 1}, [&] { middle_mean_f32(x.data(), plane.data(), n, h * w, c); });
        close("global " + name, plane, eplane);
    }
    launch(OVER, THREADS, [&] { mean_backward_f32(gp.data(), dx.data(), from_count, h * w, c, last); });
    close("global backward " + name, dx, edavg);
}

static void elementwise(unsigned count) {
    auto x = draw(count, 0.0, 2.0), g = draw(count);
    for (unsigned f = 0; f < 7; ++f) {
        auto one = [&](double v) -> double {
            switch (f) {
                case 0: return std::max(v, 0.0);
                case 1: return 0.5 * v * std::erfc(-v * M_SQRT1_2);
                case 2: return v / (1 + std::exp(-v));
                case 3: return 1 / (1 + std::exp(-v));
                case 4: return std::tanh(v);
                case 5: return std::erf(v);
                default: return std::exp(v);
            }
        };
        vector<double> ey(count), edx(count);
        for (unsigned i = 0; i < count; ++i) {
            ey[i] = one(x[i]);
            edx[i] = g[i] * (one(x[i] + 1e-5) - one(x[i] - 1e-5)) / 2e-5;
        }
        auto y = hole(count), dx = hole(count);
        if (count % 4 == 0) {
            launch(OVER, THREADS, [&] { unary_forward_f32_4(x.data(), y.data(), count, f); });
            launch(OVER, THREADS, [&] { unary_backward_f32_4(x.data(), g.data(), dx.data(), count, f); });
        } else {
            launch(OVER, THREADS, [&] { unary_forward_f32_1(x.data(), y.data(), count, f); });
            launch(OVER, THREADS, [&] { unary_backward_f32_1(x.data(), g.data(), dx.data(), count, f); });
        }
        close("function " + std::to_string(f), y, ey, 1e-6);
        close("slope " + std::to_string(f), dx, edx, 1e-5);
    }
}

static void strips(unsigned n, unsigned d, unsigned block, bool distance, unsigned period) {
    const string name = "strips " + std::to_string(n) + (distance ? " distance " : " dot ") + std::to_string(period);
    auto x = draw((size_t)n * d, 0.0, 0.7), g = draw(n);
    const double c = 0.8;
    vector<float> squares(n);
    auto dot = [&](unsigned i, unsigned j) {
        double sum = 0;
        for (unsigned k = 0; k < d; ++k) sum += (double)x[i * d + k] * x[j * d + k];
        return sum;
    };
    for (unsigned i = 0; i < n; ++i) squares[i] = (float)dot(i, i);
    auto excluded = [&](unsigned i, unsigned j) { return period && i % period == j % period; };
    auto s = [&](unsigned i, unsigned j) { return distance ? -c * (dot(i, i) + dot(j, j) - 2 * dot(i, j)) : c * dot(i, j); };
    vector<double> elogs(n), eweights((size_t)n * n), esums(n);
    for (unsigned i = 0; i < n; ++i) {
        double total = 0;
        for (unsigned j = 0; j < n; ++j) total += excluded(i, j) ? 0 : std::exp(s(i, j));
        elogs[i] = std::log(total);
    }
    for (unsigned i = 0; i < n; ++i)
        for (unsigned j = 0; j < n; ++j) {
            // The gradient of distances leaves out the weight of a row with itself.
            const double e = excluded(i, j) || (distance && i == j) ? 0 : std::exp(s(i, j));
            eweights[(size_t)i * n + j] = e * (g[i] * std::exp(-elogs[i]) + g[j] * std::exp(-elogs[j]));
            esums[i] += eweights[(size_t)i * n + j];
        }
    auto logs = hole(n), weights = hole((size_t)n * n), sums = hole(n);
    const float* sq = distance ? squares.data() : nullptr;
    vector<float> products((size_t)n * n);
    for (unsigned i = 0; i < n; ++i)
        for (unsigned j = 0; j < n; ++j) products[(size_t)i * n + j] = (float)dot(i, j);
    for (unsigned first = 0; first < n; first += block) {
        const unsigned count = std::min(block, n - first);
        launch(Dim{count, 1, 1}, Dim{256, 1, 1}, [&] {
            strip_log_sums(products.data() + (size_t)first * n, sq, x.data(), logs.data(), first, n, d, (float)c, period);
        });
    }
    for (unsigned first = 0; first < n; first += block) {
        const unsigned count = std::min(block, n - first);
        launch(Dim{count, 1, 1}, Dim{256, 1, 1}, [&] {
            strip_weights(products.data() + (size_t)first * n, weights.data() + (size_t)first * n, sq, x.data(), logs.data(),
                          g.data(), sums.data() + first, first, n, d, (float)c, period);
        });
    }
    close(name, logs, elogs);
    close(name + " weights", weights, eweights);
    close(name + " sums", sums, esums);
}

/// Squared distances with equal and with near rows under a shift, and the matrix of their gradient.
static void squared_distances(unsigned n, unsigned d) {
    const string name = "distances " + std::to_string(n) + "x" + std::to_string(d);
    auto x = draw((size_t)n * d, 50.0, 0.7), h = draw((size_t)n * n);
    for (unsigned k = 0; n > 3 && k < d; ++k) {
        x[2 * d + k] = x[d + k];
        x[3 * d + k] = x[d + k] + 1e-3f * (float)(k % 3);
    }
    vector<float> centered(x.size()), products((size_t)n * n), squares = hole(n), out = hole((size_t)n * n), weights = out;
    for (unsigned k = 0; k < d; ++k) {
        double mean = 0;
        for (unsigned i = 0; i < n; ++i) mean += (double)x[i * d + k] / n;
        for (unsigned i = 0; i < n; ++i) centered[i * d + k] = (float)(x[i * d + k] - mean);
    }
    vector<double> expected((size_t)n * n), elaplacian((size_t)n * n);
    for (unsigned i = 0; i < n; ++i)
        for (unsigned j = 0; j < n; ++j) {
            double product = 0;
            for (unsigned k = 0; k < d; ++k) {
                product += (double)centered[i * d + k] * centered[j * d + k];
                expected[i * n + j] += std::pow((double)x[i * d + k] - x[j * d + k], 2);
            }
            products[i * n + j] = (float)product;
            if (i != j) {
                elaplacian[i * n + i] += h[i * n + j];
                elaplacian[i * n + j] = -(double)h[i * n + j];
            }
        }
    launch(Dim{(n + 255) / 256, 1, 1}, Dim{256, 1, 1}, [&] { diagonal(products.data(), squares.data(), n); });
    launch(Dim{n, 1, 1}, Dim{64, 1, 1}, [&] { distances(products.data(), out.data(), squares.data(), x.data(), n, d); });
    launch(Dim{n, 1, 1}, Dim{64, 1, 1}, [&] { laplacian(h.data(), weights.data(), n); });
    close(name, out, expected, 1e-5);
    close(name + " laplacian", weights, elaplacian, 1e-5);
    // Near pairs by themselves: their own relative error.
    for (unsigned k = 0; n > 3 && k < 2; ++k) {
        const float got = out[(k ? 3 : 2) * n + 1];
        close(name + " near pair", vector<float>{got}, vector<double>{expected[(k ? 3 : 2) * n + 1]}, 1e-5);
    }
}

/// Centered columns, variance and covariance with their gradient, on both sides, and errors of two tensors.
static void moments_of_columns(unsigned n, unsigned d, bool gram, double spread) {
    const string name = "moments " + std::to_string(n) + "x" + std::to_string(d) + (gram ? " gram" : " features");
    auto z = draw((size_t)n * d, 30.0, spread), g = draw(2);
    const auto [count, per] = parts(n, 8, 3);
    const Dim grid{(d + 31) / 32, count, 1}, block{32, 8, 1}, columns{(d + 255) / 256, 1, 1}, line{256, 1, 1};
    vector<double> sums((size_t)count * d, NAN), means(d, NAN), squares(d, NAN), terms(d, NAN);
    auto x = hole(z.size()), slopes = hole(d), values = hole(2);
    const double gamma = 1.0, eps = 1e-4, dof = n - 1.0, alpha = 4 / (dof * dof * d), factor = 1 / (dof * dof * d);
    launch(grid, block, [&, per = per] { column_parts(z.data(), sums.data(), n, d, per); });
    launch(columns, line, [&, count = count] { column_finish(sums.data(), means.data(), d, count, 1.0 / n); });
    std::fill(sums.begin(), sums.end(), NAN);
    launch(grid, block, [&, per = per] { center_parts(z.data(), means.data(), x.data(), sums.data(), n, d, per); });
    launch(columns, line, [&, count = count] { column_finish(sums.data(), squares.data(), d, count, 1.0); });
    launch(columns, line, [&] { hinge_terms(squares.data(), terms.data(), slopes.data(), d, dof, gamma, eps); });

    vector<double> ex(z.size()), esquares(d);
    for (unsigned j = 0; j < d; ++j) {
        double mean = 0;
        for (unsigned i = 0; i < n; ++i) mean += (double)z[i * d + j] / n;
        for (unsigned i = 0; i < n; ++i) {
            ex[i * d + j] = z[i * d + j] - mean;
            esquares[j] += ex[i * d + j] * ex[i * d + j];
        }
    }
    close(name + " centered", x, ex, 1e-6);
    close(name + " squares", squares, esquares, 1e-12);

    // The product that cuBLAS makes: X X^T or X^T X.
    const unsigned side = gram ? n : d;
    auto product = [&](unsigned a, unsigned b) {
        double sum = 0;
        for (unsigned k = 0; k < (gram ? d : n); ++k) sum += gram ? ex[a * d + k] * ex[b * d + k] : ex[k * d + a] * ex[k * d + b];
        return sum;
    };
    vector<float> k((size_t)side * side);
    vector<double> ek((size_t)side * side), powers(side, NAN);
    for (unsigned a = 0; a < side; ++a)
        for (unsigned b = 0; b < side; ++b) k[a * side + b] = (float)(ek[a * side + b] = product(a, b));
    launch(Dim{side, 1, 1}, Dim{64, 1, 1}, [&] { row_powers(k.data(), powers.data(), side, !gram); });
    launch(Dim{1, 1, 1}, line, [&] { moment_values(terms.data(), squares.data(), powers.data(), values.data(), d, side, gram, factor); });
    vector<double> evalues(2), ep(z.size());
    for (unsigned j = 0; j < d; ++j) evalues[0] += std::max(0.0, gamma - std::sqrt(esquares[j] / dof + eps)) / d;
    // The definition, by features.
    for (unsigned a = 0; a < d; ++a)
        for (unsigned b = 0; b < d; ++b) {
            double s = 0;
            for (unsigned i = 0; i < n; ++i) s += ex[i * d + a] * ex[i * d + b];
            if (a != b) evalues[1] += s * s * factor;
            // d/dx_ia of sum_{a != b} S_ab^2 / dim = 4 / (dof^2 dim) sum_b s_ab x_ib.
            if (a != b) {
                for (unsigned i = 0; i < n; ++i) ep[i * d + a] += g[1] * alpha * s * ex[i * d + b];
            }
        }
    for (unsigned j = 0; j < d; ++j) {
        const double std = std::sqrt(esquares[j] / dof + eps);
        for (unsigned i = 0; i < n; ++i) ep[i * d + j] += std < gamma ? -(double)g[0] / (d * dof * std) * ex[i * d + j] : 0;
    }
    close(name + " values", vector<float>{values[0]}, {evalues[0]}, 1e-5);
    close(name + " covariance", vector<float>{values[1]}, {evalues[1]}, 1e-5);
    // K X or X S, with the diagonal of S at 0.
    auto p = hole(z.size());
    for (unsigned i = 0; i < n; ++i)
        for (unsigned j = 0; j < d; ++j) {
            double sum = 0;
            for (unsigned l = 0; l < side; ++l) sum += gram ? (double)k[i * n + l] * ex[l * d + j] : ex[i * d + l] * (double)k[l * d + j];
            p[i * d + j] = (float)sum;
        }
    launch(grid, block, [&, per = per] { moment_grad(p.data(), x.data(), slopes.data(), squares.data(), g.data(), n, d, alpha, gram, per); });
    close(name + " gradient", p, ep, 2e-5);
}

static void symmetric_sums(unsigned n) {
    const string name = "transpose " + std::to_string(n);
    auto a = draw((size_t)n * n), b = hole(a.size());
    vector<double> eb(a.size());
    for (unsigned i = 0; i < n; ++i)
        for (unsigned j = 0; j < n; ++j) eb[i * n + j] = (double)a[i * n + j] + a[j * n + i];
    launch(Dim{(n + 31) / 32, (n + 31) / 32, 1}, Dim{32, 8, 1}, [&] { with_transpose(a.data(), b.data(), n); });
    close(name, b, eb, 1e-6);
}

/// Errors of two near tensors far from the origin, norms, and the split of a number into two.
static void errors(unsigned count) {
    auto a = draw(count, 1000.0), b = a, g = draw(1);
    for (float& v : b) v += 1e-2f;
    vector<double> partial(OVER.x, NAN), eda(count), edb(count);
    auto value = hole(1), da = hole(count), db = hole(count);
    double sum = 0, power = 0;
    for (unsigned i = 0; i < count; ++i) {
        const double difference = (double)a[i] - b[i];
        sum += difference * difference;
        power += (double)a[i] * a[i];
        eda[i] = 2 * g[0] * difference;
        edb[i] = -eda[i];
    }
    launch(OVER, THREADS, [&] { error_parts(a.data(), b.data(), partial.data(), count); });
    launch(Dim{1, 1, 1}, Dim{64, 1, 1}, [&] { sum_parts(partial.data(), value.data(), OVER.x, 0.5); });
    close("errors", value, {sum / 2}, 1e-6);
    launch(OVER, THREADS, [&] { error_grad(a.data(), b.data(), g.data(), da.data(), nullptr, count); });
    launch(OVER, THREADS, [&] { error_grad(a.data(), b.data(), g.data(), nullptr, db.data(), count); });
    close("errors first gradient", da, eda, 1e-6);
    close("errors second gradient", db, edb, 1e-6);
    auto norm = hole(1), unit = hole(count);
    launch(OVER, THREADS, [&] { power_parts(a.data(), partial.data(), count); });
    launch(Dim{1, 1, 1}, Dim{64, 1, 1}, [&] { sum_parts(partial.data(), norm.data(), OVER.x, 1.0); });
    launch(OVER, THREADS, [&] { over_norm(a.data(), norm.data(), unit.data(), count, 0.25f); });
    for (unsigned i = 0; i < count; ++i) eda[i] = a[i] / (std::sqrt(power) + 0.25);
    close("over norm", unit, eda, 1e-6);

    auto x = draw(count, 0.0, 1e3), high = hole(count), low = hole(count);
    x[0] = 0;
    launch(OVER, THREADS, [&] { split_parts(x.data(), high.data(), low.data(), count); });
    bool fits = true;
    for (unsigned i = 0; i < count; ++i) {
        fits = fits && high[i] + low[i] == x[i] && (__float_as_uint(high[i]) & 0x1fffu) == 0 && std::fabs(low[i]) <= std::fabs(x[i]) * 0x1p-11f;
    }
    fits ? ++passed : (std::printf("FAILED split into two\n"), ++failed);
    float special[] = {INFINITY, -INFINITY, NAN, 3.4028235e38f}, h[4], l[4];
    launch(OVER, THREADS, [&] { split_parts(special, h, l, 4); });
    h[0] == INFINITY && h[1] == -INFINITY && h[2] != h[2] && h[3] + l[3] == special[3] && l[0] == 0 && l[1] == 0 && l[2] == 0
        ? ++passed
        : (std::printf("FAILED split of special numbers\n"), ++failed);
}

/// Characteristic functions at `knots` points, more than one launch takes included.
static void waves(unsigned n, unsigned m, unsigned knots, double scale) {
    const string name = "waves " + std::to_string(n) + "x" + std::to_string(m) + " " + std::to_string(knots);
    auto y = draw((size_t)n * m, 0.2, scale), g = draw(m);
    const double step = 3.0 / (knots - 1);
    vector<double> targets(knots), weights(knots);
    for (unsigned q = 0; q < knots; ++q) {
        targets[q] = std::exp(-0.5 * std::pow(q * step, 2));
        weights[q] = step * targets[q] * (q && q + 1 < knots ? 2 : 1);
    }
    const auto [count, per] = parts(n, 8, 3);
    const Dim grid{(m + 31) / 32, count, 1}, block{32, 8, 1}, columns{(m + 255) / 256, 1, 1}, line{256, 1, 1};
    vector<double> cosines((size_t)knots * m, NAN), sines(cosines), sums(m, NAN);
    auto values = hole(m), dy = hole(y.size());
    for (unsigned first = 0; first < knots; first += POINTS) {
        const unsigned points = std::min(POINTS, knots - first);
        auto partial = hole(2 * (size_t)count * points * m);
        launch(grid, block, [&, per = per] { wave_sums(y.data(), partial.data(), n, m, points, first, (float)step, per); });
        launch(columns, line, [&, count = count] {
            wave_errors(partial.data(), targets.data(), weights.data(), cosines.data(), sines.data(), sums.data(), values.data(), n, m,
                        points, first, count);
        });
    }
    for (unsigned first = 0; first < knots; first += POINTS) {
        const unsigned points = std::min(POINTS, knots - first);
        launch(grid, block, [&, per = per] {
            wave_slopes(y.data(), cosines.data(), sines.data(), weights.data(), g.data(), dy.data(), n, m, points, first, step, per);
        });
    }
    vector<double> evalues(m), edy(y.size());
    for (unsigned j = 0; j < m; ++j)
        for (unsigned q = 0; q < knots; ++q) {
            double c = 0, s = 0;
            const double t = q * step;
            for (unsigned i = 0; i < n; ++i) {
                c += std::cos(t * y[i * m + j]) / n;
                s += std::sin(t * y[i * m + j]) / n;
            }
            c -= targets[q];
            evalues[j] += n * weights[q] * (c * c + s * s);
            for (unsigned i = 0; i < n; ++i) {
                edy[i * m + j] += g[j] * 2 * weights[q] * t * (s * std::cos(t * y[i * m + j]) - c * std::sin(t * y[i * m + j]));
            }
        }
    close(name, values, evalues, 2e-5);
    close(name + " gradient", dy, edy, 2e-5);
}

/// Cross-entropy with labels, smoothed or not, and with distributions that do not add up to 1.
static void cross_entropies(unsigned rows, unsigned width) {
    const Dim grid = rows_grid(rows, width), block = rows_block(width);
    auto x = draw((size_t)rows * width, 100.0, 2.0), t = draw(x.size(), 0.0, 0.3), g = draw(1);
    for (float& v : t) v = std::fabs(v);
    vector<u32> labels(rows);
    for (unsigned i = 0; i < rows; ++i) labels[i] = (i * 7 + 1) % width;
    for (int kind = 0; kind < 3; ++kind) {
        const string name = "cross-entropy " + std::to_string(rows) + "x" + std::to_string(width) + "." + std::to_string(kind);
        const float smoothing = kind == 1 ? 0.2f : 0.0f;
        const float* soft = kind == 2 ? t.data() : nullptr;
        const u32* hard = kind == 2 ? nullptr : labels.data();
        auto losses = hole(rows), logs = hole(2 * rows), masses = hole(rows), value = hole(1), dx = hole(x.size()), dt = hole(x.size());
        launch(grid, block, [&] { entropy_forward(x.data(), soft, hard, losses.data(), logs.data(), masses.data(), rows, width, smoothing); });
        launch(Dim{1, 1, 1}, Dim{64, 1, 1}, [&] { entropy_mean(losses.data(), value.data(), rows); });
        launch(grid, block, [&] {
            entropy_backward(x.data(), soft, hard, logs.data(), masses.data(), g.data(), dx.data(), kind == 2 ? dt.data() : nullptr, rows,
                             width, smoothing);
        });
        double evalue = 0;
        vector<double> edx(x.size()), edt(x.size());
        for (unsigned i = 0; i < rows; ++i) {
            double total = 0, mass = 0;
            for (unsigned j = 0; j < width; ++j) total += std::exp((double)x[i * width + j] - 100);
            const double log = 100 + std::log(total);
            auto target = [&](unsigned j) { return kind == 2 ? (double)t[i * width + j] : (j == labels[i] ? 1.0 - smoothing : 0.0) + (double)smoothing / width; };
            for (unsigned j = 0; j < width; ++j) {
                mass += target(j);
                evalue += target(j) * (log - x[i * width + j]) / rows;
            }
            for (unsigned j = 0; j < width; ++j) {
                edx[i * width + j] = g[0] / rows * (std::exp(x[i * width + j] - log) * mass - target(j));
                edt[i * width + j] = g[0] / rows * (log - x[i * width + j]);
            }
        }
        close(name, value, {evalue}, 1e-6);
        close(name + " gradient", dx, edx, 1e-5);
        if (kind == 2) close(name + " gradient of the targets", dt, edt, 1e-5);
    }
}

static void optimizers() {
    const unsigned sizes[] = {1, 300, 64, 129};
    const unsigned chunk = 64;
    for (int kind = 0; kind < 3; ++kind) {
        vector<vector<float>> p, g, m, v;
        vector<Entry> table;
        unsigned first = 0;
        for (unsigned size : sizes) {
            p.push_back(draw(size));
            g.push_back(draw(size));
            m.push_back(draw(size));
            v.push_back(draw(size, 2.0, 0.1));
        }
        for (unsigned i = 0; i < 4; ++i) {
            table.push_back(Entry{p[i].data(), g[i].data(), m[i].data(), v[i].data(), sizes[i], first, 0.9 - 0.1 * i, 0.01 * (i + 1), 0.7});
            first += (sizes[i] + chunk - 1) / chunk;
        }
        const auto p0 = p, g0 = g, m0 = m, v0 = v;
        const double lr = 0.1, mu = 0.9, b1 = 0.8, b2 = 0.95, eps = 1e-3;
        vector<double> sums(3 * first, NAN);
        launch(Dim{first, 1, 1}, Dim{64, 1, 1}, [&] {
            if (kind == 2) adamw(table.data(), 4, chunk, b1, b2, eps);
            else sgd(table.data(), 4, chunk, lr, mu, kind);
        });
        launch(Dim{first, 1, 1}, Dim{64, 1, 1}, [&] { norms(table.data(), 4, chunk, sums.data()); });
        for (unsigned i = 0; i < 4; ++i) {
            vector<double> ep(sizes[i]), em(sizes[i]), ev(sizes[i]), en(3), gn(3);
            for (unsigned k = 0; k < sizes[i]; ++k) {
                const double a = table[i].a, b = table[i].b, c = table[i].c, x = p0[i][k], y = g0[i][k];
                ev[k] = v0[i][k];
                if (kind == 2) {
                    em[k] = m0[i][k] + (1 - b1) * (y - m0[i][k]);
                    ev[k] = b2 * v0[i][k] + (1 - b2) * y * y;
                    ep[k] = a * x - b * em[k] / (std::sqrt(ev[k]) / c + eps);
                } else {
                    const double d = a * (y + b * x);
                    em[k] = mu * m0[i][k] + d;
                    ep[k] = x - lr * (kind ? d + mu * em[k] : em[k]);
                }
                en[0] += (double)p[i][k] * p[i][k];
                en[1] += y * y;
                en[2] += (double)p[i][k] * y;
            }
            const unsigned last = i + 1 < 4 ? (unsigned)table[i + 1].first : first;
            for (unsigned k = (unsigned)table[i].first; k < last; ++k)
                for (unsigned j = 0; j < 3; ++j) gn[j] += sums[3 * k + j];
            const string name = "optimizer " + std::to_string(kind) + "." + std::to_string(i);
            close(name, p[i], ep, 1e-6);
            close(name + " first", m[i], em, 1e-6);
            close(name + " second", v[i], ev, 1e-6);
            close(name + " norms", gn, en, 1e-6);
        }
    }
}

/// Two steps of LAMB, with and without the trust ratio.
static void lamb_steps() {
    const unsigned sizes[] = {1, 300, 64, 129}, chunk = 64;
    for (int adapt = 0; adapt < 2; ++adapt) {
        vector<vector<float>> p, g, m, v;
        for (unsigned size : sizes) {
            p.push_back(draw(size));
            g.push_back(draw(size));
            m.push_back(draw(size));
            v.push_back(draw(size, 2.0, 0.1));
        }
        // A parameter of zeros has no ratio.
        std::fill(p[2].begin(), p[2].end(), 0.0f);
        const double lr = 0.1, b1 = 0.8, b2 = 0.95, eps = 1e-3, most = 1.2;
        vector<vector<double>> ep, em, ev;
        for (int i = 0; i < 4; ++i) {
            ep.emplace_back(p[i].begin(), p[i].end());
            em.emplace_back(m[i].begin(), m[i].end());
            ev.emplace_back(v[i].begin(), v[i].end());
        }
        for (int step = 1; step < 3; ++step) {
            vector<Entry> table;
            unsigned first = 0;
            const double rate = 1 / (1 - std::pow(b1, step)), root = std::sqrt(1 - std::pow(b2, step));
            for (unsigned i = 0; i < 4; ++i) {
                table.push_back(Entry{p[i].data(), g[i].data(), m[i].data(), v[i].data(), sizes[i], first, 0.01 * (i + 1), rate, root});
                first += (sizes[i] + chunk - 1) / chunk;
            }
            vector<double> sums(2 * first, NAN);
            launch(Dim{first, 1, 1}, Dim{64, 1, 1}, [&] { lamb_moments(table.data(), 4, chunk, b1, b2, eps, sums.data()); });
            launch(Dim{first, 1, 1}, Dim{64, 1, 1}, [&] { lamb(table.data(), 4, chunk, lr, eps, most, adapt, sums.data()); });
            for (unsigned i = 0; i < 4; ++i) {
                vector<double> r(sizes[i]);
                double pp = 0, rr = 0;
                for (unsigned k = 0; k < sizes[i]; ++k) {
                    em[i][k] += (1 - b1) * (g[i][k] - em[i][k]);
                    ev[i][k] = b2 * ev[i][k] + (1 - b2) * g[i][k] * g[i][k];
                    r[k] = rate * em[i][k] / (std::sqrt(ev[i][k]) / root + eps) + table[i].a * ep[i][k];
                    pp += ep[i][k] * ep[i][k];
                    rr += r[k] * r[k];
                }
                const double q = adapt && pp > 0 && rr > 0 ? std::min(std::sqrt(pp / rr), most) : 1.0;
                for (unsigned k = 0; k < sizes[i]; ++k) ep[i][k] -= lr * q * r[k];
            }
        }
        for (unsigned i = 0; i < 4; ++i) {
            const string name = "lamb " + std::to_string(adapt) + "." + std::to_string(i);
            close(name, p[i], ep[i], 1e-6);
            close(name + " first", m[i], em[i], 1e-6);
            close(name + " second", v[i], ev[i], 1e-6);
        }
    }
}

static void rounding() {
    const float cases[] = {1.0f, 1.00390625f, 1.01171875f, -0.0f, 257.0f, 1e-30f, INFINITY};
    const float expected[] = {1.0f, 1.0f, 1.015625f, -0.0f, 256.0f, 1.001e-30f, INFINITY};
    for (int i = 0; i < 7; ++i) {
        const float got = widen(narrow<bf16>(cases[i]));
        const bool fits = i == 3 ? std::signbit(got) && got == 0 : i == 6 ? std::isinf(got) : std::fabs(got - expected[i]) <= (i == 5 ? 4e-3f : 1e-6f) * std::fabs(expected[i]);
        fits ? ++passed : (std::printf("FAILED rounding of %g: %g\n", cases[i], got), ++failed);
    }
    std::isnan(widen(narrow<bf16>(NAN))) ? ++passed : ++failed;
}

int main() {
    rounding();
    for (bool centre : {true, false})
        for (bool affine : {true, false}) {
            norms_of_rows(1, 5, centre, affine);
            norms_of_rows(70, 33, centre, affine);
            norms_of_rows(3, 1500, centre, affine);
        }
    functions_of_rows(1, 3);
    functions_of_rows(19, 100);
    functions_of_rows(2, 2049);
    for (bool all : {true, false})
        for (bool relu : {true, false}) {
            batch_norm<1>(70, 37, 1, all, relu, 3);
            batch_norm<4>(300, 36, 1, all, relu, 2);
            batch_norm<4>(150, 132, 1, all, relu, 3);
            batch_norm<4>(65, 68, 1, all, relu, 3);
            batch_norm<1>(9, 3, 1, all, relu, 8);
            batch_norm<1>(5, 3, 35, all, relu, 2);
            batch_norm<4>(40, 5, 64, all, relu, 2);
            batch_norm<4>(3, 2, 4, all, relu, 7);
        }
    for (unsigned last : {0u, 1u}) {
        pooling(2, 3, 9, 7, 3, 2, 1, last);
        pooling(1, 2, 8, 8, 2, 2, 0, last);
        pooling(2, 1, 5, 6, 3, 1, 1, last);
        pooling(1, 3, 7, 11, 4, 3, 2, last);
    }
    elementwise(1001);
    elementwise(1000);
    strips(21, 5, 8, false, 0);
    strips(21, 5, 8, false, 21);
    strips(24, 5, 7, false, 8);
    strips(21, 5, 21, true, 0);
    strips(300, 3, 128, true, 300);
    squared_distances(1, 3);
    squared_distances(37, 5);
    squared_distances(130, 2);
    // Some columns above and some below the hinge; fewer rows than columns, and more.
    for (bool gram : {true, false})
        for (double spread : {0.5, 1.0, 3.0}) {
            moments_of_columns(2, gram ? 3 : 1, gram, spread);
            moments_of_columns(9, 37, gram, spread);
            moments_of_columns(70, 33, gram, spread);
        }
    for (unsigned n : {1u, 31u, 32u, 75u}) symmetric_sums(n);
    errors(1);
    errors(777);
    waves(1, 1, 2, 1.0);
    waves(50, 37, 17, 1.0);
    waves(33, 5, 60, 3.0);
    // A small loss of large logits, too.
    for (int draws = 0; draws < 4; ++draws) cross_entropies(1, 2);
    cross_entropies(19, 100);
    cross_entropies(3, 1500);
    optimizers();
    lamb_steps();
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
