"""Read tensors of a safetensors file one at a time from an open descriptor.

The file is not mapped into memory: if somebody shortens a mapped file, access to the map ends the process.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy

LONGEST = 2**20  # bytes of a header: JSON takes many times its length in memory, and is read before it is checked
KINDS = {
    **{"BOOL": "?", "I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4"},
    **{"I64": "<i8", "U64": "<u8", "F16": "<f2", "F32": "<f4", "F64": "<f8"},
}  # of NumPy, by the names of the format
_DIMENSIONS = 32  # at most: the product of many numbers takes long


class Entry(NamedTuple):
    """One tensor of a file.

    Attributes:
        kind: type of the elements, as the format names it.
        shape: of the tensor.
        start: place of the first byte in the file.
        stop: place behind the last byte.
    """

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """An open safetensors file whose header fits its length.

    Args:
        file: open for reading, not buffered; whoever opened it closes it.

    Attributes:
        metadata: content of the header's entry for what is no tensor.
        entries: the tensors by name.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: the file has another format.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._state = file, _state(file)
        size = self._state[0]
        length = int.from_bytes(self._bytes(0, 8), "little")
        if length > LONGEST:
            raise ValueError(f"its header would take {length:,} bytes")
        header = json.loads(self._bytes(8, length).tobytes().decode(), object_pairs_hook=_once)
        self.metadata = header.pop("__metadata__", {})
        self.entries = {name: _entry(name, given, 8 + length) for name, given in header.items()}
        _check_places(self.entries, 8 + length, size)

    def read(self, name: str, rows: slice | None = None) -> numpy.ndarray:
        """Return a new array of the values of a tensor.

        Args:
            name: of the tensor.
            rows: which of its first dimension, with start and stop; None for all.

        Raises:
            ValueError: the file was changed since it was opened.
        """
        entry = self.entries[name]
        dtype = numpy.dtype(KINDS[entry.kind])
        if rows is None:
            return self._bytes(entry.start, entry.stop - entry.start).view(dtype).reshape(entry.shape)
        row = math.prod(entry.shape[1:]) * dtype.itemsize
        values = self._bytes(entry.start + rows.start * row, (rows.stop - rows.start) * row)
        return values.view(dtype).reshape(-1, *entry.shape[1:])

    def _bytes(self, start: int, count: int) -> numpy.ndarray:
        """Return bytes of the file; a file that was rewritten meanwhile would give those of two contents."""
        if start + count > self._state[0]:
            raise ValueError(f"it has {self._state[0]:,} bytes, and {start + count:,} are needed")
        values = numpy.empty(count, "u1")
        left = memoryview(values.data)
        self._file.seek(start)
        while left and (read := self._file.readinto(left)):  # type: ignore[attr-defined]
            left = left[read:]
        if left or _state(self._file) != self._state:
            raise ValueError("it was changed while it was read: load it again when its writer is done")
        return values


def opened(place: Path) -> BinaryIO:
    """Open a regular file for reading, not buffered.

    Args:
        place: path of the file.

    Returns:
        The file; the caller closes it.

    Raises:
        ValueError: it is a pipe or a device, which might never end.
        OSError: it cannot be opened.
    """
    file = open(place, "rb", buffering=0, opener=_at_once)  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise ValueError("a pipe or a device")


def _at_once(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer is opened without waiting for one."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _state(file: BinaryIO) -> tuple[int, int]:
    """Return size and time of the last change of a file."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object whose names differ."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header has a name twice")
    return found


def _entry(name: str, given: Any, offset: int) -> Entry:
    """Return the description of a tensor, whose shape, type and place fit each other."""
    kind, shape, (start, stop) = given["dtype"], given["shape"], given["data_offsets"]
    if not (isinstance(shape, list) and len(shape) <= _DIMENSIONS and all(map(_is_count, [*shape, start, stop]))):
        raise ValueError(f"{name} is of no shape or at no place")
    if kind not in KINDS:
        raise ValueError(f"{name} is of {kind}; accepted are {', '.join(KINDS)}")
    if stop - start != math.prod(shape) * numpy.dtype(KINDS[kind]).itemsize:
        raise ValueError(f"{name} does not fit its place")
    return Entry(kind, tuple(shape), offset + start, offset + stop)


def _is_count(number: Any) -> bool:
    return type(number) is int and number >= 0


def _check_places(entries: dict[str, Entry], start: int, end: int) -> None:
    """Refuse tensors that overlap, leave gaps, or end elsewhere than the file."""
    ordered = sorted(entries.values(), key=lambda entry: (entry.start, entry.stop))
    edges = [start, *itertools.chain.from_iterable((entry.start, entry.stop) for entry in ordered), end]
    if edges[::2] != edges[1::2]:
        raise ValueError("its tensors do not lie one behind the other up to its end")
