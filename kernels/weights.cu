// weights.cu: the share of each row of a batch in its mean loss:  weight = share w / max(total, least).
//
//   w       (n,)  in
//   total   ()    in: Σ w, by sum_rows.cu
//   weight  (n,)  out
#include "walk.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
weights(const T* w, const T* total, T share, T least, T* weight, Index n) {
    const T divisor = total[0] > least ? total[0] : least;
    each(n, aligned(w, weight), [&](auto width, Index i) {
        T v[width];
        load(v, w + i);
        #pragma unroll
        for (int k = 0; k < width; ++k) v[k] = v[k] / divisor * share;
        store(weight + i, v);
    });
}
