"""Whether to believe in the winner, as verbs, Python and the report say it of a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import hwnas
from hwnas.core.bits import pack_bits
from hwnas.core.errors import UserError
from hwnas.pipeline.hits import TestHits
from hwnas.pipeline.outcomes import NetworkResult
from hwnas.studies.run_report import write_run_report
from hwnas.studies.winner_verdict import verdict_of_search, winner_verdict

N_TEST, N_FEWER = 359, 48  # test images; so many fewer does the random subnet get right


@pytest.fixture
def run(folder: Path) -> Iterator[hwnas.Run]:
    """A run of an earlier version, whose random search had found the winner, too."""
    run = hwnas.open_run(folder)
    results = run.project.files.results.path
    before = results.read_bytes()
    yield run
    results.write_bytes(before)
    run.project.files.test_hits.path.unlink(missing_ok=True)


def rows_of(run: hwnas.Run) -> dict[str, NetworkResult]:
    return {row.name: row for row in run.networks if row.device == run.project.first_device}


def test_a_run_of_before_is_judged_without_pairs(run: hwnas.Run, tmp_path: Path) -> None:
    verdict = run.verdict
    assert verdict is not None
    assert verdict.same == ("random search's winner",)
    (gain,) = verdict.gains
    assert not gain.is_paired and gain.gain == pytest.approx(N_FEWER / N_TEST)
    assert gain.n_images == N_TEST and gain.state == "better"
    assert run.to_dict()["verdict"]["sentence"] == str(verdict)
    report = write_run_report(run.project, tmp_path / "report.html").read_text()
    assert "Whether to believe the winner" in report and "compared not image by image" in report


def test_images_that_are_kept_are_compared_one_by_one(run: hwnas.Run) -> None:
    """The winner is right wherever the random subnet is: as sure as 48 images can make it."""
    file, order = run.project.files.test_hits, np.arange(N_TEST)
    right = {
        row.arch.key: pack_bits(order < round(row.test_top1 * N_TEST))
        for row in rows_of(run).values()
    }
    file.write(TestHits(N_TEST, {run.project.first_device: right}))
    verdict = winner_verdict(run.project)
    assert verdict is not None
    (gain,) = verdict.gains
    assert gain.is_paired and gain.gain == pytest.approx(N_FEWER / N_TEST)
    n, more = N_TEST + 2, N_FEWER + 2
    share = N_FEWER / n
    assert gain.image_error == pytest.approx(((more / n - share**2) / n) ** 0.5)


def test_hits_of_another_verification_do_not_count(run: hwnas.Run) -> None:
    file, none = run.project.files.test_hits, pack_bits(np.zeros(N_TEST, dtype=np.bool_))
    wrong = {row.arch.key: none for row in rows_of(run).values()}
    file.write(TestHits(N_TEST, {run.project.first_device: wrong}))
    verdict = winner_verdict(run.project)
    assert verdict is not None and not verdict.gains[0].is_paired
    text = file.path.read_text()
    file.path.write_text(text.replace(str(N_TEST), "999"))
    with pytest.raises(UserError, match=r"125 bytes, for 999 bits\n  found: 45 bytes"):
        winner_verdict(run.project)


def test_a_winner_that_was_not_tested_is_judged_by_the_search(run: hwnas.Run) -> None:
    """Tests that are older than the search are of another network."""
    by_tests, file = winner_verdict(run.project), run.project.files.results
    results, other = file.read(), rows_of(run)["smallest"].arch
    rows = (replace(r, arch=other) if r.name == "winner" else r for r in results.networks)
    file.write(replace(results, networks=tuple(rows)))
    found = winner_verdict(run.project)
    assert found == verdict_of_search(run.project) != by_tests
    assert found is not None and found.split == "val"


def test_networks_that_only_guess_have_no_verdict(run: hwnas.Run) -> None:
    results = run.project.files.results.read()
    rows = (replace(row, test_top1=0.1) for row in results.networks)
    run.project.files.results.write(replace(results, networks=tuple(rows)))
    assert winner_verdict(run.project) is None


def test_the_search_says_it_of_validation_images(run: hwnas.Run) -> None:
    """The winner's accuracy is lowered by what picking the best of six adds to it."""
    found = verdict_of_search(run.project)
    assert found is not None and found.same == ("random search's winner",)
    (gain,) = found.gains
    assert gain.over == "a random subnet of equal latency" and gain.n_images == 360
    seen = {one.arch: one.top1 for one in run.labels()}
    assert run.winner.accuracy is not None
    others = [run.winner.accuracy - top1 for top1 in seen.values()]
    assert not np.isclose(gain.gain, others).any() and min(abs(gain.gain - np.array(others))) < 0.05
