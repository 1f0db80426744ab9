"""Reference scorers with labels: they read a classifier, and are ranked apart from those that read a density model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import CHUNK

LEAST_OF_COVARIANCE = 50
"""Reference images without which no covariance of features is estimated."""
NEIGHBOUR = 5
"""The neighbour whose distance counts, of some hundred to some thousand reference images."""
SMALLEST_VARIANCE = 1e-10
"""Share of the largest variance below which a direction is taken as constant: a feature that never responds."""


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """``log Σ_k exp(logit_k)``, ``(N,)``, without overflow."""
    largest = logits.max(1)
    found: np.ndarray = largest + np.log(np.exp(logits - largest[:, None]).sum(1))
    return found


@register_scorer("msp", cite="Hendrycks & Gimpel, ICLR 2017, arXiv:1610.02136")
def maximum_softmax_probability(logits: np.ndarray) -> np.ndarray:
    """``−max_k log softmax(logits)_k``: the maximum softmax probability in nats, which keeps its order near 1."""
    return _log_sum_exp(logits) - logits.max(1)


@register_scorer("energy", cite="Liu et al., NeurIPS 2020, arXiv:2010.03759")
def energy(logits: np.ndarray) -> np.ndarray:
    """``−log Σ_k exp(logit_k)``: the energy at temperature 1, in nats."""
    return -_log_sum_exp(logits)


@dataclass(frozen=True)
class ClassMeans:
    """Means of classes ``(classes, K)``, and a matrix ``(K, K)`` that makes their shared covariance the identity."""

    means: np.ndarray
    whitening: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, classes: np.ndarray) -> ClassMeans:
        known, place = np.unique(classes, return_inverse=True)
        means = np.stack([features[classes == one].mean(0) for one in known])
        variances, directions = np.linalg.eigh(np.cov((features - means[place]).T, bias=True))
        kept = variances > SMALLEST_VARIANCE * variances[-1]
        return cls(means, directions[:, kept] / np.sqrt(variances[kept]))

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest mean, ``(N,)``."""
        x, means = features @ self.whitening, self.means @ self.whitening
        return np.min([((x - mean) ** 2).sum(1) for mean in means], 0)


@register_scorer(
    "mahalanobis-features",
    cite="Lee et al., NeurIPS 2018, arXiv:1807.03888",
    least_reference=LEAST_OF_COVARIANCE,
)
class MahalanobisFeatures:
    """Squared Mahalanobis distance of the features to the nearest class mean, with one covariance for all classes.

    Means and covariance are those of `ref` by *predicted* class, so that no label of `ref` is read; directions in which no
    feature of `ref` varies are left out. The source takes the true classes of the training images.
    """

    def fit(self, logits: np.ndarray, features: np.ndarray) -> ClassMeans:
        return ClassMeans.of(features, logits.argmax(1))

    def score(self, fitted: ClassMeans, features: np.ndarray) -> np.ndarray:
        return fitted.nearest(features)


def _normalised(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    found: np.ndarray = features / np.maximum(norm, np.finfo(float).tiny)
    return found


@register_scorer(
    "knn-features",
    cite="Sun et al., ICML 2022, arXiv:2204.06507",
    least_reference=NEIGHBOUR,
)
class NeighbourFeatures:
    """Euclidean distance of the features, divided by their norm, to the fifth nearest such features of `ref`."""

    def fit(self, features: np.ndarray) -> np.ndarray:
        return _normalised(features)

    def score(self, reference: np.ndarray, features: np.ndarray) -> np.ndarray:
        own = _normalised(features)
        rows = max(1, CHUNK // len(reference))
        starts = range(0, len(own), rows)
        parts = [_fifth_distance(own[start : start + rows], reference) for start in starts]
        return np.concatenate(parts)


def _fifth_distance(own: np.ndarray, reference: np.ndarray) -> np.ndarray:
    norms = (own**2).sum(1)[:, None] + (reference**2).sum(1)
    squares = np.maximum(norms - 2 * own @ reference.T, 0)
    nearest = np.argpartition(squares, NEIGHBOUR - 1, axis=1)[:, :NEIGHBOUR]
    # the squares cancel where neighbours are close: the few distances that count are taken of differences
    gaps = np.linalg.norm(own[:, None] - reference[nearest], axis=2)
    found: np.ndarray = gaps.max(1)
    return found
