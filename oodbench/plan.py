"""The plan: what a suite comes to on this machine, before anything is measured.

:func:`make_plan` is where names become values. It looks each model, image set, scorer and statistic up once; after it
returns, nothing that the driver does looks a name up again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from oodbench.adjusting import Adjustment, adjustments
from oodbench.data.catalog import catalog
from oodbench.data.identifiers import DIVISION, parse_identifier
from oodbench.data.images import shown_name
from oodbench.data.sources import DRAWN
from oodbench.errors import DataError, ModelError, SuiteError, UnknownNameError, did_you_mean
from oodbench.passes.shards import DrawTask
from oodbench.passes.values import ImagePass, ImageRef, Images, Model, preparing
from oodbench.registry import passes_prepared_on, reads_reference, scorers
from oodbench.resolver import (
    InDist,
    LeftOut,
    Resolver,
    as_seen,
    cannot_give,
    drawn_samples,
    read_by,
    same_pictures,
    same_set,
    seen_by,
    set_name,
)
from oodbench.store import key_of
from oodbench.suite import Analysis, Entry, Pair, Suite, named
from oodbench.types import BACKGROUNDS, Pass, Scorer
from oodbench.zoo.cards import Card, training_log
from oodbench.zoo.describe import describe, unknown_set

Needs = Mapping[str, tuple[ImagePass, ...]]
"""Name of a need → the passes that give it: one, or one of each member of an ensemble."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One row to be: a scorer's judgement of one OOD set against one in-dist set.

    Attributes
    ----------
    ref, train : in-dist reference and training images, for scorers that look at some
    validation : OOD images that a scorer tunes on, which are none that it is judged on
    reads : of ``test``, ``ood``, ``ref`` and ``validation``: the passes that give what the scorer takes
    density : of ``test`` and ``ood``: the model's density pass, since bits a dimension stand in every row; none of a classifier
    trained_on : model that the scorer reads → the image set that it was trained on
    seen : those of these models that were trained on the OOD set, or on one of its kin
    left_out : OOD images that are among the training images of the model or of a relative; no scorer is judged on them
    """

    model: Model
    scorer: Scorer
    group_size: int
    test: Images
    ood: Images
    ref: Images | None
    train: Images | None
    validation: Images | None
    reads: Mapping[str, Needs]
    density: Mapping[str, ImagePass]
    trained_on: Mapping[str, str]
    seen: tuple[str, ...]
    left_out: LeftOut

    @property
    def chosen_from(self) -> dict[str, list[Any]]:
        """The grid of a scorer that tunes, parameter → values; backgrounds by name."""
        names = [one.name for one in self.model.of(BACKGROUNDS)]
        grid = self.scorer.grid.items()
        return {name: names if values == BACKGROUNDS else list(values) for name, values in grid}

    @property
    def prepared(self) -> int:
        """The last images of ``ref``, as many as a model's pass that it reads was prepared on."""
        if self.ref is None:
            return 0
        own = any(one.model and one.prepared_on is self.ref for one in self.passes)
        return preparing(self.ref.n) if own else 0

    @property
    def passes(self) -> list[ImagePass]:
        """The passes whose columns it reads, each once."""
        read = [one for needs in self.reads.values() for passes in needs.values() for one in passes]
        return list(dict.fromkeys([*read, *self.density.values()]))


@dataclass(frozen=True, eq=False)
class Subject:
    """What the paper's explanations ask of one model: the image sets, and the density pass of each.

    Attributes
    ----------
    train : training images, where there are some
    second_tests : further test sets, drawn in another way from what the in-dist set is of
    drawn : temperature → images drawn from the model at it; 1 comes first, and none where the model cannot be sampled
    draws : what draws them
    grayed : set → ``contractNN`` or ``shrinkNN`` → the set's drawn images, so contracted towards mid-grey or their mean
    members : the models of its ensemble, where all are here: trainings that differ in their seed alone
    logs : model → its validations during training
    """

    model: Model
    test: Images
    oods: tuple[Images, ...]
    ref: Images | None
    train: Images | None
    second_tests: tuple[Images, ...]
    drawn: Mapping[float, Images]
    draws: tuple[DrawTask, ...]
    grayed: Mapping[Images, Mapping[str, Images]]
    density: Mapping[Images, ImagePass]
    members: tuple[Model, ...]
    logs: Mapping[Model, list[dict[str, float]]]

    @property
    def samples(self) -> Images | None:
        """The images drawn at temperature 1."""
        return self.drawn.get(1.0)


@dataclass(frozen=True)
class Skip:
    """A trial, or all of a pair's, that cannot be, with the reason as a sentence."""

    in_dist: str
    ood: str
    reason: str
    model: str = ""
    scorer: str = ""
    group_size: int | None = None
    """Of the groups that cannot be; None where all sizes are meant."""


@dataclass
class Plan:
    """Passes to make, trials to evaluate, every skip with its reason, and sentences on what no pair uses."""

    suite: Suite
    device: str
    only: Only
    trials: list[Trial] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)
    adjustments: list[Adjustment] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    nearness: dict[tuple[Model, Images, Images], str | None] = field(default_factory=dict)
    """Model, in-dist and OOD images → ``near`` or ``far``, as the suite says."""

    @property
    def passes(self) -> list[ImagePass]:
        """The passes that trials read, each once, in order."""
        return list(dict.fromkeys(one for trial in self.trials for one in trial.passes))


@dataclass(frozen=True)
class Only:
    """A restriction of a suite: names of one kind are alternatives, each kind that has names must match."""

    models: frozenset[str] = frozenset()
    scorers: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()

    def admits_sets(self, in_dist: str, ood: str) -> bool:
        return not self.sets or bool(self.sets & {in_dist, ood})

    def admits_model(self, model: str) -> bool:
        return not self.models or model in self.models

    def admits_scorer(self, scorer: str) -> bool:
        return not self.scorers or scorer in self.scorers


def make_plan(suite: Suite, only: Iterable[str] = (), device: str = "cpu") -> Plan:
    """Resolve a suite against the registries and the images that are here.

    Parameters
    ----------
    only : names of models, scorers or image sets to restrict the plan to, see :class:`Only`
    device : that models run on; columns of unlike kinds of device are kept apart

    Raises
    ------
    UnknownNameError : a model, scorer or image set that does not exist anywhere
    SuiteError : two models or image sets that would be shown under one name, or a validation set that is one of the OOD sets
    """
    return _Planner(suite, tuple(only), device).plan()


class _Planner:
    """Makes one plan."""

    def __init__(self, suite: Suite, only: Sequence[str], device: str):
        self.suite, self.resolver = suite, Resolver(suite.seed, device)
        for name in [*suite.scorers, *suite.group_sizes]:
            scorers[name]  # an unknown one raises
        self.models = [
            self.resolver.model(reference, shown) for shown, reference in map(named, suite.models)
        ]
        _check_unique("models", [(model.name, model.reference) for model in self.models])
        self.made = Plan(suite, device, self._only(only))
        self.shown: dict[tuple[str, tuple[int, ...]], str] = {}
        self.left_out: dict[tuple[Model, Images], LeftOut] = {}
        self._check_validation()

    def _only(self, given: Sequence[str]) -> Only:
        sets = {
            self._set(entry) for pair in self.suite.pairs for entry in (pair.in_dist, *pair.ood)
        }
        names = {name for model in self.models for name in (model.name, model.reference)}
        known = {*names, *self.suite.scorers, *sets}
        for name in given:
            if name not in known:
                raise UnknownNameError("model, scorer or image set of this suite", name, known)
        return Only(*(frozenset(given) & set(kind) for kind in (names, self.suite.scorers, sets)))

    def _set(self, entry: Entry) -> str:
        """What ``--only`` and ``trained_on`` call an entry's set: its given name, else the reference's bare name."""
        shown, reference = named(entry)
        return shown or set_name(reference)

    def plan(self) -> Plan:
        for pair in self.suite.pairs:
            in_dist = self._set(pair.in_dist)
            own = self._models_of(pair)
            for entry in pair.ood:
                if not self.made.only.admits_sets(in_dist, self._set(entry)):
                    continue
                if not own:
                    reason = f"no model of the suite {self.suite.name!r} is trained on {in_dist}"
                    self._skip(pair.in_dist, entry, reason)
                for model in own:
                    self._pair(model, pair, entry)
        self._remark_unused()
        if self.suite.analysis is not None:
            tests = dict.fromkeys((trial.model, trial.test) for trial in self.made.trials)
            densities = (one for one in tests if one[0].gives("log_prob"))
            self.made.subjects = [self._subject(model, test) for model, test in densities]
            self.made.adjustments = adjustments(self.made, self.resolver)
        return self.made

    def _models_of(self, pair: Pair) -> list[Model]:
        """The models that stand for a pair's in-dist set: those that it names, else those trained on it."""
        if pair.models:
            return [one for one in self.models if {one.name, one.reference} & set(pair.models)]
        return [one for one in self.models if self._is_trained_on(one, pair.in_dist)]

    def _is_trained_on(self, model: Model, entry: Entry) -> bool:
        """Whether an entry's set is the one that a model is trained on, by its name or by its path."""
        own = model.trained_on
        return own == self._set(entry) or same_set(own, named(entry)[1])

    def _skip(
        self, in_dist: Entry, ood: Entry, reason: str,
        model: str = "", scorer: str = "", group_size: int | None = None,
    ) -> None:  # fmt: skip
        pair = [shown or reference for shown, reference in map(named, (in_dist, ood))]
        self.made.skips.append(Skip(pair[0], pair[1], reason, model, scorer, group_size))

    def _pair(self, model: Model, pair: Pair, ood: Entry) -> None:
        only, in_dist = self.made.only, pair.in_dist
        admitted = only.admits_model(model.name) or only.admits_model(model.reference)
        chosen = [scorers[name] for name in self.suite.scorers if only.admits_scorer(name)]
        if not (admitted and chosen):
            return
        test_ref, other_ref = self._ref(model, in_dist, "test"), self._ref(model, ood)
        try:
            if model.missing:
                raise ModelError(model.missing)
            self._check_division(model, in_dist)
            test, other = self.resolver.images(test_ref), self.resolver.images(other_ref)
            self._check_training(model, in_dist)
            self._remark(test, other)
            self._check_shown(model, {test: in_dist, other: ood})
            if test.sha256 == other.sha256:
                raise DataError(f"{other.identifier} holds the same images as the in-dist set")
        except (ModelError, DataError) as error:
            self._skip(in_dist, ood, str(error), model.name)
            return
        self.made.nearness[model, test, other] = pair.nearness(ood)
        ref_ref = self._drawn_by_seed(self._ref(model, in_dist, "ref"))
        for scorer in chosen:
            self._trials(model, scorer, test, other, ref_ref, (in_dist, ood))

    def _trials(
        self, model: Model, scorer: Scorer, test: Images, ood: Images, ref_ref: ImageRef,
        pair: tuple[Entry, Entry],
    ) -> None:  # fmt: skip
        fits = reads_reference(scorer.fit or scorer.tune, scorer.all_needs)
        ref, validation = self.resolver.images_or_none(ref_ref) if fits else None, None
        train, prepared = None, passes_prepared_on("train", scorer.all_needs)
        reason = cannot_give(model, scorer.all_needs)
        if fits and not reason:
            reason = self._lacks_reference(scorer, ref_ref, test)
        if prepared and not reason:
            try:
                train = self._training(prepared, self._ref(model, pair[0], "train"))
            except DataError as error:
                reason = str(error)
        if scorer.tune and not reason:
            try:
                validation = self._validation(model, scorer, test, pair[0])
            except DataError as error:
                reason = str(error)
        if reason:
            self._skip(*pair, reason, model.name, scorer.name)
            return
        for size in [1, *self.suite.group_sizes.get(scorer.name, [])]:
            if size > 1 and (reason := scorer.no_groups()):
                self._skip(*pair, reason, model.name, scorer.name, size)
                continue
            n = min(test.n, ood.n - len(self._left_out(model, ood).places))
            if n // size < 2:
                reason = (
                    f"{n} images make fewer than two groups of {size}{self._why_few(model, ood)}"
                )
                self._skip(*pair, reason, model.name, scorer.name, size)
                continue
            self.made.trials.append(
                self._trial(model, scorer, size, (test, ood, validation), InDist(ref, train))
            )

    def _training(self, prepared: Sequence[Pass], split: ImageRef) -> Images:
        """All training images that are here, for passes that are prepared on them.

        Raises
        ------
        DataError : there are none, or too few
        """
        try:
            found = self.resolver.images(replace(split, limit=None))
        except DataError as error:
            raise DataError(f"it is fitted on in-dist training images, and {error}") from error
        few = (one.too_few(found.n, found.dimensions) for one in prepared)
        if reason := next(filter(None, few), None):
            raise DataError(f"{reason}, {found.identifier}")
        self._remark(found)
        return found

    def _lacks_reference(self, scorer: Scorer, ref: ImageRef, test: Images) -> str | None:
        """Why a scorer cannot be fitted, or None."""
        try:
            found = self.resolver.images(ref)
        except DataError as error:
            return str(error)
        self._remark(found)
        shared = self.resolver.shared(found, test)
        if shared:
            both = f"{found.identifier} are in {test.identifier} too"
            return f"{shared:,} of the {found.n:,} images of {both}, on which no scorer may be fitted; remove them from one"
        return self._too_few(scorer, found)

    def _too_few(self, scorer: Scorer, ref: Images) -> str | None:
        """Why images of ``ref`` that no pass was prepared on do not suffice, or None."""
        passes = passes_prepared_on("ref", scorer.all_needs)
        names = [one.name for one in passes if not one.model_free]
        left = ref.n - (preparing(ref.n) if names else 0)
        if left >= scorer.least_reference:
            return None
        why = (
            f": {ref.n - left:,} of the {ref.n:,} here prepare the pass {names[0]!r}"
            if names
            else ""
        )
        return f"{scorer.too_few(left)}{why}"

    def _check_validation(self) -> None:
        """Raise where a validation set is of no in-dist set, or is, by its name, an OOD set of the suite."""
        in_dists = {self._set(pair.in_dist): named(pair.in_dist)[1] for pair in self.suite.pairs}
        oods = {named(entry)[1] for pair in self.suite.pairs for entry in pair.ood}
        for in_dist, reference in self.suite.validation.items():
            if in_dist not in in_dists:
                near = did_you_mean(in_dist, in_dists)
                raise SuiteError(
                    f"validation: {in_dist!r} is the in-dist set of no pair of this suite{near}"
                )
            if same_pictures(reference, in_dists[in_dist]):
                raise SuiteError(
                    f"validation: {reference} are images of the in-dist set {in_dist} itself, not OOD ones; name another "
                    "set, or an altered view of one, as fashionmnist/ref@invert is"
                )
            for ood in oods:
                if same_pictures(reference, ood):
                    raise SuiteError(_is_judged_on(reference, ood, "is, or is another split of,"))

    def _validation(self, model: Model, scorer: Scorer, test: Images, in_dist: Entry) -> Images:
        """The OOD images that a scorer tunes on; none of them is an image that it is judged on.

        Raises
        ------
        DataError : the suite names none, or they are not here
        SuiteError : some of them are judged on
        """
        name = self._set(in_dist)
        if name not in self.suite.validation:
            raise DataError(
                f"{scorer.name} tunes on validation OOD images, of which the suite names none for {name}; a line under "
                f"`validation:` does, `{name}: SET`"
            )
        found = self.resolver.images(self._ref(model, self.suite.validation[name]))
        own = [pair for pair in self.suite.pairs if self._set(pair.in_dist) == name]
        oods = (self._ref(model, entry) for pair in own for entry in pair.ood)
        for judged in (test, *filter(None, map(self.resolver.images_or_none, oods))):
            shared = self.resolver.shared(found, judged)
            if shared:
                why = f"shares {shared:,} images with"
                raise SuiteError(_is_judged_on(found.identifier, judged.identifier, why))
        self._remark(found)
        return found

    def _trial(
        self,
        model: Model,
        scorer: Scorer,
        size: int,
        sets: tuple[Images, Images, Images | None],
        in_dist: InDist,
    ) -> Trial:
        (test, ood, validation), ref = sets, in_dist.ref
        needs: dict[str, tuple[Images, tuple[str, ...]]] = {
            "test": (test, scorer.needs),
            "ood": (ood, scorer.needs),
        }
        if ref is not None:
            needs["ref"] = (ref, scorer.all_needs if scorer.fit or scorer.tune else ())
        if validation is not None:
            needs["validation"] = (validation, scorer.needs)
        reads = {
            role: {need: self.resolver.passes_of(model, need, images, in_dist) for need in wanted}
            for role, (images, wanted) in needs.items()
        }
        sides = (("test", test), ("ood", ood)) if model.gives("log_prob") else ()
        density = {role: self._density(model, images) for role, images in sides}
        models = read_by(scorer, model)
        return Trial(
            model=model,
            scorer=scorer,
            group_size=size,
            test=test,
            ood=ood,
            ref=ref,
            train=in_dist.train,
            validation=validation,
            reads=reads,
            density=density,
            trained_on={name: one.trained_on for name, one in models.items()},
            seen=seen_by(models.values(), ood),
            left_out=self._left_out(model, ood),
        )

    def _why_few(self, model: Model, ood: Images) -> str:
        places = self._left_out(model, ood).places
        one_of = f"; {len(places):,} of the {ood.n:,} images of {ood.identifier} are left out"
        return f"{one_of}, since a model was trained on them" if places else ""

    def _left_out(self, model: Model, ood: Images) -> LeftOut:
        if (model, ood) not in self.left_out:
            self.left_out[model, ood] = self.resolver.trained_images(model, ood)
        return self.left_out[model, ood]

    def _density(self, model: Model, images: Images) -> ImagePass:
        (own,) = self.resolver.passes_of(model, "log_prob", images)
        return own

    def _ref(self, model: Model, entry: Entry, split: str | None = None) -> ImageRef:
        """The reference of a suite's entry, in a split of its own where one is asked for, with the model's view."""
        shown, reference = named(entry)
        parsed = parse_identifier(reference)
        if split is not None:
            parsed = parsed.in_split(split)
        limit = self._limit(model)
        return ImageRef(str(as_seen(model, parsed)), model.shape, limit, name=shown)

    def _limit(self, model: Model) -> int | None:
        return self.suite.limit_of(model.name, model.reference)

    def _drawn_by_seed(self, ref: ImageRef) -> ImageRef:
        """`ref`, by another seed than 0 drawn anew of the held-out pool; all of it where the pool holds no more."""
        parsed, seed, limit = parse_identifier(ref.reference), self.suite.seed, self.suite.limit
        if not seed:
            return ref
        wanted = parsed.draw or limit
        whole = replace(ref, reference=str(replace(parsed, draw=None)), limit=None)
        pool = self.resolver.images_or_none(whole)
        if pool is not None and (wanted is None or pool.n <= wanted):
            said = _all_of_pool(pool, seed)
            self.made.remarks += [said] if said not in self.made.remarks else []
            return ref
        return replace(ref, reference=str(replace(parsed, draw=wanted, seed=seed)))

    def _remark(self, *sets: Images) -> None:
        """Add what is to be said of how image sets were read."""
        for remark in (remark for images in sets for remark in images.remarks):
            if remark not in self.made.remarks:
                self.made.remarks.append(remark)

    def _check_division(self, model: Model, in_dist: Entry) -> None:
        """A model whose folder was divided otherwise when it was trained may have seen images of ``test``."""
        reference = named(in_dist)[1]
        if not same_set(model.trained_on, reference):
            return
        trained, judged = (
            parse_identifier(one).division or DIVISION for one in (model.trained_on, reference)
        )
        if trained != judged:
            shown = ["/".join(map(str, one)) for one in (trained, judged)]
            raise DataError(
                f"{model.name} was trained on {model.trained_on} divided {shown[0]}, and the suite divides it {shown[1]}, so "
                "that test may hold images that it has seen; divide both alike"
            )

    def _check_training(self, model: Model, in_dist: Entry) -> None:
        """Raise where the images that a card was trained on by `oodbench train` are not those that are `train` now."""
        trained = _trained_images(model.reference)
        stands_in = not self._is_trained_on(model, in_dist)
        if not trained or stands_in or parse_identifier(named(in_dist)[1]).name in catalog():
            return
        train = replace(self._ref(model, in_dist, "train"), limit=None)
        now = self.resolver.images_or_none(train)
        if now is not None and now.sha256 != trained:
            raise DataError(
                f"{model.name} was trained on other images than {now.identifier} holds now, so that test may hold some that it "
                "has seen: the files changed since; train it again"
            )

    def _check_shown(self, model: Model, sets: Mapping[Images, Entry]) -> None:
        """Two entries of a suite never meet in one cell of a page."""
        for images, entry in sets.items():
            reference = named(entry)[1]
            before = self.shown.setdefault((images.identifier, model.shape), reference)
            if before != reference:
                raise SuiteError(_one_name("image sets", images.identifier, before, reference))

    def _remark_unused(self) -> None:
        """A sentence for each model that no pair of the suite uses, or that stands for another set than it was trained on."""
        in_dists = [pair.in_dist for pair in self.suite.pairs if not pair.models]
        used = set(map(self._set, in_dists))
        for model in self.models:
            if model.unhashable:
                self.made.remarks.append(model.unhashable)
            stands_for = self._named_by_pairs(model)
            self.made.remarks += filter(None, (_other_training(model, one) for one in stands_for))
            trained_here = any(self._is_trained_on(model, entry) for entry in in_dists)
            if stands_for or trained_here:
                continue
            unknown = unknown_set(model.trained_on) if model.trained_on else None
            why = unknown or f"it is trained on {model.trained_on or 'a set that it does not name'}"
            near = (
                ""
                if unknown
                else f", the in-dist set of no pair of this suite{did_you_mean(model.trained_on, used)}"
            )
            self.made.remarks.append(f"{model.name} is not used: {why}{near}")

    def _named_by_pairs(self, model: Model) -> list[str]:
        """The in-dist sets of the pairs that name a model."""
        pairs = (pair for pair in self.suite.pairs if pair.models)
        return [self._set(pair.in_dist) for pair in pairs if model in self._models_of(pair)]

    def _subject(self, model: Model, test: Images) -> Subject:
        settings = self.suite.analysis
        assert settings is not None
        own = [trial for trial in self.made.trials if (trial.model, trial.test) == (model, test)]
        oods = tuple(dict.fromkeys(trial.ood for trial in own))
        whole = parse_identifier(test.ref.reference)
        ref = self.resolver.images_or_none(
            replace(test.ref, reference=str(whole.in_split("ref")), limit=self._limit(model))
        )
        train, second_tests = self._train(model, test), self._second_tests(model, test)
        draws = self._draws(model, test)
        drawn = {draw.temperature: drawn_samples(draw) for draw in draws}
        real = [images for images in (test, *oods) if not images.synthetic]
        grayed = {images: self._grayed(images, settings) for images in real}
        sets = [
            test,
            *oods,
            ref,
            train,
            *second_tests,
            *drawn.values(),
            *(one for curve in grayed.values() for one in curve.values()),
        ]
        density = {images: self._density(model, images) for images in sets if images is not None}
        lacking = cannot_give(model, ["ensemble_log_prob"])
        members = () if lacking else model.of("ensemble")
        logs = {one: _log(one.reference) for one in (model, *members)}
        return Subject(
            model=model,
            test=test,
            oods=oods,
            ref=ref,
            train=train,
            second_tests=second_tests,
            drawn=drawn,
            draws=draws,
            grayed=grayed,
            density=density,
            members=members,
            logs=logs,
        )

    def _train(self, model: Model, test: Images) -> Images | None:
        """Images drawn of the training set, or those that travel in the package where it is not here."""
        settings = self.suite.analysis
        assert settings is not None
        split = parse_identifier(test.ref.reference).in_split("train")
        limit = min(settings.train, self._limit(model) or settings.train)
        places = [split, replace(split, draw=DRAWN)]
        refs = (replace(test.ref, reference=str(place), limit=limit) for place in places)
        found = map(self.resolver.images_or_none, refs)
        return next((images for images in found if images), None)

    def _second_tests(self, model: Model, test: Images) -> tuple[Images, ...]:
        """The further test sets of a model's in-dist set; one that is not here is a skip."""
        pairs = [one for one in self.suite.pairs if self._set(one.in_dist) == model.trained_on]
        entries = [(pair.in_dist, entry) for pair in pairs for entry in pair.also_test]
        found = []
        for in_dist, entry in entries:
            try:
                images = self.resolver.images(self._ref(model, entry))
            except DataError as error:
                self._skip(in_dist, entry, str(error), model.name)
                continue
            self._check_shown(model, {images: entry})
            found.append(images)
        return tuple(found)

    def _grayed(self, images: Images, settings: Analysis) -> dict[str, Images]:
        """The images that a limit draws, contracted by each factor towards mid-grey and towards their mean."""
        few = replace(images.ref, limit=min(settings.gray_images, images.n))
        quarters = [percent for percent in settings.gray if percent % 25 == 0]
        contractions = [
            *(f"contract{percent}" for percent in settings.gray),
            *(f"shrink{percent}" for percent in quarters),
        ]
        return {name: self.resolver.images(replace(few, contraction=name)) for name in contractions}

    def _draws(self, model: Model, test: Images) -> tuple[DrawTask, ...]:
        """The drawings from a model: at temperature 1, and from flows at lower ones where the whole test set is here."""
        settings = self.suite.analysis
        assert settings is not None
        limits = [settings.samples]
        limits += [] if test.whole else [settings.few_samples]
        limits += [] if model.draws_at_once else [settings.slow_samples]
        if not min(limits) or not model.gives("sample"):
            return ()
        cooler = settings.temperatures if test.whole and model.gives("sample_with_norm") else ()
        return tuple(self._draw(model, min(limits), one) for one in (1.0, *cooler))

    def _draw(self, model: Model, n: int, temperature: float) -> DrawTask:
        kind, seed = self.resolver.device.split(":")[0], self.suite.seed
        cooled = [] if temperature == 1 else [temperature]
        key = key_of("samples", model.identity, model.sampler, n, seed, kind, *cooled)
        return DrawTask(
            key=key,
            model=model.reference,
            model_identity=model.identity,
            model_name=model.name,
            shape=model.shape,
            n=n,
            seed=seed,
            device=self.resolver.device,
            temperature=temperature,
            with_norm=model.gives("sample_with_norm"),
            here=model.here,
        )


def _is_judged_on(validation: str, ood: str, why: str) -> str:
    return (
        f"validation: {validation} {why} {ood}, on which scorers are judged; what they tune on must be apart from every OOD "
        "set of the suite: name another set"
    )


def _all_of_pool(ref: Images, seed: int) -> str:
    return (
        f"{ref.identifier} is all of the held-out pool that is here, {ref.n:,} images, so that seed {seed} draws no other `ref`; "
        "a limit below that lets each seed draw its own"
    )


def _other_training(model: Model, in_dist: str) -> str:
    """What is told where a model stands for an in-dist set by the suite's word."""
    if model.trained_on == in_dist:
        return ""
    says = (
        f"says that it is trained on {model.trained_on}"
        if model.trained_on
        else "does not say what it is trained on"
    )
    shown = shown_name(Path(in_dist))
    return f"{model.name} {says}; here it stands for {shown}, as the suite says"


def _log(reference: str) -> list[dict[str, float]]:
    known = describe(reference)
    return training_log(known) if isinstance(known, Card) else []


def _trained_images(reference: str) -> str:
    """SHA-256 of the images that `oodbench train` recorded; empty for a model that it did not train."""
    known = describe(reference)
    if not isinstance(known, Card):
        return ""
    try:
        return str(known.record().get("train", {}).get("sha256", ""))
    except ModelError:  # it was never trained
        return ""


def _check_unique(kind: str, shown: Iterable[tuple[str, str]]) -> None:
    found: dict[str, str] = {}
    for name, reference in shown:
        if name in found:
            raise SuiteError(_one_name(kind, name, found[name], reference))
        found[name] = reference


def _one_name(kind: str, name: str, one: str, other: str) -> str:
    return (
        f"the {kind} {one!r} and {other!r} would both be shown as {name!r}; give one a name of its own in the suite, "
        f"`other-name: {other}` in place of `{other}`"
    )
