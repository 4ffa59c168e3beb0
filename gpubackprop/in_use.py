"""Calls under way on each network or estimator: a call that would change the result of another is refused."""

from __future__ import annotations

import threading

from .errors import InUse
from .locks import held_over_forks


class Use:
    """One call that uses an object. It is refused if it would change the result of a call under way, or the reverse.

    A call is under way in another thread, or in this one: a callback or a signal handler then makes a call within it.

    Enter it twice, as a `Running`: an exception of a signal handler then never leaves the object in use.

    Args:
        used: the object; the message calls it by its class.
        call: the name of the call.
        writes: whether the call changes parameters: it then excludes the calls of other threads. If not, it excludes
            only those that do.
        trains: whether the call trains: it then excludes every call, of this thread too.

    Raises:
        InUse: on entering, the call is refused; nothing has changed.
    """

    def __init__(self, used: object, call: str, *, writes: bool = False, trains: bool = False) -> None:
        self.used, self.call, self.writes, self.trains = used, call, writes or trains, trains
        self.thread = threading.current_thread()

    def __enter__(self) -> None:
        try:
            with _lock:
                for other in list(_uses):
                    if other is not self and other.used is self.used:
                        self._check_against(other)
                _uses[self] = None
        except BaseException:  # also one of a signal handler
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        _uses.pop(self, None)

    def _check_against(self, other: Use) -> None:
        name = f"this {type(self.used).__name__}"
        if other.thread is not self.thread and (self.writes or other.writes):
            raise InUse(
                f"{self.call} cannot use {name} while {other.call} uses it in the thread {other.thread.name!r}: wait "
                f"until that has returned, or use a copy (copy.deepcopy)"
            )
        if other.thread is self.thread and self.trains:
            raise InUse(
                f"{self.call} cannot train {name} within {other.call}, which uses it: train a copy (copy.deepcopy), or "
                f"train after {other.call} has returned"
            )


_uses: dict[Use, None] = {}  # that are under way


def _forget_other_threads() -> None:
    """Drop the uses of threads that are not in this process, which is a forked child."""
    for use in list(_uses):
        if use.thread is not threading.current_thread():
            del _uses[use]


_lock = held_over_forks(in_child=_forget_other_threads)
