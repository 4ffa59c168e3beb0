"""Autotuning: time equivalent implementations once and cache the fastest. Off unless GPUBACKPROP_AUTOTUNE=1."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from ..errors import CudaLibraryError
from ..locks import Locked
from .choices import Choices

ENVIRONMENT_VARIABLE = "GPUBACKPROP_AUTOTUNE"
ROUNDS = 5  # of which the fastest counts
MARGIN = 0.97  # of the time of the first way: another has to be faster than that


class Clock(Locked):
    """Choices by the clock of one device.

    Implementations differ in the order of their sums. A cached choice is used again, in this process and in the next,
    so that the same work gives the same bits.

    Args:
        xp: CuPy.
        choices: those that were made before on such a device with these libraries.

    Attributes:
        enabled: whether implementations are timed; otherwise the first one is used.
        taken: what was taken in this process, by key.
    """

    def __init__(self, xp: Any, choices: Choices) -> None:
        super().__init__()
        self._xp, self._choices = xp, choices
        self.enabled = os.environ.get(ENVIRONMENT_VARIABLE) == "1"
        self.taken: dict[tuple[Any, ...], str] = {}

    def fastest(self, key: tuple[Any, ...], ways: Mapping[str, Callable[[], None]]) -> str:
        """Return the name of the fastest implementation: the first, unless another is clearly faster.

        Args:
            key: what is done, and all that its time depends on.
            ways: functions that enqueue the same work on the current stream; each is called more than once, but where
                the choice was made before.

        Returns:
            The name.

        Raises:
            CudaLibraryError: the first way cannot be gone; another that cannot is not taken.
        """
        if not self.enabled:
            return next(iter(ways))
        if key not in self.taken:
            with self.lock:  # one answer for all threads; a way may ask the clock about the products in it
                if key not in self.taken:
                    self.taken[key] = self._take("-".join(map(str, key)), ways)
        return self.taken[key]

    def _take(self, name: str, ways: Mapping[str, Callable[[], None]]) -> str:
        """Return the way that was taken before under a name, else the one that is faster now, and keep it."""
        taken = self._choices.get(name)
        if taken is None or taken not in ways:
            taken = self._measured(ways)
            self._choices.keep(name, taken)
        return taken

    def _measured(self, ways: Mapping[str, Callable[[], None]]) -> str:
        taken, *others = ways
        least = MARGIN * self._time(ways[taken])
        for name in others:
            with contextlib.suppress(CudaLibraryError):
                time = self._time(ways[name])
                if time < least:
                    taken, least = name, time
        return taken

    def _time(self, way: Callable[[], None]) -> float:
        """Return the least time of a way in milliseconds."""
        way()
        events = [self._xp.cuda.Event() for _ in range(ROUNDS + 1)]
        for event in events[:-1]:
            event.record()
            way()
        events[-1].record()
        events[-1].synchronize()
        elapsed = self._xp.cuda.get_elapsed_time
        return min(float(elapsed(begin, end)) for begin, end in pairwise(events))
