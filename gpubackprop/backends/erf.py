"""The error function in the vocabulary of formulas, for NumPy where SciPy is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def erf(m: Any, x: Any) -> Any:
    """Return the error function of x as a formula, to 1e-15 in float64.

    Rational approximations of W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics
    of Computation 23 (1969), 631-637: erf(x) = x P(x^2) up to 0.46875, and 1 - exp(-x^2) C(x) beyond. Above 4, where
    Cody changes to a third form, the second is off by less than a unit in the last place of 1 - erfc(x).

    Args:
        m: the vocabulary.
        x: a symbol.

    Returns:
        A symbol.
    """
    y = m.minimum(m.abs(x), 6.0)  # erf(6) rounds to 1
    t = y * y
    near = x * _horner(t, _ERF_NEAR[0]) / _horner(t, _ERF_NEAR[1])
    far = 1 - m.exp(-t) * _horner(y, _ERF_FAR[0]) / _horner(y, _ERF_FAR[1])
    return m.where(y <= 0.46875, near, m.where(x < 0, -far, far))


def _horner(x: Any, coefficients: Sequence[float]) -> Any:
    """Return the polynomial with the given coefficients, highest power first."""
    value: Any = coefficients[0]
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


_ERF_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_ERF_FAR = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
        2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
        3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
