"""Bad days: a disk that is full, training that diverges, processes that are told to end or killed."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy
import processes
import pytest
from stops import at_step

import gpubackprop as gb
from gpubackprop import container
from gpubackprop.errors import CheckpointWarning, DivergenceWarning, InterruptWarning, Terminated
from gpubackprop.optimizers import SGD, Adagrad, Adam
from gpubackprop.run import Run

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")
PACKAGE = Path(gb.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGE), "OPENBLAS_NUM_THREADS": "1"}
RNG = numpy.random.default_rng(12)
X, Y = RNG.normal(size=(23, 3)), RNG.uniform(0.1, 0.9, (23, 2))
STEPS = 6  # of an epoch: 23 examples, 4 at a time


def _net(**arguments: Any) -> gb.Network:
    return gb.Network([3, 5, 2], **{"activation": "tanh", "backend": "numpy", "dtype": "float64", **arguments})


def _fit(net: gb.Network, **arguments: Any) -> gb.History:
    return gb.fit(net, X, Y, **{"epochs": 3, "batch_size": 4, "tol": None, **arguments})


def _theta(net: gb.Network) -> bytes:
    return net.backend.to_numpy(net.theta).tobytes()


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _after(*epochs: int) -> list[str]:
    return [f"step-{epoch * STEPS:012d}.safetensors" for epoch in epochs]


# -- a full disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fsync", "replace", "open", "unlink"])
def test_a_write_that_fails_costs_a_warning_and_no_more(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second and third epoch there is no room; after the fourth there is again."""
    whole, net = _net(), _net()
    expected = _fit(whole, optimizer="adam", epochs=4)
    owner: Any = os if name in ("fsync", "open") else Path
    real, full = getattr(owner, name), False

    def fail(*arguments: Any, **named: Any) -> Any:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **named)

    def fills(net: gb.Network, history: gb.History) -> None:
        nonlocal full
        full = len(history.loss) in (2, 3)

    monkeypatch.setattr(owner, name, fail)
    with pytest.warns(CheckpointWarning, match="No space left on device") as caught:
        history = _fit(net, optimizer="adam", epochs=4, checkpoint=gb.Checkpoint(tmp_path, keep=1), callbacks=[fills])
    what = "checkpoints before step {} are left in" if name == "unlink" else "no checkpoint of step {} in"
    assert [str(w.message).partition(f" {tmp_path} ")[0] for w in caught] == [what.format(step) for step in (12, 18)]
    assert (_theta(net), history.loss) == (_theta(whole), expected.loss)
    assert _files(tmp_path) == _after(4)


@pytest.mark.parametrize("name", ["fsync", "write"])
def test_the_old_checkpoint_is_whole_where_the_disk_stays_full(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, net = _net(), _net()
    _fit(whole)
    _fit(_net(), epochs=1, checkpoint=tmp_path)
    with monkeypatch.context() as patch, pytest.warns(CheckpointWarning, match="no checkpoint of step 1[28]"):
        if name == "write":
            patch.setattr("gpubackprop.container.replacing", _no_room)
        else:
            patch.setattr(os, "fsync", _no_room)
        _fit(_net(), checkpoint=tmp_path, resume=True)
    assert _files(tmp_path) == _after(1)
    _fit(net, checkpoint=tmp_path, resume=True)
    assert _theta(net) == _theta(whole)


def test_told_to_end_where_no_checkpoint_could_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpubackprop.container.replacing", _no_room)
    with at_step(4, signal.SIGTERM), pytest.warns(CheckpointWarning), pytest.raises(Terminated) as caught:
        _fit(_net(), checkpoint=tmp_path)
    assert str(caught.value) == "terminated in epoch 1; no checkpoint could be written"


def _no_room(*arguments: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


GROWS_BEYOND_THE_LIMIT = """
import resource, signal, sys, warnings
import numpy
import gpubackprop as gb
warnings.simplefilter("always")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
X = numpy.random.default_rng(0).normal(size=(64, 30))
net = gb.Network([30, 100, 2], backend="numpy")
def limits(net, history):
    if len(history.loss) == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    if len(history.loss) == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
gb.fit(net, X, X[:, :2], epochs=4, tol=None, checkpoint=gb.Checkpoint(sys.argv[1], keep=9), callbacks=[limits])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets RLIMIT_FSIZE")
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The system's own refusal in the middle of a write, after epochs 2 and 3 of 4: 4 KiB of more than 12."""
    program = [sys.executable, "-c", GROWS_BEYOND_THE_LIMIT, str(tmp_path)]
    done = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stderr.count("CheckpointWarning: no checkpoint of step") == 2
    assert done.stderr.count("File too large") == 2
    assert _files(tmp_path) == ["step-000000000001.safetensors", "step-000000000004.safetensors"]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a tmpfs; the same with a planted ENOSPC and with a limit is tested above")
    try:

        def fills(net: gb.Network, history: gb.History) -> None:
            if len(history.loss) == 2:
                with pytest.raises(OSError, match="No space left"), (disk / "other").open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))

        with pytest.warns(CheckpointWarning, match=r"no checkpoint of step 1[28] .*No space left"):
            _fit(_net(), checkpoint=disk / "folder", callbacks=[fills])
        assert _files(disk / "folder") == _after(1)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_checkpoint_that_somebody_deletes_is_missed_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as it is written: the folder was emptied, or another training has it."""
    real = container.write

    def write(place: Path, *rest: Any) -> None:
        real(place, *rest)
        if place.name == _after(2)[0]:
            place.unlink()

    monkeypatch.setattr(container, "write", write)
    assert len(_fit(_net(), checkpoint=tmp_path).loss) == 3
    assert _files(tmp_path) == _after(1, 3)


# -- divergence --------------------------------------------------------------------------------------------------------


def _too_long(t: int) -> float:
    """A rate of 1e200 in the second epoch, of which two are more than any parameter bears, else 0.1."""
    return 1e200 if STEPS <= t < 2 * STEPS else 0.1


@pytest.mark.parametrize("rule", [SGD, lambda rate: SGD(rate, momentum=0.9), Adam, Adagrad])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_that_diverged_is_repeated_at_half_the_rate(rule: Any, shuffle: bool) -> None:
    """A rate far too high, once, in epoch 2: parameters, optimizer, order and masks are again those of its start."""
    once, net, expected = [1e300], _net(dropout=0.3), _net(dropout=0.3)

    def rate(t: int) -> float:
        return once.pop() if t == STEPS + 2 and once else 0.1 if t < STEPS else 0.2

    history = _fit(net, optimizer=rule(rate), retries=1, shuffle=shuffle)
    assert history.retried == [2]
    assert history.learning_rate == [0.1, 0.1, 0.1]
    as_if = _fit(expected, optimizer=rule(0.1), shuffle=shuffle)
    assert (_theta(net), history.loss) == (_theta(expected), as_if.loss)


def test_after_so_many_retries_it_is_divergence_as_ever() -> None:
    net, kept = _net(), _net()
    with pytest.warns(DivergenceWarning, match=r"diverged: epoch 2, at the learning rate 2.5e\+199, is not finite"):
        history = _fit(net, optimizer=SGD(_too_long), retries=2)
    assert (history.retried, len(history.loss)) == ([2, 2], 1)
    _fit(kept, optimizer=SGD(0.1), epochs=1)
    assert _theta(net) == _theta(kept)


def test_on_cuda(device: str) -> None:
    net, kept = _net(backend=device), _net(backend=device)
    with pytest.warns(DivergenceWarning):
        history = _fit(net, optimizer=Adam(_too_long), retries=2)
    assert (history.retried, len(history.loss)) == ([2, 2], 1)
    _fit(kept, optimizer=Adam(0.1), epochs=1)
    assert _theta(net) == _theta(kept)


@pytest.mark.parametrize("last", [STEPS - 1, 2 * STEPS + 1, 2 * STEPS + 3])
def test_a_run_killed_before_or_after_its_retries_goes_on(last: int, tmp_path: Path) -> None:
    """A rate of 1e300 in the first two tries of epoch 2: stopped before or after them, training ends the same."""
    spared = [1e300, 1e300]

    def rate(t: int) -> float:
        return spared.pop() if t == STEPS + 1 and spared else 0.1

    whole, net = _net(), _net()
    expected = _fit(whole, optimizer=SGD(rate, momentum=0.9), retries=2)
    assert expected.retried == [2, 2]
    spared = [1e300, 1e300]

    arguments: dict[str, Any] = {"optimizer": SGD(rate, momentum=0.9), "retries": 2, "checkpoint": tmp_path}
    with at_step(last, signal.SIGINT), pytest.warns(InterruptWarning):
        _fit(net, **arguments)
    history = _fit(net, resume=True, **arguments)
    assert (history.retried, history.learning_rate) == ([2, 2], expected.learning_rate)
    assert (history.loss, _theta(net)) == (expected.loss, _theta(whole))


@pytest.mark.parametrize("retries", [0, 1])
def test_within_the_epoch_that_diverges_what_its_start_was_is_known(retries: int, tmp_path: Path) -> None:
    """Stopped in step 2 of epoch 2, in whose step 5 a rate is far too high; with a retry that is so once more."""
    rule = SGD(lambda t: 1e300 if t == STEPS + 4 else 0.1, momentum=0.9)
    net, begun, kept = _net(), _net(), _net()
    arguments: dict[str, Any] = {"optimizer": rule, "retries": retries, "checkpoint": gb.Checkpoint(tmp_path, 100)}
    with at_step(STEPS + 2, signal.SIGINT), pytest.warns(InterruptWarning):
        _fit(begun, **arguments)
    with pytest.warns(DivergenceWarning, match="epoch 2"):
        assert _fit(net, resume=True, **arguments).retried == [2] * retries
    _fit(kept, optimizer=rule, epochs=1)
    assert _theta(net) == _theta(kept)


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("last", [3 * STEPS, 3 * STEPS + 2])
def test_the_best_epoch_is_known_after_a_resumption(last: int, retries: int, tmp_path: Path) -> None:
    """Epoch 3 is worse than 2, and 4 is not finite: stopped before or within it, training ends with epoch 2."""
    rule = SGD(lambda t: 0.1 if t < 2 * STEPS else 15.0 if t < 3 * STEPS else 1e300 if t > last else 1e-9)
    net, best = _net(), _net()
    arguments: dict[str, Any] = {"optimizer": rule, "epochs": 6, "retries": retries, "checkpoint": tmp_path}
    with at_step(last, signal.SIGINT), pytest.warns(InterruptWarning):
        begun = _fit(_net(), **arguments)
    assert begun.loss[2] > begun.loss[1] < begun.loss[0]
    with pytest.warns(DivergenceWarning, match="has the parameters of epoch 2, the best one"):
        _fit(net, resume=True, **arguments)
    _fit(best, optimizer=rule, epochs=2)
    assert _theta(net) == _theta(best)


def test_parameters_that_are_not_finite_are_in_no_checkpoint(tmp_path: Path) -> None:
    """They are so after step 3 of epoch 2: the newest is that of step 2, and whoever resumes it meets the same end."""
    rule, every_step = SGD(lambda t: 1e300 if t >= STEPS + 1 else 0.1), gb.Checkpoint(tmp_path, every_minutes=1e-12)
    for resume in (False, True):
        with pytest.warns(DivergenceWarning) as caught:
            _fit(_net(), optimizer=rule, checkpoint=every_step, resume=resume)
        assert len(caught) == 1
        assert _files(tmp_path) == [f"step-{STEPS + step:012d}.safetensors" for step in (1, 2)]


def test_checkpoints_of_what_was_repeated_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of steps 4 and 5 of epoch 2, when that of step 1 of its repetition is written."""
    rule = SGD(lambda t: 1e300 if t == STEPS + 4 else 0.1)
    repeat_epoch, left = Run.repeat_epoch, []

    def interrupted(self: Run) -> None:
        left.extend(_files(tmp_path))
        repeat_epoch(self)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "repeat_epoch", interrupted)
    with pytest.warns(InterruptWarning):
        _fit(_net(), optimizer=rule, checkpoint=gb.Checkpoint(tmp_path, every_minutes=1e-12), retries=1)
    assert left == [".lock", *(f"step-{STEPS + step:012d}.safetensors" for step in (4, 5))]
    assert _files(tmp_path) == [f"step-{STEPS + 1:012d}.safetensors"]


# -- killed processes --------------------------------------------------------------------------------------------------

TRAINS = """
import sys
import numpy
import gpubackprop as gb
folder, epochs, kept = sys.argv[1], int(sys.argv[2]), len(sys.argv) == 4
X = numpy.random.default_rng(0).normal(size=(200, 8))
net = gb.Network([8, 16, 4], activation="tanh", dropout=0.2, backend="numpy")
print("ready", flush=True)
history = gb.fit(
    net, X, X[:, :4], optimizer=gb.optimizers.Adam(1e-3), epochs=epochs, batch_size=16, tol=None,
    validation_data=(X[:50], X[:50, :4]), sample_weight=numpy.arange(1.0, 201.0),
    checkpoint=gb.Checkpoint(folder, 1, 1e-5) if kept else None, resume=kept,
)
print(history.loss[-1].hex(), history.validation_loss[-1].hex(), net.theta.tobytes().hex())
"""


def _training(folder: Path, epochs: int, *kept: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Start a process that trains; "kept": with a checkpoint every 0.6 ms and after every epoch, from the newest on."""
    program = [sys.executable, "-W", "error", "-c", TRAINS, str(folder), str(epochs), *kept]
    return processes.started(program, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def _end_of_training(folder: Path, epochs: int, *kept: str, kill: random.Random | None = None) -> str | None:
    """Return what a training ends with, None if it was killed before: most often soon after it went on."""
    with _training(folder, epochs, *kept) as process:
        assert process.stdout is not None
        before = _files(folder)
        assert process.stdout.readline() == "ready\n"
        if kill:
            while kill.random() < 0.999 and process.poll() is None and _files(folder) == before:
                time.sleep(0.001)
            time.sleep(kill.uniform(0.0, 0.05))
            process.kill()
        end = process.stdout.read()
        assert process.wait() in ({0, -signal.SIGKILL} if kill else {0})
    return end if process.returncode == 0 else None


def _same_after_kills(folder: Path, kills: int, epochs: int) -> int:
    """Kill training so many times, compare its ends to the last bit; return how many kills met a write."""
    rng, met, killed, expected = random.Random(kills), 0, 0, _end_of_training(folder, epochs)
    assert expected and len(expected) > 100
    while killed < kills:
        end = _end_of_training(folder, epochs, "kept", kill=rng)
        if end is None:
            killed += 1
            met += any(name.endswith(".tmp") for name in _files(folder))
        else:  # it was quicker: once more from the start
            assert end == expected
            for path in folder.iterdir():
                path.unlink()
    assert _end_of_training(folder, epochs, "kept") == expected
    assert all(name.endswith(".safetensors") for name in _files(folder))
    return met


@POSIX
def test_killed_a_few_times_it_ends_in_the_same_bits(tmp_path: Path) -> None:
    _same_after_kills(tmp_path, 6, epochs=30)


@POSIX
@pytest.mark.slow
def test_killed_a_hundred_times_it_ends_in_the_same_bits(tmp_path: Path) -> None:
    met = _same_after_kills(tmp_path, 100, epochs=150)
    assert met > 5, "the kills hardly ever met a write: they show little"
