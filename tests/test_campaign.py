"""Campaigns on the fake runtime: what is measured, in what order, and what happens when something breaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inprocess import InProcessWorker, made_model, measured

from hwbench import campaign, estimate
from hwbench.cache import Cache
from hwbench.campaign import LAYER_SESSIONS, REFERENCE_SESSIONS, Failure, Request, Step, run
from hwbench.errors import DeviceError, UsageError, WorkerError
from hwbench.measurement import Measurement, Session
from hwbench.results import results as stored
from hwbench.runtimes.fake import ANCHOR_S, RUNTIME
from hwbench.sessions import cache_share
from hwbench.slope import CacheShare
from hwbench.store import Store
from hwbench.target import Target

FAKE = "local-cpu/fake"
TWO = ["local-cpu/fake:fp32@1", "local-cpu/fake:fp32@2"]
MODELS = ["one", "two", "three"]


def items(store: Store) -> Counter[tuple[str, str, str, int]]:
    return Counter((s.model.name, str(s.target), s.pass_, s.index) for s in store.sessions())


def of(results: list[Measurement | Failure]) -> dict[tuple[str, str], Measurement | Failure]:
    return {
        (r.model.name if isinstance(r, Failure) else r.key.name, str(r.target)): r  # by what the request called them
        for r in results
    }


def test_every_pass_has_its_sessions_and_results_keep_the_requests_order(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    results = measured(store, cache, MODELS[:2], TWO)
    assert list(of(results)) == [(m, str(Target.parse(t))) for m in MODELS[:2] for t in TWO]
    expected = {"latency": 3, "layers": LAYER_SESSIONS["quick"], "memory": 1, "energy": 1}
    assert items(store) == {
        (m, str(Target.parse(t)), p, i): 1
        for m in MODELS[:2]
        for t in TWO
        for p, n in expected.items()
        for i in range(n)
    }
    (found,) = store.campaigns()
    assert found.finished_at is not None
    assert found.spec["models"] == [f"{m}@1x3x8x8" for m in MODELS[:2]]


def test_a_session_is_committed_before_the_next_one_starts(
    workers: type[InProcessWorker], store: Store, cache: Cache, tmp_path: Path
) -> None:
    seen: list[int] = []

    def look(step: Step) -> None:
        with Store.open(tmp_path / "a.db") as other:
            assert len(other.sessions()) == step.done
        seen.append(step.done)

    measured(store, cache, MODELS[:2], [FAKE], ("latency",), progress=look)
    assert sorted(set(seen)) == [0, 1, 2, 3, 4, 5]


def test_a_session_says_when_it_started(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    begun: list[str] = []
    workers.faults.append(
        lambda worker, verb, _: begun.append(datetime.now(timezone.utc).isoformat()) if verb == "memory" else None
    )
    before = datetime.now(timezone.utc).isoformat()
    measured(store, cache, ["one"], [FAKE], ("memory",))
    (session,) = store.sessions()
    assert before <= session.started_at <= begun[0]


def test_rounds_interleave_targets_and_shuffle_models(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    names = [f"m{i}" for i in range(6)]
    measured(store, cache, names, TWO, ("latency",))
    order = [(s.index, s.target.threads, s.model.name) for s in store.sessions()]
    assert [(i, t) for i, t, _ in order] == [(i, t) for i in range(3) for t in (1, 2) for _ in names]
    rounds = [tuple(n for i, t, n in order if (i, t) == (k, 1)) for k in range(3)]
    assert len(set(rounds)) > 1


class Cut(Exception):
    """The campaign was cut off."""


class CutStore(Store):
    """Fails once so many sessions are committed."""

    left = 10**9

    def add(self, session: Session) -> bool:
        if self.left <= 0:
            raise Cut
        self.left -= 1
        return super().add(session)


@pytest.mark.parametrize("kept", [0, 4, 11])
def test_a_cut_campaign_goes_on_where_it_stopped(
    workers: type[InProcessWorker], store: Store, cache: Cache, tmp_path: Path, kept: int
) -> None:
    passes = ("latency", "memory")
    measured(store, cache, MODELS, [FAKE], passes, reuse=True)
    with CutStore.open(tmp_path / "cut.db") as cut:
        assert isinstance(cut, CutStore)
        cut.left = kept
        with pytest.raises(Cut):
            measured(cut, cache, MODELS, [FAKE], passes, reuse=True)
        before = {s.uid for s in cut.sessions()}
        assert len(before) == kept
        cut.left = 10**9
        results = measured(cut, cache, MODELS, [FAKE], passes, reuse=True)
        assert items(cut) == items(store)
        assert before <= {s.uid for s in cut.sessions()}
        assert all(isinstance(r, Measurement) and len(r.of("latency")) == 3 for r in results)


def test_a_complete_campaign_measures_nothing_more_and_says_the_same(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    (first,) = measured(store, cache, ["one"], [FAKE], reuse=True)
    count = len(store.sessions())
    (again,) = measured(store, cache, ["one"], [FAKE], reuse=True)
    assert isinstance(first, Measurement)
    assert isinstance(again, Measurement)
    assert len(store.sessions()) == count
    assert again.as_dict() == first.as_dict()
    (fresh,) = measured(store, cache, ["one"], [FAKE])
    assert len(store.sessions()) == 2 * count
    assert isinstance(fresh, Measurement)
    assert {s.uid for s in fresh.sessions}.isdisjoint(s.uid for s in first.sessions)


class LastWeek(datetime):
    """A clock for sessions that is a week late."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) - timedelta(days=7)


def told(found: Measurement | Failure) -> dict[str, Any]:
    assert isinstance(found, Measurement)
    return {doubt.code: doubt for doubt in found.caveats}


def test_what_is_joined_with_sessions_of_last_week_says_so(
    workers: type[InProcessWorker], cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CutStore.open(tmp_path / "cut.db") as cut:
        assert isinstance(cut, CutStore)
        cut.left = 2
        with monkeypatch.context() as past:
            past.setattr(campaign, "datetime", LastWeek)
            with pytest.raises(Cut):
                measured(cut, cache, ["one"], [FAKE], ("latency",))
        cut.left = 10**9
        (joined,) = measured(cut, cache, ["one"], [FAKE], ("latency",), resume=True)
        doubt = told(joined)["old_sessions"]
        assert "2 of 3 sessions of the latency pass were taken up to 7.0 days before the others" in doubt.text
        assert "--fresh" in doubt.remedy
        assert "without --resume" in doubt.remedy
        (kept,) = stored(cut)
        assert isinstance(kept, Measurement)
        assert doubt in kept.caveats  # `show` and the report, too
        (fresh,) = measured(cut, cache, ["one"], [FAKE], ("latency",))
        assert "old_sessions" not in told(fresh)


def test_what_is_used_again_after_a_week_says_so(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as past:
        past.setattr(campaign, "datetime", LastWeek)
        measured(store, cache, ["one"], [FAKE], ("latency", "memory"), reuse=True)
    (again,) = measured(store, cache, ["one"], [FAKE], ("latency", "memory"), reuse=True)
    assert isinstance(again, Measurement)
    texts = [doubt.text for doubt in again.caveats if doubt.code == "old_sessions"]
    assert texts == [
        f"{count} of {count} sessions of the {name} pass were taken up to 7.0 days before they were asked for."
        for count, name in ((3, "latency"), (1, "memory"))
    ]


def test_a_campaign_that_another_process_runs_too_gives_what_is_stored(
    workers: type[InProcessWorker], cache: Cache, tmp_path: Path
) -> None:
    class Beaten(Store):
        """Another process always commits the same item first."""

        def add(self, session: Session) -> bool:
            theirs = {**session.data, "load_s": 7.0}
            assert super().add(replace(session, uid=f"theirs-{session.uid}", data=theirs))
            return super().add(session)

    with Beaten.open(tmp_path / "a.db") as store:
        (found,) = measured(store, cache, ["one"], [FAKE], ("latency",))
        assert isinstance(found, Measurement)
        assert {s.uid for s in found.sessions} == {s.uid for s in store.sessions()}
        assert {s.data["load_s"] for s in found.sessions} == {7.0}


def test_progress_of_a_resumed_campaign_begins_where_it_had_stopped(
    workers: type[InProcessWorker], cache: Cache, tmp_path: Path
) -> None:
    steps: list[Step] = []
    with CutStore.open(tmp_path / "cut.db") as cut:
        assert isinstance(cut, CutStore)
        cut.left = 2
        with pytest.raises(Cut):
            measured(cut, cache, ["one"], [FAKE], ("latency",))
        cut.left = 10**9
        measured(cut, cache, ["one"], [FAKE], ("latency",), resume=True, progress=steps.append)
    assert [(step.done, step.total) for step in steps if step.pass_ == "latency"] == [(2, 3)]


def test_sessions_of_another_artefact_are_not_mixed_in(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = measured(store, cache, ["one"], [FAKE], ("latency",), reuse=True)
    monkeypatch.setattr("hwbench.runtimes.fake.POWER_W", 1.75)  # part of the spec, so of its hash
    (new,) = measured(store, cache, ["one"], [FAKE], ("latency",), reuse=True)
    assert isinstance(old, Measurement)
    assert isinstance(new, Measurement)
    assert old.key.sha256 != new.key.sha256
    assert len(store.sessions()) == 6
    assert {s.model.sha256 for s in new.sessions} == {new.key.sha256}


def test_a_device_that_fails_lets_the_others_finish_and_comes_back_later(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    def gone(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if worker.target.threads == 2 and len(store.sessions(target=TWO[1])) >= 4 and verb == "open":
            raise DeviceError("The cable is out.", remedy="Put it in.")

    workers.faults.append(gone)
    results = of(measured(store, cache, MODELS, TWO, ("latency", "memory"), reuse=True))
    for name in MODELS:
        good, bad = (results[name, str(Target.parse(target))] for target in TWO)
        assert isinstance(good, Measurement)
        assert (len(good.of("latency")), len(good.of("memory"))) == (3, 1)
        assert isinstance(bad, Failure)
        assert bad.error.exit_code == 3
    assert {(f.target, f.error["type"]) for f in store.failures()} == {(str(Target.parse(TWO[1])), "DeviceError")}
    workers.faults.clear()
    kept = {s.uid for s in store.sessions()}
    results = of(measured(store, cache, MODELS, TWO, ("latency", "memory"), reuse=True))
    assert all(isinstance(r, Measurement) for r in results.values())
    assert kept < {s.uid for s in store.sessions()}
    assert set(items(store).values()) == {1}
    assert len(items(store)) == 3 * 2 * 4
    assert store.failures() == []


def test_a_target_that_cannot_be_is_an_error_and_no_result(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    results = measured(store, cache, MODELS[:1], ["local-cpu/fake", "local-cpu/fakee"], ("latency",))
    good, bad = results
    assert isinstance(good, Measurement)
    assert isinstance(bad, Failure)
    assert bad.error.exit_code == 2
    assert store.failures() == []  # what was mistyped once is not shown for ever


def test_an_item_that_is_complete_is_not_failed_by_a_device_that_goes_later_in_its_round(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    def gone(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "memory" and len(store.sessions(pass_="memory")) == 1:
            raise DeviceError("The cable is out.", remedy="Put it in.")

    workers.faults.append(gone)
    results = measured(store, cache, MODELS, [FAKE], ("memory",))
    assert sorted(type(r).__name__ for r in results) == ["Failure", "Failure", "Measurement"]


@pytest.mark.parametrize("error", [WorkerError("It crashed.", remedy="-"), UsageError("It is odd.", remedy="-")])
def test_a_model_fails_alone_and_is_tried_again_on_resume(
    workers: type[InProcessWorker], store: Store, cache: Cache, error: WorkerError | UsageError
) -> None:
    def fault(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "open" and (arguments["model"]["spec"].get("macs") == bad):
            raise error

    bad = RUNTIME.prepare(made_model("two"), Target.parse(FAKE), cache).spec["macs"]
    workers.faults.append(fault)
    results = of(measured(store, cache, MODELS, [FAKE], ("latency", "memory"), reuse=True))
    kinds = [type(results[name, str(Target.parse(FAKE))]).__name__ for name in MODELS]
    assert kinds == ["Measurement", "Failure", "Measurement"]
    assert {s.model.name for s in store.sessions()} == {"one", "three"}
    assert set(items(store).values()) == {1}
    workers.faults.clear()
    results = of(measured(store, cache, MODELS, [FAKE], ("latency", "memory"), reuse=True))
    assert all(isinstance(r, Measurement) for r in results.values())
    assert store.failures() == []
    assert len(items(store)) == 12


def test_a_pass_that_fails_leaves_what_the_others_measured(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    def fault(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "memory":
            raise WorkerError("No room.", remedy="Close something.")

    workers.faults.append(fault)
    (result,) = measured(store, cache, ["one"], [FAKE], ("latency", "memory", "layers"))
    assert isinstance(result, Measurement)
    assert (result.latency is not None, len(result.layer_rows) > 0) == (True, True)
    assert [(doubt.text, doubt.remedy) for doubt in result.caveats if doubt.code == "pass_failed"] == [
        (
            "The memory pass failed: No room.",
            "Close something. What the other passes measured holds; --passes memory tries it again.",
        )
    ]
    assert [failure.model for failure in store.failures()] == [result.key.identity]
    assert {pass_ for *_, pass_, _ in items(store)} == {"latency", "layers"}
    (kept,) = stored(store)
    assert isinstance(kept, Measurement)
    assert [doubt.text for doubt in kept.caveats if doubt.code == "pass_failed"] == ["The memory pass failed: No room."]
    workers.faults.clear()
    measured(store, cache, ["one"], [FAKE], ("memory",))
    (mended,) = stored(store)
    assert isinstance(mended, Measurement)
    assert "pass_failed" not in {doubt.code for doubt in mended.caveats}


def test_a_pass_that_breaks_half_way_is_not_quoted(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    def fault(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "measure" and len(store.sessions()) == 2:
            raise WorkerError("Gone.", remedy="Look for it.")

    workers.faults.append(fault)
    (result,) = measured(store, cache, ["one"], [FAKE], ("latency", "memory"))
    assert isinstance(result, Failure)
    assert len(store.sessions()) == 2  # they wait for a resumed campaign


def test_a_later_look_at_the_layers_does_not_hide_an_older_latency(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    (first,) = measured(store, cache, ["one"], [FAKE], ("latency",))
    (second,) = measured(store, cache, ["one"], [FAKE], ("layers",))
    (whole,) = stored(store, "one")
    assert isinstance(first, Measurement)
    assert isinstance(second, Measurement)
    assert isinstance(whole, Measurement)
    assert {s.uid for s in whole.sessions} == {s.uid for s in (*first.sessions, *second.sessions)}
    (third,) = measured(store, cache, ["one"], [FAKE], ("latency",))
    (newest,) = stored(store, "one")
    assert isinstance(third, Measurement)
    assert isinstance(newest, Measurement)
    assert {s.uid for s in newest.of("latency")} == {s.uid for s in third.sessions}


@pytest.mark.parametrize("fault", ["crash", "load", "babble"])
def test_a_real_process_that_breaks_on_one_model_leaves_the_others(
    store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(campaign, "REFERENCE_SESSIONS", 1)
    target = f"local-cpu/fake+fault={fault}+fault-model=two"
    results = measured(store, cache, MODELS[:2], [target], ("memory",), timeout_s=30.0)
    good, bad = results
    assert isinstance(good, Measurement)
    assert isinstance(bad, Failure)
    assert isinstance(bad.error, WorkerError)
    assert bad.error.remedy


def test_a_real_process_that_hangs_on_one_model_leaves_the_others(store: Store, cache: Cache) -> None:
    target = "local-cpu/fake+fault=hang+fault-model=two"
    good, bad = measured(store, cache, MODELS[:2], [target], ("memory",), timeout_s=1.5)
    assert isinstance(good, Measurement)
    assert isinstance(bad, Failure)
    assert "did not return" in bad.error.message


def test_a_target_whose_anchor_does_not_run_fails_alone(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    results = of(measured(store, cache, ["one"], ["local-cpu/fake+fault=load", FAKE], ("latency",)))
    assert [type(r).__name__ for r in results.values()] == ["Failure", "Measurement"]


def test_a_failure_is_forgotten_once_a_later_campaign_measured_it(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    """Also with a batch, which is part of what ran."""

    def fault(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "memory":
            raise WorkerError("It crashed.", remedy="-")

    workers.faults.append(fault)
    measured(store, cache, ["one"], [f"{FAKE}:fp32@1x4"], ("memory",))
    (failed,) = stored(store)
    assert isinstance(failed, dict)
    assert failed["identity"] == "one@4x3x8x8"
    workers.faults.clear()
    measured(store, cache, ["one"], [f"{FAKE}:fp32@1x4"], ("memory",))
    (found,) = stored(store)
    assert isinstance(found, Measurement)


def test_an_impossible_target_fails_alone(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    bad, good = measured(store, cache, ["one"], ["nowhere/fake", FAKE], ("latency",))
    assert isinstance(bad, Failure)
    assert isinstance(bad.error, UsageError)
    assert isinstance(good, Measurement)


@pytest.mark.parametrize("spread", ["0.0001", "0.02"])
def test_default_looks_four_times_and_says_what_it_would_have_taken(
    workers: type[InProcessWorker], store: Store, cache: Cache, spread: str
) -> None:
    (found,) = measured(store, cache, ["one"], [f"{FAKE}+spread={spread}"], ("latency",), "default", id="fixed")
    assert isinstance(found, Measurement)
    assert found.latency is not None
    doubts = {c.code: c for c in found.caveats}
    half = found.latency.anchor.estimate.half_width
    assert half is not None
    if spread == "0.0001":
        assert len(found.of("latency")) == 8
        assert half <= 0.01
        assert "precision_not_met" not in doubts
    else:
        assert len(found.of("latency")) == 20
        assert half > 0.01
        assert "20 sessions" in doubts["precision_not_met"].text
        needed = estimate.sessions_needed(found.latency.anchor.estimate, 0.01)
        assert needed is not None
        assert f"About {needed} sessions" in doubts["precision_not_met"].remedy


def test_a_campaign_that_met_its_precision_does_not_go_on_when_resumed(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    for _ in range(2):
        measured(store, cache, ["one"], [f"{FAKE}+spread=0.0001"], ("latency",), "default", reuse=True)
    assert len(store.sessions()) == 8


def test_the_reference_is_made_once_over_fresh_processes_and_then_frozen(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    (first,) = measured(store, cache, ["one"], [f"{FAKE}+drift=0.001"], ("latency",))
    started = workers.started_count
    (second,) = measured(store, cache, ["two"], [f"{FAKE}+drift=0.001"], ("latency",))
    assert workers.started_count - started == 3 + 1  # one more to ask for the version
    ids = {(s.data["anchor_ref"]["id"], s.data["anchor_ref"]["latency_s"]) for s in store.sessions()}
    assert len(ids) == 1
    ((_, latency_s),) = ids
    assert latency_s == pytest.approx(ANCHOR_S, rel=0.1)
    assert isinstance(first, Measurement)
    assert isinstance(second, Measurement)
    assert first.latency is not None
    assert second.latency is not None
    assert first.latency.reference_id == second.latency.reference_id
    key = {"device": "local-cpu", "runtime": "fake", "runtime_version": "fake 1", "precision": "fp32", "threads": 1}
    cpu = store.sessions()[0].environment["device"].get("cpu_model")
    target = Target.parse(f"{FAKE}+drift=0.001")
    anchor = RUNTIME.anchor(target, cache).sha256
    frozen = store.reference({**key, "options": [["drift", "0.001"]], "cpu_model": cpu, "anchor": anchor})
    assert frozen is not None
    assert len(frozen.detail["session_medians_s"]) == REFERENCE_SESSIONS


def test_a_campaign_begins_with_what_the_store_tells_of_the_machine_and_keeps_to_it(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    target = f"{FAKE}+drift=0.01"
    measured(store, cache, [f"m{i}" for i in range(4)], [target], ("latency",), id="before")
    before = store.sessions(arrays=True)
    assert {s.data["cache_share"]["value"] for s in before} == {CacheShare().value}
    measured(store, cache, ["other"], [f"{FAKE}+drift=0.02"], ("latency",), id="elsewhere")  # at another reference
    (after,) = measured(store, cache, ["after"], [target], ("latency",), id="after")
    learnt = cache_share(before)
    assert learnt != CacheShare()
    assert {s.data["cache_share"]["value"] for s in store.sessions(campaign="after")} == {learnt.value}
    assert {s.data["cache_share"]["value"] for s in store.sessions(campaign="elsewhere")} == {CacheShare().value}
    assert isinstance(after, Measurement)
    assert after.sessions[0].data["cache_share"] == asdict(learnt)


def test_the_anchored_figure_finds_the_true_latency_under_drift(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    target = f"{FAKE}+drift=0.002"
    names = [f"m{i}" for i in range(8)]
    artifacts = [RUNTIME.prepare(made_model(name), Target.parse(target), cache) for name in names]
    raw, anchored = [], []
    for artifact, result in zip(
        artifacts, measured(store, cache, names, [target], ("latency",), id="drift"), strict=True
    ):
        assert isinstance(result, Measurement)
        view = result.latency
        assert view is not None
        at_reference = sum(artifact.spec["costs_s"]) * result.sessions[0].data["anchor_ref"]["latency_s"] / ANCHOR_S
        raw.append(abs(view.median_s / at_reference - 1))
        anchored.append(abs(view.anchored_s / at_reference - 1))
        for figure in (view.raw, view.anchor.estimate):
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high
    assert np.median(anchored) < 0.01
    assert np.median(anchored) < 0.5 * np.median(raw)


def test_device_time_counts_starts_anchors_and_every_session(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made clock: every process start takes 10 s, every job 1 s, nothing else any time."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def tick(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        now[0] += 10.0 if verb == "hello" else 1.0

    workers.faults.append(tick)
    results = measured(store, cache, MODELS, [FAKE], ("latency", "layers", "memory"))
    counted = sum(r.device_time_s for r in results if isinstance(r, Measurement))
    assert counted == pytest.approx(now[0])


def test_reused_sessions_count_in_device_time(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    (first,) = measured(store, cache, ["one"], [FAKE], ("latency",), reuse=True)
    (again,) = measured(store, cache, ["one"], [FAKE], ("latency",), reuse=True)
    assert isinstance(first, Measurement)
    assert isinstance(again, Measurement)
    assert again.device_time_s == first.device_time_s > 0


def test_a_runtime_without_a_profiler_gives_totals_and_says_why_there_are_no_layers(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    workers.probe.update(profiler=False, why="its profiler lies")
    (found,) = measured(store, cache, ["one"], [FAKE], ("latency", "layers"))
    assert isinstance(found, Measurement)
    assert found.latency is not None
    assert found.layer_rows == []
    assert "its profiler lies" in {c.code: c.text for c in found.caveats}["no_layers"]
    assert "layers" not in found.as_dict()


def test_a_request_with_no_sessions_left_is_described_by_its_spec() -> None:
    request = Request((made_model("one"),), (Target.parse(FAKE),), estimate.preset("quick"), ("latency",))
    same = Request((made_model("one"),), (Target.parse(FAKE),), estimate.preset("quick"), ("latency",))
    other = Request((made_model("one"),), (Target.parse(FAKE),), estimate.preset("default"), ("latency",))
    assert request.spec() == same.spec() != other.spec()


def test_progress_tells_the_figure_so_far(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    steps: list[Step] = []
    run(
        Request((made_model("one"),), (Target.parse(FAKE),), estimate.preset("quick"), ("latency", "memory")),
        store,
        cache=cache,
        progress=steps.append,
    )
    timed = [step for step in steps if step.pass_ == "latency"]
    assert [step.median_s is None for step in timed] == [True, False, False]
    assert timed[0].total == 4
    assert steps[-1].half_width is not None
