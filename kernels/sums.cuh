// sums.cuh: sums over the threads of a block, in an order that the shape of the launch alone decides, never by atomics:
// the same launch gives the same bits.
#include "walk.cuh"

// v becomes, in lane 0 of each column of threads, the sum of v over all its lanes; lanes * columns <= THREADS.
template <int w> __device__ __forceinline__ void sum_lanes(T (&v)[w], unsigned lane, unsigned lanes, unsigned column,
                                                           unsigned columns) {
    __shared__ T scratch[THREADS * w];
    T* const mine = scratch + (lane * columns + column) * w;
    __syncthreads();  // a sum before this one may still be read
    #pragma unroll
    for (int k = 0; k < w; ++k) mine[k] = v[k];
    while (lanes > 1) {
        const unsigned half = (lanes + 1) / 2;
        __syncthreads();
        if (lane + half < lanes) {
            #pragma unroll
            for (int k = 0; k < w; ++k) mine[k] += mine[half * columns * w + k];
        }
        lanes = half;
    }
    #pragma unroll
    for (int k = 0; k < w; ++k) v[k] = mine[k];
}

// In the threads of row 0 of a block: the sum over threadIdx.y.
template <int w> __device__ __forceinline__ void sum_rows_of_block(T (&v)[w]) {
    sum_lanes<w>(v, threadIdx.y, blockDim.y, threadIdx.x, blockDim.x);
}

// In the first thread of a block: the sum over all its threads.
__device__ __forceinline__ T sum_block(T value) {
    T v[1] = {value};
    sum_lanes<1>(v, threadIdx.y * blockDim.x + threadIdx.x, blockDim.x * blockDim.y, 0, 1);
    return v[0];
}

__device__ __forceinline__ bool first_thread() { return threadIdx.x == 0 && threadIdx.y == 0; }
