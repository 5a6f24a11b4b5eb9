"""What one session recorded, as numbers: its samples, its blocks, and how they stand to the anchors around them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import estimate
from .anchored import Anchored, SessionBlocks
from .anchored import anchored as fit_anchored
from .slope import CacheShare, Expected, sensitivity

if TYPE_CHECKING:
    from .measurement import ModelKey, Session

UNKNOWN_SD = 3.0  # of a slope of which nothing is said: what its blocks tell is then all there is


def samples_s(session: Session) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Un-profiled samples of a session in the order in which they were taken, shape (n,)."""
    plain = {i for i, block in enumerate(session.data["blocks"]) if block["kind"] == "plain"}
    mask = np.isin(session.arrays["block_of"], list(plain))
    return session.arrays["samples_ns"][mask].astype(np.float64) * 1e-9


def block_medians_s(session: Session) -> list[float]:
    """Median of each un-profiled block."""
    samples, block_of = session.arrays["samples_ns"], session.arrays["block_of"]
    return [
        1e-9 * float(np.median(samples[block_of == i]))
        for i, block in enumerate(session.data["blocks"])
        if block["kind"] == "plain"
    ]


def throttling(session: Session) -> str:
    """What says that the device held itself back during the session; empty where nothing did."""
    moved = (session.data.get("counters") or {}).get("throttle_events")
    flags = session.data.get("throttled")
    if flags is None:  # what was seen while blocks ran, and be it nothing, goes before how the session began
        flags = session.environment.get("throttled")
    if moved:
        return f"{moved:.0f} throttle events"
    return ", ".join(map(str, flags)) if flags else ""


def anchor_level(session: Session) -> float | None:
    """The session's anchor over its frozen reference (1.05: the machine was 5 % slower); None without a reference."""
    reference = session.data.get("anchor_ref")
    if not reference:
        return None
    levels = [b[side] for b in session.data["blocks"] for side in ("anchor_before_s", "anchor_after_s")]
    return float(np.exp(np.mean(np.log(levels)))) / float(reference["latency_s"])


def sensitivity_of(session: Session) -> float:
    """How much a session's network feels of what the caches cost its anchor."""
    return sensitivity(session.data.get("macs"), session.data.get("params"))


def expected_of(session: Session) -> Expected:
    """What a session's campaign expected of its network's slope, from what it knew of the machine when it began."""
    known = session.data.get("cache_share")
    share = CacheShare(float(known["value"]), float(known["sd"])) if known else CacheShare()
    return share.expects(sensitivity_of(session))


def blocks_of(session: Session, expected: Expected | None = None) -> SessionBlocks:
    """A session as the anchored estimator sees it; what is expected of its slope is what its campaign began with."""
    plain = [block for block in session.data["blocks"] if block["kind"] == "plain"]
    before = [block["anchor_before_s"] for block in plain]
    after = [block["anchor_after_s"] for block in plain]
    reference = session.data.get("anchor_ref") or {"latency_s": float(np.median(before))}
    return SessionBlocks.of(
        float(np.median(samples_s(session))),
        block_medians_s(session),
        before,
        after,
        reference_s=reference["latency_s"],
        throttled=bool(throttling(session)),
        expected=expected or expected_of(session),
    )


def anchored(sessions: Sequence[Session], level: float = estimate.LEVEL, expected: Expected | None = None) -> Anchored:
    """The anchored estimate over the sessions of a latency pass.

    Args:
        sessions: of one network.
        level: of the interval.
        expected: of the slope; what the first session's campaign expected where it is not given.
    """
    expected = expected or expected_of(sessions[0])
    return fit_anchored([blocks_of(session, expected) for session in sessions], level)


def cache_share(sessions: Iterable[Session]) -> CacheShare:
    """What latency sessions of any networks on one anchor reference tell of the machine."""
    networks: dict[ModelKey, list[Session]] = defaultdict(list)
    for session in sessions:
        if sensitivity_of(session) < 1.0 and not throttling(session):  # the others tell nothing
            networks[session.model].append(session)
    alone = [(mine[0], anchored(mine, expected=Expected(1.0, UNKNOWN_SD))) for mine in networks.values()]
    return CacheShare().learn((sensitivity_of(first), found.slope, found.slope_sd) for first, found in alone)
