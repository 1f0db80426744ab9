"""A VAE of residual convolutions, whose latents keep a place in the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.errors import ModelError
from oodbench.models.pixel_likelihood import PixelLikelihood
from oodbench.models.vae import VAE

FREE = 1.0
"""λ: nats that each latent may hold for nothing while it is trained."""


class Residual(nn.Module):
    """``h + f(h)`` with two normalised 3×3 convolutions, the second of which starts at zero."""

    def __init__(self, channels: int):
        super().__init__()
        self.normal_in, self.normal_out = nn.GroupNorm(8, channels), nn.GroupNorm(8, channels)
        self.enter = nn.Conv2d(channels, channels, 3, padding=1)
        self.leave = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.enter(F.silu(self.normal_in(h)))
        changed: Tensor = self.leave(F.silu(self.normal_out(inner)))
        return h + changed


def _halved(inward: int, outward: int) -> nn.Module:
    return nn.Conv2d(inward, outward, 4, 2, padding=1)


def _doubled(inward: int, outward: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inward, 4 * outward, 3, padding=1), nn.PixelShuffle(2))


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [Residual(channels) for _ in range(count)]


class BoundedScale(nn.Module):
    """Means and log standard deviations of the posterior, the latter in (−6, 0): never wider than the prior."""

    def forward(self, h: Tensor) -> Tensor:
        mean, log_std = h.flatten(1).chunk(2, 1)
        return torch.cat([mean, -6 * torch.sigmoid(log_std)], 1)


class PlacedVAE(VAE):
    """A VAE whose training leaves each channel of its latent some information for nothing.

    Without that the posterior of many latents falls back on the prior before the decoder has learned to read it. The loss is
    ``−log p(x|z) + Σ_c max(KL_c, λ·places)`` with ``KL_c`` the mean over the batch of channel c's divergence, "free bits"
    (Kingma et al., NeurIPS 2016, arXiv:1606.04934, appendix C.8); where all channels hold more than λ it is the negative ELBO,
    by which training is judged.

    Parameters
    ----------
    channels : of the latent, in each of which the places follow one another
    """

    def __init__(self, channels: int, *of_vae: Any, **options: Any):
        super().__init__(*of_vae, **options)
        self.channels = channels

    def loss(self, images: Tensor) -> Tensor:
        x = self.as_input(images)
        mean, log_std = self.posterior(x)
        z = mean + torch.exp(log_std) * torch.randn_like(mean)
        kl = 0.5 * (mean**2 + torch.exp(2 * log_std) - 1) - log_std
        of_channels = kl.unflatten(1, (self.channels, -1)).mean(0).sum(1)
        free = FREE * self.latent / self.channels
        return of_channels.clamp(min=free).sum() - self.log_likelihood(x, z)

    def validation_loss(self, images: Tensor) -> Tensor:
        """The negative one-draw ELBO in nats ``(B,)``."""
        return super().loss(images)


def residual_vae(
    shape: tuple[int, int, int], channels: int = 16, width: int = 32, blocks: int = 2, decoder: str = "logistic",
    **options: Any,
) -> VAE:  # fmt: skip
    """A VAE with a latent of ``channels × H/4 × W/4``, and residual blocks at half and at quarter resolution.

    Parameters
    ----------
    channels : of the latent
    width : of the networks at half resolution, twice as many at a quarter, half as many at full
    blocks : residual ones at each resolution of encoder and decoder; one at the decoder's full resolution
    decoder : ``logistic`` or ``categorical``
    options : of :class:`oodbench.models.vae.VAE`
    """
    _, height, columns = shape
    if height % 4 or columns % 4:
        raise ModelError(f"a VAE needs height and width divisible by 4, not {height}×{columns}")
    inner = (channels, height // 4, columns // 4)
    encoder = nn.Sequential(
        _halved(shape[0], width), *_blocks(width, blocks),
        _halved(width, 2 * width), *_blocks(2 * width, blocks),
        nn.GroupNorm(8, 2 * width), nn.SiLU(), nn.Conv2d(2 * width, 2 * channels, 1), BoundedScale(),
    )  # fmt: skip
    outputs = PixelLikelihood(decoder, shape[0], options.get("bins", 256)).outputs
    up = nn.Sequential(
        nn.Unflatten(1, inner), nn.Conv2d(channels, 2 * width, 3, padding=1), *_blocks(2 * width, blocks),
        _doubled(2 * width, width), *_blocks(width, blocks),
        _doubled(width, width // 2), *_blocks(width // 2, 1),
        nn.GroupNorm(8, width // 2), nn.SiLU(), nn.Conv2d(width // 2, outputs, 3, padding=1),
    )  # fmt: skip
    latent = channels * inner[1] * inner[2]
    return PlacedVAE(channels, shape, encoder, up, decoder, latent, **options)
