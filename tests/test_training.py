"""Equation 9: what `fit` computes, when it stops, what it leaves behind."""

from __future__ import annotations

import functools
import gc
import importlib
import json
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import processes
import pytest
import textbook

import gpubackprop as gb
from gpubackprop.backends import threads
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.backends.threads import for_products_of
from gpubackprop.errors import DivergenceWarning, InterruptWarning, MissingDependency
from gpubackprop.optimizers import SGD, Adam

NAMES = ["tanh", "sigmoid"]


def _net(sizes: tuple[int, ...] = (3, 5, 2), **arguments: Any) -> gb.Network:
    defaults = {"activation": "tanh", "output_activation": "sigmoid", "dtype": "float64", "backend": "numpy"}
    return gb.Network(sizes, **{**defaults, **arguments})


def _data(rows: int = 23, columns: int = 3, outputs: int = 2) -> tuple[Any, Any]:
    rng = numpy.random.default_rng(12)
    return rng.normal(size=(rows, columns)), rng.uniform(0.1, 0.9, (rows, outputs))


def _after(epochs: int, net: gb.Network | None = None, **arguments: Any) -> gb.Network:
    """Return a network after so many epochs of plain gradient descent."""
    net = net or _net()
    gb.fit(net, *_data(), **{"epochs": epochs, "batch_size": 8, "tol": None, **arguments})
    return net


# -- what it computes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 8, 23, 1000])
@pytest.mark.parametrize("case", ["plain", "weights", "penalty", "dropout", "all"])
def test_it_is_a_plain_loop(case: str, batch_size: int) -> None:
    """In order, in batches of which the last is smaller; masks from the seed's generator, layer by layer."""
    l2 = 0.05 if case in ("penalty", "all") else 0.0
    dropout = 0.3 if case in ("dropout", "all") else 0.0
    X, Y = _data()
    weights = numpy.linspace(0, 2, 23) if case in ("weights", "all") else None
    net = _net(l2=l2, dropout=dropout)
    columns, key, step, losses = (
        textbook.columns_of(net.parameters),
        numpy.random.Philox(7).state["state"]["key"],
        0,
        [],
    )
    for _ in range(3):
        total = count = 0.0
        for start in range(0, 23, batch_size):
            rows = slice(start, start + batch_size)
            drawn = numpy.random.Generator(numpy.random.Philox(counter=(0, 1, step, 0), key=key))
            masks = [(drawn.random((len(X[rows]), 5), "float32") >= 0.3) / 0.7] if dropout else None
            step += 1
            w = numpy.ones(len(X[rows])) if weights is None else weights[rows]
            if w.sum() == 0:  # nothing to learn from: a loss of nothing but the penalty, which weighs nothing
                columns = [(W - 0.5 * l2 * W, b) for W, b in columns]
                continue
            loss, gradients = textbook.batch(columns, NAMES, "mse", X[rows], Y[rows], w, masks, l2)
            columns = textbook.gradient_descent(columns, gradients, 0.5)
            total, count = total + loss * w.sum(), count + w.sum()
        losses.append(total / count)
    arguments = {"optimizer": SGD(0.5), "epochs": 3, "batch_size": batch_size, "shuffle": False, "seed": 7}
    history = gb.fit(net, X, Y, sample_weight=weights, **arguments)
    textbook.assert_equal(net.parameters, columns, 1e-12)
    numpy.testing.assert_allclose(history.loss, losses, rtol=1e-12)


@pytest.mark.usefixtures("unrecorded")
def test_each_epoch_takes_every_example_once_in_a_new_order(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    gather = NumpyBackend.gather

    def recording(self: Any, x: Any, rows: Any, out: Any) -> None:
        if x.shape[1] == 3:
            taken.extend(rows.tolist())
        gather(self, x, rows, out)

    monkeypatch.setattr(NumpyBackend, "gather", recording)
    _after(3)
    epochs = [taken[start : start + 23] for start in (0, 23, 46)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(23))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    taken.clear()
    _after(1, seed=1)
    assert taken != epochs[0]


def test_shuffled_examples_keep_their_targets_and_weights() -> None:
    """Full batches do not depend on the order, to rounding."""
    weights = numpy.linspace(0.1, 3, 23)
    first, other = (_after(20, batch_size=23, shuffle=shuffle, sample_weight=weights) for shuffle in (True, False))
    numpy.testing.assert_allclose(first.theta, other.theta, rtol=1e-12, atol=1e-14)


def test_a_batch_larger_than_the_data_is_the_data() -> None:
    assert numpy.array_equal(_after(5, batch_size=10**9).theta, _after(5, batch_size=23).theta)


def test_training_goes_on_from_where_it_is() -> None:
    once = _after(6, shuffle=False)
    twice = _after(3, _after(3, shuffle=False), shuffle=False)
    assert numpy.array_equal(once.theta, twice.theta)


def test_examples_of_no_weight_are_ignored() -> None:
    X, Y = _data()
    weights = numpy.where(numpy.arange(23) % 3 == 0, 0.0, 1.0)
    garbage = numpy.where(weights[:, None] == 0, 1e6, X)
    nets = _net(), _net()
    gb.fit(nets[0], garbage, Y, sample_weight=weights, epochs=20, batch_size=23, shuffle=False)
    gb.fit(nets[1], X[weights > 0], Y[weights > 0], epochs=20, batch_size=23, shuffle=False)
    numpy.testing.assert_allclose(nets[0].theta, nets[1].theta, rtol=1e-11, atol=1e-13)


def test_labels_one_hot_rows_and_columns_are_the_same_targets() -> None:
    X, labels = _data()[0], numpy.arange(23) % 2
    classes = {"output_activation": "softmax", "loss": "cross_entropy"}
    thetas = []
    for y in (labels, labels.tolist(), labels.astype("uint8"), numpy.eye(2)[labels]):
        net = _net(**classes)
        gb.fit(net, X, y, epochs=3)
        thetas.append(net.theta)
    assert all(numpy.array_equal(theta, thetas[0]) for theta in thetas)
    thetas = []
    for y in (labels, labels[:, None], labels.astype(float)):
        net = _net((3, 5, 1), loss="binary_cross_entropy")
        gb.fit(net, X, y, epochs=3)
        thetas.append(net.theta)
    assert all(numpy.array_equal(theta, thetas[0]) for theta in thetas)


def test_evaluate_and_predict_in_parts_are_the_whole() -> None:
    net = _net(l2=0.1)
    X, Y = _data(2500)
    weights = numpy.linspace(0, 1, 2500)
    for w in (None, weights):
        assert net.evaluate(X, Y, w) == pytest.approx(net.loss_and_gradients(X, Y, w)[0], rel=1e-12)
    whole = net.forward(X)
    for batch_size in (1, 7, 1024, 10**6):
        numpy.testing.assert_allclose(net.predict(X, batch_size=batch_size), whole, rtol=1e-13)


def test_predict_returns_the_kind_of_array_it_was_given(need: Callable[[str], None]) -> None:
    net, (X, _) = _net(dtype="float32"), _data()
    expected = net.predict(X)
    for call in (net.predict, net.forward):
        for given in (X, X.tolist(), X.astype("float32"), numpy.asfortranarray(X)):
            result = call(given)
            assert type(result) is numpy.ndarray
            assert result.dtype == numpy.float32
            numpy.testing.assert_allclose(result, expected, rtol=1e-6)
    need("torch")
    import torch

    result = net.predict(torch.tensor(X))
    assert isinstance(result, torch.Tensor)
    assert result.tolist() == expected.tolist()


def test_dropout_masks() -> None:
    masks = _net((3, 400, 300, 2), dropout=0.25, dtype="float32").draw_masks(200, seed=1)
    assert [mask.shape for mask in masks] == [(200, 400), (200, 300)]
    for mask in masks:
        assert mask.dtype == numpy.float32
        assert set(numpy.unique(mask)) == {numpy.float32(0), numpy.float32(1 / 0.75)}
        # a share of 1/4 is dropped, within five standard errors
        assert abs((mask == 0).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / mask.size)


# -- it learns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_xor(dtype: str) -> None:
    X, y = numpy.array([[0, 0], [0, 1], [1, 0], [1, 1]]), numpy.array([0, 1, 1, 0])
    net = _net((2, 8, 1), loss="binary_cross_entropy", dtype=dtype)
    gb.fit(net, X, y, optimizer=Adam(0.05), epochs=400, tol=None)
    assert (net.predict(X)[:, 0] > 0.5).tolist() == [False, True, True, False]
    assert net.evaluate(X, y) < 0.05


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
def test_two_spirals(activation: str) -> None:
    """No straight line gets three quarters of two spirals right."""
    rng = numpy.random.default_rng(2)
    angle, y = rng.uniform(0.5, 3 * math.pi, 400), numpy.arange(400) % 2
    turned = angle + math.pi * y
    X = numpy.stack([angle * numpy.cos(turned), angle * numpy.sin(turned)], axis=1) / 5 + rng.normal(0, 0.02, (400, 2))
    accuracy = {}
    for sizes in ((2, 2), (2, 32, 32, 2)):
        net = gb.Network(
            sizes, activation=activation, output_activation="softmax", loss="cross_entropy", backend="numpy"
        )
        history = gb.fit(net, X, y, optimizer=Adam(0.01), epochs=200, batch_size=50, tol=None)
        accuracy[len(sizes)] = (net.predict(X).argmax(axis=1) == y).mean()
    assert accuracy[2] < 0.75
    assert accuracy[4] > 0.97
    assert history.loss[-1] < 0.2 * history.loss[0]


# -- when it stops -----------------------------------------------------------------------------------------------------


def test_all_epochs() -> None:
    history = gb.fit(_net(), *_data(), epochs=7, tol=None)
    assert history.stopped_because == "reached the maximum of 7 epochs"
    assert len(history.loss) == 7


def test_no_progress_on_the_training_loss() -> None:
    """The first loss is progress from nothing; at so small a rate no later one falls by 1e-4: 1 + 3 epochs."""
    history = gb.fit(_net(), *_data(), optimizer=SGD(1e-9), tol=1e-4, patience=3)
    assert (
        history.stopped_because == "converged: the training loss fell by less than 0.0001 in each of the last 3 epochs"
    )
    assert len(history.loss) == 4
    assert len(gb.fit(_net(), *_data(), optimizer=SGD(1e-9), tol=None, patience=3, epochs=20).loss) == 20
    assert len(gb.fit(_net(), *_data(), optimizer=SGD(1e-9), tol=0.0, patience=3, epochs=20, batch_size=23).loss) == 20


def test_progress_starts_the_count_anew() -> None:
    """Epochs 1, 4 and 6 have a rate; each shows in the loss of the next: 2, 5, 7, and then three without progress."""
    rates = {0: 1.0, 3: 1.0, 5: 1.0}
    history = gb.fit(
        _net(), *_data(), optimizer=SGD(lambda t: rates.get(t, 1e-12)), batch_size=23, tol=1e-4, patience=3, epochs=50
    )
    falls = numpy.diff(history.loss) < -1e-4
    assert (numpy.flatnonzero(falls) + 2).tolist() == [2, 5, 7]
    assert len(history.loss) == 10


def test_progress_is_counted_from_the_best_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation loss that jumps up and comes back to where it was has made no progress."""
    values = iter([1.0, 0.5, 0.9, 0.7, 0.50005, 0.3, 0.2, 0.1])
    monkeypatch.setattr("gpubackprop.run.Run.evaluate", lambda self, *batch: next(values))
    history = gb.fit(_net(), *_data(), validation_data=_data(), tol=1e-4, patience=3, epochs=8)
    assert history.validation_loss == [1.0, 0.5, 0.9, 0.7, 0.50005]


def test_no_progress_on_the_validation_loss() -> None:
    """The validation targets are turned round: what is learnt makes them worse."""
    X, Y = _data()
    net = _net()
    history = gb.fit(net, X, Y, optimizer=Adam(0.05), validation_data=(X, 1 - Y), patience=4, epochs=100, batch_size=23)
    assert history.stopped_because is not None
    assert history.stopped_because.startswith(
        "converged: the validation loss fell by less than 0.0001 in each of the last 4"
    )
    assert len(history.validation_loss) == len(history.loss) < 100
    assert history.loss[-1] < history.loss[0]
    assert history.validation_loss[-1] > history.validation_loss[0]
    assert history.validation_loss[-1] == net.evaluate(X, 1 - Y)


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_callbacks_are_called_after_every_epoch_and_all_of_them() -> None:
    net, seen = _net(), []

    def first(given: gb.Network, history: gb.History) -> bool:
        seen.append((given is net, len(history.loss), history.stopped_because))
        return len(history.loss) == 3

    def second(given: gb.Network, history: gb.History) -> float:
        seen.append((given is net, -len(history.loss), None))
        return 1.0  # not True

    history = gb.fit(net, *_data(), callbacks=[first, second], epochs=10)
    assert seen == [(True, sign * epoch, None) for epoch in (1, 2, 3) for sign in (1, -1)]
    assert history.stopped_because == "a callback stopped it after epoch 3"
    assert len(history.loss) == 3


def test_an_exception_in_a_callback_leaves_the_network_of_that_epoch() -> None:
    handler = signal.getsignal(signal.SIGINT)

    def failing(net: gb.Network, history: gb.History) -> None:
        if len(history.loss) == 2:
            raise OSError("disk full")

    net = _net()
    with pytest.raises(OSError, match="disk full"):
        _after(5, net, callbacks=[failing])
    assert signal.getsignal(signal.SIGINT) is handler
    assert numpy.array_equal(net.theta, _after(2).theta)
    _after(1, net)


# -- divergence --------------------------------------------------------------------------------------------------------


def test_divergence_keeps_the_last_finite_epoch() -> None:
    """Three batches an epoch: the tenth step, in epoch 4, is far too long, and the eleventh finds no finite loss."""
    net = _net(output_activation="identity")
    rule = SGD(lambda t: 0.1 if t < 9 else 1e300)
    with pytest.warns(DivergenceWarning, match=r"diverged: epoch 4, at the learning rate 1e\+300, is not finite"):
        history = gb.fit(net, *_data(), optimizer=rule, batch_size=8, tol=None)
    assert history.stopped_because == "diverged: epoch 4, at the learning rate 1e+300, is not finite"
    assert len(history.loss) == len(history.learning_rate) == 3
    expected = _after(3, _net(output_activation="identity"), optimizer=SGD(0.1))
    assert numpy.array_equal(net.theta, expected.theta)


def _worse_then_infinite(t: int) -> float:
    """Of three steps an epoch: two good epochs, one that is finite and worse, one that is not finite."""
    return 0.1 if t < 6 else 15.0 if t < 9 else 1e300


def _diverging(net: gb.Network, **more: Any) -> gb.History:
    rule = more.pop("rule", _worse_then_infinite)
    with pytest.warns(DivergenceWarning, match=more.pop("match", "has the parameters of epoch 2, the best one")):
        return gb.fit(net, *_data(), optimizer=SGD(rule), batch_size=8, tol=None, **more)


def test_divergence_puts_back_the_best_epoch() -> None:
    net = _net(output_activation="identity")
    history = _diverging(net)
    assert history.loss[1] < history.loss[0] < history.loss[2] < math.inf
    assert numpy.array_equal(net.theta, _after(2, _net(output_activation="identity"), optimizer=SGD(0.1)).theta)


def test_validation_data_decide_which_epoch_is_best() -> None:
    """Their targets are what the network of epoch 1 says."""
    net, first = _net(output_activation="identity"), _after(1, _net(output_activation="identity"), optimizer=SGD(0.1))
    X, _ = _data(50)
    history = _diverging(net, validation_data=(X, first.predict(X)), match="has the parameters of epoch 1, the best")
    assert history.validation_loss[0] == min(history.validation_loss)
    assert history.loss[1] < history.loss[0]
    assert numpy.array_equal(net.theta, first.theta)


def test_parameters_from_before_training_are_put_back_if_all_epochs_ruined_them() -> None:
    net = _net(output_activation="identity")
    before = net.theta.copy()
    history = _diverging(net, rule=lambda t: 1e3 if t < 3 else 1e300, match="has the parameters from before training")
    assert history.loss[0] < math.inf
    assert numpy.array_equal(net.theta, before)


def test_a_repeated_epoch_starts_from_the_one_before_not_from_the_best() -> None:
    once, net = [1e300], _net(output_activation="identity")
    rates = {2: 3.0}  # in epoch 3

    def rate(t: int) -> float:
        return once.pop() if t == 10 and once else rates.get(t // 3, 0.1)

    history = gb.fit(net, *_data(), optimizer=SGD(rate), batch_size=8, tol=None, epochs=4, retries=1)
    assert (history.retried, history.loss.index(min(history.loss[:3]))) == ([4], 1)
    expected = _net(output_activation="identity")
    as_if = SGD(lambda t: 0.05 if t >= 9 else rates.get(t // 3, 0.1))
    assert gb.fit(expected, *_data(), optimizer=as_if, batch_size=8, tol=None, epochs=4).loss == history.loss
    assert numpy.array_equal(net.theta, expected.theta)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_divergence_in_the_first_epoch_keeps_the_initial_parameters(dtype: str) -> None:
    net = _net(output_activation="identity", dtype=dtype)
    before = net.theta.copy()
    with pytest.warns(DivergenceWarning, match="epoch 1"):
        history = gb.fit(net, *_data(), optimizer=SGD(1e38), batch_size=1)
    assert numpy.array_equal(net.theta, before)
    assert history.loss == []
    assert math.isfinite(net.evaluate(*_data()))


def test_parameters_that_overflow_in_the_last_step_are_divergence() -> None:
    """The loss is taken before the step: here it is finite, and the parameters after it are not."""
    net = _net(output_activation="identity", dtype="float32")
    with pytest.warns(DivergenceWarning, match="epoch 1"):
        gb.fit(net, *_data(), optimizer=SGD(1e300), batch_size=23, epochs=1)
    assert numpy.isfinite(net.theta).all()


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def _interrupting(epoch: int, times: int = 1) -> Any:
    def callback(net: gb.Network, history: gb.History) -> None:
        if len(history.loss) == epoch:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    return callback


def test_interrupt_between_epochs() -> None:
    net, handler = _net(), signal.getsignal(signal.SIGINT)
    with pytest.warns(InterruptWarning, match="interrupted from the keyboard in epoch 2"):
        history = gb.fit(net, *_data(), batch_size=8, callbacks=[_interrupting(2)], epochs=10)
    assert history.stopped_because == "interrupted from the keyboard in epoch 2"
    assert len(history.loss) == 2
    assert numpy.array_equal(net.theta, _after(2).theta)
    assert signal.getsignal(signal.SIGINT) is handler


def test_interrupt_within_an_epoch_ends_with_a_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes in the backward pass of the first step; that step is finished, and no other begun."""
    net, backward = _net(), gb.Network._backward

    def interrupted(self: Any, *arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        backward(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(gb.Network, "_backward", interrupted)
        with pytest.warns(InterruptWarning, match="in epoch 1"):
            _after(10, net, shuffle=False)
    expected, (X, Y) = _net(), _data()
    gb.fit(expected, X[:8], Y[:8], epochs=1, batch_size=8, shuffle=False)
    assert numpy.array_equal(net.theta, expected.theta)


def test_a_second_interrupt_is_one_as_usual() -> None:
    net, handler = _net(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        _after(10, net, callbacks=[_interrupting(2, times=2)])
    assert signal.getsignal(signal.SIGINT) is handler
    assert numpy.array_equal(net.theta, _after(2).theta)


PRELUDE = """
import json, sys, warnings
import numpy
import gpubackprop as gb
net = gb.Network([3, 5, 2], backend="numpy")
X, Y = numpy.zeros((64, 3)), numpy.zeros((64, 2))
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1])}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to whole groups of processes")
def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    code = f"""{PRELUDE}
def started(net, history):
    if len(history.loss) == 3:
        print("running", flush=True)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    history = gb.fit(net, X, Y, batch_size=1, epochs=10**9, tol=None, callbacks=[started])
net.save(sys.argv[1])
print(json.dumps([history.stopped_because, [w.category.__name__ for w in caught], net.evaluate(X, Y)]))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "net.safetensors")]
    with processes.started(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        child.send_signal(signal.SIGINT)
        output = child.stdout.read()
        assert child.wait() == 0
    reason, warned, loss = json.loads(output)
    assert reason.startswith("interrupted from the keyboard in epoch ")
    assert warned == ["InterruptWarning"]
    assert math.isfinite(loss)
    assert numpy.isfinite(gb.load(tmp_path / "net.safetensors", backend="numpy").theta).all()


# -- the progress bar --------------------------------------------------------------------------------------------------


def _on_a_terminal(code: str) -> str:
    """Run Python with a pseudo-terminal for its stderr; return what appears there."""
    fcntl = pytest.importorskip("fcntl", reason="there are no pseudo-terminals here")
    pty, termios = importlib.import_module("pty"), importlib.import_module("termios")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    with processes.started([sys.executable, "-c", code], stderr=theirs, env=ENVIRONMENT) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux: the other end is closed
                break
            if not part:
                break
            shown += part
        assert child.wait() == 0
    os.close(ours)
    return shown.decode()


FITTING = f"{PRELUDE}gb.fit(net, X, Y, epochs=3, tol=None, validation_data=(X, Y){{}})"


def test_a_bar_on_a_terminal() -> None:
    pytest.importorskip("tqdm")
    shown = _on_a_terminal(FITTING.format(""))
    assert "3/3" in shown
    assert "loss=0" in shown
    assert "validation=0" in shown
    assert _on_a_terminal(FITTING.format(", progress=False")) == ""


def test_no_bar_where_stderr_is_no_terminal() -> None:
    pytest.importorskip("tqdm")
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert run([sys.executable, "-c", FITTING.format("")]).stderr == ""
    assert "3/3" in run([sys.executable, "-c", FITTING.format(", progress=True")]).stderr


def test_a_bar_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingDependency, match=r"gpubackprop\[progress\]"):
        gb.fit(_net(), *_data(), progress=True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert len(gb.fit(_net(), *_data(), epochs=2).loss) == 2


# -- what it leaves behind ---------------------------------------------------------------------------------------------


def test_history() -> None:
    started = time.perf_counter()
    history = gb.fit(_net(), *_data(), optimizer=Adam(0.01), epochs=4, validation_data=_data(5))
    elapsed = time.perf_counter() - started
    assert [len(x) for x in (history.loss, history.validation_loss, history.learning_rate, history.seconds)] == [4] * 4
    assert history.learning_rate == [0.01] * 4
    assert all(seconds > 0 for seconds in history.seconds)
    assert sum(history.seconds) <= elapsed
    assert history.samples == 23
    assert history.backend == _net().backend.description
    assert "NumPy" in history.backend
    again = json.loads(json.dumps(history.to_dict(), allow_nan=False))
    assert gb.History(**again) == history
    assert gb.fit(_net(), *_data(), epochs=1).validation_loss == []


@pytest.mark.parametrize("epochs", [0, 1, 60])
@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot(epochs: int, suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    losses = [1 / (1 + epoch) for epoch in range(epochs)]
    gb.History(10, "NumPy", loss=losses, validation_loss=losses).plot(tmp_path / f"loss.{suffix}")
    content = (tmp_path / f"loss.{suffix}").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n") if suffix == "png" else b"<svg" in content
    assert len(content) > 5000


@pytest.mark.parametrize(
    ("loss", "validation_loss", "scale"),
    [
        ([3.0, 2.0, 1.0], [4.0, 3.0, 2.5], "log"),
        ([3.0, 2.0, 1.0], [], "log"),
        ([3.0], [4.0], "log"),
        ([3.0, 2.0, -1.0], [4.0, 3.0, 2.5], "linear"),
        ([3.0, 2.0, 1.0], [4.0, -3.0, 2.5], "linear"),
        ([], [], "linear"),
    ],
)
def test_what_is_plotted(
    loss: list[float], validation_loss: list[float], scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curves over the epochs from 1, each point visible, on a scale that shows all of them."""
    matplotlib = pytest.importorskip("matplotlib.figure")
    figures: list[Any] = []
    monkeypatch.setattr(matplotlib.Figure, "savefig", lambda self, path, **options: figures.append(self))
    gb.History(10, "NumPy", loss=loss, validation_loss=validation_loss).plot("loss.png")
    [axes] = figures[0].axes
    curves = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines}
    epochs = [*range(1, len(loss) + 1)]
    assert curves["training"] == (epochs, loss)
    assert curves.get("validation", ([], [])) == (epochs if validation_loss else [], validation_loss)
    assert all(line.get_marker() == "." for line in axes.lines)  # a line through one point would not be seen
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("epoch", "loss", scale)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*curves]


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"gpubackprop\[plot\]"):
        gb.History(10, "NumPy").plot("loss.png")


# -- threads -----------------------------------------------------------------------------------------------------------


def test_training_in_another_thread() -> None:
    """Where Python delivers no signals, training does without."""
    with ThreadPoolExecutor(1) as pool:
        net = pool.submit(_after, 5).result()
    assert numpy.array_equal(net.theta, _after(5).theta)


def test_two_trainings_at_once_are_as_one_after_the_other() -> None:
    """They share the backend, its programs and their shapes, and must not share scratch memory."""
    X, Y = _data(600)
    barrier = threading.Barrier(2)

    def train(seed: int, wait: Callable[[], Any]) -> Any:
        net = _net((3, 64, 64, 2), activation="mish", output_activation="softmax", seed=seed)
        wait()
        gb.fit(net, X, Y / Y.sum(axis=1, keepdims=True), optimizer=Adam(0.01), epochs=15, batch_size=100, seed=seed)
        return net.theta

    expected = [train(seed, lambda: None) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        given = list(pool.map(lambda seed: train(seed, barrier.wait), (1, 2)))
    assert numpy.array_equal(given[0], expected[0])
    assert numpy.array_equal(given[1], expected[1])


def test_trainings_that_overlap_leave_the_threads_of_the_products_as_they_were() -> None:
    """The first to begin is the first to end."""
    pytest.importorskip("threadpoolctl")
    controller = threads._controller()

    def counts() -> list[int]:
        return [library["num_threads"] for library in controller.info()]

    with controller.limit(limits=2):
        before = counts()
        first, second = for_products_of(1.0), for_products_of(1.0)
        first.__enter__()
        assert counts() == [1] * len(before)
        second.__enter__()
        first.__exit__(None, None, None)
        assert counts() == [1] * len(before)
        second.__exit__(None, None, None)
        assert counts() == before


# -- at the edges ------------------------------------------------------------------------------------------------------


def test_interrupt_in_an_epoch_that_diverged_keeps_finite_parameters() -> None:
    net = _net(activation="relu", output_activation="identity", dtype="float32")
    steps = 0

    def rate(t: int) -> float:
        nonlocal steps
        steps = t
        if t == 2000:
            signal.raise_signal(signal.SIGINT)
        return 50.0

    with pytest.warns(InterruptWarning):
        gb.fit(net, *_data(3000), optimizer=gb.optimizers.SGD(rate), batch_size=1, epochs=2)
    assert steps == 2047  # rates are asked for 1024 steps at once
    assert numpy.isfinite(net.theta).all()


@pytest.mark.parametrize("error", [ValueError, gb.errors.InvalidValue, MemoryError])
def test_an_exception_of_a_callback_passes_through_and_training_is_kept(error: type[Exception]) -> None:
    net = _net()

    def callback(net: gb.Network, history: gb.History) -> None:
        if len(history.loss) == 3:
            raise error("enough")

    with pytest.raises(error, match="enough"):
        gb.fit(net, *_data(), batch_size=8, epochs=9, callbacks=[callback])
    assert numpy.array_equal(net.theta, _after(3).theta)


def test_a_schedule_that_fails_leaves_the_network_as_it_was() -> None:
    net = _net()
    before = net.theta.copy()

    def rate(t: int) -> float:
        return 0.1 if t < 7 else 1 / 0

    with pytest.raises((ZeroDivisionError, ValueError)):
        gb.fit(net, *_data(), optimizer=gb.optimizers.SGD(rate), batch_size=8)
    assert numpy.array_equal(net.theta, before)


def test_the_weights_of_very_many_batches_are_summed_in_double_precision() -> None:
    """10,000 sums of 0.1 in float32 are off by 1e-5 and more."""
    net = gb.Network([1, 1], dtype="float32", backend="numpy", initializer="glorot_uniform")
    net.theta[...] = 0
    X, y, w = numpy.zeros((10_000, 1)), numpy.ones(10_000), numpy.full(10_000, 0.1)
    w[0] = 1.0
    history = gb.fit(net, X, y, sample_weight=w, batch_size=1, epochs=1, optimizer=gb.optimizers.SGD(1e-30))
    assert history.loss[0] == pytest.approx(1.0, rel=1e-9)


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        history = gb.fit(
            _net(), *_data(), epochs=3, callbacks=[lambda net, history: signal.raise_signal(signal.SIGINT)]
        )
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)
    assert history.stopped_because == "reached the maximum of 3 epochs"


def test_training_without_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert len(gb.fit(_net(), *_data(), epochs=2).loss) == 2


def test_an_epoch_costs_the_same_however_many_there_were() -> None:
    """The calls of Python within an epoch, counted: as many in the 500th as in the tenth."""
    net = gb.Network([3, 4, 2], backend="numpy")
    X, Y = numpy.ones((64, 3)), numpy.ones((64, 2))
    calls, counted = 0, {}

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += 1

    def at_the_end(net: gb.Network, history: gb.History) -> None:
        nonlocal calls
        counted[len(history.loss)], calls = calls, 0

    gc.collect()
    gc.disable()  # finalizers of other tests' objects would be counted
    sys.setprofile(count)
    try:
        gb.fit(net, X, Y, epochs=500, batch_size=16, tol=None, validation_data=(X, Y), callbacks=[at_the_end])
    finally:
        sys.setprofile(None)
        gc.enable()
    assert counted[10] == counted[500] > 10
