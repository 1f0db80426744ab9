"""How far what a predictor leaves over is from white noise: squared autocorrelations of residuals, an image at a time.

A predictor that has learnt what images are like leaves nothing of the kind behind in-dist: its residuals are uncorrelated. An
image of another kind leaves structure, whichever way its likelihood goes. All autocorrelations divide by the number of
overlapping terms and by the variance.
"""

from __future__ import annotations

import numpy as np

LAGS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""(rows down, columns to the right): the neighbours of a pixel, each pair once."""
ROWS = (1, 2, 3, 4, 5)
"""Lags of the flattened residuals, in image rows."""


def whiteness_2d(residuals: np.ndarray) -> np.ndarray:
    """``H·W · mean ρ̂²`` over channels and the four neighbouring :data:`LAGS`; each channel has its own mean and deviation.

    Parameters
    ----------
    residuals : ``(B, C, H, W)``
    """
    z = _standardised(residuals, (2, 3))
    squares = [_at_lag(z, down, right) ** 2 for down, right in LAGS]
    found: np.ndarray = z.shape[2] * z.shape[3] * np.mean(squares, axis=(0, 2))
    return found


def _at_lag(z: np.ndarray, down: int, right: int) -> np.ndarray:
    """The autocorrelation of each channel at one lag, ``(B, C)``."""
    height, width = z.shape[2:]
    first = z[:, :, : height - down, max(0, -right) : width - max(0, right)]
    second = z[:, :, down:, max(0, right) : width + min(0, right)]
    found: np.ndarray = (first * second).mean((2, 3))
    return found


def whiteness_rows(residuals: np.ndarray) -> np.ndarray:
    """``N · mean ρ̂_k²`` of the residuals flattened channel after channel, N numbers, at lags of one to five image rows.

    Lags that a smaller image does not have are left out.
    """
    z = _standardised(residuals.reshape(len(residuals), -1), (1,))
    lags = [rows * residuals.shape[3] for rows in ROWS if rows * residuals.shape[3] < z.shape[1]]
    squares = [(z[:, :-lag] * z[:, lag:]).mean(1) ** 2 for lag in lags]
    found: np.ndarray = z.shape[1] * np.mean(squares, axis=0)
    return found


def _standardised(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    mean, std = values.mean(axes, keepdims=True), values.std(axes, keepdims=True)
    found: np.ndarray = (values - mean) / std
    return found
