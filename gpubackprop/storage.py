"""Networks in files: safetensors, with what is not a tensor as one JSON object in the header; nothing is pickled."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import safetensors
import safetensors.numpy

from .activations import ACTIVATIONS, Activation
from .architecture import Architecture
from .errors import InvalidType, InvalidValue, ModelFileError
from .files import path_of, replacing
from .formula import Row
from .losses import LOSSES, Loss

FORMAT = 1
_KEY = "gpubackprop"  # of the one entry in the header's metadata
_LONGEST = 2**20  # bytes of a header: JSON takes many times its length in memory, and is read before it is checked
_BLOCK = 2**18  # elements read at a time
_KINDS = {"float32": "F32", "float64": "F64", "int64": "I64"}  # as safetensors calls them
_MALFORMED = (
    safetensors.SafetensorError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)  # what reading a file can raise that holds something else than was written


class Stored(NamedTuple):
    """What a file holds of a network.

    Attributes:
        architecture: what the network is.
        metadata: the user's strings.
        blocks: ``blocks("W_1")`` reads a tensor some rows at a time, and yields which rows and their values.
    """

    architecture: Architecture
    metadata: dict[str, str]
    blocks: Callable[[str], Iterator[tuple[slice, numpy.ndarray]]]


def write(path: str | os.PathLike[str], architecture: Architecture, metadata: Any, parameters: Sequence[Any]) -> None:
    """Write a network.

    Args:
        path: of the file.
        architecture: what the network is; rows are written by name, with their parameters.
        metadata: strings by name.
        parameters: [(W_1, b_1), ...] of NumPy.

    Raises:
        InvalidType: metadata that is not strings by name, or a path that is none.
        InvalidValue: metadata that is too long, a row of the user's with the name of one of this package, or a path
            that names no file.
        OSError: the file cannot be written.
    """
    strings(metadata)
    _refuse_namesakes([*architecture.activations, architecture.loss])
    network = {field.name: getattr(architecture, field.name) for field in dataclasses.fields(architecture)}
    header = json.dumps({"format": FORMAT, "network": network, "metadata": metadata}, default=Row.as_dict)
    tensors = {f"{letter}_{l}": x for l, pair in enumerate(parameters, 1) for letter, x in zip("Wb", pair, strict=True)}
    save(path, header, tensors)


def save(path: str | os.PathLike[str], header: str, tensors: Mapping[str, numpy.ndarray]) -> None:
    """Write tensors by name with what else there is to say, as JSON; `opened` reads both."""
    content = safetensors.numpy.save(dict(tensors), {_KEY: header})
    length = int.from_bytes(content[:8], "little")
    if length > _LONGEST:
        raise InvalidValue(
            f"metadata and the list of layers must take at most {_LONGEST:,} bytes in the file, got {length:,}"
        )
    with replacing(path) as file:
        file.write(content)


def strings(metadata: Any) -> dict[str, str]:
    """Return metadata if it is strings by name."""
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for pair in metadata.items() for x in pair):
        raise InvalidType(f"metadata must be a dict of strings by name, got {metadata!r}")
    return metadata


def _refuse_namesakes(rows: Sequence[Row]) -> None:
    """Refuse rows that a file could not tell apart: those of this package, or another of the same name."""
    known: dict[tuple[type[Row], str], Row] = {
        (type(row), row.name): row for row in (*ACTIVATIONS.values(), *LOSSES.values())
    }
    for row in rows:
        other = known.setdefault((type(row), row.name), row)
        if dataclasses.replace(other, parameters=row.parameters) != row:
            raise InvalidValue(
                f"there are two rows with the name {row.name!r}, which `load` could not tell apart: rename yours"
            )


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
        InvalidType: the path is no path, or rows are not rows.
        InvalidValue: the path is no path, or rows with one name.
    """
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, (Activation, Loss)) for row in rows):
        raise InvalidType(f"rows must be a sequence of objects of type Activation or Loss, got {rows!r}")
    _refuse_namesakes(rows)
    place = path_of(path)
    with contextlib.ExitStack() as stack:
        with _refusing(place):
            file, about = stack.enter_context(opened(place))
            check_format(about["format"], FORMAT)
            architecture = _architecture(about["network"], rows, len(file.keys()) // 2)
            check_tensors(file, _tensors(architecture))
            stored = Stored(architecture, strings(about["metadata"]), functools.partial(_blocks, place, file))
        yield stored


@contextlib.contextmanager
def refusing(place: Path, refusal: type[Exception], kind: str, writer: str) -> Iterator[None]:
    """Turn whatever goes wrong with the content of a file of a kind into the one exception for that."""
    try:
        yield
    except _MALFORMED as error:
        reason = f"it has no entry {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise refusal(
            f"{place} is not a {kind} that this version of gpubackprop reads ({reason[:300]}); accepted are files "
            f"written by {writer}"
        ) from error


def _refusing(place: Path) -> contextlib.AbstractContextManager[None]:
    return refusing(place, ModelFileError, "model", "Network.save")


@contextlib.contextmanager
def opened(place: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file that `save` wrote; yield it, its lengths held against its tensors', and what its JSON says."""
    _check_header(place)
    with safetensors.safe_open(place, framework="numpy") as file:
        yield file, json.loads((file.metadata() or {})[_KEY])


def _check_header(place: Path) -> None:
    """Refuse what cannot be opened, what would wait for ever, and a header that would take much memory."""
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise ValueError("a pipe or a device")
    with place.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST:
        raise ValueError(f"its header would take {length:,} bytes")


def check_format(number: Any, known: int) -> None:
    """Refuse a file of another format than the one that is known."""
    if number != known:
        raise ValueError(f"its format is {number!r}, this version reads {known}")


def _architecture(network: dict[str, Any], rows: Sequence[Row], layers: int) -> Architecture:
    """Return the architecture that a header describes, checked as if a user had given it."""
    arguments = dict(network)
    if not len(arguments["activations"]) == len(arguments["sizes"]) - 1 == layers:
        raise ValueError(f"its activations and sizes do not fit the tensors of {layers} layers")
    activations = {**ACTIVATIONS, **{row.name: row for row in rows if isinstance(row, Activation)}}
    losses = {**LOSSES, **{row.name: row for row in rows if isinstance(row, Loss)}}
    *hidden, output = (_row(stored, activations) for stored in arguments.pop("activations"))
    loss = _row(arguments.pop("loss"), losses)
    return Architecture.checked(activation=hidden, output_activation=output, loss=loss, **arguments)


def _row(stored: dict[str, Any], table: dict[str, Any]) -> Any:
    if stored["name"] not in table:
        raise InvalidValue(f"{stored['name']!r} is no row of this package: pass your own as rows=[...]")
    row = table[stored["name"]]
    return row if stored["parameters"] == row.parameters else row(**stored["parameters"])


def _tensors(architecture: Architecture) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shapes and types of the tensors of a network by name."""
    expected: dict[str, tuple[tuple[int, ...], str]] = {}
    for l, (m, n) in enumerate(architecture.shapes, 1):
        expected |= {f"W_{l}": ((m, n), architecture.dtype), f"b_{l}": ((n,), architecture.dtype)}
    return expected


def check_tensors(file: Any, expected: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Compare the shapes and types that the header promises, which the library has held against the file's length."""
    if set(file.keys()) != set(expected):
        raise ValueError(f"its tensors do not fit, which have to be {', '.join(expected)}")
    for name, (shape, dtype) in expected.items():
        tensor, kind = file.get_slice(name), _KINDS[dtype]
        if tuple(tensor.get_shape()) != shape or tensor.get_dtype() != kind:
            raise ValueError(f"{name} is {tensor.get_shape()} of {tensor.get_dtype()}, not {list(shape)} of {kind}")


def _blocks(place: Path, file: Any, name: str) -> Iterator[tuple[slice, numpy.ndarray]]:
    """Yield a tensor some rows at a time: the library maps the file, and a whole tensor would be a second copy."""
    with _refusing(place):
        tensor = file.get_slice(name)
        length, *rest = tensor.get_shape()
        step = max(_BLOCK // math.prod(rest), 1)
        for start in range(0, length, step):
            rows = slice(start, min(start + step, length))
            block = tensor[rows]
            if not (math.isfinite(block.min()) and math.isfinite(block.max())):
                raise ValueError(f"{name} holds NaN or infinity")
            yield rows, block
