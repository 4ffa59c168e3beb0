"""The page: whole, with nothing from outside, and readable in a real browser on a desk, on a phone and in the dark."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import bench_files
import browser
import pytest

from gpubackprop.bench import results, svg
from gpubackprop.bench.figures import pairs
from gpubackprop.bench.page import headlines, page
from gpubackprop.bench.shown import factor_of, share_of
from gpubackprop.bench.svg import Axis, Series

VOID = {"meta"}
WIDTHS = {"desk": 1280, "tablet": 768, "phone": 390, "small phone": 320}
LIGHT_GROUND, DARK_GROUND = "rgb(246, 247, 248)", "rgb(15, 18, 22)"


def _page(*backends: str) -> str:
    return page(results.results_of(Path("made-up.json"), bench_files.content(*backends)))


class _Outline(HTMLParser):
    """Holds open elements against closed ones, and collects what a page could fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [str(value) for name, value in attributes if name in {"src", "href", "xlink:href", "data"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("backends", [("numpy",), ("cuda",), ("numpy", "cuda")], ids="+".join)
def test_page_is_whole_and_needs_nothing(backends: tuple[str, ...]) -> None:
    text = _page(*backends)
    outline = _Outline(text)
    assert outline.open == []
    assert outline.addresses == []
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(outline.names)
    assert not re.search(r"https?:|url\(|@import", text)
    for drawing in re.findall(r"<svg .*?</svg>", text):
        ElementTree.fromstring(drawing)  # well-formed
    labels = re.findall(r'<svg role="img" [^>]*aria-label="([^"]+)"', text)
    assert len(labels) == text.count('<svg role="img"') > 5


def test_page_without_a_gpu_says_so() -> None:
    text = _page("numpy")
    assert "No GPU in this run: nothing to set against each other." in text
    assert "Speed-up against" not in text
    assert "Roofline of the CPU" in text
    assert "Roofline of the GPU" not in text
    both = _page("numpy", "cuda")
    assert "in this run" not in both.partition("<main>")[2].partition("Roofline")[0]
    assert "Speed-up against batch size N" in both


def test_headlines_are_the_files() -> None:
    run = results.results_of(Path("made-up.json"), bench_files.content("numpy", "cuda"))
    said = [(value, what.partition(":")[0]) for value, what in headlines(run)]
    ratios = [pair.speed_up for pair in pairs(run.of("step")) if pair.speed_up]
    shares = [[e.floor.share for e in run.of("step") if e.floor and e.backend == name] for name in run.backends]
    assert said == [
        (factor_of(max(ratios)), "the largest speed-up of a step on the GPU"),
        ("N = 16", "the batch size from which the GPU is faster"),
        (share_of(statistics.median(shares[0])), "of the bare products' rate, the median of 4 steps on the CPU"),
        (share_of(statistics.median(shares[1])), "of the bare products' rate, the median of 4 steps on the GPU"),
        ("1.35×", "our time is the least that a peer took in a step on the CPU"),
        ("1.35×", "our time is the least that a peer took in a step on the GPU"),
    ]


def test_points_lie_where_the_axes_say() -> None:
    """Of three points a decade apart the middle one is half-way, and the ticks of their values are beside the marks."""
    drawing = svg.chart(
        "t",
        "a",
        Axis("x", "{:g}".format),
        Axis("y", "{:g}".format),
        [Series("s", [(10.0**k, 10.0**k, "") for k in range(3)])],
    )
    marks = [tuple(map(float, found)) for found in re.findall(r"translate\(([\d.]+),([\d.]+)\)", drawing)]
    assert marks[0][0] < marks[2][0]
    assert marks[0][1] > marks[2][1]  # larger values are further up
    assert marks[1] == pytest.approx([(a + b) / 2 for a, b in zip(marks[0], marks[2], strict=True)], abs=0.1)
    ticks = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">(\w+)</text>', drawing)
    assert [text for _, text in ticks] == ["1", "10", "100"]
    assert [float(x) for x, _ in ticks] == pytest.approx([x for x, _ in marks], abs=0.1)
    up = re.findall(r'<text x="[\d.]+" y="([\d.]+)" text-anchor="end">(?:1|10|100)</text>', drawing)
    assert [float(y) - 4 for y in up] == pytest.approx([y for _, y in marks], abs=0.1)


def test_bars_are_as_wide_as_their_shares() -> None:
    drawing = svg.bars("t", "a", [("row", "1 s", [1.0, 3.0, 0.0])], ["x", "y", "z"])
    widths = [float(w) + 1 for w in re.findall(r'<rect x="[\d.]+" y="\d+" width="([\d.]+)"', drawing)[:2]]
    assert widths == pytest.approx([svg.WIDTH / 4, svg.WIDTH * 3 / 4], abs=0.2)
    assert "25%" in drawing
    assert "75%" in drawing


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_page_is_readable(need: Callable[[str], None], tmp_path: Path, width: str, dark: bool) -> None:
    """Nothing is wider than the window, letters are not small, stand apart, and off their ground by WCAG's 4.5."""
    need("chromium")
    found = browser.measured(tmp_path, _page("numpy", "cuda"), WIDTHS[width], dark)
    assert found.get("error") is None
    assert found["width"] == WIDTHS[width]
    assert found["title"] == "gpubackprop benchmarks: Made-up GPU"
    assert (found["charts"], found["tables"]) == (12, 8)
    assert found["ground"] == (DARK_GROUND if dark else LIGHT_GROUND)
    problems = {name: found[name] for name in ("overflow", "fetched", "faint", "small", "collisions", "outside", "cut")}
    assert problems.pop("overflow") == 0
    assert problems == {name: [] for name in problems}
    assert bool(found["scrolling"]) == (WIDTHS[width] < 1000)


FAULTS = {  # what is changed in a page, and which measure sees it
    "wide": (".card{margin-top:16px;overflow:hidden}\n.scroll{overflow-x:auto;", ".scroll{", "overflow"),
    "cut": ("right/24px 100% no-repeat scroll", "right/0 100% no-repeat scroll", "cut"),
    "faint": ("--soft:#57606a", "--soft:#a0a8b0", "faint"),
    "small": ("svg text{font:12px", "svg text{font:8px", "small"),
    "crowded": ("svg text{font:12px", "svg text{font:26px", "collisions"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_of_style_is_seen(need: Callable[[str], None], tmp_path: Path, fault: str) -> None:
    need("chromium")
    good, bad, seen = FAULTS[fault]
    text = _page("numpy", "cuda")
    assert good in text
    found = browser.measured(tmp_path, text.replace(good, bad), 390)
    assert found[seen]


def test_picture_is_taken(need: Callable[[str], None], tmp_path: Path) -> None:
    need("chromium")
    browser.picture(tmp_path, _page("numpy"), 390, 800, tmp_path / "page.png", dark=True)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
