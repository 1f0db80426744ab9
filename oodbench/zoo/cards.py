"""Cards: pretrained models as data. A card is a folder with ``card.yaml`` (written by a person: family, configuration,
training set, recipe) and, once trained, ``weights.safetensors``, ``trained.json`` (written by ``oodbench train``: hashes,
seed, command, result) and ``log.csv``. This module does not import torch.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shlex
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from oodbench.errors import ModelError, OodbenchError, UnknownNameError
from oodbench.foreign import LARGEST_JSON, check_size, parsing, read_json
from oodbench.names import checked_name
from oodbench.paths import PACKAGE, home
from oodbench.scaling import checked_config, checked_shape
from oodbench.yaml_files import load_yaml
from oodbench.zoo.families import SCORING, family

ZOO = PACKAGE / "zoo" / "weights"
MOST = 32 << 30
"""Bytes of the largest weights file that is opened."""
PARTS = ("recipe", "train", "ref")
"""Parts of a training's record that are objects."""
SHA256 = re.compile(r"[0-9a-f]{64}")
UNTRAINED = "untrained:"
"""Stands before a card whose model is meant as it is before training."""


class Recipe(BaseModel):
    """How ``oodbench train`` makes the weights."""

    model_config = ConfigDict(extra="forbid")

    seed: int = 0
    steps: int = Field(gt=0)
    """Optimiser steps; the learning rate warms up linearly, then falls to zero along a cosine."""
    batch_size: int = Field(64, gt=0)
    learning_rate: float = Field(gt=0)
    warmup: int = Field(100, ge=0)
    gradient_clip: float = Field(50.0, gt=0)
    """Largest global gradient norm of the loss in bits/dim."""
    weight_decay: float = Field(0.0, ge=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    mutation: float = Field(0.0, ge=0, le=1)
    """Probability µ that a pixel-channel is replaced by a uniform draw: a background model's noise (Ren et al. 2019)."""
    validate_every: int = Field(500, gt=0)
    """Steps between validations; the last step is validated too, and the weights are those of the best one."""
    validate_images: int = Field(1000, gt=0)
    """Images of `ref` that each validation looks at; fewer where one image takes long."""
    patience: int = Field(10, gt=0)
    """Validations without a better `ref` bits/dim before training stops early."""
    watch: list[str] = []
    """Image sets against which each validation measures the AUROC of raw likelihood, on 500 images."""


class Hosted(BaseModel):
    """Where weights lie that are too large for the package; their hash is in ``trained.json``, as everyone's."""

    model_config = ConfigDict(extra="forbid")

    repo: str
    """A repository of the Hugging Face hub (``owner/name``), or a folder."""
    file: str = "weights.safetensors"
    revision: str = "main"


class Card(BaseModel):
    """A model of the zoo, or of a user's folder."""

    model_config = ConfigDict(extra="forbid")

    name: str
    family: str
    config: dict[str, Any]
    trained_on: str
    """Name of the image set; its ``train`` split fits the weights, its ``ref`` split stops the training."""
    likelihood: str
    """`exact`, the name of the bound that ``log_prob`` returns, or `none` of a classifier."""
    licence: str = "Apache-2.0"
    view: str = ""
    """How images of another shape reach this model, where it was trained on another view than the rule's."""
    background: str | None = None
    """The same kind of model, trained on mutated images: what is common to images of this sort."""
    backgrounds: list[str] = []
    """Further ones, mutated otherwise, among which a scorer that tunes chooses, beside :attr:`background`."""
    general: str | None = None
    """A model of a broad set of images."""
    ensemble: list[str] = []
    reported: dict[str, str] = {}
    """Published numbers to compare with, each with its source."""
    recipe: Recipe | None = None
    hosted: Hosted | None = None
    folder: Path

    local: ClassVar[bool] = False
    unhashable: ClassVar[str] = ""
    """As of a user's model: workers can load every card, and its weights can be hashed."""

    @field_validator("name", "family")
    @classmethod
    def _is_a_name(cls, value: str, field: ValidationInfo) -> str:
        try:
            if field.field_name == "family":
                family(value)
            return checked_name("model", value)
        except OodbenchError as error:  # becomes a sentence with the card's file and line
            raise ValueError(str(error)) from error

    @field_validator("config")
    @classmethod
    def _describes_images(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            return checked_config(value)
        except OodbenchError as error:
            raise ValueError(str(error)) from error

    @property
    def exact(self) -> bool:
        return self.likelihood == "exact"

    @property
    def shape(self) -> tuple[int, int, int]:
        return checked_shape(self.config["shape"])

    def gives(self, method: str) -> bool:
        """Whether the model has a method that a statistic asks for; an empty name asks for nothing."""
        return not method or method in family(self.family).capabilities

    @property
    def uses_labels(self) -> bool:
        """Whether it is trained on class labels: a classifier, which has no likelihood."""
        return self.gives("classify")

    @property
    def sampler_version(self) -> str | None:
        """Version of the code that draws samples; None where the family draws none."""
        return family(self.family).sampler_version

    @property
    def draws_at_once(self) -> bool:
        """Whether a draw takes one pass of the network."""
        return family(self.family).draws_at_once

    @property
    def training_seed(self) -> int | None:
        """The seed of the training that made the weights; None where that is not recorded."""
        path = self.folder / "trained.json"
        seed = self.record().get("recipe", {}).get("seed") if path.exists() else None
        return seed if isinstance(seed, int) else None

    @property
    def solver(self) -> str | None:
        """How the ODE is solved that the density is the solution of; None where there is none."""
        return self.config["solver"] if self._of_an_ode else None

    @property
    def solver_steps(self) -> int | None:
        """Steps of the ODE's solver."""
        return self.config["steps"] if self._of_an_ode else None

    @property
    def trace_probes(self) -> int | None:
        """Random vectors that estimate the trace; None where it is exact."""
        return self.config["probes"] if self._of_an_ode else None

    @property
    def trace_error(self) -> float | None:
        """Standard deviation of log p over those vectors, bits/dim, as its training measured it."""
        path = self.folder / "trained.json"
        if not (self._of_an_ode and path.exists()):
            return None
        return self.record().get("trace_error_bits_per_dim")

    @property
    def _of_an_ode(self) -> bool:
        return family(self.family).solves_an_ode

    @property
    def reference(self) -> str:
        """What finds this card: its name in the zoo, else its folder."""
        return self.name if self.folder.parent == ZOO else str(self.folder)

    @property
    def weights(self) -> Path:
        """The weights file: beside the card, or where ``oodbench fetch`` puts hosted ones."""
        own = self.folder / "weights.safetensors"
        return (
            own
            if self.hosted is None or own.exists()
            else home() / "weights" / f"{self.name}.safetensors"
        )

    def record(self) -> dict[str, Any]:
        """``trained.json``: what ``oodbench train`` recorded; :class:`ModelError` where the model was never trained."""
        path = self.folder / "trained.json"
        if not path.exists():
            raise ModelError(f"{self.name} has no weights; make them: `{self._training()}`")
        found = read_json(path, ModelError, "the record of a training", self._again())
        odd = [name for name in PARTS if not isinstance(found.get(name, {}), dict)]
        if odd:
            raise ModelError(
                f"{path} is no record of a training ({odd[0]} is no object); {self._again()}"
            )
        return found

    def _again(self) -> str:
        return f"train or import {self.name} again"

    def _training(self) -> str:
        """The command that trains this card and writes the weights to where they are looked for."""
        where = shlex.quote(self.reference)
        return f"oodbench train {where}" + f" --out {where}" * (self.reference != self.name)

    def trained(self) -> dict[str, Any]:
        """The record of a model whose weights are here; :class:`ModelError` says how to get them otherwise."""
        record = self.record()
        if not self.weights.exists():
            fetching = f"get them: `oodbench fetch {shlex.quote(self.reference)}`"
            how = fetching if self.hosted else f"make them: `{self._training()}`"
            raise ModelError(f"{self.name} has no weights on this machine; {how}")
        return record

    def read_weights(self) -> bytes:
        """The weights file, whose SHA-256 must be the recorded one."""
        self.trained()  # says what to do where there are none
        check_size(self.weights, MOST, ModelError, "weights")
        content = self.weights.read_bytes()
        self.verify(content, str(self.weights))
        return content

    def verify(self, content: bytes, where: str) -> None:
        """:class:`ModelError` unless these are the bytes whose hash ``trained.json`` records."""
        expected = self.record().get("weights_sha256")
        if not isinstance(expected, str) or not SHA256.fullmatch(expected):
            path = self.folder / "trained.json"
            raise ModelError(
                f"{path} records no SHA-256 of the weights (weights_sha256); {self._again()}"
            )
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise ModelError(
                f"{where} has SHA-256 {found[:12]}…, its card says {expected[:12]}…: {wrong_file(content)}"
            )

    def identity(self) -> str:
        """SHA-256 of what a cached column belongs to: the weights as they are on disk, and their code.

        The code is named by the versions of the family and of the folded form in which its models are scored.
        """
        weights = hashlib.sha256(self.read_weights()).hexdigest()
        code = [self.family, family(self.family).version, SCORING]
        content = json.dumps([code, self.config, weights], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


class UntrainedCard(Card):
    """A card's model as it is before training, ``untrained:CARD``: the control of what training adds.

    Its weights are drawn from a fixed seed; it stands for the same in-dist set, and has no background and no ensemble.
    """

    trained_card: str

    @property
    def reference(self) -> str:
        return f"{UNTRAINED}{self.trained_card}"

    def record(self) -> dict[str, Any]:
        return {"parameters": None}

    def trained(self) -> dict[str, Any]:
        return self.record()

    def read_weights(self) -> bytes:
        return self.drawn

    @cached_property
    def drawn(self) -> bytes:
        """The weights, as a weights file holds them."""
        from oodbench.zoo.load import drawn_weights  # brings torch

        return drawn_weights(self)


def _untrained(card: Card) -> UntrainedCard:
    kept = card.model_dump(
        include={"family", "config", "trained_on", "likelihood", "licence", "view"}
    )
    name, folder = f"{card.name}-untrained", card.folder / "untrained"
    return UntrainedCard(**kept, name=name, folder=folder, trained_card=card.reference)


def training_log(card: Card) -> list[dict[str, float]]:
    """A card's validations in order: ``step``, ``ref_bits_per_dim``, and ``auroc_<set>`` where sets were watched."""
    path = card.folder / "log.csv"
    if not path.exists():
        return []
    with parsing(path, ModelError, "the log of a training", "remove it, or train again"):
        check_size(path, LARGEST_JSON, ModelError, "a log")
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.DictReader(file) if line.get("ref_bits_per_dim")]
        return [
            {name: float(line[name]) for name in line if _is_told(name) and line[name]}
            for line in lines
        ]


def _is_told(column: str | None) -> bool:
    """Whether a column of a log is shown; what stands beyond the last column has no name."""
    known = ("step", "ref_bits_per_dim")
    return column is not None and (column.startswith("auroc_") or column in known)


def fit_words(record: dict[str, Any]) -> str:
    """How well the weights of a record fit ``ref``: bits a dimension, or of a classifier its accuracy and cross-entropy."""
    if "ref_accuracy" in record:
        return (
            f"accuracy {record['ref_accuracy']}, cross-entropy {record['ref_cross_entropy']} nats"
        )
    return f"{record['ref_bits_per_dim']} bits/dim"


def wrong_file(content: bytes) -> str:
    """What a file that should hold weights seems to be, and what to do."""
    if content[:1] == b"<":
        return "it is an HTML page, saved in place of the weights; download it again"
    if content[:2] in (b"PK", b"\x80\x02"):
        return "it is a pickled PyTorch file, which is never opened here; convert it to safetensors"
    return "it is cut short, damaged or another version; get it again"


def zoo() -> list[str]:
    """Names of the cards in the package."""
    return sorted(path.parent.name for path in ZOO.glob("*/card.yaml"))


def load_card(reference: str) -> Card:
    """The card called ``reference`` in the zoo, or the one at a path (a card folder or its ``card.yaml``).

    Behind ``untrained:`` the same model before training is meant.
    """
    if reference.startswith(UNTRAINED):
        return _untrained(load_card(reference.removeprefix(UNTRAINED)))
    if reference in zoo():
        folder = ZOO / reference
    elif Path(reference).name == "card.yaml" and Path(reference).is_file():
        folder = Path(reference).parent
    elif (Path(reference) / "card.yaml").is_file():
        folder = Path(reference)
    else:
        raise UnknownNameError(
            "model", reference, zoo(), "A path to a folder with a card.yaml works too."
        )
    return load_yaml(folder / "card.yaml", Card, folder=folder)
