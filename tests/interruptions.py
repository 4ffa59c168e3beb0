"""Interrupt a call wherever Python may run a signal handler."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any


def places(call: Callable[[], Any]) -> int:
    """Return how many places `at` knows in a call."""
    return at(0, lambda: None, call)


def at(place: int, handler: Callable[[], Any], call: Callable[[], Any]) -> int:
    """Run a call, and a handler in it at one place.

    Python runs handlers at the first instruction of a function and after a call of a function in C, which are the
    places counted here, and between the rounds of a loop. Callbacks of weak references are left out, since Python
    drops their exceptions, and the collector rests, since it would move the places.

    Args:
        place: the number of the place, from 1.
        handler: what to run there; its exception comes out of the instruction.
        call: what to interrupt.

    Returns:
        The number of places that were passed.
    """
    passed = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal passed
        if event in ("call", "c_return") and frame.f_code.co_filename != weakref.__file__:
            passed += 1
            if passed == place:
                sys.setprofile(None)
                handler()

    collects = gc.isenabled()
    gc.disable()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
        if collects:
            gc.enable()
    return passed
