"""Paired comparisons of scorers on the same images, ranks over pairs, and what a scorer correlates with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr

from oodbench.cli import main
from oodbench.errors import ScorerError
from oodbench.metrics import auroc, proportion
from oodbench.metrics.bootstrap import multiplicities
from oodbench.metrics.comparison import (
    average_ranks,
    critical_difference,
    delong_covariance,
    difference,
    holm,
    oracle_dual_threshold,
    paired_difference,
    paired_lows,
    rank_correlation,
)
from oodbench.metrics.detection import OF_CURVES, detection
from oodbench.metrics.intervals import delong_variance
from oodbench.metrics.ranking import area_under_roc
from oodbench.report.comparison import common, compare
from oodbench.report.comparison_page import comparison_page
from oodbench.report.matrix import matrix_page
from oodbench.report.results import Results
from oodbench.store import write_rows


@pytest.fixture
def scores(random):
    """Three scorers of 60 in-dist and 80 OOD images; the second is the first with noise, the third is
    independent."""
    base_in, base_ood = random.normal(0, 1, 60), random.normal(2, 1, 80)
    return [
        (base_in, base_ood),
        (base_in + random.normal(0, 0.5, 60), base_ood + random.normal(0, 0.5, 80)),
        (random.normal(0, 1, 60).round(1), random.normal(0.3, 1, 80).round(1)),
    ]


def slow_covariance(scores):
    """DeLong's covariance by counting all pairs of images."""

    def kernel(s):
        return (s[1][:, None] > s[0]) + 0.5 * (s[1][:, None] == s[0])

    tables = [kernel(s) for s in scores]
    k = len(tables)
    return np.array(
        [
            [
                np.cov(tables[a].mean(1), tables[b].mean(1))[0, 1] / tables[a].shape[0]
                + np.cov(tables[a].mean(0), tables[b].mean(0))[0, 1] / tables[a].shape[1]
                for b in range(k)
            ]
            for a in range(k)
        ]
    )


def test_the_covariance_is_that_of_counting_pairs(scores):
    found = delong_covariance(scores)
    assert found == pytest.approx(slow_covariance(scores), rel=1e-10)
    assert found.diagonal() == pytest.approx([delong_variance(*one) for one in scores])
    assert delong_covariance(scores[:1]).shape == (1, 1)


def test_the_paired_test_sees_what_unpaired_intervals_do_not(scores):
    aurocs = np.array([area_under_roc(*one) for one in scores])
    covariance = delong_covariance(scores)
    paired = difference(aurocs, covariance, 0, 1)
    unpaired = np.sqrt(covariance[0, 0] + covariance[1, 1])
    assert (paired.estimate.high - paired.estimate.low) / (2 * 1.96) < unpaired
    same = difference(np.array([0.7, 0.7]), np.ones((2, 2)), 0, 1)
    assert same.p == 1.0
    assert same.estimate.value == 0.0
    back = difference(aurocs, covariance, 1, 0)
    assert back.p == paired.p
    assert back.estimate.value == -paired.estimate.value


def test_the_paired_test_holds_its_size():
    """Two scorers of equal merit are told apart in 5 % of repetitions."""
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        shared = random.normal(0, 1, 100), random.normal(1, 1, 100)
        two = [tuple(one + random.normal(0, 0.7, 100) for one in shared) for _ in range(2)]
        aurocs = np.array([area_under_roc(*one) for one in two])
        hits += difference(aurocs, delong_covariance(two), 0, 1).p < 0.05
    assert 0.02 < hits / 400 < 0.08


def test_paired_intervals_are_of_differences_on_the_same_resampled_images(scores):
    weights = list(multiplicities(60, 80, 200, 0))
    found = [detection(*one, 200, 0) for one in scores]
    for metric in OF_CURVES:
        drawn = [one.resampled[metric] for one in found]
        lows, values = paired_lows(drawn), [one.estimates[metric].value for one in found]
        assert lows.diagonal() == pytest.approx(0)
        for one, other in ((0, 1), (1, 0), (2, 0)):
            gap = paired_difference(values, lows, one, other)
            ends = np.quantile(drawn[one] - drawn[other], [0.025, 0.975])
            assert gap == pytest.approx((values[one] - values[other], *ends), abs=1e-12)
    # the same images: scores that differ by noise alone differ less than their own intervals are wide
    gap = paired_difference(values, lows, 0, 1)
    own = found[0].estimates[metric], found[1].estimates[metric]
    assert gap.high - gap.low < np.hypot(*(one.high - one.low for one in own))
    repeated = [np.repeat(one, times) for one, times in zip(scores[1], (w[7] for w in weights[0]))]
    assert detection(*repeated, 0, 0).estimates["aupr_ood"].value == pytest.approx(
        found[1].resampled["aupr_ood"][7]
    )


def test_paired_intervals_hold_their_size():
    """Two scorers of equal merit: zero lies outside the 95 % interval of the AUPR's difference in about 5 %."""
    random = np.random.default_rng(1)
    missed = 0
    for _ in range(150):
        shared = random.normal(0, 1, 100), random.normal(1, 1, 100)
        two = [[one + random.normal(0, 0.7, 100) for one in shared] for _ in range(2)]
        lows = paired_lows([detection(*one, 100, 0).resampled["aupr_ood"] for one in two])
        missed += not lows[0][1] <= 0 <= -lows[1][0]
    assert 0.01 < missed / 150 < 0.1


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_ranks_and_their_critical_difference():
    table = np.array([[0.9, 0.5, 0.5], [0.8, 0.7, 0.1]])
    assert average_ranks(table) == pytest.approx([1, 2.25, 2.75])
    # Demšar 2006, §3.2.2: four classifiers on fourteen sets, q = 2.569
    assert critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), rel=1e-3)


def test_rank_correlation_is_spearman_s(scores):
    expected = spearmanr(np.concatenate(scores[0]), np.concatenate(scores[2])).statistic
    assert rank_correlation(scores[0], scores[2]) == pytest.approx(expected)
    assert rank_correlation(
        scores[0], (np.exp(scores[0][0]), np.exp(scores[0][1]))
    ) == pytest.approx(1)
    assert np.isnan(rank_correlation(scores[0], (np.zeros(60), np.zeros(80))))


def test_the_oracle_is_the_envelope_of_all_pairs_of_thresholds(random):
    one, other = [
        (random.normal(0, 1, 12).round(1), random.normal(0.5, 1, 9).round(1)) for _ in range(2)
    ]
    points = {(0.0, 0.0), (1.0, 1.0)}
    cuts = [[-np.inf, *np.concatenate(scores)] for scores in (one, other)]
    for a in cuts[0]:
        for b in cuts[1]:
            points.add(tuple(float(((x > a) | (y > b)).mean()) for x, y in zip(one, other)))
    area, best, last = 0.0, 0.0, 0.0
    for rate in sorted({rate for rate, _ in points}):
        most = max(best, *(caught for own, caught in points if own == rate), 0.0)
        area, best, last = area + (rate - last) * (best + most) / 2, most, rate
    found = oracle_dual_threshold(one, other)
    assert found == pytest.approx(area, abs=1e-12)
    assert found >= max(area_under_roc(*one), area_under_roc(*other)) - 1e-12


def test_wilson_s_interval():
    found = proportion(5, 10)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.2366, 0.7634), abs=1e-4)
    assert proportion(0, 10).low == 0
    assert proportion(10, 10).high == 1


def paired(scores):
    found = [detection(*one, 50, 0) for one in scores]
    return {
        metric: {
            "value": [one.estimates[metric].value for one in found],
            "low": paired_lows([one.resampled[metric] for one in found]).tolist(),
        }
        for metric in OF_CURVES
    }


def comparison(scores, model="m", ood="b/test", names=("x", "y", "base")):
    return {
        "schema": 3,
        "seed": 0,
        "key": f"{model} {ood}",
        "model": model,
        "in_dist": "a/test",
        "ood": ood,
        "scorers": list(names),
        "baselines": ["base"],
        "auroc": [area_under_roc(*one) for one in scores],
        "covariance": delong_covariance(scores).tolist(),
        "paired": paired(scores),
        "oracle_dual_threshold": None,
        "correlation": {
            "base": [rank_correlation(one, scores[names.index("base")]) for one in scores]
        },
    }


def test_the_page_of_comparisons(scores):
    rows = [comparison(scores), comparison(scores[::-1], ood="c/test", names=("base", "y", "x"))]
    page = comparison_page(Results(Path(), [], comparisons=rows), "figures/ranks.png")
    assert f"{auroc(*scores[2]).value:.3f} (base)" in page
    assert "yes (" in page
    assert "critical difference" in page
    names, aurocs = common(rows)
    assert (names, aurocs.shape) == (["x", "y", "base"], (2, 3))
    heads, lines = compare(rows, "x", "y")
    assert heads[2:4] == ["x", "y"]
    assert len(lines) == 2
    assert lines[0][4:] == lines[1][4:]  # the same test twice, corrected alike
    assert heads[7:] == ["AUPR, difference", "FPR@95, difference"]
    own = rows[0]["paired"]["aupr_ood"]
    gap = own["value"][0] - own["value"][1]
    assert lines[0][7] == f"{gap:+.3f} [{own['low'][0][1]:+.3f}, {-own['low'][1][0]:+.3f}]"
    best = compare(rows[:1], "x", "base")[1][0]
    (shown, *_) = (line for line in page.splitlines() if best[7] in line)
    assert [cell.strip() for cell in shown.split("|")[1:-1]] == [
        "m", "a → b", "x", "base", best[4], *best[7:],
    ]  # fmt: skip


def test_a_bar_below_chance_is_shown_with_both_signs(scores):
    low = comparison(scores) | {"auroc": [0.9, 0.8, 0.02]}
    page = comparison_page(Results(Path(), [], comparisons=[low]), None)
    assert "| 0.020 (base); turned round 0.980 (base) |" in page
    fair = comparison_page(
        Results(Path(), [], comparisons=[low | {"auroc": [0.9, 0.8, 0.6]}]), None
    )
    assert "| 0.600 (base) |" in " ".join(fair.split())
    assert "; turned round" not in fair


def test_rows_without_a_bootstrap_have_no_paired_intervals(scores):
    rows = [comparison(scores) | {"paired": None}]
    assert compare(rows, "x", "y")[1][0][7:] == ["–", "–"]
    assert "FPR@95, paired" not in comparison_page(Results(Path(), [], comparisons=rows), None)


def test_compare_names_what_is_missing(scores, tmp_path):
    with pytest.raises(
        ScorerError, match="no result of the scorer 'bse' is stored here; did you mean 'base'"
    ):
        compare([comparison(scores)], "x", "bse")
    apart = [
        comparison(scores[:1] + scores[2:], names=("x", "base")),
        comparison(scores[1:], names=("y", "base")),
    ]
    with pytest.raises(ScorerError, match="no common model"):
        compare(apart, "x", "y")
    write_rows(tmp_path / "comparisons.jsonl", [comparison(scores)])
    done = CliRunner().invoke(main, ["compare", "x", "y", "--results", str(tmp_path)])
    assert done.exit_code == 0
    assert "a/test → b/test" in done.output
    empty = CliRunner().invoke(main, ["compare", "x", "y", "--results", str(tmp_path / "none")])
    assert "holds no comparisons; run a suite first" in empty.output
    assert empty.exit_code == 1


def test_the_matrix_shows_both_directions():
    def row(model, in_dist, ood, auroc, **changes):
        return {
            "model": model,
            "in_dist": in_dist,
            "in_dist_name": in_dist.split("/")[0],
            "ood": ood,
            "auroc": auroc,
            "scorer": "likelihood",
            "group_size": 1,
            "status": "ok",
            "synthetic": False,
            "baseline": False,
            "tunes_on": "none",
            "seed": 0,
            "schema": 3,
        } | changes

    page = matrix_page(
        Results(
            Path(),
            [
                row("g", "cifar10/test", "svhn/test[:9]", 0.06),
                row("s", "svhn10k/test", "cifar10/test", 0.99),
                row("g", "cifar10/test", "noise/test", 0.9, synthetic=True),
                row("g", "cifar10/test", "svhn/test", 1, group_size=2),
            ],
        )
    )
    assert "| .060 ▼" in page
    assert "noise" not in page
    assert "cifar10 → svhn 0.060, svhn → cifar10 0.990: lowest 0.060" in page


def test_ranks_are_joined_by_the_widest_spans_alone():
    from oodbench.report.comparison import undistinguished

    assert undistinguished([1.0, 1.0, 1.5, 2.5, 4.0], gap=2.0) == [(1.0, 2.5), (2.5, 4.0)]
    assert undistinguished([1.0, 5.0], gap=2.0) == []
