"""Locks that a forked child never waits for, and that a signal handler never waits for itself at.

A thread that holds a lock while another one forks is not in the child, where nobody would ever release the lock.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

_at_fork: Callable[..., None] = getattr(os, "register_at_fork", lambda **hooks: None)  # Windows has no fork


def held_over_forks(in_child: Callable[[], None]) -> Any:
    """Return a reentrant lock that only the thread which forks holds during a fork.

    It is for a few instructions at a time, since a fork waits for it. What it guards is whole in the child.

    Args:
        in_child: is called in the child, with the lock held.

    Returns:
        The lock. Enter it by ``with``: it is written in C, so that no signal comes between entering and leaving.
    """
    lock = threading.RLock()

    def release_in_child() -> None:
        try:
            in_child()
        finally:
            lock.release()

    _at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=release_in_child)
    return lock


# Held while a module is imported at its first use: Python's lock of a module that a thread imports is lost in a child.
importing = held_over_forks(lambda: None)


class Locked:
    """An object with a reentrant lock that may be held for long; a forked child gets a new one.

    Attributes:
        lock: the lock. What it guards has to be usable at any point, in the child and in a signal handler.
    """

    def __init__(self) -> None:
        self._renew_lock()
        _locked.add(self)

    def _renew_lock(self) -> None:
        self.lock = threading.RLock()


_locked: weakref.WeakSet[Locked] = weakref.WeakSet()


def _renew_all() -> None:
    for owner in list(_locked):
        owner._renew_lock()


_at_fork(after_in_child=_renew_all)
