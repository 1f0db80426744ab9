"""Scorers against their formulas, and the contract of every registered one."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import logsumexp
from scipy.stats import gaussian_kde, ks_2samp, kstest, skew
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.svm import OneClassSVM

import oodbench as ob
from oodbench.errors import OodbenchError, ScorerError, UnknownNameError
from oodbench.registry import register_scorer, scorers
from oodbench.testing import check_scorer
from oodbench.trials.fits import FittedScorer
from oodbench.trials.groups import disjoint_groups, group_scores
from oodbench.trials.ref_division import divided, part
from oodbench.trials.rows import held_out_scores, rejection_threshold
from oodbench.types import Scorer


@pytest.fixture
def columns(random):
    return {
        "log_prob": random.normal(-3000, 300, 50),
        "background_log_prob": random.normal(-3500, 300, 50),
        "ensemble_log_prob": random.normal(-3000, 300, (50, 5)),
        "backgrounds_log_prob": random.normal(-3500, 300, (50, 3)),
        "code_length_png": random.normal(3000, 200, 50),
        "code_length_jp2": random.normal(2500, 200, 50),
        "pixel_mean": random.uniform(size=50),
        "pixel_variance": random.uniform(size=50),
        "general_log_prob": random.normal(-3500, 300, 50),
        "last_scale_log_prob": random.normal(500, 30, 50),
        "code_length_webp": random.normal(2600, 200, 50),
        "code_length_jxl": random.normal(2400, 200, 50),
        "dimensions": np.full(50, 784.0),
        "latent_term": random.normal(-700, 30, 50),
        "prior_volume": random.normal(900, 40, 50),
        "log_det": random.normal(-2300, 300, 50),
        "reconstruction": random.normal(-3000, 300, 50),
        "kl": random.normal(40, 5, 50),
        "posterior_entropy": random.normal(-20, 5, 50),
        "prior_cross_entropy": random.normal(20, 5, 50),
        "input_gradient_norm": random.uniform(10, 20, 50),
        "layer_gradient_norms": random.normal(3, 1, (50, 6)),
        "rao_score": random.uniform(1, 9, 50),
        "log_singular_values": random.normal(-3, 1, (50, 12)),
        "likelihood_regret": random.uniform(1, 50, 50),
        "log_prob_above_1": random.normal(-3300, 300, 50),
        "log_prob_above_2": random.normal(-3600, 300, 50),
        "score_norms": random.normal(20, 2, (50, 10)),
        "score_norms_by_width": random.normal(20, 2, (50, 10)),
        "elbo": random.normal(-3000, 300, 50),
        "elbo_above_1": random.normal(-3300, 300, 50),
        "elbo_above_2": random.normal(-3600, 300, 50),
        "reconstruction_errors": random.uniform(0, 1, (50, 4)),
        "path_moments": random.normal(100, 10, (50, 6)),
        "path_error": random.normal(12, 2, 50),
        "path_mean_norm": random.normal(7, 1, 50),
        "path_std_norm": random.normal(3, 0.2, 50),
        "projections": random.normal(size=(50, 50)),
        "pixel_projections": random.normal(size=(50, 50)),
        "equivariance_gaps": random.normal(0.2, 0.02, (50, 4)) * [1, 1.5, 2, 3] + [0, 0.5, 2, 0],
        "score_trace_ratios": random.normal(1, 0.1, (50, 2)),
        "matching_losses": random.uniform(0.2, 0.6, (50, 32)),
        "denoising_errors": random.uniform(0, 1, (50, 3)),
        "perceptual_errors": random.uniform(0, 1, (50, 4)),
        "total_variation": random.uniform(20, 60, 50),
        "nearest_pixel_distance": random.uniform(2, 9, 50),
        "pca_residual": random.uniform(1, 9, 50),
        "linear_whiteness": random.uniform(0, 5, 50),
        "linear_whiteness_rows": random.uniform(0, 5, 50),
        "linear_mahalanobis": random.normal(784, 100, 50),
        "ks": random.uniform(0.01, 0.05, 50),
        "chi2": random.chisquare(19, 50),
        "anderson_darling": random.uniform(0.2, 1, 50),
        "kurtosis": random.normal(0, 0.1, 50),
        "spectrum_cv": random.normal(1, 0.03, 50),
        "box_pierce": random.normal(1, 0.1, 50),
        "whiteness_2d": random.uniform(0.5, 3, 50),
        "whiteness_rows": random.uniform(0.5, 3, 50),
    }


def of_flow(c):
    return [c["log_prob"], c["latent_term"], c["prior_volume"] + c["log_det"]]


def of_vae(c):
    return [
        c[name]
        for name in ("log_prob", "reconstruction", "kl", "posterior_entropy", "prior_cross_entropy")
    ]


def kde(statistics, reference, i):
    """Negative log-densities by scipy's estimate with Scott's bandwidth, up to the scale of the statistics."""
    total = 0.0
    for column, ref in zip(statistics, reference):
        mean, std = ref.mean(), ref.std()
        total -= float(gaussian_kde((ref - mean) / std).logpdf([(column[i] - mean) / std])[0])
    return total


def svm(statistics, reference, i):
    table, ref = np.stack(statistics, 1), np.stack(reference, 1)
    scaler = StandardScaler().fit(ref)
    return (
        -OneClassSVM(nu=0.1)
        .fit(scaler.transform(ref))
        .decision_function(scaler.transform(table[i : i + 1]))[0]
    )


def bergamin(c, r, i):
    """One image at a time, by counting."""
    mean = r["log_prob"][:25].mean()
    far = [abs(value - mean) for value in r["log_prob"][25:]]
    p = [
        sum(value > abs(c["log_prob"][i] - mean) for value in far) / 25,
        sum(value > c["rao_score"][i] for value in r["rao_score"][25:]) / 25,
    ]
    return -2 * sum(math.log(one + 1e-8) for one in p)


def gaussians(columns, reference, i):
    return sum(0.5 * ((v - r.mean()) / r.std()) ** 2 for v, r in zip(columns[i], reference.T))


def mixture(columns, reference, i, kinds):
    scaler = StandardScaler().fit(reference)
    best = GridSearchCV(
        GaussianMixture(reg_covar=1e-4, max_iter=200, random_state=0),
        {"n_components": [2, 5, 10, 20], "covariance_type": kinds},
        cv=5,
    ).fit(scaler.transform(reference))
    return -best.score_samples(scaler.transform(columns[i : i + 1]))[0]


def neighbours(columns, reference, i):
    scaler = StandardScaler().fit(reference)
    return sorted(
        np.linalg.norm(scaler.transform(reference) - scaler.transform(columns[i : i + 1]), axis=1)
    )[4]


def standardised(columns, reference, i):
    return np.mean([(v - r.mean()) / r.std() for v, r in zip(columns[i], reference.T)])


def from_median(name):
    """The distance of one statistic from the mean of the two reference values in the middle."""
    return lambda c, i, r: abs(c[name][i] - sum(sorted(r[name])[24:26]) / 2)


def larger_rank(*names):
    """The larger share of reference values that are at most as large."""
    return lambda c, i, r: max(sum(one <= c[name][i] for one in r[name]) / 50 for name in names)


def product_kernel(c, i, r):
    """Minus the logarithm of the mean, over reference images, of products of six normals without their constants."""
    names = [f"code_length_{codec}" for codec in ("png", "jp2", "webp")]
    names += ["pixel_mean", "pixel_variance", "total_variation"]
    terms = []
    for point in range(50):
        steps = [(c[name][i] - r[name][point]) / np.std(r[name]) for name in names]
        terms.append(math.exp(-sum(step**2 for step in steps) / 2 / 50 ** (-2 / 10)))
    return -math.log(sum(terms) / 50)


def entropy(r):
    return sum(-value for value in r["log_prob"]) / len(r["log_prob"])


def validation_of(reference):
    """Columns of validation OOD images, which the second of three backgrounds tells best."""
    shift = {"backgrounds_log_prob": np.array([-100.0, 400.0, 0.0])}
    return {name: column + shift.get(name, 0.0) for name, column in reference.items()}


def tuned_ratio(c, r, i):
    """The background whose ratio wins most often, pair by pair."""
    wins = []
    for b in range(3):
        of_in, of_ood = (
            [side["backgrounds_log_prob"][k, b] - side["log_prob"][k] for k in range(50)]
            for side in (r, validation_of(r))
        )
        wins.append(sum(other > one for other in of_ood for one in of_in))
    assert wins.index(max(wins)) == 1
    return c["backgrounds_log_prob"][i, 1] - c["log_prob"][i]


def copod(statistics, reference, i):
    """The tails counted, a column at a time."""
    total = 0.0
    for column, ref in zip(statistics, reference):
        n, x = len(ref), column[i]
        left = -math.log((sum(one <= x for one in ref) + 1) / (n + 1))
        right = -math.log((sum(one >= x for one in ref) + 1) / (n + 1))
        side = right if skew(ref) > 0 else left
        total += max(side, (left + right) / 2)
    return total


def mahalanobis(statistics, reference, i):
    table, ref = np.stack(statistics, 1), np.stack(reference, 1)
    away = table[i] - ref.mean(0)
    return float(away @ np.linalg.inv(np.cov(ref.T, ddof=0)) @ away)


def without_sum(c):
    """A flow's two terms, whose sum log p is."""
    return of_flow(c)[1:]


def without_kl(c):
    return [column for column in of_vae(c) if column is not c["kl"]]


def osada(c, r, i, likelihood):
    """By scikit-learn's scaler and mixtures of one to five components."""
    table, ref = (np.stack([one["code_length_png"], -one[likelihood]], 1) for one in (c, r))
    scaler = StandardScaler().fit(ref)
    values = scaler.transform(ref)
    fitted = [GaussianMixture(k, random_state=0, n_init=3).fit(values) for k in (1, 2, 3, 4, 5)]
    best = fitted[int(np.argmin([one.bic(values) for one in fitted]))]
    return -best.score_samples(scaler.transform(table[i : i + 1]))[0]


def of_square_root(c, r, i):
    """Negative log-density of one moment's square root, by scipy's estimate."""
    return -float(gaussian_kde(r["path_moments"][:, 4] ** 0.5).logpdf(c["path_moments"][i, 4] ** 0.5)[0])  # fmt: skip


def along(name, c, r, i, distance):
    """A group test of one image: the mean over directions."""
    return np.mean([distance(c[name][i : i + 1, k], r[name][:, k]) for k in range(50)])


def one_image_discrepancy(c, r, i):
    points, x = r["projections"], c["projections"][i]
    squares = [((a - b) ** 2).sum() for n, a in enumerate(points) for b in points[:n]]
    h = np.median(squares)
    across = np.mean([math.exp(-((x - point) ** 2).sum() / h) for point in points])
    return np.mean([math.exp(-one / h) for one in squares]) - 2 * across


def path_columns(c):
    return np.stack([c["path_error"], c["path_mean_norm"], c["path_std_norm"]], 1)


def path_copod(c, r, i):
    """Quantiles by scikit-learn, decorrelated by scipy's root of a matrix."""
    normal = QuantileTransformer(n_quantiles=50, output_distribution="normal")
    ref = normal.fit_transform(path_columns(r))
    rotation = np.linalg.inv(sqrtm(np.corrcoef(ref.T)))
    turned = normal.transform(path_columns(c)) @ rotation
    return copod(turned.T, (ref @ rotation).T, i)


def silverman(reference, value):
    spread = min(np.std(reference, ddof=1), np.subtract(*np.percentile(reference, (75, 25))) / 1.34)
    factor = 0.9 * spread * 50**-0.2 / np.std(reference, ddof=1)
    return gaussian_kde(reference, bw_method=factor).logpdf(value)[0]


def gepc(c, r, i):
    gaps, ref = c["equivariance_gaps"][i], r["equivariance_gaps"].T
    order = sorted(range(4), key=lambda k: np.std(ref[k]) / np.mean(ref[k]))[:2]
    weights = [np.mean(ref[k]) / np.std(ref[k]) for k in order]
    return -sum(w * silverman(ref[k], gaps[k]) for w, k in zip(weights, order)) / sum(weights)


FORMULAS = {
    "likelihood": lambda c, i, r: -c["log_prob"][i],
    "likelihood-two-sided": lambda c, i, r: abs(
        c["log_prob"][i] - sorted(r["log_prob"])[24:26] @ np.full(2, 0.5)
    ),
    "typicality": lambda c, i, r: abs(-c["log_prob"][i] - entropy(r)),
    "last-scale-likelihood": lambda c, i, r: -c["last_scale_log_prob"][i],
    "likelihood-ratio": lambda c, i, r: -(c["log_prob"][i] - c["background_log_prob"][i]),
    "likelihood-ratio-tuned": lambda c, i, r: tuned_ratio(c, r, i),
    "general-ratio": lambda c, i, r: -(c["log_prob"][i] - c["general_log_prob"][i]),
    "ensemble-likelihood": lambda c, i, r: math.log(5) - logsumexp(c["ensemble_log_prob"][i]),
    "waic": lambda c, i, r: np.var(c["ensemble_log_prob"][i]) - sum(c["ensemble_log_prob"][i]) / 5,
    "waic-per-dim": lambda c, i, r: (
        np.var(c["ensemble_log_prob"][i]) / 784**2 - sum(c["ensemble_log_prob"][i]) / 5 / 784
    ),
    "input-complexity-png": lambda c, i, r: -c["log_prob"][i] - c["code_length_png"][i],
    "input-complexity-jp2": lambda c, i, r: -c["log_prob"][i] - c["code_length_jp2"][i],
    "input-complexity-webp": lambda c, i, r: -c["log_prob"][i] - c["code_length_webp"][i],
    "input-complexity-jxl": lambda c, i, r: -c["log_prob"][i] - c["code_length_jxl"][i],
    "input-complexity-min": lambda c, i, r: (
        -c["log_prob"][i] - min(c[f"code_length_{codec}"][i] for codec in ("png", "jp2", "webp"))
    ),
    "dose-kde": lambda c, i, r: kde(of_flow(c), of_flow(r), i),
    "dose-svm": lambda c, i, r: svm(of_flow(c), of_flow(r), i),
    "dose-kde-vae": lambda c, i, r: kde(of_vae(c), of_vae(r), i),
    "dose-svm-vae": lambda c, i, r: svm(of_vae(c), of_vae(r), i),
    "dose-copod": lambda c, i, r: copod(without_sum(c), without_sum(r), i),
    "dose-mahalanobis": lambda c, i, r: mahalanobis(without_sum(c), without_sum(r), i),
    "dose-copod-vae": lambda c, i, r: copod(without_kl(c), without_kl(r), i),
    "dose-mahalanobis-vae": lambda c, i, r: mahalanobis(without_kl(c), without_kl(r), i),
    "osada-mixture": lambda c, i, r: osada(c, r, i, "log_prob"),
    "osada-mixture-latent": lambda c, i, r: osada(c, r, i, "latent_term"),
    "approximate-mass": lambda c, i, r: c["input_gradient_norm"][i],
    "gradient-norm": lambda c, i, r: math.log(
        sum(math.exp(one) for one in c["layer_gradient_norms"][i])
    ),
    "gradient-layers": lambda c, i, r: gaussians(
        c["layer_gradient_norms"], r["layer_gradient_norms"], i
    ),
    "fisher-combination": lambda c, i, r: bergamin(c, r, i),
    "lid": lambda c, i, r: (
        -sum(one > np.median(r["log_singular_values"]) for one in c["log_singular_values"][i])
    ),
    "likelihood-regret": lambda c, i, r: c["likelihood_regret"][i],
    "vae-kl": lambda c, i, r: c["kl"][i],
    "vae-reconstruction": lambda c, i, r: -c["reconstruction"][i],
    "hvae-ratio-1": lambda c, i, r: c["elbo"][i] - c["elbo_above_1"][i],
    "hvae-ratio-2": lambda c, i, r: c["elbo"][i] - c["elbo_above_2"][i],
    "hvae-ratio-1-drawn": lambda c, i, r: c["log_prob"][i] - c["log_prob_above_1"][i],
    "hvae-ratio-2-drawn": lambda c, i, r: c["log_prob"][i] - c["log_prob_above_2"][i],
    "msma-gmm": lambda c, i, r: mixture(
        c["score_norms_by_width"], r["score_norms_by_width"], i, ["full"]
    ),
    "msma-knn": lambda c, i, r: np.sort(
        [math.dist(c["score_norms_by_width"][i], one) for one in r["score_norms_by_width"]]
    )[4],
    "msma-gmm-snr": lambda c, i, r: mixture(c["score_norms"], r["score_norms"], i, ["full"]),
    "msma-knn-snr": lambda c, i, r: neighbours(c["score_norms"], r["score_norms"], i),
    "diffusion-reconstruction": lambda c, i, r: standardised(
        c["reconstruction_errors"], r["reconstruction_errors"], i
    ),
    "diffpath-6d": lambda c, i, r: mixture(
        c["path_moments"], r["path_moments"], i, ["full", "tied", "diag", "spherical"]
    ),
    "diffpath-1d": lambda c, i, r: of_square_root(c, r, i),
    "likelihood-path-copod": lambda c, i, r: path_copod(c, r, i),
    "likelihood-path-mahalanobis": lambda c, i, r: mahalanobis(
        path_columns(c).T, path_columns(r).T, i
    ),
    "god1ks": lambda c, i, r: along(
        "projections", c, r, i, lambda one, _: kstest(one, "norm").statistic
    ),
    "god2ks": lambda c, i, r: along(
        "projections", c, r, i, lambda one, ref: ks_2samp(one, ref).statistic
    ),
    "god2ks-pixels": lambda c, i, r: along(
        "pixel_projections", c, r, i, lambda one, ref: ks_2samp(one, ref).statistic
    ),
    "klod-diagonal": lambda c, i, r: np.mean(
        [0.5 * (1e-6 + m * m - 1 - math.log(1e-6)) for m in c["projections"][i]]
    ),
    "mmd": lambda c, i, r: one_image_discrepancy(c, r, i),
    "gepc": lambda c, i, r: gepc(c, r, i),
    "scoped": lambda c, i, r: max(
        -silverman(r["score_trace_ratios"][:, k], c["score_trace_ratios"][i, k]) for k in (0, 1)
    ),
    "complexity-corrected-ratio": lambda c, i, r: (
        sum(c["matching_losses"][i]) / 32 - sum(c["matching_losses"][i, :8]) / 8
    ),
    "denoising-error": lambda c, i, r: (
        3 * standardised(c["denoising_errors"], r["denoising_errors"], i)
    ),
    "diffusion-reconstruction-lpips": lambda c, i, r: (
        (
            standardised(c["reconstruction_errors"], r["reconstruction_errors"], i)
            + standardised(c["perceptual_errors"], r["perceptual_errors"], i)
        )
        / 2
    ),
    "ks": lambda c, i, r: c["ks"][i],
    "chi2": lambda c, i, r: c["chi2"][i],
    "anderson-darling": lambda c, i, r: c["anderson_darling"][i],
    "box-pierce": lambda c, i, r: c["box_pierce"][i],
    "latent-kurtosis": lambda c, i, r: abs(
        c["kurtosis"][i] - sorted(r["kurtosis"])[24:26] @ np.full(2, 0.5)
    ),
    "sitn": larger_rank("anderson_darling", "spectrum_cv"),
    "whiteness-2d": lambda c, i, r: c["whiteness_2d"][i],
    "whiteness-rows": lambda c, i, r: c["whiteness_rows"][i],
    "residual-whiteness": larger_rank("whiteness_2d", "whiteness_rows"),
    "code-length-png": lambda c, i, r: c["code_length_png"][i],
    "pixel-variance": lambda c, i, r: c["pixel_variance"][i],
    "pixel-mean": lambda c, i, r: c["pixel_mean"][i],
    "code-length-png-short": lambda c, i, r: -c["code_length_png"][i],
    "pixel-variance-low": lambda c, i, r: -c["pixel_variance"][i],
    "pixel-mean-low": lambda c, i, r: -c["pixel_mean"][i],
    "code-length-png-two-sided": from_median("code_length_png"),
    "code-length-jp2-two-sided": from_median("code_length_jp2"),
    "code-length-webp-two-sided": from_median("code_length_webp"),
    "code-length-jxl-two-sided": from_median("code_length_jxl"),
    "pixel-variance-two-sided": from_median("pixel_variance"),
    "pixel-mean-two-sided": from_median("pixel_mean"),
    "image-numbers-kde": product_kernel,
    "nearest-pixels": lambda c, i, r: c["nearest_pixel_distance"][i],
    "pca-reconstruction": lambda c, i, r: c["pca_residual"][i],
    "linear-whiteness": lambda c, i, r: c["linear_whiteness"][i],
    "linear-whiteness-rows": lambda c, i, r: c["linear_whiteness_rows"][i],
    "linear-mahalanobis": lambda c, i, r: c["linear_mahalanobis"][i],
    "linear-mahalanobis-two-sided": from_median("linear_mahalanobis"),
    "linear-residual-whiteness": larger_rank("linear_whiteness", "linear_whiteness_rows"),
    "linear-whiteness-mahalanobis": larger_rank("linear_whiteness", "linear_mahalanobis"),
}
"""Each scorer once more, one image at a time, from test columns, the image's index, and reference columns."""
COSTLY = ("lid", "likelihood-regret", "gradient-norm", "gradient-layers", "fisher-combination")


@pytest.mark.parametrize("name", FORMULAS)
def test_scores_follow_their_formula(name, columns):
    reference = {key: np.roll(column, 7, 0) * 1.01 for key, column in columns.items()}
    images = range(3) if "gmm" in name or "6d" in name or "mixture" in name else range(50)
    found = ob.scorer(name).fitted(reference, validation_of(reference))(columns)
    assert found[images] == pytest.approx(
        [FORMULAS[name](columns, i, reference) for i in images], rel=1e-6
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in COSTLY)) for name in FORMULAS]
)
def test_every_scorer_keeps_the_contract_on_real_columns(name):
    if "jxl" in name:
        pytest.importorskip("imagecodecs", reason="the extra `codecs` is not installed")
    if "lpips" in name:
        pytest.importorskip("lpips", reason="the extra `perceptual` is not installed")
    assert check_scorer(ob.scorer(name)) == []


def test_the_table_above_names_every_built_in_scorer():
    built_in = {name for name, scorer in scorers.items() if "/oodbench/scorers/" in scorer.origin}
    of_classifiers = {
        "msp",
        "energy",
        "mahalanobis-features",
        "knn-features",
    }  # in tests/test_classifier.py
    assert built_in - of_classifiers == set(FORMULAS)


def test_what_a_scorer_tunes_on_is_told_without_being_declared():
    """By fitting, or through a pass that is prepared on reference or training images."""
    names = ("likelihood", "typicality", "gradient-norm", "nearest-pixels", "linear-mahalanobis")
    told = {name: ob.scorer(name).tunes_on for name in names}
    assert told == {
        "likelihood": "none",
        "typicality": "in-dist ref",
        "gradient-norm": "in-dist ref",
        "nearest-pixels": "in-dist ref",
        "linear-mahalanobis": "in-dist train",
    }


def test_more_unlike_images_score_higher(columns):
    """On a toy where the OOD images are far less likely, less compressible than the model, and atypical."""
    far = {**columns, "log_prob": columns["log_prob"] - 3000}
    for name in ("likelihood", "typicality", "likelihood-ratio", "input-complexity-png"):
        score = ob.scorer(name).fitted(columns)
        assert ob.auroc(score(columns), score(far)).value > 0.95


def fitted_scorer(name, reference):
    return FittedScorer(ob.scorer(name), name, reference)


def test_groups_are_disjoint():
    places = disjoint_groups(50, 7, seed=3)
    assert places.shape == (7, 7)  # 50 = 7·7 + 1 left over
    assert len(set(places.ravel())) == 49
    assert np.array_equal(places, disjoint_groups(50, 7, seed=3))
    with pytest.raises(OodbenchError, match="50 images make fewer than two groups of 26"):
        disjoint_groups(50, 26, seed=0)


def test_a_group_is_judged_as_its_scorer_declares(columns):
    places = disjoint_groups(50, 5, seed=0)
    whole = fitted_scorer("typicality", columns)
    means = np.array([columns["log_prob"][own].mean() for own in places])
    expected = abs(-means + columns["log_prob"].mean())
    assert group_scores(whole, columns, places) == pytest.approx(expected)
    each = fitted_scorer("dose-kde", columns)
    expected = [each(columns)[own].mean() for own in places]
    assert group_scores(each, columns, places) == pytest.approx(expected)


def test_wider_images_of_the_same_mean_are_seen_in_groups():
    """The mean column of a group is no image: by a density of single images it lies where all are."""
    random = np.random.default_rng(0)
    names = "latent_term", "log_det", "log_prob", "prior_volume"

    def images(spread):
        z, volume = spread * random.normal(0, 20, 1000), spread * random.normal(0, 200, 1000)
        own = z - 700, volume - 2300, z + volume - 3000, np.zeros(1000)
        return dict(zip(names, own, strict=True))

    score = fitted_scorer("dose-kde", images(1))
    of_in, of_ood = (
        group_scores(score, one, disjoint_groups(1000, 10, 0)) for one in (images(1), images(2))
    )
    assert ob.auroc(of_in, of_ood).value > 0.99


class Spread:
    """Variance of a group's log p about its mean."""

    def fit(self, log_prob):
        return log_prob.mean()

    def score(self, mean, log_prob):
        return (log_prob - mean) ** 2

    def score_groups(self, mean, log_prob):
        return log_prob.var(1)


def test_a_test_of_groups_of_its_own(columns):
    own = {"groups": "own test"}
    try:
        ob.register_scorer("probe-spread", **own)(Spread)
        score = fitted_scorer("probe-spread", columns)
        places = disjoint_groups(50, 10, seed=1)
        expected = [columns["log_prob"][one].var() for one in places]
        assert group_scores(score, columns, places) == pytest.approx(expected)
    finally:
        scorers._entries.pop("probe-spread", None)


def test_groups_that_cannot_be_judged_are_refused():
    def by_volume(log_det):
        return log_det

    def single(log_prob):
        return log_prob

    for code, groups, sentence in (
        (by_volume, "mean of columns", "takes log_det: only scorers that are linear in log_prob"),
        (single, "own test", 'both or neither: groups="own test" and a method'),
        (Spread, "mean of scores", "both or neither"),
        (single, "sum", "judges groups by 'sum'; there are mean of columns"),
    ):
        with pytest.raises(ScorerError, match=re.escape(sentence)):
            ob.register_scorer("probe-refused", groups=groups)(code)
    assert "does not say how a group of images is judged" in ob.scorer("msma-knn").no_groups()
    assert ob.scorer("typicality").no_groups() == ""


def test_a_scorer_s_arguments_are_checked():
    with pytest.raises(
        ScorerError, match="asks for 'log_prb', which is no statistic; did you mean 'log_prob'"
    ):
        register_scorer("bad")(lambda log_prb: log_prb)
    with pytest.raises(ScorerError, match=r"takes \*args"):
        register_scorer("bad")(lambda *columns: columns[0])
    with pytest.raises(ScorerError, match="without a method `score`"):
        register_scorer("bad")(type("NoScore", (), {}))
    with pytest.raises(ScorerError, match="'likelihood' is taken"):
        register_scorer("likelihood")(lambda log_prob: log_prob)
    with pytest.raises(UnknownNameError, match="did you mean 'typicality'"):
        ob.scorer("tipicality")


def registered(code):
    name = f"probe-{code.__name__}"
    register_scorer(name)(code)
    return ob.scorer(name)


def looks_at_others(log_prob):
    return log_prob - log_prob.mean()


def one_number(log_prob):
    return log_prob.mean()


def labels(log_prob):
    return (log_prob > -3000).astype(int)


def in_place(log_prob):
    log_prob *= -1
    return log_prob


def not_finite(log_prob):
    return np.log(log_prob)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (looks_at_others, "depends on the other test images"),
        (one_number, "one score an image"),
        (labels, "not labels"),
        (in_place, "copy one before changing it"),
        (not_finite, "60 scores are NaN or infinite"),
    ],
)
def test_each_broken_promise_of_a_scorer_has_its_sentence(code, sentence):
    try:
        assert any(sentence in fault for fault in check_scorer(registered(code)))
    finally:
        scorers._entries.pop(f"probe-{code.__name__}", None)


def test_too_few_reference_images_are_told(columns):
    few = {name: column[:5] for name, column in columns.items()}
    least = {
        "dose-kde": 20,
        "dose-svm": 20,
        "msma-gmm": 50,
        "fisher-combination": 40,
        "gradient-layers": 10,
    }
    for name, images in least.items():
        sentence = (
            f"{name} needs at least {images} in-dist reference images, not 5; use a larger limit"
        )
        with pytest.raises(ScorerError, match=f"^{sentence}$"):
            ob.scorer(name).fitted(few)


def test_constant_statistics_are_left_out_of_a_density(columns):
    """A constant-volume flow has one volume for all images."""
    still = columns | {"log_det": np.full(50, -2300.0), "prior_volume": np.zeros(50)}
    still["log_prob"] = columns["latent_term"] - 2300
    assert np.isfinite(ob.scorer("dose-kde").fitted(still)(still)).all()
    flat = {name: np.zeros_like(column) for name, column in columns.items()}
    with pytest.raises(ScorerError, match="constant over the in-dist reference images"):
        ob.scorer("dose-kde").fitted(flat)


def test_far_images_have_a_finite_and_ever_lower_density(columns):
    far = {
        name: columns[name][:3] - np.array([0.0, 1e5, 1e9])
        for name in ("log_prob", "latent_term", "prior_volume", "log_det")
    }
    found = ob.scorer("dose-kde").fitted(columns)(far)
    assert np.isfinite(found).all()
    assert found[0] < found[1] < found[2]


def test_each_scorer_tells_far_images_from_near_ones(columns, random):
    """A toy where the OOD images are less likely, stranger in every statistic, and no more compressible."""
    far = {name: column.copy() for name, column in columns.items()}
    for name in ("log_prob", "latent_term", "log_det", "last_scale_log_prob", "reconstruction"):
        far[name] -= 3000
    far["ensemble_log_prob"] = (
        6 * columns["ensemble_log_prob"]
    )  # less likely, and the members disagree
    for name in ("kl", "rao_score", "input_gradient_norm", "likelihood_regret"):
        far[name] += 300
    tables = (
        "layer_gradient_norms",
        "score_norms",
        "score_norms_by_width",
        "reconstruction_errors",
    )
    for name in (*tables, "path_moments"):
        far[name] += 30 * columns[name].std()
    of_levels = ("equivariance_gaps", "score_trace_ratios", "denoising_errors", "perceptual_errors")
    for name in (*of_levels, "path_error", "projections"):
        far[name] += 30 * columns[name].std()
    far["matching_losses"][:, 8:] += 1
    white = ("ks", "chi2", "anderson_darling", "kurtosis", "spectrum_cv", "box_pierce")
    for name in (*white, "whiteness_2d", "whiteness_rows"):
        far[name] += 30 * columns[name].std()
    far["log_singular_values"] -= 10
    far["posterior_entropy"] -= 300
    far["prior_cross_entropy"] += 300
    model_free = {name for name in FORMULAS if ob.scorer(name).baseline}
    hierarchical = {name for name in FORMULAS if name.startswith("hvae-ratio")}  # latents add more
    far_above = far | {
        name: columns[name] - 9000
        for name in ("log_prob_above_1", "log_prob_above_2", "elbo_above_1", "elbo_above_2")
    }
    for name in set(FORMULAS) - model_free:
        score = ob.scorer(name).fitted(columns, far)
        other = far_above if name in hierarchical else far
        # a tail on the side away from a column's skew counts half in COPOD, and each column's end is ln 51 of 50 images
        least = 0.85 if "copod" in name else 0.95
        assert ob.auroc(score(columns), score(other)).value > least, name


@pytest.mark.parametrize("size", [1, 5, 25])
@pytest.mark.parametrize("n", [300, 3000])
def test_the_rejection_threshold_holds_its_size(size, n):
    """In-dist groups from the same distribution are flagged at about the stated rate."""
    random, found = np.random.default_rng(0), []
    division = divided(n, 0, ob.scorer("typicality"))
    for _ in range(20 if size == 1 else 5):
        reference = {"log_prob": random.normal(-3000, 300, n)}
        held_out = [
            held_out_scores(
                fitted_scorer("typicality", part(reference, fitting)),
                part(reference, own),
                size,
                1000,
                0,
            )
            for fitting, own in division.fits()
        ]
        score = fitted_scorer("typicality", part(reference, np.arange(division.fitting)))
        groups = random.normal(-3000, 300, (20_000, size)).mean(1)
        found.append(
            (score({"log_prob": groups}) > rejection_threshold(np.concatenate(held_out))).mean()
        )
    assert np.mean(found) == pytest.approx(0.01, abs=0.012 if size > 1 else 0.004)


def test_a_scorer_that_learns_its_images_by_heart_is_calibrated_on_others():
    """Distance to the nearest reference image is 0 for all that it was fitted on: as a threshold that flags everything."""
    random = np.random.default_rng(1)
    nearest = Scorer(
        "probe-nearest", ("log_prob",), ("log_prob",), lambda log_prob: log_prob,
        lambda known, log_prob: abs(log_prob[:, None] - known).min(1),
    )  # fmt: skip
    reference = {"log_prob": random.normal(size=400)}
    division = divided(400, 0, nearest)
    assert division.is_crossed
    held_out = [
        FittedScorer(nearest, "n", part(reference, fitting))(part(reference, own))
        for fitting, own in division.fits()
    ]
    score = FittedScorer(nearest, "n", reference)
    assert score(reference).max() == 0
    flagged = score({"log_prob": random.normal(size=5000)}) > rejection_threshold(
        np.concatenate(held_out)
    )
    assert flagged.mean() == pytest.approx(0.01, abs=0.01)


@pytest.mark.parametrize(("n", "prepared"), [(300, 0), (500, 200), (1000, 0), (3000, 200)])
def test_no_reference_image_has_two_uses(n, prepared):
    division = divided(n, prepared, ob.scorer("fisher-combination"))
    assert division.left == n - prepared
    tested = []
    for fitting, held_out in division.fits():
        assert not set(fitting) & set(held_out)
        assert max(*fitting, *held_out) < n - prepared
        tested += held_out.tolist()
    if division.is_crossed:
        assert sorted(tested) == list(range(n - prepared))
        assert division.fitting == n - prepared
    else:
        assert tested == list(range(division.fitting, n - prepared))
        assert len(tested) == 500


def test_the_threshold_is_a_rank_of_what_was_held_out():
    assert rejection_threshold(np.arange(1, 100)) == 99  # 100 exchangeable ones, one of them beyond
    assert rejection_threshold(np.arange(1, 300)) == 297
    assert rejection_threshold(np.arange(5.0)) == 4
