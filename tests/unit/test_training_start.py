"""From pretrained weights to own classes: the head first, choices that open, slow early layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.core.config import settled
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.interfaces import SamplerContext, Slot
from hwnas.nets.bn import recalibrate
from hwnas.nets.extract import extract
from hwnas.nets.supernet import Supernet
from hwnas.training.elastic_warmup import opened
from hwnas.training.head import fit_head
from hwnas.training.images import resize
from hwnas.training.loop import train_supernet
from hwnas.training.optional_sections import AverageConfig
from hwnas.training.samplers import attentive, uniform
from hwnas.training.sections import OptimizerConfig, TrainConfig
from hwnas.training.step import SupernetStep
from tests.training import DATA, METRICS, SPACE, recipe

PLAIN = OptimizerConfig(
    name="momentum", lr=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0, clip_norm=None
)
START = recipe(
    head_epochs=2,
    elastic_warmup=0.6,
    optimizer=OptimizerConfig(layer_decay=0.7),
    ema=AverageConfig(),
)
N_HEAD = 2 * (DATA.info.n_images["train"] // 32)  # steps


class Killed(Exception):
    pass


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items())


# --- the head -------------------------------------------------------------------------------------


def fit(config, seed=0):
    """The supernet before and after, and what was reported."""
    supernet, told = Supernet(SPACE, seed=0), []
    before = state_of(supernet)
    fit_head(supernet, DATA, config, seed=seed, progress=lambda *report: told.append(report))
    return before, state_of(supernet), told


def test_only_the_classifier_learns_and_it_learns():
    config = recipe(head_epochs=20, optimizer=OptimizerConfig(lr=0.05), label_smoothing=0.0)
    before, after, told = fit(config)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.linear.weight", "classifier.linear.bias"}
    assert told[-1][:2] == (N_HEAD * 10, N_HEAD * 10)
    first, last = (float(note.split()[-2]) for _, _, note in (told[0], told[-1]))
    assert last < first - 0.5


def test_it_is_the_documented_regression_on_features_of_the_largest():
    """One step of gradient descent on the first batch, written out."""
    n = DATA.info.n_images["train"]
    config = recipe(head_epochs=1, batch_size=n, optimizer=PLAIN, label_smoothing=0.1)
    before, after, _ = fit(config)
    network = extract(Supernet(SPACE, seed=0), SPACE.largest())
    network = recalibrate(network, [resize(x, 10) for x in DATA.calibration_batches(1, 32)])
    x, y = (torch.cat(parts) for parts in zip(*DATA.eval_batches("train", 50), strict=True))
    with torch.no_grad():
        network.classifier, classifier = torch.nn.Identity(), network.classifier
        features = network(resize(x, 10))
    classifier.requires_grad_(True)
    order = torch.from_numpy(rng(0, "train/head", 0).permutation(n))
    logits = classifier(features[order])
    torch.nn.functional.cross_entropy(logits, y[order], label_smoothing=0.1).backward()
    expected = before["classifier.linear.weight"] - 0.1 * classifier.weight.grad
    torch.testing.assert_close(after["classifier.linear.weight"], expected)


def test_the_order_of_features_depends_on_the_seed():
    config = recipe(head_epochs=1)
    assert not same(fit(config)[1], fit(config, seed=1)[1])


def test_fewer_images_than_a_batch_are_one_batch():
    _, _, told = fit(recipe(head_epochs=3, batch_size=4096))
    assert [done for done, *_ in told] == [1, 2, 3]


def test_a_loss_that_is_not_finite_is_reported():
    class Poisoned:
        info, calibration_batches = DATA.info, DATA.calibration_batches

        def eval_batches(self, split, size):
            return ((x * float("nan"), y) for x, y in DATA.eval_batches(split, size))

    with pytest.raises(UserError, match="step 0, the new classifier"):
        fit_head(Supernet(SPACE, seed=0), Poisoned(), recipe(head_epochs=1), seed=0)


# --- choices that open ----------------------------------------------------------------------------


def test_choices_open_from_the_largest_value_down():
    """Of k values 1 + floor(share * k) are open; a smaller one becomes the smallest of these."""
    smallest = Slot((SPACE.smallest(),))
    for share in (0.0, 0.3, 0.5, 0.7, 0.99):
        (slot,) = opened([smallest], SPACE, share)
        row = slot.candidates[0].codes
        active = SPACE.active(np.asarray(row)[None])[0]
        for code, is_active, allowed in zip(row, active, SPACE.allowed, strict=True):
            n_open = min(len(allowed), 1 + int(share * len(allowed)))
            assert not is_active or code == allowed[-n_open]
    assert opened([smallest], SPACE, 1.0) == [smallest]


def test_what_is_open_already_stays():
    drawn = SPACE.arch(SPACE.sample(1, seed=3)[0])
    (slot,) = opened([Slot((drawn,), "highest")], SPACE, 0.5)
    assert slot.keep == "highest"
    lifted = slot.candidates[0]
    assert opened([slot], SPACE, 0.5) == [slot]
    assert all(new >= old for new, old in zip(lifted.codes, drawn.codes, strict=True))
    SPACE.check(lifted)


def test_a_restricted_space_opens_what_it_allows():
    space = SPACE.restrict({"resolution": (8,)})
    (slot,) = opened([Slot((space.smallest(),))], space, 0.0)
    assert slot.candidates == (space.largest(),)


def trained_archs(tmp_path, config):
    """How many networks each step trained."""
    rows = []
    train_supernet(
        Supernet(SPACE, seed=0), DATA, config, seed=0, checkpoints=tmp_path,
        on_metrics=rows.append, metrics=METRICS,
    )  # fmt: skip
    return [len(row["losses"]) for row in rows]


@pytest.mark.parametrize(
    "sampler, whole",
    [(None, 3), (uniform.Config(n_archs=2), 2), (attentive.Config(k=3, n_random=1), 3)],
    ids=["sandwich", "uniform", "attentive"],
)
def test_the_largest_is_trained_alone_at_first(tmp_path, sampler, whole):
    changes = {} if sampler is None else {"sampler": sampler}
    config = recipe(steps=4, elastic_warmup=0.75, curve_every=1, **changes)
    counts = trained_archs(tmp_path, config)
    assert counts[0] == 1 and counts[3] == whole


def test_values_open_in_equal_steps_of_the_warm_up():
    config = recipe(steps=10, elastic_warmup=0.8)
    sampler = uniform.build(uniform.Config(n_archs=5), SamplerContext(SPACE, 0, 10, METRICS))
    step = SupernetStep(Supernet(SPACE, seed=0), config, sampler, 0)
    seen = [step._slots(number) for number in range(10)]
    assert seen == [opened(sampler.slots(n), SPACE, n / 8) for n in range(10)]
    assert len(seen[0]) == 1 and seen[8:] == [list(sampler.slots(n)) for n in (8, 9)]
    assert seen[4] != list(sampler.slots(4))


# --- the whole start ------------------------------------------------------------------------------


def train(folder, config=START, *, stop_at=None, stop_note=None):
    supernet = Supernet(SPACE, seed=0)

    def progress(done, total, note=""):
        if (stop_note or "") in note and done == stop_at:
            raise Killed

    used = train_supernet(
        supernet, DATA, config, seed=0, checkpoints=folder, on_metrics=lambda row: None,
        progress=progress,
    )  # fmt: skip
    return state_of(supernet) | {f"average.{name}": x for name, x in state_of(used).items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed"))


def test_killed_in_every_phase_it_ends_the_same(undisturbed, tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, stop_at=1, stop_note="classifier")
    for step in (1, 2, 3):  # the largest alone, some choices open, all open
        with pytest.raises(Killed):
            train(tmp_path, stop_at=START.head_epochs + step)
    assert same(train(tmp_path), undisturbed)


@pytest.mark.parametrize(
    "ignored",
    [{"head_epochs": 0}, {"elastic_warmup": 0.0}, {"optimizer": OptimizerConfig()}],
    ids=lambda changes: next(iter(changes)),
)
def test_no_setting_is_ignored(undisturbed, tmp_path, ignored):
    assert not same(train(tmp_path, START.model_copy(update=ignored)), undisturbed)


def test_without_steps_the_classifier_alone_is_new(tmp_path):
    """In the weights and in their average."""
    probe = START.model_copy(update={"steps": 0})
    trained = train(tmp_path, probe)
    _, head, _ = fit(probe)
    assert same(head, trained)
    assert same(head, {name.removeprefix("average."): x for name, x in trained.items()})


def test_configurations_of_before_stay_what_they_were():
    plain = settled(TrainConfig())
    assert "head_epochs" not in plain and "elastic_warmup" not in plain
    assert "layer_decay" not in plain["optimizer"]
