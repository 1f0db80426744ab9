"""How `ref` is divided: what passes are prepared on, what scorers are fitted to, and what their thresholds come from.

No image does two of these. Passes of a model are prepared on the last images. Of the others, where there are many, the last
ones calibrate and the rest fit; where there are few, all fit, and the threshold comes of cross-fitting: each fold is scored by
a fit on the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from oodbench.types import Columns, Scorer

MANY, CALIBRATING, FOLDS = 1000, 500, 5
"""Images from which on `ref` is divided, how many of them then calibrate, and folds where there are fewer."""


@dataclass(frozen=True)
class RefDivision:
    """The parts of n reference images, of which the last ``prepared`` have prepared a pass."""

    n: int
    prepared: int
    calibrates: bool

    @property
    def left(self) -> int:
        """Images that no pass was prepared on."""
        return self.n - self.prepared

    @property
    def is_crossed(self) -> bool:
        """Whether thresholds come of folds, there being too few images to set some apart."""
        return self.calibrates and self.left < MANY

    @property
    def fitting(self) -> int:
        """Images that the fit which scores the test images is of: the first ones."""
        return self.left - CALIBRATING * (self.calibrates and not self.is_crossed)

    def fits(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places of the images of each fit that calibrates, and of those that it scores."""
        places = np.arange(self.left)
        if not self.is_crossed:
            yield places[: self.fitting], places[self.fitting :]
            return
        for fold in range(FOLDS):
            own = places % FOLDS == fold
            yield places[~own], places[own]

    @property
    def smallest_fit(self) -> int:
        """Images of the smallest fit that calibrates."""
        return min(len(fitted) for fitted, _ in self.fits())

    def words(self) -> str:
        """For the row."""
        part = f"the first {self.fitting:,}" if self.fitting < self.n else "all"
        fits = f"{part} of ref fit{'s' * (part == 'all')}"
        if self.is_crossed:
            fits += f" and scores the test images, {FOLDS} folds calibrate, each scored by a fit on the others"
        elif self.calibrates:
            fits += f", {CALIBRATING:,} others calibrate"
        return fits


def part(columns: Columns, places: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of some images."""
    return {name: column[places] for name, column in columns.items()}


def divided(n: int, prepared: int, scorer: Scorer) -> RefDivision:
    """The division of n images for a scorer that is fitted to some; too few for folds are not calibrated on."""
    found = RefDivision(n, prepared, scorer.calibrates)
    if found.calibrates and (found.left < 2 * FOLDS or found.smallest_fit < scorer.least_reference):
        return RefDivision(n, prepared, False)
    return found
