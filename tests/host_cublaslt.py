"""cuBLASLt's functions on the CPU: descriptors as the library has them, products by NumPy on the memory pointed to.

Matrices are columns one behind the other, as in the library, so that a layout that is off gives another product.
"""

# ruff: noqa: N802, N815 - functions have the library's names

from __future__ import annotations

import ctypes
from typing import Any

import fake_cupy
import numpy as np
from kernel_cases import from_bfloat16, to_bfloat16

from gpubackprop.backends.choices import Choices
from gpubackprop.backends.cublaslt import Library
from gpubackprop.backends.products import Products

TYPES = {0: "float32", 1: "float64", 14: "uint16"}


def _value(argument: Any) -> Any:
    return getattr(argument, "value", argument)


class HostLibrary:
    """The functions that `cublaslt.Library` calls; each returns a status."""

    def __init__(self, statuses: dict[str, int] | None = None) -> None:
        self.statuses = statuses or {}
        self.objects: dict[int, dict[Any, Any]] = {}
        self.algorithms = 2
        self.products: list[tuple[tuple[int, int, int], bytes]] = []  # shape, and the algorithm

    def __getattr__(self, name: str) -> Any:
        function = getattr(HostLibrary, f"_{name}")

        def call(*arguments: Any) -> int:
            return self.statuses.get(name) or function(self, *arguments) or 0

        return call

    def _new(self, reference: Any, **attributes: Any) -> None:
        reference._obj.value = key = len(self.objects) + 1
        self.objects[key] = attributes

    def _cublasLtGetVersion(self) -> int:
        return 130100

    def _cublasLtCreate(self, handle: Any) -> None:
        handle._obj.value = 77

    def _cublasLtMatmulDescCreate(self, descriptor: Any, compute: int, scale: int) -> None:
        self._new(descriptor, compute=compute, scale=scale)

    def _cublasLtMatrixLayoutCreate(self, layout: Any, dtype: int, rows: Any, cols: Any, ld: Any) -> None:
        assert _value(ld) >= _value(rows)
        self._new(layout, dtype=TYPES[dtype], shape=(_value(rows), _value(cols)), ld=_value(ld))

    def _cublasLtMatmulPreferenceCreate(self, preference: Any) -> None:
        self._new(preference)

    def _set(self, descriptor: Any, attribute: int, value: Any, size: Any) -> None:
        assert ctypes.sizeof(value._obj) == _value(size)
        self.objects[descriptor.value][attribute] = value._obj.value

    _cublasLtMatmulDescSetAttribute = _cublasLtMatmulPreferenceSetAttribute = _set

    def _cublasLtMatmulAlgoGetHeuristic(self, handle: Any, *arguments: Any) -> None:
        preference, most, results, found = arguments[-4:]
        assert handle.value == 77
        assert fake_cupy.state.captured is None, "with some releases a heuristic fails inside a capture"
        assert self.objects[preference.value][1] == 32 * 2**20
        for k in range(min(most, self.algorithms)):
            results[k].algorithm[0], results[k].workspace = k, 1024
        found._obj.value = min(most, self.algorithms)

    def _cublasLtMatmul(self, handle: Any, operation: Any, alpha: Any, *arguments: Any) -> None:
        A, A_layout, B, B_layout, beta, C, C_layout, D, D_layout, algorithm, workspace, size, stream = arguments
        assert (handle.value, beta.contents.value, alpha.contents.value) == (77, 0, 1)
        assert workspace.value and size.value <= 32 * 2**20
        assert stream.value == (fake_cupy.state.stream.ptr or None)
        assert (C.value, C_layout.value) == (D.value, D_layout.value)
        flags, out = self.objects[operation.value], self.objects[D_layout.value]
        a, b = self._memory(A, A_layout), self._memory(B, B_layout)
        target = self._memory(D, D_layout)

        def multiply() -> None:
            left, right = (_numbers(m.T if flags.get(f) else m, flags["compute"]) for m, f in ((a, 3), (b, 4)))
            product = left.astype("float64") @ right.astype("float64")
            target[...] = to_bfloat16(product) if out["dtype"] == "uint16" else product
            self.products.append(((left.shape[0], left.shape[1], right.shape[1]), algorithm.value))

        scratch = np.frombuffer((ctypes.c_char * size.value).from_address(workspace.value), "uint8")
        fake_cupy.enqueue(multiply, [a, b], [target, scratch])

    def _memory(self, pointer: Any, layout: Any) -> np.ndarray:
        about = self.objects[layout.value]
        (rows, cols), dtype = about["shape"], np.dtype(about["dtype"])
        size = about["ld"] * cols * dtype.itemsize
        memory = np.frombuffer((ctypes.c_char * size).from_address(pointer.value), dtype)
        return memory.reshape(cols, about["ld"]).T[:rows]


def _numbers(matrix: np.ndarray, compute: int) -> np.ndarray:
    """The numbers that a product is of: TF32 has 11 bits of the 24 of a float."""
    if matrix.dtype == "uint16":
        return from_bfloat16(matrix)
    if compute != 77:
        return matrix
    bits = np.ascontiguousarray(matrix).view("uint32").astype("uint64")
    return ((bits + 0xFFF + (bits >> 13 & 1)) >> 13 << 13).astype("uint32").view("float32")


def library(statuses: dict[str, int] | None = None) -> Any:
    """Return an open `Library` whose functions are those above."""
    made = Library.__new__(Library)
    made._functions, made._handle = HostLibrary(statuses), ctypes.c_void_p()
    made.open()
    return made


def products(cupy: Any) -> Products:
    """Return the products of the stand-in for CuPy, which choose anew each time."""
    choices = Choices("none")
    choices.get, choices.keep = lambda key: None, lambda key, value: None  # type: ignore[method-assign]
    return Products(cupy, library(), choices)
