"""Gradients against derivatives that need no backpropagation, and the check that compares them against a plain one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy
import pytest
from own_rows import pseudo_huber, squash

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS
from gpubackprop.errors import GradientCheckFailed
from gpubackprop.losses import LOSSES

HIDDEN = [name for name, row in ACTIVATIONS.items() if not row.rowwise]
CASES = {
    "plain": {},
    "weights": {"weighted": True},
    "penalty": {"l2": 0.1},
    "dropout": {"dropout": 0.5},
    "all": {"weighted": True, "l2": 0.1, "dropout": 0.5},
}
BOUND = 1e-12


def _problem(
    hidden: Any, output: Any, loss: Any, weighted: bool = False, dtype: str = "float64", **arguments: Any
) -> tuple[gb.Network, tuple[Any, ...]]:
    """Return a 2-3-2 network and a batch for it, with all outputs well inside (0, 1), where every loss is defined.

    z_1 has both signs; W_2 is small and b_2 such that a_2 is near 0.5.
    """
    net = gb.Network(
        [2, 3, 2], activation=hidden, output_activation=output, loss=loss, dtype=dtype, backend="numpy", **arguments
    )
    rng = numpy.random.default_rng(4)
    (W_1, b_1), (W_2, b_2) = net.parameters
    W_1[...], b_1[...] = rng.normal(0, 0.7, (2, 3)), rng.normal(0, 0.2, 3)
    W_2[...], b_2[...] = rng.uniform(0.05, 0.1, (3, 2)), [0.35, 0.25]
    X = rng.normal(0, 1, (4, 2))
    Y = numpy.array([[0.9, 0.1], [0.05, 0.95], [0.5, 0.5], [0.75, 0.25]])
    weights = numpy.array([1.0, 0.5, 2.0, 0.25]) if weighted else None
    masks = net.draw_masks(4, seed=1) if arguments.get("dropout") else None
    return net, (X, Y, weights, masks)


def _check(hidden: Any, output: Any, loss: Any, case: str) -> None:
    net, batch = _problem(hidden, output, loss, **CASES[case])
    if batch[3] is not None:
        assert {float(x) for x in numpy.unique(batch[3][0])} == {0.0, 2.0}  # the masks of this seed drop some, not all
    check = gb.check_gradients(net, *batch, method="complex_step")
    assert check.bound == BOUND
    assert check.largest_error <= BOUND
    assert (check.checked, check.kinks) == (2 * 3 + 3 + 3 * 2 + 2, 0)
    assert abs(net.gradient).max() > 1e-3  # of nothing but zeros, nothing is shown


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_every_output_activation_with_every_loss(output: str, loss: str, case: str) -> None:
    _check("tanh", output, replace(LOSSES[loss], targets="any"), case)  # those that no training has, too


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_hidden_activation_with_every_loss(hidden: str, loss: str, case: str) -> None:
    _check(hidden, "softmax" if loss == "cross_entropy" else "sigmoid", loss, case)


@pytest.mark.parametrize("output", ACTIVATIONS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_hidden_with_every_output_activation(hidden: str, output: str) -> None:
    _check(hidden, output, "squared_error", "all")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_default_method_and_bound(hidden: str, loss: str) -> None:
    net, batch = _problem(hidden, "softmax" if loss == "cross_entropy" else "sigmoid", loss, **CASES["all"])
    check = gb.check_gradients(net, *batch)
    analytic = ACTIVATIONS[hidden].analytic and LOSSES[loss].analytic
    assert check.method == ("complex_step" if analytic else "central_differences")
    assert check.bound == (BOUND if analytic else 1e-6)
    assert check.checked > 8


@pytest.mark.parametrize("loss", ["mse", "huber", "cross_entropy"])
@pytest.mark.parametrize("hidden", ["relu", "gelu", "tanh"])
def test_float32(hidden: str, loss: str) -> None:
    net, batch = _problem(hidden, "softmax", loss, dtype="float32", **CASES["all"])
    check = gb.check_gradients(net, *batch)
    assert check.bound == 1e-3
    assert check.largest_error < 1e-4
    gradients = _copies(net, batch)
    gradients[0][0][1, 2] *= 1.01
    with pytest.raises(GradientCheckFailed, match=r"W_1\[1, 2\]"):
        gb.check_gradients(net, *batch, gradients=gradients)


# -- what the check must catch -----------------------------------------------------------------------------------------


def _copies(net: gb.Network, batch: Any) -> list[tuple[Any, Any]]:
    return [(dW.copy(), db.copy()) for dW, db in net.loss_and_gradients(*batch)[1]]


ENTRIES = [
    *((l, 0, at) for l, shape in enumerate([(2, 3), (3, 2)]) for at in numpy.ndindex(shape)),
    *((l, 1, (at,)) for l, n in enumerate([3, 2]) for at in range(n)),
]


@pytest.mark.parametrize("method", ["complex_step", "central_differences"])
@pytest.mark.parametrize("entry", ENTRIES, ids=[f"{'Wb'[part]}_{l + 1}{list(at)}" for l, part, at in ENTRIES])
def test_an_error_of_a_hundredth_of_a_percent_in_any_entry(entry: tuple[int, int, Any], method: Any) -> None:
    l, part, at = entry
    net, batch = _problem("tanh", "sigmoid", "mse", l2=0.1)
    gradients = _copies(net, batch)
    assert gb.check_gradients(net, *batch, gradients=gradients, method=method).largest_error < 1e-6
    gradients[l][part][at] *= 1 + 1e-4
    name = f"{'Wb'[part]}_{l + 1}{list(at)}"
    with pytest.raises(GradientCheckFailed) as failure:
        gb.check_gradients(net, *batch, gradients=gradients, method=method)
    assert name in str(failure.value)
    assert method.replace("_", " ") in str(failure.value)


@pytest.mark.parametrize("wrong", [numpy.nan, numpy.inf, 0.0])
def test_an_entry_that_is_no_number_or_missing(wrong: float) -> None:
    net, batch = _problem("tanh", "sigmoid", "mse")
    gradients = _copies(net, batch)
    gradients[1][0][2, 1] = wrong
    with pytest.raises(GradientCheckFailed, match=r"W_2\[2, 1\]"):
        gb.check_gradients(net, *batch, gradients=gradients)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(squash, sigma_prime=lambda m, z, a, e: 1.0001 / ((1.0 + e * z * z) * m.sqrt(1.0 + e * z * z))),
        replace(squash, sigma_prime=lambda m, z, a, e: 1.0 / (1.0 + e * z * z)),
    ],
)
def test_a_users_wrong_derivative_of_an_activation(wrong: Any) -> None:
    assert gb.check_gradients(*_flat(_problem(squash, "identity", "mse"))).method == "complex_step"
    for hidden, output in ((wrong, "identity"), ("tanh", wrong)):
        with pytest.raises(GradientCheckFailed):
            gb.check_gradients(*_flat(_problem(hidden, output, "mse")))


def test_a_users_wrong_derivative_of_a_loss() -> None:
    gb.check_gradients(*_flat(_problem("tanh", "identity", pseudo_huber)))
    wrong = replace(pseudo_huber, loss_prime=lambda m, y, a, s: a - y)
    with pytest.raises(GradientCheckFailed):
        gb.check_gradients(*_flat(_problem("tanh", "identity", wrong)))


def _flat(problem: tuple[gb.Network, tuple[Any, ...]]) -> tuple[Any, ...]:
    return problem[0], *problem[1]


# -- samples, labels, kinks --------------------------------------------------------------------------------------------


def test_a_sample_of_the_parameters() -> None:
    net = gb.Network([20, 20, 3], activation="tanh", output_activation="softmax", loss="cross_entropy", dtype="float64")
    rng = numpy.random.default_rng(0)
    X, y = rng.normal(size=(5, 20)), rng.integers(0, 3, 5)
    assert gb.check_gradients(net, X, y).checked == net.n_parameters == 20 * 20 + 20 + 20 * 3 + 3
    assert gb.check_gradients(net, X, y, samples=50).checked == 50
    wrong = [(1.01 * dW, 1.01 * db) for dW, db in net.loss_and_gradients(X, y)[1]]
    with pytest.raises(GradientCheckFailed) as first:
        gb.check_gradients(net, X, y, gradients=wrong, samples=1)
    with pytest.raises(GradientCheckFailed) as other:
        gb.check_gradients(net, X, y, gradients=wrong, samples=1, seed=1)
    assert str(first.value) != str(other.value)


def test_labels_and_one_hot_rows_are_the_same_targets() -> None:
    net, (X, *_) = _problem("tanh", "softmax", "cross_entropy")
    y = numpy.array([0, 1, 1, 0])
    assert gb.check_gradients(net, X, y) == gb.check_gradients(net, X, numpy.eye(2)[y])


def test_parameters_at_a_kink_are_left_out_and_counted() -> None:
    """Unit 1 has z = 0 for both examples: the loss has a kink in W_1[0, 0] and b_1[0], and in nothing else.

    All else is a straight line, so that central differences of all steps agree on a slope half-way between two.
    """
    net = gb.Network([1, 2, 1], activation="relu", loss="mae", dtype="float64", backend="numpy")
    (W_1, b_1), (W_2, b_2) = net.parameters
    W_1[...], b_1[...], W_2[...], b_2[...] = [[0.0, 1.0]], [0.0, 0.5], [[1.0], [1.0]], [0.1]
    X, y = [[1.0], [2.0]], [0.3, -0.4]
    check = gb.check_gradients(net, X, y)
    assert (check.method, check.checked, check.kinks) == ("central_differences", 5, 2)
    gradients = _copies(net, (X, y, None, None))
    gradients[0][0][0, 0] = 77.0  # what no derivative can be compared with is not compared
    assert gb.check_gradients(net, X, y, gradients=gradients).kinks == 2


def test_a_kink_beside_the_point_is_left_out_too() -> None:
    """z = 5e-6 lies inside the step of central differences, near its end: not inside half the step."""
    net = gb.Network([1, 2, 1], activation="relu", dtype="float64", backend="numpy")
    (W_1, b_1), (W_2, b_2) = net.parameters
    W_1[...], b_1[...], W_2[...], b_2[...] = [[0.0, 1.0]], [5e-6, 0.5], [[1.0], [1.0]], [0.1]
    check = gb.check_gradients(net, [[1.0], [2.0]], [0.3, -0.4])
    assert (check.checked, check.kinks) == (5, 2)


def test_nothing_but_kinks_is_no_check() -> None:
    net = gb.Network([2, 3, 1], activation="relu", dtype="float64", backend="numpy")
    for W, b in net.parameters:
        W[...], b[...] = 0.0, 0.0
    net.parameters[1][0][...] = 1.0
    with pytest.raises(GradientCheckFailed, match="9 of 13 parameters lie at kinks"):
        gb.check_gradients(net, [[1.0, 2.0]], [1.0])


def test_the_network_is_as_it_was() -> None:
    net, batch = _problem("gelu", "softmax", "cross_entropy", **CASES["all"])
    before = net.theta.copy()
    for method in ("complex_step", "central_differences"):
        gb.check_gradients(net, *batch, method=method)
    assert numpy.array_equal(net.theta, before)


# -- the check itself, against complex numbers written out here --------------------------------------------------------


def _complex_loss(parameters: list[Any], sigma: str, pair: str, X: Any, Y: Any, share: Any) -> complex:
    """Equations 1 and 2 and a loss, on complex numbers."""
    a = X.astype(complex)
    for W, b in parameters[:-1]:
        z = a @ W + b
        a = numpy.tanh(z) if sigma == "tanh" else 1 / (1 + numpy.exp(-z))
    z = a @ parameters[-1][0] + parameters[-1][1]
    if pair == "softmax":
        losses = -(Y * numpy.log(numpy.exp(z) / numpy.exp(z).sum(axis=1, keepdims=True))).sum(axis=1)
    else:
        losses = ((Y - 1 / (1 + numpy.exp(-z))) ** 2).mean(axis=1)
    return complex((share * losses).sum())


def _plain_complex_step(net: gb.Network, *batch: Any) -> list[tuple[Any, Any]]:
    parameters = [(W.astype(complex), b.astype(complex)) for W, b in net.parameters]
    derivatives = [(numpy.zeros(W.shape), numpy.zeros(b.shape)) for W, b in parameters]
    for pair, into in zip(parameters, derivatives, strict=True):
        for array, derivative in zip(pair, into, strict=True):
            for at in numpy.ndindex(array.shape):
                array[at] += 1e-100j
                derivative[at] = _complex_loss(parameters, *batch).imag / 1e-100
                array[at] -= 1e-100j
    return derivatives


@pytest.mark.parametrize("pair", ["softmax", "sigmoid"])
@pytest.mark.parametrize("sigma", ["tanh", "sigmoid"])
@pytest.mark.parametrize("weighted", [False, True])
def test_against_a_complex_step_of_its_own(sigma: str, pair: str, weighted: bool) -> None:
    loss = {"softmax": "cross_entropy", "sigmoid": "mse"}[pair]
    net, (X, Y, weights, _) = _problem(sigma, pair, loss, weighted=weighted)
    weights_or_one = numpy.ones(4) if weights is None else weights
    expected = _plain_complex_step(net, sigma, pair, X, Y, weights_or_one / weights_or_one.sum())
    for given, numeric in zip(net.loss_and_gradients(X, Y, weights)[1], expected, strict=True):
        for g, n in zip(given, numeric, strict=True):
            numpy.testing.assert_allclose(g, n, rtol=1e-12, atol=1e-15)
    assert gb.check_gradients(net, X, Y, weights, gradients=expected, method="complex_step").largest_error <= BOUND
    expected[0][0][0, 0] *= 1 + 1e-11
    with pytest.raises(GradientCheckFailed, match=r"W_1\[0, 0\]"):
        gb.check_gradients(net, X, Y, weights, gradients=expected, method="complex_step")
