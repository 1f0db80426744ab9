"""Model-free baselines fitted on in-dist training images: is what a linear predictor leaves over white, and small?"""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import TwoTests

WANG = "after Wang et al., NeurIPS 2020 (thu-ml/ood-dgm), there one lag sequence and Box–Pierce"


@register_scorer("linear-whiteness", cite=WANG)
def whiteness(linear_whiteness: np.ndarray) -> np.ndarray:
    """``H·W`` times the mean squared autocorrelation of the linear residuals over neighbouring pixels."""
    return linear_whiteness


@register_scorer("linear-whiteness-rows", cite=WANG)
def whiteness_rows(linear_whiteness_rows: np.ndarray) -> np.ndarray:
    """``N`` times the mean squared autocorrelation of the flattened linear residuals at lags of one to five rows."""
    return linear_whiteness_rows


@register_scorer("linear-mahalanobis", cite="one-sided ‖r‖² of thu-ml/ood-dgm")
def mahalanobis(linear_mahalanobis: np.ndarray) -> np.ndarray:
    """Squared norm of the linear residuals, the Mahalanobis distance from the training images."""
    return linear_mahalanobis


@register_scorer("linear-mahalanobis-two-sided", cite="two-sided ‖r‖² of thu-ml/ood-dgm")
class MahalanobisTwoSided:
    """Distance of the linear residuals' squared norm from its median over reference images."""

    def fit(self, linear_mahalanobis: np.ndarray) -> float:
        return float(np.median(linear_mahalanobis))

    def score(self, median: float, linear_mahalanobis: np.ndarray) -> np.ndarray:
        return np.abs(linear_mahalanobis - median)


@register_scorer("linear-residual-whiteness", cite="this benchmark")
class ResidualWhiteness:
    """The larger percentile rank, among reference images, of the linear residuals' whiteness over neighbours and over rows."""

    def fit(self, linear_whiteness: np.ndarray, linear_whiteness_rows: np.ndarray) -> TwoTests:
        return TwoTests(linear_whiteness, linear_whiteness_rows)

    def score(
        self, reference: TwoTests, linear_whiteness: np.ndarray, linear_whiteness_rows: np.ndarray
    ) -> np.ndarray:
        return reference.larger_rank(linear_whiteness, linear_whiteness_rows)


@register_scorer("linear-whiteness-mahalanobis", cite="this benchmark")
class WhitenessMahalanobis:
    """The larger percentile rank, among reference images, of the linear residuals' whiteness and of their squared norm."""

    def fit(self, linear_whiteness: np.ndarray, linear_mahalanobis: np.ndarray) -> TwoTests:
        return TwoTests(linear_whiteness, linear_mahalanobis)

    def score(
        self, reference: TwoTests, linear_whiteness: np.ndarray, linear_mahalanobis: np.ndarray
    ) -> np.ndarray:
        return reference.larger_rank(linear_whiteness, linear_mahalanobis)
