"""Whatever a computation changes of the process and of its thread while it runs, restored when it ends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy

from ..errors import OutOfMemory

if TYPE_CHECKING:
    from .program import Scratch
    from .tape import Tape


class Running:
    """The state in which a computation runs.

    NumPy does not warn: overflow and NaN are reported by the caller, which knows the cause. The tape records nothing.
    Scratch memory is that of this level: a signal handler that computes leaves what it interrupted alone.

    Python handles signals at the first instruction of `__exit__`, too, before any of it ran. So enter a computation
    twice, by ``with (running := backend.running(flops)), running:``, and one interruption anywhere leaves nothing
    changed. The second time does nothing by itself.

    Args:
        tape: that of the backend.
        scratch: that of the backend.
        threads: limits the threads of the matrix products.
    """

    def __init__(self, tape: Tape, scratch: Scratch, threads: contextlib.AbstractContextManager[Any]) -> None:
        self._tape, self._scratch, self._threads = tape, scratch, threads
        self._before: tuple[Any, ...] | None = None
        self._ended = False

    def __enter__(self) -> None:
        if self._before is None:
            self._before = self._state()
            try:
                self._begin()
            except BaseException:
                self.__exit__(None, None, None)
                raise

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if not self._ended and self._before is not None:
            self._restore(*self._before)
            self._ended = True

    def _state(self) -> tuple[Any, ...]:
        """Return what `_restore` is given."""
        return numpy.geterr(), self._tape.calls, self._scratch.level

    def _begin(self) -> None:
        numpy.seterr(all="ignore")
        self._tape.calls = None
        self._scratch.level += 1
        self._threads.__enter__()

    def _restore(self, errors: Any, calls: Any, level: int) -> None:
        """Restore the state; once more does no harm."""
        self._threads.__exit__(None, None, None)
        self._scratch.level = level
        self._tape.calls = calls
        numpy.seterr(**errors)


class RunningOnDevice(Running):
    """The same on a device, which is then the current one; a lack of memory there says what would help.

    Args:
        tape: that of the backend.
        scratch: that of the backend.
        xp: CuPy.
        index: number of the device.
    """

    def __init__(self, tape: Tape, scratch: Scratch, xp: Any, index: int) -> None:
        super().__init__(tape, scratch, contextlib.nullcontext())
        self._runtime, self._lacks_memory, self._index = xp.cuda.runtime, xp.cuda.memory.OutOfMemoryError, index

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, self._lacks_memory):
            free, total = self._runtime.memGetInfo()
            super().__exit__(kind, error, traceback)
            raise OutOfMemory(
                f"the device cuda:{self._index} has {free:,} of {total:,} bytes free: {error}; take a smaller "
                'batch_size, keep the data on the host, or use backend="numpy"'
            ) from error
        super().__exit__(kind, error, traceback)

    def _state(self) -> tuple[Any, ...]:
        return self._runtime.getDevice(), *super()._state()

    def _begin(self) -> None:
        super()._begin()
        self._runtime.setDevice(self._index)

    def _restore(self, device: int, *rest: Any) -> None:
        self._runtime.setDevice(device)
        super()._restore(*rest)
