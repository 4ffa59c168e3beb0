"""More data than memory holds: windows of rows give the bits of data in memory, whatever they are read from."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_cupy
import numpy as np
import pytest

import gpubackprop as gb
from gpubackprop import intake, streaming
from gpubackprop.backends import memory
from gpubackprop.backends.pairs import DevicePair
from gpubackprop.errors import InvalidType, InvalidValue, MissingDependency
from gpubackprop.optimizers import SGD, Adam
from gpubackprop.parallel import Alone

RNG = np.random.default_rng(11)
M, FEATURES, OUTPUTS, N = 203, 6, 3, 16  # M is no multiple of N, nor of any window
X, VALUES = RNG.normal(size=(M, FEATURES)), RNG.normal(size=(M, OUTPUTS))
LABELS, WEIGHTS = RNG.integers(0, OUTPUTS, M), RNG.uniform(0.5, 2.0, M)
A_ROW = 4 * (FEATURES + OUTPUTS + 1)  # bytes in float32
KIND = {"activation": "tanh", "output_activation": "softmax", "loss": "cross_entropy"}
WINDOWS = {"one batch": N, "three batches": 3 * N, "all but a batch": 12 * N}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of seven rows, that fit no window."""
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 7 * A_ROW)


def _window(monkeypatch: pytest.MonkeyPatch, rows: int, dtype: str = "float32") -> None:
    monkeypatch.setattr(streaming, "WINDOW_BYTES", rows * A_ROW * np.dtype(dtype).itemsize // 4)


def _net(labels: bool = True, backend: str = "numpy", **arguments: Any) -> gb.Network:
    kind = KIND if labels else {"activation": "tanh"}
    return gb.Network([FEATURES, 9, OUTPUTS], backend=backend, **kind, **arguments)


def _trained(net: gb.Network, x: Any, y: Any, **arguments: Any) -> tuple[bytes, list[float], gb.History]:
    arguments = {"epochs": 3, "batch_size": N, "tol": None, **arguments}
    history = gb.fit(net, x, y, **arguments)
    return net.backend.to_numpy(net.theta).tobytes(), history.loss, history


def _same(given: dict[str, Any], net: Callable[[], gb.Network], x: Any, y: Any, **arguments: Any) -> None:
    """Hold training on data that are read in windows to the bits of training on what is given, in memory."""
    in_memory = {**arguments, "stream": False, "sample_weight": given["w"]}
    theta, losses, _ = _trained(net(), given["x"], given["y"], **in_memory)
    streamed, others, history = _trained(net(), x, y, **arguments)
    assert (streamed, others, history.samples) == (theta, losses, M)
    assert history.data.startswith("read in windows"), history.data


def _given(labels: bool = True, weighted: bool = False) -> dict[str, Any]:
    return {"x": X, "y": LABELS if labels else VALUES, "w": WEIGHTS if weighted else None}


def _batches(x: Any, y: Any, w: Any = None, size: int = 29) -> Callable[[], Iterator[tuple[Any, ...]]]:
    arrays = (x, y) if w is None else (x, y, w)
    return lambda: (tuple(a[k : k + size] for a in arrays) for k in range(0, len(x), size))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The data as .npy files."""
    arrays = {"x": X, "labels": LABELS, "values": VALUES, "w": WEIGHTS}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return {name: tmp_path / f"{name}.npy" for name in arrays}


# -- the bits of data in memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "values"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_in_order(
    dtype: str, labels: bool, weighted: bool, window: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of float64 arrays that are mapped, and of files that are read, into networks of both types."""
    _window(monkeypatch, WINDOWS[window], dtype)
    given, y = _given(labels, weighted), files["labels" if labels else "values"]
    named = {"sample_weight": files["w"]} if weighted else {}
    mapped = {name: np.load(path, mmap_mode="r") for name, path in named.items()}

    def net() -> gb.Network:
        return _net(labels, dtype=dtype)

    order = {"shuffle": False, "stream": True}
    _same(given, net, np.load(files["x"], mmap_mode="r"), np.load(y, mmap_mode="r"), **mapped, **order)
    _same(given, net, str(files["x"]), y, **named, **order)


OPTIMIZERS = {
    "SGD": SGD(0.1),
    "momentum": SGD(0.1, momentum=0.9),
    "Adam": Adam(0.01),
    "a schedule, clipping": Adam(gb.schedules.Cosine(0.1, steps=30), clip_norm=0.1),
}


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("shape", [{}, {"dropout": 0.3}, {"l2": 0.1}], ids=["plain", "dropout", "penalty"])
def test_bits_with_any_optimizer(rule: str, shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    arguments = {"optimizer": OPTIMIZERS[rule], "shuffle": False}
    _same(_given(), lambda: _net(**shape), _batches(X, LABELS), None, **arguments)


@pytest.mark.parametrize("size", [1, 16, 29, M])
def test_bits_of_batches(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    _same(_given(), _net, _batches(X, LABELS, size=size), None, shuffle=False)


def test_weights_of_batches_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest is 1 here, by which weights in memory are divided."""
    _window(monkeypatch, 3 * N)
    w = WEIGHTS / WEIGHTS.max()
    _same({"x": X, "y": LABELS, "w": w}, _net, _batches(X, LABELS, w), None, shuffle=False)


def test_a_list_of_batches_can_be_gone_through_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    _same(_given(), _net, list(_batches(X, LABELS)()), None, shuffle=False)


def test_batches_may_be_fewer_than_a_step_takes() -> None:
    _same(_given(), _net, _batches(X, LABELS), None, batch_size=500, shuffle=False)


def test_columns_first_are_refused_in_files_and_read_from_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    with pytest.raises(InvalidValue, match="ascontiguousarray"):
        gb.fit(_net(), tmp_path / "f.npy", LABELS)
    _same(_given(), _net, np.load(tmp_path / "f.npy", mmap_mode="r"), LABELS, shuffle=False, stream=True)


# -- the order ---------------------------------------------------------------------------------------------------------


def _orders(monkeypatch: pytest.MonkeyPatch, x: Any, y: Any, epochs: int = 2, seed: int = 0) -> np.ndarray:
    """Return in which order the rows were trained on, (epochs, M): their numbers are the only feature."""
    seen: list[np.ndarray] = []
    with monkeypatch.context() as patch:
        patch.setattr("gpubackprop.backends.numpy.NumpyBackend.record", lambda self, work: work)
        loads = gb.network.Workspace.load_part

        def load(self: Any, part: slice, x: Any, *rest: Any) -> Any:
            seen.append(np.array(x[:, 0]))
            return loads(self, part, x, *rest)

        patch.setattr(gb.network.Workspace, "load_part", load)
        net = gb.Network([1, 2, 1], backend="numpy")
        gb.fit(net, x, y, epochs=epochs, batch_size=N, tol=None, stream=True, seed=seed, optimizer=SGD(1e-9))
    return np.concatenate(seen).reshape(epochs, M).astype(int)


def test_every_row_is_visited_once_in_an_epoch_in_a_drawn_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 3 * N * 12)
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 7 * 12)
    rows = np.arange(M, dtype="float32")[:, None]
    first, again, other = (_orders(monkeypatch, rows, rows, seed=seed) for seed in (0, 0, 1))
    for epoch in (*first, *other):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(M))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).mean() > 0.9
    assert (first[0] != other[0]).mean() > 0.9
    window = first[0][: 3 * N]
    assert np.ptp(window) > M // 2, "a window has blocks from all over the data"
    assert len(set(window // 7)) <= 3 * N // 7 + 2, "of whole blocks"


def test_batches_are_shuffled_within_windows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 3 * N * 12)
    rows = np.arange(M, dtype="float32")[:, None]
    for epoch in _orders(monkeypatch, _batches(rows, rows), None):
        assert (epoch != np.arange(M)).mean() > 0.9
        for start in range(0, M, 3 * N):
            part = epoch[start : start + 3 * N]
            np.testing.assert_array_equal(np.sort(part), np.arange(start, start + len(part)))


# -- what is not accepted ----------------------------------------------------------------------------------------------


def _with(array: np.ndarray, row: int, value: Any) -> np.ndarray:
    changed = array.copy()
    changed[row] = value
    return changed


def _late(fail: Callable[[], Any], after: int, epochs: list[int]) -> Callable[[], Iterator[Any]]:
    """Return batches of which one of a later epoch fails."""

    def batches() -> Iterator[Any]:
        epochs.append(1)
        for k, batch in enumerate(_batches(X, LABELS)()):
            if len(epochs) > 2 and k == after:  # the first is looked at before training
                yield fail()
            yield batch

    return batches


def _raise() -> Any:
    raise OSError("the disk is gone")


REFUSED: dict[str, tuple[Callable[[], Any], Any, type[Exception], str]] = {
    "a label in the last window": (lambda: X, _with(LABELS, M - 1, 7), InvalidValue, r"labels in y\[\d+:203\] .*to 7"),
    "a negative label": (lambda: X, _with(LABELS, 150, -1), InvalidValue, "from -1"),
    "NaN": (lambda: _with(X, M - 2, np.nan), LABELS, InvalidValue, r"X\[\d+:203\] must be finite"),
    "beyond float32": (lambda: _with(X, 99, 1e300), LABELS, InvalidValue, "beyond its range"),
    "too few columns": (lambda: X[:, :-1], LABELS, InvalidValue, r"X must have the shape \(N, 6\)"),
    "too few targets": (lambda: X, LABELS[:-1], InvalidValue, r"y must have the shape \(203, 3\)"),
    "a batch of other columns": (
        lambda: _late(lambda: (X[:, :2], LABELS), 3, []),
        None,
        InvalidValue,
        "X of batch 3 must have the shape",
    ),
    "a batch of other targets": (
        lambda: _late(lambda: (X[:9], LABELS[:8]), 3, []),
        None,
        InvalidValue,
        "y of batch 3 must have the shape",
    ),
    "a batch with weights": (lambda: _late(lambda: (X, LABELS, WEIGHTS), 1, []), None, InvalidValue, "in all batches"),
    "no pair": (lambda: _late(lambda: X, 1, []), None, InvalidType, "batch 1 must be a pair"),
    "an error of its own": (lambda: _late(_raise, 4, []), None, OSError, "the disk is gone"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_the_network_as_it_was(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it is found: in the epoch that reads it, of which all steps are undone, and those of epochs before."""
    _window(monkeypatch, 3 * N)
    make, y, error, says = REFUSED[what]
    net = _net()
    before, threads = net.theta.tobytes(), threading.active_count()
    with pytest.raises(error, match=says):
        gb.fit(net, make(), y, epochs=5, batch_size=N, tol=None, shuffle=False, stream=True)
    assert net.theta.tobytes() == before
    assert threading.active_count() == threads, "the reader has ended"


def test_batches_that_end_early_are_an_epoch_of_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    epochs: list[int] = []

    def batches() -> Iterator[Any]:
        epochs.append(1)
        yield from list(_batches(X, LABELS)())[: 2 if len(epochs) > 2 else None]

    _, _, history = _trained(_net(), batches, None, epochs=2)
    assert (len(history.loss), history.samples) == (2, 58)


@pytest.mark.parametrize("empty", [lambda: iter(()), lambda: iter([(X, LABELS)])], ids=["at once", "used up"])
def test_no_batches(empty: Any) -> None:
    if next(empty(), None) is None:
        with pytest.raises(InvalidValue, match="there is no batch"):
            gb.fit(_net(), empty)
        return
    with pytest.raises(InvalidType, match="used up after the first"):
        gb.fit(_net(), empty())


def test_batches_used_up_by_the_first_epoch_are_found_in_the_second() -> None:
    left = iter([iter([(X, LABELS)]), iter([(X, LABELS)])])
    net = _net()
    before = net.theta.tobytes()
    with pytest.raises(InvalidValue, match="there is no batch"):
        gb.fit(net, lambda: next(left, iter(())), epochs=3, tol=None)
    assert net.theta.tobytes() == before


def test_arguments() -> None:
    with pytest.raises(InvalidType, match="y is missing"):
        gb.fit(_net(), X)
    with pytest.raises(InvalidValue, match="part of every batch"):
        gb.fit(_net(), _batches(X, LABELS), sample_weight=WEIGHTS)
    with pytest.raises(InvalidValue, match="never all in memory"):
        gb.fit(_net(), _batches(X, LABELS), stream=False)
    with pytest.raises(InvalidType, match="stream must be True or False"):
        gb.fit(_net(), X, LABELS, stream="yes")
    with pytest.raises(InvalidValue, match=r"X must be an array or the path of a \.npy file"):
        gb.fit(_net(), "data.csv", LABELS)
    with pytest.raises(FileNotFoundError):
        gb.fit(_net(), "nowhere.npy", LABELS)


FILES: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "empty": (lambda path: path.write_bytes(b""), InvalidValue, "is no file that numpy.save"),
    "foreign": (lambda path: path.write_bytes(b"PK" * 99), InvalidValue, "is no file that numpy.save"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), InvalidValue, "ends before its array"),
    "of objects": (lambda path: np.save(path, np.array([[1, {}]], object)), InvalidType, "must hold real numbers"),
    "of text": (lambda path: np.save(path, np.array([["a"]])), InvalidType, "must hold real numbers"),
    "of records": (lambda path: np.save(path, np.zeros(3, [("a", "f4")])), InvalidType, "must hold real numbers"),
    "of one number": (lambda path: np.save(path, np.float32(1)), InvalidValue, "must have the shape"),
}


@pytest.mark.parametrize("what", FILES)
def test_files_that_are_refused(what: str, files: dict[str, Path]) -> None:
    damage, error, says = FILES[what]
    damage(files["x"])
    net = _net()
    before = net.theta.tobytes()
    for call in (lambda: gb.fit(net, files["x"], LABELS, stream=True), lambda: net.predict(files["x"])):
        with pytest.raises(error, match=says):
            call()
    assert net.theta.tobytes() == before


@pytest.mark.parametrize(
    ("becomes", "says"), [("shorter", "ends before its array"), ("another", "has become another array")]
)
def test_a_file_that_changes(becomes: str, says: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another array has as many bytes, and would be read as numbers all the same."""
    _window(monkeypatch, 3 * N)
    net, content = _net(), files["x"].read_bytes()
    before = net.theta.tobytes()

    def change(net: gb.Network, history: gb.History) -> None:
        if becomes == "shorter":
            files["x"].write_bytes(content[:-100])
        else:
            np.save(files["x"], np.ones((M, 2 * FEATURES), "float32"))

    with pytest.raises(InvalidValue, match=says):
        gb.fit(net, files["x"], LABELS, stream=True, callbacks=[change], batch_size=N, tol=None)
    assert net.theta.tobytes() == before


def test_ctrl_c_ends_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 2 * N)
    threads, net = threading.active_count(), _net()

    def batches() -> Iterator[Any]:
        for k, batch in enumerate(_batches(X, LABELS)()):
            if k == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with pytest.warns(gb.errors.InterruptWarning, match="in epoch 1"):
        gb.fit(net, batches, batch_size=N, epochs=50, tol=None)
    assert np.isfinite(net.theta).all()
    assert threading.active_count() == threads


# -- an epoch in parts -------------------------------------------------------------------------------------------------


class _Killed(Exception):
    pass


@pytest.mark.parametrize("kind", ["array", "path", "table"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("steps", [1, 3, 7, 13, 17])
def test_a_killed_training_goes_on_within_a_window(
    steps: int, shuffle: bool, kind: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    """After any step of the first epochs, at the end of a window or within, to the last bit."""
    _window(monkeypatch, 3 * N)
    if kind == "table":
        x, y = request.getfixturevalue("table").select([f"x{k}" for k in range(FEATURES)] + ["label"]), "label"
    else:
        x, y = (X if kind == "array" else files["x"]), LABELS
    arguments = {"stream": True, "shuffle": shuffle, "optimizer": "adam"}
    theta, losses, _ = _trained(_net(dropout=0.2), x, y, **arguments)
    folder, taken = files["x"].parent / "checkpoints", []
    checkpoint = gb.Checkpoint(folder, every_minutes=1e-9)
    take = gb.training.Run._take

    def killed(self: Any, *portion: Any) -> None:
        if len(taken) == steps:
            raise _Killed
        taken.append(1)
        take(self, *portion)

    with monkeypatch.context() as patch:
        patch.setattr(gb.training.Run, "_take", killed)
        with pytest.raises(_Killed):
            _trained(_net(dropout=0.2), x, y, checkpoint=checkpoint, **arguments)
    resumed, others, history = _trained(
        _net(seed=5, dropout=0.2), x, y, checkpoint=checkpoint, resume=True, **arguments
    )
    assert (resumed, others) == (theta, losses)
    assert history.data.startswith("read in windows")


def test_an_epoch_that_is_repeated_has_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """At half the rate from the start it is the same training: the epoch that failed left nothing."""
    _window(monkeypatch, 3 * N)
    epoch, failed = gb.training.Run.epoch, []

    def fails_once(self: Any, paused: Any) -> float:
        loss = epoch(self, paused)
        if not failed and not self.begun:
            failed.append(loss)
            return float("nan")
        return loss

    theta, losses, _ = _trained(_net(), X, LABELS, stream=True, optimizer=SGD(0.05))
    monkeypatch.setattr(gb.training.Run, "epoch", fails_once)
    repeated, others, history = _trained(_net(), X, LABELS, stream=True, optimizer=SGD(0.1), retries=1)
    assert history.retried == [1]
    assert (repeated, others) == (theta, losses)


def test_checkpoints_are_not_for_batches(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="known number of examples"):
        gb.fit(_net(), _batches(X, LABELS), checkpoint=tmp_path)


def test_a_checkpoint_of_other_windows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    _trained(_net(), X, LABELS, stream=True, checkpoint=tmp_path)
    others = {"within windows of 64 examples (stream=True)": 4 * N, "over all examples (stream=False)": 3 * N}
    for other, rows in others.items():
        _window(monkeypatch, rows)
        stream = "True" in other
        says = f"is of a training with order 'within windows of 48 examples (stream=True)', not '{other}': give"
        with pytest.raises(InvalidValue, match=re.escape(says)):
            _trained(_net(), X, LABELS, stream=stream, checkpoint=tmp_path, resume=True, epochs=4)


# -- what is chosen ----------------------------------------------------------------------------------------------------


def test_data_that_fit_a_window_are_held(files: dict[str, Path]) -> None:
    for stream in (True, None):
        theta, losses, history = _trained(_net(), files["x"], files["labels"], stream=stream)
        assert (theta, losses) == _trained(_net(), X, LABELS)[:2]
        assert history.data == "in memory"


def test_what_would_not_fit_is_streamed_and_said(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _window(monkeypatch, 3 * N)
    training = gb.bytes_of_training([FEATURES, 9, OUTPUTS], batch_size=N, backend="numpy", **KIND)
    data = M * A_ROW + M * (FEATURES * 8 + 8)  # converted, and as they are in the files
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    said = {}
    with caplog.at_level(logging.INFO, logger="gpubackprop"):
        for free in (int((data + training) / intake.SHARE) + 2, int((data + training) / intake.SHARE) - 2, None):
            _, _, history = _trained(_net(labels=True), files["x"], files["labels"], shuffle=False)
            said[free] = history.data
    enough, little, unknown = said.values()
    assert enough == unknown == "in memory"
    assert f"{data + training:,} bytes are predicted" in little
    assert little in caplog.text
    assert caplog.text.count("read in windows") == 1
    monkeypatch.setattr(memory, "free_bytes", lambda: 1)
    assert _trained(_net(), X, LABELS, stream=False)[2].data == "in memory"
    assert _trained(_net(), X.astype("float32"), LABELS)[2].data != "in memory"


def test_ranks_of_one_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    one = M * A_ROW + gb.bytes_of_training([FEATURES, 9, OUTPUTS], batch_size=N, backend="numpy", **KIND)
    monkeypatch.setattr(memory, "free_bytes", lambda: int(3 * one / intake.SHARE) - 3)
    said = []
    for ranks in (2, 3):
        monkeypatch.setattr(Alone, "here", ranks)
        said.append(_trained(_net(), X, LABELS)[2].data)
    assert said[0] == "in memory"
    assert f"{3 * one:,} bytes are predicted for data and training of 3 ranks" in said[1]


def test_free_memory_is_the_least_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   100 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_limits_of_the_process", lambda: iter(()))
    assert memory.free_bytes() == 102_400
    (tmp_path / "memory.current").write_text("50000\n")
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 20000\n")
    for limit, free in (("max", 102_400), ("90000", 60_000), ("900000", 102_400)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert memory.free_bytes() == free
    monkeypatch.setattr(memory, "_limits_of_the_process", lambda: iter((5,)))
    assert memory.free_bytes() == 5
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\n")
    monkeypatch.undo()
    assert memory.free_bytes() is None or memory.free_bytes() > 0


# -- predictions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["map", "path", "batches", "function", "array"])
def test_predictions_are_those_of_an_array(kind: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    net = _net()
    expected = net.predict(X, batch_size=N)
    parts = [X[k : k + 29] for k in range(0, M, 29)]
    made = {
        "map": lambda: np.load(files["x"], mmap_mode="r"),
        "path": lambda: files["x"],
        "batches": lambda: iter(parts),
        "function": lambda: lambda: iter(parts),
        "array": lambda: X,
    }
    found = net.predict(made[kind](), batch_size=N)
    assert (found.tobytes(), found.dtype, type(found)) == (expected.tobytes(), expected.dtype, np.ndarray)
    out = np.lib.format.open_memmap(files["x"].with_name("out.npy"), "w+", "float32", (M, OUTPUTS))
    assert net.predict(made[kind](), batch_size=N, out=out) is out
    assert np.load(files["x"].with_name("out.npy")).tobytes() == expected.tobytes()


@pytest.mark.parametrize("x", [X, iter([X]), iter([X, X])], ids=["array", "batch", "batches"])
def test_arrays_for_predictions_that_are_refused(x: Any) -> None:
    net = _net()
    for wrong, error in (
        (np.empty((M - 1, OUTPUTS)), InvalidValue),
        (np.empty((M, OUTPUTS + 1)), InvalidValue),
        (np.empty((M, OUTPUTS), int), InvalidType),
        ([0.0], InvalidType),
        (np.broadcast_to(np.float32(0), (M, OUTPUTS)), InvalidType),
    ):
        with pytest.raises(error, match="out must"):
            net.predict(x, out=wrong)


def test_no_batch_to_predict() -> None:
    with pytest.raises(InvalidValue, match="there is no batch"):
        _net().predict(iter(()))


# -- Arrow -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(need: Any) -> Any:
    """The data as a table of pyarrow, the targets in the middle."""
    need("pyarrow")
    import pyarrow

    columns = {f"x{k}": X[:, k] for k in range(FEATURES)}
    extra = {"label": LABELS, "weight": WEIGHTS, **{f"value {k}": VALUES[:, k] for k in range(OUTPUTS)}}
    return pyarrow.table({"x0": columns["x0"], **extra, **columns})


def _arrow(table: Any, kind: str, folder: Path) -> Any:
    import pyarrow.dataset
    import pyarrow.feather
    import pyarrow.parquet

    if kind == "table":
        return table
    if kind == "data set of two files":
        for k, part in enumerate((table[:100], table[100:])):
            pyarrow.parquet.write_table(part, folder / f"{k}.parquet", row_group_size=30)
        return pyarrow.dataset.dataset([folder / "0.parquet", folder / "1.parquet"])
    path = folder / f"data.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=30)
    else:
        pyarrow.feather.write_feather(table, path)
    return path


@pytest.mark.parametrize("kind", ["table", "parquet", "arrow", "feather", "data set of two files"])
@pytest.mark.parametrize("labels", [True, False], ids=["labels", "values"])
def test_arrow(kind: str, labels: bool, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    targets = "label" if labels else [f"value {k}" for k in range(OUTPUTS)]
    unused = [f"value {k}" for k in range(OUTPUTS)] if labels else ["label"]
    x = _arrow(table.drop_columns(unused), kind, tmp_path)
    theta, losses, _ = _trained(_net(labels), X, _given(labels)["y"], sample_weight=WEIGHTS, shuffle=False)
    for stream in (True, False):
        found = _trained(_net(labels), x, targets, sample_weight="weight", shuffle=False, stream=stream)
        assert found[:2] == (theta, losses)
        assert (found[2].data == "in memory") != stream
    net = _net(labels)
    alone = _arrow(table.select([f"x{k}" for k in range(FEATURES)]), kind, tmp_path)
    assert net.predict(alone, batch_size=N).tobytes() == net.predict(X, batch_size=N).tobytes()


def test_arrow_that_is_refused(table: Any, tmp_path: Path) -> None:
    import pyarrow

    with pytest.raises(InvalidType, match="y must name"):
        gb.fit(_net(), table)
    with pytest.raises(InvalidType, match="y must name columns"):
        gb.fit(_net(), table, LABELS)
    with pytest.raises(InvalidValue, match="no column 'lable'; it has x0, label"):
        gb.fit(_net(), table, "lable")
    with pytest.raises(InvalidValue, match=r"shape \(N, 6\)"):
        gb.fit(_net(), table, "label", stream=True)
    missing = pyarrow.table({"a": [1.0, None], "b": [1, 0]})
    with pytest.raises(InvalidValue, match="1 values of the column 'a' are missing"):
        gb.fit(gb.Network([1, 2], backend="numpy"), missing, "b")
    with pytest.raises(InvalidType, match="column 'a' of X must hold real numbers"):
        gb.fit(gb.Network([1, 2], backend="numpy"), pyarrow.table({"a": ["x", "y"], "b": [1, 0]}), "b")
    with pytest.raises(InvalidValue, match="no rows"):
        gb.fit(_net(), table[:0], "label")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InvalidValue, match="cannot be read by pyarrow"):
        _net().predict(tmp_path / "x.parquet")
    with pytest.raises(FileNotFoundError):
        _net().predict(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize("rows", [100, 2 * M])
def test_a_table_that_changes_while_it_is_read(rows: int, table: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """After the first epoch; an epoch of other rows than were counted is no epoch."""
    import pyarrow

    _window(monkeypatch, 3 * N)
    table = table.select(["x0", "label", *[f"x{k}" for k in range(1, FEATURES)]])
    path = _arrow(table, "arrow", tmp_path)
    other, net = pyarrow.concat_tables([table, table])[:rows], _net()
    before = net.theta.copy()

    def change(net: gb.Network, history: gb.History) -> None:
        _arrow(other, "arrow", tmp_path)

    with pytest.raises(InvalidValue, match=f"had 203 rows when it was opened, and has {rows} now"):
        gb.fit(net, path, "label", batch_size=N, epochs=3, tol=None, stream=True, callbacks=[change])
    np.testing.assert_array_equal(net.theta, before)


def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"gpubackprop\[arrow\]"):
        gb.fit(_net(), "data.parquet", "label")


# -- on CUDA -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_bits_on_cuda(window: str, weighted: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, WINDOWS[window])
    given = _given(weighted=weighted)
    weight = {"sample_weight": WEIGHTS} if weighted else {}
    theta, losses, _ = _trained(_net(backend=device), X, given["y"], shuffle=False, **weight)
    streamed, others, history = _trained(_net(backend=device), X, given["y"], shuffle=False, stream=True, **weight)
    assert (streamed, others) == (theta, losses)
    assert history.data.startswith("read in windows")


def test_the_order_on_cuda_is_that_on_numpy(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    on_cuda, on_numpy = (_net(backend=backend, dtype="float64") for backend in (device, "numpy"))
    for net in (on_cuda, on_numpy):
        gb.fit(net, X, LABELS, epochs=3, batch_size=N, tol=None, stream=True)
    np.testing.assert_allclose(on_cuda.backend.to_numpy(on_cuda.theta), on_numpy.theta, rtol=1e-12, atol=1e-12)


def test_predictions_on_cuda(device: str, monkeypatch: pytest.MonkeyPatch, files: dict[str, Path]) -> None:
    _window(monkeypatch, 3 * N)
    net = _net(backend=device)
    assert net.predict(files["x"], batch_size=N).tobytes() == net.predict(X, batch_size=N).tobytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_graphs_of_both_buffers(precision: str, graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    theta, losses, _ = _trained(_net(backend="cuda", precision=precision), X, LABELS, shuffle=False)
    launches = fake_cupy.Graph.launches
    found = _trained(_net(backend="cuda", precision=precision), X, LABELS, shuffle=False, stream=True)
    assert found[:2] == (theta, losses)
    assert fake_cupy.Graph.launches > launches


def test_what_a_device_does_not_hold_is_streamed(stand_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _window(monkeypatch, 3 * N)
    training = gb.bytes_of_training([FEATURES, 9, OUTPUTS], batch_size=N, backend=stand_in, **KIND)
    needed = M * A_ROW + training
    for free, streams in ((needed / intake.SHARE + 2, False), (needed / intake.SHARE - 2, True)):
        monkeypatch.setattr(fake_cupy.state, "free", int(free))
        _, _, history = _trained(_net(backend=stand_in), X, LABELS)
        assert history.data.startswith("read in windows") == streams
        assert ("free on cuda" in history.data) == streams


PLANTED: dict[str, tuple[str, Callable[..., Any]]] = {
    "a pinned buffer is written while it is being copied": ("host", lambda self, k: self._pinned[k]),
    "steps do not wait for the copy": ("taken", lambda self, k: self._arrays[k]),
    "a copy does not wait for the steps": ("given_back", lambda self, k: None),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_caught(fault: str, graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By other bits, or by what the stand-in knows of the order of streams."""
    _window(monkeypatch, N)
    theta = _trained(_net(backend="cuda"), X, LABELS, shuffle=False)[0]
    monkeypatch.setattr(DevicePair, *PLANTED[fault])
    try:
        streamed = _trained(_net(backend="cuda"), X, LABELS, shuffle=False, stream=True)[0]
    except fake_cupy.Unordered:
        return
    assert streamed != theta
