"""What the suite's file says of a benchmark beside its time: its `extra_info`, which `gpubackprop bench` reads.

Keys are left out where they do not apply. Seconds are of one step, epoch, pass or operation; ratios are medians of the
ratios of each round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from machine import blas_threads
from peers import versions
from rounds import Entry
from workloads import Workload

from gpubackprop.backends import resolve

WHATS = (
    *("step", "epoch", "epoch with transfer", "epoch streamed", "inference", "backward", "activation", "loss"),
    *("optimizer", "scaling", "start-up", "step on ranks"),
)
TEXTS = ("what", "workload", "regime", "precision", "optimizer", "row", "varies", "backend", "device")
NUMBERS = ("rows", "flops", "bytes", "gflops", "gbps", "memory", "memory_predicted")
OBJECTS = ("sizes", "floor", "peers", "breakdown")
FLOORS = ("bare products", "copy bandwidth", "in memory")
VARIED = ("rows", "width", "depth")
PARTS = ("forward", "deltas", "weight gradients", "update", "rest")

LIBRARIES = {"PyTorch": "torch", "JAX": "jax", "scikit-learn": "sklearn", "plain NumPy": "numpy", "plain CuPy": "cupy"}

Figures = dict[str, Any]


def of_workload(what: str, workload: Workload, backend: str) -> Figures:
    """Return what was done, and on what.

    Args:
        what: one of WHATS.
        workload: the net, its batch, optimizer and precision.
        backend: "numpy" or "cuda".
    """
    return {
        "what": what,
        "workload": workload.shape,
        "regime": workload.regime,
        "sizes": list(workload.sizes),
        "rows": workload.rows,
        "precision": workload.precision,
        "optimizer": workload.optimizer,
        "backend": backend,
        "device": resolve(backend).description,
    }


def of_entries(entries: Sequence[Entry], flops: float) -> Figures:
    """Return rate, floor and peers.

    Args:
        entries: ours first; the bare products and the peers.
        flops: floating-point operations of the products.
    """
    ours, found, peers = entries[0].seconds, Figures(), Figures()
    if ours:
        found |= {"flops": flops, "gflops": flops / statistics.median(ours) / 1e9}
    for entry in entries[1:]:
        if entry.contender.name in FLOORS:
            if entry.seconds:
                found["floor"] = floor(entry.contender.name, ours, entry.seconds)
        else:
            peers[versioned(entry.contender.name)] = _peer(entry, ours)
    return {**found, "peers": peers} if peers else found


def floor(name: str, ours: Sequence[float], seconds: Sequence[float]) -> Figures:
    """Return a floor: its name, what it takes, and our time over it, in the rounds of both."""
    return {"name": name, "seconds": statistics.median(seconds), "ratio": ratio(ours, seconds)}


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """Return the median over the rounds of one time over another."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def threads_of(backend: str, flops: float) -> int | None:
    """Return the threads that products of a step of so many operations take, ours and the bare ones."""
    with resolve(backend).running(flops):
        return blas_threads() if backend == "numpy" else None


def versioned(name: str) -> str:
    """Return the name of a peer with the version of its library, where that was imported."""
    title, comma, rest = name.partition(", ")
    version = versions().get(LIBRARIES.get(title, ""))
    return f"{title} {version}{comma}{rest}" if version else name


def _peer(entry: Entry, ours: Sequence[float]) -> Figures:
    if not entry.seconds or not ours:
        off = f", off by {entry.off:.1e}" if entry.off and entry.remark.startswith("not compared") else ""
        return {"skipped": entry.remark.removeprefix("skipped: ") + off}
    found = {"seconds": statistics.median(entry.seconds), "ratio": ratio(entry.seconds, ours)}
    return found if entry.off is None else {**found, "loss_off": entry.off}


# -- what a reader relies on -------------------------------------------------------------------------------------------


def problems(extra: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the `extra_info` of a benchmark, in words; nothing where a reader can rely on it."""
    known = {*TEXTS, *NUMBERS, *OBJECTS}
    found = [f"unknown key {key!r}" for key in extra if key not in known]
    found += [f"no {key!r}" for key in ("what", "workload", "backend", "device") if key not in extra]
    found += [f"{key} is {extra[key]!r}" for key in TEXTS if key in extra and not _text(extra[key])]
    found += [f"{key} is {extra[key]!r}" for key in NUMBERS if key in extra and not _positive(extra[key])]
    accepted = {"what": WHATS, "varies": VARIED, "backend": ("numpy", "cuda")}
    found += [f"{key} is {extra[key]!r}" for key, names in accepted.items() if extra.get(key, names[0]) not in names]
    if extra.get("what") == "scaling":
        found += [f"scaling without {key!r}" for key in ("varies", "sizes", "rows") if key not in extra]
    return found + _in_objects(extra)


def _in_objects(extra: Mapping[str, Any]) -> list[str]:
    found = []
    if "floor" in extra:
        named = extra["floor"].get("name") in FLOORS
        found += [] if named and _measured(extra["floor"]) else [f"floor is {extra['floor']!r}"]
    for name, peer in extra.get("peers", {}).items():
        right = _text(peer["skipped"]) if "skipped" in peer else _measured(peer)
        found += [] if right else [f"peer {name!r} is {peer!r}"]
    if "breakdown" in extra:
        parts = extra["breakdown"]
        right = set(parts) == set(PARTS) and all(value >= 0 for value in parts.values())
        found += [] if right else [f"breakdown is {parts!r}"]
    return found


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _measured(figures: Mapping[str, Any]) -> bool:
    return _positive(figures.get("seconds")) and _positive(figures.get("ratio"))
