"""The command line. A command is: parse, one call of the library, print.

Only click is imported here, and a command's module when that command is called, so that ``hwbench --help`` is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import click

from ..errors import UsageError, did_you_mean

# Command → its module here, and the line that `hwbench --help` shows.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "models": ("models", "The catalog: published accuracy, parameters, MACs, input."),
    "devices": ("devices", "What can be reached, and what it offers."),
    "doctor": ("devices", "Check a device by running something on it with every runtime."),
    "profile": ("profile", "Measure models: latency, layers, memory, energy."),
    "show": ("show", "What the store knows, as tables."),
    "compare": ("compare", "Is B slower than A? Paired and interleaved, with a verdict."),
    "split": ("split", "Where to cut a network in two, between a device and a faster one."),
    "noise-floor": ("compare", "The smallest difference a target can show."),
    "spaces": ("spaces", "Search spaces: what can be chosen, and how many networks that makes."),
    "lut": ("lut", "Lookup tables of a search space: build, query, validate, export, import."),
    "predictor": ("predictor", "Predictors of any network's latency: train, show, evaluate, adapt."),
    "predict": ("predictor", "What a network would take, without timing it."),
    "search": ("search", "Networks of a space on the front of accuracy and cost, under hard limits."),
    "selftest": ("selftest", "Put hwbench's own numbers to the test."),
    "export": ("export", "Results as files of other tools."),
    "report": ("export", "Results as one self-contained HTML page, or as pictures."),
    "demo": ("demo", "Profile a first set of catalog models and write a report."),
}


class _Lazy(click.Group):
    """A group that knows its commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[cmd_name][0]}", __name__)
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            raise UsageError(
                f"There is no command '{args[0]}'. {hint}".strip(), remedy=f"Commands: {', '.join(COMMANDS)}."
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


EPILOG = """\b
Example:
  hwbench profile mobilenetv2_100 --on local-cpu/onnxruntime

A TARGET is device/runtime[+option[=value]…]:precision@threads[xbatch]; a MODEL is a timm or torchvision name, an .onnx
or .tflite file, space:NAME:CODE or python:package.module:factory, most with @SIZE if you like. Exit codes: 0 done, 1 a
fault in hwbench or a selftest that fails, 2 usage or something not installed, 3 device, 4 model, 5 no such table entry,
6 verdict.
"""


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .. import __version__

        click.echo(f"hwbench {__version__}")
        ctx.exit()


@click.group(
    cls=_Lazy, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="The version.")
def cli() -> None:
    """How long neural networks take on real hardware, layer by layer, and how far each number can be trusted."""
