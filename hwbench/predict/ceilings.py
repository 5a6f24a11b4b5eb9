"""A device's measured ceilings: what its best kernels reach, and its memory at each working set.

The probe is a network of single kernels, the same for every target: large ones of each kind that multiplies, and
additions of two tensors whose working sets go from what a first-level cache holds to what none does. *Source* of the
model: Williams, Waterman, Patterson, "Roofline", CACM 52 (4), 2009; of the sweep over working sets: McCalpin, STREAM
(1995), and McVoy and Staelin, lmbench (USENIX 1996).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..catalog.spaces.kernels import name_of, parse
from ..errors import UsageError
from .features import GROUPS, group_of

if TYPE_CHECKING:
    from .examples import Example

KERNELS = (
    "linear_none_256x1024_1024x0",
    "product_none_1x8x256x64_1x8x64x256_0",
    "conv_none_1x128x28x28_128_3x3_1x1_1x1x1x1_1x1_1x0x0",
    "conv_none_1x64x56x56_64_3x3_1x1_1x1x1x1_1x1_1x0x0",
    "conv_none_1x256x28x28_256_1x1_1x1_0x0x0x0_1x1_1x0x0",
    "conv_none_1x256x28x28_256_3x3_1x1_1x1x1x1_1x1_4x0x0",
    "conv_none_1x256x28x28_256_3x3_1x1_1x1x1x1_1x1_256x0x0",
    "conv_none_1x3x224x224_32_3x3_2x2_1x1x1x1_1x1_1x0x0",
)
"""Of about 0.3 to 270 million multiply-accumulates: long enough to be timed, short enough for a small board."""
ELEMENTS = (1360, 5456, 21840, 87376, 349520, 1398096, 5592400)
"""Of the tensors that are added: working sets (two read, one written, 4 bytes each) of 16 KiB to 64 MiB, in steps of
four."""
NAME = name_of([parse(text) for text in (*KERNELS, *(f"binary_add_1x{n}_1x{n}_0" for n in ELEMENTS))])
SUM_KIND = "elementwise"
LEAST_BYTES = 8192  # moved by a kernel of the sweep; what moves less is another kernel of the runtime's


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a probe of a target measured.

    Attributes:
        peaks: group of kernels → multiply-accumulates a second of the best one.
        bandwidths: (bytes of a working set, bytes a second), from the nearest to the furthest; those whose kernels are
            too short to be timed are left out.
        device_time_s: what the probe took.
    """

    peaks: Mapping[str, float]
    bandwidths: tuple[tuple[int, float], ...]
    device_time_s: float = 0.0

    @property
    def near(self) -> float | None:
        """Bytes a second of the best working set."""
        return max((rate for _, rate in self.bandwidths), default=None)

    @property
    def far(self) -> float | None:
        """Bytes a second of the largest working set, which no cache holds."""
        return self.bandwidths[-1][1] if self.bandwidths else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as a predictor's file and ``predictor show --json`` hold it."""
        return {
            "peaks": dict(self.peaks),
            "bandwidths": [list(each) for each in self.bandwidths],
            "device_time_s": self.device_time_s,
        }

    @classmethod
    def parse(cls, told: Mapping[str, Any], positive: Callable[[Any], float]) -> Ceilings:
        """Inverse of :meth:`as_dict`.

        Args:
            told: from a file.
            positive: reads a number above zero, or raises UsageError.
        """
        peaks = {str(group): positive(rate) for group, rate in told["peaks"].items()}
        bandwidths = tuple((int(positive(size)), positive(rate)) for size, rate in told["bandwidths"])
        if not set(peaks) <= set(GROUPS) or list(bandwidths) != sorted(bandwidths):
            raise UsageError("Its ceilings are damaged.", remedy="Train it again.")
        return cls(peaks, bandwidths, positive(told["device_time_s"]))


def of(probe: Example | None) -> Ceilings | None:
    """The ceilings that a measured probe shows; ``None`` without one, or where it shows none."""
    from .examples import below_resolution

    if probe is None:
        return None
    peaks: dict[str, float] = {}
    bandwidths: dict[int, float] = {}
    for kernel, took_s, below in zip(probe.kernels, probe.kernel_s, below_resolution(probe), strict=True):
        cost = kernel.cost()
        if below or took_s <= 0:
            continue
        if cost.macs:
            group = group_of(kernel)
            peaks[group] = max(peaks.get(group, 0.0), cost.macs / took_s)
        elif kernel.kind == SUM_KIND and not cost.params and cost.moved_bytes >= LEAST_BYTES:
            bandwidths[cost.moved_bytes] = max(bandwidths.get(cost.moved_bytes, 0.0), cost.moved_bytes / took_s)
    found = Ceilings(peaks, tuple(sorted(bandwidths.items())), probe.device_time_s)
    return found if peaks or bandwidths else None
