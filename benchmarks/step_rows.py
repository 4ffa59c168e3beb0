"""The figures of contenders in a training step: as rows of the file, held to the goals, and as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from gpu_check import _aligned
from rounds import Entry
from workloads import LOSS_BOUNDS, Workload

SHARES = {"large": 0.95, "medium": 0.85}  # of the rate of the bare products
TINY_SECONDS = 12e-6
COLUMNS = ("", "µs", "least µs", "spread", "TFLOP/s", "of our time", "losses off by", "")

Row = dict[str, Any]


def row_of(workload: Workload, entries: Sequence[Entry]) -> Row:
    """Return the figures of all contenders in one workload, and what became of the goals."""
    ours = statistics.median(entries[0].seconds) if entries[0].seconds else None
    rows = [_contender_row(entry, workload, ours) for entry in entries]
    return {
        "workload": workload.name,
        "regime": workload.regime,
        "sizes": list(workload.sizes),
        "rows": workload.rows,
        "optimizer": workload.optimizer,
        "learning_rate": workload.rate,
        "precision": workload.precision,
        "flops_per_step": workload.flops,
        "loss_bound": LOSS_BOUNDS[workload.precision],
        "contenders": rows,
        "goals": goals(workload.regime, rows),
    }


def _contender_row(entry: Entry, workload: Workload, ours: float | None) -> Row:
    row: Row = {"name": entry.contender.name, "remark": entry.remark, "losses": entry.losses, "losses_off_by": None}
    if entry.off is not None:
        row["losses_off_by"] = entry.off if math.isfinite(entry.off) else "not finite"
        row["losses"] = [loss if math.isfinite(loss) else None for loss in entry.losses]  # JSON has no NaN
    if entry.seconds:
        median = statistics.median(entry.seconds)
        row |= {
            "steps_per_round": entry.steps,
            "median_seconds": median,
            "least_seconds": min(entry.seconds),
            "most_seconds": max(entry.seconds),
            "flops_per_second": workload.flops / median,
            "share_of_our_time": None if ours is None else median / ours,
        }
    return row


def goals(regime: str, rows: Sequence[Row]) -> list[Row]:
    """Return what is wanted of a workload, what was reached, and whether that is enough.

    Args:
        regime: of the workload.
        rows: of the contenders: ours, the bare products, the peers.

    Returns:
        A row for each goal whose figures were measured.
    """
    timed = {row["name"]: row["median_seconds"] for row in rows if "median_seconds" in row}
    if rows[0]["name"] not in timed:
        return []
    ours = timed[rows[0]["name"]]
    found = []
    if regime == "tiny":
        found.append(_goal("µs a step", ours * 1e6, TINY_SECONDS * 1e6, ours <= TINY_SECONDS))
    elif rows[1]["name"] in timed:
        share = timed[rows[1]["name"]] / ours
        found.append(_goal("of the rate of the bare products", share, SHARES[regime], share >= SHARES[regime]))
    if best := min((timed[row["name"]] for row in rows[2:] if row["name"] in timed), default=None):
        found.append(_goal("of the time of the best peer", ours / best, 1.0, ours < best))
    return found


def _goal(what: str, reached: float, goal: float, met: bool) -> Row:
    return {"what": what, "reached": reached, "goal": goal, "met": met}


# -- how it is shown ---------------------------------------------------------------------------------------------------


def heading(report: dict[str, Any]) -> Iterator[str]:
    """Yield what was measured of the device as text."""
    figures = report["constants"]
    rates = ", ".join(f"{p} {rate / 1e12:.1f}" for p, rate in figures["product_flops_per_second"].items())
    named = {
        **report["machine"],
        "a launch": f"{figures['host_seconds_per_launch'] * 1e6:.2f} µs of the host",
        "an empty graph": f"{figures['seconds_per_empty_graph'] * 1e6:.2f} µs",
        "a node": f"{figures['seconds_per_node_of_a_chain'] * 1e6:.2f} µs, in a chain",
        "large products": f"{rates} TFLOP/s",
        "copy": f"{figures['copy_bytes_per_second'] / 1e9:.0f} GB/s",
        "times": f"of a step, medians of {report['rounds']} rounds; the spread from the least to the most",
    }
    yield from ("", *(f"{name.replace('_', ' '):<15} {text}" for name, text in named.items()))


def table(row: Row) -> Iterator[str]:
    """Yield one workload as text."""
    yield from ("", f"{row['workload']}: {row['flops_per_step'] / 1e9:.3g} GFLOP a step")
    yield from _aligned([COLUMNS, *map(_cells, row["contenders"])], words=1)
    for goal in row["goals"]:
        verdict = "goal" if goal["met"] else "GOAL MISSED:"
        yield f"{goal['reached']:.3g} {goal['what']}, {verdict} {goal['goal']:.3g}"


def _cells(row: Row) -> tuple[str, ...]:
    off = row["losses_off_by"]
    shown = "" if off is None else off if isinstance(off, str) else f"{off:.1e}"
    if "median_seconds" not in row:
        return (row["name"], "", "", "", "", "", shown, row["remark"])
    return (
        row["name"],
        f"{row['median_seconds'] * 1e6:.2f}",
        f"{row['least_seconds'] * 1e6:.2f}",
        f"{(row['most_seconds'] - row['least_seconds']) / row['median_seconds']:.0%}",
        f"{row['flops_per_second'] / 1e12:.2f}",
        f"{row['share_of_our_time']:.2f}",
        shown,
        row["remark"],
    )
