"""What is done in a product instead of behind it: taken by the clock, kept, refused, and right either way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_cupy
import host_cublaslt
import numpy as np
import pytest
from cuda_backends import forget
from interruptions import at, places

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS
from gpubackprop.backends import clock, devices, fusions
from gpubackprop.backends.choices import Choices
from gpubackprop.backends.cublaslt import EPILOGUES, Plan
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.products import Epilogue, Products
from gpubackprop.errors import CudaLibraryError
from gpubackprop.optimizers import SGD

RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(50, 6)), RNG.normal(size=(50, 3))
# The other way is taken where its time is below this share of the first one's: never, and wherever there is another.
PLAIN, FUSED = 0.0, 1e9


@pytest.fixture(params=["stand-in", pytest.param("GPU", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, need: Any, tmp_path: Path) -> Iterator[str]:
    """A device with products of cuBLASLt, which has chosen nothing yet."""
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GPUBACKPROP_AUTOTUNE", "1")
    if request.param == "stand-in":
        need("host")
        fake_cupy.install(monkeypatch)
        monkeypatch.setattr(devices, "_library", host_cublaslt.library)
    forget()
    yield "cuda"
    forget()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, need: Any) -> Iterator[Any]:
    """The stand-in for CuPy, with products of cuBLASLt that choose anew each time."""
    need("host")
    monkeypatch.setenv("GPUBACKPROP_AUTOTUNE", "1")
    made = fake_cupy.install(monkeypatch)
    monkeypatch.setattr(devices, "_products", host_cublaslt.products)
    forget()
    yield made
    forget()


def _network(activation: str, backend: str, width: int = 16, **arguments: Any) -> gb.Network:
    return gb.Network([6, width, 8, 3], activation=activation, backend=backend, **arguments)


def _taken(net: gb.Network) -> dict[str, set[str]]:
    """What the clock took, by what it was asked of."""
    found: dict[str, set[str]] = {}
    for key, way in net.backend.choices.items():
        found.setdefault(" ".join(key.split()[:2]), set()).add(way)
    return found


def _clock(cupy: Any) -> clock.Clock:
    """A clock that knows of no choice and keeps none."""
    choices = Choices("none")
    choices.get, choices.keep = lambda key: None, lambda key, value: None  # type: ignore[method-assign]
    return clock.Clock(cupy, choices)


# -- epilogues ---------------------------------------------------------------------------------------------------------

ENDS = {
    "identity": {"forward bias"},
    "relu": {"forward bias", "forward relu_bias"},
    "gelu_tanh": {"forward bias", "forward gelu_aux_bias", "delta gelu"},
}


def test_a_handler_does_not_take_the_bias_of_the_product_it_interrupts(graphs: Any) -> None:
    products = host_cublaslt.products(graphs)
    zeros = graphs.zeros((4, 4), "float32")
    memory = graphs.asarray(np.arange(4 * 256.0).reshape(4, 256), "float32")
    biases, outs = [memory[k, :4] for k in (0, 1)], [memory[k, :16].reshape(4, 4) for k in (2, 3)]

    def multiply(k: int) -> None:
        products(zeros, zeros, outs[k], epilogue=Epilogue("bias", biases[k]))
        assert (outs[k]._host == biases[k]._host).all()

    multiply(0)
    for place in range(1, places(lambda: multiply(0)) + 1):
        at(place, lambda: multiply(1), lambda: multiply(0))


@pytest.mark.parametrize("margin", [PLAIN, FUSED])
@pytest.mark.parametrize(("dtype", "precision", "within"), [
    ("float32", "float32", 1e-5), ("float64", "float32", 1e-12), ("float32", "tf32", 2.0**-7),
])  # fmt: skip
@pytest.mark.parametrize("activation", ENDS)
def test_outputs_and_gradients_are_those_of_numpy(
    activation: str, dtype: str, precision: str, within: float, margin: float, cuda: str, monkeypatch: Any
) -> None:
    """On a device the library may refuse some; the stand-in has all. TF32: as in test_precision.py."""
    monkeypatch.setattr(clock, "MARGIN", margin)
    net = _network(activation, cuda, dtype=dtype, precision=precision)
    reference = _network(activation, "numpy", dtype=dtype)
    for _, b in net.parameters:
        b[...] = 0.25  # a bias that is not there would not be seen in zeros
    for _, b in reference.parameters:
        b[...] = 0.25
    np.testing.assert_allclose(net.forward(X), reference.forward(X), rtol=within, atol=within)
    (loss, given), (expected, wanted) = net.loss_and_gradients(X, Y), reference.loss_and_gradients(X, Y)
    assert loss == pytest.approx(expected, rel=within)
    for pair, other in zip(given, wanted, strict=True):
        for own, right in zip(pair, other, strict=True):
            np.testing.assert_allclose(net.backend.to_numpy(own), right, rtol=within, atol=within)
    assert set(_taken(net)) == ENDS[activation]
    if margin == PLAIN or hasattr(net.theta, "_host"):
        assert set.union(*_taken(net).values()) == {"plain" if margin == PLAIN else "fused"}


@pytest.mark.parametrize(
    ("width", "arguments", "fused"),
    [
        (13, {"activation": "gelu_tanh"}, {"forward gelu_aux_bias 50 13 8", "delta gelu 50 8 3"}),
        (16, {"activation": "relu"}, {"forward relu_bias 50 6 16", "forward relu_bias 50 16 8"}),
        (16, {"activation": "relu", "precision": "bfloat16"}, set()),
        (16, {"activation": "tanh", "output_activation": "softmax"}, set()),
        (16, {"activation": "gelu"}, set()),
    ],
    ids=str,
)
def test_what_has_an_epilogue(width: int, arguments: dict[str, Any], fused: set[str], graphs: Any) -> None:
    """Not rows of z that are no multiple of eight elements, another type of bias, functions that the library lacks."""
    net = _network(backend="cuda", width=width, **{"output_activation": "sigmoid", **arguments})
    net.loss_and_gradients(X, Y)
    assert {" ".join(key.split()[:5]) for key in net.backend.choices} == fused


def test_a_layer_with_dropout_is_not_fused(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "MARGIN", FUSED)
    net, reference = (_network("gelu_tanh", name, dropout=0.5, dtype="float64") for name in ("cuda", "numpy"))
    masks = reference.draw_masks(50, seed=1)
    (loss, _), (expected, _) = (made.loss_and_gradients(X, Y, masks=masks) for made in (net, reference))
    assert loss == pytest.approx(expected, rel=1e-12)
    assert set(_taken(net)) == {"forward bias"}, "the output layer, which has no mask"


def test_what_the_library_refuses_is_not_fused(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "MARGIN", FUSED)
    net = _network("gelu_tanh", "cuda")
    net.backend.products._library._functions.epilogues = {EPILOGUES["default"], EPILOGUES["gelu_aux_bias"]}
    net.loss_and_gradients(X, Y)
    assert _taken(net) == {"forward bias": {"plain"}, "forward gelu_aux_bias": {"fused"}, "delta gelu": {"plain"}}


def test_what_the_library_refuses_for_its_alignment_is_not_fused(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows of five examples' features are 140 bytes: the second part of the rows is aligned to 4 of them."""
    monkeypatch.setattr(clock, "MARGIN", FUSED)
    net, reference = (gb.Network([5, 8], output_activation="relu", backend=name) for name in ("cuda", "numpy"))
    net.backend.products._library._functions.aligned_operands = 16
    outputs = net.predict(X[:14, :5], batch_size=7)
    np.testing.assert_allclose(outputs, reference.predict(X[:14, :5]), rtol=1e-5, atol=1e-6)
    assert sorted(net.backend.choices.values()) == ["fused", "plain"]


def test_no_row_without_an_epilogue_says_it_has_one() -> None:
    assert {name: row.epilogue for name, row in ACTIVATIONS.items() if row.epilogue} == {
        "identity": "identity",
        "relu": "relu",
        "gelu_tanh": "gelu",
    }


def test_the_faster_way_is_taken_and_kept(graphs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both ways of a layer are timed once; the next process takes the same, whatever its clock says."""
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path))
    timed: list[str] = []

    def measured(self: Any, ways: dict[str, Callable[[], None]]) -> str:
        timed.append(next(iter(ways)))
        for way in ways.values():
            way()
        return list(ways)[-1]

    monkeypatch.setattr(devices, "_products", lambda cupy: Products(cupy, host_cublaslt.library(), Choices("device")))
    monkeypatch.setattr(clock.Clock, "_measured", measured)
    outputs, counts = [], []
    for _ in range(2):
        forget()
        net = _network("relu", "cuda")
        outputs += [net.forward(X).tobytes(), net.forward(X).tobytes()]
        assert _taken(net) == {"forward relu_bias": {"fused"}, "forward bias": {"fused"}}
        counts.append(timed.count("plain"))
    assert counts == [3, 3], "each of three layers, in the first process alone"
    assert len(set(outputs)) == 1


def test_nothing_is_timed_unless_asked_for(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products then use the library's first proposal, and no epilogue."""
    monkeypatch.delenv("GPUBACKPROP_AUTOTUNE")
    monkeypatch.setattr(clock.Clock, "_time", lambda *_: pytest.fail("an implementation was timed"))
    first: list[bool] = []
    choose = Products._choose

    def chosen(self: Products, kind: Any, *operands: Any) -> Any:
        made = choose(self, kind, *operands)
        first.append(made.algorithm == self._library.algorithms(made.plan, 8)[0])
        return made

    monkeypatch.setattr(Products, "_choose", chosen)
    net = _network("relu", "cuda")
    gb.fit(net, X, Y, epochs=1, batch_size=10)
    assert net.backend.choices == {}
    assert all(first)
    assert first


@pytest.mark.parametrize(("factor", "way"), [(0.98, "plain"), (0.96, "fused")])
def test_another_way_has_to_be_clearly_faster(factor: float, way: str, graphs: Any, monkeypatch: Any) -> None:
    times = iter([1.0] * clock.ROUNDS + [factor] * clock.ROUNDS)
    monkeypatch.setattr(graphs.cuda, "get_elapsed_time", lambda start, stop: next(times))
    made = _clock(graphs)
    ways = {"plain": lambda: None, "fused": lambda: None}
    assert [made.fastest(("a",), ways) for _ in range(2)] == [way, way]


def test_threads_take_the_same_way(graphs: Any) -> None:
    """The second asks while the first measures; each clock would say something else."""
    faster, measured = iter([2.0, 0.5]), threading.Barrier(2)
    made, taken = _clock(graphs), []

    def time_of(way: Callable[[], None]) -> float:
        way()
        return 1.0 if way is ways["plain"] else next(faster)

    def work() -> None:
        measured.wait()
        taken.append(made.fastest(("a",), ways))

    made._time = time_of  # type: ignore[method-assign]
    ways = {"plain": lambda: time.sleep(0.05), "fused": lambda: None}
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == ["plain", "plain"]


def test_a_way_may_ask_the_clock_itself(graphs: Any) -> None:
    made = _clock(graphs)
    inner = {"only": lambda: None}
    assert made.fastest(("a",), {"plain": lambda: None, "fused": lambda: made.fastest(("b",), inner)}) == "plain"
    assert made.taken == {("a",): "plain", ("b",): "only"}


def test_a_z_that_is_needed_later_is_written(graphs: Any) -> None:
    """By an epilogue that writes it; one that does not is not taken, as for a loss that reads z of such a layer."""
    z, a, b = (graphs.ones(shape, "float32") for shape in ((4, 8), (4, 8), 8))
    found = {
        name: [fusions.forward(ACTIVATIONS[name], b, None, first, a) for first in (z, a)]
        for name in ("identity", "relu", "gelu_tanh")
    }
    assert {name: [e is not None for e in pair] for name, pair in found.items()} == {
        "identity": [False, True],
        "relu": [False, True],
        "gelu_tanh": [True, False],
    }


def test_threads_do_not_take_each_others_bias(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor holds the pointer to it, and threads share the descriptor."""
    products, point = host_cublaslt.products(graphs), Plan.point
    zeros, wrong = graphs.zeros((4, 4), "float32"), []
    memory = graphs.asarray(np.arange(4 * 256.0).reshape(4, 256), "float32")  # of one alignment, and so of one kind
    biases, outs = [memory[k, :4] for k in (0, 1)], [memory[k, :16].reshape(4, 4) for k in (2, 3)]
    for b, out in zip(biases, outs, strict=True):  # what is chosen and allocated at the first call
        products(zeros, zeros, out, epilogue=Epilogue("bias", b))
    assert len(products._chosen) == 1

    def slow(self: Plan, vector: int, matrix: int) -> None:
        point(self, vector, matrix)
        time.sleep(0.001)  # here another thread would point elsewhere

    def work(b: Any, out: Any) -> None:
        for _ in range(20):
            products(zeros, zeros, out, epilogue=Epilogue("bias", b))
            wrong.extend(out._host[out._host != b._host])

    monkeypatch.setattr(Plan, "point", slow)
    threads = [threading.Thread(target=work, args=pair) for pair in zip(biases, outs, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("margin", [PLAIN, FUSED])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("activation", ENDS)
def test_replayed_steps_give_the_bits_of_launched_ones(
    activation: str, momentum: float, margin: float, cuda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "MARGIN", margin)
    rule, thetas = SGD(0.05, momentum=momentum), []
    for records in (False, True):
        net = _network(activation, cuda)
        with pytest.MonkeyPatch.context() as patch:
            if not records:
                patch.setattr(net.backend, "record", lambda work: work)
            gb.fit(net, X, Y, optimizer=rule, epochs=8, batch_size=8, tol=None)
        thetas.append(net.backend.to_numpy(net.theta))
    assert thetas[0].tobytes() == thetas[1].tobytes()
    reference = _network(activation, "numpy")
    gb.fit(reference, X, Y, optimizer=rule, epochs=8, batch_size=8, tol=None)
    np.testing.assert_allclose(thetas[0], reference.theta, rtol=1e-4, atol=1e-4)  # 56 steps, each off by some 1e-7


# -- sums that are scaled on the device --------------------------------------------------------------------------------


def _arrays(backend: Any, *arrays: np.ndarray, dtype: str = "float32") -> list[Any]:
    return [backend.asarray(array, dtype) for array in arrays]


def test_nothing_reads_weights_before_they_are_joined(graphs: Any) -> None:
    backend = _network("tanh", "cuda").backend
    h, delta, W, b, z = _arrays(backend, np.ones((4, 6)), np.ones((4, 5)), np.ones((6, 5)), np.ones(5), np.ones((4, 5)))
    backend.weight_gradient(h, delta, W)
    with pytest.raises(fake_cupy.Unordered):
        backend.forward(ACTIVATIONS["tanh"], h, W, b, None, z, z, z)
    backend.join()
    backend.forward(ACTIVATIONS["tanh"], h, W, b, None, z, z, z)


def test_the_last_gradient_need_not_run_beside(graphs: Any) -> None:
    """On the current stream it needs no join, and goes at the same time as one that runs beside."""
    backend = _network("tanh", "cuda").backend
    h, delta, W, out = _arrays(backend, np.ones((4, 6)), np.ones((4, 5)), np.ones((6, 5)), np.ones((6, 5)))
    backend.weight_gradient(h, delta, W)
    backend.weight_gradient(h, delta, out, beside=False)
    backend.put(out, out)
    with pytest.raises(fake_cupy.Unordered):
        backend.put(W, out)


def test_a_step_that_fails_is_undone_after_what_runs_beside_it(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """∂L/∂W_3 and ∂L/∂W_2 are being computed on the other stream when the first layer's product fails."""
    monkeypatch.setattr(clock, "MARGIN", FUSED)
    weight_gradient = CudaBackend.weight_gradient

    def fails(self: Any, h: Any, delta: Any, dW: Any, beside: bool = True) -> None:
        if not beside:
            raise CudaLibraryError("it cannot be launched")
        weight_gradient(self, h, delta, dW, beside)

    monkeypatch.setattr(CudaBackend, "weight_gradient", fails)
    net = _network("tanh", "cuda")
    before = net.theta.get()
    with pytest.raises(CudaLibraryError, match="it cannot be launched"):
        gb.fit(net, X, Y, optimizer=SGD(0.1), epochs=1)
    assert net.theta.get().tobytes() == before.tobytes()


def test_memory_is_predicted_without_a_measurement(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken of the device's memory, and nothing is timed."""
    backend, taken = _network("tanh", "cuda").backend, []
    monkeypatch.setattr(fake_cupy, "_aligned", lambda host: taken.append(host.nbytes) or host)
    parameters = 4 * (7 * 16 + 17 * 3)
    kept = 4 * parameters  # θ, its gradient, and what is gone back to after failure or divergence
    assert gb.bytes_of_training((6, 16, 3), backend="cuda", batch_size=5) > kept
    assert (taken, backend.choices) == ([], {})
