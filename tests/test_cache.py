"""The cache: an entry appears whole or not at all, once, whatever happens while it is made."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.cache import Cache, file_sha256, json_sha256
from hwbench.errors import DeviceError, UsageError, WorkerError

KEY = {"model": "m", "opset": 20}


def everything(cache: Cache) -> list[Path]:
    return [path for path in cache.root.rglob("*") if path.is_file() or path.name.startswith(".")]


def test_built_once_with_its_companions_and_its_key(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path), []

    def build(path: Path) -> None:
        calls.append(path)
        path.write_text("graph")
        (path.parent / "weights.bin").write_text("weights")

    first = cache.get(KEY, "model.onnx", build)
    assert cache.get(dict(reversed(KEY.items())), "model.onnx", build) == first
    assert len(calls) == 1
    assert first.read_text() == "graph"
    assert (first.parent / "weights.bin").read_text() == "weights"
    assert '"opset": 20' in (first.parent / "key.json").read_text()


def test_another_key_is_another_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    paths = {cache.get({**KEY, "opset": n}, "m", lambda path, n=n: path.write_text(str(n))) for n in (17, 18)}
    assert sorted(path.read_text() for path in paths) == ["17", "18"]


@pytest.mark.parametrize("error", [ValueError("no export"), KeyboardInterrupt(), OSError(errno.EIO, "io")])
def test_a_build_that_fails_leaves_nothing_and_can_be_tried_again(tmp_path: Path, error: BaseException) -> None:
    cache = Cache(tmp_path)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise error

    with pytest.raises(type(error)):
        cache.get(KEY, "m", fail)
    assert everything(cache) == []
    assert cache.get(KEY, "m", lambda path: path.write_text("whole") and None).read_text() == "whole"


def test_a_build_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(WorkerError, match=r"model\.onnx"):
        cache.get(KEY, "model.onnx", lambda path: None)
    assert everything(cache) == []


def test_a_full_disk_says_where_and_what_to_do(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def full(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DeviceError, match="No space left") as caught:
        cache.get(KEY, "m", full)
    assert "HWBENCH_CACHE" in (caught.value.remedy or "")
    assert everything(cache) == []


def test_a_root_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="cannot be written"):
        Cache(tmp_path / "file").get(KEY, "m", lambda path: None)


def test_a_root_that_may_not_be_entered(locked: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be written: Permission denied") as caught:
        Cache(locked / "cache").get(KEY, "m", lambda path: None)
    assert "HWBENCH_CACHE" in (caught.value.remedy or "")


def test_two_builders_at_once_both_get_the_one_entry(tmp_path: Path) -> None:
    cache, together = Cache(tmp_path), threading.Barrier(2, timeout=60)
    found: list[Path] = []

    def build(path: Path) -> None:
        path.write_text("same")
        together.wait()  # both are inside their builds before either finishes

    def get() -> None:
        found.append(cache.get(KEY, "m", build))

    threads = [threading.Thread(target=get) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(found) == 2
    assert found[0] == found[1]
    assert found[0].read_text() == "same"
    assert sorted(path.name for path in everything(cache)) == ["key.json", "m"]


def test_an_entry_whose_file_was_deleted_is_made_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.get(KEY, "m", lambda path: path.write_text("first") and None).unlink()
    assert cache.get(KEY, "m", lambda path: path.write_text("again") and None).read_text() == "again"
    assert sorted(path.name for path in everything(cache)) == ["key.json", "m"]


def test_the_default_root_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path))
    assert Cache.default().root == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HWBENCH_CACHE", "~/kept")  # as a container's or a unit's environment gives it, without a shell
    assert Cache.default().root == tmp_path / "kept"
    monkeypatch.setenv("HWBENCH_CACHE", "~nobody-of-that-name/kept")
    with pytest.raises(UsageError, match="HWBENCH_CACHE is '~nobody-of-that-name/kept'"):
        Cache.default()
    monkeypatch.delenv("HWBENCH_CACHE")
    assert "hwbench" in str(Cache.default().root)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"x" * size)
    assert file_sha256(path) == hashlib.sha256(b"x" * size).hexdigest()


@given(st.dictionaries(st.text(), st.integers() | st.lists(st.text(), max_size=3), max_size=5))
def test_the_hash_of_a_value_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert json_sha256(value) == json_sha256(dict(reversed(value.items())))
    assert json_sha256(value) != json_sha256({**value, "one more": 0})


def filled(cache: Cache, count: int, size: int = 1000) -> list[Path]:
    """Entries that were used an hour apart, the first one longest ago: yesterday."""
    paths = [cache.get({"n": n}, "m", lambda path: path.write_bytes(b"x" * size) and None) for n in range(count)]
    for n, path in enumerate(paths):
        used = time.time() - (24 - n) * 3600
        os.utime(path.parent, (used, used))
    return paths


def test_above_the_limit_what_was_used_longest_ago_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    paths = filled(cache, 5)
    cache.get({"n": 0}, "m", lambda path: pytest.fail("it is there"))  # used again: now the youngest
    removed = cache.trim(3 * paths[0].stat().st_size + 500)
    assert [path.exists() for path in paths] == [True, False, False, True, True]
    assert removed >= 2000
    assert not list(tmp_path.rglob(".*"))
    assert cache.trim(10**9) == 0


def test_what_a_killed_process_left_goes_though_there_is_room(tmp_path: Path) -> None:
    (old := tmp_path / "artefacts" / ".making-a" / "entry").mkdir(parents=True)
    (new := tmp_path / "artefacts" / ".making-b").mkdir()
    (old / "half").write_bytes(b"x" * 1000)
    used = time.time() - 24 * 3600
    os.utime(old.parent, (used, used))
    assert Cache(tmp_path).trim(10**9) >= 1000
    assert [path.exists() for path in (old, new)] == [False, True]


def test_what_another_process_removes_meanwhile_stands_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    paths = filled(cache, 3)
    rename = Path.rename

    def first(path: Path, gone: Path) -> None:
        if path == paths[0].parent:
            rename(path, tmp_path / "elsewhere")
        rename(path, gone)

    monkeypatch.setattr(Path, "rename", first)
    cache.trim(0)
    assert not any(path.exists() for path in paths)


def test_what_may_be_in_use_stays_whatever_the_limit(tmp_path: Path) -> None:
    path = Cache(tmp_path).get(KEY, "m", lambda path: path.write_text("x") and None)
    assert Cache(tmp_path).trim(0) == 0
    assert path.exists()


def test_the_limit_is_kept_while_entries_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_CACHE_LIMIT", "2500B")
    cache = Cache(tmp_path)
    old = filled(cache, 3)
    new = cache.get(KEY, "m", lambda path: path.write_bytes(b"x" * 1000) and None)
    assert [path.exists() for path in [*old, new]] == [False, False, True, True]


def test_a_limit_that_is_no_size_is_a_usage_error_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWBENCH_CACHE_LIMIT", "much")
    with pytest.raises(UsageError, match=r"HWBENCH_CACHE_LIMIT.*much"):
        Cache(tmp_path).get(KEY, "m", lambda path: pytest.fail("made"))
    assert everything(Cache(tmp_path)) == []
