"""Estimators in files without pickle: what comes back, what a broken or hostile file gets, what cannot be written."""

from __future__ import annotations

import errno
import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cuda_backends import forget
from sklearn import config_context, datasets, preprocessing
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import NotFittedError

import gpubackprop as gb
from gpubackprop.errors import InvalidType, InvalidValue, ModelFileError
from gpubackprop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, LABELS = datasets.load_iris(return_X_y=True)
X = preprocessing.scale(X)
VALUES = X @ [1.0, -2.0, 0.5, 0.3]
QUICK: dict[str, Any] = {"max_iter": 4, "random_state": 0, "hidden_layer_sizes": (6,)}
cube = gb.activations.Activation("cube", lambda m, z: z * z * z, lambda m, z, a: 3.0 * z * z)
hump = gb.activations.Activation("hump", lambda m, z: 0.5 * m.tanh(z) + 0.5, lambda m, z, a: 2.0 * a * (1.0 - a))


def _again(estimator: Any, path: Path, **told: Any) -> Any:
    estimator.save(path / "model")
    return type(estimator).load(path / "model", **told)


def _same(a: Any, b: Any, x: Any = X) -> None:
    """Assert that two estimators are one in all that predicts, records and goes on."""
    np.testing.assert_array_equal(a.predict(x), b.predict(x))
    assert a.predict(x).dtype == b.predict(x).dtype
    learnt, again = ({n: v for n, v in vars(e).items() if n != "_random_state"} for e in (a, b))
    ignored = {"_network", "_coef_indptr", "_intercept_indptr", "_best_coefs", "_best_intercepts"}
    assert learnt.keys() - ignored == again.keys() - ignored
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_", "best_loss_", "loss_", "t_", "n_iter_"):
        assert getattr(a, name, "none") == getattr(b, name, "none")
    assert [W.tobytes() for W in (*a.coefs_, *a.intercepts_)] == [W.tobytes() for W in (*b.coefs_, *b.intercepts_)]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.5},
        {"solver": "sgd", "momentum": 0.0},
        {"solver": "lbfgs", "alpha": np.float64(0.1)},
        {"early_stopping": True, "n_iter_no_change": np.inf, "warm_start": True},
        {"optimizer": "rmsprop", "dropout": 0.25, "activation": ["tanh"]},
        {"optimizer": gb.optimizers.AdamW(gb.schedules.WarmUp(gb.schedules.Cosine(0.01, steps=50), steps=9))},
        {"class_weight": {0: 1.0, np.int64(1): 2, 2: 0.5}, "hidden_layer_sizes": np.array([5, 4])},
        {"activation": gb.activations.leaky_relu(slope=0.3), "coefs_init": [np.ones((4, 6)), np.eye(6, 3)]},
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_comes_back_predicts_and_goes_on(parameters: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    x = X.astype(dtype)
    first = MLPClassifier(**QUICK | parameters).fit(x, LABELS)
    again = _again(first, tmp_path)
    _same(first, again, x)
    np.testing.assert_equal(again.get_params(), first.get_params())
    if first.solver == "lbfgs":
        return
    for estimator in (first, again):
        if first.early_stopping:
            estimator.fit(x, LABELS)
        else:
            estimator.set_params(random_state=1).partial_fit(x, LABELS, epochs=3)
    _same(first, again, x)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["setosa", "versicolor", "ä"])[LABELS],
        np.array(["setosa", "versicolor", "ä"], dtype=object)[LABELS],
        LABELS > 0,
        np.where(LABELS > 0, "yes", "no"),
        LABELS * 2.0,
        LABELS.astype("int8") - 7,
        np.c_[LABELS > 0, LABELS == 1].astype(int),
    ],
    ids=lambda labels: f"{labels.dtype}-{labels.ndim}",
)
def test_labels_of_any_kind(labels: Any, tmp_path: Path) -> None:
    first = MLPClassifier(**QUICK).fit(X, labels)
    again = _again(first, tmp_path)
    _same(first, again)
    assert again.classes_.dtype == first.classes_.dtype
    np.testing.assert_array_equal(first.classes_, again.classes_)
    assert again.partial_fit(X, labels).score(X, labels) == first.partial_fit(X, labels).score(X, labels)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "huber", gb.losses.quantile(q=0.9)])
def test_a_regressor_with_named_features(loss: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "ö", "d"])
    first = MLPRegressor(loss, **QUICK).fit(frame, abs(np.c_[VALUES, VALUES**2]), X_val=frame, y_val=abs(X[:, :2]))
    again = _again(first, tmp_path)
    _same(first, again, frame)
    np.testing.assert_array_equal(again.feature_names_in_, list(frame))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        again.predict(X)


def test_rows_of_the_user_are_given_again(tmp_path: Path) -> None:
    first = MLPClassifier(**QUICK, activation=[cube], output_activation=hump).fit(X, LABELS > 0)
    _same(first, _again(first, tmp_path, rows=[cube, hump]))
    with pytest.raises(ModelFileError, match="'cube' is no row of this package: pass your own as rows"):
        MLPClassifier.load(tmp_path / "model")
    namesake = gb.activations.Activation("tanh", lambda m, z: z * z, lambda m, z, a: 2.0 * z)
    with pytest.raises(InvalidValue, match="two rows with the name 'tanh'"):
        MLPClassifier(**QUICK, activation=namesake).fit(X, LABELS).save(tmp_path / "model")


def test_metadata_requests_come_back(tmp_path: Path) -> None:
    with config_context(enable_metadata_routing=True):
        first = MLPClassifier(**QUICK).set_fit_request(sample_weight="w").set_score_request(sample_weight=False)
        again = _again(first.fit(X, LABELS), tmp_path)
        assert str(again.get_metadata_routing()) == str(first.get_metadata_routing())


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Fortran": np.asfortranarray,
    "transposed": lambda W: np.ascontiguousarray(W.T).T,
    "strided": lambda W: np.repeat(W, 2, axis=0)[::2],
    "big-endian": lambda W: W.astype(W.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_that_a_user_sets_lie_in_memory_as_they_like(layout: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    initial = [LAYOUTS[layout](rng.normal(size=shape)) for shape in ((4, 6), (6, 3))]
    first = MLPClassifier(**QUICK, coefs_init=initial).fit(X, LABELS)
    expected = first.predict_proba(X)
    first.coefs_ = [LAYOUTS[layout](W) for W in first.coefs_]
    again = _again(first, tmp_path)
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    for one, other in zip(again.coefs_init, initial, strict=True):
        np.testing.assert_array_equal(one, other)


class _Optimizer(gb.optimizers.Adam):
    """A user's own."""


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"random_state": np.random.RandomState(0)}, "random_state cannot be written .* it is a RandomState"),
        ({"optimizer": gb.optimizers.SGD(lambda t: 0.1)}, "optimizer.learning_rate cannot .* it is a function"),
        ({"coefs_init": [np.ma.ones((4, 6)), np.eye(6, 3)]}, r"coefs_init\[0\] cannot .* it is a MaskedArray"),
        ({"optimizer": _Optimizer()}, "optimizer cannot be written without pickle: it is a _Optimizer"),
    ],
)
def test_what_only_pickle_can_write(parameters: dict[str, Any], says: str, tmp_path: Path) -> None:
    MLPClassifier(**QUICK).fit(X, LABELS).save(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    with pytest.raises(InvalidType, match=says):
        MLPClassifier(**QUICK | parameters).fit(X, LABELS).save(tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("before", "after"), [(None, "rmsprop"), ("rmsprop", None), ("adam", "adagrad")])
def test_an_optimizer_that_is_set_anew_begins_anew(before: Any, after: Any, tmp_path: Path) -> None:
    first = MLPClassifier(**QUICK, optimizer=before).fit(X, LABELS).set_params(optimizer=after)
    again = _again(first, tmp_path)
    for estimator in (first, again):
        estimator.set_params(random_state=1).partial_fit(X, LABELS)
    _same(first, again)


def test_an_optimizer_that_has_overflowed(tmp_path: Path) -> None:
    first = MLPRegressor(**QUICK)
    with np.errstate(over="ignore"):
        first.fit(X, 1e200 * VALUES)
    assert np.isinf(first._optimizer_state[1]).any()
    _same(first, _again(first, tmp_path))


def test_a_parameter_that_fit_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The 'alpha' parameter of MLPClassifier must be"):
        MLPClassifier(**QUICK).fit(X, LABELS).set_params(alpha=-1.0).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_what_is_not_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        MLPClassifier().save(tmp_path / "model")
    fitted = MLPClassifier(**QUICK).set_callbacks(ScoringMonitor(scoring="accuracy")).fit(X, LABELS)
    with pytest.raises(InvalidType, match=r"callbacks cannot be written .* call set_callbacks\(\)"):
        fitted.save(tmp_path / "model")
    fitted.set_callbacks().coefs_[0][0, 0] = np.nan
    with pytest.raises(InvalidValue, match="NaN or infinity"):
        fitted.save(tmp_path / "model")
    many = MLPRegressor(**QUICK).fit(
        pd.DataFrame(np.ones((3, 300)), columns=[f"{k:04000}" for k in range(300)]), [1, 2, 3]
    )
    with pytest.raises(InvalidValue, match="labels and names of features must take at most 1,048,576 bytes"):
        many.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("module", "name"), [(os, "fsync"), (Path, "replace")])
def test_a_write_that_fails_leaves_the_old_file(
    module: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (MLPClassifier(**QUICK | {"max_iter": n}).fit(X, LABELS) for n in (1, 3))
    old.save(tmp_path / "model")

    def fail(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(module, name, fail)
        new.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    _same(MLPClassifier.load(tmp_path / "model"), old)


def test_from_cuda_to_a_host_without(stand_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = MLPClassifier(**QUICK, backend=stand_in).fit(X, LABELS)
    told = classifier.predict_proba(X)
    np.testing.assert_array_equal(_again(classifier, tmp_path).predict_proba(X), told)
    monkeypatch.setitem(sys.modules, "cupy", None)
    forget()
    with pytest.warns(RuntimeWarning, match="CuPy.*; this MLPClassifier runs on NumPy"):
        served = MLPClassifier.load(tmp_path / "model")
    assert served.backend_ == "numpy"
    np.testing.assert_allclose(served.predict_proba(X), told, rtol=1e-10)


# -- files that are no such files --------------------------------------------------------------------------------------

Edit = Callable[[dict[str, Any], dict[str, np.ndarray]], Any]


def _edited(content: bytes, edit: Edit) -> bytes:
    """Return a file whose estimator, as JSON, and tensors somebody has edited in place."""
    import safetensors.numpy

    length = struct.unpack("<Q", content[:8])[0]
    about = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["gpubackprop"])
    tensors = safetensors.numpy.load(content)
    edit(about["estimator"], tensors)
    return safetensors.numpy.save(tensors, {"gpubackprop": json.dumps(about)})


def _dict(stored: dict[str, Any], *names: str) -> tuple[Any, int]:
    """Return the list of pairs in which an entry lies, and where."""
    for name in names[:-1]:
        pairs = stored[name]["dict"] if isinstance(stored, dict) else dict(stored)[name]["dict"]
        stored = pairs
    return stored, [key for key, _ in stored].index(names[-1])


def _set(*names: str, to: Any) -> Edit:
    def edit(about: dict[str, Any], tensors: Any) -> None:
        if len(names) == 1:
            about[names[0]] = to
        elif names[0] == "parameters":
            about["parameters"][names[1]] = to
        else:
            pairs, place = _dict(about, *names)
            pairs[place][1] = to

    return edit


def _tensor(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Edit:
    return lambda about, tensors: tensors.update({name: np.ascontiguousarray(make(tensors[name]))})


def _more(about: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["extra"] = np.ones(3)


def _twice(about: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    about["parameters"]["coefs_init"] = [{"array": "W_1"}] * 1000


HOSTILE: dict[str, tuple[Edit, str]] = {
    "another class": (_set("class", to="MLPRegressor"), "it holds a 'MLPRegressor'"),
    "a class to import": (_set("class", to="os.system"), "it holds a 'os.system'"),
    "an unknown parameter": (_set("parameters", "__class__", to=1), "unexpected keyword"),
    "a parameter out of range": (_set("parameters", "alpha", to=-1.0), "'alpha' parameter"),
    "a parameter of another kind": (_set("parameters", "solver", to=["adam"]), "'solver' parameter"),
    "a kind that does not exist": (_set("parameters", "random_state", to={"pickle": "Y29z"}), "'pickle' is no kind"),
    "two kinds at once": (_set("parameters", "random_state", to={"tuple": [], "dict": []}), "unpack"),
    "an object that is none of ours": (_set("parameters", "optimizer", to={"made": ["Popen", {}]}), "Popen"),
    "an object with other fields": (_set("parameters", "optimizer", to={"made": ["Adam", {"a": 1}]}), "keyword"),
    "an unknown row": (_set("parameters", "activation", to={"activation": {"name": "x", "parameters": {}}}), "'x'"),
    "layers for two activations": (_set("parameters", "activation", to=["tanh", "relu"]), "list of 1"),
    "an unknown output": (_set("attributes", "out_activation_", to="none"), "no entry 'none'"),
    "no output": (_set("attributes", to={"dict": []}), "out_activation_"),
    "an attribute that is a method": (_set("attributes", to={"dict": [["predict", 1]]}), "attributes are 'predict'"),
    "a count below zero": (_set("attributes", "t_", to=-1), "t_ is -1"),
    "a count by truth": (_set("attributes", "n_iter_", to=True), "n_iter_ is True"),
    "a loss in a string": (_set("attributes", "loss_", to="0.1"), "loss_ is '0.1'"),
    "labels too few": (_set("labels", "classes", to={"strings": [["a"], "U"]}), r"3 outputs for labels \(1,\)"),
    "labels that are numbers": (_set("labels", "classes", to={"strings": [[1, 2, 3], "U"]}), "are no strings"),
    "strings of another kind": (_set("labels", "classes", to={"strings": [["a", "b", "c"], "V9"]}), "are no strings"),
    "another task": (_set("labels", "task", to="regression"), "'regression'"),
    "no labels": (lambda about, tensors: about.pop("labels"), "no entry 'labels'"),
    "names too few": (_set("names", to={"strings": [["a"], "O"]}), r"4 features, and names \(1,\)"),
    "an unknown solver": (_set("optimizer", "rates", to=["SGD", {"dict": []}]), "no entry 'SGD'"),
    "another solver's numbers": (_set("optimizer", "rates", to=["SGDOptimizer", {"dict": []}]), "its SGDOptimizer is"),
    "steps below zero": (_set("optimizer", "t", to=-3), "took -3 steps"),
    "requests of a method that is none": (_set("requests", to={"dict": [["__init__", {"dict": []}]]}), "asks for"),
    "a request that is none": (_set("requests", to={"dict": [["fit", {"dict": [["w", 1.5]]}]]}), "alias"),
    "weights that do not fit": (_tensor("W_2", lambda x: x[:-1]), "do not fit each other"),
    "weights of two types": (_tensor("b_1", lambda x: x.astype("float32")), "of the types float32, float64"),
    "weights of integers": (_tensor("W_1", lambda x: x.astype("int64")), "of the types float64, int64"),
    "weights with NaN": (_tensor("W_1", lambda x: x * np.nan), "NaN or infinity"),
    "a bias that is a matrix": (_tensor("b_2", lambda x: x[:, None]), "do not fit each other"),
    "no weights": (lambda about, tensors: [tensors.pop(n) for n in ("W_1", "W_2")], "types|no entry"),
    "one weight less": (lambda about, tensors: tensors.pop("W_1"), "no entry 'W_2'|no entry 'W_1'"),
    "slots too few": (_tensor("array_6", lambda x: x[:1]), "its optimizer keeps"),
    "slots of another type": (_tensor("array_6", lambda x: x.astype("float32")), "its optimizer keeps"),
    "a curve of integers": (_tensor("array_4", lambda x: x.astype("int64")), "loss_curve_ is an array"),
    "one tensor more": (_more, "has also the tensors extra"),
    "a tensor a thousand times": (_twice, "no entry 'W_1'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_file(fault: str, tmp_path: Path) -> None:
    edit, says = HOSTILE[fault]
    path = tmp_path / "model"
    MLPClassifier(**QUICK).fit(X, LABELS).save(path)
    content = path.read_bytes()
    path.write_bytes(_edited(content, lambda about, tensors: None))
    MLPClassifier.load(path)
    path.write_bytes(_edited(content, edit))
    with pytest.raises(ModelFileError, match=says):
        MLPClassifier.load(path)
    path.unlink()  # nothing holds it open


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "model"
    gb.Network([4, 3]).save(path)
    with pytest.raises(ModelFileError, match=r"no entry 'estimator'.*written by MLPClassifier.save"):
        MLPClassifier.load(path)
    MLPClassifier(**QUICK).fit(X, LABELS).save(path)
    with pytest.raises(ModelFileError, match="no entry 'network'"):
        gb.load(path)
    with pytest.raises(ModelFileError, match="it holds a 'MLPClassifier'"):
        MLPRegressor.load(path)
    content = path.read_bytes()
    assert b"cos\nsystem" not in content
    for cut in range(0, len(content), 97):
        path.write_bytes(content[:cut])
        with pytest.raises(ModelFileError):
            MLPClassifier.load(path)
