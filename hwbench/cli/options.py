"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import UsageError
from ..target import Target
from ..units import parse_seconds

LONGEST_S = 168 * 3600.0  # poll(2) counts milliseconds in 31 bits, which is 24 days
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

JSON: Decorator = click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object a line.")


def on(*, required: bool, multiple: bool = True, runs: bool = False) -> Decorator:
    """``--on TARGET``: where to run when it is required or the command ``runs``, otherwise a filter of the store."""
    more = " Repeat it for more." if multiple else ""
    return click.option(
        "--on",
        "on",
        metavar="TARGET",
        required=required,
        multiple=True,  # click itself would take the last of two in silence
        callback=targets if multiple else _only,
        help=f"Where to run, e.g. local-cpu/onnxruntime:fp32@2.{more}"
        if required or runs
        else f"Only what ran there, e.g. local-cpu/onnxruntime.{more}",
    )


def timeout(default: str = "3m") -> Decorator:
    """``--timeout TIME`` as ``timeout_s``."""
    return click.option(
        "--timeout", "timeout_s", metavar="TIME", default=default, show_default=True, callback=duration,
        help="Limit of one job in a worker, e.g. 90s.",
    )  # fmt: skip


def targets(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> tuple[Target, ...]:
    """Targets in the order given, each once."""
    return tuple(dict.fromkeys(Target.parse(text) for text in value))


def _only(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> Target | None:
    """The target of a command that takes one."""
    found = targets(ctx, param, value)
    if len(found) > 1:
        raise UsageError(
            f"{ctx.command_path} takes one --on, not {len(found)} ({', '.join(map(str, found))}).",
            remedy="Run it once for each.",
        )
    return found[0] if found else None


def target(ctx: click.Context, param: click.Parameter, value: str | None) -> Target | None:
    return None if value is None else Target.parse(value)


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``90``, ``90s``, ``2m`` → seconds; more than none."""
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds <= 0:
        raise UsageError(f"{'/'.join(param.opts)} {value} leaves no time.", remedy="Give more than 0 seconds.")
    if seconds > LONGEST_S:
        raise UsageError(f"{'/'.join(param.opts)} {value} is more than a week.", remedy="Give 168h at most.")
    return seconds


def pause(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Like :func:`duration`, and ``0`` is none at all."""
    return 0.0 if value is not None and _seconds(value) == 0 else duration(ctx, param, value)


def _seconds(value: str) -> float:
    return parse_seconds(f"{value}s" if value.replace(".", "", 1).isdigit() else value)


def shapes(ctx: click.Context, param: click.Parameter, value: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """``NAME=1,3,192,192`` → shape by input name; ``None`` without any."""
    found: dict[str, tuple[int, ...]] = {}
    for text in value:
        name, equals, tail = text.rpartition("=")
        try:
            shape = tuple(int(part) for part in tail.split(","))
        except ValueError:
            shape = ()
        if not (name and equals and shape):
            raise UsageError(f"--input {text} is not a shape.", remedy="The form is --input NAME=1,3,224,224.")
        if name in found:
            raise UsageError(f"--input names '{name}' twice.", remedy="Give each input one shape.")
        found[name] = shape
    return found or None
