"""What a user gives beside the store: accuracies of their own, predicted points, and JSON that other commands wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .rows import PREDICTED, mapping, number, text

MAX_BYTES = 256 << 20
_REMEDY = "The latency comes from a predictor; hwbench profile measures it."


def predicted(points: Iterable[Mapping[str, Any]], target: str, *, source: str = "a predictor") -> list[dict[str, Any]]:
    """Result objects of predicted points, each marked as predicted.

    Args:
        points: ``model`` and ``latency_s``; ``low_s``, ``high_s``, ``energy`` (an object of ``energy_j``, ``low_j`` and
            ``high_j``, or why there is none), ``top1``, ``family``, ``macs`` and ``params`` where they are known.
            ``target`` in a point goes before the argument.
        target: canonical text of the target.
        source: what predicted them, for the caveat's sentence.
    """
    found = []
    for point in points:
        latency, low, high = (number(point.get(key)) for key in ("latency_s", "low_s", "high_s"))
        if latency is None or latency <= 0:
            continue
        caveat = {"code": PREDICTED, "text": f"The latency is predicted by {source}, not measured.", "remedy": _REMEDY}
        name = text(point.get("model"))
        found.append(
            {
                "model": name,
                "identity": text(point.get("identity")) or name,
                "target": text(point.get("target")) or target,
                "family": point.get("family"),
                "top1": number(point.get("top1")),
                "top1_source": text(point.get("top1_source")),
                # an accuracy that comes with a prediction is of the network as predicted
                "input_size": point.get("input_size") or "as given",
                "top1_input_size": point.get("top1_input_size") or point.get("input_size") or "as given",
                "latency_s": {"median": latency, "low": low, "high": high},
                **_energy(mapping(point.get("energy"))),
                "macs": point.get("macs"),
                "params": point.get("params"),
                "caveats": [caveat],
            }
        )
    return found


def _energy(told: Mapping[str, Any]) -> dict[str, Any]:
    """A predicted energy as a measured one stands in a result; nothing where it is not above zero."""
    joules = number(told.get("energy_j"))
    if joules is None or joules <= 0:
        return {}
    ends = {key: number(told.get(key)) for key in ("low_j", "high_j")}
    return {"energy": {"net_j": joules, **ends, "method": text(told.get("method")) or "predicted"}}


def read_accuracy(path: Path) -> dict[str, float]:
    """A CSV file with the columns ``model`` and ``accuracy``: accuracies by model, in percent.

    A model is named as results name it, or by its identity (``resnet18@1x3x224x224``). Where no value is above 1 they
    are fractions, as in ``hwbench search``.

    Raises:
        UsageError: the file cannot be read, lacks a column, holds something else than numbers, or two for one model.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}.", remedy="Give a CSV file.") from error
    remedy = "The file needs a head line 'model,accuracy' and one line for each model."
    found: dict[str, float] = {}
    for at, row in enumerate(rows, start=2):
        name, written = row.get("model"), row.get("accuracy")
        try:
            value = number(float(written or ""))
        except ValueError:
            value = None
        if not name or value is None or not 0 <= value <= 100:
            raise UsageError(f"Line {at} of {path} has no model or no accuracy: {str(dict(row))[:80]}.", remedy=remedy)
        if name in found:
            raise UsageError(f"{path} gives '{name}' two accuracies.", remedy="Keep one line for each model.")
        found[name] = value
    if not found:
        raise UsageError(f"{path} holds no accuracies.", remedy=remedy)
    scale = 100.0 if max(found.values()) <= 1.0 else 1.0
    return {name: value * scale for name, value in found.items()}


def with_accuracy(results: Iterable[Any], accuracy: Mapping[str, float], source: str) -> list[Any]:
    """The results with these accuracies in place of published ones; models that are not among them have none.

    They are taken to be of the network as it ran: whoever gives them answers for that.
    """
    found = []
    for result in results:
        if isinstance(result, Mapping) and result.get("error") is None:
            value = accuracy.get(text(result.get("identity")), accuracy.get(text(result.get("model"))))
            size = result.get("input_size") or "as given"
            own = {"top1": value, "top5": None, "top1_source": source, "weights_tag": "", "input_size": size}
            found.append({**result, **own, "top1_input_size": size})
        else:
            found.append(result)
    return found


def read_json(path: Path, what: str, needed: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a file that a command's ``--json`` wrote: one object, a list of them, or one a line.

    Args:
        path: the file.
        what: how an error calls it.
        needed: fields without which an object is something else.

    Raises:
        UsageError: the file cannot be read, is no JSON, or holds something else.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than any {what}.", remedy="Give the file that --json wrote.")
        written = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", remedy=f"Give the file of a {what}.") from error
    try:
        try:
            loaded = json.loads(written)
        except ValueError:
            loaded = [json.loads(line) for line in written.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {str(error)[:80]}.", remedy=f"Write it with --json > {path}.") from error
    found = [dict(item) for item in (loaded if isinstance(loaded, list) else [loaded]) if mapping(item)]
    if not found or any(name not in item for item in found for name in needed):
        raise UsageError(
            f"{path} holds no {what}: it lacks {' or '.join(needed)}.", remedy=f"Give what --json prints for a {what}."
        )
    return found
