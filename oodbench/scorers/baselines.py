"""Model-free baselines, ranked apart: a scorer that does no better measures no more than these."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer


@register_scorer(
    "code-length-png",
    cite="as reported beside Serrà et al., ICLR 2020, arXiv:1909.11480",
    groups="mean of scores",
)
def code_length(code_length_png: np.ndarray) -> np.ndarray:
    """Length of the PNG file alone, in nats: complex images count as OOD."""
    return code_length_png


@register_scorer(
    "pixel-variance",
    cite="after the second-order analysis of Nalisnick et al., ICLR 2019",
    groups="mean of scores",
)
def variance(pixel_variance: np.ndarray) -> np.ndarray:
    """Variance of the image's pixels: contrasty images count as OOD."""
    return pixel_variance


@register_scorer(
    "pixel-mean",
    cite="after the second-order analysis of Nalisnick et al., ICLR 2019",
    groups="mean of scores",
)
def mean(pixel_mean: np.ndarray) -> np.ndarray:
    """Mean of the image's pixels: bright images count as OOD."""
    return pixel_mean


@register_scorer(
    "code-length-png-short", cite="the other sign of code-length-png", groups="mean of scores"
)
def short_code(code_length_png: np.ndarray) -> np.ndarray:
    """Minus the length of the PNG file, in nats: simple images count as OOD."""
    return -code_length_png


@register_scorer(
    "pixel-variance-low", cite="the other sign of pixel-variance", groups="mean of scores"
)
def low_variance(pixel_variance: np.ndarray) -> np.ndarray:
    """Minus the variance of the image's pixels: flat images count as OOD."""
    return -pixel_variance


@register_scorer("pixel-mean-low", cite="the other sign of pixel-mean", groups="mean of scores")
def low_mean(pixel_mean: np.ndarray) -> np.ndarray:
    """Minus the mean of the image's pixels: dark images count as OOD."""
    return -pixel_mean
