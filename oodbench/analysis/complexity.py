"""Is it only complexity? What scorers keep on a pair when what baselines see in an image is taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oodbench.errors import OodbenchError
from oodbench.metrics.adjusted import FORMS, adjusted_aurocs
from oodbench.metrics.intervals import auroc
from oodbench.passes.columns import kept_columns, needed_column
from oodbench.passes.shards import ChangedError
from oodbench.registry import scorers
from oodbench.trials.fits import FittedScorer
from oodbench.types import Scorer

Keys = tuple[str, ...]
"""Of the shards of one pass."""
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Judgement:
    """The columns of a pair, and of in-dist reference images, that scorers and covariates are read from.

    Attributes
    ----------
    model : its shown name
    scorers : name → identity
    covariates : names of columns that need no model and no reference
    reads : ``in``, ``ood``, ``ref`` → need → the shard keys of each pass that gives it
    left_out : places of OOD images that are not judged
    """

    model: str
    scorers: Mapping[str, str]
    covariates: tuple[str, ...]
    reads: Mapping[str, Mapping[str, tuple[Keys, ...]]]
    left_out: tuple[int, ...]
    seed: int

    @property
    def keys(self) -> frozenset[str]:
        """Shards that have to be there."""
        passes = (one for needs in self.reads.values() for one in needs.values())
        return frozenset(key for several in passes for keys in several for key in keys)

    def what(self) -> list[Any]:
        """Everything that the result depends on, JSON-able."""
        return [dict(self.scorers), self.covariates, self.reads, self.left_out, self.seed]

    def columns(self, side: str) -> dict[str, np.ndarray]:
        """Need → column of one side's images, without those that are left out."""
        left_out = self.left_out if side == "ood" else ()
        return {
            need: np.delete(needed_column(need, map(kept_columns, passes), self.model), left_out, 0)
            for need, passes in self.reads[side].items()
        }


def complexity(judgement: Judgement) -> tuple[dict[str, Any], dict[str, bytes]]:
    """AUROCs of scorers as they are, and with the covariates taken out.

    Scorers that fit are fitted on one half of `ref`, drawn by the seed; the regression is fitted on the other half, which
    neither scorers nor covariates were fitted on.
    """
    columns = {side: judgement.columns(side) for side in judgement.reads}
    order = np.random.RandomState(judgement.seed).permutation(
        len(next(iter(columns["ref"].values())))
    )
    fits, regresses = (np.sort(half) for half in np.array_split(order, 2))
    fitted_on = {need: column[fits] for need, column in columns["ref"].items()}
    columns["ref"] = {need: column[regresses] for need, column in columns["ref"].items()}
    found = {}
    for name, identity in judgement.scorers.items():
        scores = _scores(_known(name, identity), identity, fitted_on, columns)
        if scores is not None:
            found[name] = scores
    if not found:
        raise OodbenchError("no scorer's numbers are all finite")
    sides = {side: np.stack([own[side] for own in found.values()], 1) for side in columns}
    covariates = {
        side: np.stack([own[name] for name in judgement.covariates], 1)
        for side, own in columns.items()
    }
    return {
        "scorers": list(found),
        "covariates": list(judgement.covariates),
        "n_fit": len(fits),
        "n_regression": len(regresses),
        "auroc": [list(auroc(own["in"], own["ood"])) for own in found.values()],
        **{
            form: [list(one) for one in adjusted_aurocs(sides, covariates, form, judgement.seed)]
            for form in FORMS
        },
    }, {}


def _known(name: str, identity: str) -> Scorer:
    scorer = scorers[name]
    if scorer.identity != identity:
        raise ChangedError(
            f"the scorer {name} is another here than in the plan; was its file edited?"
        )
    return scorer


def _scores(
    scorer: Scorer, identity: str, fitted_on: Columns, columns: Mapping[str, Columns]
) -> dict[str, np.ndarray] | None:
    """The scores of each side; None of a scorer that fails here or gives NaN, as its own row says already."""
    try:
        score = FittedScorer(scorer, identity, fitted_on)
        found = {side: score(own) for side, own in columns.items()}
    except Exception:  # a plugin may raise anything
        return None
    return found if all(np.isfinite(own).all() for own in found.values()) else None
