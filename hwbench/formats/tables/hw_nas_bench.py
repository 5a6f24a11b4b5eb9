"""HW-NAS-Bench: latencies in ms and energies in mJ, of whole NAS-Bench-201 cells and of FBNet's blocks.

The file is a pickle; JSON of the same shape is read and written too. Cells are a list in NAS-Bench-201's own order for
each data set and metric; blocks have a key each. Metrics are called ``{device}_latency`` and ``{device}_energy``.
Source: GATECH-EIC/HW-NAS-Bench, ``hw_nas_bench_api.py``, for the keys and for which side they name (the input's).
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from . import nas201, pickled
from .foreign import NAN, NETWORK, SKIP, Foreign, Record
from .outgoing import Outgoing, Row
from .source import MJ, MS, Reading, Source
from .written import Written, cannot

CELL_SPACE, BLOCK_SPACE = "nasbench201", "fbnet"
DATA_SETS = ("cifar10", "cifar100", "ImageNet16-120")
Rows = Iterator[tuple[Record, Any]]

_METRIC = re.compile(r"(?P<device>[A-Za-z0-9_.-]{1,64})_(?P<what>latency|energy)")
_CONFIG = {"name": "infer.tiny", "C": 16, "N": 5, "num_classes": 10}  # of every cell on CIFAR-10

_CONV = re.compile(r"ConvNorm_H(\d+)_W(\d+)_Cin(\d+)_Cout(\d+)_kernel(\d+)_stride(\d+)_group(\d+)", re.ASCII)
_BLOCK = re.compile(r"ConvBlock_H(\d+)_W(\d+)_Cin(\d+)_Cout(\d+)_exp(\d+)_kernel(\d+)_stride(\d+)_group(\d+)", re.ASCII)
_SKIP = re.compile(r"Skip_H(\d+)_W(\d+)_Cin(\d+)_Cout(\d+)_stride(\d+)", re.ASCII)
_POOL = re.compile(r"AvgP_H(\d+)_W(\d+)_Cin(\d+)_Cout(\d+)_kernel(\d+)_stride(\d+)", re.ASCII)
_LINEAR = re.compile(r"FC_Cin(\d+)_Cout(\d+)", re.ASCII)


def recognises(source: Source) -> bool:
    named = re.search(rb'["\']?(nasbench201|fbnet)["\']?', source.head[:4096]) is not None
    return named and (pickled.is_pickle(source) or source.head.lstrip().startswith(b"{"))


def read(source: Source, skip_faulty: bool) -> Foreign:
    """Every device's latency and energy, of cells and of blocks. Raises UsageError for what is no such table."""
    reading = Reading(source, "hw-nas-bench", "ms")
    table = pickled.load(source) if pickled.is_pickle(source) else source.json()
    if not isinstance(table, dict) or not any(isinstance(table.get(name), dict) for name in (CELL_SPACE, BLOCK_SPACE)):
        raise source.bad(f"neither '{CELL_SPACE}' nor '{BLOCK_SPACE}' in it")
    if isinstance(cells := table.get(CELL_SPACE), dict):
        for name, metrics in cells.items():
            _read_metrics(reading, metrics, str(name), functools.partial(_cells, reading, str(name)))
    if isinstance(blocks := table.get(BLOCK_SPACE), dict):
        _read_metrics(reading, blocks, BLOCK_SPACE, functools.partial(_blocks, reading))
    reading.dialect = " and ".join(name for name in (CELL_SPACE, BLOCK_SPACE) if name in table)
    return reading.finish(skip_faulty)


def _read_metrics(reading: Reading, metrics: Any, where: str, rows: Callable[[Any], Rows]) -> None:
    """Latency and energy of each device, joined into one record a row."""
    if not isinstance(metrics, dict):
        reading.problem(where, "no mapping of metrics")
        return
    devices: dict[str, dict[str, Any]] = {}
    for name, values in metrics.items():
        if match := _METRIC.fullmatch(name) if isinstance(name, str) else None:
            devices.setdefault(match["device"], {})[match["what"]] = values
        elif name != "config":
            reading.notes.append(f"{where}: '{str(name)[:40]}' is neither latency nor energy and was ignored")
    for device, found in devices.items():
        energies = {}
        for record, value in rows(found.get("energy", ())):
            energies[record.raw_key] = reading.cost(value, MJ, f"{where} {device}_energy {record.raw_key}")
        for record, value in rows(found.get("latency", ())):
            latency_s = reading.cost(value, MS, f"{where} {device}_latency {record.raw_key}")
            if latency_s is not None:
                energy_j = energies.get(record.raw_key)
                _add(reading, record, device, latency_s, NAN if energy_j is None else energy_j)


def _add(reading: Reading, record: Record, device: str, latency_s: float, energy_j: float) -> None:
    kept = Record(
        record.op, record.input, record.output, record.config, latency_s,
        energy_j=energy_j, raw_key=record.raw_key, device=device,
    )  # fmt: skip
    reading.add(f"{device} {record.raw_key}", kept)


def _cells(reading: Reading, data_set: str, values: Any) -> Rows:
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    if not isinstance(listed, list | tuple):
        reading.problem(data_set, "a metric that is no list")
        return
    if listed and len(listed) != nas201.CELLS:
        reading.problem(data_set, f"{len(listed)} values where there are {nas201.CELLS} cells")
        return
    for index, (cell, value) in enumerate(zip(nas201.cells(), listed, strict=False)):
        name = nas201.text(cell)
        config = (("data", data_set), ("index", index), ("name", name))
        yield Record(NETWORK, config=config, raw_key=f"{data_set} {name}"), value


def _blocks(reading: Reading, values: Any) -> Rows:
    for key, value in values.items() if isinstance(values, dict) else ():
        record = parse_key(key) if isinstance(key, str) else None
        if record is None:
            reading.problem(str(key)[:120], "no key of HW-NAS-Bench's FBNet tables")
        else:
            yield record, value


def parse_key(key: str) -> Record | None:
    """The block that a key stands for, ``None`` where it is no key."""
    for pattern, describe in _GRAMMAR:
        if (match := pattern.fullmatch(key)) and all(len(number) < 10 for number in match.groups()):
            numbers = [int(number) for number in match.groups()]
            return describe(key, *numbers) if 0 not in numbers else None
    return None


def _strided(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


def _conv(key: str, h: int, w: int, before: int, after: int, kernel: int, stride: int, groups: int) -> Record:
    output = (after, _strided(h, stride), _strided(w, stride))
    config = (("groups", groups), ("kernel", kernel), ("stride", stride))
    return Record("conv", (before, h, w), output, config, raw_key=key)


def _mbconv(
    key: str, h: int, w: int, before: int, after: int, ratio: int, kernel: int, stride: int, groups: int
) -> Record:
    output = (after, _strided(h, stride), _strided(w, stride))
    config = (("groups", groups), ("kernel", kernel), ("mid", before * ratio), ("stride", stride))
    return Record("mbconv", (before, h, w), output, config, raw_key=key)


def _skip(key: str, h: int, w: int, before: int, after: int, stride: int) -> Record:
    if stride == 1 and before == after:
        return Record(SKIP, (before, h, w), (after, h, w), (("stride", 1),), raw_key=key)
    return _conv(key, h, w, before, after, 1, stride, 1)  # where channels or size change it is a 1x1 convolution


def _pool(key: str, h: int, w: int, before: int, after: int, kernel: int, stride: int) -> Record:
    if kernel == h == w:
        return Record("global_pool", (before, h, w), (after, 1, 1), raw_key=key)
    output = (after, _strided(h, stride), _strided(w, stride))
    return Record("pool", (before, h, w), output, (("kernel", kernel), ("stride", stride)), raw_key=key)


def _linear(key: str, before: int, after: int) -> Record:
    return Record("linear", (before, 1, 1), (after,), raw_key=key)


_GRAMMAR: tuple[tuple[re.Pattern[str], Callable[..., Record]], ...] = (
    (_CONV, _conv), (_BLOCK, _mbconv), (_SKIP, _skip), (_POOL, _pool), (_LINEAR, _linear),
)  # fmt: skip


def write(going: Outgoing, name: str) -> Written:
    """Cells of ``nasbench201`` or blocks of ``fbnet``; a pickle of plain data, or JSON where the name says so.

    Raises:
        UsageError: another space, or a table that does not cover it.
    """
    space = going.space.name if going.space else ""
    if space == CELL_SPACE:
        content = {CELL_SPACE: {DATA_SETS[0]: _cell_metrics(going)}}
    elif space == BLOCK_SPACE:
        content = {BLOCK_SPACE: _block_metrics(going)}
    else:
        raise cannot(going, "hw-nas-bench", "it holds cells of nasbench201 and blocks of fbnet")
    data = pickled.dump(content) if not name.endswith(".json") else json.dumps(content, allow_nan=False).encode("ascii")
    notes = (
        [f"{CELL_SPACE} is of 32x32 images and ten classes: written as '{DATA_SETS[0]}'"] if space == CELL_SPACE else []
    )
    return Written({name: data}, notes=tuple(notes))


def _cell_metrics(going: Outgoing) -> dict[str, Any]:
    space = going.space
    assert space is not None
    columns = [space.column(gene.name) for gene in space.genes]
    choices = [{choice: index for index, choice in enumerate(gene.choices)} for gene in space.genes]
    rows = np.array(
        [[choices[column][edge] for column, edge in zip(columns, cell, strict=True)] for cell in nas201.cells()]
    )
    table = going.table if going.table.bound is space else going.table.bind(space)  # what is compiled stays
    device = going.target.device
    metrics: dict[str, Any] = {f"{device}_latency": (np.asarray(table.latency_s(rows)) / MS).tolist()}
    if _has_energy(row.record for row in going.rows if row.record.op != SKIP):
        metrics[f"{device}_energy"] = (np.asarray(table.energy_j(rows)) / MJ).tolist()
    metrics["config"] = [_CONFIG | {"arch_str": nas201.text(cell)} for cell in nas201.cells()]
    return metrics


def _block_metrics(going: Outgoing) -> dict[str, Any]:
    if going.missing:
        raise cannot(going, "hw-nas-bench", f"{len(going.missing)} blocks have no entry, first '{going.missing[0]}'")
    rows = {key_of(row): row.record for row in going.without_constant().rows}
    if "" in rows:
        raise cannot(going, "hw-nas-bench", f"it has no key for '{rows[''].raw_key}'")
    device = going.target.device
    metrics = {f"{device}_latency": {key: record.latency_s / MS for key, record in rows.items()}}
    if _has_energy(record for record in rows.values() if record.op != SKIP):
        energies = {key: 0.0 if record.op == SKIP else record.energy_j / MJ for key, record in rows.items()}
        metrics[f"{device}_energy"] = energies
    return metrics


def _has_energy(records: Iterable[Record]) -> bool:
    return all(math.isfinite(record.energy_j) for record in records)


def key_of(row: Row) -> str:
    """A block's key, or an empty text where HW-NAS-Bench has none."""
    record = row.record
    if record.op == "linear":
        return f"FC_Cin{record.input[0]}_Cout{record.output[0]}"
    if len(record.input) != 3:
        return ""
    (before, h, w), after = record.input, record.output[0]
    sides = f"H{h}_W{w}_Cin{before}_Cout{after}"
    kernel, stride, groups = record.get("kernel"), record.get("stride", 1), record.get("groups", 1)
    if record.op == SKIP or (record.op == "conv" and row.chosen and kernel == 1):
        return f"Skip_{sides}_stride{stride}"
    if record.op == "conv":
        return f"ConvNorm_{sides}_kernel{kernel}_stride{stride}_group{groups}"
    if record.op == "mbconv" and record.number("mid") % before == 0 and not record.get("se"):
        return f"ConvBlock_{sides}_exp{record.number('mid') // before}_kernel{kernel}_stride{stride}_group{groups}"
    return f"AvgP_{sides}_kernel{h}_stride1" if record.op == "global_pool" else ""
