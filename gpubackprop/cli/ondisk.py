"""A user's .npy file that is not loaded: its features are read a block of rows at a time, whenever they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from .. import sources
from ..sources import Block, NpyFile
from .scaling import Named, Scale
from .tables import Source

BLOCK_BYTES = 2**22  # of the file that are looked at in one go


class Features:
    """Columns of a file, and what one reading of all rows found out about each.

    Args:
        file: the file.
        columns: indices of the columns; their values were found to be finite.
        low: the smallest value of each (n_0,).
        high: the largest value of each (n_0,).
        whole: whether each holds whole numbers only (n_0,).
        counts: whether each counts the rows from 0 or 1 (n_0,).

    Attributes:
        shape: (N, n_0).
        counts: as given.
        grey_levels: whether they look like an image's bytes.
    """

    def __init__(
        self,
        file: NpyFile,
        columns: Sequence[int],
        low: numpy.ndarray,
        high: numpy.ndarray,
        whole: numpy.ndarray,
        counts: numpy.ndarray,
    ) -> None:
        self.file, self._columns, self._found = file, list(columns), (low, high, whole, counts)
        self.shape, self.counts = (file.shape[0], len(columns)), counts
        self.grey_levels = grey_levels(len(columns), low.min(initial=0), high.max(initial=0), bool(whole.all()))

    def without(self, k: int) -> Features:
        """Return all columns except the k-th."""
        columns, *found = (numpy.delete(x, k) for x in (self._columns, *self._found))
        return Features(self.file, columns.tolist(), *found)

    def __len__(self) -> int:
        return self.shape[0]

    def scale(self, rows: numpy.ndarray, one_unit: bool, named: Named = "column {}".format) -> Scale:
        """Return the scale of `Scale.one_unit` or `Scale.standard` for some of the rows, by one reading.

        Means and squares of blocks are merged; Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for
        computing sample variances, 1979.
        """
        count, mean, squares = 0, numpy.zeros(self.shape[1]), numpy.zeros(self.shape[1])
        low, high = numpy.full(self.shape[1], numpy.inf), numpy.full(self.shape[1], -numpy.inf)
        with numpy.errstate(over="ignore", invalid="ignore"):
            for x, _ in self.read(rows):
                low, high = numpy.minimum(low, x.min(axis=0)), numpy.maximum(high, x.max(axis=0))
                of_block, total = x.mean(axis=0), count + len(x)
                squares += numpy.square(x - of_block).sum(axis=0)
                squares += numpy.square(of_block - mean) * (count * len(x) / total)
                mean, count = mean + (of_block - mean) * (len(x) / total), total
        if one_unit:
            return Scale.of_one_unit(self.shape[1], max(abs(low).max(), abs(high).max()))
        return Scale.of_columns(mean, numpy.sqrt(squares / count), low == high, named)

    def part(self, rows: numpy.ndarray, scale: Scale | None = None, y: numpy.ndarray | None = None) -> Part:
        """Return some of the rows as `fit` and `predict` read them.

        Args:
            rows: their indices, increasing.
            scale: that they are brought to, or None.
            y: the targets of all rows of the file, or None.
        """
        return Part(self, rows, scale, y)

    def read(
        self, rows: numpy.ndarray, size: int | None = None, order: Iterable[int] | None = None
    ) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
        """Go through some of the rows, those of a block of the file at a time.

        Args:
            rows: their indices, increasing.
            size: rows of a block.
            order: of the blocks; None for that of the file.

        Yields:
            Features in float64, and the indices of their rows.
        """
        size = size or rows_at_once(self.file)
        with self.file.opened() as read:
            for k in range(-(-len(self) // size)) if order is None else order:
                start, stop = k * size, min((k + 1) * size, len(self))
                chosen = rows[slice(*numpy.searchsorted(rows, (start, stop)))]
                if len(chosen):
                    block = read(start, stop)[chosen - start]
                    yield block[:, self._columns].astype(numpy.float64), chosen


class Part(sources.Source):
    """Some rows of a file; for the arguments see `Features.part`."""

    in_order = False

    def __init__(self, features: Features, rows: numpy.ndarray, scale: Scale | None, y: numpy.ndarray | None) -> None:
        self._features, self._rows, self._scale, self._y = features, rows, scale, y
        self.rows = len(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def count(self, size: int) -> int:
        """Return how many blocks of so many rows of the file there are."""
        return -(-len(self._features) // size)

    def blocks(self, size: int, order: Iterable[int] | None = None) -> Iterator[Block]:
        """Go through the rows, with those of a block of the file that are not among them left out."""
        for x, rows in self._features.read(self._rows, size, order):
            place = f"[{rows[0]}:{rows[-1] + 1}]"
            scaled = x if self._scale is None else self._scale.apply(x, "float64")
            yield Block(place, scaled, None if self._y is None else self._y[rows])

    def whole(self) -> tuple[Any, Any, Any]:
        """Return all rows in memory."""
        blocks = list(self.blocks(rows_at_once(self._features.file)))
        y = None if self._y is None else numpy.concatenate([block.y for block in blocks])
        return numpy.concatenate([block.x for block in blocks]), y, None


class OnDiskSource(Source):
    """A matrix of numbers in a .npy file, the target a column of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.names = path, None
        self._file = NpyFile(path, "the array")
        if len(self._file.shape) != 2 or 0 in self._file.shape:
            self.refuse(f"the array has the shape {self._file.shape}; accepted is a matrix (rows, columns): reshape it")
        self.columns = self._file.shape[1]

    def read(self, features: Sequence[int], target: int | None) -> tuple[Any, numpy.ndarray | None]:
        """Return the features, which stay in the file, and the target's column (N,), which is in memory."""
        assert target is not None, "files to predict are read by `predict`"
        size, targets, n = rows_at_once(self._file), [], len(features)
        low, high = numpy.full(n, numpy.inf), numpy.full(n, -numpy.inf)
        whole, counts, first = numpy.full(n, True), numpy.full(n, True), numpy.zeros(n)
        with self._file.opened() as read:
            for start in range(0, self._file.shape[0], size):
                block = read(start, min(start + size, self._file.shape[0]))
                x = block[:, features].astype(numpy.float64)
                self.check_finite(x, features, lambda i, start=start: f"row {start + i + 1}")  # type: ignore[misc]
                targets.append(block[:, target].copy())
                low, high = numpy.minimum(low, x.min(axis=0)), numpy.maximum(high, x.max(axis=0))
                whole &= ~(x % 1).any(axis=0)
                first = first if start else x[0].copy()
                counts &= counting(x, start, first)
        return Features(self._file, features, low, high, whole, counts), numpy.concatenate(targets)


def rows_at_once(file: NpyFile) -> int:
    """Return the rows of a block of a file."""
    return max(1, BLOCK_BYTES // max(1, file.nbytes // max(1, file.shape[0])))


def grey_levels(columns: int, low: float, high: float, whole: bool) -> bool:
    """Say whether features look like an image's bytes: standardised, pixels that are seldom lit would outweigh all."""
    return columns >= 64 and low == 0 and 16 <= high <= 255 and whole


def counting(x: numpy.ndarray, row: int, first: numpy.ndarray) -> numpy.ndarray:
    """Return whether each column of x (N, n) counts the rows from 0 or 1 (n,).

    Args:
        x: some rows.
        row: how many rows are before them.
        first: the first row of all (n,).
    """
    expected = first + numpy.arange(row, row + len(x))[:, None]
    return numpy.isin(first, (0, 1)) & (x == expected).all(axis=0)
