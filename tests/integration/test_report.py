"""The report says the same numbers as the command line, of every device of the run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import hwnas
from hwnas.cli.output import _cell
from hwnas.core.errors import UserError
from tests.unit.test_reporting import Page


def test_the_closing_table_has_every_network_on_every_device(folder: Path, tmp_path: Path) -> None:
    file = folder / "search/main/verify/results.json"
    results = json.loads(file.read_text())
    for network in results["networks"]:  # which an earlier version did not record
        if network["device"] == "local_int8":
            network |= {"file": "model.int8.onnx", "precision": "int8", "fp32_top1": 0.98765}
    file.write_text(json.dumps(results))
    run = hwnas.open_run(folder)
    page = Page(hwnas.report(folder, out=tmp_path / "report.html").read_text())
    printed = run.table()
    assert {row["device"] for row in printed} == {"local", "local_int8"} == set(run.project.devices)
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r'<tr class="device">.*?>(\w+)</th>', html) == ["local", "local_int8"]
    shown = [row for row in page.rows if len(row) == 11][: len(printed)]
    assert all({"estimate_ms", "estimate_error"} < {*row} for row in run.shown)
    assert "forecast" not in run._repr_html_(), "a key of files and JSON only"
    assert {row["fp32_top1"] for row in printed} == {None, 0.9877} and len(shown) == len(printed)
    for cells, row, network in zip(shown, printed, run.networks, strict=True):
        name, top1, ms, met, file, fp32, limit, estimate, error, macs, params = cells
        assert name.split() == [*row["name"].split(), network.arch.key]
        assert file == row["file"]
        assert top1.split() == [f"{row['test_top1']:.2%}", "±", f"{row['test_top1_se']:.2%}"]
        assert row["pace"] is None, "so there is no column of it"
        assert fp32 == ("-" if row["fp32_top1"] is None else f"{row['fp32_top1']:.2%}")
        assert macs == f"{row['macs'] / 1e6:.4g}" and params == f"{row['params'] / 1e6:.4g}"
        assert (estimate, ms) == (_cell(row["forecast_ms"]), _cell(row["measured_ms"]))
        assert limit == _cell(row["limit_ms"]) and error == f"{row['forecast_error']:+.2%}"
        assert met == {True: "met", False: "not met", None: "-"}[row["constraint_met"]]


def test_every_device_is_drawn_with_its_own_latencies(folder: Path, tmp_path: Path) -> None:
    html = hwnas.report(folder, out=tmp_path / "report.html").read_text()
    run = hwnas.open_run(folder)
    assert [*run.project.devices] == ["local", "local_int8"]
    for number, device in enumerate(run.project.devices):
        front = {trace.name: trace for trace in run.plot_front(device).data}
        estimate = run.project.estimator(device).latency_ms(run.space.codes([run.winner.arch]))
        assert tuple(front["winner"].x) == tuple(estimate)
        correction = run.latency_table(device).corrections[run.space.id]
        timed = {trace.name: trace for trace in run.plot_latency(device).data}["whole nets"]
        assert tuple(timed.y) == tuple(net.measured_ms for net in correction.validation.nets)
        for name in ("front", "latency"):
            assert html.count(f'id="{name}-{number}"') == 1
    assert run.plot_front() == run.plot_front("local") != run.plot_front("local_int8")
    for of_device in (run.plot_front, run.plot_latency):
        with pytest.raises(UserError, match=r"not a device of this run[\s\S]*local, local_int8"):
            of_device("phone")
