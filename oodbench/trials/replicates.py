"""A trial's bootstrap replicates in the cache, so that a comparison of many scorers resamples none of them again.

They are known by the digests of both scores, the bootstrap, and the code that resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from oodbench.digests import code_digest
from oodbench.metrics.detection import detection
from oodbench.paths import home
from oodbench.store import ColumnStore, Row, Shard, key_of

Replicates = Mapping[str, np.ndarray]
"""Metric → its value on each replicate; nothing where there is no bootstrap."""


@cache
def metrics_digest() -> str:
    """Hash of the code of the metrics."""
    return code_digest("oodbench.metrics.detection", within="oodbench.metrics")


def keep_replicates(row: Row, replicates: Replicates) -> None:
    """Put a row's replicates into the cache; :class:`StoreError` where it cannot be written."""
    about = {name: row[name] for name in ("model", "scorer", "in_dist", "ood")}
    _store().put(_key(row), Shard(replicates, about))


def replicates_of(row: Row, scores: tuple[np.ndarray, np.ndarray]) -> Replicates:
    """A row's replicates from the cache, or drawn from its scores where they are not there."""
    kept = _store().get(_key(row))
    if kept is not None:
        return kept.columns
    return detection(*scores, row["bootstrap"], row["seed"]).resampled


def _store() -> ColumnStore:
    return ColumnStore(home() / "replicates")


def _key(row: Row) -> str:
    return key_of("replicates", metrics_digest(), row["scores"], row["bootstrap"], row["seed"])
