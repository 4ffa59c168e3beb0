"""Signal handlers that raise or compute in the middle of a computation: nothing stays changed, no result is wrong."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from interruptions import at, places

import gpubackprop as gb
from gpubackprop import in_use
from gpubackprop.backends import threads

RNG = numpy.random.default_rng(5)
X, Y = RNG.normal(size=(7, 4)).astype("float32"), RNG.integers(0, 3, 7)
ROWS: dict[str, Any] = {"activation": "mish", "output_activation": "softmax", "loss": "cross_entropy"}
CALLS: dict[str, Callable[[gb.Network], Any]] = {
    "predict": lambda net: net.predict(X),
    "evaluate": lambda net: net.evaluate(X, Y),
    "loss_and_gradients": lambda net: net.loss_and_gradients(X, Y),
    "warmup": lambda net: gb.warmup(net, batch_size=4),
    "check_gradients": lambda net: gb.check_gradients(net, X, Y, samples=2, bound=1e-2),
    "fit": lambda net: gb.fit(net, X, Y, epochs=2, batch_size=4),
}


class Stop(BaseException):
    """Raised by a handler of the tests, as KeyboardInterrupt is by Python's."""


def _raise() -> None:
    raise Stop


def _net(**arguments: Any) -> gb.Network:
    return gb.Network([4, 6, 3], **{**ROWS, "backend": "numpy", **arguments})


def _state(net: gb.Network) -> tuple[Any, ...]:
    """Return everything of the process and of this thread that a computation changes while it runs."""
    controller = threads._controller()
    numbers = [library["num_threads"] for library in controller.info()] if controller else []
    return numbers, numpy.geterr(), net.backend._tape.calls, net.backend._scratch.level, list(in_use._uses)


def _sampled(call: Callable[[], Any], some: int) -> list[int]:
    """Return some places of a call, evenly, and all of the last ones, where the call restores what it changed."""
    count = places(call)
    assert count > 100
    return sorted({*range(1, count + 1, max(1, count // some)), *range(count - 100, count + 1)})


@pytest.fixture
def two_threads() -> Any:
    """Have the BLAS on two threads, on machines with one core too, so that one that stays at one is seen."""
    pytest.importorskip("threadpoolctl", reason="pip install threadpoolctl")
    with threads._controller().limit(limits=2):
        yield


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", CALLS)
def test_an_exception_at_any_place_changes_nothing(name: str) -> None:
    """The exceptions, and so the frames that they passed, are alive: nothing waits for those to be freed."""
    net, raised = _net(), []
    call = lambda: CALLS[name](net)  # noqa: E731
    call()
    before, expected, theta = _state(net), net.predict(X), net.theta.copy()
    for place in _sampled(call, 100):
        with pytest.raises(Stop) as stop:
            at(place, _raise, call)
        raised.append(stop)
        assert _state(net) == before, f"place {place}"
        net.theta[...] = theta
        call()  # makes the buffers that were lost: the places are the same again
        net.theta[...] = theta
    numpy.testing.assert_array_equal(net.predict(X), expected)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("times", [100, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_signal_at_any_time_changes_nothing(times: int) -> None:
    net, rng, raised = _net(), random.Random(3), []
    net.predict(X)
    before = _state(net)
    previous = signal.signal(signal.SIGVTALRM, lambda number, frame: _raise())
    try:
        for _ in range(times):
            try:
                signal.setitimer(signal.ITIMER_VIRTUAL, rng.uniform(2e-5, 2e-3))
                while True:
                    net.predict(X)
            except Stop as stop:
                raised.append(stop)
            assert _state(net) == before
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
    assert len(raised) == times


@pytest.mark.parametrize("name", ["predict", "loss_and_gradients"])
def test_a_handler_that_predicts_waits_for_nothing_and_disturbs_nothing(name: str) -> None:
    net, other, handled = _net(), X[::-1] * 3.0, []
    expected = CALLS[name](net)
    outputs = net.predict(other)

    def call() -> None:
        found = CALLS[name](net)
        numpy.testing.assert_equal(found, expected)

    for place in _sampled(call, 400):
        at(place, lambda: handled.append(net.predict(other)), call)
    assert len(handled) > 20
    assert all(numpy.array_equal(x, outputs) for x in handled)


def test_a_handler_that_computes_gradients_does_not_change_the_training() -> None:
    alone = _net()
    gb.fit(alone, X, Y, epochs=2, batch_size=4)

    def call() -> None:
        net = nets.setdefault("net", _net())
        gb.fit(net, X, Y, epochs=2, batch_size=4)

    nets: dict[str, gb.Network] = {}
    for place in _sampled(call, 150):
        nets["net"] = net = _net()
        at(place, lambda net=net: net.loss_and_gradients(X, Y), call)  # type: ignore[misc]
        numpy.testing.assert_array_equal(net.theta, alone.theta)


def test_a_handler_that_computes_on_cuda(stand_in: str) -> None:
    net = _net(backend=stand_in)
    expected = net.predict(X)

    def call() -> None:
        numpy.testing.assert_array_equal(net.predict(X), expected)

    for place in _sampled(call, 40):
        at(place, lambda: net.predict(X[::-1] * 3.0), call)


@pytest.mark.usefixtures("two_threads")
def test_an_exception_on_cuda_leaves_the_device_current(stand_in: str) -> None:
    net = _net(backend=stand_in)
    runtime = net.backend.xp.cuda.runtime
    call = lambda: net.predict(X)  # noqa: E731
    call()
    before = runtime.getDevice(), _state(net)
    for place in _sampled(call, 100):
        with pytest.raises(Stop):
            at(place, _raise, call)
        assert (runtime.getDevice(), _state(net)) == before, f"place {place}"
        call()
