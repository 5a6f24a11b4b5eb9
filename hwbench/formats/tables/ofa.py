"""OFA and ProxylessNAS: a mapping from a layer's key to its count, mean and deviation in ms, as YAML or JSON.

The two dialects differ in what ``expand`` means: a ratio in ProxylessNAS's, a number of channels in OFA-MobileNetV3's,
whose keys also end in ``-se:…-hs:…``. Users of these files read ``mean`` alone and add up a network's means.
Source: mit-han-lab/once-for-all, ``latency_lookup_table.py``, for the keys and for the rule of the shapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .foreign import NAN, Foreign, Record, Shape, Value
from .outgoing import Outgoing, Row
from .source import MS, Reading, Source, deviation, interval
from .written import Written, cannot

RATIO, CHANNELS = "ProxylessNAS (ratio)", "OFA-MobileNetV3 (channels)"

_KEY = re.compile(
    r"(?P<type>Conv|Conv_1|Conv_2|AvgPool2D|Logits|expanded_conv)"
    r"-input:(?P<input>[0-9]+(?:x[0-9]+){2})-output:(?P<output>[0-9]+(?:x[0-9]+){0,2})"
    r"(?:-expand:(?P<expand>[0-9]+)-kernel:(?P<kernel>[0-9]+)-stride:(?P<stride>[0-9]+)-idskip:(?P<idskip>[01])"
    r"(?:-se:(?P<se>[01])-hs:(?P<hs>[01]))?)?"
)
_BLOCK = "expanded_conv"
_FIELDS = {"count", "mean", "std", "var"}
_DIGITS = 9  # of one number in a key: no tensor has a side of a billion


@dataclass(frozen=True, slots=True)
class _Layer:
    """A key, taken apart; ``tail`` holds the numbers behind the shapes."""

    type: str
    input: Shape
    output: Shape
    tail: Mapping[str, int]

    @property
    def ratio(self) -> bool | None:
        """Whether ``expand`` is a ratio, ``None`` where there is none."""
        if "expand" not in self.tail:
            return None
        return self.tail["expand"] < self.input[0]


def recognises(source: Source) -> bool:
    return re.search(rb"-input:[0-9]+x[0-9]+x[0-9]+-output:[0-9]", source.head) is not None


def read(source: Source, skip_faulty: bool) -> Foreign:
    """A table of either dialect, in YAML or JSON.

    Raises:
        UsageError: it is none, or an entry is faulty and ``skip_faulty`` is false.
    """
    reading = Reading(source, "ofa", "ms")
    is_json = source.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and b'"' in source.head[:200]
    table = source.json() if is_json else source.yaml()
    if not isinstance(table, dict):
        raise source.bad("a list where a table maps keys to entries")
    layers = {key: layer for key in table if (layer := _taken_apart(key, reading)) is not None}
    ratio = _is_ratio(layers, reading)
    reading.dialect = RATIO if ratio else CHANNELS
    reading.format = "proxyless" if ratio else "ofa"
    for key, layer in layers.items():
        _add(reading, key, layer, ratio, table[key])
    others = sorted({name for key in layers if isinstance(table[key], dict) for name in table[key]} - _FIELDS)
    if others:  # seen in forks: one more device's milliseconds beside the mean
        reading.notes.append(f"fields beside the mean were not read: {', '.join(name[:40] for name in others[:8])}")
    return reading.finish(skip_faulty)


def _taken_apart(key: str, reading: Reading) -> _Layer | None:
    match = _KEY.fullmatch(key)
    if match is None or (match["type"] == _BLOCK) != (match["expand"] is not None):
        reading.problem(key[:120], "no key of OFA or ProxylessNAS")
        return None
    numbers = re.findall(r"[0-9]+", key)
    if any(len(number) > _DIGITS for number in numbers):
        reading.problem(key[:120], "a size that no tensor has")
        return None
    tail = {name: int(match[name]) for name in ("expand", "kernel", "stride", "idskip", "se", "hs") if match[name]}
    layer = _Layer(match["type"], _shape(match["input"]), _shape(match["output"]), tail)
    if fault := _misshapen(layer):
        reading.problem(key[:120], fault)
        return None
    return layer


def _shape(text: str) -> Shape:
    """HxWxC as (c, h, w); the single number of the last layer's output as (features,)."""
    height, *rest = (int(size) for size in text.split("x"))
    return (rest[1], height, rest[0]) if len(rest) == 2 else (height, *rest)


def _misshapen(layer: _Layer) -> str:
    """What contradicts the format's rule of shapes: (r + 1) // 2 after the stem, int((f - 1) / s + 1) after a block."""
    if len(layer.output) == 2 or 0 in layer.input + layer.output:
        return "a shape that is none"
    if len(layer.output) == 1:
        return ""
    stride = layer.tail.get("stride", 2 if layer.type == "Conv" else 1)
    if stride < 1:
        return "a stride of 0"
    if layer.type == "AvgPool2D":
        return "" if layer.output[1:] == (1, 1) else "a global pooling whose output is not 1x1"
    due = tuple((size - 1) // stride + 1 for size in layer.input[1:])
    return "" if layer.output[1:] == due else f"its output should be {due[0]}x{due[1]} by its stride"


def _is_ratio(layers: dict[str, _Layer], reading: Reading) -> bool:
    """Which dialect a whole table is in: only channels are as many as what enters a block, or more."""
    told = {key: layer.ratio for key, layer in layers.items() if layer.ratio is not None}
    ratio = 2 * sum(map(bool, told.values())) > len(told)
    odd = [key for key, each in told.items() if each != ratio]
    for key in odd:
        meant = "a ratio" if ratio else "a number of channels"
        reading.problem(key[:120], f"its expand is not {meant}, as it is in most of the table's keys")
        del layers[key]
    return ratio


def _add(reading: Reading, key: str, layer: _Layer, ratio: bool, value: Any) -> None:
    if not isinstance(value, dict) or "mean" not in value:
        reading.problem(key[:120], "an entry without a mean")
        return
    mean_s = reading.cost(value["mean"], MS, key[:120])
    if mean_s is None:
        return
    samples = reading.integer(value["count"], key[:120]) if "count" in value else 0
    spread: float | None = NAN
    if "std" in value:
        spread = reading.cost(value["std"], MS, key[:120])
    elif "var" in value:
        variance = reading.cost(value["var"], MS * MS, key[:120])
        spread = None if variance is None else variance**0.5
    if samples is None or spread is None:
        return
    op, config = _meaning(layer, ratio)
    ends = interval(mean_s, spread, samples)
    reading.add(key[:120], Record(op, layer.input, layer.output, config, mean_s, *ends, samples=samples, raw_key=key))


def _meaning(layer: _Layer, ratio: bool) -> tuple[str, tuple[tuple[str, Value], ...]]:
    if layer.type == _BLOCK:
        tail = layer.tail
        width = tail["expand"] * layer.input[0] if ratio else tail["expand"]
        named: dict[str, Value] = {"kernel": tail["kernel"], "stride": tail["stride"], "mid": width}
        named["has_skip"] = tail["idskip"]
        if "se" in tail:
            named |= {"has_se": tail["se"], "hard_swish": tail["hs"]}
        return "mbconv", tuple(sorted(named.items()))
    if layer.type == "Logits":
        return ("linear" if layer.input[1:] == (1, 1) else "pool_linear"), ()
    if layer.type == "AvgPool2D":
        return "global_pool", ()
    kernel, stride = (3, 2) if layer.type == "Conv" else (1, 1)
    return "conv", (("kernel", kernel), ("stride", stride))


def write(going: Outgoing, name: str) -> Written:
    """The OFA dialect. Raises UsageError for a table whose blocks its keys cannot tell apart."""
    return _write(going, name, False)


def write_proxyless(going: Outgoing, name: str) -> Written:
    """The ProxylessNAS dialect. Raises UsageError like :func:`write`."""
    return _write(going, name, True)


def _write(going: Outgoing, name: str, ratio: bool) -> Written:
    """One file of everything, or with no name one for each resolution, called as OFA calls them."""
    if going.space is None:
        raise cannot(going, "proxyless" if ratio else "ofa", "its keys stand for a network's blocks")
    entries: dict[str, tuple[Row, dict[str, float]]] = {}
    for row in going.without_constant().rows:
        if row.record.op == "skip":
            continue
        key = key_of(row, ratio)
        if not key:
            raise cannot(going, "proxyless" if ratio else "ofa", f"it has no key for '{row.record.raw_key}'")
        if key in entries and entries[key][1]["mean"] != row.record.latency_s / MS:
            raise cannot(going, "proxyless" if ratio else "ofa", f"two of its blocks have one key, '{key}'")
        entries[key] = row, _value(row.record)
    if name:
        return Written({name: _text({key: value for key, (_, value) in entries.items()}, name.endswith(".json"))})
    return Written(dict(_files(entries)))


def key_of(row: Row, ratio: bool) -> str:
    """A block's key, or an empty text where the dialect has none.

    Args:
        row: the block's record with its places.
        ratio: in ProxylessNAS's dialect.
    """
    record = row.record
    source, made = _hwc(record.input), _hwc(record.output)
    if record.op == "mbconv":
        expand = _expand(record, ratio)
        known = record.get("groups", 1) == 1 and record.get("skip", "none") in ("none", "identity")
        act = record.get("act")
        if not expand or not known or (ratio and record.get("se")) or (not ratio and act not in ("relu", "h_swish")):
            return ""
        tail = f"-expand:{expand}-kernel:{record.get('kernel')}-stride:{record.get('stride')}"
        tail += f"-idskip:{int(record.get('skip', 'none') == 'identity')}"
        if not ratio:
            tail += f"-se:{int(bool(record.get('se')))}-hs:{int(act == 'h_swish')}"
        return f"{_BLOCK}-input:{source}-output:{made}{tail}"
    kind = _kind(row, ratio)
    return f"{kind}-input:{source}-output:{made}" if kind else ""


def _kind(row: Row, ratio: bool) -> str:
    """The layer's word for a block that is no bottleneck."""
    record = row.record
    if record.op == "conv" and not record.get("se") and record.get("skip", "none") == "none":
        if row.first:
            return "Conv" if (record.get("kernel"), record.get("stride")) == (3, 2) else ""
        if (record.get("kernel"), record.get("stride")) != (1, 1):
            return ""
        return "Conv_1" if record.input[1:] != (1, 1) or ratio else "Conv_2"
    if record.op == "pool_linear":
        return "Logits" if ratio else ""
    return {"global_pool": "AvgPool2D", "linear": "Logits"}.get(record.op, "") if not ratio else ""


def _expand(record: Record, ratio: bool) -> int:
    mid = record.number("mid")
    if not ratio:
        return mid
    return mid // record.input[0] if mid % record.input[0] == 0 else 0


def _hwc(shape: Shape) -> str:
    return "x".join(map(str, (*shape[1:], shape[0])))


def _value(record: Record) -> dict[str, float]:
    """What is known of an entry; a deviation that is not known is left out."""
    value: dict[str, float] = {"count": max(1, record.samples), "mean": record.latency_s / MS}
    if (spread := deviation(record)) is not None:
        value["std"] = spread / MS
    return value


def _files(entries: Mapping[str, tuple[Row, dict[str, float]]]) -> Iterator[tuple[str, bytes]]:
    sizes = sorted({size for row, _ in entries.values() for size in row.resolutions})
    if not sizes:
        sizes = [max(row.record.input[1] for row, _ in entries.values() if row.first)]
    for size in sizes:
        held = {key: value for key, (row, value) in entries.items() if not row.resolutions or size in row.resolutions}
        yield f"{size}_lookup_table.yaml", _text(held, False)


def _text(entries: Mapping[str, Mapping[str, float]], as_json: bool) -> bytes:
    if as_json:
        return (json.dumps(entries, indent=1, allow_nan=False) + "\n").encode("ascii")
    lines = (
        f"{key}: {{{', '.join(f'{name}: {_yaml_number(value)}' for name, value in entry.items())}}}\n"
        for key, entry in entries.items()
    )
    return "".join(lines).encode("ascii")


def _yaml_number(value: float) -> str:
    """A number that YAML 1.1 takes for one: it wants a point before the exponent."""
    text = repr(value)
    return text if "e" not in text or "." in text else text.replace("e", ".0e")
