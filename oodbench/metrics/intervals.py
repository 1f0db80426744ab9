"""Confidence intervals for the ranking metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri

from oodbench.metrics.ranking import area_under_roc, checked, twice_below

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A value and its interval; ``low`` and ``high`` are NaN where n is too small for one."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(hits: int, trials: int, confidence: float = CONFIDENCE) -> Estimate:
    """A rate with Wilson's score interval."""
    z2 = float(ndtri(0.5 + confidence / 2)) ** 2
    rate = hits / trials
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (rate * (1 - rate) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return Estimate(rate, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def placements(scores_in: np.ndarray, scores_ood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each OOD image the share of in-dist images below it, and for each in-dist image the share of OOD images below it.

    Ties count one half; both have the AUROC, or one minus it, as their mean. By sorting, as in Sun & Xu 2014.
    """

    def below(of: np.ndarray, among: np.ndarray) -> np.ndarray:
        rising, order = np.sort(among), np.argsort(of)  # a search for rising values is quicker
        found = np.empty(len(of))
        found[order] = twice_below(rising, of[order]) / (2 * len(among))
        return found

    return below(scores_ood, scores_in), below(scores_in, scores_ood)


def delong_variance(scores_in: np.ndarray, scores_ood: np.ndarray) -> float:
    """DeLong's variance of the AUROC from the placements of each image among the other class.

    ``var(V₁₀)/m + var(V₀₁)/n``. DeLong, DeLong, Clarke-Pearson, Biometrics 1988.
    """
    of_ood, of_in = placements(scores_in, scores_ood)
    return float(of_ood.var(ddof=1) / len(of_ood) + of_in.var(ddof=1) / len(of_in))


def auroc(
    scores_in: np.ndarray, scores_ood: np.ndarray, confidence: float = CONFIDENCE
) -> Estimate:
    """AUROC with DeLong's interval on the logit scale.

    ``logit A ± z·√var/(A·(1 − A))`` keeps its coverage near 0 and 1, where the plain interval loses it. At exactly 0 or 1
    the variance is zero and the rule is Wilson's score interval for a proportion of ``min(n, m)`` trials. With fewer
    than two images in a class there is no interval (NaN).
    """
    scores_in, scores_ood = checked(scores_in, scores_ood)
    value, smaller = area_under_roc(scores_in, scores_ood), min(len(scores_in), len(scores_ood))
    if smaller < 2:
        return Estimate(value, np.nan, np.nan)
    z = float(ndtri(0.5 + confidence / 2))
    if value in (0.0, 1.0):
        far = smaller / (smaller + z**2)
        return Estimate(value, far, 1.0) if value == 1.0 else Estimate(value, 0.0, 1.0 - far)
    half = z * np.sqrt(delong_variance(scores_in, scores_ood)) / (value * (1 - value))
    low, high = expit(logit(value) - half), expit(logit(value) + half)
    return Estimate(value, float(low), float(high))
