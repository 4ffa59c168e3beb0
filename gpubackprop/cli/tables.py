"""Users' files of examples: .csv here, NumPy's in `arrays`. Every complaint names the file and the place in it."""

from __future__ import annotations

import csv
import math
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy

from ..errors import InvalidValue
from .text import Rows, opened

MISSING = {"", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "null", "?"}  # in small letters
SEPARATOR = re.compile(r'"?sep=([^"\r\n])"?\r?\n?', re.IGNORECASE)  # the first line that Excel reads and writes


class Source(ABC):
    """A file of examples, of which so far the columns are known.

    Attributes:
        path: of the file.
        columns: how many there are, that of the target included.
        names: of the columns, or None if the file does not name them.
        largest: absolute value that a feature may have.
    """

    path: Path
    columns: int
    names: list[str] | None
    largest = float(numpy.finfo("float64").max)

    @abstractmethod
    def read(self, features: Sequence[int], target: int | None) -> tuple[Any, Any]:
        """Return the features and the targets.

        Args:
            features: indices of the features' columns.
            target: index of the target's column, or None.

        Returns:
            The features (N, n_0), finite, and the targets: a list of strings (.csv), an array, or None.
        """

    def index(self, column: str) -> int:
        """Return the index of a column that is given by its name or by its number from 1."""
        if self.names and column in self.names:
            return self.names.index(column)
        if column.isdecimal() and len(column) < 10 and 1 <= int(column) <= self.columns:
            return int(column) - 1
        names = f", named {shortened(self.names)}" if self.names else ", which have no names"
        self.refuse(
            f"no column {column!r}; accepted is a name, or a number from 1: it has {self.columns} columns{names}"
        )

    def target_index(self, column: str | None, dropped: Sequence[int]) -> int:
        """Return the index of the target; by default that of the last column that is not dropped."""
        if column is not None:
            return self.index(column)
        return max(set(range(self.columns)) - set(dropped), default=self.columns - 1)

    def refuse(self, what: str) -> NoReturn:
        """Raise the error that says what is wrong with the file."""
        raise InvalidValue(f"{self.path}: {what}")

    def named(self, column: int) -> str:
        """Return the name of a column in messages: its number in the file from 1, and its name if it has one."""
        number = f"column {column + 1}"
        return number if self.names is None or self.names[column] == number else f"{number} ({self.names[column]})"

    def check_finite(self, X: numpy.ndarray, features: Sequence[int], row: Callable[[int], str]) -> None:
        """Refuse NaN and infinity in the features, naming the first place."""
        bad = ~(abs(X) <= self.largest)
        if bad.any():
            i, k = map(int, numpy.argwhere(bad)[0])
            self.refuse(
                f"{row(i)}, {self.named(features[k])} is {X[i, k]} ({int(bad.sum())} such values in all); "
                f"accepted are numbers up to {self.largest:.3g}: fill in what is missing or leave those rows out"
            )

    def check_known(self, labels: Sequence[str], row: Callable[[int], str]) -> None:
        """Refuse targets that are missing or not finite, naming the first row and the number of rows."""
        bad = [i for i, label in enumerate(labels) if unknown(label)]
        if bad:
            self.refuse(
                f"{row(bad[0])}: the target is {labels[bad[0]].strip() or 'empty'}, a missing value ({len(bad)} such "
                "rows in all); fill it in or leave the row out; if it is the name of a class, rename the class"
            )


def shortened(names: list[str], most: int = 8) -> str:
    """Return names for a message: all, or the first few of many."""
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def number(cell: str) -> float | None:
    """Return the finite number that a cell holds, or None."""
    value = _float(cell)
    return value if value is not None and math.isfinite(value) else None


def unknown(cell: str) -> bool:
    """Return whether a cell is a missing value: empty, one of the usual marks, NaN or infinity."""
    return cell.strip().lower() in MISSING or not math.isfinite(_float(cell) or 0.0)


def _float(cell: str) -> float | None:
    """Return the number that a cell holds, written in ASCII as files do: `float` also reads 1_5 as 15."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else None
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
        with opened(self.path) as file:
            skipped, lines = 0, Rows(file, self.path)
            reader = csv.reader(lines, strict=True)
            try:
                if separator := SEPARATOR.fullmatch(file.readline(16)):
                    skipped, reader = 1, csv.reader(lines, strict=True, delimiter=separator[1])
                else:
                    file.seek(0)
                for row in reader:
                    lines.begin()
                    if len(row) > 1 or (row and row[0].strip()):
                        yield reader.line_num + skipped, row
            except UnicodeDecodeError as error:
                self.refuse(f"no text in UTF-8 ({error}): save it as such")  # read in blocks: no line is known
            except csv.Error as error:
                self.refuse(
                    f"no comma-separated text after line {reader.line_num + skipped} ({error}): save it as such"
                )

    def _is_header(self, first: list[str], second: list[str] | None = None) -> bool:
        """Return whether the first row names the columns: no cell is a number, or text stands over a number.

        Pandas names columns by their place, from 0, if nobody else did; in front of them may be a row number's, blank.
        """
        cells = [cell.strip() for cell in first]
        places = [str(i) for i in range(len(cells))]
        if cells[0] == "":
            places = ["", *places[:-1]]
        if all(number(cell) is None for cell in cells) or (len(cells) > 1 and cells == places):
            return True
        pairs = list(zip(cells, second or [], strict=False))  # of different lengths: `read` says so
        text = [cell for cell, below in pairs if number(cell) is None and number(below) is not None]
        values = [
            cell for cell, place in zip(cells, places, strict=False) if number(cell) is not None and cell != place
        ]
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

    def read(self, features: Sequence[int], target: int | None) -> tuple[numpy.ndarray, list[str] | None]:
        """Return the features (N, n_0), and the target's cells as they are written."""
        values, lines, labels = array("d"), array("q"), []
        for line, row in islice(self._rows(), 1 if self.names else 0, None):
            if len(row) != self.columns:
                self.refuse(
                    f"line {line} has {len(row)} fields and the first has {self.columns}; all must have as many"
                )
            if target is not None:
                labels.append(row[target].strip())
            cells = [row[i] for i in features]
            try:
                values.extend(map(float, cells))
            except ValueError:
                self._refuse_text(line, row, features)
            text = "".join(cells)
            if "_" in text or not text.isascii():  # which `float` may accept
                self._refuse_text(line, row, features)
            lines.append(line)
        X = numpy.array(values).reshape(len(lines), len(features))
        self.check_finite(X, features, lambda i: f"line {lines[i]}")
        self.check_known(labels, lambda i: f"line {lines[i]}")
        return X, None if target is None else labels

    def _refuse_text(self, line: int, row: list[str], features: Sequence[int]) -> NoReturn:
        column = next(i for i in features if _float(row[i]) is None)
        cell = row[column].strip()
        what = f"is {cell!r}, not a number" if cell else "is empty"
        self.refuse(
            f"line {line}, {self.named(column)} {what}; features must be numbers: encode text as numbers, fill in what "
            f"is missing, leave the row out, or leave the column out (--drop {column + 1}); text may be predicted: "
            "--target says which column"
        )
