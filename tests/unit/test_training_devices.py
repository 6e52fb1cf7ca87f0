"""Training and scoring on another device than the CPU: which tensor is on which.

The other device is torch's `meta`, whose tensors have no data, watched: an operation on tensors of
two devices fails, as it would on a GPU. So this shows that nothing is left behind on the CPU; what
a GPU makes of it, `benchmarks/gpu.sh` shows.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hwnas.nets.supernet import Supernet
from hwnas.training import standalone
from hwnas.training.evaluate import SupernetEvaluator
from hwnas.training.finetune import TeacherSubnet, finetune
from hwnas.training.loop import train_supernet
from hwnas.training.optional_sections import RankingConfig
from hwnas.training.samplers import attentive, policy, uniform
from hwnas.training.sections import CalibrationConfig, FinetuneConfig
from hwnas.training.standalone import StandaloneEvaluator, training_seconds
from tests.training import DATA, METRICS, SPACE, recipe

CPU, OTHER = torch.device("cpu"), torch.device("meta")
aten = torch.ops.aten
COPIES = aten._to_copy.default, aten.to.dtype_layout  # the second one in inference mode
pytestmark = pytest.mark.filterwarnings("ignore:.*non-meta parameter")
CALIBRATION = CalibrationConfig(batch_size=32)


class OneDevice(TorchDispatchMode):
    """Refuses operations between devices; numbers that leave the other device are 1, tensors 0."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device for x in tensors if x.dim() or x.device == OTHER}
        if func in (aten._local_scalar_dense.default, aten.item.default) and OTHER in devices:
            return 1.0 if args[0].is_floating_point() else 1
        if func in COPIES and OTHER in devices and kwargs.get("device") == CPU:
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if len(devices) > 1 and func not in (aten._to_copy.default, aten.copy_.default):
            raise AssertionError(f"{func} of tensors on two devices")
        return func(*args, **kwargs)


@pytest.fixture
def device():
    with OneDevice():
        yield OTHER


def devices_of(model):
    return {value.device for value in model.state_dict().values()}


def test_mixed_devices_are_noticed(device):
    with pytest.raises(AssertionError, match="two devices"):
        torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3, device=device))


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 2},
        {"sampler": uniform.Config(), "ranking": RankingConfig(pairs=1)},
        {"sampler": attentive.Config()},
        {"sampler": policy.Config(every=1), "distillation": "alpha"},
    ],
    ids=["sandwich", "uniform", "attentive", "policy"],
)
@pytest.mark.parametrize("weak", [False, True], ids=["shared", "weak"])
def test_supernets_train_where_they_are_told(device, tmp_path, changes, weak):
    config = recipe(steps=2, curve_every=1, **changes)
    rows = []
    for _ in ("train", "load the checkpoint"):
        used = train_supernet(
            Supernet(SPACE, seed=0, weak=weak), DATA, config, seed=0, checkpoints=tmp_path,
            on_metrics=rows.append, metrics=METRICS, device=device,
        )  # fmt: skip
        assert devices_of(used) == {device} and [row["step"] for row in rows] == [1, 2]


def test_subnets_are_scored_and_tuned_where_the_supernet_is(device):
    supernet = Supernet(SPACE, seed=0)
    supernet.to(device)
    scorer = SupernetEvaluator(supernet, DATA, CALIBRATION, seed=0)
    assert scorer.evaluate(SPACE.smallest()).n_images == DATA.info.n_images["val"]
    student, teacher = scorer.network(SPACE.smallest()), scorer.network(SPACE.largest())
    tuned = finetune(
        student,
        DATA,
        FinetuneConfig(epochs=1, batch_size=32, calibration=CALIBRATION),
        px=8,
        teacher=TeacherSubnet(teacher, 10),
        seed=0,
    )
    assert devices_of(tuned) == {device}


def test_archs_are_trained_alone_where_they_are_told(device, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        standalone, "finetune", lambda model, *a, **k: seen.append(devices_of(model)) or
        finetune(model, *a, **k),
    )  # fmt: skip
    recipe = FinetuneConfig(epochs=1, batch_size=32, distillation=0, calibration=CALIBRATION)
    scorer = StandaloneEvaluator(SPACE, DATA, recipe, seed=0, checkpoints=tmp_path, device=device)
    assert scorer.evaluate(SPACE.smallest()).source == "trained" and seen == [{device}]
    assert training_seconds(SPACE, DATA, recipe, [SPACE.smallest()], device) > 0
