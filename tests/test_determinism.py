"""One seed, one result, bit for bit: in one process, in another, and with other numbers of threads where promised."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpubackprop as gb

DTYPES = ("float32", "float64")
# Shuffled, with dropout, weights, a penalty, an optimizer with slots, and a last batch that is smaller. The products
# are above the size from which the BLAS takes all its threads, so that those are part of what is repeated.
TRAINING = """
import hashlib, sys
import numpy
import gpubackprop as gb
seed, dtype = int(sys.argv[1]), sys.argv[2]
rng = numpy.random.default_rng(0)
X, y, w = rng.normal(size=(300, 100)), rng.integers(0, 10, 300), rng.uniform(0.5, 2, 300)
net = gb.Network(
    [100, 500, 500, 10], activation="gelu", output_activation="softmax", loss="cross_entropy",
    l2=1e-3, dropout=0.3, dtype=dtype, seed=seed, backend="numpy",
)
assert net.flops(128) > gb.backends.threads.SMALL, net.flops(128)
history = gb.fit(
    net, X, y, sample_weight=w, optimizer=gb.optimizers.Adam(1e-3), epochs=3, batch_size=128, seed=seed, tol=None,
    validation_data=(X[:50], y[:50]),
)
figures = numpy.array([*history.loss, *history.validation_loss])
print(hashlib.sha256(net.theta.tobytes() + figures.tobytes()).hexdigest())
"""


@functools.cache
def _hash(run: int, seed: int, dtype: str, **environment: str) -> str:
    """Train in a fresh process; `run` only tells one from another."""
    env = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1]), "PYTHONHASHSEED": str(run), **environment}
    command = [sys.executable, "-c", TRAINING, str(seed), dtype]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_processes_agree_to_the_bit(dtype: str) -> None:
    assert len(_hash(1, 3, dtype)) == 64
    assert _hash(1, 3, dtype) == _hash(2, 3, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_another_seed_is_another_result(dtype: str) -> None:
    assert _hash(1, 3, dtype) != _hash(1, 4, dtype)


def _net(dtype: str, **arguments: Any) -> gb.Network:
    return gb.Network([6, 8, 5, 3], activation="tanh", dropout=0.2, dtype=dtype, backend="numpy", **arguments)


def _digest(dtype: str, fit_seed: int | None = 0, **arguments: Any) -> str:
    rng = numpy.random.default_rng(1)
    net = _net(dtype, **arguments)
    gb.fit(net, rng.normal(size=(50, 6)), rng.normal(size=(50, 3)), epochs=3, batch_size=16, seed=fit_seed)
    return hashlib.sha256(net.theta.tobytes()).hexdigest()


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_one_process(dtype: str) -> None:
    """What was trained before, or how, leaves no trace."""
    first = _digest(dtype)
    _digest("float64" if dtype == "float32" else "float32", fit_seed=9)
    assert _digest(dtype) == first
    assert _digest(dtype, fit_seed=1) != first
    assert _digest(dtype, seed=1) != first


def test_no_seed_is_another_result_each_time() -> None:
    assert _digest("float64", fit_seed=None) != _digest("float64", fit_seed=None)
    assert _digest("float64", seed=None) != _digest("float64", seed=None)


def test_training_draws_nothing_from_the_generators_of_others() -> None:
    """NumPy's global generator is neither used nor moved."""
    numpy.random.seed(5)
    first, state = _digest("float64"), numpy.random.get_state()[1].copy()
    numpy.random.seed(6)
    assert _digest("float64") == first
    numpy.random.seed(5)
    assert numpy.array_equal(numpy.random.get_state()[1], state)


def test_both_types_draw_the_same_weights_masks_and_order() -> None:
    single, double = _net("float32", seed=4), _net("float64", seed=4)
    assert numpy.array_equal(single.theta, double.theta.astype("float32"))
    for mask, other in zip(single.draw_masks(7, seed=2), double.draw_masks(7, seed=2), strict=True):
        assert numpy.array_equal(mask, other.astype("float32"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_rounding_at_most(dtype: str) -> None:
    """A BLAS may split its sums by threads: bits are promised for one number of threads, and closeness for all."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    rng = numpy.random.default_rng(0)
    X, Y = rng.normal(size=(256, 200)), rng.normal(size=(256, 3))
    thetas = []
    for threads in (1, 2):
        net = gb.Network([200, 1200, 3], activation="tanh", dtype=dtype, backend="numpy")
        assert net.flops(256) > gb.backends.threads.SMALL
        with threadpoolctl.threadpool_limits(threads):
            gb.fit(net, X, Y, epochs=5, batch_size=256)
        thetas.append(net.theta)
    assert abs(thetas[0] - thetas[1]).max() <= 1e3 * numpy.finfo(dtype).eps * abs(thetas[0]).max()
