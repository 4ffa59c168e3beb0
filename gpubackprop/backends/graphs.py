"""Work that a device repeats from a CUDA graph, without the host that enqueues it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Beside(threading.local):
    """A second stream of each thread, for work that runs beside what is enqueued on the current one.

    Args:
        xp: CuPy.

    Attributes:
        inside: True within `work`.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._stream: Any = None
        self._busy = self.inside = False

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Enqueue on the second stream, after all that the current one has been given so far."""
        if self._stream is None:
            self._stream = self._xp.cuda.Stream(non_blocking=True)
        self._order(self._xp.cuda.get_current_stream(), self._stream)
        self._busy = self.inside = True
        try:
            with self._stream:
                yield
        finally:
            self.inside = False

    def join(self) -> None:
        """Order what the current stream is given from now on after the work so far."""
        if self._busy:
            self._order(self._stream, self._xp.cuda.get_current_stream())
            self._busy = False

    def _order(self, first: Any, then: Any) -> None:
        event = self._xp.cuda.Event(disable_timing=True)
        event.record(first)
        then.wait_event(event)


class Recording:
    """Work that is run as it is the first time, captured the second time, and replayed from then on.

    The first run compiles kernels, chooses algorithms and makes scratch memory, none of which a capture allows. What a
    graph reads and writes stays where it was: the work keeps its arrays, and this keeps their scratch.

    Args:
        xp: CuPy.
        work: what to do; it allocates nothing and waits for nothing after its first run.
        scratch: returns the scratch memory that the work uses.
    """

    def __init__(self, xp: Any, work: Callable[[], None], scratch: Callable[[], list[Any]]) -> None:
        self._xp, self._work, self._scratch = xp, work, scratch
        self._ran = False
        self._graph: Any = None
        self._kept: list[Any] = []

    def __call__(self) -> None:
        """Do the work on the current stream."""
        if not self._ran:
            self._work()
            self._ran = True
            return
        if self._graph is None:
            self._graph = self._captured()
        self._graph.launch()

    def _captured(self) -> Any:
        """Return the graph of the work; nothing of it is done yet."""
        stream = self._xp.cuda.Stream(non_blocking=True)  # the default stream cannot be captured
        with stream:
            stream.begin_capture()
            try:
                self._work()
            except BaseException:
                with contextlib.suppress(Exception):  # whatever it says of the work that broke off
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        self._kept = self._scratch()
        return graph
