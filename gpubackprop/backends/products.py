"""The matrix products of the CUDA backend by cuBLASLt: a plan and an algorithm for each kind, chosen before capture."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any, NamedTuple

from .choices import Choices
from .cublaslt import WORKSPACE, Algorithm, Kind, Library, Plan

CANDIDATES = 8  # algorithms that are timed for a kind of product
ROUNDS = 5  # of which the fastest counts
MARGIN = 0.97  # of the time of the library's first choice: another has to be faster than that


class Chosen(NamedTuple):
    """A plan, and the algorithm that is taken."""

    plan: Plan
    algorithm: Algorithm


class Products:
    """Products out = A B of matrices on one device.

    Args:
        xp: CuPy.
        library: cuBLASLt, open.
        choices: the algorithms that were chosen before on such a device with this release of the library.
        precision: of products of float32 arrays: "float32" or "tf32"; those of uint16 arrays, which hold the bits of
            bfloat16, are summed in float32.
    """

    def __init__(self, xp: Any, library: Library, choices: Choices, precision: str = "float32") -> None:
        self._xp, self._library, self._choices, self.precision = xp, library, choices, precision
        self._chosen: dict[Kind, Chosen] = {}
        self._local = threading.local()  # threads work on streams of their own

    def with_precision(self, precision: str) -> Products:
        """Return the products of the same library with another precision."""
        return Products(self._xp, self._library, self._choices, precision)

    def __call__(self, A: Any, B: Any, out: Any, beside: bool = False) -> None:
        """Launch out = A B on the current stream.

        Args:
            A: (i, j), its rows one behind the other, or its columns.
            B: (j, k), likewise.
            out: (i, k), written; its rows one behind the other.
            beside: whether other products of this thread may run at the same time, on its other stream.

        Raises:
            CudaLibraryError: the library cannot compute it.
        """
        kind, pointers = self._kind(A, B, out), (A.data.ptr, B.data.ptr, out.data.ptr)
        workspace = self._workspace(beside)
        if kind not in self._chosen:
            self._chosen[kind] = self._choose(kind, pointers, workspace)
        self._launch(self._chosen[kind], pointers, workspace)

    def _kind(self, A: Any, B: Any, out: Any) -> Kind:
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
            alignments=(_alignment(A), _alignment(B), _alignment(out)),
        )

    def _launch(self, chosen: Chosen, pointers: tuple[int, int, int], workspace: int) -> None:
        stream = self._xp.cuda.get_current_stream().ptr
        self._library.multiply(chosen.plan, chosen.algorithm, pointers, workspace, stream)

    def _workspace(self, beside: bool) -> int:
        """Return a pointer to memory that a product may use while it runs: one for each stream of each thread."""
        name = f"beside_{beside}"
        if not hasattr(self._local, name):
            setattr(self._local, name, self._xp.empty(WORKSPACE, "uint8"))
        return int(getattr(self._local, name).data.ptr)

    # -- the choice ----------------------------------------------------------------------------------------------

    def _choose(self, kind: Kind, pointers: tuple[int, int, int], workspace: int) -> Chosen:
        """Return the plan of a kind and its algorithm: that chosen before, or the fastest of the library's proposals.

        Another than the library's first is taken where it is clearly faster. Algorithms differ in the order of their
        sums, so that a choice by the clock is kept: the next process gives the same bits.
        """
        plan = Plan(self._library, kind)
        candidates = [Chosen(plan, algorithm) for algorithm in self._library.algorithms(plan, CANDIDATES)]
        names, key = [candidate.algorithm.description.hex() for candidate in candidates], "-".join(map(str, kind))
        before = self._choices.get(key)
        if before in names:
            return candidates[names.index(before)]
        times = [self._time(candidate, pointers, workspace) for candidate in candidates]
        fastest = min(range(len(times)), key=times.__getitem__)
        chosen = fastest if times[fastest] < MARGIN * times[0] else 0
        self._choices.keep(key, names[chosen])
        return candidates[chosen]

    def _time(self, candidate: Chosen, pointers: tuple[int, int, int], workspace: int) -> float:
        """Return the least time of a product in milliseconds; its result is that of the product to come."""
        self._launch(candidate, pointers, workspace)
        events = [self._xp.cuda.Event() for _ in range(ROUNDS + 1)]
        for event in events[:-1]:
            event.record()
            self._launch(candidate, pointers, workspace)
        events[-1].record()
        events[-1].synchronize()
        elapsed = self._xp.cuda.get_elapsed_time
        return min(float(elapsed(begin, end)) for begin, end in pairwise(events))


def _alignment(x: Any) -> int:
    """Return by how many bytes memory is aligned, at most 256: what an algorithm may count on."""
    pointer = x.data.ptr
    return min(256, pointer & -pointer) if pointer else 256
