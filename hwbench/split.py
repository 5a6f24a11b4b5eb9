"""Split computing: a network cut in two, the first part on the device, the rest somewhere faster.

A cut lies behind a layer of the edge's profile. What crosses it is every value that a layer before the cut writes (or
the network is given) and a layer behind it reads. Where the two runtimes fuse differently, a layer of the cloud belongs
to the place of the edge's layers from the same module. A module that runs twice (a vision transformer's root, before
and behind its blocks) is matched part by part, and places that break the order of most of the time are not believed.

Source: Kang et al., Neurosurgeon (ASPLOS 2017): latency of a cut = time before + bytes / bandwidth + time behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UsageError
from .kernel import Kernel
from .measurement import Measurement

FloatArray = npt.NDArray[np.float64]
BYTES = 4  # of an element of the network's input, where no layer tells its type
FEWEST_PLACED = 0.5  # of the cloud's time in modules that the edge has too; seen: 0.77 (eager torch, with norms apart)


@dataclass(frozen=True, slots=True)
class Cut:
    """One place to cut.

    Attributes:
        index: how many layers of the edge run before it; 0 sends the input, the number of layers sends nothing.
        layer: name of the last layer before it; empty at the start.
        module: its module path.
        edge_s: seconds on the edge.
        crossing: names of the values that are sent.
        crossing_bytes: what they hold; ``None`` where no layer tells the size of one of them.
        transfer_s: round trip and bytes over bandwidth; 0 where everything stays. ``None`` without a bandwidth, and
            where the bytes are not known.
        cloud_s: seconds on the cloud; ``None`` without one.
        total_s: of the three; ``None`` unless all are known.
    """

    index: int
    layer: str
    module: str
    edge_s: float
    crossing: tuple[str, ...]
    crossing_bytes: int | None
    transfer_s: float | None
    cloud_s: float | None
    total_s: float | None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "crossing": list(self.crossing)}


@dataclass(frozen=True, slots=True)
class Split:
    """Every cut of a network, in the order of its layers.

    Attributes:
        identity: of the network.
        edge: target of the first part.
        cloud: of the second; empty without one.
        cuts: one more than the edge has layers.
    """

    identity: str
    edge: str
    cloud: str
    cuts: tuple[Cut, ...]

    @property
    def best(self) -> Cut | None:
        """The cut with the least total; ``None`` without a cloud and a bandwidth, when only the last total is known."""
        known = [cut for cut in self.cuts if cut.total_s is not None]
        return min(known, key=lambda cut: (cut.total_s, cut.index)) if len(known) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """One object, as ``hwbench split --json`` prints it."""
        best = self.best
        return {
            "identity": self.identity,
            "edge": self.edge,
            "cloud": self.cloud or None,
            "best": None if best is None else best.as_dict(),
            "cuts": [cut.as_dict() for cut in self.cuts],
        }


def split(
    edge: Measurement,
    cloud: Measurement | None = None,
    *,
    bandwidth_bytes_per_s: float | None = None,
    round_trip_s: float = 0.0,
) -> Split:
    """Every cut of a profiled network.

    Layer times are shares of the raw end-to-end latency, so that all of a network on one side takes what was measured.

    Args:
        edge: latency and layers of the network on the device.
        cloud: the same network elsewhere, with inputs of the same shapes.
        bandwidth_bytes_per_s: from the edge to the cloud.
        round_trip_s: what sending anything costs beside its bytes.

    Raises:
        UsageError: a measurement without latency or layers, a runtime that does not say which values its layers
            exchange, a cloud that runs something else or cannot be laid beside the edge, or a bandwidth that is none.
    """
    if bandwidth_bytes_per_s is not None and not bandwidth_bytes_per_s > 0:
        raise UsageError("Nothing crosses a cut without bandwidth.", remedy="Give --bandwidth, such as 20Mbit.")
    if cloud is not None and cloud.key.identity != edge.key.identity:
        raise UsageError(
            f"The edge runs {edge.key.identity}, the cloud {cloud.key.identity}: they are no halves of one network.",
            remedy="Give both targets the same batch, and both measurements the same model and input.",
        )
    rows, edge_s = _profile(edge)
    before_s = np.concatenate([[0.0], np.cumsum(edge_s)])
    sizes, live = _crossing(edge, rows)
    behind_s = None if cloud is None else _behind_s(rows, *_profile(cloud))
    cuts = []
    for index in range(len(rows) + 1):
        told = [size for name in live[index] if (size := sizes[name]) is not None]
        sent = sum(told) if len(told) == len(live[index]) else None
        transfer_s: float | None = 0.0 if index == len(rows) else None
        if bandwidth_bytes_per_s is not None and sent is not None and index < len(rows):
            transfer_s = round_trip_s + sent / bandwidth_bytes_per_s
        cloud_s = None if behind_s is None else float(behind_s[index])
        known = transfer_s is not None and cloud_s is not None
        last: Mapping[str, Any] = rows[index - 1] if index else {}
        cuts.append(
            Cut(
                index=index,
                layer=str(last.get("name") or ""),
                module=str(last.get("module") or ""),
                edge_s=float(before_s[index]),
                crossing=live[index],
                crossing_bytes=sent,
                transfer_s=transfer_s,
                cloud_s=cloud_s,
                total_s=float(before_s[index]) + transfer_s + cloud_s if known else None,  # type: ignore[operator]
            )
        )
    return Split(edge.key.identity, str(edge.target), "" if cloud is None else str(cloud.target), tuple(cuts))


def _profile(measured: Measurement) -> tuple[list[Mapping[str, Any]], FloatArray]:
    """Rows of the newest layers session, and seconds of each layer, (layers,), that sum to the raw latency."""
    sessions = [session for session in measured.of("layers") if session.data.get("layers")]
    if not sessions or measured.latency is None:
        lacks = "layers" if measured.latency is not None else "latency"
        raise UsageError(
            f"{measured.key.identity} on {measured.target} has no {lacks}.",
            remedy=f"hwbench profile {measured.key.name} --on {measured.target} --passes latency,layers",
        )
    found = np.maximum([row["latency_s"] for row in measured.layer_rows], 0.0)
    if not found.sum() > 0:
        raise UsageError(
            f"No layer of {measured.key.identity} on {measured.target} is long enough to be timed.",
            remedy="Give a larger network or input.",
        )
    return list(sessions[-1].data["layers"]), np.asarray(found * (measured.latency.median_s / found.sum()))


def _crossing(
    measured: Measurement, rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, int | None], list[tuple[str, ...]]]:
    """Bytes of each value, ``None`` where nobody tells, and which values are alive at each cut, (layers + 1,)."""
    sizes: dict[str, int] = {}
    written: dict[str, int] = {}
    last_read: dict[str, int] = {}
    for i, row in enumerate(rows):
        kernel = Kernel.parse(row["kernel"]) if row.get("kernel") else None
        data = [tensor for tensor in kernel.inputs if not tensor.constant] if kernel else []
        for name, tensor in zip(row["inputs"], data, strict=False):
            sizes.setdefault(name, tensor.nbytes)
        for name, tensor in zip(row["outputs"], kernel.outputs if kernel else (), strict=False):
            sizes[name] = tensor.nbytes
        for name in row["outputs"]:
            written.setdefault(name, i)
        last_read.update(dict.fromkeys(row["inputs"], i))
    if not last_read:
        raise UsageError(
            f"{measured.target} does not say which values its layers exchange.",
            remedy="Take a runtime with per-layer profiles for the edge, such as onnxruntime.",
        )
    given = {name: _bytes(shape) for name, shape in measured.key.inputs}
    order = sorted(last_read, key=lambda name: written.get(name, -1))
    live = [
        tuple(name for name in order if written.get(name, -1) < cut <= last_read[name]) for cut in range(len(rows) + 1)
    ]
    return {name: sizes.get(name, given.get(name)) for name in last_read}, live


def _bytes(shape: Sequence[int]) -> int:
    return BYTES * int(np.prod(shape))


def _behind_s(edge: Sequence[Mapping[str, Any]], cloud: Sequence[Mapping[str, Any]], cloud_s: FloatArray) -> FloatArray:
    """Seconds that the cloud still takes behind each cut, (edge layers + 1,)."""
    place = _places(edge, cloud, cloud_s)
    done = np.zeros(len(edge) + 1)
    np.add.at(done, place + 1, cloud_s)
    return np.asarray(cloud_s.sum() - np.cumsum(done), dtype=float).clip(min=0.0)


def _places(
    edge: Sequence[Mapping[str, Any]], cloud: Sequence[Mapping[str, Any]], cloud_s: FloatArray
) -> npt.NDArray[np.int64]:
    """The edge's layer with which each layer of the cloud is done, (cloud layers,); never falling."""
    if [row["name"] for row in edge] == [row["name"] for row in cloud]:
        return np.arange(len(edge))
    there, here = _by_module(edge), _by_module(cloud)
    meant = np.full(len(cloud), -1, dtype=np.int64)
    for module in here.keys() & there.keys():
        mine, theirs = here[module], there[module]
        for nth, i in enumerate(mine, start=1):
            meant[i] = theirs[math.ceil(nth * len(theirs) / len(mine)) - 1]
    if cloud_s[meant >= 0].sum() < FEWEST_PLACED * cloud_s.sum():
        raise UsageError(
            "The edge's layers and the cloud's have too few module paths in common to be laid side by side.",
            remedy="Profile a catalog model, or take the same runtime on both sides.",
        )
    found = np.maximum.accumulate(np.where(_in_order(meant, cloud_s), meant, 0))
    found[-1] = len(edge) - 1
    return np.asarray(found)


def _by_module(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Places of each module's layers."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.get("module"):
            found.setdefault(str(row["module"]), []).append(i)
    return found


def _in_order(meant: npt.NDArray[np.int64], weight: FloatArray) -> npt.NDArray[np.bool_]:
    """The layers of the heaviest chain of places that never falls, as a mask, (n,); a place below 0 is in none.

    Source: the longest increasing subsequence by dynamic programming, with weights instead of counts.
    """
    best, before = np.zeros(len(meant)), np.full(len(meant), -1, dtype=np.int64)
    for i in np.flatnonzero(meant >= 0):
        earlier = np.flatnonzero((meant[:i] >= 0) & (meant[:i] <= meant[i]))
        best[i] = weight[i]
        if earlier.size:
            before[i] = earlier[np.argmax(best[earlier])]
            best[i] += best[before[i]]
    chain = np.zeros(len(meant), dtype=bool)
    at = int(np.argmax(np.where(meant >= 0, best, -1.0)))
    while at >= 0:
        chain[at] = True
        at = int(before[at])
    return chain
