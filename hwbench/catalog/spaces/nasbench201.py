"""``nasbench201``: every cell of NAS-Bench-201, six edges with one of five operators, in networks for 32x32 images.

A cell has four nodes; node 0 is its input and node 3 its output. Each pair of nodes has an edge with an operator, and a
node is the sum of what its edges bring. Much of that is never run: an edge that no path from input to output crosses
vanishes, a skip is no work, and edges from one node share what has no weights of its own (the ReLU before a
convolution, the pooling), because every runtime computes equal values once. :func:`cell_steps` numbers the values of a
cell in that way and lists the steps that are left; the network runs exactly those, and the slots describe them.

Sources: Dong and Yang, NAS-Bench-201 (ICLR 2020), figure 1 and section 2.1: skeleton, operators, 16/32/64 channels;
D-X-Y/AutoDL-Projects, ``xautodl/models/cell_operations.py``, for what the paper leaves open: ReLU, convolution, batch
norm in that order, pooling that leaves the padding out of its mean, and the residual block between stages.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ...errors import UsageError
from .blocks import Chain, conv
from .space import Arch, Block, Choice, Gene, Slot, Space

NONE, SKIP, CONV1, CONV3, POOL = OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(from, to) of each edge in the order in which NAS-Bench-201 writes them."""
EDGE_NAMES = tuple(f"edge{start}{end}" for start, end in EDGES)
"""The genes."""
CHANNELS = (16, 32, 64)
CELLS = 5
IMAGE = 32
CLASSES = 10  # CIFAR-10
_INPUT, _OUTPUT = 0, 3  # nodes
_CACHED = 1 << 15  # every cell there is
_KERNEL = {CONV1: 1, CONV3: 3}
_FIRST_NODE = {"": 0, "edge01": 1, "pool0": 1}  # a value's ReLU and pooling carry the first node that can hold it

Edges = Tuple[str, ...]
Config = Tuple[Tuple[str, Choice], ...]


@dataclass(frozen=True)
class Step:
    """One piece of a cell's work.

    Attributes:
        name: its module within the cell: ``"relu1"``, ``"pool0"``, ``"edge13"``, ``"add3"``.
        op: ``"relu"``, ``"pool"``, ``"conv"`` or ``"add"``.
        inputs: names of the steps whose values it takes; ``""`` is the cell's input.
        kernel: of a convolution, else 0.
    """

    name: str
    op: str
    inputs: Tuple[str, ...]
    kernel: int = 0


@dataclass(frozen=True)
class Cell:
    """What is left of a cell: its steps in executed order, and the step that gives its output.

    ``output`` is ``""`` where the cell passes its input on, and ``None`` where no path leads from input to output.
    """

    steps: Tuple[Step, ...]
    output: Optional[str]


def _live(edges: Edges) -> Tuple[bool, ...]:
    """Whether each edge is on a path from input to output that holds no ``none``."""
    reached, reaching = {_INPUT}, {_OUTPUT}
    for (start, end), operator in zip(EDGES, edges):  # edges come in the order of their ends
        if operator != NONE and start in reached:
            reached.add(end)
    for (start, end), operator in sorted(zip(EDGES, edges), reverse=True):
        if operator != NONE and end in reaching:
            reaching.add(start)
    return tuple(op != NONE and a in reached and b in reaching for (a, b), op in zip(EDGES, edges))


@functools.lru_cache(_CACHED)
def cell_steps(edges: Edges) -> Cell:
    """The steps that a cell with these six operators (in the order of :data:`EDGES`) is run as."""
    live = _live(edges)
    steps: Dict[str, Step] = {}
    value: Dict[int, str] = {_INPUT: ""}  # of each node that is reached: the step that gives it
    for node in range(1, _OUTPUT + 1):
        terms = []
        for (start, end), operator, used in zip(EDGES, edges, live):
            if end == node and used:
                terms.append(_edge(steps, operator, value[start], f"edge{start}{end}"))
        if len(terms) > 1:
            steps[f"add{node}"] = Step(f"add{node}", "add", tuple(terms))
        if terms:
            value[node] = terms[0] if len(terms) == 1 else f"add{node}"
    return Cell(tuple(steps.values()), value.get(_OUTPUT))


def _edge(steps: Dict[str, Step], operator: str, source: str, name: str) -> str:
    """Add the steps of one edge that are not there yet; returns the step that gives its value."""
    if operator == SKIP:
        return source
    node = _FIRST_NODE.get(source, 2)
    if operator == POOL:
        pool = f"pool{node}"
        steps.setdefault(pool, Step(pool, "pool", (source,)))
        return pool
    relu = f"relu{node}"
    steps.setdefault(relu, Step(relu, "relu", (source,)))
    steps[name] = Step(name, "conv", (relu,), _KERNEL[operator])
    return name


# Genes that decide each step of a cell: those of the edges on paths through it. An edge into node 2 matters to node 1
# as well, because node 2 is node 1 where edge 12 skips alone; what is summed or folded at node 3 hangs on all of them.
_DECIDERS = {
    "relu0": EDGE_NAMES,
    "pool0": EDGE_NAMES,
    "edge01": ("edge01", "edge12", "edge13", "edge23"),
    "relu1": ("edge01", "edge02", "edge12", "edge13", "edge23"),
    "pool1": ("edge01", "edge02", "edge12", "edge13", "edge23"),
    "edge02": ("edge01", "edge02", "edge12", "edge23"),
    "edge12": ("edge01", "edge02", "edge12", "edge23"),
    "add2": ("edge01", "edge02", "edge12", "edge23"),
    "relu2": ("edge01", "edge02", "edge12", "edge23"),
    "pool2": ("edge01", "edge02", "edge12", "edge23"),
    "edge03": EDGE_NAMES,
    "edge13": EDGE_NAMES,
    "edge23": EDGE_NAMES,
    "add3": EDGE_NAMES,
}


def _edges(arch: Arch) -> Edges:
    """The six operators; a gene that is not given counts as ``none``, which the slots' choice of genes allows for."""
    return tuple([arch.get(name, NONE) for name in EDGE_NAMES])  # type: ignore[misc]  # all choices are text


def _readers(cell: Cell, *values: Optional[str]) -> List[str]:
    """Ops of the steps that read one of these values."""
    return [step.op for step in cell.steps for name in step.inputs if name in values]


def _context(cell: Cell, step: Step) -> Config:
    """What a runtime can fuse a step with, which is part of its cost: additions and ReLUs fold into what they follow.

    A cell's input is the output of the cell before, which is equal to this one.
    """
    if step.op == "conv":
        summed = any(step.name in other.inputs for other in cell.steps if other.name == f"add{step.name[-1]}")
        return (("sum", 1),) if summed else ()
    if step.op == "add":
        readers = _readers(cell, step.name, "") if step.name == "add3" else _readers(cell, step.name)
        convs = sum(term.startswith("edge") for term in step.inputs)
        return (("convs", convs), ("inputs", len(step.inputs)), ("relu", int(readers == ["relu"])))
    if step.op == "relu":
        (source,) = step.inputs
        others = len(_readers(cell, source, cell.output)) if not source else len(_readers(cell, source))
        alone = others + (source == cell.output) == 1
        maker = next(other.op for other in cell.steps if other.name == (source or cell.output))
        return (("folds", maker),) if alone and maker != "pool" else ()
    return ()


@functools.lru_cache(_CACHED)
def _described(edges: Edges) -> Mapping[str, Tuple[str, int, Config]]:
    """Op, kernel and context of each step of a cell, by name."""
    cell = cell_steps(edges)
    return {step.name: (step.op, step.kernel, _context(cell, step)) for step in cell.steps}


@functools.lru_cache(_CACHED)
def _cell_block(stage: int, name: str, op: str, kernel: int, context: Config) -> Block:
    """A step in all five cells of a stage: one block, because the five are equal."""
    channels, side = CHANNELS[stage], IMAGE >> stage
    chain, config = Chain.of((channels, side, side)), dict(context, count=CELLS)
    if op == "conv":
        chain, config["kernel"] = chain.conv(channels, kernel), kernel
    block = chain.block(f"stage{stage + 1}.{name}", op, **config)
    paths = tuple(f"stage{stage + 1}.cell{cell + 1}.{name}" for cell in range(CELLS))
    return replace(block, module=paths, macs=CELLS * block.macs, params=CELLS * block.params)


def _cell_slot(stage: int, name: str) -> Slot:
    genes = _DECIDERS[name]

    def block(arch: Arch) -> Optional[Block]:
        found = _described(_edges(arch)).get(name)
        return None if found is None else _cell_block(stage, name, *found)

    return Slot(f"stage{stage + 1}.{name}", genes, block)


def _fixed(block: Block) -> Slot:
    return Slot(block.slot, (), lambda arch: block)


def _stem() -> Slot:
    return _fixed(conv("stem", (3, IMAGE, IMAGE), CHANNELS[0], 3, act="none"))


def _reduction(stage: int) -> Slot:
    """The residual block before a stage: two 3x3 convolutions, and a pooled 1x1 convolution beside them."""
    before, after, side = CHANNELS[stage - 1], CHANNELS[stage], IMAGE >> stage
    chain = Chain.of((before, 2 * side, 2 * side)).conv(after, 3, 2).conv(after, 3)
    beside = before * after
    return _fixed(chain.plus(beside * side**2, beside).block(f"reduction{stage}", "basic_block", stride=2))


def _head() -> Slot:
    """Normalisation and ReLU, the mean over the image, the classifier. The first folds into a convolution before it."""
    channels, side = CHANNELS[-1], IMAGE >> (len(CHANNELS) - 1)
    chain = Chain.of((channels, side, side)).plus(params=2 * channels).global_pool().linear(CLASSES)

    @functools.lru_cache(_CACHED)
    def held(*operators: str) -> Block:
        last = cell_steps(operators).output
        context: Config = (("folds", "conv"),) if last and last.startswith("edge") else ()
        return chain.block("head", "norm_relu_pool_linear", **dict(context))

    return Slot("head", EDGE_NAMES, lambda arch: held(*_edges(arch)))


def _slots() -> Tuple[Slot, ...]:
    slots = [_stem()]
    for stage in range(len(CHANNELS)):
        if stage:
            slots.append(_reduction(stage))
        slots += [_cell_slot(stage, name) for name in _DECIDERS]
    return (*slots, _head())


def degenerate(arch: Arch) -> str:
    """Why the network's output does not depend on its input, or ``""``.

    Such a cell computes a constant; runtimes fold the whole network away, so that there is nothing to measure.
    """
    if cell_steps(_edges(arch)).output is None:
        return "every path from the cell's input to its output has an edge with no operator; its output is constant"
    return ""


def parse(text: str) -> Dict[str, str]:
    """An architecture as NAS-Bench-201 writes it, ``"|nor_conv_3x3~0|+|none~0|skip_connect~1|+|…"``.

    Raises:
        UsageError: text of another form.
    """
    nodes = [node.strip("|").split("|") for node in text.split("+")]
    found = [(part.partition("~"), end) for end, node in enumerate(nodes, start=1) for part in node]
    names = tuple(f"edge{start}{end}" for (_, _, start), end in found)
    operators = [operator for (operator, _, _), _ in found]
    if names != EDGE_NAMES or not set(operators) <= set(OPERATORS):
        raise UsageError(
            f"'{text}' is no cell of NAS-Bench-201.",
            remedy=f"The form is |OP~0|+|OP~0|OP~1|+|OP~0|OP~1|OP~2| with OP one of {', '.join(OPERATORS)}.",
        )
    return dict(zip(names, operators))


def write(arch: Arch) -> str:
    """The text that :func:`parse` reads."""
    nodes = ["".join(f"|{arch[f'edge{start}{end}']}~{start}" for start in range(end)) for end in range(1, _OUTPUT + 1)]
    return "+".join(f"{node}|" for node in nodes)


@functools.lru_cache(1)
def _classes() -> Mapping[str, Callable[..., Any]]:
    """Makers of the modules that no other space has; they need torch."""
    import torch

    from . import layers

    class Add(torch.nn.Module):  # type: ignore[misc]
        """Sum of the values that reach a node."""

        def forward(self, *terms: Any) -> Any:
            return functools.reduce(torch.add, terms)

    class CellModule(torch.nn.Module):  # type: ignore[misc]
        """The steps of one cell; a constant cell gives zeros, as zeroed edges do."""

        def __init__(self, cell: Cell, channels: int) -> None:
            super().__init__()
            self.cell = cell
            makers: Mapping[str, Callable[[Step], Any]] = {
                "relu": lambda step: torch.nn.ReLU(),
                "pool": lambda step: torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False),
                "conv": lambda step: layers.conv_norm_act(channels, channels, step.kernel),
                "add": lambda step: Add(),
            }
            for step in cell.steps:
                self.add_module(step.name, makers[step.op](step))

        def forward(self, x: Any) -> Any:
            if self.cell.output is None:
                return torch.zeros_like(x)
            values = {"": x}
            for step in self.cell.steps:
                values[step.name] = getattr(self, step.name)(*(values[name] for name in step.inputs))
            return values[self.cell.output]

    def reduction(before: int, after: int) -> Any:
        body = layers.stack(
            ("relu1", torch.nn.ReLU()),
            ("conv1", layers.conv_norm_act(before, after, 3, 2)),
            ("relu2", torch.nn.ReLU()),
            ("conv2", layers.conv_norm_act(after, after, 3)),
        )
        beside = layers.conv_norm_act(before, after, norm=False)
        return layers.Residual(body, layers.stack(("pool", torch.nn.AvgPool2d(2)), ("conv", beside)))

    return {"cell": CellModule, "reduction": reduction}


def network(arch: Arch) -> Any:
    """The architecture's network for CIFAR-10, in eval mode. Input (n, 3, 32, 32), output (n, 10)."""
    import torch

    from . import layers

    made, cell = _classes(), cell_steps(_edges(arch))
    parts = [("stem", layers.conv_norm_act(3, CHANNELS[0], 3))]
    for stage, channels in enumerate(CHANNELS):
        if stage:
            parts.append((f"reduction{stage}", made["reduction"](CHANNELS[stage - 1], channels)))
        cells = [(f"cell{number + 1}", made["cell"](cell, channels)) for number in range(CELLS)]
        parts.append((f"stage{stage + 1}", layers.stack(*cells)))
    head = layers.stack(
        ("norm", torch.nn.BatchNorm2d(CHANNELS[-1])),
        ("act", torch.nn.ReLU()),
        ("pool", layers.GlobalPool()),
        ("flatten", torch.nn.Flatten()),
        ("linear", torch.nn.Linear(CHANNELS[-1], CLASSES)),
    )
    return layers.stack(*parts, ("head", head)).eval()


SPACE = Space(
    name="nasbench201",
    title="NAS-Bench-201: 15,625 cells of six edges with five operators, 32x32 images",
    paper="Dong and Yang, NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search, ICLR 2020",
    version=1,
    genes=tuple(Gene(name, OPERATORS) for name in EDGE_NAMES),
    slots=_slots(),
    network=network,
    shape=lambda arch: (3, IMAGE, IMAGE),
    degenerate=degenerate,
)
