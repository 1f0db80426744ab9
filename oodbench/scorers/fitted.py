"""What scorers fit to reference columns: kernel density estimates, mixtures, neighbours, empirical distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from oodbench.errors import ScorerError

LEAST_OF_MIXTURE = 50
"""Reference images without which no Gaussian mixture is fitted."""
CHUNK = 2**22
"""Numbers at once in a table of test by reference images."""


@dataclass(frozen=True)
class Standard:
    """Columns ``(N, K)`` brought to mean 0 and standard deviation 1 over the reference; constant ones are left out."""

    mean: np.ndarray
    std: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray) -> Standard:
        mean, std = reference.mean(0), reference.std(0)
        kept = std > 1e-9 * np.maximum(np.abs(mean), 1e-300)
        if not kept.any():
            raise ScorerError(
                "the statistics are constant over the in-dist reference images; nothing can be fitted to them"
            )
        return cls(mean[kept], std[kept], kept)

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        found: np.ndarray = (columns[:, self.kept] - self.mean) / self.std
        return found


@dataclass(frozen=True)
class KernelDensity:
    """A one-dimensional Gaussian kernel density estimate with Scott's bandwidth, ``σ·N^(−1/5)``.

    Logarithms throughout, so that far images have a finite, and ever lower, log-density.
    """

    points: np.ndarray
    bandwidth: float

    @classmethod
    def of(cls, reference: np.ndarray) -> KernelDensity:
        return cls(reference, float(reference.std(ddof=1) * len(reference) ** -0.2))

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """``log (1/N) Σ_i N(value; point_i, bandwidth²)``."""
        rows = max(1, CHUNK // len(self.points))
        parts = [self._of(values[start : start + rows]) for start in range(0, len(values), rows)]
        return np.concatenate(parts)

    def _of(self, values: np.ndarray) -> np.ndarray:
        exponents = -0.5 * ((values[:, None] - self.points) / self.bandwidth) ** 2
        largest = exponents.max(1)
        total = np.log(np.exp(exponents - largest[:, None]).mean(1)) + largest
        found: np.ndarray = total - np.log(self.bandwidth * np.sqrt(2 * np.pi))
        return found


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture over standardised columns; its size is the one with the best likelihood in five folds."""

    standard: Standard
    mixture: Any

    @classmethod
    def of(cls, reference: np.ndarray, sizes: tuple[int, ...], kinds: tuple[str, ...]) -> Mixture:
        from sklearn.mixture import GaussianMixture
        from sklearn.model_selection import GridSearchCV

        standard = Standard.of(reference)
        grid = {"n_components": list(sizes), "covariance_type": list(kinds)}
        plain = GaussianMixture(reg_covar=1e-4, max_iter=200, random_state=0)
        return cls(
            standard, GridSearchCV(plain, grid, cv=5).fit(standard(reference)).best_estimator_
        )

    def negative_log_density(self, columns: np.ndarray) -> np.ndarray:
        """``−log p`` of each row."""
        return -np.asarray(self.mixture.score_samples(self.standard(columns)))


def tail_probability(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share of the reference that is larger than each value: ``1 − ECDF``."""
    return 1 - np.searchsorted(np.sort(reference), values, "right") / len(reference)


class TwoTests(NamedTuple):
    """The reference values of two tests, larger = more OOD in each."""

    first: np.ndarray
    second: np.ndarray

    def larger_rank(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The larger of both percentile ranks, the shares of reference values that are not above an image's own."""
        ranks = 1 - tail_probability(self.first, first), 1 - tail_probability(self.second, second)
        return np.maximum(*ranks)
