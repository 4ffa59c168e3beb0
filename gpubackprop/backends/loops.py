"""Formulas of plain arithmetic as loops in C, which pass over memory once where NumPy passes once per operation.

They are compiled by the C compiler of the machine, if it has one, at their first use, and kept in the user's cache
folder with a checksum. Every operation is rounded by itself, as NumPy's are, so that both give the same bits: without a
compiler nothing changes but time. The compiler is that of the environment variable CC, ``cc`` if it is not set, and
none if it is empty. Formulas that call exp and its like stay with NumPy, whose functions are vectors' own.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy

from ..formula import COMPARISONS, Trace, c_loop
from ..locks import Locked
from . import caches
from .sources import KERNELS

NAME = "gpubackprop_loop"
NAMES = {numpy.dtype("float32"): "float", numpy.dtype("float64"): "double"}  # of types in C
OPERATIONS = {"input", "number", "+", "-", "*", "/", "negative", "abs", "sqrt", "minimum", "maximum", "where"}
OPERATIONS |= COMPARISONS.keys()
# No product is contracted with a sum, and nothing else is computed in another way than it is written, whatever CC says.
EXACT = ("-fno-fast-math", "-ffp-contract=off", "-fno-math-errno")
FLAGS = ("-O3", "-march=native", *EXACT, "-fopenmp-simd", "-shared", "-fPIC")
_PREAMBLE = """\
#include <stdbool.h>
#include <tgmath.h>
#define __device__ static
#define __forceinline__ inline
"""
_CHECKSUM = hashlib.sha256().digest_size  # bytes behind a library in the cache folder
_SECONDS = 60.0  # for a loop to be compiled


class Loops(Locked):
    """Loops compiled by one compiler.

    Args:
        command: of the compiler, with the arguments that it always takes.

    Attributes:
        is_broken: whether it has failed, or what it made cannot be kept: no more loops are compiled.
    """

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__()
        self._command = [*command, *FLAGS]
        self._bodies: weakref.WeakKeyDictionary[Trace, dict[tuple[frozenset[str], numpy.dtype[Any]], Any]]
        self._bodies = weakref.WeakKeyDictionary()
        self._functions: dict[str, Any] = {}
        self.is_broken = False

    def __str__(self) -> str:
        return f"arithmetic in loops of C by {' '.join(self._command[: -len(FLAGS)])}"

    def bound(self, source: Trace, inputs: Mapping[str, Any], outputs: Sequence[Any]) -> Callable[[], None] | None:
        """Return what computes the outputs of a trace from what its inputs are then, or None where there is no loop.

        Args:
            source: the trace.
            inputs: contiguous arrays of one size, or numbers and arrays of no dimension, by name.
            outputs: contiguous arrays of that size, written; each may be one of the inputs.
        """
        dtype = outputs[0].dtype
        given = [x if hasattr(x, "dtype") else numpy.array(x, dtype) for x in map(inputs.__getitem__, source.inputs)]
        arrays = [*given, *outputs]
        if dtype not in NAMES or any(a.dtype != dtype for a in arrays):
            return None
        key = frozenset(name for name, a in zip(source.inputs, given, strict=True) if not a.ndim), dtype
        bodies = self._bodies.setdefault(source, {})
        if key not in bodies:
            bodies[key] = self._body(source, *key)
        if bodies[key] is None:
            return None
        function, numbers = bodies[key]
        arrays = [numbers, *arrays]
        return partial(
            _called, function, outputs[0].size, (ctypes.c_void_p * len(arrays))(*map(_address, arrays)), arrays
        )

    def _body(
        self, source: Trace, scalars: frozenset[str], dtype: numpy.dtype[Any]
    ) -> tuple[Any, numpy.ndarray] | None:
        """Return a compiled loop and its numbers, or None where it calls what is no arithmetic or does not compile."""
        if any(operation not in OPERATIONS for operation, _ in source.values):
            return None
        text = f"{_PREAMBLE}typedef {NAMES[dtype]} T;\n{_helpers()}{c_loop(NAME, source, scalars)}"
        with self.lock:
            if text not in self._functions:
                self._functions[text] = self._compiled(text)
        return self._functions[text] and (self._functions[text], numpy.array(source.numbers, dtype))

    def _compiled(self, text: str) -> Any:
        """Return the function of a text: that which an earlier process compiled for such a CPU, or a new one.

        A compiler that has failed is not asked again, since it may take its time for that.
        """
        if self.is_broken:
            return None
        function = None
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            name = f"loops/{self._digest(text)}.so"
            function = _function(_kept(name))
            if function is None:
                library = self._compile(text)
                caches.write(name, library + hashlib.sha256(library).digest())
                function = _function(library)
        self.is_broken = function is None
        return function

    def _digest(self, text: str) -> str:
        """Return a name for what becomes of a text here."""
        digest = hashlib.sha256("\0".join([text, *self._command, _cpu()]).encode(errors="surrogateescape"))
        digest.update(_compiler_version(self._command[0]))
        return digest.hexdigest()

    def _compile(self, text: str) -> bytes:
        """Return the library that a text is compiled to."""
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder) / "loop.c", Path(folder) / "loop.so"
            source.write_text(text, encoding="utf-8")
            command = [*self._command, "-o", str(library), str(source), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
            return library.read_bytes()


@cache
def _helpers() -> str:
    return (KERNELS / "formulas.cuh").read_text(encoding="utf-8")


def _address(a: numpy.ndarray) -> int:
    return int(a.ctypes.data)


def _kept(name: str) -> bytes:
    """Return a library from the cache folder; nothing, if it is not there, not ours, or damaged."""
    try:
        content = caches.read(name)
    except OSError:
        return b""
    library, checksum = content[:-_CHECKSUM], content[-_CHECKSUM:]
    return library if hashlib.sha256(library).digest() == checksum else b""


def _function(library: bytes) -> Any:
    """Return the function in a library, or None if there is none."""
    if not library:
        return None
    try:
        function = _loaded(library)[NAME]
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_longlong, ctypes.c_void_p], None
    return function


def _loaded(library: bytes) -> ctypes.CDLL:
    """Return a library loaded from bytes in memory, which nobody changes after they were checked.

    The descriptor stays open, since the loader takes a second library of the same name for the first. Systems without
    such files in memory, as macOS, load a file that only this user can reach and that is deleted then.
    """
    with contextlib.suppress(OSError, AttributeError):
        descriptor = os.memfd_create(NAME)
        try:
            os.write(descriptor, library)
            return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
        except BaseException:
            os.close(descriptor)
            raise
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loop.so"
        path.write_bytes(library)
        return ctypes.CDLL(str(path))


def _called(function: Any, size: int, addresses: Any, arrays: list[Any]) -> None:
    """Call a loop; the arrays are those that the addresses point into, and so live as long."""
    function(size, addresses)


@cache
def _compiler_version(command: str) -> bytes:
    """Return what a compiler says of itself, in whatever encoding."""
    given = [command, "--version"]
    return subprocess.run(given, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL).stdout


@cache
def _cpu() -> str:
    """Return what this CPU can do: a loop is compiled for that, and a cache folder may be another machine's too."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return "\n".join(
        [platform.machine(), *sorted({x for x in lines if x.startswith(("flags", "Features", "model name"))})]
    )


@cache
def of_this_machine() -> Loops | None:
    """Return loops by the compiler of this machine, or None where there is none."""
    try:
        command = shlex.split(os.environ.get("CC", "cc"))
    except ValueError:  # a quotation that does not end
        command = []
    found = shutil.which(command[0]) if command else None
    return Loops([found, *command[1:]]) if found and os.name == "posix" else None
