"""The torch session: an eager module from a builder, and a profile of its operators with their module path.

Operators are taken where Python calls them (``conv2d``, ``batch_norm``, ``+``), so residual additions and functional
attention are rows like any module's, and each row is one call whose cost a user can change.
"""

from __future__ import annotations

import importlib
import importlib.metadata as metadata
import os
import sys
import time
from contextlib import nullcontext
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode, resolve_name

from .. import cuda_session, torch_modes

MAX_EVENTS = 20_000_000  # ints kept by a profile; beyond that the runs were far too many


def probe() -> Dict[str, Any]:
    versions = {"torch": torch.__version__}
    for name in ("timm", "torchvision"):
        try:
            versions[name] = metadata.version(name)
        except Exception:  # noqa: BLE001 - an absent package is a fact, not a failure
            continue
    return {"versions": versions, "profiler": True}


def profiles(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Whether these settings give layers; compiled code on a CPU has no operators left that could be timed."""
    if (settings.get("options") or {}).get("compile") and settings.get("unit", "cpu") == "cpu":
        return {"profiler": False, "why": "torch.compile leaves no operators to time on a CPU"}
    return {}


def _anchor(spec: Dict[str, Any]) -> Tuple[Any, Tuple[Any, ...]]:
    """Mobile convolutions with batch norm, then wide 1×1 ones on small maps: 6 MB of weights."""
    nn = torch.nn
    layers: List[Any] = []

    def conv(cin: int, cout: int, kernel: int, stride: int, groups: int) -> None:
        layers.append(nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False))
        layers.append(nn.BatchNorm2d(cout))
        layers.append(nn.ReLU())

    for plan in ((3, 32, 3, 2, 1), (32, 32, 3, 1, 32), (32, 64, 1, 1, 1), (64, 64, 3, 2, 64), (64, 128, 1, 1, 1),
                 (128, 128, 3, 2, 128), (128, 256, 1, 1, 1), (256, 512, 1, 2, 1), (512, 1024, 1, 1, 1)):  # fmt: skip
        conv(*plan)
    layers.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 512)])
    return nn.Sequential(*layers), (torch.randn(1, 3, 96, 96),)


def _anchor_cuda(spec: Dict[str, Any]) -> Tuple[Any, Tuple[Any, ...]]:
    """Wide convolutions on a batch that grows with the GPU: about a millisecond in fp32 on any.

    Small networks launched one kernel at a time measure the host; this one has to feel the GPU's clock. So a kernel
    takes several times what its launch does (10 to 20 µs with torch), in half precision too. A convolution here has
    0.46 GMAC an image, and an image for every eight multiprocessors gives each GPU about the same time.
    """
    nn = torch.nn
    images = max(1, torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count // 8)
    layers = [part for _ in range(3) for part in (nn.Conv2d(256, 256, 3, 1, 1, bias=False), nn.ReLU())]
    return nn.Sequential(*layers), (torch.randn(images, 256, 28, 28),)


def _launches(spec: Dict[str, Any]) -> Tuple[Any, Tuple[Any, ...]]:
    """A chain for GPUs: products far shorter than their launch, which a compiler does not fuse."""
    parts = [torch.nn.Linear(64, 64, bias=False) for _ in range(spec["length"])]
    return torch.nn.Sequential(*parts), (torch.randn(64, 64),)


class _Where(torch.nn.Module):
    def __init__(self, mask: Any, other: Any) -> None:
        super().__init__()
        self.mask, self.other = mask, other

    def forward(self, x: Any) -> Any:
        return torch.where(self.mask, x, self.other)


def _chain(spec: Dict[str, Any]) -> Tuple[Any, Tuple[Any, ...]]:
    """Equal small modules in a row; arity counts inputs and outputs of the operator."""
    shape = (1, 8, 16, 16)
    if spec["arity"] == 2:
        parts: List[Any] = [torch.nn.ReLU() for _ in range(spec["length"])]
    else:
        parts = [_Where(torch.rand(shape) < 0.5, torch.randn(shape)) for _ in range(spec["length"])]
    return torch.nn.Sequential(*parts), (torch.randn(shape),)


def _timm(spec: Dict[str, Any], name: str) -> Tuple[Any, Tuple[Any, ...]]:
    import timm

    # The tag goes along without its weights too: it can decide the number of classes.
    full = name + "." + spec["tag"] if spec.get("tag") else name
    return timm.create_model(full, pretrained=bool(spec.get("pretrained")), **(spec.get("arguments") or {})), ()


def _torchvision(spec: Dict[str, Any], name: str) -> Tuple[Any, Tuple[Any, ...]]:
    import torchvision

    weights = {"weights": "DEFAULT"} if spec.get("pretrained") else {"weights": None, "weights_backbone": None}
    model = torchvision.models.get_model(name, **weights)
    if getattr(model, "aux_classifier", None) is not None:
        model.aux_classifier = None
    return _RawHeads(model), ()


class _RawHeads(torch.nn.Module):
    """A detection or segmentation model up to its raw heads: tensors in, tensors out, no post-processing."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Any) -> Any:
        if hasattr(self.model, "head"):
            return tuple(self.model.head(list(self.model.backbone(x).values())).values())
        return self.model(x)["out"]


def _python(spec: Dict[str, Any], name: str) -> Tuple[Any, Tuple[Any, ...]]:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that nothing in it hides an installed package
    module, _, factory = name.partition(":")
    built: Any = importlib.import_module(module)
    for part in factory.split("."):
        built = getattr(built, part)
    built = built() if callable(built) and not isinstance(built, torch.nn.Module) else built
    return _unpacked(built, [entry["name"] for entry in spec.get("inputs", ())])


def _unpacked(built: Any, names: List[str]) -> Tuple[Any, Tuple[Any, ...]]:
    """A module and its example inputs, named ones in the job's order; shapes among them are left to the job."""
    if not isinstance(built, tuple):
        return built, ()
    module, example = built
    if isinstance(example, torch.Tensor):
        return module, (example,)
    if isinstance(example, dict):
        return module, tuple(example[name] for name in names if name in example)
    return module, tuple(example or ())


def _space(spec: Dict[str, Any], name: str) -> Tuple[Any, Tuple[Any, ...]]:
    """A network of a search space; the built-in spaces travel beside this module."""
    module, _, found = spec["space"].partition(":")
    if module.startswith("hwbench."):
        module = (__package__ or "").partition(".")[0] + module[len("hwbench") :]
    space = getattr(importlib.import_module(module), found)
    if space.version != spec["version"]:
        raise RuntimeError(
            "the space %s has version %d here, %d was asked for" % (name, space.version, spec["version"])
        )
    return space.build(name.rpartition(":")[2]), ()


_BUILDERS = {"timm": _timm, "torchvision": _torchvision, "python": _python, "space": _space}


_OWN = {"anchor": _anchor, "chain": _chain, "anchor-cuda": _anchor_cuda}


def _build(model: Dict[str, Any], unit: str = "cpu") -> Tuple[Any, Tuple[Any, ...]]:
    spec = model["spec"]
    kind, _, name = spec["builder"].partition(":")
    torch.manual_seed(0)
    if kind == "hwbench":
        return (_launches if name == "chain" and unit != "cpu" else _OWN[name])(spec)
    return _BUILDERS[kind](spec, name)


def _inputs(model: Dict[str, Any]) -> Tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for entry in model["inputs"]:
        dtype = getattr(torch, entry["dtype"])
        shape = entry["shape"]
        if dtype.is_floating_point:
            made.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            made.append(torch.randint(0, 2 if dtype is torch.bool else 64, shape, generator=generator).to(dtype))
    return tuple(made)


def _chosen(wanted: Tuple[Any, ...], examples: Tuple[Any, ...], batch: int) -> Tuple[Any, ...]:
    """The inputs of a run: a factory's own examples in the wanted shape, for a module may depend on their values.

    Random indices, for instance, may lie outside its table.
    """
    if not wanted:
        return examples
    if len(examples) != len(wanted):
        return wanted
    chosen = []
    for made, example in zip(wanted, examples):
        if isinstance(example, torch.Tensor):
            example = example.detach()
            if batch > 1 and example.dim():
                example = example.repeat(batch, *[1] * (example.dim() - 1))
            if example.dtype == made.dtype and example.numel():
                rows = -(-made.numel() // example.numel())
                made = example.reshape(-1).repeat(rows)[: made.numel()].reshape(made.shape)
        chosen.append(made)
    return tuple(chosen)


_overridden = torch.overrides.has_torch_function


def _truly_overridden(tensors: Any) -> bool:
    """Whether tensors bring operators of their own, modes aside.

    ``TransformerEncoderLayer`` and ``MultiheadAttention`` leave their fast path where anything watches operators, as a
    recorder does, and the profile would be of another computation than the plain run: 4.8 times as slow was seen.
    """
    return _overridden(tensors) and any(type(t) not in (torch.Tensor, torch.nn.Parameter) for t in tensors)


class _Recorder(TorchFunctionMode):
    """Marks the end of every operator called from Python; describes them once, on a run of its own.

    An operator's time runs from the end of the one before: it holds the Python that leads up to the call and the
    freeing of what went out of scope. In eager mode these are a tenth of a mobile network, and they belong to somebody.

    Args:
        tag: gives the context in which the n-th call of a described run is made.
    """

    def __init__(self, tag: Optional[Callable[[int], Any]] = None) -> None:
        super().__init__()
        torch.overrides.has_torch_function = _truly_overridden  # operators ask by a name of their own, modules by this
        self.marks: List[int] = []
        self.described: Any = None
        self.path = [""]
        self._tag = tag or (lambda call: nullcontext())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.described is not None:
            return self._described(func, args, kwargs or {})
        out = func(*args, **kwargs) if kwargs else func(*args)
        self.marks.append(time.perf_counter_ns())
        return out

    def _described(self, func: Any, args: Any, kwargs: Any) -> Any:
        with self._tag(len(self.described)):
            out = func(*args, **kwargs)
        self.described.append((func, self.path[-1], (args, list(kwargs.values())), out))
        return out


def _operators(module: Any, inputs: Tuple[Any, ...], recorder: _Recorder) -> Tuple[List[Dict[str, Any]], List[int]]:
    """The operators of one run, and for each the position of its last call among all calls.

    Only operators that give tensors are layers; calls such as ``x.shape`` count as events of the next layer. The hooks
    that tell the module path are gone before anything is timed.
    """
    path = recorder.path
    with torch.inference_mode():
        module(*inputs)  # some models fill caches in their first inference and call more than later
    names = {id(part): name for name, part in module.named_modules()}
    # Of all modules, because one with hooks of its own leaves its fast path as well.
    hooks = [
        register_module_forward_pre_hook(lambda part, _a: path.append(names.get(id(part), path[-1]))),
        register_module_forward_hook(lambda _m, _a, _o: (path.pop(), None)[1], always_call=True),
    ]
    with torch.inference_mode():
        recorder.described = []
        with recorder:
            module(*inputs)
    for hook in hooks:
        hook.remove()
    parameters = {id(p) for p in (*module.parameters(), *module.buffers())}
    nodes: List[Dict[str, Any]] = []
    last: List[int] = []
    for position, (func, module_path, args, out) in enumerate(recorder.described):
        outputs = [_tensor(t, parameters) for t in _flat(out)]
        if outputs:
            nodes.append(
                {
                    "name": "%s#%d" % (module_path or "(root)", len(nodes)),
                    "op": resolve_name(func) or getattr(func, "__name__", str(func)),
                    "module": module_path,
                    "inputs": [_tensor(t, parameters) for t in _flat(args)],
                    "outputs": outputs,
                    "events": position - (last[-1] if last else -1),
                }
            )
            last.append(position)
    return nodes, last


class Session:
    """A module on the CPU."""

    def __init__(self, model: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> None:
        torch.set_num_threads(settings["threads"])
        module, inputs = _ready(model, settings)
        options = {} if model.get("role") == "anchor" else settings.get("options") or {}
        compile_ = options.get("compile")
        if profile and compile_:
            raise RuntimeError(profiles(settings)["why"])
        module, self._inputs = torch_modes.prepared(torch, module.eval(), inputs, options)
        self._module = torch_modes.compiled(torch, module, compile_) if compile_ else module
        self._recorder: Any = None
        self._runs: List[List[int]] = []
        self._nodes: List[Dict[str, Any]] = []
        self._last_mark: List[int] = []
        if profile:
            self._recorder = _Recorder()
            self._describe()
        forward, arguments = self._module.__call__, self._inputs
        self.run = self._profiled if profile else lambda: forward(*arguments)
        parameters = [*self._module.parameters(), *self._module.buffers()]
        # One thread-wide switch instead of a context manager around every sample.
        self._guard = torch.inference_mode()
        self._guard.__enter__()
        self.info = {
            "provider": "CPU",
            "precision": torch_modes.effective_precision(parameters),
            "threads": torch.get_num_threads(),
            "weights_bytes": sum(p.numel() * p.element_size() for p in parameters),
        }

    def _describe(self) -> None:
        """One run that notes what each operator is and which module called it."""
        recorder = self._recorder
        self._nodes, self._last_mark = _operators(self._module, self._inputs, recorder)
        self._calls = len(recorder.described)
        recorder.described = None

    def _profiled(self) -> None:
        recorder = self._recorder
        recorder.marks.append(time.perf_counter_ns())
        with recorder:
            self._module(*self._inputs)

    def collect(self) -> None:
        """Keep the durations of the run that just ended."""
        marks, self._recorder.marks = self._recorder.marks, []
        if len(marks) != self._calls + 1:
            raise RuntimeError(
                "the model called %d operators in one run and %d in another; its graph depends on something else than "
                "its input" % (self._calls, len(marks) - 1)
            )
        ends = [marks[0]] + [marks[i + 1] for i in self._last_mark]
        self._runs.append([b - a for a, b in zip(ends, ends[1:])])
        if len(self._runs) * len(self._last_mark) > MAX_EVENTS:
            raise RuntimeError("too many profiled operators to keep")

    def finish(self) -> Dict[str, Any]:
        return {"nodes": self._nodes, "durations_ns": self._runs}

    def memory(self) -> Dict[str, Any]:
        return {"arena_peak_bytes": None}  # torch's CPU allocator keeps no statistics

    def close(self) -> None:
        self._guard.__exit__(None, None, None)
        self._module = self._recorder = None
        self._inputs = ()
        del self.run


def _flat(value: Any) -> List[Any]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _flat(item)]
    return []


def _tensor(tensor: Any, parameters: Any) -> List[Any]:
    return [list(tensor.shape), str(tensor.dtype).replace("torch.", ""), int(id(tensor) in parameters)]


def _ready(model: Dict[str, Any], settings: Dict[str, Any]) -> Tuple[Any, Tuple[Any, ...]]:
    """The module as built and the inputs of its runs."""
    module, examples = _build(model, settings.get("unit", "cpu"))
    inputs = _chosen(_inputs(model), examples, settings.get("batch") or 1)
    weights = (*module.parameters(), *module.buffers())
    if any(map(torch.nn.parameter.is_lazy, weights)):  # their sizes come with the first inputs
        with torch.no_grad():
            module.eval()(*inputs)
    return module, inputs


def _cuda(model: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> cuda_session.CudaSession:
    index = cuda_session.require(torch, settings["unit"], settings["precision"])
    torch.cuda.set_device(index)
    module, inputs = _ready(model, settings)

    def describe(module: Any, inputs: Any, tag: Callable[[int], Any]) -> Tuple[List[Dict[str, Any]], List[int]]:
        return _operators(module, inputs, _Recorder(tag))

    return cuda_session.CudaSession(
        torch, index, module, inputs, settings, describe if profile else None, model.get("role") == "anchor"
    )


def open(model: Dict[str, Any], settings: Dict[str, Any], profile: bool = False) -> Any:
    """A session on the target's compute unit: ``cpu``, or ``cuda:N``."""
    on_cpu = settings.get("unit", "cpu") == "cpu"
    return Session(model, settings, profile) if on_cpu else _cuda(model, settings, profile)
