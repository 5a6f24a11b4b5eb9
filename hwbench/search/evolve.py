"""The search: every network that can be ranked when those are few, NSGA-II over the space when they are many.

A limit is a limit: networks over one are never returned and their accuracy is never asked for. The front is taken over
all networks that were evaluated, not over the last population.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .. import pareto
from ..catalog.spaces.space import Rows, Space
from ..errors import MissingDependency, UsageError
from . import cost
from .accuracy import Accuracy
from .cost import COSTS, Table
from .front import Front, of_columns

FloatArray = npt.NDArray[np.float64]
How = Literal["listed", "exhaustive", "evolution"]

EVALUATIONS = 20_000
POPULATION = 200
_SWEEPS = 10  # over all genes; a descent on a sum of blocks settles in two or three
_STARTS = 2000  # random networks from which the descents start
_SMALL_SPREAD = 1e-3  # share of the mean excess in a descent's score: it decides between equal largest ones


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted.

    Attributes:
        objectives: costs to minimise, beside the accuracy, which is maximised.
        limits: largest value by cost, in SI units; latency's is held by the upper end of the interval.
        evaluations: networks to look at, at most.
        population: of NSGA-II.
        seed: the same seed makes the same search.
    """

    objectives: tuple[str, ...] = ("latency",)
    limits: Mapping[str, float] = field(default_factory=dict)
    evaluations: int = EVALUATIONS
    population: int = POPULATION
    seed: int = 0

    def checked(self) -> Request:
        """With names and numbers checked. Raises UsageError."""
        if not 4 <= self.population <= self.evaluations:
            raise UsageError(
                f"A population of {self.population} does not go into {self.evaluations} evaluations.",
                remedy=f"Give at least 4 and no more than the evaluations, such as {POPULATION} of {EVALUATIONS}.",
            )
        if self.seed < 0:
            raise UsageError("A seed is 0 or more.", remedy="Give --seed 0.")
        names, limits = cost.checked_names(self.objectives), cost.checked_limits(self.limits)
        return Request(names, limits, self.evaluations, self.population, self.seed)

    def as_dict(self) -> dict[str, Any]:
        """What a front keeps of it."""
        return {"objectives": list(self.objectives), "limits": dict(self.limits), "seed": self.seed}


@dataclass(frozen=True, slots=True)
class Found:
    """What a search returns.

    Attributes:
        front: the networks that nothing beats.
        rows: all networks that were evaluated and hold the limits, canonical, shape (n, d).
        accuracy: theirs, shape (n,).
        how: ``"listed"`` (all of a file), ``"exhaustive"`` (all of the space) or ``"evolution"``.
        evaluated: networks that were looked at, those over a limit included.
        missing: how many of them have a cost that the table does not know; never returned.
        notes: what a reader must know.
    """

    front: Front
    rows: Rows
    accuracy: FloatArray
    how: How
    evaluated: int
    missing: int
    notes: tuple[str, ...]


class _Archive:
    """Everything that was evaluated and holds the limits, in order."""

    def __init__(self, table: Table, accuracy: Accuracy, request: Request) -> None:
        self._table, self._accuracy, self._request = table, accuracy, request
        self.rows: list[Rows] = []
        self.accuracies: list[FloatArray] = []
        self.evaluated = self.missing = 0

    def evaluate(self, rows: Rows) -> tuple[FloatArray, FloatArray]:
        """Objectives to be minimised (n, 1 + costs), and what each network is over its limits (n, 1 + limits).

        The first column of the latter is for costs that the table does not know.
        """
        values = cost.values(self._table, self._request.objectives, rows)
        shares = cost.shares(self._table, self._request.limits, rows)
        asked = [values, shares, cost.latency_s(self._table, rows)[:, None]]
        unknown = np.isnan(np.column_stack(asked)).any(axis=1)
        over = np.column_stack([cost.UNKNOWN * unknown, np.nan_to_num(shares - 1.0, nan=cost.UNKNOWN)])
        holds = np.flatnonzero((over <= 0).all(axis=1))
        aims = np.column_stack([np.zeros(len(rows)), np.nan_to_num(values)])  # where the limits hold, there is no NaN
        if holds.size:
            accuracy = self._accuracy.of(rows[holds])
            aims[holds, 0] = -accuracy
            self.rows.append(rows[holds])
            self.accuracies.append(accuracy)
        self.evaluated += len(rows)
        self.missing += int(unknown.sum())
        return aims, over


def search(
    space: Space,
    table: Table,
    accuracy: Accuracy,
    request: Request | None = None,
    *,
    origin: Mapping[str, Any] | None = None,
) -> Found:
    """Find the networks of a space that nothing beats in accuracy and cost, under hard limits.

    A source that lists its networks is searched whole, and so is a space that has no more networks than
    ``evaluations``; both are exact, and neither needs pymoo.

    Args:
        space: what is searched.
        table: what networks cost.
        accuracy: how good they are.
        request: objectives, limits and effort.
        origin: more for the front's context, such as ``table_sha256``.

    Raises:
        UsageError: a table of another space, an unknown cost, one that the table does not hold, limits that no network
            meets (the cheapest found is named), or accuracies that are none.
        LookupMiss: the table has a missing block for every network.
        MissingDependency: pymoo is not installed and the search needs it.
    """
    wanted = (request or Request()).checked()
    _check_table(space, table)
    archive = _Archive(table, accuracy, wanted)
    listed = accuracy.rows
    how: How = "listed" if listed is not None else "exhaustive" if space.size <= wanted.evaluations else "evolution"
    if how == "evolution":
        tried = space.sample(max(_STARTS, wanted.population), wanted.seed)
    else:
        tried = every(space) if listed is None else listed
    cost.require(table, (*wanted.objectives, *wanted.limits), tried)
    if how == "evolution":
        _evolve(space, table, wanted, archive, tried)
    else:
        archive.evaluate(tried)
    if not archive.rows:
        raise _infeasible(space, table, wanted, tried)
    rows, accuracies = np.concatenate(archive.rows), np.concatenate(archive.accuracies)
    points = np.column_stack([cost.values(table, wanted.objectives, rows), accuracies])
    senses: list[pareto.Sense] = ["min"] * len(wanted.objectives)
    best = pareto.front(points, [*senses, "max"])
    context = {
        "space": space.name,
        "space_version": space.version,
        "target": table.target,
        "accuracy": accuracy.name,
        "how": how,
        "evaluations": archive.evaluated,
        "feasible": len(rows),
        "reference": reference(table),
        **wanted.as_dict(),
        **(origin or {}),
    }
    return Found(
        of_columns(space, rows[best], _numbers(table, rows[best], accuracies[best]), context),
        rows,
        accuracies,
        how,
        archive.evaluated,
        archive.missing,
        (*_notes(how, archive, accuracies, wanted), *_degenerate(space, rows[best])),
    )


def reference(table: Table) -> dict[str, Any]:
    """Which seconds the table's are: ``anchor_ref`` (id and latency), and the build's ``raw_over_anchored``."""
    anchor = table.context.get("anchor_ref")
    given: Mapping[str, Any] = anchor if isinstance(anchor, Mapping) else {}
    latency_s = _number(given.get("latency_s"))
    return {
        "anchor_ref": None if latency_s is None else {"id": str(given.get("id", "")), "latency_s": latency_s},
        "raw_over_anchored": _number(table.context.get("raw_over_anchored")),
    }


def _number(value: Any) -> float | None:
    """A finite number of a table's context, which is anybody's JSON; ``None`` for anything else."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < math.inf else None


def every(space: Space) -> Rows:
    """All networks of a space, shape (size, d)."""
    rows = np.zeros((1, space.width), dtype=np.int64)
    for column, gene in enumerate(space.genes):
        there = space.exists(rows)[:, column]  # what it depends on stands before it
        wide = np.repeat(rows[there], len(gene.choices), axis=0)
        wide[:, column] = np.tile(np.arange(len(gene.choices)), int(there.sum()))
        rows = np.concatenate([rows[~there], wide])
    return rows


def _check_table(space: Space, table: Table) -> None:
    if table.kind != "space":
        raise UsageError(
            f"The table of {table.target} holds single kernels, not blocks of a space.",
            remedy=f"hwbench lut build --space {space.name} --on {table.target} -o table.parquet",
        )
    bound = table.bound is space or table.space.startswith("python:")  # by the user: LookupTable.bind
    named = table.space == space.name or bound
    if not named or table.space_version != space.version:
        raise UsageError(
            f"The table is of {table.space} version {table.space_version}, not of {space.name} version "
            f"{space.version}.",
            remedy=f"hwbench lut build --space {space.name} --on {table.target} -o table.parquet",
        )


def _numbers(table: Table, rows: Rows, accuracy: FloatArray) -> dict[str, FloatArray]:
    columns = {"accuracy": accuracy, "latency_s": cost.latency_s(table, rows)}
    low = np.array([table.estimate(row).low_s for row in rows], dtype=np.float64)  # NaN where the table knows none
    columns["latency_low_s"] = np.minimum(low, columns["latency_s"])  # it may have summed in another order
    columns["latency_high_s"] = _where_known(cost.latency_high_s, table, rows)
    names = {"energy_j": "energy", "memory_bytes": "memory", "macs": "macs", "params": "params"}
    return columns | {column: _where_known(COSTS[name].of, table, rows) for column, name in names.items()}


def _where_known(of: Callable[[Table, Rows], FloatArray], table: Table, rows: Rows) -> FloatArray:
    """A cost that nobody asked for; NaN where the table was built without it."""
    try:
        return of(table, rows)
    except UsageError:
        return np.full(len(rows), np.nan)


def _notes(how: How, archive: _Archive, accuracies: FloatArray, request: Request) -> list[str]:
    notes = []
    if archive.missing:
        notes.append(f"{archive.missing} networks have a cost that the table does not know and were left out")
    if np.ptp(accuracies) == 0:
        notes.append("every network has the same accuracy, so the front is the cheapest alone")
    if how == "evolution" and archive.evaluated < request.evaluations:
        notes.append(f"no further networks could be made after {archive.evaluated}")
    return notes


def _degenerate(space: Space, front: Rows) -> list[str]:
    """Networks that no table was built on or validated with: what is said of their cost is a guess."""
    why = [] if space.degenerate is None else [space.degenerate(space.decode(row)) for row in front]
    odd = [reason for reason in why if reason]
    return (
        [f"{len(odd)} networks of the front are none worth measuring, and their cost is a guess: {odd[0]}"]
        if odd
        else []
    )


# --- where the evolution starts --------------------------------------------------------------------------------------


def _evolve(space: Space, table: Table, request: Request, archive: _Archive, sample: Rows) -> None:
    try:
        from . import nsga2
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pymoo":
            raise
        raise MissingDependency(
            "An evolutionary search needs pymoo, which is not installed.", remedy="pip install 'hwbench[search]'"
        ) from error
    cheap = cheapest(space, table, request.limits, sample)
    if (cost.excess(table, request.limits, cheap[None]) > 0).any():
        raise _infeasible(space, table, request, cheap[None])
    nsga2.run(
        space,
        _first(space, table, request, sample, cheap),
        archive.evaluate,
        objectives=1 + len(request.objectives),
        limits=1 + len(request.limits),
        evaluations=request.evaluations,
        seed=request.seed,
    )
    if not archive.rows:
        raise _infeasible(space, table, request, cheap[None])


def cheapest(space: Space, table: Table, limits: Mapping[str, float], starts: Rows) -> npt.NDArray[np.int64]:
    """A network as far under the limits as a descent finds (the quickest one without limits), a row of shape (d,).

    Gene by gene the best choice is taken until none is better, from the best of ``starts`` and from the network that
    takes every first choice. Only the table is asked: it answers in microseconds.
    """

    def score(rows: Rows) -> FloatArray:
        if not limits:
            return np.nan_to_num(cost.latency_s(table, rows), nan=np.inf)
        over = cost.excess(table, limits, rows) + cost.UNKNOWN * np.isnan(cost.latency_s(table, rows))[:, None]
        return np.asarray(over.max(axis=1) + _SMALL_SPREAD * over.mean(axis=1))

    begin = (starts[score(starts).argmin()], np.zeros(space.width, dtype=np.int64))
    ends = np.array([_descend(space, score, row) for row in begin])
    return np.asarray(ends[score(ends).argmin()])


def _largest(space: Space, table: Table, limits: Mapping[str, float], start: npt.NDArray[np.int64]) -> Any:
    """A network that does as much work as a descent gets under the limits, a row of shape (d,)."""

    def score(rows: Rows) -> FloatArray:
        holds = (cost.excess(table, limits, rows) <= 0).all(axis=1) & ~np.isnan(cost.latency_s(table, rows))
        return np.where(holds, -COSTS["macs"].of(table, rows), np.inf)

    return _descend(space, score, start)


def _descend(space: Space, score: Callable[[Rows], FloatArray], start: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    row, best = start, score(start[None])[0]
    for _ in range(_SWEEPS):
        before = best
        for column, gene in enumerate(space.genes):
            tried = np.repeat(row[None], len(gene.choices), axis=0)
            tried[:, column] = np.arange(len(gene.choices))
            tried = space.canonical(tried)
            scores = score(tried)
            if scores.min() < best:
                row, best = tried[scores.argmin()], scores.min()
        if not best < before:
            break
    return row


def _first(space: Space, table: Table, request: Request, sample: Rows, cheap: npt.NDArray[np.int64]) -> Rows:
    """The first population: from random networks to the cheapest and to the largest that holds the limits.

    Random networks alone are all of middling cost: they would hold no tight limit, and show neither end of the front.
    """
    random = np.random.default_rng(request.seed)
    rows = sample[: request.population]
    large = _largest(space, table, request.limits, cheap)
    pull = np.linspace(1.0, 0.0, len(rows))[:, None]  # the first two are the extremes themselves
    towards = np.where(np.arange(len(rows))[:, None] % 2 == 0, cheap, large)
    pull[1] = 1.0
    return space.canonical(np.where(random.random(rows.shape) < pull, towards, rows))


def _infeasible(space: Space, table: Table, request: Request, rows: Rows) -> UsageError:
    """Why nothing was found among these networks, with the cheapest of them and what it costs."""
    known = rows[~np.isnan(cost.latency_s(table, rows))]
    over = cost.excess(table, request.limits, known).max(axis=1, initial=-1.0)
    if (over <= 0).any():
        return UsageError(
            f"The table of {table.target} knows the {' and '.join(request.objectives)} of no network that was tried.",
            remedy="Minimise latency, or build the table with --metrics for the other costs.",
        )
    best = known[over.argmin()]
    one = best[None]
    parts = []
    for name, limit in request.limits.items():
        value = cost.latency_high_s(table, one) if name == "latency" else COSTS[name].of(table, one)
        word = "upper end of its latency" if name == "latency" else name
        parts.append(f"{word} {COSTS[name].show(float(value[0]))} (limit {COSTS[name].show(limit)})")
    quick = COSTS["latency"].show(float(cost.latency_s(table, one)[0]))
    return UsageError(
        f"No network of {space.name} on {table.target} was found that holds the limits. The cheapest found is "
        f"{space.text(best)}, latency {quick}: {'; '.join(parts)}.",
        remedy="Raise the limits above what this network costs, or search a space with smaller networks.",
    )
