"""Result files of the benchmark suite: pytest-benchmark's JSON, with what was measured in each entry's `extra_info`.

Nothing in a file is believed: its size, the kind and the range of every value are checked, and every complaint names
the file and the entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .document import Fields, Place, clean, document, short

WHATS = (
    *("step", "epoch", "epoch with transfer", "epoch streamed", "inference", "backward", "activation", "loss"),
    *("optimizer", "scaling", "start-up", "step on ranks"),
)
BACKENDS = {"numpy": "CPU", "cuda": "GPU"}
FLOORS = PRODUCTS, COPY, HELD = "bare products", "copy bandwidth", "in memory"
VARIED = ("rows", "width", "depth")
PARTS = ("forward", "deltas", "weight gradients", "update", "rest")
MACHINE = (
    *("cpu", "cores", "blas", "blas_threads", "gpu", "driver", "cuda", "cupy", "no_cuda", "gpubackprop", "numpy"),
)

NUMBERS = ("flops", "bytes", "gflops", "gbps", "memory", "memory_predicted")
TEXTS = ("regime", "precision", "optimizer", "row", "device")

MOST_ENTRIES = 20_000


@dataclass(frozen=True)
class Floor:
    """What a time cannot fall below, measured beside it.

    Attributes:
        name: one of FLOORS.
        seconds: that it takes.
        ratio: our time over it.
    """

    name: str
    seconds: float
    ratio: float

    @property
    def share(self) -> float:
        """What is reached of the floor's rate."""
        return 1 / self.ratio


@dataclass(frozen=True)
class Peer:
    """Another library at the same work.

    Attributes:
        seconds: that it takes; None where it was skipped.
        ratio: its time over ours; None where it was skipped.
        loss_off: how far its losses are from ours, as a share; None where there is none.
        skipped: why it was not measured, or "".
    """

    seconds: float | None = None
    ratio: float | None = None
    loss_off: float | None = None
    skipped: str = ""


@dataclass(frozen=True)
class Entry:
    """One benchmark.

    Attributes:
        name: that pytest gives it.
        what: one of WHATS.
        workload: net and batch, for people.
        backend: "numpy" or "cuda".
        seconds, iqr, rounds: median and interquartile range of so many rounds.
        regime, precision, optimizer, row, varies, device: texts, "" where they do not apply.
        sizes: units of every layer.
        batch: N, or 0.
        flops, bytes: of one run, or None.
        gflops, gbps: rates in units of 1e9 a second, or None.
        memory, memory_predicted: the most bytes that were taken, and what was expected, or None.
        floor: or None.
        peers: by name and version.
        breakdown: seconds of the parts of a step.
    """

    name: str
    what: str
    workload: str
    backend: str
    seconds: float
    iqr: float = 0.0
    rounds: int = 1
    regime: str = ""
    precision: str = ""
    optimizer: str = ""
    row: str = ""
    varies: str = ""
    device: str = ""
    sizes: tuple[int, ...] = ()
    batch: int = 0
    flops: float | None = None
    gflops: float | None = None
    gbps: float | None = None
    bytes: float | None = None
    memory: float | None = None
    memory_predicted: float | None = None
    floor: Floor | None = None
    peers: Mapping[str, Peer] = field(default_factory=dict)
    breakdown: Mapping[str, float] = field(default_factory=dict)

    @property
    def work(self) -> tuple[str, ...]:
        """What is done, whoever does it: entries of one work are compared."""
        return (self.what, self.workload, self.row, self.optimizer, self.precision, self.varies)

    @property
    def is_unsteady(self) -> bool:
        """Whether the middle half of the rounds is spread over more than half of the median, which then says little."""
        return self.iqr > self.seconds / 2

    @property
    def on(self) -> str:
        """CPU or GPU."""
        return BACKENDS[self.backend]


@dataclass(frozen=True)
class Results:
    """A file of the suite.

    Attributes:
        path: of the file.
        machine: facts by name, those of MACHINE that are known.
        date: when it was measured, or "".
        entries: in the file's order.
        disturbed: benchmarks that ran while other programs kept the machine busy, and how many cores of it.
    """

    path: Path
    machine: Mapping[str, str]
    date: str
    entries: tuple[Entry, ...]
    disturbed: Mapping[str, float] = field(default_factory=dict)

    def of(self, *whats: str) -> list[Entry]:
        """Return the entries that measure one of these."""
        return [entry for entry in self.entries if entry.what in whats]

    @property
    def backends(self) -> list[str]:
        """The backends that were measured, in the order of BACKENDS."""
        return [name for name in BACKENDS if any(entry.backend == name for entry in self.entries)]

    @property
    def title(self) -> str:
        """The machine's name: its GPU where one was measured, else its CPU."""
        name = self.machine.get("gpu") if "cuda" in self.backends else self.machine.get("cpu")
        return name or self.machine.get("cpu") or "a machine without a name"

    @property
    def slug(self) -> str:
        """The machine's name as part of the name of a file."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")[:60] or "machine"


def read(path: Path) -> Results:
    """Read a file of the suite.

    Args:
        path: of the JSON file.

    Returns:
        What it holds.

    Raises:
        InvalidValue: it is foreign, truncated or too large, or a value is missing or not accepted.
    """
    return results_of(path, document(path))


def results_of(path: Path, content: dict[str, Any]) -> Results:
    """Check what `document` returned.

    Args:
        path: of the file, for complaints.
        content: its object.

    Returns:
        The results.

    Raises:
        InvalidValue: a value is missing or not accepted.
    """
    top = Fields(content, Place(path))
    listed = top.value("benchmarks")
    if not isinstance(listed, list) or len(listed) > MOST_ENTRIES:
        top.place.refuse(f"`benchmarks` must be a list of at most {MOST_ENTRIES:,} entries")
    entries = tuple(_entry(value, Path(path), number) for number, value in enumerate(listed, 1))
    if not entries:
        top.place.refuse("it holds no benchmark")
    return Results(
        path, _machine(top.object("machine_info")), top.text("datetime")[:10], entries, dict(_disturbed(top))
    )


def _disturbed(top: Fields) -> Iterator[tuple[str, float]]:
    for name, _ in top.children("disturbed"):
        yield clean(name), top.object("disturbed").positive(name)


def _machine(info: Fields) -> dict[str, str]:
    """Return the facts of a machine as texts; numbers are written out."""
    found = {}
    for name in MACHINE:
        value = info.fields.get(name)
        if name == "cpu" and isinstance(value, dict):  # pytest-benchmark's own
            value = value.get("brand_raw")
        if value is None or value == "":
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            info.place.refuse(f"`{name}` must be a text or a number, got {short(value)}")
        found[name] = clean(str(value))
    return found


def _entry(value: Any, path: Path, number: int) -> Entry:
    place = Place(path, f"entry {number}")
    top = Fields(value, place)
    name = top.text("name", required=True)
    top = Fields(value, Place(path, f"entry {number}, {name}"))
    stats, extra = top.object("stats"), top.object("extra_info")
    numbers = {key: extra.number(key) for key in NUMBERS}
    texts = {key: extra.text(key) for key in TEXTS}
    what, sizes, batch = extra.choice("what", WHATS), _sizes(extra), extra.whole("rows", 0)
    if what == "scaling" and not (len(sizes) > 1 and batch):
        extra.place.refuse("what is measured of scaling needs `sizes` and `rows`")
    return Entry(
        name=name,
        what=what,
        workload=extra.text("workload", required=True),
        backend=extra.choice("backend", tuple(BACKENDS)),
        seconds=stats.positive("median"),
        iqr=stats.number("iqr") or 0.0,
        rounds=stats.whole("rounds", 1),
        varies=extra.choice("varies", VARIED) if what == "scaling" else "",
        sizes=sizes,
        batch=batch,
        floor=_floor(extra),
        peers=dict(_peers(extra)),
        breakdown=_breakdown(extra),
        **numbers,  # type: ignore[arg-type]
        **texts,  # type: ignore[arg-type]
    )


def _sizes(extra: Fields) -> tuple[int, ...]:
    sizes = extra.fields.get("sizes") or []
    if not isinstance(sizes, list) or len(sizes) > 10_000 or not all(type(n) is int and 0 < n < 2**40 for n in sizes):
        extra.place.refuse(f"`sizes` must be a list of whole numbers above 0, got {short(sizes)}")
    return tuple(sizes)


def _floor(extra: Fields) -> Floor | None:
    if extra.fields.get("floor") is None:
        return None
    floor = extra.object("floor")
    return Floor(floor.choice("name", FLOORS), floor.positive("seconds"), floor.positive("ratio"))


def _peers(extra: Fields) -> Iterator[tuple[str, Peer]]:
    for name, _ in extra.children("peers"):
        peer = extra.object("peers").object(name)
        if "skipped" in peer.fields:
            yield clean(name), Peer(skipped=peer.text("skipped") or "no reason given")
        else:
            yield (
                clean(name),
                Peer(peer.positive("seconds"), peer.positive("ratio"), peer.number("loss_off")),
            )


def _breakdown(extra: Fields) -> dict[str, float]:
    parts = {name: extra.object("breakdown").number(name) or 0.0 for name, _ in extra.children("breakdown")}
    if unknown := [name for name in parts if name not in PARTS]:
        extra.place.refuse(f"`breakdown` has the part {short(unknown[0])}; known are {', '.join(PARTS)}")
    return {name: parts[name] for name in PARTS if name in parts}


def without_details(content: dict[str, Any]) -> dict[str, Any]:
    """Return what `document` returned, once checked, without what nobody reads: every round, and the host's name."""
    machine = {key: value for key, value in content["machine_info"].items() if key in MACHINE}
    benchmarks = [
        {
            "name": each["name"],
            "group": each.get("group"),
            "params": each.get("params"),
            "stats": {key: value for key, value in each["stats"].items() if key != "data"},
            "extra_info": each["extra_info"],
        }
        for each in content["benchmarks"]
    ]
    return {
        "machine_info": machine,
        "datetime": content.get("datetime"),
        "disturbed": content.get("disturbed", {}),
        "benchmarks": benchmarks,
    }
