"""What a training run takes, found by running its own code on arrays that are only promised."""

from __future__ import annotations

from typing import Any

import numpy

from .architecture import Architecture
from .network import Network
from .optimizers import Optimizer
from .run import Run


def bytes_of(architecture: Architecture, backend: Any, precision: str, rule: Optimizer, rows: int) -> int:
    """Return the bytes that a network and its training take, without the data; see `gpubackprop.bytes_of_training`.

    Args:
        architecture: of the network.
        backend: where it is to run.
        precision: of its products.
        rule: the optimizer.
        rows: N.
    """
    ledger = _Ledger(backend)
    net = Network.__new__(Network)
    net._build(architecture, ledger, precision)
    sizes, dtype = architecture.sizes, architecture.dtype
    stored = (net.backend.storage(dtype), dtype)
    x, y = (_promise((2 * rows, sizes[l]), kind, []) for l, kind in zip((0, -1), stored, strict=True))
    Run(net, x, y, None, rule, rows, True, 0)
    return sum(ledger.taken)


class _Promise(numpy.ndarray):
    """An array of any shape that is one element in memory, so that it and its views may be had but not written."""

    taken: list[int]

    def __array_finalize__(self, source: Any) -> None:
        self.taken = getattr(source, "taken", [])

    def copy(self, order: Any = "C") -> Any:
        """Promise as much memory again."""
        return _promise(self.shape, str(self.dtype), self.taken)


def _promise(shape: tuple[int, ...], dtype: str, taken: list[int]) -> Any:
    """Return a promise, and enter its bytes in a list."""
    promise = numpy.broadcast_to(numpy.zeros((), dtype), shape).view(_Promise)
    promise.taken = taken
    taken.append(promise.nbytes)
    return promise


class _Ledger:
    """A backend that promises the memory it is asked for, and writes down how much that is."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.taken: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def with_precision(self, precision: str) -> Any:
        self._backend = self._backend.with_precision(precision)
        return self

    def zeros(self, shape: int | tuple[int, ...], dtype: str) -> Any:
        return _promise(shape if isinstance(shape, tuple) else (shape,), dtype, self.taken)

    def narrow(self, x: Any, out: Any = None) -> Any:
        """Promise the copy in the type of storage, where that is another than the array's."""
        stored = self._backend.storage(str(x.dtype))
        return x if out is not None or stored == str(x.dtype) else self.zeros(x.shape, stored)
