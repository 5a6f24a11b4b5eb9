"""Targets: parsing and printing are inverses, and everything else is refused with the form shown."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.errors import UsageError
from hwbench.target import SHAPE, Target

ALNUM = string.ascii_letters + string.digits
names = st.builds(str.__add__, st.sampled_from(ALNUM), st.text(ALNUM + "_.-", max_size=12))
values = st.none() | st.text(ALNUM + "_.,-", min_size=1, max_size=8)
targets = st.builds(
    Target,
    device=names,
    runtime=names,
    options=st.dictionaries(names, values, max_size=4).map(lambda options: tuple(options.items())),
    precision=st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=8),
    threads=st.integers(1, 9999),
    batch=st.integers(1, 99999),
)


@given(targets)
def test_parse_inverts_print(target: Target) -> None:
    assert Target.parse(str(target)) == target


@given(targets, st.randoms())
def test_the_order_of_options_does_not_matter(target: Target, random: object) -> None:
    options = list(target.options)
    random.shuffle(options)  # type: ignore[attr-defined]
    assert str(target.with_(options=tuple(options))) == str(target)


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_usage_error(text: str) -> None:
    try:
        target = Target.parse(text)
    except UsageError:
        return
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("local-cpu/onnxruntime", "local-cpu/onnxruntime:fp32@1x1"),
        ("pi5/litert:int8@4", "pi5/litert:int8@4x1"),
        ("gpu0/torch+cudagraph:fp16", "gpu0/torch+cudagraph:fp16@1x1"),
        ("a/b@2x8", "a/b:fp32@2x8"),
        ("a/b+z=1+a:fp32@02", "a/b+a+z=1:fp32@2x1"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert str(Target.parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "local-cpu",
        "/onnxruntime",
        "local-cpu/",
        "a/b/c",
        "a/b:",
        "a/b:FP32",
        "a/b@",
        "a/b@-1",
        "a/b@1x",
        "a/b@1.5",
        "a/b+",
        "a/b+o=",
        "a/b+o=1+o=2",
        "a/b@0",
        "a/b@1x0",
        "a/b@10000",
        "a/b\n",
        " a/b",
        "../b",
        "a/b;reboot",
        "ä/b",
        "a/b@٣",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Target.parse(text)
    assert caught.value.remedy


def test_a_text_of_another_shape_is_answered_with_the_form() -> None:
    with pytest.raises(UsageError) as caught:
        Target.parse("onnxruntime on my laptop")
    assert SHAPE in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "fields",
    [
        {"device": "a b"},
        {"runtime": ""},
        {"precision": "fp32@4"},
        {"options": (("o", ""),)},
        {"options": (("o", "1"), ("o", None))},
        {"threads": 0},
        {"batch": 100000},
    ],
)
def test_a_target_that_could_not_be_read_back_cannot_be_made(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Target("a", "b").with_(**fields)


def test_options_are_looked_up_by_name() -> None:
    target = Target.parse("a/b+cudagraph+level=99")
    assert target.option("cudagraph") is True
    assert target.option("level") == "99"
    assert target.option("other") is None
