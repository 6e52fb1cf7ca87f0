"""The report: one file without the network, all numbers readable without JavaScript."""

from __future__ import annotations

import base64
import gzip
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hwnas.reporting.data import (
    Curve,
    Drawing,
    Front,
    LatencyFit,
    NetRow,
    Point,
    Prediction,
    ReportData,
    Training,
    Trust,
    Truth,
)
from hwnas.reporting.drawing import draw_network
from hwnas.reporting.figures import front_figure, latency_figure
from hwnas.reporting.html import render_report, write_report
from hwnas.reporting.sections.bundles import Bundle
from hwnas.reporting.sections.classes import Classes, Picture
from hwnas.reporting.sections.devices import Winners
from hwnas.reporting.sections.references import (
    Published,
    References,
    draw_references,
    sentences,
)
from hwnas.reporting.sections.verdict import Belief
from hwnas.reporting.thinning import thinned
from hwnas.spaces.lowering import lower
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import SearchSpace

HOSTILE = "</script><script>alert(1)</script>"


class Page(HTMLParser):
    """What a test asks of a page: addresses, cells of its table, text outside scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.n_scripts = 0
        self._in: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.n_scripts += tag == "script"
        if tag in ("script", "style", "td"):
            self._in.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self._in and self._in[-1] == tag:
            self._in.pop()

    def handle_data(self, data: str) -> None:
        if "td" in self._in:
            self.rows[-1][-1] += data
        if "script" not in self._in and "style" not in self._in:
            self.text += data


@pytest.fixture(scope="module")
def ops(tiny_space: SearchSpace) -> tuple[OpSpec, ...]:
    return lower(tiny_space, tiny_space.largest())


@pytest.fixture(scope="module")
def data(ops: tuple[OpSpec, ...]) -> ReportData:
    points = (Point(1.0, 0.9), Point(3.0, 0.97), Point(2.0, 0.95))
    return ReportData(
        title="quickstart",
        table=(
            NetRow(
                "winner",
                1_234_567,
                45_678,
                0.9833,
                0.481,
                0.475,
                True,
                "1f2e",
                top1_error=0.00604,
                pace=1.02,
            ),
            NetRow("largest", 8_234_567, 345_678, 0.988, 1.39, 1.9, False),
            NetRow("smallest", 9_999, 321),
        ),
        fronts=(Front("local", "val top-1", points, points, points[2], 2.5, (Point(2.0, 0.8),)),),
        latency_fits=(
            LatencyFit("local", (2.0, 1.0), (2.1, 1.0), ((1.8, 2.2), (0.9, 1.1)), 0.024, 1.0, 0.01),
        ),
        prediction=Prediction("gcn", "val top-1", (0.8, 0.9), (0.81, 0.9), 0.71, (0.6, 0.8), 0.55),
        training=Training((Curve("largest", (0, 10), (0.1, 0.9)),), (Curve("loss", (0,), (2.3,)),)),
        winner=Drawing("winner", ops, "two words"),
        facts={"seed": "17", "host": "a machine"},
        warnings=("the forecast was off",),
    )


def test_one_file_that_loads_nothing(data: ReportData, tmp_path: Path) -> None:
    write_report(data, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    html = (tmp_path / "report.html").read_text()
    assert all(address.startswith("data:") for address in Page(html).addresses)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    (packed,) = re.findall('<script type="text/plain" id="plotly">(.*?)</script>', html)
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(packed)), (
        "plotly's code is there, once"
    )


def test_table_is_readable_without_javascript(data: ReportData) -> None:
    rows = Page(render_report(data)).rows[1:]
    assert [" ".join(cell.split()) for cell in rows[0]] == [
        "winner 1f2e",
        "98.33% ± 0.60%",
        "0.475",
        "met",
        "-",
        "0.481",
        "+1.26%",
        "1.02",
        "1.235",
        "0.04568",
    ]
    assert rows[1][3] == "not met"
    assert rows[2][1:] == ["-", "-", "-", "-", "-", "-", "-", "0.009999", "0.000321"]


def test_every_device_has_its_rows_and_its_winner_is_marked(data: ReportData) -> None:
    def row(name: str, device: str, *, is_winner: bool = False) -> NetRow:
        ms = 0.00123456 if device == "phone" else 12.3456
        return NetRow(
            name, 2_000_000, 12_345_000_000, 0.9, ms, ms, device=device, file="model.int8.onnx",
            fp32_top1=0.95, limit_ms=ms, is_winner=is_winner,
        )  # fmt: skip

    table = (
        row("winner", "phone", is_winner=True),
        row("winner on board", "phone"),
        row("winner", "board"),
        row("winner on board", "board", is_winner=True),
    )
    html = render_report(replace(data, table=table))
    page = Page(html)

    def shown(name: str, ms: str) -> list[str]:
        file = "model.int8.onnx"
        return [name, "90.00%", ms, "-", file, "95.00%", ms, ms, "+0.00%", "2", "12,345"]

    assert [[c.strip() for c in r] for r in page.rows[1:7]] == [
        [],  # the name of the device
        shown("winner", "0.001235"),
        shown("winner on board", "0.001235"),
        [],
        shown("winner", "12.35"),
        shown("winner on board", "12.35"),
    ]
    marked = [line for line in html.splitlines() if line.startswith('<tr class="winner">')]
    assert len(marked) == 2 and "winner on board" in marked[1]
    text = " ".join(page.text.split())
    assert "12.3 msmeasured latency on board" in text
    assert "0.00123 msmeasured latency on phone" in text


def test_says_the_numbers_that_matter(data: ReportData) -> None:
    text = " ".join(Page(render_report(data)).text.split())
    assert "measured latency, 25% of the largest" in text  # 0.475 / 1.9
    assert "+1.3%" in text  # 0.481 / 0.475 - 1
    assert "Kendall tau 0.71 [0.60, 0.80]; of a ranking by MACs 0.55" in text
    assert "mean error 2.4%" in text and "repeat noise 1.0%" in text
    assert "the forecast was off" in text and "17" in text and "two words" in text
    assert "not run yet" not in text


def test_missing_parts_say_so_and_the_rest_stays(data: ReportData) -> None:
    assert Page(render_report(ReportData("empty"))).text.count("not run yet") == 6
    no_section = (
        "title",
        "facts",
        "warnings",
        "winners",
        "references",
        "trust",
        "truths",
        "remarks",
        "commands",
        "bundles",
        "classes",
        "belief",
    )  # all from `winners` on: not always
    sections = [f.name for f in fields(ReportData) if f.name not in no_section]
    for name in sections:
        only = replace(ReportData("one part"), **{name: getattr(data, name)})
        assert Page(render_report(only)).text.count("not run yet") == 5, name


def test_missing_parts_name_the_command_that_makes_them() -> None:
    line = "hwnas search '/home/a b/run'"
    page = Page(render_report(ReportData("empty", commands={"search": line})))
    assert page.text.count(line) == 2 and page.text.count("hwnas ") == 3, "and the footer"


def test_a_folder_whose_name_is_not_utf8_is_in_the_report(tmp_path: Path) -> None:
    line = "hwnas search l\udce4uf"
    write_report(ReportData("empty", commands={"search": line}), tmp_path / "report.html")
    assert r"l\udce4uf" in (tmp_path / "report.html").read_text()


def test_what_was_trained_alone_stands_beside_what_was_believed(data: ReportData) -> None:
    page = Page(render_report(replace(data, truths=(Truth("abc123", -0.4567, 0.7112, 0.7654),))))
    for shown in ("abc123", "-0.457", "71.12%", "76.54%"):
        assert shown in page.text
    assert "Trained stand-alone" not in Page(render_report(data)).text


SLOW, SAME = Published("slow", 224, 9.0, 0.78, 224), Published("same", 48, 1.5, 0.7213, 224)
HERE = Published("here", 32, 1.0, 0.65, 224, test_top1=0.9123)
REFUSED = Published("refused", 32, None, why=f"no kernel for {HOSTILE}")


def test_published_networks_that_are_as_fast_as_the_winner_are_named(data: ReportData) -> None:
    device = data.fronts[0].device
    references = References(device, 2.0, (SLOW, SAME, HERE, REFUSED))
    html = render_report(replace(data, references=(references,)))
    page, text = Page(html), " ".join(Page(html).text.split())
    assert f"Published networks on {device}" in text
    assert "you could also take: here at 32 px (1 ms, test top-1 91.23%" in text
    assert "same at 48 px (1.5 ms, ImageNet top-1 72.1% at 224 px)." in text
    assert "slow at" not in text and ["slow", "224", "9", "4.50x", "78.0%", "224", "-"] in page.rows
    assert "refused (no kernel for" in text and HOSTILE not in html
    assert "Published networks" not in Page(render_report(data)).text
    (alone,) = sentences(References(device, 0.5, (SLOW, HERE)))
    assert "none of these networks is as fast" in alone and "the fastest is here" in alone


def test_a_front_shows_trained_networks_as_points_and_the_others_as_ticks(data: ReportData) -> None:
    figure = front_figure(data.fronts[0])
    n, last = len(figure.data), max(x for trace in figure.data for x in trace.x)
    beyond = Published("beyond", 224, 2 * last, 0.8, 224)
    draw_references(figure, References("phone", 2.0, (SAME, HERE, REFUSED, beyond)))
    trained, others = figure.data[n:]
    assert (list(trained.x), list(trained.y)) == ([1.0], [0.9123])
    assert list(others.x) == [1.5] and others.yaxis == "y2"  # not beyond: the table has it


def test_winners_of_several_devices_are_priced_on_each_other(data: ReportData) -> None:
    assert "several devices" not in Page(render_report(data)).text
    winners = Winners(
        devices=("phone", "board"),
        forecast_ms=((10.0, 12.5), (55.25, 40.0)),
        macs=(3_000_000, 2_500_000),
        score=(0.9, 0.8),
        differences={"stage1.depth": ("3", "2"), "stage1.block2.kernel": ("5", "-")},
    )
    rows = table_rows(replace(data, winners=winners))
    assert ["phone", "10.000", "12.500"] in rows
    assert ["board", "55.250", "40.000"] in rows
    assert ["MACs", "3,000,000", "2,500,000"] in rows
    assert ["score of the search", "0.9000", "0.8000"] in rows
    assert ["stage1.block2.kernel", "5", "-"] in rows
    measured = replace(winners, measured_ms=((11.0, 13.0), (54.0, 41.0)), notes=("on <b> it is",))
    rows = table_rows(replace(data, winners=measured))
    assert ["phone", "11.000 (10.000)", "13.000 (12.500)"] in rows
    assert "On <b> it is." in Page(render_report(replace(data, winners=measured))).text
    same = render_report(replace(data, winners=replace(winners, differences={})))
    assert "The winners are the same network." in Page(same).text


def table_rows(data: ReportData) -> list[list[str]]:
    return [[" ".join(cell.split()) for cell in row] for row in Page(render_report(data)).rows]


def test_says_how_far_the_ranking_can_be_trusted(data: ReportData) -> None:
    trust = Trust(
        "predictor", "supernet labels", 40, ("Safe to prune the worst 25%.",), (("k = 7", 0.4, 12),)
    )
    page = Page(render_report(replace(data, trust=trust)))
    text = " ".join(page.text.split())
    assert "predictor against supernet labels, 40 subnets" in text
    assert "Safe to prune the worst 25%." in text
    assert ["k = 7", "+0.40", "12"] in [[" ".join(cell.split()) for cell in r] for r in page.rows]
    assert "When to trust" not in render_report(data)


def test_text_from_outside_stays_text(data: ReportData, ops: tuple[OpSpec, ...]) -> None:
    hostile = replace(
        data,
        title=HOSTILE,
        table=(NetRow(HOSTILE, 1, 1, key=HOSTILE),),
        fronts=(Front(HOSTILE, HOSTILE, (Point(1.0, 0.5, HOSTILE),), ()),),
        prediction=Prediction(HOSTILE, HOSTILE, (0.1,), (0.1,), 0.0),
        training=Training((Curve(HOSTILE, (1,), (0.5,)),)),
        winner=Drawing(HOSTILE, ops, HOSTILE),
        facts={HOSTILE: HOSTILE},
        warnings=(HOSTILE,),
    )
    assert "<script>alert" not in render_report(hostile)
    plain = replace(hostile, training=Training((Curve("x", (1,), (0.5,)),)))
    assert Page(render_report(hostile)).n_scripts == Page(render_report(plain)).n_scripts


def test_same_data_give_the_same_file(data: ReportData) -> None:
    assert render_report(data) == render_report(data)


def test_front_is_drawn_in_order_of_latency(data: ReportData) -> None:
    traces = {trace.name: trace for trace in front_figure(data.fronts[0]).data}
    assert tuple(traces["front"].x) == (1.0, 2.0, 3.0)
    assert tuple(traces["front"].y) == (0.9, 0.95, 0.97)
    assert tuple(traces["winner"].x) == (2.0,)


def test_every_device_has_its_plots(data: ReportData) -> None:
    phone = replace(data.fronts[0], device="phone"), replace(data.latency_fits[0], device="phone")
    both = replace(
        data, fronts=(*data.fronts, phone[0]), latency_fits=(*data.latency_fits, phone[1])
    )
    html = render_report(both)
    for name in ("front-0", "front-1", "latency-0", "latency-1"):
        assert html.count(f'id="{name}"') == 1
    assert html.count('id="plotly"') == 1
    text = " ".join(Page(html).text.split())
    assert (
        "with their latencies on phone." in text
        and "whole networks, timed for the table of phone:" in text
    )


def test_band_of_the_forecast_encloses_its_intervals(data: ReportData) -> None:
    traces = {trace.name: trace for trace in latency_figure(data.latency_fits[0]).data}
    band = traces["90 % interval"]
    assert list(zip(band.x, band.y)) == [(1.0, 1.1), (2.0, 2.2), (2.0, 1.8), (1.0, 0.9)]


def test_drawing_shows_size_width_kernel_and_residuals_of_every_operator(
    ops: tuple[OpSpec, ...],
) -> None:
    svg = ElementTree.fromstring(draw_network(ops))
    boxes = svg.findall(".//rect")
    assert len(boxes) == len(ops)
    assert len([p for p in svg.iter("path") if p.get("class") == "skip"]) == sum(
        op.skip for op in ops
    )
    by_map = [(op.out_hw, float(box.get("height", ""))) for op, box in zip(ops, boxes)]
    by_width = [(op.out_channels, float(box.get("width", ""))) for op, box in zip(ops, boxes)]
    for pairs in (by_map, by_width):
        unique = sorted(set(pairs))
        assert len({size for size, _ in unique}) == len(unique), "equal sizes are drawn equal"
        assert [drawn for _, drawn in unique] == sorted(drawn for _, drawn in unique)
    kernels = [box.get("class") for op, box in zip(ops, boxes) if op.mid_channels]
    assert kernels == [f"k{op.kernel}" for op in ops if op.mid_channels]
    ends = [float(box.get("x", "")) + float(box.get("width", "")) for box in boxes]
    assert all(float(box.get("x", "")) > end for box, end in zip(boxes[1:], ends))


def test_a_report_has_at_most_five_megabytes_whatever_the_run(data: ReportData) -> None:
    """A search of 20,000 evaluations on one device made 6 MB."""
    n = 20_000
    cloud = tuple(Point(1 + i / 7, (i % 997) / 997, f"{i:016x}") for i in range(n))
    timed = tuple(1 + i / 7 for i in range(1000))
    curve = Curve("largest", tuple(range(n)), tuple(i / n for i in range(n)))
    large = replace(
        data,
        fronts=tuple(
            Front(f"device{i}", "val top-1", cloud, cloud, cloud[0], 2.5, cloud) for i in range(9)
        ),
        latency_fits=tuple(
            LatencyFit(f"device{i}", timed, timed, tuple(zip(timed, timed, strict=True)))
            for i in range(9)
        ),
        training=Training((curve,) * 5, (curve,) * 5),
    )
    n_classes = 600
    confusion = tuple(tuple(int(i == j) for j in range(n_classes)) for i in range(n_classes))
    names = tuple(f"a class with a name of some length {i}" for i in range(n_classes))
    classes = (Classes("device", "model.onnx", names, confusion),) * 20
    html = render_report(replace(large, classes=classes))
    assert len(html.encode()) <= 5_000_000
    text = Page(html).text
    assert "20,000 networks scored" in text and "of them drawn" in text
    assert "Only the first 8 devices have plots" in text
    assert text.count("the worst first (500 of 600)") == 8
    assert "of them drawn" not in Page(render_report(data)).text


def test_thinning_keeps_the_ends_and_whatever_is_few(data: ReportData) -> None:
    assert thinned(data, 3) == data
    (front,) = thinned(data, 2).fronts
    assert [point.latency_ms for point in front.archive] == [1.0, 2.0]  # the first and the last
    assert front.winner == data.fronts[0].winner and front.baseline == data.fronts[0].baseline


def test_classes_are_told_apart_the_worst_first(data: ReportData) -> None:
    names = ("ant", "bee", "<cat>", "dog")
    confusion = ((8, 2, 0, 0), (0, 10, 0, 0), (1, 3, 1, 0), (0, 0, 0, 0))
    picture = Picture("aGVsbG8=", "<cat>", "bee", 0.876)
    found = Classes("phone", "model.onnx", names, confusion, wrong=(picture,))
    assert [row.name for row in found.rows] == ["<cat>", "ant", "bee", "dog"]
    page = Page(html := render_report(replace(data, classes=(found,))))
    rows = [[" ".join(cell.split()) for cell in row] for row in page.rows]
    error = (0.8 * 0.2 / 10) ** 0.5
    assert ["ant", "10", f"80.0% ± {error:.1%}", "bee (2)"] in rows
    assert ["<cat>", "5", f"20.0% ± {(0.2 * 0.8 / 5) ** 0.5:.1%}", "bee (3)"] in rows
    assert ["dog", "0", "-", "-"] in rows
    assert ["1", "3", "1", ""] in rows, "the matrix"
    assert 'src="data:image/jpeg;base64,aGVsbG8="' in html
    assert "<cat> predicted bee 88%" in " ".join(page.text.split())
    assert "Classes" not in Page(render_report(data)).text


def test_of_many_classes_the_confused_pairs_are_listed() -> None:
    names = tuple(f"class {i}" for i in range(40))
    confusion = [[9 * (i == j) + (j == i + 1) * i for j in range(40)] for i in range(40)]
    found = Classes("phone", "f", names, tuple(map(tuple, confusion)))
    assert not found.is_square and len(found.pairs) == 20
    assert found.pairs[0] == ("class 38", "class 39", 38)


def test_every_bundle_is_linked_and_the_verdict_comes_first(data: ReportData) -> None:
    bundle = Bundle("my phone", "bundles/a%20b/my%20phone/", ("model.int8.onnx",))
    page = Page(
        html := render_report(replace(data, bundles=(bundle,), belief=Belief("Better <b>.", ())))
    )
    folder = "bundles/a%20b/my%20phone/"
    assert {folder, f"{folder}model.int8.onnx", f"{folder}README.md"} <= set(page.addresses)
    assert html.index("Better &lt;b&gt;.") < html.index("<h2>Result")


def test_points_of_the_front_have_bars_of_their_standard_error(data: ReportData) -> None:
    bare = {trace.name: trace for trace in front_figure(data.fronts[0]).data}
    assert not bare["front"].error_y.visible
    front = replace(data.fronts[0], n_images=400)
    traces = {trace.name: trace for trace in front_figure(front).data}
    assert traces["front"].error_y.array[0] == pytest.approx((0.9 * 0.1 / 400) ** 0.5)
    assert traces["winner"].error_y.array == (pytest.approx((0.95 * 0.05 / 400) ** 0.5),)
    html = render_report(replace(data, fronts=(front,)))
    assert "standard errors on 400 images" in html and "The limit is 2.5 ms" in html


def test_each_device_has_its_own_verdict_at_the_head(data: ReportData) -> None:
    rows = [
        NetRow(
            "winner", 1, 1, 0.9, 2.0, ms, met, device=device, limit_ms=limit, is_winner=True,
            top1_error=0.01, pace=1.25,
        )
        for device, ms, met, limit in (("phone", 2.0, True, 3.0), ("board", 9.0, False, 8.0))
    ]  # fmt: skip
    text = " ".join(Page(render_report(replace(data, table=tuple(rows)))).text.split())
    assert "90.00% ± 1.00%test top-1 of the winner on phone" in text
    assert "limit met3 ms on phone" in text and "limit not met8 ms on board" in text
    assert "error of its latency estimate on board, machine's pace 1.25" in text
