"""How log p changes as a set of images is drawn together.

Contraction towards a centre c takes x to ``c + f·(x − c)`` and every variance to f² times itself. Towards a set's own
mean it changes nothing else of the first two moments, and so tests for any model what the second-order analysis says
of flows: less variance, likelier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from oodbench.analysis.expected import Expected

MODERATE = (50, 99)
"""Per cent between which a contraction is called moderate: it leaves what an image shows."""
CONTRACTION = re.compile(r"(?P<centre>contract|shrink)(?P<percent>\d+)")


def factors(contractions: Mapping[str, np.ndarray], centre: str) -> dict[int, np.ndarray]:
    """Per cent → column, of the contractions of one kind: ``contract`` towards mid-grey, ``shrink`` towards the mean."""
    found = {CONTRACTION.fullmatch(name): column for name, column in contractions.items()}
    return {
        int(match["percent"]): column
        for match, column in found.items()
        if match and match["centre"] == centre
    }


def changes(as_it_is: np.ndarray, contracted: Mapping[int, np.ndarray]) -> dict[int, Expected]:
    """Per cent → mean change of log p in nats, with its standard error over images, paired image by image."""
    return {percent: Expected.of_mean(column - as_it_is) for percent, column in contracted.items()}


def moderate(found: Mapping[int, Expected]) -> dict[int, Expected]:
    """The changes at moderate factors."""
    least, most = MODERATE
    return {percent: one for percent, one in found.items() if least <= percent <= most}
