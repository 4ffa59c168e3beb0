"""Batches that memory does not suffice for: taken in parts, whose gradients are added up, with the same result."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_cases
from rank_cases import CASES, DTYPES, X, Y

import gpubackprop as gb
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.errors import MicroBatchWarning, OutOfMemory

LIMIT = 4096  # bytes of an array: of 16 units, 32 examples in float64 and 64 in float32; θ takes 2 KB at most
BOUNDS = {"float64": 1e-12, "float32": 1e-5}  # the sums' rounding, in units of what is largest; see test_parallel.py


def _limit(monkeypatch: pytest.MonkeyPatch, limit: int = LIMIT, backend: type[NumpyBackend] = NumpyBackend) -> None:
    """Let no array of a backend have more than so many bytes."""
    zeros = backend.zeros

    def limited(self: NumpyBackend, shape: Any, dtype: str) -> Any:
        if np.prod(shape) * np.dtype(dtype).itemsize > limit:
            raise OutOfMemory("as this test says")
        return zeros(self, shape, dtype)

    monkeypatch.setattr(backend, "zeros", limited)


def _same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: str) -> None:
    for name in expected:
        bound = BOUNDS[dtype] * abs(expected[name]).max(initial=0.0)
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_give_its_result(case: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, case, {"batch_size": 101, **CASES[case]})
    expected = rank_cases.figures(*rank_cases.trained(case, dtype, distributed=False))
    _limit(monkeypatch)
    divided = CASES[case]["batch_size"] == 101
    with pytest.warns(MicroBatchWarning, match="batches of 101") if divided else contextlib.nullcontext():
        net, history = rank_cases.trained(case, dtype, distributed=False)
    _same(rank_cases.figures(net, history), expected, dtype)
    at_once = {"float64": 26, "float32": 51}[dtype]  # a half of 101, and a half of that
    assert history.at_once == (at_once if divided else None)


def test_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _limit(monkeypatch)
    net = gb.Network([6, 16, 3], dtype="float64")
    with pytest.warns(MicroBatchWarning) as caught:
        history = gb.fit(net, X, Y, batch_size=100, epochs=1)
    assert caught[0].filename == __file__
    assert "does not suffice for batches of 100 examples: 25 at a time are taken" in str(caught[0].message)
    assert history.to_dict()["at_once"] == history.at_once == 25


def test_where_not_even_one_example_fits_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    net = gb.Network([6, 16, 3], dtype="float64")
    before = net.theta.copy()
    _limit(monkeypatch, 100)
    with pytest.raises(OutOfMemory, match="as this test says"):
        gb.fit(net, X, Y, batch_size=100, epochs=1)
    np.testing.assert_array_equal(net.theta, before)


@pytest.mark.parametrize("case", ["momentum", "weights, penalty and dropout"])
def test_on_cuda(device: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, case, {**CASES[case], "batch_size": 101})
    expected = rank_cases.figures(*rank_cases.trained(case, "float64", distributed=False))
    _limit(monkeypatch, backend=CudaBackend)
    with pytest.warns(MicroBatchWarning, match="26 at a time"):
        found = rank_cases.figures(*rank_cases.trained(case, "float64", distributed=False, backend=device))
    _same(found, expected, "float64")


LITTLE = """
import resource, sys
import numpy as np
import gpubackprop as gb
net = gb.Network([100, 2000, 1], backend="numpy")
X, y = np.ones((20_000, 100), "f4"), np.ones((20_000, 1), "f4")
gb.fit(net, X[:100], y[:100], epochs=1)  # libraries take what they need
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 250 * 2**20,) * 2)
history = gb.fit(net, X, y, batch_size=20_000, epochs=2, tol=None)
print(history.at_once, len(history.loss))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_under_a_limit_of_the_address_space() -> None:
    """A batch takes 20,000 × 2,000 activations and deltas of 4 bytes, 320 MB, and inputs; there are 250 MiB."""
    environment = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LITTLE]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "MicroBatchWarning: memory does not suffice for batches of 20,000 examples" in run.stderr
    at_once, epochs = map(int, run.stdout.split())
    assert at_once in (5_000, 10_000) and epochs == 2
