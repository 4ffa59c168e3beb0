"""The standard streams, which may be missing, closed, or read by nobody any more."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from typing import Any


def is_terminal(stream: Any) -> bool:
    """Return whether a stream is there, open, and a terminal."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return bool(stream.isatty())
    return False


def is_open(stream: Any) -> bool:
    """Return whether a stream is there and can be written, as far as that is known before."""
    try:
        if stream is None or stream.closed:
            return False
        os.fstat(stream.fileno())
    except AttributeError:
        return True
    except (OSError, ValueError) as error:
        return isinstance(error, io.UnsupportedOperation)
    return True


def warn(message: str, category: type[Warning], stacklevel: int) -> None:
    """Warn; a closed stderr, onto which Python prints the warning, is no error.

    Args:
        message: of the warning.
        category: of the warning.
        stacklevel: as that of `warnings.warn`.
    """
    with contextlib.suppress(OSError, ValueError):
        warnings.warn(message, category, stacklevel + 1)


def flush(stream: Any) -> None:
    """Write what waits to be written to a stream, or drop it: Python would change the exit status of the process."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class Dropping:
    """A stream that drops what cannot be written.

    Args:
        stream: the stream.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits to be written, or drop it."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
