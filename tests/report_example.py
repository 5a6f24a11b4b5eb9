"""Made-up results for the report: ``python tests/report_example.py PATH`` writes them as a page to look at."""

from __future__ import annotations

import random
import sys
from typing import Any

from hwbench.report import predicted, write

SCRIPT = "<script>alert(1)</script>"
HOSTILE = (
    SCRIPT,
    "</script><img src=x onerror=alert(2)>",
    "a\u2028b\u2029c",
    "$\\frac{a}$ & <b>bold</b> \ud800 'q' \"r\"",
)

# name, family, top-1, size of the published top-1, MACs, params, seconds on the first target
ZOO = (
    ("mobilenetv3_small_100", "mobilenetv3", 67.66, 224, 57e6, 2.54e6, 2.9e-3),
    ("lcnet_100", "lcnet", 72.10, 224, 161e6, 2.95e6, 4.1e-3),
    ("tinynet_c", "tinynet", 71.23, 184, 103e6, 2.46e6, 3.6e-3),
    ("mobilenetv2_100", "mobilenetv2", 72.97, 224, 301e6, 3.50e6, 7.7e-3),
    ("mnasnet_100", "mnasnet", 74.66, 224, 315e6, 4.38e6, 7.5e-3),
    ("mobilenetv3_large_100", "mobilenetv3", 75.77, 224, 217e6, 5.48e6, 6.9e-3),
    ("fbnetc_100", "fbnet", 75.12, 224, 385e6, 5.57e6, 8.9e-3),
    ("ghostnet_100", "ghostnet", 73.97, 224, 149e6, 5.18e6, 9.6e-3),
    ("efficientnet_lite0", "efficientnet", 75.48, 224, 398e6, 4.65e6, 9.4e-3),
    ("repvit_m1", "repvit", 78.54, 224, 826e6, 5.10e6, 16.1e-3),
    ("efficientnet_b0", "efficientnet", 77.70, 224, 391e6, 5.29e6, 13.2e-3),
    ("resnet18", "resnet", 69.76, 224, 1814e6, 11.69e6, 21.4e-3),
    ("resnet50", "resnet", 80.38, 224, 4089e6, 25.56e6, 52.7e-3),
    ("deit_tiny_patch16_224", "vit", 72.17, 224, 1258e6, 5.72e6, 24.8e-3),
    ("ssdlite320_mobilenet_v3_large", "ssdlite", None, None, 583e6, 3.44e6, 18.3e-3),
)
TARGETS = (
    ("local-cpu/onnxruntime:fp32@1x1", 1.0),
    ("local-cpu/litert:fp32@1x1", 1.35),
    ("local-cpu/torch:fp32@1x1", 2.4),
)
OPS = (
    ("Conv", "conv", 0.5),
    ("Mul", "elementwise", 0.2),
    ("HardSwish", "activation", 0.15),
    ("GlobalAveragePool", "pool", 0.12),
    ("Gemm", "matmul", 0.3),
    ("ReorderOutput", "layout", 0.1),
)


def layers(rng: random.Random, total_s: float, count: int) -> list[dict]:
    found = []
    for i in range(count):
        op, kind, weight = OPS[0] if i % 3 == 0 else rng.choice(OPS)
        found.append(
            {
                "name": f"/blocks/{i // 8}/{i % 8}/{op}",
                "module": f"blocks.{i // 8}.{i % 8}.{op.lower()}",
                "op": op,
                "kind": kind,
                "latency_s": weight * rng.lognormvariate(0, 0.9),
                "macs": int(5e6 * rng.random()) if kind in ("conv", "matmul") else 0,
                "param_bytes": int(4e5 * rng.random()),
                "input_bytes": 401408,
                "output_bytes": 200704,
                "live_bytes": 1204224 + 4096 * (i % 9),
                "sources": [f"node_{i}", f"fused_{i}"] if op == "Conv" else [f"node_{i}"],
            }
        )
    scale = total_s / sum(row["latency_s"] for row in found)
    return [{**row, "latency_s": row["latency_s"] * scale} for row in found]


def result(entry: tuple, target: str, factor: float, seed: int = 0) -> dict:
    """A result object with everything in it, as ``profile --json`` would print it."""
    name, family, top1, top1_size, macs, params, seconds = entry
    rng = random.Random(f"{name} {target} {seed}")
    median = seconds * factor * rng.uniform(0.85, 1.2)
    sessions = [median * rng.gauss(1, 0.012) for _ in range(8)]
    size = 320 if "320" in name else 224
    caveats = (
        [
            {
                "code": "precision_not_met",
                "text": "The interval is ± 1.6 %, wider than the ± 1 % asked for.",
                "remedy": "Use --preset rigorous, or give the machine less else to do.",
            }
        ]
        if rng.random() < 0.2
        else []
    )
    return {
        "model": name,
        "identity": f"{name}@1x3x{size}x{size}",
        "target": target,
        "family": family,
        "top1": top1,
        "top5": None,
        "top1_source": "timm results",
        "weights_tag": "in1k",
        "input_size": size,
        "top1_input_size": top1_size,
        "published": [{"latency_s": 0.078, "device": "Pixel 1", "source": "the paper"}],
        "latency_s": {
            "median": median,
            "low": median * 0.988,
            "high": median * 1.013,
            "anchored": median * 0.99,
            "anchored_low": median * 0.985,
            "anchored_high": median * 0.996,
            "anchor_ref": "a1",
            "sessions": 8,
            "samples": 1312,
            "half_width": 0.006,
            "percentiles": {"p90": median * 1.04},
        },
        "layers": layers(rng, median * 0.982, 64),
        "closure": {
            "sum_s": median * 0.982,
            "raw_sum_s": median * 1.05,
            "residual_s": median * 0.018,
            "ratio": 0.982,
            "beta": {"b0_s": 6.1e-7, "b1_s": 6e-8},
            "profiled_over_plain": 1.12,
        },
        "memory": {
            "weights_bytes": int(params * 4),
            "baseline_bytes": 91 << 20,
            "peak_bytes": int(params * 9 + 2e7),
            "arena_peak_bytes": 12 << 20,
            "device_bytes": None,
            "live_activation_bytes": 4816896,
        },
        "energy": {"unavailable": "no RAPL counter under /sys/class/powercap", "remedy": "Run on bare metal."},
        "macs": int(macs),
        "params": int(params),
        "caveats": caveats,
        "environment": {
            "device": {
                "cpu_model": "Example CPU @ 2.40GHz",
                "cores": 2,
                "threads_available": 2,
                "memory_bytes": 8 << 30,
                "machine": "x86_64",
                "os": "Linux",
                "kernel": "6.1.0",
            },
            "versions": {"python": "3.11.2", "onnxruntime": "1.31.0"},
            "governor": None,
            "temp_c": None,
            "throttled": [],
            "clock_hz": {"now": 2.4e9 * rng.uniform(0.98, 1), "min": None, "max": None},
            "load_1m": rng.random(),
            "aslr": True,
            "power_source": "mains",
        },
        "sessions": [
            {
                "uid": f"{name}-{i}",
                "started_at": f"2026-01-05T10:{i:02d}:00+00:00",
                "median_s": s,
                "anchored_s": s * 0.99,
                "block_medians_s": [s * (1.0 + 0.001 * (b % 2) + 0.2 * (i == 3 and b >= 4)) for b in range(8)],
                "samples": 164,
                "steady": True,
            }
            for i, s in enumerate(sessions)
        ],
    }


def failure(model: str = "mobilevit_xxs", target: str = TARGETS[1][0]) -> dict:
    return {"model": model, "target": target, "error": {
        "type": "WorkerError", "message": "The export of mobilevit_xxs failed: operator aten::fold has no lowering.",
        "remedy": "Profile it on local-cpu/onnxruntime.", "detail": "Traceback …\n  NotImplementedError: aten::fold",
        "exit_code": 4}}  # fmt: skip


def example() -> list[dict]:
    """15 models on 3 targets, one of them failed, and a model whose names attack the page."""
    results = [result(entry, target, factor) for entry in ZOO for target, factor in TARGETS]
    energetic = results[3]
    energetic["energy"] = {"method": "rapl", "gross_j": 0.21, "net_j": 0.13, "low_j": 0.127, "high_j": 0.134,
                           "windows": [{"net_j": 0.13}] * 5, "layers": []}  # fmt: skip
    return [*results, failure(), hostile()]


def foreseen(count: int = 12, target: str = TARGETS[0][0]) -> list[dict]:
    """Predicted points of a space, one of them with a name that attacks the page."""
    rng = random.Random(5)
    names = [f"ofa:{i}" for i in range(count - 1)] + ["=cmd|' /C calc'!A0,\"<b>"]
    return predicted(
        [
            {"model": name, "latency_s": s, "low_s": 0.97 * s, "high_s": 1.03 * s, "top1": 66 + 900 * s,
             "family": "ofa-mbv3"}
            for name in names for s in [rng.uniform(2e-3, 9e-3)]
        ],
        target,
    )  # fmt: skip


def beside() -> dict[str, Any]:
    """A table, its validation and a predictor's evaluation, as ``render`` takes them; names in them attack the page."""
    rng = random.Random(9)
    truth = [rng.lognormvariate(-5, 0.5) for _ in range(30)]
    table = {
        "kind": "space", "space": "ofa-mbv3", "target": TARGETS[0][0], "entries": 450, "once": 12,
        "methods": {"in context": 448, "interpolated": 2}, "correction": {"scale": 1.05},
        "flagged": [{"key": HOSTILE[1], "flag": "drift", "why": SCRIPT, "sentence": ["It moved.", "Measure again."]}],
        "context": {"build": {"device_time_s": 358.0}, "networks": ["a", "b"], "missing": ["c"],
                    "cross_validation": {"mape": 0.0135, "plain_sum_mape": 0.0346}, "versions": {"onnxruntime": "1.31"},
                    "measured": [{"arch": "0120", "latency_s": s, "held_out_error": 0.01} for s in truth]},
    }  # fmt: skip
    validation = {
        "space": "ofa-mbv3", "target": TARGETS[0][0], "networks": 30, "mape": 0.0129, "within_5": 1.0, "within_10": 1.0,
        "spearman": 0.996, "repeat_error": 0.018, "floor": 0.009, "missing": 0, "failed": {SCRIPT: HOSTILE[1]},
        "baselines": {"macs": {"mape": 0.025, "spearman": 0.99}, SCRIPT: {"mape": 0.2}, "plain_sum": None},
        "points": [{"arch": SCRIPT, "predicted_s": 1.01 * s, "first_s": s, "second_s": 1.01 * s} for s in truth],
    }  # fmt: skip
    evaluation = {
        "networks": 60, "families": 20, "mape": 0.031, "within_5": 0.8, "within_10": 0.96, "spearman": 0.99,
        "interval_90": 0.91, "interval_90_width": 0.15, "op_coverage": 1.0, "repeat_error": 0.019,
        "train_device_time_s": 1800.0, "baselines": {"nn_meter_method": {"mape": 0.128, "within_10": 0.55}},
        "points": [{"model": f"m{i}", "family": f"f{i % 4}", "measured_s": s, "predicted_s": s, "low_s": 0.9 * s,
                    "high_s": 1.1 * s} for i, s in enumerate(truth)],
    }  # fmt: skip
    return {"lookup_tables": [table], "validations": [validation], "evaluations": [evaluation]}


def hostile() -> dict:
    evil = result((HOSTILE[0], HOSTILE[1], 60.0, 224, 1e8, 1e6, 5e-3), TARGETS[0][0], 1.0)
    evil["layers"][0].update(name=HOSTILE[1], module=SCRIPT, op=HOSTILE[2], kind=HOSTILE[3], latency_s=9e-4)
    evil["layers"][0]["sources"] = [SCRIPT, HOSTILE[1]]
    evil["caveats"] = [{"code": SCRIPT, "text": HOSTILE[1], "remedy": HOSTILE[3]}]
    evil["environment"] = {"device": {"cpu_model": SCRIPT}, SCRIPT: HOSTILE[1]}
    evil["energy"] = {"unavailable": HOSTILE[1], "remedy": SCRIPT}
    evil.update(identity=HOSTILE[3], top1_source=SCRIPT, weights_tag=SCRIPT)
    return evil


if __name__ == "__main__":
    print(write([*example(), *foreseen()], sys.argv[1], **beside()))
