"""Scorers of diffusion models that ask about single noise levels, or about one number of the whole path."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import KernelDensity, Standard

KEPT = 2
"""Noise levels of GEPC, those of the least variation."""
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


def silverman(reference: np.ndarray) -> KernelDensity:
    """A kernel density estimate with Silverman's bandwidth, ``.9·min(σ, IQR/1.34)·N^(−1/5)``."""
    low, high = np.quantile(reference, (0.25, 0.75))
    spread = min(reference.std(ddof=1), (high - low) / 1.34)
    return KernelDensity(reference, float(0.9 * spread * len(reference) ** -0.2))


class Levels(NamedTuple):
    """The noise levels that are kept, their weights, and the density of the reference at each."""

    kept: np.ndarray
    weights: np.ndarray
    densities: list[KernelDensity]


@register_scorer(
    "gepc", cite="GEPC, arXiv:2602.00191, after the authors' code", least_reference=LEAST
)
class Equivariance:
    """Negative log-density, by a KDE, of the equivariance gaps at the two of four noise levels where they vary least.

    A level weighs ``mean/σ`` over the reference, in parts of one. Levels and the share of pixels are those of the authors'
    CIFAR-10 for all in-dist sets; they choose others for SVHN and CelebA, and take a network trained on CelebA.
    """

    def fit(self, equivariance_gaps: np.ndarray) -> Levels:
        steadiness = equivariance_gaps.mean(0) / equivariance_gaps.std(0)
        kept = np.sort(np.argsort(-steadiness)[:KEPT])
        weights = steadiness[kept] / steadiness[kept].sum()
        return Levels(kept, weights, [silverman(column) for column in equivariance_gaps[:, kept].T])

    def score(self, levels: Levels, equivariance_gaps: np.ndarray) -> np.ndarray:
        columns = zip(levels.densities, equivariance_gaps[:, levels.kept].T, strict=True)
        logs = [density.log_density(column) for density, column in columns]
        found: np.ndarray = -(levels.weights @ np.stack(logs))
        return found


@register_scorer("scoped", cite="SCOPED, ICLR 2026, arXiv:2510.01456, from the paper", least_reference=LEAST)  # fmt: skip
class Scoped:
    """The larger, of two noise levels, negative log-density by a KDE of ``‖s‖²/tr ∇s``.

    Without the sign that the source applies to images, in an appendix that was not read; each in-dist set has its own model here,
    one of CelebA there.
    """

    def fit(self, score_trace_ratios: np.ndarray) -> list[KernelDensity]:
        return [silverman(column) for column in score_trace_ratios.T]

    def score(self, densities: list[KernelDensity], score_trace_ratios: np.ndarray) -> np.ndarray:
        columns = zip(densities, score_trace_ratios.T, strict=True)
        found: np.ndarray = np.max([-one.log_density(column) for one, column in columns], 0)
        return found


@register_scorer(
    "complexity-corrected-ratio",
    cite="Goodier & Campbell, BMVC 2023, arXiv:2310.17432, as in Kamkari et al. 2024",
)
def corrected_ratio(matching_losses: np.ndarray) -> np.ndarray:
    """Weighted loss over all noise levels less that over the quarter of the least noise, ``L(1) − L(¼)``.

    The quarter is one of five in the source, which prints the best for each pair; here it is fixed.
    """
    fine = matching_losses.shape[1] // 4
    found: np.ndarray = matching_losses.mean(1) - matching_losses[:, :fine].mean(1)
    return found


@register_scorer(
    "denoising-error", cite="one-step form of Graham et al., CVPRW 2023, arXiv:2211.07740"
)
class DenoisingError:
    """Squared error of one denoising step at three noise levels, each standardised over reference images, summed."""

    def fit(self, denoising_errors: np.ndarray) -> Standard:
        return Standard.of(denoising_errors)

    def score(self, standard: Standard, denoising_errors: np.ndarray) -> np.ndarray:
        found: np.ndarray = standard(denoising_errors).sum(1)
        return found


@register_scorer(
    "diffusion-reconstruction-lpips",
    cite="Graham et al., CVPRW 2023, arXiv:2211.07740; external features: an AlexNet of ImageNet",
)
class PerceptualReconstruction:
    """Mean of a reconstruction's squared errors and LPIPS, each standardised over the reference; external features."""

    def fit(self, reconstruction_errors: np.ndarray, perceptual_errors: np.ndarray) -> Standard:
        return Standard.of(np.concatenate([reconstruction_errors, perceptual_errors], 1))

    def score(
        self, standard: Standard, reconstruction_errors: np.ndarray, perceptual_errors: np.ndarray
    ) -> np.ndarray:
        table = np.concatenate([reconstruction_errors, perceptual_errors], 1)
        found: np.ndarray = standard(table).mean(1)
        return found
