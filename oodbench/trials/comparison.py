"""All scorers on the same images of one pair: what paired comparisons and correlations are computed from later."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from oodbench import __version__
from oodbench.data.catalog import is_synthetic
from oodbench.metrics import area_under_roc
from oodbench.metrics.comparison import delong_covariance, oracle_dual_threshold, rank_correlation
from oodbench.passes.shards import ImageRef, open_images
from oodbench.registry import scorers
from oodbench.store import SCHEMA, Row, key_of
from oodbench.trials.rows import DIGITS, TrialTask, trial_key, trial_scores
from oodbench.zoo.describe import describe

Contest = tuple[TrialTask, ...]
"""The single-image trials of one model and one pair of sets."""


def contests(tasks: Iterable[TrialTask]) -> list[Contest]:
    """Trials grouped by model and pair of real sets, those on single images only."""
    found: dict[tuple[str, ImageRef, ImageRef], list[TrialTask]] = {}
    for task in sorted(tasks, key=lambda task: task.trial.scorer):
        if task.trial.group_size == 1 and not is_synthetic(open_images(task.trial.ood).name):
            found.setdefault((task.trial.model, task.trial.test, task.trial.ood), []).append(task)
    return [tuple(own) for own in found.values() if len(own) > 1]


def contest_key(contest: Contest) -> str:
    """Hash of everything that a contest's row is computed from."""
    return key_of(SCHEMA, __version__, "contest", [trial_key(task) for task in contest])


def contest_row(contest: Contest) -> Row:
    """AUROCs of all scorers, their DeLong covariance, and each scorer's rank correlation with the model-free baselines."""
    first = contest[0].trial
    found = {task.trial.scorer: trial_scores(task) for task in contest}
    covariance = delong_covariance(list(found.values()))
    baselines = {name: own for name, own in found.items() if scorers[name].baseline}
    dual = {"likelihood", "lid"} <= found.keys()
    oracle = round(oracle_dual_threshold(found["likelihood"], found["lid"]), DIGITS) if dual else None
    return {
        "schema": SCHEMA,
        "key": contest_key(contest),
        "model": describe(first.model).name,
        "in_dist": open_images(first.test).identifier,
        "ood": open_images(first.ood).identifier,
        "scorers": list(found),
        "baselines": list(baselines),
        "auroc": [round(area_under_roc(*scores), DIGITS) for scores in found.values()],
        "covariance": [[float(f"{value:.6g}") for value in line] for line in covariance],
        "correlation": {
            name: [_rounded(rank_correlation(scores, own)) for scores in found.values()]
            for name, own in baselines.items()
        },
        "oracle_dual_threshold": oracle,
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
