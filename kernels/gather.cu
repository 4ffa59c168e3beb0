// gather.cu: the rows of a batch:  out = x[order].
//
//   x      (n, cols)     in
//   order  (rows,)       in: each in 0..n-1
//   out    (rows, cols)  out
#include "walk.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
gather(const S* x, const Index* order, S* out, Index rows, Index cols) {
    each_column(cols, aligned(x, out), [&](auto width, Index col) {
        if (col >= cols) return;
        EACH_ROW(row, rows) {
            T v[width];
            load(v, x + order[row] * cols + col);
            store(out + row * cols + col, v);
        }
    });
}
