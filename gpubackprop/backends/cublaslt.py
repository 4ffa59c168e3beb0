"""cuBLASLt, called through ctypes: matrix products that a CUDA graph can capture, which CuPy's own refuse to be.

The library is the one that CuPy's wheels or the CUDA toolkit bring, so that there is nothing more to install. Names
and numbers are those of cublasLt.h (cuBLAS 13, 12): https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import CudaLibraryError
from ..locks import Locked

WORKSPACE = 32 * 2**20  # bytes, what products on Hopper want

# cudaDataType_t and cublasComputeType_t, by the types of arrays; uint16 holds the bits of bfloat16
DATA_TYPES = {"float32": 0, "float64": 1, "uint16": 14}
COMPUTE_TYPES = {"float32": 68, "float64": 70, "tf32": 77, "bfloat16": 68}

# cublasLtEpilogue_t: what becomes of the product P before it is written, with a vector b and a matrix z beside it.
EPILOGUES = {
    "default": 1,  # P
    "bias": 4,  # P + b
    "relu_bias": 6,  # relu(P + b)
    "gelu_aux_bias": 164,  # gelu(z), with z = P + b written too
    "dgelu_bgrad": 208,  # P gelu'(z), with b = its sums over the rows of ours written too
}
AUX_MULTIPLE = 8  # elements from one row of z to the next, for gelu

_DESC_TRANSA, _DESC_TRANSB, _DESC_EPILOGUE = 3, 4, 7
_DESC_BIAS_POINTER, _DESC_AUX_POINTER, _DESC_AUX_LD = 8, 11, 12
_PREF_WORKSPACE, _PREF_REDUCTIONS, _PREF_ALIGNMENT_A = 1, 3, 5
# Sums split over blocks are added up through the workspace, in a fixed order; in place it would be by atomics.
_REDUCTIONS_IN_ORDER = 2 | 4
_STATUS = {
    1: "NOT_INITIALIZED: no driver or no device",
    3: "ALLOC_FAILED: the device has no memory left for the library",
    7: "INVALID_VALUE: an argument that the library does not accept",
    8: "ARCH_MISMATCH: the device is too old for this kind of product",
    11: "MAPPING_ERROR",
    13: "EXECUTION_FAILED: the product could not be launched",
    14: "INTERNAL_ERROR",
    15: "NOT_SUPPORTED: no algorithm for this kind of product",
    16: "LICENSE_ERROR",
}


class Kind(NamedTuple):
    """All that the choice of an algorithm depends on, for out = A B in row-major order.

    Attributes:
        rows: of A and out.
        inner: columns of A, rows of B.
        cols: of B and out.
        transposed: whether A, and whether B, is the transpose of what lies in memory.
        operands: type of A and B, a key of DATA_TYPES.
        result: type of out.
        compute: a key of COMPUTE_TYPES.
        alignments: of A, B, out, and of the vector and the matrix of the epilogue, in bytes, at most 256.
        epilogue: a key of EPILOGUES.
    """

    rows: int
    inner: int
    cols: int
    transposed: tuple[bool, bool]
    operands: str
    result: str
    compute: str
    alignments: tuple[int, int, int, int, int]
    epilogue: str = "default"


class Pointers(NamedTuple):
    """Where the arrays of a product lie.

    Attributes:
        A: left operand.
        B: right operand.
        out: the result.
        vector: that of the epilogue, or 0.
        matrix: that of the epilogue, or 0.
    """

    A: int
    B: int
    out: int
    vector: int = 0
    matrix: int = 0


class _Result(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class Algorithm(NamedTuple):
    """One way to compute a kind of product: the library's own description, and the bytes of workspace it needs."""

    description: bytes
    workspace: int


class Library:
    """The library, and its handle for the current device.

    Args:
        path: of the shared library.

    Raises:
        CudaLibraryError: it cannot be loaded, or has no device.
    """

    def __init__(self, path: str) -> None:
        try:
            self._functions = ctypes.CDLL(path)
        except OSError as error:
            raise CudaLibraryError(f"cuBLASLt cannot be loaded: {error}") from error
        self._handle = ctypes.c_void_p()

    def open(self) -> None:
        """Make the handle; nothing but `Plan` works without a device."""
        self.call("cublasLtCreate", ctypes.byref(self._handle))

    @property
    def version(self) -> int:
        """That of cuBLAS: 130100 is 13.1.0."""
        self._functions.cublasLtGetVersion.restype = ctypes.c_size_t
        return int(self._functions.cublasLtGetVersion())

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the library.

        Args:
            name: of the function.
            arguments: as ctypes takes them.

        Raises:
            CudaLibraryError: it returned an error.
        """
        status = getattr(self._functions, name)(*arguments)
        if status:
            raise CudaLibraryError(f"{name} failed with status {status}, {_STATUS.get(status, 'unknown')}")

    def algorithms(self, plan: Plan, most: int) -> list[Algorithm]:
        """Return the algorithms that the library proposes for a kind of product, best first.

        Args:
            plan: of the product.
            most: how many to ask for.

        Returns:
            At least one.

        Raises:
            CudaLibraryError: there is none.
        """
        results, found = (_Result * most)(), ctypes.c_int()
        *_, vector, matrix = plan.kind.alignments
        plan.point(vector, matrix)  # which the library does not follow here: it takes their alignment from the number
        self.call(
            "cublasLtMatmulAlgoGetHeuristic",
            self._handle,
            plan.operation,
            *plan.layouts,
            plan.layouts[2],
            plan.preference,
            most,
            results,
            ctypes.byref(found),
        )
        usable = [r for r in results[: found.value] if r.state == 0]
        if not usable:
            raise CudaLibraryError(f"cuBLASLt has no algorithm for {plan.kind}")
        return [Algorithm(bytes(r.algorithm), int(r.workspace)) for r in usable]

    def multiply(self, plan: Plan, algorithm: Algorithm, pointers: Pointers, workspace: int, stream: int) -> None:
        """Launch a product on a stream.

        Args:
            plan: of the product.
            algorithm: one of `algorithms`.
            pointers: to its arrays.
            workspace: pointer to WORKSPACE bytes.
            stream: the stream's pointer.

        Raises:
            CudaLibraryError: it cannot be launched.
        """
        with plan.pointing(pointers.vector, pointers.matrix):
            self.call(
                "cublasLtMatmul",
                self._handle,
                plan.operation,
                ctypes.byref(plan.one),
                ctypes.c_void_p(pointers.B),  # rows of out = A B are columns of outᵀ = Bᵀ Aᵀ, as the library has them
                plan.layouts[0],
                ctypes.c_void_p(pointers.A),
                plan.layouts[1],
                ctypes.byref(plan.zero),
                ctypes.c_void_p(pointers.out),
                plan.layouts[2],
                ctypes.c_void_p(pointers.out),
                plan.layouts[2],
                ctypes.c_char_p(algorithm.description),
                ctypes.c_void_p(workspace),
                ctypes.c_size_t(algorithm.workspace),
                ctypes.c_void_p(stream),
            )


class Plan(Locked):
    """The library's descriptors of a kind of product; they need no device.

    Args:
        library: the library.
        kind: of the product.

    Attributes:
        kind: of the product.
        operation: cublasLtMatmulDesc_t.
        layouts: cublasLtMatrixLayout_t of the library's A, B and C: of our B, A and out.
        preference: cublasLtMatmulPreference_t.
        one, zero: α and β, in the type of the sums.
        lock: held from `point` to the launch, since threads share the descriptor.
        pointed: the vector and the matrix of the launch under way, or None.
    """

    def __init__(self, library: Library, kind: Kind) -> None:
        super().__init__()
        self.kind, self._library = kind, library
        self.pointed: tuple[int, int] | None = None
        number = ctypes.c_double if kind.compute == "float64" else ctypes.c_float
        self.one, self.zero = number(1), number(0)
        self.operation = self._operation()
        transposed_A, transposed_B = kind.transposed
        self.layouts = (
            self._layout(kind.operands, kind.inner, kind.cols, transposed_B),
            self._layout(kind.operands, kind.rows, kind.inner, transposed_A),
            self._layout(kind.result, kind.rows, kind.cols, False),
        )
        self.preference = self._preference()

    def _operation(self) -> ctypes.c_void_p:
        operation = ctypes.c_void_p()
        types = COMPUTE_TYPES[self.kind.compute], DATA_TYPES["float64" if self.kind.compute == "float64" else "float32"]
        self._library.call("cublasLtMatmulDescCreate", ctypes.byref(operation), *types)
        for attribute, transposed in zip((_DESC_TRANSA, _DESC_TRANSB), reversed(self.kind.transposed), strict=True):
            self._describe(operation, attribute, ctypes.c_int32(transposed))
        self._describe(operation, _DESC_EPILOGUE, ctypes.c_uint32(EPILOGUES[self.kind.epilogue]))
        if self._has_matrix:
            self._describe(operation, _DESC_AUX_LD, ctypes.c_int64(self.kind.cols))
        return operation

    @property
    def _has_matrix(self) -> bool:
        """Whether the epilogue has a matrix beside the product."""
        return "gelu" in self.kind.epilogue

    def point(self, vector: int, matrix: int) -> None:
        """Say where the vector and the matrix of the epilogue lie; a launch takes the pointers with it.

        Args:
            vector: the pointer to it, used where there is an epilogue.
            matrix: likewise.
        """
        if self.kind.epilogue != "default":
            self._describe(self.operation, _DESC_BIAS_POINTER, ctypes.c_void_p(vector))
        if self._has_matrix:
            self._describe(self.operation, _DESC_AUX_POINTER, ctypes.c_void_p(matrix))

    @contextlib.contextmanager
    def pointing(self, vector: int, matrix: int) -> Iterator[None]:
        """Hold the plan for a launch, and `point`; a launch that a signal handler interrupts finds its own again."""
        with self.lock:
            interrupted, self.pointed = self.pointed, (vector, matrix)
            self.point(vector, matrix)
            try:
                yield
            finally:
                self.pointed = interrupted
                if interrupted:
                    self.point(*interrupted)

    def _layout(self, dtype: str, rows: int, cols: int, transposed: bool) -> ctypes.c_void_p:
        """Return the layout of a matrix (rows, cols) whose rows lie one behind the other: columns to the library."""
        layout = ctypes.c_void_p()
        height, width = (rows, cols) if transposed else (cols, rows)
        self._library.call(
            "cublasLtMatrixLayoutCreate",
            ctypes.byref(layout),
            DATA_TYPES[dtype],
            ctypes.c_uint64(height),
            ctypes.c_uint64(width),
            ctypes.c_int64(height),
        )
        return layout

    def _preference(self) -> ctypes.c_void_p:
        preference, set_ = ctypes.c_void_p(), "cublasLtMatmulPreferenceSetAttribute"
        self._library.call("cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        self._set(set_, preference, _PREF_WORKSPACE, ctypes.c_uint64(WORKSPACE))
        self._set(set_, preference, _PREF_REDUCTIONS, ctypes.c_uint32(_REDUCTIONS_IN_ORDER))
        A, B, out, *_ = self.kind.alignments
        for place, bytes_ in enumerate((B, A, out, out)):
            self._set(set_, preference, _PREF_ALIGNMENT_A + place, ctypes.c_uint32(bytes_))
        return preference

    def _describe(self, operation: ctypes.c_void_p, attribute: int, value: Any) -> None:
        self._set("cublasLtMatmulDescSetAttribute", operation, attribute, value)

    def _set(self, function: str, descriptor: ctypes.c_void_p, attribute: int, value: Any) -> None:
        self._library.call(function, descriptor, attribute, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value)))
