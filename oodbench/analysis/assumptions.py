"""What the second-order expansion assumes, each with a number that says how far it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oodbench.analysis.moments import distance_of_means, off_diagonal_share
from oodbench.analysis.second_order import Curvature, curvature, in_double, scaled_pixels
from oodbench.models.multiscale import MultiscaleFlow


@dataclass(frozen=True)
class Assumptions:
    """How far the assumptions hold.

    Attributes
    ----------
    means_apart : distance of the means over the in-dist set's root summed variance; the paper assumes 0
    off_diagonal : of both sets, the share of the covariance's squares that lies off its diagonal; the paper's form assumes 0
    curvature_spread : mean and standard deviation of ``vᵀ∇²log p(x)v`` over in-dist images x, for one vector v of in-dist
        size and random signs; a quadratic log p has deviation 0
    prior_volume_spread : standard deviation over in-dist images of the prior's ``−Σ log σ``, nats; 0 for the paper's N(0, I)
    """

    means_apart: float
    off_diagonal: tuple[float | None, float | None]
    curvature_spread: tuple[float, float]
    prior_volume_spread: float


def check_assumptions(
    model: MultiscaleFlow,
    in_dist: np.ndarray,
    ood: np.ndarray,
    probes: int = 256,
    seed: int = 0,
    curvature: Curvature = curvature,
) -> Assumptions:
    """The numbers of one flow and two sets of uint8 images ``(N, C, H, W)``.

    Parameters
    ----------
    probes : the curvature is taken at half as many in-dist images, the prior at as many
    seed : of the vector's signs
    curvature : computes :func:`~oodbench.analysis.second_order.curvature`, or knows it already
    """
    model = in_double(model)
    y = scaled_pixels(model, in_dist)
    few = y[:probes]
    points = few[: max(2, len(few) // 2)]
    vectors = signed_deviations(y.var(0, unbiased=False), seed).expand_as(points)
    values = curvature(model, points, vectors, vectors)
    return Assumptions(
        distance_of_means(in_dist, ood),
        (off_diagonal_share(in_dist), off_diagonal_share(ood)),
        (float(values.mean()), float(values.std(ddof=1))),
        prior_volume_spread(model, few),
    )


def signed_deviations(variances: Tensor, seed: int) -> Tensor:
    """One vector of root variances with random signs."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, variances.shape, generator=generator).to(variances) * 2 - 1
    return variances.sqrt() * signs


@torch.no_grad()
def prior_volume_spread(model: Any, points: Tensor) -> float:
    """Standard deviation of ``−Σ log σ`` over points, nats, with σ the prior's for each latent."""
    volumes = [scale.prior_volume for scale in model._by_scale(points)]
    return float(torch.stack(volumes).sum(0).double().std())
