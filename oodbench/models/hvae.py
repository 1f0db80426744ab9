"""A hierarchical VAE with top-down inference, whose bounds leave out the latents nearest to the data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.errors import ModelError
from oodbench.models.flows import gaussian_log_prob, log_mean_exp
from oodbench.models.logistic import scaled
from oodbench.models.noise import keyed_normal
from oodbench.models.pixel_likelihood import PixelLikelihood


class Residual(nn.Module):
    """``h + conv(elu(conv(elu(h))))``."""

    def __init__(self, width: int):
        super().__init__()
        self.enter = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.leave(F.elu(self.enter(F.elu(h))))


class Level(nn.Module):
    """One latent ``z_l``: what it is given those above, what the image says of it, and what it adds to the decoder."""

    def __init__(self, width: int, latent: int):
        super().__init__()
        self.latent = latent
        self.prior = nn.Conv2d(width, 2 * latent, 3, padding=1)
        self.posterior = nn.Conv2d(2 * width, 2 * latent, 3, padding=1)
        self.add = nn.Conv2d(latent, width, 3, padding=1)
        self.refine = Residual(width)

    def forward(self, state: Tensor, seen: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's next state, and ``log p(z_l|z_>l) − log q(z_l|z_>l, x)`` in nats ``(B,)``.

        Without ``seen``, what the encoder saw at this level, z comes from the prior and the second is zero.
        """
        mean, log_std = self.prior(state).to(noise.dtype).chunk(2, 1)
        log_ratio = noise.new_zeros(len(noise), dtype=torch.float64)
        if seen is None:
            z = mean + torch.exp(log_std) * noise
        else:
            shift, log_q = self.posterior(torch.cat([state, seen], 1)).to(noise.dtype).chunk(2, 1)
            z = shift + torch.exp(log_q) * noise
            log_ratio = gaussian_log_prob(z, mean, log_std) - gaussian_log_prob(z, shift, log_q)
        return self.refine(state + self.add(z)), log_ratio


class HierarchicalVAE(nn.Module):
    """Latents ``z_1 … z_L``, each at half the resolution of the one below, inferred from the top down.

    ``p(x, z) = p(x|z) Π_l p(z_l|z_>l)`` and ``q(z|x) = Π_l q(z_l|z_>l, x)``: the ladder of Sønderby et al. (NeurIPS
    2016, arXiv:1602.02282). The bound ``L^{>k}`` draws ``z_1 … z_k`` from the prior given those above them
    (Havtorn et al., ICML 2021, arXiv:2102.08248): ``L^{>k}(x) = E[log p(x|z) + Σ_{l>k} log p(z_l|z_>l)/q(z_l|z_>l, x)]``.

    Parameters
    ----------
    shape : ``(C, H, W)``
    latents : channels of ``z_1 … z_L``
    width : channels of encoder and decoder
    decoder : ``categorical`` or ``logistic``, see :class:`PixelLikelihood`
    samples : k of the importance-weighted bound that :meth:`log_prob` returns
    bins : levels of a pixel, 256 for 8 bits
    seed : of the posterior draws
    """

    def __init__(
        self, shape: tuple[int, int, int], latents: tuple[int, ...] = (4, 8, 16), width: int = 32,
        decoder: str = "logistic", samples: int = 8, bins: int = 256, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.shape, self.samples, self.bins, self.seed = tuple(shape), samples, bins, seed
        self.pixels = PixelLikelihood(decoder, shape[0], bins)
        self.sizes = [(shape[1], shape[2])]
        for _ in latents:
            height, width_pixels = self.sizes[-1]
            self.sizes.append((-(-height // 2), -(-width_pixels // 2)))
        self.encoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width if level else shape[0], width, 3, 2, padding=1), Residual(width)
            )
            for level in range(len(latents))
        )
        self.levels = nn.ModuleList(Level(width, latent) for latent in latents)
        self.top = nn.Parameter(torch.zeros(1, width, *self.sizes[-1]))
        self.leave = nn.Sequential(
            Residual(width), nn.ELU(), nn.Conv2d(width, self.pixels.outputs, 3, padding=1)
        )
        self.noise_sizes = [
            latent * math.prod(size) for latent, size in zip(latents, self.sizes[1:], strict=True)
        ]

    def _decode(self, noise: Tensor, seen: list[Tensor | None]) -> tuple[Tensor, Tensor]:
        """The decoder's output, and the sum of the levels' log-ratios; ``noise`` is ``(B, Σ noise_sizes)``."""
        state = self.top.expand(len(noise), -1, -1, -1)
        log_ratio = noise.new_zeros(len(noise), dtype=torch.float64)
        drawn = noise.split(self.noise_sizes, 1)
        for level in reversed(range(len(self.levels))):
            own = drawn[level].unflatten(1, (-1, *self.sizes[level + 1]))
            state, change = self.levels[level](state, seen[level], own)
            log_ratio = log_ratio + change
            state = F.interpolate(state, size=self.sizes[level])
        return self.leave(state), log_ratio

    def _seen(self, x: Tensor, skip: int) -> list[Tensor | None]:
        """The encoder's features of each level, None for the ``skip`` lowest ones."""
        found: list[Tensor | None] = []
        for level, layer in enumerate(self.encoder):
            x = layer(x)
            found.append(x if level >= skip else None)
        return found

    def log_weights(self, images: Tensor, noise: Tensor, skip: int = 0) -> Tensor:
        """The bound's integrand for each draw of ``noise`` ``(B, k, Σ noise_sizes)``: nats ``(B, k)``."""
        if not 0 <= skip < len(self.levels):
            raise ModelError(
                f"this model has {len(self.levels)} latents; none, or fewer than all, can be left out, not {skip}"
            )
        x = scaled(images, self.bins, self.top.dtype)
        seen = self._seen(x, skip)
        weights = []
        for draw in noise.to(x.dtype).unbind(1):
            out, log_ratio = self._decode(draw, seen)
            weights.append(self.pixels.log_prob(x, out) + log_ratio)
        return torch.stack(weights, 1)

    def loss(self, images: Tensor) -> Tensor:
        """What training minimises: the negative one-draw ELBO in nats ``(B,)``."""
        noise = torch.randn(len(images), 1, sum(self.noise_sizes), device=images.device)
        return -self.log_weights(images, noise)[:, 0]

    def log_prob(self, images: Tensor) -> Tensor:
        """The importance-weighted bound in float64 nats of uint8 images, ``(B, C, H, W) -> (B,)``."""
        return self.log_prob_above(images, 0)

    def log_prob_above(self, images: Tensor, skip: int) -> Tensor:
        """``L^{>skip}`` in float64 nats ``(B,)``, with as many draws as :meth:`log_prob` and the same ones."""
        noise = keyed_normal(images, self.seed, (self.samples, sum(self.noise_sizes)))
        return log_mean_exp(self.log_weights(images, noise, skip))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)``: the latents from the top down, then each pixel."""
        options: dict[str, Any] = {
            "generator": generator,
            "dtype": self.top.dtype,
            "device": self.top.device,
        }
        out, _ = self._decode(
            torch.randn(n, sum(self.noise_sizes), **options), [None] * len(self.levels)
        )
        return self.pixels.sample(out, generator)
