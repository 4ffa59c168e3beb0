"""scikit-learn's estimators on this package: what it adds, how they travel, what they say when something is wrong."""

from __future__ import annotations

import copy
import inspect
import math
import os
import pickle
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn import (
    calibration,
    config_context,
    datasets,
    dummy,
    ensemble,
    inspection,
    model_selection,
    neural_network,
    preprocessing,
)
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning

import gpubackprop as gb
from gpubackprop import sklearn as ours
from gpubackprop.sklearn import MLPClassifier, MLPRegressor
from gpubackprop.sklearn.lbfgs import Objective

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, LABELS = datasets.load_iris(return_X_y=True)
X = preprocessing.scale(X)
VALUES = X @ [1.0, -2.0, 0.5, 0.3]
QUICK: dict[str, Any] = {"max_iter": 5, "random_state": 0, "hidden_layer_sizes": (6,)}


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_begin_with_those_of_scikit_learn(name: str) -> None:
    own, theirs = (inspect.signature(getattr(module, name)).parameters for module in (ours, neural_network))
    assert [(p.name, p.default, p.kind) for p in theirs.values()] == [
        (p.name, p.default, p.kind) for p in list(own.values())[: len(theirs)]
    ]
    assert all(p.kind == p.KEYWORD_ONLY for p in list(own.values())[len(theirs) :])


@pytest.mark.parametrize("activation", [*sorted(set(gb.activations.ACTIVATIONS) - {"softmax"}), "logistic"])
def test_any_activation(activation: str) -> None:
    classifier = MLPClassifier(activation=activation, max_iter=150, learning_rate_init=0.02, random_state=0)
    assert classifier.fit(X, LABELS).score(X, LABELS) > 0.9


def test_an_activation_for_each_layer() -> None:
    rows = ["tanh", gb.activations.leaky_relu(slope=0.2)]
    classifier = MLPClassifier(**QUICK | {"hidden_layer_sizes": (6, 5)}, activation=rows).fit(X, LABELS)
    h = np.tanh(X @ classifier.coefs_[0] + classifier.intercepts_[0]) @ classifier.coefs_[1] + classifier.intercepts_[1]
    z = np.where(h > 0, h, 0.2 * h) @ classifier.coefs_[2] + classifier.intercepts_[2]
    np.testing.assert_allclose(classifier.decision_function(X), z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(classifier.predict_proba(X), np.exp(z) / np.exp(z).sum(1, keepdims=True), rtol=1e-12)


def test_logits_of_two_classes() -> None:
    classifier = MLPClassifier(**QUICK).fit(X[:100], LABELS[:100])
    logits = classifier.decision_function(X)
    assert logits.shape == (150,)
    np.testing.assert_allclose(classifier.predict_proba(X)[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quantile", gb.losses.quantile(q=0.9)])
def test_losses(loss: Any) -> None:
    regressor = MLPRegressor(loss=loss, max_iter=200, learning_rate_init=0.02, random_state=0).fit(X, VALUES)
    share_below = np.mean(regressor.predict(X) > VALUES)
    if isinstance(loss, str):
        assert regressor.score(X, VALUES) > 0.9
        assert 0.2 < share_below < 0.8
    else:
        assert share_below > 0.8


def test_output_activation() -> None:
    regressor = MLPRegressor(**QUICK, output_activation="softplus").fit(X, abs(VALUES))
    assert regressor.predict(X).min() > 0


def test_class_weights_are_sample_weights() -> None:
    weight = {0: 1.0, 1: 3.0, 2: 0.5}
    own = MLPClassifier(**QUICK, class_weight=weight).fit(X, LABELS)
    given = MLPClassifier(**QUICK).fit(X, LABELS, np.vectorize(weight.get)(LABELS))
    np.testing.assert_array_equal(own.coefs_[0], given.coefs_[0])
    few = np.r_[:50, 50:60, 100:110]
    assert MLPClassifier(**QUICK, class_weight="balanced").fit(X[few], LABELS[few]).loss_ > 0
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        MLPClassifier(**QUICK, class_weight="balanced").partial_fit(X, LABELS, classes=[0, 1, 2])


def test_weights_of_classes_of_several_labels() -> None:
    many = np.c_[LABELS > 0, X[:, 0] > 1].astype(int)
    for weight in ("balanced", [{0: 1.0, 1: 2.0}, {0: 3.0, 1: 1.0}]):
        dense, sparse = (
            MLPClassifier(**QUICK, class_weight=weight).fit(X, y) for y in (many, scipy.sparse.csr_array(many))
        )
        np.testing.assert_array_equal(dense.coefs_[0], sparse.coefs_[0])
        assert abs(dense.coefs_[0] - MLPClassifier(**QUICK).fit(X, many).coefs_[0]).max() > 1e-4
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        MLPClassifier(class_weight="balanced").fit(X, None)


def test_dropout_is_drawn_from_the_random_state() -> None:
    first, again, without = (MLPClassifier(**QUICK, dropout=p).fit(X, LABELS) for p in (0.5, 0.5, 0.0))
    np.testing.assert_array_equal(first.coefs_[0], again.coefs_[0])
    assert abs(first.coefs_[0] - without.coefs_[0]).max() > 1e-4


@pytest.mark.parametrize("optimizer", ["adamw", "adagrad", gb.optimizers.RMSprop(gb.schedules.Cosine(0.02, steps=100))])
def test_an_optimizer_of_the_package(optimizer: Any) -> None:
    regressor = MLPRegressor(max_iter=100, random_state=0, optimizer=optimizer).fit(X, VALUES)
    assert regressor.loss_ < regressor.loss_curve_[0]
    with pytest.raises(ValueError, match="got solver='lbfgs'"):
        MLPRegressor(solver="lbfgs", optimizer=optimizer).fit(X, VALUES)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_validation_data(early_stopping: bool) -> None:
    classifier = MLPClassifier(**QUICK, early_stopping=early_stopping, alpha=1.0)
    classifier.fit(X[::2], LABELS[::2], X_val=X[1::2], y_val=LABELS[1::2])
    assert len(classifier.validation_loss_curve_) == 5
    if not early_stopping:
        p = classifier.predict_proba(X[1::2])[np.arange(75), LABELS[1::2]]
        assert classifier.validation_loss_curve_[-1] == pytest.approx(-np.log(p).mean(), rel=1e-12)
    else:
        assert max(classifier.validation_scores_) == classifier.score(X[1::2], LABELS[1::2])
    with pytest.raises(ValueError, match="given together"):
        classifier.fit(X, LABELS, X_val=X)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize(
    ("kind", "y_val", "told"),
    [
        (MLPClassifier, LABELS + 1, r"`y_val` has classes not in `self.classes_`.*'y_val' has \[1 2 3\]"),
        (MLPClassifier, np.array(["a", "b", "c"])[LABELS], "`y_val` has classes not in"),
        (MLPClassifier, np.c_[LABELS, LABELS], "y_val has 2 outputs, but MLPClassifier is expecting 1"),
        (MLPRegressor, np.c_[LABELS, LABELS], "y_val has 2 outputs, but MLPRegressor is expecting 1"),
        (MLPRegressor, np.array(["a", "b", "c"], dtype=object)[LABELS], "could not convert string to float"),
    ],
)
def test_validation_data_that_have_no_loss(kind: Any, y_val: Any, told: str, early_stopping: bool) -> None:
    with pytest.raises(ValueError, match=told):
        kind(**QUICK, early_stopping=early_stopping).fit(X, LABELS, X_val=X, y_val=y_val)


def test_the_validation_loss_is_of_the_fit_that_was_last() -> None:
    told = {"X_val": X, "y_val": LABELS}
    classifier = MLPClassifier(**QUICK, warm_start=True).fit(X, LABELS, **told).fit(X, LABELS, **told)
    assert len(classifier.validation_loss_curve_) == len(classifier.loss_curve_) == 10
    classifier.set_params(warm_start=False).fit(X, LABELS)
    assert not hasattr(classifier, "validation_loss_curve_")


def test_callbacks_of_scikit_learn() -> None:
    monitor = ScoringMonitor(scoring="accuracy")
    classifier = MLPClassifier(**QUICK).set_callbacks(monitor).fit(X, LABELS)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 5
    assert scores[-1] == classifier.score(X, LABELS)


@pytest.mark.parametrize("before", ["adam", "rmsprop", None])
@pytest.mark.parametrize("after", ["adam", "rmsprop", "adagrad", None])
def test_an_optimizer_that_is_set_anew(before: Any, after: Any) -> None:
    own, twin = (MLPClassifier(**QUICK, optimizer=before).fit(X, LABELS) for _ in range(2))
    slots = {"adam": 2, "rmsprop": 1, "adagrad": 1}
    if slots.get(before) != slots.get(after):
        del twin._optimizer, twin._optimizer_state  # it begins anew
    for estimator in (own, twin):
        estimator.set_params(optimizer=after, random_state=1).partial_fit(X, LABELS)
    np.testing.assert_array_equal(own.coefs_[0], twin.coefs_[0])


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_what_goes_on_has_as_many_outputs(first: int, second: int, partial: bool) -> None:
    values = {1: VALUES, 2: np.c_[VALUES, VALUES]}
    regressor = MLPRegressor(**QUICK, warm_start=True).fit(X, values[first])
    before = regressor.predict(X)
    with pytest.raises(ValueError, match=f"y has {second} outputs, but MLPRegressor is expecting {first} of them"):
        (regressor.partial_fit if partial else regressor.fit)(X, values[second])
    np.testing.assert_array_equal(regressor.predict(X), before)
    assert regressor.n_outputs_ == first
    with pytest.raises(ValueError, match=f"is expecting {first} of them"):
        regressor.set_params(solver="lbfgs").fit(X, values[second])


@pytest.mark.parametrize(("solver", "weight"), [("sgd", -1.0), ("adam", -1.0), ("lbfgs", -1.0), ("sgd", 0.0)])
def test_weights_without_a_mean_leave_the_parameters_as_they_were(solver: str, weight: float) -> None:
    regressor = MLPRegressor(**QUICK, solver=solver, batch_size=75, shuffle=False, warm_start=True).fit(X, VALUES)
    before = regressor.predict(X)
    first = -1.0 if solver == "lbfgs" else 1.0  # which has one batch
    with pytest.raises(ValueError if weight else ZeroDivisionError, match=r"sums to a negative|sum to zero"):
        regressor.fit(X, VALUES, np.r_[np.full(75, first), np.full(75, weight)])
    np.testing.assert_array_equal(regressor.predict(X), before)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_copies_go_on_where_they_were(how: Any, solver: str) -> None:
    classifier = MLPClassifier(**QUICK, solver=solver).fit(X, LABELS)
    twin = how(classifier)
    np.testing.assert_array_equal(twin.predict_proba(X), classifier.predict_proba(X))
    for estimator in (classifier, twin):
        estimator.set_params(random_state=1).partial_fit(X, LABELS)
    np.testing.assert_array_equal(twin.coefs_[0], classifier.coefs_[0])


def test_parameters_that_are_set_are_used() -> None:
    regressor = MLPRegressor(**QUICK).fit(X, VALUES)
    before = regressor.predict(X)
    regressor.intercepts_[-1] += 1.0  # in place
    np.testing.assert_allclose(regressor.predict(X), before + 1, rtol=1e-12)
    regressor.intercepts_[-1] = regressor.intercepts_[-1] + 1.0  # another array
    np.testing.assert_allclose(regressor.predict(X), before + 2, rtol=1e-12)


def test_divergence_names_the_epoch() -> None:
    regressor = MLPRegressor(solver="sgd", learning_rate_init=1e3, random_state=0)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=r"non-finite parameter weights\..* Epoch \d+ is"):
        regressor.fit(X, 1e6 * VALUES)
    assert all(np.isfinite(W).all() for W in regressor.coefs_)


DIVERGING = {"solver": "sgd", "activation": "identity", "random_state": 0, "early_stopping": True, "max_iter": 20}


@pytest.mark.parametrize("rate", [0.5, 1.0, 1e200])  # the last: no epoch is finite
def test_divergence_with_early_stopping_keeps_what_scikit_learn_keeps(rate: float) -> None:
    own, theirs = (m.MLPRegressor(**DIVERGING, learning_rate_init=rate) for m in (ours, neural_network))
    kept = "from before training, since no epoch has a score" if rate > 1 else "of the best validation score"
    with np.errstate(all="ignore"):
        with pytest.warns(ConvergenceWarning, match=f"Epoch .* is the first that is not finite; .* the weights {kept}"):
            own.fit(X, VALUES)
        with pytest.warns(ConvergenceWarning, match="Maximum iterations"):
            theirs.fit(X, VALUES)
    scores = own.validation_scores_
    np.testing.assert_allclose(scores, theirs.validation_scores_[: len(scores)], rtol=1e-9)
    assert math.isnan(scores[-1])
    assert type(scores[-1]) is float
    for W, V in zip(own.coefs_ + own.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(W, V, rtol=1e-9)
        assert np.isfinite(W).all()


def test_divergence_with_early_stopping_is_in_every_curve() -> None:
    classifier = MLPClassifier(**DIVERGING | {"activation": "relu"}, learning_rate_init=1e200)
    with np.errstate(all="ignore"), pytest.warns(ConvergenceWarning, match="Epoch 2 is the first"):
        classifier.fit(X, LABELS, X_val=X[:50], y_val=LABELS[:50])
    for curve in (classifier.loss_curve_, classifier.validation_scores_, classifier.validation_loss_curve_):
        assert len(curve) == classifier.n_iter_ == 2
    assert math.isnan(classifier.validation_loss_curve_[-1])
    assert math.isfinite(classifier.score(X, LABELS))


def test_ctrl_c_leaves_a_usable_model(monkeypatch: pytest.MonkeyPatch) -> None:
    record = MLPClassifier._record

    def interrupted(self: Any, *arguments: Any) -> bool:
        finite = record(self, *arguments)
        if self.n_iter_ == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return finite

    monkeypatch.setattr(MLPClassifier, "_record", interrupted)
    classifier = MLPClassifier(**QUICK | {"max_iter": 50})
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        classifier.fit(X, LABELS)
    assert classifier.n_iter_ == 3
    assert classifier.predict(X).shape == (150,)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_ctrl_c_in_lbfgs_leaves_the_best_so_far(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    objective = Objective.__call__

    def interrupted(self: Any, packed: np.ndarray) -> Any:
        if len(losses) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        told = objective(self, packed)
        losses.append(told[0])
        return told

    monkeypatch.setattr(Objective, "__call__", interrupted)
    estimator = kind(**QUICK | {"max_iter": 50}, solver="lbfgs")
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        estimator.fit(X, LABELS)
    assert len(losses) == 6
    assert estimator.n_iter_ == 7  # that in which it was pressed is taken to its end
    assert estimator.loss_ <= min(losses)
    assert estimator.score(X, LABELS) > 0.5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("parameters", "data"),
    [
        ({"activation": "none"}, (X, LABELS)),
        ({"hidden_layer_sizes": (5, 0)}, (X, LABELS)),
        ({"alpha": -1.0}, (X, LABELS)),
        ({}, (X[:, 0], LABELS)),
        ({}, (np.where(X > 1, np.nan, X), LABELS)),
        ({"early_stopping": True, "validation_fraction": 0.001}, (X, LABELS)),
        ({}, (X, LABELS, np.zeros(150))),
    ],
)
def test_errors_are_scikit_learns(parameters: dict[str, Any], data: tuple[Any, ...]) -> None:
    said = []
    for module in (ours, neural_network):
        with pytest.raises((ValueError, ZeroDivisionError)) as caught:
            module.MLPClassifier(**parameters).fit(*data)
        said.append(str(caught.value).partition("{")[0])  # what is accepted may be more
    assert said[0].split(" must be")[0] == said[1].split(" must be")[0]


def _around(kind: str, classifier: Any) -> Any:
    """Return what scikit-learn makes of a classifier, as numbers."""
    if kind == "cross_val_predict":
        return model_selection.cross_val_predict(classifier, X, LABELS, cv=3, method="predict_proba")
    if kind == "stacking":
        stack = ensemble.StackingClassifier([("a", classifier), ("b", dummy.DummyClassifier())], cv=2)
        return stack.fit(X, LABELS).predict_proba(X)
    if kind == "calibration":
        return calibration.CalibratedClassifierCV(classifier, cv=2).fit(X[50:], LABELS[50:]).predict_proba(X)
    if kind == "permutation importance":
        fitted = classifier.fit(X, LABELS)
        return inspection.permutation_importance(fitted, X, LABELS, n_repeats=2, random_state=0).importances
    with config_context(enable_metadata_routing=True):
        routed = classifier.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        weights = np.linspace(1, 2, len(X))
        return model_selection.cross_validate(routed, X, LABELS, cv=2, params={"sample_weight": weights})["test_score"]


@pytest.mark.parametrize(
    "kind", ["cross_val_predict", "stacking", "calibration", "permutation importance", "metadata routing"]
)
def test_around_it_all_is_as_around_scikit_learns(kind: str) -> None:
    parameters = QUICK | {"max_iter": 30, "learning_rate_init": 0.05}
    own, theirs = (_around(kind, module.MLPClassifier(**parameters)) for module in (ours, neural_network))
    if kind == "calibration":  # by logits here, by probabilities there
        assert np.mean(own.argmax(1) == theirs.argmax(1)) > 0.95
    else:
        np.testing.assert_allclose(own, theirs, rtol=1e-9, atol=1e-12)


def test_without_scikit_learn() -> None:
    code = "import sys; sys.modules['sklearn'] = None\nimport gpubackprop.sklearn"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingDependency: gpubackprop.sklearn needs scikit-learn 1.9" in run.stderr
    assert "pip install 'gpubackprop[sklearn]'" in run.stderr


@pytest.mark.parametrize("parameters", [{"solver": "sgd"}, {"solver": "sgd", "momentum": 0.0}, {}, {"solver": "lbfgs"}])
def test_there_and_back(parameters: dict[str, Any]) -> None:
    own = MLPClassifier(**QUICK, **parameters).fit(X, LABELS)
    plain = own.to_sklearn()
    assert type(plain) is neural_network.MLPClassifier
    assert "gpubackprop" not in str(pickle.dumps(plain))
    back = MLPClassifier.from_sklearn(plain, backend="numpy")
    for estimator in (plain, back):
        np.testing.assert_allclose(estimator.predict_proba(X), own.predict_proba(X), rtol=1e-12)
    if own.solver != "lbfgs":
        for estimator in (own, plain, back):
            estimator.partial_fit(X, LABELS)
        for estimator in (plain, back):
            np.testing.assert_allclose(estimator.coefs_[0], own.coefs_[0], rtol=1e-10, atol=1e-13)
    with pytest.raises(gb.errors.InvalidValue, match="scikit-learn has as activation"):
        MLPClassifier(activation="gelu").to_sklearn()
    with pytest.raises(gb.errors.InvalidType, match="must be scikit-learn's MLPRegressor"):
        MLPRegressor.from_sklearn(plain)
    with pytest.raises(gb.errors.InvalidType, match="must be scikit-learn's MLPClassifier"):
        MLPClassifier.from_sklearn(own)


def test_there_without_what_is_ours() -> None:
    own = MLPClassifier(**QUICK, optimizer="rmsprop", dropout=0.1).set_callbacks(ScoringMonitor(scoring="accuracy"))
    plain = own.fit(X, LABELS).to_sklearn()
    assert not hasattr(plain, "_skl_callbacks")
    np.testing.assert_allclose(plain.predict_proba(X), own.predict_proba(X), rtol=1e-12)
    assert len(plain.partial_fit(X, LABELS).loss_curve_) == 6
    assert len(MLPClassifier.from_sklearn(plain).partial_fit(X, LABELS).loss_curve_) == 7
