"""Files of numpy.save and numpy.savez, read with a bound on every size. Nothing in them is unpickled or run."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Collection
from typing import Any, BinaryIO, NamedTuple

import numpy

from .errors import InvalidType, InvalidValue
from .files import refusing

FOREIGN = "is no file that numpy.save or numpy.savez wrote"
LONGEST = 4096  # bytes of a header; that of an array with 64 dimensions takes 1,500
MOST_DIMENSIONS = 32
CHUNK = 2**20  # bytes read from a member of an archive at a time, and bytes of an archive's directory
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what numpy.savez and numpy.savez_compressed write
RATIO, SMALL = 100, 2**25  # an array of more bytes than SMALL must not take RATIO times its packed bytes


class Header(NamedTuple):
    """What the first bytes of a file say of its array, checked against the file's size.

    Attributes:
        shape: of the array.
        by_columns: whether it is in Fortran order.
        dtype: its type, no records and no Python objects.
        start: bytes of the file before the first value.
    """

    shape: tuple[int, ...]
    by_columns: bool
    dtype: numpy.dtype
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


def header(file: BinaryIO, size: int, place: str) -> Header:
    """Read the header of an array, and leave the file at its first value.

    Args:
        file: at its beginning.
        size: bytes of the whole file.
        place: the name of the file, for messages.

    Returns:
        The header.

    Raises:
        InvalidValue: the file was not written by numpy.save, or is shorter than its array.
        InvalidType: the array holds records or Python objects.
    """
    with refusing(f"{place} {FOREIGN}"):
        found = _parsed(file)
    if found.dtype.hasobject or found.dtype.kind == "V":
        why = ": such files are pickles, which can run code; convert the array first" if found.dtype.hasobject else ""
        raise InvalidType(f"{place} must hold real numbers or strings, got {found.dtype}{why}")
    if found.nbytes > size - found.start or max(found.shape, default=0) > size:
        raise InvalidValue(
            f"{place} ends before its array {found.shape} of {found.dtype} does: it has {size:,} bytes; write it again"
        )
    return found


def array(file: BinaryIO, size: int, place: str) -> numpy.ndarray:
    """Read the array of a file that numpy.save wrote, into memory; the arguments are those of `header`.

    Returns:
        The array.

    Raises:
        InvalidValue: the file was not written by numpy.save, or is shorter than its array.
        InvalidType: the array holds records or Python objects.
    """
    found = header(file, size, place)
    values = numpy.empty(found.shape[::-1] if found.by_columns else found.shape, found.dtype)
    fill(file, values, place)
    if values.dtype.kind == "U" and not _is_text(values):
        raise InvalidValue(f"{place} holds strings of something else than letters: write it again")
    return values.T if found.by_columns else values


def _is_text(values: numpy.ndarray) -> bool:
    """Return whether all codes are letters of Unicode, and no halves of one: Python makes no other strings."""
    codes = values.reshape(-1).view(numpy.dtype("u4").newbyteorder(values.dtype.byteorder))
    return not ((codes > sys.maxunicode) | (codes >> 11 == 0xD800 >> 11)).any()


def fill(file: Any, values: numpy.ndarray, place: str) -> None:
    """Read the values of a contiguous array from a file.

    Args:
        file: at the first value.
        values: array to write into.
        place: the name of the file, for messages.

    Raises:
        InvalidValue: the file ends too early.
    """
    left = values.reshape(-1).view("u1").data if values.size else memoryview(b"")
    while len(left):
        count = file.readinto(left[:CHUNK])
        if not count:
            raise InvalidValue(f"{place} ends before its array {values.shape} does: write it again")
        left = left[count:]


def archived(file: BinaryIO, wanted: Collection[str], place: str) -> tuple[dict[str, numpy.ndarray], list[str]]:
    """Read some arrays of a file that numpy.savez wrote; the others take no memory.

    Args:
        file: the open file.
        wanted: names of the arrays to read, if they are there.
        place: the name of the file, for messages.

    Returns:
        The arrays by name, and the names of all that the file holds.

    Raises:
        InvalidValue: the file was not written by numpy.savez, or an array unpacks to a multiple of its bytes.
        InvalidType: an array holds records or Python objects.
    """
    with refusing(f"{place} {FOREIGN}"), zipfile.ZipFile(_Bounded(file)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays = {name: _member(archive, members[name], f"{place}, array {name}") for name in wanted if name in members}
    return arrays, list(members)


def _parsed(file: BinaryIO) -> Header:
    """Return a header of which only its form is checked; NumPy parses at most `LONGEST` bytes."""
    head = file.read(8)
    if head[:6] != numpy.lib.format.MAGIC_PREFIX or len(head) < 8:
        raise ValueError(f"it begins with {head[:6]!r}, not with {numpy.lib.format.MAGIC_PREFIX!r}")
    version = (head[6], head[7])
    if version not in {(1, 0), (2, 0)}:
        raise ValueError(f"its version is {version}; accepted are (1, 0) and (2, 0)")
    length = file.read(2 if version == (1, 0) else 4)
    if int.from_bytes(length, "little") > LONGEST:
        raise ValueError(f"its header takes {int.from_bytes(length, 'little'):,} bytes, at most {LONGEST:,} are read")
    text = file.read(int.from_bytes(length, "little"))
    read = numpy.lib.format.read_array_header_1_0 if version == (1, 0) else numpy.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(io.BytesIO(length + text))
    if len(shape) > MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"its shape is {shape}")
    if dtype.itemsize == 0:
        raise ValueError(f"its type is {dtype}, of which a value takes no bytes")
    return Header(shape, by_columns, dtype, len(head) + len(length) + len(text))


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str) -> numpy.ndarray:
    """Return an array of an archive, after its sizes were compared with those of the archive's directory."""
    if info.flag_bits & 1:
        raise InvalidValue(f"{place} is encrypted; accepted are files as numpy.savez writes them")
    if info.compress_type not in PACKED:
        raise InvalidValue(
            f"{place} is compressed by method {info.compress_type}; accepted are files of numpy.savez and "
            "numpy.savez_compressed"
        )
    if info.file_size > max(SMALL, RATIO * info.compress_size):
        raise InvalidValue(
            f"{place} unpacks from {info.compress_size:,} to {info.file_size:,} bytes, more than {RATIO} times as "
            "many; if that is right, write it with numpy.savez, which does not pack"
        )
    with archive.open(info) as file:
        return array(file, info.file_size, place)  # type: ignore[arg-type]


class _Bounded(io.RawIOBase):
    """A file of which at most `CHUNK` bytes are read at a time: zipfile reads a directory of any size at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > CHUNK:
            raise ValueError(f"its directory takes {size:,} bytes")
        return self._file.read(CHUNK if size < 0 else size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
