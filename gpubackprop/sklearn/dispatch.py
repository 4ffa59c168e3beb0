"""Arrays of other libraries, where scikit-learn dispatches on them: NumPy's on the way in, theirs on the way out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy
from sklearn import get_config
from sklearn.utils._array_api import _is_numpy_namespace, get_namespace_and_device, move_to


class Place(NamedTuple):
    """Where arrays of another library than NumPy lie.

    Attributes:
        xp: the library, by the array API standard.
        device: its device.
    """

    xp: Any
    device: Any


def place_of(X: Any) -> Place | None:
    """Return where an array lies; None for NumPy, for what is no array, and where scikit-learn does not dispatch."""
    if not get_config()["array_api_dispatch"]:
        return None
    xp, _, device = get_namespace_and_device(X)
    return None if _is_numpy_namespace(xp) else Place(xp, device)


def on_host(x: Any) -> Any:
    """Return an array of another library as NumPy's, and all else as it is."""
    return x if place_of(x) is None else move_to(x, xp=numpy, device="cpu")


def moved(x: numpy.ndarray, place: Place | None) -> Any:
    """Return NumPy's numbers at a place; labels that are strings stay, since no other library has such."""
    return x if place is None or x.dtype.kind not in "biuf" else move_to(x, xp=place.xp, device=place.device)
