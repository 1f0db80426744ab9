"""Scorers of diffusion models that ask about single noise levels, or about one number of the whole path."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import KernelDensity

LEAST = 20
"""Reference images without which no density is estimated."""
CHANGE_SQUARED = 4
"""Of ``path_moments``: the squared change of ε̂ a step, summed over pixels and times."""


@register_scorer(
    "diffpath-1d", cite="Heng et al., NeurIPS 2024, arXiv:2406.11881", least_reference=LEAST
)
class DiffPathNorm:
    """Negative log-density, by a KDE, of ``‖dε̂/dt‖`` over all pixels and times on the way to noise.

    Scott's bandwidth, where the authors' code has 5 in the units of its network.
    """

    def fit(self, path_moments: np.ndarray) -> KernelDensity:
        return KernelDensity.of(np.sqrt(path_moments[:, CHANGE_SQUARED]))

    def score(self, kde: KernelDensity, path_moments: np.ndarray) -> np.ndarray:
        return -kde.log_density(np.sqrt(path_moments[:, CHANGE_SQUARED]))
