"""The published baseline: its kinds, its features, its forests, and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from predict_device import conv, device, kernels_of, linear, plain

from hwbench.kernel import Kernel, Tensor
from hwbench.predict.nn_meter import FORESTS, Forests, described, rows_of


def pool(op: str, edge: int, out: int) -> Kernel:
    attributes = (("kernel_shape", (3, 3)), ("strides", (2, 2)))
    return Kernel("onnxruntime", op, "pool", (Tensor((1, 16, edge, edge)),), (Tensor((1, 16, out, out)),), attributes)


def gate(op: str = "Mul") -> Kernel:
    inputs = (Tensor((1, 32, 14, 14)), Tensor((1, 32, 1, 1)))
    return Kernel("onnxruntime", op, "elementwise", inputs, (Tensor((1, 32, 14, 14)),))


@pytest.mark.parametrize(
    ("kernel", "kind", "features"),
    [
        # parameters 32·(3·3·16 + 1), FLOPs 2·14²·parameters, as the repository counts them
        (conv(16, 32, 14, size=3), "conv-bn-relu", (14, 16, 32, 3, 1, 2 * 196 * 4640 / 2e6, 4640 / 1e6)),
        (conv(32, 32, 14, size=5, groups=32), "dwconv-bn-relu", (14, 32, 32, 5, 1, 2 * 196 * 832 / 2e6, 832 / 1e6)),
        (conv(32, 32, 14, size=3, groups=4), "conv-bn-relu", None),
        (linear(1, 100, 10), "fc", (100, 10, 2010 / 2e6, 2010 / 1e6)),
        (pool("MaxPool", 56, 28), "maxpool", (56, 16, 16, 3, 2)),
        (pool("AveragePool", 56, 28), "avgpool", (56, 16, 16, 3, 2)),
        (plain("GlobalAveragePool", "pool", 1, 64, 7, 7), "global-avgpool", (7, 64)),
        (plain("ReduceMean", "reduce", 1, 64, 7, 7), "global-avgpool", (7, 64)),
        (plain("Add", "elementwise", 1, 24, 28, 28, operands=2), "add", (28, 24, 24)),
        (gate(), "se", (14, 32)),
        (plain("HardSwish", "activation", 1, 24, 28, 28), "hswish", (28, 24)),
        (plain("HARD_SWISH", "activation", 1, 24, 28, 28), "hswish", (28, 24)),
        (plain("hardtanh", "activation", 1, 24, 28, 28), "relu", (28, 24)),
        (plain("batch_norm", "norm", 1, 24, 28, 28), "bn", (28, 24)),
        (plain("Concat", "layout", 1, 8, 28, 28, operands=3), "concat", (28, 3, 8, 8, 8, 0)),
        (plain("Concat", "layout", 1, 8, 28, 28, operands=6), "concat", (28, 6, 8, 8, 8, 8)),
        (plain("Split", "layout", 1, 8, 28, 28), "split", (28, 8)),
    ],
)
def test_kinds_and_features(kernel: Kernel, kind: str, features: tuple[float, ...] | None) -> None:
    found = described(kernel)
    assert found is not None
    assert found[0] == kind
    if features is not None:
        assert found[1] == pytest.approx(features)


def test_channels_last_is_read_in_its_own_order() -> None:
    shape = Tensor((1, 28, 28, 24))
    kernel = Kernel("litert", "HARD_SWISH", "activation", (shape,), (shape,), layout="nhwc")
    assert described(kernel) == ("hswish", (28, 24))


def test_a_channel_shuffle_is_a_transposition_of_groups() -> None:
    kernel = Kernel(
        "onnxruntime", "Transpose", "layout", (Tensor((1, 2, 8, 28, 28)),), (Tensor((1, 8, 2, 28, 28)),),
        (("perm", (0, 2, 1, 3, 4)),),
    )  # fmt: skip
    assert described(kernel) == ("channelshuffle", (28, 16))


@pytest.mark.parametrize(
    "kernel",
    [
        plain("Gelu", "activation", 1, 197, 768),
        plain("Softmax", "activation", 1, 3, 197, 197),
        plain("ReorderInput", "layout", 1, 24, 28, 28),
        plain("LayerNormalization", "norm", 1, 197, 192),
        Kernel("onnxruntime", "MatMul", "matmul", (Tensor((4, 4)), Tensor((4, 4))), (Tensor((4, 4)),), (("k", 4),)),
        Kernel("onnxruntime", "Shape", "other", (), (Tensor((4,), "int64"),)),
    ],
)
def test_what_it_has_no_predictor_for(kernel: Kernel) -> None:
    assert described(kernel) is None


def test_the_sum_leaves_out_what_it_has_no_predictor_for() -> None:
    on = device()
    known, unknown = conv(16, 32, 14, size=3), plain("Gelu", "activation", 1, 197, 768)
    model = Forests().fit(rows_of([(known, on(known)), (unknown, 1.0)]))
    assert model.latency_s([known, unknown]) == pytest.approx(on(known))
    assert model.latency_s([unknown]) == 0.0


def test_rows_that_its_reader_drops() -> None:
    kernel = conv(16, 32, 14)
    assert [row.latency_s for row in rows_of([(kernel, 0.0), (kernel, 0.2), (kernel, -1e-6), (kernel, 0.1)])] == [0.1]


def test_it_learns_what_it_has_seen_and_knows_no_rows_of_a_matrix() -> None:
    on = device()
    kernels = [kernel for member in range(6) for kernel in kernels_of(0, member)]
    model = Forests().fit(rows_of([(kernel, on(kernel)) for kernel in kernels]))
    seen = kernels_of(0, 3)
    known_s = sum(on(kernel) for kernel in seen)
    assert model.latency_s(seen) == pytest.approx(known_s, rel=0.15)
    few, many = linear(1, 64, 64), linear(1000, 64, 64)
    matrices = Forests().fit(rows_of([(few, on(few)), (many, on(many))]))
    assert matrices.latency_s([few]) == matrices.latency_s([many])


def test_forests_have_the_published_parameters_and_are_kept_between_folds() -> None:
    on = device()
    convs, gemms = [conv(8 * i, 16, 14) for i in range(1, 5)], [linear(1, 8 * i, 16) for i in range(1, 5)]
    forests = Forests()
    one = forests.fit(rows_of((kernel, on(kernel)) for kernel in [*convs, *gemms]))
    two = forests.fit(rows_of((kernel, on(kernel)) for kernel in [*convs[1:], *gemms]))
    assert one.forests["fc"] is two.forests["fc"]
    assert one.forests["conv-bn-relu"] is not two.forests["conv-bn-relu"]
    found = one.forests["conv-bn-relu"].get_params()
    assert (found["max_depth"], found["n_estimators"], found["max_features"]) == FORESTS["conv-bn-relu"] == (70, 320, 6)


def test_a_configuration_seen_often_is_one_row_of_its_mean() -> None:
    kernel = conv(16, 32, 14)
    model = Forests().fit(rows_of([(kernel, 1e-3)] * 9 + [(kernel, 2e-3)]))
    assert model.latency_s([kernel]) == pytest.approx(1.1e-3)
    assert np.isfinite(model.latencies_s([[], []])).all()
