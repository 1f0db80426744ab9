"""What single noise levels of a diffusion model say of an image: equivariance, curvature, losses and errors.

Levels are fixed in advance for all in-dist sets. Noise and probes are keyed by the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics
from oodbench.statistics.diffusion import STARTS, _at, _ddim_step, _scaled, _times

if TYPE_CHECKING:
    from torch import Tensor

SIGNALS = (0.99997, 0.9999, 0.9979, 0.9969)
"""Levels of the equivariance gaps, by their share of signal α."""
POOLED = 0.3
"""Share of the pixels, those of the largest squares, that a gap is taken over."""
SHARES = (0.001, 0.3)
"""Levels of the trace ratios, as shares of the time axis."""
STRATA = 32
"""Noise levels of the losses, one in each equal part of the time axis."""
LOG_SNRS = (2.0, 0.0, -2.0)
"""Levels of the denoising errors."""


def _nearest(model: Any, log_snr: float) -> int:
    """The time whose log signal-to-noise ratio is nearest."""
    return int((model.log_snr - log_snr).abs().argmin())


def _noise(model: Any, images: Tensor, levels: int, like: Tensor) -> Tensor:
    """One draw for each level, ``(B, levels, C, H, W)``."""
    from oodbench.models.noise import keyed_normal

    return keyed_normal(images, model.seed, (levels, *model.shape)).to(like.dtype)


@register_statistics({"equivariance_gaps": "1"}, version="1", capability="score")
def equivariance(model: Any, images: Tensor) -> dict[str, Tensor]:
    """How far the score of a moved image is from the moved score, ``‖g⁻¹ s(g x_t) − s(x_t)‖²/‖s(x_t)‖²``, ``(B, 4)``.

    At four noise levels, the mean over seven motions g: none, two mirrors, a quarter and a half turn, a pixel right, one down.
    Squares are averaged over channels, and over the three tenths of the pixels where they are largest (GEPC, arXiv:2602.00191).
    """
    import torch

    x = _scaled(model, images)
    noise, gaps = _noise(model, images, len(SIGNALS), x), []
    for number, signal in enumerate(SIGNALS):
        t = _at(_nearest(model, math.log(signal**2 / (1 - signal**2))), images)
        gaps.append(_gap(model, model.noised(x, t, noise[:, number]), t))
    return {"equivariance_gaps": torch.stack(gaps, 1)}


def _gap(model: Any, x_t: Tensor, t: Tensor) -> Tensor:
    still = model.noise_at(
        x_t, t
    ).double()  # the score but for a factor, which a ratio does not see
    moved = [back(model.noise_at(there(x_t), t).double()) for there, back in _motions()]
    # the seventh motion moves nothing, so its gap is 0; it counts in the mean
    total = sum(_largest((one - still) ** 2) for one in moved) / (len(moved) + 1)
    found: Tensor = total / (_largest(still**2) + 1e-8)
    return found


def _motions() -> Iterator[tuple[Any, Any]]:
    """Six motions of images ``(B, C, H, W)``, each with its inverse."""
    import torch

    for axis in (3, 2):
        mirror = partial(torch.flip, dims=(axis,))
        yield mirror, mirror
    for turns in (1, 2):
        yield (
            partial(torch.rot90, k=turns, dims=(2, 3)),
            partial(torch.rot90, k=-turns, dims=(2, 3)),
        )
    for axis in (3, 2):
        yield partial(torch.roll, shifts=1, dims=axis), partial(torch.roll, shifts=-1, dims=axis)


def _largest(squares: Tensor) -> Tensor:
    """The mean of the channels' mean over the share :data:`POOLED` of the pixels where it is largest, ``(B,)``."""
    pixels = squares.mean(1).flatten(1)
    return pixels.topk(max(1, int(POOLED * pixels.shape[1]))).values.mean(1)


@register_statistics(
    {"score_trace_ratios": "1"}, version="1", capability="score", differentiates=True
)
def curvature(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``‖s‖²/tr ∇s`` at a noised image for s = −∇ log q_t(x_t), near 1 where it is typical, at two noise levels, ``(B, 2)``.

    The trace is Hutchinson's estimate by one probe of random signs (SCOPED, arXiv:2510.01456).
    """
    import torch

    from oodbench.models.noise import keyed_normal
    from oodbench.models.probability_flow import velocity_and_trace

    x = _scaled(model, images)
    noise, found = _noise(model, images, len(SHARES), x), []
    signs = keyed_normal(images, model.seed + 1, (len(SHARES), *model.shape)).sign().to(x.dtype)
    for number, share in enumerate(SHARES):
        t = _at(max(0, round(share * len(model.log_snr)) - 1), images)
        x_t = model.noised(x, t, noise[:, number])
        velocity = partial(_predicted, model, t)
        predicted, trace = velocity_and_trace(velocity, x_t, 0.0, signs[:, number : number + 1])
        sigma = model.scales(t)[1].flatten().double()
        squared = (predicted.double() ** 2).flatten(1).sum(1)
        found.append(squared / (sigma * trace))
    return {"score_trace_ratios": torch.stack(found, 1)}


def _predicted(model: Any, t: Tensor, x_t: Tensor, _: float) -> Any:
    return model.noise_at(x_t, t)


@register_statistics({"matching_losses": "1"}, version="1", capability="score")
def matching(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``(t + ½)·mean |ε − ε̂(x_t, t)|`` in the middle of 32 equal parts of the time axis, t its share, ``(B, 32)``.

    The weighted loss of Goodier & Campbell's ratio (BMVC 2023, arXiv:2310.17432) as Kamkari et al. implement it, there with times
    drawn at random.
    """
    import torch

    x = _scaled(model, images)
    noise, found = _noise(model, images, STRATA, x), []
    for number in range(STRATA):
        share = (number + 0.5) / STRATA
        t = _at(round(share * (len(model.log_snr) - 1)), images)
        drawn = noise[:, number]
        away = drawn - model.noise_at(model.noised(x, t, drawn), t)
        found.append((share + 0.5) * away.abs().flatten(1).double().mean(1))
    return {"matching_losses": torch.stack(found, 1)}


@register_statistics({"denoising_errors": "1"}, version="1", capability="score")
def one_step(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Mean squared error of the one-step reconstruction ``x̂ = (x_t − σ_t ε̂)/α_t`` at log-SNR 2, 0 and −2, ``(B, 3)``."""
    import torch

    x = _scaled(model, images)
    noise, found = _noise(model, images, len(LOG_SNRS), x), []
    for number, log_snr in enumerate(LOG_SNRS):
        t = _at(_nearest(model, log_snr), images)
        away = model.denoised(model.noised(x, t, noise[:, number]), t) - x
        found.append((away**2).flatten(1).double().mean(1))
    return {"denoising_errors": torch.stack(found, 1)}


@register_statistics(
    {"perceptual_errors": "1"}, version="1", capability="score", package=("lpips", "perceptual")
)
def perceptual(model: Any, images: Tensor) -> dict[str, Tensor]:
    """LPIPS of an image and its reconstruction from four noise levels, features of an AlexNet trained on ImageNet, ``(B, 4)``.

    The reconstructions are those of ``reconstruction_errors``. Grey images have three equal channels and 32×32 pixels at least,
    which the features need. *External features*: what is measured is not the model's alone.
    """
    import torch
    from torch.nn import functional as F

    distance = _lpips(next(model.parameters()).device)

    def seen(image: Tensor) -> Tensor:
        colour = image.float().clamp(-1, 1).expand(-1, 3, -1, -1)
        size = [max(32, side) for side in colour.shape[2:]]
        return F.interpolate(colour, size, mode="bilinear", align_corners=False)

    x = _scaled(model, images)
    errors = [
        distance(seen(one), seen(x)).flatten().double() for one in _reconstructed(model, images, x)
    ]
    return {"perceptual_errors": torch.stack(errors, 1)}


def _reconstructed(model: Any, images: Tensor, x: Tensor) -> Iterator[Tensor]:
    """The image noised to each of four levels and denoised again by DDIM, as ``reconstructions`` does."""
    times, noise = _times(model), _noise(model, images, len(STARTS), x)
    for number, start in enumerate(STARTS):
        x_t = model.noised(x, _at(times[start], images), noise[:, number])
        for level in range(start, 0, -1):
            x_t, _ = _ddim_step(model, x_t, times[level], times[level - 1])
        yield model.denoised(x_t, _at(times[0], images))


def _lpips(device: Any) -> Any:
    """The distance by AlexNet's features, whose weights torchvision must have fetched before.

    Raises
    ------
    ModelError : they are not here
    """
    from pathlib import Path

    import lpips
    import torch
    from torchvision.models import AlexNet_Weights

    from oodbench.errors import ModelError

    file = Path(torch.hub.get_dir(), "checkpoints", Path(AlexNet_Weights.DEFAULT.url).name)
    if not file.exists():
        raise ModelError(
            f"LPIPS needs the weights of AlexNet, and {file} is not here; "
            "fetch it by: python -c \"from torchvision.models import alexnet; alexnet(weights='DEFAULT')\""
        )
    return lpips.LPIPS(net="alex", verbose=False).to(device).eval()
