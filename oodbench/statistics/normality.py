"""How far numbers that should be white standard normal noise are from it, image by image."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from torch import Tensor

BINS = 20
"""Equiprobable ones of the χ² test."""
LAGS = 200
"""Of the Box–Pierce test; fewer where there are not as many numbers."""
DIRECTIONS = 50
"""Of the projections."""


def standardised(z: Tensor, *axes: int) -> Tensor:
    """Less their own mean and divided by their own standard deviation, over these axes."""
    std, mean = torch.std_mean(z, axes, correction=0, keepdim=True)
    return (z - mean) / std


def kolmogorov_smirnov(z: Tensor) -> Tensor:
    """``sup |F_D − Φ|``: the largest distance of the empirical distribution from N(0, 1), ``(B, D) -> (B,)``."""
    expected = torch.special.ndtr(z.sort(1).values)
    steps = torch.arange(z.shape[1] + 1, dtype=z.dtype, device=z.device) / z.shape[1]
    return torch.maximum(steps[1:] - expected, expected - steps[:-1]).amax(1)


def anderson_darling(z: Tensor) -> Tensor:
    """``A² = −D − (1/D) Σ_k (2k−1)(ln Φ(w_k) + ln(1 − Φ(w_{D+1−k})))`` of the sorted, standardised numbers w."""
    w = standardised(z, 1).sort(1).values
    odd = torch.arange(1, 2 * z.shape[1], 2, dtype=z.dtype, device=z.device)
    logs = torch.special.log_ndtr(w) + torch.special.log_ndtr(-w.flip(1))
    return -z.shape[1] - (odd * logs).mean(1)


def chi2(z: Tensor) -> Tensor:
    """Pearson's ``Σ_b (n_b − D/20)² / (D/20)`` over 20 bins that N(0, 1) fills equally."""
    bins = (torch.special.ndtr(z) * BINS).long().clamp(0, BINS - 1)
    counts = z.new_zeros(len(z), BINS).scatter_add_(1, bins, torch.ones_like(z))
    expected = z.shape[1] / BINS
    return ((counts - expected) ** 2 / expected).sum(1)


def spectrum_cv(z: Tensor) -> Tensor:
    """Standard deviation by mean of the power spectrum ``|rfft(z)|²``, frequency 0 with them; about 1 for white noise."""
    std, mean = torch.std_mean(torch.fft.rfft(z).abs() ** 2, 1, correction=0)
    return std / mean


def box_pierce(z: Tensor, lags: Iterable[int]) -> Tensor:
    """``D · mean_k ρ̂_k²`` over these lags, as far as D reaches, ``(B, D) -> (B,)``; little above 1 for white noise.

    ``ρ̂_k`` is the mean of ``w_i w_{i+k}`` over the D − k pairs, w standardised; of white noise its variance is 1/(D − k).
    """
    count, w = z.shape[1], standardised(z, 1)
    known = torch.tensor([k for k in lags if k < count], device=z.device)
    products = torch.fft.irfft(torch.fft.rfft(w, 2 * count).abs() ** 2, 2 * count)
    return count * (products[:, known] / (count - known)).square().mean(1)


@cache
def directions(count: int) -> Tensor:
    """50 unit vectors of ``count`` numbers, ``(count, 50)``: Gaussian ones, from a stream that never changes."""
    drawn = np.random.RandomState(0).standard_normal((DIRECTIONS, count))
    return torch.from_numpy((drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).T)


def normality(z: Tensor) -> dict[str, Tensor]:
    """All of a sequence of numbers an image, ``(B, D)``: float64 ``(B,)``, and the projections ``(B, 50)``."""
    z = z.flatten(1).double()
    w = standardised(z, 1)
    return {
        "ks": kolmogorov_smirnov(z),
        "anderson_darling": anderson_darling(z),
        "chi2": chi2(z),
        "kurtosis": (w**4).mean(1) - 3,
        "skew": (w**3).mean(1),
        "spectrum_cv": spectrum_cv(z),
        "box_pierce": box_pierce(z, range(1, LAGS + 1)),
        "projections": z @ directions(z.shape[1]).to(z.device),
    }
