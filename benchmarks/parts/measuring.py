"""Parts about measuring itself: intervals, layers, comparisons, what is lost and how long things take."""

from __future__ import annotations

from hwbench.demo import MODELS as DEMO_MODELS

from ..part import (
    CHECKS,
    COUNTED,
    ESTIMATE,
    LITERT,
    MEASURING,
    ORT,
    RUNTIME,
    TORCH,
    Part,
    models,
    on,
    script,
    selftest,
)
from ..picks import (
    at,
    coverage,
    known_share,
    median,
    repeated,
    share_of,
    smallest,
    total,
    verdicts,
    within,
)
from ..rows import Bar, Figure, at_least, at_most

_FEW = ("mobilenetv2_100", "resnet18", "lcnet_100")
_EIGHT = ("mobilenetv2_100", "mobilenetv3_large_100", "mnasnet_100", "fbnetc_100", "efficientnet_lite0", "lcnet_100",
          "resnet18", "deit_tiny_patch16_224")  # fmt: skip

START_UP = Part(
    "start-up", 2,
    commands=(script("start_up"),),
    quick=(script("start_up", "5"),),
    paths=("hwbench/__init__.py", "hwbench/__main__.py", "hwbench/cli/*", "hwbench/api.py", "hwbench/errors.py",
           "hwbench/units.py", "hwbench/target.py", "benchmarks/start_up.py"),
    figures=(
        Figure("help_s", "`hwbench --help`, median", "s", at("help_s", "times", "repeat_error"), at_most(0.25)),
        Figure("heavy", "heavy packages that `import hwbench` pulls in", "count", at("heavy_count"), at_most(0)),
        Figure("import_s", "`import hwbench`, median", "s", at("import_s", "times")),
    ),
)  # fmt: skip

COVERAGE = Part(
    "coverage", 2,
    commands=selftest("coverage", "--campaigns", "2000"),
    quick=selftest("coverage", "--campaigns", "200"),
    paths=(*ESTIMATE, "hwbench/simulate.py", "hwbench/selftest/counted.py"),
    figures=(
        Figure("lowest", "nominal 95 % intervals cover, anchored, worst preset", "share", coverage("coverage", min),
               Bar(0.93, 0.97)),
        Figure("highest", "… best preset", "share", coverage("coverage", max), Bar(0.93, 0.97)),
        Figure("raw", "… raw intervals, which drift takes off the reference", "share", coverage("raw_coverage", min)),
        Figure("campaigns", "simulated campaigns for each preset and scenario", "count", smallest("campaigns"),
               at_least(2000)),
    ),
)  # fmt: skip

MACS = Part(
    "macs", 2,
    commands=selftest("macs"),
    quick=selftest("macs"),
    paths=("hwbench/catalog/*.py", "hwbench/catalog/models.toml", "hwbench/kernel.py", *COUNTED),
    figures=(
        Figure("macs", "catalog entries whose MACs are within 2 % of torch's own counter", "share",
               within("difference", 0.02), at_least(0.95)),
        Figure("params", "… whose parameters are the published ones to 0.01 M", "share", known_share("params_agree"),
               at_least(1.0)),
    ),
)  # fmt: skip


def _closure(name: str, target: str, limit: str, names: tuple[str, ...]) -> Part:
    runtime = target.partition(":")[0]
    return Part(
        name, 2,
        commands=selftest("closure", *on(target), *models(*names)),
        quick=selftest("closure", *on(target), *models(*_FEW)),
        paths=(*MEASURING, *RUNTIME[runtime], *CHECKS, "hwbench/closure.py"),
        figures=(
            Figure("closes", f"{target}: models whose corrected layers add up within {limit}", "share",
                   share_of("closes"), at_least(0.9)),
            Figure("ratio", "… corrected sum over un-profiled latency, median", "x", median("ratio")),
            Figure("raw_ratio", "… uncorrected sum over it, median", "x", median("raw_ratio")),
            Figure("module_share", "… layer time that carries a module path, least", "share", smallest("module_share"),
                   at_least(0.98)),
        ),
    )  # fmt: skip


CLOSURES = (
    _closure("closure-ort", ORT, "5 %", ()),
    _closure("closure-ort-2", f"{ORT}:fp32@2", "5 %", ()),
    _closure("closure-litert", LITERT, "5 %", _EIGHT),
    _closure("closure-torch", TORCH, "10 %", _EIGHT),
)
"""Without names: the selftest's own 21 models."""

AA = Part(
    "aa", 2,
    commands=selftest("aa", *on(ORT), "--pairs", "100", "--busy"),
    quick=selftest("aa", *on(ORT), "--pairs", "4", "--busy"),
    paths=(*MEASURING, *RUNTIME[ORT], *CHECKS, "hwbench/compare.py"),
    figures=(
        Figure("different", "equals called different, beside a busy process", "share",
               verdicts(0, ("faster", "slower")), at_most(0.09)),
        Figure("found", "+3 % of the same kernels called slower", "share", verdicts(1, ("slower",)), at_least(0.8)),
    ),
)  # fmt: skip

_BASE = f"{ORT}:fp32@1x1"
REPEAT = Part(
    "repeat", 2,
    commands=selftest("repeat", *on(ORT, f"{ORT}@2")),
    quick=selftest("repeat", *on(ORT), *models(*_FEW), "--gap", "1s", "--preset", "quick"),
    paths=(*MEASURING, *RUNTIME[ORT], *CHECKS),
    figures=(
        Figure("anchored", "anchored medians half an hour apart, half of the blocks disturbed: mean difference",
               "share", repeated("anchored", _BASE), at_most(0.015)),
        Figure("over_raw", "… over that of raw medians", "x", repeated("ratio", _BASE), at_most(0.5)),
        Figure("raw", "… raw medians", "share", repeated("raw", _BASE)),
        Figure("transformers", "… anchored, transformers", "share", repeated("anchored", _BASE, "transformer")),
        Figure("memory_bound", "… anchored, memory-bound networks", "share",
               repeated("anchored", _BASE, "memory-bound")),
        Figure("two_threads", "… anchored, two threads", "share", repeated("anchored", f"{ORT}:fp32@2")),
    ),
)  # fmt: skip

PRECISION = Part(
    "precision", 2,
    commands=selftest("precision", *on(ORT, LITERT), *models(*DEMO_MODELS)),
    quick=selftest("precision", *on(ORT), *models(*_FEW[:2])),
    paths=(*MEASURING, *RUNTIME[ORT], *RUNTIME[LITERT], *CHECKS),
    figures=(
        Figure("onnxruntime", "preset `default` reaches ±1 %, anchored: the demo's models on onnxruntime", "share",
               share_of("met", "target", ORT), at_least(0.8)),
        Figure("litert", "… on litert", "share", share_of("met", "target", LITERT), at_least(0.8)),
        Figure("half_width", "… half-width on onnxruntime, median", "share", median("half_width", "target", ORT)),
        Figure("cost_s", "… device time a model, median", "s", median("device_time_s"), at_most(30.0)),
    ),
)  # fmt: skip

KILL = Part(
    "kill", 2,
    commands=selftest("kill", "--times", "20"),
    quick=selftest("kill", "--times", "3"),
    paths=("hwbench/store/*", "hwbench/campaign.py", "hwbench/results.py", *COUNTED),
    figures=(
        Figure("lost", "committed sessions lost when campaigns are killed at random moments", "count",
               total("committed_lost"), at_most(0)),
        Figure("resumed", "killed campaigns that resume to the same set", "share", share_of("resumed_set_equal"),
               at_least(1.0)),
    ),
)  # fmt: skip

_FRESH = ("Makefile", "pyproject.toml", "benchmarks/fresh_clone.py")
DEMO = Part(
    "demo", 2,
    commands=(script("fresh_clone", "demo"),),
    quick=(),
    paths=(*_FRESH, "hwbench/demo.py", "hwbench/cli/demo.py"),
    figures=(
        Figure("all_s", "`make demo` in a fresh clone, environment included", "s", at("seconds"), at_most(1200.0)),
        Figure("results", "… results on its page: models × runtimes", "count", at("results"), at_least(36)),
    ),
)  # fmt: skip
SUITE = Part(
    "suite", 2,
    commands=(script("fresh_clone", "test"),),
    quick=(),
    paths=(*_FRESH, "tests/*"),
    figures=(
        Figure("all_s", "`make test` in a fresh clone, environment included", "s", at("seconds"), at_most(1200.0)),
        Figure("failed", "… exit status", "count", at("exit_status"), at_most(0)),
    ),
)  # fmt: skip
