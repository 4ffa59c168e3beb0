// output.cu: equations 3 and 6 for an elementwise output activation: the loss, δ_L = ∂L/∂a_L ⊙ σ'_L(z_L) and
// ∂L/∂b_L = Σ_rows δ_L.  output_rows.cu does the same for softmax.
//
//   y, z, a  (rows, cols)       in; z may be the array a where no formula uses it
//   weight   (rows,)            in, or null: every row counts `share` in the mean
//   delta    (rows, cols)       out
//   sums     (gridDim.y, cols)  out: Σ δ_L over the rows of each block
//   losses   (gridDim.y,)       out: the loss of the rows of each block
//
// gridDim.x is 1: a block goes over whole rows. Generated: loss(y, s), from s = z where CANONICAL, where the loss and
// the activation fit so that δ_L is a − y, else from s = a; loss_prime(y, a); backward(g, z, a) = g σ'(z).
#include "sums.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
output(const T* y, const S* z, const S* a, const T* weight, T share, S* delta, T* sums, T* losses, Index rows,
       Index cols) {
    T total = 0;
    each_column(cols, aligned(y, z, a, delta, sums), [&](auto width, Index col) {
        T sum[width] = {};
        if (col < cols) {
            EACH_ROW(row, rows) {
                const Index i = row * cols + col;
                const T part = weight ? weight[row] : share;
                T yi[width], zi[width], ai[width], d[width], value = 0;
                load(yi, y + i);
                load(zi, z + i);
                load(ai, a + i);
                #pragma unroll
                for (int k = 0; k < width; ++k) {
                    if constexpr (CANONICAL) {
                        value += loss(yi[k], zi[k]);
                        d[k] = part * (ai[k] - yi[k]);
                    } else {
                        value += loss(yi[k], ai[k]);
                        d[k] = part * backward(loss_prime(yi[k], ai[k]), zi[k], ai[k]);
                    }
                    sum[k] += d[k];
                }
                store(delta + i, d);
                total += part * value;
            }
        }
        sum_rows_of_block(sum);
        if (threadIdx.y == 0 && col < cols) store(sums + blockIdx.y * cols + col, sum);
    });
    total = sum_block(total);
    if (first_thread()) losses[blockIdx.y] = total;
}
