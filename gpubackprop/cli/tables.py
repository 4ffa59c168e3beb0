"""Users' files of examples: .csv here, NumPy's in `arrays`. Every complaint names the file and the place in it."""

from __future__ import annotations

import csv
import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy

from ..errors import InvalidValue


class Source(ABC):
    """A file of examples, of which so far the columns are known.

    Attributes:
        path: of the file.
        columns: how many there are, that of the target included.
        names: of the columns, or None where the file does not name them.
    """

    path: Path
    columns: int
    names: list[str] | None

    @abstractmethod
    def read(self, target: int | None) -> tuple[numpy.ndarray, Any]:
        """Return the features and the targets.

        Args:
            target: index of the target's column; None where all columns are features.

        Returns:
            The features (N, n_0), finite, and the targets: a list of strings (.csv), an array, or None.
        """

    def fits(self, features: int) -> bool:
        """Say whether there are so many features, with or without a target."""
        return self.columns in (features, features + 1)

    def index(self, column: str | None) -> int:
        """Return the index of a column that is given by its name or by its number from 1; None is the last one."""
        if column is None:
            return self.columns - 1
        if self.names and column in self.names:
            return self.names.index(column)
        if column.isdecimal() and 1 <= int(column) <= self.columns:
            return int(column) - 1
        names = f", named {shortened(self.names)}" if self.names else ", which have no names"
        self.refuse(
            f"no column {column!r}; accepted is a name, or a number from 1: it has {self.columns} columns{names}"
        )

    def refuse(self, what: str) -> NoReturn:
        """Raise the error that says what is wrong with the file."""
        raise InvalidValue(f"{self.path}: {what}")

    def feature(self, column: int, target: int | None) -> str:
        """Return what to call a feature in a message: its place in the file, where the target has one too."""
        place = column + (target is not None and column >= target)
        return f"column {place + 1}" + (f" ({self.names[place]})" if self.names else "")

    def check_finite(self, X: numpy.ndarray, target: int | None, row: Callable[[int], str]) -> None:
        """Refuse NaN and infinity in the features, naming the first place."""
        bad = ~numpy.isfinite(X)
        if bad.any():
            i, column = map(int, numpy.argwhere(bad)[0])
            self.refuse(
                f"{row(i)}, {self.feature(column, target)} is {X[i, column]} ({int(bad.sum())} such values in all); "
                "accepted are finite numbers: fill in what is missing or leave those rows out"
            )


def shortened(names: list[str], most: int = 8) -> str:
    """Return names for a message, the first few where there are many."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def number(cell: str) -> float | None:
    """Return the number that a cell holds, or None."""
    try:
        return float(cell)
    except ValueError:
        return None


class CsvSource(Source):
    """Comma-separated text in UTF-8, quoted where needed, with or without a line of names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        first = [row for _, row in islice(self._rows(), 2)]
        if not first:
            self.refuse("the file has no rows; accepted are lines of numbers separated by commas")
        self.columns = len(first[0])
        self.names = self._checked_names(first[0]) if self._is_header(*first) else None

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Go through the rows that are not blank, each with its line number."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                for row in reader:
                    if len(row) > 1 or (row and row[0].strip()):
                        yield reader.line_num, row
            except UnicodeDecodeError as error:
                self.refuse(f"no text in UTF-8 ({error}): save it as such")  # read in blocks: no line is known
            except csv.Error as error:
                self.refuse(f"no comma-separated text after line {reader.line_num} ({error}): save it as such")

    def _is_header(self, first: list[str], second: list[str] | None = None) -> bool:
        """Say whether the first row names the columns: text that stands over a number tells."""
        if second is None:
            return all(number(cell) is None for cell in first)
        pairs = list(zip(first, second, strict=False))  # of different lengths: `read` says so
        text = [cell for cell, below in pairs if number(cell) is None and number(below) is not None]
        # Pandas names columns by their place, from 0, where nobody else did.
        values = [cell for i, cell in enumerate(first) if number(cell) is not None and cell.strip() != str(i)]
        if text and values:
            self.refuse(
                f"line 1 has text ({shortened(text, 2)}) over numbers and numbers ({shortened(values, 2)}) itself; "
                "accepted is a line of names for all columns or none, and numbers in every feature"
            )
        return bool(text)

    def _checked_names(self, cells: list[str]) -> list[str]:
        names = [cell.strip() or f"column {i}" for i, cell in enumerate(cells, 1)]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            self.refuse(f"more than one column has the name {shortened(twice)}; give each its own")
        return names

    def read(self, target: int | None) -> tuple[numpy.ndarray, list[str] | None]:
        """Return the features (N, n_0), and the target's cells as they are written."""
        values, lines, labels = array("d"), array("q"), []
        for line, row in islice(self._rows(), 1 if self.names else 0, None):
            if len(row) != self.columns:
                self.refuse(
                    f"line {line} has {len(row)} fields and the first has {self.columns}; all must have as many"
                )
            if target is not None:
                labels.append(self._label(line, row.pop(target)))
            try:
                values.extend(map(float, row))
            except ValueError:
                self._refuse_text(line, row, target)
            lines.append(line)
        X = numpy.array(values).reshape(len(lines), self.columns - (target is not None))
        self.check_finite(X, target, lambda i: f"line {lines[i]}")
        return X, None if target is None else labels

    def _label(self, line: int, cell: str) -> str:
        label = cell.strip()
        if not label or not math.isfinite(number(label) or 0.0):
            self.refuse(f"line {line}: the target is {label or 'empty'}; fill it in or leave the row out")
        return label

    def _refuse_text(self, line: int, row: list[str], target: int | None) -> NoReturn:
        column, cell = next((i, cell.strip()) for i, cell in enumerate(row) if number(cell) is None)
        what = f"is {cell!r}, not a number" if cell else "is empty"
        self.refuse(
            f"line {line}, {self.feature(column, target)} {what}; features must be numbers: encode text as numbers, "
            "fill in what is missing or leave the row out (text may be predicted: --target says which column)"
        )
