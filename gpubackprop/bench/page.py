"""Results as one HTML page that needs nothing beside it: tables, charts, both schemes of colour, any width."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from . import tables
from .charts import breakdowns, peer_factors, rooflines, speed_ups, step_times
from .figures import families, fastest_peer, pairs
from .results import BACKENDS, Results
from .shown import Table, factor_of, lean, share_of
from .style import STYLE
from .svg import said

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a browser is told to fetch nothing


def page(results: Results) -> str:
    """Return the page of one run.

    Args:
        results: what was measured.

    Returns:
        HTML, in UTF-8 once encoded.
    """
    sections = "".join(
        f'<section id="{name}"><h2>{said(title)}</h2><p class="lead">{said(lead)}</p>{"".join(body)}</section>'
        for name, (title, lead, make) in SECTIONS.items()
        if (body := list(make(results)))
    )
    title = f"gpubackprop benchmarks: {results.title}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{said(title)}</title><style>{STYLE}</style></head><body>"
        f'<header><p class="kicker">gpubackprop benchmarks</p><h1>{said(results.title)}</h1>{_facts(results)}</header>'
        f"<main>{_tiles(results)}{sections}</main>"
        "<footer>Times are medians of the rounds of one run on one machine; ratios compare what was measured in "
        "the same run. Written by <code>gpubackprop bench</code>.</footer></body></html>\n"
    )


def _facts(results: Results) -> str:
    facts = (f"<div><dt>{said(name)}</dt><dd>{said(fact)}</dd></div>" for name, fact in tables.heading(results))
    return f'<dl class="facts">{"".join(facts)}</dl>'


# -- the figures that matter most --------------------------------------------------------------------------------------


def headlines(results: Results) -> Iterator[tuple[str, str]]:
    """Yield figures, and what each is."""
    yield from _of_the_gpu(results)
    steps = results.of("step")
    for name in results.backends:
        shares = [e.floor.share for e in steps if e.floor and e.backend == name]
        if shares:
            yield (
                share_of(statistics.median(shares)),
                f"of the bare products' rate, the median of {len(shares)} steps on the {BACKENDS[name]}",
            )
    for name in results.backends:
        fastest = [found for e in steps if e.backend == name and (found := fastest_peer(e))]
        if fastest:
            peer, ratio = min(fastest, key=lambda found: found[1])
            yield (
                factor_of(ratio),
                f"our time is the least that a peer took in a step on the {BACKENDS[name]}: {peer}",
            )


def _of_the_gpu(results: Results) -> Iterator[tuple[str, str]]:
    if lacking := tables.missing(results):
        yield f"{BACKENDS[results.backends[0]]} only", f"{lacking}: nothing to compare"
        return
    ratios = [(pair.speed_up, pair.either.workload) for pair in pairs(results.of("step")) if pair.speed_up]
    if ratios:
        ratio, workload = max(ratios)
        yield factor_of(ratio), f"the largest speed-up of a step on the GPU: {workload}"
    for family in families(results):
        found = family.crossover
        if family.varies == "rows" and found is not None:
            if found.faster is None:
                yield "–", f"the GPU is faster {found.sentence('N')}: {family.net}"
            else:
                yield f"N = {found.faster}", f"the batch size from which the GPU is faster: {family.net}"
            return


def _tiles(results: Results) -> str:
    tiles = (f'<div class="tile"><p class="value">{said(v)}</p><p>{said(w)}</p></div>' for v, w in headlines(results))
    return f'<div class="tiles">{"".join(tiles)}</div>'


# -- sections ----------------------------------------------------------------------------------------------------------


def table(of: Table) -> str:
    """Return a table in HTML; it scrolls inside its own frame where it is wider than the page."""
    notes = "".join(f'<p class="note">{said(note)}</p>' for note in of.notes)
    if not of.rows:
        return notes
    kinds = [' class="word"' if k < of.words else "" for k in range(len(of.columns))]
    head = "".join(f"<th scope=col{kind}>{said(c)}</th>" for c, kind in zip(of.columns, kinds, strict=True))
    body = "".join(f"<tr>{_cells(row, kinds)}</tr>" for row in of.rows)
    return (
        f'<div class="card"><p class="title">{said(of.title)}</p>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{said(of.title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>{notes}"
    )


def _cells(row: Sequence[str], kinds: Sequence[str]) -> str:
    first, *rest = (f"{kind}>{said(cell)}" for cell, kind in zip(row, kinds, strict=True))
    return f"<th scope=row{first}</th>" + "".join(f"<td{cell}</td>" for cell in rest)


def _shown(*makers: Callable[[Results], Table]) -> Callable[[Results], Iterator[str]]:
    """Return a function that yields tables alone."""

    def make(results: Results) -> Iterator[str]:
        for maker in makers:
            yield table(lean(maker(results)))

    return lambda results: (text for text in make(results) if text)


def _charts(found: Sequence[str]) -> Iterator[str]:
    if found:
        yield f'<div class="charts">{"".join(found)}</div>'


def _against(results: Results) -> Iterator[str]:
    if lacking := tables.missing(results):
        yield f'<p class="missing">{said(lacking[0].upper() + lacking[1:])}: nothing to set against each other.</p>'
    else:
        yield from _charts(speed_ups(results))
        yield from _shown(tables.crossovers)(results)
    yield from _shown(tables.steps)(results)


def _roofs(results: Results) -> Iterator[str]:
    yield from _charts(rooflines(results))


def _parts(results: Results) -> Iterator[str]:
    yield from _charts(breakdowns(results))
    yield from _shown(tables.breakdown)(results)


def _rivals(results: Results) -> Iterator[str]:
    yield from _charts(peer_factors(results))
    yield from _shown(tables.peers)(results)


def _growth(results: Results) -> Iterator[str]:
    yield from _charts(step_times(results))
    yield from _shown(tables.scaling)(results)


SECTIONS: dict[str, tuple[str, str, Callable[[Results], Iterator[str]]]] = {
    "steps": (
        "CPU against GPU",
        "One training step: forward pass, backward pass and update on one batch.",
        _against,
    ),
    "peers": (
        "Peers",
        "Other libraries at the same step, once their losses were ours: their time over ours. Right of 1 they are "
        "slower.",
        _rivals,
    ),
    "roofline": (
        "Roofline",
        "Operations a second against operations a byte, where a step moves what its products read and write, once. The "
        "roof was measured in the same run: bare matrix products where it is flat, copying where it slopes. What stays "
        "in a cache can lie above the slope.",
        _roofs,
    ),
    "breakdown": ("Where the time of a step goes", "Shares of a step, and its time in all.", _parts),
    "scaling": (
        "Scaling",
        "Step time against batch size N, width n and depth L. A slope of 1 is proportional growth.",
        _growth,
    ),
    "operations": (
        "Single operations",
        "Activations, losses and optimizers move memory: their floor is copying as many bytes.",
        _shown(tables.operations),
    ),
    "others": (
        "Everything around the step",
        "Whole epochs, inference, start-up, and memory.",
        _shown(tables.others, tables.memory),
    ),
}
