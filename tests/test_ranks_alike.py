"""What ranks are given differently is refused: everything that determines the result, by its name and its values."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_ranks_that_fail import ended

import gpubackprop as gb
from gpubackprop import activations, losses, parallel, training
from gpubackprop.encoding import digest_of_array, itemized
from gpubackprop.optimizers import OPTIMIZERS
from gpubackprop.schedules import SCHEDULES, WarmUp

# What ranks 0 and 1 call, and what is said of it.
DIFFERENT = {
    "fit(net, X[rank:], y[rank:])": "examples must be the same in every rank, got 40 in rank 0, 39 in rank 1",
    "fit(net, X + 1e-15 * rank, y)": "data X must be the same in every rank, got .40×5 float64, crc32",
    "fit(net, X, y + rank)": "data y must be",
    "fit(net, X, y, sample_weight=[None, np.ones(40)][rank])": "weighted must be the same in every rank, got false in",
    "fit(net, X, y, sample_weight=np.ones(40) + (X[:, 0] > rank))": "data w must be",
    "fit(net, X, y, validation_data=(X[:9] + rank, y[:9]))": "validation_data X must be",
    "fit(net, X, y, batch_size=2 + rank)": "batch_size must be the same in every rank, got 2 in rank 0, 3 in rank 1",
    "fit(net, X, y, epochs=2 + rank)": "epochs must be",
    "fit(net, X, y, seed=rank)": "seed must be",
    "fit(net, X, y, shuffle=rank == 0)": "shuffle must be",
    "fit(net, X, y, retries=rank)": "retries must be",
    "fit(net, X, y, optimizer=SGD(0.1 + rank))": "optimizer learning_rate must be .* got 0.1 in rank 0, 1.1 in rank 1",
    "fit(net, X, y, optimizer=[SGD, Adam][rank](0.1))": 'optimizer name must be .* got "SGD" in rank 0, "Adam" in',
    "fit(net, X, y, optimizer=SGD(clip_norm=1.0 + rank))": "optimizer clip_norm must be .* got 1.0 in rank 0, 2.0 in",
    "fit(net, X, y, optimizer=SGD(momentum=0.5, nesterov=rank > 0))": "optimizer nesterov must be",
    "fit(net, X, y, optimizer=SGD(Cosine(0.1, steps=5 + rank)))": "optimizer learning_rate steps must be .* got 5 in",
    "fit(net, X, y, optimizer=SGD(WarmUp(Step(0.1, 9 + rank), 3)))": "optimizer learning_rate after every must be",
    "fit(net, X, y, optimizer=SGD(lambda t: 0.1 + 1e-9 * rank * (t == 7)))": "optimizer in step 7 must be",
    "fit(net, X, y, optimizer=Own(0.1))": "optimizer formula update must be",
    "fit(gb.Network([5, 4 + rank, 3]), X, y)": r"network sizes must be .* got \[5, 4, 3\] in rank 0, \[5, 5",
    "fit(gb.Network([5, 4, 3], activation=leaky_relu(slope=0.1 + rank / 8)), X, y)":
        "network activations 1 parameters slope must be .* got 0.1 in rank 0, 0.225 in rank 1",
    "fit(gb.Network([5, 4, 3], activation=own), X, y)": "network activations 1 formula backward must be",
    "fit(gb.Network([5, 4, 3], loss=huber(delta=1 + rank)), X, y)": "network loss parameters delta must be",
    "fit(gb.Network([5, 4, 3], l2=0.1 * rank), X, y)": "network l2 must be",
    "fit(gb.Network([5, 4, 3], dropout=0.1 * rank), X, y)": "network dropout must be",
    "fit(gb.Network([5, 4, 3], dtype=['float32', 'float64'][rank]), X, y)": "network dtype must be",
    "older(parallel, '__version__')": 'version gpubackprop must be .* got ".*" in rank 0, "0.0" in rank 1',
    "older(np, '__version__')": "version numpy must be",
    "of_backend('another')": 'network backend must be .* got "numpy" in rank 0, "another" in rank 1',
}  # fmt: skip

SCRIPT = """
from unittest import mock
from gpubackprop import parallel
from gpubackprop.activations import Activation, leaky_relu
from gpubackprop.losses import huber
from gpubackprop.optimizers import SGD, Adam
from gpubackprop.schedules import Cosine, Step, WarmUp
net = gb.Network([5, 4, 3], dtype="float64", seed=rank)
def fit(net, X, y, epochs=2, **more):
    return gb.fit(net, X, y, epochs=epochs, tol=None, distributed=True, **{"batch_size": 8, **more})
class Own(SGD):
    def step(self, m, h, w, g):
        return (w - (1 + rank) * h.rate * g,)
own = Activation("own", lambda m, z: z * (1 + rank), lambda m, z, a: 1.0 + rank)
def older(module, name):
    with mock.patch.object(module, name, "0.0") if rank else mock.MagicMock():
        fit(net, X, y)
def of_backend(name):
    net = gb.Network([5, 4, 3], backend="numpy")
    with mock.patch.object(type(net.backend), "name", name) if rank else mock.MagicMock():
        fit(net, X, y)
for number, call in enumerate(CALLS):
    before = net.theta.copy()
    try:
        eval(call)
    except gb.errors.InvalidValue as error:
        print(f"call {number} in rank {rank} as it was {(net.theta == before).all()}: {error}\\n", end="", flush=True)
"""


def test_what_ranks_are_given_differently_is_refused(need: Any, tmp_path: Path) -> None:
    need("mpi")
    status, output, _ = ended(f"CALLS = {list(DIFFERENT)}\n{SCRIPT}", tmp_path)
    assert status == 0, output
    for number, (call, says) in enumerate(DIFFERENT.items()):
        for rank in (0, 1):
            line = re.search(f"call {number} in rank {rank} .*", output)
            assert line and re.search(says, line[0]), f"{call} is not refused by name in rank {rank}:\n{line}\n{output}"
            assert "formula" in says or "in step" in says or "as it was True" in line[0], call


class _Noting(parallel.Alone):
    """One process that notes what it would compare."""

    def begun_alike(self, net: Any, seed: Any, settings: dict[str, Any], data: Any) -> Any:
        self.settings: dict[str, Any] = settings
        self.data: dict[str, Sequence[Any]] = data
        return seed


def test_every_argument_of_fit_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one is too, without being listed."""
    group = _Noting()
    monkeypatch.setattr(parallel, "world", lambda: group)
    X, y = np.ones((4, 2)), np.ones(4)
    gb.fit(gb.Network([2, 1]), X, y, epochs=1, validation_data=(X, y), distributed=True)
    arguments = set(inspect.signature(gb.fit).parameters)
    assert set(training.APART) <= arguments
    assert set(group.settings) == arguments - set(training.APART) | {"examples", "weighted"}
    assert {name: len(arrays) for name, arrays in group.data.items()} == {"data": 3, "validation_data": 3}


@pytest.mark.parametrize("kind", [*OPTIMIZERS.values(), *SCHEDULES.values()])
def test_every_field_is_compared(kind: Any) -> None:
    given = {"learning_rate": 0.5, "every": 3, "factor": 0.25, "steps": 4, "after": 0.5}
    fields = [field.name for field in dataclasses.fields(kind)]
    value = kind(**{name: given[name] for name in fields if name in given})
    found = itemized({"it": value})
    assert all(any(f"{name} ".startswith(f"it {field} ") for name in found) for field in fields)


@pytest.mark.parametrize("row", [*activations.ACTIVATIONS.values(), *losses.LOSSES.values()])
def test_every_formula_of_a_row_is_compared(row: Any) -> None:
    found = itemized({"it": row})
    assert {f"it parameters {name}" for name in row.parameters} <= set(found)
    assert sum("formula" in name for name in found) >= (0 if row.name == "softmax" else 2)


def test_nested_settings_have_full_names() -> None:
    found = itemized(
        {"rate": WarmUp(gb.schedules.Cosine(0.5, steps=np.int64(4)), 2), "sizes": (3, 1), "path": Path("a")}
    )
    assert found["rate after steps"] == "4" and found["sizes"] == "[3, 1]" and found["path"] == '"a"'


def test_a_digest_is_of_all_elements_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(60.0).reshape(20, 3)
    first = digest_of_array(x, np.asarray)
    assert digest_of_array(np.asfortranarray(x), np.asarray) == first
    for k in range(60):
        other = x.copy()
        other.flat[k] += 1
        assert digest_of_array(other, np.asarray) != first
    assert digest_of_array(x[::-1], np.asarray) != first != digest_of_array(x.reshape(10, 6), np.asarray)
    monkeypatch.setattr("gpubackprop.encoding.BLOCK_BYTES", 50)
    assert digest_of_array(x, np.asarray) == first
    assert digest_of_array(None, np.asarray) is None
