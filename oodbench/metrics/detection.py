"""All detection metrics of one pair of score vectors, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from oodbench.metrics.bootstrap import multiplicities
from oodbench.metrics.intervals import (
    CONFIDENCE,
    Estimate,
    auroc,
    is_near_an_end,
    of_average_precision,
    of_rate_at_threshold,
    ranks_of_quantile,
)
from oodbench.metrics.ranking import Counts, Ranking

RATES = {
    "fpr95": 0.95,
    "fpr80": 0.80,
}
"""False-positive rate → the share of the positive class that its threshold catches."""
CURVE_METRICS: dict[str, Callable[[Counts], np.ndarray]] = {
    "aupr": Counts.average_precision,
    "fpr95": lambda counts: counts.fpr_at_tpr(0.95),
    "fpr80": lambda counts: counts.fpr_at_tpr(0.80),
}
OF_CURVES = tuple(f"{name}_{positive}" for positive in ("ood", "in") for name in CURVE_METRICS)
METRICS = ("auroc", *OF_CURVES)
"""The suffix names the positive class: ``fpr95_ood`` is the rate of in-dist images flagged when 95 % of OOD is caught."""


class Detection(NamedTuple):
    """What a pair of score vectors gives.

    Attributes
    ----------
    estimates : each of :data:`METRICS` with its interval
    resampled : each of :data:`OF_CURVES` on the bootstrap's replicates, ``(replicates,)``: the same ones for all scorers
    """

    estimates: dict[str, Estimate]
    resampled: dict[str, np.ndarray]


def detection_metrics(
    scores_in: np.ndarray, scores_ood: np.ndarray, replicates: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """AUROC (logit-DeLong), AUPR and FPR@95/@80 with either class positive (stratified bootstrap).

    Each interval is the wider of two rules where one of them fails: :func:`oodbench.metrics.auroc`, and of
    :mod:`oodbench.metrics.intervals` ``of_average_precision`` and ``of_rate_at_threshold``. Their coverage: docs/statistics.md.

    Parameters
    ----------
    scores_in, scores_ood : ``(N,)``, larger = more OOD
    replicates : of the bootstrap; 0 for none (NaN intervals)
    seed : of the bootstrap

    Raises
    ------
    ScorerError : an empty class, or NaN scores
    """
    return detection(scores_in, scores_ood, replicates, seed).estimates


def detection(
    scores_in: np.ndarray, scores_ood: np.ndarray, replicates: int, seed: int
) -> Detection:
    """The same, with what the bootstrap gave; parameters and errors as of :func:`detection_metrics`."""
    ranking = Ranking(scores_in, scores_ood)
    values = {name: float(one[0]) for name, one in _curve_metrics(ranking).items()}
    found = {"auroc": auroc(scores_in, scores_ood)}
    if min(ranking.n_in, ranking.n_ood) < 2 or not replicates:
        none = {name: Estimate(value, np.nan, np.nan) for name, value in values.items()}
        return Detection(found | none, {})
    samples = _resampled(ranking, replicates, seed)
    return Detection(found | _intervals(ranking, found["auroc"].value, values, samples), samples)


def _intervals(
    ranking: Ranking, area: float, values: Mapping[str, float], samples: Mapping[str, np.ndarray]
) -> dict[str, Estimate]:
    """Each of :data:`OF_CURVES` with its interval; ``area`` is the AUROC."""
    smaller = min(ranking.n_in, ranking.n_ood)
    near, found = is_near_an_end(area, smaller), {}
    for positive, counts in ranking.counts():
        for metric in CURVE_METRICS:
            name = f"{metric}_{positive}"
            value, ends = values[name], percentiles(samples[name])
            if metric in RATES:
                cut = _rates_at_ends(counts, RATES[metric])
                found[name] = of_rate_at_threshold(value, ends, cut, counts.negatives)
            elif metric == "aupr":
                found[name] = of_average_precision(value, ends, near, smaller)
            else:
                found[name] = Estimate(value, float(ends[0]), float(ends[1]))
    return found


def _rates_at_ends(counts: Counts, share: float) -> tuple[float, float]:
    """The false-positive rate at either end of the interval of the threshold that catches a share of the positives."""
    low, high = ranks_of_quantile(int(counts.caught[0, -1]), share)
    return float(counts.rate_at(low)[0]), float(counts.rate_at(high)[0])


def percentiles(samples: np.ndarray) -> np.ndarray:
    """Both ends of the percentile interval over the last axis, ``(2, …)``. Efron, 1979."""
    ends = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=-1)
    return np.asarray(ends)


def _resampled(ranking: Ranking, replicates: int, seed: int) -> dict[str, np.ndarray]:
    drawn = multiplicities(ranking.n_in, ranking.n_ood, replicates, seed)
    parts = [_curve_metrics(ranking, *times) for times in drawn]
    return {name: np.concatenate([part[name] for part in parts]) for name in OF_CURVES}


def _curve_metrics(ranking: Ranking, *times: np.ndarray) -> dict[str, np.ndarray]:
    """Each of :data:`OF_CURVES` on each replicate, ``(replicates,)``."""
    return {
        f"{name}_{positive}": metric(counts)
        for positive, counts in ranking.counts(*times)
        for name, metric in CURVE_METRICS.items()
    }
