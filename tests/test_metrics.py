"""Metrics are doubted: slow references, exact known values, invariances, and coverage of intervals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import binom, norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from oodbench.errors import ScorerError
from oodbench.metrics import (
    METRICS,
    area_under_roc,
    aupr,
    auroc,
    bootstrap,
    detection_metrics,
    fpr_at_tpr,
)
from oodbench.metrics.bootstrap import multiplicities
from oodbench.metrics.detection import detection
from oodbench.metrics.intervals import delong_variance
from oodbench.metrics.rooms import room


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


def drawn(n, replicates, seed, which):
    """The bootstrap's draws as its law says: indices of images, ``(replicates, N)``."""
    stream = np.random.RandomState([seed, which])
    kind = np.uint8 if n <= 256 else np.uint16
    return np.stack([stream.randint(0, n, n, kind) for _ in range(replicates)])


def plain(scores_in, scores_ood):
    """AUPR and FPR by sorting and counting at every threshold."""

    def curve(positive, other):
        values = np.unique(np.r_[positive, other])[::-1]
        caught, flagged = ((one[None] >= values[:, None]).sum(1) for one in (positive, other))
        gained = np.diff(caught, prepend=0)
        found = {"aupr": (gained * caught / (caught + flagged)).sum() / len(positive)}
        for tpr in (95, 80):
            first = np.flatnonzero(caught >= tpr / 100 * len(positive) - 1e-9)[0]
            found[f"fpr{tpr}"] = flagged[first] / len(other)
        return found

    sides = {"ood": curve(scores_ood, scores_in), "in": curve(-scores_in, -scores_ood)}
    return {f"{name}_{side}": x for side, own in sides.items() for name, x in own.items()}


@pytest.mark.parametrize("sizes", [(40, 70), (300, 90), (5, 2)], ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_bootstrap_equals_resampling_and_sorting_again(random, sizes, tied):
    scores = tied_scores(random, *sizes)
    if not tied:
        scores = tuple(one + random.normal(size=len(one)) for one in scores)
    found = detection(*scores, 40, 5)
    draws = [drawn(len(one), 40, 5, which) for which, one in enumerate(scores)]
    for number, (of_in, of_ood) in enumerate(zip(*draws, strict=True)):
        for name, value in plain(scores[0][of_in], scores[1][of_ood]).items():
            assert found.resampled[name][number] == pytest.approx(value, abs=1e-12), name
    for name, value in plain(*scores).items():
        ends = np.quantile(found.resampled[name], [0.025, 0.975])
        own = found.estimates[name]
        assert own.value == pytest.approx(value, abs=1e-12)
        assert (
            own.low <= ends[0] + 1e-12
        )  # the wider of two rules: tests/test_intervals.py has them
        assert own.high >= ends[1] - 1e-12


@pytest.mark.parametrize("decimals", [1, 12], ids=["tied", "distinct"])
def test_each_replicate_is_scikit_learn_s_on_the_resampled_scores(random, decimals):
    scores_in = random.normal(size=400).round(decimals)
    scores_ood = random.normal(0.7, 1, 300).round(decimals)
    found = detection(scores_in, scores_ood, 25, 9).resampled
    ((of_in, of_ood),) = multiplicities(400, 300, 25, 9)
    labels, scores = np.repeat([0, 1], [400, 300]), np.r_[scores_in, scores_ood]
    for number, weights in enumerate(np.hstack([of_in, of_ood])):
        for side, truth, sign in (("ood", labels, 1), ("in", 1 - labels, -1)):
            aupr_here = average_precision_score(truth, sign * scores, sample_weight=weights)
            assert found[f"aupr_{side}"][number] == pytest.approx(aupr_here, abs=1e-12)
            repeated = np.repeat(truth, weights), np.repeat(sign * scores, weights)
            flagged, caught, _ = roc_curve(*repeated, drop_intermediate=False)
            for tpr in (0.8, 0.95):
                expected = flagged[np.argmax(caught >= tpr - 1e-9)]
                value = found[f"fpr{tpr * 100:.0f}_{side}"][number]
                assert value == pytest.approx(expected, abs=1e-12)


def test_multiplicities_have_the_law_of_drawing_with_replacement():
    ((of_in, of_ood),) = multiplicities(50, 300, 100, 3)  # two kinds of whole numbers
    for which, times in enumerate((of_in, of_ood)):
        n = times.shape[1]
        assert (times.sum(1) == n).all()
        counted = [np.bincount(one, minlength=n) for one in drawn(n, 100, 3, which)]
        assert (times == counted).all()
        values, cells = np.arange(5), times.size
        expected = binom.pmf(values, n, 1 / n)
        error = np.sqrt(expected / cells)
        assert (abs([(times == k).mean() for k in values] - expected) < 4 * error).all()
        assert abs(np.corrcoef(times.T)[0, 1:]).max() < 0.5


def test_what_is_not_kept_is_drawn_alike(random, monkeypatch):
    scores = tied_scores(random)
    kept = detection(*scores, 30, 2)
    monkeypatch.setattr(bootstrap, "KEPT", 0)
    monkeypatch.setattr(bootstrap, "CELLS", 300)  # four replicates at a time
    again = detection(*scores, 30, 2)
    assert again.estimates == kept.estimates
    assert all((again.resampled[name] == one).all() for name, one in kept.resampled.items())


def test_rooms_are_used_again_and_results_are_not(random):
    scores = random.normal(size=90), random.normal(1, 1, 60)
    one = detection(*scores, 20, 0)
    before = {name: values.copy() for name, values in one.resampled.items()}
    detection(*(10 * other for other in scores[::-1]), 20, 0)
    assert all((one.resampled[name] == values).all() for name, values in before.items())
    first = room("of this test", (3, 4), np.int32)
    assert np.shares_memory(first, room("of this test", (2, 5), np.int32))
    assert room("of this test", (2, 5), np.float64).dtype == np.float64
    with ThreadPoolExecutor(1) as threads:
        other = threads.submit(room, "of this test", (2, 5), np.float64).result()
    assert not np.shares_memory(other, room("of this test", (2, 5), np.float64))


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
