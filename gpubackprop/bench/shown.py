"""Tables of figures, as text and as Markdown, and their cells: times, sizes and factors as people write them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

NONE = "–"
GAP = "  "
COMMON = ("optimizer", "precision")  # columns that are not shown where all rows have one value


@dataclass(frozen=True)
class Table:
    """Figures in rows.

    Attributes:
        title: of the table.
        columns: their headings.
        rows: of cells, as many in each.
        words: so many columns at the front hold words; the others, numbers.
        notes: sentences below it, or in place of it where there are no rows.
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    words: int = 1
    notes: tuple[str, ...] = ()


def text(table: Table) -> Iterator[str]:
    """Yield a table as lines for a terminal."""
    yield table.title
    if table.rows:
        lines = [table.columns, *table.rows] if any(table.columns) else table.rows
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        sides = "<" * table.words + ">" * (len(widths) - table.words)
        for line in lines:
            cells = [f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)]
            yield f"{GAP}{GAP.join(cells)}".rstrip()
    yield from (f"{GAP}{note}" for note in table.notes)


def markdown(table: Table) -> Iterator[str]:
    """Yield a table as lines of Markdown."""
    if table.title:
        yield from (f"**{table.title}**", "")
    if table.rows:
        marks = ["---"] * table.words + ["---:"] * (len(table.columns) - table.words)
        for line in (table.columns, marks, *table.rows):
            cells = (cell.replace("|", "\\|") for cell in line)
            yield f"| {' | '.join(cells)} |"
        yield from [""] * bool(table.notes)
    yield from table.notes


def lean(table: Table) -> Table:
    """Return a table without columns that say nothing; an optimizer or precision that all have goes to its title."""
    values = {k: {row[k] for row in table.rows} - {NONE} for k in range(len(table.columns))}
    same = [k for k in values if table.columns[k] in COMMON and len(values[k]) == 1]
    kept = [k for k in values if k not in same and values[k]]
    common = [value for k in same for value in values[k]]
    return dataclasses.replace(
        table,
        title=", ".join([table.title, *common]),
        columns=tuple(table.columns[k] for k in kept),
        rows=tuple(tuple(row[k] for k in kept) for row in table.rows),
        words=sum(k < table.words for k in kept),
    )


# -- cells -------------------------------------------------------------------------------------------------------------


def time_of(seconds: float | None) -> str:
    """Return a time in the unit that suits it, with three digits."""
    if seconds is None:
        return NONE
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 0.9995:
            return f"{digits(seconds * factor)} {unit}"
    return f"{digits(seconds * 1e9)} ns"


def size_of(number: float | None) -> str:
    """Return bytes in the unit that suits them."""
    if number is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= 0.9995 * factor:
            return f"{digits(number / factor)} {unit}"
    return f"{number:.0f} B"


def digits(number: float) -> str:
    """Return a number with three digits, as a person writes it."""
    if number >= 999.5:
        return f"{number:,.0f}" if number < 1e9 else f"{number:.2e}"
    if number >= 99.95:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}" if number >= 0.01 else f"{number:.2g}"


def factor_of(ratio: float | None) -> str:
    """Return a ratio as a factor."""
    return NONE if ratio is None else f"{digits(ratio)}×"


def share_of(share: float | None) -> str:
    """Return a share in per cent."""
    return NONE if share is None else f"{share:.0%}"
