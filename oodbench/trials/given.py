"""Rows of numbers that were made elsewhere: columns of files → scores → metrics → rows, by the code that judges runs.

Nothing here sees an image or a model. Where files say which images their numbers are of, by hash, the same images are found
in a run, so that its scorers are judged on just those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from oodbench.data.division import content_hash
from oodbench.data.identifiers import without_counts
from oodbench.digests import code_digest
from oodbench.metrics import area_under_roc
from oodbench.passes.columns import made_with
from oodbench.passes.failures import Failure
from oodbench.registry import scorers
from oodbench.store import SCHEMA, Row, key_of
from oodbench.trials.number_files import Numbers
from oodbench.trials.ref_division import divided
from oodbench.trials.rows import Judged, TrialTask, judge_digest, mean_bits_per_dim
from oodbench.types import Scorer

TIED = 0.005
"""Share of pairs of an in-dist and an OOD image with one score, above which scores are said to be quantised."""


@cache
def given_digest() -> str:
    """Hash of the code that makes rows of given numbers: part of their keys."""
    return key_of(judge_digest(), code_digest("oodbench.trials.given", within="oodbench.trials"))


@dataclass(frozen=True)
class About:
    """What rows say of numbers that were made elsewhere.

    Attributes
    ----------
    suite, model, likelihood : as in every row
    dimensions : numbers an image, C·H·W; None where nobody said, and then there are no bits/dim
    """

    suite: str
    model: str
    likelihood: str = "not stated"
    dimensions: int | None = None
    seed: int = 0
    bootstrap: int = 1000


@dataclass(frozen=True)
class Side:
    """One image set of a pair: its shown name and its numbers."""

    name: str
    numbers: Numbers

    def only(self, rows: Sequence[int]) -> Side:
        """Some of its images, in this order; the name says how many where they are not all."""
        own, part = self.numbers, f"[{len(rows)} shared]"
        shown = self.name + part * (len(rows) < own.n)
        columns = {name: column[list(rows)] for name, column in own.columns.items()}
        hashes = [own.hashes[row] for row in rows]
        return Side(shown, replace(own, columns=columns, hashes=hashes))


@dataclass(frozen=True, eq=False)
class GivenTask(TrialTask):
    """A trial whose columns are given; ``scorer`` may be one that is registered nowhere."""

    columns: Mapping[str, Mapping[str, np.ndarray]]
    scorer: Scorer
    measured: Row

    def perform(self) -> Judged:
        """Judge the trial; a scorer that fails, or numbers that are not finite, give a FAILED row with the reason."""
        row = self.head | self.measured
        reason = "; ".join(not_finite(self.columns, self.head))
        if reason:
            return Judged(row | {"status": "failed", "reason": reason})
        columns = {role: dict(found) for role, found in self.columns.items()}
        try:
            return self._judged(row, self.scorer, columns)
        except Exception as error:  # a plugin may raise anything; the other trials stand
            reason = f"{self.scorer.name} failed: {Failure.of(error).sentence}"
            return Judged(row | {"status": "failed", "reason": reason})


def not_finite(columns: Mapping[str, Mapping[str, np.ndarray]], head: Row) -> list[str]:
    """A sentence for each column that is not finite everywhere, with what that means."""
    shown = {"test": head["in_dist"], "ood": head["ood"], "ref": head["ref"]}
    return [
        sentence
        for role, found in columns.items()
        for name, column in found.items()
        if (sentence := _not_finite(name, column, shown[role]))
    ]


def _not_finite(name: str, column: np.ndarray, where: str) -> str:
    n, low = len(column), int(np.isneginf(column).sum())
    nan, high = int(np.isnan(column).sum()), int(np.isposinf(column).sum())
    counts = {"NaN": nan, "−inf": low, "+inf": high}
    found = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if not found:
        return ""
    zero = low and name.endswith("log_prob")
    why = (
        "; −inf is probability 0: an underflow, or a model that rules the image out" if zero else ""
    )
    return f"{found} among {n} values of {name} on {where}{why}"


def finished(
    name: str, smaller_is_ood: bool = False, like: Mapping[str, Any] | None = None
) -> Scorer:
    """A scorer whose score is a column; ``smaller_is_ood`` turns it round, and its name says so.

    ``like`` is the row of a run whose scorer it stands for.
    """
    sign, mark = (-1.0, "minus ") if smaller_is_ood else (1.0, "")
    of_run = like or {}
    return Scorer(
        name=(mark + name).replace(" ", "-"),
        needs=(name,),
        fit_needs=(),
        fit=None,
        score=lambda column: sign * column,
        summary="a finished score",
        baseline=bool(of_run.get("baseline")),
        tunes_on=of_run.get("tunes_on", "none"),
        code=lambda: key_of("finished", name, sign, of_run.get("key")),
    )


def possible(columns: set[str], reference: set[str]) -> list[Scorer]:
    """The registered scorers whose needs are there; those that tune have no validation images here."""
    return [
        scorer
        for scorer in scorers.values()
        if not scorer.tune and set(scorer.needs) <= columns and set(scorer.fit_needs) <= reference
    ]


def given_task(about: About, test: Side, ood: Side, ref: Side | None, scorer: Scorer) -> GivenTask:
    """One trial on given numbers."""
    fits = ref if scorer.fit else None
    roles = {"test": (test, scorer.needs), "ood": (ood, scorer.needs)}
    if fits is not None:
        roles["ref"] = (fits, scorer.all_needs)
    columns = {
        role: {need: side.numbers.columns[need] for need in needs if need in side.numbers.columns}
        for role, (side, needs) in roles.items()
    }
    head = _head(about, test, ood, fits, scorer)
    return _task(head, scorer, columns, _measured(about, test, ood))


def run_task(
    about: About, row: Row, test: Side, ood: Side, scores: tuple[np.ndarray, ...]
) -> GivenTask:
    """The trial of a run's row again, on the images that it shares with given numbers."""
    scorer = finished(row["scorer"], like=row)
    columns = {
        role: {row["scorer"]: one} for role, one in zip(("test", "ood"), scores, strict=True)
    }
    named = {
        "in_dist": test.name,
        "ood": ood.name,
        "in_dist_name": bare(test),
        "ood_name": bare(ood),
    }
    left_out = ("schema", "key", "scores", "status", *MEASURED)
    kept = {name: value for name, value in row.items() if name in HEAD and name not in left_out}
    head = (
        kept
        | named
        | {"suite": about.suite, "seed": about.seed, "bootstrap": about.bootstrap, "replaces": None}
    )
    measured = {
        name: row[name]
        for name in ("in_dist_bits_per_dim", "ood_bits_per_dim", "cost", "provenance")
    }
    whole = test.name == bare(test) and ood.name == bare(ood)
    bits = {} if whole else {"in_dist_bits_per_dim": None, "ood_bits_per_dim": None}
    return _task(head, scorer, columns, measured | bits | {"shared_images": _shared(test, ood)})


MEASURED = ("cost", "provenance")
HEAD = (
    "suite", "model", "likelihood", "log_prob_of", "in_dist", "ood", "ref", "in_dist_name", "ood_name", "synthetic", "nearness",
    "scorer", "baseline", "tunes_on", "group_size", "seed", "bootstrap", "dimensions", "passes", "training_seed",
    "ref_division", "tuned", "solver", "solver_steps", "trace_probes", "trace_error", "trained_on", "seen", "left_out",
    "left_out_checked", "withdrawn", "replaces", "inputs",
)  # fmt: skip


def bare(side: Side) -> str:
    """A side's name without how many of its images are meant."""
    return without_counts(side.name)


def _task(
    head: Row, scorer: Scorer, columns: Mapping[str, Mapping[str, np.ndarray]], measured: Row
) -> GivenTask:
    numbers = {
        role: {name: content_hash(one) for name, one in own.items()}
        for role, own in columns.items()
    }
    key = key_of(SCHEMA, given_digest(), scorer.identity, head, numbers)
    return GivenTask(
        key=key,
        head={"schema": SCHEMA, "key": key, **head},
        scorer_identity=scorer.identity,
        reads={},
        density={},
        passes={},
        sets={},
        dimensions=head["dimensions"] or 0,
        here=True,
        left_out=(),
        prepared=0,
        columns=columns,
        scorer=scorer,
        measured=measured,
    )


def _head(about: About, test: Side, ood: Side, ref: Side | None, scorer: Scorer) -> Row:
    sets = {"in_dist": test, "ood": ood, "ref": ref}
    return {
        "suite": about.suite,
        "model": about.model,
        "likelihood": about.likelihood,
        "log_prob_of": "the discrete image",
        "uses_labels": False,
        "in_dist": test.name,
        "ood": ood.name,
        "ref": ref.name if ref else None,
        "in_dist_name": bare(test),
        "ood_name": bare(ood),
        "synthetic": False,
        "nearness": None,
        "scorer": scorer.name,
        "baseline": scorer.baseline,
        "tunes_on": scorer.tunes_on,
        "group_size": 1,
        "seed": about.seed,
        "bootstrap": about.bootstrap,
        "dimensions": about.dimensions,
        "passes": [],
        "training_seed": None,
        "ref_division": divided(ref.numbers.n, 0, scorer).words() if ref else None,
        "ref_pool": None,
        "tuned": None,
        "solver": None,
        "solver_steps": None,
        "trace_probes": None,
        "trace_error": None,
        "trained_on": {},
        "seen": [],
        "left_out": 0,
        "left_out_checked": {},
        "withdrawn": None,
        "replaces": None,
        "inputs": {
            "images": {role: one.numbers.images_sha256 for role, one in sets.items() if one},
            "models": {about.model: key_of(*(one.numbers.sha256 for one in sets.values() if one))},
            "statistics": sorted(f"{need}:given" for need in scorer.all_needs),
            "scorer": scorer.identity,
        },
    }


def _measured(about: About, test: Side, ood: Side) -> Row:
    """What rows say of both sets; nothing was measured here."""
    bits = {}
    for name, side in (("in_dist", test), ("ood", ood)):
        log_prob = side.numbers.columns.get("log_prob")
        known = log_prob is not None and about.dimensions is not None
        bits[f"{name}_bits_per_dim"] = (
            mean_bits_per_dim(log_prob, about.dimensions) if known else None  # type: ignore[arg-type]
        )
    return {**bits, "shared_images": _shared(test, ood), "cost": {}, "provenance": made_with([])}


def _shared(test: Side, ood: Side) -> int | None:
    """Images of the first side that occur in the second; None where a file does not say which images it is of."""
    if not (test.numbers.hashes and ood.numbers.hashes):
        return None
    seen = set(ood.numbers.hashes)
    return sum(one in seen for one in test.numbers.hashes)


def tied_share(scores: Mapping[str, np.ndarray]) -> float:
    """Share of pairs of an in-dist and an OOD image that have one score, which count one half in AUROC."""
    values, counts = np.unique(scores["in"], return_counts=True)
    place = np.searchsorted(values, scores["ood"])
    place = np.minimum(place, len(values) - 1)
    met = np.where(values[place] == scores["ood"], counts[place], 0)
    return float(met.sum() / (len(scores["in"]) * len(scores["ood"])))


def other_way_round(scores: Mapping[str, np.ndarray]) -> float:
    """AUROC of the scores turned round."""
    return 1 - area_under_roc(scores["in"], scores["ood"])
