"""``Kernel``: one unit of work as a runtime executes it; ``Layer``: a row of a model's graph that runs one kernel.

A kernel's key is scoped by runtime and holds everything that decides its cost: op, shapes, attributes, fused
activation, layout, which inputs are constant, dtype. ``Kernel.parse(k.key) == k``. :meth:`Kernel.cost` is the one
analytic counter of MACs and bytes: every runtime describes its nodes in the neutral terms below, and nobody counts
twice.

Neutral terms, by ``kind``:

* ``conv`` / ``conv_transpose``: tensors in (n, c, …spatial) order whatever the memory layout; attributes
  ``kernel_shape``, ``groups``, ``in_channels``, ``strides``, ``dilations``, ``pads``
* ``matmul``: attribute ``k``, the length of the contraction; ``outputs[0]`` is (…, m, n)
* ``attention`` (fused): attributes ``q_len``, ``kv_len``, ``head_dim``, ``v_dim``, ``batch_heads``
* ``elementwise``, ``activation``, ``norm``, ``pool``, ``reduce``, ``layout`` (reorder, transpose, reshape, pad,
  slice, concat), ``resize``, ``other``: no MACs, bytes only; an ``other`` that stands for several operators has their
  sum in the attribute ``macs``, or :data:`UNTOLD` there when it multiplies and nobody can tell how much
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .errors import UsageError

Scalar = int | float | str | bool
Attribute = Scalar | tuple[Scalar, ...]

UNTOLD = "untold"
"""In the attribute ``macs`` of an ``other``: its multiply-accumulates are not known, which is not the same as none."""

KINDS = frozenset(
    {
        "conv", "conv_transpose", "matmul", "attention",
        "elementwise", "activation", "norm", "pool", "reduce", "layout", "resize", "other",
    }
)  # fmt: skip

DTYPE_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1,
    "int4": 0.5, "uint4": 0.5, "int2": 0.25, "uint2": 0.25, "complex32": 4, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape and element type of one value; ``constant`` marks weights."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    constant: bool = False

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.ceil(self.numel * DTYPE_BYTES.get(self.dtype, 4))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a kernel does, counted from its shapes. Fields that are bytes say so.

    Attributes:
        macs: multiply-accumulates; ``None`` where the kernel does not tell (:data:`UNTOLD`).
        params: elements of its weights.
        param_bytes: of those.
        input_bytes: of what it reads besides.
        output_bytes: of what it writes.
    """

    macs: int | None
    params: int
    param_bytes: int
    input_bytes: int
    output_bytes: int

    @property
    def known_macs(self) -> int:
        """``macs``, for what cannot do without them. Raises UsageError where the kernel does not tell."""
        if self.macs is None:
            raise UsageError(
                "A kernel of the network does not tell how much it multiplies.",
                remedy="Take another runtime's profile of it: one whose rows are single operators.",
            )
        return self.macs

    @property
    def moved_bytes(self) -> int:
        """Bytes that cross the kernel's border once: parameters, inputs and outputs."""
        return self.param_bytes + self.input_bytes + self.output_bytes


@dataclass(frozen=True, slots=True)
class Kernel:
    """Identity of a unit of work. ``attributes`` is sorted by name; sequences inside it are tuples."""

    runtime: str
    op: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[tuple[str, Attribute], ...] = ()
    activation: str = ""
    layout: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"Kernel kind '{self.kind}' is unknown.", remedy=f"Use one of {', '.join(sorted(KINDS))}.")
        names = [name for name, _ in self.attributes]
        if len(set(names)) != len(names):
            raise UsageError(
                f"A kernel of {self.op} has an attribute twice: {', '.join(names)}.", remedy="Keep one of the two."
            )
        object.__setattr__(self, "attributes", tuple(sorted(self.attributes, key=lambda pair: pair[0])))

    def attribute(self, name: str, default: Attribute | None = None) -> Attribute | None:
        return next((value for key, value in self.attributes if key == name), default)

    def _ints(self, name: str) -> tuple[int, ...]:
        value = self.attribute(name, ())
        return tuple(int(v) for v in value) if isinstance(value, tuple) else (int(value),)  # type: ignore[arg-type]

    def cost(self) -> Cost:
        """MACs and bytes of one execution.

        Source of the MAC formulas: the definitions of the operators (a convolution's output element needs
        in_channels / groups × ∏ kernel_shape products, a matrix product's ``k``, attention two products).
        """
        weights = [t for t in self.inputs if t.constant]
        return Cost(
            macs=self._macs(),
            params=sum(t.numel for t in weights),
            param_bytes=sum(t.nbytes for t in weights),
            input_bytes=sum(t.nbytes for t in self.inputs if not t.constant),
            output_bytes=sum(t.nbytes for t in self.outputs),
        )

    def _macs(self) -> int | None:
        if self.kind in ("conv", "conv_transpose"):
            per_point = math.prod(self._ints("kernel_shape"))
            (groups,) = self._ints("groups") or (1,)
            if self.kind == "conv":
                (in_channels,) = self._ints("in_channels")
                return self.outputs[0].numel * (in_channels // groups) * per_point
            channels = self.outputs[0].shape[-1 - len(self._ints("kernel_shape"))]  # a lone sample has no batch
            return self.inputs[0].numel * (channels // groups) * per_point
        if self.kind == "matmul":
            return self.outputs[0].numel * self._ints("k")[0]
        if self.kind == "attention":
            heads, q, kv = self._ints("batch_heads")[0], self._ints("q_len")[0], self._ints("kv_len")[0]
            return heads * q * kv * (self._ints("head_dim")[0] + self._ints("v_dim")[0])
        told = self.attribute("macs", 0) if self.kind == "other" else 0
        return None if told == UNTOLD else told if isinstance(told, int) else 0

    @property
    def key(self) -> str:
        """Canonical text of the kernel; equal kernels have equal keys."""
        tensors = [[[list(t.shape), t.dtype, int(t.constant)] for t in side] for side in (self.inputs, self.outputs)]
        fields = [self.runtime, self.op, self.kind, *tensors, dict(self.attributes), self.activation, self.layout]
        return json.dumps(fields, separators=(",", ":"), sort_keys=True)

    @classmethod
    def parse(cls, key: str) -> Kernel:
        """Inverse of :attr:`key`. Raises UsageError for text that is no kernel key."""
        try:
            runtime, op, kind, inputs, outputs, attributes, activation, layout = json.loads(key)
            sides = [tuple(_tensor(*fields) for fields in side) for side in (inputs, outputs)]
            frozen = tuple((name, _attribute(value)) for name, value in attributes.items())
            if not all(isinstance(text, str) for text in (runtime, op, kind, activation, layout)):
                raise ValueError("runtime, op, kind, activation and layout must be texts")
            return cls(runtime, op, kind, sides[0], sides[1], frozen, activation, layout)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(
                f"Not a kernel key: {key[:80]!r} ({error}).", remedy="Keys come from Kernel.key."
            ) from None


def _tensor(shape: object, dtype: object, constant: object) -> Tensor:
    sized = isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    if isinstance(shape, list) and sized and isinstance(dtype, str) and constant in (0, 1):
        return Tensor(tuple(shape), dtype, bool(constant))
    raise ValueError(f"no tensor: {shape!r}, {dtype!r}, {constant!r}")


def _attribute(value: object) -> Attribute:
    if isinstance(value, list) and all(isinstance(item, Scalar) for item in value):
        return tuple(value)
    if isinstance(value, Scalar):
        return value
    raise ValueError(f"no attribute: {value!r}")


def total_macs(kernels: Iterable[Kernel]) -> int | None:
    """Multiply-accumulates of several kernels; ``None`` when one of them does not tell its own."""
    found = [kernel.cost().macs for kernel in kernels]
    told = [macs for macs in found if macs is not None]
    return sum(told) if len(told) == len(found) else None


@dataclass(frozen=True, slots=True)
class Layer:
    """One executed node of a model.

    Attributes:
        name: the runtime's own name of the node, unique within the model.
        module: dotted path of the module it came from, empty when unknown.
        kernel: what runs.
        inputs: names of the non-constant values it reads (for liveness).
        outputs: names of the values it writes.
        sources: names of the source operators a fused node holds.
    """

    name: str
    module: str
    kernel: Kernel
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


def live_bytes(layers: Sequence[Layer], graph_outputs: Iterable[str] = ()) -> list[int]:
    """Bytes of activations alive while each layer runs, in executed order; the peak is their maximum.

    A value lives from the layer that writes it (graph inputs: from the start) to the last one that reads it; graph
    outputs live to the end. In-place reuse and the allocator's rounding are not modelled, so this is what the
    schedule needs, not what a runtime reserves.
    """
    last_use = {name: i for i, layer in enumerate(layers) for name in (*layer.outputs, *layer.inputs)}
    for name in graph_outputs:
        last_use[name] = len(layers)
    sizes: dict[str, int] = {}
    written: set[str] = set()
    for layer in layers:
        data = [t for t in layer.kernel.inputs if not t.constant]
        for name, tensor in zip(layer.inputs, data, strict=False):
            sizes.setdefault(name, tensor.nbytes)
        for name, tensor in zip(layer.outputs, layer.kernel.outputs, strict=False):
            sizes[name] = tensor.nbytes
            written.add(name)
    alive = {name for name in sizes if name not in written}
    result = []
    for i, layer in enumerate(layers):
        alive.update(name for name in layer.outputs if name in sizes)
        result.append(sum(sizes[name] for name in alive))
        alive = {name for name in alive if last_use.get(name, -1) > i}
    return result
