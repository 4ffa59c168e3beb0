"""Every formula of the package, and three ways to compute one that are not the package's."""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
from own_rows import Swapping, TwoAgo, pseudo_huber, squash

from gpubackprop.activations import ACTIVATIONS
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.backends.sources import KERNELS
from gpubackprop.formula import Trace, cuda_function
from gpubackprop.losses import LOSSES
from gpubackprop.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

# -- on arrays, as NumPy has it ----------------------------------------------------------------------------------------


def _erf(x: Any) -> Any:
    return numpy.vectorize(math.erf, otypes=[float])(x).astype(numpy.asarray(x).dtype)


PLAIN = SimpleNamespace(
    exp=numpy.exp,
    expm1=numpy.expm1,
    log=numpy.log,
    log1p=numpy.log1p,
    sqrt=numpy.sqrt,
    tanh=numpy.tanh,
    erf=_erf,
    abs=numpy.abs,
    minimum=numpy.minimum,
    maximum=numpy.maximum,
    where=lambda condition, a, b: numpy.where(condition, a, b).astype(numpy.result_type(a, b)),
)


@dataclass(frozen=True)
class Case:
    """One formula: its trace, its arguments in order, those its outputs overwrite, and itself on arrays."""

    name: str
    trace: Trace
    arguments: tuple[str, ...]
    overwrites: tuple[str, ...]
    direct: Callable[..., Any]

    def __str__(self) -> str:
        return self.name


def _activation_cases() -> list[Case]:
    cases = []
    for row in (*(row for row in ACTIVATIONS.values() if not row.rowwise), squash):
        p = dict(row.parameters)
        cases += [
            Case(f"{row.name}_sigma", row.forward, ("z",), (), lambda z, row=row, p=p: row.sigma(PLAIN, z, **p)),
            Case(
                f"{row.name}_backward",
                row.backward,
                ("g", "z", "a"),
                ("g",),
                lambda g, z, a, row=row, p=p: g * row.sigma_prime(PLAIN, z, a, **p),
            ),
        ]
    return cases


def _loss_cases() -> list[Case]:
    cases = []
    for row in (*LOSSES.values(), pseudo_huber):
        formulas = {"loss": (row.value, row.loss, "a"), "loss_prime": (row.slope, row.loss_prime, "a")}
        if row.canonical_loss:
            formulas["canonical"] = (row.canonical_value, row.canonical_loss, "s")
        for kind, (trace, formula, second) in formulas.items():
            direct = lambda y, a, formula=formula, p=dict(row.parameters): formula(PLAIN, y, a, **p)  # noqa: E731
            cases.append(Case(f"{row.name}_{kind}", trace, ("y", second), (), direct))
    return cases


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(0.1),
    "sgd_decay_clip": SGD(0.1, weight_decay=0.01, clip_norm=1.0),
    "momentum": SGD(0.1, momentum=0.9),
    "nesterov": SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": Adam(0.01),
    "adam_decay_clip": Adam(0.01, weight_decay=0.1, clip_norm=1.0),
    "adamw": AdamW(0.01),
    "rmsprop": RMSprop(0.01),
    "rmsprop_momentum": RMSprop(0.01, momentum=0.5, weight_decay=0.1),
    "adagrad": Adagrad(0.1, clip_norm=2.0),
    "two_ago": TwoAgo(0.1),
    "swapping": Swapping(0.1, clip_norm=1.0),
}


def _update(optimizer: Optimizer, names: Sequence[str]) -> Callable[..., Any]:
    """Return clipping, decay and step of an optimizer on arrays."""

    def direct(w: Any, g: Any, *rest: Any) -> Any:
        h = SimpleNamespace(**dict(zip(names, rest[len(optimizer.slots) : -1], strict=True)))
        g = g if optimizer.clip_norm is None else rest[-1] * g
        decay = optimizer.weight_decay * w
        if optimizer.decoupled_decay:
            w = w - h.rate * decay
        elif optimizer.weight_decay:
            g = g + decay
        return optimizer.step(PLAIN, h, w, g, *rest[: len(optimizer.slots)])

    return direct


def _optimizer_cases() -> list[Case]:
    cases = []
    for name, optimizer in OPTIMIZERS.items():
        scalars, slots = tuple(optimizer.scalars(0, 1.0)), optimizer.slots
        arguments = ("w", "g", *slots, *scalars, "clip")
        cases.append(Case(name, optimizer.update, arguments, ("w", *slots), _update(optimizer, scalars)))
    return cases


CASES = [*_activation_cases(), *_loss_cases(), *_optimizer_cases()]


# -- where to compute them ---------------------------------------------------------------------------------------------


def points(dtype: str) -> numpy.ndarray:
    """Return zeros, denormals, ordinary, large and infinite numbers of both signs, and NaN."""
    info = numpy.finfo(dtype)
    special = [
        0.0,
        float(info.smallest_subnormal),
        3 * float(info.tiny) / 4,
        float(info.tiny),
        1e-6,
        float(info.max) / 4,
    ]
    positive = numpy.array([*special, 1e10, 88.0, 0.5, 1.0, numpy.inf, *numpy.linspace(0.01, 9, 16)])
    return numpy.array([*positive, *-positive, numpy.nan]).astype(dtype)


def inputs(case: Case, dtype: str) -> dict[str, numpy.ndarray]:
    """Return arrays of one size for all arguments: for two that are free, all pairs of points."""
    grid = points(dtype)
    rng = numpy.random.default_rng(9)
    first, second = (a.reshape(-1) for a in numpy.meshgrid(grid, grid))
    arrays = {}
    for k, name in enumerate(case.arguments):
        arrays[name] = first if k == 0 else second if k == 1 else rng.permutation(first)
        if name in ("square", "total", "step", "root", "rate", "clip"):  # never negative
            arrays[name] = abs(arrays[name])
    if "a" in arrays and "g" in arrays:
        arrays["g"] = numpy.nan_to_num(
            first, nan=numpy.nan, posinf=3, neginf=-3
        )  # times 0, or times nearly 0: both right
        [forward] = [other for other in CASES if other.name == case.name.replace("backward", "sigma")]
        with numpy.errstate(all="ignore"):
            arrays["a"] = forward.direct(arrays["z"])
    return arrays


def magnitude(source: Trace, arrays: dict[str, Any]) -> Any:
    """Return the largest finite value that a trace meets at each point: what its rounding errors are in units of."""
    largest = numpy.zeros(len(next(iter(arrays.values()))))
    values: list[Any] = []
    symbols = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
    symbols |= {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
    for operation, operands in source.values:
        if operation in ("input", "number"):
            values.append(arrays[operands[0]].astype(float) if operation == "input" else operands[0])
        else:
            function = getattr(PLAIN, operation, None) or getattr(numpy, symbols.get(operation, operation))
            values.append(numpy.asarray(function(*[values[k] for k in operands])))
        largest = numpy.fmax(largest, numpy.nan_to_num(abs(values[-1] * 1.0), posinf=0.0))
    return largest


# -- as C++ ------------------------------------------------------------------------------------------------------------


def functions(kind: str) -> str:
    """Return all formulas as device functions for one type of number, and what they call."""
    texts = [cuda_function(f"f_{case}", case.trace, case.arguments, case.overwrites) for case in CASES]
    return "\n".join([f"using T = {kind};", (KERNELS / "formulas.cuh").read_text(), *texts])


def call(case: Case, index: str) -> str:
    """Return statements that compute a formula at in[k][index] into out[k][index]."""
    names = ", ".join(case.arguments)
    load = "".join(f"T {name} = in[{k}][{index}]; " for k, name in enumerate(case.arguments))
    if not case.overwrites:
        return f"{load}out[0][{index}] = f_{case}({names});"
    store = "".join(f" out[{k}][{index}] = {name};" for k, name in enumerate(case.overwrites))
    return f"{load}f_{case}({names});{store}"


def backend_of(block: int = 16) -> NumpyBackend:
    """Return a backend whose programs work in blocks of so many elements."""
    backend = NumpyBackend()
    backend.block = block
    return backend


def run(backend: NumpyBackend, case: Case, arrays: dict[str, Any], out: Any = None) -> list[numpy.ndarray]:
    """Run a formula on copies; check that it wrote nothing but its outputs."""
    mine = {name: a.copy() for name, a in arrays.items()}
    if isinstance(out, str):
        out = mine[out]
    outputs = [mine[name] for name in case.overwrites] or [
        numpy.empty_like(arrays[case.arguments[0]]) if out is None else out
    ]
    with backend.running(0.0):
        backend._run(case.trace, mine, outputs, case.overwrites)
    for name, before in arrays.items():
        if not any(mine[name] is output for output in outputs):
            assert numpy.array_equal(mine[name], before, equal_nan=True), f"{name} was written"
    return outputs


def host_library(folder: Path) -> ctypes.CDLL:
    """Compile the device functions for the CPU: run_NAME_float and run_NAME_double, each over n points."""
    parts = ["#include <cmath>\n#define __device__\n#define __forceinline__ inline\nusing namespace std;"]
    for kind in ("float", "double"):
        loops = [
            f'extern "C" void run_{case}_{kind}(long n, T** in, T** out) {{\n'
            f"    for (long i = 0; i < n; ++i) {{ {call(case, 'i')} }}\n}}"
            for case in CASES
        ]
        parts += [f"namespace for_{kind} {{", functions(kind), *loops, "}"]
    source, library = folder / "formulas.cpp", folder / "formulas.so"
    source.write_text("\n".join(parts))
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run(["g++", *options, "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


def on_host(library: ctypes.CDLL, case: Case, arrays: dict[str, Any]) -> list[numpy.ndarray]:
    """Run a compiled formula."""
    columns = [numpy.ascontiguousarray(arrays[name]) for name in case.arguments]
    outputs = [numpy.empty_like(columns[0]) for _ in case.overwrites or (0,)]
    pointers = [(ctypes.c_void_p * len(group))(*[a.ctypes.data for a in group]) for group in (columns, outputs)]
    kind = {"float32": "float", "float64": "double"}[str(columns[0].dtype)]
    getattr(library, f"run_{case}_{kind}")(ctypes.c_long(columns[0].size), *pointers)
    return outputs
