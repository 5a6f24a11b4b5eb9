"""``hwbench export`` and ``hwbench report``: what the store holds, as files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..target import Target
from . import options

if TYPE_CHECKING:
    from ..predict.adapted import AdaptedPredictor
    from ..predict.predictor import Predictor

_WHERE = click.Path(path_type=Path)


@click.command()
@click.argument("model", required=False)
@click.option(
    "--format", "fmt", required=True, metavar="FORMAT",
    help="csv, json, parquet, perfetto (a time line of layers) or pyperf (raw samples).",
)  # fmt: skip
@click.option(
    "-o", "--output", "path", type=_WHERE, metavar="FILE", help="Where to; hwbench.csv or the like here when left out."
)
@options.on(required=False)
def export(model: str | None, fmt: str, path: Path | None, on: tuple[Target, ...]) -> None:
    """Write the newest results of the store as a file of another tool.

    What each format holds is in docs/results.md; csv and parquet write the layers to a second file beside FILE.

    \b
    Examples:
      hwbench export --format csv -o results.csv
      hwbench export mobilenetv2_100 --format perfetto -o layers.json
    """
    from .. import formats, results
    from ..measurement import Measurement
    from ..store import Store
    from . import terminal

    with Store.open() as store:
        found = results.of_all(store, (model,) if model else (), on)
    sessions = [s for result in found if isinstance(result, Measurement) for s in result.sessions]
    target = path or Path(f"hwbench.{_SUFFIX.get(fmt, fmt)}")
    for file in formats.export(fmt, results.as_dicts(found), sessions, target):
        terminal.console().print(terminal.text(f"wrote {file}"), soft_wrap=True)


_SUFFIX = {"json": "jsonl", "perfetto": "perfetto.json", "pyperf": "pyperf.json"}  # else the format's own name


@click.command()
@click.argument("models", metavar="[MODEL...]", nargs=-1)
@click.option(
    "-o", "--output", "path", type=_WHERE, metavar="DIR_OR_FILE", required=True,
    help="A folder (gets index.html, or the pictures), or a file that ends in .html.",
)  # fmt: skip
@click.option("--models", "listed", metavar="A,B", help="These models only; as naming them one by one.")
@click.option("--format", "fmt", default="html", show_default=True, metavar="FORMAT", help="html, png, svg or pdf.")
@click.option(
    "--front", "fronts", type=_WHERE, metavar="FILE", multiple=True,
    help="A front that `hwbench search` wrote, drawn beside what was measured. Repeat it for more.",
)  # fmt: skip
@click.option(
    "--accuracy", type=_WHERE, metavar="FILE",
    help="Your own accuracies instead of published ones: a CSV file with the columns model and accuracy.",
)  # fmt: skip
@click.option("--lut", "luts", type=_WHERE, metavar="FILE", multiple=True, help="A lookup table: what it covers.")
@click.option(
    "--validation", "validations", type=_WHERE, metavar="FILE", multiple=True,
    help="What `hwbench lut validate --json` printed.",
)  # fmt: skip
@click.option(
    "--evaluation", "evaluations", type=_WHERE, metavar="FILE", multiple=True,
    help="What `hwbench predictor evaluate --json` printed.",
)  # fmt: skip
@click.option(
    "--with", "predictors", type=_WHERE, metavar="FILE", multiple=True,
    help="A predictor: what it says of the models that were not measured on its target.",
)  # fmt: skip
@options.on(required=False)
def report(
    models: tuple[str, ...], listed: str | None, path: Path, fmt: str, on: tuple[Target, ...], **files: Any
) -> None:
    """Write the newest results of the store as one self-contained HTML page, or as pictures.

    \b
    Examples:
      hwbench report -o reports/mine
      hwbench report mobilenetv2_100 resnet18 -o front.html --on local-cpu/onnxruntime
      hwbench report -o pictures --format svg
      hwbench report -o front.html --front front.parquet
      hwbench report -o table.html --lut cpu.parquet --validation validation.json
      hwbench report mobilenetv2_100 resnet18 resnet50 -o front.html --with cpu.hwp
    """
    from .. import report as library
    from .. import results
    from ..errors import UsageError, did_you_mean
    from ..store import Store
    from . import terminal

    formats = ("html", *library.FORMATS)
    if fmt not in formats:
        hint = did_you_mean(fmt, formats)
        raise UsageError(f"There is no report format '{fmt}'. {hint}".strip(), remedy=f"Known: {', '.join(formats)}.")
    if path.suffix.lower() in _NO_PLACE[fmt == "html"] and not path.is_dir():
        raise UsageError(
            f"-o {path} is no place for {'a page' if fmt == 'html' else 'pictures, of which there are several'}.",
            remedy="Give a file that ends in .html, or a folder." if fmt == "html" else "Give a folder.",
        )
    models = (*models, *(name.strip() for name in (listed or "").split(",") if name.strip()))
    beside = _beside(files)
    with Store.open() as store:
        found: list[Any] = results.as_dicts(results.of_all(store, models, on, lenient=bool(files["predictors"])))
    found += [result for file in files["predictors"] for result in _predicted(file, models, found)]
    if accuracy := files["accuracy"]:
        found = library.with_accuracy(found, library.read_accuracy(accuracy), accuracy.name)
    found += [result for file in files["fronts"] for result in _front(file)]
    if not found and not any(beside.values()):
        raise UsageError("There is nothing to report.", remedy="Measure first: hwbench profile MODEL --on TARGET.")
    if fmt == "html":
        again, probed = _again(models, path, on, files), _probed(files["predictors"])
        written = [library.write(found, path, command=again, probed=probed, **beside)]
    else:
        written = library.pictures(found, fmt, path)
    for file in written:
        terminal.console().print(terminal.text(f"wrote {file}"), soft_wrap=True)


# By whether a page is written: names that are meant for a file, and that would otherwise become a folder's.
_FILE_NAMES = frozenset({".txt", ".csv", ".json", ".md", ".png", ".svg", ".pdf", ".parquet"})
_NO_PLACE = {True: _FILE_NAMES, False: _FILE_NAMES | {".html", ".htm"}}


def _beside(files: dict[str, Any]) -> dict[str, Any]:
    """Tables, validations and evaluations, read before anything is looked up."""
    from .. import report as library
    from ..lut.table import LookupTable

    read = library.read_json
    return {
        "lookup_tables": [library.of_table(LookupTable.read(file)) for file in files["luts"]],
        "validations": [
            one for file in files["validations"] for one in read(file, "validation", ("points", "repeat_error"))
        ],
        "evaluations": [one for file in files["evaluations"] for one in read(file, "evaluation", ("networks", "mape"))],
    }


def _probed(predictors: Sequence[Path]) -> dict[str, Any]:
    """Target → the ceilings that a predictor's probe measured there; an adapted one's are of its source's target."""
    from ..predict.file import read

    found = {}
    for file in predictors:
        predictor = read(file)
        if (measured := predictor.fitted.roofline.measured) is not None:
            found[predictor.target] = measured.as_dict()
    return found


_FILES = {
    "fronts": "--front",
    "predictors": "--with",
    "luts": "--lut",
    "validations": "--validation",
    "evaluations": "--evaluation",
}


def _again(models: tuple[str, ...], path: Path, on: tuple[Target, ...], files: dict[str, Any]) -> str:
    """The command line of this report."""
    words = ["hwbench", "report", *models, "-o", str(path)]
    for target in on:
        words += ["--on", str(target)]
    for name, option in _FILES.items():
        for file in files[name]:
            words += [option, str(file)]
    if files["accuracy"]:
        words += ["--accuracy", str(files["accuracy"])]
    return shlex.join(words)


def _predicted(file: Path, models: tuple[str, ...], found: list[Any]) -> list[dict[str, Any]]:
    """What a predictor says of models that have no result on its target: those named, or else those of the results.

    Of the latter some cannot be told (a module of another process, a file that is gone); they are said and left out.
    """
    from .. import report as library
    from ..errors import HwbenchError
    from ..predict.adapted import opened
    from ..report.method import argument
    from . import terminal

    predictor = opened(file)
    measured = {_network(**result) for result in found if result.get("target") == predictor.target}
    points = []
    for name in models or sorted({argument(result) for result in found if _network(**result) not in measured}):
        terminal.note(f"predicting {name}")
        try:
            points += _point(predictor, name, measured)
        except HwbenchError as error:
            if models:
                raise
            terminal.error(error, f"{file.name} says nothing of {name}")
    return library.predicted(points, predictor.target, source=file.name)


def _network(*, model: str, identity: str, **_: Any) -> str:
    """A model and the size of its image, whatever the batch and the weights."""
    from ..report.method import argument

    return argument({"model": model, "identity": identity})


def _point(predictor: Predictor | AdaptedPredictor, name: str, measured: set[str]) -> list[dict[str, Any]]:
    """What a predictor says of one model; nothing where the model, at that size, was measured."""
    from .. import catalog

    model = catalog.resolve(name)
    if _network(model=model.name, identity=model.identity) in measured:
        return []
    size = model.inputs[0][1][-2:] if model.inputs else ()
    figure = model.entry.accuracy_at(*size) if model.entry is not None and len(size) == 2 else None
    return [
        {
            **predictor.predict(name).as_dict(),
            "anchor_ref": predictor.about.get("anchor_ref"),
            "model": model.name,
            "identity": model.identity,
            "family": model.entry.family if model.entry else None,
            "top1": figure.top1 if figure else None,
            "top1_source": figure.source if figure else None,
        }
    ]


def _front(file: Path) -> list[dict[str, Any]]:
    """The networks of a search's front. A file never decides which code is imported: its space must be installed."""
    from ..catalog.networks import find_space, space_names
    from ..errors import UsageError
    from ..search.front import Front

    front = Front.read(file)
    reference = front.context.get("reference")
    anchor = reference.get("anchor_ref") if isinstance(reference, dict) else None
    told = {"anchor_ref": anchor.get("id"), "anchor_ref_s": anchor.get("latency_s")} if isinstance(anchor, dict) else {}
    name = str(front.context.get("space"))
    if name not in space_names():
        raise UsageError(
            f"{file} is of the space '{name}', which is not installed.",
            remedy="Install the package that offers it under hwbench.spaces; see docs/adding-a-space.md.",
        )
    return [{**result, "latency_s": {**result["latency_s"], **told}} for result in front.results(find_space(name))]
