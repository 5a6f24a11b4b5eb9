"""What a user gives beside the store: accuracies of their own, predicted points, and JSON that other commands wrote."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import units
from ..errors import UsageError, did_you_mean
from .rows import PREDICTED, mapping, number, records, text

MAX_BYTES = 256 << 20
_BATCH = re.compile(r"([@,])\d+(?=x)")  # of an identity's shapes: it changes no accuracy
_REMEDY = "The latency comes from a predictor; hwbench profile measures it."


def predicted(points: Iterable[Mapping[str, Any]], target: str, *, source: str = "a predictor") -> list[dict[str, Any]]:
    """Result objects of predicted points, each marked as predicted.

    Args:
        points: ``model`` and ``latency_s``, seconds at the target's anchored reference, as ``predict --json`` prints
            them; ``low_s``, ``high_s`` and the ``level`` of their interval, ``anchor_ref``, ``energy`` (an object of
            ``energy_j``, ``low_j`` and ``high_j``, or why there is none), ``caveats``, ``top1``, ``family``, ``macs``
            and ``params`` where they are known. ``target`` in a point goes before the argument.
        target: canonical text of the target.
        source: what predicted them, for the caveat's sentence.
    """
    found = []
    for point in points:
        latency, low, high = (number(point.get(key)) for key in ("latency_s", "low_s", "high_s"))
        if latency is None or latency <= 0:
            continue
        level, reference = number(point.get("level")), mapping(point.get("anchor_ref"))
        held = "" if level is None else f" Its interval is meant to hold {units.percent(level, 0)} of such networks."
        said = f"The latency is predicted by {source}, not measured.{held}"
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
                "latency_s": {"median": latency, "low": low, "high": high}
                | {"anchored": latency, "anchored_low": low, "anchored_high": high}
                | {"anchor_ref": reference.get("id"), "anchor_ref_s": number(reference.get("latency_s"))},
                **_energy(mapping(point.get("energy"))),
                "macs": point.get("macs"),
                "params": point.get("params"),
                "caveats": [
                    {"code": PREDICTED, "text": said, "remedy": _REMEDY},
                    *map(dict, records(point.get("caveats"))),
                ],
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

    Raises:
        UsageError: none of them is of a model among the results, or one is given by a name alone that the results hold
            at several input sizes.
    """
    results = list(results)
    _check_accuracy(results, accuracy, source)
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


def _check_accuracy(results: Iterable[Any], accuracy: Mapping[str, float], source: str) -> None:
    networks: dict[str, dict[str, None]] = {}
    for result in results:
        if isinstance(result, Mapping) and result.get("error") is None:
            networks.setdefault(text(result.get("model")), {})[text(result.get("identity"))] = None
    known = dict.fromkeys(name for model, identities in networks.items() for name in (model, *identities) if name)
    if known and not known.keys() & accuracy.keys():
        raise UsageError(
            f"{source} gives no accuracy of any model of this report. "
            f"{did_you_mean(next(iter(accuracy), ''), known)}".strip(),
            remedy=f"Name models as the report does, for example '{next(iter(known))}'.",
        )
    for model, identities in networks.items():
        left = [identity for identity in identities if identity not in accuracy]
        if model in accuracy and len({_BATCH.sub(r"\1", identity) for identity in left}) > 1:
            raise UsageError(
                f"{source} gives '{model}' one accuracy, and the report holds it at several sizes: "
                f"{', '.join(identities)}.",
                remedy=f"Give each size its own line: '{left[0]}' instead of '{model}'.",
            )


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
