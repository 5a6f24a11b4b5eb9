"""The file of a predictor: one zip archive of JSON, Parquet and LightGBM's own text, and nothing that runs.

``predictor.json`` describes it and holds a sha256 of every other member. ``kernels.parquet`` has a row a distinct
kernel, ``examples.parquet`` one for each network, and ``samples.parquet``, where the predictor was adapted, one for
each network of the other target. Trees are checked line by line before LightGBM sees them: its parser trusts its
input.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, units
from ..errors import HwbenchError, UsageError
from ..kernel import Kernel
from ..measurement import plain
from ..target import Target
from ..writing import whole
from . import trees
from .ceilings import Ceilings
from .examples import Example
from .features import COMPANY, GROUPS, LANES, TRAITS, WORK, describe_network
from .model import Correction, Fitted, Reach, Trees
from .roofline import Roofline

if TYPE_CHECKING:
    from .predictor import Predictor

FORMAT = 6
"""Version of the members and columns, raised whenever a reader of an older one would go wrong: it is then refused."""
HEAD, KERNELS, EXAMPLES, SAMPLES = "predictor.json", "kernels.parquet", "examples.parquet", "samples.parquet"
MOST_BYTES, MOST_HEAD_BYTES, MOST_TREES = 512 << 20, 16 << 20, 32
MOST_VALUES = 1 << 22  # in a column, those in lists counted; a few bytes of Parquet can stand for any number of them
MOST_J = 1e12  # of one inference; no network draws as much, nor as little as one over it
MOST, MOST_LOG = 1e30, 50.0  # of any number, and of one that is raised to: products of them are still numbers
_AGAIN = "Train it again (hwbench predictor train), or copy it again from where it came."
BROKEN = (
    OSError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError,
    RecursionError, NotImplementedError, RuntimeError, ArithmeticError, StopIteration, MemoryError,
)  # fmt: skip
"""What archives, JSON and Parquet raise when they are damaged (zipfile alone has six ways), and what the sizes of a
kernel that cannot be come to."""
ADAPTED = "adaptation"
"""Where a file says that its predictor was adapted: in ``about``, so that it is a predictor's file like any other."""
_FACTS = ("device", "versions", "anchor_ref", "left_out")
_EXAMPLE_TEXTS = ("identity", "name", "family", "target", "sha256", "environment", "energy_method")
_EXAMPLE_NUMBERS = ("device_time_s", "weight", "energy_j", "energy_low_j", "energy_high_j")
_EXAMPLE_LISTS = {
    "kernel_s": float, "beta_s": float, "totals_s": float, "sessions": int, "started_at": str, "doubts": str,
    "generated_for": str,
}  # fmt: skip


def write(predictor: Predictor, path: Path) -> None:
    """Write a predictor beside its place and then move it there. Raises UsageError."""
    fitted = predictor.fitted
    measured = (*predictor.examples, *predictor.samples)
    kernels = list(dict.fromkeys(kernel for example in measured for kernel in example.kernels))
    places = {kernel: place for place, kernel in enumerate(kernels)}
    members = {
        KERNELS: _kernels_table(kernels, fitted),
        EXAMPLES: _examples_table(predictor.examples, places),
        **({SAMPLES: _examples_table(predictor.samples, places)} if predictor.samples else {}),
        **{f"trees-{place}.txt": text.encode() for place, text in enumerate(fitted.trees.texts)},
    }
    head = {
        "format": FORMAT,
        "hwbench_version": __version__,
        "target": predictor.target,
        "about": predictor.about,
        "traits": TRAITS,
        "company": COMPANY,
        "groups": GROUPS,
        "work": WORK,
        "roofline": fitted.roofline.as_dict(),
        "labels": fitted.trees.labels,
        "group_sd": fitted.group_sd,
        "ops": fitted.ops,
        "per_distance": fitted.per_distance,
        "scale": fitted.reach.scale,
        "networks": fitted.reach.networks,
        "correction": fitted.correction.as_dict(),
        "scores": fitted.scores,
        "held_out_error": fitted.held_out_error,
        "members": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
    }
    members[HEAD] = json.dumps(plain(head), sort_keys=True, allow_nan=False, indent=1).encode()
    with whole(path, "predictor") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (HEAD, *sorted(members.keys() - {HEAD})):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), members[name], zipfile.ZIP_DEFLATED)


def _kernels_table(kernels: list[Kernel], fitted: Fitted) -> bytes:
    import pyarrow as pa

    own = [fitted.own.get(kernel, (math.nan, 0)) for kernel in kernels]
    return _parquet(
        {
            "key": pa.array([kernel.key for kernel in kernels], pa.string()),
            "residual": pa.array([each[0] for each in own], pa.float64()),
            "networks": pa.array([each[1] for each in own], pa.int64()),
        }
    )


def _examples_table(examples: tuple[Example, ...], places: Mapping[Kernel, int]) -> bytes:
    import pyarrow as pa

    columns = {name: pa.array([getattr(e, name) for e in examples], pa.string()) for name in _EXAMPLE_TEXTS}
    columns |= {name: pa.array([getattr(e, name) for e in examples], pa.float64()) for name in _EXAMPLE_NUMBERS}
    for name, kind in _EXAMPLE_LISTS.items():
        arrow = pa.list_({float: pa.float64(), int: pa.int64(), str: pa.string()}[kind])
        columns[name] = pa.array([list(getattr(e, name)) for e in examples], arrow)
    columns["kernels"] = pa.array([[places[k] for k in e.kernels] for e in examples], pa.list_(pa.int64()))
    columns["arena_peak_bytes"] = pa.array([e.arena_peak_bytes for e in examples], pa.int64())
    return _parquet(columns)


def _parquet(columns: Mapping[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), out, compression="zstd")
    return out.getvalue()


def read(path: Path) -> Predictor:
    """Read a predictor; every way in which a file can be wrong is a UsageError."""
    from .predictor import Predictor

    try:
        head, members = _members(path)
        target = Target.parse(head["target"])
        kernels, own = _read_kernels(members[KERNELS], path)
        examples = _read_examples(members[EXAMPLES], kernels, path)
        samples = _read_examples(members[SAMPLES], kernels, path) if SAMPLES in members else ()
        if any(example.target != str(target) for example in examples):
            raise UsageError(f"{path} holds networks of another target than {target}.", remedy=_AGAIN)
        learnt = list(dict.fromkeys(kernel for example in examples for kernel in example.kernels))
        fitted = _fitted(head, members, learnt, own)
        return Predictor(str(target), examples, fitted, _about(head["about"]), samples)
    except FileNotFoundError:
        raise UsageError(
            f"There is no predictor at {path}.", remedy="hwbench predictor train -o FILE makes one."
        ) from None
    except HwbenchError as error:
        if str(path) in error.message:
            raise
        raise UsageError(f"{path}: {error.message}", remedy=error.remedy or _AGAIN) from error
    except BROKEN as error:
        raise UsageError(
            f"{path} cannot be read: it is no predictor, or only a part of one.", remedy=_AGAIN, detail=str(error)[:500]
        ) from error


def _members(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The description and every member that it names, unpacked and checked."""
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if HEAD not in sizes:
            raise UsageError(f"{path} is an archive, but no predictor of hwbench.", remedy=_AGAIN)
        if sum(sizes.values()) > MOST_BYTES or sizes[HEAD] > MOST_HEAD_BYTES or len(sizes) > MOST_TREES + 4:
            raise UsageError(
                f"{path} would unpack to {units.size(sum(sizes.values()))} in {len(sizes)} parts, more than any has.",
                remedy=f"At most {units.size(MOST_BYTES)} are read.",
            )
        head = json.loads(_unpack(archive, HEAD, sizes[HEAD]))
        found = head.get("format") if isinstance(head, dict) else None
        if type(found) is not int or found != FORMAT:
            raise UsageError(
                f"{path} has format version {found!r}; this hwbench reads version {FORMAT}.",
                remedy="Read it with the hwbench that wrote it, or train it again: what was measured is in the store "
                "(hwbench predictor train --on TARGET --store-only -o FILE).",
            )
        for name, ours in (("traits", TRAITS), ("company", COMPANY), ("groups", GROUPS), ("work", WORK)):
            if tuple(head.get(name, ())) != ours:
                raise UsageError(
                    f"{path} was learnt from other {name} than this hwbench computes.", remedy="Train it again."
                )
        members = {}
        for name, digest in head["members"].items():
            data = _unpack(archive, name, sizes[name])
            if hashlib.sha256(data).hexdigest() != digest:
                raise UsageError(f"{path}: {name} is not what was written: it was damaged or edited.", remedy=_AGAIN)
            members[name] = data
        return head, members


def _unpack(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """A member, never more than it says it is."""
    with archive.open(name) as file:
        data = file.read(size + 1)
    if len(data) > size:
        raise ValueError(f"{name} is longer than it says")
    return data


def _table(data: bytes, name: str, path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            groups = range(file.metadata.num_row_groups)
            size = sum(file.metadata.row_group(i).total_byte_size for i in groups)
            values = [
                sum(file.metadata.row_group(i).column(column).num_values for i in groups)
                for column in range(file.metadata.num_columns)
            ]
            if size > MOST_BYTES or max(file.metadata.num_rows, *values, 0) > MOST_VALUES:
                raise UsageError(f"{path}: {name} would fill the memory.", remedy=_AGAIN)
            table = file.read()
    except pa.ArrowException as error:
        raise UsageError(f"{path}: {name} is damaged.", remedy=_AGAIN, detail=str(error)[:500]) from error
    return table.to_pydict()


def _read_kernels(data: bytes, path: Path) -> tuple[list[Kernel], dict[Kernel, tuple[float, int]]]:
    table = _table(data, KERNELS, path)
    kernels = [Kernel.parse(key) for key in table["key"]]
    own = {}
    for kernel, residual, networks in zip(kernels, table["residual"], table["networks"], strict=True):
        if networks > 0:
            own[kernel] = _finite(residual, MOST_LOG), int(networks)
    return kernels, own


def _read_examples(data: bytes, kernels: list[Kernel], path: Path) -> tuple[Example, ...]:
    table = _table(data, EXAMPLES, path)
    count = len(table["identity"])
    found = []
    for i in range(count):
        row: dict[str, Any] = {name: str(table[name][i]) for name in _EXAMPLE_TEXTS}
        row |= {name: math.nan if table[name][i] is None else float(table[name][i]) for name in _EXAMPLE_NUMBERS}
        row |= {name: tuple(kind(value) for value in table[name][i]) for name, kind in _EXAMPLE_LISTS.items()}
        places = table["kernels"][i]
        if any(not 0 <= place < len(kernels) for place in places):
            raise UsageError(f"{path}: network {row['identity'][:80]} names a kernel that is not there.", remedy=_AGAIN)
        example = Example(
            kernels=tuple(kernels[place] for place in places),
            arena_peak_bytes=int(table["arena_peak_bytes"][i] or 0),
            **row,
        )
        _check_example(example, path)
        found.append(example)
    if all(example.generated_for for example in found):
        raise UsageError(f"{path} holds no networks.", remedy=_AGAIN)
    return tuple(found)


def _check_example(example: Example, path: Path) -> None:
    times = (*example.totals_s, *example.kernel_s, *example.beta_s, example.weight)
    counts = {len(example.kernels), len(example.kernel_s), len(example.beta_s)}
    if (
        len(counts) != 1
        or not example.totals_s
        or not all(math.isfinite(value) for value in times)
        or min(example.totals_s) <= 0
        or (example.sessions and (len(example.sessions) != len(example.totals_s) or min(example.sessions) < 1))
        or example.weight <= 0
        or not _can_be_energy(example)
    ):
        raise UsageError(f"{path}: what it says of network {example.identity[:80]} cannot be.", remedy=_AGAIN)


def _can_be_energy(example: Example) -> bool:
    """Whether an energy is none (nor one below idle), or one that a meter can give, inside its interval."""
    low, high = example.energy_low_j, example.energy_high_j
    if math.isnan(example.energy_j) or example.energy_j <= 0:
        return True
    within = math.isnan(low + high) or -MOST_J < low <= example.energy_j <= high < MOST_J
    return 1.0 / MOST_J < example.energy_j < MOST_J and within


def _fitted(
    head: Mapping[str, Any], members: Mapping[str, bytes], kernels: list[Kernel], own: dict[Kernel, tuple[float, int]]
) -> Fitted:
    labels = tuple(tuple(str(name) for name in known) for known in head["labels"])
    if len(labels) != 3:
        raise UsageError("It names its labels wrongly.", remedy=_AGAIN)
    columns = len(TRAITS) + len(COMPANY) + 1 + len(GROUPS) + sum(len(known) for known in labels)
    texts = tuple(
        trees.checked(members[name].decode("utf-8"), columns)
        for name in sorted(name for name in members if name.startswith("trees-"))
    )
    networks = [[_finite(value) for value in row] for row in head["networks"]]
    if any(len(row) != len(COMPANY) for row in networks):
        raise UsageError("It tells of its networks wrongly.", remedy=_AGAIN)
    scale = [_positive(value) for value in head["scale"]]
    return Fitted(
        roofline=_roofline(head["roofline"]),
        trees=Trees(texts, labels),
        group_sd={str(name): _positive(value) for name, value in head["group_sd"].items()},
        per_distance=abs(_finite(head["per_distance"])),
        ops={str(op): (_finite(mean, MOST_LOG), _count(networks)) for op, (mean, networks) in head["ops"].items()},
        own=own,
        reach=Reach.of(
            describe_network(kernels), np.array(networks, dtype=float).reshape(-1, len(COMPANY)), np.array(scale)
        ),
        correction=Correction(**{name: _finite(value) for name, value in head["correction"].items()}),
        scores=tuple((_finite(score), _positive(weight)) for score, weight in head["scores"]),
        held_out_error=None if head["held_out_error"] is None else _finite(head["held_out_error"]),
    )


def _roofline(found: Mapping[str, Any]) -> Roofline:
    prices = {str(group): tuple(_finite(price) for price in row) for group, row in found["prices"].items()}
    if set(prices) != set(GROUPS) or any(len(row) != len(WORK) or min(row) < 0 for row in prices.values()):
        raise UsageError("Its prices are damaged.", remedy=_AGAIN)
    if found["lanes"] not in LANES:
        raise UsageError(f"It says that {found['lanes']!r} channels are handled at once.", remedy=_AGAIN)
    peaks = {str(group): _positive(rate) for group, rate in found["peaks"].items()}
    bandwidth = found["bandwidth"]
    return Roofline(
        prices, int(found["lanes"]), peaks, math.nan if bandwidth is None else _positive(bandwidth),
        Ceilings.parse(found["measured"], _positive) if "measured" in found else None,
    )  # fmt: skip


def _about(told: Any) -> dict[str, Any]:
    """Where it is from, and where what it was adapted with: tables of facts, as whoever prints them expects."""
    found = dict(told)
    adapted = found.get(ADAPTED)
    for facts in (found, adapted if isinstance(adapted, dict) else {}):
        tables = {name: {} if facts.get(name) is None else facts[name] for name in _FACTS}
        if not all(isinstance(table, dict) for table in tables.values()):
            raise UsageError("It does not tell where it is from.", remedy=_AGAIN)
        if (latency_s := tables["anchor_ref"].get("latency_s")) is not None:
            _positive(latency_s)
    if not all(isinstance(why, str) for why in (found.get("left_out") or {}).values()):
        raise UsageError("It does not tell why networks were left out.", remedy=_AGAIN)
    return found


def _finite(value: Any, most: float = MOST) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= most:
        raise UsageError(f"{value!r:.80} stands where a number is expected.", remedy=_AGAIN)
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 < value <= MOST_VALUES:
        raise UsageError(f"{value!r:.80} stands where a count is expected.", remedy=_AGAIN)
    return value


def _positive(value: Any) -> float:
    if _finite(value) <= 0:
        raise UsageError(f"{value!r} stands where a positive number is expected.", remedy=_AGAIN)
    return float(value)
