"""Files that are whole or not there: written beside their place, put on the disk, and then moved."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from functools import partial
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
_LINKS = 40  # on the way of one path, as Linux counts them
_ACCESS_LIST = "system.posix_acl_access"


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

    A file that is replaced hands on its mode, its access list and, if this user may give files away, its owner.

    Args:
        path: of the file to write or replace.

    Yields:
        The file, open in binary mode.

    Raises:
        OSError: the folder or the file to replace cannot be written, the disk is full, or another user may have made a
            link on the way; `path` is as it was.
        InvalidType: the path is no path.
        InvalidValue: the path names no file.
    """
    if not path_of(path).name:
        raise InvalidValue(f"path must be that of a file to write, got {os.fspath(path)!r}, which names no file")
    target = followed(path)  # what a link points at is replaced, not the link
    if target.exists() and not target.is_file() and not target.is_dir():
        raise InvalidValue(f"path must be that of a file to write, got {os.fspath(path)!r}, a pipe or a device")
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")  # short: the name of the target may be of any length
    try:
        with _created(temporary, target) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary), str(target)):
            error.filename = os.fspath(path)  # the one that the caller knows
            del error.filename2
        raise
    _sync_folder(target.parent)


def followed(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path without links, of which the last names need not be there.

    A link counts only if it was made by this user, by root, or by the owner of its folder. In a folder such as /tmp
    everybody can make one, which would lead to a file that they may not write themselves.

    Raises:
        PermissionError: another user made such a link.
        OSError: a link leads to itself, or a folder cannot be searched.
    """
    if os.name != "posix":
        return Path(os.path.realpath(path))
    rest, here, links = [*reversed(Path(path).absolute().parts)], Path(), 0
    while rest:
        name = rest.pop()
        place = here.parent if name == ".." else here / name
        if not place.is_symlink():
            here = place
            continue
        owner, links = place.lstat().st_uid, links + 1
        if owner not in {os.geteuid(), 0, here.stat().st_uid}:
            raise PermissionError(
                errno.EACCES, f"a link that another user (uid {owner}) made is on the way", str(place)
            )
        if links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(place))
        rest += reversed((here / place.readlink()).parts)
        here = Path()
    return here


@contextlib.contextmanager
def _created(temporary: Path, target: Path) -> Iterator[BinaryIO]:
    """Open a new file with the rights of the one that it is to replace, which must be writable too."""
    with contextlib.ExitStack() as stack:
        mode = 0o666  # of which the umask takes its part
        with contextlib.suppress(FileNotFoundError):
            old = os.open(target, os.O_WRONLY)
            stack.callback(os.close, old)
            mode = 0o600  # until its rights are those of the old one
        file = stack.enter_context(open(temporary, "xb", opener=partial(os.open, mode=mode)))
        if mode == 0o600 and os.name == "posix":
            _hand_on_rights(old, file.fileno())
        yield file


def _hand_on_rights(old: int, new: int) -> None:
    """Give a file the owner, the access list and the mode of another; rights do not grow if that cannot be."""
    found = os.fstat(old)
    mode = found.st_mode & 0o777
    try:
        os.fchown(new, found.st_uid, found.st_gid)
    except OSError:  # only root gives files away
        try:
            os.fchown(new, -1, found.st_gid)
        except OSError:  # not a member: another group gets what everybody has
            mode &= ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    if hasattr(os, "getxattr"):
        _copy_access_list(old, new)
    os.fchmod(new, mode)


def _copy_access_list(old: int, new: int) -> None:
    """Copy the list of further users with rights; without one, remove that which the folder may give."""
    try:
        entries = os.getxattr(old, _ACCESS_LIST)
    except OSError:
        with contextlib.suppress(OSError):
            os.removexattr(new, _ACCESS_LIST)
    else:
        os.setxattr(new, _ACCESS_LIST, entries)


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
