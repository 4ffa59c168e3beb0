"""`gpubackprop bench` in a process of its own, with a small suite in place of the real one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import bench_files
import processes
import pytest

import gpubackprop as gb
from gpubackprop.bench import runner
from gpubackprop.cli import main
from gpubackprop.cli.bench import REPORT, RESULTS
from gpubackprop.errors import MissingDependency

PACKAGE = Path(gb.__file__).parent
COMMAND = [sys.executable, "-W", "error", "-m", "gpubackprop", "bench"]

CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true")

def pytest_collection_modifyitems(config, items):
    items[:] = [item for item in items if "2" in item.name or not config.option.quick]

def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.update(cpu="Small CPU", cores=1)
"""
SUITE = """
import pytest

seconds = [0.0]  # of a clock that only work moves, so that a busy machine changes no figure

def clock():
    seconds[0] += 1e-9  # pytest-benchmark looks for its resolution
    return seconds[0]

def work(n):
    seconds[0] += n / 1000

@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_step(benchmark, n):
    benchmark.extra_info.update(what="step", workload=f"8-{n}-2, N 4", backend="numpy", optimizer="SGD")
    benchmark.pedantic(work, args=(n,), rounds=3)
"""
FAILING = """
def test_planted(benchmark):
    assert benchmark(lambda: 1) == 2, "a planted failure"
"""
WAITING = """
import os, pathlib, time

def wait():
    pathlib.Path("new").write_text(str(os.getpid()))
    pathlib.Path("new").rename("begun")
    while True:
        time.sleep(0.01)

def test_waits(benchmark):
    benchmark.pedantic(wait, rounds=1)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the package, and beside it a suite: found as in a checkout."""
    pytest.importorskip("pytest_benchmark")
    (tmp_path / "gpubackprop").symlink_to(PACKAGE, target_is_directory=True)
    (tmp_path / "kernels").symlink_to(PACKAGE.parent / "kernels", target_is_directory=True)
    _suite(tmp_path, SUITE)
    return tmp_path


def _suite(checkout: Path, *parts: str) -> None:
    folder = checkout / "benchmarks" / "suite"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_small.py").write_text("".join(parts))


def _environment(checkout: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**kept, "PYTHONPATH": str(checkout), "PYTHONIOENCODING": "utf-8"}


def _run(checkout: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=checkout,
        env=_environment(checkout),
        capture_output=True,
        encoding="utf-8",
    )


def test_run_prints_and_writes_its_figures(checkout: Path) -> None:
    run = _run(checkout)
    assert run.returncode == 0, run.stderr
    folder = checkout / "bench-small-cpu"
    assert {path.name for path in folder.iterdir()} == {RESULTS, REPORT}
    content = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    assert [each["name"] for each in content["benchmarks"]] == ["test_step[1]", "test_step[2]", "test_step[3]"]
    for n, each in enumerate(content["benchmarks"], 1):
        assert each["stats"]["median"] == pytest.approx(n / 1000, rel=1e-5)
        assert re.search(rf"^  8-{n}-2, N 4 +{n:.2f} ms$", run.stdout, re.MULTILINE)
    assert "No GPU in this run" in run.stdout
    assert "3/3" in run.stderr  # the bar
    page = (folder / REPORT).read_text(encoding="utf-8")
    assert "<h1>Small CPU</h1>" in page
    assert "8-3-2, N 4" in page


def test_quick_part_alone_into_a_folder(checkout: Path) -> None:
    run = _run(checkout, "--quick", "--out", checkout / "new" / "folder")
    assert run.returncode == 0, run.stderr
    content = json.loads((checkout / "new" / "folder" / RESULTS).read_text(encoding="utf-8"))
    assert [each["name"] for each in content["benchmarks"]] == ["test_step[2]"]


def test_failure_is_shown_and_the_rest_is_written(checkout: Path) -> None:
    _suite(checkout, SUITE, FAILING)
    run = _run(checkout, "--out", "here")
    assert run.returncode == 1
    assert "a planted failure" in run.stderr
    assert "gpubackprop: error: 1 of 4 benchmarks failed: test_planted" in run.stderr
    names = [each["name"] for each in json.loads((checkout / "here" / RESULTS).read_text())["benchmarks"]]
    assert names == ["test_step[1]", "test_step[2]", "test_step[3]"]  # what failed once it was timed is left out


def test_suite_that_cannot_be_read_is_shown(checkout: Path) -> None:
    _suite(checkout, "this is no Python")
    run = _run(checkout)
    assert run.returncode == 1
    assert "SyntaxError" in run.stderr
    assert "nothing was measured" in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(checkout.glob("bench-*"))


def test_suite_that_says_too_little_is_one_error(checkout: Path) -> None:
    _suite(checkout, SUITE.replace('what="step", ', ""))
    run = _run(checkout)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].startswith("gpubackprop: error: ")
    assert "entry 1, test_step[1]: extra_info: there is no `what`" in run.stderr


def _stopped(checkout: Path, number: signal.Signals, both: bool) -> tuple[int, str]:
    """Send a signal to the command, or to the suite as well, as a terminal does, while a benchmark runs."""
    command = [*COMMAND, "--out", "here"]
    with processes.started(
        command, cwd=checkout, env=_environment(checkout), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        encoding="utf-8", start_new_session=True,
    ) as process:  # fmt: skip
        while not (checkout / "begun").exists():
            assert process.poll() is None
            time.sleep(0.05)
        if both:
            os.kill(int((checkout / "begun").read_text()), number)
        process.send_signal(number)
        _, said = process.communicate()
        with pytest.raises(ProcessLookupError):  # nobody of its group is left
            os.killpg(process.pid, 0)
    return process.returncode, said.splitlines()[-1]


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")


@POSIX
@pytest.mark.parametrize("both", [False, True], ids=["the command", "both processes"])
@pytest.mark.parametrize(("number", "status", "how"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_a_run_that_is_stopped_keeps_what_was_measured(
    checkout: Path, number: str, status: int, how: str, both: bool
) -> None:
    _suite(checkout, SUITE, WAITING)
    stopped, last = _stopped(checkout, signal.Signals[number], both)
    assert last == f"gpubackprop: error: {how}; 3 of 4 benchmarks were measured, and are kept"
    assert stopped == status
    content = json.loads((checkout / "here" / RESULTS).read_text(encoding="utf-8"))
    assert [each["name"] for each in content["benchmarks"]] == ["test_step[1]", "test_step[2]", "test_step[3]"]
    assert "8-3-2, N 4" in (checkout / "here" / REPORT).read_text(encoding="utf-8")


@POSIX
def test_a_run_that_is_stopped_before_anything_was_measured(checkout: Path) -> None:
    _suite(checkout, WAITING)
    assert _stopped(checkout, signal.SIGINT, False) == (130, "gpubackprop: error: interrupted; nothing was measured")
    assert list((checkout / "here").iterdir()) == []


def test_benchmarks_are_selected_by_name(checkout: Path) -> None:
    run = _run(checkout, "-k", "step and not 2", "--out", "here")
    assert run.returncode == 0, run.stderr
    content = json.loads((checkout / "here" / RESULTS).read_text(encoding="utf-8"))
    assert [each["name"] for each in content["benchmarks"]] == ["test_step[1]", "test_step[3]"]


@pytest.mark.parametrize(
    ("select", "status", "said"), [("nothing", 2, "-k nothing: no benchmark has"), ("(", 1, "'-k'")]
)
def test_a_selection_of_nothing_is_one_error(checkout: Path, select: str, status: int, said: str) -> None:
    run = _run(checkout, "-k", select)
    assert (run.returncode, "Traceback" in run.stderr) == (status, False)
    assert said in run.stderr


def test_folder_that_cannot_be_written_is_refused_before_the_run(checkout: Path) -> None:
    (checkout / "taken").write_text("a file")
    run = _run(checkout, "--out", "taken")
    assert run.returncode == 2
    assert "--out taken: no file can be written there" in run.stderr
    assert "benchmarks/s" not in run.stderr


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(runner, "NEEDED", {"no_such_module_1": "pytest-benchmark", "no_such_module_2": "tqdm"})
    assert main(["bench"]) == 1
    said = capsys.readouterr().err
    assert "`bench` needs pytest-benchmark, tqdm: pip install 'gpubackprop[bench]'" in said
    assert "(from a checkout: pip install '.[bench]')" in said


def test_missing_suite_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    monkeypatch.setattr(runner, "_PACKAGE", tmp_path / "gpubackprop")
    with pytest.raises(MissingDependency, match="no benchmark suite in"):
        runner.suite()
    inside = tmp_path / "gpubackprop" / "benchmarks" / "suite"
    inside.mkdir(parents=True)
    assert runner.suite() == inside  # as in a wheel


# -- compare -----------------------------------------------------------------------------------------------------------


def test_compare_prints_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = bench_files.write(tmp_path / "a.json", bench_files.content("numpy"))
    b = bench_files.write(tmp_path / "b.json", bench_files.content("numpy", "cuda"))
    assert main(["bench", "--compare", str(a), str(b)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Two runs\n")
    assert "no GPU in this run" in said
    assert "784-128-10, N 64" in said


@pytest.mark.parametrize("more", [["--quick"], ["--out", "x"]])
def test_compare_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]) -> None:
    a = str(bench_files.write(tmp_path / "a.json", bench_files.content("numpy")))
    assert main(["bench", "--compare", a, a, *more]) == 2
    assert "--compare reads two files" in capsys.readouterr().err


def test_compare_with_a_foreign_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = bench_files.write(tmp_path / "a.json", bench_files.content("numpy"))
    b = bench_files.write(tmp_path / "b.json", {"benchmarks": [{"name": "test_other", "stats": {"median": 1.0}}]})
    assert main(["bench", "--compare", str(a), str(b)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gpubackprop: error: {b}: entry 1, test_other: there is no `extra_info`")
    assert main(["bench", "--compare", str(a), str(tmp_path / "none.json")]) == 2
    assert "there is no such file" in capsys.readouterr().err
