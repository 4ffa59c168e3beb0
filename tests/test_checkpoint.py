"""Checkpoints: a run that stops anywhere and goes on ends in the same bits; what is refused."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import processes
import pytest
import safetensors.numpy
from stops import at_step

import gpubackprop as gb
from gpubackprop import folderlock, schedules
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.errors import (
    CheckpointError,
    CheckpointWarning,
    InterruptWarning,
    InvalidType,
    InvalidValue,
    Terminated,
)
from gpubackprop.optimizers import OPTIMIZERS, SGD, Adam, RMSprop

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
    """Write a checkpoint after every step of a run; go on from each that `steps` chooses, in a new network."""
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
        with at_step(step, signal.SIGINT), pytest.warns(InterruptWarning):
            _fit(begun, optimizer="adam", checkpoint=gb.Checkpoint(folder))
        _fit(ended, optimizer="adam", checkpoint=folder, resume=True)
        assert abs(ended.backend.to_numpy(ended.theta) - whole.theta).max() <= 1e-10


# -- being told to stop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, STEPS, STEPS + 1, EPOCHS * STEPS])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_last_checkpoint(number: signal.Signals, step: int, tmp_path: Path) -> None:
    """None is due after an epoch: the only file is that of the step in which the signal came."""
    whole, net = _net(), _net()
    expected = _fit(whole, optimizer="adam")
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    told = pytest.raises(Terminated) if number == signal.SIGTERM else pytest.warns(InterruptWarning)
    with at_step(step, number, times=2 if number == signal.SIGTERM else 1), told:
        _fit(net, optimizer="adam", checkpoint=gb.Checkpoint(tmp_path, every_epochs=100))
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert _files(tmp_path) == [f"step-{step:012d}.safetensors"]
    history = _fit(net, optimizer="adam", checkpoint=tmp_path, resume=True)
    assert (_theta(net), _record(history)) == (_theta(whole), _record(expected))


def test_termination_says_where_it_is_and_with_which_status(tmp_path: Path) -> None:
    with at_step(4, signal.SIGTERM), pytest.raises(SystemExit) as caught:
        _fit(_net(), checkpoint=tmp_path)
    assert caught.value.code == 143
    assert (
        str(caught.value)
        == f"terminated in epoch 1; the last checkpoint is {tmp_path / 'step-000000000004.safetensors'}"
    )


def test_sigterm_is_as_always_without_checkpoints_and_in_other_threads(tmp_path: Path) -> None:
    came: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with at_step(4, signal.SIGTERM):
            assert len(_fit(_net()).loss) == EPOCHS
        thread = threading.Thread(target=_fit, args=(_net(),), kwargs={"checkpoint": tmp_path})
        thread.start()
        thread.join()
        assert len(_files(tmp_path)) == 2
        assert came == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with at_step(4, signal.SIGTERM):
            assert len(_fit(_net(), checkpoint=tmp_path / "ignored").loss) == EPOCHS
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_a_training_that_has_ended_goes_on_if_more_is_allowed(tmp_path: Path) -> None:
    first, whole = _net(), _net()
    assert len(_fit(first, checkpoint=tmp_path).loss) == EPOCHS
    again = _net(seed=7)
    assert len(_fit(again, checkpoint=tmp_path, resume=True).loss) == EPOCHS
    assert _theta(again) == _theta(first)
    longer = _fit(again, checkpoint=tmp_path, resume=True, epochs=5)
    assert _record(longer) == _record(_fit(whole, epochs=5))
    assert _theta(again) == _theta(whole)


def test_a_training_that_has_converged_has_converged(tmp_path: Path) -> None:
    arguments = {"tol": 10.0, "patience": 2, "epochs": 9}
    expected = _fit(_net(), checkpoint=tmp_path, **arguments)
    assert len(expected.loss) == 3  # the first falls from infinity
    assert _record(_fit(_net(), checkpoint=tmp_path, resume=True, **arguments)) == _record(expected)
    assert len(_fit(_net(), checkpoint=tmp_path, resume=True, **{**arguments, "patience": 4}).loss) == 5


def test_a_training_that_a_callback_stopped_stays_so(tmp_path: Path) -> None:
    def stop(net: gb.Network, history: gb.History) -> bool:
        return len(history.loss) == 2

    expected = _fit(_net(), checkpoint=tmp_path, callbacks=[stop])
    again = _net(seed=3)
    history = _fit(again, checkpoint=tmp_path, resume=True, callbacks=[stop])
    assert history.stopped_because == expected.stopped_because == "a callback stopped it after epoch 2"
    assert len(history.loss) == 2


def test_where_there_is_no_checkpoint_resuming_begins(tmp_path: Path) -> None:
    net, plain = _net(), _net()
    _fit(net, checkpoint=tmp_path / "new" / "folder", resume=True)
    _fit(plain)
    assert _theta(net) == _theta(plain)


# -- which files there are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 5])
@pytest.mark.parametrize("every", [1, 2])
def test_how_often_and_how_many(keep: int, every: int, tmp_path: Path) -> None:
    """After 7 epochs: those of the last epochs that are multiples of `every`, and of the last one."""
    _fit(_net(), checkpoint=gb.Checkpoint(tmp_path, every, keep=keep), epochs=7)
    due = [epoch for epoch in range(1, 8) if epoch % every == 0 or epoch == 7]
    assert _files(tmp_path) == [f"step-{epoch * STEPS:012d}.safetensors" for epoch in due[-keep:]]


def test_minutes_alone_count_no_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes by a second at each look, of which there is one after each of 18 steps and at each write."""
    seconds = iter(range(10**6))
    monkeypatch.setattr("gpubackprop.checkpoint.time.monotonic", lambda: float(next(seconds)))
    _fit(_net(), checkpoint=gb.Checkpoint(tmp_path, every_minutes=4 / 60, keep=100))
    found = [int(name[5:-12]) for name in _files(tmp_path)]
    assert found == [4, 8, 12, 16, 18]


def test_strange_files_stay_and_temporaries_go(tmp_path: Path) -> None:
    strange = ["notes.txt", "step-1.safetensors", "model.safetensors", ".tmp", ".0123.tmp"]
    for name in (*strange, f".{'0a' * 8}.tmp"):
        (tmp_path / name).write_text("mine")
    _fit(_net(), checkpoint=gb.Checkpoint(tmp_path, keep=1))
    assert _files(tmp_path) == sorted([*strange, f"step-{EPOCHS * STEPS:012d}.safetensors"])


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    _fit(_net(), checkpoint=tmp_path)
    files, net = _files(tmp_path), _net()
    before = _theta(net)
    with pytest.raises(InvalidValue, match="has checkpoints of a training already: go on with it"):
        _fit(net, checkpoint=tmp_path)
    assert (_files(tmp_path), _theta(net)) == (files, before)


@POSIX
def test_a_folder_is_for_one_training_at_a_time(tmp_path: Path) -> None:
    """Two would delete each other's files. A second one is refused in this process and in another, and leaves all."""
    refused: list[str] = []
    program = (
        "import sys, numpy, gpubackprop as gb\n"
        "try:\n"
        "    gb.fit(gb.Network([3, 2]), numpy.ones((4, 3)), numpy.ones((4, 2)), checkpoint=sys.argv[1], resume=True)\n"
        "except gb.errors.InvalidValue as error:\n"
        "    print(error)\n"
    )

    def second(net: gb.Network, history: gb.History) -> None:
        before = _files(tmp_path)
        with pytest.raises(InvalidValue) as caught:
            _fit(_net(), checkpoint=tmp_path / ".." / tmp_path.name, resume=True)
        other = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
        )
        refused.extend([str(caught.value), other.stdout])
        assert _files(tmp_path) == before

    whole, net = _net(), _net()
    _fit(whole)
    _fit(net, checkpoint=tmp_path, callbacks=[second])
    assert len(refused) == 2 * EPOCHS
    for says in refused:
        assert f"another training (process {os.getpid()} on {socket.gethostname()}) writes its checkpoints to" in says
    assert _theta(net) == _theta(whole)
    assert all(name.endswith(".safetensors") for name in _files(tmp_path))


class _Failure(Exception):
    pass


def test_a_training_that_fails_leaves_the_folder_to_others(tmp_path: Path) -> None:
    def fail(net: gb.Network, history: gb.History) -> None:
        raise _Failure

    with pytest.raises(_Failure):
        _fit(_net(), checkpoint=_every_step(tmp_path), callbacks=[fail])
    with pytest.raises(InvalidValue, match="has checkpoints of a training already"):
        _fit(_net(), checkpoint=tmp_path)
    net, whole = _net(), _net()
    _fit(net, checkpoint=tmp_path, resume=True)
    _fit(whole)
    assert _theta(net) == _theta(whole)


@POSIX
def test_a_killed_training_leaves_the_folder_to_others(tmp_path: Path) -> None:
    """So it does if a child that it forked lives on, as a process that reads data for it."""
    program = (
        "import os, sys, time, numpy, gpubackprop as gb\n"
        "def fork(net, history):\n"
        "    reader, writer = os.pipe()\n"
        "    if not os.fork():\n"
        "        os.write(writer, b'x')\n"
        "        os.read(0, 1)\n"  # until the test ends
        "        os._exit(0)\n"
        "    os.read(reader, 1)\n"
        "    print('forked', flush=True)\n"
        "    time.sleep(1000)\n"
        "gb.fit(gb.Network([3, 2]), numpy.ones((4, 3)), numpy.ones((4, 2)), checkpoint=sys.argv[1], callbacks=[fork])\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(tmp_path)]
    with processes.started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # which ends the child
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"forked\n"
            with pytest.raises(InvalidValue, match=f"process {process.pid} on "):
                _fit(_net(), checkpoint=tmp_path)
        finally:
            process.kill()
        process.wait()
        _fit(_net(), checkpoint=tmp_path)


@POSIX
def test_a_lock_whose_file_its_holder_just_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking: a lock of a file that is not there any more would keep nobody out."""
    acquire, first = folderlock._acquire, folderlock.lock(tmp_path)

    def ends(file: Any) -> None:
        first()
        acquire(file)

    monkeypatch.setattr(folderlock, "_acquire", ends)
    release = folderlock.lock(tmp_path)
    with pytest.raises(BlockingIOError):
        folderlock.lock(tmp_path)
    release()
    assert _files(tmp_path) == []


@POSIX
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.warns(CheckpointWarning, match="without locks .*: start no other training there"):
        _fit(_net(), checkpoint=tmp_path)
    assert len(_files(tmp_path)) == 3  # two checkpoints and the file of the lock


@POSIX
def test_a_lock_that_is_a_link(tmp_path: Path) -> None:
    """It would be written, and might be deleted."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match=r"\.lock"):
        _fit(_net(), checkpoint=tmp_path / "folder")
    assert (tmp_path / "mine").read_text() == "mine"


# -- what is refused ---------------------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "activation": ({"activation": "relu"}, {}, "activations "),
    "dtype": ({"dtype": "float32"}, {}, "dtype 'float64', not 'float32'"),
    "penalty": ({"l2": 0.1}, {}, "l2 0.0, not 0.1"),
    "dropout": ({"dropout": 0.1}, {}, "dropout 0.0, not 0.1"),
    "loss": ({"loss": "mae"}, {}, "loss name 'mse', not 'mae'"),
    "optimizer": ({}, {"optimizer": "adam"}, "optimizer .*'SGD'.*, not .*'Adam'"),
    "rate": ({}, {"optimizer": SGD(0.2)}, "optimizer learning_rate 0.005, not 0.2:"),
    "schedule": (
        {},
        {"optimizer": SGD(schedules.Exponential(0.1, 0.9))},
        "optimizer learning_rate 0.005, not {'name': 'Exponential', ",
    ),
    "function": ({}, {"optimizer": SGD(lambda t: 0.1)}, "optimizer learning_rate 0.005, not '<lambda>':"),
    "batch": ({}, {"batch_size": 5}, "batch_size 4, not 5"),
    "order": ({}, {"shuffle": False}, "shuffle True, not False"),
    "seed": ({}, {"seed": 1}, "seed 0, not 1"),
    "weights": ({}, {"sample_weight": WEIGHTS}, "sample_weight False, not True"),
    "validation": ({}, {"validation_data": (X, Y)}, "validation_examples None, not 23"),
    "retries": ({}, {"retries": 1}, "retries False, not True"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_training_is_refused_by_what_differs(other: str, tmp_path: Path) -> None:
    _fit(_net(), checkpoint=tmp_path, epochs=1)
    of_net, of_fit, says = OTHERS[other]
    net = _net(**of_net)
    before = _theta(net)
    with pytest.raises(InvalidValue, match=f"is of a training with {says}") as caught:
        _fit(net, checkpoint=tmp_path, resume=True, **of_fit)
    assert ";" not in str(caught.value)  # nothing else differs
    assert _theta(net) == before


def test_another_shape_and_number_of_examples(tmp_path: Path) -> None:
    _fit(_net(), checkpoint=tmp_path, epochs=1)
    with pytest.raises(InvalidValue, match="examples 23, not 22"):
        gb.fit(_net(), X[1:], Y[1:], batch_size=4, checkpoint=tmp_path, resume=True)
    with pytest.raises(InvalidValue, match=r"sizes \[3, 5, 2\], not \[3, 6, 2\]"):
        _fit(gb.Network([3, 6, 2], activation="tanh", dtype="float64"), checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"resume": True}, InvalidValue, "resume=True needs the folder of the checkpoints"),
        ({"resume": 1, "checkpoint": "x"}, InvalidType, "resume must be True or False"),
        ({"checkpoint": 3}, InvalidType, "path must be a string"),
        ({"checkpoint": "a\0b"}, InvalidValue, "character 0"),
        ({"retries": -1}, InvalidValue, "retries must be an integer of at least 0"),
        ({"retries": True}, InvalidType, "retries must be an integer"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    net = _net()
    before = _theta(net)
    with pytest.raises(error, match=says):
        _fit(net, **arguments)
    assert _theta(net) == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"every_epochs": 0}, InvalidValue),
        ({"every_epochs": 1.5}, InvalidType),
        ({"every_minutes": 0}, InvalidValue),
        ({"every_minutes": "1"}, InvalidType),
        ({"keep": 0}, InvalidValue),
    ],
)
def test_bad_numbers(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Checkpoint: {next(iter(arguments))} must be"):
        gb.Checkpoint("folder", **arguments)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OSError, match="taken"):
        _fit(_net(), checkpoint=tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


# -- broken files ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, bytes]:
    """Two checkpoints, after an epoch and within the next, and the parameters in the end."""
    folder = tmp_path_factory.mktemp("two")
    with at_step(STEPS + 2, signal.SIGINT), pytest.warns(InterruptWarning):
        _fit(_net(), optimizer="adam", checkpoint=folder, retries=1, sample_weight=WEIGHTS)
    net = _net()
    _fit(net, optimizer="adam", sample_weight=WEIGHTS)
    first, second = (folder / name for name in _files(folder))
    return first.read_bytes(), second.read_bytes(), _theta(net)


def _taken_up(folder: Path, first: bytes | None, second: bytes) -> bytes:
    """Put two checkpoints into a folder, go on from there, and return the parameters in the end."""
    folder.mkdir(exist_ok=True)
    for step, content in ((STEPS, first), (STEPS + 2, second)):
        if content is not None:
            (folder / f"step-{step:012d}.safetensors").write_bytes(content)
    net = _net(seed=9)
    checkpoint = gb.Checkpoint(folder, 10**6, keep=1)
    _fit(net, optimizer="adam", checkpoint=checkpoint, resume=True, retries=1, sample_weight=WEIGHTS)
    for path in folder.iterdir():
        path.unlink()
    return _theta(net)


def test_the_newest_is_taken_where_it_is_whole(two: tuple[bytes, bytes, bytes], tmp_path: Path) -> None:
    _, second, expected = two
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _taken_up(tmp_path, b"foreign", second) == expected


@pytest.mark.parametrize("stride", [23, pytest.param(1, marks=pytest.mark.slow)])
def test_truncated_at_any_length_it_is_refused(stride: int, two: tuple[bytes, bytes, bytes], tmp_path: Path) -> None:
    for length in range(0, len(two[1]), stride):
        with pytest.raises(CheckpointError, match=r"step-000000000008\.safetensors is not a checkpoint "):
            _taken_up(tmp_path, None, two[1][:length])


@pytest.mark.parametrize("length", [0, 7, 8, 500, -500, -8, -1])
def test_truncated_the_one_before_is_taken(length: int, two: tuple[bytes, bytes, bytes], tmp_path: Path) -> None:
    first, second, expected = two
    with pytest.warns(CheckpointWarning, match=r"step-000000000008\.safetensors is not a checkpoint .*instead"):
        assert _taken_up(tmp_path, first, second[:length]) == expected


def _changed(content: bytes, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> bytes:
    """Return a checkpoint whose JSON or arrays are changed in place."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"]["gpubackprop"])
    arrays = {name: x.copy() for name, x in safetensors.numpy.load(content).items()}
    change(about, arrays)
    return safetensors.numpy.save(arrays, {"gpubackprop": json.dumps(about)})


FAULTS: dict[str, tuple[Callable[[dict[str, Any], dict[str, Any]], Any], str]] = {
    "later format": (lambda about, arrays: about.update(format=2), "its format is 2"),
    "no format": (lambda about, arrays: about.pop("format"), "no entry 'format'"),
    "no training": (lambda about, arrays: about.pop("training"), "no entry 'training'"),
    "a list of training": (lambda about, arrays: about.update(training=[1]), "its training has"),
    "other steps": (lambda about, arrays: about.update(t=STEPS + 3), "9 steps are not 1 epochs of 6 and 2"),
    "negative steps": (lambda about, arrays: about.update(t=-1), "at least 0"),
    "steps as words": (lambda about, arrays: about.update(taken="two"), "taken must be an integer"),
    "more than an epoch": (lambda about, arrays: about.update(t=12, epochs=1, taken=6), "12 steps are not"),
    "more epochs": (lambda about, arrays: about.update(t=62, epochs=10), "learning_rate is|loss is|seconds is"),
    "no generator": (lambda about, arrays: about.update(generator=None), "state must be a dict"),
    "another generator": (lambda about, arrays: about["generator"].update(bit_generator="MT19937"), "PCG64"),
    "state out of bounds": (lambda about, arrays: about["generator"]["state"].update(inc=2**140), "OverflowError"),
    "half a key": (lambda about, arrays: about.update(dropout_key=[1]), "its key is"),
    "a key out of bounds": (lambda about, arrays: about.update(dropout_key=[1, 2**64]), "OverflowError"),
    "repeated nowhere": (lambda about, arrays: about.update(retried=[0]), "retried must be"),
    "a number of repetitions": (lambda about, arrays: about.update(retried=1), "TypeError"),
    "a reason that is none": (lambda about, arrays: about.update(stopped_because=3), "because of 3"),
    "parameters missing": (lambda about, arrays: arrays.pop("theta"), "tensors do not fit"),
    "an array more": (lambda about, arrays: arrays.update(more=numpy.zeros(3)), "tensors do not fit"),
    "parameters of another size": (lambda about, arrays: arrays.update(theta=arrays["theta"][:-1]), "theta is"),
    "parameters of another type": (
        lambda about, arrays: arrays.update(theta=arrays["theta"].astype("float32")),
        "theta is .* of F32",
    ),
    "NaN": (lambda about, arrays: arrays["theta"].__setitem__(2, numpy.nan), "theta holds NaN"),
    "infinity kept": (lambda about, arrays: arrays["kept"].__setitem__(2, numpy.inf), "kept holds NaN"),
    "an example twice": (lambda about, arrays: arrays["order"].__setitem__(0, arrays["order"][1]), "its order is not"),
    "an example too many": (lambda about, arrays: arrays["order"].__setitem__(0, 2**40), "its order is not"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_not_as_it_has_to_be(fault: str, two: tuple[bytes, bytes, bytes], tmp_path: Path) -> None:
    first, second, expected = two
    change, says = FAULTS[fault]
    broken = _changed(second, change)
    with pytest.warns(CheckpointWarning, match=says):
        assert _taken_up(tmp_path, first, broken) == expected
    with pytest.raises(CheckpointError, match=says):
        _taken_up(tmp_path, None, broken)


@POSIX
@pytest.mark.parametrize("newest", ["folder", "link to nothing", "link to a folder", "pipe"])
def test_the_one_before_is_taken_if_the_newest_is_no_file(
    newest: str, two: tuple[bytes, bytes, bytes], tmp_path: Path
) -> None:
    """It stays where it is: a folder may hold anything."""
    path = tmp_path / f"step-{STEPS + 2:012d}.safetensors"
    (tmp_path / f"step-{STEPS:012d}.safetensors").write_bytes(two[0])
    {
        "folder": path.mkdir,
        "link to nothing": lambda: path.symlink_to(tmp_path / "nothing"),
        "link to a folder": lambda: path.symlink_to(tmp_path),
        "pipe": lambda: os.mkfifo(path),
    }[newest]()
    net, checkpoint = _net(seed=9), gb.Checkpoint(tmp_path, keep=1)
    with pytest.warns(
        CheckpointWarning, match=r"step-000000000008\.safetensors .*; step-000000000006.* is taken instead"
    ):
        _fit(net, optimizer="adam", checkpoint=checkpoint, resume=True, retries=1, sample_weight=WEIGHTS)
    assert _theta(net) == two[2]
    folders = [path.name] if "folder" in newest else []
    assert _files(tmp_path) == [*folders, f"step-{EPOCHS * STEPS:012d}.safetensors"]


def test_no_checkpoint_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "step-000000000001.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"step-000000000001.safetensors cannot be read \(.*Is a directory"):
        _fit(_net(), checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"step", b"\x80\x04N.", b"\xff" * 64, b"{}" * 100], ids=repr)
def test_foreign_files(content: bytes, two: tuple[bytes, bytes, bytes], tmp_path: Path) -> None:
    with pytest.warns(CheckpointWarning, match="is not a checkpoint that this version of gpubackprop reads"):
        assert _taken_up(tmp_path, two[0], content) == two[2]


def test_a_model_is_no_checkpoint_and_a_checkpoint_no_model(two: tuple[bytes, bytes, bytes], tmp_path: Path) -> None:
    _net().save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="no entry 'training'"):
        _taken_up(tmp_path / "folder", None, (tmp_path / "model").read_bytes())
    (tmp_path / "model").write_bytes(two[0])
    with pytest.raises(gb.errors.ModelFileError):
        gb.load(tmp_path / "model")


def test_a_network_is_as_it_was_where_no_checkpoint_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "step-000000000001.safetensors").write_bytes(b"foreign")
    net = _net()
    before = _theta(net)
    with pytest.raises(CheckpointError):
        _fit(net, checkpoint=tmp_path, resume=True)
    assert _theta(net) == before
    assert _files(tmp_path) == ["step-000000000001.safetensors"]
