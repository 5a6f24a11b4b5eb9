"""What stands near a block or kernel that has no entry, and what its like say about it.

Likeness is read off the key: the op, the shapes, the configuration; MACs and elements moved follow from them.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .. import units
from ..errors import UsageError
from ..estimate import LEVEL, t_quantile
from ..kernel import Kernel

if TYPE_CHECKING:
    from ..catalog.spaces.space import Block
    from .table import Entry

FEWEST = 6
"""Entries of an op below which nothing is interpolated: two slopes and a constant, and as many to see how they err."""
LEAST_ERROR = 0.05
"""Relative error that an interpolated cost has at least, however well its regression fits. Chosen: between equal shapes
of equal MACs kernels differ by about as much."""
_UNLIKE = 1.0  # distance of two configurations that are no numbers; e times the size is as far
_KEY = re.compile(r"(?P<op>.+?) (?P<input>[\dx]*)>(?P<output>[\dx]*)(?P<config>(?: [^ =]+=.*)?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a key says about the work behind it.

    Attributes:
        key: the key.
        op: kind of work; nothing of another op is near.
        input: shape without batch (a kernel's: of its first tensor, batch included); empty when it cannot be read.
        output: the same.
        config: the rest of the identity, numbers as floats.
        macs: multiply-accumulates.
        moved: elements (a kernel's: bytes) of parameters, inputs and outputs.
    """

    key: str
    op: str
    input: tuple[int, ...] = ()
    output: tuple[int, ...] = ()
    config: tuple[tuple[str, float | str], ...] = ()
    macs: int = 0
    moved: int = 0

    @property
    def features(self) -> tuple[float, float, float]:
        """What the regression sees: 1, log MACs, log elements moved."""
        return 1.0, math.log1p(self.macs), math.log1p(self.moved)


def traits_of(entry: Entry | Block) -> Traits:
    """Traits of an entry, or of a block that may have none."""
    return traits(entry.key, entry.macs, entry.params)


@functools.lru_cache(maxsize=1 << 16)
def traits(key: str, macs: int = 0, params: int = 0) -> Traits:
    """Traits of a key of either kind. One that is neither has its first word as its op, and nothing else."""
    if key.startswith("["):
        try:
            return _kernel(key)
        except UsageError:
            return Traits(key, key)
    match = _KEY.fullmatch(key)
    if match is None:
        return Traits(key, re.split(r"[\s_:-]", key, maxsplit=1)[0], macs=macs, moved=params)
    pairs = [pair.partition("=") for pair in re.split(r" (?=[^ =]+=)", match["config"].strip()) if pair]
    config = tuple(sorted((name, _number(value)) for name, _, value in pairs))
    read, written = (tuple(int(n) for n in match[side].split("x") if n) for side in ("input", "output"))
    return Traits(key, match["op"], read, written, config, macs, params + math.prod(read) + math.prod(written))


def _kernel(key: str) -> Traits:
    kernel = Kernel.parse(key)
    cost = kernel.cost()
    values = dict(kernel.attributes) | {"activation": kernel.activation, "layout": kernel.layout}
    values.pop("pads", None)  # follow from the kernel's size
    config = tuple(sorted((name, _number(_flat(value))) for name, value in values.items()))
    data = [tensor.shape for tensor in kernel.inputs if not tensor.constant] or [()]
    out = kernel.outputs[0].shape if kernel.outputs else ()
    macs = cost.macs or 0  # 0 where they are not told: sizes must do then, see distance()
    return Traits(key, f"{kernel.runtime} {kernel.op}", data[0], out, config, macs, cost.moved_bytes)


def _flat(value: object) -> str:
    """``(3, 3)`` → ``"3"``; other sequences with an x between."""
    if isinstance(value, tuple):
        return str(value[0]) if len(set(value)) == 1 else "x".join(map(str, value))
    return str(value)


def _number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def distance(one: Traits, two: Traits) -> float:
    """How unlike two keys are: Euclidean over logarithms of sizes, numbers and MACs; infinite between ops."""
    if one.op != two.op:
        return math.inf
    # A key alone does not tell its MACs; then its sizes must do.
    parts = [math.log1p(one.macs) - math.log1p(two.macs)] if one.macs and two.macs else []
    for mine, theirs in ((one.input, two.input), (one.output, two.output)):
        if len(mine) != len(theirs):
            parts.append(_UNLIKE * 2)
        else:
            parts += [math.log1p(a) - math.log1p(b) for a, b in zip(mine, theirs, strict=True)]
    left, right = dict(one.config), dict(two.config)
    for name in left.keys() | right.keys():
        a, b = left.get(name), right.get(name)
        if isinstance(a, float) and isinstance(b, float):
            parts.append(math.copysign(math.log1p(abs(a)), a) - math.copysign(math.log1p(abs(b)), b))
        elif a != b:
            parts.append(_UNLIKE)
    return math.sqrt(sum(part * part for part in parts))


def nearest(wanted: Traits, entries: Mapping[str, Entry]) -> Entry | None:
    """The entry most like a key: of the same op, by :func:`distance`; None when there is none of that op."""
    like = [(distance(wanted, traits_of(entry)), entry) for entry in entries.values()]
    least, found = min(like, key=lambda pair: pair[0], default=(math.inf, None))
    if math.isfinite(least):
        return found
    close = difflib.get_close_matches(wanted.key, entries, n=1, cutoff=0.8) if len(entries) < 2000 else []
    return entries[close[0]] if close else None


def told(entry: Entry | None) -> str:
    """A sentence that names the nearest entry."""
    if entry is None:
        return "No entry of the table is like it."
    return f"The nearest is {entry.key[:200]!r} ({units.seconds(entry.latency_s)})."


@dataclass(frozen=True, slots=True)
class Fit:
    """A regression of log cost on :attr:`Traits.features` over the entries of one op.

    Attributes:
        coefficients: shape (3,).
        inverse: pseudo-inverse of the features' Gram matrix, shape (3, 3).
        error: root mean square of the leave-one-out errors, in logarithms.
        df: degrees of freedom behind it.
        residuals: leave-one-out error of each entry, shape (n,); positive: dearer than its like.
    """

    coefficients: npt.NDArray[np.float64]
    inverse: npt.NDArray[np.float64]
    error: float
    df: int
    residuals: npt.NDArray[np.float64]

    def predict(self, wanted: Traits) -> tuple[float, float, float]:
        """Cost with its 95 % interval, in seconds: wide, and wider away from the entries that were fitted."""
        x = np.array(wanted.features)
        centre = float(x @ self.coefficients)
        widening = math.sqrt(1.0 + max(0.0, float(x @ self.inverse @ x)))
        half = float(t_quantile(self.df, LEVEL)) * max(self.error, LEAST_ERROR) * widening
        return math.exp(centre), math.exp(centre - half), math.exp(centre + half)


def fit(entries: Iterable[Entry]) -> Fit | None:
    """The regression over entries of one op that were measured; None when they are too few or cost nothing.

    Source: leave-one-out residuals from the hat matrix, e / (1 - h): Cook and Weisberg, Residuals and Influence in
    Regression (1982), section 2.2.
    """
    used = [entry for entry in entries if entry.latency_s > 0 and entry.method != "interpolated"]
    if len(used) < FEWEST:
        return None
    x = np.array([traits_of(entry).features for entry in used])
    y = np.log([entry.latency_s for entry in used])
    inverse = np.linalg.pinv(x.T @ x, hermitian=True)
    coefficients = inverse @ x.T @ y
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
    free = 1.0 - leverage
    residuals = (y - x @ coefficients) / np.where(free > 1e-6, free, 1.0)
    df = max(1, len(used) - int(np.linalg.matrix_rank(x)))
    return Fit(coefficients, inverse, float(np.sqrt(np.mean(residuals**2))), df, residuals)


def of_op(entries: Mapping[str, Entry], op: str) -> Sequence[Entry]:
    """The entries of one op, in the table's order."""
    return [entry for entry in entries.values() if traits_of(entry).op == op]
