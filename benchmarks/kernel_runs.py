"""Every kernel as the operation of the backend that launches it, on arrays of any size and type of storage.

The bytes that an operation moves are those of its definition: every array that it reads or writes counts once each
way, and what a kernel reads again or keeps between two launches does not. Products are left out.

Letters: N rows and n columns of a matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy

from gpubackprop.activations import Activation, gelu, identity, relu, sigmoid, softmax, tanh
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.kernels import ROWS_A_THREAD
from gpubackprop.backends.numpy import dropout_key
from gpubackprop.backends.sources import KERNELS as FOLDER
from gpubackprop.backends.sources import parameters
from gpubackprop.losses import Loss, binary_cross_entropy, cross_entropy, mse
from gpubackprop.optimizers import SGD, Adam, Optimizer

COLS, NARROW = 1024, 10  # columns of a hidden layer, and of an output of ten classes
STORAGES = {"float32": "float32", "float64": "float64", "uint16": "bfloat16"}  # NumPy has no bfloat16: its bits
SMALL = 1e-6  # a rate at which arrays that are changed again and again stay of the same size


class WithoutProducts(CudaBackend):
    """The CUDA backend whose matrix products are taken as done, so that an operation is its kernels alone."""

    def _product(self, A: Any, B: Any, out: Any) -> None:
        pass


class Arrays:
    """The memory that kernels go over, in one type of storage; every operation takes views of it.

    It holds numbers of about 1, since the time that a formula takes may depend on its argument.

    Args:
        backend: where it is.
        storage: type of activations and deltas, a key of STORAGES.
        elements: of each array.
    """

    def __init__(self, backend: Any, storage: str, elements: int) -> None:
        self.backend, self.storage, self.elements = backend, storage, elements
        T = "float32" if storage == "uint16" else storage
        normal = numpy.random.default_rng(0).normal(size=2**16)
        self.normal, self.z, self.delta, self.out, self.h = (self._filled(normal, storage, elements) for _ in range(5))
        self.a = self._filled(numpy.tanh(normal), storage, elements)
        self.mask = self._filled(numpy.where(normal < -0.5, 0.0, 1.25), storage, elements)
        self.y = self._filled(numpy.random.default_rng(1).uniform(size=2**16), T, elements)
        self.theta, self.g = (self._filled(normal, T, elements) for _ in range(2))
        self.slots = self._filled(abs(normal), T, 2 * elements).reshape(2, elements)
        self.source, self.target = (self._filled(normal, "float32", elements) for _ in range(2))
        self.b, self.db, self.value = (backend.zeros(shape, T) for shape in (COLS, COLS, ()))

    def _filled(self, pattern: numpy.ndarray, dtype: str, size: int) -> Any:
        if dtype == "uint16":
            pattern = pattern.astype("float32").view("uint32") >> 16
        return self.backend.asarray(numpy.resize(pattern.astype(dtype), size), dtype)

    def matrix(self, flat: Any, cols: int = COLS) -> Any:
        """Return the view (N, cols) of one of the arrays, with as many rows as fit."""
        rows = self.elements // cols
        return flat[: rows * cols].reshape(rows, cols)

    def refresh(self) -> None:
        """Fill again what operations change in place.

        Two copies keep the device busy while the host enqueues what follows, and turn over its cache: 64 Mi floats are
        256 MB and the cache of an H100 is 50 MB, so that nothing else has to flush it.
        """
        self.backend.xp.copyto(self.z, self.normal)
        self.backend.xp.copyto(self.delta, self.normal)


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        kernel: the file in ``kernels/``.
        formula: what it computes there, in words.
        shape: of what it goes over.
        moved: every array, once for being read and once for being written.
        run: the operation.
    """

    kernel: str
    formula: str
    shape: tuple[int, ...]
    moved: tuple[Any, ...]
    run: Callable[[], None]


def copy_case(m: Arrays) -> Case:
    """Return the copy from device to device that all others are held to: of float32, whatever the storage."""
    moved = m.source, m.target
    return Case("copy", "device to device", m.source.shape, moved, lambda: m.backend.xp.copyto(m.target, m.source))


def forward_case(m: Arrays, row: Activation, keeps_z: bool, masked: bool = False, cols: int = COLS) -> Case:
    """Return a layer after its product: bias, activation, and the mask of dropout."""
    z, b = m.matrix(m.z, cols), m.b[:cols]
    a = m.matrix(m.out, cols) if keeps_z else z
    mask, h = (m.matrix(m.mask, cols), m.matrix(m.h, cols)) if masked else (None, a)
    moved = (z, b, a, *((z,) if keeps_z else ()), *((mask, h) if masked else ()))
    formula = f"{row.name}{', z kept' * keeps_z}{', mask' * masked}"
    kernel = "softmax" if row.rowwise else "activate"
    return Case(kernel, formula, z.shape, moved, lambda: m.backend.forward(row, None, None, b, mask, z, a, h))


def _activate(m: Arrays) -> Iterator[Case]:
    for row in (relu, tanh, gelu):
        yield from (forward_case(m, row, row.needs_z, masked) for masked in (False, True))


def _softmax(m: Arrays) -> Iterator[Case]:
    yield from (forward_case(m, softmax, keeps_z=True, cols=cols) for cols in (COLS, NARROW))


def _delta(m: Arrays) -> Iterator[Case]:
    for row in (relu, tanh, gelu):
        yield from (delta_case(m, row, masked) for masked in (False, True))


def delta_case(m: Arrays, row: Activation, masked: bool) -> Case:
    """Return δ after its product, with the derivative of an activation and ∂b."""
    delta, z, a = m.matrix(m.delta), m.matrix(m.normal), m.matrix(m.a)
    mask = m.matrix(m.mask) if masked else None
    used = [x for name, x in (("z", z), ("a", a)) if name in row.backward.inputs]
    moved = (delta, delta, *used, *([mask] if masked else []), m.db)
    return Case(
        "delta",
        f"{row.name} with ∂b{', mask' * masked}",
        delta.shape,
        moved,
        lambda: m.backend.delta(row, None, m.b, mask, z, a, delta, m.db),
    )


def _output(m: Arrays) -> Iterator[Case]:
    for loss, row in ((mse, identity), (binary_cross_entropy, sigmoid)):
        yield from (output_case(m, "output", loss, row, cols) for cols in (COLS, NARROW))


def _output_rows(m: Arrays) -> Iterator[Case]:
    yield from (output_case(m, "output_rows", cross_entropy, softmax, cols) for cols in (COLS, NARROW))


def output_case(m: Arrays, kernel: str, loss: Loss, row: Activation, cols: int) -> Case:
    """Return a loss with δ and ∂b of an output activation."""
    y, a, delta, db = m.matrix(m.y, cols), m.matrix(m.a, cols), m.matrix(m.out, cols), m.db[:cols]
    z = m.matrix(m.normal, cols) if loss.fits(row) else a  # as a network has it
    moved = (y, a, delta, db, m.value, *((z,) if loss.fits(row) else ()))
    return Case(
        kernel,
        f"{loss.name} of {row.name} with ∂b",
        a.shape,
        moved,
        lambda: m.backend.output_delta(loss, row, y, z, a, 1.0 / len(a), delta, db, m.value),
    )


def _update(m: Arrays) -> Iterator[Case]:
    yield update_case(m, SGD(SMALL), "SGD")
    yield update_case(m, SGD(SMALL, momentum=0.9), "SGD, momentum")
    yield update_case(m, Adam(SMALL), "Adam")


def update_case(m: Arrays, optimizer: Optimizer, formula: str) -> Case:
    """Return the step of an optimizer over all parameters."""
    n, theta, g = m.elements, m.theta, m.g
    hyper = m.backend.asarray(numpy.array(list(optimizer.hyper(1).values())), str(theta.dtype))
    slots = m.slots[: len(optimizer.slots)]
    narrow = m.out if m.storage == "uint16" else None
    return Case(
        "update",
        f"{formula}{'' if narrow is None else ', θ stored'}",
        (n,),
        (theta, theta, g, hyper, slots, slots, *(() if narrow is None else (narrow,))),
        lambda: m.backend.update(optimizer, hyper, theta, g, slots, narrow),
    )


def _penalty(m: Arrays) -> Iterator[Case]:
    W, dW = m.matrix(m.theta), m.matrix(m.g)
    yield Case("penalty", "loss", W.shape, (W, m.value, m.value), lambda: m.backend.penalty(SMALL, W, None, m.value))
    yield Case(
        "penalty",
        "loss and ∂W",
        W.shape,
        (W, dW, dW, m.value, m.value),
        lambda: m.backend.penalty(SMALL, W, dW, m.value),
    )


def _gather(m: Arrays) -> Iterator[Case]:
    x, out = m.matrix(m.normal), m.matrix(m.out)
    rows = m.backend.asarray(numpy.random.default_rng(0).permutation(len(x)), "int64")
    yield Case("gather", "rows at random", out.shape, (x, rows, out), lambda: m.backend.gather(x, rows, out))


def _cast(m: Arrays) -> Iterator[Case]:
    """Of θ, for the products of a step in bfloat16; in the other types nothing is cast."""
    if m.storage == "uint16":
        wide, narrow = m.matrix(m.theta), m.matrix(m.out)
        yield Case("cast", "of θ", wide.shape, (wide, narrow), lambda: m.backend._cast(wide, narrow, widens=False))


def _dropout(m: Arrays) -> Iterator[Case]:
    mask, key, first = m.matrix(m.h), dropout_key(0), m.backend.zeros((), "int64")
    yield Case("dropout", "Philox", mask.shape, (mask,), lambda: m.backend.draw_mask(key, first, 0, 1, 0.25, mask))


def _sum_rows(m: Arrays) -> Iterator[Case]:
    """Of as many sums as delta.cu leaves of the same matrix: few, so that latency is what is measured."""
    strips = m.backend.kernels.over_matrix(m.matrix(m.delta), ROWS_A_THREAD)[0][1]
    partial = m.matrix(m.y)[:strips]
    yield Case("sum_rows", "of delta.cu", partial.shape, (partial, m.db), lambda: m.backend._sum_rows(partial, m.db))


def _weights(m: Arrays) -> Iterator[Case]:
    weight = m.backend.zeros(m.y.shape, str(m.y.dtype))
    moved = (m.y, m.value, weight)
    yield Case("weights", "shares of rows", m.y.shape, moved, lambda: m.backend._shares(m.y, m.value, 1.0, weight))


# Every file in ``kernels/``; a test holds this.
KERNELS: dict[str, Callable[[Arrays], Iterator[Case]]] = {
    "activate": _activate,
    "cast": _cast,
    "delta": _delta,
    "dropout": _dropout,
    "gather": _gather,
    "output": _output,
    "output_rows": _output_rows,
    "penalty": _penalty,
    "softmax": _softmax,
    "sum_rows": _sum_rows,
    "update": _update,
    "weights": _weights,
}


def cases(m: Arrays) -> list[Case]:
    """Return what is measured in one type of storage: the copy, and every kernel that takes it."""
    found = [copy_case(m)]
    for kernel, make in KERNELS.items():
        if m.storage != "uint16" or _stores(kernel):
            found += make(m)
    return found


def _stores(kernel: str) -> bool:
    """Return whether a kernel has arrays of the type S, which may be bfloat16."""
    text = (FOLDER / f"{kernel}.cu").read_text(encoding="utf-8")
    return any(parameter.type == "S" for parameter in parameters(text))
