"""What a plan has resolved: models, image sets and passes as values. Nothing here looks a name up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from oodbench.data.division import drawn_rows
from oodbench.data.views import Shape
from oodbench.store import key_of
from oodbench.types import Of

SHARD = 500
"""Images a shard: the unit of caching, of loss and of parallel work."""
PREPARING = 200
"""Images that a pass of a model is prepared on, where there are twice as many."""


def preparing(n: int) -> int:
    """How many of n in-dist images a pass of a model is prepared on: the last 200, or half where there are fewer than 400.

    The others are left to fit scorers to.
    """
    return min(PREPARING, -(-n // 2))


@dataclass(frozen=True)
class ImageRef:
    """An image set by name, as a task carries it to a worker."""

    reference: str
    shape: Shape
    limit: int | None = None
    contraction: str = ""
    """``contractNN`` towards mid-grey or ``shrinkNN`` towards the mean of what was drawn, after the model's own view."""
    name: str | None = None
    """What the set is shown as, where that is not its own name."""
    sampled: bool = False
    """Images drawn from a model: the reference is the path of their file in the cache."""


@dataclass(frozen=True, eq=False)
class Images:
    """An image set as resolved.

    Attributes
    ----------
    ref : by which a worker opens it
    identifier, name, split : what is shown
    sha256 : of shape and pixels; for images yet to be drawn from a model, the key of the drawing
    shards : the same of each shard
    n : images here
    pool : those that they were drawn of, as many as are here
    in_random_order : a draw of fewer is their beginning
    whole : it is all of the official split
    synthetic, may_be_shown : it is noise or constants; its terms permit showing images
    draw : key of the task that draws them from a model; empty for all others
    remarks : sentences on how the files were read, and how the set was divided
    """

    ref: ImageRef
    identifier: str
    name: str
    split: str
    sha256: str
    shards: tuple[str, ...]
    n: int
    pool: int = 0
    in_random_order: bool = False
    whole: bool = True
    synthetic: bool = False
    may_be_shown: bool = True
    draw: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def shape(self) -> Shape:
        """``(C, H, W)``."""
        return self.ref.shape

    @property
    def dimensions(self) -> int:
        """Numbers an image, ``C·H·W``."""
        return math.prod(self.shape)

    def rows_of(self, n: int) -> list[int]:
        """Where the images stand that a limit of ``n`` would draw."""
        if n >= self.n:
            return list(range(self.n))
        return drawn_rows(n, self.n, self.in_random_order).tolist()


@dataclass(frozen=True, eq=False)
class Model:
    """A model as resolved.

    Attributes
    ----------
    reference : by which a worker finds it
    name : what is shown
    identity : hash of all that can change its numbers; empty where ``missing`` says why it cannot be used
    here : only this process knows it
    folded : it is one of ours, scored in its folded form
    methods : those that it has of the ones that statistics ask for
    sampler, draws_at_once : version of what draws from it; whether a draw takes one pass of the network
    solver, solver_steps, trace_probes : of a model whose density is an ODE's; probes are None where its trace is exact
    trace_error : standard deviation of log p over the probes, bits/dim; None where it was not measured
    relatives : its background, general model and ensemble
    """

    reference: str
    name: str
    identity: str
    likelihood: str
    shape: Shape
    trained_on: str
    methods: frozenset[str] = frozenset()
    here: bool = False
    folded: bool = True
    view: str = ""
    sampler: str = ""
    draws_at_once: bool = False
    training_seed: int | None = None
    solver: str | None = None
    solver_steps: int | None = None
    trace_probes: int | None = None
    trace_error: float | None = None
    missing: str = ""
    unhashable: str = ""
    relatives: Mapping[Of, tuple[Model, ...]] = field(default_factory=dict)

    def of(self, whose: Of) -> tuple[Model, ...]:
        """The models that a statistic is asked of: itself, its background, its general model or its ensemble."""
        return (self,) if whose == "model" else self.relatives.get(whose, ())

    @property
    def family(self) -> tuple[Model, ...]:
        """Its relatives, of whatever kind."""
        return tuple(one for own in self.relatives.values() for one in own)

    @property
    def uses_labels(self) -> bool:
        """Whether it was trained on class labels: it tells classes apart."""
        return self.gives("classify")

    def gives(self, method: str) -> bool:
        """Whether it has a method that a statistic asks for; an empty name asks for nothing."""
        return not method or method in self.methods


@dataclass(frozen=True, eq=False)
class ImagePass:
    """One walk of a model (None: model-free) over an image set, with the key of each of its shards.

    Attributes
    ----------
    statistic : one that the pass gives, by which a worker finds it
    kind, identity : the pass's name, and the hash of what computes it
    prepared_on : in-dist reference images, for passes that are prepared on some
    """

    statistic: str
    kind: str
    identity: str
    model: Model | None
    images: Images
    seed: int
    device: str
    here: bool = False
    prepared_on: Images | None = None
    keys: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``pass`` or ``pass of model``."""
        return f"{self.kind} of {self.model.name}" if self.model else self.kind

    @property
    def label(self) -> str:
        """The pass and its images, for people; all contractions of a set go by one label."""
        contraction = self.images.ref.contraction
        plain = self.images.identifier.removesuffix(contraction)
        return f"{self.name} on " + (f"{plain.rstrip(',@')}, contracted" if contraction else plain)


def shard_starts(n: int) -> range:
    """First index of each shard of ``n`` images."""
    return range(0, n, SHARD)


def shard_keys(
    identity: str,
    model: Model | None,
    images: Images,
    *,
    seed: int,
    device: str,
    prepared_on: Images | None,
) -> tuple[str, ...]:
    """A key for each shard, made of content: what computes, weights, noise seed, kind of device, and pixels."""
    who = [model.identity, seed, device.split(":")[0]] if model else []
    if prepared_on:
        who.append(prepared_on.sha256)
        own = preparing(prepared_on.n) if model else PREPARING
        who += [own] if own < PREPARING else []
    return tuple(key_of("shard", identity, who, pixels) for pixels in images.shards)
