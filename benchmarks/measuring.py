"""How the suite measures: contenders in rounds for the ratios, then ours again for pytest-benchmark's statistics."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import figures
import rounds
from rounds import Entry, Timed
from workloads import Contender, Workload

QUICK_ROUNDS, ROUNDS = 5, 9


@dataclass(frozen=True)
class Plan:
    """How thorough a run is.

    Attributes:
        smoke: every benchmark is only tried, on a net of a few units; nothing is measured.
        quick: some benchmarks and half of the rounds are left out.
    """

    smoke: bool
    quick: bool

    @property
    def rounds(self) -> int:
        """How often each contender has its turn."""
        return 1 if self.smoke else QUICK_ROUNDS if self.quick else ROUNDS

    @property
    def turn(self) -> float:
        """Seconds of a turn at least."""
        return 0.0 if self.smoke else rounds.TURN_SECONDS

    def pause(self, backend: str) -> float:
        """Return the seconds between two turns: threads of the CPU may still wait for work."""
        return rounds.PAUSE if backend == "numpy" and not self.smoke else 0.0


class Several:
    """A function that does one of what is timed at each call: the first of so many calls does all at once, and waits.

    Args:
        timed: what does it.
        steps: so many.
    """

    def __init__(self, timed: Timed, steps: int) -> None:
        self._timed, self._steps, self._calls = timed, steps, 0

    def __call__(self) -> None:
        """Do it."""
        if self._calls % self._steps == 0:
            self._timed.steps(self._steps)
            self._timed.wait()
        self._calls += 1


def measured(
    benchmark: Any,
    plan: Plan,
    what: str,
    workload: Workload,
    backend: str,
    contenders: Sequence[Contender],
    *,
    flops: float | None = None,
    epoch: int | None = None,
) -> list[Entry]:
    """Race contenders, put what is found into `extra_info`, and time ours again.

    Args:
        benchmark: the fixture.
        plan: how thorough.
        what: one of `figures.WHATS`.
        workload: what they do.
        backend: "numpy" or "cuda".
        contenders: ours first, then the bare products, then the peers.
        flops: floating-point operations of the products; of a training step if it is None.
        epoch: steps are taken in multiples of it; the batches of the workload if it is None.

    Returns:
        The entries of all; where they are only tried, one that fails or does something else is an error.
    """
    flops = workload.flops if flops is None else flops
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the peers' own
        entries = rounds.raced(
            workload, contenders, plan.rounds, epoch=epoch, turn=plan.turn, pause=plan.pause(backend)
        )
    remarks = [f"{e.contender.name}: {e.remark}" for e in entries if e.remark and not e.remark.startswith("skipped: ")]
    assert not remarks or (entries[0].seconds and not plan.smoke), remarks
    extra = {**figures.of_workload(what, workload, backend), **figures.of_entries(entries, flops)}
    if "floor" in extra and (threads := figures.threads_of(backend, workload.flops)):
        extra["floor"]["threads"] = threads
    timed(benchmark, plan, entries[0].contender, entries[0].steps, extra)
    return entries


def timed(benchmark: Any, plan: Plan, what: Timed, steps: int, extra: Mapping[str, Any]) -> None:
    """Time something for pytest-benchmark's statistics, in a group with the same work on other backends.

    Args:
        benchmark: the fixture.
        plan: how thorough.
        what: is timed.
        steps: in a round.
        extra: its `extra_info`.
    """
    benchmark.extra_info.update(extra)
    kind = [extra["what"], extra.get("row", ""), extra["workload"], extra.get("optimizer", "")]
    benchmark.group = ", ".join(filter(None, kind))
    time.sleep(plan.pause(extra["backend"]))
    benchmark.pedantic(Several(what, steps), rounds=plan.rounds, iterations=steps)
