"""Scorers that compare the model with a reference model."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer


@register_scorer("likelihood-ratio", cite="Ren et al., NeurIPS 2019, arXiv:1906.02845")
def likelihood_ratio(log_prob: np.ndarray, background_log_prob: np.ndarray) -> np.ndarray:
    """Negative log-ratio to a background model trained on mutated images, ``log p₀(x) − log p(x)``, in nats."""
    return background_log_prob - log_prob
