"""Kernels compiled for the CPU, from the very text that NVRTC is given: for machines without a GPU.

A block is as many real threads, with barriers, shared memory and warp shuffles (`host_cuda.cpp`). What a kernel reads
and writes is memory of NumPy.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy

from gpubackprop.backends import sources

HERE = Path(__file__).parent
# No -ffast-math, no fused products: what differs from NumPy is the order of sums and the library of mathematics.
FLAGS = ("-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-pthread")
# An index of 64 bits that becomes one of 32 is an error.
QUIET = (
    "-Wconversion",
    "-Wno-sign-conversion",
    "-Wno-float-conversion",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-unused-function",
    "-Wno-unused-parameter",
)
# Compiled kernels of earlier runs, by all that went into them.
CACHE = Path(tempfile.gettempdir()) / f"gpubackprop-host-kernels-{os.getuid() if hasattr(os, 'getuid') else 0}"


class CompileError(Exception):
    """What g++ said."""


class Stuck(Exception):
    """Threads of a block waited for each other in vain."""


def gxx(arguments: Sequence[Any]) -> None:
    run = subprocess.run(["g++", *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise CompileError(run.stderr)


def built(suffix: str, parts: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Return a file that `build` makes, or the one it made of the same parts before."""
    CACHE.mkdir(mode=0o700, exist_ok=True)
    path = CACHE / (hashlib.sha256("\0".join([*FLAGS, *QUIET, *parts]).encode()).hexdigest()[:32] + suffix)
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder) / path.name
            build(made)
            made.rename(path)
    return path


@functools.cache
def _machine() -> ctypes.CDLL:
    """Return the threads that run kernels; kernels find them by name."""
    source = HERE / "host_cuda.cpp"
    path = built(".so", [source.read_text()], lambda out: gxx([*FLAGS, *QUIET, "-shared", "-o", out, source]))
    return ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def text_of(code: str, name: str) -> str:
    """Return a kernel as C++, with the function that enters it as one thread of a launch."""
    kinds = [f"{p.type}{'*' * p.is_array}" for p in sources.parameters(code)]
    arguments = ", ".join(f"*static_cast<{kind}*>(arguments[{k}])" for k, kind in enumerate(kinds))
    return (
        f'{(HERE / "host_cuda.h").read_text()}{code}\n#line 1 "entry of {name}"\n'
        'extern "C" void host_enter(const unsigned* p, void** arguments) {\n'
        "    threadIdx = {p[0], p[1]}, blockIdx = {p[2], p[3]}, blockDim = {p[4], p[5]}, gridDim = {p[6], p[7]};\n"
        f"    {name}({arguments});\n}}\n"
    )


@functools.cache
def constant_parameters(code: str) -> list[bool]:
    """Return of each parameter of a kernel whether it points at what is only read."""
    signature = sources._SIGNATURE.search(code)
    assert signature
    return ["const " in declaration for declaration in signature[2].split(",")]


@functools.cache
def compiled(code: str, name: str) -> Any:
    """Return the entry of a kernel compiled for the CPU."""
    _machine()
    text = text_of(code, name)

    def build(out: Path) -> None:
        source = out.with_suffix(".cpp")
        source.write_text(text)
        gxx([*FLAGS, *QUIET, "-shared", "-o", out, source])

    return ctypes.CDLL(str(built(".so", [text], build))).host_enter


def launch(entry: Any, grid: Sequence[int], block: Sequence[int], values: Sequence[Any]) -> None:
    """Run a kernel; values are arrays of NumPy, None, or numbers of NumPy."""
    held = [
        numpy.array(0 if value is None else value.ctypes.data, "uintp") if _is_pointer(value) else numpy.array(value)
        for value in values
    ]
    pointers = (ctypes.c_void_p * len(held))(*[each.ctypes.data for each in held])
    (gx, gy), (bx, by) = ((*shape, 1)[:2] for shape in (grid, block))
    assert 0 < bx * by <= 1024, f"{block} threads to a block"
    assert 0 < gx < 2**31, f"a grid of {grid}"
    assert 0 < gy < 2**16, f"a grid of {grid}"
    if _machine().host_launch(entry, pointers, gx, gy, bx, by):
        raise Stuck(f"threads of a block {block} wait for each other in vain")


def _is_pointer(value: Any) -> bool:
    return value is None or isinstance(value, numpy.ndarray)
