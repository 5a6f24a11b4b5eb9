"""Everything that a device prints or a user writes, mutated at random: a parser gives an answer or one of our errors.

A parser that is to be fuzzed stands in its module's ``PARSERS`` with inputs in its grammar: ``(name, parser, seeds)``.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

from ..errors import HwbenchError
from .result import Progress, Result

HOMES = (
    "hwbench.runtimes.benchmark_model",
    "hwbench.runtimes.benchmark_model_ops",
    "hwbench.android",
    "hwbench.device",
    "hwbench.enrol.survey",
)
LIMIT_S = 5.0  # what one input may take; a parser needs a millisecond, and ten on a slow machine
MOST_BYTES = 1 << 20  # of one mutated input
TOKENS = (
    b"", b"\0", b"\n", b"\r\n", b"\t", b",", b", ", b"\"", b"'", b"=", b":", b"[", b"]", b"{", b"}", b"%", b"-", b"0",
    b"-1", b"1e400", b"-1e308", b"nan", b"inf", b"99999999999999999999", b"0x10", b"\xff\xfe", b"\xe2\x80\xae",
    b"\x1b[2J\x1b]0;x\x07", b"<script>alert(1)</script>", b"$(reboot)", b"; reboot #", b"`id`", b"../../etc/passwd",
)  # fmt: skip

Parser = tuple[str, Callable[[Any], object], Sequence[Any]]


class _TooLongError(Exception):
    """An input took more than its time."""


def parsers() -> list[Parser]:
    """What is fuzzed."""
    return [parser for home in HOMES for parser in import_module(home).PARSERS]


def fuzz(*, inputs: int = 100_000, seed: int = 0, progress: Progress | None = None) -> Result:
    """Mutated inputs over the parsers of whatever comes from a device give answers or errors of the tree, and no hang.

    Args:
        inputs: over all parsers, shared evenly.
        seed: of the mutations.
        progress: told of each parser.
    """
    found = parsers()
    each = -(-inputs // max(1, len(found)))
    rows, wrong = [], []
    for name, parser, seeds in found:
        row, faults = _fuzzed(name, parser, seeds, each, random.Random(f"{seed}/{name}"))
        rows.append(row)
        wrong += faults
        if progress is not None:
            progress(f"{name}: {row['inputs']} inputs")
    total = sum(row["inputs"] for row in rows)
    notes = [f"{total} inputs; slowest {max((row['slowest_s'] for row in rows), default=0.0):.3f} s", *wrong[:10]]
    columns = ["parser", "inputs", "answers", "refused", "wrong", "hangs", "slowest_s"]
    return Result("Mutated inputs", columns, rows, bool(rows) and not wrong, notes)


def _fuzzed(
    name: str, parser: Callable[[Any], object], seeds: Sequence[Any], inputs: int, random_: random.Random
) -> tuple[dict[str, Any], list[str]]:
    counts = {"answers": 0, "refused": 0, "wrong": 0, "hangs": 0}
    faults, slowest_s = [], 0.0
    texts = isinstance(seeds[0], str)
    raw = [seed.encode() if isinstance(seed, str) else bytes(seed) for seed in seeds]
    for number in range(inputs):
        data = mutated(raw, random_) if number >= len(raw) else raw[number]
        start = time.monotonic()
        try:
            with _limited(LIMIT_S):
                parser(data.decode(errors="replace") if texts else data)
            counts["answers"] += 1
        except HwbenchError:
            counts["refused"] += 1
        except _TooLongError:
            counts["hangs"] += 1
            faults.append(f"{name} took more than {LIMIT_S:g} s for {data[:60]!r}…")
        except Exception as error:  # noqa: BLE001 - whatever else comes out is what is looked for
            counts["wrong"] += 1
            faults.append(f"{name}: {type(error).__name__}: {str(error)[:80]} for {data[:60]!r}…")
        slowest_s = max(slowest_s, time.monotonic() - start)
    return {"parser": name, "inputs": inputs, **counts, "slowest_s": slowest_s}, faults


def mutated(seeds: Sequence[bytes], random_: random.Random) -> bytes:
    """One of the seeds after a few random changes of bytes, tokens, lines and lengths."""
    data = bytearray(random_.choice(seeds))
    for _ in range(random_.choice((1, 1, 2, 3, 8))):
        random_.choice(_CHANGES)(data, seeds, random_)
    return bytes(data[:MOST_BYTES])


def _flip(data: bytearray, seeds: Sequence[bytes], random_: random.Random) -> None:
    if data:
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)


def _insert(data: bytearray, seeds: Sequence[bytes], random_: random.Random) -> None:
    at = random_.randrange(len(data) + 1)
    data[at:at] = random_.choice(TOKENS) * random_.choice((1, 1, 1, 40))


def _replace(data: bytearray, seeds: Sequence[bytes], random_: random.Random) -> None:
    start, end = _span(data, random_)
    data[start:end] = random_.choice(TOKENS)


def _repeat(data: bytearray, seeds: Sequence[bytes], random_: random.Random) -> None:
    start, end = _span(data, random_)
    data[start:start] = bytes(data[start:end]) * random_.choice((1, 2, 200))


def _splice(data: bytearray, seeds: Sequence[bytes], random_: random.Random) -> None:
    other = random_.choice(seeds)
    data[random_.randrange(len(data) + 1) :] = other[random_.randrange(len(other) + 1) :]


def _shuffle(data: bytearray, seeds: Sequence[bytes], random_: random.Random) -> None:
    lines = bytes(data).split(b"\n")
    random_.shuffle(lines)
    data[:] = b"\n".join(lines)


def _cut(data: bytearray, seeds: Sequence[bytes], random_: random.Random) -> None:
    del data[random_.randrange(len(data) + 1) :]


_CHANGES = (_flip, _insert, _insert, _replace, _replace, _repeat, _splice, _shuffle, _cut)


def _span(data: bytearray, random_: random.Random) -> tuple[int, int]:
    start = random_.randrange(len(data) + 1)
    return start, min(len(data), start + random_.choice((1, 2, 4, 8, 64)))


@contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    """Ends what is inside after a time. Only the main thread can be told to."""

    def late(number: int, frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
