"""What the plan needs to know of a model, be it a card or a user's own class."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import ClassVar

from oodbench.contract import DensityModel
from oodbench.data.catalog import catalog
from oodbench.data.identifiers import bare_set, file_and_member
from oodbench.data.own import own_sets
from oodbench.digests import code_digest, source_file, value_digest
from oodbench.errors import ModelError, OodbenchError, UnhashableError, did_you_mean
from oodbench.registry import models
from oodbench.scaling import checked_shape
from oodbench.types import Of
from oodbench.zoo.cards import ZOO, Card, load_card, zoo


class UserModel:
    """A model registered by a plugin, with the attributes that a :class:`Card` has; made once, and then read.

    Attributes
    ----------
    model : the instance that the identity is of, which is also the one that is measured
    local : registered by a script or notebook, so that worker processes cannot make it
    unhashable : why its identity lasts for this process alone; empty where content makes it
    solver, solver_steps, trace_probes : what the instance says of the ODE that its density is the solution of
    """

    background: ClassVar[None] = None
    backgrounds: ClassVar[tuple[str, ...]] = ()
    general: ClassVar[None] = None
    ensemble: ClassVar[tuple[str, ...]] = ()
    view: ClassVar[str] = ""
    family: ClassVar[str] = ""
    sampler_version: ClassVar[str] = ""
    draws_at_once: ClassVar[bool] = False
    training_seed: ClassVar[None] = None
    trace_error: ClassVar[None] = None

    def __init__(self, name: str):
        self.name = self.reference = name
        self.local = name in models.local
        self.model = _make(name)
        self.shape: tuple[int, int, int] = tuple(self.model.shape)  # type: ignore[assignment]
        self.trained_on: str = getattr(self.model, "trained_on", "")
        self.likelihood: str = getattr(self.model, "likelihood", "not stated")
        self.solver: str | None = getattr(self.model, "solver", None)
        self.solver_steps: int | None = getattr(self.model, "solver_steps", None)
        self.trace_probes: int | None = getattr(self.model, "trace_probes", None)
        # now, since measuring may change the instance: a seed is set, a layer keeps what it computed
        self._identity, self.unhashable = _identity(name, self.model)
        self._seed: int | None = None

    @property
    def exact(self) -> bool:
        return self.likelihood == "exact"

    def gives(self, method: str) -> bool:
        """Whether the model has a method that a statistic asks for; an empty name asks for nothing."""
        return not method or hasattr(self.model, method)

    def identity(self) -> str:
        """SHA-256 over everything that can change the model's numbers, as it was when it was made.

        That is the instance's value, or what its own method ``identity()`` returns, and the code of the files
        that make it. Where a part cannot be hashed (:attr:`unhashable`) it is a random one: what is measured is
        never found again.
        """
        return self._identity

    def with_seed(self, seed: int) -> DensityModel:
        """The instance with the seed of its noise; a copy where another seed is in use already."""
        if not hasattr(self.model, "seed"):
            return self.model
        model = self.model if self._seed in (None, seed) else copy.deepcopy(self.model)
        model.seed = seed  # type: ignore[attr-defined]
        if model is self.model:
            self._seed = seed
        return model


def _make(name: str) -> DensityModel:
    try:
        model = models[name]()
    except Exception as error:
        kind = "" if isinstance(error, OodbenchError) else f"{type(error).__name__}: "
        raise ModelError(f"the model {name!r} cannot be made: {kind}{error}") from error
    if not callable(getattr(model, "log_prob", None)):
        raise ModelError(f"the model {name!r} has no method log_prob(images)")
    try:
        checked_shape(tuple(getattr(model, "shape", ())))
    except (TypeError, ModelError) as error:
        raise ModelError(
            f"the model {name!r} needs an attribute shape = (C, H, W) of the images that it takes"
        ) from error
    for attribute in ("trained_on", "likelihood"):
        value = getattr(model, attribute, "")
        if not isinstance(value, str):
            raise ModelError(f"{attribute} of the model {name!r} must be a text, not {value!r}")
    made: DensityModel = model
    return made


def _identity(name: str, model: DensityModel) -> tuple[str, str]:
    """The identity of an instance, and why it is a random one, where it is."""
    try:
        content = [_said_by(name, model) or value_digest(model), *_code(name, model)]
    except UnhashableError as error:
        return secrets.token_hex(32), f"{name} is measured anew in each run, since {error}"
    return hashlib.sha256(json.dumps(content).encode()).hexdigest(), ""


def _said_by(name: str, model: DensityModel) -> str:
    """What the model's own method ``identity()`` returns; empty where it has none."""
    own = getattr(model, "identity", None)
    if not inspect.ismethod(own):  # an attribute of this name may be a layer
        return ""
    try:
        said = own()
    except Exception as error:
        raise ModelError(
            f"identity() of the model {name!r} raises {type(error).__name__}: {error}"
        ) from error
    if not isinstance(said, str) or not said:
        raise ModelError(f"identity() of the model {name!r} must return a text, not {said!r}")
    return said


def _code(name: str, model: DensityModel) -> list[str]:
    """Digests of the files that make a model, with what they import from beside them."""
    factory = models[name]
    files = {source_file(factory), source_file(type(model))}
    digests = [code_digest(file, within=file.parent) for file in files if file is not None]
    return sorted(digests) or [value_digest(factory)]  # typed in a notebook: no file holds the code


def describe(reference: str) -> Card | UserModel:
    """The model called ``reference``: a plugin's, one of the zoo, or a card at a path."""
    # a notebook's cell that is run again registers another factory under the name
    known = reference in models
    return _described(reference, models[reference] if known else None)


def is_folded(model: Card | UserModel) -> bool:
    """Whether a model is scored in its folded form: one of ours with a likelihood."""
    return isinstance(model, Card) and model.gives("log_prob")


@cache
def _described(reference: str, factory: Callable[[], object] | None) -> Card | UserModel:
    return load_card(reference) if factory is None else UserModel(reference)


describe.cache_clear = _described.cache_clear  # type: ignore[attr-defined]


def made_twice(name: str) -> str | None:
    """Make a user's model again, with other threads: a sentence where another model comes of it."""
    described = describe(name)
    if not isinstance(described, UserModel) or described.unhashable:
        return None
    with _another_number_of_threads():
        again = UserModel(name)
    if again.identity() == described.identity():
        return None
    return f"{name} comes out differently each time it is made (a fit in __init__?); it is measured in one process"


@contextmanager
def _another_number_of_threads() -> Iterator[None]:
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(2 if usual == 1 else 1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def relatives(reference: str, of: Of) -> list[str]:
    """References of the models that a statistic is asked of: the model, its background, all its backgrounds, or its ensemble.

    What a card at a path names is its sibling where there is one, else the zoo's.
    """
    if of == "model":
        return [reference]
    model = describe(reference)
    named: dict[Of, list[str | None]] = {
        "background": [model.background],
        "backgrounds": [model.background, *model.backgrounds],
        "general": [model.general],
        "ensemble": list(model.ensemble),
    }
    return [_relative(model, name) for name in dict.fromkeys(named[of]) if name]


def _relative(model: Card | UserModel, name: str) -> str:
    if not isinstance(model, Card) or model.folder.parent == ZOO:
        return name
    sibling = model.folder.parent / name
    return str(sibling) if (sibling / "card.yaml").is_file() else name


def unknown_names(model: Card | UserModel) -> list[str]:
    """A sentence for each name of a model or an image set that the model gives and that does not exist."""
    relations = [("background", model.background), ("general", model.general)]
    relations += [("backgrounds", name) for name in model.backgrounds]
    relations += [("ensemble", name) for name in model.ensemble]
    faults = [(field, unknown_model(model, name)) for field, name in relations if name]
    faults.append(("trained_on", unknown_set(model.trained_on)))
    if isinstance(model, Card) and model.recipe:
        faults += [("recipe.watch", unknown_set(name)) for name in model.recipe.watch]
    return [f"{model.name}: {field}: {fault}" for field, fault in faults if fault]


def unknown_model(model: Card | UserModel, name: str) -> str | None:
    """Why a model that another one names cannot be found, or None."""
    folder = model.folder.parent if isinstance(model, Card) else ZOO
    siblings = [path.parent.name for path in folder.glob("*/card.yaml")]
    return _missing("model", name, {*zoo(), *siblings, *models})


def unknown_set(name: str) -> str | None:
    """Why no image set has this name, or None: the catalog's, those in ``$OODBENCH_DATA``, and paths do."""
    if not name:
        return "it names no image set; `oodbench list data` shows all"
    bare, own = bare_set(name), own_sets(catalog())
    named = bare in catalog() or bare in own or bare.replace("-", "_") in own
    known = named or Path(file_and_member(bare)[0]).expanduser().exists()
    return None if known else _missing("image set", name, {*catalog(), *own})


def _missing(kind: str, name: str, known: Iterable[str]) -> str | None:
    known = set(known)
    return None if name in known else f"no {kind} is called {name!r}{did_you_mean(name, known)}"
