"""A strict stand-in for CuPy, for machines without a GPU: arrays in NumPy's memory that refuse what CuPy's refuse.

It has what the CUDA backend uses and nothing else, with CuPy's signatures (a test compares them where CuPy is
installed). Stricter than CuPy in one thing: NumPy's own functions do not take its arrays, where CuPy's are dispatched.
"""

from __future__ import annotations

import importlib.machinery
import math
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import host_cuda
import numpy as np

from gpubackprop.backends import kernels

__version__ = "14.2.0"


class OfThread(threading.local):
    """What every thread has of its own."""

    current = 0  # the current device
    captured: list[Node] | None = None  # what a stream is given while it is captured
    captured_order: Any = None
    stream: Any = None  # the current one

    def __init__(self) -> None:
        self.stream = default_stream


def _of_thread(name: str) -> Any:
    return property(lambda state: getattr(state.own, name), lambda state, value: setattr(state.own, name, value))


class State:
    """The machine: how many devices it has, which one is current, how many bytes one has free, what is broken."""

    devices = 1
    free = 2**40
    copies = 0  # from a device to the host
    order: Any = None
    lock = threading.RLock()
    current, captured, captured_order, stream = map(_of_thread, ("current", "captured", "captured_order", "stream"))
    own: OfThread
    device_count_error: Exception | None = None
    product_error: Exception | None = None
    kernel_error: Exception | None = None


default_stream: Any = None  # the one on which a thread begins; made below
state = State()
state.own = OfThread()
ALIGNMENT = 512  # bytes, of CuPy's pool
ERRORS = ("device_count_error", "product_error", "kernel_error")


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: 0 bytes).")


class CUDARuntimeError(RuntimeError):
    """As raised by calls of the CUDA runtime; its text is CuPy's, name of the code first."""


class Device:
    def __init__(self, device: Any = None) -> None:
        self.id = state.current if device is None else int(device)

    def __enter__(self) -> Device:
        if self.id >= state.devices:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._previous, state.current = state.current, self.id
        return self

    def __exit__(self, *error: object) -> None:
        state.current = self._previous


def _device_count() -> int:
    if state.device_count_error is not None:
        raise state.device_count_error
    return state.devices


def _device_properties(device: int) -> dict[str, Any]:
    assert device < state.devices
    return {"name": b"Stand-in GPU"}


runtime = SimpleNamespace(
    getDevice=lambda: state.current,
    getDeviceCount=_device_count,
    getDeviceProperties=_device_properties,
    memGetInfo=lambda: (state.free, 2**40),
    runtimeGetVersion=lambda: 13030,
)


class CompileException(Exception):
    """What the compiler of a kernel said."""


# -- streams and graphs: what is enqueued is done at once, or by the graph that captured it ----------------------------


class Unordered(Exception):
    """Two streams go to the same memory, one of them to write, and nothing says which is first."""


def enqueue(work: Callable[[], None], reads: Any = (), writes: Any = ()) -> None:
    """Do something on the device, in order.

    Args:
        work: what to do.
        reads: arrays that it reads.
        writes: arrays that it writes, perhaps after reading them.
    """
    with state.lock:
        _order().check(state.stream, reads, writes)
    if state.captured is None:
        work()
    else:
        state.captured.append(Node(work, list(reads), list(writes)))


def _order() -> Order:
    """Return what is known of the order of the streams: of those that a capture of this thread has, or of all."""
    return state.captured_order or state.order


@dataclass
class Node:
    """What a graph does at one place, and with which memory."""

    work: Callable[[], None]
    reads: list[Any]
    writes: list[Any]


class Order:
    """What happened before what: every stream has a clock, and knows those of others up to the events it waited for."""

    def __init__(self) -> None:
        self.clocks: dict[int, dict[int, int]] = {}
        # The last access of each kind: of what memory, from start to end, on which stream, to write or not, and when.
        self.accesses: dict[tuple[int, int, int, bool], int] = {}

    def clock(self, stream: int) -> dict[int, int]:
        return self.clocks.setdefault(stream, {stream: 0})

    def check(self, stream: Stream, reads: Any, writes: Any) -> None:
        clock = self.clock(stream.ptr)
        clock[stream.ptr] += 1
        others = [access for access, time in self.accesses.items() if clock.get(access[2], 0) < time]
        for arrays, writing in ((reads, False), (writes, True)):
            for array in arrays:
                low = array.ctypes.data
                high = low + array.nbytes
                for start, end, other, wrote in others:
                    if low < end and start < high and (writing or wrote):
                        raise Unordered(f"streams {other} and {stream.ptr} go to the same memory, in no order")
                self.accesses[low, high, stream.ptr, writing] = clock[stream.ptr]

    def forget(self, memory: np.ndarray) -> None:
        """Memory is handed out anew; what it was before is over, as CuPy's pool keeps that of each stream apart."""
        low, high = memory.ctypes.data, memory.ctypes.data + memory.nbytes
        self.accesses = {a: time for a, time in self.accesses.items() if a[1] <= low or high <= a[0]}

    def wait(self, stream: Stream, known: dict[int, int]) -> None:
        clock = self.clock(stream.ptr)
        for other, time in known.items():
            clock[other] = max(clock.get(other, 0), time)


def _not_while_captured(what: str) -> None:
    if state.captured is not None:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is captured")


class Stream:
    """A stream; the default one, whose pointer is 0, cannot be captured.

    Copies from the memory of the host are done as late as a device may do them: when another stream waits for them.
    Only when the host has waited itself may it write there again.
    """

    made = 0

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        Stream.made += 1
        self.ptr = 0 if null else 4096 * Stream.made
        self.copies: list[Callable[[], None]] = []  # that are not done yet
        self.in_flight: list[tuple[np.ndarray, np.ndarray]] = []  # what the host must leave alone, and what it was

    def copy_later(self, target: np.ndarray, source: np.ndarray) -> None:
        with state.lock:
            state.order.check(self, [], [target])
            for memory, was in self.in_flight:
                if not np.array_equal(memory, was):
                    raise Unordered("the host wrote into memory that is being copied to a device")
            self.copies.append(lambda: target.__setitem__(..., source))
            self.in_flight.append((source, source.copy()))

    def catch_up(self, count: int) -> None:
        """Do the first so many of the copies that were asked for."""
        with state.lock:
            while self.copies and count > 0:
                self.copies.pop(0)()
                count -= 1

    def __enter__(self) -> Stream:
        self._previous, state.stream = state.stream, self
        return self

    def __exit__(self, *error: object) -> None:
        state.stream = self._previous

    def synchronize(self) -> None:
        _not_while_captured("the host waited")
        self.catch_up(len(self.copies))
        self.in_flight.clear()

    def wait_event(self, event: Event) -> None:
        event.catch_up()
        with state.lock:
            _order().wait(self, event.known)

    def begin_capture(self, mode: int | None = None) -> None:
        if not self.ptr:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert state.captured is None
        state.captured, state.captured_order = [], Order()

    def end_capture(self) -> Graph:
        assert state.captured is not None
        known, nodes = _order().clock(self.ptr), state.captured
        unjoined = [s for s, clock in _order().clocks.items() if clock[s] > known.get(s, 0)]
        state.captured = state.captured_order = None
        if unjoined:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnjoined: unjoined work")
        return Graph(nodes)


class Graph:
    """What a stream captured."""

    launches = 0

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    def launch(self, stream: Any = None) -> None:
        _not_while_captured("a graph was launched")
        Graph.launches += 1
        for node in self.nodes:
            with state.lock:
                state.order.check(state.stream, node.reads, node.writes)
            node.work()


class Event:
    """A mark in a stream; between two of them a millisecond passes."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.disable_timing = disable_timing

    def record(self, stream: Any = None) -> None:
        if not self.disable_timing:
            _not_while_captured("an event with time was recorded")
        self._stream = stream or state.stream
        with state.lock:
            self._copies, self._in_flight = list(self._stream.copies), list(self._stream.in_flight)
            self.known = dict(_order().clock(self._stream.ptr))

    def catch_up(self) -> None:
        """Do the copies before the mark."""
        with state.lock:
            self._stream.catch_up(len([copy for copy in self._stream.copies if copy in self._copies]))

    def synchronize(self) -> None:
        _not_while_captured("the host waited")
        self.catch_up()
        with state.lock:
            seen = [id(one) for one in self._in_flight]
            self._stream.in_flight = [one for one in self._stream.in_flight if id(one) not in seen]


state.stream = default_stream = Stream(null=True)
state.order = Order()
cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    Event=Event,
    get_elapsed_time=lambda start, stop: 1.0,
    compiler=SimpleNamespace(CompileException=CompileException),
    runtime=runtime,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    alloc_pinned_memory=bytearray,
    get_current_stream=lambda: state.stream,
)


class ndarray:  # noqa: N801
    """An array on a device."""

    __array_ufunc__ = None
    __module__ = "cupy"

    def __init__(self, host: Any, device: int | None = None) -> None:
        self._host = np.asarray(host)
        self._device = state.current if device is None else device

    def __array__(self, dtype: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{func.__name__} was given an array of CuPy")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self._host.ctypes.data, False), "version": 3}

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    flags = property(lambda self: self._host.flags)
    strides = property(lambda self: self._host.strides)
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data))
    T = property(lambda self: self._view(self._host.T))
    real = property(lambda self: self._view(self._host.real))

    def _view(self, host: np.ndarray) -> ndarray:
        return ndarray(host, self._device)

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        _not_while_captured("an array was copied to the host")
        with state.lock:
            state.order.check(state.stream, [self._host], [])
        state.copies += 1
        return self._host.copy()

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        _not_while_captured("an array was copied from the host")
        target = _mine(self)
        if not isinstance(arr, np.ndarray) or (arr.dtype, arr.shape) != (target.dtype, target.shape):
            raise TypeError(f"{arr} cannot be set")
        if not (arr.flags.c_contiguous and target.flags.c_contiguous):
            raise RuntimeError("Cannot set to non-contiguous array")
        (stream or state.stream).copy_later(target, arr)

    def copy(self, order: str = "C") -> ndarray:
        return _allocated(self._host.copy())  # on the current device, wherever this one is

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        return _allocated(_mine(self).astype(dtype))

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> ndarray:
        return self._view(self._host.reshape(*shape))

    def item(self) -> Any:
        return self.get().item()

    def sum(self, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _reduced(np.sum, self, out, axis=axis, dtype=dtype, keepdims=keepdims)

    def max(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _reduced(np.max, self, out, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _reduced(np.min, self, out, axis=axis, keepdims=keepdims)

    def all(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _reduced(np.all, self, out, axis=axis, keepdims=keepdims)

    def any(self, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
        return _reduced(np.any, self, out, axis=axis, keepdims=keepdims)

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, slices: Any) -> ndarray:
        for part in slices if isinstance(slices, tuple) else (slices,):
            if not isinstance(part, (slice, int, np.integer, types.EllipsisType, type(None))):
                raise TypeError(f"the stand-in takes slices and integers, not {type(part)}")
        return self._view(self._host[slices])

    def __setitem__(self, slices: Any, value: Any) -> None:
        target = _mine(self)[slices] if slices is not ... else _mine(self)
        if isinstance(value, np.ndarray) and value.shape:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        source = _operand(value)
        enqueue(lambda: target.__setitem__(..., source), [source] if isinstance(source, np.ndarray) else [], [target])

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(len(self)))

    def __abs__(self) -> ndarray:
        return absolute(self)

    def __neg__(self) -> ndarray:
        return negative(self)

    def __invert__(self) -> ndarray:
        return _allocated(~_mine(self))


def _arithmetic() -> None:
    """Give arrays the operators that the ufuncs of these names stand for."""
    for operator, name in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "true_divide")):
        setattr(ndarray, f"__{operator}__", lambda self, other, name=name: globals()[name](self, other))
        setattr(ndarray, f"__r{operator}__", lambda self, other, name=name: globals()[name](other, self))
    for operator in ("less", "less_equal", "greater", "greater_equal"):
        short = {"less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge"}[operator]
        setattr(ndarray, f"__{short}__", lambda self, other, name=operator: globals()[name](self, other))
    ndarray.__matmul__ = lambda self, other: matmul(self, other)  # type: ignore[attr-defined]


def _allocated(host: Any) -> ndarray:
    """Return a new array on the current device, if it has that much memory free."""
    _not_while_captured("memory was allocated")
    host = np.asarray(host)
    if host.nbytes > state.free:
        raise OutOfMemoryError(host.nbytes)
    own = _aligned(host)
    with state.lock:
        state.order.forget(own)
    return ndarray(own)


def _aligned(host: np.ndarray) -> np.ndarray:
    """Return a copy, in the order of its memory, that starts where CuPy's pool lets arrays start."""
    memory = np.empty(host.nbytes + ALIGNMENT, "uint8")
    start = -memory.ctypes.data % ALIGNMENT
    flat = memory[start : start + host.nbytes].view(host.dtype)
    columns_first = host.flags.f_contiguous and not host.flags.c_contiguous
    own = flat.reshape(host.shape[::-1]).T if columns_first else flat.reshape(host.shape)
    own[...] = host
    return own


def _mine(array: Any, name: str = "operand") -> np.ndarray:
    """Return the memory of an array of the current device; whatever else it is, is refused."""
    if not isinstance(array, ndarray):
        raise TypeError(f"{name}: Unsupported type {type(array)}")
    if array._device != state.current:
        raise ValueError(
            "Array device must be same as the current device: "
            f"array device = {array._device} while current = {state.current}"
        )
    return array._host


def _operand(value: Any) -> Any:
    """Return what a ufunc may take: an array of this device, a Python number, or a scalar of NumPy."""
    if type(value) in (bool, int, float, complex) or isinstance(value, np.generic):
        return value
    return _mine(value)


def _reduced(function: Any, array: ndarray, out: Any, **arguments: Any) -> ndarray:
    _not_while_captured("a reduction was run, which takes memory,")
    result = function(_mine(array), **arguments)
    if out is None:
        return _allocated(result)
    target = _mine(out, "out")
    if target.shape != np.shape(result):
        raise ValueError(f"Output array has a wrong shape: {target.shape}, not {np.shape(result)}")
    target[...] = result
    return out


class ufunc:  # noqa: N801
    """A function of elements: positional operands, the output by position or as ``out``."""

    def __init__(self, function: Any, nin: int) -> None:
        self._function, self.nin, self.nout = function, nin, 1

    def __call__(self, *args: Any, **kwargs: Any) -> ndarray:
        out = kwargs.pop("out", None)
        dtype = kwargs.pop("dtype", None)
        casting = kwargs.pop("casting", "same_kind")
        if kwargs:
            raise TypeError(f"Wrong arguments {kwargs}")
        if not self.nin <= len(args) <= self.nin + 1:
            raise TypeError(f"Wrong number of arguments for {self._function}: {len(args)}")
        if len(args) > self.nin:
            if out is not None:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            out = args[-1]
        operands = [_operand(value) for value in args[: self.nin]]
        if out is None:
            return _allocated(self._function(*operands, dtype=dtype))
        target = _mine(out, "out")
        arrays = [operand for operand in operands if isinstance(operand, np.ndarray)]
        enqueue(lambda: self._function(*operands, out=target, dtype=dtype, casting=casting), arrays, [target])
        return out


UFUNCS = {
    name: ufunc(getattr(np, name), getattr(np, name).nin)
    for name in (
        "add", "subtract", "multiply", "true_divide", "divide", "negative", "absolute", "less", "less_equal", "greater",
        "greater_equal", "exp", "expm1", "log", "log1p", "sqrt", "tanh", "minimum", "maximum",
        "isfinite",
    )
}  # fmt: skip
globals().update(UFUNCS)
absolute, negative = UFUNCS["absolute"], UFUNCS["negative"]
_arithmetic()


class _MatrixProduct:
    """CuPy's generalised ufunc: operands by position, the output as ``out``."""

    def __call__(self, *args: Any, out: Any = None) -> ndarray:
        if state.captured is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        if state.product_error is not None:
            raise state.product_error
        a, b = (_mine(value) for value in args)
        result = np.matmul(a, b)
        if out is None:
            return _allocated(result)
        target = _mine(out, "out")
        if result.shape != target.shape:
            raise ValueError("Output array has an invalid size")
        target[...] = result
        return out


matmul = _MatrixProduct()


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    _room(shape, dtype)
    return _allocated(np.zeros(shape, dtype))


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    _room(shape, dtype)
    return _allocated(np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 1, dtype))  # whatever lay there


def full(shape: Any, value: Any, dtype: Any = None) -> ndarray:
    _room(shape, dtype)
    return _allocated(np.full(shape, value, dtype))


def ones(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    return _allocated(np.ones(shape, dtype))


def _room(shape: Any, dtype: Any) -> None:
    size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
    if size > state.free:
        raise OutOfMemoryError(size)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> ndarray:
    if isinstance(a, ndarray):
        same = a._device == state.current and (dtype is None or a.dtype == dtype)
        return a if same else _allocated(a._host.astype(dtype or a.dtype))
    host = np.array(a, dtype=dtype)
    if host.dtype.char not in "?bhilqBHILQefdFD":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    return _allocated(host)


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    host = np.ascontiguousarray(_mine(a), dtype)
    return a if host is a._host else _allocated(host)


def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = None) -> None:
    condition = True if where is None else _mine(where, "where")
    if where is not None and condition.dtype != bool:
        raise TypeError("Cannot cast array data to bool according to the rule 'safe'")
    np.copyto(_mine(dst, "dst"), _operand(src), casting=casting, where=condition)


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> ndarray:
    _not_while_captured("rows were taken")
    return _stored(np.take(_mine(a), _mine(indices), axis, mode="wrap"), out)


def _stored(result: np.ndarray, out: Any) -> ndarray:
    """Return a result in an array of its own, or in `out`, which has to be like it."""
    if out is None:
        return _allocated(result)
    target = _mine(out, "out")
    if target.dtype != result.dtype:
        raise TypeError("Output dtype mismatch")
    if target.shape != result.shape:
        raise ValueError("Output shape mismatch")
    target[...] = result
    return out


def dot(a: Any, b: Any, out: Any = None) -> ndarray:
    return _stored(np.dot(_mine(a), _mine(b)), out)


def sum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    return a.sum(axis, dtype, out, keepdims)


def amax(a: Any, axis: Any = None, out: Any = None, keepdims: bool = False) -> ndarray:
    return a.max(axis=axis, out=out, keepdims=keepdims)


def from_dlpack(array: Any) -> ndarray:
    raise TypeError("the stand-in exchanges no memory: asarray is for arrays of its own and of NumPy")


def get_default_memory_pool() -> Any:
    return SimpleNamespace(free_bytes=lambda: 0)


class ElementwiseKernel:
    """The one kernel that the backend asks whether kernels run at all."""

    def __init__(self, in_params: str, out_params: str, operation: str, name: str = "kernel") -> None:
        if (in_params, out_params, operation) != ("T x", "T y", "y = x + x"):
            raise NotImplementedError(operation)

    def __call__(self, x: Any) -> ndarray:
        if state.kernel_error is not None:
            raise state.kernel_error
        return _allocated(_mine(x) * 2)


class RawModule:
    """A kernel compiled by g++ and run by the threads of the CPU."""

    def __init__(self, *, code: str | None = None, options: tuple[str, ...] = ()) -> None:
        self._code = code

    def get_function(self, name: str) -> Any:
        try:
            entry = host_cuda.compiled(self._code, name)
        except host_cuda.CompileError as error:
            raise CompileException(str(error)) from None

        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
            values = [_mine(value) if isinstance(value, ndarray) else value for value in args]
            constant = host_cuda.constant_parameters(self._code)
            arrays = [(v, c) for v, c in zip(values, constant, strict=True) if isinstance(v, np.ndarray)]
            reads, writes = ([v for v, c in arrays if c is wanted] for wanted in (True, False))
            enqueue(lambda: host_cuda.launch(entry, grid, block, values), reads, writes)

        return launch


FUNCTIONS = ("zeros", "empty", "full", "ones", "asarray", "ascontiguousarray", "copyto", "take", "dot", "sum", "amax")


def module() -> types.ModuleType:
    """Return the stand-in as a module of the name cupy."""
    made = types.ModuleType("cupy")
    vars(made).update({name: value for name, value in globals().items() if not name.startswith("__")})
    made.__version__ = __version__  # type: ignore[attr-defined]
    made.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    return made


def install(monkeypatch: Any, **machine: Any) -> types.ModuleType:
    """Put the stand-in where ``import cupy`` finds it, on a machine with the given `State`, until the test ends."""
    made = module()
    monkeypatch.setitem(sys.modules, "cupy", made)
    monkeypatch.setattr(kernels, "THREADS", 64)  # two warps: CPUs have few cores
    monkeypatch.setattr(state, "order", Order())
    monkeypatch.setattr(state, "stream", default_stream)
    for name in ("devices", "free", "copies", *ERRORS):
        monkeypatch.setattr(state, name, machine.get(name, getattr(State, name)))
    for name in ("current", "captured"):
        monkeypatch.setattr(state, name, machine.get(name, getattr(OfThread, name)))
    return made
