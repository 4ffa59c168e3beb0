"""Where examples come from that need not be in memory: arrays on disk, batches one after the other, tables of Arrow."""

from __future__ import annotations

import contextlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from . import inputs, npy
from .errors import InvalidType, InvalidValue, MissingDependency
from .files import data_file, path_of, refusing
from .frames import KINDS, arranged, chosen, names_of

Rows = Callable[[int, int], numpy.ndarray]  # rows start..stop-1 of something


class Block(NamedTuple):
    """Some rows as they come, and what messages add to the names of their arrays to say where they were."""

    place: str
    x: Any
    y: Any = None
    w: Any = None


class Source(ABC):
    """Examples, with or without targets and weights.

    Attributes:
        rows: how many, or None where that is known at the end alone.
        weighted: whether they have weights.
        in_order: whether they come in one order alone.
        bytes_in_files: what `whole` would take, and is not in memory yet.
        features: names of the columns of the examples, or None.
    """

    rows: int | None
    weighted = False
    in_order = True
    bytes_in_files = 0
    features: list[str] | None = None

    @abstractmethod
    def blocks(self, size: int, order: Iterable[int] | None = None) -> Iterator[Block]:
        """Go through the examples once.

        Args:
            size: rows of a block; batches that others made come as they are.
            order: of the blocks 0, 1, ..., where they can be had in any; None for theirs.
        """

    def weights(self, size: int) -> Iterator[numpy.ndarray] | None:
        """Go through the weights alone, of about so many examples at a time; None where they cannot be had alone."""
        return None

    def count(self, size: int) -> int:
        """Return how many blocks of so many rows there are, where they can be had in any order."""
        assert self.rows is not None
        return -(-self.rows // size)

    @abstractmethod
    def whole(self) -> tuple[Any, Any, Any]:
        """Return all examples, targets and weights in memory, as `fit` is given them."""


# -- arrays ------------------------------------------------------------------------------------------------------------


class NpyFile:
    """An array in a file that numpy.save wrote, read a few rows at a time and never mapped.

    Args:
        path: of the file.
        name: what messages call the array.

    Attributes:
        shape, dtype, nbytes: of the array.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._place = path, f"{name}: {path}"
        with data_file(path, name) as file:
            self._head = npy.header(file, path.stat().st_size, self._place)
        self.shape, self.dtype, self.nbytes = self._head.shape, self._head.dtype, self._head.nbytes
        if self.dtype.kind not in KINDS:
            raise InvalidType(f"{name} must hold real numbers, got a file of type {self.dtype}: {path}")
        if self._head.by_columns and len(self.shape) > 1:
            raise InvalidValue(
                f"{self._place} holds its columns one after the other, so that no rows can be read: save "
                "numpy.ascontiguousarray(array)"
            )
        self._of_a_row = math.prod(self.shape[1:]) * self.dtype.itemsize

    @contextlib.contextmanager
    def opened(self) -> Iterator[Rows]:
        """Open the file; yield what reads rows from it."""
        with self._path.open("rb", buffering=0) as file:
            if npy.header(file, self._path.stat().st_size, self._place) != self._head:
                raise InvalidValue(f"{self._place} has become another array while it was read")

            def read(start: int, stop: int) -> numpy.ndarray:
                rows = numpy.empty((stop - start, *self.shape[1:]), self.dtype)
                file.seek(self._head.start + start * self._of_a_row)
                npy.fill(file, rows, self._place)
                return rows

            yield read


class Arrays(Source):
    """Arrays in memory or mapped from files, or files of `numpy.save`; their blocks can be had in any order.

    Args:
        X: examples (M, n_0).
        y: targets (M,) or (M, n_L), or None.
        sample_weight: weights (M,), or None.
    """

    in_order = False

    def __init__(self, X: Any, y: Any = None, sample_weight: Any = None) -> None:
        optional = {"y": y, "sample_weight": sample_weight}
        others = [None if a is None else _column(a, name) for name, a in optional.items()]
        self.columns: list[Any] = [_column(X, "X"), *others]
        self.features = names_of(X)
        self.weighted = sample_weight is not None
        shape = self.columns[0].shape
        self.rows = shape[0] if shape else 0
        self.bytes_in_files = sum(a.nbytes for a in self.columns if isinstance(a, NpyFile))

    def blocks(self, size: int, order: Iterable[int] | None = None) -> Iterator[Block]:
        """Go through the rows, block k being rows k size..(k + 1) size − 1."""
        assert self.rows is not None
        with contextlib.ExitStack() as stack:
            readers = [None if a is None else stack.enter_context(_opened(a)) for a in self.columns]
            for k in range(self.count(size)) if order is None else order:
                start, stop = k * size, min((k + 1) * size, self.rows)
                yield Block(f"[{start}:{stop}]", *(None if read is None else read(start, stop) for read in readers))

    def weights(self, size: int) -> Iterator[numpy.ndarray] | None:
        """Go through the weights alone."""
        return (block.x for block in Arrays(self.columns[2]).blocks(size))

    def whole(self) -> tuple[Any, Any, Any]:
        """Return the arrays, and what is in files."""
        x, y, w = (_loaded(a) if isinstance(a, NpyFile) else a for a in self.columns)
        return x, y, w

    def bytes_in_place(self, dtype: str) -> int:
        """Return how much of the data lies in memory already in a type; what is mapped from a file does not."""
        arrays = [a for a in self.columns if isinstance(a, numpy.ndarray) and not isinstance(a, numpy.memmap)]
        return sum(a.nbytes for a in arrays if a.dtype == dtype and a.flags.c_contiguous)


def _column(x: Any, name: str) -> Any:
    """Return what rows of an array can be read from."""
    if isinstance(x, NpyFile):
        return x
    if is_path(x):
        path = path_of(x)
        if path.suffix.lower() != ".npy":
            raise InvalidValue(f"{name} must be an array or the path of a .npy file, got {os.fspath(x)!r}")
        return NpyFile(path, name)
    array = inputs.array(x, name)
    return x if isinstance(x, numpy.memmap) else array


@contextlib.contextmanager
def _opened(column: Any) -> Iterator[Rows]:
    if isinstance(column, NpyFile):
        with column.opened() as read:
            yield read
    else:
        yield lambda start, stop: column[start:stop]


def _loaded(file: NpyFile) -> numpy.ndarray:
    with file.opened() as read:
        return read(0, file.shape[0])


def is_path(x: Any) -> bool:
    """Return whether something is the path of a file."""
    return isinstance(x, (str, os.PathLike))


# -- batches -----------------------------------------------------------------------------------------------------------


class Batches(Source):
    """Batches one after the other, from something that can be gone through again for every epoch.

    Args:
        batches: a function without arguments that returns an iterator, or an object that makes a new one each time; of
            pairs (X, y) or triples (X, y, sample_weight).
        with_targets: False for batches of only X, which are read once.
        features: names of the columns of batches that are tables or frames, in order; None for those of the first.

    Raises:
        InvalidType: it cannot be gone through again, or a batch is no pair or triple.
        InvalidValue: there is no batch.
    """

    rows = None

    def __init__(self, batches: Any, with_targets: bool = True, features: Sequence[str] | None = None) -> None:
        self._batches, self._with_targets = batches, with_targets
        self.features = None if features is None else list(features)
        if not with_targets:
            return
        if not callable(batches) and iter(batches) is batches:
            raise InvalidType(
                f"X must be gone through once for every epoch, and a {type(batches).__name__} is used up after the "
                "first: pass a function that returns a new one"
            )
        first = next(self.blocks(1))
        self.weighted = first.w is not None
        if features is None:
            self.features = names_of(first.x)

    def blocks(self, size: int, order: Iterable[int] | None = None) -> Iterator[Block]:
        """Go through the batches, as large as they are."""
        found = -1
        for found, batch in enumerate(self._batches() if callable(self._batches) else self._batches):
            if not self._with_targets:
                yield self._block(found, batch)
                continue
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise InvalidType(
                    f"batch {found} must be a pair (X, y) or a triple (X, y, sample_weight), got {_described(batch)}"
                )
            yield self._block(found, *batch)
        if found < 0:
            raise InvalidValue("there is no batch: X must give at least one in every epoch")

    def _block(self, number: int, x: Any, *others: Any) -> Block:
        place = f" of batch {number}"
        return Block(place, arranged(x, self.features, f"X{place}"), *others)

    def whole(self) -> tuple[Any, Any, Any]:
        """Refuse: nobody knows how much that is."""
        raise InvalidValue("batches are never all in memory: leave stream=False out, or pass arrays")


def _described(batch: Any) -> str:
    return f"{len(batch)} items" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"


def are_batches(X: Any) -> bool:
    """Return whether X is a function or an iterable, and nothing that is an array."""
    return callable(X) or (hasattr(X, "__iter__") and not hasattr(X, "__getitem__") and not hasattr(X, "__array__"))


def is_elsewhere(X: Any) -> bool:
    """Return whether examples are not in memory: a source, mapped from a file, in a file, of Arrow, or batches."""
    return isinstance(X, (numpy.memmap, Source)) or is_path(X) or is_arrow(X) or are_batches(X)


def without_targets(X: Any, features: Sequence[str] | None = None) -> Source:
    """Return examples only as a source, of tables the columns that are named.

    Raises:
        InvalidType: something that holds no examples.
        InvalidValue: a file that cannot be read.
        MissingDependency: pyarrow is not installed.
    """
    if isinstance(X, Source):
        return X
    if is_arrow(X):
        return ArrowTable(X, features=features)
    return Batches(X, with_targets=False, features=features) if are_batches(X) else Arrays(arranged(X, features))


# -- Arrow -------------------------------------------------------------------------------------------------------------

SUFFIXES = {".parquet": "ParquetFileFormat", ".arrow": "IpcFileFormat", ".feather": "IpcFileFormat"}


class ArrowTable(Source):
    """Rows of a Parquet or Arrow file, or of a table or data set of pyarrow, in their order.

    Args:
        table: a path, or an object of pyarrow.
        targets: name of the column of class labels or values, or names of the columns of targets; None for none.
        weight: name of the column of weights, or None.
        features: names of the columns of the examples, in order; None for all other columns, in their order.

    Raises:
        MissingDependency: pyarrow is not installed.
        InvalidValue: the file cannot be read, or has no such column.
    """

    def __init__(
        self, table: Any, targets: Any = None, weight: Any = None, features: Sequence[str] | None = None
    ) -> None:
        self._place = f"X: {path_of(table)}" if is_path(table) else "X"
        self._dataset, names, self.rows = _opened_by_pyarrow(table, self._place)
        self._y = _names(targets, "y", names)
        self._w = _names(weight, "sample_weight", names)
        if len(self._w) > 1:
            raise InvalidValue(f"sample_weight must name one column of X, got {len(self._w)}")
        self._y_is_one = isinstance(targets, str)
        others = [name for name in names if name not in (*self._y, *self._w)]
        self.features = self._x = chosen(others, features, self._place)
        self.weighted = bool(self._w)
        if not self.rows:
            raise InvalidValue(f"{self._place} has no rows; accepted is at least one")
        self.bytes_in_files = 8 * self.rows * len(names)

    def blocks(self, size: int, order: Iterable[int] | None = None) -> Iterator[Block]:
        """Go through the rows in their order; few are read ahead."""
        start = 0
        for batch in self._batches([*self._x, *self._y, *self._w], size):
            place = f"[{start}:{start + batch.num_rows}]"
            y = self._matrix(batch, self._y, f"y{place}") if self._y else None
            w = self._matrix(batch, self._w, f"sample_weight{place}")[:, 0] if self._w else None
            x = self._matrix(batch, self._x, f"X{place}")
            yield Block(place, x, y[:, 0] if self._y_is_one and y is not None else y, w)
            start += batch.num_rows
        if start != self.rows:
            raise InvalidValue(
                f"{self._place} had {self.rows} rows when it was opened, and has {start} now: its file was changed"
            )

    def weights(self, size: int) -> Iterator[numpy.ndarray] | None:
        """Go through the weights alone."""
        return (self._matrix(batch, self._w, "sample_weight")[:, 0] for batch in self._batches(self._w, size))

    def _batches(self, columns: list[str], size: int) -> Iterator[Any]:
        with refusing(f"{self._place} cannot be read by pyarrow"):
            read = self._dataset.to_batches(columns=columns, batch_size=size, batch_readahead=1, fragment_readahead=1)
            for batch in read:
                if batch.num_rows:
                    batch.validate(full=True)  # pyarrow believes the offsets in a file otherwise
                    yield batch

    def _matrix(self, batch: Any, names: Sequence[str], what: str) -> numpy.ndarray:
        """Return columns of a batch side by side."""
        with refusing(f"{self._place} cannot be read by pyarrow"):
            return numpy.stack([self._numbers(batch.column(name), name, what) for name in names], axis=1)

    def _numbers(self, column: Any, name: str, what: str) -> numpy.ndarray:
        if column.null_count:
            raise InvalidValue(
                f"{self._place}: {column.null_count} values of the column {name!r} are missing in {what}: fill them in"
            )
        return inputs.array(column.to_numpy(zero_copy_only=False), f"column {name!r} of {self._place}")

    def whole(self) -> tuple[Any, Any, Any]:
        """Return all rows."""
        return gathered(self)


def gathered(source: Source) -> tuple[Any, Any, Any]:
    """Return all blocks of a source in memory, as `fit` is given them."""
    columns: dict[str, list[Any]] = {"X": [], "y": [], "sample_weight": []}
    for place, *parts in source.blocks(2**17):
        for (name, column), part in zip(columns.items(), parts, strict=True):
            if part is not None:
                column.append(inputs.host(part, f"{name}{place}"))
    if any(column and len(column) < len(columns["X"]) for column in columns.values()):
        raise InvalidValue("sample_weight must be given in all batches or in none")
    x, y, w = (numpy.concatenate(column) if column else None for column in columns.values())
    return x, y, w


def is_arrow(X: Any) -> bool:
    """Return whether X is the path of a file that pyarrow reads, or an object of pyarrow."""
    if is_path(X):
        return Path(X).suffix.lower() in SUFFIXES
    return type(X).__module__.partition(".")[0] == "pyarrow"


def _opened_by_pyarrow(table: Any, place: str) -> tuple[Any, list[str], int]:
    """Return a data set of pyarrow, the names of its columns, each its own, and the number of its rows."""
    try:
        from pyarrow import dataset
    except ImportError as error:
        raise MissingDependency("Parquet and Arrow need pyarrow: pip install 'gpubackprop[arrow]'") from error
    if is_path(table):
        path, file = path_of(table), data_file(path_of(table), "X")
        with file, refusing(f"{place} cannot be read by pyarrow"):
            kind = getattr(dataset, SUFFIXES[path.suffix.lower()])()
            _refuse_twice(kind.inspect(file).names, place)  # of columns of one name pyarrow says no more than that
            table = dataset.dataset(path, format=kind)
    with refusing(f"{place} cannot be read by pyarrow"):
        found = table if isinstance(table, dataset.Dataset) else dataset.dataset(table)
        _refuse_twice(found.schema.names, place)
        return found, found.schema.names, int(found.count_rows())


def _refuse_twice(names: list[str], place: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidValue(f"{place}: more than one column has the name {twice[0]!r}; give each its own")


def _names(given: Any, argument: str, names: Sequence[str]) -> list[str]:
    """Return names of columns, checked."""
    if given is None:
        return []
    asked = [given] if isinstance(given, str) else given
    if not isinstance(asked, (list, tuple)) or not all(isinstance(name, str) for name in asked):
        raise InvalidType(f"{argument} must name columns of X, which is a table of Arrow, got {type(given).__name__}")
    if not asked:
        raise InvalidValue(f"{argument} must name at least one column of X, got none; it has {', '.join(names[:20])}")
    if missing := [name for name in asked if name not in names]:
        raise InvalidValue(f"{argument}: X has no column {missing[0]!r}; it has {', '.join(names[:20])}")
    return list(asked)
