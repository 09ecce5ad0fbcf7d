//! Enough of CUDA for a C++ compiler to run kernels on the CPU: every thread of a block is a coroutine, barriers and
//! shuffles switch between them. Slow and exact; it finds wrong indices, missing barriers that deadlock, and
//! elements that nobody writes. It does not find races between warps.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __shared__ static

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};
static Dim gridDim, blockDim, blockIdx, threadIdx;

inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

// One rounding each; the compiler is told not to fuse by the absence of such instructions in its default target, and by
// `-ffp-contract=off`.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

namespace emulated {
struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    Dim index;
    bool done = false;
};
/// A barrier of some threads: passes when all that are alive have arrived.
struct Barrier {
    unsigned alive = 0, arrived = 0, round = 0;
    void settle() {
        if (alive > 0 && arrived == alive) {
            arrived = 0;
            ++round;
        }
    }
};
static ucontext_t scheduler;
static std::vector<Thread> threads;
static unsigned current;
static Barrier block;
static std::vector<Barrier> warps;
static std::vector<double> lanes;
static std::function<void()> body;

inline void yield() { swapcontext(&threads[current].context, &scheduler); }
inline void wait(Barrier& barrier) {
    const unsigned round = barrier.round;
    ++barrier.arrived;
    barrier.settle();
    while (barrier.round == round) yield();
}
inline void entry() {
    body();
    threads[current].done = true;
    --block.alive;
    block.settle();
    Barrier& warp = warps[current / 32];
    --warp.alive;
    warp.settle();
    swapcontext(&threads[current].context, &scheduler);
}

/// Runs a kernel on a grid of blocks.
inline void launch(Dim grid, Dim block_size, std::function<void()> kernel) {
    gridDim = grid;
    blockDim = block_size;
    body = std::move(kernel);
    const unsigned count = block_size.x * block_size.y;
    threads.resize(count);
    lanes.assign(count, 0.0);
    for (unsigned by = 0; by < grid.y; ++by) {
        for (unsigned bx = 0; bx < grid.x; ++bx) {
            blockIdx = Dim{bx, by, 0};
            block = Barrier{count, 0, 0};
            warps.assign((count + 31) / 32, Barrier{});
            for (unsigned t = 0; t < count; ++t) {
                ++warps[t / 32].alive;
                Thread& thread = threads[t];
                thread.done = false;
                thread.index = Dim{t % block_size.x, t / block_size.x, 0};
                thread.stack.resize(64 << 10);
                getcontext(&thread.context);
                thread.context.uc_stack.ss_sp = thread.stack.data();
                thread.context.uc_stack.ss_size = thread.stack.size();
                thread.context.uc_link = &scheduler;
                makecontext(&thread.context, entry, 0);
            }
            unsigned left = count;
            for (unsigned long turns = 0; left > 0; ++turns) {
                if (turns > 200000) {
                    std::fprintf(stderr, "a barrier that not all threads reach\n");
                    std::abort();
                }
                left = 0;
                for (unsigned t = 0; t < count; ++t) {
                    if (threads[t].done) continue;
                    current = t;
                    threadIdx = threads[t].index;
                    swapcontext(&scheduler, &threads[t].context);
                    if (!threads[t].done) ++left;
                }
            }
        }
    }
}
}  // namespace emulated

inline void __syncthreads() {
    emulated::wait(emulated::block);
    threadIdx = emulated::threads[emulated::current].index;
}
template <class T> T __shfl_xor_sync(unsigned, T value, int offset) {
    using namespace emulated;
    const unsigned own = current;
    lanes[own] = (double)value;
    wait(warps[own / 32]);
    const T other = (T)lanes[own ^ (unsigned)offset];
    wait(warps[own / 32]);
    return other;
}
