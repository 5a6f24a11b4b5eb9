"""Fixtures that many files share: a store and a cache of their own, and workers that run in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from inprocess import InProcessWorker, in_process
from sshd import own_sshd, shared_sshd, ssh_folder, sshd

from hwbench.__main__ import main
from hwbench.cache import Cache
from hwbench.catalog.resolve import from_module
from hwbench.runtimes import Artifact, onnx_files
from hwbench.store import Store
from hwbench.target import Target

Command = Callable[..., tuple[int, str, str]]

__all__ = ["own_sshd", "shared_sshd", "ssh_folder", "sshd"]  # fixtures that are defined elsewhere

# Under nohup a hang-up is ignored, and behind a shell's & an interrupt, by whatever is started from there too: a made
# phone could not hang up on its shells, and nothing could be interrupted.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow and not wrong: neither a property's time nor that of making its examples fails it.
settings.register_profile(
    "hwbench",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("hwbench")


@pytest.fixture(autouse=True)
def _all_cpus() -> Iterator[None]:
    """A worker keeps to its CPUs. A test whose worker is this process would leave it pinned for all that come after,
    which ask for threads (or ask the system how many CPUs there are, as OpenVINO does)."""
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    yield
    if mine and os.sched_getaffinity(0) != mine:
        os.sched_setaffinity(0, mine)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One cache for the files that export the same networks."""
    return Cache(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="session")
def small_onnx(exports: Cache) -> Artifact:
    """``small_modules.Small``, exported once for all runtimes that take ONNX files."""
    torch = pytest.importorskip("torch")
    from small_modules import Small

    torch.manual_seed(0)
    model = from_module(Small(), torch.randn(1, 3, 16, 16))
    return onnx_files.prepare("onnxruntime", model, Target.parse("here/onnxruntime"), exports)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "a.db") as opened:
        yield opened


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process may not enter, whoever it runs as; another user's home is one."""
    (folder := tmp_path / "locked").mkdir(0)
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(mine)
    folder.chmod(0o700)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process; exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> type[InProcessWorker]:
    return in_process(monkeypatch)
