"""Other tools on the same models."""

from __future__ import annotations

from ..part import (
    MEASURING,
    ORT,
    RUNTIME,
    Part,
    script,
)
from ..peers import TOOLS
from ..picks import (
    peer,
)
from ..rows import Figure


def _peer(tool: str, what: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{tool}/cost_s", f"{what}: time for one model's latency, median", "s", peer(tool, "cost_s")),
        Figure(f"{tool}/interval", "… half-width of the interval it gives, median", "share", peer(tool, "interval")),
        Figure(f"{tool}/repeat_error", "… difference of two runs some minutes apart, median", "share",
               peer(tool, "repeat_error")),
        Figure(f"{tool}/aa", "… one model called different from itself", "share", peer(tool, "aa")),
        Figure(f"{tool}/layers", "… its layers' sum over its un-profiled latency, median", "x", peer(tool, "layers")),
    )  # fmt: skip


PEERS = Part(
    "peers", 6,
    commands=(script("peers"),),
    quick=(script("peers", "--quick"),),
    paths=(*MEASURING, *RUNTIME[ORT], "benchmarks/peer*"),
    figures=tuple(figure for tool, what in TOOLS.items() for figure in _peer(tool, what)),
)  # fmt: skip
