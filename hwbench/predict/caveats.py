"""What is said beside a prediction, and what makes its interval wider: doubts of a network's graph and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..caveats import Caveat
from ..errors import UsageError
from ..target import Target
from ..units import seconds
from .examples import computes_in
from .features import BRANCHES, LOOPS
from .graph import Graph, chip_of
from .model import UNSEEN

if TYPE_CHECKING:
    from .predictor import LayerEstimate

STAND_IN_WIDENS = 1.5  # another CPU fuses and lays out otherwise; seen: NCHWc convolutions exist on x86 only
VERSION_WIDENS = 1.25
TOLD_SHARE = 0.02  # of the time in ops that nobody can foretell, from which the result says so
FAR_OUTSIDE = 3.0  # times the largest or the smallest network that it learnt from
SENTENCES: Mapping[str, tuple[str, str]] = {
    "unseen_ops": (
        "This predictor learnt from no network with such {ops}: {share} of the latency is a guess from sizes alone.",
        "Measure the network, or one with these operators, and train again.",
    ),
    "data_decides": (
        "How long {ops} take is decided by data, not by sizes alone; {share} of the latency is a guess about them.",
        "Measure the network; the interval does not know what its data will be.",
    ),
    "stand_in": (
        "Its kernels are those of this machine's runtime, because {why}. The interval is wider for it.",
        "Ask again when the device can be reached.",
    ),
    "other_chip": (
        "The predictor learnt on {known}, whose latency it tells; the network was opened on {found}. The interval is "
        "wider for it.",
        "For this machine's latency train one here: hwbench predictor train --on {target}.",
    ),
    "other_version": (
        "Its kernels are those of {found}; the predictor learnt from {known}. The interval is wider for it.",
        "Train again with the version that is installed.",
    ),
    "outside": (
        "At {latency} it lies far outside what the predictor learnt from ({low} to {high}).",
        "Trust the interval less; measure the network once.",
    ),
    "unlike": (
        "No network that the predictor learnt from has about {weights} of weights and moves about {moved}: what stays "
        "beside the core differs. The interval is wider for it.",
        "Measure the network, or train with a larger --budget, which holds more networks of other sizes.",
    ),
    "few_networks": (
        "The predictor learnt from {networks} networks of {families} families, too few for an interval that holds.",
        "Train with a larger --budget.",
    ),
}


def of_graph(graph: Graph, target: str, about: Mapping[str, Any]) -> tuple[float, list[Caveat]]:
    """What a graph's origin multiplies an interval by, and why.

    Args:
        graph: of the network.
        target: that the predictor speaks of.
        about: where what it learnt from was measured: ``versions`` of the runtime, in any order, and ``device``; what
            is not there is not compared.

    Raises:
        UsageError: the network computes in another precision.
    """
    meant = Target.parse(target)
    if not computes_in(graph.precision, meant.precision):
        raise UsageError(
            f"{graph.name} computes in {graph.precision}; the predictor is of {meant.precision} networks.",
            remedy=f"Measure it (hwbench profile … --on {meant.device}/{meant.runtime}), or predict the "
            f"{meant.precision} model.",
        )
    widen, found = 1.0, []
    learnt_on = chip_of(about.get("device"))
    if graph.stand_in:
        widen *= STAND_IN_WIDENS
        found.append(doubt("stand_in", why=graph.stand_in))
    elif graph.chip and learnt_on and not _alike(graph.chip, learnt_on):
        widen *= STAND_IN_WIDENS
        found.append(doubt("other_chip", found=graph.chip, known=learnt_on, target=target))
    versions = about.get("versions")
    known = versions if isinstance(versions, Mapping) else {}  # a file may say anything
    runtime = next(iter(graph.versions), "")  # a session tells the runtime's own version first
    if runtime and known and graph.versions[runtime] != known.get(runtime):
        widen *= VERSION_WIDENS
        learnt = f"{runtime} {known[runtime]}" if runtime in known else ", ".join(known)
        found.append(doubt("other_version", found=f"{runtime} {graph.versions[runtime]}", known=learnt))
    return widen, found


def _alike(one: str, two: str) -> bool:
    """Whether two names are of one chip: a virtual machine's has details in brackets, which older files lack."""
    return one == two or one.startswith(f"{two} (") or two.startswith(f"{one} (")


def of_figures(latency_s: float, rows: Sequence[LayerEstimate], seen_s: Sequence[float]) -> list[Caveat]:
    """Caveats of a prediction: what nobody can foretell, and a network far from all that were learnt from.

    An operator whose work is not known is named however small its share is: the share is the guess itself.
    """
    found = []
    unseen = [row for row in rows if row.how == UNSEEN]
    decided = [row for row in rows if row.op in LOOPS or row.op in BRANCHES]
    for code, those, always in (
        ("unseen_ops", unseen, any(row.macs is None for row in unseen)),
        ("data_decides", decided, any(row.op in LOOPS for row in decided)),
    ):
        those_s = sum(row.latency_s for row in those)
        if always or those_s > TOLD_SHARE * latency_s:
            ops = ", ".join(sorted({row.op for row in those}))
            found.append(doubt(code, ops=ops, share=f"{min(those_s / latency_s, 1.0):.0%}"))
    low, high = min(seen_s), max(seen_s)
    if not low / FAR_OUTSIDE <= latency_s <= high * FAR_OUTSIDE:
        found.append(doubt("outside", latency=seconds(latency_s, 3), low=seconds(low, 3), high=seconds(high, 3)))
    return found


def doubt(code: str, **values: Any) -> Caveat:
    """A doubt of :data:`SENTENCES` with its values."""
    text, remedy = SENTENCES[code]
    return Caveat(code, text.format(**values), remedy.format(**values))
