"""AUROC, AUPR and FPR at a TPR, from the ranks of scores; ties are counted, nothing is interpolated.

The last two are computed from counts at the distinct scores, which is how the bootstrap resamples without sorting again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oodbench.errors import ScorerError


def checked(scores_in: np.ndarray, scores_ood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both classes as float64 vectors; :class:`ScorerError` where one is empty or holds NaN."""
    classes = {
        "in-dist": np.asarray(scores_in, np.float64),
        "OOD": np.asarray(scores_ood, np.float64),
    }
    for name, scores in classes.items():
        if scores.ndim != 1:
            raise ScorerError(
                f"{name} scores must be a vector with one number an image, not of shape {scores.shape}"
            )
        if not len(scores):
            raise ScorerError(
                f"there are no {name} scores: with one class only, no detection metric is defined"
            )
        if np.isnan(scores).any():
            raise ScorerError(
                f"{np.isnan(scores).sum()} of {len(scores)} {name} scores are NaN, which has no rank"
            )
    return classes["in-dist"], classes["OOD"]


@dataclass(frozen=True)
class Counts:
    """Images at or above each distinct score, from the largest score down.

    ``caught``: of the positive class; ``flagged``: of the other one.
    """

    flagged: np.ndarray
    caught: np.ndarray

    def swapped(self) -> Counts:
        """The same ranking with the other class as positive: counted from the smallest score up."""
        return Counts(flagged=_from_below(self.caught), caught=_from_below(self.flagged))

    def average_precision(self) -> float:
        """``Σ (R_k − R_{k−1})·P_k`` over distinct thresholds."""
        gained = np.diff(self.caught, prepend=0)
        hit = (
            gained > 0
        )  # thresholds without a new positive add nothing, and the first may divide by zero
        precision = self.caught[hit] / (self.caught[hit] + self.flagged[hit])
        return float(gained[hit] @ precision / self.caught[-1])

    def fpr_at_tpr(self, tpr: float) -> float:
        """Rate of ``flagged`` at the highest threshold that catches at least ``tpr`` of the positives."""
        first = np.searchsorted(self.caught, np.ceil(tpr * self.caught[-1] - 1e-9))
        return float(self.flagged[first] / self.flagged[-1])


def _from_below(cumulative: np.ndarray) -> np.ndarray:
    return (cumulative[-1] - np.concatenate([[0], cumulative[:-1]]))[::-1]


def threshold_index(
    scores_in: np.ndarray, scores_ood: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """For each image the index of its score among the distinct scores in descending order, and how many there are."""
    values, index = np.unique(np.concatenate([scores_in, scores_ood]), return_inverse=True)
    index = len(values) - 1 - index
    return index[: len(scores_in)], index[len(scores_in) :], len(values)


def counts(scores_in: np.ndarray, scores_ood: np.ndarray) -> Counts:
    """Cumulative counts of both classes over the distinct scores."""
    at_in, at_ood, n = threshold_index(*checked(scores_in, scores_ood))
    return Counts(
        np.bincount(at_in, minlength=n).cumsum(), np.bincount(at_ood, minlength=n).cumsum()
    )


def area_under_roc(scores_in: np.ndarray, scores_ood: np.ndarray) -> float:
    """Probability that an OOD image scores higher than an in-dist one, ties counting one half.

    ``AUROC = #{(i, j): s_j > s_i}/(n·m) + ½·#{(i, j): s_j = s_i}/(n·m)``; below ½ the detector is worse than chance.

    >>> import numpy as np
    >>> area_under_roc(np.array([0., 1.]), np.array([1., 2.]))
    0.875
    """
    scores_in, scores_ood = checked(scores_in, scores_ood)
    order = np.sort(scores_in)
    below = (
        np.searchsorted(order, scores_ood, "left").sum()
        + np.searchsorted(order, scores_ood, "right").sum()
    )
    return float(below / (2 * len(scores_in) * len(scores_ood)))


def aupr(scores_in: np.ndarray, scores_ood: np.ndarray, positive: str = "ood") -> float:
    """Area under precision and recall as average precision; ``positive`` is ``"ood"`` or ``"in"``.

    Depends on the base rate of the positive class, which a constant score attains exactly.
    """
    curve = counts(scores_in, scores_ood)
    return (curve if positive == "ood" else curve.swapped()).average_precision()


def fpr_at_tpr(
    scores_in: np.ndarray, scores_ood: np.ndarray, tpr: float = 0.95, positive: str = "ood"
) -> float:
    """False-positive rate at the strictest threshold whose true-positive rate is at least ``tpr``.

    ``positive="ood"``: in-dist images flagged when ``tpr`` of OOD is caught. ``positive="in"``: OOD images accepted when
    ``tpr`` of in-dist is accepted.
    """
    curve = counts(scores_in, scores_ood)
    return (curve if positive == "ood" else curve.swapped()).fpr_at_tpr(tpr)
