"""What results say, as tables: each once, for the terminal, the README and the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .figures import LETTERS, Pair, families, fastest_peer, pairs, slope, step_flops, upper_half
from .results import BACKENDS, HELD, PARTS, Entry, Results
from .shown import COMMON, NONE, Table, digits, factor_of, lean, share_of, size_of, time_of

NO_GPU = "no GPU in this run"
NO_CPU = "no CPU in this run"


def work_of(entry: Entry) -> tuple[str, str, str]:
    """Return the three cells that say what a step does: net and batch, optimizer, precision."""
    return entry.workload, entry.optimizer or NONE, entry.precision or NONE


WORK = ("net and batch", *COMMON)


# -- the tables of results ---------------------------------------------------------------------------------------------


def tables(results: Results) -> list[Table]:
    """Return what results say, for people: those tables for which something was measured, and what is missing."""
    found = [
        steps(results),
        crossovers(results),
        peers(results),
        breakdown(results),
        scaling(results),
        operations(results),
        others(results),
        memory(results),
    ]
    return [lean(table) for table in found if table.rows or table.notes]


def missing(results: Results) -> str:
    """Return which side of CPU against GPU was not measured, "" where both were."""
    return "" if len(results.backends) == 2 else NO_CPU if "cuda" in results.backends else NO_GPU


_FLOOR = "The floor is the time of the step's bare matrix products by the same library; 100% would reach it."
_UNSTEADY = (
    "Unsteady: the middle half of the rounds is spread over more than half of the time. Shares and factors are of "
    "other rounds, in which all took turns."
)


def steps(results: Results) -> Table:
    """Return the training steps: time, share of the floor, speed-up."""
    sides = [BACKENDS[name] for name in results.backends]
    headings = [heading for side in sides for heading in (side, f"{side}, of its floor")]
    both = len(sides) == 2
    rows = []
    for pair in pairs(results.of("step")):
        entries = [entry for entry, name in ((pair.cpu, "numpy"), (pair.gpu, "cuda")) if name in results.backends]
        cells = [cell for entry in entries for cell in _time_and_share(entry)]
        rows.append((*work_of(pair.either), *cells, *([factor_of(pair.speed_up)] if both else []), _fastest(pair)))
    columns = (*WORK, *headings, *(["speed-up"] if both else []), "fastest peer takes")
    floors = [_FLOOR] * any(entry.floor for entry in results.of("step"))
    doubts = [_UNSTEADY] * any(entry.is_unsteady for entry in results.of("step"))
    return Table("Training steps", columns, tuple(rows), 3, (*floors, *doubts))


def _time_and_share(entry: Entry | None) -> tuple[str, str]:
    if entry is None:
        return NONE, NONE
    doubt = ", unsteady" if entry.is_unsteady else ""
    return f"{time_of(entry.seconds)}{doubt}", share_of(entry.floor.share if entry.floor else None)


def _fastest(pair: Pair) -> str:
    """Return the fastest peer, of the GPU where both were measured, and its time over ours."""
    found = [fastest_peer(entry) for entry in (pair.gpu, pair.cpu) if entry is not None]
    name, ratio = next((peer for peer in found if peer), ("", None))
    return f"{factor_of(ratio)} {name}".strip()


def crossovers(results: Results) -> Table:
    """Return from where on the GPU is faster, by batch size and by width."""
    title = "Where the GPU overtakes the CPU"
    if said := missing(results):
        return Table(title, notes=(f"{said[0].upper()}{said[1:]}: nothing to compare.",))
    rows = []
    for family in families(results):
        found = family.crossover
        if found is not None:
            best = max(family.speed_ups, key=lambda pair: pair[1])
            letter = LETTERS[family.varies]
            rows.append(
                (family.net, family.varies, found.sentence(letter), f"{factor_of(best[1])} at {letter} = {best[0]}")
            )
    columns = ("net", "varied", "the GPU is faster", "largest speed-up")
    return Table(title, columns, tuple(rows), 3, () if rows else ("No size was measured on both.",))


def peers(results: Results) -> Table:
    """Return the peers' times over ours."""
    entries = [entry for entry in results.of("step", "epoch", "inference", "backward") if entry.peers]
    names = list(dict.fromkeys(name for entry in entries for name in entry.peers))
    timed = [name for name in names if any(e.peers[name].ratio is not None for e in entries if name in e.peers)]
    rows = tuple(
        (*work_of(e), _measured(e), e.on, time_of(e.seconds), *(factor_of(_ratio(e, name)) for name in timed))
        for e in entries
        if any(_ratio(e, name) is not None for name in timed)
    )
    columns = (*WORK, "measured", "on", "ours", *timed)
    note = ("Factors are the peer's time over ours: above 1 the peer is slower.",) if rows else ()
    return Table("Peers", columns, rows, 5, (*note, *_skipped(entries, names), *_losses_off(entries)))


def _ratio(entry: Entry, name: str) -> float | None:
    return entry.peers[name].ratio if name in entry.peers else None


def _skipped(entries: Sequence[Entry], names: Iterable[str]) -> Iterator[str]:
    """Say of each peer why it was not measured, and how often."""
    for name in names:
        reasons = [e.peers[name].skipped for e in entries if name in e.peers and e.peers[name].skipped]
        for reason in dict.fromkeys(reasons):
            yield f"{name}: skipped in {reasons.count(reason)} of {len(entries)}, {reason}."


def _losses_off(entries: Sequence[Entry]) -> Iterator[str]:
    off = [peer.loss_off for entry in entries for peer in entry.peers.values() if peer.loss_off is not None]
    if off:
        yield f"Their losses were off ours by {max(off):.1e} at most, as a share."


def breakdown(results: Results) -> Table:
    """Return the parts of steps."""
    rows = tuple(
        (*work_of(entry), entry.on, time_of(sum(entry.breakdown.values())), *(share_of(s) for s in part_shares(entry)))
        for entry in results.entries
        if part_shares(entry)
    )
    return Table("Where the time of a step goes", (*WORK, "on", "in all", *PARTS), rows, 4)


def part_shares(entry: Entry) -> list[float | None]:
    """Return the share of each of PARTS in a step, [] where they were not measured."""
    whole = sum(entry.breakdown.values())
    return [entry.breakdown[part] / whole if part in entry.breakdown else None for part in PARTS] if whole > 0 else []


def scaling(results: Results) -> Table:
    """Return the slopes of step time against N, n and L beside those of the operations."""
    rows = []
    for family in families(results):
        for name, points in family.points.items():
            upper = upper_half(points)
            slopes = (
                slope([(p.x, p.seconds) for p in points]),
                slope([(p.x, p.seconds) for p in upper]),
                slope([(p.x, p.flops) for p in upper]),
            )
            letter = LETTERS[family.varies]
            span = f"{letter} = {points[0].x} to {points[-1].x}"
            shown = (NONE if p is None else f"{p:.2f}" for p in slopes)
            rows.append((family.net, span, BACKENDS[name], time_of(points[-1].seconds), *shown))
    columns = ("net", "varied", "on", "largest step", "slope", "upper half", "its operations")
    note = "Time grows as the varied size to the power of the slope; the last column is that power for its operations."
    return Table("Scaling of step time", columns, tuple(rows), 3, (note,) if rows else ())


def operations(results: Results) -> Table:
    """Return activations, losses and optimizers beside the copy bandwidth."""
    rows = tuple(
        (
            *(entry.row or NONE, entry.what, entry.workload, entry.precision or NONE, entry.on),
            *(time_of(entry.seconds), rate_of(entry.gbps or _rate(entry.bytes, entry.seconds))),
            share_of(entry.floor.share if entry.floor else None),
        )
        for entry in results.of("activation", "loss", "optimizer")
    )
    columns = ("row", "operation", "shape", "precision", "on", "time", "GB/s", "of its floor")
    return Table("Single operations", columns, rows, 5)


def _rate(number: float | None, seconds: float) -> float | None:
    return None if number is None else number / seconds / 1e9


def rate_of(rate: float | None) -> str:
    """Return a rate in G/s."""
    return NONE if rate is None else digits(rate)


_AROUND_STEPS = (
    *("epoch", "epoch with transfer", "epoch streamed", "inference", "backward", "start-up", "step on ranks"),
)


def others(results: Results) -> Table:
    """Return epochs, inference, backward passes, start-up and steps on ranks."""
    sides = [BACKENDS[name] for name in results.backends]
    both = len(sides) == 2
    rows = []
    for pair in pairs(results.of(*_AROUND_STEPS)):
        entries = [entry for entry, name in ((pair.cpu, "numpy"), (pair.gpu, "cuda")) if name in results.backends]
        times = (time_of(entry.seconds if entry else None) for entry in entries)
        rows.append(
            (*work_of(pair.either), _measured(pair.either), *times, *([factor_of(pair.speed_up)] if both else []))
        )
    columns = (*WORK, "measured", *sides, *(["speed-up"] if both else []))
    title = "Epochs, inference, backward pass, start-up, ranks"
    return Table(title, columns, tuple(rows), 4, tuple(_streamed(results)))


def _streamed(results: Results) -> Iterator[str]:
    """Say how much longer epochs take whose data are read from a file."""
    for entry in results.of("epoch streamed"):
        if entry.floor and entry.floor.name == HELD:
            factor = factor_of(entry.floor.ratio)
            yield f"{entry.workload} on the {entry.on}: streamed epochs take {factor} those in memory."


def _measured(entry: Entry) -> str:
    """Return what was measured: of an epoch, also the number of its batches, which are as many steps."""
    batches = ""
    if entry.what.startswith("epoch") and entry.flops and len(entry.sizes) > 1 and entry.batch:
        batches = f"{round(entry.flops / step_flops(entry.sizes, entry.batch))} batches"
    return ", ".join(filter(None, (entry.what, batches, entry.row)))


def memory(results: Results) -> Table:
    """Return the largest memory beside what was predicted."""
    rows = tuple(
        (*work_of(e), e.what, e.on, size_of(e.memory), size_of(e.memory_predicted), factor_of(_over_predicted(e)))
        for e in results.entries
        if e.memory is not None
    )
    return Table("Memory", (*WORK, "measured", "on", "most", "predicted", "most over predicted"), rows, 5)


def _over_predicted(entry: Entry) -> float | None:
    return entry.memory / entry.memory_predicted if entry.memory and entry.memory_predicted else None


def heading(results: Results) -> list[tuple[str, str]]:
    """Return what is known of the machine, by name, for people."""
    machine = results.machine
    cpu = [machine.get("cpu"), _cores(machine["cores"]) if "cores" in machine else None]
    told = "blas_threads" not in machine or "thread" in machine.get("blas", "")
    threads = None if told else f"{machine['blas_threads']} threads"
    driver = f"driver {machine['driver']}" if "driver" in machine else None
    versions = [(f"{title} {machine[key]}") for key, title in _VERSIONS.items() if key in machine]
    reason = f"{NO_GPU}: {machine['no_cuda']}" if "no_cuda" in machine else NO_GPU
    gpu = _joined(machine.get("gpu"), driver) if "cuda" in results.backends else reason
    facts = {
        "CPU": _joined(*cpu),
        "BLAS": _joined(machine.get("blas"), threads),
        "GPU": gpu,
        "versions": ", ".join(versions),
        "measured": results.date,
        "disturbed": _disturbed(results),
    }
    return [(name, fact) for name, fact in facts.items() if fact]


def _disturbed(results: Results) -> str:
    if not results.disturbed:
        return ""
    busy = digits(max(results.disturbed.values()))
    return (
        f"{len(results.disturbed)} of {len(results.entries)} benchmarks disturbed: others kept up to {busy} cores busy"
    )


_VERSIONS = {"gpubackprop": "gpubackprop", "numpy": "NumPy", "cupy": "CuPy", "cuda": "CUDA"}


def _cores(number: str) -> str:
    return f"{number} core{'' if number == '1' else 's'}"


def _joined(*parts: str | None) -> str:
    return ", ".join(filter(None, parts))
