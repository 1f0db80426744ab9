"""Scorers that ask whether what a model turns an image into is white standard normal noise."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import TwoTests

OURS = "oodbench"
KIN = "oodbench; kin of Wang et al., NeurIPS 2020, whose statistic has other lags and residuals"
LEAST = 20
"""Reference images without which no percentile rank is told."""


@register_scorer("ks", cite=f"{OURS}: of one image; of groups in Jiang et al., ICLR 2022")
def kolmogorov_smirnov(ks: np.ndarray) -> np.ndarray:
    """Kolmogorov–Smirnov distance of a flow's z from N(0, 1), ``sup |F_D − Φ|``."""
    return ks


@register_scorer("chi2", cite=OURS)
def pearson(chi2: np.ndarray) -> np.ndarray:
    """Pearson's χ² of a flow's z over 20 bins that N(0, 1) fills equally."""
    return chi2


@register_scorer("anderson-darling", cite="a part of SITN, Bomatter et al., 2026, arXiv:2605.22496")
def normal_shape(anderson_darling: np.ndarray) -> np.ndarray:
    """Anderson–Darling's A² of a flow's z, standardised by their own mean and deviation, against the normal distribution."""
    return anderson_darling


@register_scorer("box-pierce", cite=OURS)
def uncorrelated(box_pierce: np.ndarray) -> np.ndarray:
    """Box–Pierce statistic of a flow's z by its number of lags, ``D · mean ρ_k²`` over k = 1 … 200."""
    return box_pierce


@register_scorer("latent-kurtosis", cite=OURS)
class LatentKurtosis:
    """Distance of the kurtosis of a flow's z from its median over reference images."""

    def fit(self, kurtosis: np.ndarray) -> float:
        return float(np.median(kurtosis))

    def score(self, median: float, kurtosis: np.ndarray) -> np.ndarray:
        return np.abs(kurtosis - median)


@register_scorer(
    "sitn", cite="Bomatter et al., 2026, arXiv:2605.22496, there of flow matching", least_reference=LEAST
)  # fmt: skip
class SignalInTheNoise:
    """The larger of the percentile ranks over reference images of A² and of the power spectrum's variation, of a flow's z."""

    def fit(self, anderson_darling: np.ndarray, spectrum_cv: np.ndarray) -> TwoTests:
        return TwoTests(anderson_darling, spectrum_cv)

    def score(
        self, tests: TwoTests, anderson_darling: np.ndarray, spectrum_cv: np.ndarray
    ) -> np.ndarray:
        return tests.larger_rank(anderson_darling, spectrum_cv)


@register_scorer("whiteness-2d", cite=KIN)
def neighbours(whiteness_2d: np.ndarray) -> np.ndarray:
    """Correlation of what an autoregressive model leaves over at neighbouring pixels, ``H·W · mean ρ²``."""
    return whiteness_2d


@register_scorer("whiteness-rows", cite=KIN)
def rows(whiteness_rows: np.ndarray) -> np.ndarray:
    """Correlation of what an autoregressive model leaves over at pixels one to five rows apart, ``D · mean ρ²``."""
    return whiteness_rows


@register_scorer("residual-whiteness", cite=KIN, least_reference=LEAST)
class ResidualWhiteness:
    """The larger of the percentile ranks over reference images of ``whiteness-2d`` and of ``whiteness-rows``.

    Where the model is right, its residuals are white noise. In those of other images neighbours may still resemble each other,
    or rows may; either counts.
    """

    def fit(self, whiteness_2d: np.ndarray, whiteness_rows: np.ndarray) -> TwoTests:
        return TwoTests(whiteness_2d, whiteness_rows)

    def score(
        self, tests: TwoTests, whiteness_2d: np.ndarray, whiteness_rows: np.ndarray
    ) -> np.ndarray:
        return tests.larger_rank(whiteness_2d, whiteness_rows)
