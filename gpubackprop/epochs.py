"""The epochs of a training (equation 9): taken until something stops them, and recorded."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .callbacks import Callback, any_stops
from .checkpoint import Keeper
from .errors import DivergenceWarning, InterruptWarning
from .history import History
from .run import Run
from .streams import warn


class Patience:
    """Equation 9: says when the loss has converged, that of the validation data where there is such."""

    def __init__(self, tol: float, epochs: int) -> None:
        self.tol, self.epochs = tol, epochs
        self.best, self.waited, self.seen = math.inf, 0, 0

    def exhausted_by(self, history: History) -> str | None:
        """Return the reason to stop after the last epoch, or None; epochs of before a resumption count."""
        name, losses = (
            ("validation", history.validation_loss) if history.validation_loss else ("training", history.loss)
        )
        for loss in losses[self.seen :]:
            self.waited = 0 if loss < self.best - self.tol or math.isnan(self.tol) else self.waited + 1
            self.best = min(self.best, loss)
        self.seen = len(losses)
        if self.waited < self.epochs:
            return None
        return f"converged: the {name} loss fell by less than {self.tol:g} in each of the last {self.epochs} epochs"


@dataclass
class Epochs:
    """The epochs of a run.

    Attributes:
        run: takes the steps.
        history: where each epoch is recorded.
        keeper: writes checkpoints of both.
        most: epochs at most, those of before a resumption included.
        patience: says when the loss has converged.
        validation: data whose loss is computed after each epoch, or None.
        callbacks: are called after each epoch.
        show: shows the history after each epoch.
        interrupted: returns the signal that has come, or 0.
        retries: how many epochs that are not finite are repeated.
    """

    run: Run
    history: History
    keeper: Keeper
    most: int
    patience: Patience
    validation: tuple[Any, Any, Any] | None
    callbacks: Sequence[Callback]
    show: Callable[[History], None]
    interrupted: Callable[[], int]
    retries: int
    _best: tuple[float, int] = field(default=(math.inf, 0), init=False)

    def take(self) -> str:
        """Take epochs until something stops them; return what it was."""
        run, history = self.run, self.history
        for epoch in range(1, len(history.loss) + 1):  # of before a resumption
            self._is_best(epoch)
        while (reason := history.stopped_because or self._finished()) is None:
            epoch, started = len(history.loss) + 1, time.perf_counter()
            loss = self._steps()
            if not run.begun:  # it is over
                if not run.is_finite(loss):
                    if len(history.retried) >= self.retries:
                        return self._diverged(epoch)
                    history.retried.append(epoch)
                    run.repeat_epoch()
                    continue
                self._record(loss, started)
            if (number := self.interrupted()) and history.stopped_because is None:
                self.keeper.write()
                run.keep_if_finite(0.0)  # parameters that diverged within the epoch are not left in the network
                return _interrupted(epoch, number)
            self.keeper.after_epoch()
        self.keeper.write()
        return reason

    def _finished(self) -> str | None:
        """Return the reason to stop after the epochs that were taken, or None."""
        taken = len(self.history.loss)
        reason = self.patience.exhausted_by(self.history) if taken else None
        return f"reached the maximum of {self.most} epochs" if reason is None and taken >= self.most else reason

    def _steps(self) -> float:
        """Take the steps of an epoch, and write checkpoints that are due within it, until it is over or interrupted."""
        while True:
            with self.run.undone_by_failure():
                loss = self.run.epoch(lambda: self.interrupted() or self.keeper.due())
            if not self.run.begun or self.interrupted():
                return loss
            self.keeper.write()

    def _record(self, loss: float, started: float) -> None:
        """Enter the figures of an epoch that is over into the history, show them, and ask the callbacks."""
        run, history = self.run, self.history
        history.loss.append(loss)
        history.samples = run.samples
        if self.validation is not None:
            with run.undone_by_failure():
                history.validation_loss.append(run.evaluate(*self.validation))
        run.keep(best=self._is_best(len(history.loss)))
        history.learning_rate.append(run.learning_rate)
        history.seconds.append(time.perf_counter() - started)
        self.show(history)
        if any_stops(self.callbacks, run.net, history):
            history.stopped_because = f"a callback stopped it after epoch {len(history.loss)}"

    def _is_best(self, epoch: int) -> bool:
        """Return whether an epoch has the least loss so far, that of the validation data if there is such data."""
        loss = (self.history.validation_loss or self.history.loss)[epoch - 1]
        if loss < self._best[0]:
            self._best = loss, epoch
        return self._best[1] == epoch

    def _diverged(self, epoch: int) -> str:
        """Put back the best parameters, and warn."""
        with self.run.undone_by_failure():
            best = self._best[1] if self.run.put_back_best() else 0
        reason = f"diverged: epoch {epoch}, at the learning rate {self.run.learning_rate:g}, is not finite"
        kept = f"of epoch {best}, the best one" if best else "from before training"
        warn(f"{reason}; the network has the parameters {kept}", DivergenceWarning, stacklevel=5)
        return reason


def _interrupted(epoch: int, by: int) -> str:
    if by == signal.SIGTERM:
        return f"terminated in epoch {epoch}"
    reason = f"interrupted from the keyboard in epoch {epoch}"
    warn(f"{reason}; the network is as its last step left it", InterruptWarning, stacklevel=5)
    return reason
