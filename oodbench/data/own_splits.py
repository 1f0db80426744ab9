"""The splits of a set of one's own: a folder or array that is divided, or folders that are its splits.

No two of them share an image: equal images of a division are in one part, and a folder of training images is read without
those that its test folder, or its own folder of reference images, holds too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from oodbench.data.copies import Source, cached_copy
from oodbench.data.division import TENTH, content_hash, divided, image_digests
from oodbench.data.identifiers import DIVISION, Division, Identifier
from oodbench.data.own import WHOLE
from oodbench.data.reading import UNEQUAL, Pictures
from oodbench.data.views import Shape, apply_view, is_ground, view_between
from oodbench.errors import DataError, MissingDataError


@dataclass(frozen=True)
class Opened:
    """Images of one split through a view, and sentences on how they came about."""

    images: np.ndarray
    view: str
    in_random_order: bool = False
    remarks: tuple[str, ...] = ()


def open_split(
    name: str, sources: Mapping[str, Source], wanted: Identifier, shape: Shape | None
) -> Opened:
    """One split of a set whose sources are known; ``sources`` has the one key ``all`` for a flat set.

    Raises
    ------
    MissingDataError : the set has splits and not this one
    DataError : it is empty, or cannot be read
    """
    opening = partial(_through, name, view=wanted.view, shape=shape)
    if WHOLE in sources:
        whole = opening(sources[WHOLE])
        if wanted.split == WHOLE:
            return whole
        return _divided(name, sources[WHOLE], whole, wanted)
    if wanted.division is not None:
        raise DataError(
            f"{name} has splits of its own, {_listed(sources)}, and is not divided again"
        )
    if wanted.split == "train" or (wanted.split == "ref" and "ref" not in sources):
        return _of_training(name, sources, wanted, opening)
    if wanted.split not in sources:
        raise _no_split(name, sources, wanted.split)
    return opening(sources[wanted.split])


def _listed(sources: Mapping[str, Source]) -> str:
    return ", ".join(f"{split} ({source.n:,} images)" for split, source in sources.items())


def _no_split(name: str, sources: Mapping[str, Source], split: str) -> MissingDataError:
    first = next(iter(sources))
    return MissingDataError(
        f"{name} has no split {split!r} on this machine; it has {_listed(sources)}: add {split}, or write {name}/{first}"
    )


def _through(name: str, source: Source, view: str | None, shape: Shape | None) -> Opened:
    """All images of a source through a view, or through that of the rule where none is named."""
    if isinstance(
        source, Pictures
    ):  # each through the view as it is decoded, which may be what makes the sizes equal
        chain = view_for(source.shape, view, shape)
        seen = source.through(chain)
        return Opened(
            cached_copy(f"{name}-{chain}", seen, [], seen.decode), chain, remarks=source.remarks
        )
    images = cached_copy(name, source, [], source.decode)
    channels, height, width = images.shape[1:]
    chain = view_for((channels, height, width), view, shape)
    if chain:
        images = cached_copy(f"{name}-{chain}", source, [chain], partial(apply_view, images, chain))
    return Opened(images, chain, remarks=source.remarks)


def view_for(have: Shape, view: str | None, shape: Shape | None) -> str:
    """A view that was named, else that of the rule; a ground alone is followed by the rule.

    Pictures of several sizes have the centre square of each resized.
    """
    if shape is None or not (view is None or is_ground(view)):
        return view or ""
    rule = view_between(have, shape)
    if have[1:] == UNEQUAL and shape[1] == shape[2] and not rule.startswith("square"):
        rule = f"square,{rule}"
    return ",".join(filter(None, (view, rule)))


def _divided(name: str, source: Source, whole: Opened, wanted: Identifier) -> Opened:
    """The part of a flat set that stands for a split."""
    train, ref, test = wanted.division or DIVISION
    percent = {"test": test, "ref": ref, "train": train}
    rows = divided(_digests(name, source, whole), percent)
    sizes = {split: len(rows[split]) for split in ("train", "ref", "test")}
    said = _said_of_division(name, (train, ref, test), sizes)
    if not sizes[wanted.split]:
        raise DataError(f"{name}/{wanted.split} holds no images: {said}")
    images = _rows_of(name, source, whole, wanted.split, rows[wanted.split])
    return Opened(images, whole.view, wanted.split != "train", (*whole.remarks, said))


def _said_of_division(name: str, division: Division, sizes: Mapping[str, int]) -> str:
    shares = "/".join(map(str, division))
    numbers = ", ".join(f"{n:,} {split}" for split, n in sizes.items())
    return (
        f"{name} is one set without splits, divided by oodbench {shares} in a fixed random order, equal images in one part: "
        f"{numbers}"
    )


def _of_training(
    name: str, sources: Mapping[str, Source], wanted: Identifier, opening: partial[Opened]
) -> Opened:
    """`train`, or `ref` out of it, without the images that other splits hold."""
    if "train" not in sources:
        raise _no_split(name, sources, wanted.split)
    source = sources["train"]
    whole = opening(source)
    others = [split for split in ("test", "ref") if split in sources]
    opened = ((sources[split], opening(sources[split])) for split in others)
    elsewhere = {digest for other in opened for digest in _digests(name, *other)}
    digests = _digests(name, source, whole)
    percent = {"train": 100} if "ref" in sources else TENTH
    rows = divided(digests, percent, elsewhere)
    shared = sum(digest in elsewhere for digest in digests)
    remarks = list(whole.remarks)
    if "ref" not in sources:
        remarks.append(
            f"{name} has no reference images of its own: ref is a tenth of train, {len(rows['ref']):,} images"
        )
    if shared:
        remarks.append(
            f"{shared:,} of the {len(digests):,} images of {name}/train are in {' or '.join(others)} too and left out of train"
        )
    if not len(rows[wanted.split]):
        raise DataError(f"{name}/{wanted.split} holds no images: {'; '.join(remarks)}")
    images = _rows_of(name, source, whole, wanted.split, rows[wanted.split])
    return Opened(images, whole.view, wanted.split == "ref", tuple(remarks))


def _digests(name: str, source: Source, whole: Opened) -> list[bytes]:
    """:func:`image_digests` of a source's images through a view, kept beside them: every split is opened by them."""

    def make() -> np.ndarray:
        return np.frombuffer(b"".join(image_digests(whole.images)), np.uint8).reshape(-1, 32)

    made_by = ["digests", whole.view]
    kept = cached_copy(f"{name}-digests-{whole.view}", _seen(source, whole), made_by, make)
    return [row.tobytes() for row in kept]


def _seen(source: Source, whole: Opened) -> Source:
    """What the images of a source through a view are kept by."""
    return source.through(whole.view) if isinstance(source, Pictures) else source


def _rows_of(name: str, source: Source, whole: Opened, split: str, rows: np.ndarray) -> np.ndarray:
    seen = _seen(source, whole)
    made_by = [split, whole.view, content_hash(rows)]
    return cached_copy(f"{name}-{split}-{whole.view}", seen, made_by, lambda: whole.images[rows])
