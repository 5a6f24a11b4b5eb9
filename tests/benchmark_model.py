"""A ``benchmark_model`` for tests: it really runs the model through LiteRT, and prints in the tool's grammar.

:func:`install` writes it as a program. What a build of some year prints (:data:`ERAS`) and what goes wrong are chosen
there. The functions that render are also what property tests read back.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ERAS = ("2019", "2022", "2025")  # text only; a CSV file and delegates by name; percentiles and protocol buffers
FLAGS = {
    "2019": "num_runs min_secs max_secs num_threads warmup_runs warmup_min_secs graph enable_op_profiling use_gpu",
    "2022": "profiling_output_csv_file use_xnnpack use_nnapi gpu_precision_loss_allowed report_peak_memory_footprint",
    "2025": "op_profiling_output_mode op_profiling_output_file nnapi_allow_fp16",
}
MARKS = ("Profiling Info for Benchmark Initialization:", "Operator-wise Profiling Info for Regular Benchmark Runs:")


@dataclass(frozen=True)
class Build:
    """Which build it is, and what is wrong with it.

    Attributes:
        era: of :data:`ERAS`.
        fault: ``"hang"``, ``"garbage"``, ``"exit"``, ``"crash"``, ``"flood"``, ``"other"`` (another program), or none.
        gpu_nodes: operators that the GPU delegate takes; all when negative.
        named_modes: of ``op_profiling_output_mode``; others are taken for text, as the tool does.
    """

    era: str = "2025"
    fault: str = ""
    gpu_nodes: int = -1
    named_modes: tuple[str, ...] = ("stdout", "csv", "proto")


@dataclass(frozen=True)
class Row:
    """One operator of a profile, all times in whole microseconds."""

    kind: str
    name: str
    times_us: tuple[int, ...]
    calls: int = 1


def install(path: Path, build: Build | None = None) -> Path:
    """Write the program. Returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    here, chosen = str(Path(__file__).parent), json.dumps(asdict(build or Build()))
    path.write_text(
        f"#!{sys.executable}\nimport json, sys\nsys.path.insert(0, {here!r})\nfrom benchmark_model import main\n"
        f"sys.exit(main(json.loads({chosen!r}), sys.argv[1:]))\n"
    )
    path.chmod(0o755)
    return path


# --- what is printed -----------------------------------------------------------------------------------------------


def c_number(value: float) -> str:
    """As a C++ stream prints it: six significant digits."""
    return f"{value:.6g}"


def stat_line(samples: Sequence[int], percentiles: bool) -> str:
    """A stat line. Source: ``Stat::OutputToStream`` in XLA's ``stats_calculator.h``."""
    n = len(samples)
    if n == 0:
        return "count=0"
    if min(samples) == max(samples):
        line = f"count={n} curr={samples[-1]}" + ("(all same)" if n > 1 else "")
    else:
        mean = sum(samples) / n
        sd = int(math.sqrt(max(0.0, sum(s * s for s in samples) / n - mean * mean)))
        line = f"count={n} first={samples[0]} curr={samples[-1]} min={min(samples)} max={max(samples)}"
        line += f" avg={c_number(mean)} std={sd}"
    if percentiles:
        ordered = sorted(samples)
        line += "".join(f" {name}={ordered[n * p // 100]}" for name, p in (("p5", 5), ("median", 50), ("p95", 95)))
    return line


def _shares(rows: Sequence[Row]) -> list[tuple[Row, float, float, float, float]]:
    total = sum(sum(row.times_us) for row in rows) or 1
    done, found = 0, []
    for row in rows:
        done += sum(row.times_us)
        mean = sum(row.times_us) / len(row.times_us)
        found.append((row, row.times_us[0] / 1e3, mean / 1e3, 100 * sum(row.times_us) / total, 100 * done / total))
    return found


def text_table(title: str, rows: Sequence[Row], start: bool = False, tabs: bool = True) -> str:
    """A table as text. Source: ``StatsCalculator::HeaderString`` and ``ColumnString``."""
    gap = "\t" if tabs else "    "
    heads = [("[node type]", 24), *([("[start]", 9)] if start else []), ("[first]", 9), ("[avg ms]", 9), ("[%]", 8)]
    heads += [("[cdf%]", 8), ("[mem KB]", 10), ("[times called]", 9)]
    lines = [f"{'=' * 30} {title} {'=' * 30}", "".join(f"{gap}{h:>{w}}" for h, w in heads) + f"{gap}[Name]"]
    for row, first, mean, share, cdf in _shares(rows):
        cells = [f"{row.kind:>24}", *([f"{0.0:9.3f}"] if start else []), f"{first:9.3f}", f"{mean:9.3f}"]
        cells += [f"{share:7.3f}%", f"{cdf:7.3f}%", f"{0.0:10.3f}", f"{row.calls:9d}"]
        lines.append("".join(gap + cell for cell in cells) + gap + row.name)
    return "\n".join([*lines, "", ""])


def csv_table(title: str, rows: Sequence[Row], start: bool = False) -> str:
    """A table as CSV: commas of a type stay, those of a name become tabs."""
    header = ["node type", *(["start"] if start else []), "first", "avg_ms", "%", "cdf%", "mem KB", "times called"]
    lines = [f"{'=' * 30} {title} {'=' * 30}", ", ".join([*header, "name"])]
    for row, first, mean, share, cdf in _shares(rows):
        cells = [row.kind, *(["0"] if start else []), c_number(first), c_number(mean), f"{c_number(share)}%"]
        cells += [f"{c_number(cdf)}%", "0", str(row.calls), row.name.replace(",", "\t")]
        lines.append(", ".join(cells))
    return "\n".join([*lines, "", ""])


def summary_by_type(rows: Sequence[Row], csv: bool) -> str:
    """The table that holds nothing new, which readers must pass over."""
    if csv:
        head = "node type, count, avg_ms, avg %, cdf %, mem KB, times called\n"
        body = "".join(f"{row.kind}, 1, 0.1, 1%, 1%, 0, 1\n" for row in rows)
    else:
        head = (
            "\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\t[times called]\n"
        )
        body = "".join(
            f"\t{row.kind:>24}\t        1\t     0.100\t     1.000%\t     1.000%\t     0.000\t        1\n"
            for row in rows
        )
    return f"Number of nodes executed: {len(rows)}\n{'=' * 30} Summary by node type {'=' * 30}\n{head}{body}\n"


def report(rows: Sequence[Row], csv: bool = False, internal: Sequence[Row] = (), start: bool = False) -> str:
    """Everything that op profiling prints, initialization first."""

    def table(title: str, some: Sequence[Row]) -> str:
        return csv_table(title, some, start) if csv else text_table(title, some, start)

    init = [Row("ModifyGraphWithDelegate", "ModifyGraphWithDelegate/0", (6348,))]
    parts = []
    for mark, some in zip(MARKS, (init, rows), strict=True):
        by_time = sorted(some, key=lambda row: -sum(row.times_us))
        parts.append(f"{mark}\n" + table("Run Order", some) + table("Top by Computation Time", by_time))
        parts.append(
            summary_by_type(some, csv) + "Timings (microseconds): count=1 curr=11409\nMemory (bytes): count=0\n"
        )
        parts.append(f"{len(some)} nodes observed\n\n")
    if internal:
        parts.append("Delegate internal: \n" + table("Run Order", internal) + "1 nodes observed\n\n")
    return "".join(parts)


def proto(rows: Sequence[Row]) -> bytes:
    """A ``BenchmarkProfilingData`` message, operators in the order in which the tool sorts them (by text)."""
    from ai_edge_litert import profiling_info_pb2 as messages

    message = messages.BenchmarkProfilingData(model_name="model")
    graph = message.runtime_profile.subgraph_profiles.add(subgraph_name="main", subgraph_index=0)
    for order, row in sorted(enumerate(rows), key=lambda pair: str(pair[0])):
        op = graph.per_op_profiles.add(node_type=row.kind, name=row.name, times_called=row.calls, run_order=order)
        mean = sum(row.times_us) / len(row.times_us)
        stat = op.inference_microseconds
        stat.first, stat.last, stat.avg = row.times_us[0], row.times_us[-1], int(mean)
        stat.min, stat.max, stat.sum, stat.count = (
            min(row.times_us),
            max(row.times_us),
            sum(row.times_us),
            len(row.times_us),
        )
        stat.stddev = math.sqrt(max(0.0, sum(t * t for t in row.times_us) / len(row.times_us) - mean * mean))
    return bytes(message.SerializeToString())


# --- the program ---------------------------------------------------------------------------------------------------


def known_flags(era: str) -> list[str]:
    return " ".join(FLAGS[year] for year in ERAS if year <= era).split()


def main(settings: dict[str, Any], arguments: Sequence[str]) -> int:
    """Run as the tool would. Returns its exit status."""
    build = Build(**{**settings, "named_modes": tuple(settings["named_modes"])})
    given = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
    if build.fault == "other":
        print("This is not the program that you are looking for.")
        return 0
    if "help" in given:
        usage = "".join(f"\t--{flag}=x\tstring\toptional\tsays nothing\n" for flag in known_flags(build.era))
        print(f"usage: {sys.argv[0]} <flags>\nFlags:\n{usage}", file=sys.stderr)
        return 1
    if build.fault == "hang":
        time.sleep(600)
    if build.fault == "crash":
        os.abort()
    if build.fault == "flood":
        for _ in range(400):
            os.write(1, b"INFO: \x1b[2J<script>alert(1)</script>; reboot\n" * 100)
        return 0
    if build.fault == "garbage":
        os.write(1, bytes(range(256)) * 40)
        return 0
    if build.fault == "exit":
        print("ERROR: Didn't find op for builtin opcode 'X' version '9'.\nERROR: Failed to initialize", file=sys.stderr)
        return 1
    return _Program(build, given).run()


class _Program:
    def __init__(self, build: Build, given: dict[str, str]) -> None:
        self.build = build
        self.given = {name: value for name, value in given.items() if name in known_flags(build.era)}
        self.prefix = "" if build.era == "2019" else "INFO: "

    def on(self, flag: str) -> bool:
        return self.given.get(flag, "false") in ("true", "1")

    def say(self, text: str) -> None:
        print(f"{self.prefix}{text}")

    def run(self) -> int:
        self.say("STARTING!")
        base_kib, begun = _peak_kib(), time.perf_counter()
        profile, gpu = self.on("enable_op_profiling"), self.on("use_gpu") or self.on("use_nnapi")
        session = _open(self.given["graph"], int(self.given.get("num_threads", 1)), self._builtin(), profile)
        if session is None:
            print(f"ERROR: Failed to load model {self.given['graph']}", file=sys.stderr)
            return 1
        nodes = self._delegates(gpu)
        init_us, init_kib = round(1e6 * (time.perf_counter() - begun)), _peak_kib()
        self.say(f"Loaded model {self.given['graph']}")
        self.say(f"Initialized session in {init_us / 1000}ms.")
        warm = self.runs(session, int(self.given.get("warmup_runs", 1)), float(self.given.get("warmup_min_secs", 0.5)))
        timed = self.runs(session, int(self.given.get("num_runs", 50)), float(self.given.get("min_secs", 1)), profile)
        self.say(
            f"Inference timings in us: Init: {init_us}, First inference: {warm[0]}, "
            f"Warmup (avg): {c_number(sum(warm) / len(warm))}, Inference (avg): {c_number(sum(timed) / len(timed))}"
        )
        if self.build.era != "2019":
            self.memory(base_kib, init_kib)
        if profile:
            self.output(_rows(session.finish(), self.given["graph"], self._builtin(), nodes if gpu else None))
        return 0

    def _builtin(self) -> bool:
        return self.given.get("use_xnnpack") == "false"

    def _delegates(self, gpu: bool) -> int:
        """Say what delegates took; how many nodes the GPU (or NNAPI) did."""
        nodes = 0
        if gpu:
            count = _operators(self.given["graph"])
            nodes = min(count, self.build.gpu_nodes) if self.build.gpu_nodes >= 0 else count
            name = "TfLiteGpuDelegateV2" if self.on("use_gpu") else "TfLiteNnapiDelegate"
            line = f"Replacing {nodes} out of {count} node(s) with delegate ({name}) node, yielding 1 partitions"
            print(f"INFO: {line} for the whole graph.", file=sys.stderr)
            if nodes < count:
                line = f"Replacing {count - nodes} out of {count - nodes + 1} node(s) with delegate"
                print(f"VERBOSE: {line} (TfLiteXNNPackDelegate) node, yielding 1 partitions.", file=sys.stderr)
        elif self.on("use_xnnpack"):
            self.say(
                "Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the delegate."
            )
        return nodes

    def runs(self, session: Any, least: int, seconds: float, profile: bool = False) -> list[int]:
        samples: list[int] = []
        begun = time.perf_counter()
        while len(samples) < least or time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            session.run()
            samples.append(max(1, round(1e6 * (time.perf_counter() - start))))
            if profile:
                session.collect()
        self.say(stat_line(samples, self.build.era == "2025") + "\n")
        return samples

    def memory(self, base_kib: int, init_kib: int) -> None:
        overall = (_peak_kib() - base_kib) / 1024
        init = c_number((init_kib - base_kib) / 1024)
        self.say(f"Memory footprint delta from the start of the tool (MB): init={init} overall={c_number(overall)}")
        if self.on("report_peak_memory_footprint"):
            peak = c_number(_peak_kib() / 1024)
            self.say(f"Overall peak memory footprint (MB) via periodic monitoring: {peak}")

    def output(self, rows: list[Row]) -> None:
        mode = self.given.get("op_profiling_output_mode", "stdout")
        mode = mode if mode in self.build.named_modes else "stdout"
        csv = self.given.get("profiling_output_csv_file")
        file = csv or self.given.get("op_profiling_output_file")
        if mode == "proto" and file:
            Path(file).write_bytes(proto(rows))
        elif file:
            Path(file).write_text(report(rows, csv=bool(csv) or mode == "csv"))
        else:
            self.say(report(rows, start=self.build.era == "2019"))


def _peak_kib() -> int:
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _open(path: str, threads: int, builtin: bool, profile: bool) -> Any:
    from hwbench.worker.sessions import litert

    options = {"builtin": True} if builtin else {}
    try:
        return litert.open({"path": path}, {"threads": threads, "options": options}, profile)
    except RuntimeError:
        return None


def _operators(path: str) -> int:
    from ai_edge_litert import schema_py_generated as schema

    return int(schema.Model.GetRootAs(Path(path).read_bytes(), 0).Subgraphs(0).OperatorsLength())


def _outputs(path: str) -> list[str]:
    """Names of each operator's outputs, as the tool prints them."""
    from hwbench.runtimes.tflite_graph import read

    graph = read(Path(path))
    return [f"[{', '.join(graph.values[v].name for v in op.outputs)}]" for op in graph.operators]


def _rows(profile: dict[str, Any], path: str, builtin: bool, delegated: int | None) -> list[Row]:
    """The profile of LiteRT's own profiler as the tool's rows; the first ``delegated`` operators as one partition."""
    times = list(zip(*profile["durations_ns"], strict=True))
    rows = []
    names = _outputs(path) if builtin or delegated is not None else []
    for node, column in zip(profile["nodes"], times, strict=True):
        inside = f"Delegate/{node['tag']}:{node['index']}"
        name = inside if node["type"] != 2 else f"{names[node['index']]}:{node['index']}"
        rows.append(Row(node["tag"], name, tuple(ns // 1000 for ns in column)))
    if not delegated:
        return rows
    taken = rows[:delegated]
    whole = tuple(sum(run) for run in zip(*(row.times_us for row in taken), strict=True))
    partition = Row("TfLiteGpuDelegateV2", f"{names[delegated - 1]}:{len(names)}", whole)
    rest = [replace(row, name=f"Delegate/{row.kind}:{i}") for i, row in enumerate(rows[delegated:])]
    return [partition, *rest]
