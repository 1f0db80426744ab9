"""Covariate-adjusted AUROCs: what is left of a score when what baselines see is taken out."""

from __future__ import annotations

import numpy as np
import pytest

from oodbench.metrics.adjusted import FORMS, adjusted_aurocs, design_of
from oodbench.metrics.ranking import area_under_roc
from oodbench.report.results import read_results
from oodbench.report.section import Analysis
from oodbench.report.sections.complexity import section
from oodbench.runner import Options, run_suite
from oodbench.suite import Suite


def sides(n=400, shift=2.0, own=0.0, seed=0):
    """A covariate that differs between the classes, and a score that is a line of it, noise, and ``own`` for OOD images."""
    draw = np.random.default_rng(seed)
    covariates = {
        side: draw.normal(at, 1, (n, 1)) for side, at in (("ref", 0), ("in", 0), ("ood", shift))
    }
    scores = {
        side: 3 * value + draw.normal(0, 1, (n, 1)) + own * (side == "ood")
        for side, value in covariates.items()
    }
    return scores, covariates


def slow_linear(scores, covariates):
    """The same by least squares in closed form: slope = cov / var."""
    x, y = covariates["ref"][:, 0], scores["ref"][:, 0]
    slope = np.cov(x, y, ddof=0)[0, 1] / x.var()
    left = {side: scores[side][:, 0] - slope * covariates[side][:, 0] for side in ("in", "ood")}
    return area_under_roc(left["in"], left["ood"])


def test_linear_form_equals_least_squares_in_closed_form():
    scores, covariates = sides(own=0.7)
    (found,) = adjusted_aurocs(scores, covariates, "linear")
    assert found.value == pytest.approx(slow_linear(scores, covariates), abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_score_that_only_reads_the_covariate_keeps_nothing(form):
    scores, covariates = sides(n=2000)
    assert area_under_roc(scores["in"][:, 0], scores["ood"][:, 0]) > 0.9
    (found,) = adjusted_aurocs(scores, covariates, form)
    assert found.low < 0.5 < found.high


@pytest.mark.parametrize("form", FORMS)
def test_what_the_covariate_does_not_explain_is_kept(form):
    scores, covariates = sides(n=2000, shift=0.5, own=2.0)
    (found,) = adjusted_aurocs(scores, covariates, form)
    assert found.low > 0.8


def test_a_curved_score_needs_the_spline():
    draw = np.random.default_rng(1)
    covariates = {side: draw.uniform(-3, 3, (3000, 1)) for side in ("ref", "in")}
    covariates["ood"] = draw.uniform(1.5, 3, (3000, 1))
    scores = {
        side: value**2 + draw.normal(0, 0.3, value.shape) for side, value in covariates.items()
    }
    linear, spline = (adjusted_aurocs(scores, covariates, form)[0] for form in FORMS)
    assert linear.value > 0.7
    assert spline.value == pytest.approx(0.5, abs=0.08)


def test_subtracting_a_multiple_of_a_covariate_changes_nothing():
    """Input complexity is likelihood less a code length: with the code length taken out they are one score."""
    scores, covariates = sides(own=1.0)
    both = {side: np.hstack([own, own - 5 * covariates[side]]) for side, own in scores.items()}
    for form in FORMS:
        one, other = adjusted_aurocs(both, covariates, form)
        assert one == pytest.approx(other, abs=1e-9)


def test_a_constant_covariate_is_left_out():
    scores, covariates = sides()
    flat = {side: np.hstack([own, np.ones_like(own)]) for side, own in covariates.items()}
    for form in FORMS:
        assert adjusted_aurocs(scores, flat, form) == adjusted_aurocs(scores, covariates, form)
    assert design_of(np.ones((5, 1)), "spline")(np.zeros((3, 1))).tolist() == [[1.0]] * 3


def test_the_interval_covers():
    """Of the residuals' AUROC in the population, Φ(own/√2), in about 95 of 100 draws."""
    from scipy.stats import norm

    truth, hits = norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(60):
        (found,) = adjusted_aurocs(*sides(n=120, shift=0.5, own=1.0, seed=seed), "linear", seed)
        hits += found.low <= truth <= found.high
    assert hits >= 52


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A small run whose suite explains, and has a baseline with reference and one without."""
    folder = tmp_path_factory.mktemp("adjusted")
    suite = Suite(
        name="adjusted", title="Adjusted", models=["glow-fashionmnist"],
        pairs=[{"in_dist": "fashionmnist", "ood": ["mnist", "noise"]}],
        scorers=["likelihood", "typicality", "input-complexity-png", "waic", "code-length-png", "code-length-png-two-sided",
                 "pixel-mean"],
        limit=40, bootstrap=0, analysis={"images": 4, "samples": 0, "probes": 2, "gray": (0, 50)},
    )  # fmt: skip
    run_suite(suite, Options(), folder)
    return read_results(folder)


def test_a_run_judges_what_costs_no_further_pass(judged):
    """`waic` and the columns of `pixel-mean` are not measured on `ref`; noise is no real pair."""
    (row,) = [row for row in judged.explained if row["kind"] == "complexity"]
    assert row["scorers"] == ["likelihood", "typicality", "input-complexity-png"]
    assert row["covariates"] == ["code_length_png"]
    assert (row["n_fit"], row["n_regression"]) == (20, 20)
    assert row["images"].startswith("mnist/")
    for form in FORMS:
        likelihood, _, complexity = row[form]
        assert complexity == pytest.approx(
            likelihood, abs=0.01
        )  # residuals that tie up to rounding


def test_the_section_shows_it(judged):
    found = section(Analysis(judged))
    (_, lines), _ = found.tables
    assert {line[0] for line in lines} == {"likelihood", "typicality", "input-complexity-png"}
    assert "with the baselines taken out" in found.text[1]


def test_a_baseline_that_looks_at_ref_bars_only_scorers_that_do(judged):
    from oodbench.report.comparison import bar

    (row,) = judged.comparisons
    assert set(row["look_at_ref"]) == {"typicality", "code-length-png-two-sided"}
    assert bar(row, "likelihood") in ("code-length-png", "pixel-mean")
    aurocs = dict(zip(row["scorers"], row["auroc"], strict=True))
    assert bar(row, "typicality") == max(row["baselines"], key=aurocs.__getitem__)
