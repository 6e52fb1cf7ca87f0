"""Choices and spaces that contradict themselves are refused when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hwnas.core.errors import UserError
from hwnas.spaces.choice import Choice
from hwnas.spaces.ops import OpSpec
from hwnas.spaces.skeleton import Skeleton
from hwnas.spaces.space import SearchSpace

RESOLUTION = Choice("resolution", "resolution", (8, 16))
DEPTH = Choice("depth", "depth", (1, 2))


@dataclass(frozen=True)
class Listed(Skeleton):
    """A skeleton of exactly the given choices."""

    listed: tuple[Choice, ...]
    in_channels: int = 3
    num_classes: int = 2
    resolutions: tuple[int, ...] = (8, 16)

    def choices(self) -> tuple[Choice, ...]:
        return self.listed

    def slot_names(self) -> tuple[str, ...]:
        return ("stem",)

    def lower_slots(self, codes: tuple[int, ...]) -> tuple[OpSpec | None, ...]:
        return (OpSpec("conv", 3, 8, 8, 8),)


def space(*choices: Choice, allowed: tuple[tuple[int, ...], ...] = ()) -> SearchSpace:
    return SearchSpace("listed", Listed(choices), allowed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "has no name"),
        ({"values": ()}, "has no values"),
        ({"values": (3, 5, 3)}, "value twice"),
        ({"values": (3, 3.0)}, "value twice"),
        ({"values": ("skip", "skip")}, "value twice"),
        ({"values": (3, "skip")}, "mixes numbers and names"),
        ({"values": (5, 3)}, "not in order"),
        ({"parent": 0}, "only one of `parent` and `parent_codes`"),
        ({"parent_codes": (0,)}, "only one of `parent` and `parent_codes`"),
        ({"parent": 0, "parent_codes": (1, 1)}, "code twice"),
    ],
    ids=str,
)
def test_a_choice_is_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        Choice(**{"name": "kernel", "role": "kernel", "values": (3, 5)} | arguments)
    error = refused.value
    assert error.expected and error.found is not None and error.where and "fix:" in str(error)


def test_names_of_operators_come_in_any_order() -> None:
    assert Choice("edge", "op", ("none", "conv", "avg")).values == ("none", "conv", "avg")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((), "first choice of a space must be its resolution"),
        ((DEPTH, RESOLUTION), "first choice of a space must be its resolution"),
        ((Choice("resolution", "resolution", (8, 24)),), "first choice of a space"),
        ((RESOLUTION, DEPTH, DEPTH), "same name"),
        ((RESOLUTION, Choice("a", "kernel", (3,), 1, (0,)), DEPTH), "must come before it"),
        ((RESOLUTION, Choice("a", "kernel", (3,), 2, (0,)), DEPTH), "must come before it"),
        ((RESOLUTION, Choice("a", "kernel", (3,), 7, (0,))), "must come before it"),
        ((RESOLUTION, Choice("a", "kernel", (3,), -1, (0,))), "must come before it"),
        ((RESOLUTION, DEPTH, Choice("a", "kernel", (3,), 1, (0, 2))), "its parent does not have"),
        ((RESOLUTION, DEPTH, Choice("a", "kernel", (3,), 1, (-1,))), "its parent does not have"),
    ],
)
def test_choices_of_a_space_are_checked(choices: tuple[Choice, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        space(*choices)
    error = refused.value
    assert error.expected and error.found is not None and error.where and "fix:" in str(error)


@pytest.mark.parametrize(
    "allowed",
    [
        ((0,),),
        ((0,), (0,), (0,)),
        ((0,), ()),
        ((0,), (0, 2)),
        ((0,), (-1, 0)),
        ((0,), (1, 0)),
        ((0,), (0, 0)),
    ],
    ids=str,
)
def test_allowed_codes_are_checked(allowed: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(UserError, match="allowed") as refused:
        space(RESOLUTION, DEPTH, allowed=allowed)
    error = refused.value
    assert error.expected and error.found is not None and error.where and "fix:" in str(error)


def test_a_sound_space_passes() -> None:
    kernel = Choice("kernel", "kernel", (3, 5), 1, (1,))
    made = space(RESOLUTION, DEPTH, kernel, allowed=((0, 1), (1,), (0,)))
    assert made.size() == 2
