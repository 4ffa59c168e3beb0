"""Every code block of the README runs: Python in one namespace, commands for real or held against what they name."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import gpubackprop as gb
from gpubackprop.cli import parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "console" for line in text.splitlines()]


def test_the_languages_of_all_blocks_are_known():
    assert {language for language, _ in BLOCKS} == {"python", "console"}
    assert README.count("```") == 2 * len(BLOCKS)


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUBACKPROP_BACKEND", "numpy")
    namespace: dict[str, object] = {}
    for number, (language, text) in enumerate(BLOCKS):
        if language == "python":
            exec(compile(text, f"README.md, block {number}", "exec"), namespace)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_gpubackprop_commands_run(tmp_path):
    commands = [shlex.split(line)[1:] for line in COMMANDS if line.startswith("gpubackprop ")]
    assert [command[0] for command in commands] == ["train", "predict", "doctor", "bench", "bench", "launch", "launch"]
    environment = {**os.environ, "PYTHONPATH": str(Path(gb.__file__).parents[1]), "GPUBACKPROP_BACKEND": "numpy"}
    for command in commands:
        if command[0] in ("bench", "launch"):  # test_bench_command.py runs a small suite, test_parallel.py ranks
            parser().parse_args(command)
            continue
        program = [sys.executable, "-m", "gpubackprop", *command]
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
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
