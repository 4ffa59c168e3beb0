"""Choices that were made by measuring, kept for the next process: so that a run repeated gives the same bits."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ..files import replacing

ENVIRONMENT_VARIABLE = "GPUBACKPROP_CACHE_DIR"


class Choices:
    """A small table of strings in a file of the user's cache folder.

    A file that cannot be read counts as empty, and one that cannot be written is left: the choice is then made again.

    Args:
        name: of the file, without its suffix.
    """

    def __init__(self, name: str) -> None:
        self._path = cache_folder() / f"{name}.json"
        self._table = self._read()

    def _read(self) -> dict[str, str]:
        try:
            table = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
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
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as file:
                file.write(json.dumps(self._table, indent=1, sort_keys=True).encode())


def cache_folder() -> Path:
    """Return the folder of what is kept from process to process, for a user without a home one that cannot be."""
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    try:
        return Path(given) if given else Path.home() / ".cache" / "gpubackprop"
    except RuntimeError:
        return Path(os.devnull)
