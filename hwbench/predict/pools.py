"""Windows of pools as a call in Python gives them: torch's kernels hold the arguments, other runtimes' the window."""

from __future__ import annotations

import itertools
import re

from ..kernel import Kernel

Sizes = tuple[int, ...]

_OP = re.compile(r"(?:max|avg)_pool([123])d")


def called_window(kernel: Kernel) -> tuple[Sizes, Sizes, Sizes] | None:
    """Window, strides and even pads of a pool that is told as it is called; ``None`` where it is not, or has no window.

    What is named has its name, what is not stands in ``args``, one after another: ``(3, 2)`` may be a window of 3x2, or
    one of 3x3 in steps of two. That reading holds which makes the output.
    """
    op = _OP.fullmatch(kernel.op)
    data = next((t for t in kernel.inputs if not t.constant), None)
    if op is None or data is None or not kernel.outputs:
        return None
    rank = int(op[1])
    before, after = data.shape[-rank:], kernel.outputs[0].shape[-rank:]
    named = [_whole(kernel.attribute(name)) for name in ("kernel_size", "stride", "padding")]
    for widths in itertools.product((1, rank), repeat=3):
        rest, read = _whole(kernel.attribute("args")), list[Sizes]()
        for sizes, width in zip(named, widths, strict=True):
            if not sizes:
                sizes, rest = rest[:width], rest[width:]
            read.append(sizes * rank if len(sizes) == 1 else sizes)
        window, strides, pads = read[0], read[1] or read[0], read[2] or (0,) * rank
        if _makes(before, window, strides, pads, after):
            return window, strides, pads
    return None


def _makes(before: Sizes, window: Sizes, strides: Sizes, pads: Sizes, after: Sizes) -> bool:
    """Whether a window slides over so many positions, a last one that hangs over the edge counted or not."""
    alike = len({len(before), len(window), len(strides), len(pads), len(after)}) == 1
    if not alike or min((*window, *strides), default=0) < 1:
        return False
    room = [size + 2 * pad - taps for size, pad, taps in zip(before, pads, window, strict=True)]
    each = zip(room, strides, after, strict=True)
    return all(out in (left // step + 1, -(-left // step) + 1) for left, step, out in each)


def _whole(value: object) -> Sizes:
    """The whole numbers of an attribute, settings that are on or off left out."""
    return tuple(v for v in (value if isinstance(value, tuple) else (value,)) if type(v) is int)
