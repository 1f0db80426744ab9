"""Networks that people train now as density models of 8-bit images: velocities, noise predictors, continuous densities.

Each adds what a network alone has not: the constant of its scaling, dequantisation keyed by the image, and the solution of an
ODE; what was added is said in ``likelihood``. None is exact: dequantisation gives a bound, one draw of it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.errors import ModelError
from oodbench.models.flow_of_noise import FlowOfNoise, Network, VelocityFlow, checked_range
from oodbench.models.probability_flow import noise_angles, spread, velocity_of_noise
from oodbench.scaling import checked_shape, is_number
from oodbench.zoo.adapters import DequantisedFlow

SPENT = 1e-6
"""Share of the signal below which a time of a diffusion is left out, since the ODE has no finite velocity there."""


class NoiseFlow(FlowOfNoise):
    """The density of a network that predicts the noise, see :func:`from_noise_predictor`.

    The ODE's time is the angle ``φ = atan(σ/α)``, and its steps end at times that the network was trained for.
    """

    angles: Tensor

    def __init__(self, kept: Tensor, **options: Any):
        super().__init__(**options)
        self.register_buffer("angles", noise_angles(kept), persistent=False)
        self.solver_steps = min(self.solver_steps, len(kept) - 1)

    def times(self) -> list[float]:
        stops = spread(torch.log(torch.tan(self.angles)), self.solver_steps)
        angles: list[float] = self.angles[stops].tolist()
        return angles

    def velocity(self, x: Tensor, t: float) -> Tensor:
        index = int((self.angles - t).abs().argmin())
        noise = self.checked(self.network(x, self.at(index, x)), x)
        return velocity_of_noise(noise, x, t)


def from_velocity(
    net: Network, shape: tuple[int, int, int], *, trained_on: str = "", low: float = -1.0, high: float = 1.0,
    noise_time: float = 0.0, data_time: float = 1.0, steps: int = 64, solver: str = "heun", probes: int | None = 1, seed: int = 0,
) -> VelocityFlow:  # fmt: skip
    """A density model of a velocity network: flow matching, rectified flow, a continuous normalizing flow.

    ``dx/dt = net(x, t)`` carries ``N(0, I)`` at ``noise_time`` to images at ``data_time``;
    ``log p(y) = log N(x_noise) + ∫ tr ∂net/∂x dt`` along the way back. Lipman et al., ICLR 2023, arXiv:2210.02747; Liu et
    al., ICLR 2023, arXiv:2209.03003.

    Parameters
    ----------
    net : ``(x, t) -> (B, C, H, W)``, with x ``(B, C, H, W)`` and t ``(B,)``; a module that holds its weights
    shape : ``(C, H, W)``
    trained_on : name of the image set, without which it takes part in no suite
    low, high : between which the network saw pixels
    noise_time, data_time : 0 and 1, or 1 and 0 where t counts towards the noise
    steps, solver : ``heun`` (second order) or ``rk4``; `oodbench check` halves the steps and says what that moves
    probes : random vectors that estimate the trace; None computes it, by one gradient a dimension
    seed : of dequantisation and probes, which are keyed by the image

    Raises
    ------
    ModelError : a solver, range or number that does not exist; when scored, a network that gives another shape
    """
    if not (is_number(noise_time) and is_number(data_time)) or noise_time == data_time:
        raise ModelError(
            f"noise and data stand at two different times, not at {noise_time!r} and {data_time!r}"
        )
    model = VelocityFlow(
        noise_time, data_time, network=net, shape=shape, trained_on=trained_on, low=low, high=high, solver=solver,
        steps=steps, probes=probes, seed=seed,
    )  # fmt: skip
    return model.eval()


def from_noise_predictor(
    net: Network, schedule: Any, shape: tuple[int, int, int], *, trained_on: str = "", low: float = -1.0, high: float = 1.0,
    steps: int = 64, probes: int | None = 1, seed: int = 0,
) -> NoiseFlow:  # fmt: skip
    """A density model of a diffusion's network that predicts the noise, through its probability-flow ODE.

    ``x_t = √ᾱ_t·x + √(1 − ᾱ_t)·ε``, ``ε̂ = net(x_t, t)``; the density is that at the least noise, ``t = 0``. For the
    variational bound of a U-Net of diffusers there is ``oodbench.zoo.adapters.from_diffusers``. Song et al., ICLR 2021,
    arXiv:2011.13456.

    Parameters
    ----------
    net : ``(x_t, t) -> ε̂``, with t an int64 vector counted from 0 at the least noise
    schedule : ``ᾱ_t`` of each t, falling from almost 1 to almost 0: ``torch.cumprod(1 − betas, 0)``. Times without signal,
        of a zero terminal signal-to-noise ratio, are left out
    steps : of Heun's method, fewer where the schedule has fewer times
    shape, trained_on, low, high, probes, seed : see :func:`from_velocity`

    Raises
    ------
    ModelError : a schedule that is none; a range or number that does not exist
    """
    model = NoiseFlow(
        checked_schedule(schedule), network=net, shape=shape, trained_on=trained_on, low=low, high=high, solver="heun",
        steps=steps, probes=probes, seed=seed,
    )  # fmt: skip
    return model.eval()


def checked_schedule(schedule: Any) -> Tensor:
    """``ᾱ_t`` in float64 without the times at whose end no signal is left; :class:`ModelError` where it is no schedule."""
    try:
        kept = torch.as_tensor(schedule).detach().double().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"schedule must be the ᾱ_t of each time, a vector, not a {type(schedule).__name__}"
        ) from error
    if kept.ndim != 1 or len(kept) < 2 or not torch.isfinite(kept).all():
        raise ModelError(
            f"schedule must be a vector of two or more finite ᾱ_t, not of shape {tuple(kept.shape)}"
        )
    if not (kept.diff() < 0).all() or kept[0] >= 1 or kept[-1] < 0:
        rising = bool((kept.diff() >= 0).all())
        hint = ": are these betas? Give torch.cumprod(1 − betas, 0)" if rising else ""
        raise ModelError(
            f"ᾱ_t must fall from below 1 to 0 or more, not go from {kept[0]:.4g} to {kept[-1]:.4g}{hint}"
        )
    if kept[-1] > 0.1:
        raise ModelError(
            f"at the last time a share of {kept[-1]:.2g} of the signal is left, so that it is no N(0, I); "
            "give ᾱ_t, the cumulative product, of all times"
        )
    return kept[kept > SPENT]


class _Rescaled(nn.Module):
    """A density on ``[low, high]`` as one on ``[0, 1]``: ``log p(low + (high − low)·y) + D·log(high − low)``."""

    def __init__(self, density: Callable[[Tensor], Tensor], low: float, high: float, dims: int):
        super().__init__()
        # of a bound method, the module whose weights it reads
        self.holder = getattr(density, "__self__", density)
        self.density, self.low, self.high = density, low, high
        self.constant = dims * math.log(high - low)

    def forward(self, y: Tensor) -> Tensor:
        found = self.density(self.low + (self.high - self.low) * y)
        if not isinstance(found, Tensor):
            raise ModelError(
                f"log_prob of scaled pixels gives a {type(found).__name__}; it must give a tensor, one number an image"
            )
        return found.double() + self.constant


def from_continuous(
    log_prob: Any, shape: tuple[int, int, int], low: float, high: float, *, trained_on: str = "", flat: bool = False,
    seed: int = 0,
) -> DequantisedFlow:  # fmt: skip
    """A density model of a continuous density on scaled pixels, by uniform dequantisation keyed by the image.

    ``log p(x) ≥ E_u[log p_y(y)] + D·log((high − low)/256)`` with ``y = low + (high − low)·(x + u)/256``; one draw
    estimates the bound. Theis et al., ICLR 2016, arXiv:1511.01844.

    Parameters
    ----------
    log_prob : ``y -> (B,)`` nats, a density with respect to y; or an object that has such a method
    shape : ``(C, H, W)``
    low, high : what pixels 0 and 256 are scaled to: 0 and 1, or −1 and 1
    trained_on : name of the image set, without which it takes part in no suite
    flat : whether it takes vectors ``(B, C·H·W)``
    seed : of the noise

    Raises
    ------
    ModelError : a range that is none; when scored, not one number an image
    """
    low, high = checked_range(low, high)
    own = getattr(log_prob, "log_prob", log_prob)
    if not callable(own):
        raise ModelError(
            f"log_prob must be a function of scaled pixels or have such a method, not {type(log_prob).__name__}"
        )
    dims = math.prod(checked_shape(tuple(shape)))
    density = _Rescaled(own, low, high, dims)
    return DequantisedFlow(density, density, shape, trained_on, flat, None, 256, 0.0, seed).eval()
