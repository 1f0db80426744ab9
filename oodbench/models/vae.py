"""The VAE of Rosca et al. 2018 (arXiv:1802.06847), which Nalisnick et al. 2019 examine, over discrete pixel levels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.errors import ModelError
from oodbench.models.flows import gaussian_log_prob, sum_per_image
from oodbench.models.logistic import discretised_logistic_log_prob, scaled
from oodbench.models.noise import keyed_normal


class VAE(nn.Module):
    """Gaussian latents, a convolutional encoder and decoder, and a likelihood of discrete levels.

    ``log p(x) ≥ log (1/k) Σ_i p(x|z_i) p(z_i)/q(z_i|x)`` in expectation over ``z_i ~ q(z|x)``, the importance-weighted
    bound of Burda et al. (ICLR 2016, arXiv:1509.00519); k = 1 is the ELBO. The draws are keyed by (seed, image bytes).

    Parameters
    ----------
    shape : ``(C, H, W)``; H and W divisible by 4
    latent : dimensions of z
    width : channels of the narrowest layer; the paper's encoder has 8
    decoder : ``categorical`` (a softmax over the levels) or ``logistic`` (discretised)
    samples : k of the bound that :meth:`log_prob` returns
    bins : levels of a pixel, 256 for 8 bits
    seed : of the posterior draws
    """

    def __init__(
        self, shape: tuple[int, int, int], latent: int = 50, width: int = 8, decoder: str = "categorical",
        samples: int = 16, bins: int = 256, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        channels, height, width_pixels = shape
        if height % 4 or width_pixels % 4:
            raise ModelError(f"a VAE needs height and width divisible by 4, not {height}×{width_pixels}")
        if decoder not in ("categorical", "logistic"):
            raise ModelError(f"no VAE decoder is called {decoder!r}; there are 'categorical' and 'logistic'")
        self.shape, self.latent, self.samples, self.bins, self.seed = tuple(shape), latent, samples, bins, seed
        self.decoder_kind = decoder
        self.inner = (8 * width, height // 4, width_pixels // 4)
        sizes = [(channels, width, 2), (width, 2 * width, 1), (2 * width, 4 * width, 2), (4 * width, 8 * width, 1)]
        layers: list[nn.Module] = []
        for inward, outward, stride in sizes:
            layers += [nn.Conv2d(inward, outward, 5, stride, padding=2), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(math.prod(self.inner), 2 * latent))
        outputs = channels * (bins if decoder == "categorical" else 2)
        self.decoder = nn.Sequential(
            nn.Linear(latent, math.prod(self.inner)), nn.ReLU(), nn.Unflatten(1, self.inner),
            nn.ConvTranspose2d(8 * width, 4 * width, 5, 2, padding=2, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(4 * width, 4 * width, 5, 2, padding=2, output_padding=1), nn.ReLU(),
            nn.Conv2d(4 * width, outputs, 5, padding=2),
        )  # fmt: skip

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation ``(B, latent)`` of ``q(z|x)``; ``x`` is scaled to [−1, 1]."""
        mean, log_std = self.encoder(x).to(x.dtype).chunk(2, 1)
        return mean, log_std

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(x|z)`` in float64 nats ``(B,)``."""
        out = self.decoder(z).to(x.dtype)
        if self.decoder_kind == "logistic":
            mean, log_scale = out.chunk(2, 1)
            return sum_per_image(discretised_logistic_log_prob(x, mean, log_scale, self.bins))
        logits = out.unflatten(1, (self.bins, self.shape[0]))
        levels = torch.round((x + 1) * (self.bins - 1) / 2).long()
        return -sum_per_image(F.cross_entropy(logits, levels, reduction="none"))

    def log_weights(self, images: Tensor, noise: Tensor) -> Tensor:
        """``log p(x|z_i) + log p(z_i) − log q(z_i|x)`` for the posterior draws of ``noise`` ``(B, k, latent)``: ``(B, k)``."""
        x = scaled(images, self.bins, next(self.parameters()).dtype)
        mean, log_std = self.posterior(x)
        weights = []
        for draw in noise.to(x.dtype).unbind(1):
            z = mean + torch.exp(log_std) * draw
            log_ratio = gaussian_log_prob(z) - gaussian_log_prob(z, mean, log_std)
            weights.append(self.log_likelihood(x, z) + log_ratio)
        return torch.stack(weights, 1)

    def loss(self, images: Tensor) -> Tensor:
        """What training minimises: the negative one-draw ELBO in nats ``(B,)``."""
        return -self.log_weights(images, torch.randn(len(images), 1, self.latent, device=images.device))[:, 0]

    def log_prob(self, images: Tensor) -> Tensor:
        """The bound with k = ``samples`` draws in float64 nats of uint8 images, ``(B, C, H, W) -> (B,)``."""
        noise = keyed_normal(images, self.seed, (self.samples, self.latent))
        return torch.logsumexp(self.log_weights(images, noise), 1) - math.log(self.samples)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)``: z from the prior, then each pixel from its own distribution."""
        parameter = next(self.parameters())
        options: dict[str, Any] = {"generator": generator, "dtype": parameter.dtype, "device": parameter.device}
        out = self.decoder(torch.randn(n, self.latent, **options))
        u = torch.rand(n, *self.shape, **options)
        if self.decoder_kind == "categorical":
            cumulative = torch.softmax(out.unflatten(1, (self.bins, self.shape[0])), 1).cumsum(1)
            return (cumulative < u[:, None]).sum(1).clamp(max=self.bins - 1).to(torch.uint8)
        mean, log_scale = out.chunk(2, 1)
        value = mean + torch.exp(log_scale) * (torch.log(u) - torch.log1p(-u))
        return torch.round((value + 1) * (self.bins - 1) / 2).clamp(0, self.bins - 1).to(torch.uint8)
