"""Plug-ins: found without being imported, loaded by name, and explained when they cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwbench import plugins, runtimes
from hwbench.enrol.recipes import recipes
from hwbench.errors import MissingDependency, UsageError

Install = Callable[[str, str], None]
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    plugins.names.cache_clear()
    plugins.load.cache_clear()
    yield
    plugins.names.cache_clear()
    plugins.load.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one runtime on the path, as pip would."""

    def put(module: str, source: str) -> None:
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(METADATA.format(name=module))
        (info / "entry_points.txt").write_text(f"[hwbench.runtimes]\ntheirs = {module}:RUNTIME\n")
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    return put


def test_our_own_runtimes_come_by_the_same_road() -> None:
    assert {"onnxruntime", "torch", "litert", "fake"} <= set(plugins.names("hwbench.runtimes"))


def test_names_are_listed_without_importing_anything() -> None:
    code = "import sys, hwbench.plugins as p; p.names('hwbench.runtimes'); print('hwbench.runtimes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_outside_runtime_is_loaded_by_name(install: Install) -> None:
    install("rt_outside", "RUNTIME = 'it'")
    assert plugins.load("hwbench.runtimes", "theirs") == "it"


def test_an_outside_runtime_says_itself_how_it_is_installed(install: Install) -> None:
    source = "from hwbench.runtimes import Recipe\nclass RUNTIME:\n    name, needs = 'theirs', frozenset()\n"
    install("rt_recipe", source + "    recipe = Recipe(('their-package>=1',))\n")
    assert recipes()["theirs"].packages == ("their-package>=1",)
    assert plugins.package_of("hwbench.runtimes", "theirs") == "rt_recipe"
    assert plugins.package_of("hwbench.runtimes", "torch") == "hwbench[torch]"


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"no runtime 'onxruntime'\. Did you mean onnxruntime\?") as caught:
        plugins.load("hwbench.runtimes", "onxruntime")
    assert "torch" in (caught.value.remedy or "")


def test_an_empty_group_says_so() -> None:
    with pytest.raises(UsageError) as caught:
        plugins.load("hwbench.nothing", "x")
    assert caught.value.remedy == "Known: none."


@pytest.mark.parametrize("source", ["import no_such_package_at_all", "from json import no_such_name"])
def test_what_a_plug_in_lacks_is_named_with_the_way_to_get_it(install: Install, source: str) -> None:
    module = f"rt_lacking_{len(source)}"
    install(module, source)
    with pytest.raises(MissingDependency, match="no_such") as caught:
        plugins.load("hwbench.runtimes", "theirs")
    assert caught.value.remedy == f"pip install '{module}'"


@pytest.mark.parametrize("source", ["raise RuntimeError('built for another numpy')", "OTHER = 1", "def broken(:"])
def test_a_broken_package_is_named_and_takes_no_other_runtime_along(install: Install, source: str) -> None:
    module = f"rt_broken_{len(source)}"
    install(module, source)
    with pytest.raises(MissingDependency, match=f"of the package {module} is broken") as caught:
        plugins.load("hwbench.runtimes", "theirs")
    assert f"pip uninstall {module}" in (caught.value.remedy or "")
    assert "Traceback" in (caught.value.detail or "")
    assert "fake" in runtimes.known()


def test_a_module_of_ours_that_is_not_there_is_a_bug_and_stays_one(install: Install) -> None:
    install("rt_buggy", "import hwbench.no_such_module")
    with pytest.raises(ModuleNotFoundError):
        plugins.load("hwbench.runtimes", "theirs")
