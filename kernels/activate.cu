// activate.cu: equations 1 and 2 after the product:  z_l = g + b_l,  a_l = σ(z_l),  h_l = a_l ⊙ mask.
//
//   z     (rows, cols)  in: g = a_{l-1} W_l; out: z_l, unless a is the same array
//   b     (cols,)       in
//   mask  (rows, cols)  in, or null: no dropout
//   a     (rows, cols)  out
//   h     (rows, cols)  out where there is a mask
//
// Generated: sigma(z).
#include "walk.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
activate(S* z, const T* b, const S* mask, S* a, S* h, Index rows, Index cols) {
    each_column(cols, aligned(z, b, mask, a, h), [&](auto width, Index col) {
        if (col >= cols) return;
        T bias[width], v[width];
        load(bias, b + col);
        EACH_ROW(row, rows) {
            const Index i = row * cols + col;
            load(v, z + i);
            #pragma unroll
            for (int k = 0; k < width; ++k) v[k] += bias[k];
            if (z != a) store(z + i, v);
            #pragma unroll
            for (int k = 0; k < width; ++k) v[k] = sigma(v[k]);
            store(a + i, v);
            if (mask) {
                T m[width];
                load(m, mask + i);
                #pragma unroll
                for (int k = 0; k < width; ++k) v[k] *= m[k];
                store(h + i, v);
            }
        }
    });
}
