"""Metrics are doubted: slow references, exact known values, invariances, and coverage of intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from oodbench.errors import ScorerError
from oodbench.metrics import METRICS, area_under_roc, aupr, auroc, detection_metrics, fpr_at_tpr
from oodbench.metrics.intervals import delong_variance


def all_pairs(scores_in, scores_ood):
    return np.mean([(o > i) + 0.5 * (o == i) for i in scores_in for o in scores_ood])


def tied_scores(random, n=40, m=70):
    """Near −7,000 with many ties, where a hidden sigmoid would answer one half."""
    return -7000 + random.integers(0, 12, n), -7000 + random.integers(4, 16, m)


def test_auroc_is_all_pairs_counting(random):
    for _ in range(20):
        scores = tied_scores(random)
        assert area_under_roc(*scores) == pytest.approx(all_pairs(*scores), abs=1e-12)


def test_auroc_ignores_monotone_maps_and_order(random):
    scores_in, scores_ood = -7000 + random.normal(size=200), -7000 + random.normal(0.5, 1, 300)
    value = area_under_roc(scores_in, scores_ood)
    for change in (
        lambda s: 3 * s + 1e4,
        lambda s: np.exp((s + 7000) / 3),
        lambda s: (s + 7000) ** 3,
    ):
        assert area_under_roc(change(scores_in), change(scores_ood)) == value
    assert area_under_roc(scores_in[::-1], random.permutation(scores_ood)) == value


def test_scikit_learn_agrees(random):
    for _ in range(10):
        scores_in, scores_ood = tied_scores(random)
        labels, scores = (
            np.r_[np.zeros(len(scores_in)), np.ones(len(scores_ood))],
            np.r_[scores_in, scores_ood],
        )
        assert area_under_roc(scores_in, scores_ood) == pytest.approx(
            roc_auc_score(labels, scores), abs=1e-12
        )
        assert aupr(scores_in, scores_ood) == pytest.approx(
            average_precision_score(labels, scores), abs=1e-12
        )
        assert aupr(scores_in, scores_ood, "in") == pytest.approx(
            average_precision_score(1 - labels, -scores), abs=1e-12
        )
        for tpr in (0.8, 0.95):
            flagged, caught, _ = roc_curve(labels, scores, drop_intermediate=False)
            assert fpr_at_tpr(scores_in, scores_ood, tpr) == pytest.approx(
                flagged[np.argmax(caught >= tpr)]
            )
            flagged, caught, _ = roc_curve(1 - labels, -scores, drop_intermediate=False)
            assert fpr_at_tpr(scores_in, scores_ood, tpr, "in") == pytest.approx(
                flagged[np.argmax(caught >= tpr)]
            )


def test_perfect_inverted_and_constant_detectors():
    zeros, ones = np.zeros(100), np.ones(300)
    perfect = {name: value.value for name, value in detection_metrics(zeros, ones, 0).items()}
    assert perfect == {name: 0.0 if name.startswith("fpr") else 1.0 for name in METRICS}
    inverted = {
        name: value.value for name, value in detection_metrics(ones[:100], np.zeros(300), 0).items()
    }
    assert inverted["auroc"] == 0
    assert all(inverted[name] == 1 for name in METRICS if name.startswith("fpr"))
    constant = {
        name: value.value for name, value in detection_metrics(zeros, np.zeros(300), 0).items()
    }
    assert constant["auroc"] == 0.5
    assert constant["aupr_ood"] == 0.75  # the base rates
    assert constant["aupr_in"] == 0.25


def test_aupr_of_an_inverted_ranking_has_the_known_floor():
    n_in, n_ood = 10_000, 26_032
    inverted = np.arange(n_in) + 1e6, np.arange(n_ood)
    assert aupr(*inverted) == pytest.approx(0.508, abs=1e-3)
    assert aupr(*inverted, "in") == pytest.approx(0.154, abs=1e-3)


def test_unbalanced_hand_values_keep_the_positive_classes_apart():
    scores_in, scores_ood = np.array([0.0, 2.0]), np.array([1.0, 3.0, 4.0])
    assert aupr(scores_in, scores_ood) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert aupr(scores_in, scores_ood, "in") == pytest.approx((1 + 2 / 3) / 2)
    assert fpr_at_tpr(scores_in, scores_ood, 0.95) == 0.5
    assert fpr_at_tpr(scores_in, scores_ood, 0.95, "in") == pytest.approx(1 / 3)


def test_delong_variance_equals_its_definition(random):
    scores_in, scores_ood = tied_scores(random, 15, 25)
    wins = np.array([[(o > i) + 0.5 * (o == i) for i in scores_in] for o in scores_ood])
    slow = wins.mean(1).var(ddof=1) / len(scores_ood) + wins.mean(0).var(ddof=1) / len(scores_in)
    assert delong_variance(scores_in, scores_ood) == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize(
    ("scores_in", "scores_ood", "value"), [([0, 1, 2], [3, 4, 5], 1.0), ([3, 4, 5], [0, 1, 2], 0.0)]
)
def test_interval_has_width_at_zero_and_one(scores_in, scores_ood, value):
    estimate = auroc(np.array(scores_in), np.array(scores_ood))
    assert estimate.value == value
    assert estimate.high - estimate.low > 0.3


def test_interval_covers_near_one(random):
    """Nominal 95 %; the plain DeLong interval covers about 0.89 here."""
    shift = np.sqrt(2) * norm.ppf(0.99)
    covered = 0
    for _ in range(300):
        estimate = auroc(random.normal(size=100), random.normal(shift, 1, 100))
        covered += estimate.low <= 0.99 <= estimate.high
    assert 0.91 <= covered / 300 <= 0.99


def test_bootstrap_is_seeded_and_holds_the_value(random):
    scores = random.normal(size=150), random.normal(1, 1, 250)
    one, again, other = (detection_metrics(*scores, 200, seed) for seed in (1, 1, 2))
    assert one == again != other
    for name in METRICS:
        assert one[name].low <= one[name].value <= one[name].high


def test_bootstrap_equals_resampling_and_sorting_again(random):
    scores_in, scores_ood = tied_scores(random)
    stream = np.random.RandomState(5)
    samples = []
    for _ in range(20):
        drawn_in = scores_in[stream.randint(0, len(scores_in), len(scores_in))]
        drawn_ood = scores_ood[stream.randint(0, len(scores_ood), len(scores_ood))]
        samples.append(aupr(drawn_in, drawn_ood))
    found = detection_metrics(scores_in, scores_ood, 20, 5)["aupr_ood"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])))


def test_one_image_a_class_has_no_interval():
    found = detection_metrics(np.array([0.0]), np.array([1.0, 2.0]))
    assert all(np.isnan(estimate.low) for estimate in found.values())


def test_bad_scores_are_named():
    good = np.arange(3.0)
    with pytest.raises(ScorerError, match="no OOD scores: with one class only"):
        auroc(good, np.array([]))
    with pytest.raises(ScorerError, match="1 of 2 in-dist scores are NaN"):
        auroc(np.array([0.0, np.nan]), good)
    with pytest.raises(ScorerError, match="vector with one number an image"):
        auroc(np.zeros((2, 2)), good)
    assert auroc(good, np.array([np.inf, 5.0])).value == 1.0
