"""Densities of 8-bit images that an ODE carries to Gaussian noise, whatever network gives the velocity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.errors import ModelError
from oodbench.models.flows import gaussian_log_prob, sum_per_image
from oodbench.models.noise import keyed_normal
from oodbench.models.probability_flow import SOLVERS, carried, carried_with_trace, evenly
from oodbench.scaling import checked_shape, is_count, is_number

Network = Callable[[Tensor, Tensor], Tensor]
"""``(x, t) -> (B, C, H, W)``: images and a time for each, ``(B,)``."""


class FlowOfNoise(nn.Module):
    """A density that an ODE carries to Gaussian noise, of 8-bit images by uniform dequantisation inside.

    Pixels are ``y = low + (high − low)·(x + u)/256`` with u uniform, and
    ``log p(x) ≥ E_u[log p_y(y)] + D·log((high − low)/256)``; one draw estimates the bound. Noise and trace probes are keyed
    by (seed, image bytes).

    Attributes
    ----------
    solver, solver_steps, trace_probes : of the ODE; probes are None where the trace is exact
    """

    def __init__(
        self, network: Network, shape: tuple[int, int, int], trained_on: str, low: float, high: float, solver: str,
        steps: int, probes: int | None, seed: int,
    ):  # fmt: skip
        super().__init__()
        self.shape = checked_shape(tuple(shape))
        if solver not in SOLVERS:
            raise ModelError(f"no solver is called {solver!r}; there are {', '.join(SOLVERS)}")
        if not is_count(steps) or not (probes is None or is_count(probes)):
            raise ModelError(
                f"steps and probes are whole numbers of at least 1 (probes=None: the exact trace), not {steps!r}, {probes!r}"
            )
        self.network, self.trained_on, self.seed = network, trained_on, seed
        self.low, self.high = checked_range(low, high)
        self.solver, self.solver_steps, self.trace_probes = solver, steps, probes

    @property
    def likelihood(self) -> str:
        """What ``log_prob`` is: a bound, and by which solution of the ODE."""
        probes = self.trace_probes
        trace = "exact trace" if probes is None else f"trace of {probes} probe" + "s" * (probes > 1)
        steps = len(self.times()) - 1
        return f"uniform dequantisation, one draw; ODE in {steps} steps of {self.solver}, {trace}"

    def times(self) -> list[float]:
        """The ends of the solver's steps, from the data to the noise."""
        raise NotImplementedError

    def velocity(self, x: Tensor, t: float) -> Tensor:
        """``dx/dt``."""
        raise NotImplementedError

    def like(self) -> Tensor:
        """A tensor of the weights' precision, on their device."""
        return next(self.parameters(), torch.empty(0))

    def dequantised(self, images: Tensor, noise: Tensor) -> Tensor:
        """``y = low + (high − low)·(x + u)/256`` in the weights' precision, ``noise`` being u."""
        y = self.low + (self.high - self.low) * (images.double() + noise) / 256
        return y.to(self.like().dtype)

    def _drawn(self, images: Tensor, seed: int) -> tuple[Tensor, Tensor | None]:
        """The images' dequantisation noise in (0, 1), and the trace's probes, None where the trace is exact."""
        drawn = keyed_normal(images, seed, (1 + (self.trace_probes or 0), *self.shape))
        signs = torch.where(drawn[:, 1:] < 0, -1.0, 1.0).to(self.like().dtype)
        return torch.special.ndtr(drawn[:, 0]), None if self.trace_probes is None else signs

    def _to_noise(self, y: Tensor, signs: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where the ODE takes dequantised images, and ``log|det|`` of that map of pixel levels, float64 ``(B,)``."""
        z, total = carried_with_trace(self.velocity, y, self.times(), self.solver, signs)
        return z, total + math.prod(self.shape) * math.log((self.high - self.low) / 256)

    def _encoded(self, images: Tensor) -> tuple[Tensor, Tensor]:
        noise, signs = self._drawn(images, self.seed)
        return self._to_noise(self.dequantised(images, noise), signs)

    def log_prob(self, images: Tensor) -> Tensor:
        """The bound in float64 nats of uint8 images, ``(B, C, H, W) -> (B,)``."""
        return self.log_prob_terms(images)["log_prob"]

    def log_prob_terms(self, images: Tensor) -> dict[str, Tensor]:
        """``log p(x) = latent_term + log_det − (D/2)·log 2π``, and its terms, float64 ``(B,)``, in nats but for the norm.

        The prior is N(0, I), so that its volume is zero: ``latent_term`` is ``−½‖z‖²`` and ``log_det`` the integral of the
        trace, with ``D·log((high − low)/256)`` in it.
        """
        z, log_det = self._encoded(images)
        squared_norm = sum_per_image(z.double() ** 2)
        constant = 0.5 * math.prod(self.shape) * math.log(2 * math.pi)
        return {
            "log_prob": log_det - 0.5 * squared_norm - constant,
            "latent_term": -0.5 * squared_norm,
            "prior_volume": torch.zeros_like(log_det),
            "log_det": log_det,
            "latent_norm": squared_norm.sqrt(),
        }

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The noise that the ODE makes of images ``(B, D)``, its ``log N(z; 0, I)`` and the map's ``log|det|``, nats ``(B,)``."""
        z, log_det = self._encoded(images)
        return z.flatten(1), gaussian_log_prob(z.double()), log_det

    @torch.no_grad()
    def trace_error(self, images: Tensor) -> float:
        """Standard deviation of log p over the trace's probes, bits/dim: ``√(½ mean (a − b)²)`` over images.

        a and b are two estimates of an image's ``log|det|`` by independent probes.
        """
        noise, signs = self._drawn(images, self.seed)
        y = self.dequantised(images, noise)
        estimates = [
            self._to_noise(y, one)[1] for one in (signs, self._drawn(images, self.seed + 1)[1])
        ]
        nats = (estimates[0] - estimates[1]).square().mean().div(2).sqrt().item()
        return nats / (math.prod(self.shape) * math.log(2))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """uint8 images ``(B, C, H, W)`` of noise ``(B, D)``, by the ODE; undoes :meth:`encode`, as exactly as the solver does."""
        noise = z.to(self.like().dtype).reshape(-1, *self.shape)
        y = carried(self.velocity, noise, self.times()[::-1], self.solver)
        levels = (y.double() - self.low) / (self.high - self.low) * 256
        return levels.floor().clamp(0, 255).to(torch.uint8)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw uint8 images ``(n, C, H, W)``: noise, carried to images by the ODE."""
        like = self.like()
        return self.decode(
            torch.randn(
                n,
                math.prod(self.shape),
                generator=generator,
                dtype=like.dtype,
                device=like.device,
            )
        )

    def at(self, t: float | int, x: Tensor) -> Tensor:
        """The same time for each image, ``(B,)``; whole numbers as int64."""
        return torch.full(
            (len(x),), t, device=x.device, dtype=None if isinstance(t, int) else x.dtype
        )

    def checked(self, out: Any, x: Tensor) -> Tensor:
        """What the network gave, where it is of the images' shape."""
        if not isinstance(out, Tensor) or out.shape != x.shape:
            found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(
                f"the network gives {found} for images of shape {tuple(x.shape)}; it must give one number a pixel and "
                "channel, as a tensor (a U-Net of diffusers: its `.sample`)"
            )
        return out


class VelocityFlow(FlowOfNoise):
    """The density of a network that predicts the velocity, see :func:`oodbench.from_velocity`."""

    def __init__(self, noise_time: float, data_time: float, **options: Any):
        super().__init__(**options)
        self.noise_time, self.data_time = noise_time, data_time

    def times(self) -> list[float]:
        return evenly(self.data_time, self.noise_time, self.solver_steps)

    def velocity(self, x: Tensor, t: float) -> Tensor:
        return self.checked(self.network(x, self.at(float(t), x)), x)


def checked_range(low: Any, high: Any) -> tuple[float, float]:
    """The range of scaled pixels; :class:`ModelError` where it is none."""
    if not (is_number(low) and is_number(high)) or low >= high:
        raise ModelError(
            f"pixels are scaled to [low, high] with low < high, not to [{low!r}, {high!r}]"
        )
    return float(low), float(high)
