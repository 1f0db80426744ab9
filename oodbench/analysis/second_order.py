"""Why a set is likelier: the second-order expansion of Nalisnick et al. (ICLR 2019, arXiv:1810.09136, §5).

Around the in-dist mean ``x₀``, with ``µ`` the sets' means and ``S`` their second moments about ``x₀``,

``E_ood[log p] − E_in[log p] ≈ ∇log p(x₀)ᵀ(µ_ood − µ_in) + ½ Tr[∇²log p(x₀)·(S_ood − S_in)]``.

Pixels are ``y = (x + ½)/bins − ½``; the variance of dequantisation noise is the same for both sets and cancels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from oodbench.analysis.expected import Expected
from oodbench.errors import ModelError
from oodbench.models.flows import ActNorm, Coupling, InvertibleConv
from oodbench.models.glow import Glow
from oodbench.models.multiscale import MultiscaleFlow
from oodbench.statistics.parameter_gradients import transforming

PROBES_AT_ONCE = 32


@dataclass(frozen=True)
class Expansion:
    """The expansion's terms, nats.

    Attributes
    ----------
    first : the gradient's term, with the error that the sets' means have
    second : the curvature's term at the in-dist mean, over the sets' whole second moments
    diagonal : the same over per-pixel variances alone, each set's about its own mean, as in the paper
    at_data : the second term with the curvature averaged over in-dist images instead of taken at their mean; None where a
        set has fewer than four
    closed_form : the paper's form for constant-volume Glow, from its 1×1 convolutions; None for other models
    """

    first: Expected
    second: Expected
    diagonal: Expected
    at_data: Expected | None
    closed_form: float | None

    @property
    def terms(self) -> dict[str, Expected | None]:
        """Its terms by their names; nothing is sampled in the closed form."""
        closed = None if self.closed_form is None else Expected(self.closed_form)
        sampled = ("first", "second", "diagonal", "at_data")
        return {**{name: getattr(self, name) for name in sampled}, "closed_form": closed}


def in_double(model: MultiscaleFlow) -> MultiscaleFlow:
    """A copy in float64 whose parameters are constants."""
    return copy.deepcopy(model).double().requires_grad_(False)


def scaled_pixels(model: MultiscaleFlow, images: np.ndarray) -> Tensor:
    """uint8 images at the middle of their bins, as the flow sees them."""
    return model.dequantise(torch.from_numpy(np.array(images)), torch.tensor(0.5))


def log_density(model: MultiscaleFlow, y: Tensor) -> Tensor:
    """Log density of continuous images ``(B,)`` in nats, differentiable."""
    _, log_prob_z, log_det = model.flow(y)
    return log_prob_z + log_det


def curvature(model: MultiscaleFlow, points: Tensor, left: Tensor, right: Tensor) -> np.ndarray:
    """``leftᵀ ∇²log p(point) right`` for each row, float64 ``(B,)``.

    By Hessian-vector products, forward over reverse: reverse over reverse would convolve with whole images as kernels.
    At one point, ``(1, C, H, W)``, the gradient is computed once for all vectors, and each vector pushed through it.
    """
    gradient = torch.func.grad(lambda y: log_density(model, y).sum())
    products = _at_one_point if len(points) == 1 else _at_each_point
    with torch.no_grad(), transforming():
        found = [
            (products(gradient, x, v) * u).flatten(1).sum(1, dtype=torch.float64)
            for x, u, v in _some_at_once(points, left, right)
        ]
    return torch.cat(found).numpy()


Gradient = Callable[[Tensor], Tensor]
Curvature = Callable[[MultiscaleFlow, Tensor, Tensor, Tensor], np.ndarray]


def _some_at_once(points: Tensor, left: Tensor, right: Tensor) -> Iterator[tuple[Tensor, ...]]:
    vectors = (one.split(PROBES_AT_ONCE) for one in (left, right))
    some = repeat(points) if len(points) == 1 else iter(points.split(PROBES_AT_ONCE))
    return zip(some, *vectors, strict=False)


def _at_each_point(gradient: Gradient, points: Tensor, vectors: Tensor) -> Tensor:
    """``∇²log p(point) vector`` for each row."""
    found: Tensor = torch.func.jvp(gradient, (points.contiguous(),), (vectors.contiguous(),))[1]
    return found


def _at_one_point(gradient: Gradient, point: Tensor, vectors: Tensor) -> Tensor:
    """The same for many vectors at one point, whose own values and gradient are not batched."""
    found: Tensor = torch.vmap(lambda v: _at_each_point(gradient, point, v[None])[0])(vectors)
    return found


def whole_moments_term(
    model: MultiscaleFlow,
    points: Tensor,
    centre: Tensor,
    in_dist: Tensor,
    ood: Tensor,
    curvature: Curvature = curvature,
) -> Expected:
    """``½ Tr[H·(S_ood − S_in)]``: centred images are themselves the probes, since ``E[vᵀHv] = Tr[H·E[vvᵀ]]``.

    Parameters
    ----------
    points : where the curvature is taken: one, or the ``in_dist`` images, over which it is averaged
    """
    if len(points) == 1:
        of_ood, of_in = (
            Expected.of_mean(_quadratics(model, points, y - centre, curvature))
            for y in (ood, in_dist)
        )
        return of_ood - of_in
    return _over_halves(model, points, in_dist - centre, ood - centre, curvature)


def _over_halves(
    model: MultiscaleFlow, points: Tensor, in_dist: Tensor, ood: Tensor, curvature: Curvature
) -> Expected:
    """The mean over many points. The points of each half of the in-dist images meet the other half, centred, as probes.

    An image that were a point and its own probe would bias the mean, since H(x) depends on x.
    """
    half = min(len(points), len(in_dist), len(ood)) // 2
    probes = in_dist[: 2 * half].roll(half, 0)
    of_ood, of_in = (
        _quadratics(model, points[: 2 * half], v, curvature) for v in (ood[: 2 * half], probes)
    )
    # two images that change places give two numbers that are not independent: their mean counts once
    return Expected.of_mean((of_ood - of_in).reshape(2, half).mean(0))


def _quadratics(
    model: MultiscaleFlow, points: Tensor, vectors: Tensor, curvature: Curvature
) -> np.ndarray:
    """``½ vᵀ∇²log p(x)v`` of each vector at its point, or at the one point."""
    return curvature(model, points, vectors, vectors) / 2


def diagonal_term(
    model: MultiscaleFlow,
    centre: Tensor,
    variances: Tensor,
    probes: int,
    generator: torch.Generator,
    curvature: Curvature = curvature,
) -> Expected:
    """``½ Tr[H·diag(variances)]`` by Hutchinson's estimator with Rademacher probes at ``centre``."""
    signs = (
        torch.randint(0, 2, (probes, *variances.shape), generator=generator).to(variances) * 2 - 1
    )
    right = variances.abs().sqrt() * signs
    return Expected.of_mean(curvature(model, centre[None], variances.sign() * right, right) / 2)


def expand(
    model: Any,
    in_dist: np.ndarray,
    ood: np.ndarray,
    probes: int = 256,
    seed: int = 0,
    curvature: Curvature = curvature,
) -> Expansion:
    """The expansion for a flow and two sets of uint8 images.

    Parameters
    ----------
    model : a Glow or RealNVP of ours
    in_dist, ood : uint8 ``(N, C, H, W)``; means and variances are those of all images
    probes : images of each set, and Rademacher vectors, that the traces are estimated with
    seed : of the Rademacher vectors
    curvature : computes :func:`curvature`, or knows it already

    Raises
    ------
    ModelError : a model without a differentiable continuous density
    """
    if not isinstance(model, MultiscaleFlow):
        raise ModelError(
            f"the expansion needs a flow with a differentiable density; {type(model).__name__} has none"
        )
    model = in_double(model)
    y_in, y_ood = scaled_pixels(model, in_dist), scaled_pixels(model, ood)
    centre = y_in.mean(0)
    x = centre[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_density(model, x).sum(), x)
    of_ood, of_in = (
        Expected.of_mean((gradient * (y - centre)).flatten(1).sum(1).numpy()) for y in (y_ood, y_in)
    )
    variances = y_ood.var(0, unbiased=False) - y_in.var(0, unbiased=False)
    few_in, few_ood = y_in[:probes], y_ood[:probes]
    enough = min(len(few_in), len(few_ood)) >= 4
    return Expansion(
        of_ood - of_in,
        whole_moments_term(model, centre[None], centre, few_in, few_ood, curvature),
        diagonal_term(
            model, centre, variances, probes, torch.Generator().manual_seed(seed), curvature
        ),
        whole_moments_term(model, few_in, centre, few_in, few_ood, curvature) if enough else None,
        closed_form(model, variances) if is_constant_volume(model) else None,
    )


def is_constant_volume(model: nn.Module) -> bool:
    """Whether log|det| and the prior's −Σ log σ are each one number for all images.

    So it is with additive couplings alone and a prior that predicts nothing from the image: a fixed N(0, I), or a learned
    one of a single scale, whose σ are parameters. Then log p(x) is −½‖z‖² plus a constant.
    """
    if not isinstance(model, Glow):
        return False
    couplings = [layer for layer in model.modules() if isinstance(layer, Coupling)]
    return not any(layer.affine for layer in couplings) and not len(model.split_priors)


@torch.no_grad()
def closed_form(model: Any, variances: Tensor) -> float:
    """``−½ Σ_z Var_z/σ_z²`` in nats: what additive couplings leave of the second-order term.

    With the couplings' shifts held fixed, a constant-volume Glow is linear: ActNorm and 1×1 convolutions. The
    ``variances`` ``(C, H, W)``, independent between pixels, are carried through it as a covariance of the channels at each
    place, and divided by the prior's variance where latents leave. In the paper's notation this is
    ``−1/(2σ²)·Σ_c α_c²·Σ_{h,w}(σ²_ood − σ²_in)``, with its products of 1×1 convolutions kept as matrices.

    Raises
    ------
    ModelError : a model whose volume varies over images
    """
    if not is_constant_volume(model):
        raise ModelError(
            "the closed form holds for a Glow of constant volume alone: additive couplings and a prior that predicts "
            "nothing from the image (`coupling: additive`, `prior: standard`)"
        )
    covariance = torch.diag_embed(variances.double().movedim(0, -1))  # (H, W, C, C)
    total = 0.0
    for scale, steps in enumerate(model.scales):
        covariance = _squeezed(covariance)
        for step in steps.children():
            for layer in step.layers:
                covariance = _mixed(layer, covariance)
        variances = torch.diagonal(covariance, dim1=-2, dim2=-1)
        kept = variances.shape[-1] // 2 if scale < len(model.scales) - 1 else 0
        latent = torch.zeros(1, variances.shape[-1] - kept, 1, 1, dtype=torch.float64)
        log_std = model._prior(scale, latent)[1][0, :, 0, 0]
        total -= 0.5 * float((variances[..., kept:] * torch.exp(-2 * log_std)).sum())
        covariance = covariance[..., :kept, :kept]
    return total


def _squeezed(covariance: Tensor) -> Tensor:
    """``(H, W, C, C)`` to ``(H/2, W/2, 4C, 4C)``: four places side by side, independent of one another."""
    height, width, channels, _ = covariance.shape
    blocks = covariance.reshape(height // 2, 2, width // 2, 2, channels, channels)
    out = covariance.new_zeros(height // 2, width // 2, channels, 4, channels, 4)
    for row in range(2):
        for column in range(2):
            place = 2 * row + column
            out[:, :, :, place, :, place] = blocks[:, row, :, column]
    return out.reshape(height // 2, width // 2, 4 * channels, 4 * channels)


def _mixed(layer: nn.Module, covariance: Tensor) -> Tensor:
    """Covariance of the channels after one linear layer; an additive coupling with a fixed shift changes nothing."""
    if isinstance(layer, ActNorm):
        scale = torch.exp(layer.log_scale.double()).flatten()
        return covariance * scale[:, None] * scale
    if isinstance(layer, InvertibleConv):
        matrix = layer.matrix().double()
        return matrix @ covariance @ matrix.T
    return covariance
