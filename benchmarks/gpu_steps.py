"""Time training steps on this machine's GPU: ours, their floor, and whatever else is installed that takes the same.

From a checkout, with CuPy, NumPy and safetensors installed, and PyTorch and JAX where they are to be compared:

    PYTHONPATH=. python benchmarks/gpu_steps.py

The file is written after every workload. Exit status: 0; 1 where the file holds another device's figures; 2 where no
device is usable.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpu_check import RESULTS, foreign, machine_of, slug
from own_steps import BareProducts, Ours, constants
from peers import peers, release, versions
from rounds import TURN_SECONDS, Clock, raced
from step_rows import Row, heading, row_of, table
from workloads import Contender, Workload, workloads

import gpubackprop
from gpubackprop.backends import resolve

ROUNDS, QUICK_ROUNDS = 15, 7


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison.

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

    machine = machine_of(cupy)
    out = arguments.out or RESULTS / f"{slug(machine['device'])}-steps.json"
    if problem := foreign(out, machine["device"]):
        print(problem, file=sys.stderr)
        return 1
    compare(cupy, machine, arguments, out)
    print(f"\nwritten to {out}")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, of the tiny workloads and one medium net")
    parser.add_argument("--only", metavar="NAME", default="", help="workloads whose names hold this: 'large', 'N 64'")
    parser.add_argument("--out", type=Path, help="file (default: benchmarks/results/, the name of the device, -steps)")
    arguments = parser.parse_args(argv)
    arguments.chosen = [w for w in workloads(arguments.quick) if arguments.only in w.name]
    if not arguments.chosen:
        names = "\n  ".join(w.name for w in workloads(arguments.quick))
        parser.error(f"--only {arguments.only!r} is in the name of no workload:\n  {names}")
    return arguments


def compare(cupy: Any, machine: dict[str, str], arguments: argparse.Namespace, out: Path) -> None:
    """Measure the device and all workloads; show and write each when it is done."""
    rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    report: dict[str, Any] = {"machine": machine, "rounds": rounds}
    backend = resolve("cuda")
    report["constants"] = constants(backend, rounds, time.perf_counter)
    report["peers"], report["workloads"] = {}, []
    print("\n".join(heading(report)))
    out.parent.mkdir(parents=True, exist_ok=True)
    for workload in arguments.chosen:
        contenders: list[Contender] = [Ours("cuda"), BareProducts("cuda"), *peers("cuda", cupy)]
        made = compared(workload, contenders, rounds, time.perf_counter, partial(_free, cupy))
        report["workloads"].append(made)
        report["peers"] = versions()
        # What is done in a product instead of behind it, and what is not, as the clock of this device has it.
        report["choices"] = {p: backend.with_precision(p).choices for p in backend.precisions}
        print("\n".join(table(made)), flush=True)
        out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        del contenders
        release()


def _free(cupy: Any) -> int:
    """Return the bytes that the device has left, after what is no longer used was given back."""
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    return int(cupy.cuda.runtime.memGetInfo()[0])


# -- what is measured --------------------------------------------------------------------------------------------------


def compared(
    workload: Workload, contenders: Sequence[Contender], rounds: int, clock: Clock, free: Callable[[], int]
) -> Row:
    """Measure all contenders in one workload, each once in every round.

    Args:
        workload: what they do.
        contenders: ours first, then the bare products, then the peers.
        rounds: how often; medians count.
        clock: seconds of the host.
        free: returns the bytes that the device has left.

    Returns:
        The rows of the contenders, and what became of the goals.
    """
    return row_of(workload, raced(workload, contenders, rounds, clock, free=free, turn=TURN_SECONDS))


if __name__ == "__main__":
    sys.exit(main())
