"""JSON files of others: read within bounds, and their values taken out with checks that name file and place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import InvalidValue

MOST_BYTES = 64 * 2**20
MOST_LETTERS = 300  # of a text
LARGEST = 1e30  # of a number


def document(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, within bounds.

    Args:
        path: of the file.

    Returns:
        The object; its values are not checked.

    Raises:
        InvalidValue: there is no such file, or none of JSON.
    """
    place = Place(path)
    try:
        if not path.is_file():
            place.refuse("there is no such file" if not path.exists() else "this is no file")
        if path.stat().st_size > MOST_BYTES:
            place.refuse(f"the file has {path.stat().st_size:,} bytes, and at most {MOST_BYTES:,} are read")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        place.refuse(f"it cannot be read: {error.strerror or error}")
    except InvalidValue:
        raise
    except (ValueError, RecursionError) as error:  # JSON's and UTF-8's are of ValueError
        place.refuse(f"this is no whole JSON file ({error})")
    if not isinstance(content, dict):
        place.refuse(f"it must hold a JSON object, not a {type(content).__name__}")
    return content


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


@dataclass(frozen=True)
class Place:
    """Where a value is, for complaints."""

    path: Path
    inside: str = ""

    def refuse(self, what: str) -> NoReturn:
        """Raise the error that says what is wrong with the file."""
        inside = f"{self.inside}: " if self.inside else ""
        raise InvalidValue(f"{self.path}: {inside}{what}; accepted are files that `gpubackprop bench` wrote")


class Fields:
    """A JSON object whose fields are taken out with checks."""

    def __init__(self, fields: Any, place: Place) -> None:
        if not isinstance(fields, dict):
            place.refuse(f"there must be a JSON object, got {short(fields)}")
        self.fields: dict[str, Any] = fields
        self.place = place

    def value(self, key: str) -> Any:
        """Return what must be there."""
        if self.fields.get(key) is None:
            self.place.refuse(f"there is no `{key}`")
        return self.fields[key]

    def object(self, key: str) -> Fields:
        """Return the object that must be there."""
        inside = ": ".join(filter(None, (self.place.inside, clean(key))))
        return Fields(self.value(key), Place(self.place.path, inside))

    def children(self, key: str) -> list[tuple[str, Any]]:
        """Return what is in an object that may be missing."""
        return list(self.object(key).fields.items()) if self.fields.get(key) is not None else []

    def text(self, key: str, required: bool = False) -> str:
        """Return a text in one line, "" where it may be missing."""
        value = self.value(key) if required else self.fields.get(key)
        if value is None:
            return ""
        if not isinstance(value, str) or (required and not value.strip()):
            self.place.refuse(f"`{key}` must be a text, got {short(value)}")
        return clean(value)

    def choice(self, key: str, accepted: tuple[str, ...]) -> str:
        """Return one of the accepted texts."""
        value = self.value(key)
        if value not in accepted:
            self.place.refuse(f"`{key}` must be one of {', '.join(accepted)}, got {short(value)}")
        return str(value)

    def number(self, key: str) -> float | None:
        """Return 0 or a number above it of a size that can be reckoned with, None where there is none."""
        value = self.fields.get(key)
        if value is None:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (value == 0 or 1 / LARGEST <= value <= LARGEST):
            self.place.refuse(f"`{key}` must be a number of at least 0, up to {LARGEST:g}, got {short(value)}")
        return float(value)

    def positive(self, key: str) -> float:
        """Return a number above 0 that must be there."""
        self.value(key)
        number = self.number(key)
        if not number:
            self.place.refuse(f"`{key}` must be a number above 0, got {short(self.fields[key])}")
        return number

    def whole(self, key: str, default: int) -> int:
        """Return a whole number."""
        number = self.number(key)
        if number is not None and not number.is_integer():
            self.place.refuse(f"`{key}` must be a whole number, got {short(number)}")
        return default if number is None else int(number)


def clean(text: str) -> str:
    """Return a text in one line, without what would steer a terminal, and not too long."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * MOST_LETTERS])
    return " ".join(printable.split())[:MOST_LETTERS]


def short(value: Any) -> str:
    """Return a value for a complaint."""
    text = repr(value) if not isinstance(value, dict | list) else f"{type(value).__name__} of {len(value)}"
    return clean(text if len(text) <= 60 else f"{text[:57]}...")
