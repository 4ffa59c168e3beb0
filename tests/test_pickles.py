"""Networks, rows, optimizers, schedules and histories through pickle, joblib, cloudpickle and other processes."""

from __future__ import annotations

import importlib
import io
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import own_rows
import pytest
from cuda_backends import forget

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS, Activation
from gpubackprop.errors import BackendUnavailable, InvalidValue
from gpubackprop.initializers import INITIALIZERS
from gpubackprop.losses import LOSSES

X = numpy.random.default_rng(2).normal(size=(7, 3))
ROWS = {
    **ACTIVATIONS, **LOSSES, "leaky": ACTIVATIONS["leaky_relu"](slope=0.2), "squash": own_rows.squash(e=2.0),
    "pseudo_huber": own_rows.pseudo_huber,
}  # fmt: skip


def _again(thing: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(thing, protocol))


@pytest.mark.parametrize("protocol", range(pickle.DEFAULT_PROTOCOL, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ROWS)
def test_a_row(name: str, protocol: int) -> None:
    row = ROWS[name]
    again = _again(row, protocol)
    assert again == row
    assert again.as_dict() == row.as_dict()


@pytest.mark.parametrize("name", INITIALIZERS)
def test_an_initializer(name: str) -> None:
    assert _again(INITIALIZERS[name]) == INITIALIZERS[name]


SCHEDULES = [
    gb.schedules.Constant(0.1),
    gb.schedules.Step(0.1, 3),
    gb.schedules.Exponential(0.1, 0.9),
    gb.schedules.InverseScaling(0.1),
    gb.schedules.Cosine(0.1, 10),
    gb.schedules.WarmUp(0.1, 5),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("make", gb.optimizers.OPTIMIZERS.values())
def test_an_optimizer_with_its_schedule_before_and_after_use(make: Any, schedule: Any) -> None:
    rule = make(schedule, clip_norm=1.0)
    for each in range(2):
        again = _again(rule)
        assert again == rule
        assert again.hyper(3) == rule.hyper(3)
        assert again.update.values == rule.update.values, each


def test_an_optimizer_of_ones_own() -> None:
    assert _again(own_rows.TwoAgo(0.3)) == own_rows.TwoAgo(0.3)


def _net(**arguments: Any) -> gb.Network:
    given = {"activation": own_rows.squash(e=2.0), "loss": own_rows.pseudo_huber, "dtype": "float64", "l2": 0.1}
    net = gb.Network([3, 5, 2], **{**given, "dropout": 0.2, "backend": "numpy", **arguments})
    net.metadata["made"] = "by hand"
    return net


def _assert_same(again: gb.Network, net: gb.Network) -> None:
    assert again.architecture == net.architecture
    assert again.metadata == net.metadata
    assert (again.backend, again.precision) == (net.backend, net.precision)
    numpy.testing.assert_array_equal(again.predict(X), net.predict(X))


@pytest.mark.parametrize("how", ["pickle", "joblib", "cloudpickle"])
def test_a_network(how: str, need: Any) -> None:
    if how == "joblib":
        joblib, file = pytest.importorskip("joblib"), io.BytesIO()
        joblib.dump(_net(), file)
        file.seek(0)
        _assert_same(joblib.load(file), _net())
        return
    if how == "cloudpickle":
        need("cloudpickle")
    _assert_same(pickle.loads(importlib.import_module(how).dumps(_net())), _net())


def test_a_pickled_network_trains_on_as_the_first_does() -> None:
    net, y = _net(), X[:, :2]
    gb.fit(net, X, y, epochs=2)
    again = _again(net)
    told = [gb.fit(each, X, y, optimizer="adam", epochs=3) for each in (net, again)]
    assert net.theta.tobytes() == again.theta.tobytes()
    assert _again(told[0]) == told[0]
    assert _again(told[0]).loss == told[1].loss


def _predicted(net: gb.Network, x: Any) -> Any:
    return net.predict(x)


def test_a_network_in_a_pool_of_new_processes() -> None:
    net = _net()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(_predicted, net, X).result()
    numpy.testing.assert_array_equal(there, net.predict(X))


_SCRIPT = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import gpubackprop as gb
cube = gb.activations.Activation("cube", lambda m, z: z * z * z, lambda m, z, a: 3.0 * z * z)
if __name__ == "__main__":
    net = gb.Network([2, 3, 1], activation=cube, backend="numpy")
    x = [[0.5, 2.0]]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(net.predict, x).result().tolist() == net.predict(x).tolist()
    if len(sys.argv) > 1:
        import cloudpickle
        open(sys.argv[1], "wb").write(cloudpickle.dumps(net))
"""


def test_a_row_at_the_top_of_a_script(need: Any, tmp_path: Path) -> None:
    """Pickle finds it in new processes that read the script, cloudpickle brings it to those that do not."""
    need("cloudpickle")
    (tmp_path / "script.py").write_text(_SCRIPT)
    subprocess.run([sys.executable, "script.py", "net.pickle"], cwd=tmp_path, check=True)
    net = pickle.loads((tmp_path / "net.pickle").read_bytes())
    (W_1, _), (W_2, _) = net.parameters
    numpy.testing.assert_allclose(net.predict(X[:, :2]), (X[:, :2] @ W_1) ** 3 @ W_2, rtol=1e-5, atol=1e-6)


def test_a_row_without_a_place_is_refused_with_the_remedy(need: Any) -> None:
    row = Activation("cube", lambda m, z: z * z * z, lambda m, z, a: 3.0 * z * z)
    with pytest.raises(InvalidValue, match=r"top of a module, or .*net\.save\(path\).*rows=\[") as raised:
        pickle.dumps(_net(activation=row))
    assert raised.value.__cause__ is not None
    need("cloudpickle")
    again = pickle.loads(importlib.import_module("cloudpickle").dumps(row))
    assert gb.Network([1, 1], output_activation=again).predict([[2.0]]) is not None


def test_a_network_comes_back_on_its_device_or_says_why_not(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = _net(backend=stand_in)
    packed = pickle.dumps(net)
    again = pickle.loads(packed)
    assert again.backend is net.backend
    numpy.testing.assert_array_equal(again.predict(X), net.predict(X))
    _assert_same(_again(net.to("numpy")), _net())
    monkeypatch.setitem(sys.modules, "cupy", None)
    forget()
    with pytest.raises(BackendUnavailable, match=r"CuPy.*net\.to\('numpy'\).*gb\.load\(path, backend='numpy'\)"):
        pickle.loads(packed)
