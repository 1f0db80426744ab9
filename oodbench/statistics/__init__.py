"""Per-image numbers, measured once and shared by all scorers. Importing this registers the built-in ones."""

from oodbench.statistics import complexity, density, hierarchy, moments

__all__ = ["complexity", "density", "hierarchy", "moments"]
