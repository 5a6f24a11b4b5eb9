"""Split computing: a network cut in two, the first part on the device, the rest somewhere faster.

A cut lies behind a layer of the edge's profile. What crosses it is every value that a layer before the cut writes (or
the network is given) and a layer behind it reads. Where the two runtimes fuse differently, a layer of the cloud belongs
to the place of the edge's layers from the same module.

Source: Kang et al., Neurosurgeon (ASPLOS 2017): latency of a cut = time before + bytes / bandwidth + time behind.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Cut:
    """One place to cut.

    Attributes:
        index: how many layers of the edge run before it; 0 sends the input, the number of layers sends nothing.
        layer: name of the last layer before it; empty at the start.
        module: its module path.
        edge_s: seconds on the edge.
        crossing: names of the values that are sent.
        crossing_bytes: what they hold.
        transfer_s: round trip and bytes over bandwidth; 0 where everything stays. ``None`` without a bandwidth.
        cloud_s: seconds on the cloud; ``None`` without one.
        total_s: of the three; ``None`` unless all are known.
    """

    index: int
    layer: str
    module: str
    edge_s: float
    crossing: tuple[str, ...]
    crossing_bytes: int
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
        """The cut with the least total; ``None`` without a cloud and a bandwidth."""
        known = [cut for cut in self.cuts if cut.total_s is not None]
        return min(known, key=lambda cut: (cut.total_s, cut.index)) if known else None

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
        cloud: the same network elsewhere.
        bandwidth_bytes_per_s: from the edge to the cloud.
        round_trip_s: what sending anything costs beside its bytes.

    Raises:
        UsageError: a measurement without latency or layers, a runtime that does not say which values its layers
            exchange, or a bandwidth that is none.
    """
    if bandwidth_bytes_per_s is not None and not bandwidth_bytes_per_s > 0:
        raise UsageError("Nothing crosses a cut without bandwidth.", remedy="Give --bandwidth, such as 20Mbit.")
    rows, edge_s = _profile(edge)
    before_s = np.concatenate([[0.0], np.cumsum(edge_s)])
    sizes, live = _crossing(edge, rows)
    behind_s = None if cloud is None else _behind_s(rows, *_profile(cloud))
    cuts = []
    for index in range(len(rows) + 1):
        sent = sum(sizes[name] for name in live[index])
        transfer_s: float | None = 0.0 if index == len(rows) else None
        if bandwidth_bytes_per_s is not None and index < len(rows):
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


def _crossing(measured: Measurement, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """Bytes of each value, and which values are alive at each cut, (layers + 1,)."""
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
            written.setdefault(name, i)
        last_read.update(dict.fromkeys(row["inputs"], i))
    if not last_read:
        raise UsageError(
            f"{measured.target} does not say which values its layers exchange.",
            remedy="Take a runtime with per-layer profiles for the edge, such as onnxruntime.",
        )
    given = {name: _bytes(shape) for name, shape in measured.key.inputs}
    sizes = {name: sizes.get(name, given.get(name, 0)) for name in last_read}
    order = sorted(sizes, key=lambda name: written.get(name, -1))
    live = [
        tuple(name for name in order if written.get(name, -1) < cut <= last_read[name]) for cut in range(len(rows) + 1)
    ]
    return sizes, live


def _bytes(shape: Sequence[int]) -> int:
    return BYTES * int(np.prod(shape))


def _behind_s(edge: Sequence[Mapping[str, Any]], cloud: Sequence[Mapping[str, Any]], cloud_s: FloatArray) -> FloatArray:
    """Seconds that the cloud still takes behind each cut, (edge layers + 1,)."""
    place = _places(edge, cloud)
    done = np.zeros(len(edge) + 1)
    np.add.at(done, place + 1, cloud_s)
    return np.asarray(cloud_s.sum() - np.cumsum(done), dtype=float).clip(min=0.0)


def _places(edge: Sequence[Mapping[str, Any]], cloud: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.int64]:
    """The edge's layer with which each layer of the cloud is done, (cloud layers,); never falling."""
    if [row["name"] for row in edge] == [row["name"] for row in cloud]:
        return np.arange(len(edge))
    last = {str(row["module"]): i for i, row in enumerate(edge) if row.get("module")}
    if not last:
        raise UsageError(
            "The edge's layers carry no module paths, so the cloud's cannot be laid beside them.",
            remedy="Profile a catalog model, or take the same runtime on both sides.",
        )
    found, reached = np.empty(len(cloud), dtype=np.int64), 0
    for i, row in enumerate(cloud):
        reached = max(reached, last.get(str(row.get("module") or ""), reached))
        found[i] = reached
    found[-1] = len(edge) - 1
    return found
