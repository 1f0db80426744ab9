"""Scorers of diffusion models."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer
from oodbench.scorers.fitted import LEAST_OF_MIXTURE, Mixture, Standard

MAHMOOD = "Mahmood et al., ICLR 2021, arXiv:2010.13132"
NEIGHBOURS = 5


@register_scorer("msma-gmm", cite=MAHMOOD, least_reference=LEAST_OF_MIXTURE)
class MsmaMixture:
    """Negative log-density of the score norms at the authors' ten widths under a Gaussian mixture of 2 to 20 components."""

    def fit(self, score_norms_by_width: np.ndarray) -> Mixture:
        return Mixture.of(score_norms_by_width, (2, 5, 10, 20), ("full",))

    def score(self, mixture: Mixture, score_norms_by_width: np.ndarray) -> np.ndarray:
        return mixture.negative_log_density(score_norms_by_width)


def fifth_nearest(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Distance of each row to the fifth nearest point."""
    from scipy.spatial import KDTree

    return np.asarray(KDTree(points).query(values, [NEIGHBOURS])[0])[:, 0]


@register_scorer("msma-knn", cite=MAHMOOD, least_reference=NEIGHBOURS)
class MsmaNeighbours:
    """Distance to the fifth nearest reference image, between the score norms at the authors' ten widths, as they are."""

    def fit(self, score_norms_by_width: np.ndarray) -> np.ndarray:
        return score_norms_by_width

    def score(self, points: np.ndarray, score_norms_by_width: np.ndarray) -> np.ndarray:
        return fifth_nearest(points, score_norms_by_width)


@register_scorer("msma-gmm-snr", cite=f"after {MAHMOOD}", least_reference=LEAST_OF_MIXTURE)
class MsmaMixtureBySnr:
    """The same at ten levels from the model's least noise to its most, even in log-SNR, under a Gaussian mixture."""

    def fit(self, score_norms: np.ndarray) -> Mixture:
        return Mixture.of(score_norms, (2, 5, 10, 20), ("full",))

    def score(self, mixture: Mixture, score_norms: np.ndarray) -> np.ndarray:
        return mixture.negative_log_density(score_norms)


@register_scorer("msma-knn-snr", cite=f"after {MAHMOOD}", least_reference=NEIGHBOURS)
class MsmaNeighboursBySnr:
    """Distance to the fifth nearest reference image, between standardised score norms at ten levels even in log-SNR."""

    def fit(self, score_norms: np.ndarray) -> tuple[Standard, np.ndarray]:
        standard = Standard.of(score_norms)
        return standard, standard(score_norms)

    def score(self, state: tuple[Standard, np.ndarray], score_norms: np.ndarray) -> np.ndarray:
        standard, points = state
        return fifth_nearest(points, standard(score_norms))


@register_scorer("diffusion-reconstruction", cite="Graham et al., CVPRW 2023, arXiv:2211.07740")
class Reconstruction:
    """Mean over noise levels of the squared reconstruction error, each standardised over reference images."""

    def fit(self, reconstruction_errors: np.ndarray) -> Standard:
        return Standard.of(reconstruction_errors)

    def score(self, standard: Standard, reconstruction_errors: np.ndarray) -> np.ndarray:
        found: np.ndarray = standard(reconstruction_errors).mean(1)
        return found


@register_scorer(
    "diffpath-6d",
    cite="Heng et al., NeurIPS 2024, arXiv:2405.11881",
    least_reference=LEAST_OF_MIXTURE,
)
class DiffPath:
    """Negative log-density of the six moments of the path to noise under a Gaussian mixture."""

    def fit(self, path_moments: np.ndarray) -> Mixture:
        return Mixture.of(path_moments, (2, 5, 10, 20), ("full", "tied", "diag", "spherical"))

    def score(self, mixture: Mixture, path_moments: np.ndarray) -> np.ndarray:
        return mixture.negative_log_density(path_moments)
