"""VAEs over pixel levels: one density, and the networks of those that this field uses."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.errors import ModelError
from oodbench.models.flows import gaussian_log_prob, log_mean_exp
from oodbench.models.logistic import scaled
from oodbench.models.noise import keyed_normal
from oodbench.models.pixel_likelihood import PixelLikelihood


class VAE(nn.Module):
    """Gaussian latents, an encoder, a decoder, and a likelihood of pixel levels.

    ``log p(x) ≥ log (1/k) Σ_i p(x|z_i) p(z_i)/q(z_i|x)`` in expectation over ``z_i ~ q(z|x)``, the importance-weighted
    bound of Burda et al. (ICLR 2016, arXiv:1509.00519); k = 1 is the ELBO. The draws are keyed by (seed, image bytes).

    Parameters
    ----------
    shape : ``(C, H, W)``
    encoder : ``(B, C, H, W) -> (B, 2·latent)``, means and log standard deviations
    decoder : ``(B, latent) -> (B, outputs, H, W)``, in the channels of :class:`PixelLikelihood`
    likelihood : ``categorical``, ``logistic`` or ``bernoulli``
    latent : dimensions of z
    samples : k of the bound that :meth:`log_prob` returns
    signed : whether the encoder takes pixels in [−1, 1] or in [0, 1]
    bins : levels of a pixel, 256 for 8 bits
    seed : of the posterior draws
    """

    def __init__(
        self, shape: tuple[int, int, int], encoder: nn.Module, decoder: nn.Module, likelihood: str, latent: int,
        samples: int = 16, signed: bool = True, bins: int = 256, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.shape, self.latent, self.samples, self.signed = tuple(shape), latent, samples, signed
        self.bins, self.seed, self.pixels = bins, seed, PixelLikelihood(likelihood, shape[0], bins)
        self.encoder, self.decoder = encoder, decoder

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation ``(B, latent)`` of ``q(z|x)``; ``x`` is scaled to [−1, 1]."""
        mean, log_std = self.encoder(self.encoder_input(x)).to(x.dtype).chunk(2, 1)
        return mean, log_std

    def encoder_input(self, x: Tensor) -> Tensor:
        """``x`` in the scale that the encoder takes."""
        return x if self.signed else (x + 1) / 2

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """``log p(x|z)`` in float64 nats ``(B,)``."""
        return self.pixels.log_prob(x, self.decoder(z))

    def log_weights(self, images: Tensor, noise: Tensor) -> Tensor:
        """``log p(x|z_i) + log p(z_i) − log q(z_i|x)`` for the posterior draws of ``noise`` ``(B, k, latent)``: ``(B, k)``."""
        x = self.as_input(images)
        return self.weighed(x, *self.posterior(x), noise).sum(2)

    def as_input(self, images: Tensor) -> Tensor:
        """uint8 images scaled to [−1, 1]."""
        return scaled(images, self.bins, next(self.parameters()).dtype)

    def weighed(self, x: Tensor, mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
        """``log p(x|z_i)`` and ``log p(z_i) − log q(z_i|x)`` of each draw, ``(B, k, 2)``."""
        weights = []
        for draw in noise.to(x.dtype).unbind(1):
            z = mean + torch.exp(log_std) * draw
            log_ratio = gaussian_log_prob(z) - gaussian_log_prob(z, mean, log_std)
            weights.append(torch.stack([self.log_likelihood(x, z), log_ratio], 1))
        return torch.stack(weights, 1)

    def loss(self, images: Tensor) -> Tensor:
        """What training minimises: the negative one-draw ELBO in nats ``(B,)``."""
        return -self.log_weights(
            images, torch.randn(len(images), 1, self.latent, device=images.device)
        )[:, 0]

    def log_prob(self, images: Tensor) -> Tensor:
        """The bound with k = ``samples`` draws in float64 nats of uint8 images, ``(B, C, H, W) -> (B,)``."""
        return self.log_prob_terms(images)["log_prob"]

    def log_prob_terms(self, images: Tensor) -> dict[str, Tensor]:
        """``log_prob``, and the terms of the ELBO from the same draws, in float64 nats ``(B,)``.

        ``reconstruction`` is ``E_q log p(x|z)``, ``kl`` is ``KL(q(z|x) ‖ p(z))``, ``posterior_entropy`` is ``H[q(z|x)]``
        and ``prior_cross_entropy`` is ``−E_q log p(z) = kl + posterior_entropy``; all but the first in closed form.
        """
        x = self.as_input(images)
        posterior = self.posterior(x)
        weighed = self.weighed(
            x, *posterior, keyed_normal(images, self.seed, (self.samples, self.latent))
        )
        mean, log_std = (value.double() for value in posterior)
        entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(1)
        cross_entropy = 0.5 * (mean**2 + torch.exp(2 * log_std) + math.log(2 * math.pi)).sum(1)
        return {
            "log_prob": log_mean_exp(weighed.sum(2)),
            "reconstruction": weighed[:, :, 0].mean(1),
            "kl": cross_entropy - entropy,
            "posterior_entropy": entropy,
            "prior_cross_entropy": cross_entropy,
        }

    def input_and_log_prob(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The input in units of the full scale, requiring its gradient, and the bound as a function of it, ``(B,)``."""
        x = ((self.as_input(images) + 1) / 2).requires_grad_()
        noise = keyed_normal(images, self.seed, (self.samples, self.latent))
        inner = 2 * x - 1
        return x, log_mean_exp(self.weighed(inner, *self.posterior(inner), noise).sum(2))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)``: z from the prior, then each pixel from its own distribution."""
        parameter = next(self.parameters())
        options: dict[str, Any] = {
            "generator": generator,
            "dtype": parameter.dtype,
            "device": parameter.device,
        }
        out: Tensor = self.decoder(torch.randn(n, self.latent, **options))
        return self.pixels.sample(out, generator)


def rosca_vae(
    shape: tuple[int, int, int],
    latent: int = 50,
    width: int = 8,
    decoder: str = "categorical",
    **options: Any,
) -> VAE:
    """The VAE of Rosca et al. 2018 (arXiv:1802.06847, appendix K), which Nalisnick et al. 2019 examine.

    Parameters
    ----------
    width : channels of the narrowest layer; 8 in the paper
    decoder : ``categorical`` (a softmax over the levels, the paper's) or ``logistic``
    options : of :class:`VAE`
    """
    channels, height, width_pixels = shape
    if height % 4 or width_pixels % 4:
        raise ModelError(
            f"a VAE needs height and width divisible by 4, not {height}×{width_pixels}"
        )
    inner = (8 * width, height // 4, width_pixels // 4)
    sizes = [
        (channels, width, 2),
        (width, 2 * width, 1),
        (2 * width, 4 * width, 2),
        (4 * width, 8 * width, 1),
    ]
    layers: list[nn.Module] = []
    for inward, outward, stride in sizes:
        layers += [nn.Conv2d(inward, outward, 5, stride, padding=2), nn.ReLU()]
    encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(math.prod(inner), 2 * latent))
    outputs = PixelLikelihood(decoder, channels, options.get("bins", 256)).outputs
    up = nn.Sequential(
        nn.Linear(latent, math.prod(inner)), nn.ReLU(), nn.Unflatten(1, inner),
        nn.ConvTranspose2d(8 * width, 4 * width, 5, 2, padding=2, output_padding=1), nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 4 * width, 5, 2, padding=2, output_padding=1), nn.ReLU(),
        nn.Conv2d(4 * width, outputs, 5, padding=2),
    )  # fmt: skip
    return VAE(shape, encoder, up, decoder, latent, **options)


def dcgan_vae(
    shape: tuple[int, int, int], latent: int = 100, width: int = 32, **options: Any
) -> VAE:
    """The VAE of Xiao et al. (NeurIPS 2020, arXiv:2003.02977): DCGAN networks for 32×32, 256-way softmax."""
    channels = shape[0]

    def down(inward: int, outward: int) -> list[nn.Module]:
        return [nn.Conv2d(inward, outward, 4, 2, 1, bias=False), nn.BatchNorm2d(outward), nn.ReLU()]

    def up(inward: int, outward: int, stride: int = 2, padding: int = 1) -> list[nn.Module]:
        return [
            nn.ConvTranspose2d(inward, outward, 4, stride, padding, bias=False),
            nn.BatchNorm2d(outward),
            nn.ReLU(),
        ]

    encoder = nn.Sequential(
        *down(channels, width), *down(width, 2 * width), *down(2 * width, 4 * width),
        nn.Conv2d(4 * width, 2 * latent, 4), nn.Flatten(),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Unflatten(1, (latent, 1, 1)), *up(latent, 4 * width, 1, 0), *up(4 * width, 2 * width), *up(2 * width, width),
        nn.ConvTranspose2d(width, channels * options.get("bins", 256), 4, 2, 1, bias=False),
    )  # fmt: skip
    return VAE(shape, encoder, decoder, "categorical", latent, signed=False, **options)


def mlp_vae(
    shape: tuple[int, int, int], latent: int = 20, hidden: int = 400, **options: Any
) -> VAE:
    """The fully connected VAE of PyTorch's examples, Bernoulli on grey values."""
    pixels = math.prod(shape)
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)
    )
    decoder = nn.Sequential(
        nn.Linear(latent, hidden),
        nn.ReLU(),
        nn.Linear(hidden, pixels),
        nn.Unflatten(1, tuple(shape)),
    )
    return VAE(shape, encoder, decoder, "bernoulli", latent, signed=False, **options)
