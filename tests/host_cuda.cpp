// host_cuda.cpp: what a kernel finds on a GPU, on a CPU. The threads of a block are real threads; blocks run one after
// another, each with the whole memory to itself. `tests/host_cuda.py` compiles this once and every kernel beside it.
#include <atomic>
#include <cstdint>
#include <ctime>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

namespace {

constexpr unsigned MOST = 1024, WARP = 32;
constexpr int PATIENCE = 10;  // seconds after which a barrier that somebody never reached is given up

struct Barrier {
    std::atomic<unsigned> arrived{0}, phase{0};
};

using Kernel = void (*)(const unsigned* place, void** arguments);

struct Launch {
    Kernel kernel;
    void** arguments;
    unsigned grid[2], block[2];
} launch;

Barrier block_barrier, lane_barriers[MOST];
std::atomic<bool> stuck{false};
std::uint64_t exchanged[MOST];
unsigned pool_size = 0;
sem_t starts[MOST], done;
std::atomic<unsigned> running{0};
thread_local unsigned me;

void wait(Barrier& barrier, unsigned all) {
    const unsigned phase = barrier.phase.load(std::memory_order_acquire);
    if (barrier.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == all) {
        barrier.arrived.store(0, std::memory_order_relaxed);
        barrier.phase.store(phase + 1, std::memory_order_release);
        return;
    }
    timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (unsigned turn = 1; barrier.phase.load(std::memory_order_acquire) == phase; ++turn) {
        if (stuck.load(std::memory_order_relaxed)) return;
        sched_yield();
        if (turn % 4096) continue;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - begin.tv_sec > PATIENCE) stuck.store(true);
    }
}

void* work(void* number) {
    me = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(number));
    for (;;) {
        sem_wait(&starts[me]);
        const Launch& l = launch;
        const unsigned threads = l.block[0] * l.block[1];
        for (unsigned y = 0; y < l.grid[1]; ++y)
            for (unsigned x = 0; x < l.grid[0]; ++x) {
                const unsigned place[] = {me % l.block[0], me / l.block[0], x,         y,
                                          l.block[0],      l.block[1],      l.grid[0], l.grid[1]};
                l.kernel(place, l.arguments);
                wait(block_barrier, threads);
            }
        if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) sem_post(&done);
    }
}

}  // namespace

extern "C" void host_sync_block() { wait(block_barrier, launch.block[0] * launch.block[1]); }

extern "C" void host_sync_lanes(unsigned mask) {
    wait(lane_barriers[me / WARP * WARP + __builtin_ctz(mask)], __builtin_popcount(mask));
}

// The bits that a lane of this warp gave in the same call.
extern "C" std::uint64_t host_exchange(unsigned mask, std::uint64_t bits, unsigned from) {
    exchanged[me] = bits;
    host_sync_lanes(mask);
    const std::uint64_t result = exchanged[me / WARP * WARP + from];
    host_sync_lanes(mask);
    return result;
}

extern "C" unsigned host_lane() { return me % WARP; }

// 0, or 1 where threads of a block waited for each other in vain.
extern "C" int host_launch(Kernel kernel, void** arguments, unsigned gx, unsigned gy, unsigned bx, unsigned by) {
    launch = {kernel, arguments, {gx, gy}, {bx, by}};
    block_barrier.arrived = 0;
    for (Barrier& barrier : lane_barriers) barrier.arrived = 0;
    stuck = false;
    if (pool_size == 0) sem_init(&done, 0, 0);
    for (; pool_size < bx * by; ++pool_size) {
        pthread_t thread;
        sem_init(&starts[pool_size], 0, 0);
        pthread_create(&thread, nullptr, work, reinterpret_cast<void*>(std::uintptr_t(pool_size)));
        pthread_detach(thread);
    }
    running = bx * by;
    for (unsigned k = 0; k < bx * by; ++k) sem_post(&starts[k]);
    while (sem_wait(&done)) {
    }
    return stuck;
}
