// softmax.cu: equations 1 and 2 after the product, for softmax:  z_L = g + b_L,
// a_L = exp(z_L − max z_L) / Σ exp(z_L − max z_L), row by row.
//
//   z  (rows, cols)  in: g = a_{L-1} W_L; out: z_L, unless a is the same array
//   b  (cols,)       in
//   a  (rows, cols)  out
//
// gridDim.x is 1.
#include "rows.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
softmax(S* z, const T* b, S* a, Index rows, Index cols) {
    EACH_ROW(row, rows) {
        S *const zr = z + row * cols, *const ar = a + row * cols;
        EACH_LANE(col, cols) zr[col] = S(T(zr[col]) + b[col]);
        __syncwarp(row_lanes());  // all lanes read z_L of the first column
        const T peak = row_peak(zr, cols), total = row_total(zr, peak, cols);
        EACH_LANE(col, cols) ar[col] = S(exp(T(zr[col]) - peak) / total);
    }
}
