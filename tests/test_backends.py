"""Which backend is taken, and what is said where one cannot run."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_cupy
import pytest

import gpubackprop as gb
from gpubackprop import backends
from gpubackprop.backends import devices
from gpubackprop.errors import BackendUnavailable, InvalidType, InvalidValue

ROOT = Path(gb.__file__).parents[1]

# What CuPy 14.2 really says: without a driver, without cuBLAS, without NVRTC, without a library it links to.
NO_DRIVER = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
NO_CUBLAS = "libcublas.so.13: cannot open shared object file: No such file or directory"
NO_NVRTC = 'Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13 or libnvrtc.so.12\n'
BROKEN_IMPORT = f"""
================================================================
Failed to import CuPy.

If you installed CuPy via wheels, make sure that the package matches with the version of CUDA or ROCm installed.

Original error:
  ImportError: {NO_CUBLAS}
================================================================
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No default is set, and nothing found out about CUDA outlives a test."""
    monkeypatch.delenv("GPUBACKPROP_BACKEND", raising=False)
    monkeypatch.setattr(backends, "_default", None)
    for found in (devices.why_not, devices._backend):
        found.cache_clear()
    yield
    for found in (devices.why_not, devices._backend):
        found.cache_clear()


@pytest.fixture
def no_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without CuPy, whatever this one has."""
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with one device."""
    return fake_cupy.install(monkeypatch)


def _name(**arguments: Any) -> str:
    return gb.Network([2, 1], **arguments).backend.name


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "GPUBACKPROP_BACKEND"}
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    variables = {**kept, "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)


# -- names, and where they come from -----------------------------------------------------------------------------------


def test_auto_takes_numpy_where_there_is_no_cuda(no_cupy: None) -> None:
    net = gb.Network([2, 1], backend="auto")
    assert net.backend.name == "numpy"
    assert "on numpy: NumPy" in repr(net)
    assert net.backend.description in repr(net)
    assert _name() == _name(backend=None) == "numpy"
    assert net.to("auto").backend is net.backend


def test_auto_takes_cuda_where_it_runs(gpu: Any) -> None:
    net = gb.Network([2, 1])
    assert net.backend.name == "cuda"
    assert "on cuda: CuPy 14.2.0, CUDA 13.3, on Stand-in GPU (cuda:0)" in repr(net)
    assert gb.why_no_cuda() is None
    assert _name(backend="numpy") == "numpy", "never changed silently"
    assert gb.available_backends() == {
        "numpy": gb.Network([1, 1], backend="numpy").backend.description,
        "cuda": "CuPy 14.2.0, CUDA 13.3, on Stand-in GPU (cuda:0)",
    }
    assert net.backend is gb.Network([3, 1], backend="cuda:0").backend, "one object per device"


def test_precedence(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, then use_backend, then set_backend, then the environment, then what runs."""
    assert _name() == "cuda"
    monkeypatch.setenv("GPUBACKPROP_BACKEND", "numpy")
    assert _name() == "numpy"
    gb.set_backend("cuda")
    assert _name() == "cuda"
    with gb.use_backend("numpy"):
        assert _name() == "numpy"
        assert _name(backend="cuda") == "cuda"
    gb.set_backend("numpy")
    monkeypatch.setenv("GPUBACKPROP_BACKEND", "cuda")
    assert _name() == "numpy"
    gb.set_backend("auto")
    assert _name() == "cuda"


def test_use_backend_nests_and_is_restored(gpu: Any) -> None:
    with gb.use_backend("numpy"):
        with pytest.raises(ZeroDivisionError), gb.use_backend("cuda"):
            assert _name() == "cuda"
            raise ZeroDivisionError
        assert _name() == "numpy"
        with pytest.raises(InvalidValue, match="got 'nonsense'"), gb.use_backend("nonsense"):
            pytest.fail("the block ran")
        assert _name() == "numpy"
        gb.set_backend("cuda")
        assert _name() == "numpy", "the block is the nearer wish"
    assert _name() == "cuda"


def test_use_backend_as_a_decorator_and_twice(gpu: Any) -> None:
    decorated = gb.use_backend("numpy")(lambda: _name())
    assert decorated() == decorated() == "numpy"
    assert _name() == "cuda"


def test_a_network_stays_where_it_was_built(gpu: Any) -> None:
    with gb.use_backend("numpy"):
        net = gb.Network([2, 1])
    gb.set_backend("cuda")
    assert net.backend.name == "numpy"
    assert type(net.forward([[1.0, 2.0]])).__module__ == "numpy"
    twin = net.to("cuda")
    assert (net.backend.name, twin.backend.name) == ("numpy", "cuda")


def test_use_backend_is_of_its_thread(gpu: Any) -> None:
    names: dict[str, str] = {}
    inside, seen = threading.Event(), threading.Event()

    def other() -> None:
        with gb.use_backend("numpy"):
            names["other"] = _name()
            inside.set()
            assert seen.wait(300)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(300)
    names["main"] = _name()
    seen.set()
    thread.join()
    assert names == {"other": "numpy", "main": "cuda"}
    gb.set_backend("numpy")
    thread = threading.Thread(target=lambda: names.update(later=_name()))
    thread.start()
    thread.join()
    assert names["later"] == "numpy", "set_backend is of the process"


def test_use_backend_is_of_its_task(gpu: Any) -> None:
    async def task(name: str, ready: asyncio.Event, other: asyncio.Event) -> str:
        with gb.use_backend(name):
            ready.set()
            await other.wait()
            return _name()

    async def both() -> list[str]:
        one, two = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(task("numpy", one, two), task("cuda", two, one))

    assert asyncio.run(both()) == ["numpy", "cuda"]
    with gb.use_backend("numpy"):
        copied = contextvars.copy_context()
    assert copied.run(_name) == "numpy"
    assert _name() == "cuda"


@pytest.mark.parametrize(
    "bad",
    [
        "gpuu",
        "cuda0",
        "numpy:",
        "numpy:0",
        "auto:0",
        "cuda:",
        "gpu:",
        "cuda:x",
        "cuda:-1",
        "cuda:0:1",
        "cuda:00000",
        "cuda:٣",
        "",
    ],
)
def test_bad_names(bad: str, no_cupy: None) -> None:
    for call in (
        gb.set_backend,
        lambda name: gb.use_backend(name).__enter__(),
        lambda name: gb.Network([1, 1], backend=name),
    ):
        with pytest.raises(InvalidValue, match='backend must be "auto", "numpy", "cuda" or "cuda:N"') as raised:
            call(bad)
        assert f"got {bad!r}" in str(raised.value)
    with pytest.raises(InvalidType, match="got 3 of type int"):
        gb.set_backend(3)  # type: ignore[arg-type]
    assert _name() == "numpy"


def test_a_refused_default_leaves_the_old_one(no_cupy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    gb.set_backend("numpy")
    with pytest.raises(BackendUnavailable):
        gb.set_backend("cuda")
    assert backends._default == "numpy"
    with pytest.raises(BackendUnavailable), gb.use_backend("cuda"):
        pytest.fail("the block ran")
    assert backends._override.get() is None


WHAT = "import gpubackprop as gb; print(gb.Network([1, 1]).backend.name)"
WITHOUT_CUPY = "import sys; sys.modules['cupy'] = None; "


@pytest.mark.parametrize(
    ("value", "prints"),
    [("numpy", "numpy"), ("auto", "numpy"), ("", "numpy")],
)
def test_environment_variable(value: str, prints: str) -> None:
    run = _python(WITHOUT_CUPY + WHAT, GPUBACKPROP_BACKEND=value)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{prints}\n", "")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("tpu", 'InvalidValue: GPUBACKPROP_BACKEND=tpu: backend must be "auto", "numpy", "cuda" or "cuda:N"'),
        ("cuda", "BackendUnavailable: GPUBACKPROP_BACKEND=cuda: CuPy is not installed: install it with pip"),
    ],
)
def test_bad_environment_variable_is_named(value: str, says: str) -> None:
    run = _python(WITHOUT_CUPY + WHAT, GPUBACKPROP_BACKEND=value)
    assert run.returncode == 1
    assert run.stdout == ""
    assert says in run.stderr.strip().splitlines()[-1]


def test_environment_variable_does_not_hinder_the_import_nor_an_argument() -> None:
    code = WITHOUT_CUPY + "import gpubackprop as gb; print(gb.Network([1, 1], backend='numpy').backend.name)"
    run = _python(code, GPUBACKPROP_BACKEND="nonsense")
    assert (run.returncode, run.stdout, run.stderr) == (0, "numpy\n", "")


def test_cupy_is_not_imported_unless_asked_for() -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.partition('.')[0] not in ('cupy', 'cupyx'), name\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import gpubackprop as gb\n"
        "net = gb.Network([2, 1], backend='numpy')\n"
        "gb.fit(net, [[1.0, 2.0]], [1.0], epochs=1)\n"
        "print('cupy' in sys.modules)\n"
    )
    run = _python(code)
    assert (run.returncode, run.stdout, run.stderr) == (0, "False\n", "")


# -- why there is no CUDA ----------------------------------------------------------------------------------------------


def _refused(cause: str, remedy: str) -> None:
    """Assert that CUDA is refused in one sentence with a cause and a remedy, by all who are asked for it."""
    reason = gb.why_no_cuda()
    assert reason is not None
    assert "\n" not in reason
    assert cause in reason
    assert remedy in reason
    assert reason.endswith(".")
    assert set(gb.available_backends()) == {"numpy"}
    for call in (
        lambda: gb.Network([1, 1], backend="cuda"),
        lambda: gb.Network([1, 1], backend="cuda:3"),
        lambda: gb.Network([1, 1], backend="numpy").to("cuda"),
        lambda: gb.set_backend("cuda"),
        lambda: gb.use_backend("cuda").__enter__(),
    ):
        with pytest.raises(BackendUnavailable) as raised:
            call()
        assert str(raised.value) == reason
        assert isinstance(raised.value, RuntimeError)
    assert _name(backend="auto") == _name() == "numpy"


def test_cupy_is_not_installed(no_cupy: None) -> None:
    _refused("CuPy is not installed", "pip install 'gpubackprop[cuda13]'")


def test_cupy_is_not_installed_in_a_process_of_its_own() -> None:
    run = _python(WITHOUT_CUPY + "import gpubackprop as gb; print(gb.why_no_cuda())")
    assert run.stdout.startswith("CuPy is not installed: install it with pip install 'gpubackprop[cuda13]'")


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, device_count_error=fake_cupy.CUDARuntimeError(NO_DRIVER))
    _refused(f"no NVIDIA driver or device answers ({NO_DRIVER})", "nvidia-smi")


def test_driver_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, devices=0)
    _refused("no NVIDIA driver or device answers (it reports no device)", "CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("broken", "error", "cause"),
    [
        ("product_error", ImportError(NO_CUBLAS), f"({NO_CUBLAS})"),
        ("kernel_error", RuntimeError(NO_NVRTC), f"({NO_NVRTC.strip()})"),
        ("kernel_error", RuntimeError(), "(RuntimeError())"),
    ],
)
def test_libraries_missing(broken: str, error: Exception, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch, **{broken: error})
    _refused(f"the CUDA libraries that CuPy needs are missing or do not fit {cause}", "'cupy-cuda13x[ctk]'")


def test_cupy_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real import of a package that fails as CuPy's does where a library is missing."""
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(f"raise ImportError({BROKEN_IMPORT!r})")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    _refused(f"the CUDA libraries that CuPy needs are missing or do not fit (ImportError: {NO_CUBLAS})", "[ctk]")


def test_products_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that answers, with wrong numbers, is not taken."""
    made = fake_cupy.install(monkeypatch)
    monkeypatch.setattr(made, "matmul", None)
    monkeypatch.setattr(fake_cupy.ndarray, "__matmul__", lambda self, other: fake_cupy.zeros(self.shape, self.dtype))
    _refused("a product of matrices of ones came out wrong", "[ctk]")


def test_a_device_too_many(gpu: Any) -> None:
    for name in ("cuda:1", "cuda:7"):
        with pytest.raises(BackendUnavailable, match=f"there is no device {name}: this machine has 1"):
            gb.Network([1, 1], backend=name)
    assert _name(backend="cuda:0") == "cuda"
    assert gb.why_no_cuda() is None


def test_what_was_found_is_kept(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial of the device costs a compilation: it is made once."""
    probes = []
    real = devices._probe
    monkeypatch.setattr(devices, "_probe", lambda: probes.append(real()))
    for _ in range(3):
        gb.Network([1, 1])
    assert len(probes) == 1


def test_real_cupy_without_a_device() -> None:
    """Where CuPy is installed and no GPU is, the reason is the driver's."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    reason = gb.why_no_cuda()
    if reason is None:
        assert set(gb.available_backends()) == {"numpy", "cuda"}
    else:
        assert "no NVIDIA driver or device answers (cudaError" in reason


@pytest.mark.gpu
def test_real_device() -> None:
    assert gb.why_no_cuda() is None
    assert _name() == "cuda"
    assert "CuPy" in gb.available_backends()["cuda"]


@pytest.mark.parametrize("name", devices.LOCAL_RANK)
def test_a_rank_takes_the_device_of_its_number(gpu: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fake_cupy.install(monkeypatch, devices=3)
    for rank in range(5):
        monkeypatch.setenv(name, str(rank))
        assert gb.Network([1, 1], backend="cuda").backend.index == rank % 3
        assert gb.Network([1, 1], backend="cuda:0").backend.index == 0
