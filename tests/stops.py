"""Signals that come in a step that is chosen."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from gpubackprop.run import Run


@contextlib.contextmanager
def at_step(step: int, number: signal.Signals, times: int = 1) -> Iterator[None]:
    """Send a signal to this process while the run takes that step."""
    real = Run._take

    def take(self: Run, *rest: Any) -> None:
        before = self.t
        real(self, *rest)
        if self.t >= step > before:
            for _ in range(times):
                signal.raise_signal(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_take", take)
        yield
