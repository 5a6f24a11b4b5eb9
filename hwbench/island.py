"""The island as one file: a zipapp with the worker and the session module that a runtime names."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from .cache import Cache

_PACKAGE = Path(__file__).parent
_WORKER = _PACKAGE / "worker"
# What a session needs besides the worker. Eager torch builds networks of spaces where it runs them.
_ALSO = {"torch.py": ("errors.py", "catalog/spaces/*.py")}
_MAIN = b"from hwbench_worker.__main__ import main\nmain()\n"
_EPOCH = (2020, 1, 1, 0, 0, 0)  # a fixed time in the archive: equal content, equal bytes, equal hash


def _files(session: Path) -> dict[str, bytes]:
    """Archive name → content. Built-in sessions that were not asked for stay at home."""
    files = {"__main__.py": _MAIN}
    for path in sorted(_WORKER.rglob("*.py")):
        relative = path.relative_to(_WORKER)
        if relative.parts[0] != "sessions" or relative.name == "__init__.py":
            files[f"hwbench_worker/{relative.as_posix()}"] = path.read_bytes()
    files[f"hwbench_worker/sessions/{session.name}"] = session.read_bytes()
    for pattern in _ALSO.get(session.name, ()) if session.parent == _WORKER / "sessions" else ():
        for path in sorted(_PACKAGE.glob(pattern)):
            relative = path.relative_to(_PACKAGE)
            files |= {f"hwbench_worker/{folder}/__init__.py": b"" for folder in list(relative.parents)[:-1]}
            files[f"hwbench_worker/{relative.as_posix()}"] = path.read_bytes()
    return dict(sorted(files.items()))


def zipapp(session: Path, cache: Cache) -> tuple[Path, str]:
    """The worker for one runtime: (path, sha256 of its content). Built once per content."""
    files = _files(session)
    digest = hashlib.sha256()
    for name, content in files.items():
        digest.update(name.encode() + b"\0" + len(content).to_bytes(8, "big") + content)
    sha256 = digest.hexdigest()

    def build(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)

    return cache.get({"island": sha256}, "hwbench_worker.pyz", build), sha256
