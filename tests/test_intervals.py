"""Intervals: slow forms of both rules, what happens at their ends, and how often they hold the truth."""

from __future__ import annotations

import itertools
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, norm

from oodbench.metrics import METRICS, area_under_roc, auroc, detection_metrics, proportion
from oodbench.metrics.comparison import (
    delong_covariance,
    difference,
    oracle_dual_threshold,
    paired_difference,
)
from oodbench.metrics.detection import detection
from oodbench.metrics.intervals import NEAR, ranks_of_quantile, score_interval

ROOT = Path(__file__).parents[1]
Z = norm.ppf(0.975)


def in_order(n, pairs=0):
    """A perfect detector of n images a class, or one with some pairs of images out of order."""
    of_in, of_ood = np.arange(n, dtype=float), n + np.arange(n, dtype=float)
    of_in[-1] += pairs + 0.5 * (pairs > 0)
    return of_in, of_ood


# --- AUROC ---------------------------------------------------------------------------------------


def slow_variance(value, m, n):
    """Hanley and McNeil's, with Newcombe's mean size."""
    both, q1, q2 = (m + n) / 2 - 1, value / (2 - value), 2 * value**2 / (1 + value)
    spread = both * (q1 - value**2) + both * (q2 - value**2)
    return (value * (1 - value) + spread) / (m * n)


@pytest.mark.parametrize(("value", "m", "n"), [(0.9, 20, 20), (0.3, 7, 50), (0.99, 200, 20)])
def test_the_score_interval_solves_its_equation(value, m, n):
    ends = score_interval(value, m, n)

    def away(theta):
        return (value - theta) ** 2 - Z**2 * slow_variance(theta, m, n)

    expected = brentq(away, 1e-12, value), brentq(away, value, 1 - 1e-12)
    assert ends == pytest.approx(expected, abs=1e-9)
    mirrored = score_interval(1 - value, n, m)
    assert mirrored == pytest.approx((1 - ends[1], 1 - ends[0]), abs=1e-12)


@pytest.mark.parametrize("n", [2, 20, 500])
def test_a_perfect_detector_has_the_best_bound(n):
    bounds = [auroc(*in_order(n, pairs)).low for pairs in range(min(n, 40))]
    assert all(better > worse for better, worse in itertools.pairwise(bounds))
    assert auroc(*in_order(n)).high == 1
    low, high = auroc(*in_order(n)[::-1])[1:]
    assert (low, high) == pytest.approx((0.0, 1 - bounds[0]), abs=1e-12)


def test_a_constant_detector_has_an_interval():
    found = auroc(np.zeros(50), np.zeros(50))
    assert found.value == 0.5
    assert found.high - found.low == pytest.approx(2 * (0.5 - found.low))
    assert 0.38 < found.low < 0.4


def test_away_from_the_ends_the_interval_is_delong_s(random):
    scores = random.normal(size=400), random.normal(1, 1, 400)
    assert 400 * (1 - area_under_roc(*scores)) > NEAR
    placed = [[(o > i) for i in scores[0]] for o in scores[1]]
    rows = np.mean(placed, 1), np.mean(placed, 0)
    value, half = rows[0].mean(), Z * np.sqrt(sum(one.var(ddof=1) / 400 for one in rows))
    half /= value * (1 - value)
    centre = np.log(value / (1 - value))
    expected = [1 / (1 + np.exp(-(centre + sign * half))) for sign in (-1, 1)]
    assert auroc(*scores)[1:] == pytest.approx(expected, abs=1e-9)


# --- metrics that are read off curves ------------------------------------------------------------


def slow_average_precision(value, samples, area, smaller):
    low, high = np.quantile(samples, [0.025, 0.975])
    if smaller * min(area, 1 - area) < NEAR or low == high:
        ends = proportion(value * smaller, smaller)[1:]
    else:
        odds = (value / (1 - value)) ** 2
        ends = [odds / q * (1 - q) / (1 + odds / q * (1 - q)) for q in (high, low)]
    return min(low, ends[0]), max(high, ends[1])


def slow_rate(value, samples, positives, negatives, share):
    """Larger scores are positive."""
    n, falling = len(positives), np.sort(positives)[::-1]
    few, many = binom.ppf([0.025, 0.975], n, share).astype(int)
    least = (negatives >= falling[few - 1]).mean() if few else 0.0
    most = (negatives >= falling[many]).mean() if many < n else 1.0
    own = proportion(value * len(negatives), len(negatives))
    low = value - np.hypot(value - own.low, value - least)
    high = value + np.hypot(own.high - value, most - value)
    ends = np.quantile(samples, [0.025, 0.975])
    return min(max(low, 0), ends[0]), max(min(high, 1), ends[1])


@pytest.mark.parametrize("sizes", [(60, 90), (400, 300)])
@pytest.mark.parametrize("shift", [-1.0, 0.5, 4.0])
@pytest.mark.parametrize("decimals", [1, 9])
def test_curve_metrics_have_the_wider_of_two_rules(random, sizes, shift, decimals):
    of_in, of_ood = (
        (random.normal(size=n) + (shift if own else 0)).round(decimals)
        for own, n in enumerate(sizes)
    )
    found, samples = detection(of_in, of_ood, 60, 0)
    area, smaller = area_under_roc(of_in, of_ood), min(sizes)
    for side, positives, negatives in (("ood", of_ood, of_in), ("in", -of_in, -of_ood)):
        own = found[f"aupr_{side}"]
        ends = slow_average_precision(own.value, samples[f"aupr_{side}"], area, smaller)
        assert own[1:] == pytest.approx(ends, abs=1e-9)
        for name, share in (("fpr95", 0.95), ("fpr80", 0.8)):
            own = found[f"{name}_{side}"]
            drawn = samples[f"{name}_{side}"]
            ends = slow_rate(own.value, drawn, positives, negatives, share)
            assert own[1:] == pytest.approx(ends, abs=1e-9), name


@pytest.mark.parametrize("n", [2, 3, 20, 71, 72, 1000])
@pytest.mark.parametrize("share", [0.95, 0.8])
def test_ranks_of_a_quantile_are_binomial(n, share):
    few, many = binom.ppf([0.025, 0.975], n, share)
    assert ranks_of_quantile(n, share) == (few, many + 1)


@pytest.mark.parametrize("n", [20, 200])
@pytest.mark.parametrize("pairs", [0, 1, 5])
def test_every_interval_has_a_width_and_holds_its_value(n, pairs):
    for scores in (in_order(n, pairs), in_order(n, pairs)[::-1], (np.zeros(n), np.zeros(n))):
        for name, one in detection_metrics(*scores, 100).items():
            assert one.low <= one.value <= one.high, name
            assert one.high - one.low > 0.005, name


def test_of_few_images_no_bound_on_the_rate_at_a_far_quantile_is_told():
    """Of 20 images none need be among the lowest 5 %: then anything may be flagged there."""
    assert detection_metrics(*in_order(20), 50)["fpr95_ood"].high == 1
    assert detection_metrics(*in_order(200), 50)["fpr95_ood"].high < 0.03


# --- coverage ------------------------------------------------------------------------------------


def coverage_script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import coverage_of_intervals
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return coverage_of_intervals


@pytest.mark.parametrize(("area", "n"), [(0.9, 20), (0.99, 200), (0.999, 200)])
def test_intervals_hold_the_truth(area, n):
    script = coverage_script()
    found = script.coverage(area, n, trials=120, replicates=120)
    for name in METRICS:
        assert found[name].held >= 0.9, name
        assert found[name].width < 1 or n == 20


def test_the_truth_of_the_simulation_is_that_of_many_images():
    script = coverage_script()
    random = np.random.default_rng(0)
    scores = script.drawn(0.9, 60_000, random)
    found = detection_metrics(*scores, 0)
    for name, value in script.truth(0.9).items():
        assert found[name].value == pytest.approx(value, abs=0.01), name


@pytest.mark.slow
def test_the_table_of_coverage_is_what_the_script_finds():
    script = coverage_script()
    written = (ROOT / "docs" / "statistics.md").read_text("utf-8")
    for area in script.AREAS:
        for n in script.SIZES:
            found = script.coverage(area, n)
            assert script.line(area, n, found) in written, (area, n)
            for name, one in found.items():
                assert one.held >= script.LEAST, (area, n, name)


# --- paired --------------------------------------------------------------------------------------


def paired_test(*scores, sizes=True):
    areas = np.array([area_under_roc(*one) for one in scores])
    counts = tuple(map(len, scores[0])) if sizes else None
    return difference(areas, delong_covariance(list(scores)), 0, 1, counts)


def test_two_images_a_class_prove_nothing():
    found = paired_test(in_order(2), in_order(2)[::-1])
    assert found.estimate.value == 1
    assert found.p > 0.3  # 2·Φ(−1): four images that all agree
    assert found.estimate.low < 0
    assert np.isnan(paired_test(in_order(2), in_order(2)[::-1], sizes=False).p)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_without_a_variance_there_is_no_p_value():
    found = paired_test(in_order(1), in_order(1)[::-1])
    assert np.isnan([found.p, found.estimate.low, found.estimate.high]).all()
    assert np.isnan(difference(np.array([np.nan, 0.5]), np.eye(2), 0, 1).p)


def test_rounded_covariances_do_not_prove_a_difference(random):
    one = random.normal(size=2000), random.normal(1, 1, 2000)
    other = one[0], one[1].copy()
    other[1][np.argsort(other[1])[1000]] += 0.02
    areas = np.array([area_under_roc(*scores) for scores in (one, other)])
    exact = delong_covariance([one, other])
    rounded = np.array([[float(f"{value:.6g}") for value in row] for row in exact])
    assert areas[0] != areas[1]
    assert difference(areas, exact, 0, 1, (2000, 2000)).p > 0.2
    assert difference(areas, rounded, 0, 1, (2000, 2000)).p > 0.2


def test_the_score_test_is_delong_s_for_many_images(random):
    shared = [random.normal(size=1000), random.normal(1, 1, 1000)]
    two = [tuple(one + random.normal(0, spread, 1000) for one in shared) for spread in (0.3, 0.8)]
    with_sizes, without = paired_test(*two), paired_test(*two, sizes=False)
    assert 0 < without.p < 1e-6
    assert without.p < with_sizes.p < 10 * without.p  # an error 3 % larger, six errors away


def test_a_paired_interval_holds_its_value():
    assert paired_difference([0.5, 0.2], [[0, 0.31], [-0.4, 0]], 0, 1) == pytest.approx(
        (0.3, 0.3, 0.4)
    )


# --- the oracle ----------------------------------------------------------------------------------


def test_the_oracle_needs_memory_for_the_images_alone(random):
    peaks, seconds = [], []
    for n in (100, 400):
        one, other = [(random.normal(size=n), random.normal(size=n)) for _ in range(2)]
        tracemalloc.start()
        began = time.process_time()
        oracle_dual_threshold(one, other)
        seconds.append(time.process_time() - began)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 8 * peaks[0]  # n² would be 16 times, n³ 64
    assert peaks[1] < 400 * 8 * 60
    assert seconds[1] < 2


def test_the_oracle_is_the_best_of_all_pairs_of_thresholds(random):
    one, other = [(random.integers(0, 6, 9), random.integers(2, 9, 7)) for _ in range(2)]
    best = {0.0: 0.0, 1.0: 1.0}
    for first in (*np.concatenate(one), np.inf):
        for second in (*np.concatenate(other), np.inf):
            rates = [((a > first) | (b > second)).mean() for a, b in zip(one, other)]
            best[rates[0]] = max(best.get(rates[0], 0.0), rates[1])
    rates = sorted(best)
    heights = np.maximum.accumulate([best[rate] for rate in rates])
    area = np.diff(rates) @ (heights[1:] + heights[:-1]) / 2
    assert oracle_dual_threshold(one, other) == pytest.approx(area, abs=1e-12)
