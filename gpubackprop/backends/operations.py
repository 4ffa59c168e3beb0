"""What each operation of the vocabulary is on arrays: a function of its operands and the array it writes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Operations = dict[str, Callable[..., Any]]

_UFUNCS = {
    "+": "add", "-": "subtract", "*": "multiply", "/": "true_divide", "negative": "negative", "abs": "absolute",
    "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal", "logical_not": "logical_not",
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt", "tanh": "tanh",
}  # fmt: skip


def real_operations(xp: Any, erf: Callable[..., Any] | None) -> Operations:
    """Return the operations on real arrays.

    Args:
        xp: NumPy or CuPy.
        erf: its error function, or None where it has none; formulas then spell erf out.
    """
    operations: Operations = {name: getattr(xp, ufunc) for name, ufunc in _UFUNCS.items()}
    # By keyword: NumPy deprecates a third positional argument of these two.
    operations["minimum"] = lambda a, b, target: xp.minimum(a, b, out=target)
    operations["maximum"] = lambda a, b, target: xp.maximum(a, b, out=target)
    operations["copy"] = lambda value, target: xp.copyto(target, value)
    operations["copy where"] = lambda value, condition, target: xp.copyto(target, value, where=condition)
    if erf:
        operations["erf"] = erf
    return operations


def complex_operations(xp: Any) -> Operations:
    """Return the operations on complex arrays whose imaginary part is an infinitesimal step.

    What branches goes by the real part, so that a formula takes the branch it takes on real numbers and the imaginary
    part carries its derivative there (Squire, Trapp 1998; Martins, Sturdza, Alonso 2003, section 3.3).
    """

    def by_real_part(compare: Callable[..., Any]) -> Callable[..., Any]:
        return lambda a, b, target: compare(xp.real(a), xp.real(b), target)

    def store(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *operands_and_target: xp.copyto(operands_and_target[-1], function(*operands_and_target[:-1]))

    def erf(x: Any) -> Any:
        # erf(x + ih) = erf(x) + i h 2/√π exp(−x²) to the first order in h
        value = xp.vectorize(math.erf, otypes=[float])(x.real)
        return value + 1j * x.imag * (2 / math.sqrt(math.pi)) * xp.exp(-x.real * x.real)

    operations = real_operations(xp, store(erf))
    operations |= {name: by_real_part(operations[name]) for name in ("<", "<=", ">", ">=")}
    operations["abs"] = store(lambda a: xp.where(xp.real(a) < 0, -a, a))
    operations["minimum"] = store(lambda a, b: xp.where(xp.real(a) <= xp.real(b), a, b))
    operations["maximum"] = store(lambda a, b: xp.where(xp.real(a) >= xp.real(b), a, b))
    return operations
