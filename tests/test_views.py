"""Views over sessions, and every doubt that travels with them: each code of the table has a case that raises it."""

from __future__ import annotations

import ast
import math
import string
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sessions import ENVIRONMENT, KEY, REFERENCE, TARGET, latency_session, layers_session, sessions

import hwbench
from hwbench import estimate, units, views
from hwbench.caveats import CAVEATS, caveat
from hwbench.measurement import Measurement, Session


def doubts(found: list[Session], **about: Any) -> dict[str, str]:
    return {c.code: c.text for c in Measurement(KEY, TARGET, found, **about).caveats}


def slow_tail() -> list[Session]:
    found = sessions()
    for session in found:
        session.arrays["samples_ns"][::20] *= 3
    return found


def changed(**environment: Any) -> list[Session]:
    return [*sessions(2), latency_session(2, environment={**ENVIRONMENT, **environment})]


DRIFTING = np.linspace(0.95, 1.05, 12)
CASES: dict[str, Callable[[], list[Session]]] = {
    "precision_not_met": lambda: sessions(spread=0.1),
    "few_sessions": lambda: sessions(2),
    "not_steady": lambda: [*sessions(2), latency_session(2, steady=False)],
    "budget_cut": lambda: sessions(per_block=2),
    "summary_only": lambda: sessions(per_block=1, summaries=[{"kind": "plain", "count": 40}] * 6),
    "drift": lambda: sessions(blocks=12, factors=DRIFTING),
    "disturbed": lambda: sessions(counters={"involuntary_switches": 40}),
    "off_reference": lambda: sessions(anchor_s=1.2e-3),
    "anchor_not_used": sessions,
    "bimodal": lambda: [latency_session(i, latency_s=2e-3 if i % 2 else 2.2e-3, preset="default") for i in range(8)],
    "outliers": slow_tail,
    "profiler_heavy": lambda: [layers_session(profiled_s=1.5e-3)],
    "layers_not_ranked": lambda: [layers_session(profiled_s=2.5e-3)],
    "closure": lambda: [layers_session((3e-4, 4e-4))],
    "below_resolution": lambda: [layers_session((1e-3, 1e-6))],
    "no_module_path": lambda: [layers_session(modules=("a", ""))],
    "no_layers": lambda: [replace(layers_session(), data={"layers": [], "info": {"why": "it has no profiler"}})],
    "precision_changed": lambda: sessions(info={"precision": "fp16"}),
    "fallback_provider": lambda: sessions(info={"provider": "xnnpack + builtin ops"}),
    "oversubscribed": lambda: [
        replace(session, target=replace(TARGET, threads=4))
        for session in changed(device={**ENVIRONMENT.get("device", {}), "threads_available": 2})
    ],
    "throttled": lambda: sessions(counters={"throttle_events": 3.0}),
    "gpu_shared": lambda: changed(gpu={"processes": [{"pid": 7, "used_bytes": None}]}),
    "gpu_unwatched": lambda: changed(gpu={"unavailable": "the package nvidia-ml-py is not installed"}),
    "environment_changed": lambda: changed(governor="powersave"),
    "old_sessions": lambda: [*sessions(2), replace(latency_session(2), started_at="2026-01-03T12:00:00+00:00")],
    "references_differ": lambda: [*sessions(2), latency_session(2, anchor_ref={**REFERENCE, "id": "here/fake@1#2"})],
    "zero_macs": lambda: sessions(macs=0),
}


@pytest.mark.parametrize("code", CASES)
def test_a_made_case_raises_the_caveat(code: str) -> None:
    assert code in doubts(CASES[code]())


def far_samples(count: int) -> list[Session]:
    """Three sessions of 120 samples, ``count`` of which took three times as long; the others scatter a little."""
    found = sessions(spread=0.0)
    for place in range(count):
        found[place % 3].arrays["samples_ns"][7 * (place // 3)] *= 3
    return found


def heavy(ratio: float) -> list[Session]:
    return [layers_session(profiled_s=ratio * 1e-3)]


def lost(share: float) -> list[Session]:
    return [layers_session(((1.0 - share) * 1e-3, share * 1e-3), modules=("a", ""))]


@pytest.mark.parametrize(
    ("code", "within", "beyond"),
    [
        ("disturbed", sessions(counters={"involuntary_switches": 12}), sessions(counters={"involuntary_switches": 13})),
        ("disturbed", sessions(repeated_blocks=0), [*sessions(2), latency_session(2, repeated_blocks=1)]),
        ("off_reference", sessions(anchor_s=1.049e-3), sessions(anchor_s=1.051e-3)),
        ("off_reference", sessions(anchor_s=0.951e-3), sessions(anchor_s=0.949e-3)),
        ("budget_cut", sessions(per_block=5), [*sessions(2), latency_session(2, blocks=1, per_block=29)]),
        ("outliers", far_samples(7), far_samples(8)),
        ("profiler_heavy", heavy(1.249), heavy(1.251)),
        ("layers_not_ranked", heavy(1.999), heavy(2.001)),
        ("closure", [layers_session((5.51e-4, 4e-4))], [layers_session((5.49e-4, 4e-4))]),
        ("closure", [layers_session((6.49e-4, 4e-4))], [layers_session((6.51e-4, 4e-4))]),
        ("no_module_path", lost(0.0199), lost(0.0201)),
        ("zero_macs", sessions(macs=1), sessions(macs=0)),
    ],
)
def test_a_doubt_begins_where_its_limit_says(code: str, within: list[Session], beyond: list[Session]) -> None:
    assert code not in doubts(within)
    assert code in doubts(beyond)


def test_what_a_sentence_counts_is_what_was_seen() -> None:
    assert "8 of 360" in doubts(far_samples(8))["outliers"]
    told = doubts([layers_session((1e-3, 1e-6))])["below_resolution"]
    assert "1 of 2" in told
    assert "0.1" in told
    slower, faster = (doubts(sessions(anchor_s=level))["off_reference"] for level in (1.2e-3, 0.8e-3))
    assert ("slower" in slower, "20" in slower, "faster" in faster) == (True, True, True)
    drifting = [*sessions(2), latency_session(2, blocks=12, factors=DRIFTING)]
    assert "10" in doubts([*drifting, latency_session(3, blocks=12, factors=DRIFTING**0.5)])["drift"]  # the worst one


def test_what_more_sessions_would_cost_is_told_at_the_cost_of_those_there_were() -> None:
    found = Measurement(KEY, TARGET, sessions(3, spread=0.1))
    (remedy,) = [c.remedy for c in found.caveats if c.code == "precision_not_met"]
    assert found.latency is not None
    needed = estimate.sessions_needed(found.latency.anchor.estimate, 0.02)
    assert needed is not None
    assert f"About {needed} sessions ({units.seconds(float(needed), 2)})" in remedy  # a second each


def test_a_tool_that_only_sums_up_has_no_percentiles_and_is_not_called_short_of_samples() -> None:
    found = sessions(per_block=1, blocks=60, summaries=[{"kind": "plain", "count": 40}] * 60)
    assert not {"budget_cut", "outliers"} & set(doubts(found))
    assert "180 blocks" in doubts(found)["summary_only"]
    assert "7200 inferences" in doubts(found)["summary_only"]
    view = Measurement(KEY, TARGET, found).latency
    assert view is not None
    assert set(view.percentiles.values()) == {None}


@pytest.mark.parametrize(
    ("threads", "allowed", "quota", "said"),
    [
        (4, 8, None, None),
        (4, 8, 4.0, None),
        (4, 8, 2.5, "4 threads share 2 processors"),
        (4, 8, 1.0, "4 threads share 1 processor,"),  # docker run --cpus=1
        (4, 2, 8.0, "4 threads share 2 processors"),
        (4, None, 3.0, "4 threads share 3 processors"),
        (1, 8, 0.5, None),  # half a processor is slow, and one thread waits for no other
        (2, 8, 0.5, "2 threads share 1 processor,"),
    ],
)
def test_threads_are_held_against_the_allowed_processors_and_their_quota(
    threads: int, allowed: int | None, quota: float | None, said: str | None
) -> None:
    device = {"threads_available": allowed, "cpu_quota": quota}
    found = sessions(environment={**ENVIRONMENT, "device": device})
    told = doubts([replace(session, target=replace(TARGET, threads=threads)) for session in found])
    assert told.get("oversubscribed", "").startswith(said or "")
    assert ("oversubscribed" in told) == (said is not None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"throttled": []}, None),  # it began hot, and had cooled down before the first block
        ({"throttled": ["CPU quota"]}, "CPU quota"),
        ({"throttled": None}, "frequency capped"),  # a tool on Linux, which is not watched meanwhile
        ({}, "frequency capped"),
    ],
)
def test_what_throttled_while_it_ran_goes_before_how_it_began(data: dict[str, Any], said: str | None) -> None:
    found = sessions(environment={**ENVIRONMENT, "throttled": ["frequency capped"]}, **data)
    told = doubts(found)
    assert ("throttled" in told) == (said is not None)
    assert (said or "") in told.get("throttled", "")


ELSEWHERE = {"random_weights", "pass_failed", "batches_differ", "band_over_limit"}  # of campaigns and comparisons


def test_every_caveat_of_the_table_has_a_case() -> None:
    assert set(CASES) | ELSEWHERE == set(CAVEATS)
    assert "random_weights" in doubts([], random_weights=True)


def test_an_accelerators_own_time_stands_beside_the_latency() -> None:
    found = sessions()
    assert Measurement(KEY, TARGET, found).as_dict()["latency_s"]["device_median"] is None
    view = views.latency(found)
    assert view is not None
    assert view.device_median_s is None
    for session in found:
        session.arrays["device_ns"] = np.where(np.arange(len(session.arrays["samples_ns"])) % 3, 400_000, 0)
    assert Measurement(KEY, TARGET, found).as_dict()["latency_s"]["device_median"] == pytest.approx(4e-4)


def test_a_quiet_measurement_carries_no_doubt() -> None:
    quiet = sessions(8, spread=0.001, walk=0.003, preset="default")
    assert doubts(quiet) == {}
    assert doubts([layers_session()]) == {}


def test_every_call_of_caveat_gives_exactly_the_fields_of_its_sentences() -> None:
    calls = 0
    for path in Path(hwbench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "caveat":
                code = node.args[0]
                assert isinstance(code, ast.Constant), f"{path.name}:{node.lineno}"
                texts = CAVEATS[str(code.value)]
                fields = {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}
                assert {keyword.arg for keyword in node.keywords} == fields, f"{path.name}:{node.lineno}"
                calls += 1
    assert calls >= len(CAVEATS)


def test_a_caveat_without_its_values_is_a_fault_of_ours() -> None:
    with pytest.raises(KeyError):
        caveat("drift")
    with pytest.raises(KeyError):
        caveat("no such doubt")


@pytest.mark.parametrize(
    ("case", "part"),
    [
        ("precision_not_met", "after 3 sessions; the preset wanted ±2"),
        ("not_steady", "1 of 3 sessions"),
        ("disturbed", "120 involuntary switches over 18 blocks"),
        ("off_reference", "slower than when"),
        ("environment_changed", "governor: performance ≠ powersave"),
        ("oversubscribed", "4 threads share 2 processors"),
        ("throttled", "3 throttle events"),
        ("old_sessions", "2 of 3 sessions of the latency pass were taken up to 2.5 days before the others"),
        ("references_differ", "here/fake@1#2"),
        ("precision_changed", "fp16 although fp32"),
        ("fallback_provider", "ran on builtin ops"),
        ("layers_not_ranked", "2.50×"),
    ],
)
def test_the_sentence_says_what_was_found(case: str, part: str) -> None:
    assert part in doubts(CASES[case]())[case]


@pytest.mark.parametrize("field", ["governor", "versions"])
def test_sessions_under_other_conditions_do_not_belong_into_one_number(field: str) -> None:
    assert field in doubts(changed(**{field: None}))["environment_changed"]


def test_precision_not_met_says_what_it_would_take_or_that_nothing_would() -> None:
    by_code = {c.code: c for c in Measurement(KEY, TARGET, sessions(3, spread=0.1)).caveats}
    assert "sessions" in by_code["precision_not_met"].remedy
    far = sessions(3, anchor_s=3e-3, walk=0.0005)
    by_code = {c.code: c for c in Measurement(KEY, TARGET, far).caveats}
    remedy = by_code["precision_not_met"].remedy
    assert "More sessions would not do: 200.0 % off its anchor's reference" in remedy


def test_the_latency_is_the_median_of_session_medians_and_its_interval_brackets_it() -> None:
    found = sessions(5, spread=0.01)
    view = views.latency(found)
    assert view is not None
    assert view.median_s == pytest.approx(np.median([np.median(s.arrays["samples_ns"]) * 1e-9 for s in found]))
    assert view.interval_s is not None
    assert view.interval_s[0] < view.median_s < view.interval_s[1]
    assert view.samples == sum(len(s.arrays["samples_ns"]) for s in found)
    assert (view.reference_id, view.reference_s) == (REFERENCE["id"], REFERENCE["latency_s"])
    assert view.as_dict()["anchor_ref_s"] == REFERENCE["latency_s"]


def test_a_slow_tail_moves_neither_figure_and_a_session_without_a_reference_is_its_own() -> None:
    view = views.latency(slow_tail())
    assert view is not None
    assert not view.anchor.uses_anchor
    assert view.anchored_s == pytest.approx(view.median_s)
    alone = views.latency(sessions(anchor_s=1.3e-3, anchor_ref=None))
    assert alone is not None
    assert alone.anchor.offset == pytest.approx(0.0, abs=1e-9)
    assert alone.anchored_s == pytest.approx(alone.median_s)


def test_two_sessions_have_no_interval_and_few_samples_no_percentile() -> None:
    assert views.latency(sessions(1)) is not None
    view = views.latency(sessions(2, blocks=5, per_block=2))
    assert view is not None
    assert view.interval_s is None
    assert view.anchored_interval_s is None
    assert view.percentiles["p99.9"] is None


def test_layers_of_another_graph_are_left_out() -> None:
    old, new = layers_session((1e-3,), modules=("a",)), layers_session()
    closed = views.closure([old, new, new])
    assert closed is not None
    assert closed.sessions == 2
    assert [row["name"] for row in views.layer_rows([old, new, new], closed)] == ["l0", "l1"]


def memory_session(peak: int | None, arena: int | None = None) -> Session:
    data = {"peak_bytes": peak, "baseline_bytes": 10, "weights_bytes": 5, "arena_peak_bytes": arena}
    return replace(layers_session(), pass_="memory", data=data, arrays={})


def test_memory_keeps_its_parts_apart_and_unknown_ones_unknown() -> None:
    rows = [{"live_bytes": 100}, {"live_bytes": 300}, {"live_bytes": None}]
    found = views.memory([memory_session(3), memory_session(1), memory_session(2)], rows)
    assert found is not None
    assert (found["peak_bytes"], found["live_activation_bytes"], found["arena_peak_bytes"]) == (2, 300, None)
    assert views.memory([], []) is None
    assert views.memory([], [{"live_bytes": None}]) is None
    assert views.memory([], rows) == {"live_activation_bytes": 300, "arena_peak_bytes": None}
    unknown = views.memory([memory_session(None), memory_session(2, arena=7)], [])
    assert unknown is not None
    assert (unknown["live_activation_bytes"], unknown["arena_peak_bytes"]) == (None, 7)


@pytest.mark.parametrize(("medians", "apart"), [([1.0] * 8, None), ([1.0, 1.1] * 3, None), ([1.0, 1.1] * 4, 0.1)])
def test_groups_of_sessions_are_seen_from_eight_on(medians: list[float], apart: float | None) -> None:
    assert views.groups_apart(medians) == pytest.approx(apart)


@pytest.mark.parametrize(
    ("width", "apart", "seen"),
    [(0.0, 0.0099, False), (0.0, 0.0101, True), (0.02, 0.059, False), (0.02, 0.061, True)],
)
def test_groups_lie_apart_by_twice_their_width_and_by_a_percent(width: float, apart: float, seen: bool) -> None:
    """Four sessions below and four above; ``apart`` is from the middle of the ones to that of the others, in logs."""
    below = [0.0, 0.5 * width, 0.5 * width, width]
    found = views.groups_apart([math.exp(each) for each in [*below, *(each + apart for each in below)]])
    assert found == (pytest.approx(math.expm1(apart)) if seen else None)
    assert views.groups_apart([1.0] * 7 + [1.5]) is None  # one session is no group


def test_one_group_is_hardly_ever_taken_for_two() -> None:
    random = np.random.default_rng(1)
    calls = [views.groups_apart(list(np.exp(random.normal(0, 0.05, 8)))) for _ in range(2000)]
    assert sum(call is not None for call in calls) < 40


def test_mlperf_quotes_its_percentile_by_the_early_stopping_rule() -> None:
    taken = [latency_session(i, preset="mlperf-mobile", per_block=200, spread=0.0) for i in range(5)]
    found = views.latency(taken)
    assert found is not None
    assert found.early_stopping_s is not None
    assert found.early_stopping_s > found.percentiles["p90"] > found.median_s
    few = views.latency([latency_session(i, preset="mlperf-mobile", per_block=5) for i in range(5)])
    assert few is not None
    assert few.early_stopping_s is None
    usual = views.latency(sessions())
    assert usual is not None
    assert usual.early_stopping_s is None
