"""What is importable after `pip install '.[extra,...]'`, and Python with nothing else.

``python installed.py FILE`` runs code. FILE is a JSON list of pairs (names, code). The codes share one namespace, and
each runs without the modules of its names.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

ROOT = Path(__file__).parents[1]


class Found(PathFinder):
    """Find modules in `sys.path`, except the hidden ones."""

    hidden: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname.partition(".")[0] in cls.hidden else super().find_spec(fullname, path, target)


def modules_left_out(extras: Iterable[str]) -> list[str]:
    """Return the modules here that an installation of gpubackprop with these extras does not have."""
    kept = _distributions(set(extras))
    found = importlib.metadata.packages_distributions()
    return sorted(name for name, by in found.items() if name != "gpubackprop" and not kept & set(map(_normal, by)))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _distributions(extras: set[str]) -> set[str]:
    """Return the names of all distributions that gpubackprop with these extras requires, directly or not."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    todo = list(map(Requirement, project["dependencies"] + [line for extra in extras for line in optional[extra]]))
    done: set[tuple[str, str]] = set()
    while todo:
        needed = todo.pop()
        name = _normal(needed.name)
        for extra in {"", *needed.extras} - {extra for known, extra in done if known == name}:
            done.add((name, extra))
            lines = optional.get(extra, []) if name == "gpubackprop" else _required(name)
            todo += [r for r in map(Requirement, lines) if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in done}


def _required(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # not installed here, so nothing can be imported of it
        return []


def main() -> None:
    sys.path[0] = str(ROOT)
    sys.meta_path = [Found if finder is PathFinder else finder for finder in sys.meta_path]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for hidden, code in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        Found.hidden = frozenset(hidden)
        exec(compile(code, "README.md", "exec"), namespace)


if __name__ == "__main__":
    main()
