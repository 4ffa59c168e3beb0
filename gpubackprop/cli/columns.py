"""The columns of a user's file: which are features in training, and which of a file to predict a model needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from .arrays import NpzSource
from .ondisk import Features, counting
from .tables import Source, shortened

UNNAMED = re.compile(r"column 1|Unnamed: \d+(\.\d+)*|\.\.\.1")  # as pandas and readr call a column without a name
FEWEST_COUNTED = 5  # rows that a column has to count before that is no coincidence


@dataclass(frozen=True)
class Asked:
    """The columns that the command line asks for, each by its name or its number from 1.

    Attributes:
        target: the target; None is the last column that is not dropped.
        drop: columns that are no features.
        columns: the features; None is all columns.
    """

    target: str | None = None
    drop: Sequence[str] = ()
    columns: Sequence[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.target or self.drop or self.columns)


@dataclass(frozen=True)
class Trained:
    """The columns that a model was trained on, for files without names.

    Attributes:
        width: number of columns of the training file.
        places: indices of the features there.
    """

    width: int
    places: list[int]


def asked_for(source: Source, asked: Asked) -> tuple[list[int], int]:
    """Return the indices of the features and of the target."""
    dropped = [source.index(column) for column in asked.drop]
    target = source.target_index(asked.target, dropped)
    if target in dropped:
        source.refuse(
            f"--drop names {source.named(target)}, which is the target; --target says which column to predict"
        )
    used = range(source.columns) if asked.columns is None else dict.fromkeys(map(source.index, asked.columns))
    features = [place for place in used if place != target and place not in dropped]
    if not features and source.columns > 1:
        source.refuse("no feature is left; name fewer columns with --drop, or more with --columns")
    return features, target


def read(source: Source, asked: Asked) -> tuple[Any, Any, list[int], int, list[str]]:
    """Read features and targets, except first columns without a name that number the rows.

    Returns:
        The features (N, n_0), the targets, the indices of both in the file, and lines for the report.
    """
    features, target = asked_for(source, asked)
    X, raw = source.read(features, target)
    notes = []
    if source.names and all(name.isdecimal() for name in source.names[1:]):
        notes.append(f"line 1 names the columns: {shortened(source.names)}")
    while asked.columns is None and len(features) > 1 and _numbers_rows(source, X, features[0]):
        notes.append(f"left out: {source.named(features[0])}, which only numbers the rows (--columns can ask for it)")
        X, features = (X.without(0) if isinstance(X, Features) else X[:, 1:]), features[1:]
    for k in numpy.flatnonzero(_counts(X)):
        place = features[k]
        notes.append(f"{source.named(place)} counts the rows; if it is no feature: --drop {place + 1}")
    return X, raw, features, target, notes


def _numbers_rows(source: Source, X: Any, place: int) -> bool:
    """Return whether the first of the features, at a place in the file, has no name and numbers the rows.

    In a file with names a column without one numbers rows in any order, as after shuffling or leaving rows out.
    """
    if source.names is None:
        return place == 0 and not isinstance(source, NpzSource) and bool(_counts(X)[0])
    column = X[:, 0]
    return UNNAMED.fullmatch(source.names[place]) is not None and bool(
        not (column % 1).any() and len(numpy.unique(column)) == len(column)
    )


def _counts(X: Any) -> numpy.ndarray:
    """Return whether each feature counts the rows from 0 or 1 (n_0,)."""
    if len(X) < FEWEST_COUNTED:
        return numpy.full(X.shape[1], False)
    return X.counts if isinstance(X, Features) else counting(X, 0, X[0])


def matched(source: Source, like: Any, features: int) -> tuple[list[int], int | None, list[str]]:
    """Find the columns of a file that a model needs: by name if both have names, otherwise by number.

    Args:
        source: the file.
        like: the `Dataset` that the model was trained on, without rows.
        features: number of features that the model takes.

    Returns:
        The indices of the features in the model's order, that of the target or None, and lines for the report.
    """
    if not (source.names and like.features):
        places, target = _by_number(source, like, features)
        return places, target, _places_to_check(source, like, features, places)
    names = source.names
    missing = [name for name in like.features if name not in names]
    if missing:
        source.refuse(
            f"has no column {shortened(missing)}, but {shortened(names)}; the model takes {shortened(like.features)}"
        )
    ignored = [name for name in names if name not in like.features and name != like.target]
    target = names.index(like.target) if like.target in names else None
    notes = [f"ignored: {shortened(ignored)}, which the model does not need"] if ignored else []
    return [names.index(name) for name in like.features], target, notes


def _places_to_check(source: Source, like: Any, features: int, places: list[int]) -> list[str]:
    """Return a line that names the features of a file with two readings.

    Such a file lacks one column of the training file: the target, or the one that was left out in training.
    """
    if like.trained is None or like.trained.width != features + 2 or source.columns != features + 1:
        return []
    numbers = shortened([str(place + 1) for place in places])
    return [f"without names: the features are columns {numbers}, as in the training file without its target"]


def _by_number(source: Source, like: Any, features: int) -> tuple[list[int], int | None]:
    """Find the features and the target in the file as in training, without the target, or the features only."""
    last = features if like.target_index is None else like.target_index
    width, places = features + 1, [place for place in range(features + 1) if place != last]
    if like.trained is not None:
        width, places = like.trained.width, like.trained.places
    if isinstance(source, NpzSource):
        last = width - 1
        given, target = source.X.shape[1], None if source.y is None else source.columns - 1
    else:
        given, target = source.columns, last if source.columns == width else None
    if given == width and not isinstance(source, NpzSource):
        return places, target
    if given == width - 1:
        return [place - (place > last) for place in places], target
    if given == features:
        return list(range(features)), target
    whole = f", or the {width} columns of the training file" if width > features + 1 else ""
    source.refuse(
        f"has {given} columns; the model takes {features} features"
        f"{f' ({shortened(like.features)})' if like.features else ''}{whole}, with the target or without it"
    )
