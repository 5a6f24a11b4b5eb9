"""Single kernels near another: of the same form, with other channels, positions and depths."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from ..catalog.spaces.kernels import FORMS, Fields, Part, Shape
from ..errors import UsageError
from ..kernel import Tensor

REACH = 2.0  # a neighbour's sizes are between half and twice the kernel's own
MOST_WORK = 4.0  # and it has at most so many times its multiply-accumulates and elements
SMALL = 4  # sizes up to this stay: colours, pairs, quarters of a window
DRAWS = 12  # of a neighbour, until one can be


def neighbour(part: Part, seed: str) -> Part | None:
    """An operator of the same form whose channels, positions and depths are up to twice or half as many.

    Equal sizes stay equal, so that what fits together still does. ``None`` where nothing can be moved.
    """
    draw = random.Random(seed)
    before = _size(part)
    for _ in range(DRAWS):
        try:
            found = _moved(part, draw)
            if found != part and _size(found) <= MOST_WORK * before:
                return found
        except UsageError:
            continue
    return None


def _size(part: Part) -> int:
    work = part.work
    shapes = (*work.data, *work.weights, work.output)
    return work.macs + sum(Tensor(shape).numel for shape in shapes)


def _moved(part: Part, draw: random.Random) -> Part:
    """A draw of a neighbour. Equal sizes are moved alike; the leading one, of the batch, stays."""
    sizes: dict[int, int] = {}

    def moved(size: int, of: int = 1) -> int:
        if size not in sizes:
            wanted = size * REACH ** draw.uniform(-1.0, 1.0)
            step = 8 if size % 8 == 0 else 4 if size % 4 == 0 else 1
            sizes[size] = size if size <= SMALL else max(step, round(wanted / step) * step)
        return max(of, sizes[size] // of * of)

    def shape(sizes_: Shape) -> Shape:
        return (sizes_[0], *(moved(size) for size in sizes_[1:]))

    fields = list(part.fields)
    for place in FORMS[part.form].shape_fields(len(fields)):
        fields[place] = shape(fields[place])
    return replace(part, fields=_fitted(part, fields, moved))


def _fitted(part: Part, fields: list[Shape], moved: Callable[..., int]) -> Fields:
    """The settings that go with moved shapes."""
    if part.form == "conv":
        (n, c, h, w), (groups, bias, added) = fields[0], fields[-1]
        (out,) = fields[1]
        if groups == part.fields[0][1]:  # depthwise: as many groups as channels
            fields[1], fields[-1] = (c * (out // groups),), (c, bias, added)
        else:
            fields[0], fields[1] = (n, max(groups, c // groups * groups), h, w), (moved(out, groups),)
    elif part.form in ("transposed", "lengthened", "sequence"):
        (n, c, *sides), (groups, bias) = fields[0], fields[-1]
        if part.form == "sequence" and groups == part.fields[0][1]:
            fields[1], fields[-1] = (c * (fields[1][0] // groups),), (c, bias)
        else:
            fields[0], fields[1] = (n, max(groups, c // groups * groups), *sides), (moved(fields[1][0], groups),)
    elif part.form == "linear":
        fields[1] = (moved(fields[1][0]), fields[1][1])
    elif part.form == "einsum" and fields[2][0]:  # no batch leads a constant
        fields[1] = tuple(moved(size) if size != part.fields[0][0] else size for size in part.fields[1])
    elif part.form in ("volume", "recurrent"):
        fields[1] = (moved(fields[1][0]), *fields[1][1:])
    elif part.form == "expand":
        grown = zip(fields[0], *part.fields, strict=True)
        fields[1] = tuple(size if before == after else after for size, before, after in grown)
    elif part.form == "topk":
        axis, count = fields[1]
        fields[1] = (axis, min(count, fields[0][axis]))
    elif part.form == "prelu":
        fields[1] = (1 if fields[1] == (1,) else fields[0][1],)
    elif part.form == "shuffle":
        n, c, h, w = fields[0]
        (factor,) = fields[1]
        square = factor * factor
        if part.word == "up":
            fields[0] = (n, max(1, c // square) * square, h, w)
        else:
            fields[0] = (n, c, -(-h // factor) * factor, -(-w // factor) * factor)
    elif part.form == "resize":
        before, after = part.fields[0][2:], fields[0][2:]
        fields[1] = tuple(max(1, round(b * n / a)) for a, b, n in zip(before, fields[1], after, strict=True))
    elif part.form == "norm" and part.word == "group":
        n, c, *rest = fields[0]
        (groups,) = fields[1]
        fields[0] = (n, max(groups, c // groups * groups), *rest)
    return tuple(fields)
