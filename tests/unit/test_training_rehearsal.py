"""Training steps on invented images: the ImageNet recipes, small, and what a dry run tells."""

from __future__ import annotations

import logging
import re

import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.core.overrides import assignments
from hwnas.core.progress import silent
from hwnas.core.rundir import RunDir
from hwnas.pipeline.config import load_config, read_config_data
from hwnas.pipeline.costs import prices
from hwnas.pipeline.project import Project
from hwnas.studies.training_cost import tell_training_cost
from hwnas.training.rehearsal import Rehearsal, rehearse

RECIPES = ["imagenet_attentive", "imagenet_mobilenet_v3"]


def project(name, tmp_path, *settings):
    data, where = read_config_data(name)
    config = load_config(data, assignments(settings), where=where)
    return Project(RunDir(tmp_path), config, lambda _: silent)


@pytest.fixture(autouse=True)
def without_data(monkeypatch, tmp_path):
    monkeypatch.setenv("HWNAS_DATA", str(tmp_path / "absent"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_real_step_of_an_imagenet_recipe(name, tmp_path):
    recipe = project(name, tmp_path, "space.resolutions=[32]", "accelerator=cpu")
    supernet = recipe.new_supernet()
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    found = rehearse(
        supernet,
        recipe.config.train,
        n_images=4,
        seed=0,
        metrics=prices(recipe),
        device=torch.device("cpu"),
    )
    assert found.n_networks == 4 and found.n_images == 4
    assert found.seconds > 0 and found.peak_bytes > 2**20
    after = supernet.state_dict()
    assert any(value.shape[:1] == (1000,) for value in after.values())  # the classifier
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(changed) > len(before) / 2
    assert all(value.isfinite().all() for value in after.values())


def test_a_step_is_timed_as_it_is_when_all_choices_are_open(tmp_path):
    settings = ("train.elastic_warmup=0.5", "space.resolutions=[16]", "train.batch_size=8")
    recipe = project("digits", tmp_path, *settings)
    found = rehearse(
        recipe.new_supernet(), recipe.config.train, n_images=4, seed=0, metrics={},
        device=torch.device("cpu"),
    )  # fmt: skip
    assert found.n_networks == 4


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_the_published_one(name, tmp_path):
    train = project(name, tmp_path).config.train
    epochs = train.steps * train.batch_size / 1_281_167
    assert epochs == pytest.approx(360, abs=0.5)
    assert train.optimizer.lr == pytest.approx(0.1 * train.batch_size / 256)
    assert (train.optimizer.clip_norm, train.optimizer.clip_value) == (None, 1.0)
    assert (train.label_smoothing, train.dropout, train.drop_path) == (0.1, 0.2, 0.2)
    assert train.optimizer.warmup * 360 == pytest.approx(5, abs=0.1)


def test_a_plan_says_what_was_measured_and_what_was_not(tmp_path, caplog):
    small = project("digits", tmp_path, "train.batch_size=64", "train.accumulation=2")
    with caplog.at_level(logging.INFO, logger="hwnas"):
        tell_training_cost(small, processes=1)
    text = caplog.text
    assert "200 steps of 64 images at 16 to 24 px" in text
    assert "2 parts of 32 images" in text
    assert "4 networks" in text and "on 16 synthetic images" in text
    measured, step = (
        float(re.search(pattern, text)[1])
        for pattern in (r"images takes ([\d.]+) s", r"([\d.]+) s per step")
    )
    assert step == pytest.approx(4 * measured, abs=0.03)  # 64 images of which 16 were timed


def test_memory_is_extrapolated_along_a_line():
    found = Rehearsal(4, 16, 1.0, peak_bytes=1000, bytes_per_image=10.0)
    assert found.peak_bytes_of(16) == 1000 and found.peak_bytes_of(64) == 1480


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not divide evenly"):
        tell_training_cost(project("digits", tmp_path), processes=7)
