"""Where training begins, what the last layer returns, and how long `partial_fit` goes on: what the estimators add."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import clone, datasets, preprocessing

import gpubackprop as gb
from gpubackprop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, LABELS = datasets.load_iris(return_X_y=True)
X = preprocessing.scale(X)
VALUES = X @ [1.0, -2.0, 0.5, 0.3]
MANY = np.c_[LABELS > 0, LABELS == 1].astype(int)
QUICK: dict[str, Any] = {"max_iter": 5, "random_state": 0, "hidden_layer_sizes": (6,)}
LONG: dict[str, Any] = {"max_iter": 300, "random_state": 0, "learning_rate_init": 0.02, "tol": 0.0}

cloglog = gb.activations.Activation(
    "cloglog",
    lambda m, z: -m.expm1(-m.exp(m.minimum(z, 5.0))),
    lambda m, z, a: m.where(z < 5.0, m.exp(m.minimum(z, 5.0)) * (1.0 - a), 0.0),
    analytic=False,
)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("output", ["sigmoid", "hard_sigmoid", cloglog])
@pytest.mark.parametrize("several", [False, True])
def test_probabilities_by_another_activation(output: Any, solver: str, several: bool) -> None:
    y = MANY if several else MANY[:, 0]
    classifier = MLPClassifier(**LONG, solver=solver, output_activation=output).fit(X, y)
    assert classifier.score(X, y) > 0.9
    z = classifier.decision_function(X)
    row = output if isinstance(output, gb.activations.Activation) else gb.activations.ACTIVATIONS[output]
    rows = gb.Network([1, 1], output_activation=row, dtype="float64", backend="numpy")
    rows.theta[:2] = 1.0, 0.0
    p = rows.forward(z.reshape(-1, 1)).reshape(z.shape)
    told = classifier.predict_proba(X) if several else classifier.predict_proba(X)[:, 1]
    np.testing.assert_allclose(told, p, rtol=1e-12, atol=1e-15)


def test_scikit_learns_own_output_by_name_changes_nothing() -> None:
    for name, y, kind in (("sigmoid", MANY, MLPClassifier), ("softmax", LABELS, MLPClassifier)):
        own, named = (kind(**QUICK, output_activation=output).fit(X, y) for output in (None, name))
        np.testing.assert_array_equal(own.coefs_[0], named.coefs_[0])


@pytest.mark.parametrize(("loss", "output"), [("poisson", "softplus"), ("poisson", "relu"), ("mae", "softplus")])
def test_a_regressor_with_another_output(loss: str, output: str) -> None:
    y = np.round(np.exp(VALUES / 2))
    regressor = MLPRegressor(loss, **LONG, output_activation=output).fit(X, y)
    assert regressor.predict(X).min() >= 0
    assert regressor.score(X, y) > 0.5  # relu's outputs are 0 for some for good


def test_shares_that_sum_to_one() -> None:
    shares = abs(X[:, :3]) / abs(X[:, :3]).sum(1, keepdims=True)
    regressor = MLPRegressor(**LONG, output_activation="softmax").fit(X, shares)
    np.testing.assert_allclose(regressor.predict(X).sum(1), 1, rtol=1e-12)
    assert regressor.score(X, shares) > 0.8


@pytest.mark.parametrize(
    ("estimator", "y", "told"),
    [
        (
            MLPClassifier(output_activation="tanh"),
            MANY[:, 0],
            "from 0 to 1: it returns such from -1 to 1",
        ),
        (
            MLPClassifier(output_activation="identity"),
            MANY,
            "from 0 to 1: it returns such from -40 to 40",
        ),
        (
            MLPClassifier(output_activation="sigmoid"),
            LABELS,
            "rows that sum to 1: accepted are None and 'softmax'",
        ),
        (MLPClassifier(output_activation="softmax"), MANY[:, 0], "on 1 output: it would always return 1"),
        (MLPClassifier(output_activation="softmax"), MANY, "on 2 outputs .* it returns rows of sum 1"),
        (MLPRegressor("poisson", output_activation="identity"), abs(VALUES), "takes outputs from 0 to inf"),
        (MLPRegressor(gb.losses.binary_cross_entropy, output_activation="exp"), MANY[:, 0], "outputs from 0 to 1"),
        (MLPRegressor(gb.losses.poisson), abs(VALUES), "takes outputs from 0 to inf"),
        (MLPRegressor(gb.losses.cross_entropy), MANY, "rows that sum to 1: accepted are None and 'softmax'"),
        (MLPRegressor(output_activation="softmax"), VALUES, "on 1 output: it would always return 1"),
        (MLPRegressor(output_activation="none"), VALUES, "'output_activation' parameter of MLPRegressor must be"),
    ],
)
def test_an_output_that_the_loss_cannot_take(estimator: Any, y: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        estimator.fit(X, y)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_several_epochs_are_as_so_many_calls(solver: str) -> None:
    at_once, call_by_call = (
        MLPClassifier(solver=solver, learning_rate="adaptive", tol=0.5, shuffle=False, random_state=0) for _ in range(2)
    )
    at_once.partial_fit(X, LABELS, classes=[0, 1, 2], epochs=30)
    for _ in range(30):
        call_by_call.partial_fit(X, LABELS, classes=[0, 1, 2])
    np.testing.assert_array_equal(at_once.coefs_[0], call_by_call.coefs_[0])
    assert at_once.loss_curve_ == call_by_call.loss_curve_
    assert (at_once.n_iter_, at_once.t_) == (30, call_by_call.t_)


def test_epochs_of_another_kind_are_refused() -> None:
    regressor = MLPRegressor(**QUICK)
    for epochs, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="epochs must be an integer of at least 1"):
            regressor.partial_fit(X, VALUES, epochs=epochs)
    with pytest.raises(ValueError, match="epochs are of the solvers 'sgd' and 'adam', got solver='lbfgs'"):
        MLPRegressor(solver="lbfgs").partial_fit(X, VALUES, epochs=2)
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_parameters(solver: str, dtype: str) -> None:
    x = X.astype(dtype)
    weights = [np.random.RandomState(5).normal(size=shape) for shape in ((4, 6), (6, 3))]
    biases = [np.random.RandomState(6).normal(size=n) for n in (6, 3)]
    given = MLPClassifier(**QUICK, solver=solver, coefs_init=weights, intercepts_init=biases)
    before = given.get_params()
    first, again = given.fit(x, LABELS), clone(given).fit(x, LABELS)
    np.testing.assert_array_equal(first.coefs_[0], again.coefs_[0])
    assert all(given.get_params()[name] is before[name] for name in ("coefs_init", "intercepts_init"))
    np.testing.assert_array_equal(weights[0], np.random.RandomState(5).normal(size=(4, 6)))  # and are as they were
    other = MLPClassifier(**QUICK, solver=solver, coefs_init=weights).fit(x, LABELS)  # biases drawn as ever
    assert other.coefs_[0].dtype == first.coefs_[0].dtype
    assert abs(other.intercepts_[0] - first.intercepts_[0]).max() > 0.01


def test_what_was_drawn_given_again_changes_nothing() -> None:
    start = MLPClassifier(**QUICK, learning_rate_init=1e-30).partial_fit(X, LABELS, classes=[0, 1, 2])
    drawn, given = (
        MLPClassifier(**QUICK, **initial).fit(X, LABELS)
        for initial in ({}, {"coefs_init": start.coefs_, "intercepts_init": start.intercepts_})
    )
    np.testing.assert_array_equal(drawn.coefs_[0], given.coefs_[0])


@pytest.mark.parametrize(
    ("initial", "told"),
    [
        ({"coefs_init": [np.ones((4, 6))]}, r"coefs_init must hold 2 arrays .* \(4, 6\), \(6, 3\), got 1 .* \(4, 6\)$"),
        ({"coefs_init": []}, "got 0 of the shapes none"),
        ({"coefs_init": [np.ones((4, 7)), np.ones((7, 3))]}, r"got 2 of the shapes \(4, 7\), \(7, 3\)"),
        ({"intercepts_init": [np.ones(6), np.ones((3, 1))]}, r"\(6,\), \(3,\), got 2 of the shapes \(6,\), \(3, 1\)"),
        ({"intercepts_init": [np.ones(6), np.array([1, np.nan, 0])]}, r"Input intercepts_init\[1\] contains NaN"),
        ({"coefs_init": np.ones((4, 6))}, "'coefs_init' parameter of MLPClassifier must be"),
    ],
)
def test_initial_parameters_that_do_not_fit(initial: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        MLPClassifier(**QUICK, **initial).fit(X, LABELS)


def test_what_goes_on_leaves_initial_parameters_out() -> None:
    weights = [np.ones((4, 6)), np.ones((6, 3))]
    classifier = MLPClassifier(**QUICK, coefs_init=weights, warm_start=True).fit(X, LABELS)
    loss = classifier.fit(X, LABELS).loss_curve_
    assert len(loss) == 10
    assert loss[5] < loss[4]
