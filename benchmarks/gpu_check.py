"""Check this machine's GPU: run the tests that need one, then time every kernel, in one table and one JSON file.

From a checkout, with CuPy, NumPy, safetensors, pytest and pytest-benchmark installed:

    PYTHONPATH=. python benchmarks/gpu_check.py

Exit status: 0; 1 where tests failed or the file holds another device's figures; 2 where no device is usable.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy
from kernel_runs import COLS, STORAGES, WithoutProducts
from kernel_times import Row, device_seconds, kernel_rows, launch_seconds
from parity import parity

import gpubackprop

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TESTS = (sys.executable, "-m", "pytest", "-m", "gpu", "--require", "cuda")
ROUNDS = 21
COLUMNS = ("kernel", "formula", "storage", "shape", "µs", "least µs", "spread", "MB moved", "GB/s", "of copy", "")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check.

    Args:
        argv: the command line without the name of the program.

    Returns:
        The exit status.
    """
    arguments = _arguments(argv)
    reason = gpubackprop.why_no_cuda()
    if reason is not None:
        print(f"nothing was measured: {reason}", file=sys.stderr)
        return 2
    import cupy

    backend = WithoutProducts(0, cupy, "none are timed")
    machine = machine_of(cupy)
    out = arguments.out or RESULTS / f"{slug(machine['device'])}.json"
    if problem := foreign(out, machine["device"]):
        print(problem, file=sys.stderr)
        return 1
    report = {
        "machine": machine,
        "tests": None if arguments.no_tests else run_tests(TESTS),
        **measured(backend, arguments.elements),
    }
    print("\n".join(lines(report)))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten to {out}")
    return int(bool(report["tests"] and report["tests"]["exit_status"]))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--no-tests", action="store_true", help="measure alone")
    parser.add_argument("--elements", type=int, default=2**26, help="of each array (default: 64 Mi: 7 GB)")
    parser.add_argument("--out", type=Path, help="file (default: benchmarks/results/ and the name of the device)")
    arguments = parser.parse_args(argv)
    if arguments.elements < COLS:
        parser.error(f"--elements must be at least {COLS}, got {arguments.elements}")
    return arguments


# -- what is run -------------------------------------------------------------------------------------------------------


def machine_of(cupy: Any) -> dict[str, str]:
    """Return the device that is current, what drives it, and when this was."""
    runtime = cupy.cuda.runtime
    return {
        "device": runtime.getDeviceProperties(0)["name"].decode(),
        "driver": f"{_driver()}, for CUDA {_cuda(runtime.driverGetVersion())}",
        "cuda_runtime": _cuda(runtime.runtimeGetVersion()),
        "cupy": cupy.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "gpubackprop": gpubackprop.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _driver() -> str:
    """Return the version of the driver, which the runtime does not tell."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "version unknown without nvidia-smi"
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    run = subprocess.run(query, capture_output=True, text=True, check=False)
    return run.stdout.partition("\n")[0].strip() or "version not told by nvidia-smi"


def run_tests(command: Sequence[str]) -> dict[str, Any]:
    """Run the tests in the checkout, show what they print, and return their exit status and closing line."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    closing = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as run:
        for line in run.stdout or ():
            print(line, end="", flush=True)
            closing = line.strip() or closing
    return {"exit_status": run.returncode, "closing_line": closing.strip("= ")}


def measured(backend: WithoutProducts, elements: int) -> dict[str, Any]:
    """Return all figures; `elements` of each array."""
    seconds = partial(device_seconds, backend.xp)
    with backend.running(0.0):
        return {
            "rounds": ROUNDS,
            "host_seconds_per_launch": launch_seconds(backend, ROUNDS, time.perf_counter),
            "kernels": [row for s in STORAGES for row in kernel_rows(backend, s, elements, ROUNDS, seconds)],
            "parity": [parity(dtype) for dtype in ("float64", "float32")],
        }


def slug(device: str) -> str:
    """Return the name of a device as part of the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def foreign(path: Path, device: str) -> str | None:
    """Return why a file may not be written over: it is there, and does not hold figures of this device."""
    if not path.exists():
        return None
    try:
        holds = f"figures of {json.loads(path.read_text(encoding='utf-8'))['machine']['device']}"
    except (ValueError, KeyError, TypeError):
        holds = "something else than figures of this script"
    if holds == f"figures of {device}":
        return None
    return f"{path} holds {holds}, and this is {device}: name another file with --out, or move that one"


# -- how it is shown ---------------------------------------------------------------------------------------------------


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the report as text."""
    tests = report["tests"]
    heading = {
        **report["machine"],
        "tests": f"{tests['closing_line']} (exit status {tests['exit_status']})" if tests else "not run",
        "a launch": f"{report['host_seconds_per_launch'] * 1e6:.2f} µs of the host",
        **{f"parity {row['dtype']}": _parity(row) for row in report["parity"]},
    }
    yield from ("", *(f"{name.replace('_', ' '):<15} {text}" for name, text in heading.items()), "")
    yield from _aligned([COLUMNS, *map(_cells, report["kernels"])])
    yield f"medians of {report['rounds']} rounds, the spread from the least to the most; the goal is for float32"


def _parity(row: Row) -> str:
    same = len(set(row["sha256_of_reruns_on_cuda"])) == 1
    return (
        f"after {row['epochs']} epochs θ is off NumPy's by {row['largest_relative_difference_of_parameters']:.1e}, "
        f"the loss by {row['relative_difference_of_loss']:.1e}; "
        f"{len(row['sha256_of_reruns_on_cuda'])} runs gave {'the same bits' if same else 'DIFFERENT BITS'}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    share, goal = row["share_of_copy_bandwidth"], row["goal_share_of_copy_bandwidth"]
    return (
        row["kernel"],
        row["formula"],
        row["storage"],
        "×".join(map(str, row["shape"])),
        f"{row['median_seconds'] * 1e6:.1f}",
        f"{row['least_seconds'] * 1e6:.1f}",
        f"{(row['most_seconds'] - row['least_seconds']) / row['median_seconds']:.0%}",
        f"{row['bytes_moved'] / 1e6:.1f}",
        f"{row['bytes_per_second'] / 1e9:.1f}",
        f"{share:.1%}",
        f"below the goal of {goal:.0%}" if goal and share < goal else "",
    )


def _aligned(rows: Sequence[Sequence[str]], words: int = 4) -> Iterator[str]:
    """Yield rows with their columns aligned: so many words at the front, and the last, to the left, numbers right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            f"{c:<{w}}" if k < words or k == len(row) - 1 else f"{c:>{w}}"
            for k, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


if __name__ == "__main__":
    sys.exit(main())
