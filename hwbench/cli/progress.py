"""Live progress on a terminal; nothing at all where stderr goes elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .. import units
from . import terminal

if TYPE_CHECKING:
    from ..campaign import Step


NARROW = 120  # columns below which what is measured, and where, does not fit beside how far it is


@contextmanager
def sessions() -> Iterator[Callable[[Step], None] | None]:
    """A bar over the sessions of a campaign; ``None`` when nobody watches.

    It is drawn when a session ends and at no other time: a clock that ticks beside a measurement is another program
    that wants the CPU.
    """
    out = terminal.console(stderr=True)
    if not terminal.watched(out):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    narrow = out.width < NARROW
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=5 if narrow else 20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        console=out,
        auto_refresh=False,
        transient=True,
    )
    begun: tuple[float, int] | None = None  # when the first session did, and how many there were from an earlier time
    with bar:
        task = bar.add_task("starting", total=None, left="")

        def show(step: Step) -> None:
            nonlocal begun
            left = ""
            if begun is None and step.pass_ != "prepare":
                begun = time.monotonic(), step.done
            elif begun is not None and step.done > begun[1]:
                each_s = (time.monotonic() - begun[0]) / (step.done - begun[1])
                left = f"about {units.period(each_s * (step.total - step.done))} left"
            bar.update(task, description=describe(step, brief=narrow), completed=step.done, total=step.total, left=left)
            bar.refresh()

        yield show


def describe(step: Step, *, brief: bool = False) -> str:
    """What is measured now, and the latency so far with its interval; where there is little room the name alone."""
    doing = "export" if step.pass_ == "prepare" else f"{step.pass_} {step.index + 1}"
    if step.median_s is None:
        figure = ""
    else:
        half = "" if step.half_width is None else f" ± {units.percent(step.half_width)}"
        figure = f" · {units.seconds(step.median_s)}{half}"
    what = step.model.partition("@")[0] if brief else f"{step.model} on {step.target}"
    return terminal.clean(f"{what} · {doing}{figure}")


@contextmanager
def pairs() -> Iterator[Callable[[int, float], None] | None]:
    """A line over the pairs of a comparison; ``None`` when nobody watches."""
    out = terminal.console(stderr=True)
    if not terminal.watched(out):
        yield None
        return

    def show(done: int, ratio: float) -> None:
        out.print(terminal.text(f"pair {done}: {100 * (ratio - 1):+.2f} %  ", "dim"), end="\r")

    yield show
    out.print(" " * 40, end="\r")
