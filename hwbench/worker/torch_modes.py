"""How a torch module is run: its precision, its memory layout, compiled or not. ``torch`` comes as an argument."""

from __future__ import annotations

from collections import Counter
from typing import Any, Dict, List, Tuple

DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
# The bare option is torch's own default mode. The other searches for faster kernels; neither brings CUDA graphs, which
# are an option of their own. Source: torch.compile's documentation.
COMPILE_MODES = {True: "default", "default": "default", "max-autotune": "max-autotune-no-cudagraphs"}
# Dynamo keeps 8 versions of one function's code and then runs it uncompiled without a word. A worker holds two or more
# sessions of many models, whose classes share their code.
RECOMPILE_LIMIT = 1000


def prepared(torch: Any, module: Any, inputs: Tuple[Any, ...], options: Dict[str, Any], **to: Any) -> Any:
    """Module and inputs where and how they shall run.

    Args:
        torch: the module.
        module: in eval mode; it is changed in place.
        inputs: tensors.
        options: ``channels_last`` lays out what has four dimensions so.
        to: ``device`` and ``dtype`` as ``Tensor.to`` takes them; only floating point is cast.
    """
    module = module.to(**to) if to else module
    moved = tuple(_moved(tensor, to) for tensor in inputs)
    if options.get("channels_last"):
        module = module.to(memory_format=torch.channels_last)
        moved = tuple(t.to(memory_format=torch.channels_last) if t.dim() == 4 else t for t in moved)
    return module, moved


def _moved(tensor: Any, to: Dict[str, Any]) -> Any:
    wanted = {key: value for key, value in to.items() if key != "dtype" or tensor.dtype.is_floating_point}
    return tensor.to(**wanted) if wanted else tensor


def compiled(torch: Any, module: Any, mode: Any) -> Any:
    """The module under torch.compile; it compiles when it is first called."""
    config = torch._dynamo.config
    config.cache_size_limit = RECOMPILE_LIMIT
    # Its limit over all functions goes by another name in torch before 2.7.
    renamed = hasattr(config, "accumulated_recompile_limit")
    setattr(config, "accumulated_recompile_limit" if renamed else "accumulated_cache_size_limit", RECOMPILE_LIMIT)
    return torch.compile(module, mode=COMPILE_MODES[mode], dynamic=False)


def graph_breaks(torch: Any) -> int:
    """How often compilation has handed parts back to Python so far in this process."""
    return int(sum(torch._dynamo.utils.counters["graph_break"].values()))


def set_tf32(torch: Any, on: bool) -> None:
    """Whether fp32 products and convolutions may round their inputs to TF32. torch's own default for cuDNN is yes."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def effective_precision(parameters: List[Any], tf32: bool = False) -> str:
    """What most weights are, and for fp32 ones what they are multiplied in."""
    names = {"torch.float64": "fp64", "torch.float32": "tf32" if tf32 else "fp32", "torch.float16": "fp16",
             "torch.bfloat16": "bf16"}  # fmt: skip
    votes: "Counter[str]" = Counter()
    for parameter in parameters:
        if parameter.dtype.is_floating_point:
            votes[str(parameter.dtype)] += parameter.numel()
    found = votes.most_common(1)[0][0] if votes else "torch.float32"
    return names.get(found, found)
