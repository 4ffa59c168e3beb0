"""Learning rates as functions of the step. To add one, add a class to the table.

A schedule is called with t, the number of steps taken so far, and returns the rate for the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .checks import Checked, bounded, counted, integer, real

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant(Checked):
    """η(t) = η_0."""

    learning_rate: float = bounded(low=0, open_low=True)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        return self.learning_rate


@dataclass(frozen=True)
class Step(Checked):
    """η(t) = η_0 · factor^⌊t / every⌋: the rate falls by `factor` every so many steps."""

    learning_rate: float = bounded(low=0, open_low=True)
    every: int = counted(least=1)
    factor: float = bounded(0.1, low=0, open_low=True)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        return self.learning_rate * self.factor ** (t // self.every)


@dataclass(frozen=True)
class Exponential(Checked):
    """η(t) = η_0 · factor^t."""

    learning_rate: float = bounded(low=0, open_low=True)
    factor: float = bounded(low=0, open_low=True)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        return self.learning_rate * self.factor**t


@dataclass(frozen=True)
class InverseScaling(Checked):
    """η(t) = η_0 / (t + 1)^power."""

    learning_rate: float = bounded(low=0, open_low=True)
    power: float = bounded(0.5, low=0)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        return self.learning_rate / (t + 1) ** self.power


@dataclass(frozen=True)
class Cosine(Checked):
    """Half a cosine from η_0 to `least` over so many steps, `least` from then on (Loshchilov, Hutter 2017, eq. 5)."""

    learning_rate: float = bounded(low=0, open_low=True)
    steps: int = counted(least=1)
    least: float = bounded(0.0, low=0)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        share = min(t / self.steps, 1.0)
        return self.least + 0.5 * (self.learning_rate - self.least) * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class WarmUp(Checked):
    """A line from η(0) / steps up to η(0) over so many steps, then the schedule `after` from its start."""

    after: Schedule | float
    steps: int = counted(least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "after", as_schedule(self.after))

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        assert callable(self.after)
        return self.after(0) * (t + 1) / self.steps if t < self.steps else self.after(t - self.steps)


def as_schedule(learning_rate: Schedule | float) -> Schedule:
    """Return a schedule as it is, and a number as a constant one.

    Raises:
        InvalidType: neither a number nor callable.
        InvalidValue: a number that is not positive and finite.
    """
    return learning_rate if callable(learning_rate) else Constant(learning_rate)


def rate(schedule: Schedule, t: int) -> float:
    """Return the rate of step t, checked: a user's schedule may return anything."""
    return real(f"the learning rate that {schedule!r} returns for step {integer('t', t, 0)}", schedule(t), low=0)


SCHEDULES = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "inverse_scaling": InverseScaling,
    "cosine": Cosine,
    "warm_up": WarmUp,
}
