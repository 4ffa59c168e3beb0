"""A folder for one training at a time: the system releases the lock when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = ".lock"
_held: weakref.WeakSet[BinaryIO] = weakref.WeakSet()


def lock(folder: Path) -> Callable[[], None]:
    """Lock a folder against every other call, of this process too; without a lock on Windows, which has no `flock`.

    Args:
        folder: it is there.

    Returns:
        The function that releases the lock.

    Raises:
        BlockingIOError: somebody holds the lock; its `filename` says who.
        OSError: the file of the lock cannot be written, or the file system has no locks.
    """
    if fcntl is None:
        return lambda: None
    path = folder / _NAME
    while True:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(path, "a+b", buffering=0, opener=_not_by_links))
            _acquire(file)
            if _is_at(file, path):  # otherwise its holder deleted it after it was opened here
                stack.pop_all()
                break
    _held.add(file)
    with contextlib.suppress(OSError):  # a full disk
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    return partial(_release, file, path)


def _not_by_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _acquire(file: BinaryIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        error.filename = file.read(200).decode(errors="replace") or "a process that does not say which"
        raise


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _release(file: BinaryIO, path: Path) -> None:
    """Delete the file and release the lock, except in a child of `os.fork`, which does not hold it."""
    if not file.closed:
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()


def _close_all() -> None:
    """Close the copies that a child has: they would hold the locks after its parent was killed."""
    for file in list(_held):
        file.close()


if fcntl is not None:
    os.register_at_fork(after_in_child=_close_all)
