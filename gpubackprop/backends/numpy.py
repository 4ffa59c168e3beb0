"""The reference backend: every equation as an array expression that writes into memory it is given.

The class is correct on NumPy and, with another array module for ``xp``, on CuPy; `CudaBackend` overrides what the
device does in another way. No operation allocates memory of array size once its scratch blocks are there.

Letters: N examples in a batch, m inputs and n outputs of a layer.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy

from ..errors import OutOfMemory
from ..formula import Trace, spell_out, trace
from . import memory, threads
from .erf import erf
from .operations import complex_operations, real_operations
from .pairs import Pair
from .program import Program, Scratch
from .reducers import HostReducer, Ranks
from .running import Running
from .tape import Recording, Tape, Taped

if TYPE_CHECKING:
    from ..activations import Activation
    from ..losses import Loss
    from ..optimizers import Optimizer
    from .loops import Loops

LEAST_WEIGHT = 1e-30  # keeps a batch of examples that all weigh nothing from dividing by zero
_MANY_CALLS = 16  # of a formula, beside which a recording may go over the blocks anew and need not hold every call
_FEW = 32  # columns of a matrix in whose rows the largest is found faster by columns: 12 → 3 µs for 256 × 10
_NUMBERS_A_COUNT = 8  # of 24 bits, that Philox 4x64 draws
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector of the CPU


class NumpyBackend:
    """The equations on NumPy arrays.

    Args:
        xp: the array module.
        loops: those that run formulas of plain arithmetic, or None.

    Attributes:
        name: "numpy".
        xp: the array module.
        block: elements to a block of scratch memory; a handful of blocks fit the second-level cache.
        precisions: what `Network` may be given as its precision.
    """

    name = "numpy"
    block = 32_768
    precisions: tuple[str, ...] = ("float32",)

    def __init__(self, xp: Any = numpy, loops: Loops | None = None) -> None:
        self._tape, self._loops = Tape(), loops
        self.xp = Taped(xp, self._tape) if xp is numpy else xp
        self._operations = {False: real_operations(self.xp), True: complex_operations(xp)}
        self._programs: weakref.WeakKeyDictionary[Trace, dict[tuple[Any, ...], Program]] = weakref.WeakKeyDictionary()
        self._scratch = Scratch()

    @property
    def description(self) -> str:
        """What runs here, in a few words."""
        return f"NumPy {numpy.__version__} on the CPU, {threads.blas_description()}"

    @property
    def engine(self) -> str:
        """How training steps run; of loops once they cannot be compiled no more is said."""
        loops = f"; {self._loops}" if self._loops and not self._loops.is_broken else ""
        return f"NumPy calls, recorded in the first step{loops}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.description})"

    # -- memory --------------------------------------------------------------------------------------------------

    def zeros(self, shape: int | tuple[int, ...], dtype: str) -> Any:
        """Return zeros in aligned memory."""
        size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * numpy.dtype(dtype).itemsize
        try:
            raw = numpy.zeros(size + _ALIGNMENT, numpy.uint8)
        except (MemoryError, ValueError, OverflowError) as error:  # the latter two: more than there are addresses
            raise OutOfMemory(
                f"{size:,} bytes are needed for an array {shape}: take a smaller network or batch"
            ) from error
        start = -raw.ctypes.data % _ALIGNMENT
        return raw[start : start + size].view(dtype).reshape(shape)

    def asarray(self, x: Any, dtype: str) -> Any:
        """Return an array of this backend with x's values, contiguous; x itself where it is one already."""
        return numpy.ascontiguousarray(x.get() if hasattr(x, "__cuda_array_interface__") else x, dtype)

    def is_finite(self, x: Any) -> bool:
        """Return whether an array holds neither NaN nor infinity."""
        with (running := self.running(0.0)), running:  # a finite sum proves it; a sum that overflows proves nothing
            return math.isfinite(float(self.xp.sum(x))) or bool(self.xp.isfinite(x).all())

    def to_numpy(self, x: Any) -> numpy.ndarray:
        """Return an array of this backend as a NumPy array."""
        return numpy.asarray(x)

    def running(self, flops: float) -> Running:
        """Return a context for a computation whose steps take `flops` operations in their products; see `Running`."""
        return Running(self._tape, self._scratch, threads.for_products_of(flops))

    def synchronize(self) -> None:
        """Wait until everything asked for is done."""

    def pair(self, shapes: Sequence[tuple[int, int]], dtype: str) -> Pair:
        """Return two buffers of rows for training steps, of arrays of these shapes."""
        return Pair(self, shapes, dtype)

    def free_bytes(self) -> int | None:
        """Return the memory that may be taken, or None where the system does not tell."""
        return memory.free_bytes()

    # -- precision -----------------------------------------------------------------------------------------------

    def with_precision(self, precision: str) -> NumpyBackend:
        """Return the backend that multiplies with one of `precisions`."""
        return self

    def storage(self, dtype: str) -> str:
        """Return the type in which activations and deltas are stored, where parameters have a type."""
        return dtype

    def narrow(self, x: Any, out: Any = None) -> Any:
        """Return x in the type of storage, in `out` if that is given; x itself where it has that type already."""
        return x

    def widen(self, a: Any, out: Any) -> None:
        """out = a, from the type of storage."""
        out[...] = a

    # -- steps that are repeated ---------------------------------------------------------------------------------

    def portion(self, flops: float) -> int:
        """Return how many training steps of so many operations are taken in one go, without a look at the clock."""
        return 1

    def put(self, buffer: Any, values: Any) -> Any:
        """Copy values into the front of a buffer, where recorded work finds them; return the buffer."""
        buffer[... if isinstance(values, int) else slice(len(values))] = values
        return buffer

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a function that does the work, as often as it is called, on arrays that stay the same."""
        return Recording(self._tape, work)

    def reducer(self, group: Ranks, asked: Callable[[], int]) -> HostReducer:
        """Return what adds up the messages of a group's ranks, and decides with them whether to stop."""
        return HostReducer(group, asked, self._tape)

    def copy(self, x: Any, out: Any) -> None:
        """out ← x, an array or a number."""
        self.xp.copyto(out, x)

    # -- formulas ------------------------------------------------------------------------------------------------

    def _run(
        self, source: Trace, inputs: Mapping[str, Any], outputs: Sequence[Any], overwrites: Sequence[str] = ()
    ) -> None:
        """Run a trace on arrays, as one loop or call by call; it is compiled at its first use."""
        loop = self._loops and self._loops.bound(source, inputs, outputs)
        if loop:
            self._tape.do(loop)
            return
        is_complex = outputs[0].dtype.kind == "c"
        programs, key = self._programs.setdefault(source, {}), (is_complex, tuple(overwrites))
        if key not in programs:
            spelled = source if "erf" in self._operations[is_complex] else spell_out(source, "erf", erf)
            programs[key] = Program(spelled, overwrites)
        dtype = {"real": outputs[0].dtype, "truth": numpy.dtype(bool)}

        def scratch(kind: str, key: Any, size: int) -> Any:
            if kind == "filled":
                return self._scratch.filled(self.xp, dtype["real"], key, size)
            return self._scratch.take(self.xp, dtype[kind], key, size)

        run = partial(programs[key].run, self._operations[is_complex], inputs, outputs, self.block, scratch)
        if len(programs[key].calls) > _MANY_CALLS:
            self._tape.do(run)
        else:
            run()

    def _temporary(self, name: str, like: Any, shape: tuple[int, ...]) -> Any:
        """Return scratch memory for a row operation, of the type of an array."""
        return self._scratch.take(self.xp, like.dtype, name, math.prod(shape)).reshape(shape)

    # -- the equations -------------------------------------------------------------------------------------------

    def gather(self, x: Any, rows: Any, out: Any) -> None:
        """out = x[rows]; x (M, n), which may be SciPy's sparse rows, rows (N,), out (N, n)."""
        if hasattr(x, "toarray"):
            self._tape.do(_gather_sparse, x, rows, out)
            return
        self.xp.take(x, rows, axis=0, out=out, mode="clip")  # any other mode copies through a buffer

    def mean_weights(self, w: Any, share: float, total: Any, weight: Any) -> None:
        """What each row of a batch counts in its mean loss: total = Σ w, weight = share w / total.

        Args:
            w: sample weights (N, 1).
            share: what the rows count together.
            total: (), written.
            weight: (N, 1), written.
        """
        self.xp.sum(w, out=total)
        self.xp.maximum(total, LEAST_WEIGHT, out=weight)
        self.xp.divide(w, weight, out=weight)
        self.xp.multiply(weight, share, out=weight)

    def forward(self, activation: Activation, h_below: Any, W: Any, b: Any, mask: Any, z: Any, a: Any, h: Any) -> None:
        """(1, 2) z = h_below W + b, a = σ(z), h = a ⊙ mask.

        Args:
            activation: that of layer l.
            h_below: h_{l-1} (N, m).
            W: W_l (m, n).
            b: b_l (n,).
            mask: that of the dropout of layer l (N, n), or None.
            z: z_l (N, n), written, for softmax z_l − log Σ exp z_l; it may be the array a where nothing needs it.
            a: a_l (N, n), written.
            h: h_l (N, n), written where there is a mask, else the array a.
        """
        self._product(h_below, W, z)
        self.xp.add(z, b, out=z)
        if activation.rowwise:
            self._softmax(z, a)
        else:
            self._run(activation.forward, {"z": z}, [a])
        if mask is not None:
            self.xp.multiply(a, mask, out=h)

    def draw_mask(self, key: Any, first: Any, k: int, layer: int, rate: float, mask: Any, start: int = 0) -> None:
        """Draw a mask of dropout: 0 with the probability `rate`, else 1 / (1 − rate).

        Every number has its place in the stream of a counter-based generator (Salmon, Moraes, Dror, Shaw 2011), so that
        one seed gives the same masks on every backend and in every type.

        Args:
            key: two integers below 2⁶⁴, from the seed (`dropout_key`).
            first: a step (), of int64; 0 is the first of training.
            k: the mask is that of the k-th step after it.
            layer: l.
            rate: share of the units to drop.
            mask: (N, n), written.
            start: place of its first element in the mask of a larger batch, whose rows these are.
        """
        uniform = self._scratch.take(numpy, "float32", "uniform", min(mask.size, self.block))
        self._tape.do(_draw, key, first, k, layer, rate, mask.reshape(-1), start, uniform)

    def output_delta(
        self,
        loss: Loss,
        activation: Activation,
        y: Any,
        z: Any,
        a: Any,
        weight: Any,
        delta: Any,
        db: Any,
        value: Any,
    ) -> None:
        """(3, 6) The loss of the batch, δ_L = ∂L/∂a ⊙ σ'(z_L), and ∂L/∂b_L = Σ_rows δ_L.

        Args:
            loss: the loss.
            activation: that of the last layer.
            y: targets (N, n).
            z: (N, n), as `forward` wrote it.
            a: (N, n).
            weight: what each row counts in the mean, a number or (N, 1).
            delta: (N, n), written.
            db: (n,), written, or None.
            value: (), the loss, written.
        """
        self._loss(loss, activation, y, z, a, delta)
        of_rows = self._temporary("total", delta, (len(delta), 1))
        self._row_sums(delta, of_rows)
        self.xp.multiply(of_rows, weight, out=of_rows)
        self.xp.sum(of_rows, dtype="complex128" if value.dtype.kind == "c" else "float64", out=value)
        if loss.fits(activation):
            self.xp.subtract(a, y, out=delta)
        else:
            self._run(loss.slope, {"y": y, "a": a}, [delta])
            self._times_slope(activation, z, a, delta)
        self.xp.multiply(delta, weight, out=delta)
        if db is not None:
            self._bias_gradient(delta, db)

    def delta(
        self,
        activation: Activation,
        delta_next: Any,
        W_next: Any,
        mask: Any,
        z: Any,
        a: Any,
        delta: Any,
        db: Any,
    ) -> None:
        """(4, 6) δ_l = (δ_{l+1} W_{l+1}ᵀ) ⊙ mask ⊙ σ'(z_l), and ∂L/∂b_l = Σ_rows δ_l.

        Args:
            activation: that of layer l.
            delta_next: δ_{l+1} (N, n).
            W_next: W_{l+1} (m, n).
            mask: that of the dropout of layer l (N, m), or None.
            z: z_l (N, m).
            a: a_l (N, m), before dropout.
            delta: δ_l (N, m), written.
            db: (m,), written.
        """
        self._product(delta_next, W_next.T, delta)
        if mask is not None:
            self.xp.multiply(delta, mask, out=delta)
        self._times_slope(activation, z, a, delta)
        self._bias_gradient(delta, db)

    def weight_gradient(self, h: Any, delta: Any, dW: Any, beside: bool = True) -> None:
        """(5) ∂L/∂W = hᵀ δ.

        Args:
            h: h_{l-1} (N, m).
            delta: δ_l (N, n).
            dW: (m, n), written.
            beside: whether a device has something to do meanwhile that does not need it.
        """
        self._product(h.T, delta, dW)

    def join(self) -> None:
        """Order what follows after all of `weight_gradient` and `penalty`, which a device runs beside `delta`."""

    def penalty(self, l2: float, W: Any, dW: Any, value: Any, divisor: Any = None) -> None:
        """Add the penalty λ/2 Σ W² to the loss, and its derivative λ W to ∂L/∂W.

        Args:
            l2: λ, or what it is once it is divided.
            W: (m, n).
            dW: (m, n), changed in place, or None.
            value: (), the loss, changed in place.
            divisor: (), what λ is yet to be divided by, or None.
        """
        squares, factor = self._squares_of(W), l2
        if divisor is not None:
            factor = self._temporary("lambda", W, ())
            self.xp.divide(l2, divisor, out=factor)
        self.xp.multiply(squares, factor, out=squares)
        self.xp.multiply(squares, 0.5, out=squares)
        self.xp.add(value, squares, out=value)
        if dW is not None:
            self._run(_PENALTY, {"g": dW, "W": W, "l2": factor}, [dW], ["g"])

    def update(
        self, optimizer: Optimizer, hyper: Any, theta: Any, gradient: Any, slots: Any, narrow: Any = None
    ) -> None:
        """(7, 8) θ ← step(θ, ∂L/∂θ).

        Args:
            optimizer: the optimizer.
            hyper: what `Optimizer.hyper` returns for this step, in the order of its `scalar_names` (K,).
            theta: (P,), changed in place.
            gradient: (P,).
            slots: what the optimizer keeps (its slots, P), changed in place.
            narrow: θ in the type of storage (P,), written, where that is another type, else None.
        """
        inputs = {"w": theta, "g": gradient, **dict(zip(optimizer.slots, slots, strict=True))}
        inputs |= {name: hyper[j : j + 1].reshape(()) for j, name in enumerate(optimizer.scalar_names)}
        if optimizer.clip_norm is not None:
            inputs["clip"] = self._temporary("clip", theta, ())
            self._run(optimizer.clip_factor, {"squares": self._squares_of(gradient)}, [inputs["clip"]])
        self._run(optimizer.update, inputs, [theta, *slots], ["w", *optimizer.slots])

    def add(self, x: Any, out: Any) -> None:
        """out ← out + x, of one size."""
        self.xp.add(out, x, out=out)

    # -- parts of the equations ----------------------------------------------------------------------------------

    def _bias_gradient(self, delta: Any, db: Any) -> None:
        """(6) db = Σ_rows δ, by a product with ones: twice as fast as a sum."""
        ones = self._scratch.filled(self.xp, delta.dtype, 1.0, len(delta))[None]
        self._product(ones, delta, db[None])

    def _squares_of(self, x: Any) -> Any:
        """Return Σ x² (), in scratch memory."""
        flat, squares = x.reshape(-1), self._temporary("squares", x, ())
        self.xp.dot(flat, flat, out=squares)
        return squares

    def _product(self, A: Any, B: Any, out: Any) -> None:
        """out = A B; A (i, j), B (j, k), out (i, k)."""
        self.xp.matmul(A, B, out=out)

    def _times_slope(self, activation: Activation, z: Any, a: Any, g: Any) -> None:
        """g ← g σ'(z), in place; for softmax the product of each row with its Jacobian, a ⊙ (g − Σ g a)."""
        if not activation.rowwise:
            self._run(activation.backward, {"g": g, "z": z, "a": a}, [g], ["g"])
            return
        for rows in self._row_blocks(a):
            product = self._temporary("product", a, a[rows].shape)
            total = self._temporary("total", a, (len(product), 1))
            self.xp.multiply(g[rows], a[rows], out=product)
            self.xp.sum(product, axis=1, keepdims=True, out=total)
            self.xp.subtract(g[rows], total, out=g[rows])
            self.xp.multiply(g[rows], a[rows], out=g[rows])

    def _row_blocks(self, a: Any) -> Iterator[slice]:
        """Yield the rows of a matrix (N, n), about a block of elements at a time."""
        step = max(self.block // a.shape[1], 1)
        for start in range(0, len(a), step):
            yield slice(start, start + step)

    def _softmax(self, z: Any, a: Any) -> None:
        """a = exp(z − max z) / Σ exp(z − max z), row by row; z ← z − log Σ exp z where it is another array than a.

        A number taken from a whole row changes nothing in a; with this one z is log a, which losses are computed from.
        """
        row = self._temporary("total", z, (len(z), 1))
        self._row_maximum(z, row)
        self.xp.subtract(z, row, out=z)
        self.xp.exp(z, out=a)
        self._row_sums(a, row)
        self.xp.divide(a, row, out=a)
        if z is not a:
            self.xp.log(row, out=row)
            self.xp.subtract(z, row, out=z)

    def _row_sums(self, x: Any, row: Any) -> None:
        """row = Σ x of each row, as a product with ones: three times as fast."""
        ones = self._scratch.filled(self.xp, x.dtype, 1.0, x.shape[1])
        self._product(x, ones[:, None], row)

    def _row_maximum(self, z: Any, row: Any) -> None:
        """row = max z of each row, by the real part where z is complex."""
        if z.dtype.kind == "c":
            row[...] = z.real.max(axis=1, keepdims=True)
        elif z.shape[1] > _FEW:
            self.xp.amax(z, axis=1, keepdims=True, out=row)
        else:
            for rows in self._row_blocks(z):
                columns = self._temporary("product", z, z[rows].shape[::-1])
                self.xp.copyto(columns, z[rows].T)
                self.xp.amax(columns, axis=0, out=row[rows, 0])

    def _loss(self, loss: Loss, activation: Activation, y: Any, z: Any, a: Any, out: Any) -> None:
        """out = the loss of every output of every example."""
        if not loss.fits(activation):
            self._run(loss.value, {"y": y, "a": a}, [out])
            return
        assert loss.canonical_value is not None
        self._run(loss.canonical_value, {"y": y, "s": z}, [out])


def dropout_key(seed: int | None) -> Any:
    """Return the key from which `NumpyBackend.draw_mask` draws: two integers, made of a seed; new ones of None."""
    return numpy.random.Philox(seed).state["state"]["key"]


def _gather_sparse(x: Any, rows: Any, out: Any) -> None:
    x[rows].toarray(out=out)


def _draw(key: Any, first: Any, k: int, layer: int, rate: float, mask: Any, start: int, uniform: Any) -> None:
    """Draw a mask (n,), as many elements at a time as there is memory for their numbers."""
    count, skipped = divmod(start, _NUMBERS_A_COUNT)
    philox = numpy.random.Philox(counter=(count, layer, int(first) + k, 0), key=key)
    generator = numpy.random.Generator(philox)
    generator.random(skipped, dtype="float32")
    for start in range(0, mask.size, uniform.size):
        part = mask[start : start + uniform.size]
        numbers = uniform[: part.size]
        generator.random(out=numbers, dtype="float32")
        numpy.greater_equal(numbers, rate, out=part)
        numpy.multiply(part, 1.0 / (1.0 - rate), out=part)


def _penalty(m: Any, g: Any, W: Any, l2: Any) -> Any:
    return g + l2 * W


_PENALTY = trace(_penalty, ("g", "W", "l2"))
