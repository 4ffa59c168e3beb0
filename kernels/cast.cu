// cast.cu: numbers from the type of the arithmetic to that of storage, or back.
//
//   wide    (n,)  in, or out
//   narrow  (n,)  out, or in
#include "walk.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
cast(T* wide, S* narrow, int widens, Index n) {
    each(n, aligned(wide, narrow), [&](auto width, Index i) {
        T v[width];
        if (widens) {
            load(v, narrow + i);
            store(wide + i, v);
        } else {
            load(v, wide + i);
            store(narrow + i, v);
        }
    });
}
