"""Outlier detection on columns that other scorers have measured: of a flow, of a VAE, and of any model beside a codec."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import LEAST_OF_MIXTURE, Mixture
from oodbench.scorers.outliers import Covariance, Tails, mixture_by_bic

COPOD = "COPOD, Li et al., ICDM 2020, arXiv:2009.09463, on the statistics of Morningstar et al., AISTATS 2021"
MAHALANOBIS = "Mahalanobis distance on the statistics of Morningstar et al., AISTATS 2021"
OSADA = "after Osada et al., AAAI 2024, arXiv:2402.10477, from the paper"
LEAST = 20
"""Reference images without which neither tails nor a covariance are told."""

Outliers = Tails | Covariance


class OfFlow:
    """Over a flow's −½‖z‖² and its volume ``−Σ log σ + log|det|``: log p(x) is their sum, and adds nothing."""

    estimate: ClassVar[type[Outliers]]

    def fit(
        self, latent_term: np.ndarray, prior_volume: np.ndarray, log_det: np.ndarray
    ) -> Outliers:
        return self.estimate.of(np.stack([latent_term, prior_volume + log_det], 1))

    def score(
        self, state: Outliers, latent_term: np.ndarray, prior_volume: np.ndarray, log_det: np.ndarray
    ) -> np.ndarray:  # fmt: skip
        return state.score(np.stack([latent_term, prior_volume + log_det], 1))


class OfVae:
    """Over a VAE's bound, distortion, entropy and cross-entropy: the KL is the difference of the last two, and adds nothing."""

    estimate: ClassVar[type[Outliers]]

    def fit(
        self, log_prob: np.ndarray, reconstruction: np.ndarray, posterior_entropy: np.ndarray,
        prior_cross_entropy: np.ndarray,
    ) -> Outliers:  # fmt: skip
        columns = log_prob, reconstruction, posterior_entropy, prior_cross_entropy
        return self.estimate.of(np.stack(columns, 1))

    def score(
        self, state: Outliers, log_prob: np.ndarray, reconstruction: np.ndarray, posterior_entropy: np.ndarray,
        prior_cross_entropy: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        columns = log_prob, reconstruction, posterior_entropy, prior_cross_entropy
        return state.score(np.stack(columns, 1))


@register_scorer("dose-copod", cite=COPOD, least_reference=LEAST, groups="mean of scores")
class DoseCopod(OfFlow):
    """How far in the empirical tails a flow's −½‖z‖² and volume lie, summed (COPOD); a constant volume is left out."""

    estimate = Tails


@register_scorer(
    "dose-mahalanobis", cite=MAHALANOBIS, least_reference=LEAST, groups="mean of scores"
)
class DoseMahalanobis(OfFlow):
    """Squared Mahalanobis distance of a flow's −½‖z‖² and volume from the reference."""

    estimate = Covariance


@register_scorer("dose-copod-vae", cite=COPOD, least_reference=LEAST, groups="mean of scores")
class DoseCopodVae(OfVae):
    """How far in the empirical tails a VAE's bound, distortion, entropy and cross-entropy lie, summed (COPOD)."""

    estimate = Tails


@register_scorer(
    "dose-mahalanobis-vae", cite=MAHALANOBIS, least_reference=LEAST, groups="mean of scores"
)
class DoseMahalanobisVae(OfVae):
    """Squared Mahalanobis distance of a VAE's bound, distortion, entropy and cross-entropy from the reference."""

    estimate = Covariance


@register_scorer(
    "osada-mixture", cite=OSADA, least_reference=LEAST_OF_MIXTURE, groups="mean of scores"
)
class Osada:
    """Negative log-density of ``(L(x), −log p(x))`` under a Gaussian mixture of one to five components, chosen by BIC.

    L is the length of the PNG file. Both are standardised over the reference, so that bits/dim and nats come to the same. The
    source's second variable, codec and mixture were not read; only its abstract was.
    """

    def fit(self, log_prob: np.ndarray, code_length_png: np.ndarray) -> Mixture:
        return mixture_by_bic(np.stack([code_length_png, -log_prob], 1))

    def score(
        self, mixture: Mixture, log_prob: np.ndarray, code_length_png: np.ndarray
    ) -> np.ndarray:
        return mixture.negative_log_density(np.stack([code_length_png, -log_prob], 1))


@register_scorer(
    "osada-mixture-latent", cite=OSADA, least_reference=LEAST_OF_MIXTURE, groups="mean of scores"
)
class OsadaLatent:
    """``osada-mixture`` with a flow's log p(z) = −½‖z‖², z standardised by the prior, in place of log p(x)."""

    def fit(self, latent_term: np.ndarray, code_length_png: np.ndarray) -> Mixture:
        return mixture_by_bic(np.stack([code_length_png, -latent_term], 1))

    def score(
        self, mixture: Mixture, latent_term: np.ndarray, code_length_png: np.ndarray
    ) -> np.ndarray:
        return mixture.negative_log_density(np.stack([code_length_png, -latent_term], 1))
