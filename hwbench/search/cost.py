"""What a network costs, as objectives and limits over whole populations, and MnasNet's reward.

A limit on latency holds the upper end of the table's interval under it; all other costs are compared as they are.
A network with a cost that the table does not know meets no limit and is on no front: a missing number is never zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import units
from ..catalog.spaces.space import Rows
from ..errors import UsageError, did_you_mean
from ..target import Target

FloatArray = npt.NDArray[np.float64]

WEIGHT_BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2, "int8": 1, "uint8": 1}
"""Bytes that a parameter takes, by a target's precision. Source: the width of the type; tf32 is how fp32 is
multiplied, and is kept as that."""
SOFT_EXPONENT = -0.07
"""Source: Tan et al., MnasNet (2019), section 3: twice the latency may cost 5 % of relative accuracy."""
HARD_EXPONENT = -1.0
"""Above the target; below it a hard reward is the accuracy. Source: the same, equation 3."""
UNKNOWN = 1e6
"""Excess of a network whose cost is not known: beyond any that is."""


class Table(Protocol):
    """What a search asks of a lookup table; ``hwbench.lut.table.LookupTable`` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def space(self) -> str: ...
    @property
    def space_version(self) -> int: ...
    @property
    def target(self) -> str: ...
    @property
    def context(self) -> Mapping[str, Any]: ...
    @property
    def bound(self) -> Any: ...  # the space that it was bound to, None without

    def latency_s(self, archs: Any, missing: str = "raise") -> Any: ...
    def latency_high_s(self, archs: Any, missing: str = "raise") -> Any: ...
    def energy_j(self, archs: Any, missing: str = "raise") -> Any: ...
    def memory_bytes(self, archs: Any, missing: str = "raise") -> Any: ...
    def macs(self, archs: Any) -> Any: ...
    def params(self, archs: Any) -> Any: ...
    def estimate(self, arch: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Cost:
    """One number that can be minimised and limited.

    Attributes:
        name: as options call it.
        of: table and canonical rows (n, d) to costs (n,) in SI units; NaN where the table does not know it.
        parse: what a user writes, to SI units.
        show: the other way.
        example: of a limit.
    """

    name: str
    of: Callable[[Table, Rows], FloatArray]
    parse: Callable[[str], float]
    show: Callable[[float | None], str]
    example: str


def latency_s(table: Table, rows: Rows) -> FloatArray:
    """Latency of each network, shape (n,); NaN where a block is missing."""
    return np.asarray(table.latency_s(rows, missing="nan"), dtype=np.float64)


def latency_high_s(table: Table, rows: Rows) -> FloatArray:
    """Upper end of each network's interval, shape (n,); NaN where a block is missing."""
    return np.asarray(table.latency_high_s(rows, missing="nan"), dtype=np.float64)


def size_bytes(table: Table, rows: Rows) -> FloatArray:
    """Bytes of each network's weights, shape (n,): parameters times the width of the target's precision.

    Raises:
        UsageError: how wide that precision's weights are is not known.
    """
    precision = Target.parse(table.target).precision
    if precision not in WEIGHT_BYTES:
        raise UsageError(
            f"How many bytes a weight takes at the precision {precision} is not known.",
            remedy="Limit the number of parameters instead: --max-params 5M.",
        )
    return np.asarray(table.params(rows), dtype=np.float64) * WEIGHT_BYTES[precision]


def _energy_j(table: Table, rows: Rows) -> FloatArray:
    return np.asarray(table.energy_j(rows, missing="nan"), dtype=np.float64)


def _memory_bytes(table: Table, rows: Rows) -> FloatArray:
    return np.asarray(table.memory_bytes(rows, missing="nan"), dtype=np.float64)


def _macs(table: Table, rows: Rows) -> FloatArray:
    return np.asarray(table.macs(rows), dtype=np.float64)


def _params(table: Table, rows: Rows) -> FloatArray:
    return np.asarray(table.params(rows), dtype=np.float64)


COSTS: Mapping[str, Cost] = {
    cost.name: cost
    for cost in (
        Cost("latency", latency_s, units.parse_seconds, units.seconds, "20ms"),
        Cost("energy", _energy_j, units.parse_joules, units.joules, "5mJ"),
        Cost("memory", _memory_bytes, units.parse_bytes, units.size, "8MB"),
        Cost("macs", _macs, units.parse_count, units.count, "300M"),
        Cost("params", _params, units.parse_count, units.count, "5M"),
        Cost("size", size_bytes, units.parse_bytes, units.size, "20MB"),
    )
}


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of costs, each once. Raises UsageError for an unknown one, or none at all."""
    if not names:
        raise UsageError("Nothing is to be minimised.", remedy=f"Costs: {', '.join(COSTS)}.")
    for name in names:
        if name not in COSTS:
            hint = did_you_mean(name, COSTS)
            raise UsageError(f"There is no cost '{name}'. {hint}".strip(), remedy=f"Costs: {', '.join(COSTS)}.")
    return tuple(dict.fromkeys(names))


def checked_limits(limits: Mapping[str, float]) -> dict[str, float]:
    """Limits by cost, in the order of :data:`COSTS`. Raises UsageError for an unknown cost or a limit of no size."""
    if limits:
        checked_names(list(limits))
    for name, limit in limits.items():
        if not (math.isfinite(limit) and limit > 0):
            raise UsageError(
                f"No network has a {name} of {limit:g} or less.",
                remedy=f"Give more than 0, such as {COSTS[name].example}.",
            )
    return {name: float(limits[name]) for name in COSTS if name in limits}


def require(table: Table, names: Sequence[str], rows: Rows) -> None:
    """Raise what the table raises when it knows a cost for none of these networks.

    Raises:
        LookupMiss: every network needs a block without an entry.
        UsageError: entries hold no energy or no memory.
    """
    known = rows[~np.isnan(latency_s(table, rows))]
    if not len(known):
        table.latency_s(rows)
    asked = {"energy": table.energy_j, "memory": table.memory_bytes}
    for name in names:
        if name in asked and np.isnan(COSTS[name].of(table, known)).all():
            asked[name](known)


def values(table: Table, names: Sequence[str], rows: Rows) -> FloatArray:
    """Costs, shape (n, names); NaN where the table does not know one."""
    return np.column_stack([COSTS[name].of(table, rows) for name in names])


def excess(table: Table, limits: Mapping[str, float], rows: Rows) -> FloatArray:
    """How far each network is over each limit, as a share of it: shape (n, limits), at most 0 where it holds."""
    return np.nan_to_num(shares(table, limits, rows) - 1.0, nan=UNKNOWN)


def shares(table: Table, limits: Mapping[str, float], rows: Rows) -> FloatArray:
    """What is held against each limit, as a share of it: shape (n, limits); NaN where the table does not know it."""
    columns = np.empty((len(rows), len(limits)))
    for number, (name, limit) in enumerate(limits.items()):
        held = latency_high_s(table, rows) if name == "latency" else COSTS[name].of(table, rows)
        columns[:, number] = held / limit
    return columns


def reward(
    accuracy: npt.ArrayLike,
    latency: npt.ArrayLike,
    target_s: float,
    *,
    exponent: float | None = None,
    hard: bool = False,
) -> FloatArray:
    """MnasNet's reward, accuracy × (latency / target)^w, vectorised.

    Args:
        accuracy: (n,), not negative.
        latency: (n,) seconds.
        target_s: the latency at which the reward is the accuracy.
        exponent: w; -0.07 when soft (below and above the target), -1 when hard (above it only).
        hard: below the target the reward is the accuracy.

    Raises:
        UsageError: a target that is not above 0, an exponent that is not below 0, or a negative accuracy.

    Source: Tan et al., MnasNet (2019), equations 2 and 3.
    """
    w = (HARD_EXPONENT if hard else SOFT_EXPONENT) if exponent is None else exponent
    if not (math.isfinite(target_s) and target_s > 0 and math.isfinite(w) and w < 0):
        raise UsageError(
            f"A reward with the target {target_s:g} s and the exponent {w:g} prefers nothing sensible.",
            remedy="Give a target above 0 and an exponent below 0, such as -0.07.",
        )
    plain = np.asarray(accuracy, dtype=np.float64)
    if (plain < 0).any():
        raise UsageError(
            "A reward multiplies accuracies, and some are negative.", remedy="Use accuracies of 0 to 1, or of 0 to 100."
        )
    ratio = np.asarray(latency, dtype=np.float64) / target_s
    return np.asarray(plain * (np.maximum(ratio, 1.0) if hard else ratio) ** w)
