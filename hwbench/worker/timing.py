"""The timing loop: warm-up, blocks between anchors, plain and profiled blocks interleaved.

Every function takes the clock as an argument, so that a seeded fake clock can prove what it does. Nothing here
discards a sample: runs right after a switch between workloads are *not samples* (caches and thread pools settle), and
they are not timed.
"""

from __future__ import annotations

import gc
import math
import statistics as stdlib_statistics
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from . import statistics

Run = Callable[[], Any]
Clock = Callable[[], int]

BLOCK_S = 0.05  # short enough that two anchors bracket the drift that was seen, long enough for tens of samples
ANCHOR_SAMPLES = 5
# The anchor's weights overflow a core's own cache, so it takes some runs to be as warm as it was for its reference:
# 0.97, 0.91, 0.88, 0.84, 0.80 … 0.74 ms were seen after a block of MobileNetV2. Colder ones would measure the model's
# footprint.
ANCHOR_DROPPED = 8
MIN_BLOCKS = 5
# Of a profile, to reach a floor in seconds. It holds an event for each layer of each of its samples: with up to 3600
# samples, sessions of networks of 50 to 600 µs took 5 to 10 s, those of larger ones 2.
MAX_BLOCKS, MAX_PROFILED = 60, 1500
INNER_LOOP_S = 20e-6  # methodology 3: below this a sample is the mean of a loop, and there are no tail percentiles
MAX_BLOCK = 1000  # bounds what one block of a very small model puts on the wire
MIN_SAMPLES_ON_BUDGET = 5  # methodology 3: the budget wins over the floors, but not below this
ANCHOR_LIMIT = 1.5  # methodology 4: beyond any drift an anchor should have, the block is repeated
MAX_REPEATED = 5
WARM_MIN_RUNS, WARM_MIN_S, WARM_MAX_RUNS, WARM_MAX_S = 3, 0.5, 300, 30.0  # methodology 2


@contextmanager
def quiet_gc() -> Iterator[None]:
    """Garbage collection frozen while samples are taken."""
    gc.collect()
    gc.freeze()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.unfreeze()


def clock_overhead_ns(clock: Clock, n: int = 200) -> int:
    """Median cost of reading the clock twice in a row, in ns."""
    return int(stdlib_statistics.median([-clock() + clock() for _ in range(n)]))


def time_runs(run: Run, n: int, clock: Clock, collect: Optional[Run] = None) -> List[int]:
    """``n`` samples of one inference each, in ns; ``collect`` runs after each, outside the timed region."""
    samples = [0] * n
    if collect is None:
        for i in range(n):
            start = clock()
            run()
            samples[i] = clock() - start
    else:
        for i in range(n):
            start = clock()
            run()
            samples[i] = clock() - start
            collect()
    return samples


def warm_up(
    run: Run, clock: Clock, budget_s: float = WARM_MAX_S, collect: Optional[Run] = None
) -> Tuple[List[int], bool]:
    """Run until the two-window test says steady; returns the whole series in ns and whether it got there.

    Source: pyperf's calibration of warm-ups, methodology section 2: at least 3 runs and 0.5 s, then 2 × 20 samples;
    at most 300 samples or 30 s. Inferences below 1.7 ms make 300 runs before 0.5 s have passed; the test is then asked
    once, there. Runs too slow for 40 samples stop at the budget and are "not known to be steady".
    """
    series: List[int] = []
    limit_ns = min(budget_s, WARM_MAX_S) * 1e9
    spent = 0
    while True:
        series.extend(time_runs(run, 1, clock, collect))
        spent += series[-1]
        if len(series) >= WARM_MIN_RUNS and spent >= min(WARM_MIN_S * 1e9, limit_ns) and statistics.is_steady(series):
            return series, True
        if len(series) >= WARM_MAX_RUNS:  # a short inference gets here before 0.5 s have passed
            return series, statistics.is_steady(series)
        if spent >= limit_ns and len(series) >= 2:
            return series, False


def dropped_after_switch(typical_s: float) -> int:
    """How many runs after a switch of workload are not samples.

    A switch costs cache refills and, with several threads, other pools' spinning: about a millisecond. That is more
    than 2 % of a short inference and below 0.1 % of one that takes a second.
    """
    if typical_s < 0.01:
        return 2
    return 1 if typical_s < 0.1 else 0


class Recorder:
    """Samples in the order in which they were taken, with the block they belong to and the anchors around it."""

    def __init__(self) -> None:
        self.samples_ns: List[int] = []
        self.device_ns: List[int] = []  # as long as samples_ns, or empty; 0 for samples whose device time is not known
        self.block_of: List[int] = []
        self.anchor_ns: List[int] = []
        self.anchor_of: List[int] = []
        self.blocks: List[Dict[str, Any]] = []
        self.kept: Dict[str, List[int]] = {}
        self.groups = 0

    def anchor(self, samples: Sequence[int]) -> float:
        """Add one group of anchor samples, also of a round that is then repeated; returns its median in seconds."""
        self.anchor_ns.extend(samples)
        self.anchor_of.extend([self.groups] * len(samples))
        self.groups += 1
        return stdlib_statistics.median(samples) * 1e-9

    def block(
        self,
        kind: str,
        samples: Sequence[int],
        before_s: float,
        after_s: float,
        first_run: int,
        group: int,
        device: Optional[Sequence[int]] = None,
    ) -> None:
        """Add one block.

        ``first_run`` is the index of its first sample among all runs of its session, ``group`` that of the anchor group
        right before it; the next group is right behind it. Without repeated rounds block i has group i. ``device`` is
        the accelerator's own time of each sample.
        """
        if device is not None:
            self.device_ns.extend([0] * (len(self.samples_ns) - len(self.device_ns)))
            self.device_ns.extend(device)
        self.samples_ns.extend(samples)
        self.block_of.extend([len(self.blocks)] * len(samples))
        self.kept.setdefault(kind, []).extend(range(first_run, first_run + len(samples)))
        self.blocks.append(
            {
                "kind": kind,
                "n": len(samples),
                "anchor_before_s": before_s,
                "anchor_after_s": after_s,
                "anchor_group": group,
            }
        )

    def _padded(self) -> List[int]:
        return self.device_ns + [0] * (len(self.samples_ns) - len(self.device_ns))

    def as_dict(self) -> Dict[str, Any]:
        return {
            "blocks": self.blocks,
            "samples_ns": self.samples_ns,
            **({"device_ns": self._padded()} if self.device_ns else {}),
            "block_of": self.block_of,
            "anchor_ns": self.anchor_ns,
            "anchor_of": self.anchor_of,
        }


class Workload:
    """A session under the timing loop; counts its runs, so that profiled durations find their samples.

    Args:
        run: one inference.
        collect: called after each run, outside the timed region.
        begin: called before each block with the number of runs to come, outside the timed region.
        end: called after it; gives the time in ns that an accelerator itself took for each of those runs, or None.
    """

    def __init__(
        self,
        run: Run,
        collect: Optional[Run] = None,
        begin: Optional[Callable[[int], Any]] = None,
        end: Optional[Callable[[], Optional[List[int]]]] = None,
    ) -> None:
        self._run = run
        self.collect = collect
        self._begin, self._end = begin, end
        self.runs = 0
        self.inner = 1  # runs inside one sample: more than one only where a run is too short for the clock

    def run(self) -> None:
        self.runs += 1
        self._run()

    def settle(self, n: int) -> None:
        for _ in range(n):
            self.run()
            if self.collect is not None:
                self.collect()

    def samples(self, n: int, clock: Clock) -> List[int]:
        self.runs += n * self.inner
        if self.inner == 1:
            return time_runs(self._run, n, clock, self.collect)
        loops, run = range(self.inner), self._run

        def inner_loop() -> None:
            for _ in loops:
                run()

        return [round(ns / self.inner) for ns in time_runs(inner_loop, n, clock)]

    def block(self, drop: int, n: int, clock: Clock) -> Tuple[List[int], Optional[List[int]]]:
        """``n`` samples after ``drop`` runs that are none, and the accelerator's own time of each where it tells."""
        if self._begin is not None:
            self._begin(drop + n * self.inner)
        self.settle(drop)
        samples = self.samples(n, clock)
        device = self._end() if self._end is not None else None
        if device is None:
            return samples, None
        runs = device[len(device) - n * self.inner :]
        return samples, [round(sum(runs[i * self.inner : (i + 1) * self.inner]) / self.inner) for i in range(n)]


def anchor_group(anchor: Workload, clock: Clock) -> List[int]:
    """One reading of the anchor: some runs to settle, then five samples."""
    anchor.settle(ANCHOR_DROPPED)
    return anchor.samples(ANCHOR_SAMPLES, clock)


def plan(
    typical_s: float, min_samples: int, min_s: float, budget_s: float, max_block: int, anchors_s: float = 0.0
) -> Tuple[int, int]:
    """(samples per block, blocks) for an inference of ``typical_s`` seconds.

    A block lasts about ``BLOCK_S``, or as long as a reading of the anchor (``anchors_s``) where that is more and the
    budget has room for more than ``MIN_BLOCKS`` of them: where an anchor takes 20 ms, as on a small board, five sixths
    of the time would go into anchors. The floors hold unless they would pass the budget; then at least
    ``MIN_SAMPLES_ON_BUDGET`` samples remain. Where blocks are bounded below ``MAX_BLOCK``, as a profile's are, the one
    in seconds ends at ``MAX_BLOCKS`` or ``MAX_PROFILED`` samples.
    """
    block_s = max(BLOCK_S, min(anchors_s, budget_s / (MIN_BLOCKS + 1)))
    per_block = min(max(1, round(block_s / typical_s)), max_block)
    by_time = math.ceil(min_s / typical_s / per_block)
    if max_block < MAX_BLOCK:
        by_time = min(by_time, MAX_BLOCKS, math.ceil(MAX_PROFILED / per_block))
    blocks = max(MIN_BLOCKS, math.ceil(min_samples / per_block), by_time)
    block_cost_s = (per_block + dropped_after_switch(typical_s)) * typical_s
    affordable = int(budget_s / block_cost_s)
    if affordable < blocks:
        blocks = max(affordable, math.ceil(MIN_SAMPLES_ON_BUDGET / per_block))
    return per_block, blocks


def measure(
    workloads: Sequence[Tuple[str, Workload]],
    anchor: Workload,
    clock: Clock,
    typical_s: float,
    min_samples: int,
    min_s: float,
    budget_s: float,
    max_block: int = MAX_BLOCK,
    between: Optional[Run] = None,
) -> Dict[str, Any]:
    """Blocks of each workload in turn, an anchor group between every two of them.

    Args:
        workloads: (kind, workload) in the order of one round; one for a latency pass, plain and profiled for layers.
        anchor: the reference workload of the target.
        typical_s: rough seconds of one inference, from the warm-up.
        min_samples: samples wanted of each workload.
        min_s: seconds of samples wanted of each workload.
        budget_s: seconds that all blocks of one workload may take.
        max_block: samples of a block at most.
        between: called before each block while nothing is timed; sensors are read there.

    Returns:
        The recorder's arrays, ``"kept"`` run indices by kind, and the number of repeated blocks.
    """
    # A profile needs each run on its own, and so does what has something to do between two runs.
    if len(workloads) == 1 and typical_s < INNER_LOOP_S and workloads[0][1].collect is None:
        workloads[0][1].inner = math.ceil(INNER_LOOP_S / typical_s)
        typical_s *= workloads[0][1].inner
    drop = dropped_after_switch(typical_s)
    recorder = Recorder()
    repeated = 0
    with quiet_gc():
        overhead_ns = clock_overhead_ns(clock)
        before = recorder.anchor(anchor_group(anchor, clock))
        anchors_s = (ANCHOR_DROPPED + ANCHOR_SAMPLES) * before
        per_block, rounds = plan(typical_s, min_samples, min_s, budget_s, max_block, anchors_s)
        floor = before
        done = 0
        while done < rounds:
            staged = []
            disturbed = False
            for kind, workload in workloads:
                if between is not None:
                    between()
                samples, device = workload.block(drop, per_block, clock)
                first = workload.runs - per_block * workload.inner
                after = recorder.anchor(anchor_group(anchor, clock))
                floor = min(floor, before, after)
                disturbed = disturbed or max(before, after) > ANCHOR_LIMIT * floor
                staged.append((kind, samples, before, after, first, recorder.groups - 2, device))
                before = after
            if disturbed and repeated < MAX_REPEATED:
                repeated += 1
                continue
            for block in staged:
                recorder.block(*block)
            done += 1
    result = recorder.as_dict()
    result["inner_loop"] = max(workload.inner for _, workload in workloads)
    result.update(kept=recorder.kept, clock_overhead_ns=overhead_ns, repeated_blocks=repeated)
    return result
