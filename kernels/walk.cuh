// walk.cuh: how the kernels walk over memory.
//
// Defined in front of this text (gpubackprop/backends/sources.py):
//   T  the type of the arithmetic, float or double;
//   S  the type in which activations and deltas are stored: T, or bfloat16 beside T = float.
// No header of CUDA is included: that keeps compilation short, and the text is C++ for a CPU too (tests/host_cuda.py).
//
// Every kernel strides over its work by the size of its launch, so that any launch gives the right answer, with at
// most THREADS threads to a block.

using Index = long long;           // rows * cols may exceed 2^31
constexpr int THREADS = 256;       // the most threads a block may have
constexpr int V = 16 / sizeof(S);  // elements of S that one thread takes at once: 128 bits

// The bounds of every kernel: the most threads to a block, and the blocks that a multiprocessor has to hold at once. They
// leave the compiler 65536 / (4 * 256) = 64 registers, and 80 for double. Without the second it aims for more blocks, in
// 32 to 48 registers, and keeps in memory what does not fit into those.
#define BOUNDS THREADS, sizeof(T) == 8 ? 3 : 4

// -- memory: 128 bits at a time where it is aligned ---------------------------------------------------------------------

// Whether vectors may be loaded and stored at each pointer; a null pointer stands for an array that is not there.
template <class... P> __device__ __forceinline__ bool aligned(const P*... pointers) {
    return (((reinterpret_cast<size_t>(pointers) % 16) == 0) && ...);
}

// v = p[0..w-1], in T; w is 1, or a multiple of what 128 bits hold and p is aligned.
template <int w, class E> __device__ __forceinline__ void load(T (&v)[w], const E* p) {
    if constexpr (w == 1) {
        v[0] = T(p[0]);
    } else {
        constexpr int n = 16 / sizeof(E);
        static_assert(w % n == 0, "whole vectors");
        #pragma unroll
        for (int i = 0; i < w; i += n) {
            const uint4 bits = *reinterpret_cast<const uint4*>(p + i);
            const E* const e = reinterpret_cast<const E*>(&bits);
            #pragma unroll
            for (int k = 0; k < n; ++k) v[i + k] = T(e[k]);
        }
    }
}

// *p = bits in one instruction: NVCC takes assignments apart where it has moved the computation of their address.
__device__ __forceinline__ void store_bits(uint4* p, uint4 bits) {
#ifdef __CUDA_ARCH__
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w)
                 : "memory");
#else
    *p = bits;
#endif
}

// p[0..w-1] = v, rounded to E.
template <int w, class E> __device__ __forceinline__ void store(E* p, const T (&v)[w]) {
    if constexpr (w == 1) {
        p[0] = E(v[0]);
    } else {
        constexpr int n = 16 / sizeof(E);
        static_assert(w % n == 0, "whole vectors");
        #pragma unroll
        for (int i = 0; i < w; i += n) {
            uint4 bits;
            E* const e = reinterpret_cast<E*>(&bits);
            #pragma unroll
            for (int k = 0; k < n; ++k) e[k] = E(v[i + k]);
            store_bits(reinterpret_cast<uint4*>(p + i), bits);
        }
    }
}

// -- walks --------------------------------------------------------------------------------------------------------------

template <int w> struct Width {
    __device__ constexpr operator int() const { return w; }
};

// A vector (n,): body(width, i) for the elements i to i + width - 1, by vectors and then the rest one by one.
template <class Body> __device__ __forceinline__ void each(Index n, bool vectors, Body body) {
    const Index thread = blockIdx.x * (Index)blockDim.x + threadIdx.x, threads = gridDim.x * (Index)blockDim.x;
    const Index whole = vectors ? n / V : 0;
    for (Index i = thread; i < whole; i += threads) body(Width<V>(), i * V);
    for (Index i = whole * V + thread; i < n; i += threads) body(Width<1>(), i);
}

// A matrix (rows, cols): body(width, col) for the columns col to col + width - 1, in all threads of the block alike,
// col >= cols included, so that the body may hold barriers; it goes over the rows by EACH_ROW.
template <int w, class Body> __device__ __forceinline__ void each_tile(Index cols, Body body) {
    const Index tile = (Index)blockDim.x * w;
    for (Index start = blockIdx.x * tile; start < cols; start += gridDim.x * tile)
        body(Width<w>(), start + threadIdx.x * w);
}
template <class Body> __device__ __forceinline__ void each_column(Index cols, bool vectors, Body body) {
    if (vectors && cols % V == 0)  // so that every row begins at a whole vector
        each_tile<V>(cols, body);
    else
        each_tile<1>(cols, body);
}
// Not unrolled: no load of the next round may overtake a store of this one, so that nothing is won but registers lost.
#define EACH_ROW(row, rows)                                                                                \
    _Pragma("unroll 1") for (Index row = blockIdx.y * (Index)blockDim.y + threadIdx.y; row < (rows); \
                             row += gridDim.y * (Index)blockDim.y)
