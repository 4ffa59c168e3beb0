"""The names that completion shows, and the types that a script of a user's gets of them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gpubackprop as gb

TABLES: dict[str, dict[str, Any]] = {
    "activations": gb.activations.ACTIVATIONS,
    "losses": gb.losses.LOSSES,
    "optimizers": gb.optimizers.OPTIMIZERS,
    "schedules": gb.schedules.SCHEDULES,
}
MODULES = ["", *TABLES, "initializers", "errors", "sklearn"]


def _module(name: str) -> Any:
    if name == "sklearn":
        pytest.importorskip("sklearn", minversion="1.9")
    return importlib.import_module(f"gpubackprop.{name}".rstrip("."))


@pytest.mark.parametrize("name", MODULES)
def test_completion_shows_public_names_only(name: str) -> None:
    module = _module(name)
    assert dir(module) == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in dir(module):
        found = getattr(module, public)
        assert not public.startswith("_") or public == "__version__"
        kept = getattr(found, "__module__", getattr(found, "__package__", "gpubackprop"))
        assert kept.startswith("gpubackprop") or public == "Schedule"


@pytest.mark.parametrize("name", TABLES)
def test_completion_shows_every_row(name: str) -> None:
    module = _module(name)
    rows = {row: public for public in dir(module) if not isinstance(row := getattr(module, public), dict)}
    assert set(TABLES[name].values()) <= set(rows)


SCRIPT = """
from typing import assert_type
import numpy as np
import gpubackprop as gb
from gpubackprop.sklearn import MLPClassifier, MLPRegressor

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
X: Floats = np.zeros((4, 2))
y: Floats = np.zeros(4)
net = gb.Network([2, 3, 1], activation=gb.activations.leaky_relu(slope=0.1), dtype=np.float64)
history = gb.fit(net, X, y, optimizer=gb.optimizers.Adam(1e-2), epochs=2, validation_data=(X, y))
assert_type(net.predict(X), np.ndarray)
assert_type(net.predict([[1.0, 2.0]], batch_size=1), np.ndarray)
assert_type(net.forward(X), np.ndarray)
assert_type(net.evaluate(X, y), float)
assert_type(history.loss, list[float])
assert_type(gb.load("model"), gb.Network)
assert_type(gb.check_gradients(net, X, y), gb.GradientCheck)
classifier = MLPClassifier(hidden_layer_sizes=(4,), max_iter=3).fit(X, y)
assert_type(classifier, MLPClassifier)
assert_type(classifier.predict(X), np.ndarray)
assert_type(classifier.predict_proba(X), np.ndarray)
assert_type(MLPRegressor().fit(X, y).predict(X), np.ndarray)
assert_type(MLPRegressor.load("model"), MLPRegressor)
net.predict(X, rows=3)  # type: ignore[call-overload]
gb.Network([2, 1], seed="0")  # type: ignore[arg-type]
"""
SETTINGS = """
[mypy]
strict = True
follow_imports = silent
disallow_any_generics = False
[mypy-sklearn.*]
ignore_missing_imports = True
"""


def test_a_script_of_a_users_is_typed(need: Any, tmp_path: Path) -> None:
    need("mypy")
    pytest.importorskip("sklearn", minversion="1.9")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    root = str(Path(gb.__file__).parents[1])
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "script.py"]
    run = subprocess.run(command, cwd=tmp_path, env={"MYPYPATH": root, "PATH": ""}, capture_output=True, text=True)
    assert run.stdout.startswith("Success"), run.stdout + run.stderr
