"""Networks in files: a tensor for every W_l and b_l, and in JSON what the network is, rows by their names."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy

from . import container
from .activations import ACTIVATIONS, Activation
from .architecture import Architecture
from .errors import InvalidType, InvalidValue, ModelFileError
from .formula import Row
from .losses import LOSSES, Loss


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
    refuse_namesakes([*architecture.activations, architecture.loss])
    network = {field.name: getattr(architecture, field.name) for field in dataclasses.fields(architecture)}
    container.write(
        path,
        {"network": network, "metadata": metadata},
        tensors(parameters),
        "metadata and the list of layers",
        Row.as_dict,
    )


def tensors(parameters: Sequence[Any]) -> dict[str, numpy.ndarray]:
    """Return [(W_1, b_1), ...] by the names that they have in a file."""
    return {f"{letter}_{l}": x for l, pair in enumerate(parameters, 1) for letter, x in zip("Wb", pair, strict=True)}


def strings(metadata: Any) -> dict[str, str]:
    """Return metadata if it is strings by name."""
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for pair in metadata.items() for x in pair):
        raise InvalidType(f"metadata must be a dict of strings by name, got {metadata!r}")
    return metadata


def refuse_namesakes(rows: Sequence[Row]) -> None:
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
    known = Known.of(rows)
    with container.reading(path, "Network.save") as file:
        with file.refusing():
            architecture = _architecture(file.content["network"], known, len(file.file.entries) // 2)
            file.check(_tensors(architecture))
            stored = Stored(architecture, strings(file.content["metadata"]), file.blocks)
        yield stored


class Known(NamedTuple):
    """The rows that a file may name.

    Attributes:
        activations: by name, those of this package and the user's.
        losses: the same.
    """

    activations: dict[str, Activation]
    losses: dict[str, Loss]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Known:
        """Return the rows of this package with those of the user.

        Raises:
            InvalidType: rows are not rows.
            InvalidValue: rows with one name.
        """
        if not isinstance(rows, (list, tuple)) or not all(isinstance(row, (Activation, Loss)) for row in rows):
            raise InvalidType(f"rows must be a sequence of objects of type Activation or Loss, got {rows!r}")
        refuse_namesakes(rows)
        return cls(
            {**ACTIVATIONS, **{row.name: row for row in rows if isinstance(row, Activation)}},
            {**LOSSES, **{row.name: row for row in rows if isinstance(row, Loss)}},
        )


def _architecture(network: dict[str, Any], known: Known, layers: int) -> Architecture:
    """Return the architecture that a header describes, checked as if a user had given it."""
    arguments = dict(network)
    if not len(arguments["activations"]) == len(arguments["sizes"]) - 1 == layers:
        raise ValueError(f"its activations and sizes do not fit the tensors of {layers} layers")
    *hidden, output = (row_of(stored, known.activations) for stored in arguments.pop("activations"))
    loss = row_of(arguments.pop("loss"), known.losses)
    return Architecture.checked(activation=hidden, output_activation=output, loss=loss, **arguments)


def row_of(stored: dict[str, Any], table: dict[str, Any]) -> Any:
    """Return the row that `Row.as_dict` describes, from a table of those that are known."""
    if stored["name"] not in table:
        kind = type(next(iter(table.values()))).__name__.lower()
        raise ModelFileError(
            f"the {kind} {stored['name']!r} is no row of this package: pass your own as rows=[...]; accepted are rows "
            "of this package and those given"
        )
    row = table[stored["name"]]
    return row if stored["parameters"] == row.parameters else row(**stored["parameters"])


def _tensors(architecture: Architecture) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shapes and types of the tensors of a network by name."""
    expected: dict[str, tuple[tuple[int, ...], str]] = {}
    for l, (m, n) in enumerate(architecture.shapes, 1):
        expected |= {f"W_{l}": ((m, n), architecture.dtype), f"b_{l}": ((n,), architecture.dtype)}
    return expected
