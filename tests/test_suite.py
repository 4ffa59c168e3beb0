"""The helpers of benchmarks/suite: rounds, what a file of results says, who is skipped, and that every row is there."""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubackprop as gb
from gpubackprop.backends import loops

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
FILES = (
    *("figures", "machine", "measuring", "memory_taken", "operations", "own_passes", "own_steps"),
    *("rounds", "sklearn_peers", "startup", "torch_peers", "workloads"),
)


def _script(name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return importlib.import_module(name)


figures, machine, measuring, memory_taken, operations, own_passes, own_steps = map(_script, FILES[:7])
rounds, sklearn_peers, startup, torch_peers, workloads = map(_script, FILES[7:])


def _workload(optimizer: str = "SGD", **changed: Any) -> Any:
    made = {"regime": "tiny", "sizes": (12, 9, 7, 5), "rows": 16, "rate": 0.01, "precision": "float32"}
    return workloads.Workload(**{**made, "optimizer": optimizer, "device": "cpu", "short": True, **changed})


# -- rounds ------------------------------------------------------------------------------------------------------------


class _Timed:
    """What takes, in every round, as long as it is told, by a clock of its own."""

    now = 0.0

    def __init__(self, name: str, log: list[str], seconds: list[float]) -> None:
        self.name, self.log, self.seconds, self.enqueued = name, log, iter(seconds), 0

    def steps(self, k: int) -> None:
        assert not gc.isenabled()
        self.log.append(self.name)
        self.enqueued += k

    def wait(self) -> None:
        if self.enqueued:
            _Timed.now += self.enqueued * next(self.seconds)
            self.enqueued = 0


def test_rounds_are_interleaved_and_ratios_are_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is three times slower in the second round does not change the ratio."""
    log: list[str] = []
    monkeypatch.setattr(rounds.time, "sleep", lambda seconds: log.append(f"sleep {seconds}"))
    ours, other = _Timed("ours", log, [2.0, 6.0, 2.0]), _Timed("other", log, [1.0, 3.0, 1.5])
    times = rounds.interleaved(
        [(ours, 4), (other, 8)], 3, lambda: _Timed.now, pause=0.5, before=lambda: log.append("before")
    )
    assert log == ["sleep 0.5", "before", "ours", "sleep 0.5", "before", "other"] * 3
    assert times == [[2.0, 6.0, 2.0], [1.0, 3.0, 1.5]]
    assert gc.isenabled()
    assert figures.ratio(*times) == 2.0
    assert figures.floor("bare products", *times) == {"name": "bare products", "seconds": 1.5, "ratio": 2.0}


def test_a_function_does_several_at_its_first_call() -> None:
    log: list[str] = []
    timed = _Timed("ours", log, [1.0] * 9)
    collects = gc.isenabled()
    gc.disable()
    try:
        several = measuring.Several(timed, 4)
        for _ in range(8):
            several()
            assert timed.enqueued == 0, "it has waited"
    finally:
        if collects:
            gc.enable()
    assert log == ["ours"] * 2


# -- all do the same ---------------------------------------------------------------------------------------------------


def _off(contender: Any, ours: Any, workload: Any) -> float:
    curves = []
    for each in (ours, contender):
        each.prepare(workload, workloads.data_of(workload))
        curves.append(each.loss_curve())
    return workloads.largest_difference(curves[1], curves[0])


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_scikit_learn_has_our_losses(optimizer: str) -> None:
    pytest.importorskip("sklearn")
    workload = _workload(optimizer)
    assert _off(sklearn_peers.SklearnSteps(), own_steps.Ours("numpy"), workload) < 1e-5
    assert _off(sklearn_peers.SklearnEpochs(), own_passes.Epochs("numpy"), workload) < 1e-5
    assert _off(sklearn_peers.SklearnInference(), own_passes.Inference("numpy"), workload) < 1e-5


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_pytorch_has_our_losses(optimizer: str, need: Any) -> None:
    need("torch")
    workload = _workload(optimizer)
    assert _off(torch_peers.TorchEpochs("cpu"), own_passes.Epochs("numpy"), workload) < 1e-5
    assert _off(torch_peers.TorchInference("cpu"), own_passes.Inference("numpy"), workload) < 1e-5
    assert _off(torch_peers.TorchBackward("cpu"), own_passes.Backward("numpy"), workload) < 1e-5


def test_a_backward_pass_that_leaves_something_out_is_seen(need: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is that of the forward pass, whatever the backward pass did."""
    need("torch")
    whole = torch_peers.TorchBackward._gradients
    monkeypatch.setattr(torch_peers.TorchBackward, "_gradients", lambda self: whole(self)[2:])
    off = _off(torch_peers.TorchBackward("cpu"), own_passes.Backward("numpy"), _workload())
    assert off > workloads.LOSS_BOUNDS["float32"]


def test_data_that_are_sent_make_no_difference(tmp_path: Path) -> None:
    assert _off(own_passes.Epochs("numpy", transfer=True), own_passes.Epochs("numpy"), _workload()) == 0.0
    assert _off(own_passes.Streamed("numpy", tmp_path), own_passes.InMemory("numpy"), _workload()) == 0.0


def test_the_backward_pass_is_that_of_the_network() -> None:
    workload, backward = _workload(), own_passes.Backward("numpy")
    data = workloads.data_of(workload)
    backward.prepare(workload, data)
    loss, norm = backward.loss_curve()
    net = workloads.network(workload, "numpy")
    expected, gradients = net.loss_and_gradients(data.x[:16], data.y[:16])
    assert loss == expected
    every = np.concatenate([np.append(W.reshape(-1), b) for W, b in gradients])
    assert norm == pytest.approx(np.linalg.norm(every), rel=1e-6)  # float32, in another order
    for found, (W, b) in zip(net.layout.views(backward._net.gradient), gradients, strict=True):
        np.testing.assert_array_equal(found[0], W)
        np.testing.assert_array_equal(found[1], b)


def test_bare_products_may_be_those_of_a_pass() -> None:
    """By counting: the floating-point operations of both passes are those of the step."""
    workload, counted = _workload(), []
    for options in ({}, {"backward": False}, {"forward": False}):
        bare = own_steps.BareProducts("numpy", **options)
        bare.prepare(workload, workloads.data_of(workload))
        flops: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                bare._net.backend, "_product", lambda A, B, out, flops=flops: flops.append(2.0 * A.size * out.shape[1])
            )
            bare.steps(1)
        counted.append(sum(flops))
    assert counted == [workload.flops, workload.forward_flops, workload.flops - workload.forward_flops]


class _Clock:
    """A clock that moves only when it is told to, so that a busy machine changes no figure."""

    seconds = 0.0

    def perf_counter(self) -> float:
        return self.seconds


def test_a_breakdown_finds_the_part_that_is_slow() -> None:
    clock = _Clock()
    workload, ours = _workload("Adam"), own_steps.Ours("numpy")
    ours.prepare(workload, workloads.data_of(workload))
    backend = ours._net.backend
    before = dict(vars(backend))
    parts = own_passes.breakdown(ours, 4, 3)
    assert set(parts) == set(figures.PARTS)
    for name, part in (("forward", "forward"), ("delta", "deltas"), ("weight_gradient", "weight gradients")):
        operation = getattr(type(backend), name)

        def slow(self: Any, *arguments: Any, operation: Any = operation, **named: Any) -> None:
            clock.seconds += 0.01
            operation(self, *arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(own_passes, "time", clock)
            patch.setattr(type(backend), name, slow)
            parts = own_passes.breakdown(ours, 4, 3)
        calls = 2 if name == "delta" else 3
        assert max(parts, key=parts.get) == part
        assert parts[part] == pytest.approx(0.01 * calls)
    assert vars(backend).keys() == before.keys(), "the clocks are gone"


# -- what the file says ------------------------------------------------------------------------------------------------


class _Fake:
    def __init__(self, name: str) -> None:
        self.name = name


def _entry(name: str, seconds: list[float], **more: Any) -> Any:
    return rounds.Entry(_Fake(name), seconds=seconds, **more)


def test_figures_of_contenders() -> None:
    entries = [
        _entry("gpubackprop", [2.0, 2.0, 4.0]),
        _entry("bare products", [1.0, 1.0, 1.0]),
        _entry("plain NumPy", [3.0, 3.0, 4.0], off=1e-6),
        _entry("PyTorch, eager", [], remark="skipped: PyTorch is not installed"),
        _entry("scikit-learn", [], remark="not compared: its losses are not ours", off=0.5),
    ]
    found = figures.of_entries(entries, 4e9)
    assert (found["flops"], found["gflops"]) == (4e9, 2.0)
    assert found["floor"] == {"name": "bare products", "seconds": 1.0, "ratio": 2.0}
    plain, eager, learn = found["peers"].values()
    assert plain == {"seconds": 3.0, "ratio": 1.5, "loss_off": 1e-6}
    assert eager == {"skipped": "PyTorch is not installed"}
    assert learn == {"skipped": "not compared: its losses are not ours, off by 5.0e-01"}
    extra = {**figures.of_workload("step", _workload(), "numpy"), **found}
    assert figures.problems(extra) == []


RIGHT: dict[str, Any] = {
    "what": "scaling", "workload": "12-5, N 16", "backend": "numpy", "device": "a CPU", "varies": "rows", "rows": 16,
    "sizes": [12, 5], "flops": 1e6, "floor": {"name": "bare products", "seconds": 1e-3, "ratio": 1.1},
    "peers": {"JAX": {"skipped": "not installed"}, "PyTorch": {"seconds": 1e-3, "ratio": 1.0, "loss_off": 0.0}},
    "breakdown": dict.fromkeys(figures.PARTS, 0.0),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"what": "steps"}, "what is 'steps'"),
        ({"backend": "cupy"}, "backend is 'cupy'"),
        ({"device": ""}, "device is ''"),
        ({"speed": 1.0}, "unknown key 'speed'"),
        ({"flops": float("nan")}, "flops is nan"),
        ({"rows": 0}, "rows is 0"),
        ({"varies": "epochs"}, "varies is 'epochs'"),
        ({"floor": {"name": "the sea", "seconds": 1.0, "ratio": 1.0}}, "floor is"),
        ({"floor": {"name": "bare products", "seconds": 1.0}}, "floor is"),
        ({"peers": {"JAX": {"skipped": ""}}}, "peer 'JAX'"),
        ({"peers": {"JAX": {"seconds": 1.0, "ratio": float("inf")}}}, "peer 'JAX'"),
        ({"breakdown": {"forward": 1.0}}, "breakdown is"),
    ],
)
def test_what_no_reader_could_rely_on_is_found(changed: dict[str, Any], problem: str) -> None:
    assert figures.problems(RIGHT) == []
    [found] = figures.problems({**RIGHT, **changed})
    assert found.startswith(problem)


@pytest.mark.parametrize("missing", ["what", "workload", "backend", "device", "varies", "sizes", "rows"])
def test_what_is_missing_is_found(missing: str) -> None:
    assert len(figures.problems({key: value for key, value in RIGHT.items() if key != missing})) == 1


def test_machine() -> None:
    told: dict[str, Any] = {"node": "a name", "cpu": {"brand_raw": "A CPU"}, "system": "Linux"}
    machine.describe(told)
    assert "node" not in told
    assert (told["cpu"], told["gpubackprop"], told["system"]) == ("A CPU", gb.__version__, "Linux")
    assert told["cores"] >= 1
    assert (told["gpu"] is None) == (told["no_cuda"] is not None) == (gb.why_no_cuda() is not None)
    json.dumps(told, allow_nan=False)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell")
def test_the_work_of_other_processes_is_seen(tmp_path: Path) -> None:
    """Of one that works for a second, which is no child of this: its parent is another that does not wait for it."""
    work = (
        f"import time, pathlib\nwhile time.process_time() < 1: pass\npathlib.Path({str(tmp_path / 'done')!r}).touch()"
    )
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    before = machine.seconds_of_others()
    subprocess.run([sys.executable, "-c", start], check=True)
    while not (tmp_path / "done").exists():
        time.sleep(0.01)
    assert machine.seconds_of_others() - before > 0.3


def test_memory_is_what_is_predicted() -> None:
    workload = _workload(sizes=(800, 600, 500, 400), rows=1000)
    options = {"output_activation": "softmax", "loss": "cross_entropy", "backend": "numpy"}
    predicted = gb.bytes_of_training(workload.sizes, optimizer="sgd", batch_size=1000, **options)
    assert abs(memory_taken.bytes_taken(workload, "numpy") - predicted) <= 0.05 * predicted


def test_a_new_process_tells_its_seconds(tmp_path: Path) -> None:
    taken = startup.seconds_of_a_new_process("numpy", (5, 4, 3), 8, tmp_path)
    assert set(taken) == {"import", "first step"}
    assert all(seconds > 0 for seconds in taken.values())


# -- every row has a benchmark -----------------------------------------------------------------------------------------


def test_every_row_has_an_operation() -> None:
    made = [(o.what, o.row) for o in operations.operations()]
    assert len(set(made)) == len(made)
    assert operations.without_benchmark(made) == []


def test_a_row_without_a_benchmark_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [(o.what, o.row) for o in operations.operations()]
    for table in operations.TABLES.values():
        monkeypatch.setitem(table, "planted", next(iter(table.values())))
    assert operations.without_benchmark(made) == ["activation planted", "loss planted", "optimizer planted"]
    assert operations.without_benchmark((o.what, o.row) for o in operations.operations()) == []


def test_operations_compute_and_move_what_they_say() -> None:
    memory = operations.arrays("numpy", 4096)
    for operation in operations.operations():
        runs = operations.Runs(memory, operation.case(memory))
        memory.refresh()
        runs.once()
        assert runs.bytes >= 4 * 4096 * 2, operation.name
        assert all(np.isfinite(array).all() for array in runs._case.moved), operation.name


# -- the whole suite ---------------------------------------------------------------------------------------------------


def _suite(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "benchmarks/suite", "-p", "no:cacheprovider", *arguments]
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    return subprocess.run(
        command, cwd=ROOT, env={**inherited, "PYTHONPATH": ".", **environment}, capture_output=True, text=True
    )


def test_every_row_is_collected_for_both_backends() -> None:
    shown = _suite("--collect-only", "-q").stdout
    for backend in ("numpy", "cuda"):
        found = re.findall(rf"test_operation\[{backend}-(\w+) (.+)\]", shown)
        assert operations.without_benchmark(found) == []


def test_a_run_writes_times_skips_and_the_machine(tmp_path: Path) -> None:
    """Of the quickest benchmarks, without a device."""
    out = tmp_path / "out.json"
    run = _suite(
        "--benchmark-only", "--quick", f"--benchmark-json={out}", "-k", "startup or (growth and (rows-32 or rows-64))",
        CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    benchmarks = {b["name"]: b for b in report["benchmarks"]}
    rows = ["import", "first step", *(["first step, warm cache"] if loops.of_this_machine() else [])]
    assert set(benchmarks) == {"test_growth[numpy-rows-32]", *(f"test_startup[numpy-{row}]" for row in rows)}
    for benchmark in benchmarks.values():
        assert figures.problems(benchmark["extra_info"]) == []
        assert benchmark["stats"]["rounds"] == measuring.QUICK_ROUNDS
        assert benchmark["stats"]["median"] > 0
    growth = benchmarks["test_growth[numpy-rows-32]"]
    assert growth["extra_info"]["floor"]["seconds"] > 0
    # By the clock of another process, and of one step: far from the seconds of a whole turn.
    assert benchmarks["test_startup[numpy-import]"]["stats"]["median"] < 5
    assert growth["stats"]["median"] < 10 * growth["extra_info"]["floor"]["seconds"]
    skipped = {entry["name"]: entry["reason"] for entry in report["skipped"]}
    assert skipped["test_scaling.py::test_growth[numpy-rows-64]"] == "not of a quick run"
    assert "CUDA" in skipped["test_startup.py::test_startup[cuda-import]"] or gb.why_no_cuda() is None
    assert set(report["disturbed"]) <= set(benchmarks)
    assert report["machine_info"]["gpubackprop"] == gb.__version__
    assert "node" not in report["machine_info"]
