"""benchmarks/gpu_check.py on the stand-in for CuPy: what it measures, shows and writes, by a clock that is given."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fake_cupy
import numpy as np
import pytest
from cuda_backends import forget

import gpubackprop as gb
from gpubackprop.backends.sources import KERNELS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
FILES = ("gpu_check", "kernel_runs", "kernel_times", "parity")
N = 4096  # elements: four rows of a hidden layer


def _script(name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return importlib.import_module(name)


gpu_check, kernel_runs, kernel_times, parity = map(_script, FILES)


class Event:
    """An event of a device on which everything takes a millisecond."""

    log: ClassVar[list[str]] = []

    def record(self) -> None:
        self.log.append("record")

    def synchronize(self) -> None:
        self.log.append("synchronize")


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in on a machine whose GPU keeps time."""
    made = fake_cupy.install(monkeypatch)
    monkeypatch.setattr(Event, "log", [])
    monkeypatch.setattr(made.cuda, "Event", Event, raising=False)
    monkeypatch.setattr(made.cuda, "get_elapsed_time", lambda start, stop: 1.0, raising=False)
    monkeypatch.setattr(made.runtime, "driverGetVersion", lambda: 13020, raising=False)
    forget()
    yield made
    forget()


def _cases(cupy: Any, storage: str) -> list[Any]:
    return kernel_runs.cases(kernel_runs.Arrays(kernel_runs.WithoutProducts(0, cupy, "none are timed"), storage, N))


# -- what is measured --------------------------------------------------------------------------------------------------


def test_every_kernel_has_an_entry() -> None:
    assert set(kernel_runs.KERNELS) == {path.stem for path in KERNELS.glob("*.cu")}
    assert set(kernel_times.ACROSS) < set(kernel_runs.KERNELS)


@pytest.mark.parametrize("storage", ["float32", "float64", "uint16"])
def test_every_kernel_is_launched_by_its_rows(storage: str, cupy: Any, need: Any, monkeypatch: Any) -> None:
    need("host")
    launched: list[str] = []
    launch = kernel_runs.WithoutProducts(0, cupy, "none are timed").kernels.__class__.launch
    monkeypatch.setattr(
        "gpubackprop.backends.kernels.Kernels.launch",
        lambda self, source, *rest: launched.append(source.kernel) or launch(self, source, *rest),
    )
    copy, *cases = _cases(cupy, storage)
    copy.run()
    assert (copy.kernel, launched) == ("copy", [])
    for case in cases:
        launched.clear()
        case.run()
        assert launched[0] == case.kernel
        assert set(launched[1:]) <= {"sum_rows"}
        for array in case.moved:
            assert array.dtype == "uint16" or np.isfinite(array.get()).all()
    # Some go over parameters and sums, which are never bfloat16; nothing else is cast.
    alone = {"penalty", "sum_rows", "weights"} if storage == "uint16" else {"cast"}
    assert {case.kernel for case in cases} == set(kernel_runs.KERNELS) - alone


BYTES = {  # by hand: rows of 1024 and of 10 columns, 4096 and 4090 elements
    ("float32", "copy", "device to device", (N,)): 2 * 4 * 4096,
    ("float32", "activate", "relu", (4, 1024)): 2 * 4 * 4096 + 4 * 1024,
    ("float32", "activate", "gelu, z kept", (4, 1024)): 3 * 4 * 4096 + 4 * 1024,
    ("uint16", "activate", "gelu, z kept, mask", (4, 1024)): 5 * 2 * 4096 + 4 * 1024,
    ("uint16", "copy", "device to device", (N,)): 2 * 4 * 4096,
    ("uint16", "cast", "of θ", (4, 1024)): 4 * 4096 + 2 * 4096,
    ("float64", "delta", "tanh with ∂b", (4, 1024)): 3 * 8 * 4096 + 8 * 1024,
    ("float32", "delta", "gelu with ∂b, mask", (4, 1024)): 4 * 4 * 4096 + 4 * 1024,
    ("uint16", "dropout", "Philox", (4, 1024)): 2 * 4096,
    ("float32", "gather", "rows at random", (4, 1024)): 2 * 4 * 4096 + 4 * 8,
    ("float32", "output", "mse of identity with ∂b", (4, 1024)): 3 * 4 * 4096 + 4 * 1024 + 4,
    ("float32", "output", "binary_cross_entropy of sigmoid with ∂b", (409, 10)): 4 * 4 * 4090 + 4 * 10 + 4,
    ("uint16", "output_rows", "cross_entropy of softmax with ∂b", (4, 1024)): 10 * 4096 + 4 * 1024 + 4,
    ("float32", "penalty", "loss", (4, 1024)): 4 * 4096 + 2 * 4,
    ("float64", "penalty", "loss and ∂W", (4, 1024)): 3 * 8 * 4096 + 2 * 8,
    ("float64", "softmax", "softmax, z kept", (409, 10)): 3 * 8 * 4090 + 8 * 10,
    ("float32", "sum_rows", "of delta.cu", (1, 1024)): 2 * 4 * 1024,
    ("float32", "weights", "shares of rows", (N,)): 2 * 4 * 4096 + 4,
    ("float32", "update", "SGD", (N,)): 3 * 4 * 4096 + 4,
    ("float32", "update", "SGD, momentum", (N,)): 5 * 4 * 4096 + 4,
    ("float64", "update", "Adam", (N,)): 7 * 8 * 4096 + 3 * 8,
    ("uint16", "update", "SGD, θ stored", (N,)): 3 * 4 * 4096 + 4 + 2 * 4096,
}


def test_bytes_are_those_of_the_definition(cupy: Any) -> None:
    found = {
        (storage, case.kernel, case.formula, case.shape): sum(array.nbytes for array in case.moved)
        for storage in kernel_runs.STORAGES
        for case in _cases(cupy, storage)
    }
    assert {key: found.get(key) for key in BYTES} == BYTES
    assert {kernel for _, kernel, _, _ in BYTES} == {*kernel_runs.KERNELS, "copy"}


# -- how it is measured ------------------------------------------------------------------------------------------------


def test_the_device_is_busy_while_the_host_enqueues(cupy: Any) -> None:
    log = Event.log
    seconds = kernel_times.device_seconds(cupy, lambda: log.append("prepare"), lambda: log.append("run"))
    assert seconds == 1e-3
    assert log == ["prepare", "record", "run", "record", "synchronize"]


def test_rounds_are_interleaved_and_medians_taken(cupy: Any, need: Any) -> None:
    """The copy takes 2, 1 and 3 s, and everything else twice that, in rounds without the copy's time in common."""
    need("host")
    order: list[Callable[[], None]] = []

    def seconds(prepare: Callable[[], None], run: Callable[[], None]) -> float:
        prepare()
        run()
        order.append(run)
        scale, counted = (1 if run is order[0] else 2), len(order) - order.index(run) - 1
        return scale * [99.0, 99.0, 2.0, 1.0, 3.0][counted // rows]

    backend = kernel_runs.WithoutProducts(0, cupy, "none are timed")
    rows = len(_cases(cupy, "float32"))
    copy, *kernels = kernel_times.kernel_rows(backend, "float32", N, 3, seconds)
    assert len(kernels) == rows - 1
    assert order == 5 * order[:rows]
    times = [[row[f"{which}_seconds"] for which in ("median", "least", "most")] for row in (copy, *kernels)]
    assert times == [[2.0, 1.0, 3.0], *[[4.0, 2.0, 6.0]] * len(kernels)]
    assert copy["bytes_per_second"] == 2 * 4 * N / 2.0
    assert copy["share_of_copy_bandwidth"] == 1.0
    for row in kernels:
        assert row["bytes_per_second"] == row["bytes_moved"] / 4.0
        assert row["share_of_copy_bandwidth"] == pytest.approx(row["bytes_moved"] / (4 * 4 * N))


def test_what_is_changed_in_place_is_filled_again(cupy: Any, need: Any) -> None:
    need("host")
    memory = kernel_runs.Arrays(kernel_runs.WithoutProducts(0, cupy, "none are timed"), "float64", N)
    for case in kernel_runs.cases(memory):
        case.run()
    for array in (memory.z, memory.delta):
        assert not np.array_equal(array.get(), memory.normal.get())
    memory.refresh()
    for array in (memory.z, memory.delta):
        assert np.array_equal(array.get(), memory.normal.get())


def test_a_launch_is_timed_by_the_clock_of_the_host(cupy: Any, need: Any, monkeypatch: Any) -> None:
    need("host")
    monkeypatch.setattr(kernel_times, "LAUNCHES", 4)
    ticks = iter([0, 90, 90, 180, 200, 208, 300, 304, 400, 412])  # two rounds to warm up, then 8, 4 and 12 s
    assert (
        kernel_times.launch_seconds(kernel_runs.WithoutProducts(0, cupy, "none are timed"), 3, lambda: next(ticks))
        == 2.0
    )


# -- the whole script --------------------------------------------------------------------------------------------------


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> Callable[..., int]:
    """The script, on few elements and in one round; arguments are added."""
    monkeypatch.setattr(gpu_check, "ROUNDS", 1)
    monkeypatch.setattr(kernel_times, "WARM_UP", 0)
    monkeypatch.setattr(kernel_times, "LAUNCHES", 2)
    monkeypatch.setattr(parity, "EXAMPLES", 40)
    monkeypatch.setattr(gpu_check, "_driver", lambda: "580.95.05")
    return lambda *arguments: gpu_check.main(["--elements", str(N), *map(str, arguments)])


@pytest.fixture
def check_without_figures(check: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    figures = {"rounds": 1, "host_seconds_per_launch": 1e-6, "kernels": [], "parity": []}
    monkeypatch.setattr(gpu_check, "measured", lambda backend, elements: figures)
    return check


def test_what_is_shown_and_written(check: Any, tmp_path: Path, capsys: Any, monkeypatch: Any, need: Any) -> None:
    need("host")
    monkeypatch.setattr(gpu_check, "RESULTS", tmp_path / "results")
    assert check("--no-tests") == 0
    shown = capsys.readouterr().out
    text = (tmp_path / "results" / "stand-in-gpu.json").read_text(encoding="utf-8")
    report = json.loads(text)
    assert text == json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    assert "\n".join(gpu_check.lines(report)) in shown
    machine = report["machine"]
    assert machine["device"] == "Stand-in GPU"
    assert machine["driver"] == "580.95.05, for CUDA 13.2"
    assert (machine["cuda_runtime"], machine["cupy"]) == ("13.3", "14.2.0")
    assert (machine["numpy"], machine["gpubackprop"]) == (np.__version__, gb.__version__)
    for value in machine.values():
        assert value in shown
    assert report["tests"] is None
    assert {row["kernel"] for row in report["kernels"]} == {*kernel_runs.KERNELS, "copy"}
    assert {row["storage"] for row in report["kernels"]} == {"float32", "float64", "bfloat16"}
    assert report["host_seconds_per_launch"] > 0
    for row, bound in zip(report["parity"], (1e-12, 1e-4), strict=True):
        assert row["largest_relative_difference_of_parameters"] < bound
        assert row["relative_difference_of_loss"] < bound
        assert len(row["sha256_of_reruns_on_cuda"]) == 3
        assert len(set(row["sha256_of_reruns_on_cuda"])) == 1
    below = [row["share_of_copy_bandwidth"] < 0.9 and row["goal_share_of_copy_bandwidth"] for row in report["kernels"]]
    assert 0 < shown.count("below the goal of 90%") == sum(map(bool, below)) < len(below)  # dropout moves half a copy


def test_rows_below_the_goal_are_marked(monkeypatch: Any) -> None:
    """Elementwise kernels in float32 alone have the goal."""
    made = fake_cupy.install(monkeypatch)
    for storage in kernel_runs.STORAGES:
        for case in _cases(made, storage):
            row = kernel_times._row(case, storage, [1.0])
            goal = row["goal_share_of_copy_bandwidth"]
            elementwise = {"activate", "delta", "dropout", "gather", "output", "penalty", "update", "weights"}
            assert goal == (0.9 if storage == "float32" and case.kernel in elementwise else None)
            for share, mark in ((0.899, "below the goal of 90%" if goal else ""), (0.9, ""), (0.95, "")):
                assert gpu_check._cells({**row, "share_of_copy_bandwidth": share})[-1] == mark


def test_columns_are_aligned() -> None:
    rows = [("kernel", "formula", "type", "shape", "µs", ""), ("a", "bc", "d", "2×3", "1.5", "below")]
    assert list(gpu_check._aligned(rows)) == [
        "kernel  formula  type  shape   µs",
        "a       bc       d     2×3    1.5  below",
    ]


@pytest.mark.parametrize("status", [0, 3])
def test_tests_count_for_the_exit_status(
    status: int, check_without_figures: Any, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    closing = f"{status} failed in 1 s"
    code = f"import gpubackprop; print('a line'); print('=== {closing} ===\\n'); raise SystemExit({status})"
    monkeypatch.setattr(gpu_check, "TESTS", (sys.executable, "-c", code))
    assert check_without_figures("--out", tmp_path / "out.json") == (status > 0)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["tests"] == {"exit_status": status, "closing_line": closing}
    shown = capsys.readouterr().out
    assert "a line\n" in shown
    assert f"{closing} (exit status {status})" in shown


@pytest.mark.parametrize("content", ['{"machine": {"device": "Another GPU"}}', "[1]", "not JSON"])
def test_figures_of_another_device_are_kept(
    content: str, check_without_figures: Any, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out.json"
    out.write_text(content)
    assert check_without_figures("--no-tests", "--out", out) == 1
    assert out.read_text() == content
    message = capsys.readouterr().err
    assert "Stand-in GPU" in message
    assert "--out" in message
    assert ("figures of Another GPU" in message) == ("Another" in content)


def test_figures_of_the_same_device_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert gpu_check.foreign(out, "This GPU") is None
    out.write_text('{"machine": {"device": "This GPU"}}')
    assert gpu_check.foreign(out, "This GPU") is None


# -- where it cannot run -----------------------------------------------------------------------------------------------


def test_without_a_device_nothing_is_written(cupy: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(fake_cupy.state, "devices", 0)
    monkeypatch.setattr(gpu_check, "RESULTS", tmp_path / "results")
    assert gpu_check.main([]) == 2
    reason = gb.why_no_cuda()
    assert reason
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_from_a_bare_checkout_without_a_device(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": ".", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "benchmarks/gpu_check.py", "--out", str(tmp_path / "out.json")]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("nothing was measured: ")
    assert list(tmp_path.iterdir()) == []


def test_too_few_elements_are_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        gpu_check.main(["--elements", "1000"])
    assert "at least 1024, got 1000" in capsys.readouterr().err


def test_nothing_but_what_the_script_says_is_imported() -> None:
    allowed = {*sys.stdlib_module_names, *FILES, "cupy", "gpubackprop", "numpy"}
    for name in FILES:
        for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {str(module).partition(".")[0] for module in modules} <= allowed, name
