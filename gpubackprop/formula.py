"""Write a formula once: run it on arrays without temporaries, or write it out as a CUDA device function.

A formula is an ordinary Python function whose first argument ``m`` is the vocabulary of mathematics, for
example ``lambda m, z: m.log1p(m.exp(z))``. It may use ``+ - * /``, comparisons, numbers, and the functions of
`Vocabulary`. Called once with symbols it leaves a `Trace`, a list of single operations, and everything else reads
that trace: `Program` runs it on NumPy or CuPy arrays, `cuda_function` writes it as CUDA C++, `c_loop` as C for a CPU,
`gpubackprop.onnx` as operators of ONNX. There is no second form that could drift from the first.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from .checks import choice, real
from .errors import InvalidValue

Formula = Callable[..., Any]

FUNCTIONS = ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "erf", "abs", "minimum", "maximum", "where")
COMPARISONS = {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}


class Symbol:
    """A value known only by the operation that will compute it: its name, and the symbols or numbers it takes."""

    __array_ufunc__ = None  # numpy.tanh(symbol) is an error, not an array of objects

    def __init__(self, operation: str, *operands: Any) -> None:
        self.operation, self.operands = operation, operands

    def __add__(self, other: Any) -> Symbol:
        return Symbol("+", self, other)

    def __radd__(self, other: Any) -> Symbol:
        return Symbol("+", other, self)

    def __sub__(self, other: Any) -> Symbol:
        return Symbol("-", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return Symbol("-", other, self)

    def __mul__(self, other: Any) -> Symbol:
        return Symbol("*", self, other)

    def __rmul__(self, other: Any) -> Symbol:
        return Symbol("*", other, self)

    def __truediv__(self, other: Any) -> Symbol:
        return Symbol("/", self, other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return Symbol("/", other, self)

    def __neg__(self) -> Symbol:
        return Symbol("negative", self)

    def __lt__(self, other: Any) -> Symbol:
        return Symbol("<", self, other)

    def __le__(self, other: Any) -> Symbol:
        return Symbol("<=", self, other)

    def __gt__(self, other: Any) -> Symbol:
        return Symbol(">", self, other)

    def __ge__(self, other: Any) -> Symbol:
        return Symbol(">=", self, other)

    def __eq__(self, other: object) -> bool:
        return bool(self)

    def __ne__(self, other: object) -> bool:
        return bool(self)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError("a formula cannot branch on a value in Python: use m.where(condition, then, otherwise)")


class Vocabulary:
    """The functions a formula may call, each recorded as one operation."""

    def __getattr__(self, name: str) -> Callable[..., Symbol]:
        if name not in FUNCTIONS:
            raise AttributeError(f"m.{name} is not in the vocabulary, which has {', '.join(FUNCTIONS)}")
        return lambda *operands: Symbol(name, *operands)


@dataclass(frozen=True, eq=False)
class Trace:
    """A formula as single operations in the order in which they can run; two traces are equal if they are one.

    Attributes:
        values: one ``(operation, operands)`` per value. ``("input", (name,))`` and ``("number", (x,))`` are the
            leaves; the operands of every other operation are positions of earlier values.
        outputs: positions in `values` of what the formula returns.
    """

    values: tuple[tuple[str, tuple[Any, ...]], ...]
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs that the formula really uses."""
        return tuple(operands[0] for operation, operands in self.values if operation == "input")

    @property
    def numbers(self) -> tuple[float, ...]:
        """Its constants, in order."""
        return tuple(operands[0] for operation, operands in self.values if operation == "number")


def trace(
    formula: Formula,
    inputs: Sequence[str],
    parameters: Mapping[str, float] | None = None,
    *,
    outputs: int | None = None,
    owner: str = "",
) -> Trace:
    """Run a formula on symbols and return what it computes.

    Args:
        formula: ``formula(m, *inputs, **parameters)`` returning one value or a tuple of values.
        inputs: names of its symbolic arguments, in order.
        parameters: numbers it takes by keyword; they become constants of the trace.
        outputs: how many values it must return; None for any number.
        owner: what the formula belongs to, for messages.

    Returns:
        The trace, with equal subexpressions computed once.

    Raises:
        InvalidValue: the formula leaves the vocabulary: it branches in Python, or calls something else; it fails, nests
            deeper than Python can follow, or returns another number of values.
    """
    try:
        result = formula(Vocabulary(), *(Symbol("input", name) for name in inputs), **(parameters or {}))
        return _linear(_counted(result, outputs))
    except Exception as error:  # whatever a user's formula raises
        cause = str(error) if isinstance(error, (TypeError, AttributeError)) else f"{type(error).__name__}: {error}"
        raise InvalidValue(
            f"{owner and owner + ': '}a formula of {', '.join(inputs)} cannot be traced: {cause}; it may use "
            f"+ - * /, comparisons, numbers and m.{', m.'.join(FUNCTIONS)}"
        ) from error


def _counted(result: Any, outputs: int | None) -> tuple[Any, ...]:
    """Return what a formula returned as a tuple, of so many values if that is given."""
    results = result if isinstance(result, tuple) else (result,)
    if outputs is not None and len(results) != outputs:
        given = f"a tuple of {len(results)}" if isinstance(result, tuple) else f"one {type(result).__name__}"
        accepted = "one value" if outputs == 1 else f"a tuple of {outputs} values"
        raise TypeError(f"it must return {accepted}, got {given}")
    return results


@dataclass(frozen=True)
class Row:
    """A name, formulas, and the numbers they take: what every table of functions is made of.

    A row can be pickled, by protocol 4 or later, if its formulas are functions of a module, or if the row has a name at
    the top of one.

    Attributes:
        name: what users call it.
        parameters: numbers that its formulas take by keyword, with their defaults; ``row(slope=0.2)`` sets them.
        limits: lowest and highest value of a parameter, where it has any.

    Raises:
        InvalidValue: a parameter outside its limits.
        InvalidType: a parameter that is no number.
    """

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict, hash=False, kw_only=True)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        checked = {
            name: real(f"{self.name} {name}", value, *self.limits.get(name, ()))
            for name, value in self.parameters.items()
        }
        object.__setattr__(self, "parameters", checked)

    def __call__(self, **parameters: float) -> Self:
        """Return the same row with other parameters.

        Args:
            parameters: the new values by name; the others stay as they are.

        Returns:
            The row.

        Raises:
            InvalidValue: a parameter it does not have, or a value outside its limits.
            InvalidType: a value that is no number.
        """
        given = {choice(f"a parameter of {self.name!r}", name, self.parameters): x for name, x in parameters.items()}
        return replace(self, parameters={**self.parameters, **given})

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields, without traces; a lambda gets the name under which pickle finds it: ``row.field``."""
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        for value in state.values():
            if getattr(value, "__name__", "") == "<lambda>":
                value.__qualname__ = _place_of(value) or value.__qualname__
        return state

    def as_dict(self) -> dict[str, Any]:
        """Return {"name": ..., "parameters": ...}, all that a file says of a row."""
        return {"name": self.name, "parameters": dict(self.parameters)}

    def trace(self, formula: Formula, *inputs: str) -> Trace:
        """Return the trace of a formula of `inputs`, with this row's parameters and one output; errors name the row."""
        return trace(formula, inputs, self.parameters, outputs=1, owner=f"{type(self).__name__.lower()} {self.name!r}")


def _place_of(formula: Formula) -> str | None:
    """Return a row and a field by which a formula is found in its module, as "relu.sigma", or None."""
    module = sys.modules.get(formula.__module__)
    rows = [(name, row) for name, row in vars(module).items() if isinstance(row, Row)] if module else []
    found = (f"{name}.{each.name}" for name, row in rows for each in fields(row) if getattr(row, each.name) is formula)
    return next(found, None)


def _linear(results: tuple[Any, ...]) -> Trace:
    """Number the values of an expression so that each is computed once, operands before what uses them."""
    numbers: dict[tuple[str, tuple[Any, ...]], int] = {}
    seen: dict[int, int] = {}

    def number(node: Any) -> int:
        if id(node) in seen:
            return seen[id(node)]
        if not isinstance(node, Symbol):
            key: tuple[str, tuple[Any, ...]] = ("number", (_finite(node),))
        elif node.operation in ("input", "number"):
            key = (node.operation, node.operands)
        else:
            _check(node)
            key = (node.operation, tuple(number(operand) for operand in node.operands))
        position = numbers.setdefault(key, len(numbers))
        if isinstance(node, Symbol):  # symbols live as long as the expression, so their id is theirs alone
            seen[id(node)] = position
        return position

    if any(map(_is_comparison, results)):
        raise TypeError(_CONDITION)
    outputs = tuple(number(result) for result in results)
    return Trace(tuple(numbers), outputs)


def spell_out(source: Trace, operation: str, formula: Formula) -> Trace:
    """Return a trace in which one operation is spelled out by a formula of the same operands."""
    symbols: list[Any] = []
    for name, operands in source.values:
        if name in ("input", "number"):
            symbols.append(Symbol(name, *operands))
        else:
            terms = [symbols[k] for k in operands]
            symbols.append(formula(Vocabulary(), *terms) if name == operation else Symbol(name, *terms))
    return _linear(tuple(symbols[k] for k in source.outputs))


ARITY = {"where": 3, "minimum": 2, "maximum": 2} | dict.fromkeys((*COMPARISONS, "+", "-", "*", "/"), 2)


def _check(node: Symbol) -> None:
    """Refuse an operation with the wrong number of operands, or a choice by something other than a comparison."""
    count = ARITY.get(node.operation, 1)
    if len(node.operands) != count:
        raise TypeError(f"m.{node.operation} takes {count} operands, got {len(node.operands)}")
    if node.operation == "where" and not _is_comparison(node.operands[0]):
        raise TypeError("m.where takes a comparison as its first operand")
    if any(map(_is_comparison, node.operands[node.operation == "where" :])):
        raise TypeError(_CONDITION)


_CONDITION = "a comparison may only be the first operand of m.where"  # NumPy and C++ add truth values differently


def _is_comparison(value: Any) -> bool:
    return isinstance(value, Symbol) and value.operation in COMPARISONS


def _finite(value: Any) -> float:
    """Return a constant of a formula as a float."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"{value!r} is neither a symbol nor a finite number")
    return float(value)


def cuda_function(name: str, source: Trace, arguments: Sequence[str], overwrites: Sequence[str] = ()) -> str:
    """Write a trace as a CUDA device function on values of the type ``T``.

    Args:
        name: name of the function.
        source: the trace.
        arguments: names of all its arguments, in order, used or not; in the text each ends in _, so that it is no
            word of C++ and none of the function's own.
        overwrites: the arguments that receive the outputs, in order; they are passed by reference. Without any, the
            function returns its one output.

    Returns:
        Source text; it needs ``minimum`` and ``maximum`` of `kernels/formulas.cuh`.
    """
    text, results = _statements(source, [f"T({number!r})" for number in source.numbers])
    if overwrites:
        # Read all before writing any: an output may be the old value of an argument that another output overwrites.
        text += [f"    const T r{k} = {result};\n" for k, result in enumerate(results)]
        text += [f"    {target}_ = r{k};\n" for k, target in enumerate(overwrites)]
    else:
        text.append(f"    return {results[0]};\n")
    heads = ", ".join(f"T{'&' if argument in overwrites else ''} {argument}_" for argument in arguments)
    return f"__device__ __forceinline__ {'void' if overwrites else 'T'} {name}({heads}) {{\n{''.join(text)}}}\n"


def c_loop(name: str, source: Trace, scalars: Collection[str]) -> str:
    """Write a trace as a function of C that goes over arrays of the type ``T``, element by element.

    Args:
        name: name of the function.
        source: the trace.
        scalars: inputs that are one number, the same for all elements.

    Returns:
        Source text of ``void name(long long n, T *const *arrays)``; the arrays are the numbers of the trace in one,
        then its inputs, and then its outputs, each of which may be that of an input. Traces that differ in numbers
        alone have one text. It needs what `cuda_function` does.
    """
    inputs, count = [(k, name, name in scalars) for k, name in enumerate(source.inputs, start=1)], len(source.numbers)
    body, results = _statements(source, [f"c{k}" for k in range(count)])
    first = 1 + len(inputs)
    return "".join(
        [
            f"void {name}(long long n, T *const *arrays) {{\n",
            *(f"const T c{k} = arrays[0][{k}];\n" for k in range(count)),
            *(f"const T {name}_ = *arrays[{k}];\n" for k, name, is_scalar in inputs if is_scalar),
            *(f"const T *const p{k} = arrays[{k}];\n" for k, _, is_scalar in inputs if not is_scalar),
            *(f"T *const p{k} = arrays[{k}];\n" for k in range(first, first + len(results))),
            "#pragma omp simd\n",  # no element is computed from what was written for another
            "for (long long i = 0; i < n; ++i) {\n",
            *(f"    const T {name}_ = p{k}[i];\n" for k, name, is_scalar in inputs if not is_scalar),
            *body,
            *(f"    const T r{k} = {result};\n" for k, result in enumerate(results)),
            *(f"    p{k}[i] = r{k - first};\n" for k in range(first, first + len(results))),
            "}\n}\n",
        ]
    )


def _statements(source: Trace, numbers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return statements of C on values of the type ``T``, and the outputs as expressions; inputs end in _."""
    text: list[str] = []
    terms: list[str] = []
    literals = iter(numbers)
    for position, (operation, operands) in enumerate(source.values):
        if operation in ("input", "number"):
            terms.append(f"{operands[0]}_" if operation == "input" else next(literals))
        else:
            kind = "bool" if operation in COMPARISONS else "T"
            text.append(f"    const {kind} v{position} = {_c_term(operation, [terms[k] for k in operands])};\n")
            terms.append(f"v{position}")
    return text, [terms[k] for k in source.outputs]


def _c_term(operation: str, terms: list[str]) -> str:
    """Return one operation as an expression of C and C++."""
    if operation in COMPARISONS or operation in ("+", "-", "*", "/"):
        return f"{terms[0]} {operation} {terms[1]}"
    if operation == "where":
        return f"{terms[0]} ? {terms[1]} : {terms[2]}"
    if operation == "negative":
        return f"-{terms[0]}"
    return f"{'fabs' if operation == 'abs' else operation}({', '.join(terms)})"
