"""Calls of the backends' operations, run on kernels and on NumPy: every array has to be the same afterwards.

What an operation writes has to agree, what it only reads has to be left as it was, and so has the memory around it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from formulas import PLAIN
from own_rows import squash

from gpubackprop.activations import ACTIVATIONS, Activation, gelu, hard_sigmoid, identity, relu, sigmoid, softmax, tanh
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.losses import LOSSES, Loss, binary_cross_entropy, cross_entropy, mse
from gpubackprop.optimizers import SGD, Adam, Optimizer

GUARD, AROUND = 777, 16  # what lies before and behind every array, and how many elements of it
# One row, one column, fewer elements than a vector, whole vectors, odd sizes, several blocks along either side.
SHAPES = [(1, 1), (1, 9), (13, 1), (2, 3), (5, 8), (6, 16), (33, 10), (40, 36), (300, 3), (70, 136), (3, 261)]


@dataclass(eq=False)
class Given:
    """An array of a call: its values, and whether it holds activations or deltas, which bfloat16 may store."""

    values: np.ndarray
    stored: bool = True


@dataclass(frozen=True)
class Case:
    """One call: the operation, its arguments, and how many terms its longest sum has."""

    kernel: str
    operation: str
    arguments: dict[str, Any] = field(repr=False)
    terms: int = 1
    label: str = ""
    exact: bool = False  # no rounding but that of storing
    reference: Callable[..., None] | None = None  # where NumPy's backend has no such operation

    def __str__(self) -> str:
        return f"{self.kernel}-{self.label}"


# -- building the calls ------------------------------------------------------------------------------------------------


def _numbers(shape: Any, seed: int = 0) -> np.ndarray:
    """Numbers of about 1 with few bits, so that every type holds them exactly."""
    return np.round(np.random.default_rng([seed, *np.atleast_1d(shape)]).normal(size=shape) * 16) / 16


def _written(shape: Any) -> np.ndarray:
    return np.full(shape, np.nan)


def _a_of(activation: Activation, z: np.ndarray) -> np.ndarray:
    if activation.rowwise:
        powers = np.exp(z - z.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    assert activation.sigma is not None
    return activation.sigma(PLAIN, z, **activation.parameters)


def _mask(shape: Any) -> np.ndarray:
    return np.where(_numbers(shape, 5) < -0.5, 0.0, 1.25)


def forward(activation: Activation, shape: tuple[int, int], mask: bool = False, in_place: bool = False) -> Case:
    """The product is taken as done: it lies in z."""
    z = Given(_numbers(shape))
    a = z if in_place else Given(_written(shape))
    arguments = {
        "activation": activation,
        "h_below": None,
        "W": None,
        "b": Given(_numbers(shape[1], 1), stored=False),
        "mask": Given(_mask(shape)) if mask else None,
        "z": z,
        "a": a,
        "h": Given(_written(shape)) if mask else a,
    }
    label = f"{activation.name}-{shape}{'-mask' * mask}{'-in place' * in_place}"
    return Case("softmax" if activation.rowwise else "activate", "forward", arguments, shape[1], label)


def special(activation: Activation) -> Case:
    """NaN and infinity pass through an activation as they do in NumPy."""
    case = forward(activation, (3, 4))
    case.arguments["z"].values[1] = [np.nan, np.inf, -np.inf, 1e30]
    return dataclasses.replace(case, label=f"{activation.name}-not finite")


def rounding() -> Case:
    """Numbers that lie between two of bfloat16, halfway too, and those beyond its range, through the bias.

    None is denormal: CuPy has NVRTC flush those of float32 to zero.
    """
    halves = np.array([0.0, 2**-8, 3 * 2**-8, 2**-8 + 2**-20, -(2**-8), 2**-9, 1.5 * 2**-7, 0.7]) + 1
    bits = np.array([0x7FFFFFFF, 0xFFC00001, 0x7F7FFFFF, 0x7F800000, 0x80818000, 0x00818000, 0x00808000, 0x3FFFFFFF])
    numbers = np.concatenate([halves.astype("float32"), bits.astype("uint32").view("float32")])
    case = forward(identity, (2, 16))
    arguments = {**case.arguments, "z": Given(np.zeros((2, 16))), "b": Given(numbers, stored=False)}
    return dataclasses.replace(case, arguments=arguments, label="rounding", exact=True)


def delta(activation: Activation, shape: tuple[int, int], mask: bool = False) -> Case:
    z = _numbers(shape, 1)
    arguments = {
        "activation": activation,
        "delta_next": None,
        "W_next": np.empty((1, 1)),
        "mask": Given(_mask(shape)) if mask else None,
        "z": Given(z),
        "a": Given(_a_of(activation, z)),
        "delta": Given(_numbers(shape)),
        "db": Given(_written(shape[1]), stored=False),
    }
    return Case("delta", "delta", arguments, shape[0], f"{activation.name}-{shape}{'-mask' * mask}")


def output(
    loss: Loss, activation: Activation, shape: tuple[int, int], weights: bool = False, bias: bool = True
) -> Case:
    z, y = _numbers(shape, 1), np.random.default_rng(3).integers(1, 16, shape) / 16
    if loss.targets == "distribution":
        y = np.eye(shape[1])[np.arange(shape[0]) % shape[1]]
    arguments = {
        "loss": loss,
        "activation": activation,
        "y": Given(y, stored=False),
        "z": Given(z),
        "a": Given(_a_of(activation, z)),
        "weight": Given(abs(_numbers((shape[0], 1), 4)), stored=False) if weights else 0.125,
        "delta": Given(_written(shape)),
        "db": Given(_written(shape[1]), stored=False) if bias else None,
        "value": Given(_written(()), stored=False),
    }
    kernel = "output_rows" if activation.rowwise else "output"
    label = f"{loss.name}-{activation.name}-{shape}{'-weights' * weights}{'-no bias' * (not bias)}"
    return Case(kernel, "output_delta", arguments, shape[0] * shape[1], label)


def update(optimizer: Optimizer, n: int, narrow: bool = False) -> Case:
    hyper = np.array([list(optimizer.hyper(3).values())])[0]
    arguments = {
        "optimizer": optimizer,
        "hyper": Given(hyper, stored=False),
        "theta": Given(_numbers(n), stored=False),
        "gradient": Given(_numbers(n, 1), stored=False),
        "slots": Given(abs(_numbers((len(optimizer.slots), n), 2)), stored=False),
        "narrow": Given(_written(n)) if narrow else None,
    }
    label = f"{type(optimizer).__name__}-{n}{'-clipped' * (optimizer.clip_norm is not None)}{'-narrow' * narrow}"
    return Case("update", "update", arguments, n, label, reference=_update)


def add(n: int) -> Case:
    arguments = {"x": Given(_numbers(n, 1), stored=False), "out": Given(_numbers(n), stored=False)}
    return Case("update", "add", arguments, label=f"add-{n}")


def _update(narrow: np.ndarray | None, **others: Any) -> None:
    """The update of the reference, whose θ the kernel also stores in another type."""
    NumpyBackend().update(**others)
    if narrow is not None:
        narrow[...] = others["theta"]


def penalty(shape: tuple[int, int], gradient: bool = True, divisor: float | None = None) -> Case:
    arguments = {
        "l2": 0.5,
        "W": Given(_numbers(shape), stored=False),
        "dW": Given(_numbers(shape, 1), stored=False) if gradient else None,
        "value": Given(np.array(0.25), stored=False),
        "divisor": None if divisor is None else Given(np.array(divisor), stored=False),
    }
    label = f"{shape}{'-only the loss' * (not gradient)}{'' if divisor is None else f'-divided by {divisor}'}"
    return Case("penalty", "penalty", arguments, shape[0] * shape[1], label)


def gather(shape: tuple[int, int], source_rows: int) -> Case:
    rows = Given(np.random.default_rng(0).integers(0, source_rows, shape[0]), stored=False)
    arguments = {"x": Given(_numbers((source_rows, shape[1]))), "rows": rows, "out": Given(_written(shape))}
    return Case("gather", "gather", arguments, label=f"{shape}-of {source_rows}")


def cast(shape: tuple[int, int], widens: bool) -> Case:
    numbers = np.random.default_rng(7).normal(size=shape)
    arguments = {
        "wide": Given(_written(shape) if widens else numbers, stored=False),
        "narrow": Given(numbers if widens else _written(shape)),
        "widens": widens,
    }
    return Case("cast", "_cast", arguments, label=f"{shape}-{widens}", exact=True, reference=_cast)


def _cast(wide: np.ndarray, narrow: np.ndarray, widens: bool) -> None:
    source, target = (narrow, wide) if widens else (wide, narrow)
    target[...] = source


def draw_mask(shape: tuple[int, int], rate: float, first: int = 0, k: int = 0, layer: int = 1, start: int = 0) -> Case:
    arguments = {
        "key": np.array([2**63 + 11, 2**64 - 3], "uint64"),
        "first": Given(np.array(first), stored=False),
        "k": k,
        "layer": layer,
        "rate": rate,
        "mask": Given(_written(shape)),
        "start": start,
    }
    return Case("dropout", "draw_mask", arguments, label=f"{shape}-{rate}-{first}-{k}-{layer}-{start}")


def mean_weights(rows: int, largest: float = 1.0) -> Case:
    arguments = {
        "w": Given(largest * abs(_numbers((rows, 1), 4)), stored=False),
        "share": 0.25,
        "total": Given(_written(()), stored=False),
        "weight": Given(_written((rows, 1)), stored=False),
    }
    return Case("weights", "mean_weights", arguments, rows, f"({rows}, 1){'-of nothing' * (largest == 0)}")


# -- the calls ---------------------------------------------------------------------------------------------------------


def shape_cases() -> Iterator[Case]:
    """Every kernel on every shape, in all its ways."""
    yield from (special(relu), special(hard_sigmoid), rounding())
    for shape in SHAPES:
        yield from (forward(gelu, shape), forward(tanh, shape, in_place=True), forward(gelu, shape, mask=True))
        yield from (forward(softmax, shape), forward(softmax, shape, in_place=True))
        yield from (delta(gelu, shape), delta(tanh, shape, mask=True))
        yield from (output(mse, tanh, shape), output(mse, gelu, shape, weights=True))
        yield from (output(binary_cross_entropy, sigmoid, shape), output(mse, tanh, shape, bias=False))
        yield from (output(cross_entropy, softmax, shape), output(cross_entropy, softmax, shape, weights=True))
        yield from (output(mse, softmax, shape, weights=True), output(cross_entropy, softmax, shape, bias=False))
        yield from (penalty(shape), penalty(shape, gradient=False))
        yield from (penalty(shape, divisor=3.0), penalty(shape, gradient=False, divisor=0.25))
        yield from (cast(shape, widens=False), cast(shape, widens=True))
        yield from (gather(shape, 1), gather(shape, 50))
        yield from (mean_weights(shape[0] * shape[1]), mean_weights(shape[0], largest=0.0))
        yield from (draw_mask(shape, 0.25), draw_mask(shape, 0.9, first=2**40, k=5, layer=7), draw_mask(shape, 0.0))
        yield from (draw_mask(shape, 0.25, start=8 * 2**40), draw_mask(shape, 0.25, start=45))
        n = -(-shape[0] * shape[1] // 16) * 16
        yield from (update(SGD(0.1), n), update(SGD(0.1, momentum=0.9, clip_norm=0.5), n), update(Adam(0.1), n))
        yield update(Adam(0.1, clip_norm=0.125, weight_decay=0.1), n)
        yield from (update(SGD(0.1), n, narrow=True), update(Adam(0.1), n, narrow=True), add(n))


def row_cases() -> Iterator[Case]:
    """Every row of the tables, and one of a user's own, in every kernel that calls it."""
    for activation in (*ACTIVATIONS.values(), squash):
        yield from activation_cases(activation)
    for loss in LOSSES.values():
        pairs = [tanh, softmax, *([loss.canonical] if loss.canonical not in (None, softmax) else [])]
        yield from (output(loss, activation, (5, 8), weights=True) for activation in pairs)


def activation_cases(activation: Activation) -> Iterator[Case]:
    """One activation in every kernel that calls it."""
    for shape in ((5, 8), (6, 3)):
        yield from (forward(activation, shape), output(mse, activation, shape))
        if not activation.rowwise:
            yield delta(activation, shape)


# -- running them ------------------------------------------------------------------------------------------------------


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, ties to even; any NaN becomes the same."""
    bits = x.astype("float32").view("uint32").astype("uint64")
    return np.where(np.isnan(x), 0x7FFF, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("uint16")


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype("uint32") << 16).view("float32")


def _host(given: Given, storage: str) -> np.ndarray:
    """The array in the type that the kernels are given."""
    if given.values.dtype.kind == "i":
        return given.values
    if storage == "uint16":
        return to_bfloat16(given.values) if given.stored else given.values.astype("float32")
    return given.values.astype(storage)


def _numbers_of(array: np.ndarray) -> np.ndarray:
    return from_bfloat16(array) if array.dtype == "uint16" else array


def on_kernels(backend: Any, case: Case, storage: str, offset: int) -> dict[str, np.ndarray]:
    """Run a case on a backend whose products are done; return all arrays, as numbers.

    Args:
        backend: the backend.
        case: the call.
        storage: type of activations and deltas.
        offset: elements by which every array lies off the alignment of memory.
    """
    memory: dict[int, tuple[Any, Any, np.ndarray]] = {}

    def place(given: Given) -> Any:
        if id(given) not in memory:
            host = _host(given, storage)
            start = AROUND + offset
            around = np.full(host.size + start + AROUND, GUARD, host.dtype)
            around[start : start + host.size] = host.reshape(-1)
            whole = backend.asarray(around, around.dtype)
            memory[id(given)] = whole, whole[start : start + host.size].reshape(host.shape), around
        return memory[id(given)][1]

    arguments = {name: place(a) if isinstance(a, Given) else a for name, a in case.arguments.items()}
    with backend.running(0.0):
        getattr(backend, case.operation)(**arguments)
    for whole, view, around in memory.values():
        after, start = backend.to_numpy(whole), AROUND + offset
        np.testing.assert_array_equal(after[:start], around[:start], "what lies before an array was written")
        np.testing.assert_array_equal(
            after[start + view.size :], around[start + view.size :], "what lies behind an array was written"
        )
    return {
        name: _numbers_of(backend.to_numpy(memory[id(a)][1]))
        for name, a in case.arguments.items()
        if isinstance(a, Given)
    }


def _reference() -> NumpyBackend:
    """The reference, with products of matrices that are not there taken as done."""
    backend = NumpyBackend()
    product = backend._product
    backend._product = lambda A, B, out: None if A is None else product(A, B, out)  # type: ignore[method-assign]
    return backend


def on_numpy(case: Case, storage: str) -> dict[str, np.ndarray]:
    """Run a case on the reference, in the type of the kernels' arithmetic."""
    backend = _reference()
    arrays = {id(a): _numbers_of(_host(a, storage)).copy() for a in case.arguments.values() if isinstance(a, Given)}
    if case.kernel == "output_rows":  # what forward leaves in z, which kernels do not count on
        z = arrays[id(case.arguments["z"])]
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    arguments = {name: arrays[id(a)] if isinstance(a, Given) else a for name, a in case.arguments.items()}
    with backend.running(0.0):
        (case.reference or getattr(backend, case.operation))(**arguments)
    return {name: arrays[id(a)] for name, a in case.arguments.items() if isinstance(a, Given)}


def storages(case: Case) -> list[str]:
    """The types in which the arrays of a case may be stored."""
    stored = any(isinstance(a, Given) and a.stored for a in case.arguments.values())
    return ["float32", "float64", "uint16"] if stored else ["float32", "float64"]


def bound(case: Case, name: str, dtype: Any, storage: str) -> float:
    """By how much an array may be off, in units of its numbers, or of 1 where they are smaller.

    64 units in the last place for formulas of some ten operations, each with an error of a few units of its own from
    two libraries of mathematics, and one more for every term of a sum of numbers of about 1. To store as bfloat16, with
    its 8 bits, is off by 2^-8. Softmax reads z as stored, off by 2^-8 for each of its units, of which it has up to 4,
    and is stored itself; and output_rows.cu sums δ as stored.
    """
    if dtype.kind != "f" or case.exact:
        return 0.0
    rounding = (64 + case.terms) * float(np.finfo(dtype).eps)
    if storage == "uint16" and case.arguments[name].stored:
        rounding = max(rounding, 5 * 2.0**-8 if case.kernel == "softmax" else 2.0**-8)
    if storage == "uint16" and case.kernel == "output_rows" and name == "db":
        rounding = max(rounding, case.terms * 2.0**-8)
    return rounding


def check(backend: Any, case: Case, storage: str, offset: int = 0) -> None:
    """Hold the kernels' arrays to the reference's."""
    given, expected = on_kernels(backend, case, storage, offset), on_numpy(case, storage)
    if case.kernel in ("softmax", "output_rows") and case.arguments["z"] is not case.arguments["a"]:
        for arrays in (given, expected):  # z is a matter of differences within rows
            with np.errstate(invalid="ignore"):
                arrays["z"] = arrays["z"] - arrays["z"].max(axis=1, keepdims=True)
    for name, values in expected.items():
        if case.exact and storage == "uint16" and case.arguments[name].stored:
            values = from_bfloat16(to_bfloat16(values))
        same = (given[name] == values) | (np.isnan(given[name]) & np.isnan(values))
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0.0, abs(given[name] - values) / np.maximum(1.0, abs(values)))
        worst, most = error.max(initial=0.0), bound(case, name, values.dtype, storage)  # NaN where one of the two is
        assert worst <= most, f"{name} is off by {worst:.3g}, more than {most:.3g}"
