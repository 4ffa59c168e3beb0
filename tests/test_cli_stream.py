"""`gpubackprop train data.npy --stream`: the file is not loaded, and what comes of it is what comes of loading it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubackprop as gb
from gpubackprop import streaming
from gpubackprop.cli import main, ondisk
from gpubackprop.cli.columns import Asked
from gpubackprop.cli.datasets import to_train_on
from gpubackprop.cli.scaling import Scale

RNG = np.random.default_rng(3)
M = 600
ARGUMENTS = ["--hidden", "12", "--epochs", "30", "--backend", "numpy", "--lr", "0.02", "--batch-size", "32"]


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ondisk, "BLOCK_BYTES", 7 * 8 * 8)
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 4 * 32 * 4 * 8)


def _table(path: Path, kind: str) -> Path:
    """Write features in unlike units, one constant, and in the second column what is to be predicted."""
    X = np.column_stack([RNG.normal(5000, 20, M), RNG.normal(size=M), RNG.normal(size=M) * 1e-3, np.full(M, 7.0)])
    score = (X[:, 0] - 5000) / 20 + X[:, 1] + X[:, 2] * 1e3
    y = {"classes": np.digitize(score, [-1, 1]) * 10.0 + 10, "values": 300 + 40 * score}[kind]
    np.save(path, np.insert(X, 1, y, axis=1))
    return path


def _trained(path: Path, out: Path, *more: str) -> dict[str, Any]:
    assert main(["train", str(path), "--target", "2", "--out", str(out), *ARGUMENTS, *more]) == 0
    return json.loads((out / "history.json").read_text())


@pytest.mark.parametrize(("kind", "figure", "bound"), [("classes", "accuracy", 0.9), ("values", "R2", 0.97)])
def test_it_learns_as_from_memory(
    kind: str, figure: str, bound: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _table(tmp_path / "data.npy", kind)
    loaded = _trained(path, tmp_path / "loaded")
    said_loaded = capsys.readouterr().out
    streamed = _trained(path, tmp_path / "streamed", "--stream")
    said = capsys.readouterr().out
    assert (loaded["data"], loaded["samples"]) == ("in memory", streamed["samples"])
    assert streamed["data"].startswith("read in windows of")
    assert streamed["data"] in said
    for report in (loaded, streamed):
        assert report["test"][figure] > bound
    for topic in ("data", "network"):  # the same rows are held out, columns standardised, units in the network
        line = re.search(rf"^{topic} .*$", said, re.MULTILINE)
        assert line and line[0] in said_loaded
    # The network takes the file's own units, as every model of `train` does.
    net, matrix = gb.load(tmp_path / "streamed" / "model.safetensors", backend="numpy"), np.load(path)
    outputs = net.predict(np.delete(matrix, 1, axis=1))
    right = (10 + 10 * outputs.argmax(axis=1) == matrix[:, 1]).mean() if kind == "classes" else None
    assert right is None or right > bound


def test_scales_are_those_of_memory(tmp_path: Path) -> None:
    """Merged over blocks: rounding of some hundred additions, each of eps of the column's largest, in units of it."""
    data = to_train_on(str(_table(tmp_path / "data.npy", "values")), Asked("2"), None, stream=True)
    rows = data.split(0)[0]
    X = np.delete(np.load(tmp_path / "data.npy"), 1, axis=1)[rows]
    for one_unit, expected in ((False, Scale.standard(X)), (True, Scale.one_unit(X))):
        found = data.X.scale(rows, one_unit)
        np.testing.assert_allclose(found.m, expected.m, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.k, expected.k, rtol=1e-10)
    np.testing.assert_array_equal(data.y, np.load(tmp_path / "data.npy")[:, 1])


@pytest.mark.parametrize("levels", [True, False])
def test_pixels_are_scaled_alike(levels: bool, tmp_path: Path) -> None:
    X = RNG.integers(0, 256, (50, 64)).astype("float32")
    X[0, 0] = 0 if levels else 0.5
    X[1, 1] = 0
    np.save(tmp_path / "pixels.npy", np.column_stack([X, np.arange(50) % 3]))
    assert to_train_on(str(tmp_path / "pixels.npy"), Asked(), None, stream=True).one_unit == levels
    assert to_train_on(str(tmp_path / "pixels.npy"), Asked(), None).one_unit == levels


def test_large_labels_stay_apart(tmp_path: Path) -> None:
    """As integers of 64 bits, which float64 would merge."""
    y = 2**60 + np.arange(40) % 2
    np.save(tmp_path / "large.npy", np.column_stack([np.arange(40), y]))
    for stream in (True, False):
        data = to_train_on(str(tmp_path / "large.npy"), Asked(), "classification", stream=stream)
        assert data.classes == [str(2**60), str(2**60 + 1)]
        np.testing.assert_array_equal(data.y, np.arange(40) % 2)


def test_a_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    path, folder = _table(tmp_path / "data.npy", "classes"), str(tmp_path / "checkpoints")
    _trained(path, tmp_path / "whole", "--stream")
    more = ["--stream", "--checkpoint", folder]
    _trained(path, tmp_path / "first", *more)
    newest = sorted(Path(folder).iterdir())
    newest[-1].unlink()  # as if it had been killed an epoch before the end
    _trained(path, tmp_path / "resumed", *more, "--resume")
    whole, resumed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed"))
    assert whole == resumed


BAD = {
    "a .csv file": ("data.csv", lambda path: path.write_text("1,2\n3,4\n"), "--stream is for .npy files"),
    "a vector": ("data.npy", lambda path: np.save(path, np.arange(9.0)), "has the shape (9,)"),
    "nothing": ("data.npy", lambda path: np.save(path, np.zeros((0, 3))), "has the shape (0, 3)"),
    "objects": ("data.npy", lambda path: np.save(path, np.array([[{}, 1]])), "must hold real numbers"),
    "NaN": ("data.npy", lambda path: np.save(path, _with_nan()), "row 34, column 3 is nan"),
    "NaN in the target": ("data.npy", lambda path: np.save(path, _with_nan()[:, :3]), "the target holds NaN"),
    "cut": ("data.npy", lambda path: _cut(path), "ends before its array"),
}


def _with_nan() -> np.ndarray:
    matrix = RNG.normal(size=(50, 4))
    matrix[33, 2] = np.nan
    return matrix


def _cut(path: Path) -> None:
    np.save(path, RNG.normal(size=(50, 4)))
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("what", BAD)
def test_bad_files(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, write, says = BAD[what]
    write(tmp_path / name)
    assert main(["train", str(tmp_path / name), "--stream", *ARGUMENTS, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_named_set_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--stream"]) == 2
    assert "the data set digits is none" in capsys.readouterr().err
