"""Choosing where things run: by argument, by `set_backend` or `use_backend`, by the environment, or by what works."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from typing import Any

from ..checks import meant, nearest
from ..errors import BackendUnavailable, InvalidType, InvalidValue
from ..locks import importing
from . import devices
from .numpy import NumpyBackend

ENVIRONMENT_VARIABLE = "GPUBACKPROP_BACKEND"
KINDS = ("auto", "numpy", "cuda")
ACCEPTED = '"auto", "numpy", "cuda" or "cuda:N" with N the number of a device'

_default: str | None = None
_override: ContextVar[str | None] = ContextVar("backend", default=None)


def available_backends() -> dict[str, str]:
    """Return what can run here.

    Returns:
        For each usable backend, by name, what it is: versions, library, device.
    """
    usable = {"numpy": resolve("numpy").description}
    if why_no_cuda() is None:
        usable["cuda"] = resolve("cuda").description
    return usable


def why_no_cuda() -> str | None:
    """Return why the CUDA backend cannot run here.

    Returns:
        None where it can; else one sentence with the cause and the remedy: CuPy is not installed, there is no driver
        or no device, or the CUDA libraries are missing.
    """
    return devices.why_not()


def set_backend(name: str) -> None:
    """Set the backend of networks built from now on, where they are not given one.

    Args:
        name: "auto" (CUDA where it runs, else NumPy), "numpy", "cuda" or "cuda:N".

    Raises:
        BackendUnavailable: the backend cannot run here; the default stays as it was.
        InvalidValue: no such name.
        InvalidType: the name is not a string.
    """
    global _default
    _default = _runnable(name)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Set the backend of networks built inside a ``with`` block, in this thread or task.

    Args:
        name: as for `set_backend`.

    Yields:
        Nothing.

    Raises:
        BackendUnavailable: the backend cannot run here.
        InvalidValue: no such name.
        InvalidType: the name is not a string.
    """
    token = _override.set(_runnable(name))
    try:
        yield
    finally:
        _override.reset(token)


def _runnable(name: Any) -> str:
    """Return the name of a backend that can run here; None, which `resolve` takes for the default, is none."""
    resolve(_text(name))
    return name


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise InvalidType(f"backend must be {ACCEPTED}, got {name!r} of type {type(name).__name__}")
    return name


def resolve(name: str | None = None) -> Any:
    """Return the backend of a name.

    Args:
        name: "auto", "numpy", "cuda", "cuda:N", or None for the default: that of `use_backend`, of `set_backend`, of
            the environment variable GPUBACKPROP_BACKEND, or "auto", the first that is set.

    Returns:
        The backend; one object per device.

    Raises:
        BackendUnavailable: the backend cannot run here.
        InvalidValue: no such name.
        InvalidType: the name is not a string.
    """
    if name is None:
        name = _override.get() or _default or _of_environment()
    given, _, device = _text(name).partition(":")
    kind = meant(given, KINDS)
    if kind == "auto" and name == given:
        kind = "numpy" if why_no_cuda() else "cuda"
    if kind == "numpy" and name == given:
        return _numpy_backend()
    if kind != "cuda" or (name != given and not re.fullmatch("[0-9]{1,4}", device)):
        raise InvalidValue(f"backend must be {ACCEPTED}, got {name!r}{nearest(given, KINDS)}")
    return devices.cuda_backend(int(device) if device else None)


def _of_environment() -> str:
    """Return the name that the environment asks for; an error says where it came from."""
    name = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    try:
        resolve(name)
    except (InvalidValue, BackendUnavailable) as error:
        raise type(error)(f"{ENVIRONMENT_VARIABLE}={name}: {error}") from error
    return name


@cache
def _numpy_backend() -> NumpyBackend:
    with importing:
        from . import loops  # with what starts a compiler, which an import alone does not need

    return NumpyBackend(loops=loops.of_this_machine())
