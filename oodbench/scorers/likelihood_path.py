"""Scorers of the norms along a VAE's way from an image to its latents and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import Standard
from oodbench.scorers.outliers import Covariance, Tails

PATH = "the Likelihood Path principle, arXiv:2401.04933, from the paper"
LEAST = 20
"""Reference images without which neither tails nor a covariance are told."""


@dataclass(frozen=True)
class Decorrelated:
    """Columns brought to N(0, 1) each by their quantiles over the reference, and decorrelated with the least change.

    The second is ZCA-cor (Kessy et al., The American Statistician 2018): the inverse root of the correlation matrix.
    """

    kept: np.ndarray
    quantiles: Any
    rotation: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray) -> Decorrelated:
        from sklearn.preprocessing import QuantileTransformer

        kept = Standard.of(reference).kept
        # where there are more images than these quantiles it interpolates; no subset is drawn
        count = min(len(reference), 1000)
        quantiles = QuantileTransformer(
            n_quantiles=count, output_distribution="normal", subsample=None
        )
        normal = quantiles.fit_transform(reference[:, kept])
        variances, directions = np.linalg.eigh(np.atleast_2d(np.corrcoef(normal.T)))
        return cls(kept, quantiles, directions / np.sqrt(variances) @ directions.T)

    def __call__(self, table: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.quantiles.transform(table[:, self.kept]) @ self.rotation
        return found


@register_scorer("likelihood-path-copod", cite=PATH, least_reference=LEAST, groups="mean of scores")
class PathCopod:
    """COPOD of ``‖x − x̂‖``, ``‖µ_z‖`` and ``‖σ_z‖`` after a quantile transform and decorrelation on the reference.

    Plain L2 norms, as in the source's Table 2; those of its Table 1 are pairs of other norms, which it does not name.
    """

    def fit(
        self, path_error: np.ndarray, path_mean_norm: np.ndarray, path_std_norm: np.ndarray
    ) -> tuple[Decorrelated, Tails]:
        table = np.stack([path_error, path_mean_norm, path_std_norm], 1)
        decorrelated = Decorrelated.of(table)
        return decorrelated, Tails.of(decorrelated(table))

    def score(
        self, state: tuple[Decorrelated, Tails], path_error: np.ndarray, path_mean_norm: np.ndarray,
        path_std_norm: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        decorrelated, tails = state
        return tails.score(decorrelated(np.stack([path_error, path_mean_norm, path_std_norm], 1)))


@register_scorer(
    "likelihood-path-mahalanobis", cite=PATH, least_reference=LEAST, groups="mean of scores"
)
class PathMahalanobis:
    """Squared Mahalanobis distance of ``‖x − x̂‖``, ``‖µ_z‖`` and ``‖σ_z‖`` from the reference."""

    def fit(
        self, path_error: np.ndarray, path_mean_norm: np.ndarray, path_std_norm: np.ndarray
    ) -> Covariance:
        return Covariance.of(np.stack([path_error, path_mean_norm, path_std_norm], 1))

    def score(
        self, covariance: Covariance, path_error: np.ndarray, path_mean_norm: np.ndarray, path_std_norm: np.ndarray
    ) -> np.ndarray:  # fmt: skip
        return covariance.score(np.stack([path_error, path_mean_norm, path_std_norm], 1))
