"""Two result files side by side: two machines, or two versions on one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .results import Entry, Results
from .shown import NONE, Table, factor_of, lean, time_of
from .tables import WORK, heading, work_of

Both = tuple[Entry, Entry]
MOST_NAMES = 5  # of what is only in one of them


def comparison(a: Results, b: Results) -> list[Table]:
    """Return what two runs have in common, side by side.

    Args:
        a: the first run.
        b: the second.

    Returns:
        What differs about the machines, the mean factors, and the times of each kind of work.
    """
    ours, theirs = _by_work(a), _by_work(b)
    both = [(entry, theirs[key]) for key, entry in ours.items() if key in theirs]
    whats = list(dict.fromkeys(entry.what for entry, _ in both))
    found = [
        _machines(a, b),
        _means(both, [*_alone("A", ours, theirs), *_alone("B", theirs, ours)]),
        *(_times(what, [pair for pair in both if pair[0].what == what]) for what in whats),
    ]
    return [lean(table) for table in found]


def _by_work(results: Results) -> dict[tuple[str, ...], Entry]:
    found: dict[tuple[str, ...], Entry] = {}
    for entry in results.entries:
        found.setdefault((*entry.work, entry.backend), entry)
    return found


def _machines(a: Results, b: Results) -> Table:
    """Return the two files, and what is not the same about where they were measured."""
    facts, others = dict(heading(a)), dict(heading(b))
    names = [name for name in dict.fromkeys([*facts, *others]) if facts.get(name) != others.get(name)]
    rows = [("file", str(a.path), str(b.path)), *((n, facts.get(n, NONE), others.get(n, NONE)) for n in names)]
    return Table("Two runs", ("", "A", "B"), tuple(rows), 3)


def _alone(letter: str, here: dict[tuple[str, ...], Entry], there: dict[tuple[str, ...], Entry]) -> Iterator[str]:
    """Say what was measured in one of them alone."""
    names = [entry.name for key, entry in here.items() if key not in there]
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        yield f"In {letter} alone: {', '.join(names[:MOST_NAMES])}{more}."


def _means(both: list[Both], alone: list[str]) -> Table:
    """Return the mean factor of each kind of work."""
    kinds = list(dict.fromkeys((pair[0].what, pair[0].on) for pair in both))
    rows = []
    for what, on in kinds:
        factors = [factor for pair in both if (pair[0].what, pair[0].on) == (what, on) and (factor := _factor(pair))]
        mean = factor_of(statistics.geometric_mean(factors))
        rows.append((what, on, str(len(factors)), mean, factor_of(min(factors)), factor_of(max(factors))))
    columns = ("measured", "on", "times", "A / B, mean", "least", "most")
    said = "Factors are A's time over B's: above 1 B is faster. Means are geometric."
    return Table("Means", columns, tuple(rows), 2, (said if rows else "Nothing was measured in both.", *alone))


def _factor(pair: Both) -> float:
    return pair[0].seconds / pair[1].seconds


def _times(what: str, both: list[Both]) -> Table:
    """Return the times of one kind of work."""
    rows = [
        (
            *work_of(a),
            a.row or NONE,
            a.on,
            time_of(a.seconds),
            time_of(b.seconds),
            factor_of(_factor((a, b))),
            _doubt(a, b),
        )
        for a, b in both
    ]
    return Table(what[0].upper() + what[1:], (*WORK, "row", "on", "A", "B", "A / B", "doubt"), tuple(rows), 5)


def _doubt(a: Entry, b: Entry) -> str:
    """Say so where two medians differ by less than half of the rounds of a run are spread over."""
    return "within the spread" if abs(a.seconds - b.seconds) <= max(a.iqr, b.iqr) else NONE
