// host_cuda.h: the words of CUDA that the kernels use, in C++ for a CPU; in front of the text of a kernel.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
using namespace std;

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(threads)

extern "C" void host_sync_block();
extern "C" void host_sync_lanes(unsigned mask);
extern "C" uint64_t host_exchange(unsigned mask, uint64_t bits, unsigned from);
extern "C" unsigned host_lane();

struct alignas(16) uint4 { unsigned x, y, z, w; };

struct HostPlace { unsigned x, y; };
static thread_local HostPlace threadIdx, blockIdx, blockDim, gridDim;

static inline void __syncthreads() { host_sync_block(); }
static inline void __syncwarp(unsigned mask) { host_sync_lanes(mask); }
template <class E> static E __shfl_xor_sync(unsigned mask, E value, unsigned step) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(E));
    bits = host_exchange(mask, bits, host_lane() ^ step);
    memcpy(&value, &bits, sizeof(E));
    return value;
}
static inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((unsigned __int128)a * b >> 64);
}
