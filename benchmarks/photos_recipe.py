"""What the settings of the configuration `photos` are worth, one changed at a time.

    HWNAS_DATA=$DATA python benchmarks/photos_recipe.py --work /tmp/recipe

Per data set: the configuration as it is, and with one setting as it was before or left out. For
each, on the test photos: the largest network after training only the classifier, and after the
training of the supernet; and, fine-tuned as a winner is, two subnets at 96 px: the largest, and one
with one block less and 3/4 of the width in the later stages. Prints JSON; `difference` is that of
both to the configuration as it is, in points with a paired 90 % interval over images (one seed).

`--work` keeps every trained supernet; a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pretrained
from pretrained_parts import networks
from pretrained_parts.paired import Hits, hits, paired

import hwnas
from hwnas.cli.output import progress_for
from hwnas.core.env import host_facts, use_threads
from hwnas.core.overrides import assignments
from hwnas.pipeline.project import Project
from hwnas.pipeline.start import supernet_with_head
from hwnas.spaces.arch import Arch
from hwnas.spaces.lowering import resolution

CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "symmetric padding": {"space.pad_mode": "symmetric"},
    "lr 2e-3": {"train.optimizer.lr": 2e-3},
    "no features": {"finetune.feature_distillation": 0.0},
    "no average": {"finetune.average": False},
    "teacher as inherited": {"finetune.teacher": "inherited"},
    "batches of 64": {"finetune.batch_size": 64},
}
PX, LEVEL = 96, 0.9
TUNED = ("largest at 96 px, fine-tuned", "subnet, fine-tuned")


def smaller(project: Project) -> Arch:
    """The largest network at `PX`."""
    space = project.space
    px = space.allowed[0][[*space.choices[0].values].index(PX)]
    return space.arch([px, *space.largest().codes[1:]])


def subnet(project: Project) -> Arch:
    """One block less, and the smaller width, in the last four stages, at `PX`."""
    space = project.space
    codes = list(space.largest().codes)
    for n, choice in enumerate(space.choices):
        stage, _, role = choice.name.rpartition(".")
        if choice.name == "resolution":
            codes[n] = choice.values.index(PX)
        elif stage in ("stage3", "stage4", "stage5", "stage6", "head"):
            codes[n] -= {"depth": 1, "width": 1}.get(role, 0)
    return space.arch(codes)


def of_change(
    name: str, said: str, change: dict[str, Any], options: argparse.Namespace
) -> dict[str, Hits]:
    """Hits of the networks of one configuration, `said` for short."""
    of_training = [f"{k}={v}" for k, v in change.items() if not k.startswith("finetune.")]
    folder = options.work / name / ("_".join(of_training) or "as-it-is")
    search = said.replace(" ", "-")  # its folder has the fine-tuned teacher
    hwnas.train(
        folder,
        config=pretrained.base_config(options),
        settings=pretrained.settings_of(name, 0, options) | change | {"search.name": search},
        progress=progress_for,
    )
    project = hwnas.open_run(folder, search=search).project
    use_threads(project.config.threads)
    images = project.data.calibration_batches(2, 128)
    largest = project.space.largest()
    top = resolution(project.space, largest)

    def of_largest(supernet: Any) -> Hits:
        return hits(supernet.extract(largest, recalibrate_on=images), project.data, top)

    tuner, steps = networks.Tuner(project), folder / "steps" / "_".join(change)
    archs = dict(zip(TUNED, (smaller(project), subnet(project)), strict=True))
    tuned = {
        said: hits(tuner(arch, PX, steps / said), project.data, PX) for said, arch in archs.items()
    }
    return {
        "largest, classifier alone": of_largest(supernet_with_head(project)),
        "largest, supernet": of_largest(project.supernet()),
        **tuned,
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--config", default="photos")
    parser.add_argument("--px", type=int, default=144, help="data.base_px")
    parser.add_argument("--normalise", default="inception")
    parser.add_argument("--data", default="tiny_imagenet50")
    parser.add_argument("--max-train", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    assignments(options.set)  # refused before anything is trained
    rows = []
    for name in options.data.split(","):
        found = {said: of_change(name, said, change, options) for said, change in CHANGES.items()}
        for said, each in found.items():
            row = {"data": name, "configuration": said}
            row |= {network: round(float(right.mean()), 4) for network, right in each.items()}
            row["difference"] = {
                network: paired(
                    [[each[network]]], [[found["as it is"][network]]], level=LEVEL
                ).to_dict()
                for network in TUNED
            }
            rows.append(row)
    print(json.dumps({"benchmark": "photos_recipe", "rows": rows, "host": host_facts()}, indent=1))


if __name__ == "__main__":
    main()
