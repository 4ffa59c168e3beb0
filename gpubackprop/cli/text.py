"""Text files, read with a bound on their lines."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from ..errors import InvalidValue
from ..files import data_file

LONGEST = 2**23  # characters of a row: those of a million columns with seven digits


def opened(path: Path) -> io.TextIOWrapper:
    """Open a file of text in UTF-8, with or without a byte order mark.

    Args:
        path: of the file.

    Returns:
        The file; ends of lines are left as they are.

    Raises:
        InvalidValue: it is a folder, a pipe, a socket or a device.
        OSError: it cannot be opened.
    """
    return io.TextIOWrapper(data_file(path, "data"), encoding="utf-8-sig", newline="")


class Rows:
    """The lines of a text file, for `csv.reader`, which puts a row together from several if a quote is open.

    Args:
        file: the open file.
        path: its name, for messages.
    """

    def __init__(self, file: io.TextIOWrapper, path: Path) -> None:
        self._file, self._path = file, path
        self.begin()

    def begin(self) -> None:
        """Begin a row."""
        self._left = LONGEST

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._left + 1)
        if not line:
            raise StopIteration
        self._left -= len(line)
        if self._left < 0:
            raise InvalidValue(
                f"{self._path}: a row takes more than {LONGEST:,} characters; accepted are rows that end with a line "
                "feed: is it no text, or a quote left open?"
            )
        return line
