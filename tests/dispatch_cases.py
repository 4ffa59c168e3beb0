"""Arrays of other libraries under scikit-learn's dispatch: what `test_sklearn_dispatch.py` runs in its own process.

SciPy dispatches where SCIPY_ARRAY_API was set before its import, and scikit-learn only there.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import config_context, datasets, neural_network, preprocessing
from sklearn.utils._array_api import get_namespace, move_estimator_to
from sklearn.utils.estimator_checks import check_array_api_input_and_values, estimator_checks_generator

from gpubackprop import inputs
from gpubackprop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, LABELS = datasets.load_iris(return_X_y=True)
X = preprocessing.scale(X)
VALUES = X @ [1.0, -2.0, 0.5, 0.3]
QUICK: dict[str, Any] = {"max_iter": 5, "random_state": 0, "hidden_layer_sizes": (6,)}


@pytest.fixture(params=["torch", "array_api_strict", "cupy"])
def xp(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A library, with dispatch to it."""
    library = importlib.import_module(request.param)
    with config_context(array_api_dispatch=True):
        yield library


@pytest.fixture(params=[None, "device1"])
def device(request: pytest.FixtureRequest, xp: Any) -> Any:
    """A device of the library: the usual one, and another where that can be had without a GPU."""
    if request.param is None:
        return None
    return xp.Device(request.param) if xp.__name__ == "array_api_strict" else None


def _is_of(array: Any, like: Any) -> bool:
    return type(array) is type(like) and array.device == like.device


def _numpy(array: Any) -> np.ndarray:
    strict = type(array).__module__.startswith("array_api_strict")
    return np.asarray(array.to_device(type(array.device)("CPU_DEVICE"))) if strict else inputs.host(array, "array")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", ["three", "two", "many"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_classifiers_outputs_follow_its_input(solver: str, labels: str, dtype: str, xp: Any, device: Any) -> None:
    y = {"three": LABELS, "two": LABELS % 2, "many": np.c_[LABELS > 0, LABELS == 1].astype(int)}[labels]
    own = MLPClassifier(**QUICK, solver=solver, class_weight={0: 1.0, 1: 2.0} if labels == "two" else None)
    x = X.astype(dtype)
    given, answer, weight = (xp.asarray(a, device=device) for a in (x, y, np.linspace(1, 2, 150)))
    own.fit(given, answer, weight)
    assert all(_is_of(W, given) for W in (*own.coefs_, *own.intercepts_))
    plain = MLPClassifier(**own.get_params()).fit(x, y, np.linspace(1, 2, 150))
    for name in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        told, expected = getattr(own, name)(given), getattr(plain, name)(x)
        assert _is_of(told, given)
        np.testing.assert_array_equal(_numpy(told), expected)
        assert _numpy(told).dtype == expected.dtype
    assert own.score(given, answer) == pytest.approx(plain.score(x, y), rel=6e-8)  # PyTorch's mean is of float32
    assert isinstance(own.score(given, answer, weight), float)
    if solver == "adam":
        for estimator, a, b in ((own, given, answer), (plain, x, y)):
            estimator.partial_fit(a, b, epochs=2)
        np.testing.assert_array_equal(_numpy(own.coefs_[0]), plain.coefs_[0])
        assert _is_of(own.coefs_[0], given)


def test_a_regressors_outputs_follow_its_input(xp: Any, device: Any) -> None:
    given, one, two = (xp.asarray(a, device=device) for a in (X, VALUES, np.c_[VALUES, VALUES**2]))
    for y in (one, two):
        own = MLPRegressor(**QUICK, early_stopping=True).fit(given, y, X_val=given, y_val=y)
        plain = MLPRegressor(**QUICK, early_stopping=True).fit(X, _numpy(y), X_val=X, y_val=_numpy(y))
        assert _is_of(own.predict(given), given)
        np.testing.assert_array_equal(_numpy(own.predict(given)), plain.predict(X))
        assert own.validation_scores_ == plain.validation_scores_
        assert own.validation_loss_curve_ == plain.validation_loss_curve_
        assert own.score(given, y) == pytest.approx(plain.score(X, _numpy(y)), rel=1e-12)


def test_labels_that_are_strings_stay_numpys(xp: Any) -> None:
    names, given = np.array(["a", "b", "c"])[LABELS], xp.asarray(X)
    own = MLPClassifier(**QUICK).fit(given, names)
    assert own.predict(given).dtype.kind == "U"
    assert _is_of(own.predict_proba(given), given)


def test_from_library_to_library(xp: Any, tmp_path: Path) -> None:
    given, answer = xp.asarray(X), xp.asarray(LABELS)
    own = MLPClassifier(**QUICK).partial_fit(given, answer, classes=xp.asarray([0, 1, 2]))
    expected = _numpy(own.predict_proba(given))
    with pytest.raises(ValueError, match=r"predict_proba\(\) must use the same namespace"):
        own.predict_proba(X)
    served = move_estimator_to(own, np, "cpu")
    again = move_estimator_to(served, get_namespace(given)[0], given.device)
    np.testing.assert_array_equal(served.predict_proba(X), expected)
    np.testing.assert_array_equal(_numpy(again.predict_proba(given)), expected)
    own.save(tmp_path / "model")
    loaded, plain = MLPClassifier.load(tmp_path / "model"), own.to_sklearn()
    assert type(plain) is neural_network.MLPClassifier
    for estimator in (loaded, plain):
        np.testing.assert_allclose(estimator.predict_proba(X), expected, rtol=1e-12)
    if xp.__name__ != "array_api_strict":  # whose arrays do not go through pickle
        np.testing.assert_array_equal(_numpy(pickle.loads(pickle.dumps(own)).predict_proba(given)), expected)
    for estimator in (served, loaded, plain):
        estimator.partial_fit(X, LABELS)
    own.partial_fit(X, LABELS)  # goes on from the other library
    assert isinstance(own.coefs_[0], np.ndarray)
    for estimator in (served, loaded, plain):
        np.testing.assert_allclose(estimator.coefs_[0], own.coefs_[0], rtol=1e-9, atol=1e-12)


def test_a_fit_that_fails_leaves_the_library(xp: Any) -> None:
    given, answer = xp.asarray(X), xp.asarray(LABELS)
    own = MLPClassifier(**QUICK, warm_start=True).fit(given, answer)
    expected = _numpy(own.predict_proba(given))
    for call in (own.fit, own.partial_fit):
        with pytest.raises(ValueError, match="X has 3 features"):
            call(given[:, :3], answer)
        assert _is_of(own.coefs_[0], given)
        np.testing.assert_array_equal(_numpy(own.predict_proba(given)), expected)
    with pytest.raises(ValueError, match="cannot go with the loss"):  # when new weights have been drawn
        own.set_params(warm_start=False, hidden_layer_sizes=(3,), output_activation="sigmoid").fit(given, answer)
    assert own.predict_proba(given).shape == (150, 3)
    np.testing.assert_allclose(_numpy(own.decision_function(given)), _by_hand(own), rtol=1e-12, atol=1e-12)


def _by_hand(own: Any) -> np.ndarray:
    (W_1, W_2), (b_1, b_2) = ([_numpy(x) for x in xs] for xs in (own.coefs_, own.intercepts_))
    return np.maximum(X @ W_1 + b_1, 0) @ W_2 + b_2


def test_without_dispatch_all_is_numpys(xp: Any) -> None:
    if xp.__name__ == "cupy":
        return  # which NumPy does not take
    with config_context(array_api_dispatch=False):
        own = MLPClassifier(**QUICK).fit(xp.asarray(X), xp.asarray(LABELS))
        assert isinstance(own.coefs_[0], np.ndarray)
        assert isinstance(own.predict_proba(xp.asarray(X)), np.ndarray)


def test_a_network_elsewhere(stand_in: str) -> None:
    torch = importlib.import_module("torch")
    given, answer = torch.asarray(X), torch.asarray(LABELS)
    with config_context(array_api_dispatch=True):
        own = MLPClassifier(**QUICK, backend=stand_in).fit(given, answer)
        told = own.predict_proba(given)
    assert (own.backend_, type(told), type(own.coefs_[0])) == ("cuda", torch.Tensor, torch.Tensor)
    plain = MLPClassifier(**QUICK, backend=stand_in).fit(X, LABELS)
    np.testing.assert_array_equal(told.numpy(), plain.predict_proba(X))


KINDS = (MLPClassifier(max_iter=50), MLPRegressor(max_iter=50), MLPClassifier(solver="lbfgs", max_iter=50))


@pytest.mark.parametrize("estimator", KINDS, ids=str)
def test_scikit_learns_own_checks(estimator: Any) -> None:
    done = 0
    for kind, check in estimator_checks_generator(estimator):
        if "array_api" in check.func.__name__:
            try:
                check(kind)
                done += 1
            except pytest.skip.Exception:
                pass  # a library or a device that is not here
    assert done >= 7
    for library in ("torch", "array_api_strict"):
        check_array_api_input_and_values(type(estimator).__name__, estimator, library, check_sample_weight=True)
