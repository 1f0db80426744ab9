"""Diffusion models over pixel levels: the variational bound on the discrete image, and the score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oodbench.models.flows import sum_per_image
from oodbench.models.logistic import nearest_level, scaled
from oodbench.models.noise import keyed_normal

LARGEST_LOG_SNR, SMALLEST_LOG_SNR = 13.3, -5.0
"""Where the noise is narrower than a pixel level, and where no signal is left (Kingma et al. 2021)."""


def linear_log_snr(steps: int) -> Tensor:
    """Log signal-to-noise ratios of ``t = 1 … steps``, falling linearly."""
    return torch.linspace(LARGEST_LOG_SNR, SMALLEST_LOG_SNR, steps, dtype=torch.float64)


def log_normal_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """``log[Φ(upper) − Φ(lower)]`` for ``lower < upper``, computed in the lower tail, where nothing cancels."""
    right = lower + upper > 0
    lower, upper = torch.where(right, -upper, lower), torch.where(right, -lower, upper)
    log_upper, log_lower = torch.special.log_ndtr(upper), torch.special.log_ndtr(lower)
    return log_upper + torch.log(-torch.expm1(log_lower - log_upper))


class Diffusion(nn.Module):
    """A Gaussian diffusion with a network that predicts the noise, in discrete time.

    ``x_t = α_t x + σ_t ε`` with ``α² = sigmoid(log_snr)`` and ``σ² = 1 − α²`` for ``t = 1 … T``. The bound

    ``log p(x) ≥ E[log p(x|x_1)] − Σ_{t=2…T} KL(q(x_{t−1}|x_t, x) ‖ p(x_{t−1}|x_t)) − KL(q(x_T|x) ‖ N(0, I))``

    has terms ``½ (SNR_{t−1}/SNR_t − 1) ‖ε − ε̂(x_t, t)‖²``, since both Gaussians have the posterior's variance; the last
    step integrates ``N(x̂_1, σ_1²/α_1²)`` over a pixel's bin, the outer bins reaching to infinity. ``terms`` of the T − 1
    are drawn, one from each stratum, and weighted by the strata's sizes.

    Ho et al., NeurIPS 2020, arXiv:2006.11239; Kingma et al., NeurIPS 2021, arXiv:2107.00630.

    Parameters
    ----------
    shape : ``(C, H, W)``
    network : ``(x_t, t) -> ε̂``, with t an int64 vector counted from 0 at the least noise
    log_snr : of each t from the least noise to the most, ``(T,)``
    terms : evaluations of the network for the sum; T − 1 gives the whole sum
    bins : levels of a pixel, 256 for 8 bits
    seed : of the times and of the noise, which are keyed by the image
    """

    log_snr: Tensor

    def __init__(
        self, shape: tuple[int, int, int], network: Callable[[Tensor, Tensor], Tensor], log_snr: Tensor,
        terms: int = 16, bins: int = 256, seed: int = 0,
    ):  # fmt: skip
        super().__init__()
        self.shape, self.terms, self.bins, self.seed = (
            tuple(shape),
            min(terms, len(log_snr) - 1),
            bins,
            seed,
        )
        self.network = network
        self.register_buffer("log_snr", log_snr.double(), persistent=False)
        edges = torch.linspace(1, len(log_snr), self.terms + 1, dtype=torch.float64).round().long()
        self.strata = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """``α_t`` and ``σ_t``, ``(B, 1, 1, 1)`` in float64."""
        log_snr = self.log_snr[t][:, None, None, None]
        return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()

    def noise_at(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's ``ε̂(x_t, t)``."""
        predicted: Tensor = self.network(x_t, t)
        return predicted.to(x_t.dtype)

    def denoised(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``x̂ = (x_t − σ_t ε̂)/α_t``."""
        alpha, sigma = (scale.to(x_t.dtype) for scale in self.scales(t))
        return (x_t - sigma * self.noise_at(x_t, t)) / alpha

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """``x_t = α_t x + σ_t ε``."""
        alpha, sigma = (scale.to(x.dtype) for scale in self.scales(t))
        return alpha * x + sigma * noise

    def log_likelihood(self, x: Tensor, x_1: Tensor) -> Tensor:
        """``log p(x|x_1)`` in float64 nats ``(B,)``; ``x`` is scaled to [−1, 1]."""
        t = torch.zeros(len(x), dtype=torch.long, device=x.device)
        alpha, sigma = self.scales(t)
        half, away = 1 / (self.bins - 1), x.double() - self.denoised(x_1, t).double()
        infinity = torch.full_like(away, math.inf)
        upper = torch.where(x > 1 - half, infinity, (away + half) * alpha / sigma)
        lower = torch.where(x < -1 + half, -infinity, (away - half) * alpha / sigma)
        return sum_per_image(log_normal_mass(lower, upper))

    def prior_kl(self, x: Tensor) -> Tensor:
        """``KL(q(x_T|x) ‖ N(0, I))`` in float64 nats ``(B,)``."""
        last = torch.full((len(x),), len(self.log_snr) - 1, device=x.device)
        alpha, sigma = self.scales(last)
        return sum_per_image(0.5 * ((alpha * x) ** 2 + sigma**2 - 1) - torch.log(sigma))

    def step_kl(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """One term of the bound's sum at the times ``t ≥ 1``, in float64 nats ``(B,)``."""
        weight = 0.5 * torch.expm1(self.log_snr[t - 1] - self.log_snr[t])
        return weight * sum_per_image((noise - self.noise_at(self.noised(x, t, noise), t)) ** 2)

    def bound(self, images: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """The bound in float64 nats ``(B,)``.

        Parameters
        ----------
        times : uniform numbers ``(B, terms)`` in [0, 1) that choose a time in each stratum
        noise : standard normal ``(B, terms + 1, C, H, W)``, the last for ``x_1``
        """
        x = scaled(images, self.bins, noise.dtype)
        first = torch.zeros(len(x), dtype=torch.long, device=x.device)
        total = self.log_likelihood(x, self.noised(x, first, noise[:, -1])) - self.prior_kl(x)
        for number, (start, end) in enumerate(self.strata):
            t = start + (times[:, number] * (end - start)).long()
            total = total - (end - start) * self.step_kl(x, t, noise[:, number])
        return total

    def log_prob(self, images: Tensor) -> Tensor:
        """The bound in float64 nats of uint8 images ``(B, C, H, W) -> (B,)``, times and noise keyed by the image."""
        like, shape = next(self.parameters()), (self.terms + 1, *self.shape)
        drawn = keyed_normal(images, self.seed, (self.terms + math.prod(shape),))
        times = torch.special.ndtr(drawn[:, : self.terms])
        return self.bound(images, times, drawn[:, self.terms :].unflatten(1, shape).to(like.dtype))

    def loss(self, images: Tensor) -> Tensor:
        """What training minimises: the negative bound in nats ``(B,)``, its sum from one term at a random time."""
        x = scaled(images, self.bins, torch.float32)
        t = 1 + torch.randint(len(self.log_snr) - 1, (len(x),), device=x.device)
        first = torch.zeros_like(t)
        known = self.log_likelihood(x, self.noised(x, first, torch.randn_like(x))) - self.prior_kl(
            x
        )
        return (len(self.log_snr) - 1) * self.step_kl(x, t, torch.randn_like(x)) - known

    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        """``∇ log q_t(x_t) ≈ −ε̂(x_t, t)/σ_t``."""
        return -self.noise_at(x_t, t) / self.scales(t)[1].to(x_t.dtype)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)`` by ancestral sampling, T evaluations of the network."""
        like = next(self.parameters())
        options: dict[str, Any] = {
            "generator": generator,
            "dtype": like.dtype,
            "device": like.device,
        }
        x = torch.randn(n, *self.shape, **options)
        for step in reversed(range(1, len(self.log_snr))):
            mean, std = self.previous(x, torch.full((n,), step, device=like.device))
            x = mean + std * torch.randn(x.shape, **options)
        first = torch.zeros(n, dtype=torch.long, device=like.device)
        alpha, sigma = self.scales(first)
        drawn = self.denoised(x, first) + (sigma / alpha).to(x.dtype) * torch.randn(
            x.shape, **options
        )
        return nearest_level(drawn, self.bins).to(torch.uint8)

    def previous(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of ``p(x_{t−1}|x_t)``."""
        (alpha, sigma), (alpha_s, sigma_s) = self.scales(t), self.scales(t - 1)
        ratio = alpha / alpha_s
        added = sigma**2 - ratio**2 * sigma_s**2
        mean = (ratio * sigma_s**2 * x_t + alpha_s * added * self.denoised(x_t, t)) / sigma**2
        return mean.to(x_t.dtype), (added.sqrt() * sigma_s / sigma).to(x_t.dtype)


class Block(nn.Module):
    """A residual block, shifted and scaled by an embedding of time."""

    def __init__(self, inward: int, outward: int, embedding: int):
        super().__init__()
        self.normal_in, self.normal_out = nn.GroupNorm(8, inward), nn.GroupNorm(8, outward)
        self.enter = nn.Conv2d(inward, outward, 3, padding=1)
        self.leave = nn.Conv2d(outward, outward, 3, padding=1)
        self.time = nn.Linear(embedding, 2 * outward)
        self.pass_by = nn.Conv2d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        inner = self.enter(F.silu(self.normal_in(h)))
        shift, scale = self.time(time)[:, :, None, None].chunk(2, 1)
        inner = self.leave(F.silu(self.normal_out(inner) * (1 + scale) + shift))
        passed: Tensor = self.pass_by(h)
        return passed + inner


class UNet(nn.Module):
    """A U-Net of two halvings that also sees high frequencies of the pixels' levels, which decide the last bits.

    The Fourier features ``sin, cos(2^n π x)`` are those of Kingma et al. 2021, appendix C.
    """

    times: Tensor

    def __init__(
        self, channels: int, width: int, log_snr: Tensor, frequencies: tuple[int, ...] = (6, 7)
    ):
        super().__init__()
        self.frequencies = frequencies
        middle = (LARGEST_LOG_SNR + SMALLEST_LOG_SNR) / 2
        self.register_buffer(
            "times", ((log_snr - middle) / (LARGEST_LOG_SNR - middle)).float(), persistent=False
        )
        self.embed = nn.Sequential(
            nn.Linear(16, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width), nn.SiLU()
        )
        self.enter = nn.Conv2d(channels * (1 + 2 * len(frequencies)), width, 3, padding=1)
        self.downs = nn.ModuleList(
            [Block(width, width, 2 * width), Block(width, 2 * width, 2 * width)]
        )
        self.middle = Block(2 * width, 2 * width, 2 * width)
        self.ups = nn.ModuleList(
            [Block(4 * width, width, 2 * width), Block(2 * width, width, 2 * width)]
        )
        self.leave = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1)
        )
        nn.init.zeros_(self.leave[-1].weight)  # type: ignore[arg-type]

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        angles = self.times[t].to(x_t.dtype)[:, None] * (
            2.0 ** torch.arange(8, device=t.device, dtype=x_t.dtype)
        )
        time = self.embed(torch.cat([torch.sin(angles), torch.cos(angles)], 1))
        waves = [
            wave(2**n * math.pi * x_t) for n in self.frequencies for wave in (torch.sin, torch.cos)
        ]
        h = self.enter(torch.cat([x_t, *waves], 1))
        skips = []
        for block in self.downs:
            h = block(h, time)
            skips.append(h)
            h = F.avg_pool2d(h, 2)
        h = self.middle(h, time)
        for block in self.ups:
            skip = skips.pop()
            h = block(torch.cat([F.interpolate(h, size=skip.shape[2:]), skip], 1), time)
        predicted: Tensor = self.leave(h)
        return predicted


def small_diffusion(
    shape: tuple[int, int, int],
    width: int = 32,
    steps: int = 1000,
    terms: int = 16,
    bins: int = 256,
    seed: int = 0,
) -> Diffusion:
    """A diffusion with a small U-Net and log-SNRs that fall linearly.

    Parameters
    ----------
    width : channels at full resolution; twice as many below
    steps : T
    shape, terms, bins, seed : of :class:`Diffusion`
    """
    log_snr = linear_log_snr(steps)
    return Diffusion(shape, UNet(shape[0], width, log_snr), log_snr, terms, bins, seed)
