"""Parts about the predictor and the report."""

from __future__ import annotations

from ..part import (
    LITERT,
    MEASURING,
    ORT,
    PREDICTOR,
    RUNTIME,
    TORCH,
    Command,
    Part,
    hwbench,
    script,
    selftest,
)
from ..picks import (
    at,
    noted,
    over,
    page_size,
    row_named,
    share_of,
)
from ..rows import Bar, Figure, at_least, at_most


def _train(target: str, file: str, budget: str) -> Command:
    words = ("predictor", "train", "--on", target, "-o", f"{{out}}/{file}", "--budget", budget, "--twice")
    return hwbench(*words, tells=False)


def _evaluated(name: str, target: str, figures: tuple[Figure, ...], budget: str = "30m") -> Part:
    return Part(
        name, 5,
        commands=(_train(target, f"{name}.hwp", budget), hwbench("predictor", "evaluate", f"{{out}}/{name}.hwp")),
        quick=(),
        paths=(*MEASURING, *RUNTIME[target], *PREDICTOR),
        figures=figures,
    )  # fmt: skip


def _within(target: str, share: float) -> Figure:
    what = f"{target.partition('/')[2]}, families left out whole: networks within ±10 %"
    return Figure("within_10", what, "share", at("within_10", "networks"), at_least(share))


_MAPE = at("mape", "networks", "repeat_error")
PREDICTORS = (
    _evaluated("predictor", ORT, (
        _within(ORT, 0.95),
        Figure("mape", "… mean error", "share", _MAPE, at_most(0.04)),
        Figure("ops", "… kernels that get a figure", "share", at("op_coverage"), at_least(1.0)),
        Figure("interval_90", "… 90 % intervals cover, families alike", "share", at("interval_90", "networks"),
               Bar(0.82, 0.97)),
        Figure("interval_width", "… their median relative width", "share", at("interval_90_width", "networks"),
               at_most(0.2)),
        Figure("over_nn_meter", "… error over that of nn-Meter's method", "x",
               over("mape", "baselines.nn_meter_method.mape", "networks", "repeat_error"), at_most(1 / 3)),
        Figure("over_macs", "… error over that of a line through MACs", "x",
               over("mape", "baselines.macs.mape", "networks", "repeat_error")),
        Figure("device_time_s", "… device time for training", "s", at("train_device_time_s"), at_most(3600.0)),
        Figure("families", "… families", "count", at("families"), at_least(20)),
        Figure("networks", "… networks", "count", at("networks"), at_least(60)),
    ), "45m"),
    _evaluated("predictor-torch", TORCH, (_within(TORCH, 0.8), Figure("mape", "… mean error", "share", _MAPE))),
    _evaluated("predictor-litert", LITERT, (_within(LITERT, 0.8), Figure("mape", "… mean error", "share", _MAPE))),
)  # fmt: skip


def _transfer(name: str, target: str, store: str, before: tuple[Command, ...] = ()) -> Part:
    adapt = hwbench("predictor", "adapt", "{out}/predictor.hwp", "--on", target, "--samples", "10", "--repeats", "20",
                    "--evaluate", store=store)  # fmt: skip
    there = f"onnxruntime to {target.partition('/')[2]} with 10 networks"
    needs = [("predictor.hwp", "predictor")] + ([] if before else [(f"{store}.db", store)])
    return Part(
        name, 5,
        commands=(*before, adapt),
        quick=(),
        paths=PREDICTOR,
        needs=tuple(needs),
        figures=(
            Figure("over_scaled", f"{there}: error over that of the scaled source", "x",
                   over("mape", "baselines.scaled_source.mape", "networks"), at_most(0.5)),
            Figure("over_macs", "… over that of a line through MACs", "x",
                   over("mape", "baselines.macs.mape", "networks"), at_most(0.5)),
            Figure("spearman", "… Spearman's correlation", "x", at("spearman", "networks"), at_least(0.95)),
            Figure("spearman_within", "… the same inside one space, median", "x",
                   at("spearman_within_space", "networks"), at_least(0.95)),
            Figure("mape", "… mean error", "share", at("mape", "networks")),
        ),
    )  # fmt: skip


TRANSFERS = (
    _transfer("transfer-litert", LITERT, "predictor-litert"),
    _transfer("transfer-torch", TORCH, "predictor-torch"),
    _transfer("transfer-ort-2", f"{ORT}:fp32@2", "", (_train(f"{ORT}:fp32@2", "ort-2.hwp", "15m"),)),
)

BY_HAND = Part(
    "by-hand", 5,
    commands=(script("by_hand", "{out}/predictor.hwp", store="predictor"),),  # whose anchor's reference it learnt at
    quick=(),
    paths=(*MEASURING, *RUNTIME[ORT], *PREDICTOR, "benchmarks/by_hand.py", "benchmarks/hand_networks/*"),
    needs=(("predictor.hwp", "predictor"),),
    figures=(
        Figure("within_10", "networks written by hand, onnxruntime: within ±10 %", "share", share_of("within_10")),
        Figure("mape", "… mean error", "share", at("mape", "networks")),
        Figure("median_error", "… median error", "share", at("median_error", "networks")),
        Figure("interval_90", "… 90 % intervals cover", "share", share_of("covered")),
        Figure("second", "… those written after the predictor was taught what the first lacked", "share",
               share_of("within_10", "set", "second")),
        Figure("third", "… those by someone who had not seen it, looked at since", "share",
               share_of("within_10", "set", "third")),
        Figure("third_interval_90", "… 90 % intervals cover these", "share", share_of("covered", "set", "third")),
        Figure("fourth", "… those of another who had not seen it, their errors seen since", "share",
               share_of("within_10", "set", "fourth")),
        Figure("fourth_interval_90", "… 90 % intervals cover these", "share", share_of("covered", "set", "fourth")),
    ),
)  # fmt: skip

SPEED = Part(
    "predict-speed", 5,
    times=2,
    commands=selftest("predict", "--with", "{out}/predictor.hwp"),
    quick=(),
    paths=(*PREDICTOR, "hwbench/selftest/predicting.py"),
    needs=(("predictor.hwp", "predictor"),),
    figures=(
        Figure("warm_s", "predicting mobilenetv3_large_100, warm", "s", row_named("a warm answer", "value_s"),
               at_most(0.020)),
        Figure("first_s", "… the first answer", "s", row_named("the first answer", "value_s")),
    ),
)  # fmt: skip

REPORT = Part(
    "report", 5,
    times=2,
    commands=(script("page_size"), *selftest("report")),
    quick=(script("page_size"), *selftest("report")),
    paths=("hwbench/report/*", "hwbench/selftest/page.py", "benchmarks/page_size.py"),
    figures=(
        Figure("front_s", "the report with 5,000 points: drawing the front", "s",
               row_named("drawing the front", "seconds"), at_most(2.0)),
        Figure("switch_s", "… drawing it again after a switch", "s", row_named("drawing it again", "seconds"),
               at_most(2.0)),
        Figure("budget_s", "… moving the budget line", "s", row_named("moving the budget", "seconds"), at_most(2.0)),
        Figure("leaks", "… console messages, and requests that leave the page", "count",
               noted(r"(\d+) messages on the console, (\d+) requests"), at_most(0)),
        Figure("size", "… size of the file", "bytes", page_size),
    ),
)  # fmt: skip
