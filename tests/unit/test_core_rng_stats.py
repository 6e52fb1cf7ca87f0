"""Random streams, rank statistics and intervals against closed forms."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import kendalltau

from hwnas.core.rng import rng, stable_seed
from hwnas.core.stats import (
    MOST_PAIRED,
    Z80,
    Z90,
    accuracy_text,
    agrees,
    bootstrap_interval,
    conformal_quantile,
    kendall_tau,
    spearman,
    standard_error,
)
from tests.bundles import kit_module


def test_streams_are_equal_for_equal_names_and_differ_otherwise():
    first = rng(0, "train/arch", 3, 1).integers(1 << 60, size=4)
    assert (first == rng(0, "train/arch", 3, 1).integers(1 << 60, size=4)).all()
    others = [(1, "train/arch", 3, 1), (0, "train/arch", 1, 3), (0, "train/arch", "3", 1)]
    for other in others:
        assert (first != rng(*other).integers(1 << 60, size=4)).any()


def test_seeds_do_not_depend_on_the_process():
    code = "from hwnas.core.rng import stable_seed; print(stable_seed(7, 'a', 2))"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert answers == {str(stable_seed(7, "a", 2))}
    assert 0 <= stable_seed(7, "a", 2) < 2**63


def test_names_cannot_run_into_each_other():
    assert stable_seed(0, "ab", "c") != stable_seed(0, "a", "bc")


def tau_b(x: np.ndarray, y: np.ndarray) -> float:
    """Kendall 1945: concordant minus discordant over the geometric mean of untied pairs."""
    i, j = np.triu_indices(len(x), 1)
    dx, dy = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
    return float((dx * dy).sum() / np.sqrt((dx != 0).sum() * (dy != 0).sum()))


def test_kendall_tau_is_tau_b_with_ties():
    random = np.random.default_rng(0)
    x, y = random.integers(0, 6, 40).astype(float), random.integers(0, 6, 40).astype(float)
    assert kendall_tau(x, y) == pytest.approx(tau_b(x, y), abs=1e-12)
    assert kendall_tau(x, x) == pytest.approx(1)
    assert kendall_tau(x, -x) == pytest.approx(-1)


@pytest.mark.parametrize("n", [5, 40, MOST_PAIRED, MOST_PAIRED + 1])
@pytest.mark.parametrize("digits", [0, 15])
def test_kendall_tau_is_scipys_to_the_last_bit(n: int, digits: int):
    """Few values by comparing all pairs, many by scipy; without digits there are ties."""
    draw = rng(0, "tau", n).normal(size=(2, n)).cumsum(1).round(digits)
    assert kendall_tau(*draw) == kendalltau(*draw).statistic
    assert np.isnan(kendall_tau(np.array([1.0, np.nan, 2.0]), np.arange(3.0)))


def test_a_constant_side_has_no_order():
    x = np.arange(5.0)
    assert kendall_tau(x, np.ones(5)) == 0
    assert spearman(np.ones(5), x) == 0


def test_bootstrap_interval_of_a_mean_matches_theory():
    random = np.random.default_rng(1)
    x = random.normal(size=400)
    low, high = bootstrap_interval(
        lambda a, _: float(a.mean()), x, x, rng=rng(0, "test"), level=0.9, n_resamples=2000
    )
    half = 1.645 * x.std() / 20
    assert low == pytest.approx(x.mean() - half, abs=0.02)
    assert high == pytest.approx(x.mean() + half, abs=0.02)


def test_conformal_quantile_is_the_promised_order_statistic():
    residuals = -np.arange(1.0, 20.0)  # 19 of them: ceil(20 * 0.9) = 18th smallest
    assert conformal_quantile(residuals, 0.9) == 18.0
    assert conformal_quantile(np.array([1.0, 3.0]), 0.9) == 3.0


def test_conformal_quantile_covers_new_draws():
    random = np.random.default_rng(2)
    covered = []
    for _ in range(400):
        draws = random.standard_t(3, size=31)
        covered.append(abs(draws[-1]) <= conformal_quantile(draws[:-1], 0.9))
    assert 0.85 <= np.mean(covered) <= 0.97


def test_quantiles_of_the_normal_distribution():
    from scipy.stats import norm

    assert pytest.approx(norm.ppf(0.9), abs=5e-5) == Z80
    assert pytest.approx(norm.ppf(0.95), abs=5e-5) == Z90


def test_few_images_are_judged_as_what_they_say_of_a_rate():
    """Closed form: of 16 images at 98 %, P(two differ or more) = 4.0 %, P(three) = 0.37 %."""
    assert agrees(16, 16, 1.0) and not agrees(15, 16, 1.0)
    assert agrees(15, 16, 0.98) and agrees(14, 16, 0.98) and not agrees(13, 16, 0.98)
    assert not agrees(494, 512, 1.0) and not agrees(490, 512, 0.98)  # 95.7 %: p = 0.06 %


def test_full_agreement_needs_no_statistics() -> None:
    """Importing scipy.stats takes a second."""
    code = "import sys; from hwnas.core.stats import agrees; assert agrees(9, 9, 0.98)"
    code += "; assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_host_and_device_kit_judge_agreement_alike():
    kit = kit_module("bundle_checks").agrees
    for n in (1, 8, 16, 360):
        for least in (0.0, 0.9, 0.98, 0.995, 1.0):
            assert [agrees(k, n, least) for k in range(n + 1)] == [
                kit(k, n, least) for k in range(n + 1)
            ]


def test_accuracies_are_in_percent_with_one_standard_error() -> None:
    assert accuracy_text(0.9, 900) == "90.00% \u00b1 1.00%"
    assert accuracy_text(0.9, 0) == accuracy_text(0.9, None) == "90.00%"
    assert accuracy_text(None, 900) is None


def test_the_standard_error_of_a_share() -> None:
    assert standard_error(0.5, 100) == pytest.approx(0.05)
    assert standard_error(0.8689, 412) == pytest.approx(0.01663, rel=1e-3)
    for certain in (0.0, 1.0):
        assert standard_error(certain, 20) == pytest.approx(0.0349, rel=1e-2)
