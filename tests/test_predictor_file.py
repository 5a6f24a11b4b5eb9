"""The predictor's file: what was written is read, and nothing else is."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from predict_device import conv, device, kernels_of, networks, plain

from hwbench.errors import UsageError
from hwbench.predict import file, trees
from hwbench.predict.predictor import Predictor

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.train(
        networks(5, 2, device(), noise=0.01), about={"versions": {"onnxruntime": "1"}, "left_out": {}}
    )


@pytest.fixture(scope="module")
def written(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "<script>.hwp"
    predictor.write(path)
    return path


@pytest.fixture
def forge(written: Path, tmp_path: Path) -> Callable[..., Path]:
    """The file with its members changed and every digest right again, as somebody would who means harm."""

    def make(change: Callable[[Members, dict[str, Any]], None]) -> Path:
        with zipfile.ZipFile(written) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        head = json.loads(members.pop(file.HEAD))
        change(members, head)
        head["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        path = tmp_path / "forged.hwp"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(file.HEAD, json.dumps(head))
            for name, data in members.items():
                archive.writestr(name, data)
        return path

    return make


def test_a_predictor_that_was_read_says_the_same(predictor: Predictor, written: Path) -> None:
    found = Predictor.read(written)
    for kernels in (kernels_of(0, 0), kernels_of(4, 7), (conv(33, 77, 19), plain("Odd", "other", 3, 4))):
        here, there = predictor.of_kernels(kernels), found.of_kernels(kernels)
        assert there.latency_s == pytest.approx(here.latency_s, rel=1e-9)
        assert (there.low_s, there.high_s) == pytest.approx((here.low_s, here.high_s), rel=1e-6)
        assert there.coverage == here.coverage
    assert [e.totals_s for e in found.examples] == [e.totals_s for e in predictor.examples]
    assert [e.kernels for e in found.examples] == [e.kernels for e in predictor.examples]
    assert found.summary()["correction"] == predictor.summary()["correction"]


def test_what_was_read_can_be_learnt_from_again(written: Path) -> None:
    found = Predictor.read(written)
    again = Predictor.train(found.examples, seed=found.about["seed"])
    kernels = kernels_of(1, 1)
    assert again.of_kernels(kernels).latency_s == pytest.approx(found.of_kernels(kernels).latency_s, rel=1e-6)


def test_nothing_in_it_runs(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".json", ".parquet", ".txt"}


def test_written_again_it_is_the_same_file(predictor: Predictor, written: Path, tmp_path: Path) -> None:
    Predictor.read(written).write(tmp_path / "again.hwp")
    with zipfile.ZipFile(written) as one, zipfile.ZipFile(tmp_path / "again.hwp") as two:
        assert sorted(one.namelist()) == sorted(two.namelist())
        assert one.read(file.EXAMPLES) == two.read(file.EXAMPLES)


def test_a_file_that_was_cut_anywhere_is_refused(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    for length in (0, 1, 30, len(whole) // 3, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path = tmp_path / "cut.hwp"
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError):
            Predictor.read(path)


def test_a_file_with_one_byte_changed_is_refused_or_unharmed(
    written: Path, tmp_path: Path, predictor: Predictor
) -> None:
    whole = bytearray(written.read_bytes())
    random = np.random.default_rng(0)
    expected = predictor.of_kernels(kernels_of(0, 0)).latency_s
    refused = 0
    for place in random.integers(0, len(whole), 25):
        damaged = whole.copy()
        damaged[place] ^= 0x41
        path = tmp_path / "damaged.hwp"
        path.write_bytes(damaged)
        try:
            found = Predictor.read(path)
        except UsageError:
            refused += 1
        else:  # a bit in a date of the archive harms nobody
            assert found.of_kernels(kernels_of(0, 0)).latency_s == pytest.approx(expected, rel=1e-9)
    assert refused >= 20


def test_what_is_no_predictor_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no predictor at"):
        Predictor.read(tmp_path / "missing.hwp")
    text = tmp_path / "text.hwp"
    text.write_text("hello")
    with pytest.raises(UsageError, match="no predictor"):
        Predictor.read(text)
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "b")
    with pytest.raises(UsageError, match="no predictor of hwbench"):
        Predictor.read(other)
    with pytest.raises(UsageError):
        Predictor.read(tmp_path)


def test_how_many_sessions_a_figure_is_of_stays_with_it(predictor: Predictor, tmp_path: Path) -> None:
    examples = tuple(replace(e, sessions=(7,) * len(e.totals_s)) for e in predictor.examples)
    replace(predictor, examples=examples).write(tmp_path / "told.hwp")
    assert [each.sessions for each in Predictor.read(tmp_path / "told.hwp").examples] == [e.sessions for e in examples]


def test_another_format_or_other_traits_are_explained(forge: Callable[..., Path]) -> None:
    for other in (2, 99):
        with pytest.raises(UsageError, match=f"format version {other}") as refused:
            Predictor.read(forge(lambda members, head, other=other: head.update(format=other)))
        assert "--store-only" in refused.value.remedy
    with pytest.raises(UsageError, match="other traits"):
        Predictor.read(forge(lambda members, head: head["traits"].pop()))


def _set(name: str, value: Any) -> Callable[[Members, dict[str, Any]], None]:
    return lambda members, head: head.update({name: value})


def _tree(old: str, new: str) -> Callable[[Members, dict[str, Any]], None]:
    def change(members: Members, head: dict[str, Any]) -> None:
        import re

        text = members["trees-0.txt"].decode()
        members["trees-0.txt"] = re.sub(old, new, text, count=1).encode()

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("target", "no target"),
        _set("scale", [0.0]),
        _set("networks", [[1.0]]),
        _set("networks", [[1.0, 2.0, "3", None]]),
        _set("per_distance", "wide"),
        _set("labels", [["a"]]),
        _set("ops", {"Conv": [0.0, -1]}),
        _set("ops", {"Conv": [0.0, 10**30]}),
        _set("ops", {"Conv": [1e9, 1]}),
        _set("ops", {"Conv": 1}),
        _set("correction", {"scale": None}),
        _set("correction", {"other": 1.0}),
        _set("scores", [[1.0, -1.0]]),
        _set("roofline", {"prices": {}, "lanes": 16, "peaks": {}, "bandwidth": 1.0}),
        _set("about", 7),
        _set("about", {"device": 3}),
        _set("about", {"anchor_ref": "a"}),
        _set("about", {"anchor_ref": {"id": "a", "latency_s": "b"}}),
        _set("about", {"left_out": {"a": ["b"]}}),
        _set("correction", {"scale": 1e300}),
        lambda members, head: head["roofline"].update(lanes=3),
        lambda members, head: members.pop(file.EXAMPLES),
        lambda members, head: members.update({file.KERNELS: b"PAR1 nothing PAR1"}),
        lambda members, head: members.update({"trees-0.txt": b"tree\nversion=v4\n"}),
        _tree(r"left_child=\S+", "left_child=999999"),
        _tree(r"split_feature=\S+", "split_feature=12345"),
        _tree(r"threshold=\S+", "threshold=nan"),
        _tree(r"leaf_value=\S+", "leaf_value=1e300"),
        _tree(r"num_leaves=\d+", "num_leaves=4000000000"),
        _tree(r"num_cat=0", "num_cat=5"),
        _tree(r"max_feature_idx=\d+", "max_feature_idx=3"),
        _tree(r"num_class=1", "num_class=9"),
        _tree(r"objective=\S+", "objective=lambdarank"),
        # What LightGBM reads otherwise than Python: ends of lines and texts, repeated keys, numbers.
        _tree(r"shrinkage=1", "shrinkage=1\rnum_leaves=4000"),
        _tree(r"shrinkage=1", "shrinkage=1\0"),
        _tree(r"Tree=0", "Tree=0\nnum_leaves=4000"),
        _tree(r"num_cat=0", "num_cat=0\nnum_leaves =3"),
        _tree(r"num_cat=0", "num_cat=0\nnum_leaves"),
        _tree(r"num_cat=0", "num_cat=0\n"),
        _tree(r"num_class=1", "num_class=1\nnum_class=1"),
        _tree(r"left_child=(\d)", r"left_child=0_\1"),
        _tree(r"split_feature=(\d+)", r"split_feature=\1e0"),
    ],
)
def test_a_forged_file_is_refused(
    forge: Callable[..., Path], change: Callable[[Members, dict[str, Any]], None]
) -> None:
    path = forge(change)
    with pytest.raises(UsageError) as caught:
        Predictor.read(path)
    assert caught.value.remedy


def test_an_interval_without_end_is_a_number(forge: Callable[..., Path]) -> None:
    found = Predictor.read(forge(_set("scores", [[1e9, 1.0]]))).of_kernels(kernels_of(0, 0))
    assert 0 < found.low_s < found.latency_s < found.high_s < float("inf")


def test_a_file_of_single_kernels_alone_holds_no_network(forge: Callable[..., Path]) -> None:
    import pyarrow.parquet as pq

    def change(members: Members, head: dict[str, Any]) -> None:
        table = pq.read_table(io.BytesIO(members[file.EXAMPLES])).to_pydict()
        table["generated_for"] = [["a"]] * len(table["generated_for"])
        members[file.EXAMPLES] = file._parquet(table)

    with pytest.raises(UsageError, match="holds no networks"):
        Predictor.read(forge(change))


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "MOST_BYTES", 1 << 20)
    path = tmp_path / "bomb.hwp"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(file.HEAD, "{}")
        archive.writestr("trees-0.txt", b"0" * (2 << 20))
    assert path.stat().st_size < 10_000
    with pytest.raises(UsageError, match="would unpack to"):
        Predictor.read(path)


def test_a_few_bytes_that_stand_for_many_rows_are_refused(
    forge: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    rows = file._parquet({"key": pa.nulls(file.MOST_VALUES + 1, pa.string())})
    assert len(rows) < 10_000
    with pytest.raises(UsageError, match="would fill the memory"):
        Predictor.read(forge(lambda members, head: members.update({file.KERNELS: rows})))
    monkeypatch.setattr(file, "MOST_VALUES", 10_000)
    one = file._parquet({"totals_s": pa.array([[1.0] * 50_000])})
    with pytest.raises(UsageError, match="would fill the memory"):
        Predictor.read(forge(lambda members, head: members.update({file.EXAMPLES: one})))


def test_kernels_whose_sizes_come_to_nothing_are_refused(forge: Callable[..., Path]) -> None:
    """A product of no groups is no number, a transposed convolution needs data."""

    def told(**changed: Any) -> Callable[[Members, dict[str, Any]], None]:
        def change(members: Members, head: dict[str, Any]) -> None:
            import pyarrow.parquet as pq

            table = pq.read_table(io.BytesIO(members[file.KERNELS])).to_pydict()
            fields = json.loads(table["key"][0])
            fields[2] = changed.pop("kind", fields[2])
            fields[3] = changed.pop("inputs", fields[3])
            fields[5] |= changed
            table["key"][0] = json.dumps(fields)
            members[file.KERNELS] = file._parquet(table)

        return change

    for change in (told(groups=0), told(kind="conv_transpose", inputs=[])):
        with pytest.raises(UsageError, match="cannot be read"):
            Predictor.read(forge(change))


def test_examples_that_cannot_be_are_refused(written: Path, forge: Callable[..., Path]) -> None:
    import pyarrow.parquet as pq

    def with_column(name: str, value: Any) -> Callable[[Members, dict[str, Any]], None]:
        def change(members: Members, head: dict[str, Any]) -> None:
            table = pq.read_table(io.BytesIO(members[file.EXAMPLES])).to_pydict()
            table[name][0] = value
            members[file.EXAMPLES] = file._parquet(table)

        return change

    cases: list[tuple[str, Any]] = [
        ("totals_s", []),
        ("totals_s", [-1.0]),
        ("sessions", [3, 3, 3]),
        ("sessions", [0]),
        ("weight", -1.0),
        ("kernels", [10**6]),
        ("kernel_s", [1.0]),
        ("target", "pi5/onnxruntime:fp32@1x1"),
    ]
    for name, value in cases:
        with pytest.raises(UsageError):
            Predictor.read(forge(with_column(name, value)))


def test_trees_are_checked_by_the_line(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        text = archive.read("trees-0.txt").decode()
    columns = int(text.partition("max_feature_idx=")[2].partition("\n")[0]) + 1
    assert "tree_sizes=" not in trees.checked(text, columns)
    with pytest.raises(UsageError, match="columns"):
        trees.checked(text, columns + 1)
    with pytest.raises(UsageError, match="is missing"):
        trees.checked(text.replace("\nTree=1\n", "\nTree=2\n"), columns)
    with pytest.raises(UsageError, match="no model"):
        trees.checked(text.replace("end of trees", ""), columns)
