"""Every code block of the README runs with what the text before it installs; other commands name what exists."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import installed
import pytest

from gpubackprop.cli import parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PLACES = [(block[1], block[2], block.end()) for block in re.finditer(r"```(\w+)\n(.*?)```", README, re.DOTALL)]
BLOCKS = [(language, text) for language, text, _ in PLACES]
COMMANDS = [line for language, text in BLOCKS if language == "console" for line in text.splitlines()]


def test_the_languages_of_all_blocks_are_known():
    assert {language for language, _ in BLOCKS} == {"python", "console"}
    assert README.count("```") == 2 * len(BLOCKS)


def _hidden(end: int) -> list[str]:
    """Return the modules that are missing if only what the README names before a place is installed."""
    before = README[:end]
    assert re.search(r"^pip install \.$", before, re.MULTILINE), "nothing is installed yet"
    named = re.findall(r"pip install '\.\[([\w,-]+)\]'|extras? `([\w-]+)`", before)
    return installed.modules_left_out({extra for pair in named for part in pair for extra in part.split(",") if extra})


def _run(folder: Path, codes: list[tuple[list[str], str]]) -> subprocess.CompletedProcess[str]:
    (folder / "codes.json").write_text(json.dumps(codes), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"GPUBACKPROP_BACKEND": "numpy", "MPLBACKEND": "agg"}
    program = [sys.executable, "-W", "error", installed.__file__, "codes.json"]
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True)


def test_python_blocks_run_with_what_the_text_before_them_installs(tmp_path):
    blocks = [(_hidden(end), text) for language, text, end in PLACES if language == "python"]
    assert {"matplotlib", "sklearn", "pandas"} <= set(blocks[0][0])
    assert not {"numpy", "safetensors"} & set(blocks[0][0])
    done = _run(tmp_path, blocks)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_block_without_what_it_needs_fails(tmp_path):
    done = _run(tmp_path, [(installed.modules_left_out([]), "import matplotlib")])
    assert "No module named 'matplotlib'" in done.stderr
    assert _run(tmp_path, [(installed.modules_left_out(["plot"]), "import matplotlib, PIL")]).returncode == 0


def test_gpubackprop_commands_run(tmp_path):
    places = [(line, end) for language, text, end in PLACES if language == "console" for line in text.splitlines()]
    commands = [(shlex.split(line)[1:], end) for line, end in places if line.startswith("gpubackprop ")]
    names = [command[0] for command, _ in commands]
    assert names == ["train", "predict", "doctor", "bench", "bench", "launch", "launch"]
    for command, end in commands:
        if command[0] in ("bench", "launch"):  # test_bench_command.py runs a small suite, test_parallel.py ranks
            parser().parse_args(command)
            continue
        done = _run(
            tmp_path, [(_hidden(end), f"from gpubackprop.cli import main; raise SystemExit(main({command!r}))")]
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("gpubackprop ")])
def test_other_commands_name_what_there_is(line):
    words = shlex.split(line)
    if words[:1] == ["make"]:
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
        named = re.fullmatch(r"\.(?:\[(.*)\])?", words[2])
        assert named and set((named[1] or "plot").split(",")) <= set(extras)
    else:
        assert words[:3] == ["docker", "compose", "-f"]
        services = re.findall(r"^  (\w+):$", (ROOT / words[3]).read_text(encoding="utf-8"), re.MULTILINE)
        assert words[-1] in services
