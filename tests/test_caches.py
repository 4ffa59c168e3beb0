"""The folder of what is kept from process to process: nobody else can put anything there."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpubackprop.backends import caches
from gpubackprop.backends.choices import Choices
from gpubackprop.cli import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and owners of POSIX")
NOBODY = 65534  # another user than root


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache folder that is not there, two levels below one that is."""
    monkeypatch.setenv(caches.ENVIRONMENT_VARIABLE, str(tmp_path / "level" / "cache"))
    return tmp_path / "level" / "cache"


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a cache folder in one that every user can search."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "cache"
        folder.mkdir()
        monkeypatch.setenv(caches.ENVIRONMENT_VARIABLE, str(folder))
        yield folder


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away and becomes another user")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_levels_that_are_made_are_this_users(umask: int, folder: Path) -> None:
    before = os.umask(umask)
    try:
        caches.write("loops/x", b"content")
    finally:
        os.umask(before)
    assert caches.read("loops/x") == b"content"
    assert [_mode(x) for x in (folder.parent, folder, folder / "loops")] == [0o700] * 3
    assert _mode(folder / "loops" / "x") == 0o600
    assert [path.name for path in (folder / "loops").iterdir()] == ["x"]


def test_reading_and_asking_make_no_folder(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        caches.read("loops/x")
    assert caches.why_not() is None
    assert not folder.parent.exists()


def _refused(folder: Path, why: str) -> None:
    """Assert that nothing is read or written, and that the doctor says why."""
    before = sorted(folder.rglob("*")) if folder.exists() else None
    for use in (lambda: caches.write("x", b"new"), lambda: caches.read("x")):
        with pytest.raises(OSError, match=why):
            use()
    Choices("x").keep("a", "b")
    assert before is None or sorted(folder.rglob("*")) == before
    reason = caches.why_not()
    assert reason is not None
    assert why in reason
    assert f"or set {caches.ENVIRONMENT_VARIABLE} to a folder of yours" in reason


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
@pytest.mark.parametrize("level", [0, 1])
def test_a_level_that_others_can_write(level: int, mode: int, folder: Path) -> None:
    caches.write("x", b"content")
    path = [folder.parent, folder][level]
    path.chmod(mode)
    _refused(folder, "other users can write it")
    path.chmod(0o700)
    assert caches.read("x") == b"content"


def test_a_sticky_level_is_safe_above_but_not_as_the_folder(folder: Path) -> None:
    """In /tmp everybody can write, but nobody can move what is another's."""
    caches.write("x", b"content")
    folder.parent.chmod(0o1777)
    assert caches.read("x") == b"content"
    folder.chmod(0o1777)
    _refused(folder, "other users can write it")


@pytest.mark.parametrize("level", [0, 1])
def test_a_level_of_another_user(level: int, folder: Path, root: None) -> None:
    caches.write("x", b"content")
    os.chown([folder.parent, folder][level], NOBODY, NOBODY)
    _refused(folder, "it belongs to another user")


def test_levels_of_root_that_others_search_but_do_not_list(public: Path, root: None) -> None:
    """As /home on shared machines. The folder itself must be the user's own."""
    os.chown(public, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        caches.write("x", b"content")
        assert caches.read("x") == b"content"
    finally:
        os.seteuid(0)
    os.chown(public, 0, 0)
    public.chmod(0o755)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(PermissionError, match="it belongs to another user"):
            caches.read("x")
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("damage", ["writable", "another's", "link", "pipe", "folder", "huge"])
def test_a_file_that_is_not_to_be_believed(damage: str, folder: Path, tmp_path: Path, root: None) -> None:
    caches.write("x", b"content")
    path, secret = folder / "x", tmp_path / "secret"
    secret.write_bytes(b"mine")
    if damage == "writable":
        path.chmod(0o622)
    elif damage == "another's":
        os.chown(path, NOBODY, NOBODY)
    elif damage == "huge":
        os.truncate(path, 2**40)
    else:
        path.unlink()
        {"link": lambda: path.symlink_to(secret), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[damage]()
    with pytest.raises(OSError, match=r"."):
        caches.read("x")
    if damage != "folder":
        caches.write("x", b"new")
        assert caches.read("x") == b"new"
    assert secret.read_bytes() == b"mine"


def test_links_on_the_way(folder: Path, tmp_path: Path, root: None) -> None:
    """A user's own, as of a home on another disk, is followed; not another's in a folder that all can write."""
    (tmp_path / "disk").mkdir()
    folder.parent.symlink_to(tmp_path / "disk")
    caches.write("x", b"content")
    assert (tmp_path / "disk" / "cache" / "x").read_bytes() == b"content"
    tmp_path.chmod(0o1777)
    os.lchown(folder.parent, NOBODY, NOBODY)
    _refused(tmp_path / "disk", "a link that another user")


def test_a_folder_exchanged_after_it_was_checked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written and read lies in the folder that was checked, whatever its name leads to now."""
    caches.write("x", b"content")
    check, calls = caches._check, []

    def exchanged(found: os.stat_result, name: str, *rest: object, **named: object) -> None:
        check(found, name, *rest, **named)  # type: ignore[arg-type]
        if name == str(folder) and not calls:
            calls.append(name)
            folder.rename(tmp_path / "checked")
            folder.mkdir()
            (folder / "x").write_bytes(b"theirs")

    monkeypatch.setattr(caches, "_check", exchanged)
    assert caches.read("x") == b"content"


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": ' * 100_000, b"\xff\xfe", b'{"a": 1}', b"null"])
def test_choices_of_strange_content_count_as_none(content: bytes, folder: Path) -> None:
    caches.write("device.json", content)
    choices = Choices("device")
    assert choices.get("a") is None
    choices.keep("a", "b")
    assert Choices("device").get("a") == "b"


def test_the_doctor_says_whether_it_is_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    assert f"  {'cache':<22} {folder}\n" in capsys.readouterr().out
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    main(["doctor"])
    assert f"NOT USED: other users can write it (mode 777) ({folder}): mend that" in capsys.readouterr().out
