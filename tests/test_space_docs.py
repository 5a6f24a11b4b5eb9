"""The documented example of a space passes its conformance check, and variants with a fault in them do not."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwbench.catalog.networks import find_space, network_model
from hwbench.catalog.spaces.space import Block, Slot, Space
from hwbench.errors import MissingDependency, UsageError
from hwbench.testing import check_space

PAGE = Path(__file__).resolve().parent.parent / "docs" / "adding-a-space.md"
LINES = 80


def code() -> str:
    (found,) = re.findall(r"<!-- file: hwbench_ladder.py -->\n```python\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    return str(found)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    folder = tmp_path_factory.mktemp("ladder")
    (folder / "hwbench_ladder.py").write_text(code())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("hwbench_ladder").SPACE


def test_the_example_is_short() -> None:
    assert len(code().splitlines()) < LINES


def test_the_example_passes(ladder: Space) -> None:
    check_space(ladder, networks=12)
    assert ladder.size == 6 + 36


def test_the_example_is_found_by_its_python_name_and_runs(ladder: Space) -> None:
    assert find_space("python:hwbench_ladder:SPACE") is ladder
    arch = {"stages": 2, "stage1.kind": "dilated", "stage1.kernel": 5, "stage2.kind": "separable", "stage2.kernel": 3}
    model = network_model(ladder, arch, "python:hwbench_ladder:SPACE")
    assert model.build is not None
    module, (image,) = model.build(2)
    assert image.shape == (2, 3, 32, 32)
    assert module(image).shape == (2, 10)


def test_a_space_in_the_current_folder_is_found_by_the_installed_command_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `python -m hwbench` has the folder on its path, the script `hwbench` does not.
    (tmp_path / "ladder_here.py").write_text(code())
    (tmp_path / "ladder_broken.py").write_text("1 / 0\n")
    (tmp_path / "ladder_needs.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    assert find_space("python:ladder_here:SPACE").name == "ladder"
    for name, kind, said in (
        ("python:ladder_here:SPAC", UsageError, "Did you mean SPACE"),
        ("python:ladder_here:WIDTHS", UsageError, "no space"),
        ("python:ladder_gone:SPACE", UsageError, "no Python module 'ladder_gone'"),
        ("python:ladder_broken:SPACE", UsageError, "ZeroDivisionError"),
        ("python:ladder_needs:SPACE", MissingDependency, "a_package_that_is_not_there"),
        ("python:ladder_here", UsageError, "names no space"),
    ):
        with pytest.raises(kind, match=said) as caught:
            find_space(name)
        assert caught.value.remedy


def changed(space: Space, change: Callable[[Block], Block]) -> Space:
    """The space with every block of its second slot described otherwise; its network stays as it is."""

    def block(arch: Any, inner: Callable[[Any], Block | None] = space.slots[1].block) -> Block | None:
        found = inner(arch)
        return found and change(found)

    slots = (space.slots[0], dataclasses.replace(space.slots[1], block=block), *space.slots[2:])
    return dataclasses.replace(space, slots=slots)


FAULTS: dict[str, tuple[Callable[[Block], Block], str]] = {
    "macs": (lambda b: dataclasses.replace(b, macs=b.macs + 1), r"stage1 has \d+ MACs in torch and \d+ in its"),
    "params": (lambda b: dataclasses.replace(b, params=b.params - 1), r"stage1 has \d+ parameters in torch and \d+"),
    "path": (lambda b: dataclasses.replace(b, module=("stages.first",)), r"the network has no module stages.first"),
    "shared path": (lambda b: dataclasses.replace(b, module=("stem",)), r"two blocks share the module stem"),
    "no path": (lambda b: dataclasses.replace(b, module=()), r"names no module"),
    "slot": (lambda b: dataclasses.replace(b, slot="elsewhere"), r"slot stage1 holds a block of slot elsewhere"),
    "key": (lambda b: dataclasses.replace(b, op="conv", config=()), r"stands for different work"),
    "count": (lambda b: dataclasses.replace(b, macs=-5), r"macs of '.*' is -5, not a count"),
    "fraction": (lambda b: dataclasses.replace(b, params=0.5), r"params of '.*' is 0.5, not a count"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_descriptions_are_found(ladder: Space, fault: str) -> None:
    change, message = FAULTS[fault]
    with pytest.raises(UsageError, match=message):
        check_space(changed(ladder, change), networks=1)


def test_a_slot_that_looks_elsewhere_is_found(ladder: Space) -> None:
    blind = dataclasses.replace(ladder.slots[1], genes=("stage1.kind",))
    space = dataclasses.replace(ladder, slots=(ladder.slots[0], blind, *ladder.slots[2:]))
    with pytest.raises(UsageError, match=r"slot stage1 asks for gene 'stage1.kernel'"):
        check_space(space)

    def peeks(arch: Any) -> Block | None:
        known = {"stage1.kernel": 3, **arch}
        return ladder.slots[1].block(known)

    peeking = dataclasses.replace(
        space, slots=(ladder.slots[0], Slot("stage1", ("stage1.kind",), peeks), *ladder.slots[2:])
    )
    with pytest.raises(UsageError, match=r"look at genes that they do not name"):
        check_space(peeking)


def test_code_that_fails_is_a_fault_and_no_traceback(ladder: Space) -> None:
    def refuses(arch: Any) -> Any:
        raise TypeError("not today")

    slots = (ladder.slots[0], dataclasses.replace(ladder.slots[1], block=refuses), *ladder.slots[2:])
    with pytest.raises(UsageError, match=r"slot stage1 cannot say what it holds: TypeError: not today"):
        check_space(dataclasses.replace(ladder, slots=slots))
    with pytest.raises(UsageError, match=r"the network cannot be built: TypeError: not today"):
        check_space(dataclasses.replace(ladder, network=refuses), networks=1)


def test_networks_that_misbehave_are_found(ladder: Space) -> None:
    def training(arch: Any) -> Any:
        return ladder.network(arch).train()

    def restless(arch: Any) -> Any:
        import torch

        torch.seed()
        return ladder.network(arch)

    def stray(arch: Any) -> Any:
        from torch import nn

        module = ladder.network(arch)
        module.add_module("after", nn.Linear(10, 10))
        return module

    for network, message in (
        (training, "training mode"),
        (restless, "two builds with one seed"),
        (stray, "parameter after.weight belongs to no block"),
        (lambda arch: arch, "not an nn.Module"),
    ):
        with pytest.raises(UsageError, match=message):
            check_space(dataclasses.replace(ladder, network=network), networks=1)
    with pytest.raises(UsageError, match="does not run on 4x32x32"):
        check_space(dataclasses.replace(ladder, shape=lambda arch: (4, 32, 32)), networks=1)


def test_a_space_that_was_edited_and_kept_its_version_gives_other_models(ladder: Space) -> None:
    name, arch = "python:hwbench_ladder:SPACE", "11111"
    other = changed(ladder, lambda b: dataclasses.replace(b, config=(*b.config, ("bias", 1)), params=b.params + 8))
    one, again, edited = (network_model(space, arch, name).builder for space in (ladder, ladder, other))
    assert one == again
    assert one != edited  # or what was exported and measured of the old network would stand for the new one
    ours = network_model(find_space("fbnet"), find_space("fbnet").sample(1, 1)[0]).builder
    assert ours is not None
    assert "blocks" not in ours  # its version tells


def test_many_faults_are_counted(ladder: Space) -> None:
    with pytest.raises(UsageError, match=r"; and \d+ more"):
        check_space(changed(ladder, lambda b: dataclasses.replace(b, slot="x", module=(), macs=-1, params=-1)))


def test_every_architecture_of_the_example_has_its_own_text(ladder: Space) -> None:
    rows = np.unique(ladder.sample(5000, 1), axis=0)
    assert len({ladder.text(row) for row in rows}) == len(rows) == ladder.size
