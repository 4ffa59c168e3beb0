"""How much memory a training run takes, before it is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .architecture import Architecture
from .backends import resolve
from .checks import integer
from .optimizers import Optimizer
from .promises import bytes_of
from .training import _optimizer


def bytes_of_training(
    sizes: Sequence[int],
    *,
    optimizer: str | Optimizer = "sgd",
    batch_size: int = 256,
    activation: Any = "relu",
    output_activation: Any = None,
    loss: Any = "mse",
    l2: float = 0.0,
    dropout: float = 0.0,
    backend: str | None = None,
    dtype: str = "float32",
    precision: str = "float32",
) -> int:
    """Return the bytes that `fit` takes for a network and its training, without taking them.

    Parameters, gradient, optimizer's state, the parameters that are kept in case training fails, and the buffers of a
    step count. The examples with their targets and order, which are the caller's or as large, and validation do not;
    nor do the blocks of the formulas' intermediate values (a few of 32,768 elements on the CPU) and, on CUDA, what the
    libraries take for themselves.

    Args:
        sizes: units of every layer, (n_0, ..., n_L), inputs first.
        optimizer: an object of `gpubackprop.optimizers`, or one's name for its defaults.
        batch_size: N, examples in a step.
        activation: of the hidden layers; as all that follow, what `Network` is given.
        output_activation: of the last layer.
        loss: a name or a row.
        l2: λ of the penalty.
        dropout: share of the hidden units that a step drops.
        backend: "auto", "numpy", "cuda", "cuda:N", or None for the default.
        dtype: "float32" or "float64".
        precision: of matrix products.

    Returns:
        Bytes.

    Raises:
        InvalidValue: an argument outside its range, or an unknown name.
        InvalidType: an argument of another type.
        BackendUnavailable: the backend cannot run here.
    """
    rows, rule = integer("batch_size", batch_size, 1), _optimizer(optimizer)
    architecture = Architecture.checked(
        sizes=sizes,
        activation=activation,
        output_activation=output_activation,
        loss=loss,
        l2=l2,
        dropout=dropout,
        dtype=dtype,
    )
    return bytes_of(architecture, resolve(backend), precision, rule, rows)
