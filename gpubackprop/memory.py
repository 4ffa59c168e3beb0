"""How much memory a training run takes, before it is taken: its own code is run on arrays that are only promised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from .architecture import Architecture
from .backends import resolve
from .checks import integer
from .network import Network
from .optimizers import Optimizer
from .run import Run
from .training import _optimizer


def bytes_of_training(
    sizes: Sequence[int],
    *,
    optimizer: str | Optimizer = "sgd",
    batch_size: int = 256,
    activation: Any = "relu",
    output_activation: Any = "identity",
    loss: Any = "mse",
    l2: float = 0.0,
    dropout: float = 0.0,
    backend: str | None = None,
    dtype: str = "float32",
    precision: str = "float32",
) -> int:
    """Return the bytes that `fit` takes for a network and its training, without taking them.

    Parameters, gradient, optimizer's state, the parameters that are kept in case training fails, and the buffers of a
    step count. The examples with their targets and order, which are the caller's or as large, and validation do not;
    nor do the blocks of the formulas' intermediate values (a few of 32,768 elements on the CPU) and, on CUDA, what the
    libraries take for themselves. The gradient counts there, though a device that is faster so does without it.

    Args:
        sizes: units of every layer, (n_0, ..., n_L), inputs first.
        optimizer: an object of `gpubackprop.optimizers`, or one's name for its defaults.
        batch_size: N, examples in a step.
        activation: of the hidden layers; as all that follow, what `Network` is given.
        output_activation: of the last layer.
        loss: a name or a row.
        l2: λ of the penalty.
        dropout: share of the hidden units that a step drops.
        backend: "auto", "numpy", "cuda", "cuda:N", or None for the default.
        dtype: "float32" or "float64".
        precision: of matrix products.

    Returns:
        Bytes.

    Raises:
        InvalidValue: an argument outside its range, or an unknown name.
        InvalidType: an argument of another type.
        BackendUnavailable: the backend cannot run here.
    """
    rows, rule = integer("batch_size", batch_size, 1), _optimizer(optimizer)
    architecture = Architecture.checked(
        sizes=sizes,
        activation=activation,
        output_activation=output_activation,
        loss=loss,
        l2=l2,
        dropout=dropout,
        dtype=dtype,
    )
    ledger = _Ledger(resolve(backend))
    net = Network.__new__(Network)
    net._build(architecture, ledger, precision)
    stored = (net.backend.storage(dtype), dtype)
    sizes = architecture.sizes
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

    def folds(self, *step: Any) -> bool:
        """Return whether an update is part of the products; False where only a measurement on the device would tell."""
        return self._backend.name == "numpy" and self._backend.folds(*step)

    def narrow(self, x: Any, out: Any = None) -> Any:
        """Promise the copy in the type of storage, where that is another than the array's."""
        stored = self._backend.storage(str(x.dtype))
        return x if out is not None or stored == str(x.dtype) else self.zeros(x.shape, stored)
