"""A device behind a real ``sshd``: the one of ``hwbench selftest faults``, with made tools first on its PATH."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hwbench.channels.ssh import SshChannel
from hwbench.errors import MissingDependency
from hwbench.selftest.loopback import Loopback, find_sshd, loopback, settle, short_folder


def made_tool(folder: Path, name: str, script: str) -> Path:
    """A program of that name, first on the PATH of the device whose tools these are."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def ssh_folder() -> Iterator[Path]:
    """A folder for one server and all that its sessions write; tests are skipped where there is no sshd."""
    try:
        find_sshd()
    except MissingDependency as error:
        pytest.skip(error.message)
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def shared_sshd(ssh_folder: Path) -> Iterator[Loopback]:
    """One server for all tests of a module that do not break it."""
    with loopback(ssh_folder / "shared", tools=ssh_folder / "shared" / "tools") as running:
        yield running


@pytest.fixture
def sshd(shared_sshd: Loopback) -> Iterator[Loopback]:
    """That server, with an empty working folder and no made tools."""
    shutil.rmtree(shared_sshd.workdir, ignore_errors=True)
    shutil.rmtree(shared_sshd.folder / "tools", ignore_errors=True)
    yield shared_sshd
    assert settle(shared_sshd.mark, 15.0) == []


@pytest.fixture
def own_sshd(ssh_folder: Path) -> Iterator[Callable[[str], Loopback]]:
    """Servers of this test alone, by name; they may be broken."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(loopback(ssh_folder / name, tools=ssh_folder / name / "tools"))


def channel_to(device: Loopback, workdir: str = "") -> SshChannel:
    """A channel that gives up on a silent device within two seconds."""
    quick = ("-o", "ConnectTimeout=2", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2")
    return SshChannel("loopback", workdir or device.workdir, options=(*device.options, *quick))
