"""cuBLASLt's functions on the CPU: descriptors as the library has them, products by NumPy on the memory pointed to.

Matrices are columns one behind the other, as in the library, so that a layout that is off gives another product.
"""

# ruff: noqa: N802, N815 - functions have the library's names

from __future__ import annotations

import ctypes
import math
from typing import Any

import fake_cupy
import numpy as np
from kernel_cases import from_bfloat16, to_bfloat16

from gpubackprop.backends.choices import Choices
from gpubackprop.backends.cublaslt import EPILOGUES, Library
from gpubackprop.backends.products import Products

TYPES = {0: "float32", 1: "float64", 14: "uint16"}
NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double}
# cublasLtMatmulDescAttributes_t, cublasStatus_t
EPILOGUE, BIAS, AUX, AUX_LD = 7, 8, 11, 12
NOT_SUPPORTED = 15
ALIGNMENT_A, ALIGNMENT_B = 5, 6  # cublasLtMatmulPreferenceAttributes_t


def _value(argument: Any) -> Any:
    return getattr(argument, "value", argument)


class HostLibrary:
    """The functions that `cublaslt.Library` calls; each returns a status."""

    def __init__(self, statuses: dict[str, int] | None = None) -> None:
        self.statuses = statuses or {}
        self.objects: dict[int, dict[Any, Any]] = {}
        self.algorithms = 2
        self.epilogues = set(EPILOGUES.values())  # that it has
        self.aligned_operands = 1  # bytes, that it wants for an epilogue
        self.products: list[tuple[tuple[int, int, int], bytes]] = []  # shape, and the algorithm
        self.epilogues_done: list[str] = []  # of each product

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
        self.device = fake_cupy.state.current

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

    def _cublasLtMatmulAlgoGetHeuristic(self, handle: Any, *arguments: Any) -> int:
        operation, preference, most, results, found = arguments[0], *arguments[-4:]
        assert handle.value == 77
        self._check(self.objects[operation.value], self.objects[arguments[4].value])
        epilogue, wants = self.objects[operation.value][EPILOGUE], self.objects[preference.value]
        unaligned = min(wants[ALIGNMENT_A], wants[ALIGNMENT_B]) < self.aligned_operands
        if epilogue not in self.epilogues or (unaligned and epilogue != EPILOGUES["default"]):
            return NOT_SUPPORTED
        assert fake_cupy.state.captured is None, "with some releases a heuristic fails inside a capture"
        assert self.objects[preference.value][1] == 32 * 2**20
        for k in range(min(most, self.algorithms)):
            results[k].algorithm[0], results[k].workspace = k, 1024
        found._obj.value = min(most, self.algorithms)
        return 0

    def _check(self, about: dict[Any, Any], result: dict[Any, Any]) -> None:
        """Refuse what the header says that the library does not take; a number may stand for a pointer."""
        size = np.dtype(result["dtype"]).itemsize
        if about[EPILOGUE] != EPILOGUES["default"]:
            assert about[BIAS] and about[BIAS] % size == 0
            assert result["dtype"] != "uint16", "a bias would have to be of the type of the result"
        if about[EPILOGUE] in (EPILOGUES["gelu_aux_bias"], EPILOGUES["dgelu_bgrad"]):
            assert about[AUX] and about[AUX] % size == 0
            assert about[AUX_LD] % 8 == 0
            assert about[AUX_LD] >= result["shape"][0]

    def _cublasLtMatmul(self, handle: Any, operation: Any, alpha: Any, *arguments: Any) -> None:
        A, A_layout, B, B_layout, beta, C, C_layout, D, D_layout, algorithm, workspace, size, stream = arguments
        assert handle.value == 77
        assert self.device == fake_cupy.state.current, "a handle is of one device"
        assert workspace.value and size.value <= 32 * 2**20
        assert stream.value == (fake_cupy.state.stream.ptr or None)
        assert (C.value, C_layout.value) == (D.value, D_layout.value)
        about = dict(self.objects[operation.value])  # a launch takes it as it is then
        out = self.objects[D_layout.value]
        self._check(about, out)
        a, b = self._memory(A, A_layout), self._memory(B, B_layout)
        target, number = self._memory(D, D_layout), NUMBERS[TYPES[about["scale"]]]
        assert (type(alpha._obj), alpha._obj.value, type(beta._obj), beta._obj.value) == (number, 1, number, 0)
        ending = Ending(about, target)

        def multiply() -> None:
            left, right = (_numbers(m.T if about.get(f) else m, about["compute"]) for m, f in ((a, 3), (b, 4)))
            product = left.astype("float64") @ right.astype("float64")
            product = ending.applied(product)
            target[...] = to_bfloat16(product) if out["dtype"] == "uint16" else product
            self.products.append(((left.shape[0], left.shape[1], right.shape[1]), algorithm.value))
            self.epilogues_done.append(ending.name)

        scratch = np.frombuffer((ctypes.c_char * size.value).from_address(workspace.value), "uint8")
        fake_cupy.enqueue(multiply, [a, b, *ending.reads], [target, scratch, *ending.writes])

    def _memory(self, pointer: Any, layout: Any) -> np.ndarray:
        about = self.objects[layout.value]
        (rows, cols), dtype = about["shape"], np.dtype(about["dtype"])
        size = about["ld"] * cols * dtype.itemsize
        memory = np.frombuffer((ctypes.c_char * size).from_address(pointer.value), dtype)
        return memory.reshape(cols, about["ld"]).T[:rows]


def _vector(pointer: int, dtype: str, size: int) -> np.ndarray:
    dtype = np.dtype(dtype)
    return np.frombuffer((ctypes.c_char * (size * dtype.itemsize)).from_address(pointer), dtype)


class Ending:
    """An epilogue, with the memory it goes to; the library has our features as rows."""

    def __init__(self, about: dict[Any, Any], target: np.ndarray) -> None:
        self.name = next(name for name, number in EPILOGUES.items() if number == about[EPILOGUE])
        rows, cols = target.shape
        self.reads, self.writes = [], []
        if self.name != "default":
            self.vector = _vector(about[BIAS], str(target.dtype), rows)
            (self.writes if self.name == "dgelu_bgrad" else self.reads).append(self.vector)
        if "gelu" in self.name:
            memory = _vector(about[AUX], str(target.dtype), about[AUX_LD] * cols)
            self.matrix = memory.reshape(cols, about[AUX_LD]).T[:rows]
            (self.reads if self.name == "dgelu_bgrad" else self.writes).append(memory)

    def applied(self, product: np.ndarray) -> np.ndarray:
        """The result, from the product."""
        if self.name == "default":
            return product
        if self.name == "dgelu_bgrad":
            result = product * _gelu_prime(self.matrix.astype("float64"))
            self.vector[...] = result.sum(axis=1)
            return result
        z = product + self.vector[:, None]
        if self.name == "gelu_aux_bias":
            self.matrix[...] = z
            return z * _gelu_gate(z)
        return np.maximum(z, 0.0) if self.name == "relu_bias" else z


def _gelu_gate(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def _gelu_prime(z: np.ndarray) -> np.ndarray:
    gate = _gelu_gate(z)
    return gate + 2 * z * gate * (1 - gate) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z**2)


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
