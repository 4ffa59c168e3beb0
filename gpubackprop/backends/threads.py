"""How many threads the matrix products of NumPy take: all of them, or one where the products are too small to share.

threadpoolctl sets the number where it is installed (extra ``threads``); without it the BLAS keeps its own.
"""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import numpy

SMALL = 2e7  # floating-point operations of a step below which a second thread costs more than it brings


@cache
def _controller() -> Any:
    """Return threadpoolctl's view of the BLAS libraries that are loaded, or None."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def for_products_of(flops: float) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which products of so many operations a step take the threads that suit them."""
    controller = _controller()
    if controller is None or flops >= SMALL:
        return contextlib.nullcontext()
    return controller.limit(limits=1)


def blas_description() -> str:
    """Return the BLAS library and its threads, as far as they can be told."""
    controller = _controller()
    if controller is None:
        return str(numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"])
    libraries = [library for library in controller.info() if "numpy" in library["filepath"]] or controller.info()
    return ", ".join(f"{x['internal_api']} {x['version']} with {x['num_threads']} threads" for x in libraries)
