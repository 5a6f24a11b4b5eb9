"""``Space``: what a search may choose, how a choice is encoded, and which blocks and network it stands for.

A space is genes and slots. A *gene* is one decision with a few choices; it may exist only where another gene has
certain values (the kernel of a stage's fourth block only where the stage is four deep). An architecture is a row of
integers, the index of each gene's choice; genes that do not exist in it hold 0, so that equal architectures have equal
rows. A *slot* is a place in the network that holds one block or none, and names the few genes that decide it. That is
what makes every additive cost (latency, MACs, parameters) a sum of small tables: see :mod:`.additive`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

from ...errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from .additive import Places

Choice = Union[int, float, str]
Arch = Mapping[str, Choice]
Rows = npt.NDArray[np.int64]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
PART = "/"  # between an architecture's text and a slot, for one block alone
MUTATION = 0.1
"""Chance of each gene to be drawn anew. Source: Cai et al., Once-for-All (2020), evolutionary search, 0.1."""


@dataclass(frozen=True)
class Gene:
    """One decision.

    Attributes:
        name: unique in its space; dots group (``"stage2.block3.kernel"``).
        choices: what may be chosen, in a fixed order; a row holds the index. Numbers of numpy become Python's.
        when: ``(name of an earlier gene, its values for which this gene exists)``; ``None``: always. That gene must
            itself always exist.
    """

    name: str
    choices: Tuple[Choice, ...]
    when: Optional[Tuple[str, Tuple[Choice, ...]]] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(c.item() if isinstance(c, np.generic) else c for c in self.choices))


@dataclass(frozen=True)
class Block:
    """What a slot holds in one architecture. Equal keys are equal work: ``slot`` and ``module`` are not part of it.

    Attributes:
        slot: the place's name.
        module: dotted path of the module that runs it in the built network, or several of them.
        op: kind of block, e.g. ``"mbconv"``, ``"conv"``, ``"pool"``, ``"linear"``, ``"attention"``.
        input: shape without batch, ``(c, h, w)`` or ``(tokens, width)``.
        output: the same.
        config: the rest of its identity: ``kernel``, ``stride``, ``mid`` (channels), ``se``, ``act``, …
        macs: multiply-accumulates of one inference at batch 1.
        params: trainable parameters as built for inference, biases included.
    """

    slot: str
    module: Tuple[str, ...]
    op: str
    input: Tuple[int, ...]
    output: Tuple[int, ...]
    config: Tuple[Tuple[str, Choice], ...]
    macs: int
    params: int

    @cached_property
    def key(self) -> str:
        """Canonical text of what runs, e.g. ``"mbconv 24x56x56>32x28x28 act=relu kernel=5 mid=72 se=0 stride=2"``."""
        return self.text()

    def text(self) -> str:
        """:attr:`key`, written anew."""
        shapes = ">".join("x".join(str(n) for n in shape) for shape in (self.input, self.output))
        return " ".join([self.op, shapes, *(f"{name}={value}" for name, value in sorted(self.config))])

    def get(self, name: str, default: Any = None) -> Any:
        return next((value for key, value in self.config if key == name), default)


@dataclass(frozen=True)
class Slot:
    """A place in the network.

    Attributes:
        name: unique in its space.
        genes: names of the genes that decide what it holds; all others must not matter.
        block: from an architecture (it may look at those genes only; one that does not exist is absent) to the block,
            or ``None`` where the place is empty (a skip).
    """

    name: str
    genes: Tuple[str, ...]
    block: Callable[[Arch], Optional[Block]]


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        name: as a user types it.
        title: one line on what it is.
        paper: where it comes from.
        version: raised whenever an architecture's blocks or network change; tables remember it.
        genes: the decisions; a gene comes after the one that it depends on.
        slots: the places, in executed order.
        network: from an architecture to its ``nn.Module`` in eval mode, with weights seeded by the caller.
        shape: from an architecture to its input's shape without batch, ``(c, h, w)``.
        degenerate: from an architecture to why it is no network worth measuring (its output is constant, say), or
            ``""``; ``None`` where that never happens.
    """

    name: str
    title: str
    paper: str
    version: int
    genes: Tuple[Gene, ...]
    slots: Tuple[Slot, ...]
    network: Callable[[Arch], Any]
    shape: Callable[[Arch], Tuple[int, ...]]
    degenerate: Optional[Callable[[Arch], str]] = None
    _columns: Dict[str, int] = field(init=False, repr=False, compare=False)
    _sizes: npt.NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _places: Optional[Places] = field(default=None, init=False, repr=False, compare=False)
    # Columns of the genes that depend on another, the others' columns, and which of their indices let them exist.
    _dependent: Tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        columns = {gene.name: column for column, gene in enumerate(self.genes)}
        object.__setattr__(self, "_columns", columns)
        object.__setattr__(self, "_sizes", np.array([len(gene.choices) for gene in self.genes], dtype=np.int64))
        faults = self._faults()
        if faults:
            raise UsageError(
                f"The space '{self.name}' contradicts itself: {'; '.join(faults)}.",
                remedy="See docs/adding-a-space.md.",
            )
        object.__setattr__(self, "_dependent", self._dependencies())

    def _dependencies(self) -> Tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        dependent = [(column, gene.when) for column, gene in enumerate(self.genes) if gene.when is not None]
        wanted = np.zeros((len(dependent), int(self._sizes.max())), dtype=bool)
        for place, (_, (name, values)) in enumerate(dependent):
            choices = self.genes[self._columns[name]].choices
            wanted[place, [choices.index(value) for value in values]] = True
        columns = np.array([column for column, _ in dependent], dtype=np.int64)
        parents = np.array([self._columns[name] for _, (name, _) in dependent], dtype=np.int64)
        return columns, parents, wanted

    def _faults(self) -> List[str]:
        """What contradicts itself in the genes and slots."""
        columns = self._columns
        faults = [
            "a gene or slot has another's name"
            for things in (self.genes, self.slots)
            if len({thing.name for thing in things}) != len(things)
        ]
        faults += [] if self.genes else ["it has no gene (one network alone is one gene with one choice)"]
        for gene in self.genes:  # a choice is written as JSON and read again
            numbers = [choice for choice in gene.choices if not isinstance(choice, str)]
            if not all(isinstance(n, (int, float)) and abs(n) < float("inf") for n in numbers):
                return [*faults, f"gene {gene.name} has a choice that is no finite number, text or truth value"]
        for gene in self.genes:
            if not 0 < len(gene.choices) <= len(_DIGITS) or len(set(gene.choices)) != len(gene.choices):
                faults.append(f"gene {gene.name} has no, equal or more than {len(_DIGITS)} choices")
            if gene.when is not None:
                parent = columns.get(gene.when[0], len(columns))
                if parent >= columns[gene.name] or self.genes[parent].when is not None:
                    faults.append(f"gene {gene.name} depends on a gene that is not before it, or not always there")
                elif not set(gene.when[1]) <= set(self.genes[parent].choices):
                    faults.append(f"gene {gene.name} waits for a value that {gene.when[0]} cannot have")
        whens = {gene.name: gene.when for gene in self.genes}
        for slot in self.slots:
            if not set(slot.genes) <= set(columns):
                faults.append(f"slot {slot.name} names an unknown gene")
            elif len(set(slot.genes)) != len(slot.genes):
                faults.append(f"slot {slot.name} names a gene twice")
            elif any(when is not None and when[0] not in slot.genes for when in map(whens.get, slot.genes)):
                faults.append(f"slot {slot.name} names a gene, but not the one that it depends on")
        return faults

    @property
    def width(self) -> int:
        """Length of a row."""
        return len(self.genes)

    @property
    def size(self) -> int:
        """How many different architectures there are."""
        size = 1
        for gene in self.genes:
            if gene.when is None:
                size *= sum(self._below(gene.name, choice) for choice in gene.choices)
        return size

    def _below(self, name: str, choice: Choice) -> int:
        """Ways to choose the genes that exist because gene ``name`` has this value."""
        ways = 1
        for gene in self.genes:
            if gene.when is not None and gene.when[0] == name and choice in gene.when[1]:
                ways *= len(gene.choices)
        return ways

    def column(self, name: str) -> int:
        """Where a gene is in a row. Raises UsageError for an unknown name."""
        if name not in self._columns:
            hint = did_you_mean(str(name), self._columns)
            raise UsageError(
                f"{self.name} has no gene '{name}'. {hint}".strip(),
                remedy=f"Genes: {', '.join(self._columns)}.",
            )
        return self._columns[name]

    def rows(self, archs: Any) -> Rows:
        """Any form of one or many architectures as canonical rows, shape (n, d).

        Args:
            archs: a row, an (n, d) integer array, a mapping from gene to choice, the text of :meth:`text`, or a
                sequence of such.

        Raises:
            UsageError: an architecture outside the space.
        """
        if hasattr(archs, "detach"):  # a torch tensor, on any device
            archs = archs.detach().cpu().numpy()
        if isinstance(archs, np.ndarray):
            return self.canonical(archs)
        if isinstance(archs, (Mapping, str)):
            return self.encode(archs)[None]
        if not isinstance(archs, Iterable):
            raise UsageError(
                f"{archs!r:.80} is no architecture of {self.name}.",
                remedy="space.sample(n, seed) gives rows; space.decode(row) shows the other form.",
            )
        listed = list(archs)
        if listed and all(isinstance(item, (int, np.integer)) for item in listed):
            return self.canonical(np.array([listed]))
        if not listed:
            return np.zeros((0, self.width), dtype=np.int64)
        return np.concatenate([self.rows(item) for item in listed])

    def check(self, rows: npt.NDArray[Any]) -> None:
        """Raise UsageError unless rows are an (n, d) integer array with every index inside its gene."""
        array = np.asarray(rows)
        if array.ndim != 2 or array.shape[1] != self.width or array.dtype.kind not in "iu":
            raise UsageError(
                f"Architectures of {self.name} are integers of shape (n, {self.width}), "
                f"not {array.dtype} of shape {array.shape}.",
                remedy="space.sample(n, seed) and space.encode(arch) give such rows.",
            )
        if array.size and (array.min() < 0 or (array.max(axis=0) >= self._sizes).any()):
            row, column = np.argwhere((array < 0) | (array >= self._sizes))[0]
            gene = self.genes[column]
            raise UsageError(
                f"Architecture {row} is outside {self.name}: gene {gene.name} has {len(gene.choices)} choices, "
                f"index {array[row, column]} is none of them.",
                remedy=f"Indices count from 0; choices of {gene.name}: {', '.join(map(str, gene.choices))}.",
            )

    def exists(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which genes exist in each architecture, shape (n, d)."""
        there = np.ones(rows.shape, dtype=bool)
        columns, parents, wanted = self._dependent
        there[:, columns] = wanted[np.arange(len(columns)), rows[:, parents]]
        return there

    def canonical(self, rows: npt.NDArray[Any]) -> Rows:
        """Rows (one, or an (n, d) array) with 0 for the genes that do not exist; raises like :meth:`check`."""
        array = np.atleast_2d(rows)
        self.check(array)
        return np.where(self.exists(array), array, 0).astype(np.int64)

    def sample(self, n: int, seed: int) -> Rows:
        """Architectures at random: every gene that exists is drawn uniformly, as the papers do. Shape (n, d).

        Raises:
            UsageError: a number or a seed below 0.
        """
        if n < 0 or seed < 0:
            raise UsageError(
                f"{n} architectures of {self.name} cannot be drawn with the seed {seed}.",
                remedy="Both are whole numbers of 0 or more.",
            )
        return self._draw(n, np.random.default_rng(seed))

    def _draw(self, n: int, random: np.random.Generator) -> Rows:
        return self.canonical(random.integers(0, self._sizes, size=(n, self.width)))

    def mutate(self, rows: Rows, seed: int, probability: float = MUTATION) -> Rows:
        """Each gene is drawn anew with a chance of ``probability``; genes that come into being are drawn too."""
        random = np.random.default_rng(seed)
        before = self.canonical(rows)
        drawn = random.integers(0, self._sizes, size=before.shape)
        anew = (random.random(before.shape) < probability) | ~self.exists(before)
        return self.canonical(np.where(anew, drawn, before))

    def crossover(self, one: Rows, two: Rows, seed: int) -> Rows:
        """Each gene from one of two parents at random; where it exists in only one of them, from that one."""
        random = np.random.default_rng(seed)
        first, second = self.canonical(one), self.canonical(two)
        in_first, in_second = self.exists(first), self.exists(second)
        take_first = np.where(in_first == in_second, random.random(first.shape) < 0.5, in_first)
        return self.canonical(np.where(take_first, first, second))

    def decode(self, row: Any) -> Dict[str, Choice]:
        """One architecture as a mapping from each gene that exists to its choice; ``encode`` is the inverse."""
        one = self._one(row)
        there = self.exists(one[None])[0]
        return {g.name: g.choices[one[i]] for i, g in enumerate(self.genes) if there[i]}

    def encode(self, arch: Any) -> Rows:
        """A mapping from gene to choice, or the text of :meth:`text`, as a row of shape (d,).

        Raises:
            UsageError: an unknown gene, one left out, one that does not exist in it, or a value that is no choice.
        """
        if isinstance(arch, str):
            return self._parse(arch)
        for name in arch:
            self.column(name)
        row = np.zeros(self.width, dtype=np.int64)
        for column, gene in enumerate(self.genes):
            there = gene.when is None or arch.get(gene.when[0]) in gene.when[1]
            if there != (gene.name in arch):
                why = "leaves out" if there else "holds, although it does not exist in it,"
                raise UsageError(
                    f"An architecture of {self.name} {why} gene {gene.name}.",
                    remedy="space.decode(row) shows what a whole one looks like.",
                )
            if there:
                value, choices = arch[gene.name], gene.choices
                place = choices.index(value) if value in choices else -1
                if place < 0 or isinstance(value, bool) != isinstance(choices[place], bool):  # True is not 1
                    raise UsageError(
                        f"{value!r} is no choice of gene {gene.name} of {self.name}.",
                        remedy=f"Choices: {', '.join(map(str, choices))}.",
                    )
                row[column] = place
        return row

    def text(self, row: Any) -> str:
        """One architecture as short text, one digit (base 36) a gene; ``encode`` reads it."""
        return "".join(_DIGITS[index] for index in self._one(row))

    def _one(self, arch: Any) -> Rows:
        """One architecture in any form as a canonical row of shape (d,)."""
        rows = self.rows(arch)
        if len(rows) != 1:
            raise UsageError(f"One architecture is expected here, not {len(rows)}.", remedy="Take them row by row.")
        return rows.reshape(-1)

    def _parse(self, text: str) -> Rows:
        if len(text) != self.width or any(digit not in _DIGITS for digit in text):
            raise UsageError(
                f"'{text}' is no architecture of {self.name}: {self.width} digits (0-9, a-z) are expected.",
                remedy="space.text(row) writes one.",
            )
        rows: Rows = self.canonical(np.array([[_DIGITS.index(digit) for digit in text]]))
        return rows.reshape(-1)

    def part(self, text: Any) -> Optional[Tuple[str, Block]]:
        """What ``"CODE/SLOT"`` names: an architecture's text and one of its blocks; ``None`` for a whole architecture.

        Raises:
            UsageError: the architecture has nothing in that slot, or the block runs in several places of the network.
        """
        if not isinstance(text, str) or PART not in text:
            return None
        code, _, slot = text.partition(PART)
        block = next((block for block in self.blocks(code) if block.slot == slot), None)
        if block is None or len(block.module) != 1:
            why = "has nothing in its slot" if block is None else "runs in several places at once what is in its slot"
            raise UsageError(
                f"Architecture {code} of {self.name} {why} '{slot}'.",
                remedy="space.blocks(arch) lists slots; a block that is one module can run alone.",
            )
        return code, block

    def blocks(self, arch: Any) -> List[Block]:
        """The blocks of one architecture in executed order; empty places are left out. Of a :meth:`part`, it alone."""
        part = self.part(arch)
        if part is not None:
            return [part[1]]
        decoded = self.decode(arch)
        found = (slot.block({name: decoded[name] for name in slot.genes if name in decoded}) for slot in self.slots)
        return [block for block in found if block is not None]

    @property
    def places(self) -> Places:
        """What every slot can hold; enumerated on first use."""
        if self._places is None:
            from .additive import Places

            object.__setattr__(self, "_places", Places.of(self))
        assert self._places is not None
        return self._places

    def choices(self, slot: Slot) -> Iterator[Tuple[Tuple[int, ...], Optional[Block]]]:
        """What a slot can hold: indices of its genes' choices (canonical or not), and the block or ``None``."""
        genes = [self.genes[self.column(name)] for name in slot.genes]
        for indices in itertools.product(*(range(len(gene.choices)) for gene in genes)):
            arch = {gene.name: gene.choices[index] for gene, index in zip(genes, indices)}
            for gene in genes:
                if gene.when is not None and gene.when[0] in arch and arch[gene.when[0]] not in gene.when[1]:
                    del arch[gene.name]
            yield indices, slot.block(arch)

    def build(self, arch: Any) -> Any:
        """The architecture's network, an ``nn.Module`` in eval mode; of a :meth:`part` the block at its own path."""
        part = self.part(arch)
        if part is None:
            return self.network(self.decode(arch))
        from .layers import alone

        return alone(self.network(self.decode(part[0])), part[1])

    def input_shape(self, arch: Any) -> Tuple[int, ...]:
        """Shape of the architecture's input without batch."""
        part = self.part(arch)
        return self.shape(self.decode(arch)) if part is None else part[1].input

    def macs(self, archs: Any) -> npt.NDArray[np.float64]:
        """Multiply-accumulates of each architecture, shape (n,)."""
        return self._total("macs", archs)

    def params(self, archs: Any) -> npt.NDArray[np.float64]:
        """Parameters of each architecture, shape (n,)."""
        return self._total("params", archs)

    def _total(self, name: str, archs: Any) -> npt.NDArray[np.float64]:
        from .additive import Additive

        return Additive.of(self, lambda block: float(getattr(block, name)))(self.rows(archs))
