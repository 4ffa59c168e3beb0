"""The matrix products of the CUDA backend by cuBLASLt: a plan and an algorithm for each kind, chosen before capture."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, NamedTuple

from .choices import Choices
from .clock import Clock
from .cublaslt import WORKSPACE, Algorithm, Kind, Library, Plan, Pointers

CANDIDATES = 8  # algorithms that are timed for a kind of product


class Chosen(NamedTuple):
    """A plan, and the algorithm that is taken."""

    plan: Plan
    algorithm: Algorithm


class Epilogue(NamedTuple):
    """What the library does with a product before it writes it.

    Attributes:
        name: a key of `EPILOGUES`.
        vector: (k,), of the type of the result: the bias, read, or the sums, written.
        matrix: (i, k), of the type of the result, its rows one behind the other: z, or None.
    """

    name: str
    vector: Any
    matrix: Any = None


NONE = Epilogue("default", None)


class Products:
    """Products out = A B of matrices on one device.

    Args:
        xp: CuPy.
        library: cuBLASLt, open.
        choices: what was chosen before on such a device with this release of the library.
        precision: of products of float32 arrays: "float32" or "tf32"; those of uint16 arrays, which hold the bits of
            bfloat16, are summed in float32.

    Attributes:
        clock: what chooses.
    """

    def __init__(self, xp: Any, library: Library, choices: Choices, precision: str = "float32") -> None:
        self._xp, self._library, self._choices, self.precision = xp, library, choices, precision
        self.clock = Clock(xp, choices)
        self._chosen: dict[Kind, Chosen] = {}
        self._local = threading.local()  # threads work on streams of their own

    def with_precision(self, precision: str) -> Products:
        """Return the products of the same library with another precision."""
        return Products(self._xp, self._library, self._choices, precision)

    def __call__(self, A: Any, B: Any, out: Any, beside: bool = False, *, epilogue: Epilogue = NONE) -> None:
        """Launch out = A B on the current stream.

        Args:
            A: (i, j), its rows one behind the other, or its columns.
            B: (j, k), likewise.
            out: (i, k), written; its rows one behind the other.
            beside: whether other products of this thread may run at the same time, on its other stream.
            epilogue: what is done with the product before it is written.

        Raises:
            CudaLibraryError: the library cannot compute it.
        """
        kind = self._kind(A, B, out, epilogue)
        pointers = Pointers(*map(_pointer, (A, B, out, epilogue.vector, epilogue.matrix)))
        workspace = self._workspace(beside)
        if kind not in self._chosen:
            self._chosen[kind] = self._choose(kind, pointers, workspace)
        self._launch(self._chosen[kind], pointers, workspace)

    def _kind(self, A: Any, B: Any, out: Any, epilogue: Epilogue) -> Kind:
        dtype = str(A.dtype)
        compute = {"float32": self.precision, "float64": "float64", "uint16": "bfloat16"}[dtype]
        return Kind(
            rows=A.shape[0],
            inner=A.shape[1],
            cols=B.shape[1],
            transposed=(not A.flags.c_contiguous, not B.flags.c_contiguous),
            operands=dtype,
            result=str(out.dtype),
            compute=compute,
            alignments=alignments(A, B, out, epilogue),
            epilogue=epilogue.name,
        )

    def _launch(self, chosen: Chosen, pointers: Pointers, workspace: int) -> None:
        stream = self._xp.cuda.get_current_stream().ptr
        self._library.multiply(chosen.plan, chosen.algorithm, pointers, workspace, stream)

    def _workspace(self, beside: bool) -> int:
        """Return a pointer to memory that a product may use while it runs: one for each stream of each thread."""
        name = f"beside_{beside}"
        if not hasattr(self._local, name):
            setattr(self._local, name, self._xp.empty(WORKSPACE, "uint8"))
        return int(getattr(self._local, name).data.ptr)

    def _choose(self, kind: Kind, pointers: Pointers, workspace: int) -> Chosen:
        """Return the plan of a kind, and the library's first proposal or, with autotuning, its fastest one."""
        plan = Plan(self._library, kind)
        algorithms = {a.description.hex(): a for a in self._library.algorithms(plan, CANDIDATES)}
        ways = {name: partial(self._launch, Chosen(plan, a), pointers, workspace) for name, a in algorithms.items()}
        return Chosen(plan, algorithms[self.clock.fastest(kind, ways)])


def alignments(A: Any, B: Any, out: Any, epilogue: Epilogue) -> tuple[int, int, int, int, int]:
    """Return how the memory of a product is aligned, in the order of `Kind`: what the library has depends on it."""
    a, b, c, vector, matrix = map(_alignment, (A, B, out, epilogue.vector, epilogue.matrix))
    return a, b, c, vector, matrix


def _pointer(x: Any) -> int:
    return 0 if x is None else int(x.data.ptr)


def _alignment(x: Any) -> int:
    """Return by how many bytes memory is aligned, at most 256: what an algorithm may count on."""
    pointer = _pointer(x)
    return min(256, pointer & -pointer) if pointer else 256
