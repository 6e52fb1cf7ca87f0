"""What archs are worth during a search: predictions, evaluations, and the scale of rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.controller.archive import Archive
from hwnas.controller.constraints import resolve
from hwnas.controller.scorer import MIN_LABELS, N_PROSPECTS, N_SCALE, Rescoring, Scorer
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import Constraint, Evaluation, FloatArray
from hwnas.spaces.arch import Arch
from hwnas.spaces.cost import cost
from hwnas.spaces.mobilenet_tiny import Config, build
from hwnas.spaces.space import Codes

SPACE = build(Config(resolutions=(16, 20)), num_classes=10)


def macs(codes: Codes) -> FloatArray:
    return cost(SPACE, codes, "macs").astype(np.float64)


def quality(codes: Codes) -> FloatArray:
    return np.asarray(codes @ np.arange(1.0, codes.shape[1] + 1) / 100)


def predict(codes: Codes) -> tuple[FloatArray, FloatArray]:
    return quality(codes), np.full(len(codes), 0.5)


class Judge(Rescoring):
    """Evaluations of twice the quality; `refit` predicts minus the quality from then on."""

    def __init__(self, learns: bool = False, at_once: int = 1) -> None:
        self.learns, self.at_once = learns, at_once
        self.asked: list[list[Arch]] = []
        self.fitted: list[tuple[Codes, FloatArray]] = []

    def evaluate(self, archs: list[Arch]) -> list[Evaluation]:
        self.asked += [archs] if archs else []
        return [
            Evaluation(a, float(quality(SPACE.codes([a]))[0]) / 100, "supernet", "val", 100, 0)
            for a in archs
        ]

    def label(self, evaluation: Evaluation) -> float:
        return 200 * evaluation.top1

    def blend(self, mean: FloatArray, std: FloatArray, label: FloatArray) -> FloatArray:
        return mean + 10 * std + 100 * label

    def refit(self, codes: Codes, labels: FloatArray) -> Any:
        self.fitted.append((codes, labels))
        return lambda new: (-quality(new), np.full(len(new), 0.25))


class OnlyEven(Judge):
    def admits(self, codes: Codes) -> Any:
        return codes[:, 0] % 2 == 0


def scorer(
    rescoring: Rescoring | None,
    *,
    learned: bool = False,
    most: float = 1e12,
    archive: Archive | None = None,
) -> tuple[Scorer, Archive]:
    limits = resolve((Constraint("macs", max=most),), {"macs": macs}, SPACE)
    archive = Archive(SPACE, ("macs",)) if archive is None else archive
    function = None if learned else predict
    return Scorer(SPACE, function, {"macs": macs}, limits, archive, rescoring, 0), archive


def drawn(n: int = 20) -> Codes:
    codes = SPACE.sample(n, rng=rng(1, "test"))
    assert len(set(SPACE.keys(codes))) == n
    return codes


def by_quality(codes: Codes) -> list[Arch]:
    return [SPACE.arch(row) for row in codes[np.argsort(-quality(codes), kind="stable")]]


def test_rewards_are_in_deviations_of_uniform_archs() -> None:
    found, _ = scorer(None)
    codes = drawn()
    uniform = quality(SPACE.sample(N_SCALE, rng=rng(0, "search/scale")))
    expected = (quality(codes) - uniform.mean()) / uniform.std()
    np.testing.assert_allclose(found.standardised(found.rows(codes)), expected)


def test_equal_predictions_have_a_scale_of_one() -> None:
    limits, archive = (), Archive(SPACE, ("macs",))
    flat = Scorer(
        SPACE, lambda c: (np.full(len(c), 3.0), np.zeros(len(c))), {"macs": macs}, limits, archive,
        None, 0,
    )  # fmt: skip
    rows = flat.rows(drawn())
    archive.set_labels(rows[:1], np.array([7.0]), np.array([5.0]))
    np.testing.assert_allclose(flat.standardised(rows)[:2], [2.0, 0.0])


def test_without_an_evaluator_feasible_archs_may_win() -> None:
    limit = sorted(macs(drawn()))[9]
    found, archive = scorer(None, most=limit)
    rows = found.rows(drawn())
    assert found.eligible().sum() == 10
    np.testing.assert_array_equal(found.eligible(), macs(archive.column("codes")) <= limit)
    assert found.evaluations(rows) == {} and found.evaluate_up_to(5) is False


def test_the_best_are_evaluated_and_may_win_then() -> None:
    judge = Judge()
    found, archive = scorer(judge)
    codes = drawn()
    rows = found.rows(codes)
    assert not found.eligible().any() and found.evaluations(rows) == {}
    assert found.evaluate_up_to(3)
    assert judge.asked == [by_quality(codes)[:3]]
    assert found.eligible().sum() == 3 and len(archive.evaluated) == 3
    best = archive.evaluated
    mean = quality(archive.column("codes"))
    np.testing.assert_allclose(archive.column("label")[best], 2 * mean[best])
    np.testing.assert_allclose(archive.column("score")[best], mean[best] + 5 + 200 * mean[best])
    assert set(found.evaluations(rows)) == set(best.tolist())
    assert not found.evaluate_up_to(3) and found.evaluate_up_to(4)
    assert judge.asked[-1] == by_quality(codes)[3:4]
    assert judge.fitted == []


def test_what_cannot_be_evaluated_cannot_win() -> None:
    judge = OnlyEven()
    found, archive = scorer(judge)
    found.rows(drawn())
    found.evaluate_up_to(100)
    even = archive.column("codes")[:, 0] % 2 == 0
    assert 0 < even.sum() < len(even)
    np.testing.assert_array_equal(found.eligible(), even)


def test_exploration_adds_deviations_of_the_prediction() -> None:
    judge = Judge()
    archive = Archive(SPACE, ("macs",))

    def unsure(codes: Codes) -> tuple[FloatArray, FloatArray]:
        return quality(codes), np.asarray(50 - quality(codes) * 3)

    found = Scorer(SPACE, unsure, {"macs": macs}, (), archive, judge, 0)
    codes = drawn()
    found.rows(codes)
    found.evaluate_up_to(2, 1.0)  # q + (50 - 3 q): the worst are the most promising
    assert judge.asked == [by_quality(codes)[:-3:-1]]


@pytest.mark.parametrize(("at_once", "n"), [(1, 1), (3, 3)])
def test_a_late_search_evaluates_one_batch_at_least(at_once: int, n: int) -> None:
    judge = Judge(at_once=at_once)
    found, archive = scorer(judge)
    found.rows(drawn())
    assert found.evaluate_up_to(8, is_late=lambda: True)
    assert len(archive.evaluated) == n
    assert not found.evaluate_up_to(8, is_late=lambda: True)
    assert len(archive.evaluated) == n
    assert found.evaluate_up_to(8, is_late=lambda: False)
    assert [len(archs) for archs in judge.asked[1:]] == ([1] * 7 if at_once == 1 else [3, 2])


def test_learned_predictions_replace_all_others() -> None:
    judge = Judge(learns=True)
    found, archive = scorer(judge)
    codes = drawn()
    rows = found.rows(codes)
    assert found.evaluate_up_to(4)
    best = archive.evaluated
    ((seen, labels),) = judge.fitted
    np.testing.assert_array_equal(seen, archive.column("codes")[best])
    np.testing.assert_allclose(labels, 2 * quality(seen))
    expected = -quality(archive.column("codes"))
    np.testing.assert_allclose(archive.column("predicted"), expected)
    np.testing.assert_allclose(archive.column("predicted_std"), 0.25)
    score = expected.copy()
    score[best] += 10 * 0.25 + 100 * labels
    np.testing.assert_allclose(archive.column("score"), score)
    uniform = -quality(SPACE.sample(N_SCALE, rng=rng(0, "search/scale")))
    np.testing.assert_allclose(
        found.standardised(rows), (score[rows] - uniform.mean()) / uniform.std()
    )
    again, _ = scorer(judge, learned=True, archive=archive)  # resumed: it learns at once
    assert len(judge.fitted) == 2
    np.testing.assert_allclose(again.standardised(rows), found.standardised(rows))


def test_a_search_without_predictions_begins_with_uniform_archs() -> None:
    judge = Judge(learns=True)
    found, archive = scorer(judge, learned=True)
    found.begin(6)
    assert len(archive.evaluated) == 6 and len(judge.fitted) == 1
    uniform = SPACE.sample(N_PROSPECTS, rng=rng(0, "search/initial"))
    np.testing.assert_array_equal(archive.column("codes"), uniform[np.sort(
        np.unique(uniform, axis=0, return_index=True)[1]
    )])  # fmt: skip
    assert [SPACE.arch(row) for row in uniform[:6]] == judge.asked[0]  # all scores are equal
    known, other = scorer(Judge())
    known.begin(6)
    assert len(other) == 0


@pytest.mark.parametrize("n", [MIN_LABELS - 1, MIN_LABELS])
def test_too_few_feasible_archs_cannot_be_learned_from(n: int) -> None:
    judge = Judge(learns=True)
    found, archive = scorer(judge, learned=True)
    uniform = SPACE.sample(N_PROSPECTS, rng=rng(0, "search/initial"))
    allowed = {SPACE.arch(row) for row in uniform[:n]}
    judge.admits = lambda codes: np.array([SPACE.arch(row) in allowed for row in codes])  # type: ignore[method-assign]
    if n < MIN_LABELS:
        with pytest.raises(UserError, match="too few archs"):
            found.begin(6)
    else:
        found.begin(6)
        assert len(archive.evaluated) == n


def test_another_score_function_is_refused_and_learned_ones_are_not_compared(
    tmp_path: Path,
) -> None:
    found, archive = scorer(None)
    found.rows(drawn())
    found.check_resumed(tmp_path)

    def other(factor: float) -> Scorer:
        return Scorer(
            SPACE, lambda c: (factor * quality(c), np.zeros(len(c))), {"macs": macs}, (), archive,
            None, 0,
        )  # fmt: skip

    other(1 + 5e-4).check_resumed(tmp_path)
    with pytest.raises(UserError, match="another score function") as caught:
        other(1.05).check_resumed(tmp_path)
    stored, now = (str(part).split(", ") for part in (caught.value.expected, caught.value.found))
    assert (stored[1], now[1]) == ("the stored score of an arch", "the score of this arch now")
    assert float(now[0]) == pytest.approx(1.05 * float(stored[0]), rel=1e-4)
    assert caught.value.where == tmp_path
    scorer(Judge(learns=True), archive=archive)[0].check_resumed(tmp_path)
    with pytest.raises(UserError, match="another score function"):
        Scorer(
            SPACE, lambda c: (1.05 * quality(c), np.zeros(len(c))), {"macs": macs}, (), archive,
            Judge(), 0,
        ).check_resumed(tmp_path)  # fmt: skip


@pytest.mark.parametrize("where", [0, 1])
def test_predictions_that_are_not_finite_are_refused(where: int) -> None:
    def broken(codes: Codes) -> Any:
        found = [np.zeros(len(codes)), np.zeros(len(codes))]
        found[where][-1] = np.nan
        return tuple(found)

    with pytest.raises(UserError, match="not finite"):
        Scorer(SPACE, broken, {"macs": macs}, (), Archive(SPACE, ("macs",)), None, 0)
