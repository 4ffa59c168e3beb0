"""Faults planted in the text of the kernels, and how each is caught; ``python mutants.py NUMBER`` tries one.

A mutant is a kernel with one fault. It is caught where the checks of `kernel_cases.py` see another result, an access
beside an array or a dead end. Faults in how threads wait for each other are planted in `test_sanitizers.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

import fake_cupy
import host_cuda
from kernel_cases import Case, check, shape_cases, storages

from gpubackprop.backends import kernels, sources
from gpubackprop.backends.cuda import CudaBackend

CAUGHT, SURVIVED, BROKEN = 0, 1, 2  # exit codes; a mutant that ends the program otherwise is caught too


class Mutant(NamedTuple):
    """One fault: in which file, which text becomes which, and in which kernels it shows, that file's own if none."""

    file: str
    old: str
    new: str
    kernels: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()} -> {self.new.strip() or 'nothing'}"


WALKS, SUMS = ("activate", "delta", "update", "penalty"), ("output", "delta", "penalty")
MUTANTS = [
    # formulas.cuh, bfloat16.cuh: types and rounding
    Mutant("formulas.cuh", "a < b || a != a ? a : b", "a < b ? a : b", ("activate",)),
    Mutant("formulas.cuh", "a > b || a != a ? a : b", "a > b ? a : b", ("activate",)),
    Mutant("formulas.cuh", "a < b || a != a ? a : b", "a > b || a != a ? a : b", ("activate",)),
    Mutant("bfloat16.cuh", "0x7fffu + (u >> 16 & 1u)", "0x8000u", ("activate",)),
    Mutant("bfloat16.cuh", "(u + 0x7fffu + (u >> 16 & 1u)) >> 16", "u >> 16", ("activate",)),
    Mutant("bfloat16.cuh", "x != x ? 0x7fffu : ", "", ("activate",)),
    # walk.cuh: loads, stores, indices, strides
    Mutant("walk.cuh", "v[i + k] = T(e[k])", "v[i + k] = T(e[0])", WALKS),
    Mutant("walk.cuh", "v[i + k] = T(e[k])", "v[i + k] = float(e[k])", WALKS),
    Mutant("walk.cuh", "reinterpret_cast<const uint4*>(p + i)", "reinterpret_cast<const uint4*>(p)", WALKS),
    Mutant("walk.cuh", "reinterpret_cast<uint4*>(p + i)", "reinterpret_cast<uint4*>(p)", WALKS),
    Mutant("walk.cuh", "e[k] = E(v[i + k])", "e[k] = E(v[k])", WALKS),
    Mutant("walk.cuh", "blockIdx.x * (Index)blockDim.x + threadIdx.x, threads", "threadIdx.x, threads", WALKS),
    Mutant("walk.cuh", "? n / V : 0", "? n / V + 1 : 0", WALKS),
    Mutant("walk.cuh", "whole * V + thread", "whole * V + thread + 1", WALKS),
    Mutant("walk.cuh", "body(Width<V>(), i * V)", "body(Width<V>(), i)", WALKS),
    Mutant("walk.cuh", "i < whole; i += threads", "i < whole; i += threads + 1", WALKS),
    Mutant("walk.cuh", "start + threadIdx.x * w", "start + threadIdx.x", WALKS),
    Mutant("walk.cuh", "(Index)blockDim.x * w;", "(Index)blockDim.x;", WALKS),
    Mutant("walk.cuh", "start += gridDim.x * tile", "start += tile", WALKS),
    Mutant("walk.cuh", "start = blockIdx.x * tile", "start = 0", WALKS),
    Mutant("walk.cuh", "vectors && cols % V == 0", "vectors", WALKS),
    Mutant("walk.cuh", "row = blockIdx.y * (Index)blockDim.y + threadIdx.y", "row = threadIdx.y", WALKS),
    Mutant("walk.cuh", "row += gridDim.y * (Index)blockDim.y", "row += (Index)blockDim.y", WALKS),
    Mutant("walk.cuh", "row < (rows)", "row + 1 < (rows)", WALKS),
    # sums.cuh, rows.cuh: reductions
    Mutant("sums.cuh", "half = (lanes + 1) / 2", "half = lanes / 2", SUMS),
    Mutant("sums.cuh", "lane + half < lanes", "lane < half", SUMS),
    Mutant("sums.cuh", "mine[half * columns * w + k]", "mine[half * w + k]", SUMS),
    Mutant("sums.cuh", "(lane * columns + column) * w", "(lane + column) * w", SUMS),
    Mutant("sums.cuh", "threadIdx.y * blockDim.x + threadIdx.x, blockDim.x", "threadIdx.x, blockDim.x", SUMS),
    Mutant("sums.cuh", "T sum_block(T value)", "T sum_block(float value)", SUMS),
    Mutant("rows.cuh", "value = maximum(value, __shfl_xor_sync(row_lanes(), value, step))", "", ("softmax",)),
    Mutant("rows.cuh", "value += __shfl_xor_sync(row_lanes(), value, step)", "value += value", ("softmax",)),
    Mutant("rows.cuh", "col += blockDim.x", "col += 32", ("softmax",)),
    Mutant("rows.cuh", "first = (threadIdx.y * blockDim.x) % 32", "first = 0", ("softmax",)),
    Mutant("rows.cuh", "total += exp(T(z[col]) - peak)", "total += exp(T(z[col]))", ("softmax",)),
    Mutant("rows.cuh", "T row_total(", "float row_total(", ("softmax",)),
    # activate.cu, softmax.cu: equations 1 and 2
    Mutant("activate.cu", "v[k] += bias[k]", "v[k] += bias[0]"),
    Mutant("activate.cu", "if (z != a) store(z + i, v);", ""),
    Mutant("activate.cu", "v[k] = sigma(v[k])", "v[k] = v[k]"),
    Mutant("activate.cu", "v[k] *= m[k]", "v[k] = m[k]"),
    Mutant("activate.cu", "load(bias, b + col)", "load(bias, b)"),
    Mutant("softmax.cu", "+ b[col]", ""),
    Mutant("softmax.cu", " / total", " / (2 * total)"),
    Mutant("softmax.cu", "exp(T(zr[col]) - peak) / total", "exp(T(zr[col])) / total"),
    # output.cu, output_rows.cu: equations 3 and 6
    Mutant("output.cu", "part * (ai[k] - yi[k])", "(ai[k] - yi[k])"),
    Mutant("output.cu", "part * backward(", "backward("),
    Mutant("output.cu", "loss(yi[k], zi[k])", "loss(yi[k], ai[k])"),
    Mutant("output.cu", "weight ? weight[row] : share", "share"),
    Mutant("output.cu", "total += part * value", "total += value"),
    Mutant("output.cu", "losses[blockIdx.y]", "losses[0]"),
    Mutant("output.cu", "sums + blockIdx.y * cols + col", "sums + col"),
    Mutant("output.cu", "sum[k] += d[k]", "sum[k] = d[k]"),
    Mutant("output_rows.cu", "loss_prime(yr[col], T(ar[col])) - product", "loss_prime(yr[col], T(ar[col]))"),
    Mutant("output_rows.cu", "peak - log_total", "peak + log_total"),
    Mutant("output_rows.cu", "S(part * (T(ar[col]) - yr[col]))", "S(T(ar[col]) - yr[col])"),
    Mutant("output_rows.cu", "product = row_sum(product);", ""),
    Mutant("output_rows.cu", "sums + blockIdx.y * cols + col", "sums + col"),
    Mutant("output_rows.cu", "T total = 0;", "float total = 0;"),
    # delta.cu, sum_rows.cu: equations 4 and 6
    Mutant("delta.cu", "backward(g[k], zi[k], ai[k])", "backward(g[k], ai[k], zi[k])"),
    Mutant("delta.cu", "backward(g[k], zi[k], ai[k])", "g[k]"),
    Mutant("delta.cu", "g[k] *= m[k]", "g[k] *= 1"),
    Mutant("delta.cu", "sums + blockIdx.y * cols + col", "sums + col"),
    Mutant("delta.cu", "sum_rows_of_block(sum);", ""),
    Mutant("delta.cu", "sum[k] += g[k]", "sum[k] += float(g[k])"),
    Mutant("sum_rows.cu", "load(v, out + col)", "load(v, partial)", ("penalty",)),
    Mutant("sum_rows.cu", "if (adds)", "if (!adds)", ("penalty",)),
    Mutant("sum_rows.cu", "row * cols + col", "col", ("delta", "output")),
    Mutant("sum_rows.cu", "sum[k] += v[k]", "sum[k] = v[k]", ("delta", "output")),
    # update.cu, penalty.cu: equations 7 and 8
    Mutant("update.cu", "squares ? clip_factor(squares[0]) : T(1)", "T(1)"),
    Mutant("update.cu", "load(s[j], slots + j * n + i)", "load(s[j], slots + i)"),
    Mutant("update.cu", "store(slots + j * n + i, s[j])", "store(slots + i, s[j])"),
    Mutant("update.cu", "load(gi, g + i)", "load(gi, theta + i)"),
    Mutant("update.cu", "store(theta + i, w);", ""),
    Mutant("update.cu", "if (narrow) store(narrow + i, w);", ""),
    Mutant("update.cu", "store(narrow + i, w)", "store(narrow + i, gi)"),
    Mutant("update.cu", "store(narrow + i, w)", "store(narrow, w)"),
    Mutant("penalty.cu", "lambda * xi[k]", "xi[k]"),
    Mutant("penalty.cu", "xi[k] * xi[k]", "xi[k]"),
    Mutant("penalty.cu", "scale * total", "total"),
    Mutant("penalty.cu", "sums[blockIdx.x]", "sums[0]"),
    Mutant("penalty.cu", "lambda /= divisor[0];", ""),
    Mutant("penalty.cu", "scale /= divisor[0];", ""),
    # weights.cu: the mean over a batch
    Mutant("weights.cu", "total[0] > least ? total[0] : least", "total[0]"),
    Mutant("weights.cu", "store(weight + i, v)", "store(weight, v)"),
    Mutant("weights.cu", "v[k] / divisor * share", "v[k] / divisor"),
    # cast.cu, gather.cu, dropout.cu
    Mutant("cast.cu", "if (widens)", "if (!widens)"),
    Mutant("cast.cu", "store(narrow + i, v)", "store(narrow, v)"),
    Mutant("gather.cu", "x + order[row] * cols", "x + row * cols"),
    Mutant("gather.cu", "x + order[row] * cols", "x + order[0] * cols"),
    Mutant("dropout.cu", "round < 10", "round < 9"),
    Mutant("dropout.cu", "j % 2 ? 32 : 0", "j % 2 ? 0 : 32"),
    Mutant("dropout.cu", "start / 8 + group) + 1", "start / 8 + group)"),
    Mutant("dropout.cu", "start / 8 + group", "group"),
    Mutant("dropout.cu", "8 * group + j - skipped", "8 * group + j"),
    Mutant("dropout.cu", "8 * group < skipped + n", "8 * group < n"),
    Mutant("dropout.cu", " && skipped == 0", ""),
    Mutant("dropout.cu", "first[0] + k", "first[0]"),
    Mutant("dropout.cu", "layer, step, 0", "step, layer, 0"),
    Mutant("dropout.cu", "c[j / 2]", "c[j / 4]"),
    Mutant("dropout.cu", ">> 8 >= threshold", ">> 9 >= threshold"),
    Mutant("dropout.cu", "if (0 <= i && i < n) mask", "if (0 <= i) mask"),
    Mutant("dropout.cu", "vectors && 8 * group + 8 <= n", "vectors"),
    Mutant("dropout.cu", "high1 ^ c[1] ^ key0", "high1 ^ c[1]"),
]

SHAPES = (
    "(33, 10)",
    "(40, 36)",
    "(70, 136)",
    "(300, 3)",
    "(3, 261)",
    "not finite",
    "rounding",
    "(330, 1)",
    "of nothing",
)


def tries(mutant: Mutant) -> Iterator[tuple[Case, str, int, int]]:
    """What a mutant has to fail: case, storage, offset, threads to a block."""
    wanted = mutant.kernels or (mutant.file.partition(".")[0],)
    chosen = [case for case in shape_cases() if case.kernel in wanted and _is_tried(case)]
    for threads, offset in ((64, 0), (96, 0), (64, 1)):
        for case in chosen:
            for storage in storages(case):
                yield case, storage, offset, threads


def _is_tried(case: Case) -> bool:
    return case.kernel == "update" or any(shape in case.label for shape in SHAPES)


def is_caught(mutant: Mutant) -> bool:
    """Return whether any check fails with the mutant in place of the kernel."""
    read = sources._read

    def changed(path: sources.Path) -> str:
        text = read(path)
        if path.name != mutant.file:
            return text
        assert mutant.old in text, f"{mutant.file} has no {mutant.old!r}"
        return text.replace(mutant.old, mutant.new)

    sources._read = changed  # type: ignore[assignment]
    backend = CudaBackend(0, fake_cupy.module(), "not in this test")
    backend._product = lambda A, B, out: None  # type: ignore[method-assign]
    for case, storage, offset, backend.kernels.threads in tries(mutant):
        try:
            check(backend, case, storage, offset)
            check_in_any_launch(backend, case, storage)
        except (AssertionError, host_cuda.Stuck):
            return True
    return False


def check_in_any_launch(backend: CudaBackend, case: Case, storage: str) -> None:
    """Check a case again in a launch with blocks of odd sides, which goes over its work in every direction."""
    own = {name: getattr(backend.kernels, name) for name in ("over", "over_matrix", "over_rows")}
    vars(backend.kernels).update(
        over=lambda *a: ((3,), (24,)),
        over_matrix=lambda *a, **named: ((2, 2), (8, 3)),
        over_rows=lambda *a, **named: ((1, 2), (8, 3)),
    )
    try:
        check(backend, case, storage)
    finally:
        vars(backend.kernels).update(own)


if __name__ == "__main__":
    try:
        sys.exit(CAUGHT if is_caught(MUTANTS[int(sys.argv[1])]) else SURVIVED)
    except kernels.KernelError as error:
        print(error, file=sys.stderr)
        sys.exit(BROKEN)
