"""The kernels of one array module: compiled at their first use, kept, and launched with checked arguments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy

from ..errors import InvalidType, InvalidValue, KernelError
from .sources import Parameter, Source, assemble, parameters

# Of NVRTC. CuPy adds the architecture, -ftz=true, and --device-as-default-execution-space: without the last, releases
# before 13.2 take the lambdas of the kernels for functions of the host; given twice, some of CUDA 12 refuse it.
OPTIONS = ("-std=c++17",)
THREADS = 256  # to a block, THREADS in kernels/walk.cuh
LANES = 32  # threads of a warp
BLOCKS = 2048  # the most blocks of a launch: what a large GPU holds at once
# Rows that a thread goes over at least where it also sums: fewer rows, fewer sums for the second stage. The shapes of
# launches depend on those of the arrays alone, so that every device adds up in the same order.
ROWS_A_THREAD = 8

_SCALARS = {"Index": "int64", "int": "int32", "unsigned": "uint32", "Word": "uint64"}

Shape = tuple[tuple[int, ...], tuple[int, ...]]  # grid and block, x first


class Kernels:
    """The kernels on the arrays of one module.

    Args:
        xp: CuPy; its ``RawModule`` compiles, and keeps on disk what it compiled, by source, options and architecture.

    Attributes:
        threads: the most threads to a block.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self.threads = THREADS
        # By text for rows that are equal but not the same, by trace to be quick; a thousand kernels are some megabytes.
        self._compiled = lru_cache(maxsize=1024)(self._compile)
        self._kernel = lru_cache(maxsize=1024)(self._assemble)

    def launch(self, source: Source, shape: Shape, stored: Any, arguments: Mapping[str, Any]) -> None:
        """Launch a kernel on the current stream of the current device.

        Args:
            source: the kernel.
            shape: grid and block, as `over`, `over_matrix` and `over_rows` return them.
            stored: an array of the type in which activations and deltas are stored, S in the kernels: float32,
                float64, or uint16 for the bits of bfloat16, with arithmetic in float32.
            arguments: arrays, None where there is none, and numbers, by the names of the kernel's parameters.

        Raises:
            KernelError: it does not compile; the message names the file and the line.
            InvalidType: an array of another type than the kernel reads.
            InvalidValue: an array whose elements do not lie one behind the other.
        """
        storage = str(stored.dtype)
        dtype = "float32" if storage == "uint16" else storage
        function, parameters = self._kernel(source, dtype, storage)
        types = {"T": dtype, "S": storage, **_SCALARS}
        assert len(arguments) == len(parameters), f"{parameters} are given {list(arguments)}"
        values = [
            _array(source.kernel, p.name, arguments[p.name], types[p.type])
            if p.is_array
            else numpy.dtype(types[p.type]).type(arguments[p.name])
            for p in parameters
        ]
        function(*shape, tuple(values))

    def _assemble(self, source: Source, dtype: str, storage: str) -> tuple[Any, tuple[Parameter, ...]]:
        """Return a compiled kernel and its parameters."""
        return self._compiled(source.kernel, assemble(source, dtype, storage))

    def _compile(self, name: str, text: str) -> tuple[Any, tuple[Parameter, ...]]:
        try:
            function = self._xp.RawModule(code=text, options=OPTIONS).get_function(name)
        except self._xp.cuda.compiler.CompileException as error:
            raise KernelError(f"kernels/{name}.cu does not compile: {error}") from error
        return function, parameters(text)

    # -- shapes of launches --------------------------------------------------------------------------------------

    def over(self, x: Any, a_thread: int = 1) -> Shape:
        """Return grid and block for an array of any shape, so many vectors of its elements to a thread."""
        return (max(1, min(_ceil(x.size, a_thread * vector(x) * self.threads), BLOCKS)),), (self.threads,)

    def over_matrix(self, x: Any, rows_a_thread: int = 1, vectors: bool = True) -> Shape:
        """Return grid and block for a matrix: its columns along x, its rows along y.

        Args:
            x: the matrix (rows, cols).
            rows_a_thread: how many rows a thread goes over at least, where there are as many.
            vectors: False for a kernel that takes elements one by one.
        """
        rows, cols = x.shape
        lanes = _ceil(cols, vector(x) if vectors and cols % vector(x) == 0 else 1)
        wide = min(LANES, 1 << (lanes - 1).bit_length())
        high = self.threads // wide
        tiles = min(_ceil(lanes, wide), BLOCKS)
        return (tiles, max(1, min(_ceil(rows, high * rows_a_thread), BLOCKS // tiles))), (wide, high)

    def over_rows(self, x: Any, vectors: bool = True) -> Shape:
        """Return grid and block for a matrix whose rows are each the work of one block; arguments of `over_matrix`."""
        (tiles, _), (wide, high) = self.over_matrix(x, vectors=vectors)
        rows_a_thread = max(1, ROWS_A_THREAD // tiles)
        return (1, max(1, min(_ceil(x.shape[0], high * rows_a_thread), BLOCKS))), (wide, high)


def vector(x: Any) -> int:
    """Return how many elements of an array a thread takes at once: V in kernels/walk.cuh."""
    return 16 // int(x.dtype.itemsize)


def _ceil(n: int, divisor: int) -> int:
    return -(-n // divisor)


def _array(kernel: str, name: str, x: Any, dtype: str) -> Any:
    """Return an array for a kernel; what it would misread is refused by name."""
    if x is None:
        return None
    if x.dtype != dtype:
        raise InvalidType(f"kernels/{kernel}.cu: {name} must be of type {dtype}, got {x.dtype}")
    if not x.flags.c_contiguous:
        raise InvalidValue(
            f"kernels/{kernel}.cu: the elements of {name} must lie one behind the other, got a view of the shape "
            f"{x.shape} with the strides {x.strides}: make a copy of it"
        )
    return x
