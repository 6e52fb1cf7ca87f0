"""Evaluations that are journaled before anyone uses them, and never repeated."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from hwnas.core.records import dump, load
from hwnas.core.rundir import RunDir
from hwnas.interfaces import Evaluation, Evaluator
from hwnas.spaces.arch import Arch

__all__ = ["JournaledEvaluator"]


class JournaledEvaluator:
    """An Evaluator over the run's journal; the inner one is built only when something is missing.

    `context` is a hash of everything else that the scores depend on (weights, data, calibration):
    evaluations of another context are not reused.
    """

    def __init__(self, run: RunDir, context: str, build: Callable[[], Evaluator]) -> None:
        self._run, self._context, self._build = run, context, build
        rows = [row for row in run.journaled("evaluation") if row.get("context") == context]
        known = [
            load(Evaluation, row.get("evaluation"), where=run.path("journal.jsonl")) for row in rows
        ]
        self._known = {evaluation.arch: evaluation for evaluation in known}

    @cached_property
    def _inner(self) -> Evaluator:
        return self._build()

    def is_known(self, arch: Arch) -> bool:
        """Whether `evaluate` will answer from the journal."""
        return arch in self._known

    def evaluate(self, arch: Arch) -> Evaluation:
        """The journaled evaluation, made and journaled first where there is none."""
        if arch not in self._known:
            evaluation = self._inner.evaluate(arch)
            self._run.journal(
                "evaluation", {"context": self._context, "evaluation": dump(evaluation)}
            )
            self._known[arch] = evaluation
        return self._known[arch]
