"""Every kernel under AddressSanitizer and ThreadSanitizer: no access beside an array, no race between threads.

A launch is recorded from a call of the backend and repeated in a program of its own, where every array is a piece of
memory of just its size, and where the results have to be the same bits.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fake_cupy
import host_cuda
import numpy as np
import pytest
from host_cuda import FLAGS, HERE, QUIET, built, gxx
from kernel_cases import (
    Case,
    add,
    cast,
    delta,
    draw_mask,
    forward,
    gather,
    mean_weights,
    on_kernels,
    output,
    penalty,
    storages,
    update,
)

from gpubackprop.activations import gelu, softmax, tanh
from gpubackprop.backends import kernels, sources
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.losses import cross_entropy, mse
from gpubackprop.optimizers import Adam

SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread",),
}
# Odd sizes with a rest, whole vectors, and more blocks than one along the rows; the sums have a second stage.
CASES = [
    *(forward(gelu, shape, mask=True) for shape in ((33, 10), (12, 136))),
    *(forward(softmax, shape) for shape in ((33, 10), (3, 261))),
    *(delta(gelu, shape, mask=True) for shape in ((70, 10), (70, 136))),
    *(output(mse, tanh, shape, weights=True) for shape in ((70, 10), (70, 136))),
    *(output(cross_entropy, softmax, shape, weights=True) for shape in ((70, 10), (70, 40))),
    *(output(mse, softmax, shape) for shape in ((70, 10), (70, 40))),
    *(cast(shape, widens) for shape in ((33, 10), (70, 136)) for widens in (False, True)),
    *(penalty(shape, divisor=divisor) for shape, divisor in (((33, 10), None), ((70, 136), 3.0))),
    *(mean_weights(rows) for rows in (33, 2000)),
    *(gather(shape, 50) for shape in ((33, 10), (12, 136))),
    *(draw_mask(shape, 0.25) for shape in ((33, 10), (70, 136))),
    *(update(Adam(0.1, clip_norm=0.5), n, narrow) for n in (16, 4816) for narrow in (False, True)),
    add(4816),
]


class Launch(NamedTuple):
    """What a kernel was launched with, and what its arrays held afterwards."""

    code: str
    name: str
    shape: tuple[int, int, int, int]
    values: list[Any]
    before: list[Any]


def _recorded(case: Case, storage: str, offset: int, monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """Run a case on the stand-in and return its launches."""
    launches: list[Launch] = []
    compiled, launch = host_cuda.compiled, host_cuda.launch

    def record(entry: tuple[Any, str, str], grid: Any, block: Any, values: Any) -> None:
        before = [value.copy() if isinstance(value, np.ndarray) else value for value in values]
        launch(entry[0], grid, block, values)
        shape = (*(*grid, 1)[:2], *(*block, 1)[:2])
        after = [value.copy() if isinstance(value, np.ndarray) else value for value in values]
        addresses = [value.ctypes.data if isinstance(value, np.ndarray) else None for value in values]
        launches.append(Launch(entry[1], entry[2], shape, list(zip(after, addresses, strict=True)), before))

    monkeypatch.setattr(kernels, "THREADS", 64)
    monkeypatch.setattr(host_cuda, "compiled", lambda code, name: (compiled(code, name), code, name))
    monkeypatch.setattr(host_cuda, "launch", record)
    backend = CudaBackend(0, fake_cupy.module(), "not in this test")
    monkeypatch.setattr(backend, "_product", lambda A, B, out: None)
    on_kernels(backend, case, storage, offset)
    return launches


def _written(launch: Launch) -> bytes:
    """Return a launch as host_replay.cpp reads it."""
    seen: dict[int, int] = {}
    parts = [np.array([*launch.shape, len(launch.values)], "int64").tobytes()]
    for k, ((_, address), value) in enumerate(zip(launch.values, launch.before, strict=True)):
        if value is None:
            kind, size, offset, data = 3, 0, 0, b""
        elif address is None:
            kind, size, offset, data = 0, value.nbytes, 0, value.tobytes()
        elif address in seen:
            kind, size, offset, data = 2, seen[address], 0, b""
        else:
            seen[address] = k
            kind, size, offset, data = 1, value.nbytes, address % 16, value.tobytes()
        parts += [np.array([kind, size, offset], "int64").tobytes(), data]
    return b"".join(parts)


def _program(code: str, name: str, sanitizer: str) -> Path:
    """Return the program that launches a kernel under a sanitizer."""
    options = [*FLAGS, *QUIET, *SANITIZERS[sanitizer]]

    def object_of(file: str) -> Path:
        source = HERE / file
        return built(".o", [source.read_text(), *options], lambda out: gxx([*options, "-c", "-o", out, source]))

    objects = [object_of("host_cuda.cpp"), object_of("host_replay.cpp")]
    text = host_cuda.text_of(code, name)

    def build(out: Path) -> None:
        source = out.with_suffix(".cpp")
        source.write_text(text)
        gxx([*options, "-o", out, source, *objects])

    return built(".out", [text, *options, *(str(each) for each in objects)], build)


def _replay(launch: Launch, sanitizer: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    file = folder / "launch"
    file.write_bytes(_written(launch))
    command = [_program(launch.code, launch.name, sanitizer), file]
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}  # a race ends the program with an error
    return subprocess.run(command, env=environment, capture_output=True, check=False)


def _arrays(launch: Launch) -> bytes:
    """Return what the arrays of a launch held afterwards, each once."""
    arrays = {address: value for value, address in reversed(launch.values) if address is not None}
    order = list(dict.fromkeys(address for _, address in launch.values if address is not None))
    return b"".join(arrays[address].tobytes() for address in order)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize(("storage", "offset"), [("float32", 0), ("float32", 1), ("float64", 1), ("uint16", 0)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_fault(
    case: Case, storage: str, offset: int, sanitizer: str, need: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    need("host")
    if storage not in storages(case):
        storage = "float32"  # what goes over parameters alone is never stored in bfloat16
    for launch in _recorded(case, storage, offset, monkeypatch):
        run = _replay(launch, sanitizer, tmp_path)
        assert run.returncode == 0, run.stderr.decode()
        assert run.stdout == _arrays(launch), "the sanitizer's program has other results"


def test_every_kernel_is_here(need: Any, monkeypatch: Any) -> None:
    need("host")
    launched = {launch.name for case in CASES for launch in _recorded(case, "float32", 0, monkeypatch)}
    assert launched == {path.stem for path in sources.KERNELS.glob("*.cu")}


FAULTS: dict[str, tuple[Case, str, Callable[[str], str]]] = {
    "a row too many": (delta(gelu, (70, 10)), "address", lambda code: code.replace("row < (rows)", "row <= (rows)")),
    "a vector too many": (update(Adam(0.1), 16), "address", lambda code: code.replace("? n / V", "? n / V + 1")),
    "vectors that are not aligned": (
        gather((12, 136), 50),
        "address",
        lambda code: code.replace("% 16) == 0", "% 4) == 0"),
    ),
    "no barrier before the sum": (
        delta(gelu, (70, 10)),
        "thread",
        lambda code: code.replace("        __syncthreads();\n", ""),
    ),
    "no barrier in front": (
        output(mse, tanh, (70, 136)),
        "thread",
        lambda code: code.replace("    __syncthreads();  // a sum before", "    // a sum before"),
    ),
    "lanes that do not wait": (
        forward(softmax, (33, 10)),
        "thread",
        lambda code: code.replace("__syncwarp(", "(void)("),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault: str, need: Any, monkeypatch: Any, tmp_path: Path) -> None:
    need("host")
    case, sanitizer, change = FAULTS[fault]
    offset = int(fault == "vectors that are not aligned")
    [launch, *_] = _recorded(case, "float32", offset, monkeypatch)
    changed = change(launch.code)
    assert changed != launch.code
    run = _replay(launch._replace(code=changed), sanitizer, tmp_path)
    assert run.returncode != 0
    assert b"Sanitizer" in run.stderr or b"runtime error" in run.stderr
