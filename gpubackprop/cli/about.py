"""The metadata of a model of `train`: what `predict` has to know of the data; written and read here only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from ..errors import ModelFileError
from ..network import Network
from .columns import Trained
from .datasets import Dataset
from .targets import TASKS

_NONE = numpy.empty(0)


def to_metadata(data: Dataset, seed: int) -> dict[str, str]:
    """Return the metadata of a model, as JSON by name.

    Args:
        data: the examples that the model is trained on.
        seed: that of the split into rows to train on and rows held out.

    Returns:
        Strings for `Network.metadata`.
    """
    about: dict[str, Any] = {name: getattr(data, name) for name in ("classes", "features", "target", "target_index")}
    about["columns"] = None if data.trained is None else dataclasses.asdict(data.trained)
    about |= {"data": data.name, "task": TASKS[not data.classes], "seed": seed}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in about.items()}


def from_metadata(net: Network, path: str) -> tuple[Dataset, int]:
    """Check the metadata of a model, of which nothing is believed.

    The metadata of a model that `train` did not write are not read: its last activation says what it predicts.

    Args:
        net: the model.
        path: its file, for messages.

    Returns:
        The data that the model was trained on, without rows, and the seed of the split.

    Raises:
        ModelFileError: the metadata are not what `train` writes, or do not fit the network.
    """
    if "task" not in net.metadata:
        classes = [str(k) for k in range(net.sizes[-1])] if net.activations[-1].name == "softmax" else None
        return Dataset("other data", _NONE, _NONE, classes), 0
    try:
        return _checked(net.metadata, net.sizes[0], net.sizes[-1])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: the metadata are not what train writes ({str(error)[:200]}); train the model again"
        ) from error


def _checked(metadata: Mapping[str, str], inputs: int, outputs: int) -> tuple[Dataset, int]:
    def read(name: str, accepts: Callable[[Any], bool], accepted: str, missing: str = "") -> Any:
        value = json.loads(metadata.get(name, missing))
        if not accepts(value):
            raise ValueError(f"{name} must be {accepted}, got {str(value)[:80]}")
        return value

    task = read("task", lambda x: x in TASKS, " or ".join(TASKS))
    classes = read(
        "classes",
        lambda x: _are_names(x, outputs) and len(x) >= 2 if task == TASKS[0] else x is None,
        f"{outputs} different names in classification, at least two, and null in regression",
    )
    features = read("features", lambda x: x is None or _are_names(x, inputs), f"{inputs} different names, or null")
    target = read(
        "target",
        lambda x: x is None if features is None else _is_name(x) and x not in features,
        "the name of another column than the features, and null if they have no names",
    )
    width, places = inputs + 1, None
    columns = read("columns", lambda x: x is None or _are_columns(x, inputs), "columns for all features", "null")
    if columns is not None:
        width, places = columns["width"], columns["places"]
    index = read(
        "target_index",
        lambda x: (x is None and columns is None and features is None) or _is_index(x, width, places or []),
        "the index of another column than the features, or null for a data set by name",
    )
    name = read("data", _is_name, "the name of a file or of a data set")
    seed = read("seed", lambda x: type(x) is int and x >= 0, "a whole number of at least 0")
    trained = None if places is None else Trained(width, places)
    return Dataset(name, _NONE, _NONE, classes, features, target, index, trained=trained), seed


def _is_name(x: Any) -> bool:
    """Return whether x is text that can be written; JSON can also hold halves of characters."""
    return isinstance(x, str) and x != "" and not any("\ud800" <= letter <= "\udfff" for letter in x)


def _are_names(x: Any, count: int) -> bool:
    return isinstance(x, list) and len(x) == count and all(map(_is_name, x)) and len(set(x)) == count


def _is_index(x: Any, width: int, taken: list[int]) -> bool:
    return type(x) is int and 0 <= x < width and x not in taken


def _are_columns(x: Any, inputs: int) -> bool:
    if not isinstance(x, dict) or set(x) != {"width", "places"}:
        return False
    width, places = x["width"], x["places"]
    return (
        type(width) is int
        and isinstance(places, list)
        and len(places) == inputs
        and all(_is_index(place, width, []) for place in places)
        and len(set(places)) == inputs
    )
