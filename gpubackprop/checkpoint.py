"""Checkpoints: all that a training run is, in files from which it goes on to the same bits after it was killed."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from . import container
from .checks import Checked, bounded, counted, integer
from .encoding import plain
from .errors import CheckpointError, CheckpointWarning, InvalidValue
from .files import path_of, remove_temporaries
from .folderlock import lock
from .history import History
from .run import Run
from .streaming import Windows
from .streams import warn

if TYPE_CHECKING:
    from .parallel import Alone

_NAME = re.compile(r"step-(\d{12,})\.safetensors")
_FIGURES = ("loss", "validation_loss", "learning_rate", "seconds")  # of the history, one for each epoch

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of a file system

Shapes = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Checkpoint(Checked):
    """Where and how often `fit` writes all that it needs to go on after the process was killed.

    Files are ``step-000000000042.safetensors`` for what was after 42 steps. With neither number of epochs nor of
    minutes one is written after every epoch. A last one is written when training ends, by itself or by SIGTERM or
    Ctrl-C. A file takes as many bytes as the parameters, those of the best epoch, the optimizer's state, and 8 for each
    example if they are shuffled. With ``retries``, within an epoch, it also has the parameters and state of its start.

    Attributes:
        folder: of the files, for one training at a time; it is made.
        every_epochs: epochs, at least 1, from one checkpoint to the next.
        every_minutes: minutes, above 0, after which the next one is written, within an epoch too.
        keep: how many files, at least 1, are left when a new one is written.

    Raises:
        InvalidValue: a number outside its range, or a folder that is no path.
        InvalidType: something other than a number, or a folder that is no path.
    """

    folder: str | os.PathLike[str]
    every_epochs: int | None = counted(None, least=1)
    every_minutes: float | None = bounded(None, low=0, open_low=True)
    keep: int = counted(2, least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "folder", path_of(self.folder))


class Keeper:
    """Writes the checkpoints of a run, where any are asked for, and takes the run up from one.

    Args:
        checkpoint: where and how often, or None for never.
        run: the run; it and its history are what is written and taken up.
        history: its record so far.
        seed: of the order and of dropout, as the user gave it.
        validation: examples of the validation data, or None.
        group: of the processes that train together: rank 0 writes, and all read what it chose.

    Attributes:
        newest: the last file that was written or taken up, or None.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        run: Run,
        history: History,
        seed: int | None,
        validation: int | None,
        group: Alone,
    ) -> None:
        self.checkpoint, self.run, self.history, self._group = checkpoint, run, history, group
        self.newest: Path | None = None
        self._unlock: Callable[[], None] = lambda: None
        self._tried: tuple[int, str | None] | None = None
        self._writes, self._epochs, self._pause = checkpoint is not None and group.rank == 0, 0, math.inf
        if checkpoint is not None:
            self._folder = Path(checkpoint.folder)
            self._agreed = json.loads(json.dumps(_agreed(run, seed, validation), default=plain))
            if self._writes:
                self._epochs = checkpoint.every_epochs or (0 if checkpoint.every_minutes else 1)
                self._pause = 60.0 * checkpoint.every_minutes if checkpoint.every_minutes else math.inf
        self._wait()

    def start(self, resume: bool) -> None:
        """Make the folder ready, and take the run up from its newest checkpoint that can be read, if there is any.

        Raises:
            InvalidValue: the folder has checkpoints of another training, or has any if none is to be taken up, or
                another training writes to it.
            CheckpointError: the folder has checkpoints, and none of them can be read.
            OSError: the folder or its files cannot be read or written.
        """
        if self.checkpoint is None:
            return
        if self._writes:
            self._make_ready(resume)
        chosen = self._group.first(self.newest)
        if chosen and not self._writes:
            self._take_up(chosen)

    def _make_ready(self, resume: bool) -> None:
        """Make the folder ready, and take the run up, as the one process that trains or the first of several."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        remove_temporaries(self._folder)
        places = self._places()
        if places and not resume:
            raise InvalidValue(
                f"{self._folder} has checkpoints of a training already: go on with it (resume=True, --resume), or "
                "name another folder"
            )
        refused: list[CheckpointError] = []
        for place in reversed(places):
            try:
                self._take_up(place)
            except CheckpointError as error:
                refused.append(error)
            except OSError as error:  # a folder of that name, a link to nothing
                refused.append(CheckpointError(f"{place} cannot be read ({error})"))
            else:
                for each in refused:
                    _warn(f"{each}; {place.name} is taken instead")
                return
        if refused:
            raise refused[0]

    def _lock(self) -> None:
        """Refuse a folder to which another training writes: each would delete the files of the other."""
        try:
            self._unlock = lock(self._folder)
        except BlockingIOError as error:
            raise InvalidValue(
                f"another training ({error.filename}) writes its checkpoints to {self._folder}: name another folder, "
                "or wait until it ends"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _warn(f"{self._folder} is on a file system without locks ({error}): start no other training there")

    def close(self) -> None:
        """Leave the folder to other trainings."""
        self._unlock()

    def due(self) -> bool:
        """Return whether it is time for a checkpoint, within an epoch."""
        return time.monotonic() >= self._next

    def after_epoch(self) -> None:
        """Write a checkpoint where one is due after an epoch."""
        if self.due() or (self._epochs and len(self.history.loss) % self._epochs == 0):
            self.write()

    def write(self) -> None:
        """Write a checkpoint, unless it was tried already; warn where that fails, and leave the others.

        Parameters that are not finite are not written: the epoch is taken again, and ends in the same divergence.
        """
        self._wait()
        run, now = self.run, (self.run.t, self.history.stopped_because)
        if not self._writes or now == self._tried or not run.net.backend.is_finite(run.net.theta):
            return
        self._tried, place = now, self._folder / f"step-{run.t:012d}.safetensors"
        try:
            container.write(place, self._about(), _arrays(run, self.history), "what a checkpoint says")
        except OSError as error:
            _warn(f"no checkpoint of step {run.t} in {self._folder} ({error}); those before are as they were")
            return
        self.newest = place
        try:
            self._prune(run.t)
        except OSError as error:
            _warn(f"checkpoints before step {run.t} are left in {self._folder} ({error})")

    # -- inside ------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        self._next = time.monotonic() + self._pause

    def _places(self) -> list[Path]:
        """Return the files of checkpoints by their steps."""
        found = {path: _NAME.fullmatch(path.name) for path in self._folder.iterdir()}
        return sorted((path for path, name in found.items() if name), key=_step)

    def _prune(self, t: int) -> None:
        """Delete all but that of step t and those right before it; later ones are of what was given up since."""
        assert self.checkpoint is not None
        places = [path for path in self._places() if not path.is_dir()]
        before = [path for path in places if _step(path) < t]
        later = [path for path in places if _step(path) > t]
        for path in (*before[: max(len(before) + 1 - self.checkpoint.keep, 0)], *later):
            path.unlink()

    def _about(self) -> dict[str, Any]:
        """Return what a checkpoint says besides its arrays."""
        run, history = self.run, self.history
        return {
            "training": self._agreed,
            "t": run.t,
            "epochs": len(history.loss),
            "taken": run.taken,
            "retried": history.retried,
            "stopped_because": history.stopped_because,
            "generator": run.generator,
            "dropout_key": [int(k) for k in run.dropout_key],
        }

    def _take_up(self, place: Path) -> None:
        """Read a checkpoint, and if all of it is as it has to be, set the run and its history to it."""
        run, history = self.run, self.history
        with container.reading(place, "fit", "checkpoint", CheckpointError) as file, file.refusing():
            about = file.content
            unlike = _differences(about["training"], self._agreed)
            if not unlike:
                epochs, taken = integer("epochs", about["epochs"], 0), integer("taken", about["taken"], 0)
                key, retried, stopped = _checked(about, run, epochs, taken)
                validated = epochs if self._agreed["validation_examples"] else 0
                file.check(_shapes(run, taken, epochs, validated))
                arrays = file.tensors()
                _check_arrays(arrays)
                run.rng.bit_generator.state = about["generator"]  # the last thing that may be refused
        if unlike:
            raise InvalidValue(
                f"{place} is of a training with {'; '.join(unlike)}: give what that was begun with, or another folder"
            )
        run.t, run.taken, run.begun, run.dropout_key = about["t"], taken, taken > 0, key
        run.factor = 0.5 ** len(retried)
        _put(run, arrays)
        history.retried, history.stopped_because = retried, stopped
        for name in _FIGURES:
            setattr(history, name, arrays[name].tolist())
        self.newest, self._tried = place, (run.t, stopped)


def _warn(text: str) -> None:
    warn(text, CheckpointWarning, stacklevel=6)


def _step(place: Path) -> int:
    return int(place.name.removeprefix("step-").removesuffix(".safetensors"))


def _agreed(run: Run, seed: int | None, validation: int | None) -> dict[str, Any]:
    """Return by name what has to be the same in a training that goes on."""
    architecture, order = run.net.architecture, "over all examples (stream=False)"
    if run.shuffle and isinstance(run.windows, Windows):
        order = f"within windows of {run.windows.capacity} examples (stream=True)"
    return {field.name: getattr(architecture, field.name) for field in dataclasses.fields(architecture)} | {
        "optimizer": run.optimizer,
        "batch_size": run.batch_size,
        "shuffle": run.shuffle,
        "seed": seed,
        "examples": run.windows.rows,
        "order": order,
        "sample_weight": run.data[2] is not None,
        "validation_examples": validation,
        "retries": run.start is not None,
    }


def _differences(theirs: dict[str, Any], ours: dict[str, Any], inside: str = "") -> list[str]:
    """Say in what a training differs from the one that is to go on."""
    if not inside and set(theirs) != set(ours):
        raise ValueError(f"its training has {sorted(theirs)}")
    found = []
    for name, own in ours.items():
        if isinstance(own, dict) and isinstance(theirs[name], dict) and set(own) == set(theirs[name]):
            found += _differences(theirs[name], own, f"{inside}{name} ")
        elif theirs[name] != own:
            found.append(f"{inside}{name} {theirs[name]!r}, not {own!r}")
    return found


def _checked(about: dict[str, Any], run: Run, epochs: int, taken: int) -> tuple[Any, list[int], str | None]:
    """Return key, repeated epochs and the reason of the end of a checkpoint whose numbers go together."""
    steps = len(run.losses)
    if taken >= steps or integer("t", about["t"], 0) != epochs * steps + taken:
        raise ValueError(f"{about['t']!r} steps are not {epochs} epochs of {steps} and {taken}")
    key = numpy.array([integer("dropout_key", k, 0) for k in about["dropout_key"]], numpy.uint64)
    retried = [integer("retried", epoch, 1) for epoch in about["retried"]]
    stopped = about["stopped_because"]
    if key.shape != run.dropout_key.shape or not (stopped is None or isinstance(stopped, str)):
        raise ValueError(f"its key is {key.shape}, and it stopped because of {stopped!r}")
    return key, retried, stopped


def _arrays(run: Run, history: History) -> dict[str, numpy.ndarray]:
    """Return what a checkpoint holds in arrays, by name."""
    host = run.net.backend.to_numpy
    arrays = {"theta": run.net.theta, "slots": run.slots, "kept": run.kept}
    if run.taken:
        arrays["losses"] = run.losses[: run.taken]
        if run.data[2] is not None:
            arrays["totals"] = run.totals[: run.taken]
        if run.start is not None:
            arrays["start"], arrays["start_slots"] = run.start
    figures = {name: numpy.array(getattr(history, name), "float64") for name in _FIGURES}
    order = {"order": run.order} if run.shuffle and len(run.order) else {}
    return {name: host(x) for name, x in arrays.items()} | order | figures


def _shapes(run: Run, taken: int, epochs: int, validated: int) -> Shapes:
    """Return shapes and types of the arrays of a checkpoint: after so many epochs, and steps of the next."""
    dtype, P = run.net.dtype, run.net.layout.size
    shapes: Shapes = {"theta": ((P,), dtype), "slots": (run.slots.shape, dtype), "kept": ((P,), dtype)}
    if taken:
        shapes["losses"] = ((taken,), dtype)
        if run.data[2] is not None:
            shapes["totals"] = ((taken,), dtype)
        if run.start is not None:
            shapes |= {"start": ((P,), dtype), "start_slots": (run.slots.shape, dtype)}
    if run.shuffle and len(run.order):
        shapes["order"] = ((len(run.order),), "int64")
    shapes |= dict.fromkeys(_FIGURES, ((epochs,), "float64"))
    return shapes | {"validation_loss": ((validated,), "float64")}


def _check_arrays(arrays: dict[str, numpy.ndarray]) -> None:
    """Refuse parameters and figures that are not finite, and an order that is none."""
    for name in ("theta", "kept", "start", *_FIGURES):
        if not numpy.isfinite(arrays.get(name, 0.0)).all():
            raise ValueError(f"{name} holds NaN or infinity")
    order = arrays.get("order", numpy.arange(0))
    if not numpy.array_equal(numpy.sort(order), numpy.arange(len(order))):
        raise ValueError("its order is not one of the examples")


def _put(run: Run, arrays: dict[str, numpy.ndarray]) -> None:
    """Set the arrays of a run; an epoch that is not under way starts from what the run has."""
    backend, dtype = run.net.backend, run.net.dtype
    given = {name: backend.asarray(arrays[name], dtype) for name in arrays if name not in ("order", *_FIGURES)}
    run.net.theta[...], run.slots[...] = given["theta"], given["slots"]
    run.kept[...] = given["kept"]
    if run.start is not None:
        start = given.get("start", given["theta"]), given.get("start_slots", given["slots"])
        run.start[0][...], run.start[1][...] = start
    if run.taken:
        run.losses[: run.taken] = given["losses"]
        if "totals" in given:
            run.totals[: run.taken] = given["totals"]
    if "order" in arrays:
        run.order[...] = arrays["order"]
