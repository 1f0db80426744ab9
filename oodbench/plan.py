"""The plan: what a suite comes to on this machine, before anything is measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from oodbench.data.images import load_images, parse_identifier
from oodbench.errors import DataError, ModelError, UnknownNameError
from oodbench.passes.shards import ImagePass, ImageRef, open_images
from oodbench.registry import reads_reference, scorers, statistics
from oodbench.suite import Suite
from oodbench.types import split_need
from oodbench.zoo.describe import describe, relatives


@dataclass(frozen=True)
class Trial:
    """One row to be: a scorer's judgement of one OOD set against one in-dist set."""

    model: str
    scorer: str
    group_size: int
    test: ImageRef
    ood: ImageRef
    ref: ImageRef | None
    """In-dist reference images, for scorers that fit."""


@dataclass(frozen=True)
class Skip:
    """A trial, or all of a pair's, that cannot be, with the reason as a sentence."""

    in_dist: str
    ood: str
    reason: str
    model: str = ""
    scorer: str = ""


@dataclass
class Plan:
    """Passes to make, trials to evaluate, and every skip with its reason."""

    suite: Suite
    passes: list[ImagePass] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)


@dataclass(frozen=True)
class Only:
    """A restriction of a suite: names of one kind are alternatives, each kind that has names must match."""

    models: frozenset[str]
    scorers: frozenset[str]
    sets: frozenset[str]

    def admits_sets(self, in_dist: str, ood: str) -> bool:
        return not self.sets or bool(self.sets & {set_name(in_dist), set_name(ood)})

    def admits(self, model: str, scorer: str) -> bool:
        return (not self.models or model in self.models) and (not self.scorers or scorer in self.scorers)


def set_name(identifier: str) -> str:
    """The bare name in an image set's identifier."""
    return parse_identifier(identifier).name


def make_plan(suite: Suite, only: Iterable[str] = ()) -> Plan:
    """Resolve a suite against the registries and the images that are here.

    Parameters
    ----------
    only : names of models, scorers or image sets to restrict the plan to, see :class:`Only`

    Raises
    ------
    UnknownNameError : a model, scorer or image set that does not exist anywhere
    """
    restriction = _check_names(suite, only)
    plan = Plan(suite)
    for pair in suite.pairs:
        in_dist = set_name(pair.in_dist)
        models = [reference for reference in suite.models if describe(reference).trained_on == in_dist]
        for ood in pair.ood:
            if not restriction.admits_sets(pair.in_dist, ood):
                continue
            if not models:
                reason = f"no model of the suite {suite.name!r} is trained on {in_dist}"
                plan.skips.append(Skip(pair.in_dist, ood, reason))
            for model in models:
                _plan_pair(plan, model, pair.in_dist, ood, restriction)
    plan.passes = list(dict.fromkeys(p for trial in plan.trials for p in trial_passes(trial)))
    return plan


def _check_names(suite: Suite, only: Iterable[str]) -> Only:
    for reference in suite.models:
        describe(reference)
    for name in [*suite.scorers, *suite.group_sizes]:
        scorers[name]
    sets = {set_name(name) for pair in suite.pairs for name in (pair.in_dist, *pair.ood)}
    known = {*suite.models, *suite.scorers, *sets}
    given = list(only)
    for name in given:
        if name not in known:
            raise UnknownNameError("model, scorer or image set of this suite", name, known)
    return Only(*(frozenset(given) & set(kind) for kind in (suite.models, suite.scorers, sets)))


def _plan_pair(plan: Plan, model: str, in_dist: str, ood: str, only: Only) -> None:
    suite, shape = plan.suite, describe(model).shape
    chosen = [name for name in suite.scorers if only.admits(model, name)]
    if not chosen:
        return
    seen = parse_identifier(_seen_by(model, in_dist))
    test, ref = (ImageRef(str(seen.in_split(split)), shape, suite.limit) for split in ("test", "ref"))
    other = ImageRef(_seen_by(model, ood), shape, suite.limit)
    reason = _no_weights(model) or _unusable(test, other)
    if reason:
        plan.skips.append(Skip(in_dist, ood, reason, model))
        return
    no_ref = unavailable(ref)
    for name in chosen:
        scorer = scorers[name]
        fits = reads_reference(scorer.fit, scorer.needs)
        reason = (no_ref if fits else None) or cannot_give(model, scorer.all_needs)
        if reason:
            plan.skips.append(Skip(in_dist, ood, reason, model, name))
            continue
        for size in [1, *suite.group_sizes.get(name, [])]:
            plan.trials.append(Trial(model, name, size, test, other, ref if fits else None))


def _seen_by(model: str, identifier: str) -> str:
    """The identifier with the model's own view, for sets of another shape that name none."""
    parsed, own = parse_identifier(identifier), describe(model).view
    if parsed.view or not own:
        return identifier
    try:
        fits = load_images(identifier).shape == describe(model).shape
    except DataError:  # not here: the skip will say so
        return identifier
    return identifier if fits else str(parsed.seen_through(own))


def _no_weights(model: str) -> str | None:
    try:
        describe(model).identity()
    except ModelError as error:
        return str(error)
    return None


def unavailable(ref: ImageRef) -> str | None:
    """Why a known set cannot be opened here, or None; unknown names are errors, not skips."""
    try:
        open_images(ref)
    except DataError as error:
        return str(error)
    return None


def _unusable(test: ImageRef, ood: ImageRef) -> str | None:
    reason = unavailable(test) or unavailable(ood)
    if reason:
        return reason
    if np.array_equal(open_images(test).images, open_images(ood).images):
        return f"{open_images(ood).identifier} holds the same images as the in-dist set"
    return None


def cannot_give(model: str, needs: Iterable[str]) -> str | None:
    """Why a statistic cannot be had of a model, its background or its ensemble, or None."""
    for need in needs:
        statistic, of = split_need(need)
        entry, found = statistics[statistic], relatives(model, of)
        if entry.package and importlib.util.find_spec(entry.package[0]) is None:
            package, extra = entry.package
            return f"{need} needs the package {package}: `pip install 'oodbench[{extra}]'`"
        method = entry.capability_for(statistic)
        if of in ("background", "general") and not found:
            return f"{model} has no {of} model, which {need} asks for"
        if of == "ensemble" and len(found) < 2:
            return f"{model} has no ensemble of two or more models, which {need} asks for"
        reasons = [reason for name in found if name != model and (reason := _no_weights(name))]
        reasons += [f"{n} has no `{method}`, which {need} asks for" for n in found if not describe(n).gives(method)]
        if reasons:
            return reasons[0]
    return None


def trial_passes(trial: Trial) -> list[ImagePass]:
    """The passes whose columns a trial reads."""
    scorer = scorers[trial.scorer]
    wanted = [(need, refs) for need in scorer.needs for refs in (trial.test, trial.ood)]
    wanted += [(need, trial.ref) for need in scorer.fit_needs if trial.ref is not None]
    wanted += [("log_prob", trial.test), ("log_prob", trial.ood)]  # bits a dimension stand in every row
    return [p for need, refs in wanted for p in passes_of(trial.model, need, refs, trial.ref)]


def passes_of(model: str, need: str, images: ImageRef, ref: ImageRef | None = None) -> list[ImagePass]:
    """The passes that give ``need`` of ``model`` on an image set: one, or one of each member of an ensemble.

    ``ref`` are the in-dist images that a pass is prepared on, where it is.
    """
    statistic, of = split_need(need)
    entry = statistics[statistic]
    first, prepared_on = next(iter(entry.statistics)), ref if entry.prepare else None
    names = [None] if entry.model_free else relatives(model, of)
    return [ImagePass(first, name, images, prepared_on) for name in names]
