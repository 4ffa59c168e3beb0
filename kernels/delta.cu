// delta.cu: equations 4 and 6 after the product:  δ_l = g ⊙ mask ⊙ σ'(z_l),  ∂L/∂b_l = Σ_rows δ_l.
//
//   delta  (rows, cols)       in: g = δ_{l+1} W_{l+1}ᵀ; out: δ_l
//   mask   (rows, cols)       in, or null: no dropout
//   z, a   (rows, cols)       in; null where σ' does not use it, or the same array
//   sums   (gridDim.y, cols)  out: Σ δ_l over the rows of each row of blocks; with one such row this is ∂L/∂b_l, else
//                             sum_rows.cu adds them up
//
// Every input is read once, and δ_l written once. Generated: backward(g, z, a) = g σ'(z).
#include "sums.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
delta(S* delta, const S* mask, const S* z, const S* a, T* sums, Index rows, Index cols) {
    each_column(cols, aligned(delta, mask, z, a, sums), [&](auto width, Index col) {
        T sum[width] = {};
        if (col < cols) {
            EACH_ROW(row, rows) {
                const Index i = row * cols + col;
                T g[width], m[width], zi[width] = {}, ai[width] = {};
                load(g, delta + i);
                if (mask) {
                    load(m, mask + i);
                    #pragma unroll
                    for (int k = 0; k < width; ++k) g[k] *= m[k];
                }
                if (z) load(zi, z + i);
                if (a) load(ai, a + i);
                #pragma unroll
                for (int k = 0; k < width; ++k) g[k] = backward(g[k], zi[k], ai[k]);
                store(delta + i, g);
                #pragma unroll
                for (int k = 0; k < width; ++k) sum[k] += g[k];
            }
        }
        sum_rows_of_block(sum);
        if (threadIdx.y == 0 && col < cols) store(sums + blockIdx.y * cols + col, sum);
    });
}
