"""Damaged files of examples and models, each made from a number: the same number makes the same file."""

from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy

ROWS, FEATURES = 24, 4
DATA = numpy.random.default_rng(0)
MATRIX = DATA.normal(size=(ROWS, FEATURES + 1))
MATRIX[:, -1] = numpy.arange(ROWS) % 3
X, LABELS = MATRIX[:, :-1], MATRIX[:, -1].astype(int)
CSV = "a,b,c,d,kind\n" + "".join(
    ",".join(f"{x:.6g}" for x in row) + f",{y}\n" for row, y in zip(X, LABELS, strict=True)
)


# -- whole files -------------------------------------------------------------------------------------------------------


def _npy(rng: numpy.random.Generator) -> bytes:
    kinds = [MATRIX, MATRIX.astype("f4"), MATRIX.astype("i1"), numpy.asfortranarray(MATRIX), MATRIX.astype(">f8")]
    file = io.BytesIO()
    numpy.lib.format.write_array(file, kinds[rng.integers(len(kinds))], version=(int(rng.integers(1, 3)), 0))
    return file.getvalue()


def _npz(rng: numpy.random.Generator) -> bytes:
    file, y = io.BytesIO(), LABELS if rng.random() < 0.5 else LABELS.astype(str)
    save = numpy.savez if rng.random() < 0.5 else numpy.savez_compressed
    save(file, X=X, y=y, **({"other": numpy.zeros(10**5)} if rng.random() < 0.3 else {}))
    return file.getvalue()


def _csv(rng: numpy.random.Generator) -> bytes:
    text = CSV if rng.random() < 0.7 else CSV.partition("\n")[2]
    return re.sub(r",(\d\n)", r",k\1", text).encode() if rng.random() > 0.7 else text.encode()


def _table(rng: numpy.random.Generator, suffix: str) -> bytes:
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    columns = {f"x{k}": X[:, k].astype(["f8", "f4"][rng.integers(2)]) for k in range(FEATURES)}
    table, file = pyarrow.table({**columns, "y": LABELS, "w": abs(X[:, 0])}), io.BytesIO()
    if suffix == ".parquet":
        packing = ["none", "snappy", "zstd", "gzip"][rng.integers(4)]
        pyarrow.parquet.write_table(table, file, compression=packing, row_group_size=int(rng.integers(8, 30)))
    else:
        pyarrow.feather.write_feather(table, file, ["uncompressed", "lz4", "zstd"][rng.integers(3)])
    return file.getvalue()


@cache
def _model() -> bytes:
    return Path("whole/model.safetensors").read_bytes()


# -- damage ------------------------------------------------------------------------------------------------------------


def _flipped(content: bytes, rng: numpy.random.Generator) -> bytes:
    found = bytearray(content)
    reach = len(found) if rng.random() < 0.5 else min(200, len(found))  # headers are short
    for place in rng.integers(reach, size=rng.integers(1, 5)):
        found[place] ^= 1 << int(rng.integers(8))
    return bytes(found)


def _cut(content: bytes, rng: numpy.random.Generator) -> bytes:
    return content[: rng.integers(len(content))]


def _spliced(content: bytes, rng: numpy.random.Generator) -> bytes:
    a, b, start = sorted(rng.integers(len(content), size=2)), rng.integers(len(content)), rng.integers(3)
    part = content[a[0] : a[1]] if start else rng.bytes(int(rng.integers(1, 64)))
    return content[:b] + part + content[b + len(part) * int(rng.integers(2)) :]


NUMBERS = [
    b"0",
    b"-1",
    b"1e999",
    b"99999999999",
    b"9" * 40,
    b"nan",
    b"0x7",
    b"1_0",
    b"(((((",
    b"None",
    b"'",
    b'"',
    b"\0",
    b"\xff",
]


def _edited(content: bytes, rng: numpy.random.Generator) -> bytes:
    """Put another word in the place of a word, in the head or anywhere."""
    words = list(re.finditer(rb"[\w.+-]+", content if rng.random() < 0.3 else content[:160]))
    if not words:
        return _flipped(content, rng)
    word = words[rng.integers(len(words))]
    other = NUMBERS[rng.integers(len(NUMBERS))] * int(rng.choice([1, 1, 1, 50, 3000]))
    return content[: word.start()] + other + content[word.end() :]


def _member(content: bytes, rng: numpy.random.Generator) -> bytes:
    """Change fields of a zip's directory: flags, method, sizes, offsets; or damage a member and pack it again."""
    if rng.random() < 0.6:
        found = bytearray(content)
        places = [match.start() for match in re.finditer(rb"PK[\1\5][\2\6]", content)] or [0]
        place = places[rng.integers(len(places))] + int(rng.choice([6, 8, 10, 12, 16, 20, 24, 28, 42]))
        value = int(rng.choice([0, 1, 2, 8, 12, 14, 99, 2**16 - 1, 2**31, 2**32 - 1]))
        found[place : place + 4] = struct.pack("<I", value)[: rng.choice([2, 4])]
        return bytes(found)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(made, "w") as archive:
        for info in whole.infolist():
            damage = [_flipped, _edited, _cut][rng.integers(3)] if rng.random() < 0.6 else lambda x, rng: x
            name = info.filename if rng.random() < 0.9 else "Y/../X.npy"
            archive.writestr(name, damage(whole.read(info), rng), rng.choice([0, 8, 12, 14]))
    return made.getvalue()


JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    3,
    1e308,
    10**30,
    float("nan"),
    "",
    "k0",
    "\ud800",
    "a\nb\0",
    [],
    {},
    [1],
    {"a": 1},
]
DEEP = "[" * 3000 + "]" * 3000


def _altered(content: bytes, rng: numpy.random.Generator) -> bytes:
    """Change values in the JSON of a model, at any depth, the user's metadata among them, in an else whole file."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["gpubackprop"])
    inner["metadata"] = {name: json.loads(value) for name, value in inner["metadata"].items()}
    for _ in range(rng.integers(1, 4)):
        _alter(inner["metadata"] if rng.random() < 0.7 else inner, rng)
    if isinstance(inner.get("metadata"), dict):
        inner["metadata"] = {
            name: DEEP if rng.random() < 0.02 else json.dumps(value) for name, value in inner["metadata"].items()
        }
    header["__metadata__"]["gpubackprop"] = json.dumps(inner)
    written = json.dumps(header).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written + content[8 + length :]


def _alter(tree: Any, rng: numpy.random.Generator) -> None:
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    if not keys:
        return
    key = keys[rng.integers(len(keys))]
    if isinstance(tree[key], (dict, list)) and rng.random() < 0.6:
        _alter(tree[key], rng)
    elif rng.random() < 0.15:
        del tree[key]
    elif isinstance(tree[key], list) and rng.random() < 0.5:
        tree[key] = tree[key][:-1] if rng.random() < 0.5 else [*tree[key], *tree[key][:1]]
    else:
        tree[key] = JUNK[rng.integers(len(JUNK))]


Damage = Callable[[bytes, numpy.random.Generator], bytes]
# By the ending of the file: what makes a whole one, and what may be done to it.
KINDS: dict[str, tuple[Callable[[Any], bytes], list[Damage]]] = {
    ".npy": (_npy, [_flipped, _flipped, _cut, _spliced, _edited, _edited]),
    ".npz": (_npz, [_flipped, _cut, _spliced, _member, _member]),
    ".csv": (_csv, [_flipped, _cut, _spliced, _edited, _edited]),
    ".parquet": (partial(_table, suffix=".parquet"), [_flipped, _flipped, _cut, _spliced]),
    ".arrow": (partial(_table, suffix=".arrow"), [_flipped, _flipped, _cut, _spliced]),
    ".safetensors": (lambda rng: _model(), [_altered, _altered, _altered, _flipped, _cut, _spliced]),
}


def made(number: int) -> tuple[str, bytes]:
    """Return the ending of the file of a number, and its content."""
    rng = numpy.random.default_rng([7, number])
    suffix = list(KINDS)[number % len(KINDS)]
    whole, damages = KINDS[suffix]
    damage, content = damages[rng.integers(len(damages))], whole(rng)
    for _ in range(1 if rng.random() < 0.8 else 2):
        with contextlib.suppress(Exception):  # of a second damage that cannot be done to the first
            content = damage(content, rng) if content else content
    return suffix, content
