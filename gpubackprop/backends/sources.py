"""Where the CUDA sources are, and how one is assembled: types, generated formulas, the kernel around them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..formula import Trace, cuda_function, trace

if TYPE_CHECKING:
    from ..activations import Activation
    from ..losses import Loss
    from ..optimizers import Optimizer

_PACKAGE = Path(__file__).parent.parent
# A wheel carries the folder inside the package; a checkout, or an editable install of one, has it beside.
KERNELS = next(folder for folder in (_PACKAGE / "kernels", _PACKAGE.parent / "kernels") if folder.is_dir())

# The types of the kernels, by those of arrays; NumPy has no bfloat16, so that arrays hold its bits.
TYPES = {"float32": "float", "float64": "double", "uint16": "bfloat16"}

_INCLUDE = re.compile(r'#include "(\w+\.cuh)"')
_SIGNATURE = re.compile(r"__global__[^{;]*?(\w+)\(([^(){}]*)\)\s*\{")


class Function(NamedTuple):
    """A formula as the kernels call it: ``name(arguments)``, which overwrites some of them or returns one value."""

    name: str
    source: Trace
    arguments: tuple[str, ...]
    overwrites: tuple[str, ...] = ()


class Source(NamedTuple):
    """One kernel: the file in ``kernels/`` and the function in it, the formulas it calls, and further definitions."""

    kernel: str
    functions: tuple[Function, ...] = ()
    definitions: str = ""


class Parameter(NamedTuple):
    """A parameter of a kernel."""

    name: str
    type: str  # T, S, Index, int, unsigned, Word
    is_array: bool


# -- one kernel for each row -------------------------------------------------------------------------------------------

PLAIN = "cast", "dropout", "gather", "penalty", "softmax", "sum_rows", "weights"
CAST, DROPOUT, GATHER, PENALTY, SOFTMAX, SUM_ROWS, WEIGHTS = map(Source, PLAIN)


def activate(activation: Activation) -> Source:
    """Return the kernel of equations 1 and 2 after the product."""
    return SOFTMAX if activation.rowwise else Source("activate", (Function("sigma", activation.forward, ("z",)),))


def delta(activation: Activation) -> Source:
    """Return the kernel of equations 4 and 6 after the product."""
    return Source("delta", (_backward(activation),))


def output(loss: Loss, activation: Activation) -> Source:
    """Return the kernel of equation 3, with 6 for the last layer."""
    canonical = loss.fits(activation)
    value = loss.canonical_value if canonical and loss.canonical_value else loss.value
    functions = (
        Function("loss", value, ("y", "s" if canonical else "a")),
        Function("loss_prime", loss.slope, ("y", "a")),
    )
    definitions = f"constexpr bool CANONICAL = {str(canonical).lower()};\n"
    if activation.rowwise:
        return Source("output_rows", functions, definitions)
    return Source("output", (*functions, _backward(activation)), definitions)


def update(optimizer: Optimizer) -> Source:
    """Return the kernel of equations 7 and 8."""
    return _update(optimizer.update, optimizer.slots, optimizer.scalar_names, optimizer.clip_factor)


def _update(change: Trace, kept: tuple[str, ...], names: tuple[str, ...], clip_factor: Trace) -> Source:
    """Return the kernel of a change to w, from g, what is kept beside w, and numbers by name."""
    slots = "".join(f", s[{j}][k]" for j in range(len(kept)))
    scalars = "".join(f", h[{j}]" for j in range(len(names)))
    functions = (
        Function("clip_factor", clip_factor, ("squares",)),
        Function("change", change, ("w", "g", *kept, *names, "clip"), ("w", *kept)),
    )
    step = (
        f"constexpr int SLOTS = {len(kept)};\n"
        "template <class Slots> __device__ __forceinline__ void\n"
        "step(T& w, T g, Slots& s, int k, const T* h, T clip) {\n"
        f"    change(w, g{slots}{scalars}, clip);\n}}\n"
    )
    return Source("update", functions, step)


# w ← w + g: gradients of parts of a batch are added up
ADD = _update(trace(lambda m, w, g: w + g, ("w", "g")), (), (), trace(lambda m, squares: 1.0, ("squares",)))


def _backward(activation: Activation) -> Function:
    return Function("backward", activation.backward, ("g", "z", "a"))


# -- its text ----------------------------------------------------------------------------------------------------------


def assemble(source: Source, dtype: str, storage: str) -> str:
    """Return the full text of a kernel; the compiler's messages name its file and the line there.

    Args:
        source: the kernel.
        dtype: type of the arithmetic, "float32" or "float64".
        storage: type of activations and deltas: that of the arithmetic, or "uint16" for the bits of bfloat16.

    Returns:
        CUDA C++ that includes nothing.
    """
    included: set[str] = set()
    return "".join(
        [
            f"using T = {TYPES[dtype]};\n",
            _expanded("bfloat16.cuh", included) if storage == "uint16" else "",
            f"using S = {TYPES[storage]};\n",
            _expanded("formulas.cuh", included),
            f'#line 1 "formulas of {source.kernel}.cu"\n',
            *(cuda_function(*function) for function in source.functions),
            source.definitions,
            _expanded(f"{source.kernel}.cu", included),
        ]
    )


def _expanded(name: str, included: set[str]) -> str:
    """Return a file of `KERNELS` with what it includes in place, each file once."""
    included.add(name)
    lines = [f'#line 1 "{name}"\n']
    for number, line in enumerate(_read(KERNELS / name).splitlines(keepends=True), start=1):
        include = _INCLUDE.match(line)
        if not include:
            lines.append(line)
        elif include[1] in included:
            lines.append("\n")
        else:
            lines += [_expanded(include[1], included), f'#line {number + 1} "{name}"\n']
    return "".join(lines)


@cache
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def parameters(text: str) -> tuple[Parameter, ...]:
    """Return the parameters of the kernel in a text."""
    signature = _SIGNATURE.search(text)
    assert signature, "a text without a kernel"
    found = []
    for declaration in signature[2].split(","):
        *kind, name = declaration.replace("const ", "").split()
        found.append(Parameter(name, kind[0].rstrip("*"), kind[0].endswith("*")))
    return tuple(found)
