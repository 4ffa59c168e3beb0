"""What `train` chooses for a network and its data, unless a flag says otherwise."""

from __future__ import annotations

import math
from typing import Any

from ..optimizers import OPTIMIZERS, SGD, Optimizer
from ..schedules import Cosine
from .datasets import Dataset

# Chosen by the accuracy on rows held out of digits and mnist-5k, and of small sets with 8 and 64 hidden units, over
# several seeds.
ACTIVATION, DROPOUT = "gelu_tanh", 0.4  # dropout only in classification
NARROW, WIDE = 16, 256  # units of the narrowest hidden layer with no dropout, and with all of it
# By R² on rows held out of small tables, real and made up. Regression to few noisy rows otherwise learns their noise.
SHRINKAGE = 10.0  # l2 in regression times the rows to train on; dropout blurs what it learns
PEAK_RATE = 2e-3  # of Adam, AdamW and RMSprop in wide layers; all rates fall to zero along a cosine
NARROWEST = 8  # units of a layer below which the rate is no higher
SGD_RATE, MOMENTUM, CLIP_NORM = 0.02, 0.9, 1.0
STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 800, 25, 200
SMALL_BATCH, BATCH, LARGE_BATCH, MANY_ROWS = 8, 128, 512, 20_000  # with many rows larger batches are as good
FEWEST_STEPS = 8  # of an epoch, unless that takes batches smaller than the small ones


def dropout_for(data: Dataset, narrowest: int) -> float:
    """Return the dropout: in classification more for each doubling of the narrowest hidden layer.

    Narrow layers learn nothing under dropout.
    """
    share = math.log(narrowest / NARROW, WIDE / NARROW)
    return round(DROPOUT * min(max(share, 0.0), 1.0), 2) if data.classes else 0.0


def l2_for(data: Dataset, rows: int) -> float:
    """Return the penalty of the weights."""
    return 0.0 if data.classes or rows >= MANY_ROWS else SHRINKAGE / rows


def batch_size_for(rows: int) -> int:
    """Return the batch size: smaller for few rows, so that an epoch has several steps."""
    return LARGE_BATCH if rows >= MANY_ROWS else min(max(rows // FEWEST_STEPS, SMALL_BATCH), BATCH, rows)


def epochs_for(steps: int) -> int:
    """Return the maximum number of epochs, given the steps of one epoch."""
    return min(max(math.ceil(STEPS / steps), FEWEST_EPOCHS), MOST_EPOCHS)


def patience_for(epochs: int, narrowest: int) -> int:
    """Return the epochs without progress that end training: narrow networks stay on plateaus for longer."""
    return max(10, epochs // (4 if narrowest >= WIDE else 2))


def optimizer_for(name: str, rate: float | None, steps: int, narrowest: int) -> tuple[Optimizer, float]:
    """Return the optimizer and its first rate, which falls to zero over `steps` steps along half a cosine.

    SGD has momentum, and its gradient is clipped: otherwise the rates at which it diverges depend on the width of the
    network and on the data. The steps of the other rules have the length of the rate, and in narrow layers each
    parameter has farther to go.
    """
    if name == "sgd":
        peak = rate or SGD_RATE
        return SGD(Cosine(peak, steps), momentum=MOMENTUM, clip_norm=CLIP_NORM), peak
    kind: Any = OPTIMIZERS[name]
    suits = kind.learning_rate if name == "adagrad" else PEAK_RATE
    peak = rate or float(f"{suits * math.sqrt(WIDE / min(max(narrowest, NARROWEST), WIDE)):.2g}")
    return kind(Cosine(peak, steps)), peak
