"""All scorers on the same images of one pair: what paired comparisons and correlations are computed from later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from oodbench.digests import code_digest
from oodbench.errors import StoreError
from oodbench.metrics import area_under_roc
from oodbench.metrics.comparison import (
    delong_covariance,
    oracle_dual_threshold,
    paired_lows,
    rank_correlation,
)
from oodbench.metrics.detection import OF_CURVES
from oodbench.store import (
    SCHEMA,
    Row,
    Standing,
    is_ranked,
    key_of,
    looks_at_ref,
    standing,
)
from oodbench.trials.counted import is_counted
from oodbench.trials.replicates import Replicates, metrics_digest, replicates_of
from oodbench.trials.scores import read_scores

DECIMALS = 6
"""Of a paired interval's ends, of which there are as many as pairs of scorers."""
DUAL = ("likelihood", "lid")
"""Scorers of the dual-threshold oracle."""

APART: tuple[Standing, Standing] = ("baseline", "tuned")
"""Standings that are ranked apart from the scorers that read a model."""
SHARED = ("suite", "model", "in_dist", "ood", "seed")
"""What rows that are compared have in common, and their comparison's row says."""


@cache
def comparison_digest() -> str:
    """Hash of the code that compares."""
    metrics = code_digest("oodbench.metrics.comparison", within="oodbench.metrics")
    own = code_digest("oodbench.trials.comparison", within="oodbench.trials")
    return key_of(own, metrics, metrics_digest())


@dataclass(frozen=True, eq=False)
class ComparisonTask:
    """The single-image rows of one model and one pair of sets, to be compared; scores are read from the run's folder."""

    key: str
    head: Row
    folder: Path
    rows: Sequence[Row]
    here: bool = False
    tables = ("comparisons",)
    after: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        return f"comparison of scorers with {self.head['model']}: {self.head['in_dist']} → {self.head['ood']}"

    def __str__(self) -> str:
        return self.label

    def failed(self, reason: str) -> dict[str, list[Row]]:
        """The row of a comparison that could not be made."""
        return {"comparisons": [self.head | {"status": "failed", "reason": reason}]}

    def perform(self) -> dict[str, list[Row]]:
        """AUROCs of all scorers with their DeLong covariance, paired intervals, and rank correlation with the baselines."""
        try:
            found = {row["scorer"]: self._compared(row) for row in self.rows}
        except StoreError as error:  # scores that travel apart; the other comparisons can be made
            return self.failed(str(error))
        return {"comparisons": [self.head | compared(found)]}

    def _compared(self, row: Row) -> Compared:
        scores = read_scores(self.folder, row)
        return Compared(row, scores, replicates_of(row, scores))


class Compared(NamedTuple):
    """A row, its scores of in-dist and of OOD images, and its bootstrap."""

    row: Row
    scores: tuple[np.ndarray, np.ndarray]
    replicates: Replicates


def compared(scorers: Mapping[str, Compared]) -> Row:
    """What a comparison's row holds, of scorers by name."""
    found = {name: one.scores for name, one in scorers.items()}
    kinds = {name: standing(one.row) for name, one in scorers.items()}
    baselines, tuned = ([name for name in found if kinds[name] == kind] for kind in APART)
    covariance = delong_covariance(list(found.values()))
    n_in, n_ood = map(len, next(iter(found.values())))
    dual = (
        oracle_dual_threshold(*(found[name] for name in DUAL))
        if set(DUAL) <= found.keys()
        else None
    )
    return {
        "status": "ok",
        "scorers": list(found),
        "baselines": baselines,
        "tuned": tuned,
        "n_in": n_in,
        "n_ood": n_ood,
        "look_at_ref": [name for name, one in scorers.items() if looks_at_ref(one.row)],
        "auroc": [area_under_roc(*scores) for scores in found.values()],
        "covariance": covariance.tolist(),
        "paired": _paired(list(scorers.values())),
        "correlation": {name: _correlations(found, name) for name in baselines},
        "oracle_dual_threshold": dual,
    }


def _paired(scorers: Sequence[Compared]) -> Row | None:
    """Values and paired intervals of the metrics that are read off curves; None without a bootstrap."""
    if not all(one.replicates for one in scorers):
        return None
    return {name: _paired_metric(name, scorers) for name in OF_CURVES}


def _paired_metric(name: str, scorers: Sequence[Compared]) -> Row:
    lows = paired_lows([one.replicates[name] for one in scorers]).round(DECIMALS)
    return {"value": [one.row[name] for one in scorers], "low": lows.tolist()}


def _correlations(
    found: Mapping[str, tuple[np.ndarray, np.ndarray]], baseline: str
) -> list[float | None]:
    values = [rank_correlation(scores, found[baseline]) for scores in found.values()]
    return [None if np.isnan(value) else value for value in values]


def comparison_tasks(rows: Iterable[Row], folder: Path) -> list[ComparisonTask]:
    """Sound rows grouped by model, pair of real sets and what both are made of; those on single images only.

    Classifiers are left out: what they were trained on, class labels, no scorer of a density model has.
    """
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.get("scorer", "")):
        if _can_be_compared(row):
            inputs = row["inputs"]
            shared = (
                [row[name] for name in SHARED],
                inputs["images"]["in_dist"],
                inputs["images"]["ood"],
                row.get("left_out", 0),
                row.get("left_out_checked", {}),
            )
            found.setdefault(key_of(*shared), []).append(row)
    return [_task(own, folder) for own in found.values() if len(own) > 1]


def _can_be_compared(row: Row) -> bool:
    sound = row["status"] == "ok" and bool(row.get("scores"))
    return sound and is_ranked(row) and is_counted(row) and not row.get("uses_labels")


def _task(rows: Sequence[Row], folder: Path) -> ComparisonTask:
    key = key_of(SCHEMA, comparison_digest(), [row["key"] for row in rows])
    head = {"schema": SCHEMA, "key": key, **{name: rows[0][name] for name in SHARED}}
    return ComparisonTask(key, head, folder, rows)
