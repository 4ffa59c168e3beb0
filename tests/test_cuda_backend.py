"""Networks on the CUDA backend against NumPy: on a stand-in that refuses what CuPy refuses, and on a GPU.

The backend runs twice: as array expressions on CuPy's arrays, and with its kernels, compiled by g++ for the stand-in.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import pytest

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS, Activation
from gpubackprop.errors import InvalidValue, OutOfMemory
from gpubackprop.losses import LOSSES
from gpubackprop.optimizers import OPTIMIZERS
from gpubackprop.run import Run

N = 11
RNG = np.random.default_rng(11)
X, WEIGHTS = RNG.normal(size=(N, 5)), RNG.uniform(size=N)
SHARES = RNG.dirichlet(np.ones(3), N)


def _on_device(x: np.ndarray) -> Any:
    """An array of CuPy, or of the stand-in for it."""
    return importlib.import_module("cupy").asarray(x)


def _pair(device: str, **arguments: Any) -> tuple[gb.Network, gb.Network]:
    """The same network on NumPy and on the stand-in."""
    arguments = {"activation": "tanh", "dtype": "float64", **arguments}
    on_cpu, on_gpu = (gb.Network([5, 7, 4, 3], **arguments, backend=name) for name in ("numpy", device))
    assert on_gpu.backend.name == "cuda"
    assert getattr(on_gpu.theta, "_device", on_gpu.backend.index) == on_gpu.backend.index
    return on_cpu, on_gpu


def _close(on_gpu: Any, on_cpu: np.ndarray, within: float = 1e-12) -> None:
    host = on_gpu.get() if hasattr(on_gpu, "get") else on_gpu
    assert isinstance(host, np.ndarray)
    assert host.dtype == on_cpu.dtype
    np.testing.assert_allclose(host, on_cpu, rtol=within, atol=within)


def _gradients_agree(pair: tuple[gb.Network, gb.Network], *batch: Any, within: float = 1e-12, **named: Any) -> None:
    (cpu_loss, cpu), (gpu_loss, gpu) = (net.loss_and_gradients(*batch, **named) for net in pair)
    assert gpu_loss == pytest.approx(cpu_loss, rel=within)
    for (dW, db), (dW_cpu, db_cpu) in zip(gpu, cpu, strict=True):
        _close(dW, dW_cpu, within)
        _close(db, db_cpu, within)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize(("dtype", "within"), [("float64", 1e-12), ("float32", 1e-5)])
def test_every_activation(name: str, dtype: str, within: float, device: str) -> None:
    inner = {} if name == "softmax" else {"activation": name}
    pair = _pair(device, output_activation=name, dtype=dtype, **inner)
    _close(pair[1].forward(X), pair[0].forward(X), within)
    _gradients_agree(pair, X, SHARES, within=within)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("canonical", [True, False])
def test_every_loss(name: str, canonical: bool, device: str) -> None:
    row = LOSSES[name].canonical if canonical else None
    pair = _pair(device, output_activation=row or "sigmoid", loss=replace(LOSSES[name], targets="any"))
    _gradients_agree(pair, X, SHARES)
    _gradients_agree(pair, X, SHARES, WEIGHTS)
    on_cpu, on_gpu = pair
    assert on_gpu.evaluate(X, SHARES, WEIGHTS) == pytest.approx(on_cpu.evaluate(X, SHARES, WEIGHTS), rel=1e-12)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
@pytest.mark.parametrize("extras", [{}, {"weight_decay": 0.1, "clip_norm": 0.05}])
def test_every_optimizer(name: str, extras: dict[str, float], device: str) -> None:
    pair = _pair(device, loss="huber", l2=0.01)
    histories = [gb.fit(net, X, SHARES, optimizer=OPTIMIZERS[name](**extras), epochs=4, batch_size=4) for net in pair]
    _close(pair[1].theta, pair[0].theta)
    assert histories[1].loss == pytest.approx(histories[0].loss, rel=1e-12)
    assert histories[1].backend == pair[1].backend.description


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "momentum": ({}, {"optimizer": OPTIMIZERS["sgd"](0.1, momentum=0.9, nesterov=True)}),
    "momentum of RMSprop": ({}, {"optimizer": OPTIMIZERS["rmsprop"](0.01, momentum=0.5)}),
    "dropout": ({"dropout": 0.5}, {}),
    "sample weights": ({}, {"sample_weight": WEIGHTS}),
    "some weights zero": ({}, {"sample_weight": np.where(np.arange(N) < 8, 0.0, 1.0), "shuffle": False}),
    "in order": ({}, {"shuffle": False}),
    "one batch": ({}, {"batch_size": 100}),
    "batches of one": ({}, {"batch_size": 1}),
    "validation": ({}, {"validation_data": (X[:3], SHARES[:3])}),
    "schedule": ({}, {"optimizer": OPTIMIZERS["adam"](gb.schedules.WarmUp(gb.schedules.Cosine(0.01, 9), 2))}),
    "callback": ({}, {"callbacks": [lambda net, history: net.predict(X) is None]}),
    "cross-entropy": ({"loss": "cross_entropy", "output_activation": "softmax", "l2": 0.1, "dropout": 0.2}, {}),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_training(option: str, device: str) -> None:
    arguments, options = OPTIONS[option]
    pair = _pair(device, **arguments)
    start = pair[0].theta.copy()
    histories = [gb.fit(net, X, SHARES, **{"epochs": 3, "batch_size": 4, **options}) for net in pair]
    _close(pair[1].theta, pair[0].theta)
    assert not np.array_equal(start, pair[0].theta)
    assert histories[1].loss == pytest.approx(histories[0].loss, rel=1e-12)
    assert histories[1].validation_loss == pytest.approx(histories[0].validation_loss, rel=1e-12)


def test_labels_masks_and_a_row_of_the_users(device: str) -> None:
    cube = Activation(
        "cube", lambda m, z: m.where(z < 0.0, -z, z * z * z), lambda m, z, a: m.where(z < 0.0, -1.0, 3 * z * z)
    )
    pair = _pair(device, activation=cube, loss="cross_entropy", output_activation="softmax", dropout=0.3)
    y = RNG.integers(0, 3, N)
    masks = pair[0].draw_masks(N, seed=4)
    _gradients_agree(pair, X, y, WEIGHTS, masks=masks)
    _gradients_agree(pair, X, _on_device(y), masks=[_on_device(mask) for mask in masks])


def test_divergence_keeps_the_last_finite_parameters(device: str) -> None:
    pair = _pair(device, activation="relu", dtype="float32")
    for net in pair:
        with pytest.warns(gb.errors.DivergenceWarning):
            gb.fit(net, X, 1e3 * SHARES, optimizer=OPTIMIZERS["sgd"](1e6), epochs=60)
        assert net.backend.is_finite(net.theta)
    _close(pair[1].theta, pair[0].theta, 1e-4)


def test_results_are_the_kind_of_array_that_was_given(device: str) -> None:
    on_cpu, on_gpu = _pair(device)
    for net in (on_cpu, on_gpu):
        for call in (net.forward, net.predict):
            assert type(call(X)) is type(call(X.tolist())) is np.ndarray
            given = call(_on_device(X))
            assert type(given) is type(_on_device(X))
            _close(given, call(X))
    _close(on_gpu.predict(X, batch_size=4), on_cpu.predict(X, batch_size=3))


def test_to_save_load_and_check(device: str, tmp_path: Path) -> None:
    on_cpu, on_gpu = _pair(device)
    assert on_gpu.to("numpy").theta.tobytes() == on_cpu.theta.tobytes()
    assert on_cpu.to(device).theta.get().tobytes() == on_cpu.theta.tobytes()
    on_gpu.save(tmp_path / "gpu")
    on_cpu.save(tmp_path / "cpu")
    assert (tmp_path / "gpu").read_bytes() == (tmp_path / "cpu").read_bytes()
    back = gb.load(tmp_path / "cpu", backend=device)
    assert back.backend is on_gpu.backend
    assert back.theta.get().tobytes() == on_cpu.theta.tobytes()
    assert gb.check_gradients(on_gpu, X, SHARES).largest_error < 1e-12


@pytest.mark.parametrize("kind", [">f8", "float16", "longdouble", "uint8", "bool"])
def test_types_that_a_device_lacks_are_cast_on_the_host(kind: str, device: str) -> None:
    on_cpu, on_gpu = _pair(device)
    given = (10 * X).astype(kind)
    _close(on_gpu.forward(given), on_cpu.forward(given))
    _close(on_gpu.forward(np.asfortranarray(given[::-1])), on_cpu.forward(given[::-1]))


BAD: dict[str, Callable[[gb.Network], Any]] = {
    "NaN": lambda net: net.forward(np.full((2, 5), np.nan)),
    "beyond float32": lambda net: net.forward(np.full((2, 5), 1e39)),
    "NaN on the device": lambda net: net.forward(_on_device(np.full((2, 5), np.inf))),
    "weights": lambda net: net.evaluate(X, SHARES, -WEIGHTS),
    "shares": lambda net: net.evaluate(X, 2 * SHARES),
    "labels": lambda net: net.evaluate(X, _on_device(np.full(N, 3))),
}


@pytest.mark.parametrize("call", BAD)
def test_bad_input_gets_the_same_message(call: str, device: str) -> None:
    messages = []
    for net in _pair(device, loss="cross_entropy", output_activation="softmax", dtype="float32"):
        with pytest.raises(InvalidValue) as raised:
            BAD[call](net)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


# -- on a device alone -------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "within"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_ten_epochs_end_where_the_cpu_ends(activation: str, dtype: str, within: float) -> None:
    """With dropout, penalty, clipping, weights, and a last batch that is smaller; reduced precision is off."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(1000, 64)), rng.integers(0, 10, 1000), rng.uniform(0.5, 2, 1000)
    thetas, losses = [], []
    for backend in ("numpy", "cuda"):
        net = gb.Network(
            [64, 96, 33, 10], activation=activation, output_activation="softmax", loss="cross_entropy",
            l2=1e-4, dropout=0.1, dtype=dtype, backend=backend,
        )  # fmt: skip
        rule = OPTIMIZERS["adam"](1e-3, clip_norm=1.0)
        history = gb.fit(net, x, y, sample_weight=w, optimizer=rule, epochs=10, batch_size=128, tol=None)
        thetas.append(net.backend.to_numpy(net.theta))
        losses.append(history.loss)
    assert abs(thetas[1] - thetas[0]).max() <= within * abs(thetas[0]).max()
    np.testing.assert_allclose(losses[1], losses[0], rtol=within)


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["cupy", "torch"])
def test_arrays_of_the_device_stay_there(library: str) -> None:
    """Without a copy on the way in; what is returned is of the library that was given, on the device."""
    module = pytest.importorskip(library)
    net = gb.Network([5, 8, 3], backend="cuda")
    x = module.ones((7, 5), dtype=module.float32, **({"device": "cuda"} if library == "torch" else {}))
    pointer = x.data.ptr if library == "cupy" else x.data_ptr()
    assert net.backend.asarray(x, "float32").data.ptr == pointer
    result = net.predict(x, batch_size=3)
    assert type(result) is type(x)
    assert "cuda" in str(result.device).lower()
    again = importlib.import_module("cupy").from_dlpack(result)
    assert again.data.ptr == (result.data.ptr if library == "cupy" else result.data_ptr())


@pytest.mark.gpu
def test_a_network_that_no_gpu_holds() -> None:
    with pytest.raises(OutOfMemory, match="bytes free"):
        gb.Network([2**20, 2**20], backend="cuda")
    assert gb.Network([5, 3], backend="cuda").predict(X).shape == (N, 3)


@pytest.mark.gpu
def test_a_limit_of_the_memory_pool_is_an_error_with_a_name() -> None:
    cupy = importlib.import_module("cupy")
    net, pool = gb.Network([512, 512, 3], backend="cuda"), cupy.get_default_memory_pool()
    x, before = np.zeros((20_000, 512)), net.theta.get()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + 2**24)
    try:
        with pytest.raises(OutOfMemory, match=r"cuda:0 has .* bytes free: .*; take a smaller batch_size"):
            gb.fit(net, x, np.zeros((20_000, 3)), batch_size=20_000)
    finally:
        pool.set_limit(size=0)
    assert np.array_equal(net.theta.get(), before)
    gb.fit(net, x[:100], np.zeros((100, 3)), epochs=1)


@pytest.mark.gpu
def test_reruns_give_the_same_bits() -> None:
    rng, thetas = np.random.default_rng(0), set()
    x, y = rng.normal(size=(500, 40)), rng.integers(0, 10, 500)
    for _ in range(20):
        net = gb.Network(
            [40, 300, 70, 10], activation="silu", output_activation="softmax", loss="cross_entropy", backend="cuda",
            dropout=0.2, l2=1e-3,
        )  # fmt: skip
        gb.fit(net, x, y, optimizer=OPTIMIZERS["adam"](1e-3, clip_norm=1.0), epochs=3, batch_size=128)
        thetas.add(net.theta.get().tobytes())
    assert len(thetas) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"l2": 1e-3, "dropout": 0.2}], ids=str)
def test_replayed_steps_give_the_bits_of_launched_ones(options: dict[str, Any], precision: str) -> None:
    rng, thetas = np.random.default_rng(0), []
    x, y = rng.normal(size=(1000, 64)), rng.integers(0, 10, 1000)
    for records in (False, True):
        net = gb.Network(
            [64, 128, 96, 10], activation="gelu", output_activation="softmax", loss="cross_entropy", backend="cuda",
            precision=precision, **options,
        )  # fmt: skip
        assert net.backend.engine.startswith("CUDA graphs"), net.backend.engine
        with pytest.MonkeyPatch.context() as patch:
            if not records:
                patch.setattr(net.backend, "record", lambda work: work)
            gb.fit(net, x, y, optimizer="adam", epochs=4, batch_size=64, tol=None)
        thetas.append(net.theta.get().tobytes())
    assert thetas[0] == thetas[1]


def _run_on_a_device(rows: int, batch_size: int) -> Run:
    """A training run that has compiled, captured and allocated all it needs."""
    net = gb.Network([64, 128, 10], activation="tanh", backend="cuda", dropout=0.1, l2=1e-3)
    batch = net._batch(np.zeros((rows, 64)), np.zeros((rows, 10)), np.ones(rows))
    run = Run(net, *batch, OPTIMIZERS["adam"](1e-3, clip_norm=1.0), batch_size, True, 0)
    with net.backend.running(0.0):
        for _ in range(4):
            run.epoch(lambda: False)
        net.backend.synchronize()
    return run


@pytest.mark.gpu
def test_memory_is_flat_over_steps() -> None:
    """Over 2,000 steps, in epochs of 20 and a smaller last one."""
    pool = importlib.import_module("cupy").get_default_memory_pool()
    run = _run_on_a_device(20 * 32 + 5, 32)
    with run.net.backend.running(0.0):
        used, held = pool.used_bytes(), pool.total_bytes()
        for _ in range(100):
            run.epoch(lambda: False)
        run.net.backend.synchronize()
    assert (pool.used_bytes(), pool.total_bytes()) == (used, held)


SPIN = r"""extern "C" __global__ void spin(long long cycles) {
    for (long long start = clock64(); clock64() - start < cycles;) {}
}"""


def _is_ahead(run: Any, do: Callable[[], Any], spin: Any, cycles: float) -> bool:
    """Return whether the host finishes ten calls while a kernel of `cycles` cycles (1 s: 2e9) still runs."""
    run.net.backend.synchronize()
    held = importlib.import_module("cupy").cuda.Event()
    spin((1,), (1,), (np.int64(cycles),))
    held.record()
    for _ in range(10):
        do()
    return not held.done


@pytest.mark.gpu
def test_a_step_does_not_wait_for_the_device() -> None:
    """While the device is held up by a kernel, the host gets through its steps; a busy host has more time."""
    cupy = importlib.import_module("cupy")
    run, spin = _run_on_a_device(256, 32), cupy.RawKernel(SPIN, "spin")
    with run.net.backend.running(0.0):
        order, table = run.net.backend.asarray(run.order, "int64"), run._table(8)
        take = functools.partial(run._take, order, table[: run.portion], 0, 32)
        step = functools.partial(run.step, 0, 32)
        spin((1,), (1,), (np.int64(1),))
        for do in (step, take):
            assert any(_is_ahead(run, do, spin, cycles) for cycles in (2e9, 2e10, 2e11)), "the host waits"
        run.net.backend.synchronize()


# -- on the stand-in ---------------------------------------------------------------------------------------------------


def test_memory_that_runs_out_says_what_was_free(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, net = _pair(stand_in)
    before = net.theta.get()
    monkeypatch.setattr(fake_cupy.state, "free", 300)
    index = net.backend.index
    for call in (lambda: net.forward(X), lambda: gb.fit(net, X, SHARES), lambda: net.loss_and_gradients(X, SHARES)):
        with pytest.raises(
            OutOfMemory, match=rf"cuda:{index} has 300 of 1,099,511,627,776 bytes free: .* allocating"
        ) as raised:
            call()
        assert isinstance(raised.value, MemoryError)
        assert "batch_size" in str(raised.value)
    with pytest.raises(OutOfMemory, match="bytes free"):
        gb.Network([5, 100, 3], backend=stand_in)
    monkeypatch.setattr(fake_cupy.state, "free", 2**40)
    assert np.array_equal(net.theta.get(), before)
    assert fake_cupy.state.current == 0, "the device that was current is so again"


def test_steps_do_not_wait_for_the_device(stand_in: str) -> None:
    """Copies to the host stop a GPU: there are as many for ten batches an epoch as for one, and few."""
    copies = {}
    for batch_size in (1, N):
        _, net = _pair(stand_in)
        fake_cupy.state.copies = 0
        gb.fit(net, X, SHARES, epochs=5, batch_size=batch_size, tol=None, sample_weight=WEIGHTS)
        copies[batch_size] = fake_cupy.state.copies
    assert copies[1] == copies[N] < 40


def test_clipping_and_penalty_do_not_wait_for_the_device(stand_in: str) -> None:
    copies = []
    for batch_size in (1, N):
        _, net = _pair(stand_in, l2=0.1)
        fake_cupy.state.copies = 0
        gb.fit(net, X, SHARES, epochs=2, batch_size=batch_size, optimizer=OPTIMIZERS["adam"](clip_norm=0.1))
        copies.append(fake_cupy.state.copies)
    assert copies[0] == copies[1]


PLAIN = {"gather", "activate", "softmax", "output_rows", "delta", "sum_rows", "update", "weights"}
WARMED: dict[str, tuple[dict[str, Any], Any, set[str]]] = {
    "plain": ({}, OPTIMIZERS["adam"](), PLAIN),
    "all": ({"dropout": 0.2, "l2": 0.1}, OPTIMIZERS["adam"](clip_norm=1.0), PLAIN | {"dropout", "penalty"}),
}


@pytest.mark.parametrize("case", WARMED)
def test_warmup_compiles_what_training_needs(case: str, stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, rule, needed = WARMED[case]
    compiled: list[str] = []
    module = importlib.import_module("cupy").RawModule
    monkeypatch.setattr("cupy.RawModule", lambda *, code, options: compiled.append(code) or module(code=code))
    _, net = _pair(stand_in, output_activation="softmax", loss="cross_entropy", **arguments)
    before, x, y = net.theta.get(), RNG.normal(size=(300, 5)), RNG.integers(0, 3, 300)
    gb.warmup(net, optimizer=rule, batch_size=32)
    assert np.array_equal(net.theta.get(), before)
    warm = len(compiled)
    for weights in (None, np.ones(300)):
        options = {"sample_weight": weights, "validation_data": (x, y), "batch_size": 32, "epochs": 2}
        gb.fit(net, x, y, optimizer=rule, **options)
    assert len(compiled) == warm == len(needed)
    assert not np.array_equal(net.theta.get(), before)


# -- the stand-in itself -----------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Any, Any], Any], type[Exception], str]] = {
    "numpy.asarray": (lambda cp, x: np.asarray(x), TypeError, "Implicit conversion"),
    "numpy.ndarray + cupy": (lambda cp, x: np.ones(3) + x, TypeError, "Unsupported type"),
    "cupy * numpy.ndarray": (lambda cp, x: x * np.ones(3), TypeError, "Unsupported type"),
    "numpy.ufunc": (lambda cp, x: np.exp(x), TypeError, "."),
    "numpy.sum": (lambda cp, x: np.sum(x), TypeError, "numpy.sum"),
    "ufunc of a list": (lambda cp, x: cp.add(x, [1.0, 2.0, 3.0]), TypeError, "Unsupported type"),
    "ufunc into NumPy": (lambda cp, x: cp.add(x, x, out=np.ones(3)), TypeError, "Unsupported type"),
    "ufunc with where": (lambda cp, x: cp.add(x, x, where=x > 0), TypeError, "Wrong arguments"),
    "cast to another kind": (lambda cp, x: cp.add(x, x, out=cp.zeros(3, "int32")), TypeError, "Cannot cast"),
    "take with mode": (lambda cp, x: cp.take(x, cp.zeros(2, int), mode="clip"), TypeError, "mode"),
    "take of host indices": (lambda cp, x: cp.take(x, np.zeros(2, int)), TypeError, "Unsupported type"),
    "take into another type": (
        lambda cp, x: cp.take(x, cp.zeros(2, int), out=cp.zeros(2, "f4")),
        TypeError,
        "mismatch",
    ),
    "copyto from NumPy": (lambda cp, x: cp.copyto(x, np.ones(3)), TypeError, "Unsupported type"),
    "assignment from NumPy": (lambda cp, x: x.__setitem__(..., np.ones(3)), ValueError, "non-scalar"),
    "sum of NumPy": (lambda cp, x: cp.amax(np.ones(3), out=x), TypeError, "."),
    "sum into another shape": (lambda cp, x: cp.sum(x, out=x), ValueError, "shape"),
    "long double": (lambda cp, x: cp.asarray(np.ones(3, "longdouble")), ValueError, "Unsupported dtype"),
    "another device": (lambda cp, x: cp.cuda.Device(1).__enter__() and cp.exp(x), ValueError, "current device"),
    "no such device": (lambda cp, x: cp.cuda.Device(7).__enter__(), RuntimeError, "invalid device"),
    "what it lacks": (lambda cp, x: cp.sinh(x), AttributeError, "sinh"),
}


@pytest.mark.parametrize("call", REFUSED)
def test_stand_in_refuses(call: str, stand_in: str) -> None:
    import cupy  # the stand-in

    function, error, says = REFUSED[call]
    with pytest.raises(error, match=says):
        function(cupy, cupy.ones(3))


def test_stand_in_has_the_signatures_of_cupy() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: nothing to compare the stand-in with")
    for name in fake_cupy.FUNCTIONS:
        ours, theirs = (inspect.signature(getattr(module, name)).parameters.values() for module in (fake_cupy, cupy))
        assert [(p.name, p.kind, p.default) for p in ours] == [(p.name, p.kind, p.default) for p in theirs], name
    for name, ours in fake_cupy.UFUNCS.items():
        theirs = getattr(cupy, name)
        assert isinstance(theirs, cupy.ufunc)
        assert (ours.nin, ours.nout) == (theirs.nin, theirs.nout), name
    methods = {name for name in vars(fake_cupy.ndarray) if not name.startswith("_")}
    assert {"reshape", "get", "sum"} <= methods <= set(dir(cupy.ndarray))
    assert cupy.ndarray.__module__ == fake_cupy.ndarray.__module__
    assert set(vars(fake_cupy.cuda)) - {"nccl"} <= set(dir(cupy.cuda))
    assert hasattr(cupy.cuda.MemoryHook, "malloc_preprocess")
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
