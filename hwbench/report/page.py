"""The HTML report: one file, no network, everything from outside escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .. import __version__, units
from ..errors import MissingDependency
from ..writing import whole
from . import across, facts, method, model, tables
from .data import embedded, json_text
from .rows import Row, mapping, number, read, text

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

DEFAULT_TITLE = "Latency report"

MOST_SECTIONS = 200
"""Results that get a section of their own: a browser holds thousands, a reader does not open them."""
FIRST_ROWS = 200  # of the table of results that stand in the page at once; the script brings the others
_SCRIPTS = ("format.js", "charts.js", "points.js", "front.js", "model.js", "across.js", "tables.js", "page.js")
_BREAKS = frozenset("/_:.+,")  # where a long name may wrap
_TARGET_COLOURS = 8  # of page.css
_QUANTISED = re.compile(r":(u?int|w)[0-9]")  # precisions at which the published accuracy does not hold


NO_PROBES: Mapping[str, Any] = MappingProxyType({})


def render(
    results: Iterable[Any],
    *,
    title: str = DEFAULT_TITLE,
    generated_at: datetime | str | None = None,
    lookup_tables: Sequence[Mapping[str, Any]] = (),
    validations: Sequence[Mapping[str, Any]] = (),
    evaluations: Sequence[Mapping[str, Any]] = (),
    probed: Mapping[str, Any] = NO_PROBES,
    command: str = "",
) -> str:
    """The report as the text of one HTML document. The same arguments give the same text.

    Args:
        results: result objects as ``profile --json`` prints them, failures included; any field may be missing.
        title: heading and title of the document.
        generated_at: when the report was made; left out of the page when ``None``.
        lookup_tables: tables as :func:`hwbench.report.of_table` gives them.
        validations: as ``lut validate --json`` prints them.
        evaluations: as ``predictor evaluate --json`` prints them.
        probed: target → the ceilings that were measured there, as ``predictor show --json`` has them.
        command: the command line that makes this report again from the store.

    Raises:
        MissingDependency: jinja2 or plotly is not installed.
    """
    rows, failures = read(results)
    if isinstance(generated_at, datetime):
        generated_at = generated_at.isoformat(sep=" ", timespec="minutes").replace("+00:00", " UTC")
    made_at = text(generated_at)
    targets = list(dict.fromkeys(row.target for row in rows))
    panels = tables.panels(lookup_tables, validations, evaluations)
    compared = across.across(rows)
    sections = _sections(rows)
    opened = {row.id for row in sections}
    drawn = any(not row.left_out or row.layers or row.series for row in rows) or any(p.points for p in panels)
    library = _javascript(_plotly()) if drawn else ""
    script = _javascript("\n".join(_resource(name) for name in _SCRIPTS))
    roofs = model.roofs(probed)
    data = embedded(rows, failures, targets, made_at, opened, compared, panels, roofs)
    template = _environment().get_template("page.html.j2")
    return template.render(
        **_about(rows),
        title=text(title),
        generated_at=made_at,
        version=__version__,
        rows=rows,
        sections=sections,
        opened=opened,
        first_rows=FIRST_ROWS,
        failures=failures,
        across=compared,
        panels=panels,
        repeat=method.commands(rows, text(command)),
        model=model,
        roofs=roofs,
        method=method,
        css=_markup(_resource("page.css")),
        library=_markup(library),
        script=_markup(script),
        data=_markup(json_text(data)),
        policy=_policy(library, script),
    )


def _about(rows: Sequence[Row]) -> dict[str, Any]:
    """What the templates ask about the results as a whole."""
    targets = list(dict.fromkeys(row.target for row in rows))
    names, environment = method.environment([row for row in rows if not row.predicted])
    return {
        "targets": targets,
        "colours": {target: i % _TARGET_COLOURS for i, target in enumerate(targets)},
        "devices": _devices([row for row in rows if not row.predicted]),
        "measured": _span(rows),
        "quantised": [target for target in targets if _QUANTISED.search(target)],
        "environment_targets": names,
        "environment": environment,
        "ceilings": model.ceilings(rows),
    }


def _sections(rows: Sequence[Row]) -> list[Row]:
    """The measured results, in order; where they are too many, those on fronts and with layers are kept."""
    measured = [row for row in rows if not row.predicted]
    first = sorted(measured, key=lambda row: (not row.on_front, row.layers is None))[:MOST_SECTIONS]
    kept = {row.id for row in first}
    return [row for row in measured if row.id in kept]


def write(
    results: Iterable[Any],
    path: str | Path,
    *,
    generated_at: datetime | str | None = None,
    **more: Any,
) -> Path:
    """Render and write the report; missing folders are made, and the file appears whole or not at all.

    Args:
        results: as for :func:`render`.
        path: a path that ends in ``.html`` or ``.htm`` is the file; any other is a folder that gets ``index.html``.
        generated_at: as for :func:`render`; now when ``None``.
        more: the other arguments of :func:`render`.

    Returns:
        The file that was written.

    Raises:
        UsageError: the path is a file where a folder is needed, or the reverse.
        DeviceError: the file cannot be written (no permission, disk full).
        MissingDependency: as for :func:`render`.
    """
    path = Path(path)
    file = path if path.suffix.lower() in (".html", ".htm") else path / "index.html"
    page = render(results, generated_at=generated_at or datetime.now(timezone.utc), **more)
    with whole(file, "report") as out:
        out.write(page.encode())
    return file


def _resource(name: str) -> str:
    return files("hwbench.report").joinpath("templates", name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise _missing("plotly") from error
    return str(get_plotlyjs())


def _environment() -> jinja2.Environment:
    try:
        import jinja2  # noqa: F401  (also where the templates are compiled already)
    except ImportError as error:
        raise _missing("jinja2") from error
    return _compiled()


@cache
def _compiled() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        seconds=units.seconds,
        joules=units.joules,
        size=units.size,
        count=units.count,
        percent=units.percent,
        interval=facts.interval,
        accuracy=facts.accuracy,
        whole=facts.whole,
        breakable=_breakable,
    )
    return environment


def _missing(package: str) -> MissingDependency:
    return MissingDependency(
        f"A report needs the package '{package}', which is not installed.", remedy="pip install 'hwbench[report]'"
    )


def _markup(trusted: str) -> Markup:
    """Text of our own making that goes into the page as it is."""
    from markupsafe import Markup

    return Markup(trusted)  # noqa: S704  (our files, the plotly wheel's script, and JSON that holds no markup)


def _breakable(value: str) -> Markup:
    """A long name, escaped, that may wrap after its separators."""
    from markupsafe import Markup, escape

    wbr = Markup("<wbr>")
    return Markup("").join(escape(c) + wbr if c in _BREAKS else escape(c) for c in value)


def _javascript(source: str) -> str:
    """A script as it can stand in a page: no closing tag inside, line ends as the browser will see them."""
    return "\n" + source.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script") + "\n"


def _policy(*scripts: str) -> str:
    """A content security policy: these scripts and no other, nothing from anywhere, nothing to anywhere.

    Source: Content Security Policy Level 3, hash sources. Styles may stand inline, because plotly writes
    them, and images may be the page's own blobs, through which it saves a chart as a picture.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts if script]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _devices(rows: Sequence[Row]) -> list[str]:
    """Processors, as the environments name them, each once; the device part of the target where they do not.

    What ran on a GPU is named by it: its environment names the host's CPU, too.
    """
    found: dict[str, None] = {}
    for row in rows:
        device = mapping(mapping(row.source.get("environment")).get("device"))
        cpu, cores = text(device.get("cpu_model")), number(device.get("cores"))
        name = f"{cpu}, {cores:g} cores" if cpu and cores is not None else cpu
        found[text(device.get("gpu_model")) or name or row.target.partition("/")[0]] = None
    return list(found)


def _span(rows: Sequence[Row]) -> str:
    """From when to when the sessions were measured, to the minute."""
    started = sorted(at[:16].replace("T", " ") for row in rows if row.series for at in row.series.started_at if at)
    return " – ".join(dict.fromkeys((started[0], started[-1]))) if started else ""
