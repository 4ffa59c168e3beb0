"""Checkpoints: a run that stops anywhere and goes on ends in the same bits; what is refused; what a bad disk does."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.numpy

import gpubackprop as gb
from gpubackprop import optimizers, schedules
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.errors import (
    CheckpointError,
    CheckpointWarning,
    DivergenceWarning,
    InterruptWarning,
    InvalidType,
    InvalidValue,
    Terminated,
)
from gpubackprop.optimizers import OPTIMIZERS, SGD, Adam, RMSprop
from gpubackprop.run import Run

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
RNG = numpy.random.default_rng(12)
X, Y = RNG.normal(size=(23, 3)), RNG.uniform(0.1, 0.9, (23, 2))
WEIGHTS = RNG.uniform(0.5, 2.0, 23)
STEPS = 6  # of an epoch: 23 examples, 4 at a time
EPOCHS = 3


def _net(**arguments: Any) -> gb.Network:
    defaults = {"activation": "tanh", "output_activation": "sigmoid", "backend": "numpy", "dtype": "float64"}
    return gb.Network([3, 5, 2], **{**defaults, **arguments})


def _fit(net: gb.Network, **arguments: Any) -> gb.History:
    return gb.fit(net, X, Y, **{"epochs": EPOCHS, "batch_size": 4, "tol": None, **arguments})


def _theta(net: gb.Network) -> bytes:
    return net.backend.to_numpy(net.theta).tobytes()


def _record(history: gb.History) -> dict[str, Any]:
    """Return what two histories of the same training have in common: all but the seconds."""
    return {name: value for name, value in history.to_dict().items() if name != "seconds"}


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _every_step(folder: Path) -> gb.Checkpoint:
    return gb.Checkpoint(folder, every_minutes=1e-12, every_epochs=1)


# -- going on ----------------------------------------------------------------------------------------------------------

RULES = {
    **{name: rule() for name, rule in OPTIMIZERS.items()},
    "momentum": SGD(0.1, momentum=0.9),
    "Nesterov": SGD(0.1, momentum=0.9, nesterov=True),
    "RMSprop with momentum": RMSprop(0.01, momentum=0.5),
    "schedule": Adam(schedules.WarmUp(schedules.Cosine(0.05, steps=15), steps=4), clip_norm=0.5),
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "in order": {"shuffle": False},
    "validation": {"validation_data": (X[:7], Y[:7]), "tol": 1e-2, "patience": 2, "epochs": 9},
    "weights": {"sample_weight": WEIGHTS},
    "any seed": {"seed": None},
    "retries": {"retries": 2},
}


def _resumed_equals_whole(folder: Path, backend: str, steps: Callable[[int], bool], **arguments: Any) -> None:
    """Write a checkpoint after every step of a run, and go on from each alone that `steps` chooses, as a new process."""
    dropout = arguments.pop("dropout", 0.0)
    whole = _net(dropout=dropout, backend=backend)
    expected = _fit(whole, checkpoint=gb.Checkpoint(folder / "all", 1, 1e-12, keep=10**6), **arguments)
    files = _files(folder / "all")
    portion = whole.backend.portion(whole.flops(4))
    assert len(files) == len(expected.loss) * (-(-(STEPS - 1) // portion) + 1)  # the last batch is a smaller one
    for name in filter(lambda name: steps(int(name[5:-12])), files):
        alone = folder / name
        alone.mkdir()
        os.link(folder / "all" / name, alone / name)
        net = _net(dropout=dropout, backend=backend, seed=99)
        history = _fit(net, checkpoint=gb.Checkpoint(alone, 10**6), resume=True, **arguments)
        assert _theta(net) == _theta(whole), name
        assert _record(history) == _record(expected), name
        assert len(history.seconds) == len(history.loss)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dropout", [0.0, 0.4], ids=["", "dropout"])
def test_resumed_it_is_the_same_training(rule: str, case: str, dropout: float, tmp_path: Path) -> None:
    """After the first step, at an epoch's end, in the next, and one step before the end; all steps with Adam."""
    chosen = range(1000) if rule == "adam" else (1, STEPS, STEPS + 2, EPOCHS * STEPS - 1)
    _resumed_equals_whole(
        tmp_path, "numpy", lambda t: t in chosen, dropout=dropout, optimizer=RULES[rule], **CASES[case]
    )


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    plain, kept = _net(dropout=0.4), _net(dropout=0.4)
    expected = _fit(plain, optimizer="adam")
    assert _record(_fit(kept, optimizer="adam", checkpoint=_every_step(tmp_path))) == _record(expected)
    assert _theta(kept) == _theta(plain)


@pytest.mark.parametrize("rule", ["adam", "momentum", "sgd"])
def test_on_cuda(device: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in (NumpyBackend, CudaBackend):
        monkeypatch.setattr(backend, "portion", lambda self, flops: 2)
    arguments = {"dropout": 0.4, "sample_weight": WEIGHTS, "optimizer": RULES[rule], "retries": 1}
    _resumed_equals_whole(tmp_path, device, lambda t: True, **arguments)


@pytest.mark.parametrize("step", [4, STEPS, STEPS + 5])
def test_from_cuda_to_the_cpu_and_back(device: str, step: int, tmp_path: Path) -> None:
    """The bounds are those between the backends: 1e-10 after 10 epochs in double precision, here after 3."""
    whole = _net(dropout=0.4)
    _fit(whole, optimizer="adam")
    for number, backends in enumerate([(device, "numpy"), ("numpy", device)]):
        begun, ended = (_net(dropout=0.4, backend=backend) for backend in backends)
        folder = tmp_path / str(number)
        with pytest.warns(InterruptWarning):
            _fit(begun, optimizer=_interrupting(Adam(), step), checkpoint=gb.Checkpoint(folder))
        _fit(ended, optimizer=Adam(), checkpoint=folder, resume=True)
        theta = ended.backend.to_numpy(ended.theta)
        assert abs(theta - whole.theta).max() <= 1e-10
