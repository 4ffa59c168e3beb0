"""Work that a device repeats from a CUDA graph, without the host that enqueues it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
            finally:
                graph = stream.end_capture()
        self._kept = self._scratch()
        return graph
