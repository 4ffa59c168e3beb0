"""What `gpubackprop train` does."""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from .. import backends, parallel
from ..checkpoint import Checkpoint
from ..errors import DivergenceWarning, InterruptWarning, InvalidValue, MissingDependency
from ..files import replacing
from ..history import History, finite
from ..intake import IN_MEMORY
from ..network import Network
from ..streams import is_terminal
from ..training import fit
from .about import to_metadata
from .columns import Asked
from .contention import one_thread_if_several_wait
from .datasets import Dataset, to_train_on
from .defaults import ACTIVATION, batch_size_for, dropout_for, epochs_for, l2_for, optimizer_for, patience_for
from .figures import figures_of, shown
from .folders import writable
from .lines import is_told, say, tell, tell_last, told
from .ondisk import Features
from .scaling import Scale, fold
from .tables import shortened

FILES = MODEL, HISTORY, CURVES, PICTURE = "model.safetensors", "history.json", "loss.png", "reconstruction.png"

INTERRUPTED = 130  # exit status: 128 and the number of SIGINT


def train(arguments: argparse.Namespace) -> int:
    """Train a network on data, test it on rows held out, and write it with its history and its curves.

    Args:
        arguments: as the command line gives them.

    Returns:
        The exit status: 0, 1 if training diverged, 130 if it was interrupted.

    Raises:
        InvalidValue: an argument or the data is not accepted.
        Terminated: SIGTERM ended a training with checkpoints.
    """
    group = parallel.launched()  # first of all: an error of one rank then ends the others
    _check_checkpoint(arguments)
    with contextlib.redirect_stdout(None) if group.rank else contextlib.nullcontext():
        backend = backends.resolve(arguments.backend)
        say("backend", backend.description)
        with one_thread_if_several_wait() if backend.name == "numpy" and group.size == 1 else contextlib.nullcontext():
            return _train(arguments, group)


def _train(arguments: argparse.Namespace, group: parallel.Alone) -> int:
    """Train as one rank of a group. Only rank 0 tests, reports and writes."""
    asked = Asked(arguments.target, arguments.drop, arguments.columns)
    data = to_train_on(arguments.data, asked, arguments.task, arguments.stream)
    rows, held_out = data.split(arguments.seed)
    say("data", _about(data, len(rows), len(held_out)))
    for note in data.notes:
        say("", note)
    _say_what_is_untested(data, held_out)
    features = _scale(data, rows)
    targets = None if data.classes else Scale.standard(_as_columns(data.y[rows]), data.named_target)
    wide = features.needs_float64 or (targets is not None and targets.needs_float64)
    net = _network(arguments, data, len(rows), wide)
    if arguments.checkpoint:
        writable(arguments.checkpoint, [], "--checkpoint")
    folder = writable(arguments.out or f"{Path(data.name).stem}-model", FILES)
    say("network", _described(net))
    y = data.y if targets is None else targets.apply(_as_columns(data.y), net.dtype)
    history, status = _fit(net, *_training(data, rows, features, y, net.dtype), arguments, distributed=group.size > 1)
    if group.rank:
        return int(group.first(None))
    fold(net, features, targets)
    on_disk = isinstance(data.X, Features)
    figures = figures_of(data, data.y[held_out], net.predict(data.X.part(held_out) if on_disk else data.X[held_out]))
    _report(history, figures, len(held_out))
    _write_files(folder, net, history, figures, data)
    sys.stdout.flush()  # who ends first with another status than 0 ends the others
    return int(group.first(status))


def _check_checkpoint(arguments: argparse.Namespace) -> None:
    for flag, given in (("--resume", arguments.resume), ("--checkpoint-every", arguments.checkpoint_every)):
        if given and not arguments.checkpoint:
            raise InvalidValue(f"{flag} is about the folder that --checkpoint names: name it")


def _scale(data: Dataset, rows: numpy.ndarray) -> Scale:
    """Return the scale that some rows are trained on."""
    if isinstance(data.X, Features):
        return data.X.scale(rows, data.one_unit, data.named)
    return Scale.one_unit(data.X[rows]) if data.one_unit else Scale.standard(data.X[rows], data.named)


def _training(
    data: Dataset, rows: numpy.ndarray, features: Scale, y: numpy.ndarray, dtype: str
) -> tuple[Any, numpy.ndarray | None]:
    """Return what `fit` is given as X and y: some rows, on their scale, with their part of all targets."""
    if isinstance(data.X, Features):
        return data.X.part(rows, features, y), None
    return features.apply(data.X[rows], dtype), y[rows]


def _as_columns(y: numpy.ndarray) -> numpy.ndarray:
    return y.reshape(len(y), -1)


def _about(data: Dataset, train: int, held_out: int) -> str:
    kind = f"{data.outputs} classes" if data.classes else f"regression to {data.outputs} value(s), standardised"
    columns = f"{data.X.shape[1]} columns {'scaled alike' if data.one_unit else 'standardised'}"
    return f"{data.name}: {len(data.X):,} rows, {columns}, {kind}; {train:,} rows to train on, {held_out:,} held out"


def _say_what_is_untested(data: Dataset, held_out: numpy.ndarray) -> None:
    """Name the classes with so few rows that all of them are trained on."""
    tested = set(data.y[held_out].tolist()) if data.classes else set()
    never = [name for k, name in enumerate(data.classes or []) if k not in tested]
    if never:
        say("", f"trained on but never tested, for want of rows: {shortened(never)}")


def _network(arguments: argparse.Namespace, data: Dataset, rows: int, wide: bool) -> Network:
    """Return the network to train; what `predict` has to know of the data is in its metadata."""
    net = Network(
        [data.X.shape[1], *arguments.hidden, data.outputs],
        activation=ACTIVATION,
        output_activation="softmax" if data.classes else "identity",
        loss="cross_entropy" if data.classes else "mse",
        dropout=dropout_for(data, min(arguments.hidden)) if arguments.dropout is None else arguments.dropout,
        l2=l2_for(data, rows),
        dtype="float64" if wide else "float32",
        backend=arguments.backend,
        seed=arguments.seed,
    )
    net.metadata = to_metadata(data, arguments.seed)
    return net


def _described(net: Network) -> str:
    layers, dropout, l2 = net.architecture.activations, net.architecture.dropout, net.architecture.l2
    names = " and ".join(dict.fromkeys((layers[0].name, layers[-1].name)))
    return (
        f"{'-'.join(map(str, net.sizes))}, {names}, loss {net.loss.name}, "
        f"{f'dropout {dropout:g}, ' if dropout else ''}{f'l2 {l2:.2g}, ' if l2 else ''}"
        f"{net.n_parameters:,} parameters, {net.dtype}"
    )


def _fit(
    net: Network, X: Any, y: numpy.ndarray | None, arguments: argparse.Namespace, distributed: bool
) -> tuple[History, int]:
    """Train and tell how it goes; return the history and the exit status. Warnings become lines."""
    batch_size = min(arguments.batch_size or batch_size_for(len(X)), len(X))
    steps, narrowest = math.ceil(len(X) / batch_size), min(arguments.hidden)
    epochs = arguments.epochs or epochs_for(steps)
    optimizer, rate = optimizer_for(arguments.optimizer, arguments.lr, epochs * steps, narrowest)
    say(
        "training",
        f"{arguments.optimizer}, rate {rate:g} falling to 0, batches of {batch_size}, at most {epochs} epochs",
    )
    bar = is_terminal(sys.stderr) and importlib.util.find_spec("tqdm") is not None
    folder = arguments.checkpoint
    with _warnings_as_lines() as caught:
        history = fit(
            net,
            X,
            y,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            seed=arguments.seed,
            patience=arguments.patience or patience_for(epochs, narrowest),
            callbacks=[] if bar else [functools.partial(tell, epochs)],
            checkpoint=Checkpoint(folder, arguments.checkpoint_every) if folder else None,
            resume=arguments.resume,
            distributed=distributed,
            stream=arguments.stream or None,
        )
    if not bar and history.loss and not is_told(len(history.loss), epochs):
        tell_last(epochs, history)
    kinds = {warning.category for warning in caught}
    return history, INTERRUPTED if InterruptWarning in kinds else int(DivergenceWarning in kinds)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[list[warnings.WarningMessage]]:
    """Collect warnings, and print a line for each in the end, however that comes."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        for warning in caught:
            print(f"gpubackprop: warning: {warning.message}", file=sys.stderr)


def _report(history: History, figures: dict[str, float], held_out: int) -> None:
    if history.data != IN_MEMORY:
        say("rows", history.data)
    say("stopped", history.stopped_because or "")
    say("test", f"{shown(figures)}, on {held_out:,} rows held out")
    seconds = sum(history.seconds)
    if seconds:
        say("speed", f"{seconds:.2f} s, {history.samples * len(history.seconds) / seconds:,.0f} samples a second")


def _write_files(folder: Path, net: Network, history: History, figures: dict[str, float], data: Dataset) -> None:
    """Write the model, the history with the test's figures, the curves and the picture, and say where they are."""
    net.save(folder / MODEL)
    say("files", str(folder / MODEL))
    with replacing(folder / HISTORY) as file:
        file.write(json.dumps(finite(history.to_dict() | {"test": figures}), indent=1, allow_nan=False).encode())
    say("", str(folder / HISTORY))
    try:
        history.plot(folder / CURVES)
        say("", str(folder / CURVES))
    except MissingDependency as error:
        say("", f"no picture of the loss was written: {told(error)}")
    if data.image_shape:
        _write_picture(folder / PICTURE, net.predict(data.X).reshape(*data.image_shape, 3))


def _write_picture(path: Path, colours: numpy.ndarray) -> None:
    from PIL import Image  # the photograph was read with it

    Image.fromarray((colours.clip(0, 1) * 255).round().astype("uint8")).save(path)
    say("", str(path))
