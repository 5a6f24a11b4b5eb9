"""Single kernels drawn at random, without regard to any network: every kind in sizes and settings that few have.

Networks say what is common. A cubic resize, a transpose of five axes, an average pool of stride one or a depthwise
convolution of 90 channels is in one family alone, and where that is held out, or a stranger's network has one, nothing
near it was ever measured: of the five worst networks under leave-one-family-out (ONNX Runtime, 118 networks) each had
most of its error in one such kernel. A few of them are measured together, as in :mod:`.sampling`, but for nobody's
sake, so that they are learnt from in every fold.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..catalog.spaces.kernels import Part, Work, name_of
from ..errors import UsageError
from . import draws
from .draws import Draw

TOGETHER = 16
"""Kernels of one network: its sessions take 8 to 10 s of a device's time whatever it holds, most of it for starting."""
KERNEL_MACS, KERNEL_ELEMENTS = 6e7, 1 << 20
"""Most that one kernel may cost: a made network then takes as long as a small network of the catalog."""
TRIES = 200  # draws of a kernel; one that cannot be, or is too large, is drawn anew
FIRST: Sequence[tuple[str, Draw]] = (
    ("conv", draws.depthwise), ("transpose", draws.transpose), ("pool", draws.pool), ("linear", draws.linear),
    ("resize", draws.cubic), ("norm", draws.norm), ("conv", draws.pointwise), ("binary", draws.binary),
    ("softmax", draws.softmax), ("conv", draws.grouped), ("concat", draws.concat), ("product", draws.product),
    ("conv", draws.dense), ("unary", draws.unary), ("reduce", draws.reduce), ("conv", draws.stem),
    ("transpose", draws.transpose), ("resize", draws.resize), ("conv", draws.depthwise), ("attention", draws.attention),
    ("global", draws.globally), ("conv", draws.patches), ("norm", draws.norm),
)  # fmt: skip
"""Form and draw, in turn; as many that none divides :data:`TOGETHER`, so that kinds meet others in each network."""
SECOND: Sequence[tuple[str, Draw]] = (
    ("transposed", draws.transposed), ("conv", draws.narrow), ("linear", draws.batched), ("conv", draws.curved),
    ("prelu", draws.slopes), ("conv", draws.large), ("shuffle", draws.shuffle), ("conv", draws.narrow),
    ("transposed", draws.transposed), ("conv", draws.curved), ("linear", draws.batched), ("pool", draws.pool),
    ("conv", draws.large), ("concat", draws.concat), ("conv", draws.narrow), ("conv", draws.wide_groups),
    ("conv", draws.curved), ("resize", draws.resize), ("norm", draws.norm), ("conv", draws.strip),
    ("conv", draws.depthwise),
)  # fmt: skip
"""What hand-written networks have and few published ones: decoders, networks that make pictures, heads of one vector of
channels, whole batches of rows. Of 23 such networks (2026-11-21, ONNX Runtime) a predictor that had learnt from the
first series alone foretold 65 % within 10 %."""
COMMON: Sequence[tuple[str, Draw]] = (
    ("linear", draws.batched), ("conv", draws.dense), ("linear", draws.batched), ("conv", draws.pointwise),
    ("unary", draws.unary), ("conv", draws.depthwise), ("linear", draws.batched), ("conv", draws.dense),
    ("pool", draws.pool), ("transposed", draws.transposed), ("linear", draws.linear), ("conv", draws.narrow),
    ("norm", draws.norm),
)  # fmt: skip
"""What small hand-written networks are made of."""
ROWS: Sequence[tuple[str, Draw]] = (
    ("linear", draws.rows), ("conv", draws.narrow), ("linear", draws.rows), ("transposed", draws.transposed),
    ("linear", draws.rows),
)  # fmt: skip
"""What of them was still foretold 30 % too slow: a matrix of 16 to 64 rows, a transposed convolution of few places."""


RARE: Sequence[tuple[str, Draw]] = (
    ("expand", draws.expand), ("recurrent", draws.recurrent), ("unary", draws.unary), ("pad", draws.pad),
    ("topk", draws.topk), ("volume", draws.volume), ("gather", draws.gather), ("unary", draws.unary),
    ("recurrent", draws.recurrent), ("binary", draws.binary), ("unary", draws.unary), ("volume", draws.volume),
    ("reduce", draws.reduce),
)  # fmt: skip
"""Operators that no network of the catalog holds, or one alone: of 28 networks written by someone who had not seen the
predictor (2026-11-22, ONNX Runtime) it was 25 to 57 % off in five that hold them."""


NEAR: Sequence[tuple[str, Draw]] = (
    ("linear", draws.vector), ("sequence", draws.sequence), ("conv", draws.few_places), ("linear", draws.vector),
    ("sequence", draws.sequence), ("lengthened", draws.lengthened), ("linear", draws.vector),
    ("transposed", draws.few_grown), ("sequence", draws.sequence),
)  # fmt: skip
"""What fills a network of under 10 MB whose weights are still near from the run before, and convolutions along one
axis. Of 101 networks by hand (2026-11-22, ONNX Runtime) seven of the twelve worst, all under 1.2 ms, spent their time
on a few rows times a matrix and were foretold 18 to 50 % too slow; four that read sounds were 16 to 21 % off."""


@dataclass(frozen=True, slots=True)
class Series:
    """Kernels that were drawn together. What a number names depends on all that draws it: once measured, a series
    stays as it is, and what is wanted besides becomes another one.

    Attributes:
        name: seeds the draws.
        kinds: form and draw, in turn.
        networks: how many are made, of ``together`` kernels each.
        together: see :data:`TOGETHER`.
        most_macs: see :data:`KERNEL_MACS`.
        most_elements: of any of a kernel's tensors.
    """

    name: str
    kinds: Sequence[tuple[str, Draw]]
    networks: int
    together: int = TOGETHER
    most_macs: float = KERNEL_MACS
    most_elements: int = KERNEL_ELEMENTS

    def kernel(self, number: int) -> Part:
        """The kernel of that number, the same on every machine."""
        form, drawn = self.kinds[number % len(self.kinds)]
        draw = random.Random(f"{self.name} {number}")
        for _ in range(TRIES):
            word, fields = drawn(draw)
            part = Part(form, word, fields)
            try:
                work = part.work
            except UsageError:
                continue
            if work.macs <= self.most_macs and _elements(work) <= self.most_elements:
                return part
        raise AssertionError(f"no kernel of form {form} fits")

    def parts(self) -> list[list[Part]]:
        """The kernels of each network."""
        starts = range(0, self.networks * self.together, self.together)
        return [list(dict.fromkeys(map(self.kernel, range(start, start + self.together)))) for start in starts]


SERIES = (
    Series("single kernels 1", FIRST, 18),
    Series("single kernels 2", SECOND, 13),
    Series("small kernels 1", (*FIRST, *SECOND), 10, together=9, most_macs=2e6, most_elements=1 << 16),
    Series("small kernels 2", COMMON, 14, together=6, most_macs=2e7, most_elements=1 << 19),
    Series("small kernels 3", ROWS, 8, together=7, most_macs=2e7, most_elements=1 << 19),
    Series("rare kernels 1", RARE, 12, together=9, most_macs=5e7, most_elements=1 << 19),
    Series("contractions 1", (("einsum", draws.einsum),), 3, together=8, most_macs=3e7, most_elements=1 << 19),
    Series("near kernels 1", NEAR, 16, together=5, most_macs=3e7, most_elements=1 << 21),
)


def _elements(work: Work) -> int:
    return sum(math.prod(shape) for shape in (*work.data, *work.weights, work.output))


@functools.cache
def networks() -> tuple[tuple[str, float], ...]:
    """Names of the made networks, a few kernels in each, and their multiply-accumulates.

    Whatever a budget ends with, as large a share of each series is there.
    """
    placed = [((i + 0.5) / series.networks, parts) for series in SERIES for i, parts in enumerate(series.parts())]
    made = [parts for _, parts in sorted(placed, key=lambda one: one[0])]
    return tuple((name_of(parts), float(sum(part.work.macs for part in parts))) for parts in made)
