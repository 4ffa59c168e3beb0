"""The machine of the stand-in for CuPy: devices, their streams and events, graphs, and the order of what is enqueued.

What is enqueued is done at once, or by the graph that captured it. Like CuPy, every thread has a current device, and a
current stream for each device; events and streams of one device are of no use on another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np


class OfThread(threading.local):
    """What every thread has of its own."""

    current = 0  # the current device
    captured: list[Node] | None = None  # what a stream is given while it is captured
    captured_order: Any = None

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}  # the current one of each device, if it is not the default
        self.hooks: dict[str, MemoryHook] = {}


def _of_thread(name: str) -> Any:
    return property(lambda state: getattr(state.own, name), lambda state, value: setattr(state.own, name, value))


class State:
    """The machine: how many devices it has, which one is current, how many bytes one has free, what is broken."""

    devices = 1
    free = 2**40
    copies = 0  # from a device to the host
    order: Any = None
    lock = threading.RLock()
    current, captured, captured_order = map(_of_thread, ("current", "captured", "captured_order"))
    own: OfThread
    defaults: dict[int, Stream]  # the default stream of each device
    device_count_error: Exception | None = None
    product_error: Exception | None = None
    kernel_error: Exception | None = None

    @property
    def stream(self) -> Stream:
        """The current stream of the current device."""
        with self.lock:
            return self.own.streams.get(self.current) or self.defaults.setdefault(self.current, Stream(null=True))


state = State()
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
    setDevice=lambda device: setattr(state, "current", device),
    getDeviceCount=_device_count,
    getDeviceProperties=_device_properties,
    memGetInfo=lambda: (state.free, 2**40),
    runtimeGetVersion=lambda: 13030,
)


class CompileException(Exception):
    """What the compiler of a kernel said."""


# -- streams and graphs: what is enqueued is done at once, or by the graph that captured it ----------------------------
# -- streams and graphs -----------------------------------------------------------------------------------------------


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


Name = tuple[int, int]  # of a stream: its device, and its pointer


@dataclass
class Node:
    """What a graph does at one place, and with which memory."""

    work: Callable[[], None]
    reads: list[Any]
    writes: list[Any]


class Order:
    """What happened before what: every stream has a clock, and knows those of others up to the events it waited for."""

    def __init__(self) -> None:
        self.clocks: dict[Name, dict[Name, int]] = {}
        # The last access of each kind: of what memory, from start to end, on which stream, to write or not, and when.
        self.accesses: dict[tuple[int, int, Name, bool], int] = {}

    def clock(self, stream: Name) -> dict[Name, int]:
        return self.clocks.setdefault(stream, {stream: 0})

    def check(self, stream: Stream, reads: Any, writes: Any) -> None:
        clock = self.clock(stream.name)
        clock[stream.name] += 1
        others = [access for access, time in self.accesses.items() if clock.get(access[2], 0) < time]
        for arrays, writing in ((reads, False), (writes, True)):
            for array in arrays:
                low = array.ctypes.data
                high = low + array.nbytes
                for start, end, other, wrote in others:
                    if low < end and start < high and (writing or wrote):
                        raise Unordered(f"streams {other} and {stream.name} go to the same memory, in no order")
                self.accesses[low, high, stream.name, writing] = clock[stream.name]

    def forget(self, memory: np.ndarray) -> None:
        """Memory is handed out anew; what it was before is over, as CuPy's pool keeps that of each stream apart."""
        low, high = memory.ctypes.data, memory.ctypes.data + memory.nbytes
        self.accesses = {a: time for a, time in self.accesses.items() if a[1] <= low or high <= a[0]}

    def wait(self, stream: Stream, known: dict[Name, int]) -> None:
        clock = self.clock(stream.name)
        for other, time in known.items():
            clock[other] = max(clock.get(other, 0), time)


def allocate(size: int) -> None:
    """Take memory of the current device, if it has that much free and no stream is being captured.

    CuPy takes it inside a capture too, and hands it out again while the graph still goes there.
    """
    for hook in state.own.hooks.values():
        hook.malloc_preprocess(device_id=state.current, size=size, mem_size=size)
    not_while_captured("memory was allocated")
    if size > state.free:
        raise OutOfMemoryError(size)


class MemoryHook:
    """What is called whenever this thread takes memory."""

    name = "MemoryHook"

    def __enter__(self) -> MemoryHook:
        if self.name in state.own.hooks:
            raise KeyError(f"memory hook {self.name} already exists")
        state.own.hooks[self.name] = self
        return self

    def __exit__(self, *error: object) -> None:
        del state.own.hooks[self.name]

    def malloc_preprocess(self, device_id: int, size: int, mem_size: int) -> None:
        pass


def not_while_captured(what: str) -> None:
    if state.captured is not None:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while a stream is captured")


class Stream:
    """A stream of the device that is current when it is made; the default one, whose pointer is 0, cannot be captured.

    Copies from the memory of the host are done as late as a device may do them: when another stream waits for them.
    Only when the host has waited itself may it write there again.
    """

    made = 0

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        Stream.made += 1
        self.ptr = 0 if null else 4096 * Stream.made
        self.device = state.current
        self.name: Name = self.device, self.ptr
        self.copies: list[Callable[[], None]] = []  # that are not done yet
        self.in_flight: list[tuple[np.ndarray, np.ndarray]] = []  # what the host must leave alone, and what it was

    def copy_later(self, target: np.ndarray, source: np.ndarray) -> None:
        _same_device(self, "a copy to an array")
        with state.lock:
            state.order.check(self, [], [target])
            for memory, was in self.in_flight:
                if not np.array_equal(memory, was):
                    raise Unordered("the host wrote into memory that is being copied to a device")
            self.copies.append(lambda: target.__setitem__(..., source))
            self.in_flight.append((source, source.copy()))

    def catch_up(self, count: int) -> None:
        """Do the first `count` pending copies."""
        with state.lock:
            while self.copies and count > 0:
                self.copies.pop(0)()
                count -= 1

    def __enter__(self) -> Stream:
        if self.device != state.current:
            raise RuntimeError(
                f"The device that the stream is created on ({self.device}) does not match with the current device "
                f"({state.current})"
            )
        self._previous, state.own.streams[self.device] = state.stream, self
        return self

    def __exit__(self, *error: object) -> None:
        state.own.streams[self.device] = self._previous

    def synchronize(self) -> None:
        not_while_captured("the host waited")
        self.catch_up(len(self.copies))
        self.in_flight.clear()

    def wait_event(self, event: Event) -> None:
        event.catch_up()
        with state.lock:
            _order().wait(self, event.known)

    def begin_capture(self, mode: int | None = None) -> None:
        if not self.ptr:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        _same_device(self, "a capture")
        assert state.captured is None
        state.captured, state.captured_order = [], Order()

    def end_capture(self) -> Graph:
        assert state.captured is not None
        known, nodes = _order().clock(self.name), state.captured
        unjoined = [s for s, clock in _order().clocks.items() if clock[s] > known.get(s, 0)]
        state.captured = state.captured_order = None
        if unjoined:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnjoined: unjoined work")
        return Graph(nodes)


class Graph:
    """What a stream captured."""

    launches = 0

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes, self.device = nodes, state.current

    def launch(self, stream: Any = None) -> None:
        not_while_captured("a graph was launched")
        _same_device(self, "a launch")
        Graph.launches += 1
        for node in self.nodes:
            with state.lock:
                state.order.check(state.stream, node.reads, node.writes)
            node.work()


class Event:
    """A mark in a stream; between two of them a millisecond passes."""

    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.disable_timing, self.device = disable_timing, state.current

    def record(self, stream: Any = None) -> None:
        if not self.disable_timing:
            not_while_captured("an event with time was recorded")
        self._stream = stream or state.stream
        if self._stream.device != self.device:
            raise CUDARuntimeError(
                f"cudaErrorInvalidResourceHandle: an event of device {self.device} and a stream of device "
                f"{self._stream.device}"
            )
        with state.lock:
            self._copies, self._in_flight = list(self._stream.copies), list(self._stream.in_flight)
            self.known = dict(_order().clock(self._stream.name))

    def catch_up(self) -> None:
        """Do the copies before the mark."""
        with state.lock:
            self._stream.catch_up(len([copy for copy in self._stream.copies if copy in self._copies]))

    def synchronize(self) -> None:
        not_while_captured("the host waited")
        self.catch_up()
        with state.lock:
            seen = [id(one) for one in self._in_flight]
            self._stream.in_flight = [one for one in self._stream.in_flight if id(one) not in seen]


def _same_device(thing: Stream | Graph, what: str) -> None:
    if thing.device != state.current:
        raise CUDARuntimeError(
            f"cudaErrorInvalidResourceHandle: {what} on device {state.current}, by something of device {thing.device}"
        )


def start(**machine: Any) -> dict[str, Any]:
    """Return what a machine begins with, by the names of `State`."""
    fresh = {"order": Order(), "own": OfThread(), "defaults": {}}
    return fresh | {name: machine.get(name, getattr(State, name)) for name in ("devices", "free", "copies", *ERRORS)}


vars(state).update(start())
