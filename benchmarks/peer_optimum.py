"""optimum-benchmark on one model; runs in the peers' environment: ``peer_optimum.py BACKEND MODEL MODEL.onnx``.

BACKEND is ``onnxruntime`` (the file, on one thread) or ``pytorch`` (timm's MODEL, random weights, on one thread).
Prints the latencies that its report holds, and the seconds that were spent before it began.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def renamed(source: Path, folder: Path) -> tuple[int, ...]:
    """The model with the names that optimum expects of an image classifier, beside a configuration; its input's shape.

    optimum finds a model's inputs by their names in transformers. The graph stays as it is.
    """
    import onnx

    model = onnx.load(str(source))
    new = {model.graph.input[0].name: "pixel_values", model.graph.output[0].name: "logits"}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new.get(name, name)
    for value in (*model.graph.input, *model.graph.output):
        value.name = new.get(value.name, value.name)
    onnx.save(model, str(folder / "model.onnx"))
    shape = tuple(each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim)
    # Any kind of image classifier: it decides what the input is called and nothing that is run.
    config = {"model_type": "vit", "image_size": shape[2], "num_channels": shape[1], "architectures": ["ViT"]}
    (folder / "config.json").write_text(json.dumps(config))
    return shape


def backend(name: str, model: str, folder: Path) -> Any:
    from optimum_benchmark import ORTConfig, PyTorchConfig  # type: ignore[import-not-found]  # of another environment

    threads = {"inter_op_num_threads": 1, "intra_op_num_threads": 1}
    if name == "pytorch":
        return PyTorchConfig(
            model=model, library="timm", task="image-classification", model_type=model, device="cpu", **threads
        )
    return ORTConfig(
        model=str(folder), library="transformers", task="image-classification", model_type="vit", device="cpu",
        provider="CPUExecutionProvider", export=False, session_options=threads,
    )  # fmt: skip


def main(name: str, model: str, path: str) -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        batch, channels, height, width = renamed(Path(path), Path(place))
        prepared_s = time.monotonic() - start
        from optimum_benchmark import Benchmark, BenchmarkConfig, InferenceConfig, ProcessConfig

        shapes = {"batch_size": batch, "num_channels": channels, "height": height, "width": width}
        config = BenchmarkConfig(
            name=model, launcher=ProcessConfig(), backend=backend(name, model, Path(place)),
            scenario=InferenceConfig(input_shapes=shapes),
        )  # fmt: skip
        latency = Benchmark.launch(config).forward.latency
    print(json.dumps({"values_s": list(latency.values), "prepared_s": prepared_s}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
