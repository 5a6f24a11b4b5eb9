"""Tables that others publish as pickles: HardCoRe-NAS (s), TF-NAS (ms) and Eagle (s); read only.

Sources: Alibaba-MIIL/HardCoReNAS; AberHu/TF-NAS, ``latency_pkl``; SamsungLabs/eagle, README.
"""

from __future__ import annotations

import re
from typing import Any

from . import nas201, pickled
from .foreign import FIXED, NETWORK, Foreign, Record
from .source import MS, Reading, S, Source

_HARDCORE = re.compile(
    r"in_channels_(?P<before>\d+)_out_channels_(?P<after>\d+)_stride_(?P<stride>\d)_resolution_(?P<side>\d+)"
    r"_er_(?P<ratio>\d+(?:\.\d+)?)_k_(?P<kernel>\d+)_se_(?P<se>[A-Za-z0-9.]+)_act_(?P<act>[01])",
    re.ASCII,
)
_TF_NAS = re.compile(
    r"(?P<name>[A-Za-z]+)_(?P<side>\d+)_(?P<before>\d+)_(?P<se>\d+)_(?P<after>\d+)_k(?P<kernel>\d+)_s(?P<stride>\d)"
    r"_(?P<act>[a-z][a-z0-9_]*)",
    re.ASCII,
)
_NO_SE = {"0", "0.0", "False", "None"}
_PLAIN = re.compile(
    rb"numpy|multiarray|_reconstruct|scalar|dtype|ndarray|collections|OrderedDict|_codecs|encode|latin1"
)
_WORD = re.compile(rb"[A-Za-z_]{5,}")


def recognises_hardcore(source: Source) -> bool:
    return pickled.is_pickle(source) and b"in_channels_" in source.head


def recognises_tf_nas(source: Source) -> bool:
    return pickled.is_pickle(source) and re.search(rb"_k\d+_s\d_[a-z]", source.head) is not None


def recognises_eagle(source: Source) -> bool:
    """A pickle without words: its keys are tuples of small numbers."""
    return pickled.is_pickle(source) and _WORD.search(_PLAIN.sub(b"", source.head)) is None


def read_hardcore(source: Source, skip_faulty: bool) -> Foreign:
    """HardCoRe-NAS: seconds by the block's key; ``general`` is what all networks share."""
    reading = Reading(source, "hardcore-nas", "s")
    for key, value in _mapping(source).items():
        where = str(key)[:120]
        match = _HARDCORE.fullmatch(key) if isinstance(key, str) else None
        record = Record(FIXED, raw_key="general") if key == "general" else _hardcore(match) if match else None
        if record is None:
            reading.problem(where, "no key of HardCoRe-NAS")
        elif (latency_s := reading.cost(value, S, where)) is not None:
            reading.add(where, _with(record, latency_s))
    return reading.finish(skip_faulty)


def _hardcore(match: re.Match[str]) -> Record | None:
    shapes = _shapes(match)
    mid = float(match["ratio"]) * shapes[0][0] if shapes else 0
    if not shapes or mid != int(mid):
        return None
    config = (
        ("hard_swish", int(match["act"])),
        ("has_se", int(match["se"] not in _NO_SE)),
        ("kernel", int(match["kernel"])),
        ("mid", int(mid)),
        ("stride", int(match["stride"])),
    )
    return Record("mbconv", *shapes, config, raw_key=match.group())


def _shapes(match: re.Match[str]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Input and output of a block from the groups of its key, ``None`` where they cannot be."""
    numbers = [match[name] for name in ("before", "after", "side", "stride", "kernel")]
    if any(len(number) > 9 or int(number) == 0 for number in numbers):
        return None
    before, after, side, stride, _ = map(int, numbers)
    made = (side - 1) // stride + 1
    return (before, side, side), (after, made, made)


def read_tf_nas(source: Source, skip_faulty: bool) -> Foreign:
    """TF-NAS: ms by the block's key and its middle channels; ``base`` is what all networks share."""
    reading = Reading(source, "tf-nas", "ms")
    for key, value in _mapping(source).items():
        where = str(key)[:120]
        match = _TF_NAS.fullmatch(key) if isinstance(key, str) else None
        if key == "base":
            if (latency_s := reading.cost(value, MS, where)) is not None:
                reading.add(where, Record(FIXED, latency_s=latency_s, raw_key="base"))
        elif match is None or (shapes := _shapes(match)) is None:
            reading.problem(where, "no key of TF-NAS")
        elif not isinstance(value, dict):
            reading.problem(where, "no mapping from channels to latencies")
        else:
            _add_widths(reading, match, shapes, value)
    return reading.finish(skip_faulty)


def _add_widths(
    reading: Reading, match: re.Match[str], shapes: tuple[tuple[int, ...], tuple[int, ...]], widths: dict[Any, Any]
) -> None:
    config = {
        "se": int(match["se"]),
        "act": match["act"],
        "kernel": int(match["kernel"]),
        "stride": int(match["stride"]),
    }
    for mid, value in widths.items():
        where = f"{match.group()} {str(mid)[:20]}"
        latency_s = reading.cost(value, MS, where)
        width = reading.integer(mid, where)
        if latency_s is not None and width:
            full = tuple(sorted({**config, "mid": width}.items()))
            reading.add(where, Record("mbconv", *shapes, full, latency_s, raw_key=where))


def read_eagle(source: Source, skip_faulty: bool) -> Foreign:
    """Eagle: seconds by the operators of a NAS-Bench-201 cell; the device is the file's name."""
    reading = Reading(source, "eagle", "s")
    device = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.path.stem).strip("-.")
    for key, value in _mapping(source).items():
        where = str(key)[:60]
        edges = isinstance(key, tuple) and len(key) == nas201.EDGES
        if not edges or not all(type(op) is int and 0 <= op < len(nas201.OPERATORS) for op in key):
            reading.problem(where, "no cell of NAS-Bench-201")
        elif (latency_s := reading.cost(value, S, where)) is not None:
            name = nas201.text(tuple(nas201.OPERATORS[op] for op in key))
            reading.add(where, Record(NETWORK, (), (), (("name", name),), latency_s, raw_key=name, device=device))
    return reading.finish(skip_faulty)


def _mapping(source: Source) -> dict[Any, Any]:
    table = pickled.load(source)
    if not isinstance(table, dict):
        raise source.bad("no mapping from keys to latencies in the pickle")
    return table


def _with(record: Record, latency_s: float) -> Record:
    return Record(record.op, record.input, record.output, record.config, latency_s, raw_key=record.raw_key)
