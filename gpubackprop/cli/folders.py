"""Folders for results."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidValue


def writable(folder: str, files: Sequence[str], flag: str = "--out") -> Path:
    """Return a folder for results, made, and tried before time goes into them.

    Args:
        folder: its name.
        files: the names of what is to be written there.
        flag: that of the command line which names the folder.

    Returns:
        The folder.

    Raises:
        InvalidValue: no file can be written there, or a folder has the name of one.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise InvalidValue(f"{flag} {folder}: no file can be written there ({error.strerror}); name another") from error
    taken = [name for name in files if (path / name).is_dir()]
    if taken:
        raise InvalidValue(f"{flag} {folder}: {taken[0]} is a folder there, and a file is to be written; name another")
    return path
