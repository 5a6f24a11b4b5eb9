"""From what a profiler recorded of a GPU to what each operator cost there. Pure functions over the recorded events.

Events are those of a chrome trace as torch.profiler exports it: dictionaries with ``cat``, ``name``, ``ts`` and ``dur``
(µs), and ``args``. What the GPU did has the categories of :data:`GPU_CATEGORIES`; it carries the ``correlation`` of the
call that launched it and, where operators were recorded, the ``External id`` of the operator around that call.
"""

from __future__ import annotations

import bisect
import difflib
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

GPU_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCH_CATEGORIES = ("cuda_runtime", "cuda_driver")
TAG = "hwbench#"  # marks the range of one operator call; its number follows
LONGEST_NAME = 80
IDLE_US = 2.0  # kernels that queue up begin within about a µs of each other's end


class Work(NamedTuple):
    """One kernel, copy or fill: its name, when it began and what it took, and the host's time of what asked for it."""

    name: str
    duration_ns: int
    asked_us: Optional[float]
    begun_us: float = 0.0


def gpu_work(events: Sequence[Dict[str, Any]]) -> List[Work]:
    """What the GPU did, in the order in which it began."""
    launches: Dict[Any, float] = {}
    operators: Dict[Any, float] = {}
    found = []
    for event in events:
        kind, args = event.get("cat"), event.get("args") or {}
        if kind in GPU_CATEGORIES:
            found.append(event)
        elif kind in LAUNCH_CATEGORIES:
            launches[args.get("correlation")] = float(event["ts"])
        elif kind in ("cpu_op", "user_annotation") and "External id" in args:
            operators[args["External id"]] = float(event["ts"])
    found.sort(key=lambda event: float(event["ts"]))
    work = []
    for event in found:
        args = event.get("args") or {}
        # An operator's own clock is that of the tags; a launch's is the tracer's, a few µs apart at worst.
        asked = operators.get(args.get("External id"), launches.get(args.get("correlation")))
        work.append(Work(str(event["name"]), round(1000 * float(event["dur"])), asked, float(event["ts"])))
    return work


def owners(events: Sequence[Dict[str, Any]], work: Sequence[Work]) -> List[Optional[int]]:
    """The number of the tagged call that asked for each piece of work; None for what came before the first tag.

    Work asked for between two tags belongs to the call before it.
    """
    tags = sorted(
        (float(event["ts"]), int(event["name"][len(TAG) :]))
        for event in events
        if event.get("cat") == "user_annotation" and re.match(TAG + r"[0-9]{1,9}$", str(event.get("name")))
    )
    begins = [begun for begun, _ in tags]
    found: List[Optional[int]] = []
    for each in work:
        position = bisect.bisect_right(begins, each.asked_us) if each.asked_us is not None else 0
        found.append(tags[position - 1][1] if position else None)
    return found


def split(work: Sequence[Work], count: int, spacers: int = 0, expected: Sequence[str] = ()) -> List[List[Work]]:
    """``count`` equal runs, each followed by ``spacers`` pieces of work that are none of the model's (a cache flush).

    A tracer may miss the beginning. Where the runs after the first are the ``expected`` pieces by name, the first is
    given as an empty one.

    Raises:
        RuntimeError: the runs did not do the same, or records were lost.
    """
    whole, rest = divmod(len(work), count) if count else (0, len(work))
    choices = [] if rest else [(whole, 0)]
    if count > 1 and (count - 1) * (len(expected) + spacers) < len(work):
        choices.append((len(expected) + spacers, 1))
    for each, lost in choices:
        start = len(work) - (count - lost) * each
        runs = [list(work[i : i + each - spacers]) for i in range(start, len(work), each)] if each > spacers else []
        names = [[piece.name for piece in run] for run in runs]
        alike = all(run == names[0] for run in names[1:]) and (not lost or names[:1] == [list(expected)])
        if len(runs) == count - lost and alike:
            return [[] for _ in range(lost)] + runs
    raise RuntimeError(
        "the GPU did %d pieces of work in %d runs, and not the same in each: the model's graph depends on something "
        "else than its input, or the tracer lost records" % (len(work), count)
    )


def launches_seen(run: Sequence[Work]) -> int:
    """Pieces of work that the GPU waited for; the others were queued meanwhile, and their launch cost nothing."""
    seen, free_us = 0, -float("inf")
    for piece in run:
        seen += piece.begun_us - free_us > IDLE_US
        free_us = max(free_us, piece.begun_us + 1e-3 * piece.duration_ns)
    return seen


def assign(described: Sequence[str], owner: Sequence[Optional[int]], ran: Sequence[str]) -> Tuple[Optional[int], ...]:
    """The owner of each kernel of a run, from the run in which owners were recorded.

    The two agree as a rule, replayed graphs included. Where kernels differ, those that stand in for the kernels of one
    operator alone are its; the others are nobody's.
    """
    found: List[Optional[int]] = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, described, ran, autojunk=False).get_opcodes():
        if tag == "equal":
            found.extend(owner[i1:i2])
        else:
            around = set(owner[i1:i2])
            found.extend([around.pop() if len(around) == 1 else None] * (j2 - j1))
    return tuple(found)


def per_owner(run: Sequence[Work], assigned: Sequence[Optional[int]], count: int) -> List[int]:
    """GPU time of a run by owner in ns, shape (count + 1,); the last is nobody's."""
    sums = [0] * (count + 1)
    for piece, owner in zip(run, assigned):
        sums[count if owner is None else owner] += piece.duration_ns
    return sums


def short(name: str) -> str:
    """A kernel's name without return type, namespaces, template arguments and parameters, as a row shows it."""
    flat, depth = "", 0
    for letter in re.sub(r"^void ", "", name).replace("(anonymous namespace)", ""):
        depth += letter in "<("
        if not depth:
            flat += letter
        depth -= letter in ">)"
        if letter == "(" and depth == 1:
            break  # parameters are the end of it
    return (re.sub(r"\s+", "_", flat.split("::")[-1].strip()) or "kernel")[:LONGEST_NAME]
