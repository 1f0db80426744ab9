"""The image sets that oodbench knows by name: licence, citation, official sizes, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from oodbench.errors import UnknownNameError
from oodbench.paths import PACKAGE
from oodbench.yaml_files import read_own


@dataclass(frozen=True)
class Place:
    """Where the files of one split lie, in the layout that torchvision uses; see :mod:`oodbench.data.layouts`.

    Attributes
    ----------
    kind : ``idx``, ``mat``, ``cifar``, ``libsvm`` or ``pictures``
    unpacked : files, or the folder of pictures
    archive : the file that holds them otherwise, and ``inside`` where in it
    listed, list_inside, code : the list of the split's pictures, its place in the archive, and the last word of its lines
    folders : those of the pictures' folders that are the split's, where not all are
    md5 : of unpacked files that need one, by name
    """

    split: str
    kind: str
    unpacked: list[str]
    archive: str = ""
    inside: str = ""
    listed: str = ""
    list_inside: str = ""
    code: str = ""
    folders: list[str] = field(default_factory=list)
    md5: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataCard:
    """One entry of ``catalog.yaml``; the file's head says what each field means."""

    name: str
    title: str
    licence: str
    citation: str
    counts: dict[str, int]
    torchvision: str = ""
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    folder: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    planar_npz: dict[str, str] = field(default_factory=dict)
    npz: dict[str, list[str]] = field(default_factory=dict)
    files: list[dict[str, str]] = field(default_factory=list)
    generated: str = ""
    keep_private: bool = False
    part: dict[str, Any] = field(default_factory=dict)
    within: str = ""
    how: str = ""
    order: str = "as in the official files"
    published: dict[str, dict[str, Any]] = field(default_factory=dict)
    only_here: str = ""
    base_view: str = ""
    transposed: bool = False
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def resizing(self) -> str:
        """The view that its official pictures are read through; ``none`` where their pixels stay as they are."""
        return self.base_view or "none"

    def how_to_get(self) -> str:
        """One sentence: the command or the steps that bring the full set here."""
        return f"`oodbench data fetch {self.name}`" if self.files else self.how


@cache
def catalog() -> dict[str, DataCard]:
    """All data cards by name."""
    entries = read_own(PACKAGE / "data" / "catalog.yaml")
    return {name: _card(name, entry) for name, entry in entries.items()}


def _card(name: str, entry: dict[str, Any]) -> DataCard:
    places = entry.pop("places", {})
    known = {split: Place(split=split, **place) for split, place in places.items()}
    return DataCard(name=name, places=known, **entry)


def only_here(name: str) -> str:
    """Why nobody else can make a set that published rows are of, as a clause; empty where anybody can."""
    return catalog()[name].only_here if name in catalog() else ""


def collection(name: str) -> str:
    """What a set's images were taken from, as far as the catalog says: the set of a part, and what that one is within.

    >>> collection("imagenet7k"), collection("svhn10k"), collection("mnist")
    ('imagenet', 'svhn', 'mnist')
    """
    card = catalog().get(name)
    if card is None:
        return name
    larger = str(card.part["of"]).split("/")[0] if card.part else card.within
    return collection(larger) if larger else name


def may_be_shown(name: str) -> bool:
    """Whether a figure may show images of a set; those of a user's own sets are the user's to show."""
    return name not in catalog() or not catalog()[name].keep_private


def is_synthetic(name: str) -> bool:
    """Whether a set's images are generated: noise, or one colour."""
    return name in catalog() and bool(catalog()[name].generated)


def data_card(name: str) -> DataCard:
    """The card called ``name``; :class:`UnknownNameError` offers the nearest ones."""
    if name not in catalog():
        raise UnknownNameError("image set", name, catalog(), "`oodbench list data` shows all.")
    return catalog()[name]
