"""Kernels compiled for NVIDIA GPUs on machines without one: by NVRTC, as CuPy compiles them, and by nvcc.

What the compiler reports of a kernel and what it made of it: PTX, and machine code as text.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from needed_tools import TOOLS

from gpubackprop.backends.kernels import OPTIONS

# CuPy adds all but the last, and the name of a real architecture has NVRTC go on from PTX to machine code.
ADDED = (
    "-ftz=true",
    "--device-as-default-execution-space",
    "--gpu-architecture=sm_{}",
    "--ptxas-options=-v",
)
REPORT = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers",
    re.DOTALL,
)


class CompileError(Exception):
    """What the compiler said."""


@dataclass(frozen=True)
class Usage:
    """What a thread of a kernel takes: registers, and bytes in memory for what they do not hold."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int


@dataclass(frozen=True)
class Built:
    """A text compiled for one architecture: what each kernel in it takes, all that was said, PTX, machine code."""

    usage: dict[str, Usage]
    log: str
    ptx: str
    cubin: bytes


def compiled(text: str, architecture: int) -> Built:
    """Compile a text that includes nothing, for the GPUs of one architecture."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), None, 0, None, None))
    try:
        options = [option.format(architecture).encode() for option in (*OPTIONS, *ADDED)]
        result = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = _text(_got("ProgramLog", program))
        if result:
            raise CompileError(log)
        usage = {name: Usage(int(used), *map(int, memory)) for name, *memory, used in REPORT.findall(log)}
        return Built(usage, log, _text(_got("PTX", program)), _got("CUBIN", program))
    finally:
        _check(nvrtc.nvrtcDestroyProgram(ctypes.byref(program)))


def machine_code(text: str, architecture: int) -> str:
    """Return the instructions of a compiled text, one a line."""
    nvdisasm = TOOLS["sass"].version()
    assert nvdisasm is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(compiled(text, architecture).cubin)
        return subprocess.run([nvdisasm, "-c", path], capture_output=True, text=True, check=True).stdout


def for_each(architectures: tuple[int, ...], function: Callable[[int], Any]) -> dict[int, Any]:
    """Call a function for several architectures, on all cores: NVRTC may be called from several threads."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(architectures, pool.map(function, architectures), strict=True))


def compile_by_nvcc(text: str, architecture: int, folder: Path) -> None:
    """Compile a text by nvcc, with warnings as errors."""
    nvcc, source = TOOLS["nvcc"].version(), folder / "kernels.cu"
    assert nvcc is not None
    source.write_text(text, encoding="utf-8")
    options = ["-std=c++17", "-ftz=true", f"-arch=sm_{architecture}", "-Werror", "all-warnings", "-cubin"]
    command = [nvcc, *options, "-o", source.with_suffix(".cubin"), source]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise CompileError(run.stdout + run.stderr)


# -- NVRTC, by ctypes --------------------------------------------------------------------------------------------------


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    path = TOOLS["compile"].version()
    assert path is not None
    # NVRTC opens its other half by name alone, which some releases find only where it is loaded already.
    other_half = "nvrtc-builtins64_*.dll" if os.name == "nt" else "libnvrtc-builtins.so.*"
    for found in Path(path).parent.glob(other_half):
        ctypes.CDLL(str(found))
    return ctypes.CDLL(path)


def _check(result: int) -> None:
    assert result == 0, f"NVRTC returned the error {result}"


def _got(what: str, program: ctypes.c_void_p) -> bytes:
    """Return what one of NVRTC's pairs of functions ...Size and ... give."""
    size = ctypes.c_size_t()
    _check(getattr(_nvrtc(), f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(_nvrtc(), f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _text(given: bytes) -> str:
    return given.rstrip(b"\0").decode()
