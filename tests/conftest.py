"""Fixtures that many files share: a store and a cache of their own, and workers that run in this process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from inprocess import InProcessWorker, in_process
from sshd import own_sshd, shared_sshd, ssh_folder, sshd

from hwbench.cache import Cache
from hwbench.store import Store

__all__ = ["own_sshd", "shared_sshd", "ssh_folder", "sshd"]  # fixtures that are defined elsewhere

# Under nohup a hang-up is ignored, and behind a shell's & an interrupt, by whatever is started from there too: a made
# phone could not hang up on its shells, and nothing could be interrupted.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "a.db") as opened:
        yield opened


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> type[InProcessWorker]:
    return in_process(monkeypatch)
