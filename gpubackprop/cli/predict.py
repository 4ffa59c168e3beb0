"""What `gpubackprop predict` does."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import TextIO

import numpy

from ..errors import GpubackpropError, InvalidValue, ModelFileError
from ..files import replacing
from ..network import Network, load
from .about import from_metadata
from .datasets import NAMED, Dataset, to_predict
from .figures import figures_of, shown


def predict(arguments: argparse.Namespace) -> int:
    """Predict with a model from a file: on the held-out part of a named data set, or on a user's file.

    Args:
        arguments: as the command line gives them.

    Returns:
        The exit status.

    Raises:
        InvalidValue: the model or the data cannot be read, they do not fit, or the output cannot be written.
        GpubackpropError: a prediction is NaN or infinite.
    """
    try:
        net = load(arguments.model, backend=arguments.backend)
    except OSError as error:
        raise InvalidValue(
            f"{arguments.model}: cannot be read ({error.strerror}); accepted is a model.safetensors that train wrote"
        ) from error
    data, X, y, notes = _data_for(net, arguments)
    outputs = net.predict(X)
    _check_finite(outputs, arguments)
    report = sys.stdout if arguments.out else sys.stderr
    print(f"backend   {net.backend.description}", file=report)
    for note in notes:
        print(f"data      {note}", file=report)
    if y is not None:
        print(f"test      {shown(figures_of(data, y, outputs))}, on {len(X):,} rows", file=report)
    if not arguments.out:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", newline="")  # the table is the same as in a file
        _write(sys.stdout, data, outputs)
        return 0
    _write_to(arguments.out, data, outputs)
    print(f"files     {arguments.out}, {len(X):,} predictions")
    return 0


def _check_finite(outputs: numpy.ndarray, arguments: argparse.Namespace) -> None:
    """Refuse predictions that are NaN or infinite, before anything is written."""
    bad = numpy.flatnonzero(~numpy.isfinite(outputs).all(axis=1))
    if len(bad):
        raise GpubackpropError(
            f"{arguments.model}: {len(bad):,} of {len(outputs):,} predictions are NaN or infinite, the first that of "
            f"row {bad[0] + 1} of {arguments.data}; nothing was written: scale the data, or train the model again"
        )


def _data_for(
    net: Network, arguments: argparse.Namespace
) -> tuple[Dataset, numpy.ndarray, numpy.ndarray | None, list[str]]:
    """Return what the model was trained on, the examples to predict, their targets or None, and report lines."""
    name, (about, seed) = arguments.data, from_metadata(net, arguments.model)
    if name in NAMED:
        if about.name != name:
            raise InvalidValue(
                f"the model was trained on {about.name!r}, not on {name!r}; name that, or a file like it"
            )
        data = NAMED[name]()
        if (data.X.shape[1], data.outputs, data.classes) != (net.sizes[0], net.sizes[-1], about.classes):
            raise ModelFileError(f"{arguments.model}: the network does not fit {name}, on which it says it was trained")
        held_out = data.split(seed)[1]
        return data, data.X[held_out], data.y[held_out], []
    X, y, notes = to_predict(name, net.sizes[0], about, net.dtype)
    if y is not None and not about.classes and y.size != len(X) * net.sizes[-1]:
        raise InvalidValue(f"{name}: y has the shape {y.shape}; the model predicts {net.sizes[-1]} value(s) a row")
    return about, X, y, notes


def _write_to(name: str, data: Dataset, outputs: numpy.ndarray) -> None:
    if Path(name).exists() and not Path(name).is_file():
        raise InvalidValue(f"--out {name}: is there and is no file; name a new file or one to replace")
    try:
        with replacing(name) as file:
            text = io.TextIOWrapper(file, "utf-8", newline="")
            _write(text, data, outputs)
            text.detach()
    except OSError as error:
        raise InvalidValue(f"--out {name}: cannot be written ({error.strerror}); name a file of yours") from error


def _write(file: TextIO, data: Dataset, outputs: numpy.ndarray) -> None:
    """Write a line per row: the class and the probability of each, or the values."""
    writer = csv.writer(file, lineterminator="\n")
    if data.classes:
        writer.writerow(["prediction", *(f"probability of {name}" for name in data.classes)])
        for k, row in zip(outputs.argmax(axis=1), outputs, strict=True):
            writer.writerow([data.classes[k], *(f"{p:.6g}" for p in row)])
        return
    several = [f"prediction {k}" for k in range(1, outputs.shape[1] + 1)]
    writer.writerow(several if len(several) > 1 else ["prediction"])
    writer.writerows([f"{value:.9g}" for value in row] for row in outputs)
