"""What surrounds the training step: averages, parts of a batch, teacher, curves, what is kept."""

from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from hwnas.core.config import build_model
from hwnas.core.errors import UserError
from hwnas.core.rng import rng
from hwnas.core.yaml_data import parse_yaml
from hwnas.interfaces import LearningSampler, SamplerContext, Slot
from hwnas.nets.supernet import Supernet
from hwnas.spaces import mobile
from hwnas.spaces.lowering import lower, resolution
from hwnas.training import step as step_module
from hwnas.training.curves import CollapseWatch
from hwnas.training.images import resize
from hwnas.training.loop import train_supernet
from hwnas.training.optional_sections import AverageConfig, RankingConfig, TeacherConfig
from hwnas.training.precision import Precision, pick_device
from hwnas.training.samplers import attentive, policy, progressive, sandwich, uniform
from hwnas.training.step import SupernetStep, Trials
from hwnas.training.teacher import load_teacher
from hwnas.training.tensorboard import scalars, tensorboard_rows
from tests.training import DATA, METRICS, SPACE, recipe


class Killed(Exception):
    pass


def train(folder, config, *, stop_at=None, space=SPACE, weak=False, data=DATA):
    supernet, rows = Supernet(space, seed=0, weak=weak), []

    def progress(done, total, note=""):
        if done == stop_at:
            raise Killed

    used = train_supernet(
        supernet, data, config, seed=0, checkpoints=folder, on_metrics=rows.append,
        progress=progress, metrics=METRICS,
    )  # fmt: skip
    return supernet, used, rows


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items())


LEARNING = policy.Config(warmup=0.0, every=1, n_trials=3, n_random=1, learning_rate=0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": AverageConfig()},
        {"sampler": LEARNING},
        {"ranking": RankingConfig(pairs=1), "distillation": "alpha", "accumulation": 2},
        {"sampler": attentive.Config(k=2, n_random=1)},
        {"sampler": progressive.Config()},
    ],
    ids=["ema", "policy", "ranking", "attentive", "progressive"],
)
def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path, changes):
    """Averages, the policy's state and everything else that steps depend on is restored exactly."""
    config = recipe(**changes)
    supernet, used, rows = train(tmp_path / "whole", config)
    for stop_at in (1, 3):
        with pytest.raises(Killed):
            train(tmp_path / "killed", config, stop_at=stop_at)
    again, used_again, later = train(tmp_path / "killed", config)
    assert same(state_of(supernet), state_of(again))
    assert same(state_of(used), state_of(used_again))
    assert later[-1] == rows[-1]


def test_the_average_is_the_recursion_and_is_what_is_scored_and_returned(tmp_path):
    config = recipe(ema=AverageConfig(decay=0.6, warmup=False), steps=3, curve_every=3)
    plain = recipe(steps=3, curve_every=3)
    steps = []
    for stop_at in (1, 2):
        with pytest.raises(Killed):
            train(tmp_path / "plain", plain, stop_at=stop_at)
        (path,) = (tmp_path / "plain").glob(f"step-0000000{stop_at}.safetensors")
        steps.append(safetensors.torch.load_file(path))
    last, _, plain_rows = train(tmp_path / "plain", plain)
    supernet, used, rows = train(tmp_path / "ema", config)
    assert used is not supernet and used.training
    assert same(state_of(supernet), state_of(last))  # the average changes no training
    first, second = ({k.removeprefix("model."): v for k, v in step.items()} for step in steps)
    name = "classifier.linear.weight" if "classifier.linear.weight" in first else "stem.conv.weight"
    # timm's average is a copy of the weights for the first two updates.
    expected = 0.6 * second[name] + 0.4 * state_of(last)[name]
    torch.testing.assert_close(state_of(used)[name], expected)
    assert rows[-1]["val_loss"] != plain_rows[-1]["val_loss"]


class Linear(torch.nn.Module):
    """No BN: parts of a batch add up to the batch."""

    space = SPACE

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(10, 3, generator=generator))

    def plan(self, arch):
        return (arch,)  # nothing in common with others

    def forward(self, x, arch, rng=None, *, dropout=0.0, drop_path=0.0, start=None):
        return x.mean((2, 3)) @ self.weight.T * (1 + sum(arch.codes))


@pytest.mark.parametrize("n_parts", [1, 4])
def test_the_gradient_is_that_of_the_mean_loss(n_parts):
    config = recipe(
        accumulation=n_parts, label_smoothing=0.0, sampler=uniform.Config(n_archs=1), dropout=0.0
    )
    sampler = uniform.build(config.sampler, SamplerContext(SPACE, 0, 4))
    x, y = next(iter(DATA.train_batches(0, 32)))
    student = Linear()
    found = SupernetStep(student, config, sampler, 0)(0, x, y)
    ((arch,),) = (slot.candidates for slot in sampler.slots(0))
    seen = resize(x, resolution(SPACE, arch))
    loss = torch.nn.functional.cross_entropy(student(seen, arch), y)
    (expected,) = torch.autograd.grad(loss, student.weight)
    torch.testing.assert_close(student.weight.grad, expected)
    assert found.nets == pytest.approx([float(loss)])


def test_ranking_pairs_count_more_and_more(monkeypatch):
    weights = []
    monkeypatch.setattr(
        step_module, "ranking_step", lambda *_, weight, **__: weights.append(weight) or []
    )
    ranking = RankingConfig(pairs=1, schedule="warmup", peak=2.0, ramp=0.5)
    config = recipe(steps=10, accumulation=2, ranking=ranking)
    sampler = uniform.build(uniform.Config(n_archs=1), SamplerContext(SPACE, 0, 10))
    step = SupernetStep(Linear(), config, sampler, 0)
    x, y = next(iter(DATA.train_batches(0, 32)))
    for number in range(10):
        step(number, x, y)
    expected = [min(1.0, number / 5) for number in range(10)]  # half of 2 on each half of a batch
    np.testing.assert_allclose(weights, np.repeat(expected, 2))


class Learning:
    """Asks for trials before every other step."""

    in_place = False

    def __init__(self):
        self.learned = []

    def slots(self, step):
        return [Slot((SPACE.largest(),))]

    def trials(self, step):
        return [SPACE.largest(), SPACE.smallest()] if step % 2 else []

    def learn(self, archs, losses):
        self.learned.append((archs, losses))

    def state(self):
        return {}

    def load_state(self, state):
        pass


def test_samplers_that_learn_get_the_losses_of_their_trials():
    sampler, student = Learning(), Linear()
    assert isinstance(sampler, LearningSampler)
    trials = Trials(SupernetStep(student, recipe(), sampler, 3), DATA, batch_size=16, n_images=40)
    whole = list(zip(*DATA.eval_batches("val", 1000), strict=True))
    images, labels = (torch.cat(part)[:40] for part in whole)
    for number in range(4):
        trials.before(number)
    assert [archs for archs, _ in sampler.learned] == [[SPACE.largest(), SPACE.smallest()]] * 2
    for number, (archs, losses) in zip((1, 3), sampler.learned, strict=True):
        rows = rng(3, "train/trial images", number).permutation(40)[:16]
        expected = [
            float(
                torch.nn.functional.cross_entropy(
                    student(resize(images[rows], resolution(SPACE, arch)), arch), labels[rows]
                )
            )
            for arch in archs
        ]
        np.testing.assert_allclose(losses, expected, rtol=1e-5)


def gradients(model, n_parts):
    config = recipe(accumulation=n_parts, ranking=RankingConfig(pairs=1, schedule="constant"))
    sampler = sandwich.build(config.sampler, SamplerContext(SPACE, 0, 4))
    step = SupernetStep(model, config, sampler, 0)
    x, y = next(iter(DATA.train_batches(0, 32)))
    model.zero_grad()
    losses = step(0, x, y)
    return losses.nets, [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("n_parts", [2, 4])
def test_parts_of_a_batch_are_the_batch_where_there_is_no_bn(n_parts):
    model = Linear()
    losses, whole = gradients(model, 1)
    parts_losses, parts = gradients(model, n_parts)
    assert parts_losses == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(parts, whole)


def test_with_bn_parts_are_the_mean_of_steps_on_each_alone():
    model = Supernet(SPACE, seed=0)
    _, parts = gradients(model, 2)
    config = recipe()
    sampler = sandwich.build(config.sampler, SamplerContext(SPACE, 0, 4))
    x, y = next(iter(DATA.train_batches(0, 32)))
    model.zero_grad()
    for half in (slice(0, 16), slice(16, 32)):
        SupernetStep(model, config, sampler, 0)(0, x[half], y[half])
    expected = [p.grad / 2 for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(parts, expected)


def test_unequal_parts_are_refused():
    with pytest.raises(ValueError, match=r"a multiple of accumulation \(3\).*found 32"):
        recipe(accumulation=3)


@pytest.mark.parametrize("keep, order", [("best", min), ("worst", max)])
def test_attentive_trains_the_candidate_that_the_batch_picks(keep, order):
    model = Linear()
    config = recipe(sampler=attentive.Config(keep=keep, k=3, n_random=1, n_buckets=1))
    sampler = attentive.build(config.sampler, SamplerContext(SPACE, 0, 4, METRICS))
    x, y = next(iter(DATA.train_batches(0, 32)))
    slot = sampler.slots(0)[-1]
    with torch.no_grad():
        losses = {
            f"arch {arch.key}": float(torch.nn.functional.cross_entropy(model(x, arch), y))
            for arch in slot.candidates
        }
    assert len(set(losses.values())) > 1
    trained = SupernetStep(model, config, sampler, 0)(0, x, y).names[-1]
    assert losses[trained] == order(losses.values())


def test_only_the_largest_is_regularised(tmp_path):
    config = recipe(sampler=uniform.Config(), dropout=0.5, label_smoothing=0.5, curve_every=4)
    plain = recipe(sampler=uniform.Config(), dropout=0.0, label_smoothing=0.0, curve_every=4)
    sampler = uniform.build(uniform.Config(), SamplerContext(SPACE, 0, 4))
    drawn = [slot.candidates[0] for step in range(4) for slot in sampler.slots(step)]
    assert SPACE.largest() not in drawn
    assert same(
        state_of(train(tmp_path / "a", config)[0]), state_of(train(tmp_path / "b", plain)[0])
    )


# --- supernets with more than slices --------------------------------------------------------------


def test_weak_sharing_trains_in_the_same_loop(tmp_path):
    before = state_of(Supernet(SPACE, seed=0, weak=True))
    supernet, _, rows = train(tmp_path, recipe(steps=3), weak=True)
    outer = "hypernet.outer.weight"
    assert before[outer].abs().max() == 0 and state_of(supernet)[outer].abs().max() > 0
    assert all(np.isfinite(list(row["val_loss"].values())).all() for row in rows)


def test_activations_behind_the_residual_add_train_in_the_same_loop(tmp_path):
    """PGONAS's recipe: a smooth activation behind the add, ReLU inside, ranking pairs."""
    text = """
        name: mobile
        resolutions: [8, 10]
        stem: {widths: [8], act: relu}
        stages: [{widths: [8, 16], depths: [1, 2], kernels: [3], expands: [2], stride: 2,
                  act: relu, out_act: swish}]
        head: {width: 16, act: relu}
    """
    settings = build_model(mobile.Config, parse_yaml(text, where="test"), where="test")
    space = mobile.build(settings, num_classes=10, in_channels=DATA.info.in_channels)
    config = recipe(steps=2, ranking=RankingConfig(pairs=1), checkpoint_every=2)
    assert any(op.out_act == "swish" for op in lower(space, space.largest()))
    supernet = Supernet(space, seed=0)
    before = state_of(supernet)
    train_supernet(
        supernet, DATA, config, seed=0, checkpoints=tmp_path,
        on_metrics=lambda row: None, metrics=METRICS,
    )  # fmt: skip
    assert any(not torch.equal(v, before[k]) for k, v in state_of(supernet).items())


# --- teacher --------------------------------------------------------------------------------------


def test_a_timm_teacher_replaces_part_of_the_labels(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_byobnet", num_classes=10, in_chans=DATA.info.in_channels)
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    settings = TeacherConfig(model="test_byobnet", weights=path, px=32, weight=1.0)
    teacher = load_teacher(settings, DATA.info, torch.device("cpu"))
    x, y = next(iter(DATA.train_batches(0, 8)))
    seen = torch.nn.functional.interpolate(
        x, (32, 32), mode="bilinear", align_corners=False, antialias=True
    )
    torch.testing.assert_close(teacher(x), model.eval()(seen), rtol=1e-4, atol=1e-4)
    config = recipe(teacher=settings, label_smoothing=0.0)
    sampler = sandwich.build(config.sampler, SamplerContext(SPACE, 0, 4))
    student = Linear()
    found = SupernetStep(student, config, sampler, 0, teacher=teacher)(0, x, y)
    target = teacher(x).softmax(1)
    with torch.no_grad():
        log_q = student(x, SPACE.largest()).log_softmax(1)
    assert found.nets[0] == pytest.approx(float(-(target * log_q).sum(1).mean()), rel=1e-4)
    # Its weights are part of what a training is: others are another training.
    train(tmp_path / "run", recipe(teacher=settings, steps=1))
    safetensors.torch.save_file({k: v + 0 for k, v in model.state_dict().items()}, path, {"a": "b"})
    with pytest.raises(UserError, match="teacher: "):
        train(tmp_path / "run", recipe(teacher=settings, steps=1))


def test_a_teacher_sees_images_in_its_own_normalisation(tmp_path):
    """Pixels - timm's mean, over timm's deviation, however the data normalise them."""
    torch.manual_seed(0)
    model = timm.create_model("test_byobnet", num_classes=10, in_chans=3)
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    info = dataclasses.replace(DATA.info, mean=(0.1, 0.4, 0.7), std=(0.2, 0.5, 0.9), base_px=32)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v)[:, None, None] for v in (info.mean, info.std))
    cfg = model.pretrained_cfg
    own_mean, own_std = (torch.tensor(cfg[key])[:, None, None] for key in ("mean", "std"))
    for normalisation, seen in (
        ("data", (pixels - mean) / std),
        ("timm", (pixels - own_mean) / own_std),
    ):
        settings = TeacherConfig(model="test_byobnet", weights=path, normalisation=normalisation)
        teacher = load_teacher(settings, info, torch.device("cpu"))
        torch.testing.assert_close(
            teacher((pixels - mean) / std), model.eval()(seen), rtol=1e-4, atol=1e-4
        )


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    path = tmp_path / "teacher.safetensors"
    model = timm.create_model("test_byobnet", num_classes=7, in_chans=DATA.info.in_channels)
    safetensors.torch.save_file(model.state_dict(), path)
    settings = TeacherConfig(model="test_byobnet", weights=path)
    with pytest.raises(UserError, match="for 10 classes"):
        load_teacher(settings, DATA.info, torch.device("cpu"))
    with pytest.raises(UserError, match="cannot create the teacher"):
        load_teacher(settings.model_copy(update={"model": "x"}), DATA.info, torch.device("cpu"))


# --- collapse, what is kept, bad input ------------------------------------------------------------


def test_a_class_that_falls_to_chance_is_reported_with_step_and_remedy(caplog):
    watch = CollapseWatch(chance=0.1, n_images=500)
    good, bad = {"largest": 0.9, "smallest": 0.6}, {"largest": 0.9, "smallest": 0.11}
    with caplog.at_level(logging.WARNING):
        assert watch.check(10, 100, good) == []
        assert watch.check(20, 100, bad) == ["smallest"]
    assert "step 20 of 100: the smallest subnet fell to chance" in caplog.text
    assert "0.600 at step 10" in caplog.text and "optimizer.lr" in caplog.text
    resumed = CollapseWatch(0.1, 500, json.loads(json.dumps(watch.peaks)))
    assert resumed.check(30, 100, bad) == ["smallest"]
    assert resumed.check(40, 100, good) == []


def test_a_class_that_has_never_learnt_is_reported_at_half_time(caplog):
    watch = CollapseWatch(chance=0.1, n_images=500)
    assert watch.check(10, 100, {"largest": 0.1}) == []
    assert watch.check(50, 100, {"largest": 0.12}) == ["largest"]
    assert "has not learnt anything" in caplog.text and "too small for these data" in caplog.text


def test_of_few_images_nobody_is_told_that_nothing_was_learnt(caplog):
    """0.4 of 20 images against a chance of 0.2 may be luck or half of what can be learnt."""
    assert CollapseWatch(chance=0.2, n_images=20).check(50, 100, {"middle": 0.4}) == []
    assert not caplog.text
    assert CollapseWatch(chance=0.2, n_images=100).check(50, 100, {"middle": 0.2}) == ["middle"]


def test_the_best_and_the_last_k_are_kept(tmp_path):
    config = recipe(steps=5, curve_every=1, keep_last=3)
    supernet, _, rows = train(tmp_path, config)
    steps = sorted(path.stem for path in tmp_path.glob("step-*.safetensors"))
    assert steps == ["step-00000003", "step-00000004", "step-00000005"]
    means = [np.mean(list(row["top1"].values())) for row in rows]
    with safetensors.safe_open(tmp_path / "best.safetensors", "pt") as best:
        assert int(best.metadata()["step"]) == 1 + int(np.argmax(means))
        assert set(best.keys()) == set(supernet.state_dict())


def test_a_changed_setting_is_refused_but_what_is_kept_may_change(tmp_path):
    train(tmp_path, recipe(steps=1))
    train(tmp_path, recipe(steps=1, keep_last=5, tensorboard=False, keep_best=False))
    with pytest.raises(UserError, match=r"config\.ranking\.pairs: '\(absent\)' -> 2"):
        train(tmp_path, recipe(steps=1, ranking=RankingConfig()))


def test_a_loss_that_is_not_finite_names_arch_and_batch(tmp_path):
    class Poisoned:
        info, eval_batches = DATA.info, DATA.eval_batches
        calibration_batches = DATA.calibration_batches

        def train_batches(self, epoch, batch_size, **part):
            for n, (x, y) in enumerate(DATA.train_batches(epoch, batch_size, **part)):
                yield (x * float("inf") if (epoch, n) == (0, 2) else x), y

    with pytest.raises(UserError) as caught:
        train(tmp_path, recipe(ranking=RankingConfig(pairs=1)), data=Poisoned())
    text = str(caught.value)
    assert f"step 2, arch {SPACE.largest().key}" in text and "batch 2 of epoch 0" in text
    assert "ranking pair" in text
    assert (tmp_path / "step-00000002.safetensors").exists()


def test_data_smaller_than_a_batch_is_refused(tmp_path):
    with pytest.raises(UserError, match="too small for batch_size = 4096"):
        train(tmp_path, recipe(batch_size=4096))


# --- devices and TensorBoard ----------------------------------------------------------------------


def test_mixed_precision_is_off_on_cpus_and_says_so(caplog):
    precision = Precision.of("bf16", torch.device("cpu"))
    assert precision.dtype is None and precision.scaler is None
    assert "train.precision: bf16 is ignored" in caplog.text
    assert pick_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert pick_device("auto") == torch.device("cpu")
        with pytest.raises(UserError, match="no CUDA device"):
            pick_device("cuda")


def test_every_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert pick_device("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device("cuda") == torch.device("cuda", 3)
    assert pick_device("cpu") == torch.device("cpu")


def test_rows_as_charts(tmp_path):
    row = {
        "step": 5, "lr": 0.1, "losses": [1.0, 2.0], "top1": {"largest": 0.5}, "collapsed": ["x"],
    }  # fmt: skip
    expected = {"lr": 0.1, "losses/0": 1.0, "losses/1": 2.0, "top1/largest": 0.5}
    assert scalars(row) == expected
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match=r"pip install 'hwnas\[tensorboard\]'"):
            tensorboard_rows(tmp_path)
    else:
        tensorboard_rows(tmp_path)(row)
        assert list(tmp_path.glob("events.*"))
