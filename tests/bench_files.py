"""Result files made up for tests, in the form that the benchmark suite writes. Their times are those of a formula."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpubackprop.bench.figures import step_flops

SECONDS = {  # a step: to begin with, a layer, an operation
    "numpy": (20e-6, 15e-6, 1 / 60e9),
    "cuda": (90e-6, 4e-6, 1 / 20e12),
}
DEVICES = {"numpy": "NumPy 2.4 on the CPU", "cuda": "CuPy 14.2 on a made-up GPU"}
NETS = [((784, 128, 10), 64), ((784, 512, 512, 10), 256), ((256,) * 9, 128), ((1024,) * 5, 1024)]
MACHINE = {
    **{"cpu": "Made-up CPU @ 2.50GHz", "cores": 2, "blas": "OpenBLAS 0.3.30", "blas_threads": 2},
    **{"gpubackprop": "0.1.0", "numpy": "2.4.6"},
}
GPU = {"gpu": "Made-up GPU", "driver": "600.1", "cuda": "13.0", "cupy": "14.2.0"}


def step_seconds(backend: str, sizes: tuple[int, ...], rows: int) -> float:
    """Return the time of a made-up step."""
    begin, layer, operation = SECONDS[backend]
    return begin + layer * (len(sizes) - 1) + operation * step_flops(sizes, rows)


def entry(name: str, seconds: float, **extra: Any) -> dict[str, Any]:
    """Return one benchmark as pytest-benchmark writes it."""
    stats = {"min": 0.97 * seconds, "max": 1.2 * seconds, "mean": 1.02 * seconds, "median": seconds}
    return {
        "name": name,
        "group": extra["what"],
        "params": None,
        "stats": {**stats, "iqr": 0.03 * seconds, "rounds": 15, "data": [seconds] * 15},
        "extra_info": {"device": DEVICES[extra["backend"]], **extra},
    }


def net_name(sizes: tuple[int, ...], rows: int) -> str:
    """Return net and batch for people."""
    net = f"{sizes[0]}x{len(sizes) - 1}" if len(set(sizes)) == 1 else "-".join(map(str, sizes))
    return f"{net}, N {rows}"


def step(backend: str, sizes: tuple[int, ...], rows: int, what: str = "step", **extra: Any) -> dict[str, Any]:
    """Return a training step, or what else is made of one."""
    about = {
        **{"what": what, "workload": net_name(sizes, rows), "sizes": list(sizes), "rows": rows},
        **{"precision": "float32", "optimizer": "SGD", "backend": backend, "flops": step_flops(sizes, rows)},
    }
    name = f"test_{what}[{net_name(sizes, rows)}-{backend}-{extra.get('varies', '')}]"
    return entry(name, step_seconds(backend, sizes, rows), **about | extra)


def _full_step(backend: str, sizes: tuple[int, ...], rows: int) -> dict[str, Any]:
    seconds = step_seconds(backend, sizes, rows)
    bare = SECONDS[backend][2] * step_flops(sizes, rows) * 0.97
    products = seconds - SECONDS[backend][0]
    shares = {"forward": 0.33, "deltas": 0.27, "weight gradients": 0.31, "update": 0.09}
    peers = {
        "PyTorch 2.13.0": {"seconds": 1.35 * seconds, "ratio": 1.35, "loss_off": 2e-6},
        "scikit-learn 1.9.1": {"seconds": 3.1 * seconds, "ratio": 3.1, "loss_off": 4e-6},
        "JAX 0.7": {"skipped": "not installed"},
    }
    if backend == "cuda":
        peers["scikit-learn 1.9.1"] = {"skipped": "runs on the CPU alone"}
    return step(
        backend,
        sizes,
        rows,
        bytes=4.0 * (3 * sum(m * n for m, n in itertools.pairwise(sizes)) + 6 * rows * sum(sizes)),
        memory=4e6 + 40.0 * rows * sum(sizes),
        memory_predicted=4e6 + 38.0 * rows * sum(sizes),
        floor={"name": "bare products", "seconds": bare, "ratio": seconds / bare},
        peers=peers,
        breakdown={**{part: share * products for part, share in shares.items()}, "rest": SECONDS[backend][0]},
    )


def _scaling(backend: str) -> Iterator[dict[str, Any]]:
    for N in (1, 4, 16, 64, 256, 1024, 4096):
        yield step(backend, (784, 128, 10), N, "scaling", varies="rows")
        yield step(backend, (1024,) * 5, N, "scaling", varies="rows")
    for n in (16, 64, 256, 1024, 4096):
        yield step(backend, (n,) * 5, 256, "scaling", varies="width")
    for L in (2, 4, 8, 16, 32):
        yield step(backend, (256,) * (L + 1), 128, "scaling", varies="depth")


def _operations(backend: str) -> Iterator[dict[str, Any]]:
    bandwidth = {"numpy": 11e9, "cuda": 3e12}[backend]
    for k, (what, row) in enumerate(
        [("activation", "relu"), ("activation", "gelu"), ("loss", "mse"), ("optimizer", "adam")]
    ):
        moved, share = 4.0 * 3 * 2**22, 0.95 - 0.13 * k
        about = {"what": what, "row": row, "workload": "4 Mi elements", "precision": "float32", "backend": backend}
        floor = {"name": "copy bandwidth", "seconds": moved / bandwidth, "ratio": 1 / share}
        seconds = moved / bandwidth / share
        numbers = {"bytes": moved, "flops": 2.0**22 * 4 * (k + 1), "gbps": moved / seconds / 1e9}
        yield entry(f"test_{what}[{row}-{backend}]", seconds, **about, **numbers, floor=floor)


def content(*backends: str) -> dict[str, Any]:
    """Return a whole file's content, of these backends."""
    found: list[dict[str, Any]] = []
    for backend in backends:
        found += [_full_step(backend, sizes, rows) for sizes, rows in NETS]
        around = {"epoch": 16, "epoch with transfer": 16, "inference": 1, "backward": 1}
        found += [step(backend, *NETS[1], what, flops=n * step_flops(*NETS[1])) for what, n in around.items()]
        held = {"name": "in memory", "seconds": 0.5, "ratio": 1.25}
        found.append(step(backend, *NETS[1], "epoch streamed", floor=held, flops=64 * step_flops(*NETS[1])))
        found += [*_operations(backend), *_scaling(backend)]
        found.append(
            entry(
                f"test_start_up[{backend}]",
                0.18,
                what="start-up",
                row="import",
                workload="784-128-10, N 64",
                backend=backend,
            )
        )
    machine = {**MACHINE, "node": "a-host-name", **(GPU if "cuda" in backends else {})}
    return {"machine_info": machine, "datetime": "2026-01-02T03:04:05+00:00", "version": "5.3.1", "benchmarks": found}


def write(path: Path, what: dict[str, Any]) -> Path:
    """Write a file."""
    path.write_text(json.dumps(what, indent=1), encoding="utf-8")
    return path
