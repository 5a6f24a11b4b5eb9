"""Expected latency of an architecture whose genes are drawn at random: differentiable, and exact.

The expectation of a sum is the sum of the expectations, and a slot's is taken over its own few genes only, which are
drawn independently. A gene that exists only where another has certain values needs nothing of its own: where it does
not exist its slots ignore it, and its probabilities sum to 1.

Source: ProxylessNAS (Cai et al. 2019), section 3.2, and FBNet (Wu et al. 2019), section 3.2, weight a block's latency
by its probability in the same way, with one decision a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalog.spaces.space import Space
from ..errors import UsageError
from .query import Query, miss_of

if TYPE_CHECKING:
    import torch

SUM_TOLERANCE = 1e-3
"""How far probabilities may be from summing to 1, or by the type's own step where that is more (bfloat16: 0.8 %): a
softmax over ten choices is within that, in float16 too."""


def expected_latency_s(query: Query, probabilities: Any) -> torch.Tensor:
    """See ``LookupTable.expected_latency_s``."""
    import torch

    drawn = _of_genes(query.space, probabilities)
    # Choices that cannot be drawn, and of which nobody wants to know what they would cost, need no entry.
    kept = {
        column: np.arange(p.numel()) if p.requires_grad else np.flatnonzero((p.detach() != 0).cpu().numpy())
        for column, p in drawn.items()
    }
    latencies = query.of_blocks("latency_s")
    like = next(iter(drawn.values()))
    # Half precision tells no microsecond from the next: a block's cost is below its smallest normal number.
    dtype = torch.promote_types(like.dtype, torch.float32)
    total = torch.as_tensor(query.table.constant_s, dtype=dtype, device=like.device)
    for slot, columns in enumerate(query.places.columns):
        ways = np.ix_(*(kept[column] for column in columns))
        costs = query.places.costs(slot, latencies)[ways]
        if np.isnan(costs).any():
            numbers = np.unique(query.places.numbers[slot][ways])
            blocks = [query.places.blocks[number] for number in numbers if number >= 0]
            raise miss_of(query, (block for block in blocks if block.key not in query.table.entries))
        value = torch.as_tensor(costs, dtype=dtype, device=like.device)
        for column in reversed(columns):  # the last axis first, each time against that gene's probabilities
            chosen = torch.as_tensor(kept[column], device=like.device)
            value = value @ drawn[column].to(dtype)[chosen]
        total = total + value
    return total


def _of_genes(space: Space, probabilities: Any) -> dict[int, torch.Tensor]:
    """The probabilities by column of the gene, checked."""
    import torch

    if isinstance(probabilities, Mapping):
        given = {space.column(name): value for name, value in probabilities.items()}
    elif isinstance(probabilities, Iterable) and not isinstance(probabilities, (str, torch.Tensor)):
        listed = list(probabilities)
        if len(listed) != space.width:
            raise UsageError(
                f"{space.name} has {space.width} genes, and there are {len(listed)} distributions.",
                remedy="Give one a gene in the order of space.genes, or a mapping from gene name.",
            )
        given = dict(enumerate(listed))
    else:
        raise UsageError(
            f"A {type(probabilities).__name__} holds no distribution for each gene.",
            remedy="Give a mapping from gene name to a tensor of shape (choices,), or a sequence in gene order.",
        )
    absent = [g.name for i, g in enumerate(space.genes) if i not in given and len(g.choices) > 1]
    if absent:
        raise UsageError(
            f"{len(absent)} genes of {space.name} have no probabilities, first {absent[0]}.",
            remedy="A gene that is fixed has a tensor with 1 at its choice and 0 elsewhere.",
        )
    if not given:
        given = {0: torch.ones(1, dtype=torch.float64)}
    for column, value in given.items():
        _check(value, space.genes[column].name, len(space.genes[column].choices))
    like = next(iter(given.values()))
    certain = torch.ones(1, dtype=like.dtype, device=like.device)
    return {column: given.get(column, certain) for column in range(space.width)}


def _check(value: Any, name: str, choices: int) -> None:
    import torch

    if not isinstance(value, torch.Tensor) or tuple(value.shape) != (choices,) or not value.is_floating_point():
        shape = tuple(getattr(value, "shape", ()))
        raise UsageError(
            f"The probabilities of gene {name} are a {type(value).__name__} of shape {shape}.",
            remedy=f"A floating-point tensor of shape ({choices},) is expected.",
        )
    known = value.detach()
    tolerance = max(SUM_TOLERANCE, float(torch.finfo(known.dtype).eps))
    if not bool((known >= 0).all()) or not abs(float(known.double().sum()) - 1.0) <= tolerance:
        raise UsageError(
            f"The probabilities of gene {name} are negative, no numbers, or do not sum to 1: {known.tolist()}.",
            remedy="Pass them through torch.softmax first.",
        )
