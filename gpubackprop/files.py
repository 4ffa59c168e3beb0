"""Files that are whole or not there: written beside their place, put on the disk, and then moved."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import GpubackpropError, InvalidType, InvalidValue

_NO_FILES = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


def path_of(path: Any) -> Path:
    """Return what was given as a path, checked."""
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidType(f"path must be a string or a pathlib.Path, got {path!r} of type {type(path).__name__}")
    if "\0" in os.fspath(path):
        raise InvalidValue(f"path must not hold the character 0, got {os.fspath(path)!r}")
    return Path(path)


def data_file(path: Path, name: str) -> BinaryIO:
    """Open a file of examples.

    Args:
        path: of the file.
        name: what messages call the examples.

    Returns:
        The file, open in binary mode.

    Raises:
        InvalidValue: it is a folder, a pipe, a socket or a device, which may never end.
        OSError: it cannot be opened.
    """
    if kind := next((kind for is_one, kind in _NO_FILES.items() if is_one(path.stat().st_mode)), None):
        raise InvalidValue(f"{name}: {path} is {kind}; accepted are regular files")
    return path.open("rb")


@contextlib.contextmanager
def refusing(says: str) -> Iterator[None]:
    """Turn every error in reading a damaged file into one: what the libraries raise is no closed list.

    Args:
        says: the message, to which the reason is added.

    Raises:
        InvalidValue: an exception that is not of this package.
        GpubackpropError: one that is, unchanged.
    """
    try:
        yield
    except GpubackpropError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InvalidValue(f"{says} ({reason})") from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` once it is whole and on the disk.

    Args:
        path: of the file to write or replace.

    Yields:
        The file, open in binary mode.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is as it was.
        InvalidType: the path is no path.
        InvalidValue: the path names no file.
    """
    if not path_of(path).name:
        raise InvalidValue(f"path must be that of a file to write, got {os.fspath(path)!r}, which names no file")
    target = Path(os.path.realpath(path))  # what a link points at is replaced, not the link
    if target.exists() and not target.is_file() and not target.is_dir():
        raise InvalidValue(f"path must be that of a file to write, got {os.fspath(path)!r}, a pipe or a device")
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")  # short: the name of the target may be of any length
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def remove_temporaries(folder: Path) -> None:
    """Delete what writers that were killed have left in a folder into which nobody else writes."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put a folder's new entry on the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
