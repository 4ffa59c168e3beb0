"""A network on a device that is not current: streams, events and graphs of one device are refused on another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fake_cupy
import numpy as np
import pytest
from cuda_backends import forget

import gpubackprop as gb
from gpubackprop import streaming
from gpubackprop.backends import devices
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.pairs import DevicePair

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(203, 6)).astype("float32"), RNG.normal(size=(203, 3))
N = 16


@pytest.fixture
def two(graphs: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in with graphs and two devices, and windows of three batches."""
    monkeypatch.setattr(fake_cupy.state, "devices", 2)
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 3 * N * 4 * 10)
    return graphs


def _streamed(backend: str, precision: str, stream: bool = True) -> tuple[bytes, list[float], bytes]:
    net = gb.Network([6, 9, 3], activation="tanh", backend=backend, precision=precision)
    history = gb.fit(net, X, Y, epochs=3, batch_size=N, tol=None, stream=stream, shuffle=False)
    assert history.data.startswith("read in windows") == stream
    given = (lambda: iter([X[:100], X[100:]])) if stream else X
    return net.theta.get().tobytes(), history.loss, net.predict(given, batch_size=N).tobytes()


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("backend", ["cuda", "cuda:1"])
def test_streaming_has_the_bits_of_memory_on_every_device(backend: str, precision: str, two: Any) -> None:
    launches = fake_cupy.Graph.launches
    assert _streamed(backend, precision) == _streamed("cuda", precision, stream=False)
    assert fake_cupy.Graph.launches > launches
    assert fake_cupy.state.current == 0


@pytest.mark.parametrize("method", ["host", "sent", "taken", "given_back"])
def test_buffers_make_their_device_current(method: str, two: Any) -> None:
    pair = gb.Network([6, 3], backend="cuda:1").backend.pair([(4, 6)], "float32")
    with two.cuda.Device(0):
        getattr(pair, method)(0)
    assert isinstance(pair, DevicePair)


def test_types_are_converted_on_the_device_of_the_array(two: Any) -> None:
    backend = gb.Network([6, 3], backend="cuda:1", precision="bfloat16").backend
    x = backend.asarray(X, "float32")
    narrow, wide = backend.narrow(x), backend.zeros(X.shape, "float32")
    backend.widen(narrow, wide)
    assert narrow._device == wide._device == 1
    np.testing.assert_allclose(wide.get(), X, rtol=2**-8)


# -- the stand-in ------------------------------------------------------------------------------------------------------


def _enter(stream: Any) -> None:
    with stream:
        pass


ELSEWHERE: dict[str, tuple[Callable[[Any, Any, Any, Any], Any], type[Exception], str]] = {
    "a stream is entered": (
        lambda cp, stream, event, x: _enter(stream),
        RuntimeError,
        "does not match with the current",
    ),
    "an event is recorded": (lambda cp, stream, event, x: event.record(), fake_cupy.CUDARuntimeError, "an event of"),
    "an event of this device": (
        lambda cp, stream, event, x: cp.cuda.Event().record(stream),
        fake_cupy.CUDARuntimeError,
        "a stream of device 1",
    ),
    "a copy": (lambda cp, stream, event, x: cp.ones(3).set(np.ones(3), stream), fake_cupy.CUDARuntimeError, "a copy"),
    "a capture": (lambda cp, stream, event, x: stream.begin_capture(), fake_cupy.CUDARuntimeError, "a capture"),
    "arithmetic": (lambda cp, stream, event, x: cp.add(x, 1.0, out=x), ValueError, "same as the current device"),
}


@pytest.mark.parametrize("what", ELSEWHERE)
def test_what_belongs_to_another_device_is_refused(what: str, two: Any) -> None:
    work, error, says = ELSEWHERE[what]
    with two.cuda.Device(1):
        stream, event, x = two.cuda.Stream(non_blocking=True), two.cuda.Event(disable_timing=True), two.ones(3)
        event.record(stream)
    with pytest.raises(error, match=says):
        work(two, stream, event, x)


def test_a_graph_of_another_device_is_refused(two: Any) -> None:
    with two.cuda.Device(1), two.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        graph = stream.end_capture()
        graph.launch()
    with pytest.raises(fake_cupy.CUDARuntimeError, match="a launch on device 0"):
        graph.launch()


def test_every_device_has_a_current_stream(two: Any) -> None:
    with two.cuda.Device(1):
        default, stream = two.cuda.get_current_stream(), two.cuda.Stream(non_blocking=True)
        with stream:
            assert two.cuda.get_current_stream() is stream
            with two.cuda.Device(0):
                assert two.cuda.get_current_stream() not in (default, stream)
        assert two.cuda.get_current_stream() is default


def test_products_of_another_device_are_refused(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle of cuBLASLt is of the device that was current when it was made."""
    made = devices._products
    other = CudaBackend(1, two, made(two))
    with pytest.raises(AssertionError, match="a handle is of one device"), other.running(0.0):
        other._product(*(other.zeros((2, 2), "float32") for _ in range(3)))
    forget()
