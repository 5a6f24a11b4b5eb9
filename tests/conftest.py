"""Fixtures that many files share: a store and a cache of their own, and workers that run in this process."""

from __future__ import annotations

import functools
import gc
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from inprocess import InProcessWorker, in_process
from sshd import own_sshd, shared_sshd, ssh_folder, sshd

from hwbench import device
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

# This package is started some hundred times: what was compiled once is kept, whatever the shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What is imported and collected stays: looking through it for garbage, again and again, finds none.
gc.disable()

# Two files run beside each other, on two cores perhaps: threads that spin while they wait take the other file's time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

LONGEST = (
    "docs", "litert_native", "cli", "lut_build", "predict", "ssh", "predict_sampling", "report", "spaces_mobile",
    "bad_input", "catalog", "campaign", "report_browser", "onnx_runtimes", "predict_energy", "selftest", "transfer",
    "spaces_others", "formats_tables_export", "remote", "measurement", "cli_lut", "bench", "litert", "hostile",
    "predictor_evaluate_cli", "lut_validate", "structure", "formats_tables", "install", "compare", "search", "store",
    "worker", "timing", "onnxruntime", "cuda", "space",
)  # fmt: skip
"""Files that take 10 s or more of a processor, the longest first: one that starts late is waited for at the end."""

# A busy machine is slow and not wrong: neither a property's time nor that of making its examples fails it.
settings.register_profile(
    "hwbench",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("hwbench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, as xdist deals them out in this order; inside a file all stays as it is."""
    places = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _packages_are_listed_once() -> Iterator[None]:
    """What this interpreter can import is listed whenever a local device is looked up, here some thousand times."""
    listed = functools.lru_cache(8)(lambda *where: tuple(pkgutil.iter_modules()))
    with pytest.MonkeyPatch.context() as patch:
        once = SimpleNamespace(iter_modules=lambda: listed(tuple(sys.path), tuple(sys.path_hooks)))
        patch.setattr(device, "pkgutil", once)
        yield


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
