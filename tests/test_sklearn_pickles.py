"""Estimators through pickle, joblib and cloudpickle, and into a process that has no CuPy."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import host_cublaslt
import joblib
import numpy as np
import pytest
from cuda_backends import forget
from sklearn import datasets, pipeline, preprocessing

import gpubackprop as gb
from gpubackprop.backends import devices
from gpubackprop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, LABELS = datasets.load_iris(return_X_y=True)
X = preprocessing.scale(X)
VALUES = X @ [1.0, -2.0, 0.5, 0.3]
QUICK: dict[str, Any] = {"max_iter": 4, "random_state": 0, "hidden_layer_sizes": (6,)}

Writer = Callable[[Any, Path], None]


def _writer(how: str, need: Any) -> Writer:
    """Return what writes an object to a file; pickle reads all of them but joblib's."""
    if how == "joblib":
        return lambda estimator, path: joblib.dump(estimator, path, compress=3)
    if how == "cloudpickle":
        need("cloudpickle")
    module = importlib.import_module(how)
    return lambda estimator, path: path.write_bytes(module.dumps(estimator))


def _read(how: str, path: Path) -> Any:
    return joblib.load(path) if how == "joblib" else pickle.loads(path.read_bytes())


@pytest.mark.parametrize("how", ["pickle", "joblib", "cloudpickle"])
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_there_and_back(kind: Any, solver: str, how: str, need: Any, tmp_path: Path) -> None:
    y = LABELS if kind is MLPClassifier else VALUES
    row = gb.activations.leaky_relu(slope=0.2)  # its formulas are lambdas
    first = kind(**QUICK, solver=solver, activation=[row] if how == "cloudpickle" else "gelu").fit(X, y)
    _writer(how, need)(first, tmp_path / "model")
    again = _read(how, tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X), first.predict(X))
    assert [x.tobytes() for x in again.coefs_] == [x.tobytes() for x in first.coefs_]
    assert (again.backend_, again.device_, again.n_iter_) == (first.backend_, first.device_, first.n_iter_)
    if solver != "lbfgs":
        for estimator in (first, again):
            estimator.partial_fit(X, y, epochs=2)
        np.testing.assert_array_equal(again.predict(X), first.predict(X))


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_an_unfitted_one_and_one_in_a_pipeline(how: str, need: Any, tmp_path: Path) -> None:
    _writer(how, need)(MLPClassifier(**QUICK), tmp_path / "unfitted")
    own = _read(how, tmp_path / "unfitted").fit(X, LABELS)
    np.testing.assert_array_equal(own.coefs_[0], MLPClassifier(**QUICK).fit(X, LABELS).coefs_[0])
    scaled = pipeline.make_pipeline(preprocessing.StandardScaler(), MLPClassifier(**QUICK)).fit(X, LABELS)
    _writer(how, need)(scaled, tmp_path / "pipeline")
    np.testing.assert_array_equal(_read(how, tmp_path / "pipeline").predict(X), scaled.predict(X))


_SERVE = """
import json, pickle, sys, warnings
import joblib, numpy
how, path, examples, backend = sys.argv[1:]
sys.modules["cupy"] = None
X = numpy.load(examples)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = joblib.load(path) if how == "joblib" else pickle.load(open(path, "rb"))
said = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
before = model.predict_proba(X).tolist()
model.set_params(backend="numpy").partial_fit(X, numpy.arange(len(X)) % 3)
loaded = sorted({name.partition(".")[0] for name in sys.modules} & {"fake_cupy", "host_cuda", "test_sklearn_pickles"})
print(json.dumps([said, before, model.predict_proba(X).tolist(), model.backend_, loaded]))
"""


@pytest.mark.parametrize("how", ["pickle", "joblib", "cloudpickle"])
def test_into_another_process_without_cupy(how: str, stand_in: str, need: Any, tmp_path: Path) -> None:
    told: dict[str, Any] = {}
    if how == "cloudpickle":
        told["activation"] = gb.activations.Activation(
            "cube", lambda m, z: z * z * z / 9.0, lambda m, z, a: z * z / 3.0
        )
    model = MLPClassifier(**QUICK, **told, backend=stand_in).fit(X, LABELS)
    _writer(how, need)(model, tmp_path / "model")
    np.save(tmp_path / "X.npy", X)
    paths = [str(tmp_path / "model"), str(tmp_path / "X.npy")]
    root = str(Path(gb.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", _SERVE, how, *paths, stand_in],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
    )
    said, before, after, backend, loaded = json.loads(run.stdout)
    assert len(said) == 1
    assert "CuPy" in said[0]
    assert said[0].endswith("this MLPClassifier runs on NumPy")
    assert (backend, loaded) == ("numpy", [])
    np.testing.assert_allclose(before, model.predict_proba(X), rtol=1e-10)
    model.set_params(backend="numpy").partial_fit(X, np.arange(150) % 3)
    np.testing.assert_allclose(after, model.predict_proba(X), rtol=1e-9)


@pytest.fixture
def narrow(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend that multiplies in reduced precision too."""
    monkeypatch.setattr(devices, "_products", host_cublaslt.products)
    forget()
    return stand_in


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("how", ["pickle", "file"])
def test_from_a_reduced_precision_to_a_host_without(
    precision: str, named: bool, how: str, narrow: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    x = X.astype("float32")
    model = MLPClassifier(**QUICK, precision=precision, backend=narrow if named else "auto").fit(x, LABELS)
    told, packed = model.predict_proba(x), pickle.dumps(model)
    assert model.backend_ == "cuda"
    model.save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "cupy", None)
    forget()
    warned = pytest.warns(RuntimeWarning, match="CuPy.*; this MLPClassifier runs on NumPy")
    with warned if named else contextlib.nullcontext():
        served = pickle.loads(packed) if how == "pickle" else MLPClassifier.load(tmp_path / "model")
    assert (served.backend_, served.precision) == ("numpy", precision)
    # logits up to 4, of products whose factors and sum are each rounded by 2⁻⁹: 4 * 3 * 2⁻⁹ = 0.023 in log p
    np.testing.assert_allclose(served.predict_proba(x), told, rtol=2.0**-5)
    with pytest.raises(ValueError, match="precision must be one of 'float32'"):  # training does not give it up
        served.set_params(backend="numpy").partial_fit(x, LABELS)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_double_precision_beside_a_reduced_one(precision: str, narrow: str) -> None:
    x = X.astype("float32")
    model = MLPClassifier(**QUICK, precision=precision, backend=narrow, solver="lbfgs")
    model.fit(x, LABELS)  # L-BFGS leaves parameters in double precision
    assert model.predict_proba(x).dtype == "float64"
    model.set_params(solver="adam").fit(x, LABELS).coefs_ = [W.astype("float64") for W in model.coefs_]
    assert model.predict_proba(x).dtype == "float64"


def test_pickle_says_that_it_takes_no_lambda() -> None:
    cube = gb.activations.Activation("cube", lambda m, z: z * z * z, lambda m, z, a: 3.0 * z * z)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(MLPClassifier(**QUICK, activation=cube).fit(X, LABELS))
