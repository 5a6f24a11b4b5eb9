"""PyTorch operators in neutral terms: :func:`describe` turns one operator call into a :class:`~hwbench.kernel.Kernel`.

It works from tensors, or from the shapes that a session wrote down on another machine, and imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..kernel import UNTOLD, Attribute, Kernel, Scalar, Tensor

_NAMES_OF_KIND = {
    "conv": "conv1d conv2d conv3d convolution",
    "conv_transpose": "conv_transpose1d conv_transpose2d conv_transpose3d",
    "matmul": "linear matmul mm bmm mv dot vdot inner addmm addbmm baddbmm addmv einsum",
    "attention": "scaled_dot_product_attention",
    "activation": "relu relu6 silu gelu hardswish hardsigmoid hardtanh sigmoid logsigmoid tanh elu celu selu "
    "leaky_relu rrelu prelu mish softplus softsign glu threshold softmax softmin log_softmax",
    "elementwise": "add sub mul div pow sqrt rsqrt square reciprocal exp exp2 expm1 log log2 log10 log1p neg abs sign "
    "clamp clip clamp_min clamp_max where maximum minimum floor ceil round trunc frac remainder fmod floordiv erf sin "
    "cos tan atan2 eq ne lt le gt ge and or xor invert logical_and logical_or logical_not logical_xor isnan isinf "
    "isfinite masked_fill addcmul addcdiv lerp nan_to_num rsub",
    "norm": "batch_norm layer_norm group_norm instance_norm rms_norm normalize local_response_norm native_layer_norm",
    "pool": "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d",
    "reduce": "mean sum prod max min amax amin aminmax var std var_mean std_mean norm argmax argmin logsumexp all any "
    "cumsum cumprod topk sort argsort median",
    "layout": "view view_as reshape reshape_as flatten unflatten permute transpose t mT adjoint contiguous clone to "
    "type type_as float half bool int long cat concat concatenate stack hstack vstack split tensor_split "
    "split_with_sizes chunk unbind getitem setitem copy index_select gather scatter index take_along_dim masked_select "
    "pad roll expand expand_as repeat repeat_interleave tile unsqueeze squeeze narrow select slice swapaxes swapdims "
    "movedim moveaxis flip rot90 unfold fold channel_shuffle pixel_shuffle pixel_unshuffle diagonal detach alias "
    "dropout dropout2d alpha_dropout feature_dropout broadcast_to tril triu embedding real imag as_strided rearrange",
    "resize": "interpolate upsample upsample_nearest upsample_bilinear grid_sample affine_grid",
}
_KIND = {name: kind for kind, names in _NAMES_OF_KIND.items() for name in names.split()}

# Python's operator methods, reflected and in-place forms included, under the name of the function they mean.
_SPELLING = {
    prefix + name: name
    for name in ("add", "sub", "mul", "pow", "matmul", "floordiv", "mod", "and", "or", "xor")
    for prefix in ("i", "r")
} | {"truediv": "div", "itruediv": "div", "rtruediv": "div", "divide": "div", "true_divide": "div", "subtract": "sub",
     "multiply": "mul", "mod": "remainder", "rsub": "sub", "imod": "remainder", "rmod": "remainder"}  # fmt: skip

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
_CONV_TRANSPOSE = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def op_name(func: Callable[..., Any] | str) -> str:
    """One name for the forms of an operator: ``Tensor.add_``, ``__iadd__`` and ``aten::add`` are all ``"add"``."""
    text = func if isinstance(func, str) else str(getattr(func, "__name__", func))
    name = text.rpartition("::")[2].removeprefix("aten.").partition(".")[0]
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
    elif name.rstrip("_") and not name.startswith("_"):
        name = name.rstrip("_")
    elif name.startswith("_") and name.strip("_") in ("softmax", "log_softmax"):
        name = name.strip("_")
    return _SPELLING.get(name, name)


def describe(
    op: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, out: Any, *, runtime: str = "torch"
) -> Kernel:
    """One operator call as a kernel.

    Args:
        op: name of the operator, in any of the forms :func:`op_name` takes.
        args: positional arguments. A tensor is a :class:`~hwbench.kernel.Tensor` or anything with ``shape`` and
            ``dtype``; only a ``Tensor`` says whether it is constant, others count as activations.
        kwargs: keyword arguments, likewise.
        out: the result: a tensor, or a sequence of tensors.
        runtime: scope of the kernel's key.

    Returns:
        The kernel; operators of no known kind are ``"other"``, without MACs.

    Raises:
        UsageError: a convolution, product or attention whose arguments do not describe one.
    """
    name = op_name(op)
    given = dict(kwargs or {})
    kind = kind_of(name, args, given)
    try:
        attributes = _attributes(name, kind, list(args), given)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(
            f"The arguments of '{op}' do not describe a {kind} ({type(error).__name__}: {error}).",
            remedy="Pass the arguments as the operator was called, tensors with shape and dtype.",
        ) from error
    inputs = _tensors([*args, *given.values()])
    if name in ("batch_norm", "instance_norm"):
        inputs = _without_statistics(list(args), given)
    return Kernel(runtime, name, kind, tuple(inputs), tuple(_tensors([out])), tuple(attributes.items()))


def untold(
    op: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None, out: Any, *, runtime: str = "torch"
) -> Kernel:
    """An operator that multiplies and of which nobody can tell how much; arguments as of :func:`describe`."""
    inputs, outputs = tuple(_tensors([*args, *dict(kwargs or {}).values()])), tuple(_tensors([out]))
    return Kernel(runtime, op_name(op), "other", inputs, outputs, (("macs", UNTOLD),))


def kind_of(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Kind of an operator's kernel, ``"other"`` for one that is not known.

    Args:
        name: as :func:`op_name` gives it.
        args: positional arguments of the call.
        kwargs: keyword arguments.
    """
    if name == "einsum" and (count := len(_tensors([*args, *kwargs.values()]))) != 2:
        return "other" if count > 2 else "layout"  # one operand: a sum, a diagonal or a transposition
    if name == "convolution" and dict(zip(_CONVOLUTION, args, strict=False)).get("transposed"):
        return "conv_transpose"
    if name in ("max", "min") and len(_tensors(args)) == 2:
        return "elementwise"
    return _KIND.get(name, "other")


def is_tensor(value: Any) -> bool:
    """Whether a value has a shape and an element type."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, str | int | float)


def as_record(value: Any) -> Tensor:
    """Shape and element type of a tensor; a record stays what it is."""
    if isinstance(value, Tensor):
        return value
    return Tensor(tuple(int(n) for n in value.shape), str(value.dtype).removeprefix("torch."))


def _tensors(values: Any) -> list[Tensor]:
    """Tensors in nested sequences and mappings, in order."""
    if is_tensor(values):
        return [as_record(values)]
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def _without_statistics(args: list[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Input, weight and bias: running statistics are folded state, neither parameters nor activations."""
    names = ("input", "running_mean", "running_var", "weight", "bias")
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    return _tensors([bound.get(name) for name in ("input", "weight", "bias")])


def _attributes(name: str, kind: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Attribute]:
    if kind in ("conv", "conv_transpose"):
        return _conv_attributes(name, args, kwargs)
    if kind == "matmul":
        return {"k": _contraction(name, args, kwargs)}
    if kind == "attention":
        return _attention_attributes({**dict(zip(_ATTENTION, args, strict=False)), **kwargs})
    found: dict[str, Attribute] = {}
    if scalars := _scalars(args):
        found["args"] = tuple(scalars)
    for key, value in kwargs.items():
        if key not in ("out", "device") and (scalars := _scalars([value])):
            found[key] = scalars[0] if len(scalars) == 1 else tuple(scalars)
    return found


def _scalars(values: Any) -> list[Scalar]:
    """What decides an operator's work besides its tensors, flat; ``None`` and tensors are left out."""
    if isinstance(values, bool | int | float | str):
        return [values]
    if isinstance(values, slice):
        return [f"{values.start}:{values.stop}:{values.step}".replace("None", "")]
    if isinstance(values, list | tuple):
        return [scalar for value in values for scalar in _scalars(value)]
    if values is None or is_tensor(values) or isinstance(values, Mapping):
        return []
    return ["..." if values is ... else str(values)]


def _conv_attributes(name: str, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Attribute]:
    names = _CONVOLUTION if name == "convolution" else _CONV_TRANSPOSE if "transpose" in name else _CONV
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    transposed = "transpose" in name or bool(bound.get("transposed"))
    weight = as_record(bound["weight"])
    kernel, groups = weight.shape[2:], int(bound.get("groups") or 1)
    rank = len(kernel)
    dilations = _spatial(bound.get("dilation"), rank, 1)
    padding = bound.get("padding") or 0
    if isinstance(padding, str):  # "same" pads the odd one behind, as torch does
        total = [0 if padding == "valid" else d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        pads = (*(t // 2 for t in total), *(t - t // 2 for t in total))
    else:
        pads = _spatial(padding, rank, 0) * 2
    return {
        "kernel_shape": kernel,
        "groups": groups,
        "in_channels": weight.shape[0] if transposed else weight.shape[1] * groups,
        "strides": _spatial(bound.get("stride"), rank, 1),
        "dilations": dilations,
        "pads": pads,
    }


def _spatial(value: Any, rank: int, default: int) -> tuple[int, ...]:
    if value is None:
        value = default
    values = tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
    return values * rank if len(values) == 1 else values


def _contraction(name: str, args: list[Any], kwargs: dict[str, Any]) -> int:
    """Length of the sum behind each output element of a product."""
    if name == "einsum":
        return _einsum_contraction(str(args[0]), _tensors([args[1:], kwargs]))
    operands = _tensors([*args, *kwargs.values()])
    first = 1 if name.startswith("add") or name == "baddbmm" else 0  # addmm(c, a, b): the sum comes first
    if not operands[first].shape:
        return 1
    summed = operands[first].shape[0] if name == "addbmm" else 1  # over the batch, too
    return summed * operands[first].shape[-1]


def _einsum_contraction(equation: str, operands: list[Tensor]) -> int:
    terms, _, result = equation.replace(" ", "").partition("->")
    lengths: list[dict[str, int]] = []
    for term, tensor in zip(terms.split(","), operands, strict=True):
        head, _, tail = term.partition("...")
        behind = tensor.shape[len(tensor.shape) - len(tail) :] if tail else ()
        lengths.append(dict(zip(head + tail, (*tensor.shape[: len(head)], *behind), strict=True)))
    shared = lengths[0].keys() & lengths[1].keys()
    kept = set(result) if "->" in equation else set()  # without an arrow every shared label is summed
    return math.prod(max(lengths[0][label], lengths[1][label]) for label in shared - kept)


def _attention_attributes(bound: dict[str, Any]) -> dict[str, Attribute]:
    query, key, value = (as_record(bound[name]).shape for name in ("query", "key", "value"))
    return {
        "q_len": query[-2],
        "kv_len": key[-2],
        "head_dim": query[-1],
        "v_dim": value[-1],
        "batch_heads": math.prod(query[:-2]),
        "causal": bool(bound.get("is_causal")),
    }
