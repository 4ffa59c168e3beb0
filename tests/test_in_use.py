"""Calls on one network or estimator at the same time: in other threads, in callbacks, in forked children."""

from __future__ import annotations

import contextlib
import copy
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop import in_use
from gpubackprop.errors import InUse
from gpubackprop.run import Run

RNG = numpy.random.default_rng(8)
X, Y = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 2))
REFUSED: dict[str, Callable[[gb.Network], Any]] = {
    "fit": lambda net: gb.fit(net, X, Y, epochs=1),
    "loss_and_gradients": lambda net: net.loss_and_gradients(X, Y),
    "load_state_dict": lambda net: net.load_state_dict(_net(seed=9).to_state_dict()),
}
WAIT = 60.0  # seconds, after which another thread is taken to hang


def _net(seed: int = 0) -> gb.Network:
    return gb.Network([4, 8, 2], activation="tanh", dtype="float64", backend="numpy", seed=seed)


def _fit(net: gb.Network, *callbacks: Any) -> None:
    gb.fit(net, X, Y, optimizer="adam", epochs=4, batch_size=8, callbacks=callbacks)


@contextlib.contextmanager
def _stopped(begin: Callable[[Callable[[], None]], Any]) -> Iterator[None]:
    """Run something in another thread, and stop it where it calls the function that it is given."""
    inside, go_on, errors = threading.Event(), threading.Event(), list[BaseException]()

    def stop() -> None:
        inside.set()
        assert go_on.wait(WAIT)

    def work() -> None:
        try:
            begin(stop)
        except BaseException as error:
            errors.append(error)
        inside.set()

    thread = threading.Thread(target=work, name="the other", daemon=True)
    thread.start()
    assert inside.wait(WAIT)
    try:
        yield
    finally:
        go_on.set()
        thread.join(WAIT)
    assert not errors


def _fit_until(net: gb.Network, epoch: int) -> Callable[[Callable[[], None]], None]:
    return lambda stop: _fit(net, lambda net, history: stop() if len(history.loss) == epoch else None)


@pytest.mark.parametrize("call", REFUSED)
def test_a_network_that_another_thread_trains(call: str) -> None:
    net, alone = _net(), _net()
    _fit(alone)
    with _stopped(_fit_until(net, 2)):
        theta = net.theta.copy()
        with pytest.raises(InUse, match=f"{call} cannot use this Network while fit uses it in the thread 'the other'"):
            REFUSED[call](net)
        assert numpy.array_equal(net.theta, theta)
        twin = copy.deepcopy(net)  # as the message says
        REFUSED[call](twin)
        outputs = _net()
        outputs.theta[...] = theta
        assert numpy.array_equal(net.predict(X), outputs.predict(X))
        assert net.evaluate(X, Y) == outputs.evaluate(X, Y)
    assert numpy.array_equal(net.theta, alone.theta)
    REFUSED[call](net)
    assert not in_use._uses


@pytest.mark.parametrize("call", REFUSED)
def test_a_network_whose_gradients_another_thread_computes(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients may be computed by several at the same time; nobody may change the parameters."""
    net = _net()
    _, expected = _net().loss_and_gradients(X, Y)
    found: list[Any] = []
    backward = gb.Network._backward

    def begin(stop: Callable[[], None]) -> None:
        monkeypatch.setattr(net, "_backward", lambda *rest: (stop(), backward(net, *rest)))
        found.append(net.loss_and_gradients(X, Y)[1])

    with _stopped(begin):
        monkeypatch.undo()
        if call == "loss_and_gradients":
            net.loss_and_gradients(2 * X, Y)
        else:
            with pytest.raises(InUse, match="while loss_and_gradients uses it"):
                REFUSED[call](net)
    numpy.testing.assert_equal(found[0], expected)
    REFUSED[call](net)


def test_a_callback_computes_with_its_network() -> None:
    net, alone, calls = _net(), _net(), []
    _fit(alone)

    def callback(net: gb.Network, history: gb.History) -> None:
        net.predict(X)
        net.evaluate(X, Y)
        net.loss_and_gradients(3 * X, Y)
        net.load_state_dict(net.to_state_dict())
        gb.check_gradients(net, X[:3], Y[:3])
        calls.append(history)

    _fit(net, callback)
    assert len(calls) == 4
    assert numpy.array_equal(net.theta, alone.theta)


def test_a_callback_that_trains_its_network_is_refused() -> None:
    net, trained = _net(), []

    def callback(net: gb.Network, history: gb.History) -> None:
        trained.append(_fit(copy.deepcopy(net)))
        _fit(net)

    with pytest.raises(InUse, match="fit cannot train this Network within fit, which uses it: train a copy"):
        _fit(net, callback)
    assert len(trained) == 1
    _fit(net)  # nobody uses it any more


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("call", ["fit", "partial_fit"])
def test_an_estimator_that_is_being_fitted(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sklearn = pytest.importorskip("gpubackprop.sklearn", reason="pip install scikit-learn")
    model, twin = (
        sklearn.MLPRegressor(hidden_layer_sizes=(8,), max_iter=3, random_state=0, backend="numpy") for _ in range(2)
    )
    twin.fit(X, Y, X_val=X, y_val=Y)
    epoch = Run.epoch

    def begin(stop: Callable[[], None]) -> None:
        monkeypatch.setattr(Run, "epoch", lambda run, paused: (stop(), epoch(run, paused))[1])
        model.fit(X, Y, X_val=X, y_val=Y)

    with _stopped(begin):
        monkeypatch.undo()
        with pytest.raises(InUse, match=f"{call} cannot use this MLPRegressor while fit uses it"):
            getattr(model, call)(X, Y)
    for a, b in zip(model.coefs_, twin.coefs_, strict=True):
        assert numpy.array_equal(a, b)
    assert model.validation_loss_curve_ == twin.validation_loss_curve_
    model.fit(X, Y)


PROGRAM = """
import contextlib, os, signal, sys, threading, time
import numpy, gpubackprop as gb
from gpubackprop.backends import threads

forks = int(sys.argv[1])
X, y = numpy.random.default_rng(0).normal(size=(5, 4)).astype("float32"), numpy.array([0, 1, 1, 0, 1])

def made():
    return gb.Network([4, 8, 2], activation="mish", output_activation="softmax", loss="cross_entropy", backend="numpy")

def numbers():
    controller = threads._controller()
    return [library["num_threads"] for library in controller.info()] if controller else []

shared, trained = made(), made()
expected, before = shared.predict(X), numbers()
running = True

def predict():
    while running:
        shared.predict(X)
        shared.loss_and_gradients(X, y)

def train():
    gb.fit(trained, X, y, epochs=10**9, tol=None, callbacks=[lambda net, history: not running])

def child():
    assert numbers() == before, numbers()
    assert numpy.array_equal(shared.predict(X), expected)
    shared.loss_and_gradients(X, y)
    trained.loss_and_gradients(X, y)  # its thread is not here
    gb.fit(trained, X, y, epochs=1)
    gb.fit(made(), X, y, epochs=1)
    assert numbers() == before, numbers()

others = [threading.Thread(target=work, daemon=True) for work in (predict, predict, train)]
for thread in others:
    thread.start()
failed = []
for k in range(forks):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    end = time.monotonic() + 300
    status = 0
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            failed.append(f"child {k} hangs")
            break
        time.sleep(0.002)
    if ended[1]:
        failed.append(f"child {k} ended with {ended[1]}")
    if len(failed) > 2:
        break
running = False
for thread in others:
    thread.join()
raise SystemExit("; ".join(failed) or None)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("forks", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_a_child_computes_with_what_threads_of_its_parent_use(forks: int) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, str(forks)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
