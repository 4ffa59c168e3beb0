// rows.cuh: what the kernels of softmax share, whose outputs depend on a whole row.
//
// A row of the matrix belongs to the blockDim.x lanes of one threadIdx.y: a power of two, at most 32, so that they are
// part of one warp; a lane takes every blockDim.x-th column.
#include "sums.cuh"

#define EACH_LANE(col, cols) for (Index col = threadIdx.x; col < (cols); col += blockDim.x)

// The lanes of this row, as the mask that CUDA's warp functions want.
__device__ __forceinline__ unsigned row_lanes() {
    const unsigned first = (threadIdx.y * blockDim.x) % 32;
    return (blockDim.x == 32 ? ~0u : (1u << blockDim.x) - 1u) << first;
}

// In all lanes of a row: the largest value, and the sum, by butterflies, so that all lanes hold the same bits.
__device__ __forceinline__ T row_maximum(T value) {
    for (unsigned step = blockDim.x / 2; step > 0; step /= 2)
        value = maximum(value, __shfl_xor_sync(row_lanes(), value, step));
    return value;
}
__device__ __forceinline__ T row_sum(T value) {
    for (unsigned step = blockDim.x / 2; step > 0; step /= 2) value += __shfl_xor_sync(row_lanes(), value, step);
    return value;
}

// The largest z of a row, and Σ exp(z − peak).
__device__ __forceinline__ T row_peak(const S* z, Index cols) {
    T peak = T(z[0]);
    EACH_LANE(col, cols) peak = maximum(peak, T(z[col]));
    return row_maximum(peak);
}
__device__ __forceinline__ T row_total(const S* z, T peak, Index cols) {
    T total = 0;
    EACH_LANE(col, cols) total += exp(T(z[col]) - peak);
    return row_sum(total);
}
