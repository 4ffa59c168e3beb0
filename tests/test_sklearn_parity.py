"""Weights equal scikit-learn's after ten epochs from the same draws: activations, solvers, kinds of tasks."""

from __future__ import annotations

import importlib
import itertools
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from cuda_backends import forget
from sklearn import clone
from sklearn.exceptions import ConvergenceWarning

from gpubackprop import sklearn as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FOLDER = Path(__file__).parents[1] / "benchmarks"


def _program() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return importlib.import_module("sklearn_parity")


parity = _program()
BOUNDS, SOLVERS = parity.BOUNDS, parity.SOLVERS
task, pair, off = parity.task, parity.pair, parity.off


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(
    ("activation", "solver", "kind"), list(itertools.product(parity.ACTIVATIONS, SOLVERS, parity.TASKS))
)
def test_ten_epochs(dtype: str, activation: str, solver: str, kind: str) -> None:
    own, theirs = parity.trained(dtype, activation, solver, kind)
    assert [W.dtype for W in own.coefs_] == [W.dtype for W in theirs.coefs_]
    bound = parity.bound(dtype, solver)
    assert off(own, theirs) <= bound
    assert own.loss_ == pytest.approx(theirs.loss_, rel=10 * bound)
    assert own.n_iter_ == theirs.n_iter_


def test_figures_of_the_readme_are_whole_and_within_the_bounds() -> None:
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in (FOLDER / "results").glob("*.json")]
    found = [content["sklearn_parity"] for content in contents if "sklearn_parity" in content]
    assert found
    for rows in found:
        for backend in {row["backend"] for row in rows}:
            sides = [(row["solver"], row["dtype"]) for row in rows if row["backend"] == backend]
            assert sides == list(itertools.product(SOLVERS, parity.DTYPES))
        for row in rows:
            assert row["configurations"] == len(parity.ACTIVATIONS) * len(parity.TASKS)
            assert row["largest"] <= parity.bound(row["dtype"], row["solver"], row["backend"]) == row["bound"]


def test_the_program_measures_and_says_what_is_too_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, few in {"ACTIVATIONS": ("tanh",), "SOLVERS": ("adam",), "TASKS": ("binary", "poisson")}.items():
        monkeypatch.setattr(parity, name, few)
    out = tmp_path / "machine-parity.json"
    assert parity.main(["--out", str(out)]) == 0
    assert "numpy adam float64: " in capsys.readouterr().out
    written = json.loads(out.read_text(encoding="utf-8"))
    assert {"cpu", "gpu", "numpy", "scikit_learn", "date"} <= set(written["machine"])
    assert not {"node", "hostname"} & set(written["machine"])
    first = written["sklearn_parity"][0]
    distances = [off(*parity.trained("float64", "tanh", "adam", kind)) for kind in ("binary", "poisson")]
    assert (first["configurations"], first["largest"]) == (2, max(distances))
    monkeypatch.setitem(BOUNDS, "float64", 0.0)
    assert parity.main(["--out", str(out)]) == 1


def test_a_planted_fault_is_seen() -> None:
    X, y, told = task("multiclass", "float64")
    own, theirs = (e.fit(X, y) for e in pair("multiclass", max_iter=3, random_state=3, **told))
    own.coefs_[0][0, 0] *= 1 + 1e-9
    assert off(own, theirs) > BOUNDS["float64"]


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_line_search_that_goes_too_far_sees_the_clipped_loss(multilabel: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(230, 7))
    T = X @ rng.normal(size=(7, 3))
    y = (T > 0).astype(int) if multilabel else T.argmax(1)
    both = pair("multiclass", hidden_layer_sizes=(12, 8), solver="lbfgs", max_iter=10, random_state=3)
    own, theirs = (estimator.fit(X, y) for estimator in both)
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
    X, y, told = task(kind, "float64")
    given = scipy.sparse.csc_array(X) if sparse else X
    w = np.random.default_rng(0).integers(1, 5, len(y)) / 2 if weighted else None
    both = pair(kind, **{"batch_size": 60, "max_iter": 30, "random_state": 7, **told, **parameters})
    own, theirs = (estimator.fit(given, y, w) for estimator in both)
    assert own.n_iter_ == theirs.n_iter_
    assert off(own, theirs) <= BOUNDS["float64"]
    for record in RECORDS:
        a, b = (np.asarray(getattr(estimator, record), "float64") for estimator in both)  # None as NaN
        np.testing.assert_allclose(a, b, rtol=1e-10, err_msg=record)
    np.testing.assert_allclose(own.predict(given), theirs.predict(given), rtol=1e-9)
    np.testing.assert_allclose(own.score(X, y), theirs.score(X, y), rtol=1e-9)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_goes_on_where_it_was(solver: str) -> None:
    X, y, _ = task("multiclass", "float64")
    both = pair("multiclass", solver=solver, learning_rate="invscaling", random_state=1, batch_size=20)
    for estimator in both:
        for k in range(6):
            estimator.partial_fit(X[k::3], y[k::3], classes=[0, 1, 2])
    own, theirs = both
    assert off(own, theirs) <= BOUNDS["float64"]
    assert own.loss_curve_ == pytest.approx(theirs.loss_curve_, rel=1e-10)
    assert own.t_ == theirs.t_


@pytest.mark.parametrize("solver", SOLVERS)
def test_warm_start(solver: str) -> None:
    X, y, _ = task("regression", "float64")
    both = pair("regression", solver=solver, warm_start=True, random_state=np.random.RandomState(5), max_iter=4)
    own, theirs = (clone(e).set_params(random_state=np.random.RandomState(5)) for e in both)
    for estimator in (own, theirs):
        estimator.fit(X, y).fit(X[:100], y[:100])
    assert off(own, theirs) <= BOUNDS["float64"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "poisson"])
def test_on_cuda(device: str, kind: str, solver: str, weighted: bool) -> None:
    X, y, told = task(kind, "float64")
    X, y = X[::5], y[::5]
    w = np.random.default_rng(0).integers(1, 5, len(y)) / 2 if weighted else None
    own, theirs = pair(kind, hidden_layer_sizes=(6,), solver=solver, batch_size=12, max_iter=4, random_state=3, **told)
    own.set_params(backend=device).fit(X, y, w)
    theirs.fit(X, y, w)
    assert (own.backend_, type(own.coefs_[0])) == ("cuda", np.ndarray)
    assert off(own, theirs) <= 1e-10
    np.testing.assert_allclose(own.predict(X), theirs.predict(X), rtol=1e-8)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_training_on_cuda_that_fails_leaves_what_it_predicts_by(stand_in: str, early_stopping: bool) -> None:
    X, y, _ = task("regression", "float64")
    said = r"Epoch \d+ is the first"
    regressor = ours.MLPRegressor(
        solver="sgd", activation="identity", learning_rate_init=0.3, random_state=0, backend=stand_in
    )
    told = pytest.warns(ConvergenceWarning, match=said) if early_stopping else pytest.raises(ValueError, match=said)
    with np.errstate(all="ignore"), told:
        regressor.set_params(early_stopping=early_stopping).fit(X, y)
    assert all(np.isfinite(W).all() for W in (*regressor.coefs_, *regressor.intercepts_))
    served = regressor.to_sklearn()  # of coefs_ and intercepts_
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(regressor.predict(X), served.predict(X), rtol=1e-6)


def test_from_cuda_to_a_host_without(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, _ = task("multiclass", "float64")
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
