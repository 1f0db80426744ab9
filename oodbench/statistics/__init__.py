"""Per-image numbers, measured once and shared by all scorers. Importing this registers the built-in ones."""

from oodbench.statistics import (
    classification,
    complexity,
    denoising,
    density,
    diffusion,
    gradient,
    hierarchy,
    jacobian,
    likelihood_path,
    linear,
    moments,
    projections,
    reference,
    regret,
    whitened,
)

__all__ = [
    "classification",
    "complexity",
    "denoising",
    "density",
    "diffusion",
    "gradient",
    "hierarchy",
    "jacobian",
    "likelihood_path",
    "linear",
    "moments",
    "projections",
    "reference",
    "regret",
    "whitened",
]
