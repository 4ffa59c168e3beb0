"""Contenders in one workload, timed in rounds: each has its turn in every round, so that all see the same machine."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from workloads import LOSS_BOUNDS, Contender, Workload, data_of, largest_difference

WARM_UP = {"cuda": 3, "cpu": 1}  # epochs: on a device one is run, one recorded, one replayed
TURN_SECONDS = 0.02  # at least
# Between turns on a CPU: threads of OpenBLAS and OpenMP that have nothing to do go on spinning for a while, and whoever
# comes next would share the cores with them. With one of two cores busy a step on two threads takes many times as long.
PAUSE = 0.05
Clock = Callable[[], float]


class Timed(Protocol):
    """What can be timed."""

    def steps(self, k: int) -> None:
        """Do k of what is timed, without waiting for the last of them."""

    def wait(self) -> None:
        """Wait until all is done."""


@dataclass
class Entry:
    """A contender in one workload.

    Attributes:
        contender: who.
        remark: why its time is not compared: it is not here, failed, or does something else; empty where it is.
        losses: of its first steps.
        off: how far they are from ours, as a share of our first loss.
        steps: in a round.
        seconds: a step took, in every round.
    """

    contender: Contender
    remark: str = ""
    losses: list[float] = field(default_factory=list)
    off: float | None = None
    steps: int = 0
    seconds: list[float] = field(default_factory=list)


def raced(
    workload: Workload,
    contenders: Sequence[Contender],
    rounds: int,
    clock: Clock = time.perf_counter,
    *,
    epoch: int | None = None,
    free: Callable[[], int] | None = None,
    turn: float = TURN_SECONDS,
    pause: float = 0.0,
) -> list[Entry]:
    """Measure all contenders in one workload, each once in every round.

    Args:
        workload: what they do.
        contenders: ours first, then the floor, then the peers.
        rounds: how often; medians count.
        clock: seconds of the host.
        epoch: steps are taken in multiples of it; the batches of the workload if it is None.
        free: returns the bytes that are left; None where the workload is sure to fit.
        turn: seconds that a turn takes at least.
        pause: seconds between two turns.

    Returns:
        An entry for each; ours alone where it cannot take part.
    """
    entries = [Entry(c) for c in contenders]
    for entry in entries:
        try:
            _enter(entry, workload, entries[0].losses, free)
            if not entry.remark:
                unit, warm_up = workload.batches if epoch is None else epoch, WARM_UP[workload.device]
                entry.steps = _warmed_up(entry.contender, unit, warm_up, turn, clock)
        except Exception as error:  # of any library: the others go on
            entry.remark = f"failed: {type(error).__name__}: {(str(error).strip() or repr(error)).splitlines()[0]}"
        if entries[0].remark:
            return entries[:1]
    racing = [entry for entry in entries if not entry.remark]
    times = interleaved([(entry.contender, entry.steps) for entry in racing], rounds, clock, pause=pause)
    for entry, seconds in zip(racing, times, strict=True):
        entry.seconds = seconds
    return entries


def interleaved(
    racing: Sequence[tuple[Timed, int]],
    rounds: int,
    clock: Clock = time.perf_counter,
    *,
    pause: float = 0.0,
    before: Callable[[], None] | None = None,
) -> list[list[float]]:
    """Return the seconds of a step of each in every round, of so many steps a turn; no garbage is collected meanwhile.

    Args:
        racing: who, and how many steps a turn.
        rounds: how often.
        clock: seconds of the host.
        pause: seconds between two turns.
        before: is called before each turn, or None.

    Returns:
        For each, its seconds round by round.
    """
    times: list[list[float]] = [[] for _ in racing]
    collects = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for (contender, steps), seconds in zip(racing, times, strict=True):
                if pause:
                    time.sleep(pause)
                if before:
                    before()
                seconds.append(seconds_of(contender, steps, clock))
    finally:
        if collects:
            gc.enable()
    return times


def _enter(entry: Entry, workload: Workload, ours: list[float], free: Callable[[], int] | None) -> None:
    """Prepare a contender, and compare its losses with ours."""
    contender = entry.contender
    if reason := contender.unavailable(workload):
        entry.remark = f"skipped: {reason}"
    elif free and (left := free()) < workload.bytes:
        entry.remark = f"skipped: it may need {workload.bytes:,} bytes, and {left:,} are free"
    else:
        contender.prepare(workload, data_of(workload))
        entry.losses = contender.loss_curve()
        entry.off = largest_difference(entry.losses, ours or entry.losses) if entry.losses else None
        if entry.off is not None and entry.off > LOSS_BOUNDS[workload.precision]:
            entry.remark = "not compared: its losses are not ours"


def _warmed_up(contender: Timed, epoch: int, times: int, turn: float, clock: Clock) -> int:
    """Return how many steps take long enough for a turn: whole epochs."""
    for _ in range(times):
        contender.steps(epoch)
    taken = seconds_of(contender, epoch, clock) * epoch
    steps = epoch * max(1, math.ceil(turn / max(taken, 1e-9)))
    if steps > epoch:
        seconds_of(contender, steps, clock)  # JAX compiles for a number of steps
    return steps


def seconds_of(contender: Timed, steps: int, clock: Clock = time.perf_counter) -> float:
    """Return the time of a step, from a device that has nothing to do to one that is done."""
    contender.wait()
    begin = clock()
    contender.steps(steps)
    contender.wait()
    return (clock() - begin) / steps
