"""Nothing is allocated while a stream captures: seen by a hook of CuPy's on a GPU, and refused by the stand-in."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import fake_cupy
import numpy as np
import pytest

import gpubackprop as gb
from gpubackprop import streaming
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.graphs import Recording
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.optimizers import SGD, Adam
from gpubackprop.sklearn import MLPClassifier, MLPRegressor

RNG = np.random.default_rng(3)
X, Y, WEIGHTS = RNG.normal(size=(103, 6)), RNG.normal(size=(103, 3)), RNG.uniform(0.5, 2, 103)
CLASSES = {"output_activation": "softmax", "loss": "cross_entropy"}
WEIGHED = {"sample_weight": WEIGHTS}


@pytest.fixture(params=["stand-in", pytest.param("GPU", marks=pytest.mark.gpu)])
def captures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """The allocations of each capture so far, in bytes."""
    if request.param == "stand-in":
        request.getfixturevalue("graphs")
    cupy, captured, found = importlib.import_module("cupy"), Recording._captured, list[list[int]]()

    class Noting(cupy.cuda.MemoryHook):  # type: ignore[misc, name-defined]
        name = "noting"

        def malloc_preprocess(self, **memory: int) -> None:
            found[-1].append(memory["size"])

    def noted(self: Recording) -> Any:
        found.append([])
        with Noting():
            return captured(self)

    monkeypatch.setattr(Recording, "_captured", noted)
    yield found


def _fit(net: dict[str, Any], **arguments: Any) -> None:
    made = gb.Network([6, 16, 8, 3], backend="cuda", **{"activation": "tanh", **net})
    gb.fit(made, X, **{"y": Y, "epochs": 3, "batch_size": 10, "tol": None, **arguments})


def _estimator(kind: type, y: np.ndarray, **arguments: Any) -> None:
    made = kind(hidden_layer_sizes=(8,), max_iter=3, tol=0.0, alpha=0.1, batch_size=10, backend="cuda", **arguments)
    made.fit(X, y, sample_weight=WEIGHTS)


TRAININGS: dict[str, Callable[[], None]] = {
    "plain": lambda: _fit({}),
    "fused": lambda: _fit({"activation": "gelu_tanh"}, optimizer=SGD(0.1, momentum=0.9)),
    "all options": lambda: _fit({"l2": 0.1, "dropout": 0.3}, optimizer=Adam(0.01, clip_norm=0.1), **WEIGHED),
    "softmax": lambda: _fit(CLASSES, y=(Y[:, 0] > 0) * 2, **WEIGHED),
    "bfloat16": lambda: _fit({"precision": "bfloat16", "l2": 0.1, "dropout": 0.3}, **WEIGHED),
    "float64": lambda: _fit({"dtype": "float64"}, optimizer="adagrad"),
    "streamed": lambda: _fit({"precision": "bfloat16"}, stream=True, **WEIGHED),
    "classifier": lambda: _estimator(MLPClassifier, Y[:, 0] > 0),
    "regressor": lambda: _estimator(MLPRegressor, Y, solver="sgd"),
    "L-BFGS": lambda: _estimator(MLPRegressor, Y, solver="lbfgs"),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:.*lbfgs failed to converge")
@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("faster", ["plain", "fused"])
def test_no_capture_allocates(
    training: str, faster: str, captures: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 30 * 4 * 10)
    monkeypatch.setattr("gpubackprop.backends.clock.MARGIN", 0.0 if faster == "plain" else np.inf)
    TRAININGS[training]()
    assert captures, "nothing was captured"
    assert not any(captures)


def test_an_operation_that_allocates_is_caught(captures: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The penalty as array expressions, whose sum of squares CuPy computes in an array of its own."""

    def expressions(self: CudaBackend, *arguments: Any) -> None:
        with self._beside.work():
            NumpyBackend.penalty(self, *arguments)

    monkeypatch.setattr(CudaBackend, "penalty", expressions)
    with contextlib.suppress(fake_cupy.CUDARuntimeError):
        _fit({"l2": 0.1})
    assert any(captures)


def test_copies_are_part_of_a_graph(graphs: Any) -> None:
    x, y, truth = graphs.ones(3), graphs.zeros(3), graphs.asarray([True, False, True])
    record = Recording(graphs, lambda: graphs.copyto(y, x, where=truth), list)
    record()
    y[...] = 0.0
    record()
    np.testing.assert_array_equal(y.get(), [1.0, 0.0, 1.0])
    x[...] = 2.0
    record()
    np.testing.assert_array_equal(y.get(), [2.0, 0.0, 2.0])
