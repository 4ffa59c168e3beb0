"""What a training run leaves: a figure per epoch, and why it stopped."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field
from typing import Any

from .errors import MissingDependency


def finite(value: Any) -> Any:
    """Replace every float that is NaN or infinite by None, for strict JSON."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class History:
    """The record of one call of `fit`.

    Attributes:
        loss: mean loss over the training examples during each epoch, with the penalty and with dropout.
        validation_loss: loss of the validation data after each epoch, without dropout; empty without such data.
        learning_rate: that of the last step of each epoch.
        seconds: wall-clock time of each epoch, validation included; of one that was resumed, that since then.
        retried: epochs, from 1, that were not finite and were repeated at half the rate, once for each time.
        samples: training examples in an epoch; of batches whose number is not known, those of the last.
        backend: what the network ran on.
        at_once: examples that were taken at a time, where memory did not suffice for a batch; None where it did.
        data: where the examples were: "in memory", or read in windows of so many rows, and why.
        stopped_because: one sentence; None while training runs.
    """

    samples: int
    backend: str
    at_once: int | None = None
    loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    retried: list[int] = field(default_factory=list)
    data: str = "in memory"
    stopped_because: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the history by name, fit for JSON.

        Returns:
            The attributes; None for NaN and infinity, which JSON does not have.
        """
        return finite(dataclasses.asdict(self))

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the loss curves into a picture.

        Args:
            path: of the file; its ending names the format, as in "loss.png".

        Raises:
            MissingDependency: matplotlib is not installed.
            OSError: the file cannot be written.
        """
        try:
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError as error:
            raise MissingDependency("a plot needs matplotlib: pip install 'gpubackprop[plot]'") from error
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot(xlabel="epoch", ylabel="loss")
        epochs = range(1, len(self.loss) + 1)
        marker = "." if len(self.loss) < 30 else ""
        axes.plot(epochs, self.loss, label="training", marker=marker)
        if self.validation_loss:
            axes.plot(epochs, self.validation_loss, label="validation", linestyle="--", marker=marker)
        if min([*self.loss, *self.validation_loss], default=0.0) > 0:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3, which="both")
        axes.legend()
        figure.savefig(path, dpi=150)
