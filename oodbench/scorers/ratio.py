"""Scorers that compare the model with other models: a background model, or an ensemble."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer


@register_scorer("likelihood-ratio", cite="Ren et al., NeurIPS 2019, arXiv:1906.02845")
def likelihood_ratio(log_prob: np.ndarray, background_log_prob: np.ndarray) -> np.ndarray:
    """Negative log-ratio to a background model trained on mutated images, ``log p₀(x) − log p(x)``, in nats."""
    return background_log_prob - log_prob


@register_scorer("waic", cite="Choi, Jang, Alemi 2018, arXiv:1810.01392")
def waic(ensemble_log_prob: np.ndarray) -> np.ndarray:
    """Negative Watanabe–Akaike criterion of an ensemble, ``Var_k[log p_k(x)] − E_k[log p_k(x)]``, in nats.

    The variance over the K members is their mean squared deviation, divided by K.
    """
    return ensemble_log_prob.var(1) - ensemble_log_prob.mean(1)
