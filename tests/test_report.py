"""The report, through its functions; tests/test_report_browser.py opens it."""

from __future__ import annotations

import copy
import functools
import html.parser
import json
import math
import re
import sys
from datetime import datetime, timezone

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from predict_device import device, networks
from report_example import HOSTILE, SCRIPT, TARGETS, ZOO, beside, example, failure, foreseen, hostile, result

from hwbench import units
from hwbench.cli import export
from hwbench.errors import DeviceError, MissingDependency, UsageError
from hwbench.lut.table import Entry, LookupTable
from hwbench.predict.predictor import Predictor
from hwbench.report import (
    SCHEMA,
    of_table,
    pictures,
    predicted,
    read_accuracy,
    read_json,
    render,
    with_accuracy,
    write,
)  # fmt: skip
from hwbench.report.across import across
from hwbench.report.model import Ceiling, ceilings, fused, kinds
from hwbench.report.rows import read

ONE, TWO = "a/fake:fp32@1x1", "b/fake:fp32@1x1"


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


@functools.lru_cache(2)
def parsed(text: str) -> Page:
    """The page, parsed once for all who look at it."""
    return Page(text)


def row_of(text: str, model: str) -> list[str]:
    """Cells of the first row of the table of results that is of this model."""
    table = text[text.index('id="results-table"') : text.index("</section>", text.index('id="results-table"'))]
    for row in map(Page, re.findall(r"<tr>.*?</tr>", table, re.S)):
        if any(attrs.get("scope") == "row" and model in name.split("\n")[0] for attrs, name in row.all("th")):
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
    made = datetime(2026, 1, 5, 12, 0, tzinfo=timezone.utc)
    return render([*example(), *foreseen()], title="A <title>", generated_at=made, **beside())


def test_the_page_has_its_parts_and_a_skeleton_for_readers(page):
    tree = parsed(page)
    assert tree.all("html")[0][0]["lang"] == "en"
    assert all(len(tree.all(tag)) == 1 for tag in ("main", "nav", "h1", "footer"))
    assert tree.all("a", class_="skip")[0][0]["href"] == "#main"
    ids = [attrs["id"] for _, attrs, _ in tree.nodes if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {"front", "across", "results", "models", "tables", "errors", "methods"} <= set(ids)
    assert all("scope" in attrs for attrs, _ in tree.all("th"))
    assert len(tree.all("caption")) == len(tree.all("table"))
    assert {attrs["href"] for attrs, _ in tree.all("a")} <= {f"#{name}" for name in ids}
    assert "2026-01-05 12:00 UTC" in page
    assert tree.all("h1")[0][1] == "A <title>"


def test_every_result_is_in_the_table_and_has_a_section(page):
    tree = parsed(page)
    assert len(tree.all("details", class_="result")) == 46
    cells = row_of(page, "lcnet_100")
    source = example()[3]
    assert cells[0] == "local-cpu/onnxruntime:fp32@1x1"
    assert units.seconds(source["latency_s"]["median"]) in cells[1]
    assert units.seconds(source["latency_s"]["anchored"]) in cells[2]
    assert cells[3] == "72.10 %"
    assert cells[7] == "130 mJ"
    assert row_of(page, "resnet50")[7] == "unavailable"
    assert "no RAPL counter under /sys/class/powercap" in page


def test_rendering_is_pure():
    results = example()
    before = copy.deepcopy(results)
    assert render(results, generated_at="now") == render(results, generated_at="now")
    assert results == before


def test_points_of_another_input_size_or_without_accuracy_stay_out_of_the_front(page):
    tree = parsed(page)
    charted = {r["model"] for r in tree.data["results"] if r["charted"] and not r["predicted"]}
    assert "tinynet_c" not in charted
    assert "ssdlite320_mobilenet_v3_large" not in charted
    assert len(charted) == 14
    assert "it ran at 224, its published top-1 is at 184" in page
    assert "no top-1 is published for it" in page


def test_fronts_are_per_target_and_undominated(page):
    results = parsed(page).data["results"]
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
    tree = parsed(page)
    assert tree.all("img") == []
    assert [attrs for attrs, _ in tree.all("script")] == [
        {"type": "text/plain", "id": "other-results"},
        {"type": "application/json", "id": "data"},
        {},
        {},
    ]
    assert not any(name.startswith("on") for _, attrs, _ in tree.nodes for name in attrs)
    evil = next(r for r in tree.data["results"] if r["model"] == SCRIPT)
    assert evil["family"] == HOSTILE[1]
    assert evil["layers"]["op"][0] == HOSTILE[2]
    embedded = page[page.index('id="data">') : page.index("</script>", page.index('id="data">'))]
    assert not set("<&\u2028\u2029") & set(embedded.removeprefix('id="data">'))


@pytest.mark.parametrize("evil", HOSTILE)
def test_a_target_or_a_family_that_attacks_stays_an_attribute(evil):
    models = [dict(result(entry, ONE, 1.0), target=evil, family=evil + entry[0]) for entry in ZOO[:2]]
    tree = Page(render([*models, *(dict(one, target=TWO) for one in models)]))
    assert tree.all("img") == []
    assert len(tree.all("script")) == 4
    boxes = {attrs["value"] for attrs, _ in tree.all("input", **{"data-hide": "target"})}
    assert boxes == {evil.replace("\ud800", "?"), TWO}
    assert not any(name.startswith("on") for _, attrs, _ in tree.nodes for name in attrs)
    assert len(tree.all("input", **{"data-hide": "family"})) == 2


def test_nothing_leaves_the_page(page):
    text = own_text(render(example()[:-1]))  # the last one attacks the page with tags, as text
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|\ssrc=|<link|<iframe|<form|fetch\(|XMLHttp", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_the_embedded_data_is_versioned_and_trimmed(page):
    data = parsed(page).data
    assert data["schema"] == SCHEMA == 2
    assert len(data["results"]) == 46 + 12
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
    tree = parsed(page)
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


def test_what_was_measured_otherwise_is_repeated_otherwise():
    target = TARGETS[0][0]
    quick = {**result(ZOO[0], target, 1.0), "preset": "quick"}
    short = {key: value for key, value in result(ZOO[1], target, 1.0).items() if key not in ("memory", "energy")}
    command = Page(render([quick, {**short, "preset": "rigorous"}])).all("pre", class_="command")[0][1]
    first, second, _ = command.split(" && \\\n")
    assert first.endswith("--preset quick")
    assert second.endswith("--preset rigorous --passes latency,layers")


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
    drawn = parsed(text).data["results"][0]["layers"]
    assert "Shares and bars are scaled" in text
    assert math.isclose(sum(drawn["shown_s"]), 0.9 * total, rel_tol=1e-5)
    assert drawn["shown_s"][0] == 0
    assert drawn["latency_s"][0] == -1e-6


def test_layers_are_not_ranked_when_the_profiler_was_heavy():
    one = result(ZOO[0], TARGETS[0][0], 1.0)
    one["closure"]["profiled_over_plain"] = 2.4
    text = render([one])
    assert parsed(text).data["results"][0]["layers"]["ranked"] is False
    assert 'data-chart="layers"' not in text
    assert "more than twofold" in text


def test_no_results_say_what_to_run_next():
    text = render([])
    assert "hwbench profile" in text
    assert len(text) < 100_000  # no charts, so no chart library
    assert parsed(text).data["results"] == []


def test_a_missing_value_is_never_a_zero():
    text = render([{"model": "bare", "target": "local-cpu/fake:fp32@1x1"}])
    cells = row_of(text, "bare")
    assert cells[1:8] == ["n/an/a", *["n/a"] * 6]
    assert not re.search(r">\s*0(\.0+)?( [µnm]?s| B| %)?\s*<", own_text(text))


JUNK = st.sampled_from(
    [None, [], {}, "", "x", SCRIPT, -1, 0, 10**400, float("nan"), float("inf"), True, [None], [{}], {"a": {"b": [1]}}]
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Paths to everything inside a result object."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    return [found for key, inner in items for found in ((*path, key), *places(inner, (*path, key)))]


WHOLE = result(ZOO[0], TARGETS[0][0], 1.0)


@settings(max_examples=25, deadline=None)
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
    assert parsed(text).data["schema"] == SCHEMA
    assert parsed(text).all("img") == []


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


def test_the_picture_of_the_front_names_what_is_on_it(tmp_path):
    about = {"top1_input_size": 224, "input_size": 224}
    given = [at_size(f"net{side}", side, top1=70 + side / 100, **about) for side in (64, 128)]
    given.append(at_size("beaten", 256, top1=70, **about))
    front = next(path for path in pictures(given, "svg", tmp_path) if path.stem == "front").read_text()
    assert ("net64" in front, "net128" in front, "beaten" in front) == (True, True, False)


def test_a_picture_tells_predicted_points_from_measured_ones(tmp_path):
    measured = result(ZOO[0], TARGETS[0][0], 1.0)
    made = predicted([{"model": "p", "latency_s": 1e-3, "top1": 60.0}], TARGETS[0][0])
    for results, told in (([measured], 0), ([measured, *made], 1), (made, 1)):
        drawn = {path.stem: path.read_text() for path in pictures(results, "svg", tmp_path)}
        for name in ("front", "latency"):
            assert drawn[name].count(f"<!-- {TARGETS[0][0]}, predicted -->") == told, name
            assert ("× is predicted" in drawn[name]) is bool(told)
        assert "<!-- Top-1 accuracy (%) -->" in drawn["front"]  # not all of them need be published


def test_a_picture_of_very_many_models_shows_the_quickest(tmp_path):
    many = on(ONE, {f"m{i}": 1e-3 + i * 1e-6 for i in range(1600)})
    (png,) = pictures(many, "png", tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    (svg,) = pictures(many, "svg", tmp_path)
    assert "The quickest 300 of 1600 models" in svg.read_text()


def test_pictures_without_data_and_of_unknown_format(tmp_path):
    assert pictures([failure(), {}], "png", tmp_path) == []
    with pytest.raises(UsageError, match="png"):
        pictures([], "pgn", tmp_path)


def test_predicted_points_are_told_apart_and_have_no_section(page):
    tree = parsed(page)
    points = [r for r in tree.data["results"] if r["predicted"]]
    assert len(points) == 12
    assert all(r["charted"] and not r["open"] and r["caveats"] == ["predicted"] for r in points)
    assert not {r["id"] for r in points} & {attrs["id"] for attrs, _ in tree.all("details", class_="result")}
    table = page[page.index('id="results-table"') :]
    assert "<small>predicted" in table[table.index("ofa:<wbr>3</bdi>") :][:60]
    command = tree.all("pre", class_="command")[0][1]
    assert "ofa:" not in command  # a prediction is nothing that profile repeats


def test_a_prediction_without_a_latency_is_left_out():
    bad = [{"model": "a"}, {"model": "b", "latency_s": 0}, {"model": "c", "latency_s": float("nan")}]
    assert predicted(bad, TARGETS[0][0]) == []
    (one,) = predicted([{"model": "d", "latency_s": 1e-3, "target": TARGETS[1][0]}], TARGETS[0][0])
    assert one["target"] == TARGETS[1][0]


def test_a_prediction_brings_its_doubts_its_level_and_its_reference():
    target = TARGETS[0][0]
    doubt = {"code": "unseen_ops", "text": "It knows no Softplus.", "remedy": "Measure it."}
    point = {"model": "d", "latency_s": 1e-3, "low_s": 9e-4, "high_s": 1.2e-3, "level": 0.9, "caveats": [doubt, 5],
             "anchor_ref": {"id": "a1", "latency_s": 6.54e-4}}  # fmt: skip
    measured = on(target, {"e": 2e-3, "f": 3e-3})
    for one in measured:
        one["latency_s"]["anchor_ref_s"] = 8.57e-4
    text = render([*measured, *predicted([point], target)])
    (made,) = [r for r in parsed(text).data["results"] if r["predicted"]]
    assert made["caveats"] == ["predicted", "unseen_ops", "other_reference"]
    assert made["anchored_s"] == [1e-3, 9e-4, 1.2e-3]
    assert "Its interval is meant to hold 90 % of such networks." in text
    assert "the anchor takes 654.0 µs; those measured on this target are at 857.0 µs" in text
    assert all(r["caveats"] == [] for r in parsed(text).data["results"] if not r["predicted"])
    alike = {**point, "anchor_ref": {"id": "a1", "latency_s": 8.5e-4}}
    assert "other_reference" not in own_text(render([*measured, *predicted([alike], target)]))
    assert "other_reference" not in own_text(render(predicted([point], target)))  # there is nothing beside it


def test_precision_is_a_filter_where_there_are_several():
    one, two = (result(ZOO[0], f"pi5/litert:{precision}@4x1", 1.0) for precision in ("fp32", "int8"))
    assert {r["precision"] for r in Page(render([one, two])).data["results"]} == {"fp32", "int8"}
    assert Page(render([one, two])).all("input", value="int8", **{"data-hide": "precision"})
    assert not Page(render([one])).all("input", **{"data-hide": "precision"})


def on(target: str, seconds: dict[str, float], half_width: float = 0.01) -> list[dict]:
    return [
        {"model": name, "identity": name, "target": target,
         "latency_s": {"median": s, "low": s * (1 - half_width), "high": s * (1 + half_width)}}
        for name, s in seconds.items()
    ]  # fmt: skip


def test_rank_correlation_and_flips_between_two_targets():
    here, there = {"p": 1.0, "q": 2.0, "r": 3.0, "s": 4.0}, {"p": 10.0, "q": 20.0, "r": 40.0, "s": 30.0}
    found = across(read([*on(ONE, here), *on(TWO, {**there, "alone": 5.0})])[0])
    assert found.shared == 4
    assert (found.spearman(ONE, TWO), found.kendall(TWO, ONE)) == pytest.approx((0.8, 2 / 3))
    assert (found.flipped, found.compared) == (1, 6)
    (flip,) = found.flips
    assert (flip.one.model, flip.two.model, flip.certain) == ("r", "s", True)
    assert flip.size == pytest.approx(1 / 3)  # 4 over 3 on both sides
    assert not across(read([*on(ONE, here, 0.2), *on(TWO, there)])[0]).flips[0].certain


def test_a_model_that_a_target_does_not_like_stands_out_in_the_heat_map():
    here = {f"m{i}": 1.0 + i for i in range(6)}
    found = across(read([*on(ONE, here), *on(TWO, {**{k: 3 * v for k, v in here.items()}, "m2": 36.0})])[0])
    ratio = dict(zip(found.heat.models, found.heat.ratio, strict=True))
    assert max(ratio, key=lambda name: ratio[name][1]) == "m2"
    assert ratio["m2"][1] / ratio["m2"][0] == pytest.approx(4.0 ** (5 / 6), rel=1e-4)
    assert list(found.heat.models) == sorted(here, key=lambda name: here[name] * (2 if name == "m2" else 1))


def test_too_few_or_predicted_points_are_no_comparison():
    two = {"p": 1.0, "q": 2.0}
    assert across(read([*on(ONE, two), *on(TWO, two)])[0]) is None
    made = [{**r, "caveats": [{"code": "predicted"}]} for r in on(TWO, {**two, "r": 3.0})]
    assert across(read([*on(ONE, {**two, "r": 3.0}), *made])[0]) is None
    alike = across(read([*on(ONE, {"p": 1.0, "q": 1.0, "r": 1.0}), *on(TWO, {**two, "r": 3.0})])[0])
    assert alike.spearman(ONE, TWO) is None
    assert 'id="across"' not in render(on(ONE, two))


def test_what_layers_hold_and_what_the_target_can_do_at_best():
    one = result(ZOO[0], ONE, 1.0)
    layer = {"name": "n", "op": "Conv", "kind": "conv", "latency_s": 1e-3, "macs": 2e6, "param_bytes": 1e3,
             "input_bytes": 2e3, "output_bytes": 1e3, "sources": ["a", "b", "c"]}  # fmt: skip
    short = {**layer, "latency_s": 1e-9}  # its rate would be absurd
    one["layers"] = [layer] * 5 + [
        short,
        {**layer, "below_resolution": True, "latency_s": 1e-4},
        {**layer, "sources": None},
    ]
    one["layers"][7]["sources"] = "abc"  # no list: nothing is told
    rows, _ = read([one])
    assert ceilings(rows) == {ONE: Ceiling(2e9, 4e6, 6)}
    one["layers"][0] = {**layer, "macs": None}  # not told: it says nothing of the arithmetic, and all of its bytes
    assert ceilings(read([one])[0]) == {ONE: Ceiling(2e9, 4e6, 6)}
    assert len(fused(rows[0].layers)) == 7
    text = render([one])
    assert "Fusion: 7 layers hold several of the source" in text
    assert "7 of 8 layers tell what they hold: 21 of the source" in text
    assert parsed(text).data["ceilings"] == {ONE: [2e9, 4e6]}
    assert [kind.op for kind in kinds(rows[0].layers)] == ["conv"]


def test_change_points_of_a_session_are_told(page):
    series = parsed(page).data["results"][0]["sessions"]
    assert series["changes"] == [[], [], [], [4], [], [], [], []]
    assert "The level changes once inside a session" in page


def test_anchored_session_figures_come_from_the_level_and_the_slope():
    one = result(ZOO[0], ONE, 1.0)
    one["latency_s"]["slope"] = 0.5
    one["sessions"] = [{"median_s": 1e-3, "anchor_level": 1.21}, {"median_s": 1e-3, "anchor_level": None}]
    assert Page(render([one])).data["results"][0]["sessions"]["anchored_s"] == [pytest.approx(1e-3 / 1.1), None]


def test_tables_validations_and_evaluations_have_their_panels(page):
    tree = parsed(page)
    assert [s["id"] for s in tree.data["scatters"]] == ["table0", "validation0", "evaluation0"]
    assert len(tree.data["scatters"][1]["measured_s"]) == 30
    assert "It moved." not in page  # the gate's own words go before the general ones
    assert "Measure again." in page
    for words in (
        "1.29 %",
        "a line through MACs",
        "nn-Meter&#39;s method",
        "12.80 %",
        "Table of ofa-mbv3",
        "1 flagged entry",
    ):
        assert words in page, words


def test_a_panel_of_nonsense_is_still_a_panel():
    junk = {"a": None, "b": [], "c": 10**400, "mape": SCRIPT, "networks": [SCRIPT]}
    for source in ({}, junk, {"points": [junk, {"predicted_s": -1}], "context": 3, "baselines": [1], "flagged": 5}):
        text = render([], lookup_tables=[source], validations=[source], evaluations=[source])
        assert parsed(text).data["scatters"] == []
        assert "Nothing to show yet" not in text


def test_a_real_table_becomes_a_panel():
    entries = {key: Entry(key, 1e-3, flags=flags) for key, flags in (("a", ()), ("b", ("drift",)))}
    context = {"flagged": [{"key": "b", "flag": "drift", "why": "it rose"}]}
    table = of_table(LookupTable("kernels", "", 0, ONE, entries, context=context))
    json.dumps(table)
    text = render([], lookup_tables=[table])
    assert "Table of kernels" in text
    assert "it rose" in text


def test_own_accuracies_replace_published_ones(tmp_path):
    file = tmp_path / "own.csv"
    file.write_text("model,accuracy\nresnet18,0.5\nlcnet_100@1x3x224x224,0.625\n")
    found = with_accuracy(example(), read_accuracy(file), file.name)
    rows = {r["model"]: r for r in Page(render(found)).data["results"]}
    assert (rows["resnet18"]["top1"], rows["lcnet_100"]["top1"]) == (50.0, 62.5)
    assert rows["resnet18"]["top1_source"] == "own.csv"
    assert rows["resnet50"]["charted"] is False


def test_an_accuracy_that_could_be_of_several_sizes_or_of_nothing_is_refused():
    both = [at_size("small", side, input_size=[3, side, side]) for side in (224, 192)]
    with pytest.raises(UsageError, match="several sizes: small@1x3x224x224, small@1x3x192x192"):
        with_accuracy(both, {"small": 70.0}, "own.csv")
    one, two = with_accuracy(both, {"small": 70.0, "small@1x3x192x192": 66.0}, "own.csv")
    assert (one["top1"], two["top1"]) == (70.0, 66.0)
    batched = [both[0], {**both[0], "identity": "small@8x3x224x224"}]
    assert [r["top1"] for r in with_accuracy(batched, {"small": 70.0}, "own.csv")] == [70.0, 70.0]
    with pytest.raises(UsageError, match="no accuracy of any model") as error:
        with_accuracy(both, {"smal": 70.0}, "own.csv")
    assert "small" in error.value.message
    assert with_accuracy([], {"small": 70.0}, "own.csv") == []


@pytest.mark.parametrize("text", ["", "name,accuracy\na,1\n", "model,accuracy\na,x\n", "model,accuracy\na,1\na,2\n",
                                  "model,accuracy\na,nan\n", "model,accuracy\na,101\n"])  # fmt: skip
def test_accuracies_that_cannot_be_are_refused(text, tmp_path):
    (tmp_path / "own.csv").write_text(text)
    with pytest.raises(UsageError) as error:
        read_accuracy(tmp_path / "own.csv")
    assert error.value.remedy


def test_json_of_other_commands_is_read_in_each_of_its_shapes(tmp_path):
    file = tmp_path / "v.json"
    for written in ('{"a": 1}', '[{"a": 1}]', '{"a": 1}\n'):
        file.write_text(written)
        assert read_json(file, "validation", ("a",)) == [{"a": 1}]
    file.write_text('{"a": 1}\n{"a": 2}\n')
    assert [one["a"] for one in read_json(file, "validation", ("a",))] == [1, 2]
    for bad in ("", "{", "[1]", '{"b": 1}', "[" * 100_000):
        file.write_text(bad)
        with pytest.raises(UsageError):
            read_json(file, "validation", ("a",))
    with pytest.raises(UsageError):
        read_json(tmp_path / "none.json", "validation", ("a",))


def test_many_results_get_a_table_and_the_first_their_sections():
    many = [{"model": f"m{i}", "target": ONE, "latency_s": {"median": 1e-3 + i * 1e-6}, "top1": 60 + i * 0.01,
             "input_size": 224, "top1_input_size": 224} for i in range(500)]  # fmt: skip
    tree = Page(text := render([*many, {**result(ZOO[0], ONE, 9.0), "top1": 50.0}]))
    sections = {attrs["id"] for attrs, _ in tree.all("details", class_="result")}
    assert len(sections) == 200
    assert "Here are 200 of 501 measured results" in text
    table = text[text.index('id="results-table"') :]
    assert table.index("m199</bdi>") < table.index('id="other-results"') < table.index("m200</bdi>")
    assert text.count('<tr><th scope="row"><span class="star"') == 501


def test_the_command_line_measures_and_reports_again():
    text = Page(render(example()[:3], command="hwbench report -o 'a b.html'")).all("pre", class_="command")[0][1]
    assert text.replace("\\\n", "").splitlines() == [text.replace("\\\n", "")]  # one line for a shell
    assert text.endswith("&& \\\nhwbench report -o 'a b.html'")
    assert text.startswith("hwbench profile mobilenetv3_small_100@224 --on local-cpu/onnxruntime:fp32@1x1 --on")


def at_size(model: str, side: int, **more: object) -> dict[str, object]:
    target = "local-cpu/onnxruntime:fp32@1x1"
    latency = {"median": side * 1e-5, "low": side * 0.99e-5, "high": side * 1.01e-5}
    return {"model": model, "identity": f"{model}@1x3x{side}x{side}", "target": target, "latency_s": latency, **more}


def test_one_model_at_two_sizes_is_two_names_and_has_one_accuracy():
    about = {"top1": 67.64, "top1_input_size": 224}
    given = [at_size("small", side, input_size=[3, side, side], **about) for side in (224, 192)]
    text = render([*given, at_size("alone", 224, input_size=[3, 224, 224], **about)])
    rows = {row["model"]: row for row in parsed(text).data["results"]}
    assert list(rows) == ["small@1x3x224x224", "small@1x3x192x192", "alone"]
    assert [row["charted"] for row in rows.values()] == [True, False, True]
    table = re.sub(r"<wbr>", "", text[text.index('id="results-table"') : text.index('id="other-results"')])
    assert table.count('data-v="67.64"') == 2
    assert "67.64 % at 224" in table.split("small@1x3x192x192")[1].split("</tr>")[0]


def test_the_command_line_names_sizes_where_profile_takes_them():
    names = ("net.onnx", "python:nets:make", "space:nasbench201:231040", "net.tflite", "resnet18.a1_in1k")
    text = Page(render([at_size(name, 64) for name in names])).all("pre", class_="command")[0][1]
    wanted = "net.onnx@64 python:nets:make@64 space:nasbench201:231040 net.tflite resnet18.a1_in1k@64"
    assert text.startswith(f"hwbench profile {wanted} --on")


def test_the_command_line_keeps_shapes_that_are_no_squares_and_trained_weights():
    wide = {"model": "resnet18", "identity": "resnet18@1x3x160x192"}
    trained = {"model": "lcnet_100", "identity": "lcnet_100@1x3x224x224", "note": "pretrained weights"}
    given = [
        {**on(ONE, {"x": 1e-3})[0], **about}
        for about in (wide, {**trained, "weights_tag": "ra2_in1k"}, {"model": "n.onnx", "identity": "n.onnx@1x9x9x3"})
    ]
    text = Page(render(given)).all("pre", class_="command")[0][1]
    assert "hwbench profile resnet18@160x192 n.onnx --on" in text
    assert f"hwbench profile lcnet_100.ra2_in1k@224 --on {ONE} --passes latency --pretrained" in text


def test_what_ran_on_a_gpu_is_headed_by_it():
    on_cpu = {**on(ONE, {"x": 1e-3})[0], "environment": {"device": {"cpu_model": "Host CPU", "cores": 8}}}
    on_gpu = {**on(TWO, {"x": 1e-3})[0], "environment": {"device": {"cpu_model": "Host CPU", "gpu_model": "Big GPU"}}}
    words = [text for attrs, text in Page(render([on_cpu, on_gpu])).all("dd", class_="words")]
    assert words[0] == "Host CPU, 8 cores; Big GPU"


def test_how_a_peak_was_found_or_why_there_is_none_is_told():
    one = result(ZOO[0], ONE, 1.0)
    assert "Device memory" not in render([one])  # a CPU has none, and that is no gap
    why = "this system cannot set the peak of a process back"
    one["memory"] |= {"peak_bytes": None, "method": why, "device_bytes": 5 << 20, "reserved_bytes": 7 << 20}
    text = render([one])
    assert all(words in text for words in (why, "5.00 MiB", "7.00 MiB"))


def test_report_with_a_predictor_passes_over_what_it_cannot_tell(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kind = onnx.TensorProto.FLOAT
    nodes = [onnx.helper.make_node("Relu", ["x"], ["a"]), onnx.helper.make_node("Softplus", ["a"], ["y"])]
    ends = [onnx.helper.make_tensor_value_info(name, kind, ("n", 3, "h", "w")) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:])
    file = tmp_path / "tiny.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), str(file))
    Predictor.train(networks(5, 2, device(), noise=0.01)).write(tmp_path / "cpu.hwp")
    here, there = "local-cpu/onnxruntime:fp32@1x1", "local-cpu/torch:fp32@1x1"
    names = [str(file), "module:Net-0123", str(tmp_path / "gone.onnx")]
    shapes = ("1x3x12x12", "1x3x8x8", "1x3x8x8")
    stored = on(there, dict.fromkeys(names, 1e-3))
    stored = [{**one, "identity": f"{one['model']}@{shape}"} for one, shape in zip(stored, shapes, strict=True)]
    stored.append({**stored[0], "target": here, "identity": f"{file}@1x3x8x8"})  # another size than the one to be told
    monkeypatch.setenv("HWBENCH_DB", f"sqlite:///{tmp_path / 'empty.db'}")
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hwbench.results.of_all", lambda *_, **__: stored)
    words = ["-o", str(tmp_path / "r.html"), "--with", str(tmp_path / "cpu.hwp")]
    done = CliRunner().invoke(export.report, words)
    assert done.exit_code == 0, done.output
    points = [r for r in Page((tmp_path / "r.html").read_text(encoding="utf-8")).data["results"] if r["predicted"]]
    assert [(r["target"], r["caveats"][:2]) for r in points] == [(here, ["predicted", "unseen_ops"])]
    assert "cpu.hwp says nothing of module:Net-0123" in done.output
    assert isinstance(CliRunner().invoke(export.report, ["module:Net-0123", *words]).exception, UsageError)


def test_report_command_takes_files_beside_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("HWBENCH_DB", f"sqlite:///{tmp_path / 'empty.db'}")
    validation, page = tmp_path / "v.json", tmp_path / "r.html"
    validation.write_text(json.dumps(beside()["validations"][0]))
    done = CliRunner().invoke(export.report, ["-o", str(page), "--validation", str(validation)])
    assert done.exit_code == 0, done.output
    assert f"--validation {validation}" in page.read_text(encoding="utf-8")
    empty = CliRunner().invoke(export.report, ["-o", str(page)])
    assert isinstance(empty.exception, UsageError)


def test_rows_that_wait_as_text_cannot_end_early():
    many = [{"model": HOSTILE[1], "target": ONE, "family": "<!--<script>"} for _ in range(250)]
    text = render(many)
    start = text.index('id="other-results">')
    waiting = text[start : text.index("</script>", start)]
    assert waiting.count("<tr>") == 50
    assert not re.search(r"<(!--|script|img)", waiting)
