"""The lines that the command prints."""

from __future__ import annotations

import itertools
import re

from ..history import History
from ..network import Network

LINES = 20  # of epochs at most, besides the first and the last


def say(topic: str, text: str) -> None:
    """Print a line of the report."""
    print(f"{topic:<9} {text}", flush=True)


def told(error: object) -> str:
    """Return an error as one line; what an extra installs is said for a checkout too, which no index has to serve."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"pip install 'gpubackprop(\[[\w,-]+\])'", r"\g<0> (from a checkout: pip install '.\1')", text)


def is_told(epoch: int, epochs: int) -> bool:
    """Return whether an epoch has a line: the first, the last, and every k-th, with k = 1, 2, 5, 10, 20, ..."""
    every = next(k * 10**n for n in itertools.count() for k in (1, 2, 5) if LINES * k * 10**n >= epochs)
    return epoch in (1, epochs) or epoch % every == 0


def tell(epochs: int, net: Network, history: History) -> None:
    """Print the line of an epoch, as a callback of which `epochs` is bound."""
    if is_told(len(history.loss), epochs):
        tell_last(epochs, history)


def tell_last(epochs: int, history: History) -> None:
    """Print the line of the last epoch."""
    print(f"  epoch {len(history.loss):>{len(str(epochs))}}/{epochs}  loss {history.loss[-1]:.4f}", flush=True)
