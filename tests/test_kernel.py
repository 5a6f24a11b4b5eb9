"""Kernels: keys round-trip, costs match the operators' definitions, liveness matches hand-drawn graphs."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.errors import UsageError
from hwbench.kernel import DTYPE_BYTES, KINDS, UNTOLD, Cost, Kernel, Layer, Tensor, live_bytes, total_macs

scalars = (
    st.integers(-(2**31), 2**31)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.booleans()
)
tensors = st.builds(
    Tensor,
    shape=st.lists(st.integers(0, 4096), max_size=5).map(tuple),
    dtype=st.sampled_from(sorted(DTYPE_BYTES)),
    constant=st.booleans(),
)
kernels = st.builds(
    Kernel,
    runtime=st.text(max_size=8),
    op=st.text(max_size=8),
    kind=st.sampled_from(sorted(KINDS)),
    inputs=st.lists(tensors, max_size=3).map(tuple),
    outputs=st.lists(tensors, max_size=2).map(tuple),
    attributes=st.dictionaries(st.text(max_size=6), scalars | st.lists(scalars, max_size=3).map(tuple), max_size=4).map(
        lambda attributes: tuple(attributes.items())
    ),
    activation=st.text(max_size=6),
    layout=st.text(max_size=6),
)  # fmt: skip
json_values = st.recursive(
    st.none() | scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(kernels)
def test_parse_inverts_key(kernel: Kernel) -> None:
    parsed = Kernel.parse(kernel.key)
    assert parsed == kernel
    assert parsed.key == kernel.key


@given(st.lists(json_values, max_size=9).map(json.dumps) | st.text(max_size=30))
def test_any_text_is_a_kernel_or_a_usage_error(text: str) -> None:
    try:
        kernel = Kernel.parse(text)
    except UsageError:
        return
    assert hash(Kernel.parse(kernel.key)) == hash(kernel)


@pytest.mark.parametrize(
    "key",
    [
        "[" * 100_000,
        "{}",
        "null",
        '["ort","Conv","conv",[],[],{},""]',
        '["ort","Conv","no-such-kind",[],[],{},"",""]',
        '["ort","Conv","conv",[[["8"],"float32",0]],[],{},"",""]',
        '["ort","Conv","conv",[[[-1],"float32",0]],[],{},"",""]',
        '["ort","Conv","conv",[[[1],"float32",2]],[],{},"",""]',
        '["ort","Conv","conv",[],[],{"pads":[[1]]},"",""]',
        '["ort",["Conv"],"conv",[],[],{},"",""]',
    ],
)
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(UsageError):
        Kernel.parse(key)


def test_an_attribute_cannot_be_given_twice() -> None:
    with pytest.raises(UsageError, match="twice"):
        Kernel("ort", "Conv", "conv", (), (), (("groups", 1), ("groups", 2)))


@pytest.mark.parametrize(
    ("dtype", "nbytes"),
    [("float32", 24), ("int8", 6), ("int4", 3), ("float16", 12), ("complex128", 96), ("float8_e5m2", 6)],
)
def test_bytes_of_a_tensor(dtype: str, nbytes: int) -> None:
    assert Tensor((2, 3), dtype).nbytes == nbytes


def test_half_bytes_are_rounded_up() -> None:
    assert Tensor((3,), "int4").nbytes == 2


def conv(kind: str, data: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...], groups: int) -> Cost:
    attributes = (("kernel_shape", weight[2:]), ("groups", groups), ("in_channels", data[1]))
    inputs = (Tensor(data), Tensor(weight, constant=True))
    return Kernel("ort", "Conv", kind, inputs, (Tensor(out),), attributes).cost()


def by_definition(out: tuple[int, ...], in_channels: int, groups: int, kernel: tuple[int, int]) -> int:
    """Count the products of a convolution one output element and one tap at a time."""
    elements = itertools.product(*(range(size) for size in out))
    taps = len(list(itertools.product(range(in_channels // groups), range(kernel[0]), range(kernel[1]))))
    return sum(taps for _ in elements)


@pytest.mark.parametrize(("groups", "macs"), [(1, 8 * 5 * 5 * 4 * 9), (4, 8 * 5 * 5 * 1 * 9), (2, 8 * 5 * 5 * 2 * 9)])
def test_macs_of_a_convolution(groups: int, macs: int) -> None:
    cost = conv("conv", (1, 4, 7, 7), (8, 4 // groups, 3, 3), (1, 8, 5, 5), groups)
    assert cost.macs == macs == by_definition((1, 8, 5, 5), 4, groups, (3, 3))


def test_a_known_network_layer() -> None:
    # MobileNetV2's stem at 224: 3 → 32 channels, 3×3, stride 2. Source: 112·112·32·3·9.
    cost = conv("conv", (1, 3, 224, 224), (32, 3, 3, 3), (1, 32, 112, 112), 1)
    assert cost == Cost(
        macs=10_838_016,
        params=864,
        param_bytes=3456,
        input_bytes=3 * 224 * 224 * 4,
        output_bytes=32 * 112 * 112 * 4,
    )
    assert cost.moved_bytes == 3456 + 602_112 + 1_605_632


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_costs_what_its_mirror_costs(groups: int) -> None:
    # (1, 4, 5, 5) → (1, 6, 11, 11) with 3×3 and stride 2 does the products of the convolution that maps it back.
    forward = conv("conv", (1, 6, 11, 11), (4, 6 // groups, 3, 3), (1, 4, 5, 5), groups)
    transposed = conv("conv_transpose", (1, 4, 5, 5), (4, 6 // groups, 3, 3), (1, 6, 11, 11), groups)
    assert transposed.macs == forward.macs


def test_groups_default_to_one() -> None:
    kernel = Kernel(
        "ort", "Conv", "conv", (Tensor((2, 3, 4)),), (Tensor((2, 5, 4)),), (("kernel_shape", (1,)), ("in_channels", 3))
    )
    assert kernel.cost().macs == 2 * 5 * 4 * 3


def test_macs_of_products_and_attention() -> None:
    product = Kernel("ort", "MatMul", "matmul", (Tensor((2, 3, 7)),), (Tensor((2, 3, 5)),), (("k", 7),))
    assert product.cost().macs == 2 * 3 * 5 * 7
    shape = (("batch_heads", 6), ("q_len", 10), ("kv_len", 20), ("head_dim", 8), ("v_dim", 16))
    fused = Kernel("torch", "sdpa", "attention", (), (Tensor((6, 10, 16)),), shape)
    apart = [(6 * 10 * 20, 8), (6 * 10 * 16, 20)]  # scores, then their product with the values
    assert fused.cost().macs == sum(elements * k for elements, k in apart)


@pytest.mark.parametrize("kind", sorted(KINDS - {"conv", "conv_transpose", "matmul", "attention"}))
def test_the_rest_moves_bytes_only(kind: str) -> None:
    cost = Kernel("ort", "Op", kind, (Tensor((1, 8)), Tensor((8,), constant=True)), (Tensor((1, 8)),)).cost()
    assert cost == Cost(macs=0, params=8, param_bytes=32, input_bytes=32, output_bytes=32)


def test_macs_that_are_not_known_are_none_and_so_is_every_sum_with_them() -> None:
    known, silent = (
        Kernel("ort", "Part", "other", (Tensor((1, 8)),), (Tensor((1, 8)),), (("macs", macs),)) for macs in (7, UNTOLD)
    )
    product = Kernel("ort", "MatMul", "matmul", (Tensor((2, 3)),), (Tensor((2, 5)),), (("k", 3),))
    assert (known.cost().macs, silent.cost().macs) == (7, None)
    assert silent.cost().moved_bytes == known.cost().moved_bytes == 64
    assert Kernel.parse(silent.key).cost().macs is None
    assert total_macs([known, product]) == 7 + 2 * 5 * 3
    assert total_macs([known, silent, product]) is None
    assert total_macs([]) == 0
    assert known.cost().known_macs == 7
    with pytest.raises(UsageError, match="does not tell"):
        _ = silent.cost().known_macs


def layer(inputs: dict[str, int], outputs: dict[str, int], weights: int = 0) -> Layer:
    """A layer whose values have the given numbers of bytes."""
    constants = (Tensor((weights,), "int8", constant=True),) if weights else ()
    data = tuple(Tensor((size,), "int8") for size in inputs.values())
    written = tuple(Tensor((size,), "int8") for size in outputs.values())
    kernel = Kernel("ort", "Op", "other", (*constants, *data), written)
    return Layer("n", "", kernel, tuple(inputs), tuple(outputs))


def test_live_bytes_of_a_chain() -> None:
    layers = [layer({"x": 10}, {"a": 20}, weights=1000), layer({"a": 20}, {"b": 5}), layer({"b": 5}, {"y": 1})]
    assert live_bytes(layers, ["y"]) == [30, 25, 6]


def test_live_bytes_keep_a_shortcut_until_it_is_added() -> None:
    layers = [
        layer({"x": 10}, {"a": 10}),
        layer({"a": 10}, {"b": 40}),
        layer({"b": 40}, {"c": 10}),
        layer({"c": 10, "a": 10}, {"y": 10}),
    ]
    assert live_bytes(layers, ["y"]) == [20, 50, 60, 30]


def test_live_bytes_keep_graph_inputs_from_the_start_and_outputs_to_the_end() -> None:
    layers = [layer({"x": 1}, {"early": 100}), layer({"late": 10}, {"y": 1})]
    assert live_bytes(layers, ["early", "y"]) == [111, 111]
    assert live_bytes(layers, ["y"]) == [111, 11]


def test_live_bytes_of_nothing() -> None:
    assert live_bytes([]) == []


@given(st.lists(st.integers(1, 100), min_size=2, max_size=12))
def test_a_chain_never_needs_more_than_two_neighbours(sizes: list[int]) -> None:
    layers = [layer({f"v{i}": a}, {f"v{i + 1}": b}) for i, (a, b) in enumerate(itertools.pairwise(sizes))]
    assert live_bytes(layers, [f"v{len(sizes) - 1}"]) == [a + b for a, b in itertools.pairwise(sizes)]
