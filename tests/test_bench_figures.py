"""What is derived from results: speed-ups, crossovers, slopes, roofs; the numbers of the tables; two runs compared."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import bench_files
import pytest

from gpubackprop.bench import figures, results, tables
from gpubackprop.bench.compare import comparison
from gpubackprop.bench.figures import Point, crossover, families, pairs, roof, slope, step_bytes, step_flops
from gpubackprop.bench.shown import Table, markdown, text, time_of

UNITS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}
DIGITS = (
    6e-3  # half a unit of the third digit is 0.5 % of 100 at most; and a little for the rounding of what is compared
)


def _results(*backends: str, **machine: Any) -> results.Results:
    content = bench_files.content(*backends)
    content["machine_info"] |= machine
    return results.results_of(Path("made-up.json"), content)


BOTH = _results("numpy", "cuda")
CPU_ONLY = _results("numpy")


def _number(cell: str) -> float:
    """Return what a cell says: seconds, bytes, a factor or a share."""
    found = re.match(r"([\d.,]+(?:e[+-]\d+)?)(?:\s?(%|×|\w+))?", cell)
    assert found, cell
    number = float(found[1].replace(",", ""))
    return number * {"%": 0.01, "×": 1.0, None: 1.0, **UNITS}[found[2]]


def _table(run: results.Results, title: str) -> Table:
    [found] = [table for table in tables.tables(run) if table.title.startswith(title)]
    return found


def _column(table: Table, heading: str) -> list[str]:
    k = table.columns.index(heading)
    return [row[k] for row in table.rows]


# -- crossover ---------------------------------------------------------------------------------------------------------


def _points(*seconds: float) -> list[Point]:
    return [Point(4**k, s, 1.0) for k, s in enumerate(seconds)]


def test_crossover_of_a_pair_by_hand() -> None:
    """CPU x, GPU a constant 8: equal at x = 8, where both are powers; so the estimate is exact."""
    found = crossover([Point(x, x, 1.0) for x in (1, 4, 16, 64)], [Point(x, 8.0, 1.0) for x in (1, 4, 16, 64)])
    assert found is not None
    assert (found.first, found.last, found.slower, found.faster) == (1, 64, 4, 16)
    assert found.estimate == pytest.approx(8.0)
    assert found.sentence("N") == "from N = 16 (equal at about 8.0)"


@pytest.mark.parametrize(
    ("cpu", "gpu", "slower", "faster", "says"),
    [
        ((2, 3, 4), (1, 1, 1), None, 1, "at all from N = 1"),
        ((1, 1, 1), (2, 2, 1), 16, None, "at none up to N = 16"),  # equal is not faster
        ((1, 1, 1), (2, 2, 2), 16, None, "at none up to N = 16"),
        ((2, 1, 2, 3), (1, 2, 1, 1), 4, 16, "from N = 16 (equal at about 8.0)"),  # from where on: the last change
    ],
)
def test_crossover_at_the_ends_and_with_a_relapse(cpu: Any, gpu: Any, slower: Any, faster: Any, says: str) -> None:
    found = crossover(_points(*cpu), _points(*gpu))
    assert found is not None
    assert (found.slower, found.faster, found.sentence("N")) == (slower, faster, says)


def test_crossover_takes_common_values_alone() -> None:
    assert crossover(_points(1, 1), []) is None
    found = crossover([Point(1, 1, 1), Point(2, 9, 1)], [Point(2, 3, 1), Point(8, 1, 1)])
    assert found is not None
    assert (found.first, found.last) == (2, 2)


def test_crossover_of_the_made_up_machines() -> None:
    """The GPU begins at 90 µs and 4 µs a layer, the CPU at 20 and 15 µs, and one example of 784-128-10 is 405 kFLOP."""
    family = next(f for f in families(BOTH) if f.net == "784-128-10")
    equal = (98e-6 - 50e-6) / (step_flops((784, 128, 10), 1) * (1 / 60e9 - 1 / 20e12))
    assert 4 < equal < 16
    assert family.crossover is not None
    assert (family.crossover.slower, family.crossover.faster) == (4, 16)
    table = _table(BOTH, "Where the GPU overtakes")
    assert ("784-128-10", "rows", family.crossover.sentence("N")) == table.rows[0][:3]


# -- scaling and roofs -------------------------------------------------------------------------------------------------


def test_slopes() -> None:
    assert slope([(1, 5.0), (10, 50.0), (100, 500.0)]) == pytest.approx(1.0)
    assert slope([(2, 4.0), (4, 16.0), (8, 64.0)]) == pytest.approx(2.0)
    assert slope([(3, 1.0)]) is slope([(3, 1.0), (3, 2.0)]) is None
    upper = figures.upper_half([Point(x, 1.0, 1.0) for x in (1, 2, 3, 4, 5)])
    assert [point.x for point in upper] == [3, 4, 5]
    assert len(figures.upper_half([Point(x, 1.0, 1.0) for x in (1, 2)])) == 2


def test_families() -> None:
    found = {(f.varies, f.net): f for f in families(BOTH)}
    assert list(found) == [
        ("rows", "784-128-10"),
        ("rows", "1024×4"),
        ("width", "n×4, N 256"),
        ("depth", "256×L, N 128"),
    ]
    assert all([p.x for p in f.points["numpy"]] == [p.x for p in f.points["cuda"]] for f in found.values())
    assert [point.x for point in found["depth", "256×L, N 128"].points["cuda"]] == [2, 4, 8, 16, 32]
    table = _table(BOTH, "Scaling")
    for row, (net, points) in zip(
        table.rows, [(f.net, points) for f in found.values() for points in f.points.values()], strict=True
    ):
        assert row[0] == net
        assert _number(row[3]) == pytest.approx(points[-1].seconds, rel=DIGITS)
        assert float(row[4]) == pytest.approx(slope([(p.x, p.seconds) for p in points]), abs=6e-3)


@pytest.mark.parametrize(
    ("varies", "sizes", "net"),
    [
        ("width", (784, 64, 64, 10), "784-n-n-10, N 8"),
        ("depth", (784, 64, 64, 10), "784-64…64-10, N 8"),
        ("rows", (784, 64, 32, 10), "784-64-32-10"),
    ],
)
def test_names_of_families(varies: str, sizes: tuple[int, ...], net: str) -> None:
    content = bench_files.content("numpy")
    content["benchmarks"] = [bench_files.step("numpy", sizes, 8, "scaling", varies=varies)]
    [family] = families(results.results_of(Path("x"), content))
    assert family.net == net


def test_operations_and_bytes_of_a_step_by_hand() -> None:
    """2-3-1 with N 5: products 6 and 3, the first without δ W; layers move 6 + 25 and 3 + 20 numbers a product."""
    assert step_flops((2, 3, 1), 5) == 2 * 5 * (2 * 6 + 3 * 3)
    assert step_bytes((2, 3, 1), 5) == 4 * (2 * 31 + 3 * 23)


def test_roofs_are_the_best_floors() -> None:
    found = roof(BOTH, "numpy")
    assert found.products == {"float32": pytest.approx(60e9 / 0.97)}
    assert found.copy == pytest.approx(11e9)
    assert roof(CPU_ONLY, "cuda") == figures.Roof({}, None)


# -- tables ------------------------------------------------------------------------------------------------------------


def test_numbers_of_steps_are_the_files() -> None:
    table = _table(BOTH, "Training steps, SGD, float32")
    found = pairs(BOTH.of("step"))
    assert len(table.rows) == len(found) == len(bench_files.NETS)
    for row, pair in zip(table.rows, found, strict=True):
        said = dict(zip(table.columns, row, strict=True))
        assert pair.cpu and pair.gpu and pair.cpu.floor and pair.gpu.floor
        assert said["net and batch"] == pair.cpu.workload
        assert _number(said["CPU"]) == pytest.approx(pair.cpu.seconds, rel=DIGITS)
        assert _number(said["GPU"]) == pytest.approx(pair.gpu.seconds, rel=DIGITS)
        assert _number(said["speed-up"]) == pytest.approx(pair.cpu.seconds / pair.gpu.seconds, rel=DIGITS)
        assert _number(said["CPU, of its floor"]) == pytest.approx(1 / pair.cpu.floor.ratio, abs=6e-3)
        assert _number(said["GPU, of its floor"]) == pytest.approx(1 / pair.gpu.floor.ratio, abs=6e-3)
        assert said["fastest peer takes"] == "1.35× PyTorch 2.13.0"


def test_a_time_that_says_little_is_called_so() -> None:
    """One benchmark whose rounds differ by as much as they take, among others that are steady."""
    first, *others = CPU_ONLY.of("step")
    noisy = dataclasses.replace(CPU_ONLY, entries=(dataclasses.replace(first, iqr=0.6 * first.seconds), *others))
    shown = tables.steps(noisy)
    assert [row[shown.columns.index("CPU")].endswith(", unsteady") for row in shown.rows] == [
        True,
        *[False] * len(others),
    ]
    assert any(note.startswith("Unsteady: ") for note in shown.notes)
    assert not any(note.startswith("Unsteady: ") for note in tables.steps(CPU_ONLY).notes)


def test_numbers_of_the_other_tables_are_the_files() -> None:
    entries = {(e.what, e.row, e.backend): e for e in BOTH.of("activation", "loss", "optimizer")}
    for row, what, _, on, time, rate, share in _table(BOTH, "Single operations").rows:
        entry = entries[what, row, {"CPU": "numpy", "GPU": "cuda"}[on]]
        assert entry.floor and entry.gbps
        assert _number(time) == pytest.approx(entry.seconds, rel=DIGITS)
        assert _number(rate) == pytest.approx(entry.gbps, rel=DIGITS)
        assert _number(share) == pytest.approx(1 / entry.floor.ratio, abs=6e-3)
    steps = {(e.workload, e.on): e for e in BOTH.of("step")}
    for workload, _, on, most, predicted, factor in _table(BOTH, "Memory").rows:
        entry = steps[workload, on]
        assert entry.memory and entry.memory_predicted
        assert _number(most) == pytest.approx(entry.memory, rel=DIGITS)
        assert _number(predicted) == pytest.approx(entry.memory_predicted, rel=DIGITS)
        assert _number(factor) == pytest.approx(entry.memory / entry.memory_predicted, rel=DIGITS)
    for workload, on, whole, *shares in _table(BOTH, "Where the time").rows:
        breakdown = steps[workload, on].breakdown
        assert _number(whole) == pytest.approx(sum(breakdown.values()), rel=DIGITS)
        wanted = [seconds / sum(breakdown.values()) for seconds in breakdown.values()]
        assert list(map(_number, shares)) == pytest.approx(wanted, abs=6e-3)


def test_rows_around_the_step_say_what_was_measured() -> None:
    table = _table(BOTH, "Epochs, inference, backward pass, start-up, ranks, SGD, float32")
    measured = ["epoch, 16 batches", "epoch with transfer, 16 batches", "inference", "backward"]
    measured += ["epoch streamed, 64 batches", "start-up, import"]
    assert _column(table, "measured") == measured
    assert [note.partition(": ")[2] for note in table.notes] == ["streamed epochs take 1.25× those in memory."] * 2
    assert table.rows[-1] == ("784-128-10, N 64", "start-up, import", "180 ms", "180 ms", "1.00×")


def test_peers_that_were_skipped_are_named_with_the_reason() -> None:
    table = _table(BOTH, "Peers")
    assert "JAX 0.7" not in table.columns
    assert "JAX 0.7: skipped in 8 of 8, not installed." in table.notes
    assert "scikit-learn 1.9.1: skipped in 4 of 8, runs on the CPU alone." in table.notes
    assert _column(table, "scikit-learn 1.9.1") == ["3.10×"] * 4 + ["–"] * 4


def test_run_without_a_gpu_says_so_and_is_still_useful() -> None:
    shown = tables.tables(CPU_ONLY)
    said = "\n".join(line for table in shown for line in text(table))
    assert "No GPU in this run: nothing to compare." in said
    assert "no GPU in this run" in dict(tables.heading(CPU_ONLY))["GPU"]
    assert "GPU" not in " ".join(_table(CPU_ONLY, "Training steps").columns)
    assert {table.title.partition(",")[0] for table in shown} >= {"Training steps", "Peers", "Scaling of step time"}
    why = dict(tables.heading(_results("numpy", no_cuda="CuPy is not installed")))["GPU"]
    assert why == "no GPU in this run: CuPy is not installed"


def test_threads_are_named_once() -> None:
    assert dict(tables.heading(CPU_ONLY))["BLAS"] == "OpenBLAS 0.3.30, 2 threads"
    assert dict(tables.heading(_results("numpy", blas="OpenBLAS with 2 threads")))["BLAS"] == "OpenBLAS with 2 threads"
    assert dict(tables.heading(_results("numpy", cores=1)))["CPU"] == "Made-up CPU @ 2.50GHz, 1 core"


def test_text_is_aligned_and_markdown_is_a_table() -> None:
    table = Table("T", ("name", "n"), (("a|b", "1"), ("cc", "10")), 1, ("A note.",))
    assert list(text(table)) == ["T", "  name   n", "  a|b    1", "  cc    10", "  A note."]
    assert list(markdown(table)) == [
        *("**T**", "", "| name | n |", "| --- | ---: |", "| a\\|b | 1 |", "| cc | 10 |", "", "A note."),
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (1.5, "1.50 s"),
        (0.9996, "1.00 s"),
        (0.01234, "12.3 ms"),
        (99.96e-6, "100 µs"),
        (2e-9, "2.00 ns"),
        (2e4, "20,000 s"),
    ],
)
def test_times_have_three_digits(seconds: float, shown: str) -> None:
    assert time_of(seconds) == shown


# -- two runs ----------------------------------------------------------------------------------------------------------


def test_comparison_of_a_run_with_one_twice_as_fast() -> None:
    slow, fast = bench_files.content("numpy"), bench_files.content("numpy")
    for each in fast["benchmarks"]:
        each["stats"]["median"] /= 2
    fast["benchmarks"].pop()  # the start-up
    fast["machine_info"]["cpu"] = "Another CPU"
    a, b = (results.results_of(Path(name), content) for name, content in (("a.json", slow), ("b.json", fast)))
    shown = {table.title.partition(",")[0]: table for table in comparison(a, b)}
    assert shown["Two runs"].rows[0] == ("file", "a.json", "b.json")
    assert ("CPU", "Made-up CPU @ 2.50GHz, 2 cores", "Another CPU, 2 cores") in shown["Two runs"].rows
    assert "versions" not in [row[0] for row in shown["Two runs"].rows]  # they are the same
    assert ("step", "CPU", "4", "2.00×", "2.00×", "2.00×") in shown["Means"].rows
    assert "In A alone: test_start_up[numpy]." in shown["Means"].notes
    assert [row[-1] for row in shown["Step"].rows] == ["2.00×"] * 4  # and no column of doubts
    assert "doubt" not in shown["Step"].columns


def test_difference_within_the_spread_is_doubted() -> None:
    one, other = bench_files.content("numpy"), bench_files.content("numpy")
    for each in other["benchmarks"]:
        each["stats"]["median"] *= 1.02  # the rounds are spread over 3 %
    a, b = (results.results_of(Path("x"), content) for content in (one, other))
    [steps] = [table for table in comparison(a, b) if table.title.startswith("Step")]
    assert set(_column(steps, "doubt")) == {"within the spread"}
    assert all(math.isclose(_number(cell), 1 / 1.02, rel_tol=DIGITS) for cell in _column(steps, "A / B"))


def test_runs_with_nothing_in_common() -> None:
    gpu_only = copy.deepcopy(bench_files.content("cuda"))
    shown = comparison(CPU_ONLY, results.results_of(Path("x"), gpu_only))
    assert "Nothing was measured in both." in shown[1].notes
    assert len(shown) == 2
