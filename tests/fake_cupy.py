"""A strict stand-in for CuPy, for machines without a GPU: arrays in NumPy's memory that refuse what CuPy's refuse.

It has what the CUDA backend uses and nothing else, with CuPy's signatures (a test compares them where CuPy is
installed). Stricter than CuPy in one thing: NumPy's own functions do not take its arrays, where CuPy's are dispatched.
"""

from __future__ import annotations

import importlib.machinery
import math
import sys
import types
from types import SimpleNamespace
from typing import Any

import host_cuda
import numpy as np
from fake_streams import (  # some only for tests that have the stand-in
    CompileException,
    CUDARuntimeError,  # noqa: F401
    Device,
    Event,
    Graph,  # noqa: F401
    MemoryHook,
    OutOfMemoryError,
    Stream,
    Unordered,  # noqa: F401
    allocate,
    enqueue,
    not_while_captured,
    runtime,
    start,
    state,
)

from gpubackprop.backends import kernels

__version__ = "14.2.0"
ALIGNMENT = 512  # bytes, of CuPy's pool


def _pinned(size: int) -> bytearray:
    not_while_captured("memory of the host was allocated")
    return bytearray(size)


cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    Event=Event,
    get_elapsed_time=lambda start, stop: 1.0,
    compiler=SimpleNamespace(CompileException=CompileException),
    runtime=runtime,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    alloc_pinned_memory=_pinned,
    MemoryHook=MemoryHook,
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
        not_while_captured("an array was copied to the host")
        with state.lock, Device(self._device):
            state.order.check(state.stream, [self._host], [])
        state.copies += 1
        return self._host.copy()

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        not_while_captured("an array was copied from the host")
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
    """Return a new array on the current device."""
    host = np.asarray(host)
    allocate(host.nbytes)
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
    not_while_captured("a reduction was run, which takes memory,")
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
        if any(a is not out and _may_overlap(a, out) for a in args[: self.nin]):
            allocate(target.nbytes)  # for a copy of the operand
        arrays = [operand for operand in operands if isinstance(operand, np.ndarray)]
        enqueue(lambda: self._function(*operands, out=target, dtype=dtype, casting=casting), arrays, [target])
        return out


def _may_overlap(operand: Any, out: ndarray) -> bool:
    return isinstance(operand, ndarray) and np.may_share_memory(operand._host, out._host)


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


def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> ndarray:
    _room(shape, dtype)
    return _allocated(np.full(shape, fill_value, dtype))


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
    target, source = _mine(dst, "dst"), _operand(src)
    reads = [x for x in (source, condition) if isinstance(x, np.ndarray)]
    enqueue(lambda: np.copyto(target, source, casting=casting, where=condition), reads, [target])


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> ndarray:
    not_while_captured("rows were taken")
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
    result = np.dot(_mine(a), _mine(b))
    allocate(result.nbytes)  # of vectors their products, of matrices a workspace of cuBLAS
    return _stored(result, out)


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
    for name, value in start(**machine).items():
        monkeypatch.setattr(state, name, value)
    return made
