"""A network as an object: threads that share it, copies of it, what may be assigned, what it keeps."""

from __future__ import annotations

import copy
import gc
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.backends import threads
from gpubackprop.errors import OutOfMemory

RNG = numpy.random.default_rng(3)
X, Y = RNG.normal(size=(40, 6)), RNG.normal(size=(40, 2))


def _net(**arguments: Any) -> gb.Network:
    return gb.Network([6, 8, 2], **{"activation": "tanh", "dtype": "float64", "backend": "numpy", **arguments})


def test_threads_that_share_a_network_get_their_own_gradients() -> None:
    net = _net()
    batches = [(X[k : k + 20], Y[k : k + 20]) for k in range(20)]
    alone = [net.loss_and_gradients(*batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: net.loss_and_gradients(*batch), batches * 20))
    for (loss, gradients), (loss_alone, gradients_alone) in zip(together, alone * 20, strict=True):
        assert loss == pytest.approx(loss_alone, rel=1e-12)
        for pair, pair_alone in zip(gradients, gradients_alone, strict=True):
            for part, part_alone in zip(pair, pair_alone, strict=True):
                numpy.testing.assert_allclose(part, part_alone, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_shares_nothing(copied: Callable[[gb.Network], gb.Network]) -> None:
    net = _net()
    net.metadata["made"] = "by hand"
    twin = copied(net)
    assert twin.theta.tobytes() == net.theta.tobytes()
    assert twin.metadata == net.metadata
    gb.fit(twin, X, Y, epochs=1)
    twin.metadata["made"] = "otherwise"
    assert twin.theta.tobytes() != net.theta.tobytes()
    assert net.metadata == {"made": "by hand"}


def test_parameters_are_assigned_into_not_replaced() -> None:
    net, other = _net(), _net(seed=5)
    for name in ("theta", "parameters", "loss", "sizes", "dtype", "activations"):
        with pytest.raises(AttributeError):
            setattr(net, name, getattr(other, name))
    net.parameters[0] = other.parameters[0]  # a list of the caller's
    assert net.parameters[0][0] is not other.parameters[0][0]
    net.theta[...] = other.theta
    assert numpy.array_equal(net.predict(X), other.predict(X))
    W, b = net.parameters[0]
    W[...], b[...] = 0.0, 1.0
    assert (net.theta[: 6 * 8] == 0).all()
    assert (net.theta[6 * 8 : 7 * 8] == 1).all()


def test_layers_are_aligned() -> None:
    """To a cache line of 64 bytes in float32, for the vector loads of both backends."""
    for dtype in ("float32", "float64"):
        for _ in range(5):
            net = gb.Network([3, 5, 7, 2], dtype=dtype, backend="numpy")
            for W, b in net.parameters:
                assert W.ctypes.data % 64 == 0
                assert b.ctypes.data == W.ctypes.data + W.nbytes


def test_a_network_lets_go_of_the_batches_it_was_given() -> None:
    net = gb.Network([784, 4, 2], backend="numpy", dtype="float64")
    net.loss_and_gradients(numpy.zeros((1, 784)), numpy.zeros((1, 2)))  # imports what NumPy imports late
    tracemalloc.start()
    try:
        for rows in range(1, 60):
            net.loss_and_gradients(numpy.zeros((rows, 784)), numpy.zeros((rows, 2)))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The gradient, the buffers of 59 rows of 6 units, and small change; the batches alone would be 59 · 30 · 784 · 8.
    assert kept < 500_000 < 59 * 30 * 784 * 8


def test_a_prediction_lets_go_of_the_examples() -> None:
    """Of those of the last part too, which may be smaller than the others."""
    net = gb.Network([6, 2], backend="numpy")
    X = numpy.ones((10, 6), "float32")
    net.predict(X, batch_size=4)
    alive = weakref.ref(X)
    del X
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("call", ["fit", "predict", "evaluate", "loss_and_gradients"])
def test_threads_are_chosen_by_the_size_of_the_products(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, asked = _net(), []
    real = threads.for_products_of
    monkeypatch.setattr(threads, "for_products_of", lambda flops: (asked.append(flops), real(flops))[1])
    if call == "fit":
        gb.fit(net, X, Y, epochs=1, batch_size=16)
    else:
        getattr(net, call)(*((X,) if call == "predict" else (X, Y)))
    rows = 16 if call == "fit" else 40
    assert max(asked) == net.flops(rows) == 2 * rows * (3 * (6 * 8 + 8 * 2) - 6 * 8)


def test_the_number_of_threads_is_put_back_whoever_leaves_last() -> None:
    pytest.importorskip("threadpoolctl", reason="pip install threadpoolctl")
    controller = threads._controller()  # of the libraries that NumPy had loaded; others may have come since
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with threads.for_products_of(1.0):
            inside.set()
            leave.wait(300)

    def counts() -> list[int]:
        return [library["num_threads"] for library in controller.info()]

    before = counts()
    with threads.for_products_of(1.0):
        worker = threading.Thread(target=work)
        worker.start()
        assert inside.wait(300)
    assert counts() == [1] * len(before)
    leave.set()
    worker.join()
    assert counts() == before
    with ThreadPoolExecutor(1) as pool:  # and a thread other than the first can limit it
        assert pool.submit(lambda: _limited(counts)).result() == [1] * len(before)


def _limited(counts: Callable[[], list[int]]) -> list[int]:
    with threads.for_products_of(1.0):
        return counts()


@pytest.mark.parametrize("sizes", [[10**10, 10**10], [2**40, 2**40]])
def test_a_network_that_no_memory_holds(sizes: list[int]) -> None:
    with pytest.raises(OutOfMemory, match="bytes are needed"):
        gb.Network(sizes, backend="numpy")
