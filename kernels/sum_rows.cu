// sum_rows.cu: the second stage of every sum:  out = Σ_rows partial, or out += Σ_rows partial.
//
//   partial  (rows, cols)  in
//   out      (cols,)       out, or in and out if `adds`
//
// One block holds all rows of a column: gridDim.y is 1.
#include "sums.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
sum_rows(const T* partial, T* out, int adds, Index rows, Index cols) {
    each_column(cols, aligned(partial, out), [&](auto width, Index col) {
        T sum[width] = {}, v[width];
        if (col < cols) {
            EACH_ROW(row, rows) {
                load(v, partial + row * cols + col);
                #pragma unroll
                for (int k = 0; k < width; ++k) sum[k] += v[k];
            }
        }
        sum_rows_of_block(sum);
        if (threadIdx.y == 0 && col < cols) {
            if (adds) {
                load(v, out + col);
                #pragma unroll
                for (int k = 0; k < width; ++k) sum[k] += v[k];
            }
            store(out + col, sum);
        }
    });
}
