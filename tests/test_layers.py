"""Imports point down the list of layers, and what is optional is imported only where it is used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gpubackprop"

ROWS = ("activations", "losses", "optimizers", "initializers", "schedules")
# From the top down. A module imports from its own layer or from below; "" is gpubackprop/__init__.py.
LAYERS = (
    ("__main__", "cli", "sklearn", ""),
    ("memory", "bench"),
    ("training", "gradcheck"),
    ("epochs",),
    ("checkpoint", "intake", "promises"),
    ("run",),
    ("parallel", "sums"),
    ("callbacks", "notices"),
    ("network", "history"),
    ("pickles", "state_dict"),
    ("streaming",),
    ("sources",),
    ("inputs", "npy", "onnx", "storage", "workspace"),
    ("architecture", "backends", "container", "tensorfile"),
    ROWS,
    ("in_use",),
    ("checks", "encoding", "files", "folderlock", "formula", "frames", "errors", "locks", "streams", "version"),
)
AT_IMPORT = {"numpy", "safetensors"}  # the two dependencies; everything else waits until it is used
CUPY = {"cupy", "cupyx", "cupy_backends"}


@dataclass(frozen=True)
class Import:
    """One imported module: absolute name, line, and when: "at once", "late" or for "types"."""

    name: str
    line: int
    when: str


def imports(text: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Read every import of a module of gpubackprop, `module` being its dotted name below the package."""
    parts = ["gpubackprop", *filter(None, module.split("."))]
    package = parts if is_package else parts[:-1]
    yield from _walk(ast.parse(text), package, "at once")


def _walk(node: ast.AST, package: list[str], when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for name in _names(child, package):
            yield Import(name, child.lineno, when)
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _walk(child, package, "types")
        elif isinstance(child, ast.FunctionDef | ast.Lambda):
            yield from _walk(child, package, "late")
        else:
            yield from _walk(child, package, when)


def _names(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        source = ".".join([*base, *filter(None, [node.module])])
        return [f"{source}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
        "import_module",
        "__import__",
    ):
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return []


def own_module(name: str, modules: Mapping[str, str]) -> str | None:
    """Return which module of the package an absolute name is, or is found in; None for other packages."""
    head, *rest = name.split(".")
    if head != "gpubackprop":
        return None
    while rest and ".".join(rest) not in modules:
        rest.pop()
    return ".".join(rest)


def _layer(module: str) -> int:
    head = module.partition(".")[0]
    found = [depth for depth, layer in enumerate(LAYERS) if head in layer]
    assert found, f"gpubackprop/{head} is in no layer: give it one in {Path(__file__).name}"
    return found[0]


def _edges(modules: Mapping[str, str]) -> Iterator[tuple[str, Import, str | None]]:
    """Go through all imports of all modules: who imports, what, and which module of the package that is."""
    packages = {"", *(name.rpartition(".")[0] for name in modules)}
    for module, text in modules.items():
        for each in imports(text, module, module in packages):
            yield module, each, own_module(each.name, modules)


def violations(modules: Mapping[str, str]) -> list[str]:
    """Return a sentence for each import that breaks a rule, given each module's dotted name and text."""
    found = []
    for module, each, target in _edges(modules):
        wrong = _other(module, each) if target is None else _own(module, target, each)
        if wrong:
            found.append(f"{module or '__init__'}:{each.line} {wrong}")
    return found


def _own(module: str, target: str, each: Import) -> str:
    if _layer(module) > _layer(target):
        return f"imports {target or 'gpubackprop'}, which is above it"
    if module.partition(".")[0] == "backends" and target in ROWS and each.when != "types":
        return f"imports {target}: rows are handed to backends"
    return ""


def _other(module: str, each: Import) -> str:
    head = each.name.partition(".")[0]
    if head in CUPY and (module != "backends.devices" or each.when == "at once"):
        return f"imports {head}: only functions of backends.devices may"
    allowed = head in AT_IMPORT | sys.stdlib_module_names or module.partition(".")[0] == "sklearn"
    if allowed or each.when != "at once":
        return ""
    return f"imports {head} when it is imported itself: only numpy and safetensors may be"


def circle(modules: Mapping[str, str]) -> list[str]:
    """Return the modules that import each other in a circle at once, or hang on one; [] where there is none."""
    below: dict[str, set[str]] = {module: set() for module in modules}
    for module, each, target in _edges(modules):
        if target not in (None, module) and each.when == "at once":
            below[module].add(target)
    while leaves := {module for module, rest in below.items() if not rest}:
        below = {module: rest - leaves for module, rest in below.items() if module not in leaves}
    return sorted(below)


def read_package() -> dict[str, str]:
    """Return the text of each module of the package under its dotted name, "" for the package itself."""
    texts = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        texts[name] = path.read_text(encoding="utf-8")
    return texts


def test_imports_point_down() -> None:
    modules = read_package()
    assert {"network", "formula", "errors", "backends", "backends.numpy"} <= set(modules)
    assert violations(modules) == []


def test_no_circle() -> None:
    assert circle(read_package()) == []


FAULTS = {
    "upward": ("formula", "from .network import Network", "imports network, which is above it"),
    "upward, from the package": ("errors", "from . import cli", "imports cli, which is above it"),
    "upward, absolute": ("losses", "import gpubackprop.training", "imports training, which is above it"),
    "upward, late": ("storage", "def f():\n    from .training import fit", "imports training"),
    "upward, two levels": ("backends.devices", "from ..network import Network", "imports network"),
    "upward, for types": ("inputs", "if TYPE_CHECKING:\n    from .training import fit", "imports training"),
    "the package itself": ("network", "from . import __version__", "imports gpubackprop, which is above it"),
    "rows in backends": (
        "backends.numpy",
        "from ..activations import ACTIVATIONS",
        "rows are handed to backends",
    ),
    "rows in backends, late": (
        "backends",
        "def f():\n    from .. import losses",
        "rows are handed to backends",
    ),
    "cupy elsewhere": ("network", "def f():\n    import cupy", "only functions of backends.devices"),
    "cupy beside cuda": (
        "backends.numpy",
        "def f():\n    from cupyx import jit",
        "only functions of backends.devices",
    ),
    "cupy at import": ("backends.devices", "import cupy", "only functions of backends.devices"),
    "cupy at import, tried": (
        "backends.devices",
        "try:\n    import cupy\nexcept ImportError: pass",
        "only functions",
    ),
    "cupy by its name": (
        "doctor",
        "import importlib\ncupy = importlib.import_module('cupy')",
        "only functions",
    ),
    "optional at import": (
        "history",
        "from matplotlib import pyplot",
        "imports matplotlib when it is imported",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault: str) -> None:
    module, text, says = FAULTS[fault]
    modules = dict.fromkeys(
        [
            "",
            "cli",
            "training",
            "network",
            "storage",
            "backends",
            "backends.numpy",
            "backends.devices",
            "losses",
        ],
        "",
    )
    modules |= {"activations": "", "errors": "", module: text}
    [found] = violations(modules)
    assert says in found
    assert found.startswith(f"{module}:{len(text.splitlines()) if 'tried' not in fault else 2} ")


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("cli", "from . import __version__, training"),
        ("training", "from .history import History"),
        ("backends.devices", "from ..formula import Trace\ndef f():\n    import cupy"),
        ("backends.devices", "if TYPE_CHECKING:\n    import cupy"),
        ("backends", "if TYPE_CHECKING:\n    from ..losses import Loss"),
        ("history", "def plot():\n    from matplotlib import pyplot"),
        ("sklearn", "from sklearn.base import BaseEstimator"),
    ],
)
def test_good_import_is_accepted(module: str, text: str) -> None:
    names = ["", "formula", "losses", "training", "history", "backends", "backends.numpy"]
    assert violations({**dict.fromkeys(names, ""), module: text}) == []


def test_planted_circle_is_caught() -> None:
    modules = {
        "": "",
        "network": "from . import storage",
        "storage": "import os\nfrom .network import Network",
    }
    assert circle(modules) == ["network", "storage"]


def test_module_without_a_layer_is_caught() -> None:
    with pytest.raises(AssertionError, match="give it one"):
        violations({"": "", "novelty": "from .errors import InvalidValue"})
