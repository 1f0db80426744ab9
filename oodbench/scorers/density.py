"""Scorers that look at the model's log-likelihood, or at a part of it, alone."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer


@register_scorer(
    "likelihood",
    cite="Bishop, IEE Proc. 1994; Nalisnick et al., ICLR 2019, arXiv:1810.09136",
    groups="mean of scores",
)
def likelihood(log_prob: np.ndarray) -> np.ndarray:
    """Negative log-likelihood, ``−log p(x)``, in nats."""
    return -log_prob


@register_scorer(
    "likelihood-two-sided",
    cite="as in the code of Wang et al. (thu-ml/ood-dgm), there about test images",
    groups="mean of columns",
)
class TwoSidedLikelihood:
    """Distance of ``log p(x)`` from its median over reference images, in nats."""

    def fit(self, log_prob: np.ndarray) -> float:
        return float(np.median(log_prob))

    def score(self, median: float, log_prob: np.ndarray) -> np.ndarray:
        return np.abs(log_prob - median)


@register_scorer(
    "typicality", cite="Nalisnick et al., 2019, arXiv:1906.02994", groups="mean of columns"
)
class Typicality:
    """Distance of ``−log p(x)`` from the entropy estimated on reference images, ``|−log p(x) − H|``, in nats.

    ``H`` is the mean of ``−log p`` over ``ref`` (held out, where the paper resubstitutes the training set: an over-fit
    model's training likelihoods are too high). For a group of M images ``log p`` is the group's mean.
    """

    def fit(self, log_prob: np.ndarray) -> float:
        return float(-log_prob.mean())

    def score(self, entropy: float, log_prob: np.ndarray) -> np.ndarray:
        return np.abs(-log_prob - entropy)


@register_scorer(
    "last-scale-likelihood",
    cite="Schirrmeister et al., NeurIPS 2020, arXiv:2006.10848",
    groups="mean of scores",
)
def last_scale(last_scale_log_prob: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of a multi-scale flow's last scale, ``−[log p(z_L) + its share of log|det|]``, in nats."""
    return -last_scale_log_prob
