"""Reading result files: what is in them comes out, and whatever else a file may hold is one clear error."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_files
import pytest

from gpubackprop.bench import document, page, results, tables
from gpubackprop.bench.compare import comparison
from gpubackprop.bench.results import Peer
from gpubackprop.bench.shown import markdown, text
from gpubackprop.errors import InvalidValue

CONTENT = bench_files.content("numpy", "cuda")


def _read(folder: Path, content: Any) -> results.Results:
    return results.read(bench_files.write(folder / "some.json", content))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    read = _read(tmp_path, CONTENT)
    assert len(read.entries) == len(CONTENT["benchmarks"])
    assert (read.title, read.slug, read.date) == ("Made-up GPU", "made-up-gpu", "2026-01-02")
    assert read.backends == ["numpy", "cuda"]
    for entry, written in zip(read.entries, CONTENT["benchmarks"], strict=True):
        extra = written["extra_info"]
        assert (entry.name, entry.seconds) == (written["name"], written["stats"]["median"])
        assert (entry.iqr, entry.rounds) == (written["stats"]["iqr"], 15)
        assert (entry.what, entry.workload, entry.backend) == (extra["what"], extra["workload"], extra["backend"])
        assert list(entry.sizes) == extra.get("sizes", [])
        assert entry.batch == extra.get("rows", 0)
        assert all(getattr(entry, name) == extra.get(name) for name in results.NUMBERS)
        assert all(getattr(entry, name) == extra.get(name, "") for name in (*results.TEXTS, "varies"))
        assert dict(entry.breakdown) == extra.get("breakdown", {})
        assert {name: vars(peer) for name, peer in entry.peers.items()} == {
            name: vars(Peer(**peer)) for name, peer in extra.get("peers", {}).items()
        }
        assert (vars(entry.floor) if entry.floor else None) == extra.get("floor")


def test_run_without_a_gpu_is_named_for_its_cpu(tmp_path: Path) -> None:
    content = bench_files.content("numpy")
    content["machine_info"] |= {"gpu": "A GPU that was not measured", "cpu": {"brand_raw": "Dear CPU"}}
    assert _read(tmp_path, content).title == "Dear CPU"


def test_what_is_kept_of_a_file_reads_the_same_and_names_no_host(tmp_path: Path) -> None:
    kept = results.without_details(copy.deepcopy(CONTENT))
    assert "a-host-name" not in json.dumps(kept)
    assert not any("data" in each["stats"] for each in kept["benchmarks"])
    assert _read(tmp_path, kept) == _read(tmp_path, CONTENT)


def test_what_disturbed_the_machine_is_kept_and_told(tmp_path: Path) -> None:
    content = {**copy.deepcopy(CONTENT), "disturbed": {"test_step[a]": 0.25, "test_step[b]": 1.5}}
    measured = _read(tmp_path, results.without_details(content))
    assert measured.disturbed == content["disturbed"]
    told = dict(tables.heading(measured))["disturbed"]
    assert told == f"2 of {len(measured.entries)} benchmarks disturbed: others kept up to 1.50 cores busy"
    assert "disturbed" not in dict(tables.heading(_read(tmp_path, CONTENT)))


# -- bad files ---------------------------------------------------------------------------------------------------------

STEP = 0  # index of an entry that has all keys
SCALING = next(k for k, each in enumerate(CONTENT["benchmarks"]) if each["extra_info"]["what"] == "scaling")
FAULTS: dict[str, tuple[tuple[Any, ...], Any, str]] = {  # where, what is put there, what is said of it
    "no benchmarks": (("benchmarks",), None, "no `benchmarks`"),
    "benchmarks of another kind": (("benchmarks",), {"a": 1}, "list"),
    "empty": (("benchmarks",), [], "no benchmark"),
    "too many": (("benchmarks",), [{}] * (results.MOST_ENTRIES + 1), "at most"),
    "no machine": (("machine_info",), None, "no `machine_info`"),
    "a machine of another kind": (("machine_info", "cores"), [2], "`cores`"),
    "a date of another kind": (("datetime",), 3, "`datetime`"),
    "a negative disturbance": (("disturbed",), {"test_step": -0.5}, "disturbed: `test_step`"),
    "an entry of another kind": (("benchmarks", STEP), 7, "entry 1"),
    "no name": (("benchmarks", STEP, "name"), None, "entry 1: there is no `name`"),
    "no times": (("benchmarks", STEP, "stats"), None, "there is no `stats`"),
    "no median": (("benchmarks", STEP, "stats", "median"), None, "there is no `median`"),
    "a median of 0": (("benchmarks", STEP, "stats", "median"), 0, "above 0"),
    "a negative median": (("benchmarks", STEP, "stats", "median"), -1.0, "`median`"),
    "a median that is a text": (("benchmarks", STEP, "stats", "median"), "1", "`median`"),
    "a median that is true": (("benchmarks", STEP, "stats", "median"), True, "`median`"),
    "half a round": (("benchmarks", STEP, "stats", "rounds"), 1.5, "whole"),
    "a foreign benchmark": (("benchmarks", STEP, "extra_info"), {}, "there is no `what`"),
    "an unknown kind": (("benchmarks", STEP, "extra_info", "what"), "dance", "`what` must be one of step"),
    "a kind that is a list": (("benchmarks", STEP, "extra_info", "what"), ["step"], "`what` must be one of"),
    "no workload": (("benchmarks", STEP, "extra_info", "workload"), " ", "`workload`"),
    "an unknown backend": (("benchmarks", STEP, "extra_info", "backend"), "tpu", "numpy, cuda"),
    "sizes of 0": (("benchmarks", STEP, "extra_info", "sizes"), [3, 0], "`sizes`"),
    "sizes that are a text": (("benchmarks", STEP, "extra_info", "sizes"), "3-0", "`sizes`"),
    "infinite operations": (("benchmarks", STEP, "extra_info", "flops"), 1e300, "`flops`"),
    "an optimizer that is a number": (("benchmarks", STEP, "extra_info", "optimizer"), 1, "`optimizer`"),
    "a floor without a time": (("benchmarks", STEP, "extra_info", "floor"), {"name": "bare products"}, "`seconds`"),
    "an unknown floor": (("benchmarks", STEP, "extra_info", "floor", "name"), "carpet", "bare products"),
    "a floor of ratio 0": (("benchmarks", STEP, "extra_info", "floor", "ratio"), 0.0, "floor: `ratio`"),
    "a peer of another kind": (("benchmarks", STEP, "extra_info", "peers"), {"JAX": 1}, "peers: JAX"),
    "a peer without a ratio": (
        ("benchmarks", STEP, "extra_info", "peers"),
        {"JAX": {"seconds": 1}},
        "JAX: there is no",
    ),
    "an unknown part": (("benchmarks", STEP, "extra_info", "breakdown"), {"lunch": 1.0}, "lunch"),
    "a negative part": (("benchmarks", STEP, "extra_info", "breakdown", "rest"), -1, "breakdown: `rest`"),
    "scaling of nothing": (("benchmarks", SCALING, "extra_info", "varies"), None, "no `varies`"),
    "scaling without sizes": (("benchmarks", SCALING, "extra_info", "sizes"), None, "needs `sizes`"),
}


def _planted(where: tuple[Any, ...], value: Any) -> dict[str, Any]:
    content = copy.deepcopy(CONTENT)
    target: Any = content
    for key in where[:-1]:
        target = target[key]
    target[where[-1]] = value
    return content


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named_with_file_and_entry(tmp_path: Path, fault: str) -> None:
    where, value, says = FAULTS[fault]
    with pytest.raises(InvalidValue) as caught:
        _read(tmp_path, _planted(where, value))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'some.json'}: ")
    assert says in said
    if len(where) > 2 and where[0] == "benchmarks" and where[-1] != "name":
        assert f"entry {where[1] + 1}, {CONTENT['benchmarks'][where[1]]['name']}" in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no whole JSON"),
        (json.dumps(CONTENT).encode()[:5000], "no whole JSON"),
        (b"\xff\xfe\x00", "no whole JSON"),
        (b"[1, 2]", "a list"),
        (b'{"benchmarks": NaN}', "NaN"),
        (b"[" * 100_000, "no whole JSON"),
        (b'{"benchmarks": ' + b"9" * 5000 + b"}", "some.json"),
    ],
    ids=["empty", "truncated", "no text", "a list", "not a number", "deep", "a huge number"],
)
def test_no_file_of_json_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "some.json"
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=says) as caught:
        results.read(path)
    assert str(path) in str(caught.value)


def test_missing_file_folder_and_huge_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no such file"):
        results.read(tmp_path / "none.json")
    with pytest.raises(InvalidValue, match="no file"):
        results.read(tmp_path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(document.MOST_BYTES + 1)
    with pytest.raises(InvalidValue, match="bytes"):
        results.read(tmp_path / "huge.json")


def test_text_that_would_steer_a_terminal_or_a_page_is_harmless(tmp_path: Path) -> None:
    content = bench_files.content("numpy")
    content["benchmarks"][STEP]["extra_info"]["workload"] = "\x1b[2J<script>alert(1)</script>\n" + "x" * 5000
    content["machine_info"]["cpu"] = '"><img src=x onerror=alert(1)>'
    read = _read(tmp_path, content)
    shown = "\n".join(line for table in tables.tables(read) for line in text(table))
    assert "\x1b" not in shown
    assert len(read.entries[STEP].workload) <= document.MOST_LETTERS
    drawn = page.page(read)
    assert "<script" not in drawn
    assert "<img" not in drawn


def _places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place in a JSON value."""
    if where:
        yield where
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _places(child, (*where, key))


JUNK = (None, True, -1, 0, 1e-320, 1e308, 10**400, "", "\ud800", [], [[]], {}, {"a": None}, "step", 3)


def test_any_value_in_any_place_is_read_and_shown_or_refused(tmp_path: Path) -> None:
    """Whatever stands in a place, no other exception comes out: of reading, tables, page or comparison."""
    few = [0, 4, 8, 12, SCALING]  # one entry of each kind of content
    content = {**CONTENT, "benchmarks": [CONTENT["benchmarks"][k] for k in few]}
    good = results.results_of(tmp_path, copy.deepcopy(content))
    refused = accepted = 0
    for where in list(_places(content)):
        for junk in JUNK:
            changed = copy.deepcopy(content)
            target: Any = changed
            for key in where[:-1]:
                target = target[key]
            target[where[-1]] = junk
            try:
                read = results.results_of(tmp_path, changed)
            except InvalidValue:
                refused += 1
                continue
            accepted += 1
            page.page(read).encode()
            for table in (*tables.tables(read), *comparison(read, good)):
                "\n".join([*text(table), *markdown(table)]).encode()
    assert refused > 300
    assert accepted > 300
