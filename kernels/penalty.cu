// penalty.cu: the sum of squares Σ x², and the derivative of the penalty λ/2 Σ x² added to a gradient:  g += λ x.
//
//   x        (n,)          in: W_l, or ∂L/∂θ for the clipping of its norm
//   g        (n,)          in and out, or null: only the sum is computed
//   divisor  ()            in: what λ and the scale are divided by, or null
//   sums     (gridDim.x,)  out: scale Σ x² over the elements of each block; sum_rows.cu adds them up
#include "sums.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
penalty(const T* x, T* g, T lambda, T scale, const T* divisor, T* sums, Index n) {
    T total = 0;
    if (divisor) {
        lambda /= divisor[0];
        scale /= divisor[0];
    }
    each(n, aligned(x, g), [&](auto width, Index i) {
        T xi[width], gi[width];
        load(xi, x + i);
        #pragma unroll
        for (int k = 0; k < width; ++k) total += xi[k] * xi[k];
        if (g) {
            load(gi, g + i);
            #pragma unroll
            for (int k = 0; k < width; ++k) gi[k] += lambda * xi[k];
            store(g + i, gi);
        }
    });
    total = sum_block(scale * total);
    if (first_thread()) sums[blockIdx.x] = total;
}
