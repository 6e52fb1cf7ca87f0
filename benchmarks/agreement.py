"""How well scores rank subnets: labels of validation images, or predictions of the largest network.

    python benchmarks/agreement.py --run RUN --n 30

RUN is a run folder with a trained supernet, for example of `benchmarks/pretrained.py --prepare`.
The truth is the loss on the test images, which nothing else sees. Two groups of subnets: random
ones, and neighbours of the largest network on smaller images, with one to three choices changed.
Prints JSON: per group and score its Spearman correlation with the truth, and the processor time of
one evaluation. `agreement` is the cross-entropy to the predictions of the largest network for so
many training images (`label.agreement`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import hwnas
from hwnas.core.env import host_facts, use_threads
from hwnas.spaces.arch import Arch
from hwnas.spaces.space import SearchSpace
from hwnas.training.evaluate import SupernetEvaluator


def neighbours(space: SearchSpace, n: int, random: np.random.Generator) -> list[Arch]:
    """Of the largest network at any but the largest resolution, with one to three other choices."""
    found = []
    for _ in range(n):
        codes = list(space.largest().codes)
        codes[0] = random.choice(space.allowed[0][:-1])
        n_changed = random.integers(1, 4)
        for column in random.choice(np.arange(1, len(codes)), n_changed, replace=False):
            codes[column] = random.choice(space.allowed[column])
        found.append(space.arch([int(code) for code in codes]))
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--n", type=int, default=30, help="subnets of each group")
    parser.add_argument("--images", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--test", type=int, default=1000, help="test images of the truth")
    options = parser.parse_args()
    project = hwnas.open_run(options.run).project
    use_threads(project.config.threads)
    supernet, random = project.supernet(), np.random.default_rng(0)

    def scorer(**settings: Any) -> SupernetEvaluator:
        calibration = project.config.label.calibration
        return SupernetEvaluator(supernet, project.data, calibration, seed=0, **settings)

    truth = scorer(split="test", n_images=options.test)
    scorers = {"validation labels": scorer()}
    scorers |= {f"agreement {n}": scorer(agreement=n) for n in options.images}
    drawn = project.space.sample(options.n, rng=random)
    groups = {
        "random": [project.space.arch(codes) for codes in drawn],
        "neighbours": neighbours(project.space, options.n, random),
    }
    report: dict[str, Any] = {"benchmark": "agreement", "n_validation": scorer().n_images}
    for group, archs in groups.items():
        true = [truth.losses(arch).mean() for arch in archs]
        for name, each in scorers.items():
            each.losses(archs[0])  # resizes the images
            started = time.process_time()
            found = [each.losses(arch).mean() for arch in archs]
            seconds = (time.process_time() - started) / len(archs)
            row = {
                "spearman": round(float(spearmanr(found, true)[0]), 3),
                "cpu_s": round(seconds, 3),
            }
            report.setdefault(group, {})[name] = row
            print(f"{group}, {name}: {row}", file=sys.stderr, flush=True)
    print(json.dumps(report | {"host": host_facts()}, indent=1))


if __name__ == "__main__":
    main()
