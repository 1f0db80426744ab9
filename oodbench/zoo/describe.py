"""What the plan needs to know of a model, be it a card or a user's own class."""

from __future__ import annotations

import hashlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from oodbench.errors import ModelError
from oodbench.registry import models
from oodbench.types import Of
from oodbench.zoo.cards import Card, load_card


class UserModel:
    """A model registered by a plugin, with the attributes that a :class:`Card` has."""

    background = None
    general = None
    ensemble: tuple[str, ...] = ()
    view = ""

    def __init__(self, name: str):
        self.name = name
        try:
            self.model = models[name]()
        except Exception as error:
            raise ModelError(f"the model {name!r} cannot be made: {type(error).__name__}: {error}") from error
        if not callable(getattr(self.model, "log_prob", None)):
            raise ModelError(f"the model {name!r} has no method log_prob(images)")
        if len(getattr(self.model, "shape", ())) != 3:
            raise ModelError(f"the model {name!r} needs an attribute shape = (C, H, W) of the images that it takes")
        self.shape: tuple[int, int, int] = tuple(self.model.shape)
        self.trained_on: str = getattr(self.model, "trained_on", "")
        self.likelihood: str = getattr(self.model, "likelihood", "not stated")

    @property
    def exact(self) -> bool:
        return self.likelihood == "exact"

    def gives(self, method: str) -> bool:
        """Whether the model has a method that a statistic asks for; an empty name asks for nothing."""
        return not method or hasattr(self.model, method)

    def identity(self) -> str:
        """SHA-256 over the source file that defines the model, and over its weights: state dict, or arrays it holds."""
        digest = hashlib.sha256(Path(inspect.getsourcefile(models[self.name]) or "").read_bytes())
        state = self.model.state_dict() if hasattr(self.model, "state_dict") else vars(self.model)
        for key, value in sorted(state.items()):
            if hasattr(value, "__array__"):
                array = np.asarray(value.cpu() if hasattr(value, "cpu") else value)
                digest.update(f"{key} {array.shape} {array.dtype}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()


@cache
def describe(reference: str) -> Card | UserModel:
    """The model called ``reference``: a plugin's, one of the zoo, or a card at a path."""
    return UserModel(reference) if reference in models else load_card(reference)


def relatives(reference: str, of: Of) -> list[str]:
    """References of the models that a statistic is asked of: the model, its background model, or its ensemble.

    What a card at a path names is its sibling where there is one, else the zoo's.
    """
    model: Any = describe(reference)
    if of == "model":
        return [reference]
    single = {"background": model.background, "general": model.general}.get(of)
    names = list(model.ensemble) if of == "ensemble" else [single] if single else []
    if not isinstance(model, Card) or reference == model.name:
        return names
    siblings = [model.folder.parent / name for name in names]
    return [str(sibling) if sibling.is_dir() else sibling.name for sibling in siblings]
