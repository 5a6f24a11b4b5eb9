"""The fuzzer finds what gets past a parser, and finds nothing in ours."""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import pytest

from hwbench.errors import UsageError
from hwbench.selftest import fuzz, predict
from hwbench.selftest.fuzz import MOST_BYTES, mutated

MODULE = "hwbench.selftest.fuzz"


def only(monkeypatch: pytest.MonkeyPatch, parser: Any, seeds: Any = (b"a=1\nb=2\n",)) -> Any:
    monkeypatch.setattr(sys.modules[MODULE], "parsers", lambda: [("made", parser, seeds)])
    return fuzz(inputs=200, seed=3)


def test_our_parsers_stand_some_thousand_inputs() -> None:
    result = fuzz(inputs=2_000, seed=5)
    assert result.passed, result.notes
    assert sum(row["inputs"] for row in result.rows) >= 2_000
    assert len(result.rows) >= 20
    assert all(row["answers"] > 0 for row in result.rows)  # the seeds are in the grammar


def test_an_error_that_is_not_ours_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    result = only(monkeypatch, lambda data: int(data.decode()))
    assert not result.passed
    assert result.rows[0]["wrong"] > 0
    assert any("made: ValueError" in note for note in result.notes)


def test_a_refusal_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes) -> None:
        raise UsageError("No.", remedy="Yes.")

    result = only(monkeypatch, refuse)
    assert result.passed
    assert result.rows[0]["refused"] == 200


def test_a_hang_is_ended_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[MODULE], "LIMIT_S", 0.5)
    slept: list[int] = []

    def sleep_once(data: bytes) -> None:
        if not slept:
            slept.append(1)
            time.sleep(10.0)

    result = only(monkeypatch, sleep_once)
    assert not result.passed
    assert result.rows[0]["hangs"] == 1


def test_mutations_differ_are_seeded_and_bounded() -> None:
    seeds = [b"one=1\ntwo=2\n" * 50, b"x" * 100]
    first = [mutated(seeds, random.Random(i)) for i in range(200)]
    assert first == [mutated(seeds, random.Random(i)) for i in range(200)]
    assert len(set(first)) > 150
    assert all(len(data) <= MOST_BYTES for data in first)


def test_predicting_is_timed_only_with_a_predictor() -> None:
    with pytest.raises(UsageError, match="asks a predictor"):
        predict()
