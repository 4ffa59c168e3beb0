"""The CUDA backend: each equation as a matrix product of a library and a kernel of `kernels/` around it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy

from . import fusions, sources
from .graphs import Beside, Recording
from .kernels import ROWS_A_THREAD, Kernels, vector
from .numpy import LEAST_WEIGHT, NumpyBackend
from .pairs import DevicePair
from .products import Products, alignments
from .reducers import NcclReducer, Ranks
from .running import Running, RunningOnDevice
from .sources import ADD, CAST, DROPOUT, GATHER, PENALTY, SUM_ROWS, WEIGHTS, Source

if TYPE_CHECKING:
    from ..activations import Activation
    from ..losses import Loss
    from ..optimizers import Optimizer


GRAPHS = "CUDA graphs, products by cuBLASLt"
PRECISIONS = ("float32", "tf32", "bfloat16")
PORTION = 64  # steps of a graph: its launch costs some ten microseconds, a step of a tiny net as many
PORTION_FLOPS = 1e12  # of all steps of a graph, so that an interrupt waits for hundredths of a second


class CudaBackend(NumpyBackend):
    """The equations on the arrays of one device.

    Args:
        index: number of the device.
        xp: CuPy.
        products: what multiplies matrices, or why CuPy has to, whose products no graph can capture.
        precision: of products of float32 arrays: "float32"; "tf32", with operands of 11 bits; or "bfloat16", with 8, in
            which activations and deltas are stored then. Parameters, losses and sums are float32.

    Attributes:
        name: "cuda".
        index: number of the device.
        kernels: what the operations launch.
    """

    name = "cuda"

    def __init__(self, index: int, xp: Any, products: Products | str, precision: str = "float32") -> None:
        self.index, self.precision = index, precision
        super().__init__(xp)
        self.kernels = Kernels(self.xp)
        self.products = None if isinstance(products, str) else products
        self.precisions = PRECISIONS if self.products else PRECISIONS[:1]
        self._beside = Beside(xp)
        self._others: dict[str, CudaBackend] = {precision: self}
        self._engine = GRAPHS if self.products else f"launches one by one, products by CuPy: {products}"

    @property
    def engine(self) -> str:
        """How training steps run: from CUDA graphs, or one launch after another, and why."""
        return self._engine

    @property
    def description(self) -> str:
        """What runs here, and on which device."""
        properties = self.xp.cuda.runtime.getDeviceProperties(self.index)
        version = self.xp.cuda.runtime.runtimeGetVersion()
        name = properties["name"].decode()
        return (
            f"CuPy {self.xp.__version__}, CUDA {version // 1000}.{version % 1000 // 10}, on {name} (cuda:{self.index})"
            f"{'' if self.precision == 'float32' else f', products in {self.precision}'}"
        )

    def zeros(self, shape: int | tuple[int, ...], dtype: str) -> Any:
        """Return zeros on the device."""
        with (running := self.running(0.0)), running:
            return self.xp.zeros(shape, dtype)

    def asarray(self, x: Any, dtype: str) -> Any:
        """Return an array on the device with x's values, contiguous; x itself where it is one already."""
        with (running := self.running(0.0)), running:
            if not hasattr(x, "__cuda_array_interface__"):
                x = numpy.asarray(x, dtype)  # on the host: fewer bytes to send, and types that CuPy does not have
            return self.xp.ascontiguousarray(self.xp.asarray(x), dtype)

    def to_numpy(self, x: Any) -> numpy.ndarray:
        """Return an array of the device as a NumPy array."""
        with (running := self.running(0.0)), running:
            return x.get() if hasattr(x, "get") else numpy.asarray(x)

    def running(self, flops: float) -> Running:
        """Return a context for a computation on the device; see `RunningOnDevice`."""
        return RunningOnDevice(self._tape, self._scratch, self.xp, self.index)

    def synchronize(self) -> None:
        """Wait until the device has done everything asked for."""
        with (running := self.running(0.0)), running:
            self.xp.cuda.get_current_stream().synchronize()

    def pair(self, shapes: Sequence[tuple[int, int]], dtype: str) -> DevicePair:
        """Return two buffers of rows on the device, and two in pinned memory to fill them from."""
        return DevicePair(self, shapes, dtype)

    def free_bytes(self) -> int | None:
        """Return the memory that the device has free, and CuPy keeps for what comes next."""
        with (running := self.running(0.0)), running:
            return int(self.xp.cuda.runtime.memGetInfo()[0] + self.xp.get_default_memory_pool().free_bytes())

    def with_precision(self, precision: str) -> CudaBackend:
        """Return the backend of the same device whose products have a precision; one object for each."""
        if precision not in self._others:
            assert self.products is not None
            products = self.products.with_precision(precision)
            other = self._others[precision] = type(self)(self.index, self.xp, products, precision)
            other._others = self._others
        return self._others[precision]

    def storage(self, dtype: str) -> str:
        """Return the type in which activations and deltas are stored: for bfloat16 its bits, in uint16."""
        return "uint16" if self.precision == "bfloat16" else dtype

    def narrow(self, x: Any, out: Any = None) -> Any:
        """Return x in the type of storage, in `out` if that is given; x itself where it has that type already."""
        if self.precision != "bfloat16":
            return x
        with (running := self.running(0.0)), running:
            out = self.zeros(x.shape, "uint16") if out is None else out
            self._cast(x, out, widens=False)
        return out

    def widen(self, a: Any, out: Any) -> None:
        """out = a, from the type of storage."""
        with (running := self.running(0.0)), running:
            if self.precision == "bfloat16":
                self._cast(out, a, widens=True)
            else:
                out[...] = a

    def _cast(self, wide: Any, narrow: Any, widens: bool) -> None:
        arguments = {"wide": wide, "narrow": narrow, "widens": widens, "n": narrow.size}
        self.kernels.launch(CAST, self.kernels.over(narrow), narrow, arguments)

    def portion(self, flops: float) -> int:
        """Return how many steps a graph holds: up to 64, and no more than some hundredths of a second take."""
        return max(1, min(PORTION, int(PORTION_FLOPS / flops))) if self.products else 1

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a function that does the work, from a graph from its second call on."""
        return Recording(self.xp, work, self._scratch.all) if self.products else work

    def reducer(self, group: Ranks, asked: Callable[[], int]) -> NcclReducer:
        """Return what adds up the messages of a group's ranks by NCCL, beside the backward pass."""
        with (running := self.running(0.0)), running:
            return NcclReducer(group, asked, self.xp, self._beside)

    def copy(self, x: Any, out: Any) -> None:
        """out ← x, an array or a number."""
        out[...] = x

    # -- the equations -------------------------------------------------------------------------------------------

    def gather(self, x: Any, rows: Any, out: Any) -> None:
        """out = x[rows]; x (M, n), rows (N,), out (N, n)."""
        shape = self.kernels.over_matrix(out)
        self.kernels.launch(GATHER, shape, out, {"x": x, "order": rows, "out": out, **_size(out)})

    def mean_weights(self, w: Any, share: float, total: Any, weight: Any) -> None:
        """Compute the share of each row of a batch in its mean loss; see `NumpyBackend.mean_weights`."""
        self._sum_rows(w, total)
        self._shares(w, total, share, weight)

    def _shares(self, w: Any, total: Any, share: float, weight: Any) -> None:
        """weight = share w / total."""
        arguments = {"w": w, "total": total, "share": share, "least": LEAST_WEIGHT, "weight": weight, "n": w.size}
        self.kernels.launch(WEIGHTS, self.kernels.over(weight), weight, arguments)

    def forward(self, activation: Activation, h_below: Any, W: Any, b: Any, mask: Any, z: Any, a: Any, h: Any) -> None:
        """(1, 2) z = h_below W + b, a = σ(z), h = a ⊙ mask; see `NumpyBackend.forward`."""
        plain = partial(self._forward, activation, h_below, W, b, mask, z, a, h)
        epilogue = fusions.forward(activation, b, mask, z, a) if self.products else None
        if self.products is None or epilogue is None:
            plain()
            return
        fused = partial(self.products, h_below, W, a, epilogue=epilogue)
        key = ("forward", epilogue.name, len(a), *W.shape, a.dtype, alignments(h_below, W, a, epilogue))
        (fused if self._fuses(key, plain, fused) else plain)()

    def _forward(self, activation: Activation, h_below: Any, W: Any, b: Any, mask: Any, z: Any, a: Any, h: Any) -> None:
        self._product(h_below, W, z)
        arguments = {"z": z, "b": b, "a": a, **_size(z)}
        if activation.rowwise:
            shape = self.kernels.over_rows(z, vectors=False)
        else:
            shape = self.kernels.over_matrix(z)
            arguments |= {"mask": mask, "h": None if mask is None else h}
        self.kernels.launch(sources.activate(activation), shape, z, arguments)

    def draw_mask(self, key: Any, first: Any, k: int, layer: int, rate: float, mask: Any, start: int = 0) -> None:
        """Draw a mask of dropout, the one that `NumpyBackend.draw_mask` draws, on the device."""
        arguments = {
            "mask": mask,
            "scale": 1.0 / (1.0 - rate),
            "threshold": threshold(rate),
            "key0": key[0],
            "key1": key[1],
            "layer": layer,
            "first": first,
            "k": k,
            "start": start,
            "n": mask.size,
        }
        self.kernels.launch(DROPOUT, self.kernels.over(mask, 8 // vector(mask)), mask, arguments)

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
        """(3, 6) The loss of the batch, δ_L, and ∂L/∂b_L; see `NumpyBackend.output_delta`."""
        shape = self.kernels.over_rows(a, vectors=not activation.rowwise)
        strips = shape[0][1]
        sums = db if strips == 1 and db is not None else self._temporary("sums", value, (strips, a.shape[1]))
        losses = value if strips == 1 else self._temporary("losses", value, (strips, 1))
        row_weights = None if isinstance(weight, float) else weight
        arguments = {
            "y": y,
            "z": z,
            "a": a,
            "weight": row_weights,
            "share": weight if row_weights is None else 0.0,
            "delta": delta,
            "sums": sums,
            "losses": losses,
            **_size(a),
        }
        self.kernels.launch(sources.output(loss, activation), shape, a, arguments)
        if strips > 1:
            self._sum_rows(losses, value)
            if db is not None:
                self._sum_rows(sums, db)

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
        """(4, 6) δ_l = (δ_{l+1} W_{l+1}ᵀ) ⊙ mask ⊙ σ'(z_l), and ∂L/∂b_l; see `NumpyBackend.delta`."""
        plain = partial(self._delta, activation, delta_next, W_next, mask, z, a, delta, db)
        epilogue = fusions.delta(activation, mask, z, db) if self.products else None
        if self.products is None or epilogue is None:
            plain()
            return
        fused = partial(self.products, delta_next, W_next.T, delta, epilogue=epilogue)
        aligned = alignments(delta_next, W_next, delta, epilogue)
        key = ("delta", activation.epilogue, len(delta), *W_next.shape, delta.dtype, aligned)
        (fused if self._fuses(key, plain, fused) else plain)()

    def _delta(
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
        self._product(delta_next, W_next.T, delta)
        shape = self.kernels.over_matrix(delta, ROWS_A_THREAD)
        strips = shape[0][1]
        sums = db if strips == 1 else self._temporary("sums", db, (strips, delta.shape[1]))
        used = activation.backward.inputs
        arguments = {
            "delta": delta,
            "mask": mask,
            "z": z if "z" in used else None,
            "a": a if "a" in used else None,
            "sums": sums,
            **_size(delta),
        }
        self.kernels.launch(sources.delta(activation), shape, delta, arguments)
        if strips > 1:
            self._sum_rows(sums, db)

    def weight_gradient(self, h: Any, delta: Any, dW: Any, beside: bool = True) -> None:
        """(5) ∂L/∂W = hᵀ δ, beside the chain of the deltas, which does not need it; see the base class."""
        with self._beside.work() if self.products and beside else contextlib.nullcontext():
            self._product(h.T, delta, dW)

    def join(self) -> None:
        """Order what follows on the current stream after what runs beside it."""
        self._beside.join()

    def penalty(self, l2: float, W: Any, dW: Any, value: Any, divisor: Any = None) -> None:
        """Add the penalty λ/2 Σ W² to the loss, and its derivative λ W to ∂L/∂W; see `NumpyBackend.penalty`."""
        with self._beside.work() if self.products else contextlib.nullcontext():  # after ∂L/∂W
            self._sum_rows(self._squares(W, dW, l2, 0.5 * l2, divisor), value, adds=True)

    def update(
        self, optimizer: Optimizer, hyper: Any, theta: Any, gradient: Any, slots: Any, narrow: Any = None
    ) -> None:
        """(7, 8) θ ← step(θ, ∂L/∂θ), in one launch; see `NumpyBackend.update`."""
        squares = None
        if optimizer.clip_norm is not None:
            squares = self._temporary("norm", theta, ())
            self._sum_rows(self._squares(gradient, None, 0.0, 1.0), squares)
        arguments = {"theta": theta, "g": gradient, "slots": slots, "h": hyper, "squares": squares}
        self._update(sources.update(optimizer), arguments, narrow)

    def add(self, x: Any, out: Any) -> None:
        """out ← out + x, of one size."""
        self._update(ADD, {"theta": out, "g": x, "slots": None, "h": None, "squares": None}, None)

    def _update(self, source: Source, arguments: dict[str, Any], narrow: Any) -> None:
        """Launch a kernel made of `update.cu`, which also writes θ in the type of storage where that is given."""
        stored = arguments["theta"] if narrow is None else narrow
        arguments |= {"narrow": narrow, "n": stored.size}
        self.kernels.launch(source, self.kernels.over(stored), stored, arguments)

    # -- what the clock decides ----------------------------------------------------------------------------------

    def _fuses(self, key: tuple[Any, ...], plain: Callable[[], None], fused: Callable[[], None]) -> bool:
        """Return whether the second way to do the same is the faster one."""
        assert self.products is not None
        return self.products.clock.fastest((*key, self.precision), {"plain": plain, "fused": fused}) == "fused"

    @property
    def choices(self) -> dict[str, str]:
        """What the clock took in this process, "plain" or "fused", by operation, function, sizes, types, alignments."""
        taken = self.products.clock.taken if self.products else {}
        return {" ".join(map(str, key)): way for key, way in taken.items() if way in ("plain", "fused")}

    # -- parts of the equations ----------------------------------------------------------------------------------

    def _product(self, A: Any, B: Any, out: Any) -> None:
        """out = A B; A (i, j), B (j, k), out (i, k)."""
        if self.products is None:
            super()._product(A, B, out)
        else:
            self.products(A, B, out, self._beside.inside)

    def _squares(self, x: Any, g: Any, l2: float, scale: float, divisor: Any = None) -> Any:
        """Return scale Σ x² in parts (blocks, 1) for `_sum_rows`; g += λ x if g is given. A divisor divides both."""
        shape = self.kernels.over(x, ROWS_A_THREAD)
        sums = self._temporary("squares", x, (shape[0][0], 1))  # apart from "sums", which `delta` uses meanwhile
        arguments = {"x": x, "g": g, "lambda": l2, "scale": scale, "divisor": divisor, "sums": sums, "n": x.size}
        self.kernels.launch(PENALTY, shape, x, arguments)
        return sums

    def _sum_rows(self, parts: Any, out: Any, adds: bool = False) -> None:
        """out = Σ_rows parts, or out ← out + Σ_rows parts; parts (rows, cols), out (cols,)."""
        (tiles, _), block = self.kernels.over_matrix(parts)
        arguments = {"partial": parts, "out": out, "adds": adds, **_size(parts)}
        self.kernels.launch(SUM_ROWS, ((tiles, 1), block), parts, arguments)


def threshold(rate: float) -> int:
    """Return the least number of 24 bits that dropout at a rate keeps: NumPy compares it with the rate in float32."""
    return math.ceil(float(numpy.float32(rate)) * 2**24)


def _size(x: Any) -> dict[str, int]:
    return {"rows": x.shape[0], "cols": x.shape[1]}
