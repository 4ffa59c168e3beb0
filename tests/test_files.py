"""Networks in files: what comes back, what a broken file gets, and what a failing or dying writer leaves."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pickle
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import safetensors.numpy

import gpubackprop as gb
from gpubackprop import container, files, tensorfile
from gpubackprop.activations import ACTIVATIONS, Activation
from gpubackprop.errors import InvalidType, InvalidValue, ModelFileError
from gpubackprop.losses import LOSSES, Loss

POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes, pipes and signals of POSIX")
NOBODY = 65534  # another user than root
X = np.random.default_rng(3).normal(size=(9, 4))

cube = Activation("cube", lambda m, z: z * z * z, lambda m, z, a: 3.0 * z * z)
power = Activation(
    "power", lambda m, z, c: c * z * z, lambda m, z, a, c: 2.0 * c * z, parameters={"c": 1.0}, limits={"c": (0.0, 9.0)}
)
quartic = Loss(
    "quartic",
    lambda m, y, a: (a - y) * (a - y) * (a - y) * (a - y),
    lambda m, y, a: 4.0 * (a - y) * (a - y) * (a - y),
)


def _network(dtype: str = "float32", **arguments: Any) -> gb.Network:
    """A network with all its parameters, biases too, drawn at random."""
    net = gb.Network([4, 5, 3, 2], **{"activation": ["tanh", "elu"], "dtype": dtype, "seed": 5, **arguments})
    for _, b in net.parameters:
        b[...] = net.backend.asarray(np.random.default_rng(6).normal(size=b.shape), dtype)
    return net


def _same(a: gb.Network, b: gb.Network) -> None:
    """Assert that two networks are one in everything a file keeps, to the last bit."""
    assert a.architecture == b.architecture
    assert a.metadata == b.metadata
    assert a.theta.dtype == b.theta.dtype
    assert a.theta.tobytes() == b.theta.tobytes()
    assert a.forward(X).tobytes() == b.forward(X).tobytes()


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file, and what follows it."""
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _joined(header: Any, tensors: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


# -- there and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_and_type_comes_back(name: str, dtype: str, tmp_path: Path) -> None:
    own = {} if name == "softmax" else {"activation": [name, ACTIVATIONS[name]]}
    net = _network(dtype, output_activation=name, **own)
    net.save(tmp_path / "model")
    _same(gb.load(tmp_path / "model"), net)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_comes_back(name: str, tmp_path: Path) -> None:
    output = getattr(LOSSES[name].canonical, "name", "softplus")
    net = _network("float64", loss=name, output_activation=output, l2=0.125, dropout=0.3)
    net.save(tmp_path / "model")
    back = gb.load(tmp_path / "model")
    _same(back, net)
    y = np.tile([0.25, 0.75], (len(X), 1))
    assert back.evaluate(X, y) == net.evaluate(X, y)


def test_rows_come_back_with_their_parameters(tmp_path: Path) -> None:
    elu, huber = gb.activations.elu(alpha=0.1 + 0.2), gb.losses.huber(delta=1 / 3)
    net = _network(activation=[elu, gb.activations.leaky_relu(slope=1e-300)], loss=huber)
    net.save(tmp_path / "model")
    back = gb.load(tmp_path / "model")
    _same(back, net)
    assert back.activations[0].parameters == {"alpha": 0.1 + 0.2}
    assert back.loss.parameters == {"delta": 1 / 3}


def test_rows_of_the_user_come_back_where_they_are_given(tmp_path: Path) -> None:
    net = _network("float64", activation=[cube, power(c=3.0)], loss=quartic)
    net.save(tmp_path / "model")
    back = gb.load(tmp_path / "model", rows=[cube, power, quartic])
    _same(back, net)
    assert back.activations[1].parameters == {"c": 3.0}
    for missing, rows in (("'cube'", (power, quartic)), ("'power'", [cube, quartic]), ("'quartic'", [cube, power])):
        with pytest.raises(
            ModelFileError, match=f"model: the .* {missing} is no row of this package: pass your own as rows="
        ):
            gb.load(tmp_path / "model", rows=rows)
    with pytest.raises(ModelFileError, match="'quartic' is no row"):
        gb.load(tmp_path / "model", rows=[cube, power, Activation("quartic", lambda m, z: z, lambda m, z, a: 1.0)])


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"note": "", "": "empty"},
        {"Größe": "π ≈ 3\n\r\n\t\0\x7f", "𝕏": "\ud800"},
        {"format": "7", "pt": "x" * 500_000},
    ],
)
def test_metadata_comes_back(metadata: dict[str, str], tmp_path: Path) -> None:
    net = _network()
    net.metadata = dict(metadata)
    net.save(tmp_path / "model")
    assert gb.load(tmp_path / "model").metadata == metadata


@pytest.mark.parametrize("name", ["model.safetensors", "mit Leerzeichen", "Größe-模型-🙂.st", "no_ending", "x" * 255])
@pytest.mark.parametrize("kind", [str, Path])
def test_paths(name: str, kind: type[Any], tmp_path: Path) -> None:
    folder = tmp_path / "Ordner ß"
    folder.mkdir()
    net = _network()
    net.save(kind(folder / name))
    assert [path.name for path in folder.iterdir()] == [name]
    _same(gb.load(kind(folder / name)), net)


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = _network()
    net.save("model")
    _same(gb.load("model"), net)


def test_bytes_are_those_of_the_parameters_whatever_they_are(tmp_path: Path) -> None:
    """No byte is taken for the end of a line or of a file, and the smallest and largest numbers are kept."""
    net = _network("float32")
    (W, b), *_ = net.parameters
    W[...] = np.frombuffer(b"\r\n\x1a\x00" * W.size, "<f4").reshape(W.shape)
    b[...] = [-0.0, 1e-45, -3.4028235e38, 3.4028235e38, 1 / 3]
    net.save(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = gb.load(tmp_path / "model")
    assert back.theta.tobytes() == net.theta.tobytes()


def test_parameters_all_as_large_as_can_be(tmp_path: Path) -> None:
    net = _network()
    net.parameters[0][1][...] = np.finfo("float32").max
    net.save(tmp_path / "model")
    assert gb.load(tmp_path / "model").theta.tobytes() == net.theta.tobytes()


def test_file_is_safetensors_that_others_read_and_holds_no_pickle(tmp_path: Path) -> None:
    net = _network("float64", l2=0.5)
    net.save(tmp_path / "model")
    content = (tmp_path / "model").read_bytes()
    header, tensors = _split(content)
    about = json.loads(header["__metadata__"]["gpubackprop"])
    assert about["network"]["sizes"] == [4, 5, 3, 2]
    assert about["network"]["l2"] == 0.5
    others = safetensors.numpy.load(content)
    assert sorted(others) == ["W_1", "W_2", "W_3", "b_1", "b_2", "b_3"]
    assert others["W_2"].tobytes() == net.parameters[1][0].tobytes()
    assert len(tensors) == 8 * net.n_parameters
    for part in (content, content[8:], header["__metadata__"]["gpubackprop"].encode()):
        with pytest.raises(Exception, match=r"."):
            pickle.loads(part)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "broadcast": lambda x: np.broadcast_to(x[0], x.shape),
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "no dimension": lambda x: x[0, 0].reshape(()),
    "empty": lambda x: x[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", sorted(tensorfile.KINDS.values()))
def test_arrays_come_back_however_they_lie_in_memory(dtype: str, layout: str, tmp_path: Path) -> None:
    """The format's own writer takes the memory as it is."""
    given = LAYOUTS[layout](np.arange(12).reshape(4, 3).astype(dtype))
    container.write(tmp_path / "file", {}, {"x": given, "y": np.ones(2)}, "content")
    assert np.array_equal(safetensors.numpy.load_file(tmp_path / "file")["x"], given)
    with container.reading(tmp_path / "file", "write") as file:
        back = file.tensors()["x"]
    np.testing.assert_array_equal(back, given)
    assert (back.shape, back.dtype) == (given.shape, np.dtype(dtype))


def test_a_saved_and_loaded_network_trains_on_as_the_first(tmp_path: Path) -> None:
    net, y = _network("float64"), np.random.default_rng(4).normal(size=(9, 2))
    net.save(tmp_path / "model")
    back = gb.load(tmp_path / "model")
    for each in (net, back):
        gb.fit(each, X, y, epochs=3, batch_size=4)
    assert back.theta.tobytes() == net.theta.tobytes()


# -- writing -----------------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_follow_the_umask(umask: int, tmp_path: Path) -> None:
    previous = os.umask(umask)
    try:
        _network().save(tmp_path / "model")
    finally:
        os.umask(previous)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o666 & ~umask


@POSIX
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o666, 0o755])
def test_what_is_replaced_hands_on_its_mode(mode: int, tmp_path: Path) -> None:
    """Nobody who cannot read the file can read the new one, not even before it is whole."""
    path = tmp_path / "model"
    _network().save(path)
    path.chmod(mode)
    with files.replacing(path) as file:
        [temporary] = tmp_path.glob(".*.tmp")
        assert temporary.stat().st_mode & 0o777 == mode
        file.write(b"new")
    assert path.stat().st_mode & 0o777 == mode
    assert path.read_bytes() == b"new"


@POSIX
def test_what_is_replaced_hands_on_its_access_list(tmp_path: Path) -> None:
    """User 7 may read and write; for the mode that is the right of the group."""
    entries = [(1, 6, 2**32 - 1), (2, 6, 7), (4, 0, 2**32 - 1), (16, 6, 2**32 - 1), (32, 0, 2**32 - 1)]
    access = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    path, name = tmp_path / "model", "system.posix_acl_access"
    path.write_bytes(b"")
    try:
        os.setxattr(path, name, access)
    except (OSError, AttributeError):
        pytest.skip("no access lists here")
    _network().save(path)
    assert os.getxattr(path, name) == access


@contextlib.contextmanager
def _as_nobody() -> Iterator[Path]:
    """Be another user than root, in a folder of theirs."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)


@POSIX
def test_what_is_replaced_hands_on_its_owner(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    path = tmp_path / "model"
    _network().save(path)
    os.chown(path, NOBODY, NOBODY + 1)
    path.chmod(0o640)
    _network().save(path)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (NOBODY, NOBODY + 1, 0o640)


@POSIX
def test_rights_do_not_grow_if_the_owner_cannot_be_kept() -> None:
    """The group that may write is not the one of the new file: it gets what everybody has."""
    net = _network()
    with _as_nobody() as folder:
        os.seteuid(0)
        (folder / "model").write_bytes(b"")
        os.chown(folder / "model", 0, 0)
        (folder / "model").chmod(0o662)
        os.seteuid(NOBODY)
        net.save(folder / "model")
        found = (folder / "model").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (NOBODY, NOBODY, 0o622)


@POSIX
def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    """Its folder could be written."""
    net = _network()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_as_nobody()) if os.geteuid() == 0 else tmp_path
        path = folder / "model"
        path.write_bytes(b"old")
        path.chmod(0o444)
        with pytest.raises(PermissionError, match=r"model'$"):
            net.save(path)
        assert path.read_bytes() == b"old"
        assert list(folder.iterdir()) == [path]


@POSIX
@pytest.mark.parametrize("link", ["model", "folder"])
def test_links_that_others_made_are_not_followed(link: str, tmp_path: Path) -> None:
    """In a folder that all can write, as /tmp, another user leads root to a file of root's."""
    if os.geteuid() != 0:
        pytest.skip("only root gives links away")
    public, private = tmp_path / "public", tmp_path / "private"
    public.mkdir()
    public.chmod(0o1777)
    private.mkdir()
    (private / "model").write_bytes(b"mine")
    path = public / "model" if link == "model" else public / "folder" / "model"
    (public / link).symlink_to(private / "model" if link == "model" else private)
    os.lchown(public / link, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match=r"a link that another user \(uid 65534\) made is on the way"):
        _network().save(path)
    assert (private / "model").read_bytes() == b"mine"
    os.chown(public, NOBODY, NOBODY)  # whoever owns the folder may say what it holds
    _network().save(path)
    assert (private / "model").read_bytes() != b"mine"


class _FullDisk:
    """A file on a disk that takes so many bytes more."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, content: bytes) -> int:
        self._file.write(content[: self._room])
        if len(content) > self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _FullDisk:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _full_disk(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    def opened(path: Path, mode: str, **rest: Any) -> Any:
        return _FullDisk(open(path, mode, **rest), room)  # noqa: PTH123 - as the module calls it

    monkeypatch.setattr("gpubackprop.files.open", opened, raising=False)


def _failing(module: Any, name: str, error: BaseException) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr(module, name, fail)

    return plant


FAILURES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no room at all": lambda monkeypatch: _full_disk(monkeypatch, 0),
    "room for half": lambda monkeypatch: _full_disk(monkeypatch, 600),
    "fsync": _failing(os, "fsync", OSError(errno.EIO, "Input/output error")),
    "replace": _failing(Path, "replace", OSError(errno.EACCES, "Permission denied")),
    "open": _failing(os, "open", OSError(errno.EROFS, "Read-only file system")),
    "Ctrl-C in fsync": _failing(os, "fsync", KeyboardInterrupt()),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("exists", [True, False])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    failure: str, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = _network(seed=1), _network(seed=2)
    if exists:
        old.save(tmp_path / "model")
    with monkeypatch.context() as patch, pytest.raises((OSError, KeyboardInterrupt)):
        FAILURES[failure](patch)
        new.save(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"] * exists
    if exists:
        _same(gb.load(tmp_path / "model"), old)
    new.save(tmp_path / "model")
    _same(gb.load(tmp_path / "model"), new)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a tmpfs; the same with a planted ENOSPC is tested above")
    try:
        small, large = _network(), gb.Network([100, 300, 10])
        small.save(disk / "model")
        with pytest.raises(OSError, match="No space left"):
            large.save(disk / "model")
        assert [path.name for path in disk.iterdir()] == ["model"]
        _same(gb.load(disk / "model"), small)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_refused_metadata_leaves_the_old_file(tmp_path: Path) -> None:
    net = _network()
    net.save(tmp_path / "model")
    before = (tmp_path / "model").read_bytes()
    net.metadata = {"log": "x" * container.LONGEST}
    with pytest.raises(InvalidValue, match="at most"):
        net.save(tmp_path / "model")
    net.metadata = {"epochs": 3}  # type: ignore[dict-item]
    with pytest.raises(InvalidType, match="strings by name"):
        net.save(tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


SAVES_IN_A_LOOP = """
import sys
import gpubackprop as gb
net = gb.Network([64, 256, 10])
print("ready", flush=True)
while True:
    net.theta[...] += 1.0
    net.save(sys.argv[1])
"""


def _kill_while_it_saves(path: Path, after: float) -> None:
    """Start a process that saves again and again, and kill it so many seconds after its first word."""
    with processes.started([sys.executable, "-c", SAVES_IN_A_LOOP, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def _whole_after_kills(path: Path, kills: int) -> int:
    """Return how many kills fell into the middle of a save, after having seen a whole file after each."""
    gb.Network([64, 256, 10]).save(path)
    first = gb.load(path).theta
    rng = random.Random(kills)
    for _ in range(kills):
        _kill_while_it_saves(path, rng.uniform(0.0, 0.03))
        steps = gb.load(path).parameters[0][0] - gb.Network([64, 256, 10]).parameters[0][0]
        assert np.allclose(steps, round(float(steps.mean())), atol=1e-3), "weights of two saves in one file"
        assert first.shape == gb.load(path).theta.shape
    return len(list(path.parent.glob(".*.tmp")))


@POSIX
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    _whole_after_kills(tmp_path / "model", 15)


@POSIX
@pytest.mark.slow
def test_a_writer_killed_a_hundred_times_leaves_whole_files(tmp_path: Path) -> None:
    in_the_middle = _whole_after_kills(tmp_path / "model", 100)
    assert in_the_middle > 5, "the kills hardly ever met a save: they show nothing"


# -- broken files ------------------------------------------------------------------------------------------------------

Mutation = Callable[[bytes, random.Random], bytes]


def _flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flip_bits_of_the_header(content: bytes, rng: random.Random) -> bytes:
    changed, end = bytearray(content), 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(rng.choice((1, 1, 3))):
        changed[rng.randrange(8, end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.choice((1, 4, 8, 100))) + content[at:]


def _delete(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.choice((1, 4, 8, 100)) :]


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _header_length(content: bytes, rng: random.Random) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    edits = (
        0,
        1,
        length - 1,
        length + 1,
        len(content) - 8,
        len(content),
        2**20,
        2**31,
        2**63,
        2**64 - 1,
        rng.getrandbits(64),
    )
    return struct.pack("<Q", rng.choice(edits)) + content[8:]


def _swap_blocks(content: bytes, rng: random.Random) -> bytes:
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[b:] + content[a:b] + content[:a]


NUMBERS = (
    0,
    -1,
    -(2**63),
    2**31,
    2**62,
    2**63,
    2**64,
    10**30,
    10**400,
    1.0,
    1e308,
    3.5,
    True,
    None,
    "4",
    [],
    {},
    [[4]],
)
OTHERS: tuple[Any, ...] = (*NUMBERS, "", "F32", "F64", "BF16", "I32", "float16", [0, 0], {"name": "relu"}, [None] * 3)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Go through all entries of nested lists and dicts, as containers and keys."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def _edit_tensors(content: bytes, rng: random.Random) -> bytes:
    header, tensors = _split(content)
    about = header.pop("__metadata__")
    container, key = rng.choice(list(_places(header)))
    _edit(container, key, rng)
    return _joined({"__metadata__": about, **header}, tensors)


def _edit_network(content: bytes, rng: random.Random) -> bytes:
    header, tensors = _split(content)
    about = json.loads(header["__metadata__"]["gpubackprop"])
    container, key = rng.choice(list(_places(about)))
    _edit(container, key, rng)
    text = json.dumps(about)
    for long, short in (("1e+308", "1e400"), ("1e308", "1e400"), ("3.5", rng.choice(("NaN", "-Infinity", "1e-400")))):
        text = text.replace(long, short) if rng.random() < 0.5 else text
    header["__metadata__"]["gpubackprop"] = text
    return _joined(header, tensors)


def _edit(container: Any, key: Any, rng: random.Random) -> None:
    """Change, remove or double one entry."""
    what = rng.random()
    if what < 0.7:
        container[key] = rng.choice(OTHERS)
    elif what < 0.85:
        del container[key]
    elif isinstance(container, list):
        container.insert(key, container[key])
    else:
        container[f"{key}x"] = container.pop(key)


def _weights(content: bytes, rng: random.Random) -> bytes:
    """Write a number that is not finite, or the largest, over a parameter."""
    header, tensors = _split(content)
    at = 4 * rng.randrange(len(tensors) // 4)
    value = rng.choice((math.nan, math.inf, -math.inf, 3.4028235e38, -3.4028235e38, 1e-45))
    return _joined(header, tensors[:at] + struct.pack("<f", value) + tensors[at + 4 :])


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits, _flip_bits_of_the_header, _insert, _delete, _truncate, _header_length, _swap_blocks, _edit_tensors,
    _edit_tensors, _edit_network, _edit_network, _edit_network, _weights,
)  # fmt: skip


def _loads_or_is_refused(path: Path) -> bool:
    """Return whether a file loads; assert that it then is a whole network, and else refused in one way, and quickly."""
    started = time.thread_time()  # whatever else the machine does
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            net = gb.load(path, backend="numpy")
        except Exception as error:
            assert type(error) is ModelFileError, repr(error)
            assert re.search("accepted are files written by Network.save|accepted are rows of this package", str(error))
            assert len(str(error)) < 1000
            net = None
    assert time.thread_time() - started < 1.0
    if net is None:
        return False
    assert np.isfinite(net.theta).all()
    assert net.forward(np.zeros((2, net.sizes[0]))).shape == (2, net.sizes[-1])
    assert net.theta.size == net.layout.size
    return True


def _mutated(path: Path, count: int, seed: int) -> dict[str, list[int]]:
    """Load so many mutated files; return, by mutation, how many were refused and how many loaded."""
    originals = []
    for net in (_network(), _network("float64", loss="huber", l2=0.1), gb.Network([3, 1])):
        net.metadata = {"note": "ä"}
        net.save(path)
        originals.append(path.read_bytes())
    rng, outcomes = random.Random(seed), {mutation.__name__: [0, 0] for mutation in MUTATIONS}
    for k in range(count):
        mutation = MUTATIONS[k % len(MUTATIONS)]
        path.write_bytes(mutation(rng.choice(originals), rng))
        outcomes[mutation.__name__][_loads_or_is_refused(path)] += 1
    return outcomes


def _not_all_of_one_kind(outcomes: dict[str, list[int]]) -> None:
    """Hold the fuzzing itself to account: flipped weights load, and what breaks a file is refused."""
    assert all(sum(counts) > 0 for counts in outcomes.values())
    assert outcomes["_flip_bits"][True] > 0
    assert outcomes["_weights"][True] > 0
    assert outcomes["_weights"][False] > 0
    assert outcomes["_truncate"][True] == outcomes["_delete"][True] == 0
    assert outcomes["_edit_network"][False] > outcomes["_edit_network"][True]


def test_a_thousand_mutated_files(tmp_path: Path) -> None:
    _not_all_of_one_kind(_mutated(tmp_path / "model", 1000, seed=1))


@pytest.mark.slow
def test_ten_thousand_mutated_files(tmp_path: Path) -> None:
    _not_all_of_one_kind(_mutated(tmp_path / "model", 10_000, seed=2))


def _with_network(**changes: Any) -> Callable[[dict[str, Any], bytes], bytes]:
    """Return an edit of what the header says of the network; ``...`` takes an entry out."""

    def edit(header: dict[str, Any], tensors: bytes) -> bytes:
        about = json.loads(header["__metadata__"]["gpubackprop"])
        for name, value in changes.items():
            about["network"][name] = value
            if value is ...:
                del about["network"][name]
        return _with_text(json.dumps(about))(header, tensors)

    return edit


def _with_text(text: str) -> Callable[[dict[str, Any], bytes], bytes]:
    """Return an edit that puts another text in the place of the network's JSON."""
    return lambda header, tensors: _joined({**header, "__metadata__": {"gpubackprop": text}}, tensors)


def _with_l2(digits: str) -> Callable[[dict[str, Any], bytes], bytes]:
    """Return an edit that writes λ in digits that JSON's writer would not use."""

    def edit(header: dict[str, Any], tensors: bytes) -> bytes:
        text = header["__metadata__"]["gpubackprop"]
        assert text.count('"l2": 0.0') == 1
        return _with_text(text.replace('"l2": 0.0', f'"l2": {digits}'))(header, tensors)

    return edit


def _with_about(**changes: Any) -> Callable[[dict[str, Any], bytes], bytes]:
    def edit(header: dict[str, Any], tensors: bytes) -> bytes:
        about = {**json.loads(header["__metadata__"]["gpubackprop"]), **changes}
        return _with_text(json.dumps(about))(header, tensors)

    return edit


def _with_tensor(name: str, **changes: Any) -> Callable[[dict[str, Any], bytes], bytes]:
    return lambda header, tensors: _joined({**header, name: {**header[name], **changes}}, tensors)


def _without_tensor(header: dict[str, Any], tensors: bytes) -> bytes:
    return _joined({name: entry for name, entry in header.items() if name != "b_2"}, tensors)


def _one_tensor_more(header: dict[str, Any], tensors: bytes) -> bytes:
    end = len(tensors)
    more = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
    return _joined({**header, "extra": more}, tensors + b"\0\0\0\0")


def _doubled_key(header: dict[str, Any], tensors: bytes) -> bytes:
    text = json.dumps(header)
    return _joined(f'{text[:-1]}, "b_1": {json.dumps({**header["b_1"], "shape": [10**9]})}}}'.encode(), tensors)


def _row(name: Any, **parameters: Any) -> dict[str, Any]:
    return {"name": name, "parameters": parameters}


TANH, ELU, IDENTITY = _row("tanh"), _row("elu", alpha=1.0), _row("identity")
DEEP = "[" * 100_000 + "]" * 100_000

# Each edit of the header with what the message must say.
BROKEN: dict[str, tuple[Callable[[dict[str, Any], bytes], bytes], str]] = {
    "no bytes": (lambda header, tensors: b"", "it has 0 bytes, and 8 are needed"),
    "seven bytes": (lambda header, tensors: b"\x01\0\0\0\0\0\0", "it has 7 bytes"),
    "a header of no length": (lambda header, tensors: _joined(b"", tensors), "JSONDecodeError"),
    "a pickle": (lambda header, tensors: pickle.dumps({"W_1": [1.0]}), "header"),
    "a JPEG": (lambda header, tensors: b"\xff\xd8\xff\xe0" + bytes(5000), "header"),
    "a foreign model": (lambda h, t: safetensors.numpy.save({"w": np.ones(3)}), "no entry 'gpubackprop'"),
    "a foreign model with metadata": (
        lambda h, t: safetensors.numpy.save({"w": np.ones(3)}, {"format": "pt"}),
        "no entry 'gpubackprop'",
    ),
    "a header that is a list": (lambda header, tensors: _joined(b"[1, 2]", tensors), r"Error: "),
    "a header in UTF-16, text cut": (lambda h, t: _joined(json.dumps(h).encode("utf-16")[:-2], t), "UnicodeDecode"),
    "a deep header": (lambda header, tensors: _joined(DEEP.encode(), tensors), "Recursion"),
    "a deep entry": (lambda header, tensors: _joined(f'{{"a": {DEEP}}}'.encode(), tensors), "Recursion"),
    "a deep network": (_with_text(f'{{"format": 1, "network": {DEEP}}}'), "Recursion"),
    "a long header": (lambda header, tensors: _joined(b" " * 2**21 + json.dumps(header).encode(), tensors), "2,09"),
    "no JSON inside": (_with_text("import os"), "JSON"),
    "JSON of another kind inside": (_with_text("[]"), "Error: "),
    "a later format": (_with_about(format=2), "its format is 2, this version reads 1"),
    "no format": (_with_text("{}"), "no entry 'format'"),
    "no network": (_with_text('{"format": 1}'), "no entry 'network'"),
    "metadata with a number": (_with_about(metadata={"a": 1}), "dict of strings by name"),
    "metadata that is a list": (_with_about(metadata=["a"]), "dict of strings by name"),
    "no sizes": (_with_network(sizes=...), "no entry 'sizes'"),
    "huge sizes": (_with_network(sizes=[10**9, 10**9, 3, 2]), r"\[4, 5\]"),
    "sizes beyond all": (_with_network(sizes=[10**400, 10**400, 3, 2]), r"\[4, 5\]"),
    "negative sizes": (_with_network(sizes=[4, -5, 3, 2]), "at least 1, got -5"),
    "zero sizes": (_with_network(sizes=[4, 0, 3, 2]), "at least 1, got 0"),
    "sizes in floats": (_with_network(sizes=[4, 5.0, 3, 2]), "integer"),
    "sizes by truth": (_with_network(sizes=[4, True, 3, 2]), "integer"),
    "sizes in a string": (_with_network(sizes="4532"), "sequence of integers"),
    "another layer": (_with_network(sizes=[4, 5, 3, 3, 2]), "3 layers"),
    "many sizes": (_with_network(sizes=[1] * 250_000), "3 layers"),
    "many activations": (_with_network(sizes=[1] * 10_001, activations=[ELU] * 10_000), "3 layers"),
    "sizes of another net": (_with_network(sizes=[4, 5, 2, 3]), r"W_\d is|b_\d is"),
    "no activations": (_with_network(activations=[]), "3 layers"),
    "activations in a string": (_with_network(activations="abc"), "Error"),
    "an unknown row": (_with_network(activations=[TANH, _row("sinus"), IDENTITY]), "'sinus' is no row"),
    "a row without a name": (_with_network(activations=[TANH, {"parameters": {}}, IDENTITY]), "no entry 'name'"),
    "a row's name in a list": (_with_network(activations=[TANH, _row(["elu"]), IDENTITY]), "TypeError"),
    "softmax inside": (_with_network(activations=[TANH, _row("softmax"), IDENTITY]), "last layer alone"),
    "a loss for an activation": (_with_network(activations=[TANH, _row("mse"), IDENTITY]), "'mse' is no row"),
    "a parameter below its limit": (_with_network(activations=[TANH, _row("elu", alpha=-1), IDENTITY]), "got -1"),
    "a parameter that is not": (_with_network(activations=[TANH, _row("elu", beta=1), IDENTITY]), "'alpha'"),
    "a parameter in a string": (_with_network(activations=[TANH, _row("elu", alpha="1"), IDENTITY]), "number"),
    "a parameter named self": (_with_network(activations=[TANH, _row("elu", self=1), IDENTITY]), "self"),
    "NaN for a parameter": (_with_network(activations=[TANH, _row("elu", alpha=math.nan), IDENTITY]), "finite"),
    "1e400 for l2": (_with_l2("1e400"), "l2 must be a finite"),
    "infinity for l2": (_with_network(l2=math.inf), "l2 must be a finite"),
    "a long integer for l2": (_with_network(l2=10**400), "l2 must be a finite"),
    "an endless integer for l2": (_with_l2("9" * 5000), "digits"),
    "no l2": (_with_network(l2=...), "argument.* 'l2'"),
    "all units dropped": (_with_network(dropout=1.0), "dropout"),
    "an unknown type": (_with_network(dtype="float16"), "dtype"),
    "another type": (_with_network(dtype="float64"), "F32"),
    "an argument more": (_with_network(backend="cuda"), "backend"),
    "a private argument": (_with_network(activation=["relu"]), "activation"),
    "a missing tensor": (_without_tensor, "one behind the other"),
    "one tensor more": (_one_tensor_more, "layers|fit"),
    "a key twice": (_doubled_key, "a name twice"),
    "a tensor of another shape": (_with_tensor("W_1", shape=[5, 4]), r"W_1 is \[5, 4\]"),
    "a flat tensor": (_with_tensor("W_1", shape=[20]), r"W_1 is \[20\]"),
    "a tensor of a negative shape": (_with_tensor("W_1", shape=[-4, -5]), "W_1 is of no shape"),
    "a tensor of another type": (_with_tensor("W_1", dtype="I32"), "W_1 is .* of I32"),
    "a tensor outside the file": (_with_tensor("W_1", data_offsets=[10**9, 10**9 + 80]), "one behind the other"),
    "a tensor before the file": (_with_tensor("W_1", data_offsets=[-80, 0]), "at no place"),
    "a tensor over another": (_with_tensor("W_1", data_offsets=[80, 160]), "one behind the other"),
    "a tensor of no place": (_with_tensor("W_1", data_offsets=None), "TypeError"),
    "a tensor's place in floats": (_with_tensor("W_1", data_offsets=["0", "80"]), "at no place"),
    "a tensor of many dimensions": (_with_tensor("W_1", shape=[1] * 40 + [4, 5]), "W_1 is of no shape"),
    "a tensor that does not fit its place": (_with_tensor("W_1", shape=[4, 4]), "W_1 does not fit its place"),
    "a tensor of a strange type": (_with_tensor("W_1", dtype="BF16"), "W_1 is of BF16; accepted are "),
    "a tensor without a shape": (lambda h, t: _joined({**h, "W_1": {"dtype": "F32"}}, t), "no entry 'shape'"),
    "bytes behind": (lambda header, tensors: _joined(header, tensors + b"\0"), "up to its end"),
    "bytes missing": (lambda header, tensors: _joined(header, tensors[:-1]), "up to its end"),
    "NaN among the weights": (lambda h, t: _joined(h, struct.pack("<f", math.nan) + t[4:]), "NaN or infinity"),
    "infinity of both signs": (
        lambda h, t: _joined(h, struct.pack("<ff", math.inf, -math.inf) + t[8:]),
        "NaN or infinity",
    ),
    "a signalling NaN": (lambda h, t: _joined(h, struct.pack("<I", 0x7FA00000) + t[4:]), "NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_file(fault: str, tmp_path: Path) -> None:
    edit, says = BROKEN[fault]
    path = tmp_path / "model"
    _network().save(path)
    assert _loads_or_is_refused(path)
    path.write_bytes(edit(*_split(path.read_bytes())))
    assert not _loads_or_is_refused(path)
    with pytest.raises(ModelFileError, match=says):
        gb.load(path)
    path.unlink()  # nothing holds it open


def test_a_header_with_blanks_in_another_order_loads(tmp_path: Path) -> None:
    """What other writers of the format may do: order, indentation, padding."""
    net = _network()
    net.save(tmp_path / "model")
    header, tensors = _split((tmp_path / "model").read_bytes())
    text = json.dumps(dict(reversed(header.items())), indent=2) + " " * 7
    (tmp_path / "model").write_bytes(_joined(text.encode(), tensors))
    _same(gb.load(tmp_path / "model"), net)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        gb.load(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"."):
        gb.load(tmp_path)
    with pytest.raises(OSError, match=r"."):
        _network().save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder/model'$"):
        _network().save(tmp_path / "no folder" / "model")
    with pytest.raises(OSError, match=f"{'x' * 256}'$"):
        _network().save(tmp_path / ("x" * 256))
    with pytest.raises(NotADirectoryError, match=r"LICENSE/model'$"):
        _network().save(Path(__file__).parents[1] / "LICENSE" / "model")
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Turn a wait without an end into a failure."""

    def fail(number: int, frame: Any) -> None:
        pytest.fail(f"it took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@POSIX
def test_links_and_pipes(tmp_path: Path) -> None:
    loop, pipe, link = tmp_path / "loop", tmp_path / "pipe", tmp_path / "link"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "model")
    net = _network()
    with pytest.raises(OSError, match="symbolic links"):
        gb.load(loop)
    for endless in (pipe, Path("/dev/zero")):
        with _at_most(5), pytest.raises(ModelFileError, match="a pipe or a device"):
            gb.load(endless)
    with pytest.raises(FileNotFoundError):
        gb.load(link)
    net.save(tmp_path / "model")
    _same(gb.load(link), net)
    for special in (pipe, Path("/dev/null")):
        with pytest.raises(InvalidValue, match="a pipe or a device"):
            net.save(special)
    assert pipe.is_fifo()
    other = _network(seed=9)
    other.save(link)
    assert link.is_symlink(), "what a link points at is replaced, not the link"
    _same(gb.load(tmp_path / "model"), other)


LOADS_WHAT_SHRINKS = """
import os, sys
import gpubackprop as gb
build = gb.Network._build
def shrinks(self, *arguments):
    build(self, *arguments)
    os.truncate(sys.argv[1], 4096)
gb.Network._build = shrinks
try:
    gb.load(sys.argv[1], backend="numpy")
except gb.errors.ModelFileError as error:
    print(error)
"""


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """Of a file in a map of memory the system would end the process."""
    gb.Network([100, 100, 100], backend="numpy").save(tmp_path / "model")
    program = [sys.executable, "-c", LOADS_WHAT_SHRINKS, str(tmp_path / "model")]
    run = subprocess.run(program, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "it was changed while it was read: load it again" in run.stdout


def test_a_file_that_is_rewritten_while_it_is_read(tmp_path: Path) -> None:
    """Its tensors would be of two networks."""
    for k in (1, 2):
        _network(seed=k).save(tmp_path / str(k))
    with container.reading(tmp_path / "1", "Network.save") as file:
        list(file.blocks("W_1"))
        before = (tmp_path / "1").stat().st_mtime
        (tmp_path / "1").write_bytes((tmp_path / "2").read_bytes())
        os.utime(tmp_path / "1", (before, before + 1))  # a clock may be too coarse for two writes
        for read in (lambda: list(file.blocks("W_2")), lambda: list(file.blocks("W_1"))):
            with pytest.raises(ModelFileError, match="it was changed while it was read"):
                read()


def test_parameters_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    """No file would be readable; the old one stays."""
    net, path = _network(), tmp_path / "model"
    net.save(path)
    kept = path.read_bytes()
    net.theta[0] = np.nan
    with pytest.raises(InvalidValue, match="nothing was written"):
        net.save(path)
    assert path.read_bytes() == kept
    assert list(tmp_path.iterdir()) == [path]


def test_rows_with_one_name_are_refused(tmp_path: Path) -> None:
    one, other = (
        gb.activations.Activation("mine", lambda m, z, k=k: z * k, lambda m, z, a, k=k: k) for k in (1.0, 2.0)
    )
    gb.Network([2, 3, 3, 1], activation=[one, one]).save(tmp_path / "model")
    with pytest.raises(InvalidValue, match="two rows with the name 'mine'"):
        gb.Network([2, 3, 3, 1], activation=[one, other]).save(tmp_path / "model")
    with pytest.raises(InvalidValue, match="two rows with the name 'mine'"):
        gb.load(tmp_path / "model", rows=[one, other])
    relu = gb.activations.Activation("relu", lambda m, z: z, lambda m, z, a: 1.0)
    with pytest.raises(InvalidValue, match="two rows with the name 'relu'"):
        gb.load(tmp_path / "model", rows=[one, relu])
    assert gb.load(tmp_path / "model", rows=[one]).activations[0] is one


@POSIX
@pytest.mark.skipif("os.name != 'posix' or os.geteuid() == 0", reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    _network().save(tmp_path / "model")
    (tmp_path / "model").chmod(0)
    with pytest.raises(PermissionError):
        gb.load(tmp_path / "model")


# -- memory ------------------------------------------------------------------------------------------------------------

PEAK = """
import re, resource, sys
from pathlib import Path
import gpubackprop as gb
from gpubackprop.errors import ModelFileError

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

gb.Network([4, 2], backend="numpy").forward([[1.0] * 4])
if sys.argv[2] != "0":
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
before = peak()
try:
    outcome = gb.load(sys.argv[1], backend="numpy").sizes
except ModelFileError as error:
    outcome = "refused"
print(outcome, peak() - before)
"""
MiB = 2**20
CONSTANT = 32 * MiB


def _peak(path: Path, limit: int = 0) -> tuple[str, int]:
    """Return what loading a file gave in a process of its own, and the bytes by which its memory peaked."""
    command = [sys.executable, "-c", PEAK, str(path), str(limit)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    outcome, bytes_ = run.stdout.rsplit(maxsplit=1)
    return outcome, int(bytes_)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of some 60 MB, nearly all of it one layer."""
    path = tmp_path_factory.mktemp("large") / "model"
    gb.Network([4000, 4000, 2], initializer="lecun_uniform").save(path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and sets RLIMIT_AS")
def test_memory_stays_within_twice_the_file(large: Path, tmp_path: Path) -> None:
    size = large.stat().st_size
    assert size > 60 * MiB
    outcome, peak = _peak(large)
    assert outcome == "(4000, 4000, 2)"
    assert size < peak < 2 * size + CONSTANT
    content = large.read_bytes()
    header, tensors = _split(content)
    broken = {
        "cut": content[: len(content) // 2],
        "NaN at the end": content[:-4] + struct.pack("<f", math.nan),
        "longer": content + bytes(8),
        "one header": struct.pack("<Q", len(content) - 8) + content[8:],
        "huge": _with_network(sizes=[10**9, 10**9, 2])(header, tensors),
        "huge tensor": _with_tensor("W_1", shape=[10**9, 10**9], data_offsets=[0, 4 * 10**18])(header, tensors),
    }
    for name, changed in broken.items():
        (tmp_path / "model").write_bytes(changed)
        outcome, peak = _peak(tmp_path / "model")
        assert outcome == "refused", name
        assert peak < 2 * size + CONSTANT, name


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and sets RLIMIT_AS")
@pytest.mark.parametrize("amount", [10**6, 10**9, 2**40])
def test_no_memory_is_taken_for_sizes_that_are_only_promised(amount: int, tmp_path: Path) -> None:
    path = tmp_path / "model"
    _network().save(path)
    header, tensors = _split(path.read_bytes())
    promises = [
        _with_network(sizes=[amount, amount, 3, 2])(header, tensors),
        _with_tensor("W_1", shape=[amount, 5])(header, tensors),
        _with_tensor("b_3", data_offsets=[0, 4 * amount])(header, tensors),
        struct.pack("<Q", 4 * amount) + path.read_bytes()[8:],
        _joined(b"[" + b"[]," * 340_000 + b"[]]", tensors),
        _with_network(sizes=[amount], activations=[TANH] * 9_000)(header, tensors),
    ]
    for k, promise in enumerate(promises):
        path.write_bytes(promise)
        outcome, peak = _peak(path, limit=6 * 2**30)
        assert outcome == "refused", k
        assert peak < 2 * len(promise) + CONSTANT, k
