"""Training from recorded steps: captured once, replayed, the same bits as steps that are launched one by one."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import fake_cupy
import host_cublaslt
import numpy as np
import pytest
from cuda_backends import forget
from needed_tools import TOOLS

import gpubackprop as gb
from gpubackprop.backends import cublaslt as bindings
from gpubackprop.backends import cuda, devices
from gpubackprop.backends.choices import Choices
from gpubackprop.backends.cublaslt import COMPUTE_TYPES, DATA_TYPES, EPILOGUES, Kind, Library, Plan
from gpubackprop.backends.graphs import Beside, Recording
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.backends.products import Products
from gpubackprop.errors import CudaLibraryError

RNG = np.random.default_rng(3)
X, Y, WEIGHTS = RNG.normal(size=(103, 6)), RNG.normal(size=(103, 3)), RNG.uniform(0.5, 2, 103)
LABELS = RNG.integers(0, 3, 103)


def _trained(one_by_one: bool = False, net: dict[str, Any] | None = None, **arguments: Any) -> Any:
    made = gb.Network([6, 9, 5, 3], activation="tanh", backend="cuda", **(net or {}))
    if one_by_one:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(made.backend, "record", lambda work: work)
            return made, gb.fit(made, X, **{"y": Y, "epochs": 4, "batch_size": 10, "tol": None, **arguments})
    return made, gb.fit(made, X, **{"y": Y, "epochs": 4, "batch_size": 10, "tol": None, **arguments})


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "in order": ({}, {"shuffle": False}),
    "weights": ({}, {"sample_weight": WEIGHTS}),
    "dropout": ({"dropout": 0.3}, {"seed": 5}),
    "penalty and clipping": ({"l2": 0.1}, {"optimizer": gb.optimizers.Adam(0.01, clip_norm=0.1)}),
    "a schedule": ({}, {"optimizer": gb.optimizers.SGD(gb.schedules.Cosine(0.1, steps=30), momentum=0.9)}),
    "classes": ({"output_activation": "softmax", "loss": "cross_entropy"}, {"y": LABELS}),
    "validation": ({}, {"validation_data": (X[:50], Y[:50])}),
    "one batch": ({}, {"batch_size": 103}),
    "batches of one": ({}, {"batch_size": 1}),
    "float64": ({"dtype": "float64"}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_replayed_steps_give_the_bits_of_launched_ones(case: str, graphs: Any) -> None:
    net, arguments = CASES[case]
    launched, history = _trained(True, net, **arguments)
    assert fake_cupy.Graph.launches == 0
    replayed, other = _trained(False, net, **arguments)
    assert fake_cupy.Graph.launches > 0
    assert replayed.theta.get().tobytes() == launched.theta.get().tobytes()
    assert (other.loss, other.validation_loss) == (history.loss, history.validation_loss)
    on_cpu = gb.Network([6, 9, 5, 3], activation="tanh", backend="numpy", **net)
    gb.fit(on_cpu, X, **{"y": Y, "epochs": 4, "batch_size": 10, "tol": None, **arguments})
    within = 1e-12 if on_cpu.dtype == "float64" else 1e-5
    np.testing.assert_allclose(replayed.theta.get(), on_cpu.theta, rtol=within, atol=within)


@pytest.mark.parametrize("shuffle", [True, False])
def test_portions_of_one_step_are_recorded_too(shuffle: bool, graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of large networks are: every replay takes the batch of its step."""
    monkeypatch.setattr(cuda, "PORTION", 1)
    launched, history = _trained(True, shuffle=shuffle)
    replayed, other = _trained(False, shuffle=shuffle)
    assert fake_cupy.Graph.launches > 30
    assert replayed.theta.get().tobytes() == launched.theta.get().tobytes()
    assert other.loss == history.loss


def test_what_is_captured_and_what_is_replayed(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """103 rows: two portions of four steps, one of two, one smaller batch; each is run, captured, and then replayed."""
    captures: list[int] = []
    captured = Recording._captured
    monkeypatch.setattr(Recording, "_captured", lambda self: captures.append(1) or captured(self))
    _trained(epochs=5)
    assert len(captures) == 3, "a new learning rate, order or epoch captures nothing"
    assert fake_cupy.Graph.launches == 5 * 4 - 3  # all portions but the first of each kind


def test_the_learning_rate_of_a_replay_is_that_of_its_step(graphs: Any) -> None:
    """A rate that is not zero in one step alone, which lies in the middle of a replayed portion."""
    moved = []
    for step in (21, 23):
        net = gb.Network([6, 3], backend="cuda")
        start = net.theta.get()
        rates = gb.optimizers.SGD(lambda t, step=step: 0.5 * (t == step))
        gb.fit(net, X, Y, optimizer=rates, epochs=3, batch_size=10, tol=None)
        moved.append(net.theta.get() - start)
    assert all(abs(change).max() > 0 for change in moved)
    assert not np.array_equal(*moved)


def test_scratch_memory_of_a_graph_outlives_a_larger_one(graphs: Any) -> None:
    """What takes more scratch between replays gets another block; the graph keeps that which it goes to."""
    backend = gb.Network([2, 1], backend="cuda").backend
    like, out = graphs.ones(3), graphs.zeros(3)

    def work() -> None:
        scratch = backend._temporary("sums", like, (3,))
        graphs.add(like, 1.0, out=scratch)
        graphs.add(scratch, 1.0, out=out)

    recording = backend.record(work)
    recording()
    recording()
    [block] = [block for block in recording._kept if block.size == 3]
    assert backend._temporary("sums", like, (300,)).data.ptr != block.data.ptr
    out[...] = 0.0
    recording()
    np.testing.assert_array_equal(out.get(), 3.0)


def test_weight_gradients_run_beside_the_deltas(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in knows what is ordered before what: without the join, two streams share memory in no order."""
    _trained(net={"l2": 0.1})
    monkeypatch.setattr(Beside, "join", lambda self: None)
    with pytest.raises(fake_cupy.Unordered):
        _trained(net={"l2": 0.1})


def test_what_runs_beside_has_scratch_memory_of_its_own(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = cuda.CudaBackend._temporary

    def shared(self: Any, name: str, like: Any, shape: Any) -> Any:
        return temporary(self, name.replace("squares", "sums"), like, shape)

    monkeypatch.setattr(cuda.CudaBackend, "_temporary", shared)
    with pytest.raises(fake_cupy.Unordered):
        _trained(net={"l2": 0.1}, batch_size=103)


def test_products_that_run_beside_each_other_have_workspaces_of_their_own(graphs: Any, monkeypatch: Any) -> None:
    workspace = Products._workspace
    monkeypatch.setattr(Products, "_workspace", lambda self, beside: workspace(self, False))
    with pytest.raises(fake_cupy.Unordered):
        _trained()


def test_memory_that_is_handed_out_anew_has_no_past(graphs: Any) -> None:
    x, other = graphs.zeros(4, "float32"), graphs.cuda.Stream(non_blocking=True)
    with other:
        fake_cupy.enqueue(lambda: None, writes=[x._host])
    with pytest.raises(fake_cupy.Unordered):
        x.get()
    fake_cupy.state.order.forget(x._host[2:])  # of a part; all of it goes
    x.get()


def test_work_that_is_not_joined_is_no_graph(graphs: Any) -> None:
    first, beside = graphs.cuda.Stream(non_blocking=True), Beside(graphs)
    with first:
        first.begin_capture()
        with beside.work():
            fake_cupy.enqueue(lambda: None)
        with pytest.raises(fake_cupy.CUDARuntimeError, match="Unjoined"):
            first.end_capture()


def test_an_interrupt_is_heard_between_portions(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    launch = fake_cupy.Graph.launch

    def interrupting(self: Any, stream: Any = None) -> None:
        signal.raise_signal(signal.SIGINT)
        launch(self, stream)

    monkeypatch.setattr(fake_cupy.Graph, "launch", interrupting)
    with pytest.warns(gb.errors.InterruptWarning, match="in epoch 1"):
        net, _ = _trained()
    assert fake_cupy.Graph.launches == 1
    assert np.isfinite(net.theta.get()).all()


FORBIDDEN: dict[str, tuple[Callable[[Any, Any], Any], type[Exception], str]] = {
    "memory": (lambda cp, x: x + x, fake_cupy.CUDARuntimeError, "allocated"),
    "a dot product": (lambda cp, x: cp.dot(x, x, out=x[0:1].reshape(())), fake_cupy.CUDARuntimeError, "allocated"),
    "an operand that overlaps the output": (
        lambda cp, x: cp.add(x[1:], 1.0, out=x[:-1]),
        fake_cupy.CUDARuntimeError,
        "allocated",
    ),
    "memory of the host": (lambda cp, x: cp.cuda.alloc_pinned_memory(8), fake_cupy.CUDARuntimeError, "allocated"),
    "zeros": (lambda cp, x: cp.zeros(3), fake_cupy.CUDARuntimeError, "allocated"),
    "a copy to the host": (lambda cp, x: float(x[0]), fake_cupy.CUDARuntimeError, "copied to the host"),
    "waiting": (lambda cp, x: cp.cuda.get_current_stream().synchronize(), fake_cupy.CUDARuntimeError, "waited"),
    "a product of CuPy": (lambda cp, x: cp.matmul(x, x), NotImplementedError, "stream capture"),
    "a reduction": (lambda cp, x: cp.sum(x, out=x[0:1].reshape(())), fake_cupy.CUDARuntimeError, "reduction"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_a_capture_does_not_allow_is_an_error(what: str, graphs: Any) -> None:
    """What CUDA, or CuPy, refuses inside a capture, the stand-in refuses."""
    work, error, says = FORBIDDEN[what]
    x, stream = graphs.ones(3), graphs.cuda.Stream(non_blocking=True)
    with stream, pytest.raises(error, match=says):
        stream.begin_capture()
        work(graphs, x)
    stream.end_capture()


# -- which engine ------------------------------------------------------------------------------------------------------


def test_the_engine_is_said(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gb.Network([2, 1], backend="cuda").backend.engine == "CUDA graphs, products by cuBLASLt"
    assert NumpyBackend().engine == "NumPy calls, recorded in the first step"
    monkeypatch.setattr(devices, "_products", lambda cupy: "libcublasLt.so.13: no such file")
    forget()
    net = gb.Network([6, 3], backend="cuda")
    assert net.backend.engine == "launches one by one, products by CuPy: libcublasLt.so.13: no such file"
    gb.fit(net, X, Y, epochs=2, batch_size=10)
    assert fake_cupy.Graph.launches == 0


def test_cublaslt_is_taken_where_a_recorded_product_is_right(
    graphs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    cupy = fake_cupy.install(monkeypatch)
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("GPUBACKPROP_AUTOTUNE", "1")
    forget()
    monkeypatch.setattr(devices, "_library", host_cublaslt.library)
    assert isinstance(devices._products(cupy), Products)
    assert [path.name for path in tmp_path.iterdir()] == ["Stand-in-GPU-cublaslt-130100.json"]
    library = host_cublaslt.library({"cublasLtMatmul": 13})
    monkeypatch.setattr(devices, "_library", lambda: library)
    assert "EXECUTION_FAILED" in str(devices._products(cupy))
    monkeypatch.setattr(fake_cupy.Graph, "launch", lambda self, stream=None: None)
    monkeypatch.setattr(devices, "_library", host_cublaslt.library)
    assert devices._products(cupy) == "a replayed product of matrices of ones came out wrong"
    assert gb.Network([2, 1], backend="cuda").backend.engine.endswith("came out wrong")


def test_large_networks_have_short_portions(graphs: Any) -> None:
    backend = gb.Network([2, 1], backend="cuda").backend
    assert [backend.portion(flops) for flops in (1.0, 2.5e11, 5e11, 1e12, 1e15)] == [4, 4, 2, 1, 1]


# -- products ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 7, 3), (1, 7, 3), (5, 1, 3), (5, 7, 1), (1, 1, 1), (64, 33, 10)])
def test_products_of_matrices_and_transposes(shape: tuple[int, int, int], dtype: str, graphs: Any) -> None:
    products = host_cublaslt.products(graphs)
    i, j, k = shape
    A, B = RNG.normal(size=(i, j)).astype(dtype), RNG.normal(size=(j, k)).astype(dtype)
    for left in (graphs.asarray(A), graphs.asarray(np.ascontiguousarray(A.T)).T):
        for right in (graphs.asarray(B), graphs.asarray(np.ascontiguousarray(B.T)).T):
            out = graphs.empty((i, k), dtype)
            products(left, right, out)
            np.testing.assert_allclose(out.get(), A @ B, rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-6)


def test_an_algorithm_is_chosen_once_for_a_kind(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's first, unless another is clearly faster."""
    monkeypatch.setenv("GPUBACKPROP_AUTOTUNE", "1")
    products = host_cublaslt.products(graphs)
    functions, asked = products._library._functions, []
    algorithms = products._library.algorithms
    monkeypatch.setattr(products._library, "algorithms", lambda *a: asked.append(a) or algorithms(*a))
    A, B, out = (graphs.ones((n, n), "float32") for n in (4, 4, 4))
    times = iter([1.0] * 5 + [0.98] * 5 + [1.0] * 5 + [0.9] * 5)
    monkeypatch.setattr(graphs.cuda, "get_elapsed_time", lambda start, stop: next(times))
    for expected in (b"", b"\x01"):
        products = products.with_precision("float32")  # which has chosen nothing yet
        for _ in range(3):
            products(A, B, out)
        assert functions.products[-1] == ((4, 4, 4), expected)
    assert len(asked) == 2


def test_a_choice_is_kept_for_the_next_process(graphs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GPUBACKPROP_AUTOTUNE", "1")
    matrices = [graphs.ones((4, 4), "float32") for _ in range(3)]
    times = iter([1.0] * 5 + [0.9] * 5)
    monkeypatch.setattr(graphs.cuda, "get_elapsed_time", lambda start, stop: next(times))
    for _ in range(2):  # the second time nothing is measured
        products = Products(graphs, host_cublaslt.library(), Choices("device"))
        products(*matrices)
        assert products._library._functions.products[-1][1] == b"\x01"
    [file] = (tmp_path / "cache").iterdir()
    for damaged in (b"", b"[1]", b'{"a": 1}', b"\xff", b'{"a": "b"}'):
        file.write_bytes(damaged)
        times = iter([1.0] * 10)
        products = Products(graphs, host_cublaslt.library(), Choices("device"))
        products(*matrices)
        assert products._library._functions.products[-1][1] == b""
        assert list(times) == []
    assert '"a": "b"' in file.read_text(), "what others chose is kept"


def test_a_choice_that_cannot_be_kept_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path / "file"))
    choices = Choices("device")
    choices.keep("a", "b")
    assert choices.get("a") == "b"
    assert Choices("device").get("a") is None


def test_a_user_without_a_home_makes_choices_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: Any) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GPUBACKPROP_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    for _ in range(2):
        choices = Choices("device")
        assert choices.get("a") is None
        choices.keep("a", "b")
        assert choices.get("a") == "b"


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [
        ("cublasLtCreate", 1, "cublasLtCreate failed with status 1, NOT_INITIALIZED: no driver or no device"),
        ("cublasLtMatmul", 15, "cublasLtMatmul failed with status 15, NOT_SUPPORTED"),
        ("cublasLtMatmulAlgoGetHeuristic", 3, "status 3, ALLOC_FAILED: the device has no memory left"),
        ("cublasLtMatrixLayoutCreate", 99, "status 99, unknown"),
    ],
)
def test_a_status_becomes_an_error_that_says_what_it_means(name: str, status: int, says: str, graphs: Any) -> None:
    with pytest.raises(CudaLibraryError, match=says):
        library = host_cublaslt.library({name: status})
        products = host_cublaslt.Products(graphs, library, Choices("none"))
        products(*(graphs.ones((2, 2), "float32") for _ in range(3)))


def test_no_algorithm_is_an_error(graphs: Any) -> None:
    products = host_cublaslt.products(graphs)
    products._library._functions.algorithms = 0
    with pytest.raises(CudaLibraryError, match=r"no algorithm for Kind\(rows=2, inner=2, cols=2"):
        products(*(graphs.ones((2, 2), "float32") for _ in range(3)))


def test_a_library_that_is_not_there() -> None:
    with pytest.raises(CudaLibraryError, match=r"cuBLASLt cannot be loaded: .*nowhere"):
        Library("/nowhere/libcublasLt.so")


# -- descriptors, on the library itself --------------------------------------------------------------------------------


@pytest.fixture
def cublaslt(need: Any) -> Library:
    need("cublaslt")
    path = TOOLS["cublaslt"].version()
    assert path is not None
    return Library(path)


def _attribute(library: Library, function: str, descriptor: Any, attribute: int, kind: Any) -> Any:
    value, written = kind(), ctypes.c_size_t()
    size = ctypes.c_size_t(ctypes.sizeof(value))
    library.call(function, descriptor, attribute, ctypes.byref(value), size, ctypes.byref(written))
    assert written.value == size.value
    return value.value


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(
    ("operands", "result", "compute"),
    [
        ("float32", "float32", "float32"),
        ("float32", "float32", "tf32"),
        ("float64", "float64", "float64"),
        ("uint16", "float32", "bfloat16"),
    ],
)
def test_descriptors_hold_what_they_were_given(
    transposed: tuple[bool, bool], operands: str, result: str, compute: str, cublaslt: Library
) -> None:
    plan = Plan(cublaslt, Kind(64, 784, 128, transposed, operands, result, compute, (256, 16, 4, 256, 256)))
    get = "cublasLtMatrixLayoutGetAttribute"
    shapes = [
        [_attribute(cublaslt, get, layout, attribute, ctypes.c_uint64) for attribute in (2, 3, 4)]
        for layout in plan.layouts
    ]
    B = [784, 128, 784] if transposed[1] else [128, 784, 128]
    A = [64, 784, 64] if transposed[0] else [784, 64, 784]
    assert shapes == [B, A, [128, 64, 128]]
    types = [_attribute(cublaslt, get, layout, 0, ctypes.c_uint32) for layout in plan.layouts]
    assert types == [DATA_TYPES[operands], DATA_TYPES[operands], DATA_TYPES[result]]
    get = "cublasLtMatmulDescGetAttribute"
    found = [_attribute(cublaslt, get, plan.operation, attribute, ctypes.c_int32) for attribute in (0, 3, 4)]
    assert found == [COMPUTE_TYPES[compute], transposed[1], transposed[0]]
    get = "cublasLtMatmulPreferenceGetAttribute"
    assert _attribute(cublaslt, get, plan.preference, 1, ctypes.c_uint64) == 32 * 2**20
    found = [_attribute(cublaslt, get, plan.preference, attribute, ctypes.c_uint32) for attribute in (3, 5, 6, 7, 8)]
    assert found == [6, 16, 256, 4, 4]


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("compute", ["float32", "float64"])
def test_descriptors_of_epilogues(epilogue: str, compute: str, cublaslt: Library) -> None:
    plan = Plan(cublaslt, Kind(64, 784, 128, (False, True), compute, compute, compute, (4,) * 5, epilogue))
    plan.point(4096, 8192)
    kinds = {7: ctypes.c_uint32, 8: ctypes.c_void_p, 11: ctypes.c_void_p, 12: ctypes.c_int64}
    found = [
        _attribute(cublaslt, "cublasLtMatmulDescGetAttribute", plan.operation, attribute, kind)
        for attribute, kind in kinds.items()
    ]
    matrix = (8192, 128) if "gelu" in epilogue else (None, 0)
    assert found == [EPILOGUES[epilogue], None if epilogue == "default" else 4096, *matrix]
    assert (plan.one.value, plan.zero.value) == (1.0, 0.0)


def test_numbers_are_those_of_the_header(cublaslt: Library) -> None:
    """The library's setters take any number; its header comes with it."""
    [header] = Path(str(TOOLS["cublaslt"].version())).parents[1].glob("include/cublasLt.h")
    found = dict(re.findall(r"^ +CUBLASLT_(\w+) = ([^,]+),", header.read_text(encoding="utf-8"), re.MULTILINE))

    def number(name: str) -> int:
        parts = re.findall(r"\w+", found[name])  # of a sum of bits
        return reduce(or_, (int(part) if part.isdigit() else number(part.partition("_")[2]) for part in parts))

    assert {name: number(f"EPILOGUE_{name.upper()}") for name in EPILOGUES} == EPILOGUES
    ours = {name: value for name, value in vars(bindings).items() if name.startswith(("_DESC_", "_PREF_"))}
    assert {name: number(HEADER_NAMES[name]) for name in ours} == ours


# Attributes of operations and of preferences in cublasLt.h.
HEADER_NAMES = {
    "_DESC_TRANSA": "MATMUL_DESC_TRANSA",
    "_DESC_TRANSB": "MATMUL_DESC_TRANSB",
    "_DESC_EPILOGUE": "MATMUL_DESC_EPILOGUE",
    "_DESC_BIAS_POINTER": "MATMUL_DESC_BIAS_POINTER",
    "_DESC_AUX_POINTER": "MATMUL_DESC_EPILOGUE_AUX_POINTER",
    "_DESC_AUX_LD": "MATMUL_DESC_EPILOGUE_AUX_LD",
    "_PREF_WORKSPACE": "MATMUL_PREF_MAX_WORKSPACE_BYTES",
    "_PREF_REDUCTIONS": "MATMUL_PREF_REDUCTION_SCHEME_MASK",
    "_PREF_ALIGNMENT_A": "MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
}


def test_without_a_device_the_library_says_so(cublaslt: Library) -> None:
    if gb.why_no_cuda() is None:
        pytest.skip("there is a device")
    with pytest.raises(CudaLibraryError, match="NOT_INITIALIZED: no driver or no device"):
        cublaslt.open()
    assert cublaslt.version >= 120000
