"""NNLQP's ``gt.txt`` (ms) and nn-Meter's data set (ms): whole networks, one a line."""

from __future__ import annotations

import re
from typing import Any

from .foreign import NETWORK, Foreign, Record, Value
from .outgoing import Outgoing
from .source import MS, Reading, Source
from .written import Written, cannot

DEVICES = ("cortexA76cpu_tflite21", "adreno640gpu_tflite21", "adreno630gpu_tflite21", "myriadvpu_openvino2019r2")
"""Columns of nn-Meter's data set. Source: microsoft/nn-Meter, README."""
_SPLITS = ("train", "test")


def recognises_nnlqp(source: Source) -> bool:
    fields = source.head.split(b"\n", 1)[0].split()
    return len(fields) in (6, 7) and fields[1].endswith(b".onnx") and fields[2].isdigit()


def read_nnlqp(source: Source, skip_faulty: bool) -> Foreign:
    """GraphID OnnxPath BatchSize Latency ModelType PlatformId [train|test], separated by spaces."""
    reading = Reading(source, "nnlqp", "ms")
    for number, line in source.lines():
        where, fields = f"line {number}", line.split()
        if len(fields) not in (6, 7) or (len(fields) == 7 and fields[6] not in _SPLITS):
            reading.problem(where, f"{len(fields)} fields where there are 6, or 7 with train or test")
            continue
        batch, latency_s = reading.integer(fields[2], where), reading.cost(fields[3], MS, where)
        if batch is None or latency_s is None:
            continue
        config: dict[str, Value] = {"id": fields[0], "name": fields[1], "batch": batch, "family": fields[4]}
        if len(fields) == 7:
            config["split"] = fields[6]
        raw = " ".join(fields[:3])
        listed = tuple(sorted(config.items()))
        reading.add(where, Record(NETWORK, (), (), listed, latency_s, raw_key=raw, device=fields[5]))
    return reading.finish(skip_faulty)


def write_nnlqp(going: Outgoing, name: str) -> Written:
    """The whole networks of a table. Raises UsageError where it holds none."""
    lines, left_out = [], []
    for number, row in enumerate(going.rows, start=1):
        record = row.record
        if record.op != NETWORK:
            left_out.append(record.raw_key)
            continue
        path = re.sub(r"\s", "_", str(record.get("name", ""))) or f"network{number}"
        head = [record.get("id", number), path, record.get("batch", going.target.batch)]
        tail = [record.get("family", "unknown"), re.sub(r"\s", "_", record.device) or going.target.device]
        split = [record.get("split")] if record.get("split") else []
        lines.append(" ".join(str(field) for field in [*head, repr(record.latency_s / MS), *tail, *split]))
    if not lines:
        raise cannot(going, "nnlqp", "it holds whole networks")
    return Written({name: ("\n".join(lines) + "\n").encode()}, tuple(left_out))


def recognises_data_set(source: Source) -> bool:
    return source.head.lstrip().startswith(b"{") and any(f'"{name}"'.encode() in source.head for name in DEVICES)


def read_data_set(source: Source, skip_faulty: bool) -> Foreign:
    """nn-Meter's data set: an object a line with a network's latency on each device; graphs are not kept."""
    reading = Reading(source, "nn-meter-data", "ms", notes=["graphs were not kept"])
    for number, line in source.lines():
        where = f"line {number}"
        row: Any = source.json(line, f"{where}: ")
        if not isinstance(row, dict) or not isinstance(row.get("id"), str | int):
            reading.problem(where, "no network with an id")
            continue
        found = [device for device in DEVICES if row.get(device) is not None]
        if not found:
            reading.problem(where, "no latency on any device")
        for device in found:
            if (latency_s := reading.cost(row[device], MS, f"{where}, {device}")) is not None:
                name = str(row["id"])
                record = Record(NETWORK, (), (), (("name", name),), latency_s, raw_key=name, device=device)
                reading.add(where, record)
    return reading.finish(skip_faulty)
