"""Gradients of several devices, added up by NCCL: on stand-ins for it and for CuPy. Not yet run on two GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_cupy
import fake_nccl
import numpy as np
import pytest
import rank_cases
from test_parallel import BOUNDS, ENVIRONMENT, HERE, LAUNCH, job_of

import gpubackprop as gb
from gpubackprop.backends.graphs import Beside
from gpubackprop.backends.reducers import NcclReducer
from gpubackprop.errors import CudaLibraryError
from gpubackprop.optimizers import Adam
from gpubackprop.parallel import Alone
from gpubackprop.run import Run
from gpubackprop.sums import HEAD, Sums, buckets

X, Y = np.random.default_rng(1).normal(size=(24, 6)), np.ones((24, 3))


class _Half(Alone):
    """Rank 0 of two, the other of which has nothing to say."""

    size = 2

    def highest(self, number: int) -> int:
        return number

    def sum(self, x: np.ndarray) -> None:
        """The sum with nothing."""


@pytest.fixture
def nccl(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[fake_nccl.Communicator]:
    if "a GPU" in str(request.node.callspec.params.get("device")):
        pytest.skip("one process on one GPU has nobody to add up with")
    monkeypatch.setattr(fake_cupy.cuda, "nccl", None, raising=False)
    monkeypatch.setattr(NcclReducer, "bucket", 1.0)  # every layer
    return fake_nccl.install()


def _trained(backend: str, rows: int = 8, epochs: int = 3) -> np.ndarray:
    """θ of a network that a run of half of every batch trained."""
    net = gb.Network([6, 16, 5, 3], activation="tanh", l2=0.1, dropout=0.2, dtype="float64", backend=backend)
    with net.backend.running(0.0):
        data = [net.backend.asarray(a, "float64") for a in (X, Y)]
        reducer = net.backend.reducer(_Half(), lambda: 0)
        run = Run(net, *data, None, Adam(0.01), rows, True, 0, reducer=reducer)
        for _ in range(epochs):
            run.epoch(reducer.signalled)
        return net.backend.to_numpy(net.theta)


def test_what_is_added_up_and_where(device: str, nccl: type[fake_nccl.Communicator]) -> None:
    """The stand-in refuses what no event orders: sums before the gradients are there, an update before the sums."""
    expected = _trained("numpy")
    np.testing.assert_allclose(_trained(device), expected, rtol=0, atol=1e-12 * abs(expected).max())
    counts = [count for _, _, count in nccl.sums]
    starts = gb.Network([6, 16, 5, 3]).layout.starts
    assert counts[:3] == [starts[3] - starts[2], starts[2] - starts[1], starts[1] + HEAD]  # the last layer first
    assert {where for _, where, _ in nccl.sums} == {int(device.partition(":")[2] or 0)}
    assert 0 not in {stream for stream, _, _ in nccl.sums}


def test_an_update_that_does_not_wait_is_seen(stand_in: str, nccl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NcclReducer, "finish", lambda self: None)
    with pytest.raises(fake_cupy.Unordered):
        _trained(stand_in)


def test_a_sum_that_does_not_wait_is_seen(stand_in: str, nccl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def order(self: Beside, first: Any, then: Any) -> None:
        if then.ptr == 0:
            ordered(self, first, then)

    ordered = Beside._order
    monkeypatch.setattr(Beside, "_order", order)
    with pytest.raises(fake_cupy.Unordered):
        _trained(stand_in)


def test_nccl_that_is_missing_is_named(stand_in: str, nccl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise RuntimeError("NCCL_ERROR_INVALID_USAGE: invalid usage")

    monkeypatch.setattr(fake_cupy.cuda.nccl, "NcclCommunicator", refuse)
    with pytest.raises(CudaLibraryError, match=r"NCCL.*invalid usage.*one device for each rank"):
        _trained(stand_in)


@pytest.mark.parametrize(("rows", "epochs"), [(1, 2), (24, 3)])
def test_ranks_without_rows_and_whole_batches(device: str, nccl: Any, rows: int, epochs: int) -> None:
    expected = _trained("numpy", rows, epochs)
    np.testing.assert_allclose(_trained(device, rows, epochs), expected, rtol=0, atol=1e-12 * abs(expected).max())


class _Noted:
    """Notes the sizes of the messages of a rank."""

    bucket = 1.0

    def __init__(self, rank: int) -> None:
        self.group, self.sizes = _Half(), list[int]()
        self.group.rank = rank

    def start(self, x: np.ndarray) -> None:
        self.sizes.append(x.size)

    def finish(self) -> None:
        """Nothing is under way."""


def test_ranks_send_the_same_messages_whatever_rows_they_have() -> None:
    """Of 1 row and of 3, one at a time: one part and none, two parts and one. Messages of other sizes never meet."""
    net = gb.Network([6, 16, 5, 3], backend="numpy")
    starts, sent = net.layout.starts, []

    def work(part: slice, loss: Any, gradients: Any, done: Any) -> None:
        for l in (3, 2, 1):
            if done:
                done(l)

    for rows in (1, 3):
        for rank in (0, 1):
            reducer = _Noted(rank)
            Sums(net, reducer, 1, several=True).add_up(rows, work, np.zeros((), "float32"))  # type: ignore[arg-type]
            sent.append(reducer.sizes)
    assert sent == 4 * [[starts[3] - starts[2], starts[2] - starts[1], starts[1] + HEAD]]


def test_buckets() -> None:
    starts = [0, 100, 150, 400]
    assert buckets(starts, 4, 1.0) == {
        3: slice(HEAD + 150, HEAD + 400), 2: slice(HEAD + 100, HEAD + 150), 1: slice(0, HEAD + 100)
    }  # fmt: skip
    assert buckets(starts, 4, 1200.0) == {2: slice(HEAD + 100, HEAD + 400), 1: slice(0, HEAD + 100)}
    assert buckets(starts, 4, float("inf")) == {1: slice(0, HEAD + 400)}


ON_CUDA = [(case, "float64") for case in ("momentum", "Adam", "weights, penalty and dropout", "validation")] + [
    ("batches of three, then of two", "float32"), ("all in one batch", "float32"),
]  # fmt: skip


def test_ranks_on_devices_train_the_network_of_one_on_numpy(need: Any, tmp_path: Path) -> None:
    """Two ranks on two devices of the stand-in."""
    need("mpi")
    need("host")
    found = job_of([*LAUNCH, "2", str(HERE / "rank_cases_on_cuda.py"), str(tmp_path / "found.npz")], ENVIRONMENT)
    assert found["devices"].tolist() == [0, 1]
    for case, dtype in ON_CUDA:
        assert found[f"{case} {dtype} ways"] == 1
        for name, expected in rank_cases.figures(*rank_cases.trained(case, dtype, distributed=False)).items():
            bound = BOUNDS[dtype] * abs(expected).max(initial=0.0)
            np.testing.assert_allclose(found[f"{case} {dtype} {name}"], expected, rtol=0, atol=bound, err_msg=case)
