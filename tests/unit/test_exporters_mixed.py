"""Which layers stay float, on a network of numbers whose layers spoil known images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hwnas.exporters.mixed import Mixed, mixed, saving

N, CLASSES = 100, 4
EXPECTED = np.eye(CLASSES)[np.arange(N) % CLASSES]
SPOILT = {"a": range(10), "b": range(10, 20), "c": range(20, 30), "d": range(30, 31)}
"""Images that a layer in 8 bits gets wrong."""


def quantize(only: Sequence[str] = (), but: Sequence[str] = ()) -> frozenset[str]:
    """The layers in 8 bits."""
    return frozenset(only or set(SPOILT) - set(but))


def logits(in_8_bits: frozenset[str], images: np.ndarray) -> np.ndarray:
    found = EXPECTED.copy()
    for layer in in_8_bits:
        found[SPOILT[layer]] = np.roll(EXPECTED[SPOILT[layer]], 1, axis=1)
    return found[: len(images)]


def chosen(savings: dict[str, float], target: float, most: float = 1.0) -> Mixed[frozenset[str]]:
    return mixed(
        {"nearest": quantize},
        logits,
        savings,
        np.zeros((N, 1)),
        EXPECTED,
        target_agreement=target,
        max_float_layers=most,
    )


EQUAL = dict.fromkeys(SPOILT, 1.0)


@pytest.mark.parametrize("spoilt", [range(1), range(0)], ids=["classes", "logits"])
def test_the_way_of_rounding_that_is_closest_is_used(spoilt: range) -> None:
    """The first way gets more classes wrong, or none, but its logits are further away."""

    def far(only: Sequence[str] = (), but: Sequence[str] = ()) -> frozenset[str]:
        return quantize(only, but) | {"far"}

    def both(in_8_bits: frozenset[str], images: np.ndarray) -> np.ndarray:
        found = logits(in_8_bits - {"far"}, images)
        if "far" in in_8_bits:
            found = found + 0.1 * found
            found[spoilt] = np.roll(found[spoilt], 2, axis=1)
        return found

    ways = {"compensated": far, "nearest": quantize}
    for order in (ways, dict(reversed(ways.items()))):
        found = mixed(
            order, both, EQUAL, np.zeros((N, 1)), EXPECTED, target_agreement=0.9, max_float_layers=1
        )
        assert found.weights == found.facts["weights"] == "nearest"
        assert found.model == quantize(but=found.float_layers) and len(found.float_layers) == 3


def test_a_network_that_agrees_stays_in_8_bits():
    found = chosen(EQUAL, 0.69)
    assert found.float_layers == () and found.agreement == found.agreement_all_int8 == 0.69


@pytest.mark.parametrize(("target", "n"), [(0.7, 1), (0.8, 2), (0.9, 3), (0.99, 3)])
def test_the_fewest_layers_that_agree_stay_float(target: float, n: int):
    found = chosen(EQUAL, target)
    assert len(found.float_layers) == n and found.agreement >= target
    assert found.agreement_all_int8 == 0.69 and "d" not in found.float_layers[:3]


def test_of_equal_errors_the_layer_stays_float_that_8_bits_save_least_of():
    found = chosen(EQUAL | {"a": 8.0, "b": 1.0, "c": 4.0}, 0.79)
    assert found.float_layers == ("b",)
    assert chosen(EQUAL | {"a": 8.0, "c": 1.0, "b": 4.0}, 0.79).float_layers == ("c",)


def test_the_best_is_taken_where_the_target_is_out_of_reach():
    found = chosen(EQUAL, 0.99, most=0.5)
    assert len(found.float_layers) == 2 and found.agreement == pytest.approx(0.89)
    assert chosen(EQUAL, 0.99, most=0.0).float_layers == ()


def test_one_layer_at_least_is_in_8_bits():
    assert len(chosen(EQUAL, 1.0).float_layers) == len(SPOILT) - 1


def test_8_bits_save_arithmetic_and_the_reading_of_weights():
    depthwise, pointwise, late = saving(9 * 32, 112**2), saving(32 * 64, 112**2), saving(32 * 64, 4)
    assert depthwise < pointwise and 0 < late < pointwise / 100
