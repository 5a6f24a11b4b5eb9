"""Measure what this project promises: ``python benchmarks [PART…]``, or ``make numbers``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # `python benchmarks` begins in the folder itself; `python -m benchmarks` does not
    sys.path[0] = str(ROOT)

from benchmarks import page  # noqa: E402
from benchmarks.parts import PARTS  # noqa: E402
from benchmarks.run import QUICK_S, Bed, FailedError, adopt, chosen, collect, measure  # noqa: E402

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCS = ROOT / "docs"
BUILD = ROOT / "build" / "numbers"
NOTES = ROOT / "benchmarks" / "notes.toml"


@click.command(epilog="\b\nParts:\n" + "\n".join(f"  {part.name:<20} {part.figures[0].what}" for part in PARTS))
@click.argument("names", metavar="[PART]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Fewer repetitions, within 15 minutes, without verdicts; not into docs/.")
@click.option("--fresh", is_flag=True, help="Measure also what has not changed.")
@click.option("--list", "listed", is_flag=True, help="Say what is there and what is out of date, and measure nothing.")
@click.option("--page", "only_page", is_flag=True, help="Write the files again from what is there.")
@click.option(
    "--from", "files", metavar="FILE", multiple=True, type=click.Path(path_type=Path, exists=True),
    help="Take what PART's command printed with --json earlier. Repeat it where PART has several commands.",
)  # fmt: skip
@click.option("--commit", help="Of what --from gives.")
def main(
    names: tuple[str, ...], quick: bool, fresh: bool, listed: bool, only_page: bool, files: tuple[Path, ...],
    commit: str | None,
) -> None:  # fmt: skip
    """Measure the figures that this project promises, and write docs/numbers.json and docs/numbers.md.

    PART is a name or what names begin with; all without one. A part that was measured is measured again only when code
    that it depends on has changed; one that was cut off goes on where it stopped. It takes hours, and nothing else may
    run on the machine meanwhile. Exits with 1 when something failed to run; a bar that is missed is marked.

    \b
    Examples:
      python benchmarks lut coverage
      python benchmarks closure-ort --from closure.json --commit a50ef1a
    """
    bed = Bed(
        ROOT, BUILD / "quick" if quick else BUILD, {part.name: part for part in PARTS}, quick, fresh, _machine(),
        time.monotonic() + QUICK_S if quick else float("inf"),
    )  # fmt: skip
    bed.folder.mkdir(parents=True, exist_ok=True)
    try:
        wanted = chosen(bed.parts, [name for words in names for name in words.split(",") if name])
    except KeyError as error:
        raise click.BadParameter(f"there is no part {error}; there are {', '.join(bed.parts)}") from None
    if listed:
        for part in wanted:
            click.echo(f"{part.name:<20} {_status(bed, part)}")
        return
    failed = False
    if files or commit:
        if len(wanted) != 1 or not (files and commit) or quick:
            raise click.UsageError("--from and --commit go together, with one PART and without --quick")
        try:
            adopt(bed, wanted[0], files, commit)
        except FailedError as error:
            raise click.ClickException(str(error)) from error
    elif not only_page:
        failed = any([measure(bed, part) == "failed" for part in wanted])  # noqa: C419 - all of them
    _write(bed)
    sys.exit(int(failed))


def _status(bed: Bed, part: Any) -> str:
    state = bed.state(part)
    if part.missing():
        return f"not here: {part.missing()}"
    if state is None:
        return "not measured"
    if not state.done:
        return f"failed: {state.error}" if state.error else "cut off"
    return f"measured {state.origin.date[:10]} in {state.seconds:.0f} s" + (
        "" if bed.current(part) else ", out of date: code that it depends on has changed"
    )


def _write(bed: Bed) -> None:
    folder, stem = (BUILD, "quick") if bed.quick else (DOCS, "numbers")
    data = folder / f"{stem}.json"
    before = json.loads(data.read_text(encoding="utf-8")) if data.exists() and not bed.quick else []
    tried = tomllib.loads(NOTES.read_text(encoding="utf-8"))
    rows = collect(bed, before, tried)
    data.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    data.with_suffix(".md").write_text(page.page(rows, quick=bed.quick), encoding="utf-8")
    if not bed.quick and (readme := folder.parent / "README.md").exists():
        readme.write_text(page.beside(rows, readme.read_text(encoding="utf-8")), encoding="utf-8")
    click.echo(page.summary(rows, quick=bed.quick))
    click.echo(f"wrote {data} and {data.with_suffix('.md').name}")


def _machine() -> str:
    from hwbench.worker.environment import describe

    device = describe()["device"]
    return f"{device['cpu_model']}, {device['threads_available']} threads, {device['os']}"


if __name__ == "__main__":
    main()
