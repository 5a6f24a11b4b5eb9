"""``hwbench profile``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import HwbenchError
from ..target import Target
from . import options

if TYPE_CHECKING:
    from ..campaign import Failure

RESUME = "Every finished session is stored; the same command with --resume goes on."


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@options.on(required=True)
@click.option(
    "--preset", default="default", show_default=True, metavar="NAME",
    help="How much to measure: quick, default, rigorous or mlperf-mobile.",
)  # fmt: skip
@click.option(
    "--passes", default="latency,layers,memory,energy", show_default=True, metavar="A,B", help="What to measure."
)
@click.option(
    "--input", "inputs", metavar="NAME=SHAPE", multiple=True, callback=options.shapes,
    help="Shape of an input, e.g. input=1,3,192,192; part of the model's identity. Repeat it for more.",
)  # fmt: skip
@click.option("--pretrained", is_flag=True, help="Trained weights (downloads them) instead of random ones.")
@options.timeout()
@click.option("--resume", is_flag=True, help="Go on with the sessions that an equal, interrupted command left.")
@options.JSON
@click.pass_obj
def profile(
    context: dict[str, Any],
    models: tuple[str, ...],
    on: tuple[Target, ...],
    preset: str,
    passes: str,
    inputs: dict[str, tuple[int, ...]] | None,
    pretrained: bool,
    timeout_s: float,
    resume: bool,
    as_json: bool,
) -> None:
    """Measure models on targets and keep every session in the store.

    A MODEL is a timm or torchvision name, the path of an .onnx or .tflite file, or python:package.module:factory, each
    with @SIZE if you like, or space:NAME:CODE. A name or file that cannot be made out stops all of them before anything
    runs; when some cannot be measured the others still are, and the exit code is the first failure's.

    \b
    Examples:
      hwbench profile mobilenetv2_100 resnet18@192 --on local-cpu/onnxruntime --on local-cpu/torch@2
      hwbench profile net.onnx --on local-cpu/onnxruntime --input images=1,3,640,640 --passes latency --json
    """
    from ..api import profile_many
    from . import progress

    context["model"], context["target"] = models[0] if len(models) == 1 else None, str(on[0]) if len(on) == 1 else None
    context["resume"] = RESUME
    with progress.sessions() as tell:
        found = profile_many(
            models,
            on,
            inputs=inputs,
            preset=preset,
            passes=[name.strip() for name in passes.split(",") if name.strip()],
            pretrained=pretrained,
            resume=resume,
            progress=tell,
            timeout_s=timeout_s,
        )
    errors = [failure.error for failure in output(found, as_json)]
    errors += [error for item in found for error in getattr(item, "faults", {}).values()]
    if errors:
        click.get_current_context().exit(errors[0].exit_code)


def output(found: Sequence[Any], as_json: bool) -> list[Failure]:
    """Print results in their order, failures among them; returns the failures."""
    from ..campaign import Failure
    from . import result, terminal

    out = terminal.console()
    failures = [item for item in found if isinstance(item, Failure)]
    told: set[int] = set()
    for item in found:
        if isinstance(item, Failure):
            if as_json:
                terminal.json_line(failed(item))
            elif id(item.error) not in told:
                told.add(id(item.error))
                terminal.error(item.error, _about(item.error, failures))
        elif as_json:
            terminal.json_line(item.as_dict())
        else:
            result.show(out, item.as_dict())
    if not as_json and len(found) - len(failures) > 1:
        measured = [item.as_dict() for item in found if not isinstance(item, Failure)]
        out.print(result.overview(measured, out.width))
    return failures


def failed(failure: Failure) -> dict[str, Any]:
    """A failure as ``--json`` prints it."""
    return {
        "model": failure.model.name,
        "identity": failure.model.identity,
        "target": str(failure.target),
        "error": failure.error.as_dict(),
    }


def _about(error: HwbenchError, failures: Sequence[Failure]) -> str:
    """What an error kept from being measured: a target that cannot be opened fails all models at once."""
    same = [failure for failure in failures if failure.error is error]
    names = ", ".join(failure.model.identity for failure in same)
    return f"{names} on {same[0].target}"
