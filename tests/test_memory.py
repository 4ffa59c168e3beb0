"""In the steady state nothing of array size is allocated: every buffer is made before the first step."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop import optimizers
from gpubackprop.activations import ACTIVATIONS
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.losses import LOSSES

# The smallest array of the network below with a row for every example or an entry for every parameter: the outputs,
# 500 x 160 of four bytes, are 320 kB; the hidden layers have 400 kB each, θ has 370 kB. NumPy itself takes buffers of
# 8192 elements when it converts types inside a reduction: 64 kB of float64, whatever the size of the array.
# Half of the smallest array lies well between.
ROWS, SIZES = 500, (100, 200, 200, 160)
LIMIT = ROWS * SIZES[-1] * 4 // 2
NUMPYS_OWN = 8192 * 8


def _peak(work: Callable[[], Any]) -> int:
    """Return by how many bytes memory in use rises above its beginning, at most, during some work."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _epoch_peak(
    optimizer: Any = "sgd", *, dtype: str = "float32", weighted: bool = False, rows: int = ROWS, **arguments: Any
) -> int:
    """Return the rise of memory in the second and third epoch of a training in batches, the last of them smaller."""
    arguments = {"activation": "relu", "output_activation": "softmax", "loss": "cross_entropy", **arguments}
    net = gb.Network(SIZES, dtype=dtype, backend="numpy", **arguments)
    rng = numpy.random.default_rng(0)
    X, y = rng.normal(size=(rows * 3 // 2, SIZES[0])), rng.integers(0, SIZES[-1], rows * 3 // 2)
    peaks: list[int] = []
    base = 0

    def measure(net: gb.Network, history: gb.History) -> None:
        nonlocal base
        if len(history.loss) == 1:
            tracemalloc.start()
            base = tracemalloc.get_traced_memory()[0]
        else:
            peaks.append(tracemalloc.get_traced_memory()[1] - base)

    weights = rng.uniform(1, 2, len(X)) if weighted else None
    validation = (X[:100], y[:100])
    try:
        options = {"epochs": 3, "batch_size": rows, "tol": None, "validation_data": validation, "callbacks": [measure]}
        gb.fit(net, X, y, sample_weight=weights, optimizer=optimizer, **options)
    finally:
        tracemalloc.stop()
    assert len(peaks) == 2
    return max(peaks)


def test_the_buffers_are_far_above_the_limit() -> None:
    assert 2 * NUMPYS_OWN < LIMIT
    net = gb.Network(SIZES, backend="numpy")
    assert net.theta.nbytes > 2 * LIMIT
    X = numpy.zeros((ROWS, SIZES[0]), "float32")
    assert _peak(lambda: gb.fit(net, X, numpy.zeros((ROWS, SIZES[-1])), epochs=1, batch_size=ROWS)) > 10 * LIMIT


RULES = {
    "SGD": optimizers.SGD(0.01),
    "momentum": optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=1e-3, clip_norm=1.0),
    "Adam": optimizers.Adam(1e-3, weight_decay=1e-3, clip_norm=1.0),
    "AdamW": optimizers.AdamW(1e-3),
    "RMSprop": optimizers.RMSprop(1e-3, momentum=0.5),
    "Adagrad": optimizers.Adagrad(1e-3),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", RULES)
def test_every_optimizer(rule: str, dtype: str) -> None:
    assert _epoch_peak(RULES[rule], dtype=dtype) < LIMIT


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_penalty_and_dropout(dtype: str) -> None:
    assert _epoch_peak("adam", dtype=dtype, weighted=True, l2=1e-3, dropout=0.5) < LIMIT


@pytest.mark.parametrize("activation", [name for name, row in ACTIVATIONS.items() if not row.rowwise])
def test_every_activation(activation: str) -> None:
    assert _epoch_peak(activation=activation) < LIMIT


@pytest.mark.parametrize(
    ("loss", "output"), [*((loss, "sigmoid") for loss in LOSSES if loss != "cross_entropy"), ("mse", "softmax")]
)
def test_every_loss(loss: str, output: str) -> None:
    assert _epoch_peak(loss=loss, output_activation=output) < LIMIT


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize(
    "name", ["forward", "output_delta", "delta", "weight_gradient", "update", "gather", "draw_mask"]
)
def test_a_temporary_in_one_operation_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(NumpyBackend, name)

    def with_a_temporary(self: Any, *operands: Any, **named: Any) -> Any:
        largest = max((x for x in operands if isinstance(x, numpy.ndarray)), key=lambda x: x.nbytes)
        temporary = largest + 1
        result = original(self, *operands, **named)
        del temporary
        return result

    monkeypatch.setattr(NumpyBackend, name, with_a_temporary)
    assert _epoch_peak(RULES["momentum" if name == "update" else "SGD"], dropout=0.5) > LIMIT


def test_memory_does_not_grow_with_epochs() -> None:
    """All that is kept of an epoch is its figures in the history; an array that stayed would be one more block.

    Blocks are counted, since tracemalloc goes on tracing what Python 3.13 keeps in its free lists for other objects.
    """
    net = gb.Network([10, 20, 2], backend="numpy")
    X = numpy.random.default_rng(0).normal(size=(64, 10))
    blocks = {}

    def measure(net: gb.Network, history: gb.History) -> None:
        if len(history.loss) in (1000, 2000):
            gc.collect()  # which clears the free lists, too
            blocks[len(history.loss)] = sys.getallocatedblocks()

    gb.fit(net, X, X[:, :2], epochs=2000, tol=None, callbacks=[measure])
    per_epoch = (blocks[2000] - blocks[1000]) / 1000
    assert 0 < per_epoch < 3.5  # loss, rate and seconds, and less than half a block beside


def test_predict_takes_memory_for_its_batch() -> None:
    """Beyond the outputs themselves: 200 rows of 200 + 200 + 160 numbers, not 10,000."""
    net = gb.Network(SIZES, backend="numpy")
    X = numpy.zeros((10_000, SIZES[0]), "float32")
    outputs, of_a_row = 10_000 * SIZES[-1] * 4, sum(SIZES) * 4
    net.predict(X[:200], batch_size=200)
    assert (
        _peak(lambda: net.predict(X, batch_size=200)) < outputs + 2 * 200 * of_a_row < outputs + 10_000 * of_a_row / 10
    )


def test_the_largest_of_rows_is_found_in_blocks() -> None:
    """Of few columns, which are copied to be searched: scratch memory stays below a block's, however many the rows."""
    backend, z = NumpyBackend(), numpy.random.default_rng(0).normal(size=(20_000, 10))
    row = numpy.empty((len(z), 1))
    backend._row_maximum(z, row)
    assert (row == z.max(axis=1, keepdims=True)).all()
    assert max(block.size for block in backend._scratch.all()) <= backend.block < z.size


# -- what is predicted -------------------------------------------------------------------------------------------------

# Blocks of intermediate values: at most five of 64 or 128 kB on the CPU, and the row of ones; 5 % of what is measured
# is more than that from 15 MB up.
PLANS = {
    "SGD": {"optimizer": "sgd"},
    "Nesterov": {"optimizer": optimizers.SGD(0.01, momentum=0.9, nesterov=True)},
    "Adam": {"optimizer": "adam"},
    "dropout, z kept": {"optimizer": "adam", "activation": "gelu", "dropout": 0.5},
    "float64, penalty": {"optimizer": "adagrad", "dtype": "float64", "l2": 1e-3},
    "softmax": {"optimizer": "sgd", "output_activation": "softmax", "loss": "cross_entropy"},
    "softmax, not fused": {"optimizer": "sgd", "output_activation": "softmax"},
}


def _taken_by_training(rows: int, optimizer: Any, **arguments: Any) -> int:
    """Return how much a network and its training hold after an epoch; data that need no conversion are not counted."""
    rng = numpy.random.default_rng(0)
    X, y = (rng.uniform(size=(rows, n)).astype(arguments.get("dtype", "float32")) for n in (800, 400))
    copied = arguments.get("loss") == "cross_entropy"  # to rows of the sum 1
    if copied:
        y /= y.sum(axis=1, keepdims=True)
    held: list[int] = []
    tracemalloc.start()
    try:
        net = gb.Network((800, 600, 500, 400), backend="numpy", **arguments)
        measure = [lambda net, history: held.append(tracemalloc.get_traced_memory()[0])]
        gb.fit(net, X, y, optimizer=optimizer, epochs=1, batch_size=rows, callbacks=measure)
    finally:
        tracemalloc.stop()
    return held[0] - copied * y.nbytes


@pytest.mark.parametrize("rows", [1000, 4000])
@pytest.mark.parametrize("plan", PLANS)
def test_bytes_of_training_are_predicted_within_5_percent(plan: str, rows: int) -> None:
    predicted = gb.bytes_of_training((800, 600, 500, 400), backend="numpy", batch_size=rows, **PLANS[plan])
    taken = _taken_by_training(rows, **PLANS[plan])
    assert abs(taken - predicted) <= 0.05 * predicted


def test_a_prediction_takes_no_memory() -> None:
    assert gb.bytes_of_training((100_000,) * 3, backend="numpy", optimizer="adam", batch_size=10**6) > 10**12
    assert (
        _peak(lambda: gb.bytes_of_training((10_000,) * 3, backend="numpy", batch_size=10**5)) < 2 * 10**6
    )  # the order
