"""Density of states estimation: how dense the reference images are where an image's statistics lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import KernelDensity, Standard, enough

MORNINGSTAR = "Morningstar et al., AISTATS 2021, arXiv:2006.09273"
LEAST = 20
Estimate = tuple[Standard, list[KernelDensity]]


def fit_kde(*columns: np.ndarray) -> Estimate:
    """A kernel density estimate of each statistic that varies over the reference images."""
    table = np.stack(columns, 1)
    enough(table, LEAST, "a kernel density estimate")
    standard = Standard.of(table)
    return standard, [KernelDensity.of(column) for column in standard(table).T]


def score_kde(state: Estimate, *columns: np.ndarray) -> np.ndarray:
    """``−Σ_j log p_KDE,j(T_j(x))``, up to a constant."""
    standard, estimates = state
    table = standard(np.stack(columns, 1))
    logs = [kde.log_density(column) for kde, column in zip(estimates, table.T, strict=True)]
    return -np.sum(logs, 0)


def fit_svm(*columns: np.ndarray) -> tuple[Standard, Any]:
    """A one-class support vector machine on the standardised statistics."""
    from sklearn.svm import OneClassSVM

    table = np.stack(columns, 1)
    enough(table, LEAST, "a one-class SVM")
    standard = Standard.of(table)
    return standard, OneClassSVM(kernel="rbf", gamma="scale", nu=0.1).fit(standard(table))


def score_svm(state: tuple[Standard, Any], *columns: np.ndarray) -> np.ndarray:
    """Negative signed distance to the machine's boundary."""
    standard, machine = state
    return -np.asarray(machine.decision_function(standard(np.stack(columns, 1))))


@register_scorer("dose-kde", cite=MORNINGSTAR)
class DoseKde:
    """Negative log-density, by a KDE of each, of a flow's ``log p(x)``, ``log p(z)`` and ``log|det|``, summed."""

    def fit(self, log_prob: np.ndarray, log_prob_z: np.ndarray, log_det: np.ndarray) -> Estimate:
        return fit_kde(log_prob, log_prob_z, log_det)

    def score(self, state: Estimate, log_prob: np.ndarray, log_prob_z: np.ndarray, log_det: np.ndarray) -> np.ndarray:
        return score_kde(state, log_prob, log_prob_z, log_det)


@register_scorer("dose-svm", cite=MORNINGSTAR)
class DoseSvm:
    """Distance to the outside of a one-class SVM over a flow's ``log p(x)``, ``log p(z)`` and ``log|det|``."""

    def fit(self, log_prob: np.ndarray, log_prob_z: np.ndarray, log_det: np.ndarray) -> Any:
        return fit_svm(log_prob, log_prob_z, log_det)

    def score(self, state: Any, log_prob: np.ndarray, log_prob_z: np.ndarray, log_det: np.ndarray) -> np.ndarray:
        return score_svm(state, log_prob, log_prob_z, log_det)


@register_scorer("dose-kde-vae", cite=MORNINGSTAR)
class DoseKdeVae:
    """Negative log-density, by a KDE of each, of a VAE's bound, distortion, KL, entropy and cross-entropy, summed."""

    def fit(
        self, log_prob: np.ndarray, reconstruction: np.ndarray, kl: np.ndarray, posterior_entropy: np.ndarray,
        prior_cross_entropy: np.ndarray,
    ) -> Estimate:  # fmt: skip
        return fit_kde(log_prob, reconstruction, kl, posterior_entropy, prior_cross_entropy)

    def score(
        self, state: Estimate, log_prob: np.ndarray, reconstruction: np.ndarray, kl: np.ndarray,
        posterior_entropy: np.ndarray, prior_cross_entropy: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        return score_kde(state, log_prob, reconstruction, kl, posterior_entropy, prior_cross_entropy)


@register_scorer("dose-svm-vae", cite=MORNINGSTAR)
class DoseSvmVae:
    """Distance to the outside of a one-class SVM over a VAE's bound, distortion, KL, entropy and cross-entropy."""

    def fit(
        self, log_prob: np.ndarray, reconstruction: np.ndarray, kl: np.ndarray, posterior_entropy: np.ndarray,
        prior_cross_entropy: np.ndarray,
    ) -> Any:  # fmt: skip
        return fit_svm(log_prob, reconstruction, kl, posterior_entropy, prior_cross_entropy)

    def score(
        self, state: Any, log_prob: np.ndarray, reconstruction: np.ndarray, kl: np.ndarray,
        posterior_entropy: np.ndarray, prior_cross_entropy: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        return score_svm(state, log_prob, reconstruction, kl, posterior_entropy, prior_cross_entropy)
