"""Learning rates as functions of the step. To add one, add a class to the table.

A schedule is called with t, the number of steps taken so far, and returns the rate for the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .checks import Checked, bounded, counted, integer, real
from .errors import InvalidType, InvalidValue

Schedule = Callable[[int], float]


@dataclass(frozen=True)
class Constant(Checked):
    """η(t) = η_0.

    Attributes:
        learning_rate: η_0 > 0, the rate of every step.

    Raises:
        InvalidValue: a number outside its range.
        InvalidType: something other than a number.
    """

    learning_rate: float = bounded(low=0, open_low=True)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        return self.learning_rate


@dataclass(frozen=True)
class Step(Checked):
    """η(t) = η_0 · factor^⌊t / every⌋: the rate falls by `factor` every so many steps.

    Attributes:
        learning_rate: η_0 > 0, the rate of the first step.
        every: steps, at least 1, between one fall and the next.
        factor: what the rate is multiplied by, above 0.

    Raises:
        InvalidValue: a number outside its range.
        InvalidType: something other than a number, or a count of steps that is no integer.
    """

    learning_rate: float = bounded(low=0, open_low=True)
    every: int = counted(least=1)
    factor: float = bounded(0.1, low=0, open_low=True)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        return self.learning_rate * _power(self.factor, t // self.every)


@dataclass(frozen=True)
class Exponential(Checked):
    """η(t) = η_0 · factor^t.

    Attributes:
        learning_rate: η_0 > 0, the rate of the first step.
        factor: what the rate is multiplied by after each step, above 0.

    Raises:
        InvalidValue: a number outside its range.
        InvalidType: something other than a number.
    """

    learning_rate: float = bounded(low=0, open_low=True)
    factor: float = bounded(low=0, open_low=True)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        return self.learning_rate * _power(self.factor, t)


@dataclass(frozen=True)
class InverseScaling(Checked):
    """η(t) = η_0 / (t + 1)^power; Robbins, Monro 1951, ask for a power above 1/2 and of at most 1.

    Attributes:
        learning_rate: η_0 > 0, the rate of the first step.
        power: the exponent, at least 0.

    Raises:
        InvalidValue: a number outside its range.
        InvalidType: something other than a number.
    """

    learning_rate: float = bounded(low=0, open_low=True)
    power: float = bounded(0.5, low=0)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        return self.learning_rate / _power(t + 1, self.power)


@dataclass(frozen=True)
class Cosine(Checked):
    """Half a cosine from η_0 to `least` over so many steps, `least` from then on (Loshchilov, Hutter 2017, eq. 5).

    Attributes:
        learning_rate: η_0 > 0, the rate of the first step.
        steps: steps, at least 1, after which `least` is reached.
        least: the last rate, at least 0.

    Raises:
        InvalidValue: a number outside its range.
        InvalidType: something other than a number, or a count of steps that is no integer.
    """

    learning_rate: float = bounded(low=0, open_low=True)
    steps: int = counted(least=1)
    least: float = bounded(0.0, low=0)

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        share = min(t / self.steps, 1.0)
        return self.least + 0.5 * (self.learning_rate - self.least) * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class WarmUp(Checked):
    """A line from η(0) / steps up to η(0) over so many steps, then the schedule `after` from its start.

    Goyal et al. 2017, section 2.2, gradual warm-up.

    Attributes:
        after: the schedule that follows, whose η(0) the line leads to; a positive number is a constant one.
        steps: steps, at least 1, of the line.

    Raises:
        InvalidValue: a number outside its range.
        InvalidType: something other than a number, or an `after` that is no schedule.
    """

    after: Schedule | float
    steps: int = counted(least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "after", as_schedule(self.after))

    def __call__(self, t: int) -> float:
        """Return η(t)."""
        assert callable(self.after)
        return self.after(0) * (t + 1) / self.steps if t < self.steps else self.after(t - self.steps)


def _power(base: float, exponent: float) -> float:
    """Return a power of a positive number, infinity where it is beyond floats."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def as_schedule(learning_rate: Schedule | float) -> Schedule:
    """Return a schedule as it is, and a number as a constant one.

    Args:
        learning_rate: η, a positive number or a schedule.

    Returns:
        A function of t, the number of steps taken so far.

    Raises:
        InvalidType: neither a number nor callable, or the class of a schedule.
        InvalidValue: a number that is not positive and finite.
    """
    if isinstance(learning_rate, type):
        raise InvalidType(
            "learning_rate must be a number, a function of the step, or an object such as Cosine(0.01, steps=200), "
            f"got the class {learning_rate.__name__}"
        )
    return learning_rate if callable(learning_rate) else Constant(learning_rate)


def rate(schedule: Schedule, t: int) -> float:
    """Return the rate of a step, checked: a user's schedule may return anything.

    Args:
        schedule: a function of t.
        t: the number of steps taken so far.

    Returns:
        η(t), a finite number of at least 0.

    Raises:
        InvalidValue: the schedule fails, or the rate is negative or not finite.
        InvalidType: the rate is no number, or t no integer.
    """
    t = integer("t", t, 0)
    try:
        value = schedule(t)
    except Exception as error:  # whatever a user's schedule raises
        given = f"{type(error).__name__}: {error}"
        raise InvalidValue(f"schedule {schedule!r} must return a learning rate for step {t}, got {given}") from error
    return real(f"the learning rate that {schedule!r} returns for step {t}", value, low=0)


SCHEDULES = {
    "constant": Constant,
    "step": Step,
    "exponential": Exponential,
    "inverse_scaling": InverseScaling,
    "cosine": Cosine,
    "warm_up": WarmUp,
}

__all__ = ["SCHEDULES", "Schedule", *(made.__name__ for made in SCHEDULES.values())]


def __dir__() -> list[str]:
    return __all__
