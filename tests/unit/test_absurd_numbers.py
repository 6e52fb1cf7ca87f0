"""Numbers that nobody can mean: refused at once, with the limit named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import hwnas
from hwnas.core.errors import UserError
from hwnas.core.overrides import override
from hwnas.core.resources import resource
from hwnas.core.yaml_data import read_yaml
from hwnas.pipeline.config import load_config
from hwnas.spaces.space import SearchSpace
from tests.limits import bounded

ABSURD = (10**9, 10**18, 2**63, 2**64, -1)
CALLS: dict[str, Callable[[SearchSpace, int], object]] = {
    "from 1 to 100,000 classes": lambda space, n: hwnas.space("digits_study", num_classes=n),
    "from 1 to 100,000 channels": lambda space, n: hwnas.space("digits_study", in_channels=n),
    "from 0 to 10,000,000": lambda space, n: hwnas.space_sample(space, n=n),
    "from 1 to 100,000,000": lambda space, n: hwnas.search(space, score=len, budget=n),
    "from 1 to 100,000": lambda space, n: hwnas.references(device="local", num_classes=n),
}


@pytest.mark.parametrize("n", ABSURD)
@pytest.mark.parametrize("limit", CALLS)
def test_functions_refuse_them(limit: str, n: int, tiny_space: SearchSpace) -> None:
    """Most were a MemoryError, an OverflowError or an error of pydantic."""
    with (
        pytest.raises(UserError, match=limit.removesuffix(" classes").removesuffix(" channels")),
        bounded(seconds=5, memory=1 << 30),
    ):
        CALLS[limit](tiny_space, n)


@pytest.mark.parametrize("n", [10**9, 10**18, 2**63])
def test_an_arch_has_no_such_codes(n: int, tiny_space: SearchSpace) -> None:
    with pytest.raises(UserError, match="not codes of an arch"):
        tiny_space.arch([n] * len(tiny_space.choices))


def paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Key paths of everything that is no section, and of the first items of lists."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from paths(value[0], (*path, "0"))
    else:
        yield ".".join(path)


def refused(data: dict[str, Any], path: str, value: object) -> bool:
    with bounded(seconds=5, memory=1 << 30):
        try:
            load_config(override(json.loads(json.dumps(data)), {path: value}), where="here")
        except UserError:
            return True
    return False


def test_what_verify_and_export_repeat_is_bounded() -> None:
    data = read_yaml(resource("configs", "quickstart.yaml"))
    for path in ("verify.parity_batches.0", "label.n_archs", "search.n_predictions"):
        whole = load_config(data, where="here").model_dump(mode="json")
        assert refused(whole, path, 10**9) and not refused(whole, path, 16)


@pytest.mark.full
@pytest.mark.parametrize("config", ["quickstart", "cifar10_cpu", "photos"])
def test_settings_of_any_size_are_read_or_refused_in_seconds(config: str) -> None:
    data = read_yaml(resource("configs", f"{config}.yaml"))
    whole = load_config(data, where="here").model_dump(mode="json")
    outcomes = {(path, n): refused(data, path, n) for path in paths(whole) for n in ABSURD}
    assert len(outcomes) > 500
