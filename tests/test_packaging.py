"""What is built is what was meant and works where it is installed; importing it is quick and light."""

from __future__ import annotations

import email
import os
import py_compile
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHERE = "import gpubackprop.backends.sources as s; print(s.__file__); print(s.KERNELS)"
HEAVY = (
    "cupy",
    "jax",
    "matplotlib",
    "mlxtend",
    "onnx",
    "pandas",
    "pyarrow",
    "scipy",
    "skl2onnx",
    "sklearn",
    "threadpoolctl",
    "torch",
    "tqdm",
)


def _python(code: str, *options: str, folder: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter inside `folder`, with `path` in front of everything installed."""
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def _install(wheel: Path, target: Path) -> Path:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return target


def _lines_where(folder: Path, code: str = WHERE, path: Path | None = None) -> tuple[Path, Path]:
    module, kernels = _python(code, folder=folder, path=path).stdout.splitlines()
    return Path(module), Path(kernels)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], cwd=ROOT, check=True)
    [archive] = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist: so the sdist holds what that takes."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(sdist)]
    subprocess.run(command, check=True)
    [built] = folder.glob("*.whl")
    return built


def _contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_sdist_holds_what_the_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("benchmarks", "examples", "gpubackprop", "kernels", "tests", "tools")
    needed = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    needed += [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE", "Makefile", "CHANGELOG.md")]
    expected = {str(path.relative_to(ROOT).as_posix()) for path in needed if path.is_file()}
    assert {name for name in expected if "__pycache__" not in name} <= names


def test_wheel_holds_the_package_its_kernels_and_its_benchmarks_alone(wheel: Path) -> None:
    names = _contents(wheel)
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "benchmarks").rglob("*.py")}
    inside = {name for name in names if name.startswith("gpubackprop/benchmarks/")}
    assert inside == {f"gpubackprop/{name}" for name in scripts}  # no results, nothing compiled
    kernels = {f"gpubackprop/kernels/{path.name}" for path in (ROOT / "kernels").iterdir()}
    assert kernels <= names
    assert {"gpubackprop/__init__.py", "gpubackprop/py.typed"} <= names
    foreign = [name for name in names if not re.match(r"gpubackprop/|gpubackprop-[^/]+\.dist-info/", name)]
    assert foreign == []


def test_kernels_folder_holds_kernels_alone() -> None:
    """What lies in it goes into every wheel, whatever it is."""
    suffixes = {path.suffix for path in (ROOT / "kernels").rglob("*")}
    assert suffixes
    assert suffixes <= {".cu", ".cuh"}


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
        [entries] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "gpubackprop = gpubackprop.cli:main" in archive.read(entries).decode()
    requirements = metadata.get_all("Requires-Dist", [])
    always = sorted(re.split(r"[<>=!~\[; ]", line)[0] for line in requirements if "extra ==" not in line)
    assert always == ["numpy", "safetensors"]
    assert not [line for line in requirements if re.match(r"cupy\b(?!-)", line)]
    promised = {
        "cuda12",
        "cuda13",
        "cuda12-local",
        "cuda13-local",
        "sklearn",
        "onnx",
        "arrow",
        "plot",
        "progress",
        "threads",
    }
    promised |= {"mpi", "bench", "demo", "oracle", "peers", "dev"}
    assert set(metadata.get_all("Provides-Extra", [])) == promised
    assert metadata["Version"] == _python("import gpubackprop as g; print(g.__version__)", folder=ROOT).stdout.strip()


def test_all_files_name_the_same_versions_of_python_and_scikit_learn() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    described = project["project"]
    names = ("Makefile", "README.md", ".github/workflows/ci.yml")
    read = {name: (ROOT / name).read_text(encoding="utf-8") for name in names}
    minors = [int(number) for number in re.findall(r":: 3\.(\d+)", "\n".join(described["classifiers"]))]
    oldest, newest = f"3.{minors[0]}", f"3.{minors[-1]}"
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert described["requires-python"] == f">={oldest}"
    assert project["tool"]["ruff"]["target-version"] == f"py3{minors[0]}"
    assert f"sys.version_info < (3, {minors[0]})" in read["Makefile"]
    assert f"gpubackprop needs Python {oldest} or newer" in read["Makefile"]
    versions = ", ".join(f'"3.{minor}"' for minor in minors)
    assert f"python: [{versions}]" in read[".github/workflows/ci.yml"]
    assert f"Python {oldest} to {newest}" in read["README.md"]
    [sklearn] = described["optional-dependencies"]["sklearn"]
    release = sklearn.removeprefix("scikit-learn>=").partition(",")[0]
    major, minor = release.split(".")
    assert sklearn == f"scikit-learn>={release},<{major}.{int(minor) + 1}"
    assert f"scikit-learn {release}." in read["README.md"]
    assert {"Source", "Issues", "Changelog", "Documentation"} <= set(described["urls"])


def test_installed_wheel_finds_its_own_kernels(wheel: Path, tmp_path: Path) -> None:
    target = _install(wheel, tmp_path / "site")
    module, kernels = _lines_where(tmp_path, path=target)
    assert module.is_relative_to(target)
    assert kernels == target / "gpubackprop" / "kernels"


def test_installed_wheel_has_benchmarks_that_run(wheel: Path, tmp_path: Path) -> None:
    """Those of start-up, tried once; from another folder than the checkout, whose settings they do without."""
    target = _install(wheel, tmp_path / "site")
    suite = target / "gpubackprop" / "benchmarks" / "suite"
    code = f"import sys, pytest; sys.exit(pytest.main(['-p', 'no:cacheprovider', {str(suite)!r}, '-k', 'startup']))"
    shown = _python(code, folder=tmp_path, path=target).stdout
    assert re.search(r"\b[2-9] passed", shown)


def test_wheel_from_a_checkout_with_bytecode_has_none(tmp_path: Path) -> None:
    py_compile.compile(str(ROOT / "benchmarks" / "workloads.py"), doraise=True)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [built] = tmp_path.iterdir()
    assert [name for name in _contents(built) if "__pycache__" in name] == []


def test_editable_install_finds_the_checkout_and_its_kernels(tmp_path: Path) -> None:
    code = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
    [built] = tmp_path.glob("*.whl")
    target = _install(built, tmp_path / "site")
    in_front = "sys.path.sort(key=before.__contains__)"  # of a copy that is installed beside these tests
    code = f"import site, sys; before = [*sys.path]; site.addsitedir({str(target)!r}); {in_front}; {WHERE}"
    module, kernels = _lines_where(tmp_path, code)
    assert module.is_relative_to(ROOT)
    assert kernels == ROOT / "kernels"


def test_bare_checkout_finds_its_kernels(tmp_path: Path) -> None:
    module, kernels = _lines_where(tmp_path, path=ROOT)
    assert module.is_relative_to(ROOT)
    assert kernels == ROOT / "kernels"


CALLS_OF_THE_IMPORT = """
import sys
import gpubackprop
for name in [name for name in sys.modules if name.partition(".")[0] == "gpubackprop"]:
    del sys.modules[name]
calls = []
sys.setprofile(lambda frame, event, _: calls.append(event) if event in ("call", "c_call") else None)
import gpubackprop
sys.setprofile(None)
print(len(calls))
"""


def test_import_is_quick(tmp_path: Path) -> None:
    """Of its own modules. Calls are counted, since times depend on the load: 31,000 take 0.06 s on an idle machine."""
    calls = [int(_python(CALLS_OF_THE_IMPORT, folder=tmp_path).stdout) for _ in range(2)]  # the first may compile
    assert calls[-1] < 100_000  # 0.2 s


def test_import_brings_nothing_optional(tmp_path: Path) -> None:
    code = f"import sys, gpubackprop; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert _python(code, folder=tmp_path).stdout.strip() == "[]"
