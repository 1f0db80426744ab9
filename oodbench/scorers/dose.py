"""Density of states estimation: how dense the reference images are where an image's statistics lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import KernelDensity, Standard

MORNINGSTAR = "Morningstar et al., AISTATS 2021, arXiv:2006.09273"
LEAST = 20
"""Reference images without which no density is estimated."""


@dataclass(frozen=True)
class KernelSum:
    """A kernel density estimate of each statistic that varies over the reference images."""

    standard: Standard
    estimates: list[KernelDensity]

    @classmethod
    def of(cls, reference: np.ndarray) -> KernelSum:
        standard = Standard.of(reference)
        return cls(standard, [KernelDensity.of(column) for column in standard(reference).T])

    def score(self, table: np.ndarray) -> np.ndarray:
        """``−Σ_j log p_KDE,j(T_j(x))``, up to a constant."""
        columns = self.standard(table).T
        logs = [
            kde.log_density(column) for kde, column in zip(self.estimates, columns, strict=True)
        ]
        return -np.sum(logs, 0)


@dataclass(frozen=True)
class OneClass:
    """A one-class support vector machine on the standardised statistics."""

    standard: Standard
    machine: Any

    @classmethod
    def of(cls, reference: np.ndarray) -> OneClass:
        from sklearn.svm import OneClassSVM

        standard = Standard.of(reference)
        return cls(
            standard, OneClassSVM(kernel="rbf", gamma="scale", nu=0.1).fit(standard(reference))
        )

    def score(self, table: np.ndarray) -> np.ndarray:
        """Negative signed distance to the machine's boundary."""
        return -np.asarray(self.machine.decision_function(self.standard(table)))


DensityOfStates = KernelSum | OneClass


class OfFlow:
    """An estimate over a flow's log p(x), its latent term −½‖z‖² and its whole volume."""

    estimate: ClassVar[type[DensityOfStates]]

    def fit(
        self, log_prob: np.ndarray, latent_term: np.ndarray, prior_volume: np.ndarray,
        log_det: np.ndarray,
    ) -> DensityOfStates:  # fmt: skip
        return self.estimate.of(np.stack([log_prob, latent_term, prior_volume + log_det], 1))

    def score(
        self, state: DensityOfStates, log_prob: np.ndarray, latent_term: np.ndarray,
        prior_volume: np.ndarray, log_det: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        return state.score(np.stack([log_prob, latent_term, prior_volume + log_det], 1))


class OfVae:
    """An estimate over a VAE's statistics."""

    estimate: ClassVar[type[DensityOfStates]]

    def fit(
        self, log_prob: np.ndarray, reconstruction: np.ndarray, kl: np.ndarray, posterior_entropy: np.ndarray,
        prior_cross_entropy: np.ndarray,
    ) -> DensityOfStates:  # fmt: skip
        columns = log_prob, reconstruction, kl, posterior_entropy, prior_cross_entropy
        return self.estimate.of(np.stack(columns, 1))

    def score(
        self, state: DensityOfStates, log_prob: np.ndarray, reconstruction: np.ndarray, kl: np.ndarray,
        posterior_entropy: np.ndarray, prior_cross_entropy: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        columns = log_prob, reconstruction, kl, posterior_entropy, prior_cross_entropy
        return state.score(np.stack(columns, 1))


@register_scorer("dose-kde", cite=MORNINGSTAR, least_reference=LEAST, groups="mean of scores")
class DoseKde(OfFlow):
    """Negative log-density, by a KDE of each, of a flow's ``log p(x)``, ``−½‖z‖²`` and volume, summed.

    z is standardised by the prior and the volume is ``−Σ log σ + log|det|``: with the fixed N(0, I) of the source these are
    its ``log p(z)`` and ``log|det|`` up to a constant; a learned prior's volume would otherwise hide in ``log p(z)``.
    """

    estimate = KernelSum


@register_scorer("dose-svm", cite=MORNINGSTAR, least_reference=LEAST, groups="mean of scores")
class DoseSvm(OfFlow):
    """Distance to the outside of a one-class SVM over a flow's ``log p(x)``, ``−½‖z‖²`` and volume ``−Σ log σ + log|det|``."""

    estimate = OneClass


@register_scorer("dose-kde-vae", cite=MORNINGSTAR, least_reference=LEAST, groups="mean of scores")
class DoseKdeVae(OfVae):
    """Negative log-density, by a KDE of each, of a VAE's bound, distortion, KL, entropy and cross-entropy, summed."""

    estimate = KernelSum


@register_scorer("dose-svm-vae", cite=MORNINGSTAR, least_reference=LEAST, groups="mean of scores")
class DoseSvmVae(OfVae):
    """Distance to the outside of a one-class SVM over a VAE's bound, distortion, KL, entropy and cross-entropy."""

    estimate = OneClass
