"""FBNet (mobile-vision): a JSON object a line for each operator, µs; its readers take ``runtime_us_p50``.

Arguments are texts of Caffe2's ``Argument`` message (``name: "kernel"``, ``i: 3``); a plain ``name=value`` is read too.
Source: facebookresearch/mobile-vision, ``lut_schema.py``.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .foreign import FIXED, SKIP, Foreign, Record, Shape, Value, word
from .outgoing import Outgoing
from .source import US, Reading, Source
from .written import Written

_FLOAT = 1  # TensorProto.DataType.FLOAT
_CAFFE2 = {"group": "groups", "kernel": "kernel", "stride": "stride", "pad": "pad", "dilation": "dilation"}
_OURS = {ours: theirs for theirs, ours in _CAFFE2.items()}
_OUTPUT = "output"
_PART = re.compile(r'\b(name|i|f|s|ints): *("(?:[^"\\]|\\.)*"|[^\s"]+)')
_IGNORED = {"order", "exhaustive_search", "ws_nbytes_limit", "kernel_h", "kernel_w", "engine"}


def recognises(source: Source) -> bool:
    first = source.head.split(b"\n", 1)[0]
    return b'"op_type"' in first and b'"runtime_us_p50"' in first


def read(source: Source, skip_faulty: bool) -> Foreign:
    """Every line's operator. Raises UsageError for a faulty line unless ``skip_faulty``."""
    reading = Reading(source, "fbnet", "µs")
    for number, line in source.lines():
        where = f"line {number}"
        row = source.json(line, f"{where}: ")
        if not isinstance(row, dict) or not isinstance(row.get("op_type"), str):
            reading.problem(where, "no operator")
        elif "runtime_us_p50" not in row:
            reading.problem(where, "no runtime_us_p50")
        elif (latency_s := reading.cost(row["runtime_us_p50"], US, where)) is not None:
            _add(reading, where, row, latency_s)
    return reading.finish(skip_faulty)


def _add(reading: Reading, where: str, row: dict[str, Any], latency_s: float) -> None:
    shapes, args = row.get("input_shapes", []), row.get("op_args", [])
    if not _are_shapes(shapes) or not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        reading.problem(where, "input_shapes are no lists of sizes, or op_args no texts")
        return
    config = {name: value for arg in args for name, value in [_argument(arg)] if name and name not in _IGNORED}
    source: Shape = tuple(shapes[0]) if shapes else ()
    if len(source) > 1:
        if source[0] != 1:
            config["batch"] = source[0]
        source = source[1:]
    made = config.pop(_OUTPUT, None)
    op = word(row["op_type"])
    op = "conv" if op == "Conv" else op
    output = made if isinstance(made, tuple) else _convolved(op, source, shapes, config)
    if op == "conv" and len(shapes) > 1 and len(shapes[1]) == 4:
        config.setdefault("kernel", shapes[1][2])
        if len(shapes) == 2:
            config["bias"] = 0
    listed = tuple(sorted((name, value) for name, value in config.items() if not isinstance(value, tuple)))
    raw = json.dumps([row["op_type"], sorted(args), shapes], separators=(",", ":"))
    device = row.get("device", "")
    device = device if isinstance(device, str) else ""
    reading.add(where, Record(op, source, output, listed, latency_s, raw_key=raw, device=device))


def _are_shapes(shapes: Any) -> bool:
    return isinstance(shapes, list) and all(
        isinstance(shape, list) and len(shape) < 9 and all(type(size) is int and 0 < size < 1 << 40 for size in shape)
        for shape in shapes
    )


def _convolved(op: str, source: Shape, shapes: list[list[int]], config: dict[str, Any]) -> Shape:
    """Output of a convolution: floor((h + 2 · pad - dilation · (k - 1) - 1) / stride) + 1 a side."""
    if op != "conv" or len(source) != 3 or len(shapes) < 2 or len(shapes[1]) != 4:
        return ()
    numbers = [config.get(name, usual) for name, usual in (("stride", 1), ("pad", 0), ("dilation", 1))]
    if not all(isinstance(number, int) for number in numbers) or numbers[0] < 1:
        return ()
    stride, pad, dilation = numbers
    kernels = shapes[1][2:]
    sides = [(n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(source[1:], kernels, strict=True)]
    return (shapes[1][0], *sides) if min(sides) > 0 else ()


def _argument(text: str) -> tuple[str, Any]:
    """Name and value of one argument; an empty name where it cannot be read."""
    if ":" not in text:
        name, _, value = text.partition("=")
        return word(name), _number(value)
    parts = _PART.findall(text)
    names = [value.strip('"') for kind, value in parts if kind == "name"]
    values = [value for kind, value in parts if kind != "name"]
    if not names or not values:
        return "", None
    name = word(_CAFFE2.get(names[0], names[0]))
    if any(kind == "ints" for kind, _ in parts):
        numbers = [_number(value) for value in values]
        return name, tuple(number for number in numbers if isinstance(number, int))
    if values[0].startswith('"'):
        return name, _unquoted(values[0])
    return name, _number(values[0])


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        return text.strip('"')


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            value = kind(text) if len(text) < 30 else text
        except ValueError:
            continue
        if not isinstance(value, float) or math.isfinite(value):
            return value
    return text


def write(going: Outgoing, name: str) -> Written:
    """A line for each entry; what is known of its distribution is the median alone, so that is all that is written."""
    device = str(going.target)
    constant = going.table.constant_s
    if constant < 0:  # no line can hold a negative latency
        going = going.without_constant()
    rows = [row.record for row in going.rows if row.record.op != SKIP]
    if constant > 0:
        rows.append(Record(FIXED, latency_s=constant))
    text = "".join(json.dumps(_line(record, device, going.target.batch), allow_nan=False) + "\n" for record in rows)
    return Written({name: text.encode("ascii")})


def _line(record: Record, device: str, batch: int) -> dict[str, Any]:
    config = dict(record.config)
    batch = int(config.pop("batch", batch))
    shapes = [[batch, *record.input]] if record.input else []
    plain = record.op == "conv" and {"kernel", "stride"} <= set(config) and len(record.input) == 3 and record.output
    if plain:
        kernel, groups = record.number("kernel"), record.number("groups", 1)
        shapes.append([record.output[0], record.input[0] // groups, kernel, kernel])
        if config.pop("bias", 1):
            shapes.append([record.output[0]])
    args = [_text(_OURS.get(name, name), value) for name, value in config.items()]
    if record.output:
        args.append(f'name: "{_OUTPUT}"\n' + "".join(f"ints: {size}\n" for size in record.output))
    return {
        "op_type": "Conv" if plain else record.op,
        "op_args": sorted(args),
        "input_shapes": shapes,
        "input_dtypes": [_FLOAT] * len(shapes),
        "runtime_us_p50": record.latency_s / US,
        "device": record.device or device,
    }


def _text(name: str, value: Value) -> str:
    kind, text = ("s", json.dumps(value)) if isinstance(value, str) else ("i", str(value))
    return f'name: "{name}"\n{"f" if isinstance(value, float) else kind}: {text}\n'
