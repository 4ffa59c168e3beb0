"""The docstrings of the public API name every field and every argument, and say what comes back."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

import gpubackprop as gb


def _public() -> dict[str, Any]:
    """Return the public classes and functions by name: of the package, and of the modules that are public in it."""
    found = {}
    for name in gb.__all__:
        thing = getattr(gb, name)
        inside = vars(thing).items() if isinstance(thing, ModuleType) else [(name, thing)]
        for inner, value in inside:
            if isinstance(thing, ModuleType) and getattr(value, "__module__", None) != thing.__name__:
                continue
            if not inner.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
                found[f"{value.__module__}.{inner}"] = value
    return found


PUBLIC = _public()


def _violations(name: str, thing: Any) -> list[str]:
    problems = _of_class(thing) if inspect.isclass(thing) else _of_function(thing, short=False)
    return [f"{name}{problem}" for problem in problems]


def _of_class(cls: type) -> Iterator[str]:
    """Yield what the docstrings of a class, its bases and its methods leave out."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith((gb.__name__, __name__))]
    text = "\n".join(inspect.cleandoc(base.__doc__ or "") for base in bases)
    if not vars(cls).get("__doc__") or vars(cls)["__doc__"].startswith(f"{cls.__name__}("):  # what `dataclass` makes up
        yield " has no docstring"
    if dataclasses.is_dataclass(cls):
        arguments = [field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")]
    else:
        arguments = _arguments(vars(cls)["__init__"]) if "__init__" in vars(cls) else []
    yield from (f": {name} is not described" for name in arguments if not _describes(text, name))
    for name in {name for base in bases for name in vars(base) if name == "__call__" or not name.startswith("_")}:
        methods = [inspect.unwrap(_function(vars(base)[name])) for base in bases if name in vars(base)]
        if inspect.isfunction(methods[0]):
            yield from (f".{name}{problem}" for problem in _of_function(*methods, short=True))


def _of_function(function: Callable[..., Any], *inherited: Any, short: bool) -> Iterator[str]:
    """Yield what the docstring of a function, or of the methods it overrides, leaves out; see `_says_what_returns`."""
    texts = [inspect.cleandoc(one.__doc__ or "") for one in (function, *inherited)]
    text = "\n".join(texts)
    if not function.__doc__:
        yield " has no docstring"
    yield from (f": {name} is not named" for name in _arguments(function) if not re.search(rf"\b{name}\b", text))
    returns = inspect.signature(function).return_annotation
    if returns not in (None, "None", inspect.Signature.empty) and not any(
        _says_what_returns(one, short) for one in texts
    ):
        yield " does not say what it returns"


def _function(member: Any) -> Any:
    """Return the function inside a class method or a static one."""
    return member.__func__ if isinstance(member, (classmethod, staticmethod)) else member


def _arguments(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls") and name[0] != "_"]


def _describes(text: str, name: str) -> bool:
    """Tell whether a line of a section begins with the name, alone or among others, and a colon."""
    return re.search(rf"^ +(\w+, )*{name}(, \w+)*: \S", text, re.MULTILINE) is not None


def _says_what_returns(text: str, short: bool) -> bool:
    """Tell whether there is such a section; in a short one, one line beginning with `Return` has no more to say."""
    if short and text.startswith("Return ") and "\n" not in text:
        return True
    return re.search(r"^(Returns|Yields):$", text, re.MULTILINE) is not None


def test_the_public_api_is_found() -> None:
    short = {name.rpartition(".")[2] for name in PUBLIC}
    rows = {"Activation", "Loss", "Initializer", "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Cosine", "WarmUp"}
    assert rows | {"Network", "History", "GradientCheck", "InvalidValue", "fit", "load", "use_backend"} <= short
    assert len(PUBLIC) >= 35


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_are_complete(name: str) -> None:
    assert _violations(name, PUBLIC[name]) == []


# -- planted violations ------------------------------------------------------------------------------------------------


@dataclass
class Good:
    """A class.

    Attributes:
        rate: of something.
        low, high: its ends.
    """

    rate: float
    low: float
    high: float

    def at(self, t: int) -> float:
        """Return the rate at t."""
        return self.rate * t

    def __call__(self, t: int, *, twice: bool) -> float:
        """Compute.

        Args:
            t: the step.
            twice: whether to do it again.

        Returns:
            A number.
        """
        return self.at(t) * (1 + twice)


@dataclass
class Inheriting(Good):
    """Another.

    Attributes:
        more: of it.
    """

    more: int = 0

    def at(self, t: int) -> float:
        """Compute it otherwise."""
        return 0.0


@dataclass
class Bad(Good):
    """The rate, and forgotten: of which nothing is said on a line of its own."""

    forgotten: int = 0

    def at(self, t: int, other: int = 0) -> float:
        """Compute it otherwise."""
        return 0.0

    @classmethod
    def made(cls, rates: list[float]) -> Bad:
        """Make one."""
        return cls(*rates)

    def bare(self) -> None:
        pass


@dataclass
class Undocumented:
    field: int


class Plain:
    """No dataclass."""

    def __init__(self, size: int) -> None:
        self.size = size


def loud(x: float) -> float:
    """Do.

    Args:
        x: a number.

    Returns:
        The same.
    """
    return x


def brief(x: float) -> float:
    """Return x."""
    return x


def quiet(x: float, _y: float = 0.0) -> float:
    """Do."""
    return x


def test_complete_docstrings_pass() -> None:
    assert _violations("", Good) == _violations("", Inheriting) == _violations("", loud) == []


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (
            Bad,
            [
                ".at: other is not named",
                ".bare has no docstring",
                ".made does not say what it returns",
                ".made: rates is not named",
                ": forgotten is not described",
            ],
        ),
        (Undocumented, [" has no docstring", ": field is not described"]),
        (Plain, [": size is not described"]),
        (brief, [" does not say what it returns"]),
        (quiet, [" does not say what it returns", ": x is not named"]),
    ],
)
def test_planted_violations_are_caught(thing: Any, expected: list[str]) -> None:
    assert sorted(_violations("", thing)) == expected
