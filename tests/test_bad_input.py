"""Malformed calls of the public API: the right exception, a message that helps, and a network left as it was."""

from __future__ import annotations

import builtins
import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import gpubackprop as gb
from gpubackprop.activations import Activation
from gpubackprop.errors import (
    BackendUnavailable,
    InvalidType,
    InvalidValue,
    MissingDependency,
    ModelFileError,
)
from gpubackprop.losses import Loss

BUILT_IN = {
    InvalidValue: ValueError,
    InvalidType: TypeError,
    BackendUnavailable: RuntimeError,
    ModelFileError: ValueError,
    MissingDependency: ImportError,
}
OPTIMIZERS, SCHEDULES = gb.optimizers, gb.schedules
N = 6


def _networks() -> dict[str, gb.Network]:
    """One network per kind of targets, with its examples: labels, fractions, counts, values in float32."""
    return {
        "net": gb.Network(
            [3, 5, 4],
            activation="tanh",
            output_activation="softmax",
            loss="cross_entropy",
            dtype="float64",
            dropout=0.25,
        ),
        "fractions": gb.Network(
            [3, 4, 2], activation="tanh", output_activation="sigmoid", loss="binary_cross_entropy", dtype="float64"
        ),
        "counts": gb.Network(
            [3, 4, 1], activation="tanh", output_activation="softplus", loss="poisson", dtype="float64"
        ),
        "single": gb.Network([3, 4, 1], activation="tanh"),
    }


@dataclass
class Bench:
    """What the calls are made on: networks, and examples they accept."""

    folder: Any
    networks: dict[str, gb.Network] = field(default_factory=_networks)
    X: np.ndarray = field(default_factory=lambda: np.random.default_rng(7).normal(size=(N, 3)))
    y: np.ndarray = field(default_factory=lambda: np.array([0, 1, 2, 3, 0, 1]))

    def __getattr__(self, name: str) -> gb.Network:
        return self.networks[name]

    def targets(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(8)
        return {
            "net": self.y,
            "fractions": rng.uniform(size=(N, 2)),
            "counts": rng.poisson(3.0, N),
            "single": rng.normal(size=N),
        }

    def fit(self, **arguments: Any) -> Any:
        return gb.fit(self.net, self.X, self.y, **{"epochs": 1, **arguments})

    def saved(self) -> Any:
        path = self.folder / "model.safetensors"
        self.net.save(path)
        return path


@dataclass(frozen=True)
class Case:
    """One call, the exception it must raise, and what its message must say of what was given and what is accepted."""

    name: str
    call: Callable[[Bench], Any]
    raises: type[Exception]
    says: tuple[str, ...]


CASES: list[Case] = []


def _value(name: str, call: Callable[[Bench], Any], *says: str) -> None:
    CASES.append(Case(name, call, InvalidValue, says))


def _type(name: str, call: Callable[[Bench], Any], *says: str) -> None:
    CASES.append(Case(name, call, InvalidType, says))


class _NotAnArray:
    """Something that breaks whoever takes it for an array."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise RuntimeError("no array here")


class _Sparse:
    """What sparse matrices of all libraries have in common."""

    shape = (N, 3)

    def toarray(self) -> np.ndarray:
        return np.zeros(self.shape)


class _OnDevice:
    """An array of a library that is not CuPy, in the memory of a GPU."""

    shape = (N, 3)
    __cuda_array_interface__ = {"shape": (N, 3), "typestr": "<f4", "data": (4096, False), "version": 3}  # noqa: RUF012


def _with(x: np.ndarray, value: float, at: tuple[int, ...] = (2,)) -> np.ndarray:
    changed = x.astype(float)
    changed[at] = value
    return changed


def _branches(m: Any, z: Any) -> Any:
    return z if z > 0 else 0.0


def _deep(m: Any, z: Any) -> Any:
    for _ in range(5000):
        z = z + 1.0
    return z


def _scaled(m: Any, z: Any, a: Any = None, s: float = 1.0) -> Any:
    return s * z


def _loss(**arguments: Any) -> Loss:
    return Loss("mine", lambda m, y, a: y - a, lambda m, y, a: -1.0, **arguments)


def _late(schedule: Any) -> float:
    return OPTIMIZERS.SGD(schedule).rate(99)


class _Own(OPTIMIZERS.Optimizer):
    """An optimizer with slots and scalars as they are given, that returns so many values; 0 stands for a list."""

    slots: Any = ()

    def __init__(self, slots: tuple[str, ...], *scalars: str, returns: int = 1) -> None:
        super().__init__(0.1)
        vars(self).update(slots=slots, given=scalars, returns=returns)

    def scalars(self, t: int, learning_rate: float) -> dict[str, float]:
        return {"rate": learning_rate, **dict.fromkeys(self.given, 1.0)}

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> Any:
        return (w - h.rate * g,) * self.returns if self.returns else [w - h.rate * g] * 2


NAMES = ("'relu'", "'tanh'", "'softmax'")

# -- Network(...) ------------------------------------------------------------------------------------------------------
_type("sizes: a number", lambda b: gb.Network(7), "sizes", "sequence of integers", "got 7")
_type("sizes: a string", lambda b: gb.Network("34"), "sizes", "sequence of integers", "got '34'")
_type("sizes: None", lambda b: gb.Network(None), "sizes", "sequence of integers", "got None")
_type("sizes: floats", lambda b: gb.Network([3, 4.0, 1]), r"sizes\[1\]", "integer", "got 4.0 of type float")
_type("sizes: a boolean", lambda b: gb.Network([3, True]), r"sizes\[1\]", "integer", "got True of type bool")
_value("sizes: zero", lambda b: gb.Network([3, 0, 1]), r"sizes\[1\]", "at least 1", "got 0")
_value("sizes: negative", lambda b: gb.Network([-3, 1]), r"sizes\[0\]", "at least 1", "got -3")
_value("sizes: one layer", lambda b: gb.Network([3]), "inputs and the outputs", r"got \[3\]")
_value("sizes: none", lambda b: gb.Network([]), "inputs and the outputs", r"got \[\]")
_value("activation: unknown", lambda b: gb.Network([3, 4, 1], activation="rleu"), "activation", *NAMES, "got 'rleu'")
_type(
    "activation: a number", lambda b: gb.Network([3, 4, 1], activation=3), "activation", *NAMES, "Activation", "got 3"
)
_type("activation: a function", lambda b: gb.Network([3, 4, 1], activation=np.tanh), "activation", *NAMES, "tanh")
_type("activation: a loss", lambda b: gb.Network([3, 4, 1], activation=gb.losses.mse), "activation", *NAMES, "mse")
_value("activation: too many", lambda b: gb.Network([3, 4, 1], activation=["relu", "relu"]), "list of 1", "got 2")
_value("activation: too few", lambda b: gb.Network([3, 4, 4, 1], activation=["relu"]), "list of 2", "got 1")
_value("activation: softmax", lambda b: gb.Network([3, 4, 1], activation="softmax"), "'softmax'", "output_activation")
_type("activation: None in a list", lambda b: gb.Network([3, 4, 1], activation=[None]), r"activation\[0\]", "got None")
_value("output: unknown", lambda b: gb.Network([3, 1], output_activation="x"), "output_activation", *NAMES, "got 'x'")
_type("output: a number", lambda b: gb.Network([3, 1], output_activation=1), "output_activation", *NAMES, "got 1")
_value("loss: unknown", lambda b: gb.Network([3, 1], loss="mes"), "loss", "'mse'", "'cross_entropy'", "got 'mes'")
_type("loss: an activation", lambda b: gb.Network([3, 1], loss=gb.activations.relu), "loss", "'mse'", "Loss", "relu")
_value("initializer: unknown", lambda b: gb.Network([3, 1], initializer="hi"), "initializer", "'he_normal'", "got 'hi'")
_type("initializer: a number", lambda b: gb.Network([3, 1], initializer=0.1), "initializer", "'he_normal'", "got 0.1")
_value("l2: negative", lambda b: gb.Network([3, 1], l2=-1.0), "l2", r"\[0, inf\)", "got -1.0")
_value("l2: NaN", lambda b: gb.Network([3, 1], l2=math.nan), "l2", "finite", "got nan")
_value("l2: beyond floats", lambda b: gb.Network([3, 1], l2=10**400), "l2", "finite", "got inf")
_type("l2: a string", lambda b: gb.Network([3, 1], l2="0.1"), "l2", "number", "got '0.1' of type str")
_type("l2: complex", lambda b: gb.Network([3, 1], l2=1j), "l2", "number", "got 1j of type complex")
_value("dropout: one", lambda b: gb.Network([3, 1], dropout=1.0), "dropout", r"\[0, 1\)", "got 1.0")
_value("dropout: negative", lambda b: gb.Network([3, 1], dropout=-0.1), "dropout", r"\[0, 1\)", "got -0.1")
_type("dropout: a boolean", lambda b: gb.Network([3, 1], dropout=True), "dropout", "number", "got True of type bool")
_value(
    "dtype: unknown", lambda b: gb.Network([3, 1], dtype="float16"), "dtype", "'float32', 'float64'", "got 'float16'"
)
_value("dtype: a class", lambda b: gb.Network([3, 1], dtype=int), "dtype", "'float32', 'float64'", "got 'int64'")
_type("dtype: None", lambda b: gb.Network([3, 1], dtype=None), "dtype", "'float32', 'float64'", "got None")
_value("precision: unknown", lambda b: gb.Network([3, 1], precision="fp8"), "precision", "'float32'", "got 'fp8'")
_type("precision: None", lambda b: gb.Network([3, 1], precision=None), "precision", "'float32'", "got None")
_value("seed: negative", lambda b: gb.Network([3, 1], seed=-1), "seed", "at least 0", "got -1")
_type("seed: a float", lambda b: gb.Network([3, 1], seed=1.5), "seed", "integer", "got 1.5 of type float")
_value("backend: unknown", lambda b: gb.Network([3, 1], backend="cda"), '"cuda"', "got 'cda'; did you mean 'cuda'")
_type("backend: a number", lambda b: gb.Network([3, 1], backend=0), "backend", '"numpy"', "got 0 of type int")

# -- forward, predict --------------------------------------------------------------------------------------------------
_value("forward: one example", lambda b: b.net.forward(b.X[0]), r"\(N, 3\)", r"got \(3,\)", r"X\[None, :\]")
_value("forward: three dimensions", lambda b: b.net.forward(b.X[None]), r"\(N, 3\)", r"got \(1, 6, 3\)")
_value("forward: no dimension", lambda b: b.net.forward(3.0), r"\(N, 3\)", r"got \(\)")
_value("forward: no rows", lambda b: b.net.forward(b.X[:0]), "at least 1", r"got \(0, 3\)")
_value("forward: an empty list", lambda b: b.net.forward([]), r"\(N, 3\)", r"got \(0,\)")
_value("forward: other columns", lambda b: b.net.forward(b.X.T), r"\(N, 3\)", r"got \(3, 6\)")
_value("forward: NaN", lambda b: b.net.forward(_with(b.X, math.nan)), "X must be finite", "in 3 places", "impute")
_value("forward: infinity", lambda b: b.net.forward(_with(b.X, -math.inf, (2, 1))), "X must be finite", "in 1 places")
_value("forward: beyond float32", lambda b: b.single.forward(_with(b.X, 1e39)), "finite in float32", "in 3 places")
_type("forward: objects", lambda b: b.net.forward(b.X.astype(object)), "X must hold real numbers", "type object")
_type("forward: strings", lambda b: b.net.forward(b.X.astype(str)), "X must hold real numbers", "type <U")
_type("forward: complex", lambda b: b.net.forward(b.X + 1j), "X must hold real numbers", "type complex128")
_type("forward: dates", lambda b: b.net.forward(np.zeros((N, 3), "datetime64[s]")), "real numbers", "datetime64")
_type("forward: ragged", lambda b: b.net.forward([[1, 2, 3], [4, 5]]), "X must be an array of real numbers", "list")
_type("forward: None", lambda b: b.net.forward(None), "X must be an array of real numbers, got None")
_type("forward: a dict", lambda b: b.net.forward({"x": b.X}), "X must hold real numbers", "object")
_type("forward: a broken array", lambda b: b.net.forward(_NotAnArray()), "real numbers", "_NotAnArray", "no array here")
_type("forward: sparse", lambda b: b.net.forward(_Sparse()), "sparse _Sparse", "dense", r"X.toarray\(\)")
_type("forward: a GPU's array without CuPy", lambda b: b.net.forward(_OnDevice()), "_OnDevice", "GPU", "CuPy", "NumPy")
_value(
    "forward: masked", lambda b: b.net.forward(np.ma.masked_less(b.X, 0.0)), "X is a masked array", r"X.filled\(value\)"
)
_value("predict: NaN", lambda b: b.net.predict(_with(b.X, math.nan)), "X must be finite", "in 3 places")
_value("predict: other columns", lambda b: b.net.predict(b.X[:, :2]), r"\(N, 3\)", r"got \(6, 2\)")
_value("predict: no batch", lambda b: b.net.predict(b.X, batch_size=0), "batch_size", "at least 1", "got 0")
_type("predict: half a batch", lambda b: b.net.predict(b.X, batch_size=2.5), "batch_size", "integer", "got 2.5")
_type("predict: a boolean batch", lambda b: b.net.predict(b.X, batch_size=True), "batch_size", "integer", "got True")

# -- targets and sample weights ----------------------------------------------------------------------------------------
_value("y: too few", lambda b: b.net.evaluate(b.X, b.y[:4]), r"\(6, 4\), or integer labels \(6,\)", r"got \(4,\)")
_value("y: other width", lambda b: b.net.evaluate(b.X, np.eye(3)[[0, 1, 2, 0, 1, 2]]), r"\(6, 4\)", r"got \(6, 3\)")
_value("y: no dimension", lambda b: b.net.evaluate(b.X, 1), r"\(6, 4\), or integer labels \(6,\)", r"got \(\)")
_value("y: too large a label", lambda b: b.net.evaluate(b.X, b.y + 1), "labels in y", r"0\.\.3", "from 1 to 4")
_value("y: negative label", lambda b: b.net.evaluate(b.X, b.y - 1), "labels in y", r"0\.\.3", "from -1 to 2")
_value(
    "y: unsigned label",
    lambda b: b.net.evaluate(b.X, np.full(N, 2**64 - 1, "u8")),
    r"0\.\.3",
    "to 18446744073709551615",
)
_value("y: float labels", lambda b: b.net.evaluate(b.X, b.y * 1.0), "integer labels", "type float64")
_type("y: string labels", lambda b: b.net.evaluate(b.X, b.y.astype(str)), "y must hold real numbers", "type <U")
_type("y: None", lambda b: b.net.evaluate(b.X, None), "y must be an array of real numbers, got None")
_type("X: None", lambda b: gb.fit(b.net, None, b.y), "X must be an array of real numbers, got None")
_type("X: None into an array", lambda b: b.net.predict(None, out=np.zeros((3, 4))), "X must be", "got None")
_value(
    "y: labels in a column", lambda b: gb.fit(b.net, b.X, b.y[:, None]), r"got \(6, 1\)", r"in one column are y\[:, 0\]"
)
_value("y: labels of floats", lambda b: gb.fit(b.net, b.X, b.y * 1.0), "of type float64", r"y\.astype\(int\)")
_type(
    "y: strings", lambda b: gb.fit(b.net, b.X, list("abcabc")), "<U1", r"numpy\.unique\(y, return_inverse=True\)\[1\]"
)
_type("y: strings as objects", lambda b: b.net.evaluate(b.X, np.array(list("abcabc"), object)), "object", r"unique\(y,")
_type("X: strings", lambda b: b.net.predict([list("abc")]), "X must hold real numbers", r"pandas\.get_dummies")
_value("sample_weight: empty", lambda b: gb.fit(b.net, b.X, b.y, sample_weight=[]), r"\(6,\)", r"got \(0,\)")
_value("y: NaN", lambda b: b.single.evaluate(b.X, _with(b.y, math.nan)), "y must be finite", "in 1 places")
_value("y: beyond float32", lambda b: b.single.evaluate(b.X, _with(b.y, 1e39)), "finite in float32", "in 1 places")
_value(
    "y: one output", lambda b: b.single.evaluate(b.X, b.y[:, None, None]), r"\(6, 1\), or \(6,\)", r"got \(6, 1, 1\)"
)
_value(
    "y: no distribution", lambda b: b.net.evaluate(b.X, np.full((N, 4), 0.3)), "sum to 1", "cross_entropy", "off by 0.2"
)
_value(
    "y: a negative share", lambda b: b.net.evaluate(b.X, np.tile([1.5, -0.5, 0, 0], (N, 1))), "between 0 and 1", "-0.5"
)
_value(
    "y: above one", lambda b: b.fractions.evaluate(b.X, np.full((N, 2), 1.5)), "between 0 and 1", "binary_cross", "1.5"
)
_value("y: below zero", lambda b: b.fractions.evaluate(b.X, np.full((N, 2), -0.5)), "between 0 and 1", "from -0.5")
_value("y: negative count", lambda b: b.counts.evaluate(b.X, b.y - 1), "non-negative", "'poisson'", "from -1")
_value(
    "weights: negative", lambda b: b.net.evaluate(b.X, b.y, b.y - 1.0), "sample_weight", "non-negative", "from -1 to 2"
)
_value("weights: all zero", lambda b: b.net.evaluate(b.X, b.y, np.zeros(N)), "sample_weight", "positive", "from 0 to 0")
_value("weights: too few", lambda b: b.net.evaluate(b.X, b.y, np.ones(5)), "sample_weight", r"\(6,\)", r"got \(5,\)")
_value("weights: a column", lambda b: b.net.evaluate(b.X, b.y, np.ones((N, 1))), r"\(6,\)", r"got \(6, 1\)")
_value("weights: NaN", lambda b: b.net.evaluate(b.X, b.y, _with(b.y, math.nan)), "sample_weight must be finite")
_value("weights: beyond float32", lambda b: b.single.evaluate(b.X, b.y, np.full(N, 3e39)), "sample_weight", "float32")
_type("weights: a string", lambda b: b.net.evaluate(b.X, b.y, "balanced"), "sample_weight", "real numbers", "<U8")
_type("weights: a dict", lambda b: b.net.evaluate(b.X, b.y, {0: 2.0}), "sample_weight", "real numbers", "object")

# -- gradients and masks -----------------------------------------------------------------------------------------------
_value("gradients: X", lambda b: b.net.loss_and_gradients(b.X[:, :1], b.y), r"\(N, 3\)", r"got \(6, 1\)")
_value("gradients: y", lambda b: b.net.loss_and_gradients(b.X, b.y + 9), r"0\.\.3", "from 9 to 12")
_value("gradients: weights", lambda b: b.net.loss_and_gradients(b.X, b.y, -np.ones(N)), "non-negative", "from -1 to -1")
_type(
    "masks: an array", lambda b: b.net.loss_and_gradients(b.X, b.y, masks=np.ones((N, 5))), "masks", "list", "ndarray"
)
_type(
    "masks: strings", lambda b: b.net.loss_and_gradients(b.X, b.y, masks=["no"]), r"masks\[0\]", "real numbers", "<U2"
)
_value("masks: none", lambda b: b.net.loss_and_gradients(b.X, b.y, masks=[]), r"\[\(6, 5\)\]", r"got \[\]")
_value(
    "masks: too many",
    lambda b: b.net.loss_and_gradients(b.X, b.y, masks=[np.ones((N, 5))] * 2),
    "one per hidden",
    r"\(6, 5\)",
)
_value(
    "masks: other rows", lambda b: b.net.loss_and_gradients(b.X, b.y, masks=[np.ones((4, 5))]), r"\(6, 5\)", r"\(4, 5\)"
)
_value(
    "masks: NaN",
    lambda b: b.net.loss_and_gradients(b.X, b.y, masks=[np.full((N, 5), np.nan)]),
    r"masks\[0\] must be finite",
)
_value("draw_masks: no rows", lambda b: b.net.draw_masks(0), "rows", "at least 1", "got 0")
_type("draw_masks: a float", lambda b: b.net.draw_masks(2.0), "rows", "integer", "got 2.0")
_value("draw_masks: seed", lambda b: b.net.draw_masks(2, -1), "seed", "at least 0", "got -1")
_type("draw_masks: seed's type", lambda b: b.net.draw_masks(2, "a"), "seed", "integer", "got 'a' of type str")

# -- check_gradients ---------------------------------------------------------------------------------------------------
_type("check: no network", lambda b: gb.check_gradients("net", b.X, b.y), "net must be a Network", "got str")
_value(
    "check: method",
    lambda b: gb.check_gradients(b.net, b.X, b.y, method="exact"),
    "method",
    "'complex_step'",
    "got 'exact'",
)
_type(
    "check: method's type",
    lambda b: gb.check_gradients(b.net, b.X, b.y, method=None),
    "method",
    "'complex_step'",
    "None",
)
_value("check: bound", lambda b: gb.check_gradients(b.net, b.X, b.y, bound=-1.0), "bound", r"\[0, inf\)", "got -1.0")
_type("check: bound's type", lambda b: gb.check_gradients(b.net, b.X, b.y, bound="tight"), "bound", "number", "'tight'")
_value("check: samples", lambda b: gb.check_gradients(b.net, b.X, b.y, samples=0), "samples", "at least 1", "got 0")
_type(
    "check: samples' type", lambda b: gb.check_gradients(b.net, b.X, b.y, samples=0.5), "samples", "integer", "got 0.5"
)
_value("check: seed", lambda b: gb.check_gradients(b.net, b.X, b.y, seed=-2), "seed", "at least 0", "got -2")
_value("check: X", lambda b: gb.check_gradients(b.net, b.X[0], b.y), r"\(N, 3\)", r"got \(3,\)")
_value("check: labels", lambda b: gb.check_gradients(b.net, b.X, b.y + 1), r"0\.\.3", "from 1 to 4")
_type(
    "check: gradients' shapes",
    lambda b: gb.check_gradients(b.net, b.X, b.y, gradients=[(np.ones(3), np.ones(3))]),
    "gradients",
    r"\(3, 5\)",
    r"got \[\(3,\), \(3,\)\]",
)
_type("check: gradients' form", lambda b: gb.check_gradients(b.net, b.X, b.y, gradients=7), "gradients", "pairs", "got")

# -- fit ---------------------------------------------------------------------------------------------------------------
_type("warmup: no network", lambda b: gb.warmup(3), "net must be a Network", "got int")
_value("warmup: no rows", lambda b: gb.warmup(b.net, batch_size=0), "batch_size", "at least 1", "got 0")
_value("warmup: optimizer", lambda b: gb.warmup(b.net, optimizer="sdg"), "optimizer", "'sgd'", "got 'sdg'")
_type("fit: no network", lambda b: gb.fit([3, 4], b.X, b.y), "net must be a Network", "got list")
_value("fit: X", lambda b: gb.fit(b.net, b.X[:, :2], b.y), r"\(N, 3\)", r"got \(6, 2\)")
_value("fit: X and y", lambda b: gb.fit(b.net, b.X[:5], b.y), r"\(5, 4\)", r"got \(6,\)")
_value("fit: NaN", lambda b: gb.fit(b.net, _with(b.X, math.nan), b.y), "X must be finite", "in 3 places")
_value("fit: labels", lambda b: gb.fit(b.net, b.X, b.y + 1), r"0\.\.3", "from 1 to 4")
_value("fit: weights", lambda b: b.fit(sample_weight=np.zeros(N)), "sample_weight", "positive", "from 0 to 0")
_value("fit: optimizer", lambda b: b.fit(optimizer="admm"), "optimizer", "'sgd'", "'adam'", "got 'admm'")
_type(
    "fit: optimizer's type",
    lambda b: b.fit(optimizer=0.1),
    "optimizer",
    "'sgd'",
    r"optimizers\.Adam\(1e-3\)",
    "got 0.1",
)
_type("fit: an optimizer's class", lambda b: b.fit(optimizer=OPTIMIZERS.Adam), "optimizer", r"optimizers\.Adam\(1e-3\)")
_value("fit: no epochs", lambda b: b.fit(epochs=0), "epochs", "at least 1", "got 0")
_type("fit: half an epoch", lambda b: b.fit(epochs=0.5), "epochs", "integer", "got 0.5")
_value("fit: no batch", lambda b: b.fit(batch_size=0), "batch_size", "at least 1", "got 0")
_type("fit: batch_size's type", lambda b: b.fit(batch_size=None), "batch_size", "integer", "got None")
_type("fit: shuffle", lambda b: b.fit(shuffle=1), "shuffle", "True or False", "got 1 of type int")
_value("fit: seed", lambda b: b.fit(seed=-1), "seed", "at least 0", "got -1")
_type("fit: seed's type", lambda b: b.fit(seed="x"), "seed", "integer", "got 'x'")
_value("fit: tol", lambda b: b.fit(tol=-1e-3), "tol", r"\[0, inf\)", "got -0.001")
_value("fit: tol NaN", lambda b: b.fit(tol=math.nan), "tol", "finite", "got nan")
_type("fit: tol's type", lambda b: b.fit(tol="auto"), "tol", "number", "got 'auto'")
_value("fit: patience", lambda b: b.fit(patience=0), "patience", "at least 1", "got 0")
_type("fit: patience's type", lambda b: b.fit(patience=None), "patience", "integer", "got None")
_type("fit: callbacks", lambda b: b.fit(callbacks=print), "callbacks", r"callback\(net, history\)", "print")
_type("fit: a callback", lambda b: b.fit(callbacks=[3]), "callbacks", "list of functions", r"got \[3\]")
_type("fit: progress", lambda b: b.fit(progress="yes"), "progress", "True or False", "got 'yes'")
_type("fit: validation_data", lambda b: b.fit(validation_data=7), "validation_data", r"\(X, y\)", "got int")
_value(
    "fit: validation_data alone", lambda b: b.fit(validation_data=(b.X,)), "validation_data", r"\(X, y\)", "got 1 items"
)
_value(
    "fit: validation X",
    lambda b: b.fit(validation_data=(b.X[:, :2], b.y)),
    "validation X",
    r"\(N, 3\)",
    r"got \(6, 2\)",
)
_value("fit: validation y", lambda b: b.fit(validation_data=(b.X, b.y + 1)), "validation y", r"0\.\.3", "from 1 to 4")
_value(
    "fit: validation NaN", lambda b: b.fit(validation_data=(_with(b.X, math.nan), b.y)), "validation X must be finite"
)

# -- optimizers and schedules ------------------------------------------------------------------------------------------
_value("rate: zero", lambda b: OPTIMIZERS.SGD(0.0), "learning_rate", r"\(0, inf\)", "got 0.0")
_value("rate: negative", lambda b: OPTIMIZERS.Adam(-1e-3), "learning_rate", r"\(0, inf\)", "got -0.001")
_value("rate: NaN", lambda b: OPTIMIZERS.SGD(math.nan), "learning_rate", "finite", "got nan")
_type("rate: a string", lambda b: OPTIMIZERS.SGD("fast"), "learning_rate", "number", "got 'fast' of type str")
_type("rate: None", lambda b: OPTIMIZERS.SGD(None), "learning_rate", "number", "got None")
_value("momentum: one", lambda b: OPTIMIZERS.SGD(0.1, momentum=1.0), "SGD: momentum", r"\[0, 1\)", "got 1.0")
_type("nesterov: a number", lambda b: OPTIMIZERS.SGD(0.1, nesterov=1), "SGD: nesterov", "True or False", "got 1")
_value("beta1: negative", lambda b: OPTIMIZERS.Adam(1e-3, beta1=-0.1), "Adam: beta1", r"\[0, 1\)", "got -0.1")
_value("beta2: one", lambda b: OPTIMIZERS.AdamW(1e-3, beta2=1), "AdamW: beta2", r"\[0, 1\)", "got 1.0")
_value("eps: zero", lambda b: OPTIMIZERS.RMSprop(1e-3, eps=0), "RMSprop: eps", r"\(0, inf\)", "got 0.0")
_value("decay: two", lambda b: OPTIMIZERS.RMSprop(1e-3, decay=2), "RMSprop: decay", r"\[0, 1\)", "got 2.0")
_value("exponential: beyond floats", lambda b: _late(SCHEDULES.Exponential(1e-3, 1e20)), "Exponential", "got inf")
_value("step: beyond floats", lambda b: _late(SCHEDULES.Step(1e-3, 1, 1e20)), "learning rate", "step 99", "got inf")
_value(
    "warm-up: of a schedule that fails",
    lambda b: _late(SCHEDULES.WarmUp(lambda t: 1 / 0, 5)),
    "WarmUp",
    "step 99",
    "ZeroDivisionError",
)
_type("eps: None", lambda b: OPTIMIZERS.Adagrad(1e-3, eps=None), "Adagrad: eps", "number", "got None")
_value(
    "weight_decay: negative", lambda b: OPTIMIZERS.SGD(0.1, weight_decay=-1), "weight_decay", r"\[0, inf\)", "got -1.0"
)
_value("clip_norm: zero", lambda b: OPTIMIZERS.SGD(0.1, clip_norm=0), "clip_norm", r"\(0, inf\)", "got 0.0")
_value("clip_norm: infinity", lambda b: OPTIMIZERS.SGD(0.1, clip_norm=math.inf), "clip_norm", "finite", "got inf")
_value("constant: zero", lambda b: SCHEDULES.Constant(0), "Constant: learning_rate", r"\(0, inf\)", "got 0.0")
_value("step: every", lambda b: SCHEDULES.Step(0.1, 0), "Step: every", "at least 1", "got 0")
_type("step: every's type", lambda b: SCHEDULES.Step(0.1, 1.5), "Step: every", "integer", "got 1.5")
_value(
    "exponential: factor", lambda b: SCHEDULES.Exponential(0.1, 0.0), "Exponential: factor", r"\(0, inf\)", "got 0.0"
)
_value(
    "inverse: power", lambda b: SCHEDULES.InverseScaling(0.1, -1), "InverseScaling: power", r"\[0, inf\)", "got -1.0"
)
_value("cosine: steps", lambda b: SCHEDULES.Cosine(0.1, 0), "Cosine: steps", "at least 1", "got 0")
_value("cosine: least", lambda b: SCHEDULES.Cosine(0.1, 5, -0.1), "Cosine: least", r"\[0, inf\)", "got -0.1")
_type("warm-up: after", lambda b: SCHEDULES.WarmUp("cosine", 5), "learning_rate", "number", "got 'cosine'")
_value("warm-up: steps", lambda b: SCHEDULES.WarmUp(0.1, 0), "WarmUp: steps", "at least 1", "got 0")
_value(
    "schedule: NaN", lambda b: b.fit(optimizer=OPTIMIZERS.SGD(lambda t: math.nan)), "learning rate", "step 0", "got nan"
)
_value(
    "schedule: negative",
    lambda b: b.fit(optimizer=OPTIMIZERS.SGD(lambda t: -0.1)),
    "learning rate",
    "step 0",
    "got -0.1",
)
_type(
    "schedule: a string",
    lambda b: b.fit(optimizer=OPTIMIZERS.Adam(lambda t: "0.1")),
    "learning rate",
    "step 0",
    "got '0.1'",
)
_type(
    "schedule: None", lambda b: b.fit(optimizer=OPTIMIZERS.Adam(lambda t: None)), "learning rate", "step 0", "got None"
)
_value(
    "schedule: NaN in the second epoch",
    lambda b: b.fit(epochs=3, optimizer=OPTIMIZERS.SGD(lambda t: math.nan if t else 0.1)),
    "learning rate",
    "step 1",
    "got nan",
)

_value(
    "schedule: fails",
    lambda b: b.fit(optimizer=OPTIMIZERS.SGD({0: 0.1, 1: 0.01}.__getitem__), batch_size=1),
    "schedule",
    "step 2",
    "KeyError: 2",
)
_value("schedule: of no argument", lambda b: b.fit(optimizer=OPTIMIZERS.SGD(lambda: 0.1)), "step 0", "TypeError")
_type(
    "schedule: a class",
    lambda b: OPTIMIZERS.SGD(SCHEDULES.Cosine),
    "learning_rate",
    r"an object such as Cosine\(0\.01, steps=200\)",
    "got the class Cosine",
)
_type("warm-up: a class", lambda b: SCHEDULES.WarmUp(SCHEDULES.Step, 5), r"such as Cosine\(", "got the class Step")
_value(
    "slots: too few returned", lambda b: b.fit(optimizer=_Own(("v",))), "_Own", "new w, v", "tuple of 2", "tuple of 1"
)
_value("slots: too many returned", lambda b: b.fit(optimizer=_Own((), returns=3)), "_Own", "one value", "tuple of 3")
_value("slots: a list returned", lambda b: b.fit(optimizer=_Own(("v",), returns=0)), "_Own", "tuple of 2", "one list")
_value("slots: named w", lambda b: b.fit(optimizer=_Own(("w",), returns=2)), "_Own", "'w', 'g' and 'clip'", r"\('w',\)")
_value(
    "slots: named as a scalar", lambda b: b.fit(optimizer=_Own(("rate",), returns=2)), "of their own", r"\('rate',\)"
)
_value("slots: one name twice", lambda b: b.fit(optimizer=_Own(("v", "v"), returns=3)), "_Own", r"\('v', 'v'\)")
_value(
    "scalars: named clip", lambda b: b.fit(optimizer=_Own((), "clip")), "_Own", "'w', 'g' and 'clip'", "'rate', 'clip'"
)
_value("scalars: no name", lambda b: b.fit(optimizer=_Own((), "two words")), "_Own", "a Python name", "'two words'")
_value("step: missing", lambda b: b.fit(optimizer=OPTIMIZERS.Optimizer(0.1)), "Optimizer", "define step")

# -- rows --------------------------------------------------------------------------------------------------------------
_value(
    "row: below its limits",
    lambda b: gb.activations.leaky_relu(slope=-1),
    "leaky_relu slope",
    r"\[0, inf\)",
    "got -1.0",
)
_value("row: above its limits", lambda b: gb.losses.quantile(q=1.5), "quantile q", r"\[0, 1\]", "got 1.5")
_value("row: zero", lambda b: gb.losses.huber(delta=0), "huber delta", "1e-12", "got 0.0")
_value("row: unknown parameter", lambda b: gb.activations.elu(beta=1), "parameter of 'elu'", "'alpha'", "got 'beta'")
_value("row: no parameters", lambda b: gb.activations.relu(slope=1), "parameter of 'relu'", "none", "got 'slope'")
_type("row: a string", lambda b: gb.activations.elu(alpha="1"), "elu alpha", "number", "got '1'")
_value("row: branches", lambda b: Activation("mine", _branches, lambda m, z, a: 1.0), "'mine'", "branch", r"m\.where")
_value("row: NumPy", lambda b: Activation("mine", lambda m, z: np.tanh(z), lambda m, z, a: 1.0), "'mine'", r"m\.tanh")
_value("row: maths", lambda b: Activation("mine", lambda m, z: math.tanh(z), lambda m, z, a: 1.0), "'mine'", r"m\.tanh")
_value(
    "row: unknown function",
    lambda b: Activation("mine", lambda m, z: m.sin(z), lambda m, z, a: 1.0),
    r"m\.sin",
    r"m\.tanh",
)
_value("row: a power", lambda b: Activation("mine", lambda m, z: z**2, lambda m, z, a: 2.0 * z), "'mine'", r"\+ - \* /")
_value(
    "row: too few operands",
    lambda b: Activation("mine", lambda m, z: m.maximum(z), lambda m, z, a: 1.0),
    "2 operands",
    "got 1",
)
_value(
    "row: no comparison", lambda b: Activation("mine", lambda m, z: m.where(z, z, z), lambda m, z, a: 1.0), "comparison"
)
_value(
    "row: an infinite number", lambda b: Activation("mine", lambda m, z: z * math.inf, lambda m, z, a: 1.0), "finite"
)
_value("row: returns nothing", lambda b: Activation("mine", lambda m, z: None, lambda m, z, a: 1.0), "'mine'", "None")
_value("row: a bad slope", lambda b: Activation("mine", lambda m, z: z, lambda m, z, a: np.ones(3)), "'mine'", "array")
_value(
    "row: a loss that branches",
    lambda b: Loss("mine", lambda m, y, a: y if y > a else a, lambda m, y, a: a),
    "'mine'",
    "branch",
)

_value(
    "row: two values", lambda b: Activation("mine", lambda m, z: (z, z), lambda m, z, a: 1.0), "'mine'", "tuple of 2"
)
_value("row: no value", lambda b: Activation("mine", lambda m, z: (), lambda m, z, a: 1.0), "'mine'", "a tuple of 0")
_value(
    "row: two slopes", lambda b: Activation("mine", lambda m, z: z, lambda m, z, a: (z, a)), "'mine'", "finite number"
)
_value("row: no slope", lambda b: Activation("mine", lambda m, z: z, None), "'mine'", "two formulas", "None")
_value("row: no formula", lambda b: Activation("mysoft", None, None), "'mysoft'", "two formulas", "None and None")
_value("row: half a softmax", lambda b: Activation("softmax", None, lambda m, z, a: a), "'softmax'", "two formulas")
_value("row: too deep", lambda b: Activation("mine", _deep, lambda m, z, a: 1.0), "'mine'", "RecursionError")
_value(
    "row: fails", lambda b: Activation("mine", lambda m, z: z * (1 / 0), lambda m, z, a: 1.0), "'mine'", "ZeroDivision"
)
_value(
    "row: made outside its limits",
    lambda b: Activation("mine", _scaled, _scaled, parameters={"s": 2}, limits={"s": (0, 1)}),
    "mine s",
    r"\[0, 1\]",
    "got 2.0",
)
_type("row: made with a string", lambda b: Activation("mine", _scaled, _scaled, parameters={"s": "2"}), "mine s", "'2'")
_value(
    "row: two losses", lambda b: Loss("mine", lambda m, y, a: (y, a), lambda m, y, a: a), "loss 'mine'", "tuple of 2"
)
_value("row: over_outputs", lambda b: _loss(over_outputs="total"), "'mine': over", "'mean', 'sum'", "got 'total'")
_type("row: over_outputs' type", lambda b: _loss(over_outputs=None), "'mine': over_outputs", "'sum'", "got None")
_value("row: targets", lambda b: _loss(targets="prob"), "'mine': targets", "'distribution'", "got 'prob'")

# -- backends and files ------------------------------------------------------------------------------------------------
_value("set_backend: unknown", lambda b: gb.set_backend("tpu"), '"auto"', '"numpy"', "got 'tpu'")
_type("set_backend: a number", lambda b: gb.set_backend(1), '"auto"', "got 1 of type int")
_type("set_backend: None", lambda b: gb.set_backend(None), '"auto"', "got None")
_value("use_backend: unknown", lambda b: gb.use_backend("metal").__enter__(), '"cuda"', "got 'metal'")
_type("use_backend: a number", lambda b: gb.use_backend(2).__enter__(), '"auto"', "got 2 of type int")
_type("use_backend: None", lambda b: gb.use_backend(None).__enter__(), '"auto"', "got None")
_value("to: unknown", lambda b: b.net.to("metal"), '"numpy"', "got 'metal'")
_value("to: a device without a number", lambda b: b.net.to("cuda:"), '"cuda:N"', "got 'cuda:'")
_value("to: a negative device", lambda b: b.net.to("cuda:-1"), '"cuda:N"', "got 'cuda:-1'")
_type("to: a backend", lambda b: b.net.to(b.net.backend), '"numpy"', "NumpyBackend")
CASES.append(Case("to: a device too many", lambda b: b.net.to("cuda:99"), BackendUnavailable, ("cuda|CUDA|CuPy",)))
_value("load: backend", lambda b: gb.load(b.saved(), backend="abacus"), '"numpy"', "got 'abacus'")
_type("load: backend's type", lambda b: gb.load(b.saved(), backend=0), '"numpy"', "got 0 of type int")
_type("load: rows", lambda b: gb.load(b.saved(), rows=gb.activations.relu), "rows", "sequence", "relu")
_type("load: a name among rows", lambda b: gb.load(b.saved(), rows=["relu"]), "rows", "Activation", "got .*relu")
_type("load: path", lambda b: gb.load(7), "path", "got 7 of type int")
_type("load: an open file", lambda b: gb.load(io.BytesIO()), "path", "BytesIO")
_value("load: a path with a zero", lambda b: gb.load("a\0b"), "path", r"a\\x00b")
_type("save: path", lambda b: b.net.save(None), "path", "got None")
_value("save: no path", lambda b: b.net.save(""), "path", "names no file", "got ''")
_value("save: a path with a zero", lambda b: b.net.save("a\0b"), "path", r"a\\x00b")


def _save_with(metadata: Any) -> Callable[[Bench], Any]:
    def call(bench: Bench) -> None:
        bench.networks["net"] = twin = bench.net.to("numpy")
        twin.metadata = metadata
        twin.save(bench.folder / "x")

    return call


_type("save: metadata", _save_with(["a"]), "metadata", "strings by name", r"got \['a'\]")
_type("save: a number in metadata", _save_with({"epochs": 3}), "metadata", "strings by name", "got .*3")
_type("save: a numbered name in metadata", _save_with({3: "x"}), "metadata", "strings by name", "got .*3")
_value("save: endless metadata", _save_with({"log": "x" * 2**23}), "metadata", "bytes", "at most")
_value(
    "save: a row under another's name",
    lambda b: gb.Network([3, 4, 1], activation=Activation("relu", lambda m, z: z, lambda m, z, a: 1.0)).save(
        b.folder / "x"
    ),
    "'relu'",
    "rename yours",
)


def test_there_are_enough_and_no_two_of_one_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 80


@pytest.fixture
def bench(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_malformed_call(case: Case, bench: Bench) -> None:
    networks, targets = dict(bench.networks), bench.targets()
    before = {name: (net.theta.tobytes(), net.predict(bench.X).tobytes()) for name, net in networks.items()}
    default = gb.Network([1, 1]).backend
    with warnings.catch_warnings(record=True) as warned, pytest.raises(case.raises) as raised:
        warnings.simplefilter("always")
        case.call(bench)
    assert type(raised.value) is case.raises
    assert isinstance(raised.value, BUILT_IN[case.raises])
    for fragment in case.says:
        assert raised.match(fragment)
    assert len(str(raised.value)) < 600, "a message to read"
    assert [str(w.message) for w in warned if w.category is not ResourceWarning] == []
    for name, net in networks.items():
        assert (net.theta.tobytes(), net.predict(bench.X).tobytes()) == before[name]
        gb.check_gradients(net, bench.X, targets[name])
    assert gb.Network([1, 1]).backend is default, "the default backend stays as it was"
    assert list(bench.folder.glob("*.tmp")) == list(bench.folder.glob(".*")) == []


def test_tqdm_that_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "tqdm":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    before = bench.net.theta.tobytes()
    with pytest.raises(MissingDependency, match=r"progress=True needs tqdm: pip install 'gpubackprop\[progress\]'"):
        bench.fit(progress=True)
    assert bench.net.theta.tobytes() == before
    bench.fit(progress=None)
    bench.fit(progress=False)


def test_good_neighbours_of_malformed_calls_are_accepted(bench: Bench) -> None:
    """The edges of what the table refuses: none of its checks is too strict."""
    net, X, y = bench.net, bench.X, bench.y
    assert net.forward(X.astype("float16").tolist()).shape == (N, 4)
    assert net.forward(X.astype(">f8")).shape == net.forward(X[:, ::-1]).shape == (N, 4)
    assert net.forward(np.ma.masked_array(X)).shape == (N, 4)
    assert bench.single.forward(_with(X, 3e38)).shape == (N, 1)
    assert net.predict(X, batch_size=np.int64(4)).shape == (N, 4)
    assert net.evaluate(X, y.astype("uint8")) == net.evaluate(X, np.eye(4, dtype=bool)[y])
    assert net.evaluate(X, y, [0, 0, 1, 0, 0, 0]) == pytest.approx(net.evaluate(X[2:3], y[2:3]), rel=1e-14)
    assert math.isfinite(net.evaluate(X, np.eye(4)[y] * 0.9995))
    assert math.isfinite(bench.fractions.evaluate(X, np.eye(2)[y % 2]))
    assert math.isfinite(bench.counts.evaluate(X, np.zeros(N)))
    assert gb.Network((np.int32(3), 1), seed=None, l2=0, dropout=0).sizes == (3, 1)
    assert len(bench.fit(optimizer=OPTIMIZERS.SGD(lambda t: np.float32(0)), tol=None, seed=None).loss) == 1
    assert gb.activations.leaky_relu(slope=0).parameters == {"slope": 0.0}
    assert gb.losses.quantile(q=1).parameters == {"q": 1.0}
    assert (
        Activation("mine", _scaled, _scaled, parameters={"s": np.float32(1)}, limits={"s": (0, 1)})(s=0).name == "mine"
    )
    assert _loss(over_outputs="sum", targets="fraction").slope.inputs == ()
    assert len(bench.fit(optimizer=_Own(("v",), "k", returns=2), shuffle=np.True_, progress=np.False_).loss) == 1
    assert OPTIMIZERS.SGD(0.1, nesterov=np.bool_(True)).nesterov is True
