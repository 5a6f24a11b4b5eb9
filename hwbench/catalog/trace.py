"""A module as layers: every operator that Python calls, described as a kernel, with the module it was called from.

Nothing is computed: tensors live on the ``meta`` device. Leaf modules would not be enough, because residual additions
and functional attention live between them. The same counter over the same kernels gives a model's MACs.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import WorkerError
from ..kernel import Layer, Tensor
from .operators import as_record, describe, is_tensor, op_name

__all__ = ["Totals", "count", "describe", "kernels", "op_name"]

# Operators that hide products behind one call; they are opened one level down, where products show.
_COMPOSITE = frozenset(
    {"multi_head_attention_forward", "_transformer_encoder_layer_fwd", "_native_multi_head_attention", "bilinear",
     "lstm", "gru", "rnn_tanh", "rnn_relu", "chain_matmul", "multi_dot", "tensordot", "cdist"}
)  # fmt: skip


# What a forward pass raises when its inputs do not suit it, or when it wants values that the meta device has not.
_FAILURES = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of a whole model: multiply-accumulates of one inference, and parameters (each one once)."""

    macs: int
    params: int


def count(module: Any, inputs: Sequence[Any]) -> Totals:
    """MACs and parameters of an ``nn.Module`` for the given inputs. Raises WorkerError when it cannot run."""
    macs = sum(layer.kernel.cost().known_macs for layer in kernels(module, inputs))
    return Totals(macs, sum(parameter.numel() for parameter in module.parameters()))


def kernels(module: Any, inputs: Sequence[Any]) -> list[Layer]:
    """The operators an eager ``nn.Module`` runs, in order.

    What a module computes in its first run and keeps for later ones is left out. Parameters are the kernels' constant
    inputs, so that the layers' ``params`` add up to the model's when every
    parameter is read once; buffers (cached tables, filters) count as plain inputs and are left out of
    ``Layer.inputs`` together with parameters. ``Layer.outputs`` names *new* values only: a view or an in-place
    result goes by the name of the value whose memory it shares, so that :func:`hwbench.kernel.live_bytes` counts no
    byte twice.

    Args:
        module: in eval mode; neither it nor its weights are changed.
        inputs: example inputs, on any device (their values are used only if the module cannot run without them).

    Raises:
        WorkerError: the module cannot be run with these inputs.
    """
    try:
        return _run(module, inputs, meta=True)
    except _FAILURES:
        if any(tensor.is_meta for tensor in [*module.parameters(), *inputs]):
            return _reported(module, inputs, meta=True)
        return _reported(module, inputs, meta=False)  # a model that looks at values runs for real


def _reported(module: Any, inputs: Sequence[Any], *, meta: bool) -> list[Layer]:
    try:
        return _run(module, inputs, meta=meta)
    except _FAILURES as error:
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in inputs)
        raise WorkerError(
            f"{type(module).__name__} does not run on inputs of shape {shapes}: {error}",
            remedy="Check the input shapes; --input NAME=1,3,224,224 or MODEL@SIZE sets them.",
        ) from error


def _run(module: Any, inputs: Sequence[Any], *, meta: bool) -> list[Layer]:
    import torch

    with torch.no_grad():
        module = _stand_in(torch, module, meta)
        device = torch.device("meta") if meta else contextlib.nullcontext()
        inputs = [tensor.to("meta") if meta else tensor for tensor in inputs]
        constants = {id(tensor): False for tensor in module.buffers()} | {id(p): True for p in module.parameters()}
        recorder = _Recorder(constants, inputs)
        with device:
            module(*inputs)  # what a network computes once and keeps, such as a bias table, is not part of an inference
            with _paths(module, recorder.path), _listening(recorder):
                module(*inputs)
    return recorder.layers


def _stand_in(torch: Any, module: Any, meta: bool) -> Any:
    """A copy that shares the weights, or has shapes for weights: whatever it keeps to itself, the original is not."""
    memo: dict[int, Any] = {}
    for tensor in module.parameters():
        memo[id(tensor)] = torch.nn.Parameter(tensor.to("meta"), requires_grad=False) if meta else tensor
    for tensor in module.buffers():
        memo[id(tensor)] = tensor.to("meta") if meta else tensor.clone()
    return copy.deepcopy(module, memo)


@contextlib.contextmanager
def _paths(module: Any, path: list[str]) -> Iterator[None]:
    """Keeps ``path[-1]`` the dotted path of the module whose ``forward`` runs."""
    handles = []
    for name, child in module.named_modules():
        handles.append(child.register_forward_pre_hook(lambda *_, name=name: path.append(name)))
        handles.append(child.register_forward_hook(lambda *_: path.pop() and None, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _listening(recorder: _Recorder) -> Iterator[None]:
    """Reports every operator that Python calls, composites as what they are made of."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Below(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            recorder.add(str(func), args, kwargs or {}, out)
            return out

    class Listener(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = op_name(func)
            if name in _COMPOSITE or (name == "einsum" and len(recorder.leaves(args)) > 2):
                with Below(), sdpa_kernel(SDPBackend.MATH):  # fused attention would hide its products again
                    return func(*args, **(kwargs or {}))
            out = func(*args, **(kwargs or {}))
            recorder.add(name, args, kwargs or {}, out)
            return out

    with Listener():
        yield


class _Recorder:
    """Collects layers while a module runs, and names values by the memory they live in."""

    def __init__(self, constants: Mapping[int, bool], inputs: Sequence[Any]) -> None:
        self.layers: list[Layer] = []
        self.path: list[str] = [""]
        self._constants = constants  # id → is it a parameter (else a buffer)
        self._alive: list[Any] = list(inputs)  # the id and the storage of a freed tensor would be given out again
        self._values = {_storage(t): "input" if i == 0 else f"input_{i}" for i, t in enumerate(inputs)}
        self._seen: dict[str, int] = {}

    def add(self, op: str, args: Any, kwargs: Any, out: Any) -> None:
        """Record one operator call; calls that return no tensor (a size, a flag) ran nothing."""
        results = self.leaves(out)
        if not results or op == "get":  # "get" reads a property such as Tensor.T or Tensor.data
            return
        kernel = describe(op, self._frozen(args), self._frozen(kwargs), self._frozen(out))
        module = self.path[-1]
        name = self._unique(f"{module}/{kernel.op}" if module else kernel.op)
        read = [self._value(t) for t in self.leaves([args, kwargs]) if id(t) not in self._constants]
        written = []
        for i, tensor in enumerate(results):
            self._alive.append(tensor)
            if _storage(tensor) not in self._values:
                self._values[_storage(tensor)] = name if len(results) == 1 else f"{name}:{i}"
                written.append(self._values[_storage(tensor)])
        self.layers.append(Layer(name, module, kernel, tuple(read), tuple(written)))

    def leaves(self, values: Any) -> list[Any]:
        """Tensors in nested sequences and mappings, in order."""
        if is_tensor(values):
            return [values]
        if isinstance(values, Mapping):
            values = list(values.values())
        if not isinstance(values, list | tuple):
            return []
        return [leaf for value in values for leaf in self.leaves(value)]

    def _unique(self, name: str) -> str:
        seen = self._seen[name] = self._seen.get(name, 0) + 1
        return name if seen == 1 else f"{name}_{seen}"

    def _value(self, tensor: Any) -> str:
        key = _storage(tensor)
        if key not in self._values:  # made outside the graph, such as a table the module keeps to itself
            self._alive.append(tensor)
            self._values[key] = f"constant_{len(self._values)}"
        return self._values[key]

    def _frozen(self, value: Any) -> Any:
        if is_tensor(value):
            record = as_record(value)
            return Tensor(record.shape, record.dtype, constant=self._constants.get(id(value), False))
        if isinstance(value, Mapping):
            return {key: self._frozen(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._frozen(item) for item in value]
        return value


def _storage(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)
