"""What users have called after every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .history import History
from .network import Network

Callback = Callable[[Network, History], Any]


def any_stops(callbacks: Sequence[Callback], net: Network, history: History) -> bool:
    """Call all of them, and return whether one returned True."""
    answers = [callback(net, history) for callback in callbacks]
    return any(isinstance(answer, (bool, numpy.bool_)) and answer for answer in answers)
