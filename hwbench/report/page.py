"""The HTML report: one file, no network, everything from outside escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, units
from ..errors import DeviceError, MissingDependency, UsageError
from . import facts
from .rows import Failure, Layers, Row, number, read, text

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup

SCHEMA = 1  # of the embedded data; raised when a field changes its meaning, not when one is added
DEFAULT_TITLE = "Latency report"

_SCRIPTS = ("format.js", "charts.js", "tables.js", "page.js")
_BREAKS = frozenset("/_:.+,")  # where a long name may wrap
_TARGET_COLOURS = 8  # of page.css
_QUANTISED = re.compile(r":(u?int|w)[0-9]")  # precisions at which the published accuracy does not hold


def render(results: Iterable[Any], *, title: str = DEFAULT_TITLE, generated_at: datetime | str | None = None) -> str:
    """The report as the text of one HTML document. The same arguments give the same text.

    Args:
        results: result objects as ``profile --json`` prints them, failures included; any field may be missing.
        title: heading and title of the document.
        generated_at: when the report was made; left out of the page when ``None``.

    Raises:
        MissingDependency: jinja2 or plotly is not installed.
    """
    rows, failures = read(results)
    if isinstance(generated_at, datetime):
        generated_at = generated_at.isoformat(sep=" ", timespec="minutes").replace("+00:00", " UTC")
    targets = list(dict.fromkeys(row.target for row in rows))
    library = _javascript(_plotly()) if any(not row.left_out or row.layers or row.series for row in rows) else ""
    script = _javascript("\n".join(_resource(name) for name in _SCRIPTS))
    names, environment = facts.environment(rows)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=text(title),
            generated_at=text(generated_at),
            version=__version__,
            rows=rows,
            failures=failures,
            targets=targets,
            colours={target: i % _TARGET_COLOURS for i, target in enumerate(targets)},
            devices=_devices(rows),
            measured=_span(rows),
            quantised=[target for target in targets if _QUANTISED.search(target)],
            environment_targets=names,
            environment=environment,
            facts=facts,
            css=_markup(_resource("page.css")),
            library=_markup(library),
            script=_markup(script),
            data=_markup(_json(_data(rows, failures, targets, text(generated_at)))),
            policy=_policy(library, script),
        )
    )


def write(
    results: Iterable[Any],
    path: str | Path,
    *,
    title: str = DEFAULT_TITLE,
    generated_at: datetime | str | None = None,
) -> Path:
    """Render and write the report; missing folders are made, and the file appears whole or not at all.

    Args:
        results: as for :func:`render`.
        path: a path that ends in ``.html`` or ``.htm`` is the file; any other is a folder that gets ``index.html``.
        title: as for :func:`render`.
        generated_at: as for :func:`render`; now when ``None``.

    Returns:
        The file that was written.

    Raises:
        UsageError: the path is a file where a folder is needed, or the reverse.
        DeviceError: the file cannot be written (no permission, disk full).
        MissingDependency: as for :func:`render`.
    """
    path = Path(path)
    file = path if path.suffix.lower() in (".html", ".htm") else path / "index.html"
    page = render(results, title=title, generated_at=generated_at or datetime.now(timezone.utc))
    if file.is_dir():
        raise UsageError(f"'{file}' is a folder, so no report can be written there.", remedy="Name a file or a folder.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _replace(file, page)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"The report needs the folder '{file.parent}', but a part of that path is a file.",
            remedy="Give a folder, or a path that ends in .html.",
        ) from error
    except OSError as error:
        raise DeviceError(
            f"The report cannot be written to '{file}': {error.strerror or error}.",
            remedy="Check the free space and your permission there, or write elsewhere with -o.",
        ) from error
    return file


def _replace(file: Path, page: str) -> None:
    handle, staged = tempfile.mkstemp(dir=file.parent, prefix=".report-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            out.write(page)
        os.chmod(staged, 0o644)  # mkstemp makes it private; a report is made to be passed on
        os.replace(staged, file)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise


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
        import jinja2
    except ImportError as error:
        raise _missing("jinja2") from error
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


def _json(data: Any) -> str:
    """JSON that no HTML or JavaScript parser can take for anything else: ASCII only, no ``<``, ``>`` or ``&``."""
    plain = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(rows: Sequence[Row], failures: Sequence[Failure], targets: list[str], generated_at: str) -> dict[str, Any]:
    """What the page's script draws from, and no more."""
    return {
        "schema": SCHEMA,
        "hwbench": __version__,
        "generated_at": generated_at,
        "targets": targets,
        "results": [_result(row) for row in rows],
        "errors": [{"model": f.model, "target": f.target, "type": f.type} for f in failures],
    }


def _result(row: Row) -> dict[str, Any]:
    result: dict[str, Any] = {
        "id": row.id,
        "model": row.model,
        "identity": row.identity,
        "family": row.family,
        "target": row.target,
        "latency_s": [row.latency.value, row.latency.low, row.latency.high],
        "anchored_s": [row.anchored.value, row.anchored.low, row.anchored.high],
        "top1": row.top1,
        "macs": row.macs,
        "params": row.params,
        "peak_bytes": row.peak_bytes,
        "energy_j": row.energy_j,
        "caveats": [caveat.code for caveat in row.caveats],
        "charted": not row.left_out,
        "front": row.on_front,
    }
    if row.layers:
        result["layers"] = _layers(row.layers)
    if row.series:
        result["sessions"] = {
            "median_s": _rounded(row.series.median_s),
            "anchored_s": _rounded(row.series.anchored_s),
            "samples": row.series.samples,
            "started_at": row.series.started_at,
        }
    return result


def _layers(layers: Layers) -> dict[str, Any]:
    return {
        **layers.texts,
        **{key: _rounded(column) for key, column in layers.numbers.items()},
        "shown_s": _rounded(layers.shown_s),
        "below": [int(flag) for flag in layers.below],
        "whole_s": layers.whole_s,
        "residual_s": layers.residual_s,
        "ranked": layers.ranked,
    }


def _rounded(column: Iterable[float | None]) -> list[float | int | None]:
    """Six digits, more than any of these figures is good for; whole numbers stay whole and exact."""
    return [None if v is None else int(v) if v.is_integer() else float(f"{v:.6g}") for v in column]


def _devices(rows: Sequence[Row]) -> list[str]:
    """Processors, as the environments name them, each once; the device part of the target where they do not."""
    found: dict[str, None] = {}
    for row in rows:
        environment = row.source.get("environment")
        device = environment.get("device") if isinstance(environment, Mapping) else None
        cpu = text(device.get("cpu_model")) if isinstance(device, Mapping) else ""
        cores = number(device.get("cores")) if isinstance(device, Mapping) else None
        name = f"{cpu}, {cores:g} cores" if cpu and cores is not None else cpu
        found[name or row.target.partition("/")[0]] = None
    return list(found)


def _span(rows: Sequence[Row]) -> str:
    """From when to when the sessions were measured, to the minute."""
    started = sorted(at[:16].replace("T", " ") for row in rows if row.series for at in row.series.started_at if at)
    return " – ".join(dict.fromkeys((started[0], started[-1]))) if started else ""
