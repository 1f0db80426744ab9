"""AUROC, AUPR and FPR at a TPR, from the ranks of scores; ties are counted, nothing is interpolated.

The last two are computed from counts at the distinct scores, which is how the bootstrap resamples without sorting again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oodbench.errors import ScorerError
from oodbench.metrics.rooms import room, taken


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
    """Images at or above thresholds, from the strictest down, ``(replicates, thresholds)``.

    Thresholds are the distinct scores of the positive class, and others may stand between them: where no positive is
    gained, neither metric below changes. Arrays of a :class:`Ranking` are written over by its next counts.

    Attributes
    ----------
    gained : positives at the threshold
    caught : positives at or above it
    flagged : images of the other class at or above it
    negatives : images of the other class in all
    """

    gained: np.ndarray
    caught: np.ndarray
    flagged: np.ndarray
    negatives: int

    def average_precision(self) -> np.ndarray:
        """``Σ (R_k − R_{k−1})·P_k`` over distinct thresholds, ``(replicates,)``."""
        shape = self.caught.shape
        named = np.add(self.caught, self.flagged, out=room("named", shape, np.int32))
        np.maximum(named, 1, out=named)  # where nothing is named yet, nothing is gained
        precision = np.divide(self.caught, named, out=room("precision", shape, np.float64))
        precision *= self.gained
        found: np.ndarray = precision.sum(1) / self.caught[:, -1]
        return found

    def fpr_at_tpr(self, tpr: float) -> np.ndarray:
        """Rate of ``flagged`` at the highest threshold that catches at least ``tpr`` of the positives, ``(replicates,)``."""
        return self.rate_at(math.ceil(tpr * int(self.caught[0, -1]) - 1e-9))

    def rate_at(self, rank: int) -> np.ndarray:
        """Rate of ``flagged`` at the threshold of the positive of this rank, ``(replicates,)``; 0 above all, 1 below all."""
        if not 0 < rank <= self.caught[0, -1]:
            return np.full(len(self.caught), float(rank > 0))
        least = np.int32(rank)  # of the sums' own type: for any other, each search would copy them
        first = [caught.searchsorted(least) for caught in self.caught]
        found: np.ndarray = self.flagged[np.arange(len(first)), first] / self.negatives
        return found


class Ranking:
    """Both classes of scores, sorted once: how often each image is counted only reweights the thresholds.

    Raises
    ------
    ScorerError : an empty class, or NaN scores
    """

    def __init__(self, scores_in: np.ndarray, scores_ood: np.ndarray):
        scores_in, scores_ood = checked(scores_in, scores_ood)
        self.n_in, self.n_ood = len(scores_in), len(scores_ood)
        self._in = _Thresholds(scores_in, scores_ood)
        self._ood = _Thresholds(scores_ood, scores_in)

    def counts(
        self, times_in: np.ndarray | None = None, times_ood: np.ndarray | None = None
    ) -> Iterator[tuple[str, Counts]]:
        """``"ood"`` and ``"in"``, the positive class, with its counts: from the largest score down, and from the smallest up.

        Parameters
        ----------
        times_in, times_ood : how often each image is counted, uint8 ``(replicates, N)``; once by default
        """
        of_in, of_ood = (
            one.weighed(times, name)
            for one, times, name in ((self._in, times_in, "in"), (self._ood, times_ood, "ood"))
        )
        yield "ood", self._ood.from_above(of_ood, of_in.sums)
        yield "in", self._in.from_below(of_in, of_ood.sums)


class _Weighed(NamedTuple):
    """How often each image counts, from the largest score down, and the sums of that from zero on, int32."""

    times: np.ndarray
    sums: np.ndarray


class _Thresholds:
    """The distinct scores of one class from the largest down, and where they stand in both."""

    def __init__(self, own: np.ndarray, other: np.ndarray):
        self.n, self.negatives = len(own), len(other)
        self.order = np.argsort(own)[::-1].copy()
        ordered, rising = own[self.order], np.sort(other)
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        self.tied = len(starts) < self.n
        self.ends = np.concatenate([starts[1:], [self.n]])
        above, self.at_or_above = (
            len(other) - np.searchsorted(rising, ordered[starts], side)
            for side in ("right", "left")
        )
        # copies, since numpy would copy reversed views at each use
        self.starts_from_below, self.above_from_below = starts[::-1].copy(), above[::-1].copy()

    def weighed(self, times: np.ndarray | None, name: str) -> _Weighed:
        if times is None:
            times = np.ones((1, self.n), np.uint8)
        ordered = taken(times, self.order, f"times {name}")
        sums = room(f"sums {name}", (len(times), self.n + 1), np.int32)
        sums[:, 0] = 0
        np.cumsum(ordered, axis=1, dtype=np.int32, out=sums[:, 1:])
        return _Weighed(ordered, sums)

    def from_above(self, own: _Weighed, others: np.ndarray) -> Counts:
        """Counts with this class as the positive one."""
        flagged = taken(others, self.at_or_above, "flagged")
        if not self.tied:
            return Counts(own.times, own.sums[:, 1:], flagged, self.negatives)
        caught = taken(own.sums, self.ends, "caught")
        return Counts(_steps(caught), caught, flagged, self.negatives)

    def from_below(self, own: _Weighed, others: np.ndarray) -> Counts:
        """The same, counted from the smallest score up: what is not above a threshold."""
        flagged = taken(others, self.above_from_below, "flagged")
        np.subtract(self.negatives, flagged, out=flagged)
        if not self.tied:
            caught = room("caught", flagged.shape, np.int32)
            np.subtract(self.n, own.sums[:, -2::-1], out=caught)
            return Counts(own.times[:, ::-1], caught, flagged, self.negatives)
        caught = taken(own.sums, self.starts_from_below, "caught")
        np.subtract(self.n, caught, out=caught)
        return Counts(_steps(caught), caught, flagged, self.negatives)


def _steps(sums: np.ndarray) -> np.ndarray:
    """What each threshold adds to cumulative sums."""
    steps = room("gained", sums.shape, np.int32)
    steps[:, 0] = sums[:, 0]
    np.subtract(sums[:, 1:], sums[:, :-1], out=steps[:, 1:])
    return steps


def counts(scores_in: np.ndarray, scores_ood: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In-dist and OOD images at or above each distinct score of either class, from the largest down."""
    scores = checked(scores_in, scores_ood)
    values = np.unique(np.concatenate(scores))[::-1]
    of_in, of_ood = (len(one) - np.searchsorted(np.sort(one), values, "left") for one in scores)
    return of_in, of_ood


def area_under_roc(scores_in: np.ndarray, scores_ood: np.ndarray) -> float:
    """Probability that an OOD image scores higher than an in-dist one, ties counting one half.

    ``AUROC = #{(i, j): s_j > s_i}/(n·m) + ½·#{(i, j): s_j = s_i}/(n·m)``; below ½ the detector is worse than chance.

    >>> import numpy as np
    >>> area_under_roc(np.array([0., 1.]), np.array([1., 2.]))
    0.875
    """
    scores_in, scores_ood = checked(scores_in, scores_ood)
    below = twice_below(np.sort(scores_in), np.sort(scores_ood)).sum()
    return float(below / (2 * len(scores_in) * len(scores_ood)))


def twice_below(rising: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Twice the number of ``rising`` scores below each of some values; equal ones count once."""
    sides = (np.searchsorted(rising, values, side) for side in ("left", "right"))
    return np.add(*sides)


def aupr(scores_in: np.ndarray, scores_ood: np.ndarray, positive: str = "ood") -> float:
    """Area under precision and recall as average precision; ``positive`` is ``"ood"`` or ``"in"``.

    Depends on the base rate of the positive class, which a constant score attains exactly.
    """
    found = {side: one.average_precision() for side, one in Ranking(scores_in, scores_ood).counts()}
    return float(found[positive][0])


def fpr_at_tpr(
    scores_in: np.ndarray, scores_ood: np.ndarray, tpr: float = 0.95, positive: str = "ood"
) -> float:
    """False-positive rate at the strictest threshold whose true-positive rate is at least ``tpr``.

    ``positive="ood"``: in-dist images flagged when ``tpr`` of OOD is caught. ``positive="in"``: OOD images accepted when
    ``tpr`` of in-dist is accepted.
    """
    found = {side: one.fpr_at_tpr(tpr) for side, one in Ranking(scores_in, scores_ood).counts()}
    return float(found[positive][0])
