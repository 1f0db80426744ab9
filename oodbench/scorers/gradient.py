"""Scorers from gradients of log p, and their combination with typicality."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import Standard, tail_probability

FLOOR = 1e-8
"""Added to p-values before their logarithm, as in the authors' code."""


@register_scorer("approximate-mass", cite="Grathwohl et al., ICLR 2020, arXiv:1912.03263")
def approximate_mass(input_gradient_norm: np.ndarray) -> np.ndarray:
    """Norm of the gradient with respect to the input, ``‖∇_x log p(x)‖₂`` over all pixels and channels, in nats."""
    return input_gradient_norm


@register_scorer("gradient-norm", cite="the baseline of Dauncey et al., TMLR 2024")
def gradient_norm(layer_gradient_norms: np.ndarray) -> np.ndarray:
    """Logarithm of ``‖∇_θ log p(x)‖²`` over all parameters."""
    largest = layer_gradient_norms.max(1)
    found: np.ndarray = np.log(np.exp(layer_gradient_norms - largest[:, None]).sum(1)) + largest
    return found


@register_scorer("gradient-layers", cite="Dauncey et al., TMLR 2024", least_reference=10)
class GradientLayers:
    """Negative log-density, up to a constant, of ``log ‖∇_θl log p(x)‖²`` under one Gaussian a layer, summed."""

    def fit(self, layer_gradient_norms: np.ndarray) -> Standard:
        return Standard.of(layer_gradient_norms)

    def score(self, standard: Standard, layer_gradient_norms: np.ndarray) -> np.ndarray:
        found: np.ndarray = 0.5 * (standard(layer_gradient_norms) ** 2).sum(1)
        return found


class Tests(NamedTuple):
    """The reference values of both tests."""

    mean: float
    typicality: np.ndarray
    rao_score: np.ndarray


@register_scorer(
    "fisher-combination",
    cite="Bergamin et al., AISTATS 2022, arXiv:2203.01097",
    least_reference=40,
)
class FisherCombination:
    """Fisher's ``−2 (ln p₁ + ln p₂)`` of the p-values of typicality and of the score statistic.

    p is the share of in-dist reference images beyond the image. The first half of the reference gives the mean
    of log p, the second half the distributions.
    """

    def fit(self, log_prob: np.ndarray, rao_score: np.ndarray) -> Tests:
        half = len(log_prob) // 2
        mean = float(log_prob[:half].mean())
        return Tests(mean, np.abs(log_prob[half:] - mean), rao_score[half:])

    def score(self, tests: Tests, log_prob: np.ndarray, rao_score: np.ndarray) -> np.ndarray:
        of_typicality = tail_probability(tests.typicality, np.abs(log_prob - tests.mean))
        of_score = tail_probability(tests.rao_score, rao_score)
        found: np.ndarray = -2 * (np.log(of_typicality + FLOOR) + np.log(of_score + FLOOR))
        return found


@register_scorer("lid", cite="Kamkari et al., ICML 2024, arXiv:2403.18910")
class LocalDimension:
    """Negative local intrinsic dimension, ``−#{i: σ_i > τ}`` over the singular values of the flow's generative map.

    τ is such that reference images have half of all dimensions on average, where the paper takes a model-free estimate.
    High likelihood with a *low* dimension marks OOD in the paper, by two thresholds; this is the dimension alone.
    """

    def fit(self, log_singular_values: np.ndarray) -> float:
        return float(np.median(log_singular_values))

    def score(self, threshold: float, log_singular_values: np.ndarray) -> np.ndarray:
        found: np.ndarray = -(log_singular_values > threshold).sum(1).astype(np.float64)
        return found
