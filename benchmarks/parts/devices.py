"""Parts about devices: the roads to them, what is lost when they fail, and GPUs."""

from __future__ import annotations

import shutil

from ..part import (
    MEASURING,
    ORT,
    RUNTIME,
    TORCH,
    Part,
    on,
    script,
    selftest,
)
from ..picks import (
    at,
    channelled,
    gpu_closes,
    gpu_models,
    gpu_works,
    largest,
    share_of,
    total,
)
from ..rows import Figure, at_least, at_most

CHANNEL = Part(
    "channel", 4,
    commands=selftest("channel", *on(ORT, f"{ORT}@2")),
    quick=selftest("channel", *on(ORT), "--pairs", "5"),
    paths=(*MEASURING, *RUNTIME[ORT], "hwbench/channels/*", "hwbench/compare.py", "hwbench/selftest/channel.py",
           "hwbench/selftest/loopback.py"),
    figures=(
        Figure("equivalent", "this machine through ssh measures as it does directly: targets", "share", channelled,
               at_least(1.0)),
        Figure("difference", "… largest difference", "share", largest("difference")),
    ),
)  # fmt: skip

DOCTOR = Part(
    "doctor", 4,
    times=2,
    commands=(script("device"),),
    quick=(script("device"),),
    paths=("hwbench/doctor.py", "hwbench/cli/devices.py", "hwbench/channels/*", "hwbench/enrol/*",
           "benchmarks/device.py"),
    figures=(
        Figure("doctor_s", "`hwbench doctor` of a device behind ssh", "s", at("doctor_s"), at_most(20.0)),
        Figure("second_push", "bytes of artefacts that a second profile sends there", "bytes", at("second_push_bytes"),
               at_most(0)),
        Figure("first_push", "… that the first one sent", "bytes", at("first_push_bytes")),
    ),
)  # fmt: skip

FAULTS = Part(
    "faults", 4,
    commands=selftest("faults", "--times", "20"),
    quick=selftest("faults", "--times", "4"),
    paths=("hwbench/channels/*", "hwbench/remote.py", "hwbench/campaign.py", "hwbench/store/*",
           "hwbench/worker/__main__.py", "hwbench/worker/jobs.py", "hwbench/selftest/faults.py",
           "hwbench/selftest/loopback.py"),
    figures=(
        Figure("lost", "committed sessions lost when one of three devices fails", "count", total("committed_lost"),
               at_most(0)),
        Figure("processes", "faults after which a process was left on either side", "count", total("processes_left"),
               at_most(0)),
        Figure("others", "faults after which the other devices' results were whole", "share", share_of("others_whole"),
               at_least(1.0)),
        Figure("resumed", "faults after which the campaign resumed to the same set", "share",
               share_of("resumed_set_equal"), at_least(1.0)),
        Figure("struck", "faults that struck while something ran", "share", share_of("struck")),
    ),
)  # fmt: skip

FUZZ = Part(
    "fuzz", 4,
    commands=selftest("fuzz", "--inputs", "100000"),
    quick=selftest("fuzz", "--inputs", "10000"),
    paths=("hwbench/runtimes/benchmark_model*.py", "hwbench/android/*", "hwbench/device/*", "hwbench/enrol/survey.py",
           "hwbench/selftest/fuzz.py"),
    figures=(
        Figure("inputs", "mutated inputs over what devices print and users write", "count", total("inputs"),
               at_least(100_000)),
        Figure("wrong", "… that gave anything but an answer or an error of the tree", "count", total("wrong"),
               at_most(0)),
        Figure("hangs", "… that took more than five seconds", "count", total("hangs"), at_most(0)),
        Figure("slowest_s", "… the slowest", "s", largest("slowest_s")),
    ),
)  # fmt: skip


def _no_gpu() -> str:
    return "" if shutil.which("nvidia-smi") else "there is no NVIDIA GPU on this machine"


CUDA = Part(
    "cuda", 4,
    commands=(script("gpu"),),
    quick=(),
    paths=(*MEASURING, *RUNTIME[TORCH], "hwbench/worker/cuda_*.py", "hwbench/worker/gpu.py",
           "hwbench/worker/meters/nvml.py", "hwbench/closure.py", "hwbench/selftest/cuda.py", "benchmarks/gpu.py"),
    missing=_no_gpu,
    figures=(
        Figure("closes", "gpu0/torch: models whose layers and launch gap add up within 5 %", "share", gpu_closes,
               at_least(1.0)),
        Figure("models", "… models profiled with layers", "count", gpu_models, at_least(8)),
        Figure("works", "… checks, precisions and modes that did what they were asked", "share", gpu_works),
    ),
)  # fmt: skip
