"""Densities that are solutions of an ordinary differential equation from data to noise.

``dx/dt = v(x, t)`` carries images at one time to ``N(0, I)`` at another, and along the way
``d log p(x(t))/dt = −tr ∂v/∂x`` (Chen et al., NeurIPS 2018, arXiv:1806.07366), so that

``log p(x) = log N(x(T); 0, I) + ∫ tr ∂v/∂x dt`` from the time of the data to T, the time of the noise.

The trace is exact, by one gradient a dimension, or Hutchinson's estimate ``mean_k ε_kᵀ (∂v/∂x) ε_k`` with random signs ε
(Grathwohl et al., FFJORD, ICLR 2019, arXiv:1810.01367).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from oodbench.errors import ModelError
from oodbench.models.flows import gaussian_log_prob, sum_per_image

Velocity = Callable[[Tensor, float], Tensor]
"""``(x, t) -> dx/dt`` of the shape of x."""
State = tuple[Tensor, Tensor]
"""x ``(B, C, H, W)``, and the integral of the trace so far in float64 ``(B,)``."""

UNDIFFERENTIABLE = (
    "the network's output does not depend on its images by any gradient, so the trace of its Jacobian cannot be had; is it "
    "computed under torch.no_grad, or outside torch?"
)


class Step(Protocol):
    """One step of a solver from time t over h, of a field that gives velocity and trace at a place and time."""

    def __call__(
        self, field: Callable[[Tensor, float], State], state: State, t: float, h: float
    ) -> State: ...


def velocity_and_trace(
    velocity: Velocity, x: Tensor, t: float, signs: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``v(x, t)``, and the trace of its Jacobian in float64 ``(B,)``.

    Parameters
    ----------
    signs : ``(B, K, C, H, W)`` of ±1, for Hutchinson's estimate; None for the exact trace
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, t)
        if not v.requires_grad:
            raise ModelError(UNDIFFERENTIABLE)
        directions = _each_dimension(x) if signs is None else signs.unbind(1)
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for direction in directions:
            along = torch.autograd.grad(v, x, direction, retain_graph=True, allow_unused=True)[0]
            if along is None:
                raise ModelError(UNDIFFERENTIABLE)
            total = total + sum_per_image(along * direction)
    return v.detach(), total if signs is None else total / signs.shape[1]


def _each_dimension(x: Tensor) -> Sequence[Tensor]:
    """Unit vectors along every dimension, the same for each image."""
    dims = x[0].numel()
    eye = torch.eye(dims, dtype=x.dtype, device=x.device).reshape(dims, 1, *x.shape[1:])
    return [one.expand_as(x) for one in eye]


def heun(field: Callable[[Tensor, float], State], state: State, t: float, h: float) -> State:
    """Heun's step, of second order: the mean of the slopes at both ends."""
    x, total = state
    v, trace = field(x, t)
    v_end, trace_end = field(x + h * v, t + h)
    return x + h / 2 * (v + v_end), total + h / 2 * (trace + trace_end)


def rk4(field: Callable[[Tensor, float], State], state: State, t: float, h: float) -> State:
    """The classical Runge–Kutta step, of fourth order."""
    x, total = state
    v1, d1 = field(x, t)
    v2, d2 = field(x + h / 2 * v1, t + h / 2)
    v3, d3 = field(x + h / 2 * v2, t + h / 2)
    v4, d4 = field(x + h * v3, t + h)
    return x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4), total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)


SOLVERS: dict[str, Step] = {"heun": heun, "rk4": rk4}


def carried(velocity: Velocity, x: Tensor, times: Sequence[float], solver: str) -> Tensor:
    """Where the ODE takes x from the first of ``times`` to the last, ``(B, C, H, W)``."""
    nothing = torch.zeros(len(x), dtype=torch.float64, device=x.device)

    def field(x: Tensor, t: float) -> State:
        return velocity(x, t), nothing

    return _integrated(field, (x, nothing), times, solver)[0]


def carried_with_trace(
    velocity: Velocity, x: Tensor, times: Sequence[float], solver: str, signs: Tensor | None
) -> State:
    """Where the ODE takes x, and the integral of the trace along the way, ``log|det|`` of the map, in float64 ``(B,)``.

    Parameters
    ----------
    times : between which each step goes, in order
    solver : ``heun`` or ``rk4``
    signs : see :func:`velocity_and_trace`
    """

    def field(x: Tensor, t: float) -> State:
        return velocity_and_trace(velocity, x, t, signs)

    start = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    return _integrated(field, (x, start), times, solver)


def _integrated(
    field: Callable[[Tensor, float], State], state: State, times: Sequence[float], solver: str
) -> State:
    for start, end in pairwise(times):
        state = SOLVERS[solver](field, state, start, end - start)
    return state


def integrated_log_density(
    velocity: Velocity, y: Tensor, times: Sequence[float], solver: str, signs: Tensor | None
) -> Tensor:
    """``log p(y)`` in float64 nats ``(B,)`` of data y at the first of ``times``; at the last one stands ``N(0, I)``."""
    noise, total = carried_with_trace(velocity, y, times, solver, signs)
    return gaussian_log_prob(noise) + total


def evenly(start: float, end: float, steps: int) -> list[float]:
    """The ends of so many equal steps."""
    return [start + (end - start) * number / steps for number in range(steps + 1)]


def noise_angles(kept: Tensor) -> Tensor:
    """``φ = atan(σ/α)`` of each time of a diffusion whose share of signal is ``α² = kept`` and of noise ``σ² = 1 − kept``."""
    return torch.atan2((1 - kept).sqrt(), kept.sqrt())


def velocity_of_noise(noise: Tensor, x: Tensor, angle: float) -> Tensor:
    """``dx/dφ = (ε̂ − sin φ·x)/cos φ``: how a diffusion's image moves with its angle of noise, given the predicted noise.

    ``x_φ = cos φ·x̂ + sin φ·ε̂`` with both held fixed, which is the probability-flow ODE of Song et al. (ICLR 2021,
    arXiv:2011.13456) in the angle of Salimans & Ho (ICLR 2022, arXiv:2202.00512).
    """
    return (noise - math.sin(angle) * x) / math.cos(angle)


def spread(log_ratio: Tensor, steps: int) -> list[int]:
    """Where to stop among times ``0 … T − 1`` to take so many steps of about equal changes of ``log σ/α``, or T − 1 steps.

    Each step goes to the time nearest to its share of what is left, and at least to the next one.
    """
    last = len(log_ratio) - 1
    chosen = [0]
    for left in range(min(steps, last), 0, -1):
        here = chosen[-1]
        target = log_ratio[here] + (log_ratio[last] - log_ratio[here]) / left
        nearest = int((log_ratio - target).abs().argmin())
        chosen.append(min(max(here + 1, nearest), last - left + 1))
    return chosen
