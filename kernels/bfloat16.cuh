// bfloat16.cuh: the upper half of a float, as a type for memory alone: arithmetic is in float.
struct bfloat16 {
    unsigned short bits;

    bfloat16() = default;
    // To the nearest, ties to even; NaN stays NaN.
    __device__ __forceinline__ explicit bfloat16(float x) {
        const unsigned u = __float_as_uint(x);
        bits = static_cast<unsigned short>(x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16);
    }
    __device__ __forceinline__ operator float() const { return __uint_as_float(unsigned(bits) << 16); }
};
