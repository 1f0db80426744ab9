"""Tests of a group of images as one: whether its projections are distributed as those of in-dist images, or as N(0, 1).

A group has columns ``(G, M, 50)``: of G groups, M images each, 50 projections. A single image is a group of one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from oodbench.registry import register_scorer

JIANG = "Jiang, Sun, Yu, ICLR 2022, from the paper"
KLOD = "after the KLOD baseline of Jiang, Sun, Yu, ICLR 2022 (arXiv:2002.03328); estimator ours"
MMD = "after Nalisnick et al., 2019, arXiv:1906.02994 (Gretton et al., JMLR 2012); kernel and reference ours"
RIDGE = 1e-6
"""Added to a group's variances, which are 0 of a single image."""
POINTS = 500
"""Reference images that a group is compared with by its kernel distance."""
CHUNK = 2**22
"""Numbers at once in a table of groups by reference images."""


def ks_from_normal(projections: np.ndarray) -> np.ndarray:
    """``sup |F_M − Φ|`` along each direction, the mean over directions: ``(G, M, K) -> (G,)``."""
    expected = ndtr(np.sort(projections, 1))
    steps = np.arange(projections.shape[1] + 1)[:, None] / projections.shape[1]
    found: np.ndarray = np.maximum(steps[1:] - expected, expected - steps[:-1]).max(1).mean(1)
    return found


def ks_from_reference(projections: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """``sup |F_M − F_ref|`` along each direction, the mean over directions; ``ordered`` ``(N, K)`` holds the sorted reference."""
    along = [ks_of_two(projections[:, :, k], ordered[:, k]) for k in range(ordered.shape[1])]
    found: np.ndarray = np.mean(along, 0)
    return found


def ks_of_two(groups: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """The two-sample Kolmogorov–Smirnov distance of each group ``(G, M)`` from one sorted sample.

    Between two images of a group only the reference's distribution moves, so that the largest distance is at one of them, or just
    before it.
    """
    at, before = (
        np.searchsorted(ordered, groups, side) / len(ordered) for side in ("right", "left")
    )
    own_at = (groups[:, :, None] >= groups[:, None, :]).mean(2)
    own_before = (groups[:, :, None] > groups[:, None, :]).mean(2)
    found: np.ndarray = np.maximum(np.abs(own_at - at), np.abs(own_before - before)).max(1)
    return found


@register_scorer("god1ks", cite=JIANG, groups="own test")
class OneSample:
    """Kolmogorov–Smirnov distance of a group's z from N(0, 1) along 50 random directions, averaged."""

    def score(self, projections: np.ndarray) -> np.ndarray:
        return self.score_groups(projections[:, None])

    def score_groups(self, projections: np.ndarray) -> np.ndarray:
        return ks_from_normal(projections)


@register_scorer("god2ks", cite=f"{JIANG}, there against training images", groups="own test")
class TwoSample:
    """Kolmogorov–Smirnov distance of a group's z from that of reference images along 50 random directions, averaged."""

    def fit(self, projections: np.ndarray) -> np.ndarray:
        return np.sort(projections, 0)

    def score(self, ordered: np.ndarray, projections: np.ndarray) -> np.ndarray:
        return self.score_groups(ordered, projections[:, None])

    def score_groups(self, ordered: np.ndarray, projections: np.ndarray) -> np.ndarray:
        return ks_from_reference(projections, ordered)


@register_scorer("god2ks-pixels", cite=f"{JIANG}, without a model", groups="own test")
class TwoSamplePixels:
    """Kolmogorov–Smirnov distance of a group's pixels from those of reference images along 50 random directions, averaged."""

    def fit(self, pixel_projections: np.ndarray) -> np.ndarray:
        return np.sort(pixel_projections, 0)

    def score(self, ordered: np.ndarray, pixel_projections: np.ndarray) -> np.ndarray:
        return self.score_groups(ordered, pixel_projections[:, None])

    def score_groups(self, ordered: np.ndarray, pixel_projections: np.ndarray) -> np.ndarray:
        return ks_from_reference(pixel_projections, ordered)


@register_scorer("klod-diagonal", cite=KLOD, groups="own test")
class KlodDiagonal:
    """Divergence of a Gaussian fitted to a group's z from N(0, 1), ``½(s² + m² − 1 − ln s²)``, averaged over 50 directions."""

    def score(self, projections: np.ndarray) -> np.ndarray:
        return self.score_groups(projections[:, None])

    def score_groups(self, projections: np.ndarray) -> np.ndarray:
        mean, variance = projections.mean(1), projections.var(1) + RIDGE
        found: np.ndarray = 0.5 * (variance + mean**2 - 1 - np.log(variance)).mean(1)
        return found


class Kernel(NamedTuple):
    """Reference points ``(N, K)``, the kernel's width ``h``, and the mean of ``exp(−d²/h)`` over pairs of them."""

    points: np.ndarray
    width: float
    within: float


@register_scorer("mmd", cite=MMD, least_reference=20, groups="own test")
class MeanDiscrepancy:
    """Unbiased squared maximum mean discrepancy of a group's z, along 50 random directions, from 500 reference images.

    The kernel is ``exp(−d²/h)``, h the median squared distance within the reference. Of a single image there are no pairs: their
    term is left out.
    """

    def fit(self, projections: np.ndarray) -> Kernel:
        from scipy.spatial.distance import pdist

        points = projections[:POINTS]
        squares = pdist(points, "sqeuclidean")
        width = float(np.median(squares))
        return Kernel(points, width, float(np.exp(-squares / width).mean()))

    def score(self, kernel: Kernel, projections: np.ndarray) -> np.ndarray:
        return self.score_groups(kernel, projections[:, None])

    def score_groups(self, kernel: Kernel, projections: np.ndarray) -> np.ndarray:
        together = max(1, CHUNK // (projections.shape[1] * len(kernel.points)))
        starts = range(0, len(projections), together)
        parts = [self._of(kernel, projections[start : start + together]) for start in starts]
        return np.concatenate(parts)

    def _of(self, kernel: Kernel, groups: np.ndarray) -> np.ndarray:
        across = np.exp(-_squared_distances(groups, kernel.points) / kernel.width).mean((1, 2))
        found: np.ndarray = kernel.within - 2 * across
        size = groups.shape[1]
        if size > 1:
            own = ((groups[:, :, None] - groups[:, None]) ** 2).sum(3)
            pairs = np.exp(-own / kernel.width).sum((1, 2)) - size
            found = found + pairs / (size * (size - 1))
        return found


def _squared_distances(groups: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``(G, M, K)`` against ``(N, K)``: ``(G, M, N)``."""
    from scipy.spatial.distance import cdist

    flat = cdist(groups.reshape(-1, groups.shape[2]), points, "sqeuclidean")
    return flat.reshape(*groups.shape[:2], len(points))
