"""NSGA-II over a space's rows: pymoo's algorithm, with the space's own operators. Imported only when a search runs.

Where pymoo loops over pairs of individuals (the tournament, the elimination of duplicates), a few array operations
stand in for it; a network that was evaluated once is never evaluated again.

Source: Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II (2002); Blank and Deb, pymoo (2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.config import Config
from pymoo.core.crossover import Crossover
from pymoo.core.duplicate import DuplicateElimination
from pymoo.core.mutation import Mutation
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.selection.tournament import TournamentSelection

from ..catalog.spaces.space import Rows, Space

FloatArray = npt.NDArray[np.float64]
Evaluate = Callable[[Rows], tuple[FloatArray, FloatArray]]

_SEEDS = 1 << 62
_WORST = 1 << 30  # rank of who has none


class _Problem(Problem):  # type: ignore[misc]
    """Whole populations go to ``evaluate`` at once."""

    def __init__(self, space: Space, evaluate: Evaluate, objectives: int, limits: int) -> None:
        last = np.array([len(gene.choices) - 1 for gene in space.genes])
        super().__init__(
            n_var=space.width, n_obj=objectives, n_ieq_constr=limits, xl=np.zeros(space.width), xu=last, vtype=int
        )
        self.asked = evaluate

    def _evaluate(self, rows: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
        out["F"], out["G"] = self.asked(np.asarray(rows, dtype=np.int64))


class _Crossover(Crossover):  # type: ignore[misc]
    def __init__(self, space: Space) -> None:
        super().__init__(n_parents=2, n_offsprings=1, prob=1.0)
        self.space = space

    def _do(self, _: Any, parents: Any, *__: Any, random_state: Any = None, **___: Any) -> Any:
        return self.space.crossover(parents[0], parents[1], int(random_state.integers(_SEEDS)))[None]


class _Mutation(Mutation):  # type: ignore[misc]
    """Each gene anew with a chance of one in their number; a network that was seen before is changed more, until new.

    Source: the chance, Deb et al. (2002), section IV.
    """

    def __init__(self, space: Space, unseen: _Unseen) -> None:
        super().__init__(prob=1.0)
        self.space, self.unseen = space, unseen

    def _do(self, _: Any, rows: Any, *__: Any, random_state: Any = None, **___: Any) -> Any:
        chance, again, made = 1.0 / self.space.width, np.arange(len(rows)), rows.copy()
        while again.size:
            made[again] = self.space.mutate(made[again], int(random_state.integers(_SEEDS)), chance)
            if chance == 1.0:  # drawn from the whole space: what is still not new is given up
                break
            again = self.unseen.repeated(made)
            chance = min(1.0, 2.0 * chance)
        return made


class _Unseen(DuplicateElimination):  # type: ignore[misc]
    """Lets a row through once in a search: equal rows are equal networks, so nothing is learned from the second."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[bytes] = set()

    def repeated(self, rows: Any) -> npt.NDArray[np.int64]:
        """Which rows were let through before, or stand further up."""
        here: set[bytes] = set()
        found = []
        for index, row in enumerate(rows):
            key = row.tobytes()
            if key in self.seen or key in here:
                found.append(index)
            here.add(key)
        return np.array(found, dtype=np.int64)

    def do(self, pop: Any, *_: Any, **__: Any) -> Any:
        if not len(pop):
            return pop
        rows = pop.get("X")
        kept = np.setdiff1d(np.arange(len(pop)), self.repeated(rows))
        self.seen.update(rows[index].tobytes() for index in kept)
        return pop[kept] if kept.size else Population()


def _tournament(pop: Any, rounds: npt.NDArray[np.int64], *, random_state: Any, **_: Any) -> npt.NDArray[np.int64]:
    """Winner of each round: the least violation, then the best rank, then the emptiest surroundings, then chance."""
    violation = np.array([individual.CV[0] for individual in pop])
    rank = np.array([individual.data.get("rank", _WORST) for individual in pop], dtype=float)
    space = np.array([individual.data.get("crowding", 0.0) for individual in pop], dtype=float)
    order = np.lexsort((random_state.random(len(pop)), -space, rank, violation))
    place = np.empty(len(pop), dtype=np.int64)
    place[order] = np.arange(len(pop))
    return np.asarray(rounds[np.arange(len(rounds)), place[rounds].argmin(axis=1)][:, None])


def run(
    space: Space, first: Rows, evaluate: Evaluate, *, objectives: int, limits: int, evaluations: int, seed: int
) -> None:
    """Evolve; ``evaluate`` sees every network once and keeps what it wants.

    Args:
        space: what is searched.
        first: the first population, canonical rows (population, d).
        evaluate: rows (n, d) to objectives to be minimised (n, objectives) and what each network is over its limits
            (n, limits), at most 0 where it holds them. Objectives of networks over a limit do not matter.
        objectives: number of objectives.
        limits: number of limits, at least 1.
        evaluations: stop after so many networks, or when no new ones can be made.
        seed: the same seed makes the same search.
    """
    Config.warnings["not_compiled"] = False  # pymoo prints it on stdout, into what --json prints
    unseen = _Unseen()
    algorithm = NSGA2(
        pop_size=len(first),
        sampling=first,
        selection=TournamentSelection(func_comp=_tournament),
        crossover=_Crossover(space),
        mutation=_Mutation(space, unseen),
        eliminate_duplicates=unseen,
    )
    algorithm.setup(_Problem(space, evaluate, objectives, limits), termination=("n_eval", evaluations), seed=seed)
    while algorithm.has_next():
        algorithm.n_offsprings = min(len(first), evaluations - algorithm.evaluator.n_eval)
        algorithm.next()
