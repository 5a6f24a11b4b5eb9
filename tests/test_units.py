"""Units: what is printed for people can be read back, and what people write is read or refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench import units
from hwbench.errors import UsageError


@given(st.floats(min_value=1e-9, max_value=1e5))
def test_seconds_are_read_back_to_the_digits_that_were_printed(value: float) -> None:
    assert units.parse_seconds(units.seconds(value)) == pytest.approx(value, rel=0.51e-3)


@given(st.integers(0, 2**50))
def test_sizes_are_read_back_to_the_digits_that_were_printed(value: int) -> None:
    assert units.parse_bytes(units.size(value)) == pytest.approx(value, rel=0.51e-2, abs=0.5)


@given(st.floats(min_value=0, max_value=10))
def test_fractions_are_read_back_to_the_digits_that_were_printed(value: float) -> None:
    assert units.parse_fraction(units.percent(value, 2)) == pytest.approx(value, abs=0.51e-4)


@given(st.floats(min_value=1e-9, max_value=1e5), st.sampled_from([units.seconds, units.joules, units.count]))
def test_a_thousand_of_a_unit_is_one_of_the_next(value: float, show: Callable[[float], str]) -> None:
    number, _, unit = show(value).partition(" ")
    largest = unit in ("s", "J", "G")
    assert largest or float(number) < 1000


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (units.seconds(0.0123), "12.30 ms"),
        (units.seconds(0.99999999), "1.000 s"),
        (units.seconds(4.35e-5), "43.50 µs"),
        (units.seconds(1.23456e-9), "1.235 ns"),
        (units.seconds(-0.0005), "-500.0 µs"),
        (units.seconds(0), "0 ns"),
        (units.joules(0.0123), "12.3 mJ"),
        (units.joules(2), "2.00 J"),
        (units.size(512), "512 B"),
        (units.size(1_572_864), "1.50 MiB"),
        (units.size(1023.7), "1.00 KiB"),
        (units.count(3_504_872), "3.50 M"),
        (units.count(999), "999"),
        (units.count(999.7), "1.00 k"),
        (units.percent(0.0123), "1.2 %"),
        (units.period(95), "95 s"),
        (units.period(119.99), "2.0 min"),
        (units.period(9000), "2.5 h"),
        (units.period(700_000), "8.1 days"),
    ],
)
def test_what_people_see(shown: str, text: str) -> None:
    assert shown == text


@pytest.mark.parametrize("show", [units.seconds, units.joules, units.size, units.count, units.percent])
@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_number_is_never_a_number(show: Callable[[float | None], str], missing: float | None) -> None:
    assert show(missing) == "n/a"


@pytest.mark.parametrize(
    ("text", "value"),
    [("20ms", 0.02), ("5m", 300), ("5 min", 300), ("1.5h", 5400), (".5s", 0.5), ("3us", 3e-6), ("3μs", 3e-6)],
)  # fmt: skip
def test_durations(text: str, value: float) -> None:
    assert units.parse_seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("8MB", 8_000_000), ("8MiB", 8 * 2**20), ("64 kib", 65536), ("1b", 1)])
def test_sizes(text: str, value: int) -> None:
    assert units.parse_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), [("2%", 0.02), ("0.02", 0.02), ("100 %", 1)])
def test_fractions(text: str, value: float) -> None:
    assert units.parse_fraction(text) == pytest.approx(value)


@pytest.mark.parametrize("parse", [units.parse_seconds, units.parse_bytes, units.parse_fraction])
@pytest.mark.parametrize(
    "text", ["", "fast", "-1s", "1 parsec", "1e3s", "nan", "1 2s", "9" * 400 + "s", "9" * 400 + "GB", "9" * 400]
)
def test_what_cannot_be_read_is_a_usage_error_with_the_units(parse: Callable[[str], float], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "units" in (caught.value.remedy or "")


@given(st.floats(min_value=1e-6, max_value=1e5))
def test_joules_are_read_back_to_the_digits_that_were_printed(value: float) -> None:
    assert units.parse_joules(units.joules(value)) == pytest.approx(value, rel=0.51e-2)


@given(st.integers(0, 10**13))
def test_counts_are_read_back_to_the_digits_that_were_printed(value: int) -> None:
    assert units.parse_count(units.count(value)) == pytest.approx(value, rel=0.51e-2, abs=0.5)


@pytest.mark.parametrize("text", ["", "J", "-1J", "5", "5mW", "1e3J", "nanJ", "5 5J"])
def test_what_is_no_energy_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="energy"):
        units.parse_joules(text)


@pytest.mark.parametrize("text", ["", "M", "-1", "5MB", "1e6", "0x10", "five"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="count"):
        units.parse_count(text)
