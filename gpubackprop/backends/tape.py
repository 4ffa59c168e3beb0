"""A training step on NumPy as the list of calls that it is, repeated without the Python that found them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

Calls = list[Callable[[], Any]]

_MAKES_MEMORY = {"empty", "full"}  # which a recording keeps by the arrays that its calls are given


class Tape(threading.local):
    """What a thread does while it records."""

    def __init__(self) -> None:
        self.calls: Calls | None = None

    @contextlib.contextmanager
    def recording(self) -> Iterator[Calls]:
        """Note every call of `do`; yield the list of them."""
        calls = self.calls = []
        try:
            yield calls
        finally:
            self.calls = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Note nothing: neither calls within one of `do`, nor what interrupts a recording, in a signal handler."""
        calls, self.calls = self.calls, None
        try:
            yield
        finally:
            self.calls = calls

    def do(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Call a function that writes into arrays it is given, and note the call where the thread records."""
        call = partial(function, *arguments, **named)
        if self.calls is not None:
            self.calls.append(call)
        with self.paused():
            call()


class Recording:
    """Work that is done as it is the first time, and repeated call by call from then on.

    Args:
        tape: on which the work notes its calls.
        work: what to do; what changes from one time to the next lies in arrays that stay the same.
    """

    def __init__(self, tape: Tape, work: Callable[[], None]) -> None:
        self._tape, self._work = tape, work
        self._calls: Calls | None = None

    def __call__(self) -> None:
        """Do the work."""
        if self._calls is None:
            with self._tape.recording() as calls:
                self._work()
            self._calls = calls
            return
        for call in self._calls:
            call()


class Taped:
    """The functions of an array module, each call noted on a tape.

    Args:
        module: NumPy.
        tape: the tape.
    """

    def __init__(self, module: ModuleType, tape: Tape) -> None:
        self._module, self._tape = module, tape

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # of a copy that has nothing yet
            raise AttributeError(name)
        function = getattr(self._module, name)
        if not callable(function) or isinstance(function, type) or name in _MAKES_MEMORY:
            return function
        setattr(self, name, self._noted(name, function))
        return getattr(self, name)

    def _noted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        operands = getattr(function, "nin", None)

        def noted(*arguments: Any, **named: Any) -> Any:
            if self._tape.calls is None:
                return function(*arguments, **named)
            writes = "out" in named or name == "copyto" or (operands is not None and len(arguments) > operands)
            assert writes, f"{name} is recorded, but has nowhere to write"
            return self._tape.do(function, *arguments, **named)

        return noted
