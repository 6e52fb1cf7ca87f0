from __future__ import annotations

import json
import logging

import pytest
import torch

from hwnas.core.errors import UserError
from hwnas.training.checkpoint import Checkpoints

IDENTITY = {"config": {"optimizer": {"lr": 0.1}, "steps": 5}, "seed": 0}


def training(seed=0, optimizer="adamw"):
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    model = model.to(memory_format=torch.channels_last)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    maker = {"adamw": torch.optim.AdamW, "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)}
    return model, maker[optimizer](model.parameters())


def step(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(4, 3, 8, 8, generator=generator)).pow(3).sum().backward()
    optimizer.step()


def saved(tmp_path, n=1):
    store = Checkpoints(tmp_path, IDENTITY)
    model, optimizer = training()
    states = []
    for number in range(1, n + 1):
        step(model, optimizer, number)
        store.save(number, model, optimizer, {"note": number})
        states.append({k: v.clone() for k, v in model.state_dict().items()})
    return store, states


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_training_goes_on_as_if_nothing_happened(tmp_path, kind):
    model, optimizer = training(0, kind)
    step(model, optimizer, 1)
    store = Checkpoints(tmp_path, IDENTITY)
    store.save(1, model, optimizer, ["anything", 0.1])
    again, other_optimizer = training(9, kind)
    assert store.restore(again, other_optimizer) == (1, ["anything", 0.1])
    for seed in (2, 3):
        step(model, optimizer, seed)
        step(again, other_optimizer, seed)
    for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "absent", IDENTITY).restore(*training()) is None


def test_the_last_two_are_kept(tmp_path):
    saved(tmp_path, n=4)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"step-0000000{n}.{end}" for n in (3, 4) for end in ("json", "safetensors")]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def empty(path):
    path.write_bytes(b"{}")


@pytest.mark.parametrize(
    "harm, end",
    [
        (truncate, "safetensors"),
        (flip, "safetensors"),
        (empty, "safetensors"),
        (truncate, "json"),
        (empty, "json"),
    ],
)
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path, caplog, harm, end):
    store, states = saved(tmp_path, n=3)
    newest = tmp_path / f"step-00000003.{end}"
    harm(newest)
    model, optimizer = training(9)
    with caplog.at_level(logging.WARNING):
        restored = store.restore(model, optimizer)
    assert restored == (2, {"note": 2})
    assert "step-00000003" in caplog.text
    assert all(torch.equal(v, states[1][k]) for k, v in model.state_dict().items())


def test_a_checkpoint_of_a_newer_version_is_not_taken_for_damaged(tmp_path):
    store, _ = saved(tmp_path, n=2)
    newest = tmp_path / "step-00000002.json"
    newest.write_text(json.dumps(json.loads(newest.read_text()) | {"schema_version": 2, "more": 1}))
    with pytest.raises(UserError) as caught:
        store.restore(*training(9))
    assert str(caught.value) == (
        "the checkpoint was written by a newer hwnas\n"
        "  expected: `schema_version`: at most 1\n"
        "  found: `schema_version`: 2\n"
        f"  where: {newest}\n"
        "  fix: upgrade hwnas"
    )


def test_a_kill_between_the_two_files_leaves_the_previous_one(tmp_path):
    store, _ = saved(tmp_path, n=3)
    (tmp_path / "step-00000003.json").unlink()
    restored = store.restore(*training(9))
    assert restored is not None and restored[0] == 2


def test_changed_settings_are_named_key_by_key(tmp_path):
    saved(tmp_path)
    changed = {"config": {"optimizer": {"lr": 0.2}, "epochs": 3}, "seed": 0}
    with pytest.raises(UserError) as caught:
        Checkpoints(tmp_path, changed).restore(*training(9))
    text = str(caught.value)
    assert "config.optimizer.lr: 0.1 -> 0.2" in text
    assert "config.steps: 5 -> '(absent)'" in text
    assert "config.epochs: '(absent)' -> 3" in text
    assert "seed" not in text.split("found:")[1].split("where:")[0]


def test_a_checkpoint_holds_no_pickle_and_vouches_for_its_weights(tmp_path):
    import hashlib

    saved(tmp_path)
    meta = json.loads((tmp_path / "step-00000001.json").read_text())
    data = (tmp_path / "step-00000001.safetensors").read_bytes()
    assert meta["schema_version"] == 1
    assert meta["sha256"] == hashlib.sha256(data).hexdigest()
    assert int.from_bytes(data[:8], "little") < len(data) and data[8:9] == b"{"
