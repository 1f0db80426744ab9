"""Suites: what to compare, as a small YAML file in configs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from oodbench.errors import OodbenchError, SuiteError, UnknownNameError, did_you_mean
from oodbench.names import checked_name
from oodbench.paths import PACKAGE
from oodbench.yaml_files import load_yaml

Entry = str | dict[str, str]
"""A model or an image set of a suite: a name or a path, or ``shown name: path``."""
VIEWED = re.compile(r"@[\w,-]+$")
LARGEST_SEED = 2**32 - 1
"""That numpy's frozen generator takes."""


def named(entry: Entry) -> tuple[str | None, str]:
    """An entry's own shown name, where it gives one, and its reference."""
    if isinstance(entry, str):
        return None, entry
    ((name, reference),) = entry.items()
    return name, reference


def _checked_name(kind: str, name: str) -> str:
    """A name, for pydantic, which adds file, line and field to a ValueError."""
    try:
        return checked_name(kind, name)
    except OodbenchError as error:
        raise ValueError(str(error)) from error


def _checked_entries(entries: list[Entry]) -> list[Entry]:
    for entry in entries:
        if isinstance(entry, dict):
            if len(entry) != 1:
                raise ValueError(f"{entry} must be one `name: path`")
            _checked_name("suite entry", next(iter(entry)))
    doubled = [entry for number, entry in enumerate(entries) if entry in entries[:number]]
    if doubled:
        raise ValueError(f"{doubled[0]!r} stands twice")
    return entries


def _text(entry: Entry) -> str:
    """An entry as its file writes it."""
    shown, reference = named(entry)
    return f"{shown}: {reference}" if shown else reference


Entries = Annotated[list[Entry], AfterValidator(_checked_entries)]


class Pair(BaseModel):
    """An in-dist set and the OOD sets to tell from it.

    ``near`` and ``far`` name OOD sets too, and say what they are: another subject in the same kind of picture, or another
    kind of picture. Tables show the mean over each beside the mean over all pairs.
    """

    model_config = ConfigDict(extra="forbid")

    in_dist: Entry
    """Name of the image set, as in the models' ``trained_on``; ``name@view`` where the shape rule is not wanted."""
    ood: Entries = []
    """Image sets, ``name[/split][[:limit]][@view]``, or ``shown name: path``; those of ``near`` and ``far`` are added."""
    near: Entries = []
    far: Entries = []
    corruptions: list[str] = []
    """Kinds of :mod:`oodbench.data.corruptions`: each stands for five OOD sets, ``in_dist@kind1`` to ``in_dist@kind5``."""
    also_test: Entries = []
    """Further test sets, drawn in another way from what the in-dist set is of: the report shows their likelihood beside that of
    ``test``. They are no OOD sets: no scorer judges them and nothing is averaged over them."""
    models: list[str] = []
    """Models of the suite that stand for this in-dist set whatever their ``trained_on`` says; none: those trained on it."""

    @model_validator(mode="after")
    def _ood_is_all_of_them(self) -> Self:
        both = [entry for entry in self.near if entry in self.far]
        if both:
            raise ValueError(f"{_text(both[0])} is said to be near and far; name it in one of them")
        further = [*self.near, *self.far, *self._corrupted()]
        self.ood = [*self.ood, *(entry for entry in further if entry not in self.ood)]
        if not self.ood:
            raise ValueError(
                "it names no OOD set; write some in `ood`, `near`, `far` or `corruptions`"
            )
        return self

    def _corrupted(self) -> list[Entry]:
        shown, reference = named(self.in_dist)
        behind = "," if VIEWED.search(reference) else "@"
        rungs = [f"{kind}{strength}" for kind in self.corruptions for strength in range(1, 6)]
        found = {one: f"{reference}{behind}{one}" for one in rungs}
        return [{f"{shown}-{one}": view} if shown else view for one, view in found.items()]

    def nearness(self, ood: Entry) -> str | None:
        """``near`` or ``far``, as the suite says of an OOD set; None where it does not."""
        said = (name for name in ("near", "far") if ood in getattr(self, name))
        return next(said, None)


class Analysis(BaseModel):
    """What is computed of the paper's explanations, beside the detection metrics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(200, gt=1)
    """Of each set: those of the second-order expansion."""
    train: int = Field(1000, gt=0)
    """Training images, drawn of as many as are here; the suite's limit where that is less."""
    gray: tuple[int, ...] = (0, 12, 25, 37, 50, 62, 75, 87)
    """Per cent to which pixels are contracted towards mid-grey, and at the quarters towards the set's own mean too; 100 needs no
    measurement."""
    gray_images: int = Field(100, gt=1)
    """Of each set that are contracted."""
    samples: int = Field(200, ge=0)
    """Images drawn from each model that can be sampled."""
    few_samples: int = Field(48, ge=0)
    """At most so many where not the whole test set is here, as in the bundled sample or under a limit; at one temperature."""
    slow_samples: int = Field(16, ge=0)
    """At most so many from models that draw pixel by pixel or step by step."""
    temperatures: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.3, 0.5, 0.7, 0.85)
    """Flows are drawn from at these too, beside 1: the prior's standard deviations are multiplied by them."""
    probes: int = Field(64, gt=1)
    """Images and vectors that the second-order traces are estimated with."""


class Resources(BaseModel):
    """What a task asks a cluster for, ``--executor ray``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpus: float = Field(default=1, gt=0)
    """Also the threads of a worker, where it is more than one."""
    gpus: float = Field(default=1, gt=0)
    """With another ``--device`` than ``cpu``; a half lets two tasks share one."""

    def gpus_on(self, device: str) -> float:
        """GPUs of a task on a device."""
        return 0 if device == "cpu" else self.gpus


class Suite(BaseModel):
    """A benchmark as a value."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(lambda name: _checked_name("suite", name))]
    title: str
    about: str = ""
    models: Entries = Field(min_length=1)
    """Names in the zoo, paths to cards (``shown name: path``), or models that a plugin registers."""
    pairs: list[Pair] = Field(min_length=1)
    scorers: list[str] = Field(min_length=1)
    plugins: list[str] = []
    """Files that register models and scorers of this suite; ``file.py:Name`` registers the file's model ``Name``."""
    group_sizes: dict[str, list[int]] = {}
    """Scorer → sizes M of the groups that it judges as one, besides single images."""
    validation: dict[str, str] = {}
    """In-dist set → validation OOD images, on which scorers that tune choose; none of them is, or shares an image with, an OOD
    set of the suite."""
    limit: int | None = Field(None, gt=0)
    """Images that are drawn of each set, in an order that never changes; all for none."""
    limits: dict[str, Annotated[int, Field(gt=0)]] = {}
    """Model of the suite → images that are drawn of each set for it, where they are fewer: one that takes long an image."""
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    """Of dequantisation noise, group membership and bootstrap, and of `ref`: another seed than 0 draws it anew of the held-out
    pool, where that holds more images than the limit."""
    bootstrap: int = Field(1000, ge=0)
    """Replicates for the intervals of AUPR and FPR."""
    analysis: Analysis | None = None
    """The paper's explanations; none where it is left out."""
    resources: Resources = Resources()
    """What a task asks a cluster for; no number depends on it."""

    @model_validator(mode="after")
    def _names_models_of_the_suite(self) -> Self:
        known = {name for entry in self.models for name in named(entry) if name}
        of_pairs = [("a pair names", name) for pair in self.pairs for name in pair.models]
        for says, name in [*of_pairs, *(("limits name", name) for name in self.limits)]:
            if name not in known:
                raise ValueError(
                    f"{says} the model {name!r}, which the suite's models do not{did_you_mean(name, known)}"
                )
        return self

    def limit_of(self, *names: str) -> int | None:
        """Images that are drawn of each set for a model by any of its names; all for None."""
        own = [self.limits[name] for name in names if name in self.limits]
        return min(filter(None, [self.limit, *own]), default=None)


def suite_of(fields: dict[str, Any]) -> Suite:
    """A suite of fields that come from elsewhere than a file; :class:`SuiteError` names what is wrong with which."""
    try:
        return Suite.model_validate(fields)
    except ValidationError as error:
        raise SuiteError("; ".join(map(_sentence, error.errors()))) from error


def _sentence(fault: Any) -> str:
    where = ".".join(map(str, fault["loc"]))
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def suites_folder() -> Path:
    """``configs/`` in the installed package, or beside it in a checkout."""
    return PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"


def suite_names() -> list[str]:
    """Names of the suites that come with oodbench."""
    return sorted(path.stem for path in suites_folder().glob("*.yaml"))


def load_suite(reference: str) -> Suite:
    """The suite called ``reference``, or the one in a YAML file at that path.

    Raises
    ------
    UnknownNameError : no such suite
    SuiteError : faults in the file, each with its line and field
    """
    path = Path(reference).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return load_yaml(path, Suite)
    if reference not in suite_names():
        raise UnknownNameError(
            "suite", reference, suite_names(), "A path to a .yaml file works too."
        )
    return load_yaml(suites_folder() / f"{reference}.yaml", Suite)
