"""All detection metrics of one pair of score vectors, each with its interval."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from oodbench.metrics.intervals import CONFIDENCE, Estimate, auroc, bootstrap_counts
from oodbench.metrics.ranking import Counts, checked, counts

CURVE_METRICS: dict[str, Callable[[Counts], float]] = {
    "aupr": Counts.average_precision,
    "fpr95": lambda counts: counts.fpr_at_tpr(0.95),
    "fpr80": lambda counts: counts.fpr_at_tpr(0.80),
}
METRICS = ("auroc", *(f"{name}_{positive}" for positive in ("ood", "in") for name in CURVE_METRICS))
"""The suffix names the positive class: ``fpr95_ood`` is the rate of in-dist images flagged when 95 % of OOD is caught."""


def detection_metrics(
    scores_in: np.ndarray, scores_ood: np.ndarray, replicates: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """AUROC (logit-DeLong), AUPR and FPR@95/@80 with either class positive (stratified percentile bootstrap).

    Parameters
    ----------
    scores_in, scores_ood : ``(N,)``, larger = more OOD
    replicates : of the bootstrap; 0 for none (NaN intervals)
    seed : of the bootstrap

    Raises
    ------
    ScorerError : an empty class, or NaN scores
    """
    scores_in, scores_ood = checked(scores_in, scores_ood)
    whole = counts(scores_in, scores_ood)
    found = {"auroc": auroc(scores_in, scores_ood)}
    if min(len(scores_in), len(scores_ood)) < 2:
        replicates = 0
    resampled = [
        _curve_metrics(replicate)
        for replicate in bootstrap_counts(scores_in, scores_ood, replicates, seed)
    ]
    for name, value in _curve_metrics(whole).items():
        samples = [replicate[name] for replicate in resampled]
        low, high = (
            np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
            if samples
            else (np.nan, np.nan)
        )
        found[name] = Estimate(value, float(low), float(high))
    return found


def _curve_metrics(curve: Counts) -> dict[str, float]:
    both = {"ood": curve, "in": curve.swapped()}
    return {
        f"{name}_{positive}": metric(c)
        for positive, c in both.items()
        for name, metric in CURVE_METRICS.items()
    }
