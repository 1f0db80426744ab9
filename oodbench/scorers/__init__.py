"""Scorers: arithmetic from columns to an OOD score, larger = more OOD. Importing this registers the built-in ones."""

from oodbench.scorers import (
    baselines,
    classifier,
    complexity,
    density,
    diffusion,
    dose,
    gradient,
    linear,
    ratio,
    reference,
    vae,
    whitened,
)

__all__ = [
    "baselines",
    "classifier",
    "complexity",
    "density",
    "diffusion",
    "dose",
    "gradient",
    "linear",
    "ratio",
    "reference",
    "vae",
    "whitened",
]
