"""Drop path and the auxiliary classifier in the training of one network."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest
import torch
from torch import nn

from hwnas.core.errors import UserError
from hwnas.core.progress import Progress, silent
from hwnas.interfaces import DatasetContext
from hwnas.nets.subnet import build_subnet
from hwnas.spaces.load import build_space
from hwnas.spaces.space import SearchSpace
from hwnas.training.datasets import digits
from hwnas.training.finetune import finetune
from hwnas.training.regularise import AuxiliaryHead, Regularisation
from hwnas.training.sections import CalibrationConfig, FinetuneConfig, OptimizerConfig

CELLS = build_space("darts", {"resolutions": [8], "width": 2, "n_cells": 3}, num_classes=10)
CHAIN = build_space("mobilenet_tiny", {"resolutions": [8], "width_mult": 0.25}, num_classes=10)
DATA = digits.build(
    digits.Config(base_px=8, val_fraction=0.05, test_fraction=0.84), DatasetContext(0)
)
IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def recipe(**changes: object) -> FinetuneConfig:
    base = {"epochs": 1, "batch_size": 64, "calibration": CalibrationConfig(batch_size=64)}
    return FinetuneConfig.model_validate(base | changes)


def network(space: SearchSpace) -> nn.Module:
    return build_subnet(space, space.largest(), seed=0).train()


def test_the_auxiliary_classifier_is_the_released_one():
    """Parameters in closed form, for the 576 channels of 8 px of DARTS' evaluation."""
    head = AuxiliaryHead(576, 8, 10)
    expected = 576 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 769 * 10
    assert sum(p.numel() for p in head.parameters()) == expected == 476_426
    assert head.layers[:2](torch.rand(1, 576, 8, 8)).shape == (1, 576, 2, 2)
    assert AuxiliaryHead(8, 2, 10)(torch.rand(3, 8, 2, 2)).shape == (3, 10)


@pytest.mark.parametrize("space", [CELLS, CHAIN], ids=["graph", "chain"])
def test_the_drop_rate_grows_and_the_network_is_the_same_afterwards(space: SearchSpace):
    net = network(space)
    plain = net(IMAGES)
    added = Regularisation(net, recipe(drop_path=0.6), seed=0, n_steps=100)
    distances = []
    for step in (0, 50, 99, 99):
        added.start(step)
        distances.append(float((net(IMAGES) - plain).norm()))
    assert distances[0] < distances[1] < distances[2]
    assert distances[2] == distances[3], "the drops of a step are those of its number"
    added.remove()
    assert torch.equal(net(IMAGES), plain)


def test_the_loss_is_the_cross_entropy_of_the_second_classifier():
    """Of the map of the second reduction cell; gradients reach the cells before it."""
    net, labels = network(CELLS), torch.arange(6)
    added = Regularisation(net, recipe(auxiliary=0.4, label_smoothing=0.0), seed=0, n_steps=1)
    seen: list[torch.Tensor] = []
    net.get_submodule("cell2.concat").register_forward_hook(lambda m, i, out: seen.append(out))
    net(IMAGES)
    loss = added.loss(labels)
    logits = net.get_submodule("auxiliary_head")(seen[0])
    expected = 0.4 * nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert net.get_parameter("stem.conv.weight").grad is not None
    assert net.get_parameter("classifier.weight").grad is None
    assert added.loss(labels) == 0.0, "every forward pass counts once"
    added.remove()
    assert net.state_dict().keys() == network(CELLS).state_dict().keys()


def test_a_training_is_changed_by_it_resumes_exactly_and_leaves_a_plain_network(tmp_path: Path):
    """Two epochs in one go, and cut off after the first."""

    def cut_off(done: int, total: int, note: str = "") -> None:
        if 2 * done == total:
            raise KeyboardInterrupt

    def tuned(folder: str, progress: Progress = silent, **more: float) -> dict[str, torch.Tensor]:
        config = recipe(epochs=2, optimizer=OptimizerConfig(warmup=0.0), **more)
        given, checkpoints = network(CELLS), tmp_path / folder
        found = finetune(
            *(given, DATA, config),
            **{"px": 8, "teacher": None, "seed": 0},
            checkpoints=checkpoints,
            progress=progress,
        )
        assert found.state_dict().keys() == given.state_dict().keys()
        return found.state_dict()

    changes = {"drop_path": 0.5, "auxiliary": 0.4}
    once, plain = tuned("once", **changes), tuned("plain")
    with pytest.raises(KeyboardInterrupt):
        tuned("twice", cut_off, **changes)
    twice = tuned("twice", **changes)
    assert all(torch.equal(once[name], twice[name]) for name in once)
    assert not torch.equal(once["stem.conv.weight"], plain["stem.conv.weight"])


def test_a_network_without_a_place_for_the_classifier_is_refused():
    with pytest.raises(UserError, match="no place for an auxiliary classifier"):
        Regularisation(network(CHAIN), recipe(auxiliary=0.4), seed=0, n_steps=1)
    with pytest.raises(
        pydantic.ValidationError, match="drop_path: expected 0 with precision int8, found"
    ):
        recipe(drop_path=0.1, precision="int8")
