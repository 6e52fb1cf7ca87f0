"""Whether the winner of a run is better than its baselines, on validation and on test images."""

from __future__ import annotations

import numpy as np

from hwnas.analysis.chance import chance_warning
from hwnas.analysis.verdict import Gain, Picked, Sample, Verdict, gain, gain_of_picks, verdict_on
from hwnas.interfaces import Evaluation
from hwnas.pipeline.artifacts import SearchFiles
from hwnas.pipeline.evaluators import JournaledEvaluator, evaluator
from hwnas.pipeline.hits import TestHits
from hwnas.pipeline.outcomes import NetworkResult, Results
from hwnas.pipeline.project import Project
from hwnas.reporting.sections.verdict import Belief, GainRow
from hwnas.spaces.arch import Arch

__all__ = ["belief_data", "verdict_of_search", "verdict_of_tests", "winner_verdict"]

SAME_LATENCY = 0.97  # same tolerance as for the random subnet in stage `finetune`
BEST_OF_RANDOM = "random search's winner"


def winner_verdict(project: Project) -> Verdict | None:
    """The verdict on test images if the winner was verified, else on validation images.

    None if nothing can be compared: there is no search yet, the accuracies are records, no network
    is better than guessing, or the networks are language models (the verdict compares correctly
    classified images).
    """
    files = project.files
    if project.space.macro.reads_tokens:
        return None
    results = files.results.read_if_there()
    result = files.main_search.result.read_if_there()
    if results is not None and (result is None or _is_of(results, result.winner.arch)):
        return verdict_of_tests(project, results)
    return None if result is None else verdict_of_search(project)


def _is_of(results: Results, winner: Arch) -> bool:
    return any(row.arch == winner for row in results.networks if row.name == "winner")


def belief_data(project: Project) -> Belief | None:
    """The verdict for the report."""
    found = winner_verdict(project)
    if found is None:
        return None
    return Belief(
        str(found),
        tuple(
            GainRow(
                one.over, one.state, one.gain, *one.interval, needed=one.settled_by(found.split)
            )
            for one in found.gains
        ),
    )


def verdict_of_tests(project: Project, results: Results) -> Verdict | None:
    """Compares fine-tuned networks on the test images, as run by the first device.

    No network was selected by test images. Results of earlier versions lack the correctly
    classified images, so their accuracies are compared as those of independent images.
    """
    rows = {row.name: row for row in results.networks if row.device == project.first_device}
    if "winner" not in rows or results.at_chance(project.space.macro.num_classes):
        return None
    hits, winner = project.files.test_hits.read_if_there(), rows["winner"]
    found: list[Gain] = []
    same = []
    for role in ("random search", "random subnet"):
        if (other := rows.get(role)) is None:
            continue
        over = BEST_OF_RANDOM
        if role == "random subnet":
            over = _at_latency(other.forecast_ms / winner.forecast_ms)
        if other.arch == winner.arch:
            same.append(over)
        else:
            found.append(gain(_tested(winner, hits), _tested(other, hits), over=over))
    accuracy = "top-1 of the fine-tuned networks"
    return verdict_on(found, split="test", accuracy=accuracy, same=same)


def _at_latency(share: float) -> str:
    is_equal = SAME_LATENCY <= share <= 1
    return f"a random subnet of {'equal' if is_equal else f'{share:.0%} of its'} latency"


def _tested(row: NetworkResult, hits: TestHits | None) -> Sample:
    found = None if hits is None else hits.of(row.device, row.arch)
    if found is not None and (len(found), float(found.mean())) != (
        row.n_test_images,
        row.test_top1,
    ):
        found = None  # from another verification
    return Sample(row.test_top1, row.n_test_images, found)


def verdict_of_search(project: Project) -> Verdict | None:
    """Compares archs on the validation images, with the weights of the supernet.

    The winner and the best arch of the random search were selected by these images; the gain is
    corrected for this selection. The random subnet is the first labelled arch whose estimated
    latency on the first device is 97 to 100 % of the winner's.
    """
    files, is_text = project.files, project.space.macro.reads_tokens
    has_records = project.config.search.evaluator.records is not None
    if is_text or has_records or not files.supernet.is_file():
        return None
    scorer = evaluator(project)
    winner, other = (_picked(project, of, scorer) for of in (files.main_search, files.baseline))
    if winner is None:
        return None
    best, candidates = winner
    found = []
    picked = _pick(best, candidates)
    same = []
    if other is not None and other[0].arch == best.arch:
        same.append(BEST_OF_RANDOM)
    elif other is not None:
        found.append(gain_of_picks(picked, _pick(*other), over=BEST_OF_RANDOM))
    if (random := _equal_label(project, best.arch, scorer)) is not None:
        found.append(gain_of_picks(picked, _pick(random, (random,)), over=_at_latency(1)))
    every = {(one.top1, one.n_images) for one in candidates}
    if chance_warning(every, project.space.macro.num_classes):
        return None
    accuracy = "top-1 with the supernet's weights"
    return verdict_on(found, split="val", accuracy=accuracy, same=same)


def _picked(
    project: Project, files: SearchFiles, scorer: JournaledEvaluator
) -> tuple[Evaluation, tuple[Evaluation, ...]] | None:
    """Evaluations of the winner and of all feasible archs; None if it was not evaluated."""
    winner = files.result.read().winner.arch
    archive = files.archive(project.space)
    rows = archive.evaluated[archive.column("feasible")[archive.evaluated]]
    archs = [project.space.arch(codes) for codes in archive.column("codes")[rows]]
    if not scorer.is_known(winner) or winner not in archs:
        return None
    return scorer.evaluate(winner), tuple(scorer.evaluate(a) for a in archs if scorer.is_known(a))


def _pick(best: Evaluation, candidates: tuple[Evaluation, ...]) -> Picked:
    return Picked(best.top1, tuple(one.top1 for one in candidates), best.n_images, best.right())


def _equal_label(project: Project, winner: Arch, scorer: JournaledEvaluator) -> Evaluation | None:
    """A labelled arch with about the latency of the winner; None if there is none."""
    archs = [one.arch for one in project.files.read_labels() if one.arch != winner]
    archs = [arch for arch in archs if scorer.is_known(arch)]
    estimator = project.estimator(project.first_device)
    shares = estimator.latency_ms(project.space.codes(archs)) / estimator.latency_ms(
        project.space.codes([winner])
    )
    equal = np.flatnonzero((shares <= 1) & (shares >= SAME_LATENCY))
    return scorer.evaluate(archs[equal[0]]) if len(equal) else None
