"""Other pruners at the same measured latency: nvidia-modelopt's FastNAS, and torch-pruning.

Each has an environment of its own, which also finds the packages of this one, so that networks,
data, training and timing are the same. `pruned` runs this module there: it starts from the
pretrained network of a run's space, finds by bisection the largest FLOPs at which what the pruner
returns keeps the limit when it is timed, trains that network as the others were, and tests it.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas.core.progress import silent
from hwnas.core.store import write_json
from hwnas.nets.extract import extract
from hwnas.pipeline.opening import open_project
from hwnas.pipeline.project import Project
from hwnas.pipeline.start import supernet_with_head
from hwnas.spaces.lowering import resolution
from hwnas.training.evaluate import EVAL_BATCH
from hwnas.training.finetune import finetune
from hwnas.training.images import resize
from pretrained_parts import networks
from pretrained_parts.paired import hits

PACKAGES = {
    "fastnas": ["nvidia-modelopt", "torchprofile==0.0.4"],
    "torch-pruning": ["torch-pruning"],
}
NEEDED = {"fastnas": ["regex", "requests", "pulp<4", "omegaconf"], "torch-pruning": []}
"""Packages without what they depend on, which is here, and what is not here."""

N_BISECTIONS = 6
N_SCORED = 512  # validation images that FastNAS scores a candidate on

Prune = Callable[[Project, torch.nn.Module, float, Path], torch.nn.Module]
"""A pruned copy of a network, at a share of its FLOPs; the folder keeps what can be used again."""


def environment(method: str, folder: Path) -> Path:
    """Python of the method's own environment, which is made where it is not there."""
    home, python = folder / method, folder / method / "bin" / "python"
    if not (home / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, "--no-deps", *PACKAGES[method]], check=True)
        if NEEDED[method]:
            subprocess.run([*install, *NEEDED[method]], check=True)
        (own,) = (home / "lib").glob("python*/site-packages")
        (own / "host.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        (home / "complete").touch()
    return python


def pruned(method: str, environments: Path, run: Path, limit_ms: float, work: Path) -> None:
    """Write `found.json` and `hits.npy` of a method into `work`, by its own environment."""
    module, paths = "pretrained_parts.rivals", [str(Path(__file__).parent.parent), *sys.path]
    command = [environment(method, environments), "-m", module, "--run", run, "--method", method]
    subprocess.run(
        [*command, "--limit", str(limit_ms), "--work", work],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def fastnas(project: Project, model: torch.nn.Module, share: float, kept: Path) -> torch.nn.Module:
    """modelopt's FastNAS, scored on validation images after BN is calibrated."""
    import modelopt.torch.prune as mtp

    px = resolution(project.space, project.space.largest())
    batches = [(resize(x, px), y) for x, y in project.data.eval_batches("val", EVAL_BATCH)][
        : N_SCORED // EVAL_BATCH
    ]
    images = [resize(x, px) for x in project.data.calibration_batches(4, EVAL_BATCH)]

    def score(candidate: torch.nn.Module) -> float:
        candidate.eval()
        with torch.no_grad():
            right = [(candidate(x).argmax(1) == y).float() for x, y in batches]
        return float(torch.cat(right).mean())

    found, _ = mtp.prune(
        model=plain(model),
        mode="fastnas",
        constraints={"flops": f"{100 * share:.2f}%"},
        dummy_input=images[0][:1],
        config={
            "data_loader": [(x,) for x in images],
            "score_func": score,
            "checkpoint": str(kept / "scores.pth"),
        },
    )
    cut: torch.nn.Module = found
    return cut


def plain(network: torch.nn.Module) -> torch.nn.Module:
    """The same network of torch's own layers, in place: FastNAS knows no subclasses of them."""
    for name, module in network.named_children():
        if isinstance(module, torch.nn.Conv2d) and type(module) is not torch.nn.Conv2d:
            module.__class__ = torch.nn.Conv2d
        if isinstance(module, torch.nn.BatchNorm2d) and type(module) is not torch.nn.BatchNorm2d:
            norm = torch.nn.BatchNorm2d(module.num_features, eps=module.eps)
            norm.load_state_dict(module.state_dict())
            setattr(network, name, torch.nn.Sequential(norm.train(module.training), module.act))
        else:
            plain(module)
    return network


def torch_pruning(
    project: Project, model: torch.nn.Module, share: float, kept: Path
) -> torch.nn.Module:
    """torch-pruning's group magnitude, over all layers together, channels in eights."""
    import torch_pruning

    px = resolution(project.space, project.space.largest())
    example = torch.zeros(1, 3, px, px)
    whole, _ = torch_pruning.utils.count_ops_and_params(model, example)
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        iterative_steps=200,
        pruning_ratio=0.95,
        round_to=8,
        ignored_layers=[m for m in model.modules() if isinstance(m, torch.nn.Linear)],
    )
    for _ in range(200):
        if torch_pruning.utils.count_ops_and_params(model, example)[0] <= share * whole:
            break
        pruner.step()
    return model


PRUNERS: dict[str, Prune] = {"fastnas": fastnas, "torch-pruning": torch_pruning}


def run(project: Project, method: str, limit_ms: float, work: Path) -> dict[str, Any]:
    """Bisect, train and test; the hits are in `work/hits.npy`."""
    largest = project.space.largest()
    px = resolution(project.space, largest)
    start = extract(supernet_with_head(project), largest)
    low, high, best = 0.0, 1.0, None
    for step in range(N_BISECTIONS):
        share = (low + high) / 2
        cut = PRUNERS[method](project, copy.deepcopy(start).eval(), share, work)
        ms = _latency(project, cut, px, work / f"timed{step}")
        print(f"{method}: {share:.3f} of the FLOPs, {ms:.3f} of {limit_ms:.3f} ms", file=sys.stderr)
        if ms <= limit_ms:
            low, best = share, (cut, share, ms)
        else:
            high = share
    if best is None:
        return {"method": method, "found": False, "limit_ms": limit_ms}
    cut, share, ms = best
    trained = finetune(
        cut,
        project.data,
        networks.alone_recipe(project),
        px=px,
        teacher=None,
        seed=project.config.seed,
    )
    np.save(work / "hits.npy", hits(trained, project.data, px))
    return {"method": method, "found": True, "flops_share": share, "latency_ms": ms}


def _latency(project: Project, model: torch.nn.Module, px: int, folder: Path) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        torch.onnx.export(
            model.eval(), (torch.zeros(1, 3, px, px),), path, dynamo=False, opset_version=17
        )
        (ms,) = networks.time_files(
            project, {"pruned": path}, {"pruned": "pruned"}, folder
        ).values()
    return ms


def main() -> None:
    """Entry point; in the method's own environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--method", choices=PRUNERS, required=True)
    parser.add_argument("--limit", type=float, required=True, help="ms")
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    with open_project(
        options.run, progress_for=lambda _: silent, command="benchmark", read_only=True
    ) as project:
        found = run(project, options.method, options.limit, options.work)
    write_json(options.work / "found.json", found)


if __name__ == "__main__":
    main()
