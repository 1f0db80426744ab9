"""Per-image numbers, measured once and shared by all scorers. Importing this registers the built-in ones."""

from oodbench.statistics import (
    classification,
    complexity,
    density,
    diffusion,
    gradient,
    hierarchy,
    jacobian,
    linear,
    moments,
    reference,
    regret,
    whitened,
)

__all__ = [
    "classification",
    "complexity",
    "density",
    "diffusion",
    "gradient",
    "hierarchy",
    "jacobian",
    "linear",
    "moments",
    "reference",
    "regret",
    "whitened",
]
