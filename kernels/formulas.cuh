// formulas.cuh: what the device functions written by gpubackprop/formula.py call besides CUDA's own mathematics.
// T is the type of the computation, float or double, defined before this text.

// NumPy's rule for NaN, which wins; C's fmin and fmax drop it.
__device__ __forceinline__ T minimum(T a, T b) { return a < b || a != a ? a : b; }
__device__ __forceinline__ T maximum(T a, T b) { return a > b || a != a ? a : b; }
