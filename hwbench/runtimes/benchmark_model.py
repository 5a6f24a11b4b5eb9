"""What LiteRT's ``benchmark_model`` prints: statistics, timings, memory and delegation, out of its log.

The log comes from a device: nothing in it is trusted, every pattern is bounded, and what cannot be read is one error of
the tree. Times become seconds and memory becomes bytes here, at the border. The tables of operators are in
:mod:`.benchmark_model_ops`.

Source of the grammar: ``tflite/tools/benchmark/benchmark_model.cc``, ``benchmark_tflite_model.cc``,
``core/subgraph.cc`` and XLA's ``stats_calculator.h``, as they were from 2018 to 2025.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import WorkerError

MAX_LOG_CHARS = 8 << 20  # a profile of a thousand operators in three tables is a twentieth of that
MAX_LINE_CHARS = 4096  # node types and tensor names are at most hundreds of characters
SHORT_S = 200e-6  # the tool's clock ticks in microseconds; below this a median of ticks says less than a mean
MIB = 1 << 20  # what the tool calls MB in its memory lines: it divides KiB by 1024

NUMBER = r"[-+]?[0-9]{1,18}(?:\.[0-9]{0,18})?(?:[eE][-+]?[0-9]{1,3})?"
_PREFIX = re.compile(r"^(?:INFO|WARN|WARNING|ERROR|VERBOSE|DEBUG): ")
_FIELD = re.compile(rf"\b(count|first|curr|min|max|avg|std|p5|median|p95)=({NUMBER})")
_STAT = re.compile(r"^(?:count|curr)=")
_TIMINGS = re.compile(rf"^(?:Average inference|Inference) timings in us: .{{0,80}}?\bInit: ({NUMBER})")
_FOOTPRINT = re.compile(
    rf"^Memory footprint delta from the start of the tool \(MB\): init=({NUMBER}) overall=({NUMBER})"
)
_PEAK = re.compile(rf"^Overall peak memory footprint \(MB\) via periodic monitoring: ({NUMBER})")
_REPLACED = re.compile(
    r"^Replacing ([0-9]{1,9})(?: out of ([0-9]{1,9}))? node\(s\) with delegate \(([\w .:/-]{1,100})\)"
    r"(?: node, yielding ([0-9]{1,9}) partitions)?"
)
_APPLIED = re.compile(
    r"^Explicitly applied ([\w.:/-]{1,100}) delegate, and the model graph will be (completely|partially)"
)
_IGNORED = re.compile(r"^Though ([\w.:/-]{1,100}) delegate is explicitly applied, the model graph will not be")
_UNPRINTABLE = re.compile(r"[^\n\t\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\U0010ffff]")
_FLAG = re.compile(r"^\s*--([a-z0-9_]{1,80})=", re.MULTILINE)
_FAILED = re.compile(
    r"^(?:ERROR: )?(.*(?:[Ff]ailed|[Cc]ould not|[Ee]rror|not supported|Disallowed|cannot).*)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Stat:
    """One stat line: a summary, since the tool prints no single sample.

    Attributes:
        count: runs.
        mean_s: of all of them.
        min_s, max_s: shortest and longest run.
        sd_s: population standard deviation, cut to whole microseconds by the tool.
        first_s: the first run; None where the build does not print it.
        p5_s, median_s, p95_s: None where the build does not print them (before 2023).
    """

    count: int
    mean_s: float
    min_s: float
    max_s: float
    sd_s: float
    first_s: float | None = None
    p5_s: float | None = None
    median_s: float | None = None
    p95_s: float | None = None

    @property
    def typical_s(self) -> float:
        """The median where it is known and its whole microseconds are below half a percent of it; else the mean."""
        return self.mean_s if self.median_s is None or self.median_s < SHORT_S else self.median_s

    def as_dict(self) -> dict[str, float | int | None]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Delegation:
    """One ``Replacing N out of M node(s)`` line.

    Attributes:
        delegate: its name, such as ``"TfLiteXNNPackDelegate"``.
        nodes: how many it took.
        of: how many there were; None in logs of old builds.
        partitions: into how many parts it cut them; None where the line does not say.
    """

    delegate: str
    nodes: int
    of: int | None = None
    partitions: int | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory.

    Attributes:
        init_bytes: by how much loading the model raised the process's peak.
        overall_bytes: by how much loading and running it did.
        peak_bytes: the process's peak, by a thread that looks every 50 ms; None where that was not asked for.
    """

    init_bytes: int | None = None
    overall_bytes: int | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """Everything but the tables of operators.

    Attributes:
        inference: the timed runs.
        warmup: the runs before them; None where none were made.
        init_s: loading the model, applying delegates and allocating tensors; None where it is not printed.
        memory: what was printed of it.
        delegations: in the order in which delegates were applied.
        applied: delegates that the tool was told to use, and how much of the graph each took:
            ``"completely"``, ``"partially"`` or ``"not"``.
    """

    inference: Stat
    warmup: Stat | None
    init_s: float | None
    memory: Memory
    delegations: tuple[Delegation, ...]
    applied: tuple[tuple[str, str], ...]


def shown(text: str) -> str:
    """A device's text without what a terminal obeys."""
    return _UNPRINTABLE.sub("?", text)


def damaged(what: str, text: str) -> WorkerError:
    """The error of output that cannot be read; ``text`` becomes its evidence."""
    return WorkerError(
        f"benchmark_model printed {what}.",
        remedy="Check that the binary of the device's profile is LiteRT's benchmark_model, and run it there by hand.",
        detail=shown(text[-2000:]),
    )


def lines(text: str) -> Iterator[str]:
    """Lines without the log's prefix. Raises WorkerError for more than a log can hold."""
    if len(text) > MAX_LOG_CHARS:
        raise damaged(f"more than {MAX_LOG_CHARS >> 20} MiB", text)
    for line in re.split(r"\r?\n", text):
        yield _PREFIX.sub("", line[:MAX_LINE_CHARS], count=1)


def number(text: str) -> float | None:
    """A finite number, or None for what a hostile exponent makes of it."""
    value = float(text)
    return value if math.isfinite(value) else None


def parse_stat(line: str) -> Stat | None:
    """A stat line in any of its forms; None where the line is none, or tells of no run.

    ``count=67 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256 p5=… median=… p95=…``, ``count=1 curr=7``,
    ``count=5 curr=7(all same)`` (any order of the fields); microseconds.
    """
    if not _STAT.match(line):
        return None
    found = {name: number(text) for name, text in _FIELD.findall(line)}
    count, curr = found.get("count"), found.get("curr")
    if count is None or not 1 <= count < 1e15:
        return None

    def seconds(name: str, default: float | None) -> float | None:
        value = found.get(name)
        value = default if value is None else value
        return None if value is None or value < 0 else 1e-6 * value

    same = None if "avg" in found else curr
    mean, low, high, sd = (seconds(n, d) for n, d in (("avg", same), ("min", same), ("max", same), ("std", 0.0)))
    if mean is None or low is None or high is None or sd is None:
        return None
    rest = (seconds("first", same), *(seconds(name, None) for name in ("p5", "median", "p95")))
    return Stat(int(count), mean, low, high, sd, *rest)


def _bytes(text: str) -> int | None:
    value = number(text)
    return None if value is None or not 0 <= value < 1e9 else round(value * MIB)


def parse_log(text: str) -> Log:
    """Read a log: standard output and standard error of the tool, one after the other.

    Raises:
        WorkerError: it holds no result.
    """
    stats: list[Stat] = []
    delegations: list[Delegation] = []
    applied: list[tuple[str, str]] = []
    init_s: float | None = None
    init = overall = peak = None
    for line in lines(text):
        stat = parse_stat(line)
        if stat is not None:
            stats.append(stat)
        elif match := _TIMINGS.match(line):
            value = number(match[1])
            init_s = None if value is None or value < 0 else 1e-6 * value
        elif match := _FOOTPRINT.match(line):
            init, overall = _bytes(match[1]), _bytes(match[2])
        elif match := _PEAK.match(line):
            peak = _bytes(match[1])
        elif match := _REPLACED.match(line):
            nodes, of, name, parts = match.groups()
            delegations.append(Delegation(name, int(nodes), int(of) if of else None, int(parts) if parts else None))
        elif match := _APPLIED.match(line):
            applied.append((match[1], match[2]))
        elif match := _IGNORED.match(line):
            applied.append((match[1], "not"))
    if not stats:
        raise damaged("no result", text)
    warmup = stats[-2] if len(stats) > 1 else None
    memory = Memory(init, overall, peak)
    return Log(stats[-1], warmup, init_s, memory, tuple(delegations), tuple(applied))


def parse_usage(text: str) -> frozenset[str]:
    """Flags that ``--help`` lists, without dashes.

    Raises:
        WorkerError: it lists none of those that every build has, so this is another program.
    """
    if len(text) > MAX_LOG_CHARS:
        raise damaged(f"more than {MAX_LOG_CHARS >> 20} MiB", text)
    flags = frozenset(_FLAG.findall(text))
    if not {"graph", "num_runs"} <= flags:
        raise damaged("no list of flags when it was asked for one", text)
    return flags


def complaint(text: str) -> str:
    """The first line that says what failed, cut short; empty when none does."""
    found = _FAILED.search(text[:MAX_LOG_CHARS])
    return shown(_PREFIX.sub("", found[1])[:300].strip()) if found else ""


_SHORT = {"tflitexnnpackdelegate": "xnnpack", "tflitegpudelegatev2": "gpu", "tflitennapidelegate": "nnapi"}


def short_name(delegate: str) -> str:
    """``"gpu"`` of ``"TfLiteGpuDelegateV2"`` or ``"GPU"``; others keep their name in lower case."""
    lowered = delegate.lower()
    return _SHORT.get(lowered) or ("gpu" if lowered == "litert_cl" else lowered)


def provider(log: Log, wanted: str) -> str:
    """What ran the model: the wanted delegate first, then what ran the rest of it behind plus signs.

    ``wanted`` is ``"xnnpack"``, ``"gpu"``, ``"nnapi"`` or ``"builtin ops"``. A log that does not say how much a
    delegate took (release builds for Linux leave the line out) is believed.

    Raises:
        WorkerError: the GPU or NNAPI was wanted and took no part of the model.
    """
    if wanted == "builtin ops":
        return wanted
    took: dict[str, int] = {}
    for each in log.delegations:
        took[short_name(each.delegate)] = took.get(short_name(each.delegate), 0) + each.nodes
    told = {short_name(name): share for name, share in log.applied}
    known = [each.of for each in log.delegations if each.of is not None]
    none = told.get(wanted) == "not" or took.get(wanted, 1) == 0 or bool(took and not {wanted} & {*took, *told})
    if none and wanted == "xnnpack":  # the CPU runs it all the same
        return "xnnpack + builtin ops"
    if none:
        raise WorkerError(
            f"The delegate {wanted} took no part of the model; it would have run on something else.",
            remedy="Measure it without that option: the CPU runs it.",
        )
    others = [name for name, nodes in took.items() if name != wanted and nodes]
    left = told.get(wanted) == "partially" and not took
    if took and known:
        left = sum(took.values()) < known[0]
    return " + ".join([wanted, *others, *(["builtin ops"] if left else [])])


def _seeds() -> tuple[bytes, ...]:
    """Small inputs that hold every form; what mutation starts from."""
    return (
        b"INFO: STARTING!\nINFO: Replacing 58 out of 64 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 "
        b"partitions for the whole graph.\nINFO: count=3 first=7176 curr=7505 min=6373 max=7775 avg=7.4e+03 std=256\n\n"
        b"INFO: count=67 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256 p5=6400 median=7400 p95=7700\n\n"
        b"INFO: Inference timings in us: Init: 16772, First inference: 8781, Warmup (avg): 7514.93, Inference (avg): "
        b"7454.97\nINFO: Memory footprint delta from the start of the tool (MB): init=8.4 overall=10.9\n"
        b"INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2\n",
        b"count=5 curr=12(all same)\ncurr=8 count=1\nExplicitly applied XNNPACK delegate, and the model graph will be "
        b"partially executed by the delegate w/ 2 delegate kernels.\n",
    )


def _log(data: bytes) -> None:
    log = parse_log(data.decode("utf-8", "replace"))
    provider(log, "gpu")


def _usage(data: bytes) -> None:
    parse_usage(data.decode("utf-8", "replace"))


PARSERS: list[tuple[str, Callable[[bytes], Any], tuple[bytes, ...]]] = [
    ("benchmark_model log", _log, _seeds()),
    ("benchmark_model usage", _usage, (b"usage: x <flags>\nFlags:\n\t--num_runs=50\tint32\n\t--graph=\tstring\n",)),
]
"""(name, parser of bytes, seeds) of every parser here, for fuzzing: only errors of the tree may come out."""
