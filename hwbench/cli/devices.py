"""``hwbench devices`` (list, add, show, remove) and ``hwbench doctor``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .options import JSON, timeout

if TYPE_CHECKING:
    from ..device import Device
    from ..enrol.probe import Added


@click.group(invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
@click.option("--templates", is_flag=True, help="Kinds of devices that `devices add --like` can start from.")
@JSON
@click.pass_context
def devices(ctx: click.Context, templates: bool, as_json: bool) -> None:
    """Devices with a profile: how each is reached, and the runtimes it has packages for.

    \b
    Example:
      hwbench devices
      hwbench devices --templates
      hwbench devices add pi5 --ssh pi@raspberrypi.local
    """
    if ctx.invoked_subcommand is None:
        _list(templates, as_json)


def _list(templates: bool, as_json: bool) -> None:
    from .. import device as library
    from . import terminal

    found = list((library.templates() if templates else library.devices()).values())
    if as_json:
        for device in found:
            terminal.json_line(_as_dict(device))
        return
    if templates:
        columns: tuple[str, ...] = ("template", "reached by", "unit", "description", "fits devices called")
        rows = [(d.name, d.kind, d.unit, d.description, ", ".join(d.matches)) for d in found]
        terminal.console().print(terminal.table(columns, rows))
        return
    columns = ("device", "reached by", "unit", "description", "runtimes", "profile")
    listed = [(d.name, d.kind, d.unit, d.description, ", ".join(_runtimes(d)), d.source) for d in found]
    terminal.console().print(terminal.table(columns, listed))
    terminal.note("More: hwbench devices add NAME --ssh ADDRESS | --adb SERIAL | --cuda N | --local PYTHON")


def _runtimes(device: Device) -> list[str]:
    """Runtimes whose needs the device meets, as far as this installation can tell."""
    from .. import plugins, runtimes
    from ..errors import HwbenchError, MissingDependency
    from ..target import Target

    found = []
    for name in plugins.names("hwbench.runtimes"):
        try:
            runtime = runtimes.find(name)
        except MissingDependency:
            continue
        native = hasattr(runtime, "worker")
        if not runtime.needs <= device.offers or (device.kind == "adb" and not native):
            continue
        try:
            if hasattr(runtime, "check_device"):
                runtime.check_device(Target(device.name, name), device)
        except HwbenchError:
            continue
        found.append(name)
    return found


def _as_dict(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "kind": device.kind,
        "template": device.template,
        "description": device.description,
        "address": device.address,
        "ssh_options": list(device.ssh_options),
        "unit": device.unit,
        "python": device.python,
        "workdir": device.workdir,
        "like": device.like,
        "runtimes": [] if device.template else _runtimes(device),
        "sensors": list(device.sensors),
        "facts": dict(device.facts),
        "sources": dict(device.sources),
        "clusters": [
            {"name": c.name, "cores": list(c.cores), "core": c.core, "max_clock_hz": c.max_clock_hz}
            for c in device.clusters
        ],
        "source": str(device.source),
    }


@devices.command()
@click.argument("name")
@click.option("--ssh", metavar="ADDRESS", help="[user@]host, or a Host of your ssh configuration.")
@click.option("--ssh-option", "ssh_options", multiple=True, metavar="TEXT", help='For ssh, e.g. "-p 2222". Repeatable.')
@click.option("--adb", metavar="SERIAL", help="As `adb devices` prints it.")
@click.option("--cuda", type=click.IntRange(0, 99), metavar="N", help="GPU N here, or there with --ssh.")
@click.option("--local", metavar="PYTHON", help="This machine, with another Python.")
@click.option("--benchmark-binary", metavar="PATH", help="LiteRT's benchmark_model for the device; device:/PATH there.")
@click.option("--like", metavar="TEMPLATE", help="Take this template's facts; by default the one that matches.")
@click.option("--workdir", metavar="FOLDER", help="Where hwbench keeps its files on the device.")
@click.option("--python", metavar="PATH", help="The device's interpreter; by default the best that is found there.")
@click.option("--force", is_flag=True, help="Write over a profile of that name.")
@JSON
def add(
    name: str,
    ssh: str | None,
    ssh_options: tuple[str, ...],
    adb: str | None,
    cuda: int | None,
    local: str | None,
    benchmark_binary: str | None,
    like: str | None,
    workdir: str | None,
    python: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Look at a device, write its profile, and say what it lacks and how to bring it.

    \b
    Example:
      hwbench devices add pi5 --ssh pi@raspberrypi.local
      hwbench devices add pixel --adb 1A2B3C --benchmark-binary android_aarch64_benchmark_model
      hwbench devices add gpu0 --cuda 0
    """
    from ..enrol import probe
    from . import terminal

    ways = {"--ssh": ssh, "--adb": adb, "--local": local, "--cuda": cuda}
    given = [way for way, value in ways.items() if value is not None]
    if len(given) != 1 and given != ["--ssh", "--cuda"]:
        raise UsageError(
            f"'{name}' is reached by {' and '.join(given) or 'nothing'}.",
            remedy="Give one of --ssh ADDRESS, --adb SERIAL, --cuda N and --local PYTHON; --cuda also beside --ssh.",
        )
    reach = probe.Reach(
        kind="ssh" if ssh is not None else "adb" if adb is not None else "local",
        address=ssh if ssh is not None else adb,
        ssh_options=tuple(word for text in ssh_options for word in _words(text)),
        unit="cpu" if cuda is None else f"cuda:{cuda}",
        python=local if local is not None else python,
        workdir=workdir,
        binary=_binary(benchmark_binary),
    )
    added = probe.add(name, reach, like=like, force=force)
    if as_json:
        missing = [{"text": row.text, "remedy": row.remedy} for row in added.missing]
        terminal.json_line({**_as_dict(added.device), "missing": missing})
        return
    _print_added(added)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--ssh-option {text!r} cannot be read: {error}.", remedy="Close the quotes.") from None


def _binary(path: str | None) -> str | None:
    """Absolute, so that the profile holds wherever hwbench is called; ``device:/PATH`` is on the device."""
    if path is None or path.startswith("device:"):
        return path
    if not Path(path).is_file():
        raise UsageError(f"--benchmark-binary {path} is not a file.", remedy="Give the downloaded binary's path.")
    return str(Path(path).resolve())


def _print_added(added: Added) -> None:
    from . import terminal

    out = terminal.console()
    device = added.device
    like = f", like the template {device.like}" if device.like else ", like no template known here"
    out.print(terminal.text(f"{device.name}: {device.description}{like}"), soft_wrap=True)
    for cluster in device.clusters:
        clock = f" up to {cluster.max_clock_hz * 1e-9:.2f} GHz" if cluster.max_clock_hz else ""
        cores = ",".join(map(str, cluster.cores))
        out.print(terminal.text(f"{'':<10}cores {cores}: {cluster.core or cluster.name}{clock}"), soft_wrap=True)
    if device.kind != "adb":
        packages = ", ".join(f"{name} {version}".strip() for name, version in added.survey.modules.items())
        out.print(terminal.text(f"{'':<10}{added.survey.executable}: {packages or 'no packages'}"), soft_wrap=True)
    out.print(terminal.text(f"{'':<10}sensors: {', '.join(device.sensors) or 'none'}"), soft_wrap=True)
    out.print(terminal.text(f"{'':<10}profile: {device.source}"), soft_wrap=True)
    for row in added.missing:
        out.print(terminal.line(terminal.text("missing   ", "yellow"), terminal.text(row.text)), soft_wrap=True)
        out.print(terminal.text(f"{'':<10}next: {row.remedy}", "dim"), soft_wrap=True)
    out.print(terminal.text(f"Check it: hwbench doctor {device.name}"), soft_wrap=True)


@devices.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """A device or template: its facts, each with its source.

    \b
    Example:
      hwbench devices show rpi-5
    """
    from .. import device as library
    from . import terminal

    known = library.profiles()
    found = library.read(known[name]) if name in known else library.find(name)
    if as_json:
        terminal.json_line(_as_dict(found))
        return
    out = terminal.console()
    reached = "this machine" if found.kind == "local" else f"reached by {found.kind} {found.address}"
    kind = "template" if found.template else reached
    out.print(terminal.text(f"{found.name}: {found.description} ({kind}, {found.unit})"), soft_wrap=True)
    rows = [(fact, value, found.source_of(fact)) for fact, value in found.facts.items()]
    for cluster in found.clusters:
        clock = f", {cluster.max_clock_hz * 1e-9:.2f} GHz" if cluster.max_clock_hz else ""
        what = f"{','.join(map(str, cluster.cores))}: {cluster.core or 'unknown'}{clock}"
        rows.append((f"cores {cluster.name}", what, found.sources.get("clusters", "")))
    if rows:
        out.print(terminal.table(("fact", "value", "source"), rows))
    if not found.template:
        out.print(terminal.text(f"runtimes: {', '.join(_runtimes(found)) or 'none'}"), soft_wrap=True)
    out.print(terminal.text(f"profile: {found.source}"), soft_wrap=True)


@devices.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete a profile of yours; what was measured on the device stays in the store.

    \b
    Example:
      hwbench devices remove pi5
    """
    from ..enrol import probe
    from . import terminal

    terminal.console().print(terminal.text(f"removed {probe.remove(name)}"), soft_wrap=True)


@click.command()
@click.argument("device", default="local-cpu")
@click.option("--new-reference", is_flag=True, help="Freeze a new anchor reference for each runtime, beside the old.")
@click.option("--install", is_flag=True, help="First make the device's own environment and install the runtimes.")
@click.option("--wheels", type=click.Path(path_type=Path, file_okay=False), help="Install from this folder alone.")
@click.option("--runtimes", metavar="NAMES", help="What to install: onnxruntime,litert on a CPU by default.")
@timeout("1m")
@JSON
def doctor(
    device: str,
    new_reference: bool,
    install: bool,
    wheels: Path | None,
    runtimes: str | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Check a device by running something on it: each runtime's anchor, the profilers, sensors and meters.

    PASS, FAIL, or "not there" with what would bring it. --new-reference also freezes the reference that anchored
    figures are expressed in; without it the first profile does. Exits with the error's code when something fails.

    \b
    Example:
      hwbench doctor local-cpu
      hwbench doctor pi5 --install
    """
    from .. import doctor as library
    from ..store import Store
    from . import terminal

    if install:
        _install(device, wheels, runtimes)
    elif wheels is not None or runtimes is not None:
        raise UsageError("--wheels and --runtimes say what --install installs.", remedy="Add --install.")
    codes = []
    with Store.open() as store:
        for check in library.examine(device, store, new_reference=new_reference, timeout_s=timeout_s):
            if as_json:
                terminal.json_line(check.as_dict())
            else:
                _print(check)
            if check.error is not None:
                codes.append(check.error.exit_code)
    if codes:
        click.get_current_context().exit(codes[0])


def _install(device: str, wheels: Path | None, runtimes: str | None) -> None:
    from ..device import find
    from ..enrol import install as library
    from . import terminal

    out = terminal.console(stderr=True)
    names = tuple(name for part in (runtimes or "").split(",") if (name := part.strip()))
    done = library.install(
        find(device),
        runtimes=names,
        wheels=wheels,
        say=lambda text: out.print(terminal.text(text, "dim"), soft_wrap=True),
    )
    packages = ", ".join(f"{name} {version}".strip() for name, version in done.survey.modules.items())
    out.print(terminal.text(f"{done.device.python} has {packages}"), soft_wrap=True)


def _print(check: Any) -> None:
    from . import terminal

    style = {"PASS": "green", "FAIL": "bold red"}.get(check.status, "yellow")
    out = terminal.console()
    what = terminal.text(f"{check.what:<8} {check.name:<12} {check.text}")
    out.print(terminal.line(terminal.text(f"{check.status:<10}", style), what), soft_wrap=True)
    for row in (check.error.detail or "").strip().splitlines()[-5:] if check.error else ():
        out.print(terminal.text(f"{'':<10}{row}", "dim"), soft_wrap=True)
    if check.remedy:
        out.print(terminal.text(f"{'':<10}next: {check.remedy}", "dim"), soft_wrap=True)
