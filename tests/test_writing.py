"""Files that people are given appear whole or not at all, and say why where they cannot."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hwbench.errors import DeviceError, UsageError
from hwbench.writing import whole


def write(path: Path, content: bytes = b"new", error: BaseException | None = None) -> None:
    with whole(path, "table") as file:
        file.write(content)
        if error is not None:
            raise error


def test_missing_folders_are_made_and_the_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    path, mask = tmp_path / "a" / "b" / "t.parquet", os.umask(0o027)
    try:
        write(path)
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
def test_what_goes_wrong_while_it_is_written_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "t.parquet"
    write(path, b"old")
    with pytest.raises(type(error)):
        write(path, b"half", error)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("t.parquet", b"old")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_full_or_failing_disk_is_the_devices_fault(tmp_path: Path, code: int) -> None:
    with pytest.raises(DeviceError, match="The table cannot be written to") as caught:
        write(tmp_path / "t", error=OSError(code, os.strerror(code)))
    assert os.strerror(code) in caught.value.message
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_one_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        write(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UsageError, match="a part of that path is a file"):
        write(tmp_path / "file" / "t.parquet")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "kept")]


def test_nothing_takes_the_place_of_a_device_or_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(UsageError, match="a device or a pipe"):
        write(pipe)
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]
    assert pipe.is_fifo()


def test_a_link_stays_and_what_it_names_is_written(tmp_path: Path) -> None:
    (link := tmp_path / "latest").symlink_to("runs/one")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "runs" / "one").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["t.parquet", "x" * 300])
def test_where_one_may_not_even_look_is_said(locked: Path, name: str) -> None:
    with pytest.raises(DeviceError, match="cannot be written to") as caught:
        write(locked / name)
    assert "permission" in (caught.value.remedy or "")
