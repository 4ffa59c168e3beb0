"""Choices that were made by measuring, kept for the next process: so that a run repeated gives the same bits."""

from __future__ import annotations

import contextlib
import json

from . import caches


class Choices:
    """A small table of strings in a file of the user's cache folder.

    A file that cannot be read counts as empty, and one that cannot be written is left: the choice is then made again.

    Args:
        name: of the file, without its suffix.
    """

    def __init__(self, name: str) -> None:
        self._name = f"{name}.json"
        self._table = self._read()

    def _read(self) -> dict[str, str]:
        try:
            table = json.loads(caches.read(self._name))
        except (OSError, ValueError, RecursionError):
            return {}
        is_table = isinstance(table, dict) and all(isinstance(value, str) for value in table.values())
        return table if is_table else {}

    def get(self, key: str) -> str | None:
        """Return what was chosen, or None."""
        return self._table.get(key)

    def keep(self, key: str, value: str) -> None:
        """Keep a choice, beside those that other processes have made meanwhile."""
        self._table = {**self._read(), **self._table, key: value}
        with contextlib.suppress(OSError):
            caches.write(self._name, json.dumps(self._table, indent=1, sort_keys=True).encode())
