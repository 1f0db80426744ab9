"""Multi-scale flows over images: what Glow and RealNVP share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from oodbench.errors import ModelError
from oodbench.models.flows import Bijection, Squeeze, sum_per_image, zero_conv
from oodbench.models.noise import keyed_uniform


class FactoredOut(NamedTuple):
    """What one scale factors out, the prior's ``mean`` and ``log_std`` for it, and the scale's own ``log_det``."""

    latent: Tensor
    mean: Tensor
    log_std: Tensor
    log_det: Tensor

    @property
    def standardised(self) -> Tensor:
        return (self.latent - self.mean) * torch.exp(-self.log_std)

    @property
    def squared_norm(self) -> Tensor:
        return sum_per_image(self.standardised**2)

    @property
    def prior_volume(self) -> Tensor:
        return -sum_per_image(self.log_std.expand_as(self.latent))

    @property
    def log_prob_z(self) -> Tensor:
        """Its log density, of the three terms themselves, so that they sum to it without rounding."""
        return -0.5 * self.squared_norm + self.prior_volume - gaussian_constant(self.latent)


def over_scales(values: Iterable[Tensor]) -> Tensor:
    """The sum over scales of one number an image, ``(B,)``."""
    return torch.stack(list(values)).sum(0)


def gaussian_constant(latent: Tensor) -> float:
    """``(D/2)·log 2π`` of latents ``(B, ...)`` with D numbers an image, nats."""
    return 0.5 * math.log(2 * math.pi) * latent[0].numel()


class MultiscaleFlow(nn.Module):
    """A flow over images of ``bins`` levels that factors latents out scale by scale, with uniform dequantisation inside.

    ``y = (x + u)/bins − ½`` with ``u ~ U[0,1)`` keyed by (seed, image bytes), and
    ``log p(x) ≥ E_u[log p_z(f(y)) + log|det ∂f/∂y|] − D·log bins``; one draw of ``u`` estimates the bound.

    Parameters
    ----------
    shape : ``(C, H, W)``; H and W divisible by ``2**scales``
    scales : bijections of each scale, made by ``make_scale(channels)``; a scale quarters the area, and each but the last
        factors half of its channels out
    squeeze_first : squeeze before a scale's bijections; otherwise one of them does
    prior : ``standard`` N(0, I), or ``learned``: per-channel mean and scale at the top, and factored-out halves
        predicted from the kept ones
    bins : levels of a pixel, 256 for 8 bits
    seed : of the dequantisation noise
    """

    def __init__(
        self, shape: tuple[int, int, int], scales: int, make_scale: Callable[[int], nn.ModuleList], squeeze_first: bool,
        prior: str, bins: int, seed: int,
    ):  # fmt: skip
        super().__init__()
        channels, height, width = shape
        if height % 2**scales or width % 2**scales:
            raise ModelError(
                f"a flow of {scales} scales needs height and width divisible by {2**scales}, not {height}×{width}"
            )
        if prior not in ("standard", "learned"):
            raise ModelError(f"no prior is called {prior!r}; there are 'standard' and 'learned'")
        self.shape, self.bins, self.seed, self.squeeze_first = (
            tuple(shape),
            bins,
            seed,
            squeeze_first,
        )
        self.squeeze = Squeeze()
        self.scales = nn.ModuleList()
        self.split_priors = nn.ModuleList()
        self.latent_shapes: list[tuple[int, int, int]] = []
        for scale in range(scales):
            self.scales.append(make_scale(channels))
            channels, height, width = channels * 4, height // 2, width // 2
            if scale < scales - 1:
                channels //= 2
                self.latent_shapes.append((channels, height, width))
                if prior == "learned":
                    self.split_priors.append(zero_conv(channels, 2 * channels))
        self.latent_shapes.append((channels, height, width))
        self._log_volume = math.prod(shape) * math.log(bins)
        self.top_prior = nn.Parameter(
            torch.zeros(1, 2 * channels, 1, 1), requires_grad=prior == "learned"
        )

    def _prior(self, scale: int, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of the latent that ``scale`` factors out, given what it keeps."""
        if scale == len(self.scales) - 1:
            parameters = self.top_prior.to(kept.dtype)
        elif len(self.split_priors):
            parameters = self.split_priors[scale](kept).to(kept.dtype)
        else:
            return torch.zeros_like(kept), torch.zeros_like(kept)
        mean, log_std = parameters.chunk(2, 1)
        return mean, log_std

    def _latent(
        self, scale: int, kept: Tensor, standardised: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """The latent that ``scale`` factored out, of its standardised one and of what the scale keeps."""
        mean, log_std = self._prior(scale, kept)
        return mean + temperature * torch.exp(log_std) * standardised

    def flow(self, y: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Latents of each scale, ``log_prob_z`` and ``log_det`` of a continuous input ``y`` in ``[−½, ½)``."""
        found = list(self._by_scale(y))
        return (
            [scale.latent for scale in found],
            over_scales(scale.log_prob_z for scale in found),
            over_scales(scale.log_det for scale in found),
        )

    def _by_scale(self, y: Tensor) -> Iterator[FactoredOut]:
        for scale, steps in enumerate(self.scales):
            log_det = y.new_zeros(len(y), dtype=torch.float64)
            if self.squeeze_first:
                y, _ = self.squeeze(y)
            for step in steps.children():
                y, change = step(y)
                log_det = log_det + change
            if scale < len(self.scales) - 1:
                y, out = y.chunk(2, 1)
            else:
                out = y
            yield FactoredOut(out, *self._prior(scale, y), log_det)

    def dequantise(self, images: Tensor, noise: Tensor) -> Tensor:
        """``(x + noise)/bins − ½`` in the weights' precision."""
        return (images.to(self.top_prior.dtype) + noise.to(self.top_prior.dtype)) / self.bins - 0.5

    def log_prob_with(self, images: Tensor, noise: Tensor) -> Tensor:
        """The bound in nats ``(B,)`` under the given dequantisation noise in ``[0, 1)``."""
        _, log_prob_z, log_det = self.flow(self.dequantise(images, noise))
        return log_prob_z + log_det - self._log_volume

    def loss(self, images: Tensor) -> Tensor:
        """What training minimises: negative log-probability in nats ``(B,)`` under fresh noise."""
        return -self.log_prob_with(images, torch.rand(images.shape, device=images.device))

    def log_prob(self, images: Tensor) -> Tensor:
        """Log-probability in float64 nats of uint8 images ``(B, C, H, W) -> (B,)``."""
        return self.log_prob_with(images, keyed_uniform(images, self.seed))

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents standardised by the prior, and the change of variables.

        Returns
        -------
        z : ``(B, D)``, the scales' latents one after another, each less the prior's mean and divided by its σ
        log_prob_z : ``(B,)``, ``−½‖z‖² − Σ log σ − (D/2)·log 2π``, nats
        log_det : ``(B,)``, log|det ∂f/∂x| with x in pixel levels, so ``D·log bins`` is in here, nats
        """
        found = list(self._by_scale(self.dequantise(images, keyed_uniform(images, self.seed))))
        z = torch.cat([scale.standardised.flatten(1) for scale in found], 1)
        log_det = over_scales(scale.log_det for scale in found) - self._log_volume
        return z, over_scales(scale.log_prob_z for scale in found), log_det

    def input_and_log_prob(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The dequantised input, in units of the full scale, requiring its gradient, and log p as a function of it, ``(B,)``."""
        y = self.dequantise(images, keyed_uniform(images, self.seed)).requires_grad_()
        _, log_prob_z, log_det = self.flow(y)
        return y, log_prob_z + log_det - self._log_volume

    def log_prob_terms(self, images: Tensor) -> dict[str, Tensor]:
        """``log_prob`` and what it is made of, float64 ``(B,)`` each, in nats but for the norm.

        ``log p(x) = latent_term + prior_volume + log_det − (D/2)·log 2π`` for the dequantised image:

        latent_term : ``−½‖z‖²``, z standardised by the prior
        prior_volume : ``−Σ log σ`` of the prior, which a learned one predicts from the image
        log_det : ``log|det ∂f/∂x|`` with x in pixel levels, so ``D·log bins`` is in here
        latent_norm : ``‖z‖``, about √D for a sample
        last_scale_log_prob : ``log p(z_L) + log|det f_L| + ½ Σ_{l<L} log|det f_l|``, the last scale's share, as
            Schirrmeister et al. (NeurIPS 2020, arXiv:2006.10848) divide the likelihood between scales
        """
        found = list(self._by_scale(self.dequantise(images, keyed_uniform(images, self.seed))))
        log_det = over_scales(scale.log_det for scale in found)
        squared_norm = over_scales(scale.squared_norm for scale in found)
        log_prob_z = [scale.log_prob_z for scale in found]
        return {
            "log_prob": over_scales(log_prob_z) + log_det - self._log_volume,
            "latent_term": -0.5 * squared_norm,
            "prior_volume": over_scales(scale.prior_volume for scale in found),
            "log_det": log_det - self._log_volume,
            "latent_norm": squared_norm.sqrt(),
            "last_scale_log_prob": log_prob_z[-1] + (log_det + found[-1].log_det) / 2,
        }

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images of latents: ``(B, D) -> `` uint8 ``(B, C, H, W)``; undoes :meth:`encode`, its noise rounded away."""
        sizes = [math.prod(shape) for shape in self.latent_shapes]
        parts = zip(z.split(sizes, 1), self.latent_shapes, strict=True)
        standardised = [part.reshape(-1, *shape) for part, shape in parts]

        def latent(scale: int, kept: Tensor) -> Tensor:
            return self._latent(scale, kept, standardised[scale])

        return self._levels(self._invert(torch.zeros_like(standardised[-1]), latent))

    @torch.no_grad()
    def sample(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)``; ``temperature`` scales the prior's standard deviations."""
        return self._levels(self._draw(n, temperature, generator))

    @torch.no_grad()
    def sample_with_norm(
        self, n: int, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """The images of :meth:`sample`, and ``‖z‖`` of each draw as it was before it became levels, float64 ``(n,)``.

        The norm is measured: the unrounded draw goes through the flow again, and its latents are standardised. It follows
        ``temperature · χ_D``, about ``temperature · √D``.
        """
        y = self._draw(n, temperature, generator)
        return self._levels(y), over_scales(
            scale.squared_norm for scale in self._by_scale(y)
        ).sqrt()

    def _draw(self, n: int, temperature: float, generator: torch.Generator | None) -> Tensor:
        """Continuous draws in ``[−½, ½)``, up to the tails that only clamping brings back there."""
        like = self.top_prior

        def draw(scale: int, kept: Tensor) -> Tensor:
            noise = torch.randn(
                kept.shape, generator=generator, dtype=like.dtype, device=like.device
            )
            return self._latent(scale, kept, noise, temperature)

        return self._invert(like.new_zeros(n, *self.latent_shapes[-1]), draw)

    def _invert(self, top: Tensor, factored_out: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Continuous images of latents; ``top`` has the last scale's shape, since nothing is kept beside its latents."""
        y = factored_out(len(self.scales) - 1, top)
        for scale in reversed(range(len(self.scales))):
            if scale < len(self.scales) - 1:
                y = torch.cat([y, factored_out(scale, y)], 1)
            for step in reversed(list(self.scales[scale].children())):
                y = cast(Bijection, step).inverse(y)
            if self.squeeze_first:
                y = self.squeeze.inverse(y)
        return y

    def _levels(self, y: Tensor) -> Tensor:
        """The level that each continuous value belongs to; the nearest one where it lies beyond the ends."""
        return ((y + 0.5) * self.bins).floor().clamp(0, self.bins - 1).to(torch.uint8)
