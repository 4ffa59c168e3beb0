"""How well the outputs of a network meet the targets, in figures for people."""

from __future__ import annotations

import math

import numpy

from .datasets import Dataset


def figures_of(data: Dataset, y: numpy.ndarray, outputs: numpy.ndarray) -> dict[str, float]:
    """Return how well outputs meet targets.

    Args:
        data: what they belong to; its rows are not looked at.
        y: labels (N,), or values (N,) or (N, n_L).
        outputs: of the network (N, n_L).

    Returns:
        By name: the accuracy; of a picture, whose colours are in 0..1, PSNR in dB and mean squared error; of other
        values RMSE, in their unit, and R², unless all targets are equal.
    """
    if data.classes:
        return {"accuracy": float((outputs.argmax(axis=1) == y).mean())}
    values = y.reshape(outputs.shape).astype("float64")
    mse = float(numpy.square(values - outputs).mean())
    if data.image_shape:
        return {"PSNR": -10 * math.log10(mse) if mse else math.inf, "mse": mse}
    variance = float(values.var(axis=0).mean())
    return {"RMSE": math.sqrt(mse)} | ({"R2": 1 - mse / variance} if variance else {})


FORMATS = {"accuracy": ".4f", "R2": ".4f", "PSNR": ".2f"}  # others are in units of the target


def shown(figures: dict[str, float]) -> str:
    """Return figures as one line."""
    return ", ".join(
        f"{name} {value:{FORMATS.get(name, '.6g')}}{' dB' if name == 'PSNR' else ''}" for name, value in figures.items()
    )
