// output_rows.cu: equations 3 and 6 for softmax: the loss, δ_L, and ∂L/∂b_L = Σ_rows δ_L.
//
//   y, z, a  (rows, cols)       in; z is used where CANONICAL alone, and may be the array a elsewhere
//   weight   (rows,)            in, or null: every row counts `share` in the mean
//   delta    (rows, cols)       out
//   sums     (gridDim.y, cols)  out: Σ δ_L over the rows of each block
//   losses   (gridDim.y,)       out: the loss of the rows of each block
//
// CANONICAL (cross-entropy): the loss from s = log softmax(z) = z − max z − log Σ exp(z − max z), and δ_L = a − y.
// Else δ_L is the product of g = ∂L/∂a_L with the Jacobian of softmax, a ⊙ (g − Σ_cols g a).
// gridDim.x is 1. Generated: loss(y, s), with s = a unless CANONICAL; loss_prime(y, a).
#include "rows.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
output_rows(const T* y, const S* z, const S* a, const T* weight, T share, S* delta, T* sums, T* losses, Index rows,
            Index cols) {
    T total = 0;
    EACH_ROW(row, rows) {
        const T part = weight ? weight[row] : share;
        const T* const yr = y + row * cols;
        const S *const zr = z + row * cols, *const ar = a + row * cols;
        S* const dr = delta + row * cols;
        T value = 0;
        if constexpr (CANONICAL) {
            const T peak = row_peak(zr, cols), log_total = log(row_total(zr, peak, cols));
            EACH_LANE(col, cols) {
                value += loss(yr[col], T(zr[col]) - peak - log_total);
                dr[col] = S(part * (T(ar[col]) - yr[col]));
            }
        } else {
            T product = 0;
            EACH_LANE(col, cols) {
                value += loss(yr[col], T(ar[col]));
                product += loss_prime(yr[col], T(ar[col])) * T(ar[col]);
            }
            product = row_sum(product);
            EACH_LANE(col, cols)
                dr[col] = S(part * (T(ar[col]) * (loss_prime(yr[col], T(ar[col])) - product)));
        }
        total += part * value;
    }
    each_tile<1>(cols, [&](auto, Index col) {  // a lane reads again what it wrote itself
        T sum[1] = {0};
        if (col < cols) {
            EACH_ROW(row, rows) sum[0] += T(delta[row * cols + col]);
        }
        sum_rows_of_block(sum);
        if (threadIdx.y == 0 && col < cols) store(sums + blockIdx.y * cols + col, sum);
    });
    total = sum_block(total);
    if (first_thread()) losses[blockIdx.y] = total;
}
