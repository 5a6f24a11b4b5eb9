"""The report, through its three functions; and in a real browser where one is installed."""

from __future__ import annotations

import copy
import html.parser
import json
import math
import random
import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_example import HOSTILE, SCRIPT, TARGETS, ZOO, example, failure, hostile, result

from hwbench import units
from hwbench.errors import DeviceError, MissingDependency, UsageError
from hwbench.report import SCHEMA, pictures, render, write


class Page(html.parser.HTMLParser):
    """A rendered page as a list of (tag, attributes, text directly inside)."""

    VOID = frozenset({"meta", "link", "img", "input", "br", "wbr", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.nodes: list[tuple[str, dict, list[str]]] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.nodes.append((tag, dict(attrs), []))
        if tag not in self.VOID:
            self.open.append(len(self.nodes) - 1)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.nodes[self.open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for index in self.open:  # text belongs to every element around it
            if self.nodes[index][0] not in ("html", "body", "main", "section"):
                self.nodes[index][2].append(data)

    def all(self, tag: str, **attributes: str) -> list[tuple[dict, str]]:
        found = [(attrs, "".join(words)) for name, attrs, words in self.nodes if name == tag]
        return [item for item in found if all(item[0].get(k.rstrip("_")) == v for k, v in attributes.items())]

    @property
    def data(self) -> dict:
        return json.loads(self.all("script", id="data")[0][1])


def row_of(text: str, model: str) -> list[str]:
    """Cells of the first row of the table of results that is of this model."""
    table = text[text.index('id="results-table"') : text.index("</section>", text.index('id="results-table"'))]
    for row in map(Page, re.findall(r"<tr>.*?</tr>", table, re.S)):
        if any(name.endswith(model) for _, name in row.all("th")):
            return [cell for _, cell in row.all("td")]
    raise KeyError(model)


def own_text(page: str) -> str:
    """The page without plotly's script and without the data."""
    scripts = re.findall(r"<script>.*?</script>", page, re.S)
    for script in scripts:
        if len(script) > 1_000_000:
            page = page.replace(script, "")
    return re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.S)


@pytest.fixture(scope="module")
def page() -> str:
    return render(example(), title="A <title>", generated_at=datetime(2026, 1, 5, 12, 0, tzinfo=timezone.utc))


def test_the_page_has_its_parts_and_a_skeleton_for_readers(page):
    tree = Page(page)
    assert tree.all("html")[0][0]["lang"] == "en"
    assert all(len(tree.all(tag)) == 1 for tag in ("main", "nav", "h1", "footer"))
    assert tree.all("a", class_="skip")[0][0]["href"] == "#main"
    ids = [attrs["id"] for _, attrs, _ in tree.nodes if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {"front", "results", "models", "errors", "methods"} <= set(ids)
    assert all("scope" in attrs for attrs, _ in tree.all("th"))
    assert len(tree.all("caption")) == len(tree.all("table"))
    assert {attrs["href"] for attrs, _ in tree.all("a")} <= {f"#{name}" for name in ids}
    assert "2026-01-05 12:00 UTC" in page
    assert tree.all("h1")[0][1] == "A <title>"


def test_every_result_is_in_the_table_and_has_a_section(page):
    tree = Page(page)
    assert len(tree.all("details", class_="result")) == 46
    cells = row_of(page, "lcnet_100")
    source = example()[3]
    assert cells[0] == "lcnet"
    assert units.seconds(source["latency_s"]["median"]) in cells[2]
    assert units.seconds(source["latency_s"]["anchored"]) in cells[3]
    assert cells[5] == "72.10 %"
    assert cells[9] == "130 mJ"
    assert row_of(page, "resnet50")[9] == "unavailable"
    assert "no RAPL counter under /sys/class/powercap" in page


def test_rendering_is_pure():
    results = example()
    before = copy.deepcopy(results)
    assert render(results, generated_at="now") == render(results, generated_at="now")
    assert results == before


def test_points_of_another_input_size_or_without_accuracy_stay_out_of_the_front(page):
    tree = Page(page)
    charted = {r["model"] for r in tree.data["results"] if r["charted"]}
    assert "tinynet_c" not in charted
    assert "ssdlite320_mobilenet_v3_large" not in charted
    assert len(charted) == 14
    assert "it ran at 224, its published top-1 is at 184" in page
    assert "no top-1 is published for it" in page


def test_fronts_are_per_target_and_undominated(page):
    results = Page(page).data["results"]
    for target, _ in TARGETS:
        mine = [r for r in results if r["target"] == target and r["charted"]]
        best = [r for r in mine if r["front"]]
        assert 0 < len(best) < len(mine)
        for r in mine:
            beaten = any(o["latency_s"][0] < r["latency_s"][0] and o["top1"] > r["top1"] for o in mine)
            assert beaten != r["front"]


@pytest.mark.parametrize(("ran", "published", "drawn"), [
    (224, 224, True), (224, [3, 224, 224], True), ("1x3x224x224", 224.0, True),
    (256, 224, False), ([192, 256], 256, False), (None, 224, False), (224, None, False),
])  # fmt: skip
def test_input_sizes_are_compared_however_they_are_written(ran, published, drawn):
    one = {**result(ZOO[0], TARGETS[0][0], 1.0), "input_size": ran, "top1_input_size": published}
    assert Page(render([one])).data["results"][0]["charted"] is drawn


def test_nothing_from_outside_becomes_markup(page):
    tree = Page(page)
    assert tree.all("img") == []
    assert [attrs for attrs, _ in tree.all("script")] == [{"type": "application/json", "id": "data"}, {}, {}]
    assert not any(name.startswith("on") for _, attrs, _ in tree.nodes for name in attrs)
    evil = next(r for r in tree.data["results"] if r["model"] == SCRIPT)
    assert evil["family"] == HOSTILE[1]
    assert evil["layers"]["op"][0] == HOSTILE[2]
    embedded = page[page.index('id="data">') : page.index("</script>", page.index('id="data">'))]
    assert not set("<&\u2028\u2029") & set(embedded.removeprefix('id="data">'))


def test_nothing_leaves_the_page(page):
    text = own_text(render(example()[:-1]))  # the last one attacks the page with tags, as text
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|\ssrc=|<link|<iframe|<form|fetch\(|XMLHttp", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_the_embedded_data_is_versioned_and_trimmed(page):
    data = Page(page).data
    assert data["schema"] == SCHEMA == 1
    assert len(data["results"]) == 46
    assert data["errors"] == [{"model": "mobilevit_xxs", "target": TARGETS[1][0], "type": "WorkerError"}]
    first = data["results"][0]
    assert set(first) & {"environment", "closure", "published"} == set()
    assert math.isclose(sum(first["layers"]["latency_s"]), example()[0]["closure"]["sum_s"], rel_tol=1e-5)


def test_failures_are_told_with_their_remedy(page):
    assert "operator aten::fold has no lowering." in page
    assert "Profile it on local-cpu/onnxruntime." in page
    only = render([failure()])
    assert "could not be measured" in only
    assert "Plotly" not in own_text(only).partition("<script>")[0]


def test_environment_and_commands_to_repeat(page):
    tree = Page(page)
    cells = [text for _, text in tree.all("td")]
    assert "Example CPU @ 2.40GHz" in cells
    assert any(re.fullmatch(r"2\.3\d GHz – 2\.40 GHz", cell) for cell in cells)
    heads = [text for _, text in tree.all("th")]
    assert {"Frequency governor", "Temperature"} <= set(heads)  # not known here, and that is told
    assert "… lowest" not in heads
    command = tree.all("pre", class_="command")[0][1]
    assert "hwbench profile mobilenetv3_small_100@224 lcnet_100@224" in command
    assert "ssdlite320_mobilenet_v3_large@320" in command
    assert "--on local-cpu/litert:fp32@1x1 --on local-cpu/torch:fp32@1x1" in command
    assert "'<script>alert(1)</script>'" in command


def test_noise_floor_is_shown_where_it_is_known():
    one = {**result(ZOO[0], TARGETS[0][0], 1.0), "noise_floor": 0.0123}
    assert "local-cpu/onnxruntime:fp32@1x1</bdi> 1.23 %" in render([one])
    assert "hwbench noise-floor --on TARGET" in render([result(ZOO[0], TARGETS[0][0], 1.0)])


def test_a_negative_residual_scales_what_is_drawn_and_says_so():
    one = result(ZOO[0], TARGETS[0][0], 1.0)
    total = sum(layer["latency_s"] for layer in one["layers"])
    one["layers"][0]["latency_s"] = -1e-6
    one["closure"].update(sum_s=total, residual_s=-0.1 * total)
    text = render([one])
    drawn = Page(text).data["results"][0]["layers"]
    assert "Shares and bars are scaled" in text
    assert math.isclose(sum(drawn["shown_s"]), 0.9 * total, rel_tol=1e-5)
    assert drawn["shown_s"][0] == 0
    assert drawn["latency_s"][0] == -1e-6


def test_layers_are_not_ranked_when_the_profiler_was_heavy():
    one = result(ZOO[0], TARGETS[0][0], 1.0)
    one["closure"]["profiled_over_plain"] = 2.4
    text = render([one])
    assert Page(text).data["results"][0]["layers"]["ranked"] is False
    assert 'data-chart="layers"' not in text
    assert "more than twofold" in text


def test_no_results_say_what_to_run_next():
    text = render([])
    assert "hwbench profile" in text
    assert len(text) < 100_000  # no charts, so no chart library
    assert Page(text).data["results"] == []


def test_a_missing_value_is_never_a_zero():
    text = render([{"model": "bare", "target": "local-cpu/fake:fp32@1x1"}])
    cells = row_of(text, "bare")
    assert cells[2:10] == ["n/an/a", *["n/a"] * 7]
    assert not re.search(r">\s*0(\.0+)?( [µnm]?s| B| %)?\s*<", own_text(text))


JUNK = st.sampled_from(
    [None, [], {}, "", "x", SCRIPT, -1, 0, 10**400, float("nan"), float("inf"), True, [None], [{}], {"a": {"b": [1]}}]
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Paths to everything inside a result object."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [found for key, inner in items for found in ((*path, key), *places(inner, (*path, key)))]


WHOLE = result(ZOO[0], TARGETS[0][0], 1.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(places(WHOLE)), JUNK), max_size=6))
def test_any_field_may_be_missing_or_nonsense(damage):
    one = copy.deepcopy(WHOLE)
    for path, junk in damage:
        inner = one
        try:
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = junk
        except (TypeError, KeyError, IndexError):
            continue  # an earlier piece of junk stands there
    text = render([one])
    assert Page(text).data["schema"] == SCHEMA
    assert Page(text).all("img") == []


def test_write_takes_a_file_or_a_folder(tmp_path):
    assert write([], tmp_path / "a" / "b") == tmp_path / "a" / "b" / "index.html"
    assert write([], tmp_path / "c" / "d.HTML") == tmp_path / "c" / "d.HTML"
    write([failure()], tmp_path / "c" / "d.HTML")  # replaces
    assert "aten::fold" in (tmp_path / "c" / "d.HTML").read_text(encoding="utf-8")
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["d.HTML"]


def test_write_says_what_is_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    for path in (tmp_path / "file", tmp_path / "file" / "deeper", tmp_path / "folder.html"):
        with pytest.raises(UsageError) as usage:
            write([], path)
        assert usage.value.remedy

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DeviceError, match="No space left"):
        write([], tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(("package", "act"), [
    ("jinja2", lambda to: render([])),
    ("plotly.offline", lambda to: render([WHOLE])),
    ("matplotlib", lambda to: pictures([], "png", to)),
])  # fmt: skip
def test_a_missing_package_is_named_with_its_remedy(package, act, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency) as error:
        act(tmp_path)
    assert package.partition(".")[0] in error.value.message
    assert error.value.remedy == "pip install 'hwbench[report]'"


@pytest.mark.parametrize(("fmt", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_pictures_are_written(fmt, start, tmp_path):
    written = pictures([WHOLE, hostile(), hostile(), failure()], fmt, tmp_path / "new")
    assert sorted(written) == sorted((tmp_path / "new").iterdir())
    assert {"front", "latency"} < {path.stem for path in written}
    assert len(written) == 5  # two models of one name do not overwrite each other
    assert all(path.read_bytes().startswith(start) for path in written)


def test_pictures_without_data_and_of_unknown_format(tmp_path):
    assert pictures([failure(), {}], "png", tmp_path) == []
    with pytest.raises(UsageError, match="png"):
        pictures([], "pgn", tmp_path)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def load(url: str, profile: Path) -> tuple[str, str]:
    """The document as a headless browser leaves it, and what the browser logged."""
    switches = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                "disable-background-networking", "disable-component-update", "disable-sync",
                "virtual-time-budget=10000", "enable-logging=stderr", "v=0",
                f"user-data-dir={profile}", "window-size=1400,1000", "dump-dom")  # fmt: skip
    done = subprocess.run(
        [str(CHROMIUM), *(f"--{switch}" for switch in switches), url], capture_output=True, timeout=90, check=True
    )
    return done.stdout.decode(), done.stderr.decode()


@browser
def test_the_page_draws_in_a_browser_without_an_error(tmp_path):
    file = write(example(), tmp_path / "report.html")
    text, log = load(f"{file.as_uri()}#r45", tmp_path / "profile")
    assert "CONSOLE" not in log
    tree = Page(text)
    assert tree.all("html")[0][0]["data-ready"] == "true"
    front = text[text.index('id="front-chart"') : text.index("</figure>")]
    assert front.count('class="trace scatter') >= 6
    assert front.count('class="point plotly-customdata"') == 40
    assert front.count('class="xerror"') == 40
    (opened,) = (attrs for attrs, _ in tree.all("details", class_="result") if "open" in attrs)
    assert (opened["id"], opened["data-drawn"]) == ("r45", "true")
    section = text[text.index('id="r45"') : text.index("data-layers", text.index('id="r45"'))]
    assert len(re.findall(r'class="trace bars"', section)) >= 4
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in section  # a name on the axis, still a name
    assert text.count('class="trace bars"') == len(re.findall(r'class="trace bars"', section))  # others wait
    assert tree.all("img") == []
    assert len(tree.all("script")) == 3


@browser
def test_numbers_in_charts_read_as_in_the_tables(tmp_path):
    rng = random.Random(7)
    values = [0.0, 1.0, 999.0, 1024.0, -3.2e-7, *(rng.uniform(1, 10) * 10.0 ** rng.randint(-9, 10) for _ in range(200))]
    script = files("hwbench.report").joinpath("templates", "format.js").read_text(encoding="utf-8")
    act = "const K = ['seconds', 'joules', 'size', 'count', 'percent'];"
    act += "document.title = JSON.stringify(V.map((v) => K.map((k) => format[k](v))));"
    (tmp_path / "f.html").write_text(
        f'<meta charset="utf-8"><script>{script};const V={json.dumps(values)};{act}</script>', encoding="utf-8"
    )
    text, log = load((tmp_path / "f.html").as_uri(), tmp_path / "profile")
    assert "CONSOLE" not in log
    shown = json.loads(Page(text).all("title")[0][1])
    python = (units.seconds, units.joules, units.size, units.count, units.percent)
    assert shown == [[write_number(value) for write_number in python] for value in values]
