"""Networks in files: safetensors, with what is not a tensor as one JSON object in the header; nothing is pickled."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy
import safetensors
import safetensors.numpy

from .activations import ACTIVATIONS, Activation
from .architecture import Architecture
from .errors import InvalidType, InvalidValue, ModelFileError
from .formula import Row
from .losses import LOSSES, Loss

FORMAT = 1
_KEY = "gpubackprop"  # of the one entry in the header's metadata


class Stored(NamedTuple):
    """What a file holds of a network.

    Attributes:
        architecture: what the network is.
        metadata: the user's strings.
        layer: ``layer(l)`` reads and returns (W_l, b_l), for l = 1, 2, ...
    """

    architecture: Architecture
    metadata: dict[str, str]
    layer: Callable[[int], tuple[numpy.ndarray, numpy.ndarray]]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` once it is whole and on the disk.

    Args:
        path: of the file to write or replace.

    Yields:
        The file, open in binary mode.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Put a folder's new entry on the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write(path: str | os.PathLike[str], architecture: Architecture, metadata: Any, parameters: Sequence[Any]) -> None:
    """Write a network.

    Args:
        path: of the file.
        architecture: what the network is; rows are written by name, with their parameters.
        metadata: strings by name.
        parameters: [(W_1, b_1), ...] of NumPy.

    Raises:
        InvalidType: metadata that is not strings by name.
        OSError: the file cannot be written.
    """
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for pair in metadata.items() for x in pair):
        raise InvalidType(f"metadata must be a dict of strings by name, got {metadata!r}")
    network = {field.name: getattr(architecture, field.name) for field in dataclasses.fields(architecture)}
    header = json.dumps({"format": FORMAT, "network": network, "metadata": metadata}, default=_row_as_dict)
    tensors = {f"{letter}_{l}": x for l, pair in enumerate(parameters, 1) for letter, x in zip("Wb", pair, strict=True)}
    content = safetensors.numpy.save(tensors, {_KEY: header})
    with replacing(path) as file:
        file.write(content)


def _row_as_dict(row: Row) -> dict[str, Any]:
    return {"name": row.name, "parameters": dict(row.parameters)}


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], rows: Sequence[Row] = ()) -> Iterator[Stored]:
    """Open a file that `write` wrote. Nothing in it is believed: all sizes are checked before memory is taken.

    Args:
        path: of the file.
        rows: the user's own activations and losses that the network has.

    Yields:
        What it holds.

    Raises:
        ModelFileError: it is no such file, here or while its parameters are read.
        OSError: it cannot be opened.
    """
    Path(path).open("rb").close()  # what is wrong with the path is the system's to say
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            _check_format(header["format"])
            architecture = _architecture(header["network"], rows)
            _check_tensors(file, architecture)
            yield Stored(architecture, _strings(header["metadata"]), functools.partial(_layer, file))
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            f"{os.fspath(path)} is not a model that this version of gpubackprop reads "
            f"({type(error).__name__}: {error}); accepted are files written by Network.save"
        ) from error


def _check_format(number: Any) -> None:
    if number != FORMAT:
        raise ValueError(f"its format is {number!r}, this version reads {FORMAT}")


def _architecture(network: dict[str, Any], rows: Sequence[Row]) -> Architecture:
    """Return the architecture that a header describes, checked as if a user had given it."""
    arguments = dict(network)
    activations = {**ACTIVATIONS, **{row.name: row for row in rows if isinstance(row, Activation)}}
    losses = {**LOSSES, **{row.name: row for row in rows if isinstance(row, Loss)}}
    *hidden, output = (_row(stored, activations) for stored in arguments.pop("activations"))
    loss = _row(arguments.pop("loss"), losses)
    return Architecture.checked(activation=hidden, output_activation=output, loss=loss, **arguments)


def _row(stored: dict[str, Any], table: dict[str, Any]) -> Any:
    if stored["name"] not in table:
        raise InvalidValue(f"{stored['name']!r} is no row of this package: pass your own as rows=[...]")
    return table[stored["name"]](**stored["parameters"])


def _strings(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TypeError("its metadata is not strings by name")
    return metadata


def _check_tensors(file: Any, architecture: Architecture) -> None:
    """Compare the shapes and types that the header promises, which the library has held against the file's length."""
    expected: dict[str, list[int]] = {}
    for l, (m, n) in enumerate(architecture.shapes, 1):
        expected |= {f"W_{l}": [m, n], f"b_{l}": [n]}
    if set(file.keys()) != set(expected):
        raise ValueError(f"its tensors do not fit the sizes {architecture.sizes}")
    kind = {"float32": "F32", "float64": "F64"}[architecture.dtype]
    for name, shape in expected.items():
        tensor = file.get_slice(name)
        if list(tensor.get_shape()) != shape or tensor.get_dtype() != kind:
            raise ValueError(f"{name} is {tensor.get_shape()} of {tensor.get_dtype()}, not {shape} of {kind}")


def _layer(file: Any, l: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    W, b = (file.get_tensor(f"{letter}_{l}") for letter in "Wb")
    for name, tensor in (("W", W), ("b", b)):
        if not (math.isfinite(tensor.min()) and math.isfinite(tensor.max())):
            raise ValueError(f"{name}_{l} holds NaN or infinity")
    return W, b
