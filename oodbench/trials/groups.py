"""Groups of images that are judged as one: disjoint ones of the test images, and drawn ones that thresholds come from."""

from __future__ import annotations

import numpy as np

from oodbench.errors import OodbenchError
from oodbench.trials.fits import FittedScorer
from oodbench.types import Columns


def disjoint_groups(n: int, size: int, seed: int) -> np.ndarray:
    """Places of the images of disjoint random groups, ``(G, size)``; those left over are dropped.

    Disjoint groups share no image, so that intervals over groups need no correction.

    Raises
    ------
    OodbenchError : there are fewer than two groups
    """
    if n // size < 2:
        raise OodbenchError(f"{n} images make fewer than two groups of {size}")
    return np.random.RandomState(seed).permutation(n)[: n // size * size].reshape(-1, size)


def drawn_groups(n: int, size: int, groups: int, seed: int) -> np.ndarray:
    """Places of the images of groups that are drawn with replacement, ``(groups, size)``."""
    return np.random.RandomState(seed).randint(0, n, (groups, size))


def group_scores(score: FittedScorer, columns: Columns, places: np.ndarray) -> np.ndarray:
    """The score of each group, ``(G,)``, by the scorer's declared rule.

    Parameters
    ----------
    columns : of single images, ``(N,)`` or ``(N, K)``
    places : of each group's images, ``(G, M)``
    """
    if score.scorer.groups == "mean of scores":
        found: np.ndarray = score(columns)[places].mean(1)
        return found
    grouped = {name: column[places] for name, column in columns.items()}
    if score.scorer.groups == "own test":
        return score.of_groups(grouped)
    return score({name: column.mean(1) for name, column in grouped.items()})
