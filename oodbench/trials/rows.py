"""One trial: columns → scores → metrics → a row."""

from __future__ import annotations

import hashlib
import inspect
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from oodbench import __version__
from oodbench.contract import bits_per_dim
from oodbench.data.catalog import is_synthetic
from oodbench.errors import OodbenchError
from oodbench.metrics import Estimate, detection_metrics, proportion
from oodbench.passes.shards import SECONDS, ImagePass, ImageRef, model_identity, open_images, read_columns, shard_tasks
from oodbench.plan import Skip, Trial, passes_of, trial_passes
from oodbench.registry import scorers, statistics
from oodbench.store import SCHEMA, Row, key_of
from oodbench.types import Columns, split_need
from oodbench.zoo.describe import describe

DIGITS = 6
"""Decimals of the numbers in a row."""
Score = Callable[[Columns], np.ndarray]
"""A fitted scorer."""
LEVEL, DRAWN_GROUPS = 0.99, 1000
"""Of the rejection test: in-dist groups that it should accept, and bootstrap groups that its threshold comes from."""


@dataclass(frozen=True)
class TrialTask:
    """A trial with all that its row depends on."""

    suite: str
    trial: Trial
    seed: int
    bootstrap: int
    device: str


def trial_key(task: TrialTask) -> str:
    """Hash of everything that a row is computed from; equal keys mean equal rows."""
    scorer = scorers[task.trial.scorer]
    shards = [s.key for p in trial_passes(task.trial) for s in shard_tasks(p, task.seed, task.device)]
    code = [_source(scorer.score), _source(scorer.fit)]
    return key_of(
        SCHEMA, __version__, task.trial.scorer, task.trial.group_size, task.seed, task.bootstrap, shards, code
    )


def _source(code: Any) -> str:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return repr(code)


def failed(task: TrialTask, reason: str) -> Row:
    """The row of a trial that could not be evaluated."""
    return _describe_trial(task) | {"status": "failed", "reason": reason}


def evaluate(task: TrialTask) -> Row:
    """The row of one trial; a scorer that fails gives a FAILED row with its reason."""
    row = _describe_trial(task)
    try:
        columns = _columns(task)
        reason = _non_finite(columns)
        row |= {"status": "failed", "reason": reason} if reason else _judge(task, columns)
    except Exception as error:  # a plugin may raise anything; the other trials stand
        what = str(error) if isinstance(error, OodbenchError) else f"{type(error).__name__}: {error}"
        row |= {"status": "failed", "reason": f"{task.trial.scorer} failed: {what}"}
    return row


def _judge(task: TrialTask, columns: dict[ImageRef, dict[str, np.ndarray]]) -> Row:
    score, scorer = _fitted(task, columns), scorers[task.trial.scorer]
    scores_in, scores_ood = _scores(task, columns, score)
    found = detection_metrics(scores_in, scores_ood, task.bootstrap, task.seed)
    if task.trial.ref and scorer.fit and set(scorer.needs) <= set(scorer.fit_needs):
        threshold = rejection_threshold(task, columns[task.trial.ref], score)
        for name, scores in (("flagged_in", scores_in), ("flagged_ood", scores_ood)):
            found[name] = proportion(int((scores > threshold).sum()), len(scores))
    n_in, n_ood = len(scores_in), len(scores_ood)
    return {
        "status": "ok",
        "n_in": n_in,
        "n_ood": n_ood,
        "base_rate": round(n_ood / (n_in + n_ood), DIGITS),
        **{key: value for name, estimate in found.items() for key, value in _flat(name, estimate).items()},
    }


def _fitted(task: TrialTask, columns: dict[ImageRef, dict[str, np.ndarray]]) -> Score:
    return scorers[task.trial.scorer].fitted(columns[task.trial.ref] if task.trial.ref else {})


def _scores(
    task: TrialTask, columns: dict[ImageRef, dict[str, np.ndarray]], score: Score
) -> tuple[np.ndarray, np.ndarray]:
    trial = task.trial
    scores = []
    for ref in (trial.test, trial.ood):
        grouped = group_means(columns[ref], trial.group_size, task.seed)
        scores.append(score(grouped))
        n = len(next(iter(grouped.values())))
        if scores[-1].shape != (n,):
            raise OodbenchError(
                f"it returned shape {scores[-1].shape} for {n} images or groups; one score each is needed"
            )
    return scores[0], scores[1]


def rejection_threshold(task: TrialTask, reference: dict[str, np.ndarray], score: Score) -> float:
    """The score that a share ``1 − LEVEL`` of groups of in-dist reference images exceeds.

    Groups of the trial's size are drawn with replacement, :data:`DRAWN_GROUPS` times (Nalisnick et al. 2019,
    arXiv:1906.02994, §3).
    """
    scorer, size = scorers[task.trial.scorer], task.trial.group_size
    needed = {name: reference[name] for name in scorer.needs}
    n = len(next(iter(reference.values())))
    chosen = np.random.RandomState(task.seed).randint(0, n, (DRAWN_GROUPS, size))
    groups = needed if size == 1 else {name: column[chosen].mean(1) for name, column in needed.items()}
    return float(np.quantile(score(groups), LEVEL))


def trial_scores(task: TrialTask) -> tuple[np.ndarray, np.ndarray]:
    """The OOD scores of the in-dist and of the OOD images (or groups) of a trial."""
    columns = _columns(task)
    return _scores(task, columns, _fitted(task, columns))


def _columns(task: TrialTask) -> dict[ImageRef, dict[str, np.ndarray]]:
    return {ref: _needed(task, ref) for ref in (task.trial.test, task.trial.ood, task.trial.ref) if ref}


def _flat(name: str, estimate: Estimate) -> dict[str, float | None]:
    names = (name, f"{name}_low", f"{name}_high")
    return {key: None if np.isnan(value) else round(value, DIGITS) for key, value in zip(names, estimate, strict=True)}


def group_means(columns: dict[str, np.ndarray], size: int, seed: int) -> dict[str, np.ndarray]:
    """Means over disjoint random groups of ``size`` images; those left over are dropped.

    Disjoint groups share no image, so that intervals over groups need no correction.
    """
    if size == 1:
        return columns
    n = len(next(iter(columns.values())))
    if n // size < 2:
        raise OodbenchError(f"{n} images make fewer than two groups of {size}")
    order = np.random.RandomState(seed).permutation(n)[: n // size * size].reshape(-1, size)
    return {name: column[order].mean(1) for name, column in columns.items()}


def _needed(task: TrialTask, ref: ImageRef) -> dict[str, np.ndarray]:
    """The columns that the scorer names, of one image set; ``(N, K)`` of an ensemble."""
    trial, scorer = task.trial, scorers[task.trial.scorer]
    columns = {}
    for need in scorer.fit_needs if ref == trial.ref else scorer.needs:
        statistic, of = split_need(need)
        found = [read_columns(p, task.seed, task.device) for p in passes_of(trial.model, need, ref, trial.ref)]
        if any(statistic not in one for one in found):
            raise OodbenchError(f"{trial.model} gives no {need!r}: it lacks a method that this statistic asks for")
        own = [one[statistic] for one in found]
        columns[need] = np.stack(own, 1) if of == "ensemble" else own[0]
    return columns


def _non_finite(columns: dict[ImageRef, dict[str, np.ndarray]]) -> str:
    """A sentence counting NaN and infinite statistics, or nothing; they are never replaced."""
    found = []
    for ref, named in columns.items():
        for name, column in named.items():
            bad = int((~np.isfinite(column.reshape(len(column), -1))).any(1).sum())
            if bad:
                found.append(
                    f"{bad} of {len(column)} values of {name} on {open_images(ref).identifier} are NaN or infinite"
                )
    return "; ".join(found)


def _describe_trial(task: TrialTask) -> Row:
    trial, scorer = task.trial, scorers[task.trial.scorer]
    model = describe(trial.model)
    test, ood = open_images(trial.test), open_images(trial.ood)
    passes = {p.name for need in scorer.needs for p in passes_of(trial.model, need, trial.test, trial.ref)}
    return {
        "schema": SCHEMA,
        "key": trial_key(task),
        "suite": task.suite,
        "model": model.name,
        "likelihood": model.likelihood,
        "in_dist": test.identifier,
        "ood": ood.identifier,
        "in_dist_name": test.name,
        "synthetic": is_synthetic(ood.name),
        "scorer": scorer.name,
        "baseline": scorer.baseline,
        "tunes_on": scorer.tunes_on,
        "group_size": trial.group_size,
        "seed": task.seed,
        "id_bits_per_dim": mean_bits_per_dim(task, trial.test),
        "ood_bits_per_dim": mean_bits_per_dim(task, trial.ood),
        "shared_images": shared_images(trial.test, trial.ood),
        "passes": sorted(passes),
        "provenance": _provenance(task),
    }


def mean_bits_per_dim(task: TrialTask, ref: ImageRef) -> float | None:
    """Mean bits a dimension of the trial's model on an image set; None where a log-probability is missing or not finite."""
    try:
        log_prob = model_log_prob(task, ref)
    except OodbenchError:
        return None
    return round(float(bits_per_dim(log_prob, ref.shape).mean()), DIGITS) if np.isfinite(log_prob).all() else None


def model_log_prob(task: TrialTask, ref: ImageRef) -> np.ndarray:
    """The log-probabilities of the trial's model on an image set, nats ``(N,)``."""
    return density_columns(task.trial.model, ref, task.seed, task.device)["log_prob"]


def density_columns(model: str, ref: ImageRef, seed: int, device: str) -> dict[str, np.ndarray]:
    """What the density pass of a model measured of an image set."""
    (own,) = passes_of(model, "log_prob", ref)
    return read_columns(own, seed, device)


@lru_cache(maxsize=64)
def shared_images(one: ImageRef, other: ImageRef) -> int:
    """How many of the first set's images occur, pixel by pixel, in the second."""
    seen, wanted = ({hashlib.sha256(x.tobytes()).digest() for x in open_images(ref).images} for ref in (other, one))
    return len(seen & wanted)


def _provenance(task: TrialTask) -> dict[str, Any]:
    trial = task.trial
    used = trial_passes(trial)
    refs = {"in_dist": trial.test, "ood": trial.ood, "ref": trial.ref}
    return {
        "images": {role: [open_images(ref).identifier, open_images(ref).sha256] for role, ref in refs.items() if ref},
        "models": {describe(p.model).name: model_identity(p.model) for p in used if p.model},
        "statistics": sorted({statistics[p.statistic].identity for p in used}),
        "versions": {name: version(name) for name in ("numpy", "torch")} | {"oodbench": __version__},
        "device": task.device,
        "machine": platform.machine(),
    }


def skip_row(suite: str, skip: Skip) -> Row:
    """A skip, kept as a row so that the leaderboard can give its reason."""
    return {
        "schema": SCHEMA,
        "key": key_of(SCHEMA, suite, skip.in_dist, skip.ood, skip.model, skip.scorer),
        "suite": suite,
        "status": "skipped",
        "reason": skip.reason,
        "in_dist_name": skip.in_dist,
        "in_dist": skip.in_dist,
        "ood": skip.ood,
        "model": skip.model,
        "scorer": skip.scorer,
    }


def cost_rows(passes: Iterable[ImagePass], seed: int, device: str) -> list[Row]:
    """Milliseconds an image of each pass, as measured when its columns were made."""
    totals: dict[str, list[float]] = {}
    for image_pass in passes:
        columns = read_columns(image_pass, seed, device)
        total = totals.setdefault(image_pass.name, [0.0, 0.0])
        total[0] += float(columns[SECONDS].sum())
        total[1] += len(open_images(image_pass.images))
    return [
        {"schema": SCHEMA, "pass": label, "ms_per_image": round(1000 * seconds / images, 3), "device": device}
        for label, (seconds, images) in totals.items()
    ]
