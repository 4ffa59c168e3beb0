"""The lines that the command prints."""

from __future__ import annotations

import re


def say(topic: str, text: str) -> None:
    """Print a line of the report."""
    print(f"{topic:<9} {text}", flush=True)


def told(error: object) -> str:
    """Return an error as one line; what an extra installs is said for a checkout too, which no index has to serve."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"pip install 'gpubackprop(\[[\w,-]+\])'", r"\g<0> (from a checkout: pip install '.\1')", text)
