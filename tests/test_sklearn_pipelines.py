"""The estimators in pipelines: data frames, searches on processes, scikit-learn's callbacks, validation data."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from sklearn import compose, config_context, datasets, ensemble, model_selection, neural_network
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from gpubackprop import sklearn as ours
from gpubackprop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, LABELS = datasets.load_breast_cancer(return_X_y=True)
NAMES = [f"measured {k}" for k in range(30)]
QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 15, "learning_rate_init": 0.01, "random_state": 0}


# -- data frames -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["pandas", "polars"])
def library(request: pytest.FixtureRequest, need: Callable[[str], None]) -> Any:
    """Return a library of data frames."""
    need(request.param)
    return importlib.import_module(request.param)


def _columns(library: Any) -> Any:
    """Return scalers of columns by name, whose output is a frame."""
    columns = compose.ColumnTransformer([("a", StandardScaler(), NAMES[:20]), ("b", MinMaxScaler(), NAMES[20:])])
    return columns.set_output(transform=library.__name__)


def test_frames_are_told_apart_by_the_names_of_their_columns(library: Any) -> None:
    frame = library.DataFrame(dict(zip(NAMES, X.T, strict=True)))
    model = make_pipeline(_columns(library), MLPClassifier(**QUICK)).fit(frame, LABELS)
    assert list(model[-1].feature_names_in_) == [f"{'ab'[k >= 20]}__{name}" for k, name in enumerate(NAMES)]
    plain = make_pipeline(_columns(library), neural_network.MLPClassifier(**QUICK)).fit(frame, LABELS)
    np.testing.assert_allclose(model.predict_proba(frame), plain.predict_proba(frame), rtol=1e-9, atol=1e-12)
    turned = frame[NAMES[::-1]]
    np.testing.assert_array_equal(model.predict_proba(turned), model.predict_proba(frame))
    regressor = MLPRegressor(**QUICK).fit(frame, X[:, 0])
    with pytest.raises(ValueError, match="Feature names must be in the same order as they were in fit"):
        regressor.predict(turned)
    with pytest.warns(UserWarning, match="X does not have valid feature names, but MLPRegressor was fitted with"):
        regressor.predict(X)


def test_labels_in_a_frame_are_returned_as_they_were(library: Any) -> None:
    said = library.Series(np.array(["malignant", "benign"])[LABELS])
    frame = library.DataFrame(dict(zip(NAMES, X.T, strict=True)))
    model = make_pipeline(_columns(library), MLPClassifier(**QUICK)).fit(frame, said)
    assert list(model.classes_) == ["benign", "malignant"]
    assert np.mean(model.predict(frame) == said.to_numpy()) == model.score(frame, said) > 0.9


def test_predictions_as_columns_of_a_frame(library: Any) -> None:
    stack = ensemble.StackingClassifier([("net", MLPClassifier(**QUICK)), ("other", MLPClassifier(**QUICK))], cv=2)
    told = stack.set_output(transform=library.__name__).fit(X, LABELS).transform(X)
    assert isinstance(told, library.DataFrame)
    assert list(told.columns) == ["stackingclassifier_net", "stackingclassifier_other"]
    np.testing.assert_array_equal(told["stackingclassifier_net"], stack.estimators_[0].predict_proba(X)[:, 1])


# -- searches ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker_processes() -> Iterator[None]:
    """End the processes that joblib keeps for later searches."""
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


@pytest.mark.usefixtures("worker_processes")
def test_a_search_on_processes_finds_what_scikit_learns_finds() -> None:
    scores = []
    for module in (ours, neural_network):
        scaled = Pipeline([("scale", StandardScaler()), ("net", module.MLPClassifier(**QUICK))])
        grid = {"net__alpha": [1e-4, 3.0], "net__hidden_layer_sizes": [(4,), (8, 4)]}
        search = model_selection.GridSearchCV(scaled, grid, cv=3, n_jobs=2, scoring="neg_log_loss").fit(X, LABELS)
        scores.append(search.cv_results_["mean_test_score"])
    np.testing.assert_allclose(*scores, rtol=1e-9)
    assert len(set(scores[0])) == 4


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_monitor_of_a_training_that_stops_early() -> None:
    monitor = ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    classifier = MLPClassifier(**QUICK | {"max_iter": 100, "n_iter_no_change": 3}, early_stopping=True)
    x, x_val, y, y_val = model_selection.train_test_split(StandardScaler().fit_transform(X), LABELS, random_state=0)
    classifier.set_callbacks(monitor).fit(x, y, X_val=x_val, y_val=y_val)
    rows = monitor.get_logs().data
    epochs, [whole] = ([row for row in rows if row["task_name"] == name] for name in ("epoch", "fit"))
    assert 3 < len(epochs) == classifier.n_iter_ < 100
    best = int(np.argmax(classifier.validation_scores_))
    assert best < classifier.n_iter_ - 1  # so that the last epoch and the best one are told apart
    for score, said in (("accuracy", classifier.score(x, y)), ("neg_log_loss", whole["neg_log_loss"])):
        assert whole[score] == epochs[best][score] == said
    assert whole["neg_log_loss"] != epochs[-1]["neg_log_loss"]


@pytest.mark.usefixtures("worker_processes")
def test_monitor_of_a_search_on_processes() -> None:
    monitor = ScoringMonitor(scoring="accuracy")
    scaled = make_pipeline(StandardScaler(), MLPClassifier(**QUICK | {"max_iter": 4}).set_callbacks(monitor))
    search = model_selection.GridSearchCV(scaled, {"mlpclassifier__alpha": [1e-4, 1.0]}, cv=2, n_jobs=2)
    search.fit(X, LABELS)
    rows = monitor.get_logs().data
    fits = 2 * 2 + 1  # and one of the best
    assert len([row for row in rows if row["task_name"] == "epoch"]) == 4 * fits
    assert rows[-1]["estimator_name"] == "MLPClassifier"


@pytest.mark.parametrize("around", ["nothing", "a pipeline", "a search"])
def test_progress_bar(around: str, need: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    need("rich")
    model: Any = MLPClassifier(**QUICK, early_stopping=True)
    if around != "nothing":
        model = make_pipeline(StandardScaler(), model)
    if around == "a search":
        model = model_selection.GridSearchCV(model, {"mlpclassifier__alpha": [1e-4, 1.0]}, cv=2)
    model.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, LABELS)
    shown = [line for line in capsys.readouterr().out.splitlines() if "MLPClassifier" in line]
    assert len(shown) == {"nothing": 1, "a pipeline": 1, "a search": 5}[around]
    assert all("100%" in line for line in shown)


class _Stop:
    """A callback of a user's own."""

    def __init__(self, after: int) -> None:
        self.after, self.told = after, []  # type: ignore[var-annotated]

    def setup(self, estimator: Any, context: Any) -> None:
        self.told.append("setup")

    def teardown(self, estimator: Any, context: Any) -> None:
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_end(self, estimator: Any, context: Any, *, y: Any = None, metadata: Any = None) -> bool:
        self.told.append(context.task_name)
        assert y is LABELS
        return estimator.n_iter_ == self.after


def test_a_callback_stops_training() -> None:
    callback = _Stop(after=3)
    classifier = MLPClassifier(**QUICK).set_callbacks(callback).fit(X, LABELS)
    assert classifier.n_iter_ == 3
    assert callback.told == ["setup", "epoch", "epoch", "epoch", "fit", "teardown"]
    classifier.partial_fit(X, LABELS)
    assert callback.told[6:] == ["setup", "epoch", "fit", "teardown"]


def test_callbacks_of_lbfgs() -> None:
    callback, monitor = _Stop(after=0), ScoringMonitor(scoring="neg_log_loss")
    x = StandardScaler().fit_transform(X)
    classifier = MLPClassifier(**QUICK, solver="lbfgs").set_callbacks(callback, monitor).fit(x, LABELS)
    assert callback.told == ["setup", "fit", "teardown"]
    [row] = monitor.get_logs().data
    p = classifier.predict_proba(x)[np.arange(len(x)), LABELS]
    assert row["neg_log_loss"] == pytest.approx(np.log(p).mean(), rel=1e-9)


def test_callbacks_are_let_go_where_training_fails() -> None:
    callback = _Stop(after=3)
    regressor = MLPRegressor(solver="sgd", learning_rate_init=1e6, random_state=0).set_callbacks(callback)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="non-finite"):
        regressor.fit(X, LABELS)
    assert callback.told[-1] == "teardown"


# -- validation data ---------------------------------------------------------------------------------------------------


def test_validation_data_goes_through_the_pipeline_too() -> None:
    x, x_val, y, y_val = model_selection.train_test_split(X, LABELS, random_state=0)
    with config_context(enable_metadata_routing=True):
        classifier = MLPClassifier(**QUICK).set_fit_request(X_val=True, y_val=True)
        model = Pipeline([("scale", StandardScaler()), ("net", classifier)], transform_input=["X_val"])
        model.fit(x, y, X_val=x_val, y_val=y_val)
    p = model.predict_proba(x_val)[np.arange(len(y_val)), y_val]
    assert model["net"].validation_loss_curve_[-1] == pytest.approx(-np.log(p).mean(), rel=1e-9)
