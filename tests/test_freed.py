"""Memory is freed when the last one who uses it is gone, and not only when the collector of cycles runs."""

from __future__ import annotations

import contextlib
import gc
import signal
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
from stops import at_step

import gpubackprop as gb
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.run import Run

RNG = numpy.random.default_rng(4)
X, Y = RNG.normal(size=(40, 5)).astype("float32"), RNG.integers(0, 3, 40)
Made = list[Callable[[], Any]]


def _net(backend: str, **arguments: Any) -> gb.Network:
    options = {"output_activation": "softmax", "loss": "cross_entropy", "backend": backend, **arguments}
    return gb.Network([5, 8, 3], **options)


def _fit(net: gb.Network, **arguments: Any) -> Any:
    return gb.fit(net, X, Y, **{"epochs": 3, "batch_size": 16, "optimizer": "adam", **arguments})


def _interrupted(net: gb.Network) -> Any:
    with at_step(4, signal.SIGINT):
        return _fit(net)


def _failing(net: gb.Network) -> None:
    with pytest.raises(ZeroDivisionError):
        _fit(net, callbacks=[lambda net, history: 1 // 0])


CALLS: dict[str, Callable[[gb.Network], Any]] = {
    "fit": _fit,
    "fit with all options": lambda net: _fit(net, validation_data=(X, Y), sample_weight=abs(X[:, 0]), retries=1),
    "fit on windows": lambda net: _fit(net, stream=True, batch_size=3),
    "fit on batches": lambda net: gb.fit(net, lambda: iter([(X, Y), (X, Y)]), epochs=2, batch_size=16),
    "interrupted fit": _interrupted,
    "failing fit": _failing,
    "stopped fit": lambda net: _fit(net, callbacks=[lambda net, history: True]),
    "warmup": lambda net: gb.warmup(net, batch_size=8),
    "predict": lambda net: net.predict(X),
    "predict on batches": lambda net: net.predict(lambda: iter([X, X])),
    "loss_and_gradients": lambda net: net.loss_and_gradients(X, Y),
    "check_gradients": lambda net: gb.check_gradients(net, X, Y, samples=5, bound=1e-2),
}


def _base(x: Any) -> Any:
    while getattr(x, "base", None) is not None:
        x = x.base
    return x


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """Weak references to runs and to the memory that backends hand out from now on; the collector rests."""
    references: Made = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def note(self: Any, *arguments: Any, **named: Any) -> Any:
            result = function(self, *arguments, **named)
            references.append(weakref.ref(self if result is None else _base(result)))
            return result

        return note

    for owner, name in ((NumpyBackend, "zeros"), (CudaBackend, "zeros"), (Run, "__init__")):
        monkeypatch.setattr(owner, name, noted(getattr(owner, name)))
    monkeypatch.setattr("gpubackprop.streaming.WINDOW_BYTES", 500)  # so that stream=True has several windows
    gc.collect()
    gc.disable()
    yield references
    gc.enable()


def _alive(made: Made) -> list[Any]:
    return [x for reference in made if (x := reference()) is not None]


@pytest.mark.filterwarnings("ignore::gpubackprop.errors.InterruptWarning")
@pytest.mark.parametrize("call", CALLS)
def test_memory_of_a_call(call: str, made: Made) -> None:
    _check(_net("numpy", dropout=0.2), call, made)


@pytest.mark.filterwarnings("ignore::gpubackprop.errors.InterruptWarning")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.usefixtures("graphs")
def test_memory_of_a_call_on_cuda(call: str, made: Made) -> None:
    """From graphs, each of which holds what it reads and writes."""
    _check(_net("cuda", dropout=0.2), call, made)


def _check(net: gb.Network, call: str, made: Made) -> None:
    made.clear()  # the network's own
    result = CALLS[call](net)
    assert len(made) > 3
    if "fit" in call or call == "warmup":
        assert not _alive(made)  # while the network and the history are there
    del net, result
    assert not _alive(made)  # what predictions and gradients keep for the next call, too


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer", "ignore:lbfgs failed", "ignore:Training interrupted")
@pytest.mark.parametrize(("solver", "interrupted"), [("adam", False), ("adam", True), ("sgd", False), ("lbfgs", False)])
def test_memory_of_an_estimator(solver: str, interrupted: bool, made: Made) -> None:
    sklearn = pytest.importorskip("gpubackprop.sklearn", reason="pip install scikit-learn")
    model = sklearn.MLPClassifier(solver=solver, hidden_layer_sizes=(4,), max_iter=4, batch_size=10, backend="numpy")
    with at_step(2, signal.SIGINT) if interrupted else contextlib.nullcontext():
        model.fit(X, Y)
    assert len(made) > 3
    assert not any(isinstance(x, Run) for x in _alive(made))
    theta = _base(model._network[0].theta)
    assert all(x is theta for x in _alive(made))
    del model, theta
    assert not _alive(made)
