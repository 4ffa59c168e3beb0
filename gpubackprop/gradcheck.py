"""Are the gradients right? Compare them with derivatives of the loss that need no backpropagation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy

from . import inputs
from .backends import resolve
from .checks import choice, integer, real
from .errors import GradientCheckFailed, InvalidType
from .network import Network
from .workspace import Workspace

_COMPLEX_STEP = 1e-200  # the error is of the order of its square: none
_CENTRAL_STEP = 6e-6  # about the cube root of float64's precision: rounding and truncation in balance
_BOUNDS = {
    ("float64", "complex_step"): 1e-12,
    ("float64", "central_differences"): 1e-6,
    ("float32", "complex_step"): 1e-3,
    ("float32", "central_differences"): 1e-3,
}
_KINK = 5e-7  # relative change of a central difference with its step above which there is a kink
_FLOOR = 1e-3  # entries smaller than this share of the largest are compared at that size


@dataclass(frozen=True)
class GradientCheck:
    """What `check_gradients` found.

    Attributes:
        method: "complex_step" or "central_differences".
        checked: number of parameters compared.
        largest_error: the largest relative error among them.
        bound: what it was held against.
        worst: the parameter it belongs to, such as "W_2[3, 1]".
        kinks: parameters left out by central differences, because the loss has a kink inside the step.
    """

    method: str
    checked: int
    largest_error: float
    bound: float
    worst: str
    kinks: int


def check_gradients(
    net: Network,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    masks: Sequence[Any] | None = None,
    *,
    gradients: Sequence[tuple[Any, Any]] | None = None,
    method: Literal["auto", "complex_step", "central_differences"] = "auto",
    bound: float | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> GradientCheck:
    """Compare the gradients of a batch with numerical derivatives of its loss, taken in double precision on the CPU.

    The complex step (Squire, Trapp 1998), Im L(θ + ih) / h, is exact to rounding; where a formula branches it follows
    the branch of the real part. Central differences (L(θ + h) − L(θ − h)) / 2h ask nothing of the formulas, and leave
    out the parameters for which the loss has a kink inside the step.

    Args:
        net: the network, on any backend; its parameters stay as they are.
        X: examples (N, n_0).
        y: labels (N,), or targets (N, n_L).
        sample_weight: weights (N,), or None.
        masks: dropout masks as `Network.draw_masks` returns them, or None.
        gradients: what to check, [(∂L/∂W_1, ∂L/∂b_1), ...]; None for what `Network.loss_and_gradients` returns.
        method: "auto" takes the complex step where all rows of the network are analytic, else central differences.
        bound: largest relative error accepted; None for 1e-12 by the complex step and 1e-6 by differences in float64,
            1e-3 in float32.
        samples: the most parameters to compare; more than that are drawn at random.
        seed: of that draw.

    Returns:
        What was compared, and the largest error: of g against n, |g − n| / max(|n|, a thousandth of the largest |n|).

    Raises:
        GradientCheckFailed: an error above the bound; the message names the parameter.
        InvalidValue: a shape or a value that is not accepted.
        InvalidType: something that does not hold numbers.
    """
    if not isinstance(net, Network):
        raise InvalidType(f"net must be a Network, got {type(net).__name__}")
    way = _method(net, method)
    bound = real("bound", _BOUNDS[net.dtype, way] if bound is None else bound, 0.0)
    samples, seed = integer("samples", samples, 1), integer("seed", seed, 0)
    _, own = net.loss_and_gradients(X, y, sample_weight, masks)
    given = _flat(net, own if gradients is None else gradients)
    chosen = _chosen(len(given), samples, seed)
    numeric = _derivatives(net, (X, y, sample_weight, masks), way, chosen)
    return _compared(net, given[chosen], numeric, chosen, way, bound)


def _method(net: Network, method: str) -> str:
    """Return the method asked for, or the one that suits the rows of the network."""
    method = choice("method", method, ("auto", "complex_step", "central_differences"))
    if method != "auto":
        return method
    analytic = net.loss.analytic and all(row.analytic for row in net.activations)
    return "complex_step" if analytic else "central_differences"


def _flat(net: Network, gradients: Any) -> numpy.ndarray:
    """Return [(∂L/∂W_1, ∂L/∂b_1), ...] as one vector of NumPy in float64, without what lies between the layers."""
    try:
        parts = [net.backend.to_numpy(part) for pair in gradients for part in pair]
    except TypeError as error:
        raise InvalidType(f"gradients must be pairs of arrays (∂L/∂W_l, ∂L/∂b_l), got {gradients!r:.60}") from error
    shapes = [tuple(part.shape) for part in parts]
    expected = [tuple(part.shape) for pair in net.parameters for part in pair]
    if shapes != expected:
        raise InvalidType(f"gradients must be pairs of arrays of the shapes {expected}, got {shapes}")
    return numpy.concatenate([part.reshape(-1).astype("float64") for part in parts])


def _chosen(size: int, samples: int, seed: int) -> numpy.ndarray:
    """Return the positions of the parameters to compare: all, or a random sample."""
    if size <= samples:
        return numpy.arange(size)
    return numpy.sort(numpy.random.default_rng(seed).choice(size, samples, replace=False))


def _derivatives(net: Network, batch: tuple[Any, Any, Any, Any], method: str, chosen: numpy.ndarray) -> numpy.ndarray:
    """Return the numerical derivatives by the chosen parameters; NaN where the loss has a kink."""
    numpy_backend, dtype = resolve("numpy"), "complex128" if method == "complex_step" else "float64"
    X, y, sample_weight, masks = batch
    twin = net._copy(numpy_backend, "float64")
    arrays = twin._batch(X, y, sample_weight)
    given = None if masks is None else inputs.masks(masks, len(arrays[0]), net.sizes[1:-1], numpy_backend, "float64")
    twin = twin._copy(numpy_backend, dtype)
    ws = Workspace(twin.architecture, twin.backend, len(arrays[0]), training=False, dropout=masks is not None)
    ws.load(*(None if a is None else a.astype(dtype) for a in arrays))
    if given is not None:
        ws.mask[1:-1] = given
    theta = twin.theta
    sizes = [m * n + n for m, n in twin.layout.shapes]
    positions = numpy.concatenate(
        [numpy.arange(start, start + n) for start, n in zip(twin.layout.starts, sizes, strict=False)]
    )

    def loss(position: int, step: complex) -> Any:
        """Return the loss with one parameter moved by a step."""
        kept = theta[position]
        theta[position] = kept + step
        twin._forward(ws)
        twin._loss(ws)
        theta[position] = kept
        return ws.value[()]

    derivative = _complex_step if method == "complex_step" else _central_difference
    with (running := numpy_backend.running(twin.flops(ws.rows))), running:
        return numpy.array([derivative(functools.partial(loss, position)) for position in positions[chosen]])


def _complex_step(loss: Callable[[complex], Any]) -> float:
    return float(loss(1j * _COMPLEX_STEP).imag / _COMPLEX_STEP)


def _central_difference(loss: Callable[[complex], Any]) -> float:
    """Return the slope of the loss at 0, or NaN where steps of two lengths tell of a kink.

    Without one, central differences agree, and the difference between the slopes to the right and to the left is
    curvature, which halves with the step. A kink off the middle breaks the first, one in the middle the second.
    """
    middle = loss(0.0)
    slopes, bends = [], []
    for h in (_CENTRAL_STEP, _CENTRAL_STEP / 2):
        right, left = (loss(h) - middle) / h, (middle - loss(-h)) / h
        slopes.append((right + left) / 2)
        bends.append(abs(right - left))
    off_middle = abs(slopes[0] - slopes[1]) > _KINK * max(abs(slopes[0]), _FLOOR)
    in_middle = bends[0] > 1e-3 * max(abs(slopes[0]), _FLOOR) and bends[1] > 0.75 * bends[0]
    return math.nan if off_middle or in_middle else float(slopes[0])


def _compared(
    net: Network, given: numpy.ndarray, numeric: numpy.ndarray, chosen: numpy.ndarray, method: str, bound: float
) -> GradientCheck:
    """Return the comparison, or raise above the bound."""
    smooth = ~numpy.isnan(numeric)
    scale = numpy.abs(numeric[smooth]).max(initial=0.0)
    errors = numpy.abs(given - numeric) / numpy.maximum(numpy.abs(numeric), max(_FLOOR * scale, 1e-300))
    errors = numpy.where(smooth, errors, -1.0)
    worst = int(numpy.argmax(numpy.where(numpy.isnan(errors), numpy.inf, errors)))
    name = _name(net, int(chosen[worst]))
    check = GradientCheck(method, int(smooth.sum()), float(errors[worst]), bound, name, int((~smooth).sum()))
    if check.checked < len(chosen) / 2:
        raise GradientCheckFailed(
            f"{check.kinks} of {len(chosen)} parameters lie at kinks of the loss, too many to tell: move the "
            'parameters or take method="complex_step"'
        )
    if not check.largest_error <= bound:
        raise GradientCheckFailed(
            f"the gradient by {name} is {given[worst]:.17g}, its derivative by {method.replace('_', ' ')} "
            f"{numeric[worst]:.17g}: a relative error of {check.largest_error:.2e}, above {bound:g}"
        )
    return check


def _name(net: Network, position: int) -> str:
    """Return the parameter at a position of [W_1, b_1, W_2, ...] laid end to end."""
    for l, (m, n) in enumerate(net.layout.shapes, start=1):
        if position < m * n:
            return f"W_{l}[{position // n}, {position % n}]"
        if position < m * n + n:
            return f"b_{l}[{position - m * n}]"
        position -= m * n + n
    raise IndexError(position)
