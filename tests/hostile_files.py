"""Files of examples with one fault each, which would take much memory or time if they were believed."""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
from damage import FEATURES, LABELS, ROWS, X


def _head(shape: str, length: int | None = None) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(text) if length is None else length) + text


def _sparse(content: bytes, size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)
        os.truncate(path, size)

    return write


def _archive(members: Mapping[str, bytes | int], method: int = zipfile.ZIP_DEFLATED) -> Callable[[Path], None]:
    """Return what writes an archive; a number stands for an array of as many zeros, of 8 bytes each."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
            for name, content in members.items():
                with archive.open(f"{name}.npy", "w") as file:
                    if isinstance(content, bytes):
                        file.write(content)
                        continue
                    file.write(_head(f"({content // FEATURES}, {FEATURES})"))
                    for _ in range(content // 2**17):
                        file.write(bytes(2**20))

    return write


def _of(array: Any) -> bytes:
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


def _encrypted(path: Path) -> None:
    """Write an archive whose directory marks its first member as encrypted."""
    _archive(PAIR)(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _columns_twice(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([1.0, 2.0])] * 2, names=["b", "b"]), path)


def _feather(columns: Callable[[Any], list[Any]], find: bytes = b"", put: bytes = b"") -> Callable[[Path], None]:
    """Return what writes a file of Arrow with the columns x0, ..., y and w, and bytes of it replaced."""

    def write(path: Path) -> None:
        import pyarrow
        import pyarrow.feather

        found, file = columns(pyarrow), io.BytesIO()
        names = [*(f"x{k}" for k in range(len(found) - 2)), "y", "w"]
        pyarrow.feather.write_feather(pyarrow.table(dict(zip(names, found, strict=True))), file, "uncompressed")
        path.write_bytes(file.getvalue().replace(find, put))

    return write


def _union(pyarrow: Any) -> list[Any]:
    values = [pyarrow.array([1.0, 2.0])]
    return [pyarrow.UnionArray.from_sparse(pyarrow.array([0, 0], pyarrow.int8()), values)] * (FEATURES + 2)


BOMB = 40 * 2**20  # numbers, of which all take 320 MiB
PAIR: dict[str, bytes | int] = {"X": _of(X), "y": _of(LABELS)}
LETTERS = _of(numpy.array(["a", "b"] * (ROWS // 2))).replace(b"b\0\0\0", b"\xff" * 4)
NOT_REGULAR, ENDINGS = "accepted are regular files", (".npy", ".npz", ".csv", ".parquet", ".arrow")
# By name: the ending of the file, what writes it, and what the error says; nothing if the file is read.
HOSTILE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "4 GB of promises": (".npy", _sparse(_head("(500000000, 1)"), 1000), "ends before its array"),
    "a header of 2 GB": (".npy", _sparse(_head("(2, 2)", 2**31 - 1), 2**31), "its header takes 2,147,483,647 bytes"),
    "many signs": (".npy", _sparse(_head("-" * 4000 + "1"), 5000), "is no file that numpy.save"),
    "many parentheses": (".npy", _sparse(_head("(" * 3000), 5000), "is no file that numpy.save"),
    "true for a number": (".npy", _sparse(_head("(True, 2)"), 5000), "its shape is"),
    "rows without end": (".npy", _sparse(_head("(1000000000000, 0)"), 5000), "ends before its array"),
    "negative": (".npy", _sparse(_head("(-2, -2)"), 5000), "its shape is"),
    "a bomb that nobody reads": (".npz", _archive({**PAIR, "other": BOMB}), ""),
    "a bomb": (".npz", _archive({"X": BOMB, "y": _of(LABELS)}), "more than 100 times"),
    "promises in an archive": (".npz", _archive({**PAIR, "X": _head("(500000000, 8)")}), "ends before its array"),
    "encrypted": (".npz", _encrypted, "array X is encrypted"),
    "bzip2": (".npz", _archive(PAIR, zipfile.ZIP_BZIP2), "is compressed by method 12"),
    "xz": (".npz", _archive(PAIR, zipfile.ZIP_LZMA), "is compressed by method 14"),
    "no array": (".npz", _archive({**PAIR, "y": b"hello"}), "is no file that numpy.save"),
    "many members": (".npz", _archive({**PAIR, **{str(k): b"" for k in range(20_000)}}), "its directory takes"),
    "no letters": (".npz", _archive({**PAIR, "y": LETTERS}), "something else than letters"),
    "zeros without a line": (".csv", _sparse(b"", 2**30), "a row takes more than 8,388,608 characters"),
    "a quote in every line": (".csv", lambda path: path.write_bytes(b'1,"\n",' * 2**21), "a row takes more than"),
    "an endless device": (".csv", lambda path: path.symlink_to("/dev/zero"), NOT_REGULAR),
    "a socket": (".csv", _socket, NOT_REGULAR),
    "more rows than bytes": (
        ".arrow",
        _feather(
            lambda pyarrow: [pyarrow.array([0.0] * 4099)] * 6, *((n).to_bytes(8, "little") for n in (4099, 10**7))
        ),
        "cannot be read by pyarrow",
    ),
    "a union": (".arrow", _feather(_union), "cannot be read by pyarrow"),
    "columns twice": (".parquet", _columns_twice, "more than one column has the name 'b'"),
    **{f"a pipe, {suffix}": (suffix, os.mkfifo, NOT_REGULAR) for suffix in ENDINGS},
    **{f"a folder, {suffix}": (suffix, Path.mkdir, NOT_REGULAR) for suffix in ENDINGS},
}
