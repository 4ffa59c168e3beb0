"""Run a traced formula on arrays as a list of ufunc calls that write into given memory.

Intermediate values live in a few scratch blocks that fit the cache and are used again as soon as a value is dead, so
a formula of any length allocates nothing of array size and passes over memory once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..formula import COMPARISONS, Trace


class Place(NamedTuple):
    """Where a value lies: ``kind`` is "input", "output", "real" or "truth" (scratch), "number", "filled" (with one)."""

    kind: str
    key: Any


class Call(NamedTuple):
    """One call, ``operation(*operands, target)``; operands and target are indices into `Program.places`."""

    operation: str
    operands: tuple[int, ...]
    target: int


class Scratch(threading.local):
    """Blocks of memory, by type and number; every thread has its own, and in it every level of computations.

    Attributes:
        level: how many computations run inside one another; a signal handler may begin one within another's formula.
    """

    def __init__(self) -> None:
        self.level = 0
        self._levels: dict[int, dict[tuple[Any, int | str], Any]] = {}

    @property
    def blocks(self) -> dict[tuple[Any, int | str], Any]:
        """The blocks of this level."""
        return self._levels.setdefault(self.level, {})

    def take(self, xp: Any, dtype: Any, number: int | str, size: int) -> Any:
        """Return block `number` of a type, cut to `size` elements; it grows when it is too small."""
        blocks = self.blocks
        block = blocks.get((dtype, number))
        if block is None or block.size < size:
            block = blocks[dtype, number] = xp.empty(size, dtype)
        return block[:size]

    def filled(self, xp: Any, dtype: Any, value: float, size: int) -> Any:
        """Return so many elements of one value, not to be written to."""
        blocks, key = self.blocks, (dtype, f"filled with {value}")
        if key not in blocks or blocks[key].size < size:
            blocks[key] = xp.full(size, value, dtype)
        return blocks[key][:size]

    def all(self) -> list[Any]:
        """Return every block of this thread and level."""
        return list(self.blocks.values())


class Program:
    """A trace compiled to calls.

    Args:
        source: the trace to run.
        overwrites: names of the inputs whose arrays receive the outputs, in order. Empty: there is one output, in an
            array of its own or in that of any input.
    """

    def __init__(self, source: Trace, overwrites: Sequence[str] = ()) -> None:
        compiler = _Compiler(source, tuple(overwrites))
        self.calls = compiler.calls
        self.places = list(compiler.index)

    def run(
        self,
        operations: Mapping[str, Callable[..., Any]],
        inputs: Mapping[str, Any],
        outputs: Sequence[Any],
        block: int,
        scratch: Callable[[str, Any, int], Any],
    ) -> None:
        """Compute the outputs, one block of elements after another.

        Args:
            operations: the function for each operation of the vocabulary, called with its operands and the target.
            inputs: contiguous arrays of one size, or numbers and arrays of no dimension, by name.
            outputs: contiguous arrays of that size, written.
            block: elements to a block.
            scratch: ``scratch(kind, key, size)`` returns a block of reals, of truth values, or filled with a number.
        """
        flat = {name: a.reshape(-1) if getattr(a, "ndim", 0) else a for name, a in inputs.items()}
        targets = [a.reshape(-1) for a in outputs]
        calls = [(operations[c.operation], c.operands, c.target) for c in self.calls]
        size = targets[0].size
        for start in range(0, size, block):
            part = slice(start, min(start + block, size))
            memory = [self._memory(place, flat, targets, part, scratch) for place in self.places]
            for operation, operands, target in calls:
                operation(*[memory[k] for k in operands], memory[target])

    @staticmethod
    def _memory(place: Place, inputs: Mapping[str, Any], outputs: Sequence[Any], part: slice, scratch: Any) -> Any:
        """Return the array or number that a place stands for within one block."""
        kind, key = place
        if kind == "input":
            value = inputs[key]
            return value[part] if getattr(value, "ndim", 0) else value
        if kind == "output":
            return outputs[key][part]
        return key if kind == "number" else scratch(kind, key, part.stop - part.start)


class _Compiler:
    """Gives each value of a trace a place and lists the calls that fill them."""

    def __init__(self, source: Trace, overwrites: tuple[str, ...]) -> None:
        self.source, self.overwrites = source, overwrites
        self.calls: list[Call] = []
        self.index: dict[Place, int] = {}
        self.free: dict[str, list[int]] = {"real": [], "truth": []}
        self.taken = {"real": 0, "truth": 0}
        self.last_use = {k: at for at, (_, ks) in enumerate(source.values) for k in ks if isinstance(k, int)}
        self.last_use |= dict.fromkeys(source.outputs, len(source.values))
        self.places: list[Place] = []
        for position in range(len(source.values)):
            self.places.append(self._compute(position))
        for number, place in enumerate([self._kept(self.places[k]) for k in source.outputs]):
            self._copy(place, Place("output", number))

    def _compute(self, position: int) -> Place:
        """Emit the call that computes one value; return where it lies."""
        operation, operands = self.source.values[position]
        if operation in ("input", "number"):
            return Place(operation, operands[0])
        terms = [self.places[k] for k in operands]
        is_truth = operation == "where" and terms[1:] == [Place("number", 1.0), Place("number", 0.0)]
        scratch = [self._take("real"), self._take("real")] if operation == "where" and not is_truth else []
        for k in set(operands):
            if self.last_use[k] == position:
                self._release(self.places[k])
        target = self._output(position) or self._take("truth" if operation in COMPARISONS else "real")
        if is_truth:
            self._copy(terms[0], target)  # as numbers
        elif operation == "where":
            self._emit("select", [*map(_block, terms), *scratch], target)
        elif operation in ("maximum", "minimum"):  # NumPy's are three times as fast on two arrays
            self._emit(operation, [*map(_block, terms)], target)
        else:
            self._emit(operation, terms, target)
        for place in scratch:
            self._release(place)
        return target

    def _output(self, position: int) -> Place | None:
        """Return the output array if the value may be written there at once: nothing may still be read from it."""
        if position not in self.source.outputs:
            return None
        number = self.source.outputs.index(position)
        shares = self.overwrites[number : number + 1] or self.source.inputs
        read_later = any(
            name == "input" and operands[0] in shares and self.last_use[at] > position
            for at, (name, operands) in enumerate(self.source.values)
        )
        return None if read_later else Place("output", number)

    def _kept(self, place: Place) -> Place:
        """Return an output's place, moved to scratch where it is an input that another output may overwrite."""
        if place.kind != "input" or place.key not in self.overwrites:
            return place
        moved = self._take("real")
        self._copy(place, moved)
        return moved

    def _copy(self, value: Place, target: Place) -> None:
        if value != target:
            self._emit("copy", [value], target)

    def _emit(self, operation: str, operands: list[Place], target: Place) -> None:
        numbers = [self.index.setdefault(place, len(self.index)) for place in (*operands, target)]
        self.calls.append(Call(operation, tuple(numbers[:-1]), numbers[-1]))

    def _take(self, kind: str) -> Place:
        if not self.free[kind]:
            self.free[kind].append(self.taken[kind])
            self.taken[kind] += 1
        return Place(kind, self.free[kind].pop())

    def _release(self, place: Place) -> None:
        if place.kind in self.free:
            self.free[place.kind].append(place.key)


def _block(place: Place) -> Place:
    """Return a place that is an array: of a number a block filled with it."""
    return Place("filled", place.key) if place.kind == "number" else place
