"""Spaces beside the profiled one: found by what a correction covers, priced with honest intervals.

The machine: an operator takes a fixed time and one per multiply-accumulate, networks take a tenth
more than their sum and one overhead, and small networks are noisier than large ones.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hwnas.cli.main import app
from hwnas.core.errors import UserError
from hwnas.core.resources import resource, resource_names
from hwnas.core.rng import rng
from hwnas.core.stats import conformal_quantile
from hwnas.interfaces import FloatArray
from hwnas.latency.coverage import working_values
from hwnas.latency.estimator import Estimate, TableEstimator
from hwnas.latency.intervals import local_fraction, raw_sum_fraction
from hwnas.latency.samples import Timing
from hwnas.latency.shipped import latency_table, shipped_tables
from hwnas.latency.table import Correction, LatencyTable, NetTiming
from hwnas.latency.validation import fit_correction
from hwnas.spaces.cost import cost, op_macs
from hwnas.spaces.index import enumerate_ops, op_sum
from hwnas.spaces.load import build_space
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.space import Codes, SearchSpace

GOLDEN = Path(__file__).parent.parent / "golden" / "latency_table_v1.json"
N_NETS = 60


def space_of(
    *resolutions: int, classes: int = 100, width: float = 1.0, name: str = "mobilenet_tiny"
) -> SearchSpace:
    config = Config(resolutions=resolutions, width_mult=width)
    return replace(build(config, num_classes=classes), name=name)


def op_ms(op: OpSpec) -> float:
    return 2e-4 + 1e-8 * op_macs(op)


def true_ms(space: SearchSpace, codes: Codes) -> FloatArray:
    per_op = np.array([op_ms(op) for op in enumerate_ops(space)])
    return 1.1 * op_sum(space, codes, per_op) + 0.002


def noisy_ms(space: SearchSpace, codes: Codes, stream: np.random.Generator) -> FloatArray:
    """Up to 6 % of noise at the smallest networks, down to 1 % at the largest."""
    ms = true_ms(space, codes)
    ends = true_ms(space, space.codes([space.smallest(), space.largest()]))
    share = np.clip(np.log(ms / ends[0]) / np.log(ends[1] / ends[0]), 0, 1)
    noisy: FloatArray = ms * (1 + (0.06 - 0.05 * share) * stream.standard_normal(len(ms)))
    return noisy


def exactly(ms: float) -> Timing:
    return Timing(ms, ms, ms, 1.2 * ms, 5)


@cache
def table_of(space: SearchSpace, *, seed: int = 0, noise: bool = True) -> LatencyTable:
    """The machine's table: rows are exact, the correction is fitted on networks."""
    stream = rng(seed, "coverage")
    codes = space.sample(N_NETS, rng=stream)
    ms = noisy_ms(space, codes, stream) if noise else true_ms(space, codes)
    rows = {op: exactly(op_ms(op)) for op in enumerate_ops(space)}
    correction = fit_correction(rows, space, codes, [exactly(t) for t in ms], (ms, ms))
    return replace(LatencyTable.load(GOLDEN), rows=rows, corrections={space.id: correction})


@pytest.fixture(scope="module")
def whole() -> SearchSpace:
    return space_of(16, 24, 32)


@pytest.fixture(scope="module")
def table(whole: SearchSpace) -> LatencyTable:
    return table_of(whole)


# --- which correction -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        space_of(24),
        space_of(16, 32),
        space_of(16, 24, 32, classes=7),
        space_of(16, classes=7),
        space_of(16, classes=5000),
        space_of(24).restrict({"stage0.depth": (1,), "stem.width": (8,)}),
        space_of(24, name="mine"),
    ],
    ids=["one", "two", "classes", "classes and one", "more classes", "restricted", "renamed"],
)
def test_a_correction_serves_every_space_that_it_covers(
    space: SearchSpace, whole: SearchSpace, table: LatencyTable
):
    assert space.id != whole.id
    assert table.correction_for(space) == whole.id
    assert table.estimate(space, space.sample(5, rng=rng(0, "x"))).correction == whole.id


def test_a_correction_of_another_fingerprint_is_noticed_and_its_interval_is_wider(
    whole: SearchSpace, table: LatencyTable, caplog: pytest.LogCaptureFixture
):
    """Whichever fingerprint stood in the table, nothing depended on it."""

    def width(space: SearchSpace, fingerprint: str) -> FloatArray:
        correction = replace(table.corrections[whole.id], fingerprint=fingerprint)
        changed = replace(table, corrections={whole.id: correction})
        found = changed.estimate(space, codes)
        return found.high / found.ms

    part = whole.restrict({"resolution": (16, 24)})
    codes = part.sample(200, rng=rng(0, "fingerprint"))
    known = width(whole, whole.fingerprint)
    for space, fingerprint in ((part, whole.fingerprint), (part, part.fingerprint)):
        np.testing.assert_allclose(width(space, fingerprint), known)
    assert not caplog.records
    for space, fingerprint in ((whole, "0" * 16), (whole, part.fingerprint)):
        caplog.clear()
        strange = width(space, fingerprint)
        assert (strange >= known).all() and strange.max() > known.max()
        assert "another restriction" in caplog.text


def test_the_estimate_is_that_of_the_corrected_rows(whole: SearchSpace):
    """Without noise the machine is known exactly, wherever no classifier has to be priced."""
    table = table_of(whole, noise=False)
    space = space_of(24)
    codes = space.sample(50, rng=rng(0, "exact"))
    found = table.estimate(space, codes)
    np.testing.assert_allclose(found.ms, true_ms(space, codes), rtol=1e-4)
    other = space_of(24, classes=7)
    found = table.estimate(other, codes)
    truth = true_ms(other, codes)
    assert ((found.low <= truth) & (truth <= found.high)).all()
    lost = true_ms(space, codes) - truth  # what 93 classes cost
    ratio = (table.estimate(space, codes).ms - found.ms) / lost
    assert ((ratio > 0.5) & (ratio < 2)).all()


def test_its_own_correction_comes_first(whole: SearchSpace, table: LatencyTable):
    own = table_of(space_of(24)).corrections
    both = replace(table, corrections={**table.corrections, **own})
    assert both.correction_for(space_of(24)) == space_of(24).id
    assert both.correction_for(whole) == whole.id


def test_of_several_the_closest_is_taken(whole: SearchSpace, table: LatencyTable):
    (correction,) = table.corrections.values()
    keys = tuple(op.key for op in enumerate_ops(space_of(16, 24)))
    several = {
        "another-00000000": replace(correction, covers=keys),
        whole.id: correction,
        "mobilenet_tiny-00000000": replace(correction, covers=keys),
        "mobilenet_tiny-11111111": replace(correction, covers=keys[:50]),
    }
    both = replace(table, corrections=several)
    assert both.correction_for(space_of(24)) == "mobilenet_tiny-00000000"
    assert both.correction_for(space_of(32)) == whole.id


def test_merged_tables_keep_what_each_correction_covers(tmp_path: Path):
    small, large = space_of(16), space_of(32)
    merged = table_of(small).merge(table_of(large))
    merged.save(tmp_path / "t.json")
    for table in (merged, LatencyTable.load(tmp_path / "t.json")):
        assert table.correction_for(space_of(16, classes=7)) == small.id
        assert table.correction_for(space_of(32, classes=7)) == large.id
        assert table.correction_for(space_of(16, 32)) is None


def test_rows_of_both_without_a_correction_of_both_get_the_width_of_raw_sums():
    """Sums are a tenth and an overhead too low; the interval says how far they were off at most."""
    joint = space_of(16, 32)
    merged = table_of(space_of(16)).merge(table_of(space_of(32)))
    codes = joint.sample(200, rng=rng(0, "joint"))
    found = merged.estimate(joint, codes)
    assert found.correction is None
    sums = op_sum(joint, codes, np.array([op_ms(op) for op in enumerate_ops(joint)]))
    np.testing.assert_allclose(found.ms, sums)
    worst = max(c.validation.raw_sum.max for c in merged.corrections.values())
    np.testing.assert_allclose(found.high, sums * (1 + worst / (1 - worst)))
    truth = true_ms(joint, codes)
    assert ((found.low <= truth) & (truth <= found.high)).mean() > 0.9
    estimator = TableEstimator(merged, joint)
    np.testing.assert_allclose(estimator.latency_p95_ms(codes), 1.2 * sums)


def test_a_table_that_saw_no_network_knows_no_interval(whole: SearchSpace, table: LatencyTable):
    never = replace(table, corrections={})
    found = never.estimate(whole, whole.sample(5, rng=rng(0, "never")))
    assert found.correction is None
    assert (found.low == 0).all() and np.isinf(found.high).all() and np.isfinite(found.ms).all()


# --- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [space_of(16), space_of(32), space_of(16, 24, 32, classes=7), space_of(16, classes=7)],
    ids=["small", "large", "classes", "small and classes"],
)
def test_intervals_of_sub_spaces_cover_nine_in_ten(space: SearchSpace, whole: SearchSpace):
    """Where the one fraction of the whole space would not: its errors are not the sub-space's."""
    inside = []
    for seed in range(8):
        table = table_of(whole, seed=seed)
        stream = rng(seed, "truth")
        codes = space.sample(100, rng=stream)
        wide = space_of(*space.macro.resolutions)  # with the classes that were timed
        lost = true_ms(wide, codes) - true_ms(space, codes)
        of_whole = codes.copy()  # noise is by size, hence by the whole space's ends
        of_whole[:, 0] = [(16, 24, 32).index(space.macro.resolutions[c]) for c in codes[:, 0]]
        measured = noisy_ms(whole, of_whole, stream) - lost
        found = table.estimate(space, codes)
        inside.append((found.low <= measured) & (measured <= found.high))
    assert 0.87 <= np.mean(inside) <= 0.98


def correction_with(forecast: list[float], measured: list[float], **changes: object) -> Correction:
    (correction,) = table_of(space_of(16)).corrections.values()
    nets = tuple(NetTiming((0,), m, f) for f, m in zip(forecast, measured, strict=True))
    raw = replace(correction.validation.raw_sum, max=0.2)
    return replace(
        correction,
        validation=replace(correction.validation, nets=nets, raw_sum=raw),
        **{"interval_fraction": 0.01, **changes},
    )


def test_the_width_is_that_of_the_twenty_networks_nearest_in_size():
    stream = rng(0, "near")
    forecast = np.sort(stream.uniform(1, 10, 50))
    errors = stream.normal(0, 0.05, 50) / forecast
    correction = correction_with(forecast.tolist(), (forecast * (1 + errors)).tolist())
    wanted = stream.uniform(forecast[0], forecast[-1], 200)
    expected = []
    for ms in wanted:
        nearest = np.argsort(np.abs(np.log(forecast / ms)))[:20]
        expected.append(max(0.01, conformal_quantile(errors[nearest])))
    inside = (wanted > (forecast * (1 + errors)).min()) & (wanted < (forecast * (1 + errors)).max())
    widths = local_fraction(correction, wanted)
    np.testing.assert_allclose(widths[inside], np.array(expected)[inside])


def test_it_is_never_narrower_than_the_correction_says():
    correction = correction_with([1.0, 2.0, 3.0], [1.001, 2.001, 3.001], interval_fraction=0.3)
    np.testing.assert_allclose(local_fraction(correction, np.array([1.5, 2.5])), 0.3)


def test_beyond_the_timed_sizes_it_widens_to_that_of_raw_sums():
    """By an octave: sums were off by 0.2, so a network is up to 0.2 / 0.8 above its sum."""
    correction = correction_with([1.0, 4.0], [1.0, 4.0])
    assert raw_sum_fraction(correction) == pytest.approx(0.25)
    widths = local_fraction(correction, np.array([4.0, 4 * 2**0.5, 8.0, 80.0, 0.5, 2**-0.5]))
    np.testing.assert_allclose(widths, [0.01, 0.135, 0.26, 0.26, 0.26, 0.135])


def test_sums_twice_too_large_tell_nothing_beyond():
    correction = correction_with([1.0, 4.0], [1.0, 4.0])
    worse = replace(correction.validation.raw_sum, max=1.0)
    correction = replace(correction, validation=replace(correction.validation, raw_sum=worse))
    np.testing.assert_array_equal(local_fraction(correction, np.array([2.0, 5.0])), [0.01, np.inf])


# --- properties -----------------------------------------------------------------------------------


def same(first: Estimate, second: Estimate) -> None:
    for name in ("ms", "low", "high"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


NAMES = [choice.name for choice in space_of(16, 24, 32).choices]


@settings(max_examples=40, derandomize=True)
@given(
    classes=st.sampled_from([100, 7]),
    names=st.sets(st.sampled_from(NAMES), min_size=1, max_size=6),
    data=st.data(),
)
def test_a_restriction_is_priced_as_the_whole_space(
    classes: int, names: set[str], data: st.DataObject
):
    whole = space_of(16, 24, 32, classes=classes)
    table = PRICED[classes]
    values = {choice.name: choice.values for choice in whole.choices}
    kept = {
        name: data.draw(st.lists(st.sampled_from(values[name]), min_size=1, unique=True))
        for name in sorted(names)
    }
    narrow = whole.restrict(kept)
    codes = narrow.sample(20, rng=rng(0, "narrow"))
    same(table.estimate(narrow, codes), table.estimate(whole, codes))


PRICED = dict.fromkeys((100, 7), table_of(space_of(16, 24, 32)))


def test_archs_may_come_as_objects(whole: SearchSpace, table: LatencyTable):
    codes = whole.sample(10, rng=rng(0, "objects"))
    same(table.estimate(whole, codes), table.estimate(whole, [whole.arch(row) for row in codes]))
    assert len(table.estimate(whole, []).ms) == 0


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (lambda codes: codes[0], "not codes"),
        (lambda codes: codes[:, :-1], "not codes"),
        (lambda codes: codes.astype(float), "not codes"),
        (lambda codes: codes + 100, "10 of 10"),
        (lambda codes: codes.astype(np.int64) + (1 << 16), "10 of 10"),
        (lambda codes: codes - 1, "does not allow"),
    ],
)
def test_what_is_no_arch_of_the_space_is_refused(
    bad, word: str, whole: SearchSpace, table: LatencyTable
):
    with pytest.raises(UserError, match=word):
        table.estimate(whole, bad(whole.sample(10, rng=rng(0, "bad"))))


def test_archs_of_another_space_are_refused(whole: SearchSpace, table: LatencyTable):
    with pytest.raises(UserError, match="another space"):
        table.estimate(space_of(24), [whole.largest()])


# --- messages -------------------------------------------------------------------------------------


def message(table: LatencyTable, space: SearchSpace) -> str:
    with pytest.raises(UserError) as caught:
        table.estimate(space, space.sample(1, rng=rng(0, "message")))
    return str(caught.value)


def test_resolutions_that_work_are_named(table: LatencyTable):
    text = message(table, space_of(16, 20, 24, 28, 32))
    assert "restrict the space to resolutions=[16, 24, 32]" in text


def test_kernels_that_work_are_named_together(whole: SearchSpace, table: LatencyTable):
    few = replace(table, rows={op: row for op, row in table.rows.items() if op.kernel != 5})
    assert "restrict the space to *.kernel=[3]" in message(few, whole)
    narrow = whole.restrict(working_values(few, whole) or {})
    assert few.estimate(narrow, narrow.sample(5, rng=rng(0, "few"))).ms.min() > 0


def test_combinations_that_are_missing_are_narrowed_away(whole: SearchSpace, table: LatencyTable):
    """No value is alone to blame: wide blocks with large kernels have not been timed."""

    def is_timed(op: OpSpec) -> bool:
        return not (op.kernel == 5 and op.mid_channels == 6 * op.in_channels)

    few = replace(table, rows={op: row for op, row in table.rows.items() if is_timed(op)})
    values = working_values(few, whole)
    assert values
    narrow = whole.restrict(values)
    assert few.estimate(narrow, narrow.sample(5, rng=rng(0, "few"))).ms.min() > 0


def test_settings_that_work_are_named_where_no_restriction_does(table: LatencyTable):
    text = message(table, space_of(16, 24, 32, width=2.0))
    assert "build the space with resolutions=[16, 24, 32], width_mult=1.0" in text


def test_where_nothing_works_only_measuring_is_left(table: LatencyTable):
    few = replace(table, rows={op: row for op, row in table.rows.items() if op.kind != "pool"})
    text = message(few, space_of(16, 24, 32))
    assert "restrict" not in text and "build" not in text
    assert "fix: measure a table: hwnas profile simulated-golden --space mobilenet_tiny" in text


def test_a_shipped_table_that_covers_the_space_is_named():
    space = build_space("proxyless", num_classes=10)
    text = message(latency_table("xeon-gold-6130-tfnas"), space)
    assert "take a shipped table that covers the space: pixel1-proxyless" in text


# --- what ships -----------------------------------------------------------------------------------


def test_the_name_of_the_documents_works():
    """As written in the README: 10 classes and one resolution of a table of 1000 and four."""
    table = latency_table("amd-epyc-2vcpu-mobilenet_v3")
    space = build_space("mobilenet_v3", {"resolutions": [160]}, num_classes=10)
    codes = space.sample(100, rng=rng(0, "readme"))
    found = table.estimate(space, codes)
    assert found.correction == "mobilenet_v3-5bc92c13"
    assert (found.low < found.ms).all() and (found.ms < found.high).all()
    assert 0.02 < (found.high / found.ms - 1).mean() < 0.15
    assert np.corrcoef(found.ms, cost(space, codes, "macs"))[0, 1] > 0.95


@pytest.mark.parametrize("name", resource_names("latency_tables", ".json"))
def test_shipped_files_are_saved_as_they_were(name: str, tmp_path: Path):
    latency_table(name).save(tmp_path / "t.json")
    assert (tmp_path / "t.json").read_bytes() == resource(
        "latency_tables", f"{name}.json"
    ).read_bytes()


@pytest.mark.parametrize(
    "name", ["amd-epyc-2vcpu-mobilenet_v3", "amd-epyc-2vcpu-int8-mobilenet_v3"]
)
def test_held_out_networks_of_one_resolution_lie_in_its_interval(name: str):
    """Estimates of the file were cross-fitted; the width is of the other networks, one left out."""
    (correction,) = latency_table(name).corrections.values()
    nets = correction.validation.nets
    inside: dict[int, list[bool]] = {}
    for net in nets:
        others = tuple(other for other in nets if other is not net)
        without = replace(correction, validation=replace(correction.validation, nets=others))
        width = local_fraction(without, np.array([net.forecast_ms]))[0]
        error = abs(net.measured_ms / net.forecast_ms - 1)
        inside.setdefault(net.codes[0], []).append(bool(error <= width))
    assert min(np.mean(found) for found in inside.values()) >= 0.85
    assert np.mean([hit for found in inside.values() for hit in found]) >= 0.9


def test_a_table_prints_one_useful_line():
    text = str(latency_table("amd-epyc-2vcpu-mobilenet_v3"))
    assert "\n" not in text
    for word in ("amd-epyc-2vcpu", "onnxruntime", "fp32", "378 operators", "mobilenet_v3-5bc92c13"):
        assert word in text
    assert "not compared with whole networks" in str(latency_table("pixel1-proxyless"))


def test_a_wrong_name_comes_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'pixel1-proxyless'"):
        latency_table("pixel1-proxylss")
    assert "pixel1-proxyless" in shipped_tables()


# --- command line ---------------------------------------------------------------------------------


def hwnas_json(*arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_command_line_prices_as_python_does():
    name = "amd-epyc-2vcpu-mobilenet_v3"
    space = build_space("mobilenet_v3", {"resolutions": [160]}, num_classes=10)
    expected = latency_table(name).estimate(space, [space.smallest(), space.largest()])
    given = ("--space", "mobilenet_v3", "--resolutions", "160", "--num-classes", "10")
    shown = hwnas_json("table", "estimate", name, *given)
    assert [row["arch"] for row in shown["table"]] == ["smallest", "largest"]
    for key in ("ms", "low", "high"):
        assert [row[key] for row in shown["table"]] == getattr(expected, key).tolist()
    assert shown["correction"] == expected.correction and shown["space"] == space.id


def test_no_interval_is_none_in_json():
    shown = hwnas_json("table", "estimate", "pixel1-proxyless", "--space", "proxyless")
    assert {row["high"] for row in shown["table"]} == {None}
    assert shown["correction"] is None


def test_what_a_table_serves_is_listed_with_correction_and_interval():
    (served,) = hwnas_json("table", "show", "amd-epyc-2vcpu-mobilenet_v3")["serves"]
    assert served["space"] == "mobilenet_v3"
    assert served["settings"] == "resolutions=[128, 160, 192, 224], width_mult=1.0"
    assert served["correction"] == "mobilenet_v3-5bc92c13"
    assert served["interval"] == pytest.approx([0.0356158, 0.0356158], abs=1e-6)
    (pixel1,) = hwnas_json("table", "show", "pixel1-proxyless")["serves"]
    assert (pixel1["space"], pixel1["correction"]) == ("proxyless", None)
    assert pixel1["interval"] == [None, None]
    assert hwnas_json("table", "show", "xeon-gold-6130-tfnas")["serves"] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("amd-epyc-2vcpu-mobilenet_v3", "spaces whose operators the table has"),
        ("xeon-gold-6130-tfnas", "the table lacks operators of every registered space"),
    ],
)
def test_the_same_is_shown_as_a_table(name: str, said: str):
    done = CliRunner().invoke(app, ["table", "show", name])
    assert done.exit_code == 0 and said in done.stdout
    assert ("3.6%" in done.stdout) == (name != "xeon-gold-6130-tfnas")
