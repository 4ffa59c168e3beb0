"""What `gpubackprop predict` does."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy

from ..errors import InvalidValue, ModelFileError
from ..files import replacing
from ..network import Network, load
from .columns import Trained
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
    """
    try:
        net = load(arguments.model, backend=arguments.backend)
    except OSError as error:
        raise InvalidValue(
            f"{arguments.model}: cannot be read ({error.strerror}); accepted is a model.safetensors that train wrote"
        ) from error
    data, X, y, notes = _data_for(net, arguments.data)
    outputs = net.predict(X)
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


def _data_for(net: Network, name: str) -> tuple[Dataset, numpy.ndarray, numpy.ndarray | None, list[str]]:
    """Return what the model was trained on, the examples to predict, their targets or None, and report lines."""
    about, seed = _trained_on(net)
    if name in NAMED:
        if about.name != name:
            raise InvalidValue(
                f"the model was trained on {about.name!r}, not on {name!r}; name that, or a file like it"
            )
        data = NAMED[name]()
        held_out = data.split(seed)[1]
        return data, data.X[held_out], data.y[held_out], []
    X, y, notes = to_predict(name, net.sizes[0], about)
    if y is not None and not about.classes and y.size != len(X) * net.sizes[-1]:
        raise InvalidValue(f"{name}: y has the shape {y.shape}; the model predicts {net.sizes[-1]} value(s) a row")
    return about, X, y, notes


def _trained_on(net: Network) -> tuple[Dataset, int]:
    """Return what the model's metadata say of its data, without rows, and the seed of the split.

    Of a model that `train` did not write, the last activation tells what it predicts.

    Raises:
        ModelFileError: the metadata are of another kind.
    """
    none = numpy.empty(0)
    if "task" not in net.metadata:
        classes = [str(k) for k in range(net.sizes[-1])] if net.activations[-1].name == "softmax" else None
        return Dataset("other data", none, none, classes), 0
    try:
        about: dict[str, Any] = {name: json.loads(value) for name, value in net.metadata.items()}
        described = {name: about[name] for name in ("classes", "features", "target", "target_index")}
        columns = about.get("columns")
        trained = None if columns is None else Trained(columns["width"], columns["places"])
        return Dataset(about["data"], none, none, **described, trained=trained), about["seed"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"the model's metadata are not what train writes ({error!r}); train it again") from error


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
