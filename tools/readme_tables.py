"""Rewrite the README's tables of performance and of parity from the files in benchmarks/results/.

    PYTHONPATH=. python tools/readme_tables.py

Exit status: 0; 2 where a file or the README is not accepted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpubackprop.bench import tables
from gpubackprop.bench.document import document
from gpubackprop.bench.results import BACKENDS, Results, results_of
from gpubackprop.bench.shown import NONE, Table, digits, factor_of, lean, markdown, share_of
from gpubackprop.errors import InvalidValue

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
END = "<!-- end -->"
NOT_MEASURED = "Not yet measured."
NO_DEVICE = "On a GPU: **not yet run on a device**."


def rewritten(readme: str, folder: Path) -> str:
    """Return a README with its blocks made anew.

    Args:
        readme: its text.
        folder: of the result files.

    Returns:
        The text, the same outside the blocks.

    Raises:
        InvalidValue: a block is missing, or a file is not accepted.
    """
    for name, content in BLOCKS.items():
        mark = f"<!-- begin: {name} -->"
        before, begin, rest = readme.partition(mark)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise InvalidValue(f"the README must have the lines {mark} and {END}")
        readme = f"{before}{mark}\n\n{content(folder)}\n\n{END}{after}"
    return readme


def performance(folder: Path) -> str:
    """Return the tables of all files in a folder, of the suite first, then of gpu_steps.py.

    Args:
        folder: of the result files; those of gpu_check.py, sklearn_parity.py and rank_model.py have no part in it.

    Returns:
        Markdown.

    Raises:
        InvalidValue: a file is not accepted.
    """
    suites, devices = [], []
    for path in sorted(folder.glob("*.json")):
        content = document(path)
        if "workloads" in content:
            devices.append((path, content))
        elif not content.keys() & {"kernels", "ranks", "sklearn_parity"}:
            suites.append(results_of(path, content))
    parts = [_machine(results) for results in suites]
    parts += ["\n".join(_device(path, content)) for path, content in devices]
    if not suites:
        parts.insert(0, NOT_MEASURED if not devices else f"On a CPU: {NOT_MEASURED.lower()}")
    if not devices and not any("cuda" in results.backends for results in suites):
        parts.append(NO_DEVICE)
    return "\n\n".join(parts)


def _machine(results: Results) -> str:
    """Return the steps of a machine and, where it has a GPU, from where on that is faster."""
    known = {name: fact for name, fact in tables.heading(results) if name != "GPU" or "cuda" in results.backends}
    facts = [f"{name} {fact}" if name == "measured" else fact for name, fact in known.items()]
    shown = [tables.steps(results), *([tables.crossovers(results)] if len(results.backends) == 2 else [])]
    return "\n\n".join(["; ".join(facts) + ":", *("\n".join(markdown(lean(table))) for table in shown)])


# -- files of benchmarks/gpu_steps.py ----------------------------------------------------------------------------------


def _device(path: Path, content: dict[str, Any]) -> Iterator[str]:
    """Yield the steps of a device: ours, the bare products, the fastest peer."""
    try:
        machine = content["machine"]
        yield f"{machine['device']}, driver {machine['driver']}; measured {machine['date'][:10]}:"
        yield ""
        columns = ("training step", "µs", "of its bare products", "fastest peer takes")
        rows = tuple(row for workload in content["workloads"] for row in _steps(workload))
    except (KeyError, TypeError, IndexError, ValueError, ZeroDivisionError) as error:
        raise InvalidValue(f"{path}: no file of benchmarks/gpu_steps.py ({type(error).__name__}: {error})") from error
    yield from markdown(Table("", columns, rows))


def _steps(workload: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the row of a workload whose step was measured."""
    ours, bare, *peers = workload["contenders"]
    if "median_seconds" not in ours:
        return
    seconds = float(ours["median_seconds"])
    timed = [(peer["median_seconds"] / seconds, peer["name"]) for peer in peers if "median_seconds" in peer]
    ratio, name = min(timed, default=(None, ""))
    share = bare["median_seconds"] / seconds if "median_seconds" in bare else None
    yield workload["workload"], digits(seconds * 1e6), share_of(share), f"{factor_of(ratio)} {name}".strip() or NONE


# -- files of benchmarks/sklearn_parity.py -----------------------------------------------------------------------------


def parity(folder: Path) -> str:
    """Return the tables of how far the estimators' weights are from scikit-learn's, one for each machine.

    Args:
        folder: of the result files; those of other programs have no part in it.

    Returns:
        Markdown.

    Raises:
        InvalidValue: a file is not accepted.
    """
    contents = ((path, document(path)) for path in sorted(folder.glob("*.json")))
    found = [(path, content) for path, content in contents if "sklearn_parity" in content]
    parts = ["\n".join(_distances(path, content)) for path, content in found] or [NOT_MEASURED]
    if not any(row["backend"] == "cuda" for _, content in found for row in content["sklearn_parity"]):
        parts.append(NO_DEVICE)
    return "\n\n".join(parts)


def _distances(path: Path, content: dict[str, Any]) -> Iterator[str]:
    """Yield the largest distances on a machine: a row for each solver, a column for each backend and type."""
    try:
        machine = content["machine"]
        versions = f"scikit-learn {machine['scikit_learn']}, NumPy {machine['numpy']}"
        yield f"{machine['gpu'] or machine['cpu']}; {versions}; measured {machine['date'][:10]}:"
        yield ""
        cells: dict[str, dict[str, str]] = {}
        for row in content["sklearn_parity"]:
            side = f"{BACKENDS[row['backend']]}, {row['dtype']}"
            cells.setdefault(row["solver"], {})[side] = f"{row['largest']:.1e}"
        sides = list(dict.fromkeys(side for row in cells.values() for side in row))
        rows = tuple((solver, *(row[side] for side in sides)) for solver, row in cells.items())
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidValue(f"{path}: no file of benchmarks/sklearn_parity.py ({reason})") from error
    yield from markdown(Table("", ("solver", *sides), rows))


BLOCKS: dict[str, Callable[[Path], str]] = {"performance": performance, "parity": parity}


def main() -> int:
    """Rewrite the README.

    Returns:
        The exit status.
    """
    try:
        text = rewritten(README.read_text(encoding="utf-8"), RESULTS)
    except InvalidValue as error:
        print(error, file=sys.stderr)
        return 2
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
