"""One trial as a row: columns → scores → metrics → a row. What it is computed from stands in its task, as values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np

from oodbench.contract import bits_per_dim
from oodbench.data.division import image_digests
from oodbench.digests import code_digest
from oodbench.errors import OodbenchError, StoreError
from oodbench.metrics import Estimate, proportion
from oodbench.metrics.detection import detection
from oodbench.passes.columns import (
    LostError,
    Measured,
    cost_of,
    kept_columns,
    made_with,
    needed_column,
)
from oodbench.passes.failures import Failure
from oodbench.passes.shards import ChangedError, open_images
from oodbench.passes.values import ImageRef
from oodbench.plan import Plan, Skip, Trial
from oodbench.registry import scorers
from oodbench.store import SCHEMA, Row, key_of
from oodbench.trials.counted import is_counted
from oodbench.trials.curves import roc
from oodbench.trials.fits import FittedScorer
from oodbench.trials.groups import disjoint_groups, drawn_groups, group_scores
from oodbench.trials.ref_division import RefDivision, divided, part
from oodbench.trials.replicates import Replicates, keep_replicates, metrics_digest
from oodbench.trials.scores import digest
from oodbench.types import Columns, Scorer

ACCEPTED, DRAWN_GROUPS = 0.99, 1000
"""Of the rejection test: share of in-dist groups that it should accept, and bootstrap groups that its threshold comes from."""

Keys = tuple[str, ...]
"""Of the shards of one pass."""


@cache
def judge_digest() -> str:
    """Hash of the code that scores and judges: part of every key of a row."""
    return key_of(code_digest("oodbench.trials.rows", within="oodbench.trials"), metrics_digest())


@dataclass(frozen=True, eq=False)
class TrialTask:
    """A trial as a worker judges it.

    Attributes
    ----------
    head : what the row says of its trial before anything is computed
    reads : of ``test``, ``ood`` and ``ref``: need → the shard keys of each pass that gives it
    density : of ``test`` and ``ood``: the shard keys of the model's density pass; none of a classifier
    passes : name of each pass that the scorer reads of the test images → its shard keys, for costs
    sets : of ``test`` and ``ood``: the images and their hash
    left_out : places of the OOD images that are not judged, see :class:`oodbench.resolver.LeftOut`
    prepared : the last images of ``ref``, as many as a model's pass was prepared on
    """

    key: str
    head: Row
    scorer_identity: str
    reads: Mapping[str, Mapping[str, tuple[Keys, ...]]]
    density: Mapping[str, Keys]
    passes: Mapping[str, Keys]
    sets: Mapping[str, tuple[ImageRef, str]]
    dimensions: int
    here: bool
    left_out: tuple[int, ...]
    prepared: int
    tables = ("rows", "curves")

    @property
    def after(self) -> frozenset[str]:
        """The shards that have to be measured before."""
        read = [
            keys for needs in self.reads.values() for passes in needs.values() for keys in passes
        ]
        return frozenset(key for keys in (*read, *self.density.values()) for key in keys)

    @property
    def label(self) -> str:
        return f"{self.head['scorer']} with {self.head['model']}: {self.head['in_dist']} → {self.head['ood']}"

    def __str__(self) -> str:
        return self.label

    @property
    def is_single(self) -> bool:
        """Whether it judges single real images and no corrupted ones: these are compared, and the ROC figure draws them."""
        return is_counted(self.head)

    def failed(self, reason: str) -> dict[str, list[Row]]:
        """The row of a trial that could not be evaluated."""
        return {"rows": [self.head | {"status": "failed", "reason": reason}]}

    def perform(self) -> Judged:
        """Judge the trial; a scorer that fails gives a FAILED row with its reason."""
        name = self.head["scorer"]
        scorer = scorers[name]
        if scorer.identity != self.scorer_identity:
            raise ChangedError(
                f"the scorer {name} is another here than in the plan; was its file edited?"
            )
        measured = _Reader(self)
        row = self.head | measured.of_model() | measured.of_machine()
        try:
            columns = measured.columns()
            reason = _non_finite(columns, self.head) or _impossible(row)
            if reason:
                return Judged(row | {"status": "failed", "reason": reason})
            judged = self._judged(row, scorer, columns)
            if self.is_single and judged.replicates:
                keep_replicates(judged.row, judged.replicates)
            return judged
        except (LostError, StoreError, KeyboardInterrupt):
            raise
        except (
            BaseException
        ) as error:  # a plugin may raise anything, or call sys.exit; the other trials stand
            reason = f"{name} failed: {Failure.of(error).sentence}"
            return Judged(row | {"status": "failed", "reason": reason})

    def _judged(
        self, row: Row, scorer: Scorer, columns: dict[str, dict[str, np.ndarray]]
    ) -> Judged:
        reference, validation = columns.get("ref", {}), columns.get("validation")
        division = self._division(scorer, reference)
        fitted = self._fitted(scorer, part(reference, np.arange(division.fitting)), validation)
        row = row | {"tuned": _with_choice(row["tuned"], fitted.state.chosen)}
        scores = {side: self._scores(fitted, columns[role]) for side, role in SIDES.items()}
        found, replicates = detection(scores["in"], scores["ood"], row["bootstrap"], row["seed"])
        if division.calibrates:
            threshold = self._rejection_threshold(scorer, reference, division)
            for side, name in (("in", "flagged_in"), ("ood", "flagged_ood")):
                found[name] = proportion(int((scores[side] > threshold).sum()), len(scores[side]))
        stored = {**scores, "ood": self._in_place(scores["ood"])}
        n_in, n_ood = len(scores["in"]), len(scores["ood"])
        row = row | {
            "status": "ok",
            "n_in": n_in,
            "n_ood": n_ood,
            "base_rate": n_ood / (n_in + n_ood),
            "scores": {side: digest(own) for side, own in stored.items()},
        }
        for name, estimate in found.items():
            row |= _flat(name, estimate)
        return Judged(row, stored, self._curve(row, scores), replicates)

    def _curve(self, row: Row, scores: Mapping[str, np.ndarray]) -> Row | None:
        """What the ROC figure draws of it."""
        if not self.is_single:
            return None
        pair = ("suite", "model", "in_dist", "ood", "seed")
        shared = ("schema", "key", "status", *pair, "scorer", "baseline")
        about = {name: row[name] for name in shared}
        drawn = {"kind": "roc", "status": "ok", "auroc": row["auroc"]}
        return about | drawn | roc(scores["in"], scores["ood"])

    def _division(self, scorer: Scorer, reference: Mapping[str, np.ndarray]) -> RefDivision:
        n = len(next(iter(reference.values()), ()))
        return divided(n, self.prepared, scorer)

    def _fitted(
        self, scorer: Scorer, reference: Columns, validation: Columns | None = None
    ) -> FittedScorer:
        return FittedScorer(scorer, self.scorer_identity, reference, validation)

    def _scores(self, score: FittedScorer, columns: dict[str, np.ndarray]) -> np.ndarray:
        n, size = len(next(iter(columns.values()))), self.head["group_size"]
        if size == 1:
            found = score(columns)
        else:
            places = disjoint_groups(n, size, self.head["seed"])
            n, found = len(places), group_scores(score, columns, places)
        if found.shape != (n,):
            raise OodbenchError(
                f"it returned shape {found.shape} for {n} images or groups; one score each is needed"
            )
        return found

    def _in_place(self, scores: np.ndarray) -> np.ndarray:
        """Scores of OOD images in the places of the images, NaN where one was left out; those of groups have none."""
        if not self.left_out or self.head["group_size"] > 1:
            return scores
        whole = np.full(len(scores) + len(self.left_out), np.nan)
        whole[kept_places(len(whole), self.left_out)] = scores
        return whole

    def _rejection_threshold(
        self, scorer: Scorer, reference: Columns, division: RefDivision
    ) -> float:
        size, seed, parts = self.head["group_size"], self.head["seed"], list(division.fits())
        found = [
            held_out_scores(
                self._fitted(scorer, part(reference, fitting)),
                part(reference, held_out),
                size,
                DRAWN_GROUPS // len(parts),
                seed,
            )
            for fitting, held_out in parts
        ]
        return rejection_threshold(np.concatenate(found))


SIDES = {"in": "test", "ood": "ood"}
"""Side of a row → the role of its images."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A row, and where it is sound its per-image scores by side, what its ROC curve is drawn from, and its bootstrap."""

    row: Row
    scores: Mapping[str, np.ndarray] | None = None
    curve: Row | None = None
    replicates: Replicates = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, list[Row]]:
        """Rows by the table that they belong to."""
        return {"rows": [self.row], "curves": [self.curve] if self.curve else []}


class _Reader:
    """Reads a task's columns, each pass once."""

    def __init__(self, task: TrialTask):
        self.task = task
        self._read: dict[Keys, Measured] = {}

    def measured(self, keys: Keys) -> Measured:
        if keys not in self._read:
            self._read[keys] = kept_columns(keys)
        return self._read[keys]

    def columns(self) -> dict[str, dict[str, np.ndarray]]:
        """Role → need → column, ``(N,)`` or ``(N, K)``."""
        return {
            role: {need: self._column(role, need, passes) for need, passes in needs.items()}
            for role, needs in self.task.reads.items()
        }

    def _column(self, role: str, need: str, passes: tuple[Keys, ...]) -> np.ndarray:
        column = needed_column(need, map(self.measured, passes), self.task.head["model"])
        return self._judged_of(role, column.copy())  # other trials read the same column

    def _judged_of(self, role: str, column: np.ndarray) -> np.ndarray:
        """A column without the images that are left out."""
        left_out = self.task.left_out if role == "ood" else ()
        return column[kept_places(len(column), left_out)] if left_out else column

    def of_model(self) -> Row:
        """What a row says of the model on both sets, and of images that they share."""
        density = {
            role: self._judged_of(role, self.measured(keys).columns["log_prob"])
            for role, keys in self.task.density.items()
        }
        bits = {
            role: mean_bits_per_dim(found, self.task.dimensions) for role, found in density.items()
        }
        (test, test_hash), (ood, ood_hash) = self.task.sets["test"], self.task.sets["ood"]
        return {
            "in_dist_bits_per_dim": bits.get("test"),
            "ood_bits_per_dim": bits.get("ood"),
            "shared_images": shared_images(test, test_hash, ood, ood_hash),
        }

    def of_machine(self) -> Row:
        """What measuring took, and what measured; the row quotes the shards."""
        self._everything()
        cost = {name: cost_of(self.measured(keys).about) for name, keys in self.task.passes.items()}
        about = [one for found in self._read.values() for one in found.about]
        return {"cost": cost, "provenance": made_with(about)}

    def _everything(self) -> None:
        for needs in self.task.reads.values():
            for keys in (keys for passes in needs.values() for keys in passes):
                self.measured(keys)


def kept_places(n: int, left_out: Sequence[int]) -> np.ndarray:
    """The places of ``n`` images, in order, that are not left out."""
    return np.delete(np.arange(n), left_out)


def mean_bits_per_dim(log_prob: np.ndarray, dimensions: int) -> float | None:
    """Mean bits a dimension; None where a log-probability is not finite."""
    if not np.isfinite(log_prob).all():
        return None
    return float(bits_per_dim(log_prob, (dimensions,)).mean())


@lru_cache(maxsize=64)
def shared_images(one: ImageRef, one_hash: str, other: ImageRef, other_hash: str) -> int:
    """How many of the first set's images occur, pixel by pixel, in the second."""
    seen = set(_digests_of(other, other_hash))
    return sum(found in seen for found in _digests_of(one, one_hash))


@lru_cache(maxsize=4)
def _digests_of(images: ImageRef, sha256: str) -> list[bytes]:
    return image_digests(open_images(images).images)


def held_out_scores(
    score: FittedScorer, columns: Columns, size: int, groups: int, seed: int
) -> np.ndarray:
    """Scores of in-dist images that the scorer was not fitted on, or of groups of them.

    Groups are drawn with replacement (Nalisnick et al. 2019, arXiv:1906.02994, §3); single images are taken as they are.
    """
    if size == 1:
        return score(columns)
    n = len(next(iter(columns.values())))
    return group_scores(score, columns, drawn_groups(n, size, groups, seed))


def rejection_threshold(held_out: np.ndarray) -> float:
    """The score that a further in-dist image exceeds with a probability of at most ``1 − ACCEPTED``.

    The ``⌈(n + 1)·ACCEPTED⌉``-th smallest of n held-out scores, so that n + 1 exchangeable ones have it between them; the
    largest where n is too small for that.
    """
    n = len(held_out)
    rank = min(math.ceil((n + 1) * ACCEPTED - 1e-9), n)
    return float(np.partition(held_out, rank - 1)[rank - 1])


def _flat(name: str, estimate: Estimate) -> dict[str, float | None]:
    names = (name, f"{name}_low", f"{name}_high")
    return {
        key: None if np.isnan(value) else float(value)
        for key, value in zip(names, estimate, strict=True)
    }


def _non_finite(columns: dict[str, dict[str, np.ndarray]], head: Row) -> str:
    """A sentence counting NaN and infinite statistics, or nothing; they are never replaced."""
    shown = {"test": head["in_dist"], "ood": head["ood"], "ref": head["ref"]}
    shown |= {"validation": (head["tuned"] or {}).get("on")}
    found = []
    for role, needs in columns.items():
        for name, column in needs.items():
            bad = int((~np.isfinite(column.reshape(len(column), -1))).any(1).sum())
            if bad:
                found.append(
                    f"{bad} of {len(column)} values of {name} on {shown[role]} are NaN or infinite"
                )
    return "; ".join(found)


def _impossible(row: Row) -> str:
    """A sentence on an exact model that gives some set of images more than all probability, or nothing."""
    if row["likelihood"] != "exact" or row["baseline"]:
        return ""
    found = {row["in_dist"]: row["in_dist_bits_per_dim"], row["ood"]: row["ood_bits_per_dim"]}
    known = [(name, bits) for name, bits in found.items() if bits is not None]
    negative = [f"{bits:.2f} bits/dim on {name}" for name, bits in known if bits < 0]
    if not negative:
        return ""
    return (
        f"{row['model']} says that it is exact, but gives {' and '.join(negative)}: a discrete image's probability is at "
        "most 1, so a constant such as D·log 256, or a sign, is missing"
    )


def trial_tasks(plan: Plan) -> list[TrialTask]:
    """The plan's trials as tasks."""
    return [trial_task(plan, trial) for trial in plan.trials]


def trial_task(plan: Plan, trial: Trial) -> TrialTask:
    """One trial as a task, with the key of its row."""
    about = _head(plan, trial)
    reads = {
        role: {need: tuple(one.keys for one in passes) for need, passes in needs.items()}
        for role, needs in trial.reads.items()
    }
    density = {role: one.keys for role, one in trial.density.items()}
    left_out = trial.left_out.places
    key = key_of(SCHEMA, judge_digest(), trial.scorer.identity, about, reads, density, left_out)
    return TrialTask(
        key=key,
        head={"schema": SCHEMA, "key": key, **about},
        scorer_identity=trial.scorer.identity,
        reads=reads,
        density=density,
        passes=_test_passes(trial),
        sets={
            role: (images.ref, images.sha256)
            for role, images in (("test", trial.test), ("ood", trial.ood))
        },
        dimensions=trial.test.dimensions,
        here=trial.scorer.name in scorers.local,
        left_out=left_out,
        prepared=trial.prepared,
    )


def _test_passes(trial: Trial) -> dict[str, Keys]:
    """Name of each pass that the scorer reads of the test images → its shard keys."""
    passes = [one for found in trial.reads["test"].values() for one in found]
    return {one.name: one.keys for one in passes}


def _head(plan: Plan, trial: Trial) -> Row:
    """What the row prints of its trial, and what went into it."""
    model, scorer = trial.model, trial.scorer
    return {
        "suite": plan.suite.name,
        "model": model.name,
        "likelihood": model.likelihood,
        "log_prob_of": "the discrete image" if trial.density else "none",
        "uses_labels": model.uses_labels,
        "in_dist": trial.test.identifier,
        "ood": trial.ood.identifier,
        "ref": trial.ref.identifier if trial.ref else None,
        "in_dist_name": trial.test.name,
        "ood_name": trial.ood.name,
        "synthetic": trial.ood.synthetic,
        "nearness": plan.nearness.get((model, trial.test, trial.ood)),
        "scorer": scorer.name,
        "baseline": scorer.baseline,
        "tunes_on": scorer.tunes_on,
        "group_size": trial.group_size,
        "seed": plan.suite.seed,
        "bootstrap": plan.suite.bootstrap,
        "dimensions": trial.test.dimensions,
        "passes": sorted(_test_passes(trial)),
        "training_seed": model.training_seed,
        "ref_division": _division_of_ref(trial),
        "ref_pool": trial.ref.pool if trial.ref else None,
        "tuned": _tuned(trial),
        "solver": model.solver,
        "solver_steps": model.solver_steps,
        "trace_probes": model.trace_probes,
        "trace_error": model.trace_error,
        "trained_on": dict(trial.trained_on),
        "seen": list(trial.seen),
        "left_out": len(trial.left_out.places),
        "left_out_checked": dict(trial.left_out.checked),
        "withdrawn": None,
        "replaces": None,
        "inputs": _inputs(trial),
    }


def _division_of_ref(trial: Trial) -> str | None:
    if trial.ref is None:
        return None
    own = [one for one in trial.passes if one.model is None and one.prepared_on is trial.ref]
    uses = ["all of ref prepares"] * bool(own)
    uses += [f"the last {trial.prepared:,} of ref prepare"] * bool(trial.prepared)
    if trial.scorer.fit:
        uses.append(divided(trial.ref.n, trial.prepared, trial.scorer).words())
    uses += ["all of ref tunes"] * bool(trial.scorer.tune)
    return "; ".join(uses) or None


def _tuned(trial: Trial) -> Row | None:
    """What is known of a scorer's tuning before it chooses: on what images, and from what."""
    if trial.validation is None or trial.ref is None:
        return None
    sets = {"in_dist": trial.ref.identifier, "on": trial.validation.identifier}
    return sets | {"from": trial.chosen_from}


def _with_choice(tuned: Row | None, chosen: Mapping[str, Any] | None) -> Row | None:
    """The same with what was chosen; a background that was chosen by its number has its name."""
    if tuned is None or chosen is None:
        return None
    grid = tuned["from"].items()
    return tuned | {"choice": {name: _chosen(chosen[name], values) for name, values in grid}}


def _chosen(value: Any, values: Sequence[Any]) -> Any:
    return value if value in values else values[value]


def _inputs(trial: Trial) -> dict[str, Any]:
    """The hashes that the row is computed from."""
    sets = {
        "in_dist": trial.test,
        "ood": trial.ood,
        "ref": trial.ref,
        "train": trial.train,
        "validation": trial.validation,
    }
    return {
        "images": {role: images.sha256 for role, images in sets.items() if images},
        "models": {one.model.name: one.model.identity for one in trial.passes if one.model},
        "statistics": sorted({one.identity for one in trial.passes}),
        "scorer": trial.scorer.identity,
    }


def skip_rows(suite: str, skips: Iterable[Skip]) -> list[Row]:
    """Skips, kept as rows so that the leaderboard can give their reasons."""
    return [
        {
            "schema": SCHEMA,
            "key": key_of(
                SCHEMA, suite, skip.in_dist, skip.ood, skip.model, skip.scorer, skip.group_size
            ),
            "suite": suite,
            "status": "skipped",
            "reason": skip.reason,
            "in_dist_name": skip.in_dist,
            "in_dist": skip.in_dist,
            "ood": skip.ood,
            "model": skip.model,
            "scorer": skip.scorer,
            "group_size": skip.group_size,
        }
        for skip in dict.fromkeys(skips)
    ]
