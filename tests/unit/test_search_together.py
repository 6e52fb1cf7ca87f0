"""Evaluations of a search, shared by two ranks that talk through torch's own key-value store."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist

from hwnas.core.progress import silent
from hwnas.core.rundir import RunDir
from hwnas.interfaces import Evaluation
from hwnas.pipeline.config import load_config, read_config_data
from hwnas.pipeline.evaluators import JournaledEvaluator
from hwnas.pipeline.project import Project
from hwnas.pipeline.scoring import FINISHED, assist, evaluate_together
from hwnas.spaces import mobilenet_tiny
from hwnas.spaces.arch import Arch
from hwnas.training.distributed import ALONE, Ranks

SPACE = mobilenet_tiny.build(mobilenet_tiny.Config(resolutions=(16,)), num_classes=10)
ARCHS = [SPACE.arch(row) for row in SPACE.sample(12, rng=np.random.default_rng(0))]


class Slow:
    """An Evaluator that takes its time and remembers what it did."""

    def __init__(self) -> None:
        self.done: list[Arch] = []

    def evaluate(self, arch: Arch) -> Evaluation:
        time.sleep(0.02)
        self.done.append(arch)
        return Evaluation(arch, sum(arch.codes) / 1000, "supernet", "val", 10, 0)


def project(ranks: Ranks) -> Project:
    """Of the quickstart, in `SPACE`."""
    data, where = read_config_data("digits")
    space = {"name": "mobilenet_tiny", "resolutions": [16]}
    config = load_config(data, {"space": space}, where=where)
    return Project(RunDir(Path("never written")), config, lambda stage: silent, ranks)


def scorer(folder: Path, inner: Slow) -> JournaledEvaluator:
    return JournaledEvaluator(RunDir(folder), "context", lambda: inner)


@pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")
def test_two_ranks_share_what_is_unknown_and_one_journals(tmp_path: Path) -> None:
    store, one, two = dist.HashStore(), Slow(), Slow()
    lead, other = project(Ranks(0, 2, store)), project(Ranks(1, 2, store))
    helper = threading.Thread(
        target=assist, args=(other, lambda: scorer(tmp_path / "nothing", two)), daemon=True
    )
    helper.start()
    journaled = scorer(tmp_path / "lead", one)
    first = evaluate_together(lead, journaled, ARCHS[:8])
    second = evaluate_together(lead, journaled, ARCHS)
    again = evaluate_together(lead, journaled, ARCHS)  # known: nobody is asked
    lead.ranks.tell(FINISHED)
    helper.join(30)
    assert not helper.is_alive()
    assert one.done and two.done
    assert sorted([*one.done, *two.done], key=ARCHS.index) == ARCHS  # everything once
    by_one = evaluate_together(project(ALONE), scorer(tmp_path / "alone", Slow()), ARCHS)
    assert second == again == by_one and first == by_one[:8]
    assert not (tmp_path / "nothing").exists()
    known = scorer(tmp_path / "lead", Slow())
    assert all(map(known.is_known, ARCHS))
