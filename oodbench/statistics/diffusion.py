"""What a diffusion model says of an image beside its bound: scores, reconstructions, and the path to noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 10
"""Noise levels, evenly spaced in log-SNR from the least noise to the most."""
STARTS = (2, 4, 6, 8)
"""Levels from which images are reconstructed."""


def _times(model: Any) -> list[int]:
    last = len(model.log_snr) - 1
    return [round(last * level / (LEVELS - 1)) for level in range(LEVELS)]


def _at(time: int, images: Tensor) -> Tensor:
    import torch

    return torch.full((len(images),), time, dtype=torch.long, device=images.device)


def _scaled(model: Any, images: Tensor) -> Tensor:
    from oodbench.models.logistic import scaled

    return scaled(images, model.bins, next(model.parameters()).dtype)


@register_statistics({"score_norms": "1"}, version="1", capability="score")
def scores(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``‖σ_t·s(α_t x, t)‖₂`` at ten noise levels, ``(B, 10)``: the score at the image itself, without noise added.

    Mahmood et al., ICLR 2021, arXiv:2010.13132, whose network takes x itself; here the variance is preserved.
    """
    import torch

    x, norms = _scaled(model, images), []
    for time in _times(model):
        t = _at(time, images)
        norms.append(model.noise_at(model.noised(x, t, x * 0), t).flatten(1).double().norm(dim=1))
    return {"score_norms": torch.stack(norms, 1)}


WIDTHS = tuple(0.01 ** (place / (LEVELS - 1)) for place in range(LEVELS))
"""Standard deviations of the noise, of pixels in [0, 1], from the most to the least: those of the network of MSMA's authors."""


def _time_of(model: Any, width: float) -> int:
    """The time whose noise is nearest to a width, of pixels in [0, 1]; the model's are in [−1, 1], twice as wide."""
    wanted = -2 * math.log(2 * width)
    return int((model.log_snr - wanted).abs().argmin())


@register_statistics({"score_norms_by_width": "1"}, version="1", capability="score")
def scores_by_width(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``‖σ·s(x, σ)‖₂`` at ten widths σ from 1 to 0.01, in equal ratios, of pixels in [0, 1], ``(B, 10)``; no noise is added.

    The levels of the authors' network (Mahmood et al., ICLR 2021, arXiv:2010.13132), each by the nearest that the model has.
    """
    import torch

    x, norms = _scaled(model, images), []
    for width in WIDTHS:
        t = _at(_time_of(model, width), images)
        norms.append(model.noise_at(model.noised(x, t, x * 0), t).flatten(1).double().norm(dim=1))
    return {"score_norms_by_width": torch.stack(norms, 1)}


def _ddim_step(model: Any, x_t: Tensor, start: int, end: int) -> tuple[Tensor, Tensor]:
    """One deterministic step between two times, either way: ``(x at end, ε̂ at start)``."""
    alpha, sigma = (scale.to(x_t.dtype) for scale in model.scales(_at(start, x_t)))
    noise = model.noise_at(x_t, _at(start, x_t))
    return model.noised((x_t - sigma * noise) / alpha, _at(end, x_t), noise), noise


@register_statistics({"reconstruction_errors": "1"}, version="1", capability="score")
def reconstructions(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Mean squared error, pixels in [−1, 1], after noising to four levels and denoising by DDIM, ``(B, 4)``.

    Graham et al., CVPRW 2023, arXiv:2211.07740, with fewer levels and steps and without LPIPS. The noise is keyed by the image.
    """
    import torch

    from oodbench.models.noise import keyed_normal

    x, times = _scaled(model, images), _times(model)
    noise = keyed_normal(images, model.seed, (len(STARTS), *model.shape)).to(x.dtype)
    errors = []
    for number, start in enumerate(STARTS):
        x_t = model.noised(x, _at(times[start], images), noise[:, number])
        for level in range(start, 0, -1):
            x_t, _ = _ddim_step(model, x_t, times[level], times[level - 1])
        errors.append(
            ((model.denoised(x_t, _at(times[0], images)) - x) ** 2).flatten(1).double().mean(1)
        )
    return {"reconstruction_errors": torch.stack(errors, 1)}


@register_statistics({"path_moments": "1"}, version="1", capability="score")
def path(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Sums over pixels and times of ε̂, ε̂², ε̂³ and of the same powers of its change a step, on the way to noise, ``(B, 6)``.

    The way is DDIM inversion in ten evaluations (Heng et al., NeurIPS 2024, arXiv:2405.11881); nothing is clipped.
    """
    import torch

    x, times, found = _scaled(model, images), _times(model), []
    x_t = model.noised(x, _at(times[0], images), x * 0)
    for start, end in zip(times, [*times[1:], times[-1]], strict=True):
        x_t, noise = _ddim_step(model, x_t, start, end)
        found.append(noise.flatten(1).double())
    along = torch.stack(found, 1)
    change = along.diff(dim=1) * LEVELS
    return {
        "path_moments": torch.stack(
            [(v**power).sum((1, 2)) for v in (along, change) for power in (1, 2, 3)], 1
        )
    }
