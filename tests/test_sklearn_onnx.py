"""The estimators in ONNX models of pipelines: ONNX Runtime says what `predict` and `predict_proba` say."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from own_rows import squash
from sklearn import calibration, compose, datasets, ensemble, exceptions, linear_model, model_selection
from sklearn.base import is_classifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from gpubackprop.errors import InvalidValue, MissingDependency
from gpubackprop.sklearn import MLPClassifier, MLPRegressor, register_onnx_converters

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, KINDS = datasets.load_iris(return_X_y=True)
VALUES = X @ [1.0, -2.0, 0.5, 0.3]
QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 60, "learning_rate_init": 0.02, "random_state": 0}
# Inputs of size 8 at most, scaled to 3; products of 8 terms of size 20 at most, each rounded: eps · 20 · 8 · 2.
CLOSE = {dtype: float(np.finfo(dtype).eps) * 320 for dtype in ("float32", "float64")}
TARGETS = {
    "two classes": KINDS > 0,
    "three classes": KINDS,
    "strings": np.array(["setosa", "versicolor", "virginica"])[KINDS],
    "two strings": np.array(["no", "yes"], dtype=object)[(KINDS == 1).astype(int)],
    "large integers": KINDS * 2**40 - 7,
    "whole floats": np.array([-1.0, 1.0])[(KINDS == 1).astype(int)],
    "booleans": KINDS == 1,
    "one class": np.full(150, 7),
    "multilabel": np.c_[KINDS > 0, KINDS == 1, X[:, 1] > 3].astype(int),
    "two labels": np.c_[KINDS > 0, KINDS == 1].astype(int),
}


@pytest.fixture(autouse=True)
def _registered(need: Callable[[str], None]) -> None:
    for tool in ("skl2onnx", "onnxruntime"):
        need(tool)
    register_onnx_converters()


def _converted(model: Any, X: Any, **options: Any) -> Any:
    to_onnx = importlib.import_module("skl2onnx").to_onnx
    return to_onnx(model, X[:1], **{"options": {"zipmap": False} if is_classifier(model) else None} | options)


def _run(converted: Any, X: Any) -> list[Any]:
    """Return what ONNX Runtime computes, in the shapes that the model declares: of others it would warn alone."""
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: X})
    for declared, given in zip(converted.graph.output, outputs, strict=True):
        if declared.type.HasField("tensor_type"):
            shape = [dim.dim_value or len(X) for dim in declared.type.tensor_type.shape.dim]
            assert shape == list(given.shape), declared.name
    return list(outputs)


# -- classifiers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("kind", TARGETS)
def test_classifier_in_a_pipeline(kind: str, dtype: str) -> None:
    x = X.astype(dtype)
    model = make_pipeline(StandardScaler(), MLPClassifier(**QUICK)).fit(x, TARGETS[kind])
    labels, probabilities = _run(_converted(model, x), x)
    assert probabilities.dtype == dtype
    np.testing.assert_array_equal(labels, model.predict(x))
    np.testing.assert_allclose(probabilities, model.predict_proba(x), rtol=0, atol=CLOSE[dtype])
    assert labels.dtype == (object if "strings" in kind else np.int64)


@pytest.mark.parametrize("activation", ["gelu", ["tanh", "softplus"], squash(e=2.0)])
def test_any_activation(activation: Any) -> None:
    hidden = {"hidden_layer_sizes": (8, 6) if isinstance(activation, list) else (8,), "activation": activation}
    model = make_pipeline(StandardScaler(), MLPClassifier(**QUICK | hidden)).fit(X, KINDS)
    labels, probabilities = _run(_converted(model, X), X)
    np.testing.assert_array_equal(labels, model.predict(X))
    np.testing.assert_allclose(probabilities, model.predict_proba(X), rtol=0, atol=CLOSE["float64"])


def test_one_class_whatever_its_output_is() -> None:
    classifier = MLPClassifier(**QUICK).fit(X, TARGETS["one class"])
    classifier.intercepts_[-1] += 100.0
    labels, probabilities = _run(_converted(classifier, X), X)
    np.testing.assert_array_equal(labels, classifier.predict(X))
    np.testing.assert_allclose(probabilities, [[0.0, 1.0]] * 150, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["two classes", "three classes", "multilabel"])
def test_raw_scores_are_logits(kind: str) -> None:
    classifier = MLPClassifier(**QUICK).fit(X, TARGETS[kind])
    options = {MLPClassifier: {"zipmap": False, "raw_scores": True}}
    labels, scores = _run(_converted(classifier, X, options=options), X)
    np.testing.assert_array_equal(labels, classifier.predict(X))
    z = classifier.decision_function(X)
    z = np.c_[-z, z] if kind == "two classes" else z
    np.testing.assert_allclose(scores, z, rtol=1e-12, atol=1e-12)


def test_probabilities_by_label() -> None:
    x = X.astype("float32")  # the only type of ONNX's ZipMap
    classifier = MLPClassifier(**QUICK).fit(x, TARGETS["strings"])
    labels, by_label = _run(_converted(classifier, x, options=None), x)
    assert [max(each, key=each.get) for each in by_label] == list(labels)
    _, first, *_ = _run(_converted(classifier, x, options={"zipmap": "columns"}), x)
    np.testing.assert_allclose(first, classifier.predict_proba(x)[:, 0], rtol=0, atol=CLOSE["float32"])


def test_indices_for_labels() -> None:
    classifier = MLPClassifier(**QUICK).fit(X, TARGETS["strings"])
    labels, _ = _run(_converted(classifier, X, options={"zipmap": False, "nocl": True}), X)
    np.testing.assert_array_equal(classifier.classes_[labels], classifier.predict(X))


# -- regressors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize(
    ("y", "parameters"),
    [
        (VALUES, {}),
        (np.c_[VALUES, X[:, 0]], {}),
        (np.round(abs(VALUES)), {"loss": "poisson"}),
        (abs(VALUES), {"output_activation": "softplus", "loss": "huber"}),
    ],
    ids=["one value", "two values", "counts", "softplus"],
)
def test_regressor_in_a_pipeline(y: Any, parameters: dict[str, Any], dtype: str) -> None:
    x = X.astype(dtype)
    model = make_pipeline(StandardScaler(), MLPRegressor(**QUICK | parameters)).fit(x, y.astype(dtype))
    [values] = _run(_converted(model, x), x)
    assert values.dtype == dtype
    expected = model.predict(x).reshape(150, -1)  # to 10 in size
    np.testing.assert_allclose(values, expected, rtol=0, atol=10 * CLOSE[dtype])


# -- inside of other estimators ----------------------------------------------------------------------------------------


def _calibrated() -> Any:
    return calibration.CalibratedClassifierCV(MLPClassifier(**QUICK), cv=2)


def _stacked() -> Any:
    parts = [("mlp", MLPClassifier(**QUICK)), ("line", linear_model.LogisticRegression())]
    return ensemble.StackingClassifier(parts, cv=2)


def _by_columns() -> Any:
    columns = compose.ColumnTransformer([("a", StandardScaler(), [0, 2]), ("b", MinMaxScaler(), [1, 3])])
    return make_pipeline(columns, MLPClassifier(**QUICK))


def _searched() -> Any:
    scaled = make_pipeline(StandardScaler(), MLPClassifier(**QUICK))
    return model_selection.GridSearchCV(scaled, {"mlpclassifier__alpha": [1e-4, 1.0]}, cv=2)


@pytest.mark.parametrize("around", [_calibrated, _stacked, _by_columns, _searched])
@pytest.mark.parametrize("kind", ["two classes", "strings"])
def test_inside_of_other_estimators(around: Callable[[], Any], kind: str) -> None:
    x = X.astype("float32")
    model = around().fit(x, TARGETS[kind])
    labels, probabilities = _run(_converted(model, x), x)
    np.testing.assert_array_equal(labels, model.predict(x))
    np.testing.assert_allclose(probabilities, model.predict_proba(x), rtol=0, atol=10 * CLOSE["float32"])


def test_integers_are_taken() -> None:
    x = np.round(10 * X).astype(np.int64)
    regressor = MLPRegressor(**QUICK).fit(x, VALUES)
    [values] = _run(_converted(regressor, x), x)
    np.testing.assert_allclose(values.ravel(), regressor.predict(x), rtol=1e-4)


def test_from_the_cuda_backend_too(device: str) -> None:
    classifier = MLPClassifier(**QUICK | {"max_iter": 2}, backend=device).fit(X, KINDS)
    _, probabilities = _run(_converted(classifier, X), X)
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), rtol=0, atol=CLOSE["float64"])


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_is_refused() -> None:
    classifier = MLPClassifier(**QUICK)
    with pytest.raises(exceptions.NotFittedError):
        _converted(classifier, X)
    classifier.fit(X, KINDS)
    with pytest.raises(InvalidValue, match="target_opset must be 16 or later, got 15"):
        _converted(classifier, X, target_opset=15)
    assert _converted(classifier, X, target_opset=16).opset_import[0].version == 16
    halves = MLPClassifier(**QUICK).fit(X, KINDS)
    halves.classes_ = np.array([0.0, 0.5, 1.0])
    with pytest.raises(InvalidValue, match=r"integers or strings, got the classes \[0\.0, 0\.5, 1\.0\]"):
        _converted(halves, X)
    classifier.coefs_[0][0, 0] = np.nan
    with pytest.raises(InvalidValue, match="NaN or infinity"):
        _converted(classifier, X)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(MissingDependency, match=r"pip install 'gpubackprop\[onnx\]'"):
        register_onnx_converters()
