"""Every kernel with every row, in every type, compiled for the oldest GPUs, the newest and those between: what the
compiler reports of it, and which instructions it chose. No GPU is needed.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cuda_compiler
import pytest
from cuda_compiler import Built, CompileError
from formulas import OPTIMIZERS
from kernel_sources import SOURCES, STORAGES, arithmetic

from gpubackprop.backends import sources
from gpubackprop.backends.kernels import THREADS, Kernels
from gpubackprop.errors import KernelError

ARCHITECTURES = (75, 80, 90, 100)  # Turing, Ampere, Hopper, Blackwell
# A multiprocessor has 65536 registers, given out to threads by eights. In float, four blocks of 256 threads share them:
# 1024 threads, which is all that Turing holds. A double takes two registers, and one block less is left room for.
REGISTERS = {"float32": 65536 // (4 * THREADS) // 8 * 8, "float64": 65536 // (3 * THREADS) // 8 * 8}


class Wide(NamedTuple):
    """How many instructions that move 128 bits to or from memory a kernel has at least."""

    loads: int
    stores: int


# One for each array that a kernel reads or writes by vectors: a compiler that takes one apart leaves fewer. A formula
# may do without z or a, or both. The kernels of softmax take elements one by one.
WIDE = {
    "activate": Wide(loads=3, stores=3),  # z, b, mask; z, a, h
    "delta": Wide(loads=2, stores=2),  # delta, mask; delta, sums
    "dropout": Wide(loads=0, stores=1),
    "cast": Wide(loads=1, stores=1),
    "gather": Wide(loads=1, stores=1),
    "output": Wide(loads=2, stores=2),  # y, z or a; delta, sums
    "output_rows": Wide(loads=0, stores=0),
    "penalty": Wide(loads=2, stores=1),  # x, g; g
    "softmax": Wide(loads=0, stores=0),
    "sum_rows": Wide(loads=2, stores=1),  # partial, out; out
    "weights": Wide(loads=1, stores=1),  # w; weight
    "update": Wide(loads=2, stores=2),  # theta, g; theta, narrow; and the slots
}
# Disassembling takes longer than compiling: one row of each kernel here, the others under the mark `slow`.
DISASSEMBLED = {
    "cast",
    "gather",
    "dropout",
    "penalty",
    "sum_rows",
    "weights",
    "activate-gelu",
    "delta-gelu",
    "output-mse-gelu",
    "update-adam",
}
PTX = {"loads": r"\bld\.global\S*\.(?:v4\.\w32|v2\.\w64)\b", "stores": r"\bst\.global\S*\.(?:v4\.\w32|v2\.\w64)\b"}
SASS = {"loads": r"\bLDG\.\S*\b128\b", "stores": r"\bSTG\.\S*\b128\b"}

each_name = pytest.mark.parametrize("name", SOURCES)
each_storage = pytest.mark.parametrize("storage", STORAGES)


def _text(name: str, storage: str, *changes: tuple[str, str]) -> str:
    """Return the text of a kernel with parts of it replaced."""
    text = sources.assemble(SOURCES[name], arithmetic(storage), storage)
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _wide(name: str) -> Wide:
    loads, stores = WIDE[SOURCES[name].kernel]
    optimizer = OPTIMIZERS.get(name.partition("-")[2]) if SOURCES[name].kernel == "update" else None
    slots = len(optimizer.slots) if optimizer else 0
    return Wide(loads + slots, stores + slots)


def _narrow(name: str, code: str, patterns: dict[str, str]) -> list[str]:
    """Return what is wrong with the vector instructions of a kernel."""
    found = Wide(**{kind: len(re.findall(pattern, code)) for kind, pattern in patterns.items()})
    least = _wide(name)
    return [
        f"{number} of at least {wanted} {kind} of 128 bits"
        for kind, number, wanted in zip(found._fields, found, least, strict=True)
        if number < wanted
    ]


def _faults(name: str, storage: str, built: Built) -> list[str]:
    """Return what is wrong with a compiled kernel, by the report on it and its PTX."""
    assert list(built.usage) == [SOURCES[name].kernel], built.log
    usage, most = built.usage[SOURCES[name].kernel], REGISTERS[arithmetic(storage)]
    wrong = {
        f"{usage.registers} registers, more than {most}": usage.registers > most,
        f"a stack of {usage.stack} bytes": usage.stack > 0,
        f"{usage.spill_stores} bytes of registers stored": usage.spill_stores > 0,
        f"{usage.spill_loads} bytes of registers loaded": usage.spill_loads > 0,
        "double arithmetic": arithmetic(storage) == "float32" and ".f64" in built.ptx,
        f"a warning: {built.log}": "warning" in built.log,
    }
    return [fault for fault, there in wrong.items() if there] + _narrow(name, built.ptx, PTX)


@each_storage
@each_name
def test_kernel_is_compiled_as_it_should_be(name: str, storage: str, need: Any) -> None:
    """In registers alone and few enough of them, by 128 bits at a time, and in no other arithmetic than its own."""
    need("compile")
    built = cuda_compiler.for_each(ARCHITECTURES, partial(cuda_compiler.compiled, _text(name, storage)))
    faults = {f"sm_{architecture}": _faults(name, storage, one) for architecture, one in built.items()}
    assert {architecture: found for architecture, found in faults.items() if found} == {}


def _slow_but_for(names: set[str]) -> list[Any]:
    vectors = [name for name in SOURCES if any(_wide(name))]
    assert names <= set(vectors)
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in vectors]


@each_storage
@pytest.mark.parametrize("name", _slow_but_for(DISASSEMBLED))
def test_machine_code_moves_128_bits(name: str, storage: str, need: Any) -> None:
    need("compile")
    need("sass")
    codes = cuda_compiler.for_each(ARCHITECTURES, partial(cuda_compiler.machine_code, _text(name, storage)))
    faults = {f"sm_{architecture}": _narrow(name, code, SASS) for architecture, code in codes.items()}
    assert {architecture: found for architecture, found in faults.items() if found} == {}


@pytest.mark.parametrize("kernel", WIDE)
def test_nvcc_has_nothing_to_warn_of(kernel: str, need: Any, tmp_path: Path) -> None:
    need("nvcc")
    name = next(name for name, source in SOURCES.items() if source.kernel == kernel)
    cuda_compiler.compile_by_nvcc(_text(name, "float32"), 90, tmp_path)


def test_nvcc_takes_a_warning_as_an_error(need: Any, tmp_path: Path) -> None:
    need("nvcc")
    text = _text("gather", "float32", UNUSED)
    with pytest.raises(CompileError, match=r'gather.cu\(\d+\): error.*"unused"'):
        cuda_compiler.compile_by_nvcc(text, 90, tmp_path)


# -- every check finds what it is for ----------------------------------------------------------------------------------

LITERAL = ("g[k] *= m[k]", "g[k] *= 1.1 * m[k]")
ARRAY = ("T v[8];", "T v[8], far[99]; far[n % 99] = scale; scale = far[threshold % 99];")
WIDER, NARROWER = ("V = 16 / sizeof(S)", "V = 128 / sizeof(S)"), ("V = 16 / sizeof(S)", "V = 1")
UNBOUNDED = ("(BOUNDS)", "(64)")
ONE_BY_ONE = ("if (vectors && 8", "if (false && 8")
UNUSED = ("T v[width];", "T v[width]; int unused;")
PLANTED = {
    "a double literal": ("delta-gelu", [LITERAL], "double arithmetic"),
    "a large array": ("dropout", [ARRAY], "a stack of"),
    "more than registers hold, stored": ("delta-gelu", [WIDER], "bytes of registers stored"),
    "more than registers hold, loaded": ("delta-gelu", [WIDER], "bytes of registers loaded"),
    "more than their share of registers": ("delta-gelu", [WIDER, UNBOUNDED], "registers, more than 64"),
    "loads one by one": ("gather", [NARROWER], "0 of at least 1 loads of 128 bits"),
    "stores one by one": ("dropout", [ONE_BY_ONE], "0 of at least 1 stores of 128 bits"),
    "a variable without use": ("gather", [UNUSED], "a warning"),
}


@pytest.mark.parametrize(("name", "changes", "fault"), PLANTED.values(), ids=PLANTED)
def test_planted_fault_is_found(name: str, changes: list[tuple[str, str]], fault: str, need: Any) -> None:
    need("compile")
    built = cuda_compiler.compiled(_text(name, "float32", *changes), 90)
    assert fault in "; ".join(_faults(name, "float32", built))


@pytest.mark.parametrize(("name", "change"), [("gather", NARROWER), ("dropout", ONE_BY_ONE)])
def test_narrow_machine_code_is_found(name: str, change: tuple[str, str], need: Any) -> None:
    need("compile")
    need("sass")
    code = cuda_compiler.machine_code(_text(name, "float32", change), 90)
    assert _narrow(name, code, SASS)[0].startswith("0 of at least 1 ")


# -- what does not compile ---------------------------------------------------------------------------------------------


def _refusal(name: str, text: str) -> str:
    """Return what the backend says of a kernel that does not compile, with this compiler in the place of CuPy's."""

    def module(code: str, options: tuple[str, ...]) -> Built:
        return cuda_compiler.compiled(code, 90)

    compiler = SimpleNamespace(CompileException=CompileError)
    kernels = Kernels(SimpleNamespace(RawModule=module, cuda=SimpleNamespace(compiler=compiler)))
    with pytest.raises(KernelError) as refusal:
        kernels._compile(name, text)
    return str(refusal.value)


def _line(file: str, part: str) -> int:
    """Return the number of the line of a file of `kernels/` that holds a text."""
    lines = (sources.KERNELS / file).read_text(encoding="utf-8").splitlines()
    [number] = [number for number, line in enumerate(lines, start=1) if part in line]
    return number


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("delta.cu", "load(g, delta + i)"),  # in front of which other files are included
        ("sums.cuh", "mine[k] = v[k]"),
        ("walk.cuh", "v[0] = T(p[0])"),
        ("formulas.cuh", "a > b || a != a"),
    ],
)
def test_an_error_names_the_file_and_the_line(file: str, part: str, need: Any) -> None:
    need("compile")
    said = _refusal("delta", _text("delta-gelu", "float32", (part, f"nowhere {part}")))
    assert "kernels/delta.cu does not compile: " in said
    assert f"{file}({_line(file, part)}): error" in said


def test_an_error_in_a_formula_is_named_too(need: Any) -> None:
    need("compile")
    text = _text("delta-squash", "float32")
    first = text.index('#line 1 "formulas of delta.cu"')
    broken = text[:first] + text[first:].replace("sqrt(", "no_such_root(", 1)
    line = broken[first:].partition("no_such_root(")[0].count("\n")
    assert f"formulas of delta.cu({line}): error" in _refusal("delta", broken)


# -- the tests of this file --------------------------------------------------------------------------------------------


def test_every_kernel_is_here() -> None:
    files = {path.stem for path in sources.KERNELS.glob("*.cu")}
    assert {source.kernel for source in SOURCES.values()} == set(WIDE) == files
    assert {SOURCES[name].kernel for name in DISASSEMBLED} == {kernel for kernel, wide in WIDE.items() if any(wide)}
