"""A module as layers: every operator that Python calls, described as a kernel, with the module it was called from.

Nothing is computed: tensors live on the ``meta`` device. Leaf modules would not be enough, because residual additions
and functional attention live between them. The same counter over the same kernels gives a model's MACs.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError, WorkerError
from ..kernel import Layer, Tensor
from .operators import as_record, describe, is_tensor, kind_of, op_name, untold

__all__ = ["Totals", "count", "describe", "kernels", "op_name"]

_PRODUCTS = frozenset({"conv", "conv_transpose", "matmul", "attention"})
_TOLD = ("aten.", "prims.", "torchvision.nms", "torchvision.roi", "torchvision.ps_roi")
"""Operators that multiply nothing unless they are of a known kind; of an extension's own nobody can tell."""


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
    import torch

    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise WorkerError(
            f"{type(module).__name__} is TorchScript, whose operators are not seen from Python.",
            remedy="Give the module that it was made from, or an ONNX file.",
        )
    try:
        return _run(module, inputs, meta=True)
    except Exception:  # noqa: BLE001  # foreign code: its inputs do not suit it, or it wants values that meta has not
        if any(tensor.is_meta for tensor in [*module.parameters(), *inputs]):
            return _reported(module, inputs, meta=True)
        return _reported(module, inputs, meta=False)  # a model that looks at values runs for real


def _reported(module: Any, inputs: Sequence[Any], *, meta: bool) -> list[Layer]:
    try:
        return _run(module, inputs, meta=meta)
    except Exception as error:  # foreign code: whatever it raises is its answer
        records = [as_record(tensor) for tensor in inputs]
        shapes = ", ".join(f"{'x'.join(map(str, one.shape)) or 'scalar'} {one.dtype}" for one in records)
        raise WorkerError(
            f"{type(module).__name__} does not run on inputs of shape {shapes}: {type(error).__name__}: {error}",
            remedy="Check shapes and types; --input NAME=1,3,224,224 or MODEL@SIZE sets shapes, a factory both.",
        ) from error


def _run(module: Any, inputs: Sequence[Any], *, meta: bool) -> list[Layer]:
    import torch

    with torch.no_grad():
        module = _stand_in(torch, module, meta)
        device = torch.device("meta") if meta else contextlib.nullcontext()
        inputs = [tensor.to("meta") if meta else tensor for tensor in inputs]
        recorder = _Recorder(list(module.parameters()), list(module.buffers()), inputs)
        with device, contextlib.redirect_stdout(sys.stderr):  # stdout is for results
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
    """Reports every operator that Python calls; what multiplies below one of no known kind, as what it is made of."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Below(TorchDispatchMode):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple[str, Any, Any, Any]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            self.calls.append((str(func), args, kwargs or {}, out))
            return out

    class Listener(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name, given = op_name(func), kwargs or {}
            if kind_of(name, args, given) != "other":
                out = func(*args, **given)
                recorder.add(name, args, given, out)
                return out
            with Below() as below, sdpa_kernel(SDPBackend.MATH), _without_onednn(torch):
                out = func(*args, **given)
            if any(kind_of(op_name(op), *operands) in _PRODUCTS for op, *operands, _ in below.calls):
                for call in below.calls:
                    recorder.add(*call)
            else:
                recorder.add(name, args, given, out, told=all(op.startswith(_TOLD) for op, *_ in below.calls))
            return out

    with Listener():
        yield


@contextlib.contextmanager
def _without_onednn(torch: Any) -> Iterator[None]:
    """Its recurrent layers hide their products, as fused attention does."""
    enabled, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, False
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = enabled


class _Recorder:
    """Collects layers while a module runs, and names values by the memory they live in."""

    def __init__(self, parameters: Sequence[Any], buffers: Sequence[Any], inputs: Sequence[Any]) -> None:
        self.layers: list[Layer] = []
        self.path: list[str] = [""]
        self._parameters = {id(tensor) for tensor in parameters}
        self._kept = {_storage(tensor) for tensor in (*parameters, *buffers)}  # no activations, nor is a view of one
        self._alive: list[Any] = list(inputs)  # the id and the storage of a freed tensor would be given out again
        self._values = {_storage(t): "input" if i == 0 else f"input_{i}" for i, t in enumerate(inputs)}
        self._seen: dict[str, int] = {}

    def add(self, op: str, args: Any, kwargs: Any, out: Any, *, told: bool = True) -> None:
        """Record one operator call; calls that return no tensor (a size, a flag) ran nothing."""
        results = self.leaves(out)
        if not results or op == "get":  # "get" reads a property such as Tensor.T or Tensor.data
            return
        frozen = (self._frozen(args), self._frozen(kwargs), self._frozen(out))
        try:
            kernel = describe(op, *frozen) if told else untold(op, *frozen)
        except UsageError:  # a product, but its arguments do not say which
            kernel = untold(op, *frozen)
        module = self.path[-1]
        name = self._unique(f"{module}/{kernel.op}" if module else kernel.op)
        read = [self._value(t) for t in self.leaves([args, kwargs]) if _storage(t) not in self._kept]
        written = []
        for i, tensor in enumerate(results):
            self._alive.append(tensor)
            if _storage(tensor) not in self._values and _storage(tensor) not in self._kept:
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
            return Tensor(record.shape, record.dtype, constant=id(value) in self._parameters)
        if isinstance(value, Mapping):
            return {key: self._frozen(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._frozen(item) for item in value]
        return value


def _storage(tensor: Any) -> int:
    """Which memory a tensor lives in; that of a sparse one, which has several, goes by the tensor."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:
        return id(tensor)
