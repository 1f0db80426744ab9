"""Scorers: arithmetic from columns to an OOD score, larger = more OOD. Importing this registers the built-in ones."""

from oodbench.scorers import (
    baselines,
    classifier,
    complexity,
    denoising,
    density,
    diffusion,
    dose,
    gradient,
    group_tests,
    likelihood_path,
    linear,
    ratio,
    reference,
    tabular,
    vae,
    whitened,
)

__all__ = [
    "baselines",
    "classifier",
    "complexity",
    "denoising",
    "density",
    "diffusion",
    "dose",
    "gradient",
    "group_tests",
    "likelihood_path",
    "linear",
    "ratio",
    "reference",
    "tabular",
    "vae",
    "whitened",
]
