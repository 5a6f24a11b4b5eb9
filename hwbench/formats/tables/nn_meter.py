"""nn-Meter's profiled kernels: ``{kernel: {id: {shapes, config, latency: "mean +- deviation"}}}`` in ms.

Source: microsoft/nn-Meter, kernel predictor builder, for the fields and for what each kernel's configuration names.
"""

from __future__ import annotations

import json
import math
from typing import Any

from .foreign import NAN, Foreign, Record, Value, word
from .outgoing import Outgoing
from .source import MS, Reading, Source
from .written import Written, cannot

_CONFIG = {"KERNEL_SIZE": "kernel", "STRIDES": "stride", "POOL_STRIDES": "stride"}
_OURS = {"kernel": "KERNEL_SIZE", "stride": "STRIDES"}
_SIZES = ("HW", "CIN", "COUT")
_FUSED = "fused"  # which kernel of theirs a record is, e.g. conv-bn-relu
_SEPARATOR = "+-"


def recognises(source: Source) -> bool:
    head = source.head
    return head.lstrip().startswith(b"{") and b'"config"' in head and b'"latency"' in head and b'"CIN"' in head


def read(source: Source, skip_faulty: bool) -> Foreign:
    """Every profiled kernel. Raises UsageError for a faulty one unless ``skip_faulty``."""
    reading = Reading(source, "nn-meter", "ms", notes=["how often a kernel was run is not told: no intervals"])
    table = source.json()
    if not isinstance(table, dict):
        raise source.bad("no mapping from kernels to their measurements")
    for kernel, rows in table.items():
        if not isinstance(rows, dict):
            reading.problem(str(kernel)[:80], "no mapping of measurements")
            continue
        for name, row in rows.items():
            _add(reading, str(kernel), f"{str(kernel)[:60]} {str(name)[:40]}", row)
    return reading.finish(skip_faulty)


def _add(reading: Reading, kernel: str, where: str, row: Any) -> None:
    if not isinstance(row, dict) or "latency" not in row or not isinstance(row.get("config"), dict):
        reading.problem(where, "no latency, or no config")
        return
    mean = row["latency"]
    if isinstance(mean, str) and _SEPARATOR in mean:
        mean, _, deviation = (part.strip() for part in mean.partition(_SEPARATOR))
        if deviation.lower() != "nan" and reading.cost(deviation, MS, where) is None:
            return
    latency_s = reading.cost(mean, MS, where)
    numbers: dict[str, int] = {}
    for name, value in row["config"].items():
        if (number := _integer(value)) is not None:
            numbers[str(name)] = number
    if latency_s is not None:
        reading.add(where, _record(kernel, numbers, latency_s, where))


def _integer(value: Any) -> int | None:
    """A size; a list of equal sides is one of them."""
    first = value[0] if isinstance(value, list) and value else value
    return first if type(first) is int and 0 <= first < 1 << 40 else None


def _record(kernel: str, numbers: dict[str, int], latency_s: float, raw: str) -> Record:
    config: dict[str, Value] = {
        _CONFIG.get(name, word(name)): value for name, value in numbers.items() if name not in _SIZES
    }
    config[_FUSED] = word(kernel)
    side, before = numbers.get("HW", 0), numbers.get("CIN", 0)
    after = numbers.get("COUT", before)
    stride = max(1, int(config.get("stride", 1)))
    op = word(kernel)
    if "conv" in kernel:
        op = "conv"
        config["groups"] = before if kernel.startswith("dw") else 1
    shape = (before, side, side) if side else (before,) if before else ()
    made = (after, (side - 1) // stride + 1, (side - 1) // stride + 1) if side else (after,) if after else ()
    return Record(op, shape, made, tuple(sorted(config.items())), latency_s, NAN, NAN, raw_key=raw)


def write(going: Outgoing, name: str) -> Written:
    """The convolutions and other kernels with square inputs of a table of kernels.

    Raises:
        UsageError: a space's table, whose blocks are several kernels, or nothing to write.
    """
    if going.space is not None:
        raise cannot(going, "nn-meter", "it holds single kernels, not blocks")
    table: dict[str, dict[str, Any]] = {}
    left_out = []
    for number, row in enumerate(going.rows):
        record = row.record
        kernel = _kernel(record)
        square = len(record.input) == 3 and record.input[1] == record.input[2] and len(record.output) == 3
        if not kernel or not (square or len(record.input) == 1):
            left_out.append(record.raw_key)
        else:
            table.setdefault(kernel, {})[f"id_{number}"] = _row(record)
    if not table:
        raise cannot(going, "nn-meter", "none of its kernels is one of nn-Meter's")
    return Written({name: (json.dumps(table, indent=1, allow_nan=False) + "\n").encode("ascii")}, tuple(left_out))


def _kernel(record: Record) -> str:
    """nn-Meter's word for a kernel: the convolution with what is fused into it."""
    if fused := record.get(_FUSED, ""):
        return str(fused)
    if record.op == "conv":
        kernel = "dwconv" if record.get("groups", 1) == record.input[:1][0] > 1 else "conv"
        if kernel == "conv" and record.get("groups", 1) != 1:
            return ""
        act = str(record.get("act", "")).lower()
        return f"{kernel}-bn-{act}" if act not in ("", "none") else f"{kernel}-bn"
    return {"pool": "pool", "linear": "fc", "matmul": "fc"}.get(record.op, "")


def _row(record: Record) -> dict[str, Any]:
    config: dict[str, Any] = {"CIN": record.input[0]}
    if len(record.input) == 3:
        config["HW"] = record.input[1]
    if record.output and record.output[0] != record.input[0]:
        config["COUT"] = record.output[0]
    for ours, theirs in _OURS.items():
        if value := record.get(ours):
            config[theirs] = value
    shape = [[*record.input[1:], record.input[0]]]
    # Their reader wants both numbers; how samples scatter is not kept in a table, and nan says so.
    return {"shapes": shape, "config": config, "latency": f"{record.latency_s / MS!r} {_SEPARATOR} {math.nan}"}
