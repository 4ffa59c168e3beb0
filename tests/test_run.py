"""What a run can be told besides the arguments of `fit`: how to share the penalty, what to draw from, how to go on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

import gpubackprop as gb
from gpubackprop.optimizers import SGD, Adam
from gpubackprop.run import Run

RNG = np.random.default_rng(3)
X, Y, W = RNG.normal(size=(11, 5)), RNG.normal(size=(11, 3)), RNG.uniform(0.5, 2.0, (11, 1))
NEVER = bool  # what is asked whether Ctrl-C was pressed: False


def _net(backend: str = "numpy", **arguments: Any) -> gb.Network:
    arguments = {"activation": "tanh", "dtype": "float64", "l2": 0.3, **arguments}
    return gb.Network([5, 4, 3], backend=backend, **arguments)


def _run(net: gb.Network, *, w: Any = None, x: Any = X, rule: Any = None, seed: Any = 0, **arguments: Any) -> Run:
    batch = [a if a is None or hasattr(a, "tocsr") else net.backend.asarray(a, net.dtype) for a in (x, Y, w)]
    return Run(net, *batch, rule or SGD(0.1), 4, arguments.pop("shuffle", False), seed, **arguments)


def _by_hand(w: Any) -> tuple[np.ndarray, float]:
    """θ and the mean loss after an epoch of gradient descent, each batch with λ over its weight as its own penalty."""
    net, losses = _net(), []
    for start in (0, 4, 8):
        rows = slice(start, start + 4)
        total = len(X[rows]) if w is None else w[rows].sum()
        twin = _net(l2=0.3 / total)
        twin.theta[...] = net.theta
        loss, gradients = twin.loss_and_gradients(X[rows], Y[rows], None if w is None else w[rows, 0])
        losses.append(loss * total)
        for own, gradient in zip(net.parameters, gradients, strict=True):
            for view, g in zip(own, gradient, strict=True):
                view -= 0.1 * g
    return net.theta, sum(losses) / (len(X) if w is None else w.sum())


@pytest.mark.parametrize("w", [None, W], ids=["plain", "weighted"])
def test_a_shared_penalty_is_divided_by_the_weight_of_its_batch(w: Any) -> None:
    net = _net()
    loss = _run(net, w=w, shares_penalty=True).epoch(NEVER)
    theta, mean = _by_hand(w)
    np.testing.assert_allclose(net.theta, theta, rtol=1e-13, atol=1e-15)
    assert loss == pytest.approx(mean, rel=1e-13)
    undivided = _net()
    _run(undivided, w=w).epoch(NEVER)
    assert abs(undivided.theta - theta).max() > 1e-3


@pytest.mark.parametrize("w", [None, W], ids=["plain", "weighted"])
def test_a_shared_penalty_on_cuda(device: str, w: Any) -> None:
    net = _net(device)
    with net.backend.running(0.0):
        loss = _run(net, w=w, shares_penalty=True).epoch(NEVER)
    theta, mean = _by_hand(w)
    np.testing.assert_allclose(net.backend.to_numpy(net.theta), theta, rtol=1e-12, atol=1e-14)
    assert loss == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_orders_come_from_a_generator(make: Any) -> None:
    drawn, expected = make(5), np.arange(len(X))
    run = _run(_net(), seed=drawn, shuffle=True)
    other = make(5)
    for _ in range(3):
        run.epoch(NEVER)
        other.shuffle(expected)
        np.testing.assert_array_equal(run.order, expected)
    np.testing.assert_array_equal(drawn.bytes(8), other.bytes(8))  # nothing else was drawn


def test_dropout_comes_from_a_generator() -> None:
    thetas = []
    for seed in (5, 5, 6):
        net = _net(dropout=0.5)
        _run(net, seed=np.random.RandomState(seed)).epoch(NEVER)
        thetas.append(net.theta)
    np.testing.assert_array_equal(thetas[0], thetas[1])
    assert abs(thetas[0] - thetas[2]).max() > 1e-6


def test_a_run_goes_on_from_a_state() -> None:
    whole, parts = _net(), _net()
    run = _run(whole, rule=Adam(0.01))
    run.epoch(NEVER)
    run.epoch(NEVER)
    first = _run(parts, rule=Adam(0.01))
    first.epoch(NEVER)
    second = _run(parts, rule=Adam(0.01))
    second.go_on(*first.state)
    second.epoch(NEVER)
    np.testing.assert_array_equal(parts.theta, whole.theta)
    assert second.state[0] == run.state[0] == 6


@pytest.mark.parametrize("shuffle", [False, True])
def test_sparse_rows(shuffle: bool) -> None:
    holes = np.where(X > 0, X, 0.0)
    dense, sparse = _net(), _net()
    for net, x in ((dense, holes), (sparse, scipy.sparse.csr_array(holes))):
        run = _run(net, x=x, shuffle=shuffle)
        run.epoch(NEVER)
        run.epoch(NEVER)
    np.testing.assert_array_equal(sparse.theta, dense.theta)
