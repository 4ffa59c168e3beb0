"""What the targets in a user's file mean: classes or values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy

from .tables import Source, number, shortened

TASKS = ("classification", "regression")
MOST_CLASSES = 20  # whole numbers of more different values than this may as well be amounts
WHOLE = re.compile(r"(?:-(?=0))?(0|-?[1-9][0-9]*)\.0*")  # -0.0 is 0


def values_of(source: Source, raw: Any) -> Any:
    """Return targets as finite float64 (N,) or (N, k) where they are numbers, else as a list of strings."""
    if isinstance(raw, numpy.ndarray) and raw.dtype.kind in "biuf":
        return _finite(source, _one_dimensional(raw.astype(numpy.float64)))
    if isinstance(raw, numpy.ndarray) and (raw.dtype.kind != "U" or raw.ndim != 1):
        source.refuse(f"y has the shape {raw.shape} and holds {raw.dtype}; accepted are numbers, or strings (rows,)")
    cells = [str(cell) for cell in raw]
    numbers = [number(cell) for cell in cells]
    return cells if None in numbers else _finite(source, numpy.array(numbers, dtype=numpy.float64))


def _finite(source: Source, values: numpy.ndarray) -> numpy.ndarray:
    if not numpy.isfinite(values).all():
        source.refuse("the target holds NaN or infinity; leave those rows out")
    return values


def _one_dimensional(y: Any) -> Any:
    """Return y, of a single column as (N,)."""
    return y[:, 0] if numpy.ndim(y) == 2 and y.shape[1] == 1 else y


def told_task(source: Source, values: Any, task: str | None) -> str:
    """Return the task that was asked for, if the targets fit it, or the one that they tell."""
    if isinstance(values, list):
        if task == "regression":
            text = next(cell for cell in values if number(cell) is None)
            source.refuse(
                f"the target holds text, {text!r}; --task regression needs numbers: --target says which column"
            )
        numbers = sum(number(cell) is not None for cell in values)
        if task is None and 2 * numbers > len(values):
            text = next(cell for cell in values if number(cell) is None)
            source.refuse(
                f"the target is {text!r} in one row and a number in {numbers} of {len(values)}; fill in what is "
                "missing or leave the row out, or add --task classification"
            )
        return "classification"
    if values.ndim == 2:
        if task == "classification":
            source.refuse(f"y has the shape {values.shape}; --task classification needs one label a row")
        return "regression"
    if task is not None:
        return task
    if (values % 1).any():
        return "regression"
    distinct = len(numpy.unique(values))
    if distinct > min(MOST_CLASSES, max(2, len(values) // 2)):
        source.refuse(
            f"the target holds {distinct} different whole numbers in {len(values)} rows, classes or amounts; "
            "add --task classification or --task regression"
        )
    return "classification"


def labels_of(source: Source, raw: Any) -> list[str]:
    """Return the name of each row's class as it is written, but for zeros after the point: 3.0 and "3" are both "3"."""
    cells = _one_dimensional(raw)
    if numpy.ndim(cells) != 1:
        source.refuse(f"y has the shape {cells.shape}; a class is one label a row")
    if isinstance(cells, numpy.ndarray) and cells.dtype.kind == "b":
        cells = cells.astype(int)
    if isinstance(cells, numpy.ndarray):  # of which there may be many: one string for each class
        different, which = numpy.unique(cells, return_inverse=True)
        names = _names(different)
        return [names[k] for k in which.tolist()]
    return _names(cells)


def _names(cells: Iterable[Any]) -> list[str]:
    written = [(str(cell), WHOLE.fullmatch(str(cell))) for cell in cells]
    return [name if match is None else match[1] for name, match in written]


def classes_of(source: Source, labels: Sequence[str]) -> list[str]:
    """Return the classes in their order: numbers by size, then text by its letters."""
    classes = sorted(set(labels), key=lambda label: (number(label) is None, number(label) or 0.0, label))
    if len(classes) < 2:
        source.refuse(f"the target is {classes[0]!r} in all rows; classification needs at least two classes")
    if len(classes) == len(labels):
        source.refuse("the target differs in all rows; classification needs several rows of a class")
    return classes


def encoded(source: Source, labels: Sequence[str], classes: Sequence[str]) -> numpy.ndarray:
    """Return labels 0..K-1 for the names of classes."""
    place = {name: k for k, name in enumerate(classes)}
    unknown = sorted(set(labels) - set(place))
    if unknown:
        source.refuse(f"the target holds {shortened(unknown)}; the classes of the model are {shortened(list(classes))}")
    return numpy.array([place[label] for label in labels])
