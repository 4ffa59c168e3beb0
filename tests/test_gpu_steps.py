"""benchmarks/gpu_steps.py on the CPU: who takes part and whether they do the same, what is timed, shown and written."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cupy
import host_cublaslt
import numpy as np
import pytest
from cuda_backends import forget

import gpubackprop as gb
from gpubackprop.backends import devices

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
FILES = ("gpu_steps", "own_steps", "peers", "rounds", "step_rows", "torch_peers", "workloads")


def _script(name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return importlib.import_module(name)


gpu_steps, own_steps, peers, rounds, step_rows, torch_peers, workloads = map(_script, FILES)


def _workload(optimizer: str = "SGD", precision: str = "float32", regime: str = "tiny") -> Any:
    rate = {"SGD": 0.1, "Adam": 0.01}[optimizer]  # so that the losses of a small net fall
    return workloads.Workload(regime, (12, 9, 7, 5), 16, optimizer, rate, precision)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "MOST_BATCHES", 8)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch, need: Any) -> Iterator[Any]:
    """The stand-in for CuPy, with graphs."""
    need("host")
    made = fake_cupy.install(monkeypatch)
    monkeypatch.setattr(devices, "_products", host_cublaslt.products)
    monkeypatch.setattr(made.runtime, "driverGetVersion", lambda: 13020, raising=False)
    monkeypatch.setattr(fake_cupy.Graph, "launches", 0)
    forget()
    yield made
    forget()


def _curve(contender: Any, workload: Any) -> list[float]:
    contender.prepare(workload, workloads.data_of(workload))
    return contender.loss_curve()


def _off(contender: Any, workload: Any, backend: str = "numpy") -> float:
    """How far its losses are from ours, on another backend than CUDA in float32."""
    reference = workload if backend == "cuda" else dataclasses.replace(workload, precision="float32")
    ours = _curve(own_steps.Ours(backend), reference)
    assert ours[0] - ours[-1] > 0.02 * ours[0], "a curve that does not fall tells nothing"
    return workloads.largest_difference(_curve(contender, workload), ours)


# -- workloads ---------------------------------------------------------------------------------------------------------


def test_workloads_are_those_of_three_regimes() -> None:
    made = list(workloads.workloads(quick=False))
    assert len({w.name for w in made}) == len(made) == 6 * 2 * 3
    assert {(w.regime, w.sizes, w.rows) for w in made} == {
        ("tiny", (784, 128, 10), 64),
        ("tiny", (784, 128, 10), 256),
        ("medium", (1024,) * 5, 1024),
        ("medium", (1024,) * 5, 4096),
        ("large", (4096,) * 4, 8192),
        ("large", (8192,) * 4, 8192),
    }
    assert made[0].name == "tiny 784-128-10, N 64, SGD, float32"
    assert made[-1].name == "large 8192x3, N 8192, Adam, bfloat16"
    quick = {(w.regime, w.rows) for w in workloads.workloads(quick=True)}
    assert quick == {("tiny", 64), ("tiny", 256), ("medium", 1024)}


def test_operations_and_bytes_are_those_of_the_network() -> None:
    workload = _workload()
    assert workload.flops == workloads.network(workload, "numpy").flops(16)
    assert workload.bytes == 4 * (2 * 8 * 16 * (12 + 5) + 8 * (12 * 9 + 9 * 7 + 7 * 5) + 6 * 16 * (12 + 9 + 7 + 5))


def test_an_epoch_has_many_batches_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "MOST_BATCHES", 1024)
    found = {(w.sizes[0], w.rows): w.batches for w in workloads.workloads(quick=False)}
    assert found == {
        (784, 64): 1024,
        (784, 256): 1024,
        (1024, 1024): 256,
        (1024, 4096): 64,
        (4096, 8192): 8,
        (8192, 8192): 4,
    }
    assert all(w.bytes < 40e9 for w in workloads.workloads(quick=False))


def test_data_are_drawn_once_for_a_shape() -> None:
    data = workloads.data_of(_workload())
    assert workloads.data_of(_workload("Adam", "tf32")) is data
    assert (data.x.shape, data.x.dtype, data.y.shape) == ((4 * 16, 12), "float32", (4 * 16,))
    assert set(data.y) <= set(range(5))
    for (W, b), (m, n) in zip(data.weights, ((12, 9), (9, 7), (7, 5)), strict=True):
        assert (W.shape, b.shape) == ((m, n), (n,))


@pytest.mark.parametrize(
    ("losses", "off"), [([2.0, 1.0], 0.0), ([2.0, 1.5], 0.25), ([2.0, np.nan], np.inf), ([np.inf, 1.0], np.inf)]
)
def test_losses_are_compared_as_a_share_of_the_first(losses: list[float], off: float) -> None:
    assert workloads.largest_difference(losses, [2.0, 1.0]) == off


# -- all do the same ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_plain_arrays_have_our_losses(optimizer: str) -> None:
    assert _off(peers.Plain(np), _workload(optimizer)) < 1e-5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_pytorch_has_our_losses(optimizer: str, precision: str, need: Any) -> None:
    need("torch")
    off = _off(torch_peers.TorchEager("cpu"), _workload(optimizer, precision))
    assert off < 1e-5 or (precision == "bfloat16" and 1e-5 < off < workloads.LOSS_BOUNDS["bfloat16"])


@pytest.mark.slow
def test_pytorch_compiled_has_our_losses(tmp_path: Path, need: Any) -> None:
    """In a process of its own: the compiler warns, keeps threads, and writes where it is told."""
    need("torch")
    need("host")
    code = (
        "import sys, numpy; sys.path[:0] = ['benchmarks', 'tests']\n"
        "import test_gpu_steps as t\n"
        "for optimizer in ('SGD', 'Adam'):\n"
        "    assert t._off(t.torch_peers.TorchCompiled('cpu'), t._workload(optimizer)) < 1e-5\n"
        "t.peers.release()\n"
    )
    environment = {**os.environ, "PYTHONPATH": ".", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_pytorch_begins_again_after_its_capture(optimizer: str, need: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for a graph, which takes the step as it is: of the steps before a capture nothing is left."""
    need("torch")
    torch = importlib.import_module("torch")
    contender, eager = torch_peers.TorchGraph("cpu"), torch_peers.TorchEager

    class Graph:
        def replay(self) -> None:
            contender._value.copy_(eager._step(contender, contender._x, contender._y))

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: stream)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda other: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch_peers.TorchGraph, "_optimizer_of", eager._optimizer_of)  # "capturable" is of CUDA alone
    assert _off(contender, _workload(optimizer)) < 1e-5


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_jax_has_our_losses(optimizer: str, precision: str) -> None:
    pytest.importorskip("jax")
    contender, workload = peers.Jax("cpu"), _workload(optimizer, precision)
    assert contender.unavailable(workload) is None
    assert _off(contender, workload) < (1e-4 if precision == "float32" else workloads.LOSS_BOUNDS[precision])
    before = np.asarray(contender._state[0][0][0])
    contender.steps(3)
    contender.wait()
    assert not np.array_equal(np.asarray(contender._state[0][0][0]), before)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_our_replayed_steps_have_the_losses_of_numpy(optimizer: str, precision: str, cupy: Any) -> None:
    contender, workload = own_steps.Ours("cuda"), _workload(optimizer, precision)
    off = _off(contender, workload)
    assert off < (1e-5 if precision == "float32" else workloads.LOSS_BOUNDS[precision])
    assert fake_cupy.Graph.launches == 2, "the third pass over the batches is of replayed steps"


@pytest.mark.parametrize("wrong", [0.5, 2.0])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_wrong_learning_rate_is_found(optimizer: str, wrong: float) -> None:
    class Wrong(peers.Plain):
        def prepare(self, workload: Any, data: Any) -> None:
            super().prepare(dataclasses.replace(workload, rate=wrong * workload.rate), data)

    contenders = [own_steps.Ours("numpy"), own_steps.BareProducts("numpy"), Wrong(np), peers.Plain(np)]
    row = gpu_steps.compared(_workload(optimizer), contenders, 2, _Clock(), lambda: 2**40)
    ours, _, excluded, right = row["contenders"]
    assert excluded["remark"] == "not compared: its losses are not ours"
    assert excluded["losses_off_by"] > row["loss_bound"] > right["losses_off_by"]
    assert "median_seconds" not in excluded
    assert row["goals"][-1]["reached"] == ours["median_seconds"] / right["median_seconds"]


# -- who takes part ----------------------------------------------------------------------------------------------------


def test_who_is_not_here_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torch", "jax") else find_spec(name))
    reasons = {c.name: c.unavailable(_workload()) for c in peers.peers("cuda", np)}
    assert reasons == {
        "PyTorch, eager": "PyTorch is not installed",
        "PyTorch, torch.compile reduce-overhead": "PyTorch is not installed",
        "PyTorch, captured graph, fused optimizer": "PyTorch is not installed",
        "JAX, jit and scan": "JAX is not installed",
        "plain NumPy": None,
    }
    assert peers.Plain(np).unavailable(_workload(precision="tf32")) == "NumPy has no TF32"
    assert "bfloat16" in peers.Plain(np).unavailable(_workload(precision="bfloat16"))
    assert "no products in tf32" in own_steps.Ours("numpy").unavailable(_workload(precision="tf32"))
    assert torch_peers.TorchGraph("cpu").unavailable(_workload()) == "CUDA graphs are of a CUDA device"


def test_pytorch_without_cuda_says_so(need: Any) -> None:
    need("torch")
    if gb.why_no_cuda() is None:
        pytest.skip("there is a device")
    assert "no CUDA device" in torch_peers.TorchGraph("cuda").unavailable(_workload())


def test_who_fails_does_not_stop_the_others() -> None:
    class Failing(peers.Plain):
        def steps(self, k: int) -> None:
            raise RuntimeError("\nout of luck\nand more")

    contenders = [own_steps.Ours("numpy"), own_steps.BareProducts("numpy"), Failing(np), peers.Plain(np)]
    row = gpu_steps.compared(_workload(), contenders, 2, _Clock(), lambda: 2**40)
    assert row["contenders"][2]["remark"] == "failed: RuntimeError: out of luck"
    assert ["median_seconds" in r for r in row["contenders"]] == [True, True, False, True]


def test_what_does_not_fit_is_skipped() -> None:
    contenders = [own_steps.Ours("numpy"), own_steps.BareProducts("numpy"), peers.Plain(np)]
    left = iter([2**40, 10, 2**40])
    row = gpu_steps.compared(_workload(), contenders, 2, _Clock(), lambda: next(left))
    assert row["contenders"][1]["remark"] == f"skipped: it may need {_workload().bytes:,} bytes, and 10 are free"
    assert [goal["what"] for goal in row["goals"]] == ["µs a step", "of the time of the best peer"]
    row = gpu_steps.compared(_workload(), contenders, 2, _Clock(), lambda: 10)
    assert [r["name"] for r in row["contenders"]] == ["gpubackprop"], "without ours there is nothing to compare"
    assert row["goals"] == []
    assert "and 10 are free" in "\n".join(step_rows.table(row))


# -- how it is timed ---------------------------------------------------------------------------------------------------


class _Clock:
    """A clock on which a second passes between two looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class _Fake:
    """A contender whose steps take as long as it is told, by a clock of its own, once the device is waited for."""

    def __init__(self, name: str, clock: Any, seconds: float, curve: list[float]) -> None:
        self.name, self.clock, self.seconds, self.curve = name, clock, seconds, curve
        self.taken: list[int] = []
        self.enqueued = 0

    def unavailable(self, workload: Any) -> None:
        return None

    def prepare(self, workload: Any, data: Any) -> None:
        pass

    def loss_curve(self) -> list[float]:
        return self.curve

    def steps(self, k: int) -> None:
        self.clock.log.append(self.name)
        self.taken.append(k)
        self.enqueued += k

    def wait(self) -> None:
        self.clock.now += self.seconds * self.enqueued
        self.enqueued = 0


class _Device:
    def __init__(self) -> None:
        self.now, self.log = 0.0, list[str]()

    def __call__(self) -> float:
        return self.now


def test_rounds_are_interleaved_and_long_enough() -> None:
    clock = _Device()
    ours, bare, slow = (
        _Fake("ours", clock, 2**-13, [2.0]), _Fake("bare", clock, 2**-14, []), _Fake("slow", clock, 2**-7, [2.0])
    )  # fmt: skip
    row = gpu_steps.compared(_workload(regime="large"), [ours, bare, slow], 3, clock, lambda: 2**40)
    assert clock.log[-9:] == ["ours", "bare", "slow"] * 3
    assert [c.taken[0] for c in (ours, bare, slow)] == [8, 8, 8]
    for contender, k in ((ours, 168), (bare, 328), (slow, 8)):  # epochs of 8 steps, in 20 ms at least
        assert contender.taken[3] == 8
        assert contender.taken[4:] == [k] * (3 if k == 8 else 4), "another number of steps is tried before it counts"
        assert contender.taken[4] * contender.seconds >= 0.02
    assert [r["median_seconds"] for r in row["contenders"]] == [2**-13, 2**-14, 2**-7]
    assert [r["share_of_our_time"] for r in row["contenders"]] == [1.0, 0.5, 64.0]
    assert row["contenders"][0]["flops_per_second"] == row["flops_per_step"] * 2**13


def test_products_are_those_of_the_step(cupy: Any) -> None:
    """Forward, ∂L/∂W, and δ but for the input, from a graph of all steps asked for; columns first."""
    workload = _workload()
    bare = own_steps.BareProducts("cuda")
    bare.prepare(workload, workloads.data_of(workload))
    library = bare._net.backend.products._library._functions
    for _ in range(3):
        fake_cupy.Graph.launches = 0
        library.products.clear()
        bare.steps(8)
        bare.wait()
    N, a, b, c, d = 16, *workload.sizes
    forward = [(N, a, b), (N, b, c), (N, c, d)]
    backward = [(c, N, d), (N, d, c), (b, N, c), (N, c, b), (a, N, b)]
    assert [shape[::-1] for shape, _ in library.products] == 8 * (forward + backward)
    assert sum(2 * i * j * k for i, j, k in forward + backward) == workload.flops
    assert fake_cupy.Graph.launches == 1


def test_ours_takes_the_steps_asked_for(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From graphs; neither the data nor their order are sent again."""
    workload, ours, sent = _workload("Adam"), own_steps.Ours("cuda"), []
    ours.prepare(workload, workloads.data_of(workload))
    ours.steps(8)
    asarray = cupy.asarray
    monkeypatch.setattr(cupy, "asarray", lambda a, *rest, **named: sent.append(a) or asarray(a, *rest, **named))
    ours.steps(24)
    ours.wait()
    assert ours._run.t == 32
    assert fake_cupy.Graph.launches == 3
    assert {a.shape for a in sent if isinstance(a, np.ndarray)} == {(8, 3)}, "the optimizer's numbers of an epoch"


def test_constants_of_the_device(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_times = _script("kernel_times")
    monkeypatch.setattr(kernel_times, "LAUNCHES", 2)
    monkeypatch.setattr(own_steps, "WARM_UP", 0)
    monkeypatch.setattr(own_steps, "WIDTH", 8)
    monkeypatch.setattr(own_steps, "ELEMENTS", 1000)
    monkeypatch.setattr(own_steps, "NODES", 5)
    nodes: list[int] = []
    launch = fake_cupy.Graph.launch
    monkeypatch.setattr(fake_cupy.Graph, "launch", lambda self: nodes.append(len(self.nodes)) or launch(self))
    figures = own_steps.constants(gb.Network([2, 1], backend="cuda").backend, 2, _Clock())
    assert set(figures) == set(FIGURES)
    assert set(nodes) == {0, 5}
    assert len(nodes) == 2 * 2 * own_steps.GRAPHS
    assert figures["seconds_per_empty_graph"] == 1 / own_steps.GRAPHS
    assert figures["seconds_per_node_of_a_chain"] == 0.0
    # By the stand-in's events everything takes a millisecond.
    assert figures["product_flops_per_second"] == dict.fromkeys(workloads.PRECISIONS, 2 * 8**3 / 1e-3)
    assert figures["copy_bytes_per_second"] == 2 * 4 * 1000 / 1e-3


# -- goals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regime", "ours", "bare", "peer", "expected"),
    [
        ("tiny", 12e-6, 8e-6, 13e-6, {"µs a step": True, "of the time of the best peer": True}),
        ("tiny", 12.1e-6, 8e-6, 12e-6, {"µs a step": False, "of the time of the best peer": False}),
        ("medium", 1.0, 0.85, 1.0, {"of the rate of the bare products": True, "of the time of the best peer": False}),
        ("medium", 1.0, 0.84, 1.1, {"of the rate of the bare products": False, "of the time of the best peer": True}),
        ("large", 1.0, 0.95, None, {"of the rate of the bare products": True}),
        ("large", 1.0, 0.94, 2.0, {"of the rate of the bare products": False, "of the time of the best peer": True}),
    ],
)
def test_goals_that_are_missed_are_marked(
    regime: str, ours: float, bare: float, peer: float | None, expected: dict[str, bool]
) -> None:
    rows = [
        {"name": name, "remark": "", "losses_off_by": None, **_figures(seconds, ours)}
        for name, seconds in (("ours", ours), ("bare", bare), ("a", peer), ("b", 5.0 if peer else None))
    ]
    found = step_rows.goals(regime, rows)
    assert {goal["what"]: goal["met"] for goal in found} == expected
    row = {"workload": "w", "flops_per_step": 1e9, "contenders": rows, "goals": found}
    text = "\n".join(step_rows.table(row))
    assert text.count("GOAL MISSED") == list(expected.values()).count(False)


def _figures(seconds: float | None, ours: float) -> dict[str, float]:
    if seconds is None:
        return {}
    names = ("median_seconds", "least_seconds", "most_seconds", "flops_per_second", "share_of_our_time")
    return dict(zip(names, (seconds, seconds, seconds, 1e9 / seconds, seconds / ours), strict=True))


# -- the whole script --------------------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, cupy: Any, tmp_path: Path) -> Callable[..., int]:
    """The script on the stand-in, two small nets of each regime; peers of the CPU that are quick."""

    class Pool:
        def free_all_blocks(self) -> None:
            pass

    monkeypatch.setattr(cupy, "get_default_memory_pool", Pool, raising=False)
    monkeypatch.setattr(workloads, "SHAPES", {"tiny": [((12, 9, 5), 16)] * 2, "medium": [((8,) * 3, 16)], "large": []})
    monkeypatch.setattr(workloads, "MOST_BATCHES", 4)
    monkeypatch.setattr(gpu_steps, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(gpu_steps, "QUICK_ROUNDS", 2)
    monkeypatch.setattr(gpu_steps, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(gpu_steps, "constants", lambda *arguments: FIGURES)
    monkeypatch.setattr(gpu_steps, "peers", lambda device, xp: [torch_peers.TorchGraph("cpu"), peers.Plain(np)])
    monkeypatch.setattr(_script("gpu_check"), "_driver", lambda: "580.95.05")
    return lambda *arguments: gpu_steps.main(["--quick", *map(str, arguments)])


FIGURES = {
    "host_seconds_per_launch": 4e-6,
    "seconds_per_empty_graph": 5e-6,
    "seconds_per_node_of_a_chain": 1.5e-6,
    "product_flops_per_second": {"float32": 5e13},
    "copy_bytes_per_second": 2.5e12,
}


def test_what_is_shown_and_written(script: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBACKPROP_AUTOTUNE", "1")
    assert script("--only", "float32") == 0
    shown = capsys.readouterr().out
    text = (tmp_path / "results" / "stand-in-gpu-steps.json").read_text(encoding="utf-8")
    report = json.loads(text)
    assert text == json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    assert "\n".join(step_rows.heading(report)) in shown
    assert report["constants"] == FIGURES
    assert set(report["choices"]) == {"float32", "tf32", "bfloat16"}
    aligned = (256, 256, 256, 16, 256)  # b_1 begins 12 · 9 · 4 bytes after W_1; what is not there is at 0
    assert report["choices"]["float32"][f"forward relu_bias 16 12 9 float32 {aligned} float32"] == "plain"
    assert report["machine"]["device"] == "Stand-in GPU"
    assert "4.00 µs of the host" in shown
    assert [row["workload"] for row in report["workloads"]][-1] == "medium 8x2, N 16, Adam, float32"
    for row in report["workloads"]:
        assert "\n".join(step_rows.table(row)) in shown
        ours, bare, skipped, plain = row["contenders"]
        assert skipped["remark"] == "skipped: CUDA graphs are of a CUDA device"
        assert skipped["remark"] in shown
        assert len(ours["losses"]) == len(plain["losses"]) == 12
        assert (ours["losses_off_by"], bare["losses"], bare["losses_off_by"]) == (0.0, [], None)
        assert plain["losses_off_by"] < 1e-5
        for timed in (ours, bare, plain):
            assert timed["least_seconds"] <= timed["median_seconds"] <= timed["most_seconds"]
            assert timed["steps_per_round"] == 4
        assert len(row["goals"]) == 2


def test_losses_that_are_not_finite_are_written(tmp_path: Path) -> None:
    entry = rounds.Entry(peers.Plain(np), "not compared: its losses are not ours", [2.0, np.nan], np.inf)
    row = step_rows._contender_row(entry, _workload(), None)
    assert json.loads(json.dumps(row, allow_nan=False))["losses"] == [2.0, None]
    assert step_rows._cells(row)[-2:] == ("not finite", entry.remark)


def test_figures_of_another_device_are_kept(script: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out.json"
    out.write_text('{"machine": {"device": "Another GPU"}}')
    assert script("--out", out) == 1
    assert out.read_text() == '{"machine": {"device": "Another GPU"}}'
    assert "figures of Another GPU" in capsys.readouterr().err


def test_a_name_that_no_workload_has_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        gpu_steps.main(["--only", "huge"])
    assert "tiny 784-128-10, N 64, SGD, float32" in capsys.readouterr().err


# -- where it cannot run -----------------------------------------------------------------------------------------------


def test_without_a_device_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    fake_cupy.install(monkeypatch, devices=0)
    forget()
    monkeypatch.setattr(gpu_steps, "RESULTS", tmp_path / "results")
    assert gpu_steps.main([]) == 2
    reason = gb.why_no_cuda()
    forget()
    assert reason
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_from_a_bare_checkout_without_a_device(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": ".", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "benchmarks/gpu_steps.py", "--out", str(tmp_path / "out.json")]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("nothing was measured: ")
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_what_the_script_says_is_imported() -> None:
    """PyTorch and JAX are asked for by name where they take part."""
    own = {path.stem for path in FOLDER.glob("*.py")}
    allowed = {*sys.stdlib_module_names, *own, "cupy", "gpubackprop", "numpy"}
    for name in FILES:
        for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {str(module).partition(".")[0] for module in modules} <= allowed, name
