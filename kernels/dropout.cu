// dropout.cu: a mask of dropout, by the counter-based generator Philox 4x64 of ten rounds (Salmon, Moraes, Dror,
// Shaw 2011), as NumPy has it: the mask is that of numpy.random.Generator(Philox(counter, key)).random(n, "float32").
//
//   mask   (n,)  out: 0 where the number drawn is below `threshold` (in units of 2^-24), else `scale`
//   first  ()    in: a step; the mask is that of the k-th after it
//   start        the mask's first number is the start-th that such a generator draws
//
// One thread draws the eight numbers of one count: 64-bit word j has number 2j in its lower and 2j + 1 in its upper half.
#include "walk.cuh"

using Word = unsigned long long;

__device__ __forceinline__ void philox(Word (&c)[4], Word key0, Word key1) {
    #pragma unroll
    for (int round = 0; round < 10; ++round) {
        const Word high0 = __umul64hi(0xD2E7470EE14C6C93ull, c[0]), low0 = 0xD2E7470EE14C6C93ull * c[0];
        const Word high1 = __umul64hi(0xCA5A826395121157ull, c[2]), low1 = 0xCA5A826395121157ull * c[2];
        c[0] = high1 ^ c[1] ^ key0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ key1;
        c[3] = low0;
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
}

extern "C" __global__ void __launch_bounds__(BOUNDS)
dropout(S* mask, T scale, unsigned threshold, Word key0, Word key1, Word layer, const Index* first, Index k, Index start,
        Index n) {
    const Word step = Word(first[0] + k);
    const Index skipped = start % 8;  // numbers of the first count that lie before the mask's
    const bool vectors = aligned(mask) && skipped == 0;
    const Index thread = blockIdx.x * (Index)blockDim.x + threadIdx.x, threads = gridDim.x * (Index)blockDim.x;
    for (Index group = thread; 8 * group < skipped + n; group += threads) {
        Word c[4] = {Word(start / 8 + group) + 1, layer, step, 0};  // NumPy counts up before it draws
        philox(c, key0, key1);
        T v[8];
        #pragma unroll
        for (int j = 0; j < 8; ++j) v[j] = unsigned(c[j / 2] >> (j % 2 ? 32 : 0)) >> 8 >= threshold ? scale : T(0);
        if (vectors && 8 * group + 8 <= n) {
            store(mask + 8 * group, v);
        } else {
            #pragma unroll
            for (int j = 0; j < 8; ++j) {
                const Index i = 8 * group + j - skipped;
                if (0 <= i && i < n) mask[i] = S(v[j]);
            }
        }
    }
}
