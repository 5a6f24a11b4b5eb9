"""Networks on made devices whose every latency is known, for the tests of predictors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hwbench.kernel import Kernel, Tensor
from hwbench.predict import nn_meter
from hwbench.predict.examples import Example
from hwbench.predict.features import group_of

Device = Callable[[Kernel], float]

FACTORS = {
    "stem": 1.0, "dense": 1.0, "pointwise": 1.3, "depthwise": 3.0, "linear": 1.2, "product": 1.6,
    "elementwise": 1.0, "activation": 1.4, "norm": 2.5, "reduce": 1.0, "layout": 1.0,
}  # fmt: skip


def conv(
    channels: int,
    out: int,
    edge: int,
    *,
    size: int = 1,
    groups: int = 1,
    runtime: str = "onnxruntime",
    layout: str = "nchwc",
) -> Kernel:
    """A convolution of stride 1 with a fused activation, over blocks of channels."""
    return Kernel(
        runtime,
        "Conv",
        "conv",
        (Tensor((1, channels, edge, edge)), Tensor((out, channels // groups, size, size), constant=True)),
        (Tensor((1, out, edge, edge)),),
        (("kernel_shape", (size, size)), ("groups", groups), ("in_channels", channels), ("strides", (1, 1))),
        "Relu",
        layout,
    )


def linear(rows: int, channels: int, out: int) -> Kernel:
    """A matrix product with constant weights."""
    inputs = (Tensor((rows, channels)), Tensor((channels, out), constant=True))
    return Kernel("onnxruntime", "Gemm", "matmul", inputs, (Tensor((rows, out)),), (("k", channels),))


def plain(op: str, kind: str, *shape: int, operands: int = 1) -> Kernel:
    """A kernel without weights whose inputs and output are alike."""
    return Kernel("onnxruntime", op, kind, tuple(Tensor(shape) for _ in range(operands)), (Tensor(shape),))


def device(scale: float = 1.0, strength: float = 0.0, launch_s: float = 1e-6) -> Device:
    """A device: each group's rate differs from the reference's by its factor to the power of ``strength``."""

    def latency_s(kernel: Kernel) -> float:
        cost = kernel.cost()
        work_s = max(cost.macs / 2e10, cost.moved_bytes / 8e9)
        return launch_s + scale * FACTORS[group_of(kernel)] ** strength * work_s

    return latency_s


def kernels_of(family: int, member: int) -> tuple[Kernel, ...]:
    """A network: mobile, dense or with attention by its family, as wide and deep as its number says."""
    random = np.random.default_rng(1000 * family + member)
    width = 8 * int(random.integers(2, 9)) + 8 * family
    found: list[Kernel] = [conv(3, width, 64, size=3)]
    for stage in range(1, 4):
        edge, channels = 64 >> stage, width << (stage - 1)
        for _ in range(int(random.integers(1, 5))):
            if family % 3 == 0:
                found += [
                    conv(channels, 2 * channels, edge),
                    conv(2 * channels, 2 * channels, edge, size=3, groups=2 * channels),
                    conv(2 * channels, channels, edge),
                    plain("Add", "elementwise", 1, channels, edge, edge, operands=2),
                ]
            elif family % 3 == 1:
                found += [conv(channels, channels, edge, size=3), plain("Relu", "activation", 1, channels, edge, edge)]
            else:
                tokens = edge * edge // 4
                found += [
                    plain("LayerNormalization", "norm", 1, tokens, channels),
                    linear(tokens, channels, 2 * channels),
                    plain("Gelu", "activation", 1, tokens, 2 * channels),
                    linear(tokens, 2 * channels, channels),
                ]
        found.append(conv(channels, 2 * channels, edge))
    return tuple(found)


def example(
    name: str,
    family: str,
    kernels: Sequence[Kernel],
    on: Device,
    *,
    target: str = "local-cpu/onnxruntime:fp32@1x1",
    noise: float = 0.0,
    seed: int = 0,
    totals: int = 1,
) -> Example:
    """A measured network; totals scatter by ``noise`` (sd of the log)."""
    kernel_s = tuple(on(kernel) for kernel in kernels)
    random = np.random.default_rng(seed)
    return Example(
        identity=f"{name}@1x3x64x64",
        name=name,
        family=family,
        target=target,
        sha256=f"{target} {name}",
        kernels=tuple(kernels),
        kernel_s=kernel_s,
        beta_s=(0.0,) * len(kernel_s),
        totals_s=tuple(float(sum(kernel_s) * np.exp(noise * random.standard_normal())) for _ in range(totals)),
        device_time_s=2.0,
    )


def networks(
    families: int, members: int, on: Device, *, target: str = "local-cpu/onnxruntime:fp32@1x1", noise: float = 0.0
) -> list[Example]:
    """``families`` x ``members`` networks, measured twice."""
    return [
        example(
            f"f{family}n{member}", f"family{family}", kernels_of(family, member), on,
            target=target, noise=noise, seed=100 * family + member, totals=2,
        )
        for family in range(families)
        for member in range(members)
    ]  # fmt: skip


def small_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    """For evaluations: the baseline's forests are tested in a file of their own, and take most of the time; processes
    for four small folds take longer than the folds."""
    monkeypatch.setattr("hwbench.predict.evaluate.JOBS", 1)
    forests = {kind: (depth, 3, 1) for kind, (depth, _, _) in nn_meter.FORESTS.items()}
    monkeypatch.setattr(nn_meter, "FORESTS", forests)
