"""Exported artefacts, keyed by content: the same model, settings and exporter versions are exported once."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from .errors import DeviceError, WorkerError

_FULL = (errno.ENOSPC, errno.EDQUOT)


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


@dataclass(frozen=True, slots=True)
class Cache:
    """A directory of artefacts; entries appear whole or not at all."""

    root: Path

    @classmethod
    def default(cls) -> Cache:
        """``$HWBENCH_CACHE`` or the platform's cache directory."""
        return cls(Path(os.environ.get("HWBENCH_CACHE") or platformdirs.user_cache_dir("hwbench")))

    def get(self, key: dict[str, Any], name: str, build: Callable[[Path], None]) -> Path:
        """Path of the entry for ``key``, built into a folder of its own when it is not there yet.

        Args:
            key: everything that decides the content (JSON-able).
            name: file name inside the entry, e.g. ``"model.onnx"``.
            build: writes the file at the path it is given; may write companions beside it.

        Raises:
            WorkerError: ``build`` wrote no such file.
            DeviceError: the folder cannot be written, or its disk is full.
        """
        entry = self.root / "artefacts" / json_sha256(key)
        if not (entry / name).exists():
            try:
                entry.parent.mkdir(parents=True, exist_ok=True)
                folder = tempfile.TemporaryDirectory(dir=entry.parent, prefix=".making-")
            except OSError as error:
                raise self._unwritable(error) from error
            with folder as path:
                self._make(Path(path) / "entry", entry, key, name, build)
        return entry / name

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
        try:
            staged.rename(entry)
        except OSError:  # another process was first; its content is the same by construction
            if not (entry / name).exists():
                raise

    def _unwritable(self, error: OSError) -> DeviceError:
        return DeviceError(
            f"The cache in '{self.root}' cannot be written: {error.strerror or error}.",
            remedy="Free disk space there, or set HWBENCH_CACHE to a folder that can be written.",
        )
