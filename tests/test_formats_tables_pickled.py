"""The restricted reader of pickles: plain data of every protocol is read, anything that names code is refused unrun."""

from __future__ import annotations

import collections
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import UsageError
from hwbench.formats.tables import pickled, read_table
from hwbench.formats.tables.source import Source

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
keys = st.integers(-(2**62), 2**62) | st.text(max_size=9) | st.tuples(st.integers(-9, 9), st.text(max_size=3))
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=12,
)
any_file = settings(max_examples=60, deadline=None)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        path = tmp_path / "table.pkl"
        path.write_bytes(data)
        return pickled.load(Source.open(path))

    return read


# --- what is read --------------------------------------------------------------------------------------------------


@any_file
@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_of_every_protocol_is_read(load: Callable[[bytes], Any], value: Any, protocol: int) -> None:
    assert load(pickle.dumps(value, protocol)) == value


@any_file
@given(value=plain)
def test_what_is_written_is_a_pickle_of_the_same_data(load: Callable[[bytes], Any], value: Any) -> None:
    data = pickled.dump(value)
    assert pickle.loads(data) == value  # noqa: S301  our own bytes
    assert load(data) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ordered_dicts_and_numpy_are_plain_data(load: Callable[[bytes], Any], protocol: int) -> None:
    matrix = np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3))
    value = {
        "table": collections.OrderedDict([("base", 1.5), ("row", collections.OrderedDict([(3, np.float32(0.5))]))]),
        "arrays": [np.linspace(0, 1, 5), matrix, matrix, np.array([True, False])],
        "scalars": (np.float64(2.5), np.int64(-7), np.bool_(True)),
        "set": {1, 2},
    }
    found = load(pickle.dumps(value, protocol))
    assert found["table"] == {"base": 1.5, "row": {3: 0.5}}
    assert found["scalars"] == (2.5, -7, True)
    assert sorted(found["set"]) == [1, 2]
    for one, two in zip(found["arrays"], value["arrays"], strict=True):
        assert one.dtype == two.dtype
        assert (one == two).all()


def test_numpys_old_names_are_known(load: Callable[[bytes], Any]) -> None:
    data = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert load(data).tolist() == [0.0, 1.0, 2.0]


# --- what is refused -----------------------------------------------------------------------------------------------


class Touch:
    """A pickle of it makes a file when it is loaded by Python's own reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("fmt", ["hardcore-nas", "tf-nas", "eagle", "hw-nas-bench"])
def test_code_in_a_pickle_is_never_run(tmp_path: Path, fmt: str, protocol: int) -> None:
    made = tmp_path / "made"
    bad = pickle.dumps({"base": 1.0, "in_channels_": Touch(made)}, protocol)
    path = tmp_path / "latency.pkl"
    path.write_bytes(bad)
    with pytest.raises(UsageError, match="more than plain data") as error:
        read_table(path, fmt)
    assert "mkdir" in error.value.message
    assert not made.exists()
    pickle.loads(bad)  # noqa: S301  the same bytes do make it elsewhere, so the test can fail
    assert made.is_dir()


class Plain:
    """An instance with a state, and no code but its own class."""

    def __init__(self) -> None:
        self.latency = 1.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_functions_and_references_are_refused(load: Callable[[bytes], Any], protocol: int) -> None:
    for value in (Plain(), Plain, len, pickle.loads, np.array([Plain()], dtype=object), 1j, Path("x"), range(3)):
        with pytest.raises(UsageError, match="more than plain data"):
            load(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"Pelsewhere\n.",  # a persistent id
        b"\x80\x02U\x05whereQ.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # the copyreg registry
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x04\x8c\x02os\x8c\x05x.y.z\x93.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00O\x85R.",
        b"\x80\x02}}b.",  # state for a dict
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"\x80\x05\x97.",  # a buffer from outside
    ],
)
def test_every_way_to_code_is_refused(load: Callable[[bytes], Any], data: bytes) -> None:
    with pytest.raises(UsageError, match="more than plain data"):
        load(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02})" + b"2\x86" * 64 + b"K\x01s.",  # a key that takes 2^64 steps to hash
        b"\x80\x02}\x8a\xff" + b"\x7f" * 255 + b"K\x01s.",  # a huge number as a key
        b"\x80\x02}]K\x01s.",  # a list as a key
        b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7fxx.",  # bytes that are said to be many
    ],
)
def test_bombs_are_refused(load: Callable[[bytes], Any], data: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(UsageError):
        load(data)
    assert time.perf_counter() - start < 10


def test_long_programs_are_refused(load: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "OPCODES", 1000)
    assert load(b"\x80\x02" + b"N" * 998 + b".") is None
    with pytest.raises(UsageError, match="more than 1,000 steps"):
        load(b"\x80\x02" + b"N" * 999 + b".")


def test_an_array_that_is_said_to_be_large_is_refused(load: Callable[[bytes], Any]) -> None:
    whole = pickle.dumps(np.zeros(3), 2)
    for shape in (b"M\xff\xff\x85", b"K\x00M\xff\xff\x86", b"J\xff\xff\xff\xff\x85"):
        with pytest.raises(UsageError):
            load(whole.replace(b"K\x03\x85", shape, 1))
    assert load(whole).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
def test_cut_pickles_are_refused(load: Callable[[bytes], Any], cut: int) -> None:
    with pytest.raises(UsageError, match="no whole pickle"):
        load(pickled.dump({"base": 1.0, "row": {3: 0.5, 5: 0.75}})[:-cut])


@any_file
@given(data=st.binary(min_size=1, max_size=60))
def test_any_bytes_are_read_or_refused(load: Callable[[bytes], Any], data: bytes) -> None:
    try:
        load(b"\x80\x04" + data)
    except UsageError as error:
        if not error.remedy:
            raise


def test_only_plain_data_is_written() -> None:
    with pytest.raises(TypeError, match="set is no plain data"):
        pickled.dump({"a": {1, 2}})
