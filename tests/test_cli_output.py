"""Output of the command if numbers are not finite, and if nobody reads it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop import streams
from gpubackprop.cli import main
from gpubackprop.errors import DivergenceWarning
from gpubackprop.history import History, finite

COMMAND = [sys.executable, "-m", "gpubackprop"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
BUFFERED = {**ENVIRONMENT, "PYTHONUNBUFFERED": ""}  # what is printed waits until it is flushed
QUICK = ["--hidden", "3", "--epochs", "2"]
LINUX = pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the streams")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    X = numpy.random.default_rng(0).normal(size=(40, 2))
    rows = "".join(f"{a},{b},{int(a > b)}\n" for a, b in X)
    (tmp_path / "t.csv").write_text(f"a,b,c\n{rows}")
    return tmp_path / "t.csv"


def _model(path: Path, weight: float, dtype: str = "float32") -> Path:
    net = gb.Network([2, 1], backend="numpy", dtype=dtype)
    for W, b in net.parameters:
        W[...], b[...] = weight, 0
    net.save(path)
    return path


# -- numbers that are not finite ---------------------------------------------------------------------------------------


def test_history_is_strict_json() -> None:
    history = History(3, "NumPy", loss=[1.0, float("nan"), float("inf")], validation_loss=[-float("inf")])
    found = history.to_dict()
    assert (found["loss"], found["validation_loss"]) == ([1.0, None, None], [None])
    json.dumps(found, allow_nan=False)
    assert finite({"a": [float("nan"), {"b": float("inf"), "c": "NaN"}]}) == {"a": [None, {"b": None, "c": "NaN"}]}


def test_history_of_train_is_strict_json(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpubackprop.cli.train.figures_of", lambda *_: {"accuracy": float("nan")})
    out = table.with_name("out")
    main(["train", str(table), *QUICK, "--out", str(out)])

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads((out / "history.json").read_text(), parse_constant=refuse)
    assert found["test"] == {"accuracy": None}


@pytest.mark.parametrize("to_a_file", [True, False])
def test_predictions_that_are_not_finite(to_a_file: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numpy.save(tmp_path / "x.npy", [[1.0, 2.0], [3e38, 3e38], [0.0, 1.0]])
    out = tmp_path / "p.csv"
    more = ["--out", str(out)] if to_a_file else []
    model = _model(tmp_path / "m.safetensors", 10.0)
    assert main(["predict", str(model), str(tmp_path / "x.npy"), *more]) == 1
    said = capsys.readouterr()
    assert "1 of 3 predictions are NaN or infinite, the first that of row 2 of" in said.err
    assert (said.out, out.exists()) == ("", False)


def test_a_feature_beyond_the_range_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.csv").write_text("w,h\n1,2\n3,1e39\n")
    model = _model(tmp_path / "m.safetensors", 1.0)
    assert main(["predict", str(model), str(tmp_path / "x.csv")]) == 2
    assert "x.csv: line 3, column 2 (h) is 1e+39" in capsys.readouterr().err
    assert main(["predict", str(_model(tmp_path / "m.safetensors", 1.0, "float64")), str(tmp_path / "x.csv")]) == 0


@pytest.mark.parametrize(
    ("stream", "says"), [([], "t.csv: column 3 (c) holds"), (["--stream"], "t.npy: column 3 holds")]
)
def test_a_column_that_cannot_be_scaled_is_named_as_in_the_file(
    stream: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X = numpy.random.default_rng(0).normal(size=(20, 4))
    X[:, 2] = 1e200 * X[:, 2]
    numpy.save(tmp_path / "t.npy", X)
    numpy.savetxt(tmp_path / "t.csv", X, delimiter=",", header="a,b,c,d", comments="")
    path = tmp_path / ("t.npy" if stream else "t.csv")
    call = ["train", str(path), *QUICK, "--task", "regression", "--target", "1", *stream, "--out", str(tmp_path / "o")]
    assert main(call) == 2
    assert says in capsys.readouterr().err


def test_a_target_that_cannot_be_scaled_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = numpy.random.default_rng(0).normal(size=(20, 2))
    numpy.savetxt(tmp_path / "t.csv", X * [1, 1e200], delimiter=",", header="a,b", comments="")
    call = ["train", str(tmp_path / "t.csv"), *QUICK, "--task", "regression", "--out", str(tmp_path / "o")]
    assert main(call) == 2
    assert "t.csv: the target (b) holds values too large" in capsys.readouterr().err


# -- two dashes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--target=--", "--drop=--"])
def test_two_dashes_are_the_name_of_a_column(option: str, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(table), option]) == 2
    assert "no column '--'; accepted is a name, or a number from 1" in capsys.readouterr().err
    table.write_text(table.read_text().replace("b", "--", 1))
    assert main(["train", str(table), *QUICK, option, "--task", "regression", "--out", str(table.with_name("o"))]) == 0


@pytest.mark.parametrize(
    "call", [["train", "digits", "--seed=--"], ["launch", "-n--", "train"], ["bench", "--out=--", "-x"]]
)
def test_two_dashes_are_no_number(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(call)
    assert ended.value.code == 2


def test_a_number_of_a_column_that_is_too_long(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(table), "--target", "9" * 5000]) == 2
    assert "no column" in capsys.readouterr().err


# -- streams that nobody reads -----------------------------------------------------------------------------------------


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


class _Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        if not self.closed:
            raise BrokenPipeError


STREAMS: dict[str, Any] = {"none": lambda: None, "closed": _closed, "broken": _Broken}


@pytest.mark.parametrize("kind", STREAMS)
def test_errors_of_the_command_that_nobody_reads(kind: str, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", STREAMS[kind]())
    assert main(["train", str(table), "--target", "9"]) == 2
    assert main(["train", str(table), *QUICK, "--out", str(table.with_name("o"))]) == 0
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == 2


@pytest.mark.parametrize("kind", ["none", "closed"])
def test_a_report_that_nobody_reads(kind: str, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", STREAMS[kind]())
    assert main(["train", str(table), *QUICK, "--out", str(table.with_name("o"))]) == 0


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("progress", [True, None])
def test_training_goes_on_without_stderr(kind: str, progress: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    net = gb.Network([2, 1], backend="numpy", seed=0)
    X = numpy.random.default_rng(0).normal(size=(20, 2))
    monkeypatch.setattr(sys, "stderr", STREAMS[kind]())
    assert len(gb.fit(net, X, X[:, 0], epochs=2, progress=progress).loss) == 2


DIVERGES = """
import sys, numpy, gpubackprop as gb
sys.stderr.close()
x = numpy.arange(20.0).reshape(10, 2)
net = gb.Network([2, 1], backend="numpy", seed=0)
print(gb.fit(net, x, x[:, 0], optimizer=gb.optimizers.SGD(1e30), epochs=5).stopped_because)
"""


def test_a_warning_that_nobody_reads_is_no_error() -> None:
    call = [sys.executable, "-c", DIVERGES]
    ended = subprocess.run(call, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    assert "diverged" in ended.stdout


def test_a_warning_names_the_line_of_the_caller() -> None:
    with pytest.warns(DivergenceWarning) as caught:
        streams.warn("text", DivergenceWarning, stacklevel=1)
    assert caught[0].filename == __file__
    with warnings.catch_warnings(), pytest.raises(DivergenceWarning):
        warnings.simplefilter("error")
        streams.warn("text", DivergenceWarning, stacklevel=1)


@LINUX
@pytest.mark.parametrize("arguments", ["--help", "--version", "train t.csv --target 9"])
@pytest.mark.parametrize("streams", [">/dev/full", "2>/dev/full", "2>&-", ">&- 2>&-", "| :", "2>&1 >/dev/null | :"])
def test_status_is_that_of_the_command(arguments: str, streams: str, table: Path) -> None:
    """A shell of its own says the status, for a pipe has that of its last command."""
    script = f'{{ "$@"; echo $? >status; }} {streams}'
    call = ["sh", "-c", script, "sh", *COMMAND, *arguments.split()]
    ended = subprocess.run(call, cwd=table.parent, env=BUFFERED, capture_output=True, check=False)
    status = int((table.parent / "status").read_text())
    assert status in ({0} if arguments.startswith("--") else {2, 141, 1} if "full" in streams else {2, 141})
    assert b"Traceback" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr
