"""Weights equal scikit-learn's after ten epochs from the same draws: activations, solvers, kinds of tasks."""

from __future__ import annotations

import itertools
import pickle
import sys
from typing import Any

import numpy as np
import pytest
from cuda_backends import forget

pytest.importorskip("sklearn", minversion="1.9")
import scipy.sparse
from sklearn import clone, datasets, neural_network, preprocessing

from gpubackprop import sklearn as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
SOLVERS = ("sgd", "adam", "lbfgs")
TASKS = ("binary", "multiclass", "multilabel", "regression", "multi-output", "poisson")
# Ten epochs are 30 steps, of which each rounds every weight to half a unit in the last place: 1.1e-16, 6e-8 relative,
# 30 times that is 3e-15 and 2e-6. The line search of L-BFGS magnifies what is rounded, by up to 5,300 here (5.9e-13 in
# double precision); scikit-learn with its rows in another order differs from itself by as much as 1.7e-5 in float32.
# The formulas and types are one: in float32, where 24 fits are up to 8.5e-5 apart, gradients at the same 291 points lie
# 3.3e-7 (median) and 1.6e-5 (most) off those in float64, scikit-learn's 3.3e-7 and 1.5e-5, and 3.7e-6 off each other.
# With its loss at those points in place of ours fits are up to 6.1e-5 apart, with its gradient 4.0e-5, with both 0.
BOUNDS = {"float64": 1e-12, "float32": 5e-6}
LBFGS_FLOAT32 = 5300 * 6e-8


def _task(kind: str, dtype: str) -> tuple[Any, Any, dict[str, Any]]:
    """Return 150 to 200 real examples, scaled, with their targets, and what the estimator is to be told of them."""
    if kind in ("regression", "multi-output", "poisson"):
        X, y = datasets.load_diabetes(return_X_y=True)
        X, y = preprocessing.scale(X[:200]), y[:200] / 100
        if kind == "poisson":
            return X.astype(dtype), np.round(y).astype(dtype), {"loss": "poisson"}
        return X.astype(dtype), (y if kind == "regression" else np.c_[y, np.sqrt(y)]).astype(dtype), {}
    X, y = datasets.load_breast_cancer(return_X_y=True) if kind == "binary" else datasets.load_iris(return_X_y=True)
    if kind == "multilabel":
        y = np.c_[y > 0, y == 1, X[:, 1] > 3].astype(int)
    return preprocessing.scale(X)[:200].astype(dtype), y[:200], {}


def _pair(kind: str, **parameters: Any) -> tuple[Any, Any]:
    """Return the two estimators for a task: ours and scikit-learn's."""
    name = "MLPClassifier" if kind in ("binary", "multiclass", "multilabel") else "MLPRegressor"
    return tuple(getattr(module, name)(**parameters) for module in (ours, neural_network))  # type: ignore[return-value]


def off(own: Any, theirs: Any) -> float:
    """Return the relative distance of all weights, in the Euclidean norm."""
    a, b = (np.concatenate([x.ravel() for x in (*e.coefs_, *e.intercepts_)]).astype("float64") for e in (own, theirs))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("activation", "solver", "kind"), list(itertools.product(ACTIVATIONS, SOLVERS, TASKS)))
def test_ten_epochs(dtype: str, activation: str, solver: str, kind: str) -> None:
    X, y, told = _task(kind, dtype)
    own, theirs = _pair(
        kind,
        hidden_layer_sizes=(12, 8),
        activation=activation,
        solver=solver,
        batch_size=60,
        learning_rate_init=0.01,
        max_iter=10,
        random_state=3,
        **told,
    )
    own.fit(X, y)
    theirs.fit(X, y)
    assert [W.dtype for W in own.coefs_] == [W.dtype for W in theirs.coefs_]
    bound = LBFGS_FLOAT32 if (dtype, solver) == ("float32", "lbfgs") else BOUNDS[dtype]
    assert off(own, theirs) <= bound
    assert own.loss_ == pytest.approx(theirs.loss_, rel=10 * bound)
    assert own.n_iter_ == theirs.n_iter_


def test_a_planted_fault_is_seen() -> None:
    X, y, told = _task("multiclass", "float64")
    own, theirs = (e.fit(X, y) for e in _pair("multiclass", max_iter=3, random_state=3, **told))
    own.coefs_[0][0, 0] *= 1 + 1e-9
    assert off(own, theirs) > BOUNDS["float64"]


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_line_search_that_goes_too_far_sees_the_clipped_loss(multilabel: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(230, 7))
    T = X @ rng.normal(size=(7, 3))
    y = (T > 0).astype(int) if multilabel else T.argmax(1)
    pair = _pair("multiclass", hidden_layer_sizes=(12, 8), solver="lbfgs", max_iter=10, random_state=3)
    own, theirs = (estimator.fit(X, y) for estimator in pair)
    assert off(own, theirs) <= BOUNDS["float64"]


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adaptive rate": ("multiclass", {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 2}),
    "inverse scaling": ("binary", {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5}),
    "plain momentum": ("regression", {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5}),
    "all of the velocity": ("multiclass", {"solver": "sgd", "momentum": 1.0, "max_iter": 5}),
    "no momentum": ("multiclass", {"solver": "sgd", "momentum": 0.0}),
    "no shuffle": ("multilabel", {"shuffle": False}),
    "stops early": ("binary", {"early_stopping": True, "n_iter_no_change": 3, "learning_rate_init": 0.02}),
    "stops early on R²": ("multi-output", {"early_stopping": True, "validation_fraction": 0.3}),
    "no hidden layer": ("multiclass", {"hidden_layer_sizes": ()}),
    "large penalty, ragged batches": ("poisson", {"alpha": 10.0, "batch_size": 47}),
    "converges": ("multiclass", {"tol": 0.01, "max_iter": 200}),
    "one example a batch": ("regression", {"batch_size": 1, "max_iter": 2}),
}
RECORDS = ("loss_curve_", "validation_scores_", "best_loss_", "best_validation_score_", "t_", "n_iter_", "loss_")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_all_else(case: str, sparse: bool, weighted: bool) -> None:
    kind, parameters = CASES[case]
    X, y, told = _task(kind, "float64")
    given = scipy.sparse.csc_array(X) if sparse else X
    w = np.random.default_rng(0).integers(1, 5, len(y)) / 2 if weighted else None
    pair = _pair(kind, **{"batch_size": 60, "max_iter": 30, "random_state": 7, **told, **parameters})
    own, theirs = (estimator.fit(given, y, w) for estimator in pair)
    assert own.n_iter_ == theirs.n_iter_
    assert off(own, theirs) <= BOUNDS["float64"]
    for record in RECORDS:
        a, b = (np.asarray(getattr(estimator, record), "float64") for estimator in pair)  # None as NaN
        np.testing.assert_allclose(a, b, rtol=1e-10, err_msg=record)
    np.testing.assert_allclose(own.predict(given), theirs.predict(given), rtol=1e-9)
    np.testing.assert_allclose(own.score(X, y), theirs.score(X, y), rtol=1e-9)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_goes_on_where_it_was(solver: str) -> None:
    X, y, _ = _task("multiclass", "float64")
    pair = _pair("multiclass", solver=solver, learning_rate="invscaling", random_state=1, batch_size=20)
    for estimator in pair:
        for k in range(6):
            estimator.partial_fit(X[k::3], y[k::3], classes=[0, 1, 2])
    own, theirs = pair
    assert off(own, theirs) <= BOUNDS["float64"]
    assert own.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=1e-10)
    assert own.t_ == theirs.t_


@pytest.mark.parametrize("solver", SOLVERS)
def test_warm_start(solver: str) -> None:
    X, y, _ = _task("regression", "float64")
    pair = _pair("regression", solver=solver, warm_start=True, random_state=np.random.RandomState(5), max_iter=4)
    own, theirs = (clone(e).set_params(random_state=np.random.RandomState(5)) for e in pair)
    for estimator in (own, theirs):
        estimator.fit(X, y).fit(X[:100], y[:100])
    assert off(own, theirs) <= BOUNDS["float64"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "poisson"])
def test_on_cuda(device: str, kind: str, solver: str, weighted: bool) -> None:
    X, y, told = _task(kind, "float64")
    X, y = X[::5], y[::5]
    w = np.random.default_rng(0).integers(1, 5, len(y)) / 2 if weighted else None
    own, theirs = _pair(kind, hidden_layer_sizes=(6,), solver=solver, batch_size=12, max_iter=4, random_state=3, **told)
    own.set_params(backend=device).fit(X, y, w)
    theirs.fit(X, y, w)
    assert (own.backend_, type(own.coefs_[0])) == ("cuda", np.ndarray)
    assert off(own, theirs) <= 1e-10
    np.testing.assert_allclose(own.predict(X), theirs.predict(X), rtol=1e-8)


def test_from_cuda_to_a_host_without(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = _task("multiclass", "float64")
    classifier = ours.MLPClassifier(backend=stand_in, max_iter=2, random_state=0, early_stopping=True).fit(X, y)
    with pytest.raises(ValueError, match="read-only"):
        classifier.coefs_[0][0, 0] = 1.0
    told, packed = classifier.predict_proba(X), pickle.dumps(classifier)
    monkeypatch.setitem(sys.modules, "cupy", None)
    forget()
    with pytest.warns(RuntimeWarning, match="CuPy.*; this MLPClassifier runs on NumPy"):
        served = pickle.loads(packed)
    assert served.backend_ == "numpy"
    np.testing.assert_allclose(served.predict_proba(X), told, rtol=1e-10)
