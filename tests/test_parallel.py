"""Distributed training under a real mpiexec: the same network on any number of ranks, and ends where a rank ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_cases
from rank_cases import CASES, DTYPES

import gpubackprop as gb
from gpubackprop import parallel
from gpubackprop.cli import launch, main
from gpubackprop.parallel import Alone

ROOT, HERE = Path(gb.__file__).parents[1], Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OPENBLAS_NUM_THREADS": "1"}
LAUNCH = [sys.executable, "-m", "gpubackprop", "launch", "-n"]
AT_MOST = 5.0  # seconds until a job has ended, once one of its ranks has
# Rounding of the sums, which ranks take in another order, a hundred steps on: some hundred units of eps of θ's largest.
BOUNDS = {"float64": 1e-12, "float32": 1e-5}


def job_of(command: list[str], environment: dict[str, str]) -> dict[str, np.ndarray]:
    """Run ranks to their end; return the arrays in the file that their last argument names."""
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(command[-1]) as found:
        return dict(found)


@pytest.fixture(autouse=True)
def mpi(need: Any) -> None:
    need("mpi")


# -- the same network ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, np.ndarray]]:
    """What all cases come to on so many ranks: one job for all of them."""

    @cache
    def on(count: int) -> dict[str, np.ndarray]:
        path = tmp_path_factory.mktemp("ranks") / "found.npz"
        return job_of([*LAUNCH, str(count), str(HERE / "rank_cases.py"), str(path)], ENVIRONMENT)

    return on


@cache
def _alone(case: str, dtype: str) -> dict[str, np.ndarray]:
    return rank_cases.figures(*rank_cases.trained(case, dtype, distributed=False))


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_ranks_train_the_network_of_one(results: Any, case: str, dtype: str, count: int) -> None:
    found, alone = results(count), _alone(case, dtype)
    assert found["ranks"] == count
    assert found[f"{case} {dtype} ways"] == 1, "the ranks differ"
    for name, expected in alone.items():
        bound = BOUNDS[dtype] * abs(expected).max(initial=0.0)
        np.testing.assert_allclose(found[f"{case} {dtype} {name}"], expected, rtol=0, atol=bound, err_msg=name)


def test_a_group_of_one_is_no_group(results: Any) -> None:
    found = results(1)
    for case in CASES:
        np.testing.assert_array_equal(found[f"{case} float64 theta"], _alone(case, "float64")["theta"])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 2, 6, 7, 24, 101])
def test_parts_of_a_batch_cover_it(rows: int, size: int) -> None:
    group = Alone()
    group.size = size
    parts, taken = [], 0
    for rank in range(size):
        group.rank = rank
        parts.append(group.rows(rows))
    for part in parts:
        assert part.start == taken
        taken = part.stop
    counts = [part.stop - part.start for part in parts]
    assert taken == rows and counts[0] == max(counts) == group.most(rows) and max(counts) - min(counts) <= 1


# -- jobs that end -----------------------------------------------------------------------------------------------------

TRAIN = """
import os, signal, sys, time
import numpy as np
import gpubackprop as gb
from mpi4py import MPI
rank = MPI.COMM_WORLD.rank
net = gb.Network([5, 4, 3], seed=rank)
X, y = np.random.default_rng(0).normal(size=(40, 5)), np.ones((40, 3))
say = lambda *words: os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # a whole line, so that none mix
endless = {"epochs": 10**8, "tol": None, "batch_size": 8, "distributed": True}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a script in so many ranks, in a session of its own."""
    jobs = []

    def started(script: str, count: int = 2, launcher: list[str] | None = None) -> subprocess.Popen[str]:
        path = tmp_path / "script.py"
        path.write_text(TRAIN + script)
        command = [*(launcher or [*LAUNCH, str(count)]), str(path)]
        job = subprocess.Popen(
            command, env=ENVIRONMENT, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        job.begun = time.time()
        jobs.append(job)
        return job

    yield started
    for job in jobs:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        job.communicate()


def _ended(job: subprocess.Popen[str], since: float | None = None) -> tuple[str, str]:
    """Return what a job printed, which ends in time: a busy machine has as much longer as the job took until then."""
    output, errors = job.communicate()
    took = time.time() - (since := float(output.rpartition("at ")[2].split()[0]) if since is None else since)
    assert took < AT_MOST + (since - job.begun), f"it went on for {took:.1f} s"
    return output, errors


PLAIN = [launch.mpiexec() or "", "-n", "2", sys.executable]


@pytest.mark.parametrize("launcher", [None, PLAIN], ids=["launch", "plain mpiexec"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_ends_the_job_with_its_traceback(start: Any, rank: int, launcher: Any) -> None:
    fails = f"""
gb.fit(net, X, y, epochs=1, distributed=True)
if rank == {rank}:
    say("at", time.time())
    raise ArithmeticError("on purpose")
gb.fit(net, X, y, **endless)
"""
    job = start(fails, launcher=launcher)
    _, errors = _ended(job)
    assert job.returncode != 0
    assert 'raise ArithmeticError("on purpose")' in errors and "ArithmeticError: on purpose" in errors


def test_a_callback_that_fails_ends_the_job(start: Any) -> None:
    fails = """
def fail(net, history):
    say("at", time.time())
    raise ArithmeticError("on purpose")
gb.fit(net, X, y, callbacks=[fail], **endless)
"""
    job = start(fails)
    _, errors = _ended(job)
    assert job.returncode != 0 and errors.count("ArithmeticError: on purpose") == 1  # in rank 0 alone


KILL = """
def kill(net, history):
    if len(history.loss) == 3:
        say("at", time.time())
        os.kill(int(open("pid").read()), signal.{})
if rank == {}:
    open("pid", "w").write(str(os.getpid()))
MPI.COMM_WORLD.Barrier()
history = gb.fit(net, X, y, callbacks=[kill], **endless)
MPI.COMM_WORLD.Barrier()
say(rank, "ended:", history.stopped_because, net.theta.sum())
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_job(start: Any, rank: int) -> None:
    job = start(KILL.format("SIGKILL", rank))
    output, _ = _ended(job)
    assert job.returncode != 0 and "ended" not in output


@pytest.mark.parametrize("rank", [0, 1])
def test_an_interrupt_of_one_rank_stops_all_after_the_same_step(start: Any, rank: int) -> None:
    job = start(KILL.format("SIGINT", rank))
    output, errors = _ended(job)
    assert job.returncode == 0, errors
    ends = [line.partition(" ")[2] for line in output.splitlines() if "ended" in line]
    assert len(ends) == 2 and len(set(ends)) == 1 and "interrupted from the keyboard" in ends[0]
    assert errors.count("InterruptWarning") == 1


def test_an_interrupt_of_the_job_stops_training(start: Any) -> None:
    told = 'tell = lambda net, history: len(history.loss) == 3 and say("running") and None\n'
    train = "history = gb.fit(net, X, y, callbacks=[tell], **endless)\nsay('ended', history.stopped_because)"
    job = start(told + train)
    while "running" not in job.stdout.readline():
        assert job.poll() is None
    job.send_signal(signal.SIGINT)
    output, _ = _ended(job, time.time())
    assert job.returncode == 0 and output.count("ended interrupted from the keyboard") == 2


def test_a_seed_of_none_is_one_for_all(start: Any) -> None:
    train = "gb.fit(net, X, y, epochs=3, seed=None, distributed=True)\nsay('sum', net.theta.sum())"
    output, errors = start(train).communicate()
    sums = [line for line in output.splitlines() if line.startswith("sum")]
    assert len(sums) == 2 and len(set(sums)) == 1, errors


# -- jobs that go on ---------------------------------------------------------------------------------------------------

GOES_ON = """
end, resume, stop = {end}, {resume}, {stop}
def tell(net, history):
    if len(history.loss) == stop:
        say("at", time.time())
        os.kill(os.getpid(), signal.{signal})
history = gb.fit(
    net, X, y, optimizer=gb.optimizers.Adam(0.01), epochs=end, tol=None, batch_size=7, distributed=True,
    checkpoint="checkpoints", resume=resume, callbacks=[tell],
)
say("theta", net.theta.tobytes().hex())
if rank == 0:
    np.save("theta.npy", net.theta)
    np.save("loss.npy", history.loss)
"""


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_job_that_was_ended_goes_on_with_any_number_of_ranks(
    start: Any, tmp_path: Path, name: str, count: int
) -> None:
    """Two ranks train and are ended; so many take their checkpoint up: the same bits where they are two again."""
    net = gb.Network([5, 4, 3], seed=0)
    X, y = np.random.default_rng(0).normal(size=(40, 5)), np.ones((40, 3))
    whole = gb.fit(net, X, y, optimizer=gb.optimizers.Adam(0.01), epochs=6, tol=None, batch_size=7)
    ended = start(GOES_ON.format(end=10**6, resume=False, stop=3, signal=name))
    ended.communicate()
    assert ended.returncode != 0
    [*_, newest] = sorted((tmp_path / "checkpoints").iterdir())
    assert int(newest.stem.removeprefix("step-")) >= 2 * 6
    assert not list((tmp_path / "checkpoints").glob(".*.tmp"))
    goes_on = start(GOES_ON.format(end=6, resume=True, stop=0, signal=name), count)
    output, errors = goes_on.communicate()
    assert goes_on.returncode == 0, errors
    assert len({line for line in output.splitlines() if line.startswith("theta")}) == 1
    np.testing.assert_allclose(np.load(tmp_path / "loss.npy"), whole.loss, rtol=BOUNDS["float32"])
    bound = BOUNDS["float32"] * abs(net.theta).max()
    np.testing.assert_allclose(np.load(tmp_path / "theta.npy"), net.theta, rtol=0, atol=bound)
    if count == 2:
        again = start(GOES_ON.format(end=6, resume=False, stop=0, signal=name).replace('"checkpoints"', '"others"'))
        again.communicate()
        uninterrupted = np.load(tmp_path / "theta.npy").tobytes().hex()
        assert f"theta {uninterrupted}" in output


# -- the launcher ------------------------------------------------------------------------------------------------------


def test_train_is_launched(tmp_path: Path) -> None:
    found = {}
    for count in (1, 2):
        command = [*LAUNCH, str(count), "train", "digits", "--hidden", "8", "--epochs", "2", "--out", f"out{count}"]
        run = subprocess.run(command, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert [line.split()[0] for line in run.stdout.splitlines()].count("epoch") == 2, "not rank 0 alone prints"
        assert f"ranks: {count}, BLAS threads of each: as the environment says" in run.stdout
        found[count] = gb.load(tmp_path / f"out{count}/model.safetensors", backend="numpy").theta
    np.testing.assert_allclose(found[2], found[1], rtol=0, atol=BOUNDS["float32"] * abs(found[1]).max())
    assert not np.array_equal(found[2], found[1])  # else it was not two who trained


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["nothing.csv"], "nothing.csv: cannot be read"), (["digits", "--resume"], "--resume is about the folder")],
)
def test_an_error_of_all_ranks_is_said_once(arguments: list[str], says: str, tmp_path: Path) -> None:
    command = [*LAUNCH, "2", "train", *arguments]
    run = subprocess.run(command, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.count(f"gpubackprop: error: {says}") == 1


def test_ranks_that_are_missing_are_an_error() -> None:
    """A script that is started without mpiexec, or by that of another MPI, would train alone, as often as it runs."""
    for name in parallel.STARTED[:2]:
        code = "from gpubackprop import parallel; parallel.world()"
        environment = {**ENVIRONMENT, name: "4"}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert f"RanksMissing: 4 ranks were asked for ({name}), and MPI knows of 1" in run.stderr.replace("errors.", "")


OPEN_MPI, MPICH = "mpiexec (Open MPI) 5.0.11\n", "HYDRA build details:\n    Version:         5.0.2\n"


class _Became(Exception):
    """Another program took the place of this one."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[list[str], dict[str, str]]]:
    """Launch ranks by an mpiexec that says something of itself; return what would be run, and its environment."""

    def became(said: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        (tmp_path / "said").write_text(said)
        mpiexec = tmp_path / "mpiexec"
        mpiexec.write_text(f"#!/bin/sh\ncat {tmp_path}/said\n")
        mpiexec.chmod(0o755)
        monkeypatch.setattr(launch, "mpiexec", lambda: str(mpiexec))
        given: list[Any] = []
        monkeypatch.setattr(os, "execve", lambda *what: (given.extend(what), (_ for _ in ()).throw(_Became()))[0])
        with pytest.raises(_Became):
            main(["launch", *arguments])
        assert given[0] == given[1][0] == str(mpiexec)
        return given[1][1:], given[2]

    for name in launch.THREADS:
        monkeypatch.delenv(name, raising=False)
    return became


RUN = [sys.executable, "-m", "gpubackprop.cli.rank"]


def test_what_mpich_is_told(became: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(launch, "cores", lambda: 9)
    command, environment = became(MPICH, "-n", "4", "train", "digits", "--epochs", "2")
    assert command == ["-n", "4", *RUN, "-m", "gpubackprop", "train", "digits", "--epochs", "2"]
    assert environment[parallel.ASKED] == "4"
    assert {environment[name] for name in launch.THREADS} == {"2"}
    assert "MPICH (Hydra) 5.0.2" in capsys.readouterr().out
    _, environment = became(MPICH, "-n", "32", "script.py")
    assert environment["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    _, environment = became(MPICH, "-n", "4", "script.py")
    assert environment["OMP_NUM_THREADS"] == "3" and "OPENBLAS_NUM_THREADS" not in environment


@pytest.mark.parametrize("user", [0, 1000])
def test_what_open_mpi_is_told(became: Any, monkeypatch: pytest.MonkeyPatch, user: int, capsys: Any) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    command, _ = became(OPEN_MPI, "-n", "3", "script.py", "-n", "7")
    root = ["--allow-run-as-root"] * (user == 0)
    assert command[: len(root) + 3] == [*root, "--oversubscribe", "--bind-to", "none"]
    passed = {command[k + 1] for k, word in enumerate(command) if word == "-x"}
    assert passed == {*launch.THREADS, parallel.ASKED}
    assert command[-8:] == ["-n", "3", *RUN, "script.py", "-n", "7"]
    assert "mpiexec (Open MPI) 5.0.11" in capsys.readouterr().out


def test_what_is_not_launched(capsys: Any) -> None:
    for what in (["predict", "a", "b"], []):
        assert main(["launch", "-n", "2", *what]) == 2
        assert "launch takes `train` with its arguments, or a script" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["launch", "-n", "2", "train", "digits", "--epochs", "none"])
    assert "argument --epochs" in capsys.readouterr().err


def test_distributed_is_true_or_false() -> None:
    with pytest.raises(gb.errors.InvalidType, match="distributed must be True or False"):
        gb.fit(gb.Network([5, 3]), np.ones((4, 5)), np.ones((4, 3)), distributed=2)  # type: ignore[arg-type]
