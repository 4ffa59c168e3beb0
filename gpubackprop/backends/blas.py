"""NumPy's own BLAS, called for what NumPy has no function for: a product that is added to what lies there already.

It is the library that NumPy's products run on, reached through ctypes, so that there is one pool of threads: a second
BLAS beside it, SciPy's say, would make both wait for each other. Names are those of CBLAS (Blackford et al. 2002); a
build of NumPy may put something before and behind them, and where none is found, or what is found computes wrongly,
there is no `Blas`.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy

_NAMES = ("scipy_cblas_{}64_", "cblas_{}64_", "cblas_{}")  # of NumPy's wheels, of other builds with indices of 64 bits
_LETTERS = {"float32": "s", "float64": "d"}
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112


class Blas:
    """Products added to an array, of one type.

    Args:
        gemm: the function of matrices.
        gemv: that of a matrix and a vector.
        number: the type of α and β for ctypes.
    """

    def __init__(self, gemm: Any, gemv: Any, number: Any) -> None:
        flag, size, array = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
        gemm.argtypes = [flag] * 3 + [size] * 3 + [number, array, size, array, size, number, array, size]
        gemv.argtypes = [flag] * 2 + [size] * 2 + [number, array, size, array, size, number, array, size]
        gemm.restype = gemv.restype = None
        self._gemm, self._gemv = gemm, gemv

    def product_added(self, A: Any, B: Any, out: Any, scale: Any) -> Callable[[], None]:
        """Return what does out ← β out + α Aᵀ B, with what the scale is then.

        Args:
            A: (N, m), contiguous and of the type, as all are.
            B: (N, n).
            out: (m, n), changed in place.
            scale: (α, β).
        """
        (N, m), n = A.shape, B.shape[1]
        a, b, c = A.ctypes.data, B.ctypes.data, out.ctypes.data
        gemm = partial(self._gemm, _ROW_MAJOR, _TRANSPOSED, _PLAIN, m, n, N)
        return partial(_called, gemm, scale, (a, m, b, n), (c, n), (A, B, out))

    def rows_added(self, A: Any, ones: Any, out: Any, scale: Any) -> Callable[[], None]:
        """Return what does out ← β out + α Σ_rows A, with what the scale is then.

        Args:
            A: (N, n), contiguous and of the type, as all are.
            ones: (1, N), ones.
            out: (n,), changed in place.
            scale: (α, β).
        """
        N, n = A.shape
        a, b, c = A.ctypes.data, ones.ctypes.data, out.ctypes.data
        gemv = partial(self._gemv, _ROW_MAJOR, _TRANSPOSED, N, n)
        return partial(_called, gemv, scale, (a, n, b, 1), (c, 1), (A, ones, out))


def _called(
    function: Any, scale: Any, operands: tuple[int, ...], out: tuple[int, ...], arrays: tuple[Any, ...]
) -> None:
    """Call a function of the library on pointers; the arrays are those that they point into, and so live as long."""
    alpha, beta = scale.tolist()
    function(alpha, *operands, beta, *out)


@cache
def of_numpy(dtype: str) -> Blas | None:
    """Return NumPy's BLAS for a type, or None where it cannot be called."""
    if dtype not in _LETTERS:
        return None
    letter, number = _LETTERS[dtype], ctypes.c_float if dtype == "float32" else ctypes.c_double
    try:
        core = importlib.import_module("numpy._core._multiarray_umath")
        library = ctypes.CDLL(str(core.__file__))  # its symbols include those of what it links
    except (ImportError, OSError):
        return None
    for name in _NAMES:
        gemm, gemv = (getattr(library, name.format(letter + kind), None) for kind in ("gemm", "gemv"))
        if gemm and gemv:
            blas = Blas(gemm, gemv, number)
            return blas if _computes(blas, dtype) else None
    return None


def _computes(blas: Blas, dtype: str) -> bool:
    """Return whether products of small whole numbers, exact in any order, come out right."""
    A, B = (numpy.arange(15, dtype=dtype).reshape(5, 3) + k for k in (1, -7))
    out, row, ones = numpy.ones((3, 3), dtype), numpy.ones(3, dtype), numpy.ones(5, dtype)
    scale = numpy.array([-2.0, 3.0])
    blas.product_added(A, B, out, scale)()
    blas.rows_added(A, ones, row, scale)()
    return bool((out == 3 - 2 * A.T @ B).all() and (row == 3 - 2 * A.sum(axis=0)).all())
