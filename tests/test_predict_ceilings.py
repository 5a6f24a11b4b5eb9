"""Measured ceilings: what a probe measures, once, and that nothing is judged by it or learnt from it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from inprocess import InProcessWorker, made_model
from predict_device import conv, device, example, kernels_of, linear, networks, plain

from hwbench.cache import Cache
from hwbench.catalog import resolve
from hwbench.catalog.spaces.kernels import MOST_PARTS, parts_of
from hwbench.cli import cli
from hwbench.errors import UsageError
from hwbench.kernel import Kernel
from hwbench.predict import ceilings, train
from hwbench.predict.ceilings import Ceilings
from hwbench.predict.examples import Example, gather
from hwbench.predict.features import GROUPS
from hwbench.predict.networks import PROBE, family_of
from hwbench.predict.predictor import Predictor
from hwbench.report import render
from hwbench.store import Store
from hwbench.target import Target

FAKE = Target.parse("local-cpu/fake+noise=0.002")
LEVELS = ((1 << 18, 40e9), (1 << 23, 15e9), (math.inf, 6e9))  # up to so many bytes, so many bytes a second
PEAKS = {"dense": 6e10, "linear": 8e10, "depthwise": 1e10}


def steps(kernel: Kernel) -> float:
    """A device whose memory has three levels, and whose kinds of kernels have peaks."""
    cost = kernel.cost()
    rate = next(rate for most, rate in LEVELS if cost.moved_bytes <= most)
    group = "linear" if kernel.kind == "matmul" else "depthwise" if kernel.attribute("groups", 1) != 1 else "dense"
    return (cost.macs or 0) / PEAKS[group] if cost.macs else cost.moved_bytes / rate


def probe(kernels: list[Kernel]) -> Example:
    return replace(example("probe", PROBE, kernels, steps), name=ceilings.NAME)


@pytest.fixture(scope="module")
def found() -> Ceilings:
    sums = [plain("Add", "elementwise", 1, n, operands=2) for n in ceilings.ELEMENTS]
    large = [conv(128, 128, 28, size=3), linear(256, 1024, 1024), conv(256, 256, 28, size=3, groups=256)]
    made = ceilings.of(probe([*large, *sums]))
    assert made is not None
    return made


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return networks(4, 2, device(), noise=0.01)


# --- what is measured ----------------------------------------------------------------------------------------------


def test_the_probe_is_a_network_that_is_resolved_by_its_name() -> None:
    parts = parts_of(ceilings.NAME)
    assert len(set(parts)) == len(parts) <= MOST_PARTS  # a runtime would do equal ones once
    assert resolve(ceilings.NAME).name == ceilings.NAME
    assert family_of(ceilings.NAME) == PROBE
    assert 1e8 < sum(part.work.macs for part in parts) < 1e9


def test_working_sets_go_from_a_first_cache_to_beyond_the_last() -> None:
    sizes = [12 * math.prod(part.work.output) for part in parts_of(ceilings.NAME) if part.form == "binary"]
    assert sizes == pytest.approx([4**step << 14 for step in range(7)], rel=0.01)
    assert sizes[-1] == pytest.approx(64 << 20, rel=0.01)


def test_ceilings_of_a_made_device_are_found(found: Ceilings) -> None:
    assert found.peaks == pytest.approx(PEAKS)
    assert set(found.peaks) <= set(GROUPS)
    assert dict(found.bandwidths)[12 * ceilings.ELEMENTS[3]] == pytest.approx(15e9)
    assert found.near == pytest.approx(40e9)
    assert found.far == pytest.approx(6e9)
    assert found.device_time_s == 2.0


def test_kernels_that_are_too_short_to_be_timed_say_nothing(found: Ceilings) -> None:
    assert 12 * ceilings.ELEMENTS[0] not in dict(found.bandwidths)  # 0.4 µs
    assert ceilings.of(probe([plain("Add", "elementwise", 1, 64, operands=2)])) is None
    assert ceilings.of(None) is None


# --- what becomes of it --------------------------------------------------------------------------------------------


def test_a_roofline_takes_its_ceilings_from_the_probe(examples: list[Example], found: Ceilings) -> None:
    without, under = (Predictor.train(examples, ceilings=c).fitted.roofline for c in (None, found))
    assert without.measured is None
    assert under.measured == found
    assert under.prices == without.prices
    assert under.bandwidth == found.far
    assert under.peaks["dense"] == pytest.approx(6e10)  # rows reach 2e10
    assert under.peaks["pointwise"] == without.peaks["pointwise"]  # not probed
    low = replace(found, peaks={"dense": 1.0})
    assert without.under(low).peaks["dense"] == without.peaks["dense"]


def test_predictions_do_not_depend_on_the_probe(examples: list[Example], found: Ceilings) -> None:
    one, two = (Predictor.train(examples, ceilings=c).of_kernels(kernels_of(1, 7)) for c in (None, found))
    assert (one.latency_s, one.low_s, one.high_s) == (two.latency_s, two.low_s, two.high_s)


def test_a_file_keeps_its_ceilings(examples: list[Example], found: Ceilings, tmp_path: Path) -> None:
    Predictor.train(examples, ceilings=found).write(tmp_path / "a.hwp")
    again = Predictor.read(tmp_path / "a.hwp")
    assert again.fitted.roofline.measured == found
    assert again.train_device_time_s == sum(one.device_time_s for one in examples) + found.device_time_s
    assert len(again.examples) == len(examples)


@pytest.mark.parametrize(
    "change",
    [
        {"peaks": {"odd": 1.0}}, {"peaks": {"dense": -1.0}}, {"bandwidths": [[2, 1.0], [1, 1.0]]},
        {"bandwidths": [[1, 0.0]]}, {"device_time_s": "x"},
    ],
)  # fmt: skip
def test_damaged_ceilings_are_refused(found: Ceilings, change: dict[str, object]) -> None:
    from hwbench.predict.file import _positive

    assert Ceilings.parse(json.loads(json.dumps(found.as_dict())), _positive) == found
    with pytest.raises(UsageError):
        Ceilings.parse({**found.as_dict(), **change}, _positive)


def test_people_and_reports_see_them(
    examples: list[Example], found: Ceilings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = Predictor.train(examples, ceilings=found)
    predictor.write(tmp_path / "a.hwp")
    cli.main(["predictor", "show", str(tmp_path / "a.hwp")], obj={}, standalone_mode=False)
    shown = capsys.readouterr().out
    assert "working set" in shown
    assert "64.0 MiB" in shown
    layer = {"name": "a", "module": "", "op": "Conv", "kind": "conv", "latency_s": 1e-3, "macs": 10**6,
             "param_bytes": 10, "input_bytes": 10, "output_bytes": 10, "live_bytes": 20}  # fmt: skip
    result = {"model": "m", "identity": "m@1", "target": predictor.target, "latency_s": {"median": 1e-3},
              "layers": [layer]}  # fmt: skip
    page = render([result], probed={predictor.target: predictor.summary()["roofline"]["measured"], "<b>": {"peaks": 3}})
    assert f'"roofs":{{"{predictor.target}":[80000000000.0,' in page
    assert "ceilings that were probed" in page
    assert '"roofs":{}' in render([result])


# --- measured first, once, and judged by nobody --------------------------------------------------------------------


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch, workers: type[InProcessWorker]) -> None:
    made = {f"net{i}": made_model(f"net{i}") for i in range(4)}
    monkeypatch.setattr(train, "candidates", lambda families: [(name, name, 1e6) for name in made])
    monkeypatch.setattr(train, "resolve", made.__getitem__)


def test_training_probes_once(store: Store, cache: Cache, toys: None) -> None:
    said: list[str] = []
    assert train.measure(FAKE, store=store, budget_s=600.0, cache=cache, tell=said.append) == []
    assert any("ceilings probed" in line for line in said)
    probed = [session for session in store.sessions(target=FAKE) if session.model.name == ceilings.NAME]
    assert len(probed) == 3
    assert {session.pass_ for session in probed} == {"layers"}
    everything = len(store.sessions(target=FAKE))
    train.measure(FAKE, store=store, budget_s=600.0, cache=cache)
    assert len(store.sessions(target=FAKE)) == everything
    gathered = gather(store, FAKE)
    assert {one.name for one in gathered.examples} == {"net0", "net1", "net2", "net3"}
    learnt = train.learn(FAKE, store=store)
    assert learnt.fitted.roofline.measured == gathered.ceilings
    assert gathered.ceilings is not None
    assert gathered.ceilings.peaks
    assert learnt.summary()["networks"] == 4


def test_a_short_budget_is_for_networks(store: Store, cache: Cache, toys: None) -> None:
    train.measure(FAKE, store=store, budget_s=train.PROBE_S / train.PROBE_SHARE - 1.0, cache=cache)
    assert not any(session.model.name == ceilings.NAME for session in store.sessions(target=FAKE))
    assert gather(store, FAKE).ceilings is None
