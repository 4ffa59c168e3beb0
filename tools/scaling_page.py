"""Rewrite the tables of docs/scaling.md: what was measured, and what the model says of machines that nobody here has.

    PYTHONPATH=. python tools/scaling_page.py

Exit status: 0; 2 where the page has no place for them.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpubackprop.bench.shown import digits, time_of

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "scaling.md", ROOT / "benchmarks" / "results"
END = "<!-- end -->"

# -- figures of devices and links, with their sources ------------------------------------------------------------------

FLOPS = 0.75 * 67e12  # float32 of an H100 SXM (its data sheet), three quarters of it: assumed
NODE_SECONDS = 2e-6  # of a node of a CUDA graph, of which a step has five for each layer: assumed
NVLINK = 0.8 * 450e9  # bytes a second and direction of an H100's NVLink 4 (data sheet: 900 GB/s both ways); 0.8 assumed
NETWORK = 0.8 * 50e9  # of the 400 Gb/s adapter that each GPU of a DGX H100 has (its data sheet); 0.8 assumed
BASE, HOP, NETWORK_HOP = 6.6e-6, 0.6e-6, 5.0e-6  # NCCL's own model: src/graph/tuning.cc, baseLat and hwLat, low latency
BUCKET = 4 * 2**20  # bytes: `NcclReducer.bucket`
GPUS = 8  # of a node
SOURCES = (
    "Sources: float32 rate, NVLink (900 GB/s in both directions together) and one adapter of 400 Gb/s a GPU from "
    "NVIDIA's data sheets of the H100 SXM and the DGX H100; latencies from the tables `baseLat` and `hwLat` of NCCL's "
    "`src/graph/tuning.cc` (6.6 µs, 0.6 µs a step on NVLink, 5 µs a step on the network). Assumed: products at 75 % of "
    "the float32 rate, links at 80 %, 2 µs for each of 5 graph nodes a layer, a sum over nodes as one over the GPUs of "
    "each node, then by a tree over the nodes of an eighth on each adapter."
)


class Net(NamedTuple):
    """Units of every layer, and the rows of a batch."""

    sizes: tuple[int, ...]
    rows: int

    @property
    def layers(self) -> list[int]:
        """Weights of every layer, n_{l-1} n_l."""
        return [m * n for m, n in zip(self.sizes, self.sizes[1:], strict=False)]

    @property
    def name(self) -> str:
        """Net and batch, for people."""
        return f"{'-'.join(map(str, self.sizes))}, N {self.rows}"


NETS = (Net((784, 128, 10), 64), Net((784, 512, 512, 10), 256), Net((1024,) * 5, 1024), Net((4096,) * 4, 8192))
DEVICES = (1, 2, 8, 64 * GPUS)


def seconds_of_products(net: Net, rows: float) -> float:
    """Return c_0 + c_1 N / R for so many rows a device."""
    flops = 2.0 * rows * (3 * sum(net.layers) - net.layers[0])
    return 5 * len(net.layers) * NODE_SECONDS + flops / FLOPS


def seconds_of_sum(size: float, devices: int) -> float:
    """Return α + β B: a ring in a node; over nodes a tree, each adapter with its share."""
    inside, nodes = min(devices, GPUS), -(-devices // GPUS)
    if devices == 1:
        return 0.0
    seconds = BASE + 2 * (inside - 1) * HOP + 2 * (inside - 1) / inside * size / NVLINK
    if nodes > 1:
        seconds += BASE + 2 * math.log2(nodes) * NETWORK_HOP + 2 * (nodes - 1) / nodes * size / GPUS / NETWORK
    return seconds


def exposed(net: Net, rows: float, devices: int) -> float:
    """Return what of the sums is not hidden: buckets follow each other, and each follows its last layer."""
    backward, free, size = 2 / 3 * seconds_of_products(net, rows), 0.0, 0.0
    now = 0.0
    for l, weights in reversed(list(enumerate(net.layers))):
        now += backward * weights / sum(net.layers)
        size += 4 * weights
        if size >= BUCKET or l == 0:
            free = max(free, now) + seconds_of_sum(size, devices)
            size = 0.0
    return free - now


def seconds(net: Net, rows: float, devices: int) -> float:
    """Return t(R), where each device has so many rows."""
    return seconds_of_products(net, rows) + (exposed(net, rows, devices) if devices > 1 else 0.0)


def paper() -> Iterator[str]:
    """Yield the lines of what the model says of GPUs."""
    yield from _table(
        ["net and batch", *(f"{d} GPU{'s' * (d > 1)}" for d in DEVICES), *(f"efficiency on {d}" for d in DEVICES[1:])],
        [_strong(net) for net in NETS],
    )
    yield ""
    yield "The same N on every GPU instead (weak scaling):"
    yield ""
    yield from _table(["net, N a GPU", *(f"efficiency on {d}" for d in DEVICES[1:])], [_weak(net) for net in NETS])
    yield ""
    yield SOURCES


def _strong(net: Net) -> list[str]:
    times = [seconds(net, net.rows / d, d) for d in DEVICES]
    return [
        net.name,
        *map(time_of, times),
        *(_percent(times[0] / t / d) for t, d in zip(times[1:], DEVICES[1:], strict=True)),
    ]


def _weak(net: Net) -> list[str]:
    return [net.name, *(_percent(seconds(net, net.rows, 1) / seconds(net, net.rows, d)) for d in DEVICES[1:])]


def measured(folder: Path) -> Iterator[str]:
    """Yield the lines of what was measured, of every file of benchmarks/rank_model.py in a folder."""
    found = [(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    files = [content for _, content in found if "ranks" in content]
    if not files:
        yield "Not yet measured."
    for content in files:
        about = content["machine_info"]
        yield (
            f"{about['cpu']}, {about['cores']} cores, measured {content['datetime']}; load is how many processes "
            "wanted a core in the minute before:"
        )
        yield ""
        yield from _table(
            [
                "net and batch",
                "load",
                "ranks",
                "α",
                "1 / β",
                "k",
                "model",
                "measured",
                "model / measured",
                "efficiency",
            ],
            [row for entry in content["ranks"] for row in _rows(entry)],
        )


def _rows(entry: dict[str, Any]) -> Iterator[list[str]]:
    constants, one = entry["constants"], entry["seconds"]["1"]
    for R, taken in entry["seconds"].items():
        alpha, beta = constants["a"].get(R), constants["b"].get(R)
        sums = ["–", "–"] if alpha is None else [time_of(alpha), f"{digits(1e-9 / beta)} GB/s"]
        said = entry["model"][R]
        ratios = [f"{said / taken:.2f}", _percent(one / taken / int(R))]
        yield [
            entry["workload"],
            f"{entry['load']:.1f}",
            R,
            *sums,
            f"{constants['k'][R]:.2f}",
            time_of(said),
            time_of(taken),
            *ratios,
        ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def rewritten(page: str, folder: Path) -> str:
    """Return the page with its tables made anew.

    Args:
        page: its text.
        folder: of the result files.

    Returns:
        The text, the same outside the tables.

    Raises:
        ValueError: there is no place for a table.
    """
    for name, lines in (("measured", measured(folder)), ("paper", paper())):
        before, begin, rest = page.partition(f"<!-- begin: {name} -->\n")
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise ValueError(f"the page must have the lines <!-- begin: {name} --> and {END}")
        page = "\n".join([before + begin, *lines, "", end + after])
    return page


def main() -> int:
    """Rewrite the page."""
    try:
        page = rewritten(PAGE.read_text(encoding="utf-8"), RESULTS)
    except ValueError as error:
        print(f"scaling_page: {error}", file=sys.stderr)
        return 2
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
