"""What outlier detection fits to a table of several columns: empirical tails, a covariance, a mixture of few components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from oodbench.scorers.fitted import Mixture, Standard

RESOLVED = 1e-10
"""Share of the largest variance below which a direction of standardised columns is rounding."""
COMPONENTS = range(1, 6)
"""Sizes among which the Bayesian information criterion chooses."""


@dataclass(frozen=True)
class Tails:
    """COPOD: how far in the tails of the reference's empirical distribution each column lies, summed (Li et al., ICDM 2020,
    arXiv:2009.09463).

    With ``L = −ln F(x)`` and ``R = −ln F(−x)`` of a column's lower and upper tail, it counts
    ``max(S, (L + R)/2)`` where S is L of a column skewed to the left, R of one skewed to the right and L + R of one that is not.
    ``F = (rank + 1)/(N + 1)`` over the reference, so that no tail is empty: what PyOD gives of the reference and that one image
    together (its skew the reference's alone). No image's score depends on others, as PyOD's does on all that it is given.
    """

    ordered: np.ndarray
    skew: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray) -> Tails:
        standard = Standard.of(reference)
        skew = np.sign((standard(reference) ** 3).mean(0))
        return cls(np.sort(reference[:, standard.kept], 0), skew, standard.kept)

    def score(self, table: np.ndarray) -> np.ndarray:
        """``Σ_d max(S_d, (L_d + R_d)/2)`` of each row."""
        columns = zip(table[:, self.kept].T, self.ordered.T, self.skew, strict=True)
        found: np.ndarray = np.sum([_of_column(*column) for column in columns], 0)
        return found


def _of_column(values: np.ndarray, ordered: np.ndarray, skew: float) -> np.ndarray:
    n = len(ordered)
    left = -np.log((np.searchsorted(ordered, values, "right") + 1) / (n + 1))
    right = -np.log((n - np.searchsorted(ordered, values, "left") + 1) / (n + 1))
    skewed = left * (skew <= 0) + right * (skew >= 0)
    found: np.ndarray = np.maximum(skewed, (left + right) / 2)
    return found


@dataclass(frozen=True)
class Covariance:
    """Mean and covariance of the reference's columns, as a whitening of standardised ones; constant directions are left out."""

    standard: Standard
    whitening: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray) -> Covariance:
        standard = Standard.of(reference)
        variances, directions = np.linalg.eigh(np.atleast_2d(np.cov(standard(reference).T, ddof=0)))
        real = variances > RESOLVED * variances[-1]
        return cls(standard, directions[:, real] / np.sqrt(variances[real]))

    def score(self, table: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of each row, ``(x − µ)ᵀ Σ⁻¹ (x − µ)``."""
        found: np.ndarray = ((self.standard(table) @ self.whitening) ** 2).sum(1)
        return found


def mixture_by_bic(reference: np.ndarray) -> Mixture:
    """The Gaussian mixture of one to five components over standardised columns with the least information criterion (BIC)."""
    from sklearn.mixture import GaussianMixture

    standard = Standard.of(reference)
    values = standard(reference)
    fitted = [GaussianMixture(size, random_state=0, n_init=3).fit(values) for size in COMPONENTS]
    return Mixture(standard, min(fitted, key=lambda one: one.bic(values)))
