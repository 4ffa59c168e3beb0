"""Formulas of plain arithmetic as loops in C, which pass over memory once where NumPy passes once per operation.

They are compiled by the C compiler of the machine, where it has one, at their first use, and kept in the user's cache
folder. Every operation of theirs is rounded by itself, as NumPy's are, so that both give the same bits: without a
compiler nothing changes but time. The compiler is that of the environment variable CC, ``cc`` where it is not set, and
none where it is empty. Formulas that call exp and its like stay with NumPy, whose functions are vectors' own.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy

from ..files import replacing
from ..formula import COMPARISONS, Trace, c_loop
from ..locks import Locked
from .choices import cache_folder
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
            path = cache_folder() / "loops" / f"{self._digest(text)}.so"
            function = _loaded(path)
            if function is None:
                self._compile(text, path)
                function = _loaded(path)
        self.is_broken = function is None
        return function

    def _digest(self, text: str) -> str:
        """Return a name for what becomes of a text here."""
        digest = hashlib.sha256("\0".join([text, *self._command, _cpu()]).encode(errors="surrogateescape"))
        digest.update(_compiler_version(self._command[0]))
        return digest.hexdigest()

    def _compile(self, text: str, path: Path) -> None:
        """Compile a text into a file that takes the place of another, which somebody may have loaded."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory() as folder:
            source, library = Path(folder) / "loop.c", Path(folder) / "loop.so"
            source.write_text(text, encoding="utf-8")
            command = [*self._command, "-o", str(library), str(source), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS, stdin=subprocess.DEVNULL)
            with replacing(path) as file:
                os.fchmod(file.fileno(), 0o600)  # whatever the umask: else it would not count as ours
                file.write(library.read_bytes())


@cache
def _helpers() -> str:
    return (KERNELS / "formulas.cuh").read_text(encoding="utf-8")


def _address(a: numpy.ndarray) -> int:
    return int(a.ctypes.data)


def _loaded(path: Path) -> Any:
    """Return the function in a library, or None where the file is none of ours."""
    if not _is_ours(path):
        return None
    try:
        function = ctypes.CDLL(str(path))[NAME]
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_longlong, ctypes.c_void_p], None
    return function


def _called(function: Any, size: int, addresses: Any, arrays: list[Any]) -> None:
    """Call a loop; the arrays are those that the addresses point into, and so live as long."""
    function(size, addresses)


def _is_ours(path: Path) -> bool:
    """Return whether there is such a file, in a folder where nobody but this user can have written it or moved it."""
    try:
        found = path.stat(), path.parent.stat()
    except OSError:
        return False
    return all(x.st_uid == os.getuid() and not x.st_mode & (stat.S_IWGRP | stat.S_IWOTH) for x in found)


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
