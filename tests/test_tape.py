"""Steps on NumPy that are repeated call by call: the same bits as steps gone through in full."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.backends.tape import Recording, Tape, Taped
from gpubackprop.losses import LOSSES
from gpubackprop.optimizers import OPTIMIZERS, SGD, Adam

ABOUT = {
    "weights, dropout, penalty": {"dropout": 0.3, "l2": 0.01, "weighted": True},
    "no shuffle": {"shuffle": False},
    "one batch": {"shuffle": False, "batch_size": 23},
    "clipped": {"optimizer": Adam(1e-2, clip_norm=0.1, weight_decay=0.1)},
    "momentum": {"optimizer": SGD(0.05, momentum=0.9)},
    "float64": {"dtype": "float64"},
    **{f"activation {name}": {"activation": name} for name, row in ACTIVATIONS.items() if not row.rowwise},
    **{f"loss {name}": {"loss": replace(row, targets="any")} for name, row in LOSSES.items()},
    **{f"optimizer {name}": {"optimizer": make(1e-2)} for name, make in OPTIMIZERS.items()},
    "loss on softmax": {"loss": "mse", "output_activation": "softmax"},
    "cross entropy": {"loss": "cross_entropy", "output_activation": "softmax"},
}


def _trained(
    *, optimizer: Any = "sgd", batch_size: int = 5, shuffle: bool = True, weighted: bool = False, **about: Any
) -> tuple[numpy.ndarray, list[float]]:
    """Return θ and the losses of four epochs of 23 examples; no batch is like the one before."""
    about = {"loss": "mse", "output_activation": "sigmoid", "activation": "tanh", **about}
    net = gb.Network([3, 6, 4, 2], backend="numpy", **about)
    rng = numpy.random.default_rng(0)
    X, y = rng.normal(size=(23, 3)), rng.uniform(0.1, 0.9, size=(23, 2))
    history = gb.fit(
        net,
        X,
        y / y.sum(axis=1, keepdims=True),
        optimizer=optimizer,
        batch_size=batch_size,
        shuffle=shuffle,
        sample_weight=rng.uniform(size=23) if weighted else None,
        epochs=4,
        tol=None,
    )
    return net.theta.copy(), history.loss


@pytest.mark.parametrize("name", ABOUT)
def test_repeated_steps_are_the_steps(name: str, request: pytest.FixtureRequest) -> None:
    repeated, losses = _trained(**ABOUT[name])
    request.getfixturevalue("unrecorded")
    theta, expected = _trained(**ABOUT[name])
    assert (repeated == theta).all()
    assert losses == expected
    assert len(set(losses)) == 4  # it trains


def test_a_number_that_is_not_read_anew_is_seen(monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    """An operation that takes the value of the first step into its call: the schedule then stands still."""
    update = NumpyBackend.update

    def frozen(self: Any, rule: Any, hyper: Any, *rest: Any) -> None:
        update(self, rule, hyper.copy(), *rest)

    monkeypatch.setattr(NumpyBackend, "update", frozen)
    repeated, _ = _trained(optimizer="adam")
    request.getfixturevalue("unrecorded")
    assert (repeated != _trained(optimizer="adam")[0]).any()


def test_a_result_that_lies_nowhere_is_refused() -> None:
    tape = Tape()
    xp = Taped(numpy, tape)
    x = numpy.ones(3)
    assert xp.add(x, x)[0] == 2.0
    for call in (lambda: xp.add(x, x), lambda: xp.dot(x, x), lambda: xp.sum(x)):
        with pytest.raises(AssertionError, match="nowhere to write"), tape.recording():
            call()


def test_a_recording_notes_calls_and_repeats_them() -> None:
    tape, x = Tape(), numpy.zeros(2)
    xp = Taped(numpy, tape)
    times: list[int] = []

    def work() -> None:
        times.append(1)
        xp.add(x, xp.full(2, 1.0), x)
        xp.multiply(x, 2.0, out=x)
        xp.copyto(x[:1], 5.0)
        tape.do(numpy.negative, x[1:], out=x[1:])

    record = Recording(tape, work)
    seen = []
    for _ in range(3):
        record()
        seen.append(x.tolist())
    assert seen == [[5.0, -2.0], [5.0, 2.0], [5.0, -6.0]]
    assert len(times) == 1


def test_work_that_fails_is_not_kept() -> None:
    tape, fails = Tape(), [True, False]
    record = Recording(tape, lambda: 1 // 0 if fails.pop(0) else None)
    with pytest.raises(ZeroDivisionError):
        record()
    assert tape.calls is None
    record()
    record()
    assert not fails


def test_what_interrupts_a_recording_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A signal handler that saves the network, and uses another one, in the midst of the first step."""
    theta, losses = _trained()
    delta, interrupted = NumpyBackend.delta, []

    def interrupting(self: NumpyBackend, *arguments: Any) -> None:
        if not interrupted:
            interrupted.append(calls := self._tape.calls)
            before = len(calls or [])
            net = gb.Network([3, 2], backend="numpy")
            net.save(tmp_path / "net.safetensors")
            net.evaluate(numpy.ones((4, 3)), net.predict(numpy.ones((4, 3))))
            assert self._tape.calls is calls
            assert len(calls or []) == before
        delta(self, *arguments)

    monkeypatch.setattr(NumpyBackend, "delta", interrupting)
    again, same = _trained()
    assert interrupted[0] is not None
    assert (again == theta).all()
    assert losses == same


def test_threads_record_apart() -> None:
    """Four trainings at once, on the one backend, end where one alone does."""
    alone, _ = _trained(optimizer="adam", dropout=0.2)
    found: list[numpy.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(_trained(optimizer="adam", dropout=0.2)[0])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all((theta == alone).all() for theta in found)


def test_a_module_on_tape_is_copied() -> None:
    assert copy.copy(NumpyBackend().xp).add is not None
