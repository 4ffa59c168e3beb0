"""Files that are kept from process to process, in a folder into which no other user can put anything.

The folder is opened level by level, without following links, and each level is checked by its descriptor. Files are
read and written relative to the last descriptor, so nobody can exchange a folder after it was checked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..files import followed, replacing

ENVIRONMENT_VARIABLE = "GPUBACKPROP_CACHE_DIR"
_LARGEST = 2**26  # bytes of a file that is read
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """Return the folder; for a user without a home, one that cannot be."""
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    try:
        return Path(given) if given else Path.home() / ".cache" / "gpubackprop"
    except RuntimeError:
        return Path(os.devnull)


def why_not() -> str | None:
    """Return why nothing is kept in the folder, with the remedy, or None if it is."""
    if os.name != "posix":
        return None
    try:
        with contextlib.suppress(FileNotFoundError), _opened("."):  # it is made when there is something to keep
            pass
    except OSError as error:
        return f"{error.strerror} ({error.filename}): mend that, or set {ENVIRONMENT_VARIABLE} to a folder of yours"
    return None


def read(name: str) -> bytes:
    """Return the content of a file.

    Args:
        name: of the file, with folders before it.

    Returns:
        What this user wrote.

    Raises:
        PermissionError: another user may have written it.
        OSError: there is no such file.
    """
    if os.name != "posix":
        return (cache_folder() / name).read_bytes()
    path = PurePosixPath(name)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with _opened(str(path.parent)) as folder, os.fdopen(os.open(path.name, flags, dir_fd=folder), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise PermissionError(errno.EACCES, "no file of a cache", name)
        _check(found, name, {os.geteuid()})
        return file.read(_LARGEST)


def write(name: str, content: bytes) -> None:
    """Write a file that only this user can read; it takes the place of another.

    Args:
        name: of the file, with folders before it, which are made.
        content: of the file.

    Raises:
        OSError: it cannot be written, or another user could exchange it.
    """
    path = PurePosixPath(name)
    if os.name != "posix":
        (cache_folder() / path.parent).mkdir(parents=True, exist_ok=True)
        with replacing(cache_folder() / path) as file:
            file.write(content)
        return
    with _opened(str(path.parent), make=True) as folder:
        temporary = f".{secrets.token_hex(8)}.tmp"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
                os.fchmod(file.fileno(), 0o600)  # whatever the umask
                file.write(content)
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise


@contextlib.contextmanager
def _opened(below: str, make: bool = False) -> Iterator[int]:
    """Open a folder below the cache's.

    Args:
        below: path from there.
        make: whether levels that are missing are made.

    Yields:
        A descriptor of the folder, which is this user's and which nobody else can write.
    """
    place = followed(cache_folder() / below)
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}  # root has another number in a container of a user's own
    with contextlib.ExitStack() as stack:
        descriptor: int | None = None
        for level in (*reversed(place.parents), place):
            descriptor = _level(descriptor, level, make)
            stack.callback(os.close, descriptor)
            _check(os.fstat(descriptor), str(level), trusted, shared=level != place)
        assert descriptor is not None
        _check(os.fstat(descriptor), str(place), {os.geteuid()})
        yield descriptor


def _level(above: int | None, level: Path, make: bool) -> int:
    """Open a folder in another; neither needs to be readable."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", 0)
    name = level.name or level.anchor
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=above)
        return os.open(name, flags, dir_fd=above)
    except OSError as error:
        error.filename = str(level)
        raise


def _check(found: os.stat_result, name: str, owners: set[int], shared: bool = False) -> None:
    """Refuse what users other than some own or can write; in shared folders that are sticky nobody can move it."""
    if found.st_uid not in owners:
        raise PermissionError(errno.EACCES, f"it belongs to another user (uid {found.st_uid})", name)
    if found.st_mode & _OTHERS_WRITE and not (shared and found.st_mode & stat.S_ISVTX):
        raise PermissionError(errno.EACCES, f"other users can write it (mode {stat.S_IMODE(found.st_mode):o})", name)
