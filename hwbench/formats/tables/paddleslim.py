"""PaddleSlim's table of operators: ``hardware,inference_engine,timestamp``, then an operator a line, tab, latency.

The format does not say the unit of the latency; ms is assumed. The table that PaddleDetection ships for BlazeFace has
an older first line, ``op_type<TAB>hardware<TAB>unit``, which does say it.
Source: PaddlePaddle/PaddleSlim, ``docs``, "table of hardware latency", for the operators and their fields;
PaddlePaddle/PaddleDetection, ``slim/nas/latency_855.txt``, for the older first line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone

from .foreign import Foreign, Record, Value, word
from .outgoing import Outgoing
from .source import MS, US, Reading, S, Source
from .written import Written, cannot

_SHAPE = ("n_in", "c_in", "h_in", "w_in")
_CONV = ("flag_bias", "flag_relu", *_SHAPE, "c_out", "groups", "kernel", "padding", "stride", "dilation")
_POOL = ("flag_global_pooling", *_SHAPE, "kernel", "padding", "stride", "ceil_mode", "pool_type")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "conv": _CONV,
    "pool": _POOL,
    "batch_norm": ("active_type", *_SHAPE),
    "softmax": ("axis", *_SHAPE),
}
"""Fields behind the operator's name; any other operator has the input's shape alone."""
_NAMES = (("conv", "conv"), ("depthwise_conv", "conv"), ("pool", "pool"))  # how an operator's name begins
_MAX, _AVERAGE = 1, 3  # pool_type; 2 counts the padding into the average
_OLDER = "op_type"  # how the older first line begins
_UNITS = {"s": S, "ms": MS, "us": US, "ns": 1e-9}


def recognises(source: Source) -> bool:
    lines = source.head.split(b"\n")
    return (
        len(lines) > 1
        and (
            (lines[0].count(b",") == 2 and b"\t" not in lines[0])
            or re.fullmatch(rb"op_type\t[^\t,]+\t[a-z]+", lines[0].strip(b"\xef\xbb\xbf\r")) is not None
        )
        and re.fullmatch(rb"[^\t,]+(?:,[^\t,]*){4,}\t[^\t]+", lines[1].rstrip(b"\r")) is not None
    )


def read(source: Source, skip_faulty: bool) -> Foreign:
    """Every line's operator. Raises UsageError for a faulty line unless ``skip_faulty``."""
    reading = Reading(source, "paddleslim", "ms")
    device = ""
    for number, line in source.lines():
        where = f"line {number}"
        if not device:
            device = _first_line(reading, line)
            continue
        fields, _, cost = line.partition("\t")
        latency_s = reading.cost(cost, _UNITS[reading.unit], where)
        record = _operator(reading, where, fields.split(","))
        if latency_s is not None and record is not None:
            found = Record(
                record.op, record.input, record.output, record.config, latency_s, raw_key=fields, device=device
            )
            reading.add(where, found)
    return reading.finish(skip_faulty)


def _first_line(reading: Reading, line: str) -> str:
    """The hardware that the first line names; the unit that the older one names goes into ``reading``."""
    if line.startswith(f"{_OLDER}\t"):
        _, hardware, unit, *more = [*line.split("\t"), ""]
        if not hardware.strip() or unit.strip() not in _UNITS or any(more):
            raise reading.source.bad(f"the first line is not op_type, hardware and a unit ({', '.join(_UNITS)})")
        reading.unit, reading.dialect = unit.strip(), "older first line"
        return hardware.strip()
    hardware, engine, *rest = [*line.split(","), ""]
    if "\t" in line or len(rest) != 2 or not hardware:
        raise reading.source.bad("the first line is not hardware,inference_engine,timestamp")
    reading.notes.append("the format does not say its unit; ms was assumed")
    reading.notes.append(f"made with {engine or 'an engine that it does not name'}, {rest[0] or 'undated'}")
    return hardware.strip()


def _operator(reading: Reading, where: str, fields: list[str]) -> Record | None:
    name = fields[0].strip()
    op = next((ours for start, ours in _NAMES if name.startswith(start)), word(name))
    expected = FIELDS.get(op, _SHAPE)
    if len(fields) != len(expected) + 1:
        reading.problem(where, f"'{name[:40]}' has {len(expected)} fields, not {len(fields) - 1}")
        return None
    text = dict(zip(expected, (field.strip() for field in fields[1:]), strict=True))
    kept: dict[str, Value] = {key: text.pop(key) for key in ("active_type", "axis") if key in text}
    numbers: dict[str, int] = {}
    for key, value in text.items():
        if (number := reading.integer(value, f"{where}, {key}")) is None:
            return None
        numbers[key] = number
    shape = (numbers["c_in"], numbers["h_in"], numbers["w_in"])
    if numbers["n_in"] != 1:
        kept["batch"] = numbers["n_in"]
    if op == "conv":
        return _conv(reading, where, numbers, kept)
    if op == "pool":
        return _pool(reading, where, numbers, kept)
    return Record(op, shape, shape, tuple(sorted(kept.items())))


def _conv(reading: Reading, where: str, n: Mapping[str, int], kept: dict[str, Value]) -> Record | None:
    reach = n["dilation"] * (n["kernel"] - 1) + 1
    sides = _sides(n, reach)
    if sides is None or not n["groups"]:
        reading.problem(where, "a convolution without output")
        return None
    config: dict[str, Value] = {name: n[name] for name in ("groups", "kernel", "stride", "dilation")}
    config |= {"pad": n["padding"], "bias": n["flag_bias"], "act": "relu" if n["flag_relu"] else "none", **kept}
    return Record("conv", (n["c_in"], n["h_in"], n["w_in"]), (n["c_out"], *sides), tuple(sorted(config.items())))


def _pool(reading: Reading, where: str, n: Mapping[str, int], kept: dict[str, Value]) -> Record | None:
    shape = (n["c_in"], n["h_in"], n["w_in"])
    if n["flag_global_pooling"]:
        return Record("global_pool", shape, (n["c_in"], 1, 1), tuple(sorted(kept.items())))
    sides = _sides(n, n["kernel"])
    if sides is None:
        reading.problem(where, "a pooling without output")
        return None
    config: dict[str, Value] = {"kernel": n["kernel"], "stride": n["stride"], "pad": n["padding"], **kept}
    config |= {"pool": n["pool_type"], "ceil": n["ceil_mode"]}
    return Record("pool", shape, (n["c_in"], *sides), tuple(sorted(config.items())))


def _sides(n: Mapping[str, int], reach: int) -> tuple[int, int] | None:
    """Output's height and width: floor (or ceiling) of (side + 2 · padding - reach) / stride, and 1."""
    if not n["stride"]:
        return None
    up = n["stride"] - 1 if n.get("ceil_mode") else 0
    height, width = ((n[side] + 2 * n["padding"] - reach + up) // n["stride"] + 1 for side in ("h_in", "w_in"))
    return (height, width) if min(height, width) > 0 else None


def write(going: Outgoing, name: str) -> Written:
    """Convolutions, poolings and the rest of a table of kernels; what has other activations is left out.

    Raises:
        UsageError: a space's table, whose blocks are several operators, or nothing to write.
    """
    if going.space is not None:
        raise cannot(going, "paddleslim", "it holds single operators, not blocks")
    target = going.target
    lines = [f"{target.device},{target.runtime},{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"]
    left_out = []
    for row in going.rows:
        fields = _fields(row.record, target.batch)
        if fields is None or "," in row.record.op:
            left_out.append(row.record.raw_key)
        else:
            lines.append(f"{','.join(map(str, fields))}\t{row.record.latency_s / MS!r}")
    if len(lines) == 1:
        raise cannot(going, "paddleslim", "none of its operators has a line in it")
    return Written({name: ("\n".join(lines) + "\n").encode()}, tuple(left_out))


def _fields(record: Record, batch: int) -> list[Value] | None:
    """One operator's fields, ``None`` where PaddleSlim has none for it."""
    if len(record.input) != 3:
        return None
    shape = [record.get("batch", batch), *record.input]
    act = record.get("act", "none") or "none"
    if record.op == "conv":
        if act not in ("none", "relu", "Relu", "RELU") or not {"kernel", "stride"} <= {
            name for name, _ in record.config
        }:
            return None
        kernel = record.number("kernel")
        name = "depthwise_conv2d" if record.get("groups", 1) == record.input[0] > 1 else "conv2d"
        head: list[Value] = [name, record.get("bias", 1), int(act != "none")]
        window = [kernel, record.get("pad", kernel // 2), record.get("stride"), record.get("dilation", 1)]
        return [*head, *shape, record.output[0], record.get("groups", 1), *window]
    if record.op == "global_pool" or (record.op == "pool" and record.output[1:] == (1, 1)):
        return ["pool2d", 1, *shape, record.input[1], 0, 1, 0, record.get("pool", _AVERAGE)]
    if record.op == "pool":
        if "kernel" not in dict(record.config):
            return None
        maximum = "max" in str(record.get("runtime_op", "")).lower()
        kind = record.get("pool", _MAX if maximum else _AVERAGE)
        window = [record.get("kernel"), record.get("pad", 0), record.get("stride", 1)]
        return ["pool2d", 0, *shape, *window, record.get("ceil", 0), kind]
    if record.op in FIELDS:
        return [record.op, record.get(FIELDS[record.op][0], 1), *shape]
    return [record.op, *shape] if record.op in ("activation", "elementwise", "relu", "add") else None
