"""The equations on numbers worked by hand, and on a textbook's one-example-at-a-time form of them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy
import pytest
import textbook

import gpubackprop as gb
from gpubackprop.workspace import Workspace

LN3 = math.log(3)
EXACT = 1e-15  # results here are small dyadic fractions, and σ(ln 3) = 3/4 to an ulp


def _network(sizes: list[int], **arguments: Any) -> gb.Network:
    return gb.Network(sizes, backend="numpy", dtype="float64", **arguments)


def _set(net: gb.Network, parameters: list[tuple[Any, Any]]) -> None:
    for (W, b), (W_new, b_new) in zip(net.parameters, parameters, strict=True):
        W[...], b[...] = W_new, b_new


def _close(given: Any, expected: Any, tolerance: float = EXACT) -> None:
    expected = numpy.vectorize(float)(numpy.array(expected, object))
    assert numpy.shape(given) == expected.shape
    numpy.testing.assert_allclose(given, expected, rtol=tolerance, atol=tolerance)


# -- a 2-2-1 network by hand -------------------------------------------------------------------------------------------
# Sigmoid throughout, because σ(ln 3) = 3/4, σ(−ln 3) = 1/4, σ(0) = 1/2, and σ' = σ (1 − σ) is 3/16, 3/16, 1/4: all
# that follows is in fractions.
#
#   W_1 = [  1    1/2 ]   b_1 = [ln 3, −ln 3]     W_2 = [ 2 ]   b_2 = [−1]
#         [−1/2  −1/4 ]                                 [−2 ]
#
# Example 1: x = (1, 2), y = 1.    z_1 = (1·1 − 2/2 + ln 3, 1/2 − 2/4 − ln 3) = (ln 3, −ln 3),  a_1 = (3/4, 1/4)
#                                  z_2 = 2·3/4 − 2·1/4 − 1 = 0,  a_2 = 1/2,  L = (1 − 1/2)² = 1/4
# Example 2: x = (2, 4), y = 3/4.  The same z and a, because 2·1 − 4/2 = 0;  L = (3/4 − 1/2)² = 1/16

F = Fraction
W_1 = [[1, F(1, 2)], [F(-1, 2), F(-1, 4)]]
W_2 = [[2], [-2]]


@pytest.fixture
def net() -> gb.Network:
    net = _network([2, 2, 1], activation="sigmoid", output_activation="sigmoid")
    numbers = [(W_1, [LN3, -LN3]), (W_2, [-1])]
    _set(net, [(numpy.array(W, float), numpy.array(b, float)) for W, b in numbers])
    return net


def test_forward_by_hand(net: gb.Network) -> None:
    _close(net.forward([[1, 2], [2, 4]]), [[F(1, 2)], [F(1, 2)]])
    ws = Workspace(net.architecture, net.backend, 1).load(numpy.array([[1.0, 2.0]]))
    net._forward(ws)
    _close(ws.a[1], [[F(3, 4), F(1, 4)]])
    _close(ws.a[2], [[F(1, 2)]])


def test_one_example_by_hand(net: gb.Network) -> None:
    """With x = (1, 2), y = 1.

    (3) ∂L/∂a = −2 (1 − 1/2) / 1 = −1,  δ_2 = −1 · 1/4 = −1/4
    (5) ∂W_2 = a_1ᵀ δ_2 = (−3/16, −1/16)        (6) ∂b_2 = −1/4
    (4) δ_1 = (−1/4 · 2, −1/4 · −2) ⊙ (3/16, 3/16) = (−3/32, 3/32)
    (5) ∂W_1 = xᵀ δ_1 = [−3/32 3/32; −6/32 6/32]  (6) ∂b_1 = (−3/32, 3/32)
    """
    loss, ((dW_1, db_1), (dW_2, db_2)) = net.loss_and_gradients([[1, 2]], [1])
    _close(loss, F(1, 4))
    _close(net._kept[0].delta[2], [[F(-1, 4)]])
    _close(net._kept[0].delta[1], [[F(-3, 32), F(3, 32)]])
    _close(dW_2, [[F(-3, 16)], [F(-1, 16)]])
    _close(db_2, [F(-1, 4)])
    _close(dW_1, [[F(-3, 32), F(3, 32)], [F(-3, 16), F(3, 16)]])
    _close(db_1, [F(-3, 32), F(3, 32)])


# Both examples: the mean carries 1/2 into each δ_2:  −1/4 / 2 = −1/8,  and −2 (3/4 − 1/2) · 1/4 / 2 = −1/16.
# δ_1, row 1: −1/8 · (2, −2) · 3/16 = (−3/64, 3/64); row 2: (−3/128, 3/128).
# ∂W_2 = (3/4, 1/4) · (−1/8 − 1/16) = (−9/64, −3/64), ∂b_2 = −3/16
# ∂W_1, row 1: 1 · −3/64 + 2 · −3/128 = −3/32; row 2: 2 · −3/64 + 4 · −3/128 = −3/16; ∂b_1 = −3/64 − 3/128 = −9/128
BATCH = [
    ([[F(-3, 32), F(3, 32)], [F(-3, 16), F(3, 16)]], [F(-9, 128), F(9, 128)]),
    ([[F(-9, 64)], [F(-3, 64)]], [F(-3, 16)]),
]


def test_batch_by_hand(net: gb.Network) -> None:
    loss, gradients = net.loss_and_gradients([[1, 2], [2, 4]], [1, 0.75])
    _close(loss, F(5, 32))  # (1/4 + 1/16) / 2
    for (dW, db), (dW_hand, db_hand) in zip(gradients, BATCH, strict=True):
        _close(dW, dW_hand)
        _close(db, db_hand)


def test_update_by_hand(net: gb.Network) -> None:
    """(7, 8) with η = 1/2: every parameter less half of its derivative."""
    gb.fit(net, [[1, 2], [2, 4]], [1, 0.75], optimizer=gb.optimizers.SGD(0.5), epochs=1)
    (W1, b1), (W2, b2) = net.parameters
    _close(W1, [[F(67, 64), F(29, 64)], [F(-13, 32), F(-11, 32)]])  # 1 + 3/64, 1/2 − 3/64, −1/2 + 3/32, −1/4 − 3/32
    _close(b1, [LN3 + 9 / 256, -LN3 - 9 / 256])
    _close(W2, [[F(265, 128)], [F(-253, 128)]])  # 2 + 9/128, −2 + 3/128
    _close(b2, [F(-29, 32)])  # −1 + 3/32


# -- the 1/n of the mean squared error ---------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_mse_divides_by_the_number_of_examples_and_outputs(outputs: int) -> None:
    """With x_i the unit vectors, no hidden layer and b = 0, ŷ is W itself, so ∂L/∂W is ∂L/∂ŷ, number by number."""
    n = 4
    y = numpy.arange(n * outputs).reshape(n, outputs) ** 2.0
    predicted = y[::-1] - 1.5
    net = _network([n, outputs], loss="mse")
    _set(net, [(predicted, 0.0)])
    loss, [(dW, _)] = net.loss_and_gradients(numpy.eye(n), y)
    assert loss == pytest.approx(((y - predicted) ** 2).sum() / (n * outputs), rel=EXACT)
    _close(dW, -2 * (y - predicted) / (n * outputs))
    without_the_division = -2 * (y - predicted)
    _close(without_the_division, n * outputs * dW)  # what texts print that dropped it: n K times too long


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_derivative_with_its_division_is_that_of_the_loss(outputs: int) -> None:
    """L is a parabola in each ŷ, so the central difference with any step is exact: no formula to trust."""
    n = 4
    net = _network([n, outputs], loss="mse", seed=3)
    y = numpy.arange(n * outputs).reshape(n, outputs) / 7
    _, [(dW, _)] = net.loss_and_gradients(numpy.eye(n), y)
    W = net.parameters[0][0]
    for at in numpy.ndindex(W.shape):
        kept = W[at]
        W[at] = kept + 0.5
        right = net.evaluate(numpy.eye(n), y)
        W[at] = kept - 0.5
        left = net.evaluate(numpy.eye(n), y)
        W[at] = kept
        assert right - left == pytest.approx(dW[at], rel=1e-12, abs=1e-15)


def test_squared_error_is_half_of_mse_and_cross_entropy_sums_over_outputs() -> None:
    y = numpy.array([[0.0, 1.0, 0.0], [0.25, 0.25, 0.5]])
    a = numpy.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    losses = {}
    for name in ("mse", "squared_error", "cross_entropy"):
        net = _network([2, 3], loss=name)
        _set(net, [(numpy.log(a) if name == "cross_entropy" else a, 0.0)])  # rows of a sum to 1: softmax of log a is a
        losses[name] = net.evaluate(numpy.eye(2), y)
    # mse: (1/4 + 9/16 + 1/16 + 1/16 + 0 + 1/16) / 6 = 1/6
    _close(losses["mse"], F(1, 6))
    _close(losses["squared_error"], F(1, 12))
    # cross-entropy: (log 4 + 1/4 log 2 + 1/4 log 4 + 1/2 log 4) / 2 = (2 + 1/4 + 1/2 + 1) / 2 log 2 = 15/8 log 2
    assert losses["cross_entropy"] == pytest.approx(15 / 8 * math.log(2), rel=1e-15)


# -- batches against single examples in columns ------------------------------------------------------------------------

NETWORKS = {
    "one layer": ([3, 2], ["identity"], "mse"),
    "one of everything": ([1, 1, 1], ["tanh", "identity"], "mse"),
    "two layers": ([3, 4, 2], ["sigmoid", "identity"], "squared_error"),
    "classes": ([3, 4, 3], ["tanh", "softmax"], "cross_entropy"),
    "softmax, not canonical": ([3, 4, 3], ["tanh", "softmax"], "mse"),
    "one class": ([3, 4, 1], ["relu", "sigmoid"], "binary_cross_entropy"),
    "sigmoid, not canonical": ([3, 4, 1], ["relu", "sigmoid"], "squared_error"),
    "four layers": ([4, 5, 3, 6, 2], ["relu", "tanh", "sigmoid", "sigmoid"], "binary_cross_entropy"),
    "eight layers": ([3, 4, 5, 4, 3, 4, 5, 4, 2], [*["tanh"] * 7, "identity"], "mse"),
}


def _problem(name: str, rows: int = 7, **arguments: Any) -> tuple[gb.Network, list[str], str, Any, Any]:
    sizes, names, loss = NETWORKS[name]
    net = _network(
        sizes,
        activation=names[:-1],
        output_activation=names[-1],
        loss=loss,
        initializer="glorot_normal",
        seed=5,
        **arguments,
    )
    rng = numpy.random.default_rng(11)
    for _, b in net.parameters:
        b[...] = rng.normal(0, 0.3, b.shape)
    Y = rng.uniform(0.05, 0.95, (rows, sizes[-1]))
    if loss == "cross_entropy":
        Y /= Y.sum(axis=1, keepdims=True)
    return net, names, loss, rng.normal(0, 1, (rows, sizes[0])), Y


def _agrees(
    net: gb.Network,
    names: list[str],
    loss: str,
    X: Any,
    Y: Any,
    weights: Any = None,
    masks: Any = None,
    l2: float = 0.0,
) -> None:
    expected = textbook.batch(textbook.columns_of(net.parameters), names, loss, X, Y, weights, masks, l2)
    value, gradients = net.loss_and_gradients(X, Y, weights, masks)
    assert value == pytest.approx(expected[0], rel=1e-13)
    textbook.assert_equal(gradients, expected[1], 1e-12)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("name", NETWORKS)
def test_batch_is_the_mean_of_single_examples(name: str, rows: int) -> None:
    _agrees(*_problem(name, rows))


@pytest.mark.parametrize("name", NETWORKS)
def test_weighted_batch_is_the_weighted_mean_of_single_examples(name: str) -> None:
    _agrees(*_problem(name), weights=numpy.array([1.0, 0.0, 2.5, 0.1, 3.0, 0.0, 1e-3]))


@pytest.mark.parametrize("name", [name for name, (sizes, *_) in NETWORKS.items() if len(sizes) > 2])
def test_dropout_and_penalty_with_all_else(name: str) -> None:
    problem = _problem(name, dropout=0.4, l2=0.3)
    masks = problem[0].draw_masks(7, seed=2)
    assert any((mask == 0).any() for mask in masks)
    _agrees(*problem, weights=numpy.arange(7.0), masks=masks, l2=0.3)


def test_dropout_on_one_hidden_unit_by_hand(net: gb.Network) -> None:
    """Masking unit 2 and doubling unit 1: z_2 = 2 · (2 · 3/4) − 1 = 2, and what unit 2 feeds and is fed is 0."""
    a = 1 / (1 + math.exp(-2))
    delta = -2 * (1 - a) * a * (1 - a)
    loss, ((dW_1, db_1), (dW_2, _)) = net.loss_and_gradients([[1, 2]], [1], masks=[numpy.array([[2.0, 0.0]])])
    assert loss == pytest.approx((1 - a) ** 2, rel=1e-14)
    _close(dW_2, [[1.5 * delta], [0.0]], 1e-14)  # h_1 = (3/2, 0)
    _close(db_1, [delta * 2 * 2 * 3 / 16, 0.0], 1e-14)  # (δ_2 W_2ᵀ) ⊙ mask ⊙ σ'
    _close(dW_1, [[db_1[0], 0.0], [2 * db_1[0], 0.0]], 1e-14)


@pytest.mark.parametrize("name", NETWORKS)
def test_sample_weights_are_repeated_examples(name: str) -> None:
    net, _, _, X, Y = _problem(name)
    counts = numpy.array([1, 2, 0, 3, 1, 0, 2])
    value, weighted = net.loss_and_gradients(X, Y, counts)
    weighted = [(dW.copy(), db.copy()) for dW, db in weighted]
    repeated_value, repeated = net.loss_and_gradients(X.repeat(counts, axis=0), Y.repeat(counts, axis=0))
    assert value == pytest.approx(repeated_value, rel=1e-13)
    assert net.evaluate(X, Y, counts) == pytest.approx(repeated_value, rel=1e-13)
    textbook.assert_equal(weighted, textbook.columns_of(repeated), 1e-12)


def test_only_the_ratio_of_weights_counts() -> None:
    net, _, _, X, Y = _problem("two layers")
    weights = numpy.linspace(0.1, 2, len(X))
    value, gradients = net.loss_and_gradients(X, Y, weights)
    columns = textbook.columns_of(gradients)
    scaled_value, scaled = net.loss_and_gradients(X, Y, 1000 * weights)
    assert scaled_value == pytest.approx(value, rel=1e-14)
    textbook.assert_equal(scaled, columns, 1e-13)


def test_penalty_adds_its_value_and_derivative_of_weights_alone() -> None:
    plain, _, _, X, Y = _problem("four layers")
    penalised = _problem("four layers", l2=0.25)[0]
    value, gradients = plain.loss_and_gradients(X, Y)
    value_with, gradients_with = penalised.loss_and_gradients(X, Y)
    assert value_with - value == pytest.approx(0.125 * sum((W**2).sum() for W, _ in plain.parameters), rel=1e-13)
    for (W, _), (dW, db), (dW_with, db_with) in zip(plain.parameters, gradients, gradients_with, strict=True):
        numpy.testing.assert_allclose(dW_with - dW, 0.25 * W, rtol=1e-12, atol=1e-15)
        assert numpy.array_equal(db_with, db)


def test_gradients_are_the_callers() -> None:
    """A second call leaves what the first returned as it was."""
    net, _, _, X, Y = _problem("classes")
    _, gradients = net.loss_and_gradients(X, Y)
    before = textbook.columns_of(gradients)
    net.loss_and_gradients(-X, Y)
    textbook.assert_equal(gradients, before, 0.0)
