"""Every kernel against the equations on NumPy: its own text compiled by g++ and run by threads, and on a GPU."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import kernel_cases
import numpy as np
import pytest
from kernel_cases import Case, check, delta, forward, from_bfloat16, gather, to_bfloat16, update

from gpubackprop import optimizers
from gpubackprop.activations import ACTIVATIONS, gelu
from gpubackprop.backends import cuda, kernels, resolve, sources
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.errors import InvalidType, InvalidValue, KernelError

SHAPE_CASES, ROW_CASES = list(kernel_cases.shape_cases()), list(kernel_cases.row_cases())


def _with_storages(cases: list[Case]) -> list[Any]:
    return [
        pytest.param(case, storage, id=f"{case}-{storage}") for case in cases for storage in kernel_cases.storages(case)
    ]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(("case", "storage"), _with_storages(SHAPE_CASES))
def test_every_shape(case: Case, storage: str, offset: int, backend: CudaBackend) -> None:
    check(backend, case, storage, offset)


@pytest.mark.parametrize(("case", "storage"), _with_storages(ROW_CASES))
def test_every_row(case: Case, storage: str, backend: CudaBackend) -> None:
    check(backend, case, storage)


@pytest.mark.parametrize("threads", [32, 96, 256])
@pytest.mark.parametrize(
    "case", [case for case in SHAPE_CASES if "(33, 10)" in str(case) or "336" in str(case)], ids=str
)
def test_every_size_of_block(case: Case, threads: int, backend: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks go over their work many times, and large ones have threads to spare."""
    monkeypatch.setattr(backend.kernels, "threads", threads)
    check(backend, case, "float32")
    check(backend, case, "float64", 1)


@pytest.mark.parametrize("grid", [(1, 1), (5, 1), (2, 3)])
@pytest.mark.parametrize("block", [(1, 1), (8, 3), (2, 11)])
@pytest.mark.parametrize("case", [case for case in SHAPE_CASES if "(40, 36)" in str(case)], ids=str)
def test_any_launch(
    case: Case, grid: tuple[int, int], block: tuple[int, int], backend: CudaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kernel strides by the size of its launch, so that the shape changes the order of sums and nothing else."""
    x, y = grid
    monkeypatch.setattr(backend.kernels, "over", lambda *a: ((x * y,), (block[0] * block[1],)))
    monkeypatch.setattr(backend.kernels, "over_matrix", lambda *a, **named: (grid, block))
    monkeypatch.setattr(backend.kernels, "over_rows", lambda *a, **named: ((1, y), block))
    check(backend, case, "float32")


def test_bfloat16_is_that_of_pytorch(need: Any) -> None:
    """What the tests hold kernels to: every upper half of a float, and what lies between it and the next."""
    need("torch")
    import torch

    halves = np.arange(2**16, dtype="uint32")[:, None] << 16 | np.array(
        [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], "uint32"
    )
    floats = halves.reshape(-1).view("float32")
    theirs = torch.from_numpy(floats).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(floats)), theirs)


def test_indices_beyond_32_bits(backend: CudaBackend) -> None:
    """The last rows of a matrix of 2^31 elements and some; most of it is never touched, and so takes no memory."""
    rows = 2**28 + 2
    x = backend.zeros((rows, 8), "uint16")
    x[rows - 1 :][...] = 5
    out = backend.zeros((2, 8), "uint16")
    backend.gather(x, backend.asarray(np.array([rows - 1, 0]), "int64"), out)
    np.testing.assert_array_equal(backend.to_numpy(out), [[5] * 8, [0] * 8])


# -- what no kernel is given -------------------------------------------------------------------------------------------


def test_views_with_gaps_are_refused_by_name(backend: CudaBackend) -> None:
    zeros = backend.zeros((6, 8), "float32")
    for view in (zeros[:, ::2], zeros[::2, :4], zeros.T):
        with pytest.raises(InvalidValue, match=r"kernels/gather.cu: the elements of x must lie one behind the other"):
            backend.gather(view, backend.asarray(np.zeros(6, "int64"), "int64"), backend.zeros((6, 8), "float32"))
    check(backend, gather((6, 8), 6), "float32")


def test_arrays_of_another_type_are_refused_by_name(backend: CudaBackend) -> None:
    x, rows = backend.zeros((6, 8), "float64"), backend.asarray(np.zeros(6, "int64"), "int64")
    with pytest.raises(InvalidType, match=r"kernels/gather.cu: x must be of type float32, got float64"):
        backend.gather(x, rows, backend.zeros((6, 8), "float32"))
    with pytest.raises(InvalidType, match=r"order must be of type int64, got int32"):
        backend.gather(x, backend.asarray(np.zeros(6), "int32"), backend.zeros((6, 8), "float64"))


def test_an_error_of_the_compiler_names_file_and_line(backend: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (sources.KERNELS / "delta.cu").read_text().splitlines()
    line = next(k for k, line in enumerate(text) if "load(g, delta + i)" in line)
    text[line] = "load(g, nowhere + i);"
    read = sources._read
    monkeypatch.setattr(sources, "_read", lambda path: "\n".join(text) if path.name == "delta.cu" else read(path))
    monkeypatch.setattr(backend, "kernels", kernels.Kernels(backend.xp))  # which have compiled nothing yet
    with pytest.raises(KernelError, match=rf"kernels/delta.cu does not compile: (.|\n)*delta\.cu[(:]{line + 1}\b"):
        check(backend, delta(gelu, (2, 3)), "float32")


# -- what is compiled, and when ----------------------------------------------------------------------------------------


def test_a_kernel_is_compiled_once(backend: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each formula and type: rows and optimizers that are equal share it, whichever object they are."""
    texts: list[str] = []
    module = backend.xp.RawModule
    monkeypatch.setattr(
        backend.xp, "RawModule", lambda *, code, **named: texts.append(code) or module(code=code, **named)
    )
    monkeypatch.setattr(backend, "kernels", kernels.Kernels(backend.xp))
    for _ in range(2):
        for slope in (0.25, 0.5):
            check(backend, forward(ACTIVATIONS["leaky_relu"](slope=slope), (2, 3)), "float32")
        check(backend, update(optimizers.Adam(0.1), 16), "float64")
        check(backend, update(optimizers.Adam(0.2), 16), "float64")
        check(backend, update(optimizers.Adam(0.2), 16), "float32")
    assert len(texts) == len(set(texts)) == 4


@pytest.mark.parametrize("itemsize", [2, 4, 8])
@pytest.mark.parametrize("rows", [1, 7, 64, 10**6, 2**31])
@pytest.mark.parametrize("cols", [1, 10, 1023, 4096, 2**31])
def test_launches_are_legal_at_any_size(rows: int, cols: int, itemsize: int) -> None:
    """Of CUDA, 65535 blocks along y and 2^31 - 1 along x; of the kernels, 256 threads and rows of powers of two."""
    x = SimpleNamespace(shape=(rows, cols), size=rows * cols, dtype=np.dtype(f"uint{8 * itemsize}"))
    shapes, made = [], kernels.Kernels(None)
    for vectors in (True, False):
        shapes += [made.over_matrix(x, vectors=vectors), made.over_matrix(x, 8, vectors), made.over_rows(x, vectors)]
    for (grid_x, grid_y), (wide, high) in shapes:
        assert 1 <= grid_x * grid_y <= kernels.BLOCKS < 65536
        assert wide in (1, 2, 4, 8, 16, 32)
        assert wide * high == kernels.THREADS
    [blocks], [threads] = made.over(x)
    assert 1 <= blocks <= kernels.BLOCKS
    assert threads == kernels.THREADS


@pytest.mark.parametrize("rate", [0.0, 2.0**-24, 0.1, 0.25, 1 / 3, 0.7, 1 - 2.0**-24])
def test_the_threshold_of_dropout_is_the_least_number_that_numpy_keeps(rate: float) -> None:
    numbers = np.arange(max(0, cuda.threshold(rate) - 3), min(2**24, cuda.threshold(rate) + 3))
    kept = (numbers * np.float32(2.0**-24)).astype("float32") >= rate
    np.testing.assert_array_equal(kept, numbers >= cuda.threshold(rate))


@pytest.mark.gpu
def test_more_elements_than_an_int_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """2^31 and some, in bfloat16: 4 GB an array; the last rows come out as if they were alone."""
    made = resolve("cuda")
    monkeypatch.setattr(made, "_product", lambda A, B, out: None)
    rows, cols, some = 2**21 + 3, 1024, slice(-5, None)
    z = made.zeros((rows, cols), "uint16")
    z[some] = made.asarray(to_bfloat16(np.linspace(-2, 2, 5 * cols).reshape(5, cols)), "uint16")
    few, b = z[some].copy(), made.zeros(cols, "float32")
    made.forward(gelu, None, None, b, None, z, z, z)
    made.forward(gelu, None, None, b, None, few, few, few)
    assert (made.to_numpy(z[some]) == made.to_numpy(few)).all()
    assert made.to_numpy(few).any()
    z[some] = 0x3F80  # 1
    wide = made.zeros((rows, cols), "float32")
    made._cast(wide, z, widens=True)
    assert (made.to_numpy(wide[some]) == 1).all()


# -- the tests of this file ------------------------------------------------------------------------------------------


def test_every_operation_with_a_kernel_is_here() -> None:
    own = {name for name, value in vars(CudaBackend).items() if callable(value) and name in vars(NumpyBackend)}
    others = {
        *("zeros", "asarray", "to_numpy", "copy", "running", "synchronize", "free_bytes", "pair"),  # memory
        *("with_precision", "storage", "narrow", "widen"),  # types, by the kernel of `_cast`
        *("put", "record", "portion", "join", "weight_gradient"),  # recordings; products alone
        "reducer",  # NCCL
    }
    operations = {name for name in own - others if name[0] != "_"}
    assert {case.operation for case in SHAPE_CASES} == operations | {"_cast"}
    files = {path.stem for path in sources.KERNELS.glob("*.cu")}
    assert {case.kernel for case in SHAPE_CASES} | {"sum_rows"} == files


def test_operations_have_the_signatures_of_the_reference() -> None:
    for name, operation in vars(CudaBackend).items():
        reference = getattr(NumpyBackend, name, None)
        if inspect.isfunction(operation) and reference and name != "__init__":
            assert inspect.signature(operation).parameters == inspect.signature(reference).parameters, name


def test_an_index_of_32_bits_is_seen(backend: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    if "_host" not in dir(backend.zeros(1, "float32")):
        pytest.skip("g++ alone is asked to refuse it")
    read = sources._read
    monkeypatch.setattr(
        sources, "_read", lambda path: read(path).replace("const Index i = row * cols", "const int i = row * cols")
    )
    with pytest.raises(KernelError, match=r"conversion from .*Index"):
        check(backend, delta(gelu, (2, 3)), "float32")
