// update.cu: equations 7 and 8: one step of the optimizer over the whole flat θ, in place.
//
//   theta    (n,)         in and out: W_1, b_1, ..., W_L, b_L
//   g        (n,)         in: ∂L/∂θ
//   slots    (SLOTS, n)   in and out: what the optimizer keeps
//   h        (scalars,)   in: what changes from step to step, the learning rate among it
//   squares  ()           in: Σ g², or null: no clipping
//   narrow   (n,)         out: θ in the type of storage, for the products of the next step; or null
//
// Generated: SLOTS; clip_factor(squares); step(w, g, s, k, h, clip), which changes w and s[0..SLOTS-1][k].
#include "walk.cuh"

extern "C" __global__ void __launch_bounds__(BOUNDS)
update(T* theta, const T* g, T* slots, const T* h, const T* squares, S* narrow, Index n) {
    const T clip = squares ? clip_factor(squares[0]) : T(1);
    each(n, aligned(theta, g, slots, narrow) && (SLOTS < 2 || n % V == 0), [&](auto width, Index i) {
        T w[width], gi[width], s[SLOTS ? SLOTS : 1][width];
        load(w, theta + i);
        load(gi, g + i);
        #pragma unroll
        for (int j = 0; j < SLOTS; ++j) load(s[j], slots + j * n + i);
        #pragma unroll
        for (int k = 0; k < width; ++k) step(w[k], gi[k], s, k, h, clip);
        store(theta + i, w);
        if (narrow) store(narrow + i, w);
        #pragma unroll
        for (int j = 0; j < SLOTS; ++j) store(slots + j * n + i, s[j]);
    });
}
