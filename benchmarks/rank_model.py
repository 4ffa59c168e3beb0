"""A model of the time of a step against the number of ranks, its constants measured, and what ranks really take.

    PYTHONPATH=. python benchmarks/rank_model.py [--json FILE]

For R ranks, a batch of N and a message of B bytes (docs/scaling.md):

    t(R) = k(R) (c_0 + c_1 N / R) + a(R) + b(R) B

c_0 and c_1 are fitted to one rank's steps with N, N / 2 and N / 4 examples. k(R) is how much longer ranks take where
each computes for itself at the same time as the others, which share cores, caches and memory; a(R) and b(R) are of sums
alone. No constant comes from the steps that the model is compared with. Every rank has one BLAS thread. Times are the
least of all rounds: what else the machine does only adds to them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import numpy
from ranks import OnRanks
from workloads import Workload, data_of, suite_workload

RANKS = (1, 2, 4)
REGIMES = ("tiny", "small", "deep", "medium")
SIZES = (4, 2**12, 2**16, 2**20, 2**24)  # bytes of a sum
ROUNDS = 5
TURN = 0.1  # seconds, at least


def model(ranks: int, rows: int, size: int, constants: dict[str, Any]) -> float:
    """Return the seconds of a step.

    Args:
        ranks: R.
        rows: N.
        size: B.
        constants: "c": c_0 and c_1; "k", "a", "b": of each number of ranks.
    """
    c, key = constants["c"], str(ranks)
    compute = constants["k"][key] * (c[0] + c[1] * rows / ranks)
    return compute + (constants["a"][key] + constants["b"][key] * size if ranks > 1 else 0.0)


def main() -> None:
    """Measure, print a table, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    about: dict[str, Any] = {"processor": _processor()}
    machine.describe(about)
    found: dict[str, Any] = {"machine_info": about, "datetime": time.strftime("%Y-%m-%d"), "ranks": []}
    for regime in REGIMES:
        entry = _of(suite_workload(regime, "Adam", "numpy"))
        found["ranks"].append(entry)
        for R in RANKS:
            measured, predicted = entry["seconds"][str(R)], entry["model"][str(R)]
            efficiency = entry["seconds"]["1"] / measured / R
            line = f"{entry['workload']:28} R {R}  {measured * 1e3:9.3f} ms  model {predicted * 1e3:9.3f} ms"
            print(f"{line}  {predicted / measured:5.2f}  efficiency {efficiency:5.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    """Return the name of the processor, where the system tells it."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _of(workload: Workload) -> dict[str, Any]:
    """Measure a workload on one, two and four ranks, in rounds."""
    load = os.getloadavg()[0]
    parts = {R: OnRanks(R) for R in RANKS}
    with contextlib.ExitStack() as stack:
        for job in parts.values():
            stack.callback(job.close)
            job.prepare(workload, data_of(workload))
            job.ask("steps", workload.batches)
        constants = _constants(workload, parts)
        steps = {R: [] for R in RANKS}  # type: dict[int, list[float]]
        for _ in range(ROUNDS):
            for R in RANKS:
                steps[R].append(_turn(parts[R], "steps", workload))
    size = 4 * (16 + sum((m + 1) * n for m, n in zip(workload.sizes, workload.sizes[1:], strict=False)))
    return {
        "workload": f"{workload.shape}, {workload.optimizer}",
        "rows": workload.rows,
        "load": load,
        "bytes": size,
        "constants": constants,
        "seconds": {str(R): min(steps[R]) for R in RANKS},
        "model": {str(R): model(R, workload.rows, size, constants) for R in RANKS},
    }


def _constants(workload: Workload, jobs: dict[int, OnRanks]) -> dict[str, Any]:
    """Measure what the model needs, without a step that ranks take together."""
    apart: dict[int, list[float]] = {R: [] for R in RANKS}
    alone: dict[int, list[float]] = {R: [] for R in RANKS}
    sums: dict[int, list[list[float]]] = {R: [[] for _ in SIZES] for R in RANKS[1:]}
    halves = {R: OnRanks(1) for R in RANKS}
    with contextlib.ExitStack() as stack:
        for R, job in halves.items():
            stack.callback(job.close)
            part = Workload(**{**vars(workload), "rows": workload.rows // R})
            job.prepare(part, data_of(part))
        for _ in range(ROUNDS):
            for R in RANKS:
                alone[R].append(_turn(halves[R], "steps", workload))
                apart[R].append(_turn(jobs[R], "apart", workload))
            for R, times in sums.items():
                for size, each in zip(SIZES, times, strict=True):
                    each.append(_turn(jobs[R], "sums", workload, size))
    one = {R: min(alone[R]) for R in RANKS}
    c_1, c_0 = numpy.polyfit([workload.rows / R for R in RANKS], [one[R] for R in RANKS], 1)
    lines = {R: _line(SIZES, [min(each) for each in times]) for R, times in sums.items()}
    return {
        "c": [float(c_0), float(c_1)],
        "k": {str(R): min(apart[R]) / one[R] for R in RANKS},
        "a": {str(R): line[0] for R, line in lines.items()},
        "b": {str(R): line[1] for R, line in lines.items()},
    }


def _line(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Return a and b of a + b B: the time of the smallest sum, and what the largest takes more."""
    return seconds[0], (seconds[-1] - seconds[0]) / (sizes[-1] - sizes[0])


def _turn(job: OnRanks, what: str, workload: Workload, size: int | None = None) -> float:
    """Return the seconds of one step or sum, over as many as a turn takes."""
    unit = workload.batches if size is None else 1
    given = [] if size is None else [size]
    count, seconds = unit, job.ask(what, *given, unit)
    if seconds < TURN:
        count = unit * max(1, round(TURN / max(seconds, 1e-6)))
        seconds = job.ask(what, *given, count)
    return float(seconds) / count


if __name__ == "__main__":
    main()
