"""Looking names up, each once: models, image sets and passes as the values that a plan is made of."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from oodbench.data.catalog import collection, is_synthetic, may_be_shown
from oodbench.data.division import image_digests
from oodbench.data.identifiers import Identifier, parse_identifier, set_key
from oodbench.data.images import ImageSet, fits
from oodbench.data.training import Training, training_images
from oodbench.data.views import Shape, alteration, is_ground
from oodbench.errors import DataError, ModelError
from oodbench.passes.shards import DrawTask, open_images, samples_path
from oodbench.passes.values import SHARD, ImagePass, ImageRef, Images, Model, shard_keys
from oodbench.registry import statistics
from oodbench.store import key_of
from oodbench.types import Of, Pass, PreparedOn, Scorer, split_need
from oodbench.zoo.describe import describe, is_folded, relatives


class InDist(NamedTuple):
    """In-dist images that scorers are fitted to and passes prepared on, as far as they are needed."""

    ref: Images | None
    train: Images | None

    def of(self, split: PreparedOn) -> Images | None:
        return self.ref if split == "ref" else self.train


NO_IN_DIST = InDist(None, None)


class Resolver:
    """Looks names up, each once, and keeps the values."""

    def __init__(self, seed: int, device: str):
        self.seed, self.device = seed, device
        self._models: dict[str, Model] = {}
        self._images: dict[ImageRef, Images | DataError] = {}
        self._digests: dict[Images, list[bytes]] = {}
        self._shared: dict[tuple[Images, Images], int] = {}
        self._training: dict[tuple[Identifier, Shape], Training] = {}
        self._passes: dict[tuple[str, str, Images, Images | None], ImagePass] = {}
        entries = statistics.values()
        asked = {entry.capability_for(name) for entry in entries for name in entry.statistics}
        self._asked = {*asked, "sample", "sample_with_norm", "latent_shapes"} - {""}

    def model(self, reference: str, shown: str | None = None) -> Model:
        """The model of a reference with its relatives; where it cannot be used, ``missing`` says why."""
        if reference not in self._models:
            self._models[reference] = self._resolved(reference, shown)
        return self._models[reference]

    def _resolved(self, reference: str, shown: str | None) -> Model:
        own = self._alone(reference, shown)
        kinds: tuple[Of, ...] = ("background", "general", "ensemble", "backgrounds")
        related = {
            of: tuple(self._alone(name) for name in relatives(reference, of)) for of in kinds
        }
        return replace(own, relatives=related)

    def _alone(self, reference: str, shown: str | None = None) -> Model:
        known, missing, identity = describe(reference), "", ""
        try:
            identity = known.identity()
        except ModelError as error:
            missing = str(error)
        return Model(
            reference=reference,
            name=shown or known.name,
            identity=identity,
            likelihood=known.likelihood,
            shape=known.shape,
            trained_on=known.trained_on,
            view=known.view,
            methods=frozenset(method for method in self._asked if known.gives(method)),
            here=known.local
            or bool(known.unhashable),  # another process would make another identity
            folded=is_folded(known),
            sampler=known.sampler_version or "",
            draws_at_once=known.draws_at_once,
            training_seed=known.training_seed,
            solver=known.solver,
            solver_steps=known.solver_steps,
            trace_probes=known.trace_probes,
            trace_error=known.trace_error,
            missing=missing,
            unhashable=known.unhashable,
        )

    def images(self, ref: ImageRef) -> Images:
        """The image set of a reference; :class:`DataError` where it is not here or unusable."""
        if ref not in self._images:
            try:
                self._images[ref] = resolved_images(ref, open_images(ref))
            except DataError as error:
                self._images[ref] = error
        found = self._images[ref]
        if isinstance(found, DataError):
            raise found
        return found

    def images_or_none(self, ref: ImageRef) -> Images | None:
        """The image set of a reference, where it is here."""
        try:
            return self.images(ref)
        except DataError:
            return None

    def shared(self, one: Images, other: Images) -> int:
        """How many images of one set are, pixel by pixel, in another."""
        if (one, other) not in self._shared:
            seen = set(self._digests_of(other))
            self._shared[one, other] = sum(digest in seen for digest in self._digests_of(one))
        return self._shared[one, other]

    def _digests_of(self, images: Images) -> list[bytes]:
        if images not in self._digests:
            self._digests[images] = image_digests(open_images(images.ref).images)
        return self._digests[images]

    def trained_images(self, model: Model, images: Images) -> LeftOut:
        """Which images of a set are among those that a model or one of its relatives was trained on.

        Relatives that were trained on the very set are left to :func:`seen_by`: their scorers are not ranked there.
        """
        reference = images.ref.reference
        family = {one.trained_on: one for one in (model, *model.family) if one.trained_on}
        foreign = {
            name: self._training_of(one)
            for name, one in family.items()
            if not same_pictures(name, reference)
        }
        known = [one.digests for one in foreign.values() if one.digests]
        own = enumerate(self._digests_of(images) if known else ())
        places = (place for place, digest in own if any(digest in one for one in known))
        return LeftOut(tuple(places), {name: one.here for name, one in foreign.items()})

    def _training_of(self, model: Model) -> Training:
        try:
            seen = as_seen(model, parse_identifier(model.trained_on))
        except DataError:  # a name that is no image set's
            return Training((), "none")
        if (seen, model.shape) not in self._training:
            self._training[seen, model.shape] = training_images(seen, model.shape)
        return self._training[seen, model.shape]

    def passes_of(
        self, model: Model, need: str, images: Images, in_dist: InDist = NO_IN_DIST
    ) -> tuple[ImagePass, ...]:
        """The passes that give ``need`` of ``model`` on an image set: one, or one of each member of an ensemble.

        ``in_dist`` holds the in-dist images that a pass is prepared on, where it is.
        """
        statistic, of = split_need(need)
        entry = statistics[statistic]
        owners: Sequence[Model | None] = (None,) if entry.model_free else model.of(of)
        prepared_on = in_dist.of(entry.prepared_on) if entry.prepare else None
        return tuple(self._pass(entry, owner, images, prepared_on) for owner in owners)

    def _pass(
        self, entry: Pass, model: Model | None, images: Images, ref: Images | None
    ) -> ImagePass:
        first = next(iter(entry.statistics))
        which = (first, model.reference if model else "", images, ref)
        if which not in self._passes:
            identity = entry.identity
            keys = shard_keys(
                identity, model, images, seed=self.seed, device=self.device, prepared_on=ref
            )
            self._passes[which] = ImagePass(
                statistic=first,
                kind=entry.name,
                identity=identity,
                model=model,
                images=images,
                seed=self.seed,
                device=self.device,
                here=first in statistics.local or bool(model and model.here),
                prepared_on=ref,
                keys=keys,
            )
        return self._passes[which]


def resolved_images(ref: ImageRef, found: ImageSet) -> Images:
    """An opened image set as a value."""
    return Images(
        ref=ref,
        identifier=found.identifier,
        name=found.name,
        split=found.split,
        sha256=found.sha256,
        shards=found.shard_hashes(SHARD),
        n=len(found),
        in_random_order=found.in_random_order or found.drawn_from is not None,
        pool=len(found) if found.drawn_from is None else found.drawn_from,
        whole=found.is_whole,
        synthetic=is_synthetic(found.card),
        may_be_shown=may_be_shown(found.card),
        remarks=found.remarks,
    )


def set_name(reference: str) -> str:
    """The bare name in an image set's reference."""
    return parse_identifier(reference).name


def same_set(one: str, other: str) -> bool:
    """Whether two references are to one set: the same name, or paths to one place."""
    try:
        return bool(one and other) and set_key(one) == set_key(other)
    except DataError:
        return False


class LeftOut(NamedTuple):
    """Images of an OOD set that no scorer is judged on, and where that was looked for.

    Attributes
    ----------
    places : of the images in the set, in order
    checked : training set → how much of it is on this machine: ``all``, ``some`` or ``none``
    """

    places: tuple[int, ...]
    checked: Mapping[str, str]


def as_seen(model: Model, wanted: Identifier) -> Identifier:
    """A set in the view through which a model sees it; its own view is for sets of another shape that name none."""
    ground = wanted.view if wanted.view and is_ground(wanted.view) else ""
    if not model.view or (wanted.view and not ground):
        return wanted
    try:
        as_it_is = fits(str(wanted), model.shape)
    except DataError:  # not here: opening it will say so
        return wanted
    view = ",".join(filter(None, (ground, model.view)))
    return wanted if as_it_is else wanted.seen_through(view)


def read_by(scorer: Scorer, model: Model) -> dict[str, Model]:
    """The models that a scorer reads where it judges with one, by name: itself, its background, its ensemble."""
    split = map(split_need, scorer.all_needs)
    whose = [of for statistic, of in split if not statistics[statistic].model_free]
    return {one.name: one for of in whose for one in model.of(of)}


def seen_by(models: Iterable[Model], ood: Images) -> tuple[str, ...]:
    """Names of the models that were trained on an OOD set, another split of it, or a set that shares its images."""
    reference = ood.ref.reference
    return tuple(one.name for one in models if same_pictures(one.trained_on, reference))


def same_pictures(one: str, other: str) -> bool:
    """Whether two references are to one set, to splits or parts of one, or to sets of one collection, altered alike."""
    if not (one and other):
        return False
    try:
        parsed = parse_identifier(one), parse_identifier(other)
    except DataError:
        return False
    altered = {alteration(identifier.view) for identifier in parsed}
    keys = {collection(set_key(reference)) for reference in (one, other)}
    return len(altered) == len(keys) == 1


def drawn_samples(draw: DrawTask) -> Images:
    """The images that a drawing gives, or will: an image set whose identity is the drawing's."""
    name = "samples" if draw.temperature == 1 else f"samples at {draw.temperature:g}"
    ref = ImageRef(str(samples_path(draw.key)), draw.shape, name=name, sampled=True)
    starts = range(0, draw.n, SHARD)
    shards = tuple(key_of(draw.key, start) for start in starts)
    return Images(
        ref,
        name,
        name,
        "test",
        draw.key,
        shards,
        draw.n,
        in_random_order=True,
        draw=draw.key,
    )


def cannot_give(model: Model, needs: Iterable[str]) -> str | None:
    """Why a statistic cannot be had of a model, its background or its ensemble, or None."""
    reasons = (_lacking(model, need) for need in needs)
    return next((reason for reason in reasons if reason), None)


def _lacking(model: Model, need: str) -> str | None:
    statistic, of = split_need(need)
    entry, found = statistics[statistic], model.of(of)
    if entry.package and importlib.util.find_spec(entry.package[0]) is None:
        package, extra = entry.package
        return f"{need} needs the package {package}: `pip install 'oodbench[{extra}]'`"
    if of in ("background", "general") and not found:
        return f"{model.name} has no {of} model, which {need} asks for"
    if of == "ensemble" and len(found) < 2:
        return f"{model.name} has no ensemble of two or more models, which {need} asks for"
    if of == "backgrounds" and len(found) < 2:
        return f"{model.name} has no two background models to choose from, which {need} asks for"
    method = entry.capability_for(statistic)
    missing = [one.missing for one in found if one.missing]
    unable = [one.name for one in found if not one.gives(method)]
    if missing:
        return missing[0]
    return f"{unable[0]} has no `{method}`, which {need} asks for" if unable else None
