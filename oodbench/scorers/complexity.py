"""Input complexity: likelihood corrected by the length of a lossless code, both in nats."""

from __future__ import annotations

import numpy as np

from oodbench.registry import register_scorer

SERRA = "Serrà et al., ICLR 2020, arXiv:1909.11480"


@register_scorer("input-complexity-png", cite=SERRA, groups="mean of scores")
def input_complexity_png(log_prob: np.ndarray, code_length_png: np.ndarray) -> np.ndarray:
    """Nats that the model spends beyond PNG, ``−log p(x) − L(x)``."""
    return -log_prob - code_length_png


@register_scorer("input-complexity-jp2", cite=SERRA, groups="mean of scores")
def input_complexity_jp2(log_prob: np.ndarray, code_length_jp2: np.ndarray) -> np.ndarray:
    """Nats that the model spends beyond lossless JPEG 2000, ``−log p(x) − L(x)``."""
    return -log_prob - code_length_jp2


@register_scorer("input-complexity-webp", cite=SERRA, groups="mean of scores")
def input_complexity_webp(log_prob: np.ndarray, code_length_webp: np.ndarray) -> np.ndarray:
    """Nats that the model spends beyond lossless WebP, ``−log p(x) − L(x)``."""
    return -log_prob - code_length_webp


@register_scorer(
    "input-complexity-jxl",
    cite=f"{SERRA}; JPEG XL in place of FLIF, which it succeeds",
    groups="mean of scores",
)
def input_complexity_jxl(log_prob: np.ndarray, code_length_jxl: np.ndarray) -> np.ndarray:
    """Nats that the model spends beyond lossless JPEG XL, ``−log p(x) − L(x)``."""
    return -log_prob - code_length_jxl


@register_scorer(
    "input-complexity-min", cite=f"{SERRA}; with WebP in place of FLIF", groups="mean of scores"
)
def input_complexity_min(
    log_prob: np.ndarray,
    code_length_png: np.ndarray,
    code_length_jp2: np.ndarray,
    code_length_webp: np.ndarray,
) -> np.ndarray:
    """Nats that the model spends beyond the shortest of PNG, JPEG 2000 and WebP, ``−log p(x) − min L(x)``."""
    return -log_prob - np.minimum(np.minimum(code_length_png, code_length_jp2), code_length_webp)
