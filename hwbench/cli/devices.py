"""``hwbench devices`` and ``hwbench doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import JSON

if TYPE_CHECKING:
    from ..device import Device


@click.command()
@JSON
def devices(as_json: bool) -> None:
    """Devices with a profile: how each is reached, and the runtimes it has packages for.

    \b
    Example:
      hwbench devices
    """
    from ..device import devices as known
    from . import terminal

    found = list(known().values())
    if as_json:
        for device in found:
            terminal.json_line(_as_dict(device))
        return
    rows = [
        (device.name, device.kind, device.description, ", ".join(_runtimes(device)), device.source) for device in found
    ]
    terminal.console().print(terminal.table(("device", "reached by", "description", "runtimes", "profile"), rows))


def _runtimes(device: Device) -> list[str]:
    """Runtimes whose needs the device meets, as far as this installation can tell."""
    from .. import plugins, runtimes
    from ..errors import MissingDependency

    found = []
    for name in plugins.names("hwbench.runtimes"):
        try:
            if runtimes.find(name).needs <= device.offers:
                found.append(name)
        except MissingDependency:
            continue
    return found


def _as_dict(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "kind": device.kind,
        "description": device.description,
        "address": device.address,
        "python": device.python,
        "runtimes": _runtimes(device),
        "facts": dict(device.facts),
        "source": str(device.source),
    }


@click.command()
@click.argument("device", default="local-cpu")
@click.option("--new-reference", is_flag=True, help="Freeze a new anchor reference for each runtime, beside the old.")
@JSON
def doctor(device: str, new_reference: bool, as_json: bool) -> None:
    """Check a device by running something on it: each runtime's anchor, the profilers, sensors and meters.

    PASS, FAIL, or "not there" with what would bring it. The first visit also freezes the reference that anchored
    figures are expressed in. Exits with the error's code when something fails.

    \b
    Example:
      hwbench doctor local-cpu
    """
    from .. import doctor as library
    from ..store import Store
    from . import terminal

    codes = []
    with Store.open() as store:
        for check in library.examine(device, store, new_reference=new_reference):
            if as_json:
                terminal.json_line(check.as_dict())
            else:
                _print(check)
            if check.error is not None:
                codes.append(check.error.exit_code)
    if codes:
        click.get_current_context().exit(codes[0])


def _print(check: Any) -> None:
    from . import terminal

    style = {"PASS": "green", "FAIL": "bold red"}.get(check.status, "yellow")
    out = terminal.console()
    line = terminal.text(f"{check.status:<10}", style) + terminal.text(f"{check.what:<8} {check.name:<12} {check.text}")
    out.print(line, soft_wrap=True)
    for row in (check.error.detail or "").strip().splitlines()[-5:] if check.error else ():
        out.print(terminal.text(f"{'':<10}{row}", "dim"), soft_wrap=True)
    if check.remedy:
        out.print(terminal.text(f"{'':<10}next: {check.remedy}", "dim"), soft_wrap=True)
