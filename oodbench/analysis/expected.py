"""Numbers with their standard errors, and when they have a sign."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SURE = 2
"""Standard errors that a number must be away from zero before its sign counts."""


@dataclass(frozen=True)
class Expected:
    """A number and its standard error; an error of zero means that nothing was sampled."""

    value: float
    error: float = 0.0

    @classmethod
    def of_mean(cls, values: np.ndarray) -> Expected:
        """The mean of independent numbers."""
        return cls(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))

    @property
    def sign(self) -> int:
        """1 or −1; 0 where the number lies within :data:`SURE` errors of zero, or is none."""
        if not abs(self.value) > SURE * self.error:
            return 0
        return 1 if self.value > 0 else -1

    def __add__(self, other: Expected) -> Expected:
        return Expected(self.value + other.value, math.hypot(self.error, other.error))

    def __sub__(self, other: Expected) -> Expected:
        return self + Expected(-other.value, other.error)

    def __str__(self) -> str:
        return f"{self.value:+,.1f}" + f" ± {self.error:,.1f}" * (self.error > 0)
