"""What the repository holds and what was measured of it: content hashes, and a file for each part.

A file is known by git's own blob hash, so that the hash of what is checked out and that of an earlier commit compare.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from .part import Part
from .rows import Origin

Hashes = Mapping[str, str]


def _git(root: Path, *words: str) -> str:
    """What git says, empty where it does not know."""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def hashes_now(root: Path, wanted: Iterable[str]) -> dict[str, str]:
    """Path → hash of each file that one of the globs matches, as it is on the disk."""
    globs = set(wanted)
    found = {}
    for top in sorted({glob.split("/")[0] for glob in globs}):
        for path in sorted([root / top] if (root / top).is_file() else (root / top).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and "__pycache__" not in path.parts and any(fnmatch(name, glob) for glob in globs):
                content = path.read_bytes()
                found[name] = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return found


def hashes_at(root: Path, commit: str) -> dict[str, str]:
    """Path → hash of each file of a commit; empty where there is no such commit."""
    lines = _git(root, "ls-tree", "-r", commit).splitlines()
    return {path: head.split()[2] for head, _, path in (line.partition("\t") for line in lines)}


def key(part: Part, parts: Mapping[str, Part], hashes: Hashes, *, quick: bool = False) -> str:
    """Changes with the code that a part depends on, its commands, and whatever its needs depend on."""
    mine = {name: value for name, value in hashes.items() if any(fnmatch(name, glob) for glob in part.paths)}
    commands = [command.argv for command in part.sequence(quick=quick)]
    below = [key(parts[name], parts, hashes, quick=quick) for _, name in part.needs]
    return hashlib.sha256(json.dumps([sorted(mine.items()), commands, below]).encode()).hexdigest()[:16]


def head(root: Path, commit: str = "HEAD") -> str:
    """The commit's short name; ``unknown`` outside a repository."""
    return _git(root, "rev-parse", "--short", commit).strip() or "unknown"


@dataclass(slots=True)
class State:
    """One part as it was measured, or as far as it came.

    Attributes:
        key: of :func:`key` when it was begun.
        origin: where, when, of which commit.
        outputs: what the commands printed, in order; as many as have ended well.
        done: all of them have.
        error: what stopped it.
        seconds: all commands together.
    """

    key: str
    origin: Origin
    outputs: list[Any] = field(default_factory=list)
    done: bool = False
    error: str = ""
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> State | None:
        """``None`` when there is none, or it cannot be read."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**found, "origin": Origin(**found["origin"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".part")
        staged.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        staged.replace(path)
