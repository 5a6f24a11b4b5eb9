"""Exported artefacts, keyed by content: the same model, settings and exporter versions are exported once."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from .errors import DeviceError, UsageError, WorkerError
from .units import parse_bytes
from .writing import expanded

_FULL = (errno.ENOSPC, errno.EDQUOT)

LIMIT = "20GB"
"""What the cache may hold: twice what a table and its validation leave (50 networks of up to 100 MB, as two graphs)."""

IN_USE_S = 6 * 3600.0
"""How long after its last use an entry is not removed: a campaign that runs may still push it to a device."""

_LOOK_EVERY = 20
"""A process looks at the whole cache again when it has added this part of the limit: 1,300 entries took it 0.17 s."""


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, as hex; of a file that has not changed since it was last asked for, the same again."""
    now = path.stat()
    return _digest(path, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


@functools.lru_cache(256)
def _digest(path: Path, *_state: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def json_sha256(value: Any) -> str:
    """sha256 of a JSON-able value in canonical form, as hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _is_there(path: Path) -> bool:
    """Whether a file is there; one that may not be looked at is not, and making it says why."""
    try:
        return path.exists()
    except OSError:
        return False


_added: defaultdict[Path, float] = defaultdict(lambda: math.inf)  # bytes since the last look; before the first: unknown


def _size(entry: Path) -> int:
    """Bytes of an entry's files.

    Raises:
        OSError: another process took it away.
    """
    return sum(file.lstat().st_size for file in entry.rglob("*"))


def _limit_bytes() -> int:
    try:
        return parse_bytes(os.environ.get("HWBENCH_CACHE_LIMIT") or LIMIT)
    except UsageError as error:
        raise UsageError(f"HWBENCH_CACHE_LIMIT: {error}", remedy=error.remedy) from error


@dataclass(frozen=True, slots=True)
class Cache:
    """A directory of artefacts; entries appear whole or not at all, and those used longest ago go above the limit."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        """``$HWBENCH_CACHE`` or the platform's cache directory."""
        return cls(expanded(os.environ.get("HWBENCH_CACHE") or platformdirs.user_cache_dir("hwbench"), "HWBENCH_CACHE"))

    def get(self, key: dict[str, Any], name: str, build: Callable[[Path], None]) -> Path:
        """Path of the entry for ``key``, built into a folder of its own when it is not there yet.

        Args:
            key: everything that decides the content (JSON-able).
            name: file name inside the entry, e.g. ``"model.onnx"``.
            build: writes the file at the path it is given; may write companions beside it.

        Raises:
            WorkerError: ``build`` wrote no such file.
            DeviceError: the folder cannot be written, or its disk is full.
            UsageError: ``$HWBENCH_CACHE_LIMIT`` is not a size.
        """
        entry = self.root / "artefacts" / json_sha256(key)
        if _is_there(entry / name):
            with contextlib.suppress(OSError):  # a cache that can only be read serves as well
                os.utime(entry)
        else:
            limit = _limit_bytes()
            try:
                entry.parent.mkdir(parents=True, exist_ok=True)
                folder = tempfile.TemporaryDirectory(dir=entry.parent, prefix=".making-")
            except OSError as error:
                raise self._unwritable(error) from error
            with folder as path:
                self._make(Path(path) / "entry", entry, key, name, build)
            with contextlib.suppress(OSError):
                _added[self.root] += _size(entry)
            if _added[self.root] * _LOOK_EVERY > limit:
                self.trim(limit)
        return entry / name

    def trim(self, limit_bytes: int) -> int:
        """Remove what was used longest ago until the rest is within the limit, but nothing used within ``IN_USE_S``.

        Returns:
            Bytes removed.
        """
        entries, now = [], time.time()
        for path in (self.root / "artefacts").glob("*"):
            with contextlib.suppress(OSError):  # another process took it away
                entries.append((path.stat().st_mtime, _size(path), path))
        held = total = sum(size for _, size, _ in entries)
        for used, size, path in sorted(entries):
            half = path.name.startswith(".")  # what a process that was killed left behind
            if used > now - IN_USE_S or (held <= limit_bytes and not half):
                continue
            gone = path.with_name(f".going-{path.name}")  # at once, as it came: nobody sees half an entry
            with contextlib.suppress(OSError):
                path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            held -= size
        _added[self.root] = 0
        return total - held

    def _make(self, staged: Path, entry: Path, key: dict[str, Any], name: str, build: Callable[[Path], None]) -> None:
        try:
            staged.mkdir()
            build(staged / name)
            (staged / "key.json").write_text(json.dumps(key, indent=1, sort_keys=True))
        except OSError as error:  # only a full disk is the cache's to explain; the rest is the builder's
            if error.errno not in _FULL:
                raise
            raise self._unwritable(error) from error
        if not (staged / name).exists():
            raise WorkerError(
                f"The export ended without an error and wrote no {name}.",
                remedy="This is a fault of the runtime's export; report it with the model's name.",
            )
        if entry.is_dir() and not (entry / name).exists():  # somebody deleted the file out of it
            shutil.rmtree(entry, ignore_errors=True)
        try:
            staged.rename(entry)
        except OSError:  # another process was first; its content is the same by construction
            if not (entry / name).exists():
                raise

    def _unwritable(self, error: OSError) -> DeviceError:
        return DeviceError(
            f"The cache in '{self.root}' cannot be written: {error.strerror or error}.",
            remedy=f"Free disk space there ('{self.root}' may be deleted at any time), "
            "or set HWBENCH_CACHE to a folder that can be written.",
        )
