"""Views: the declared, deterministic ways from one image shape to another. A view is part of an image set's identity.

A view is a comma-separated chain of operations, applied left to right:

=====================  ============================================================================================
``pad32``              zero padding to 32×32, the image in the centre
``crop28``             centre crop to 28×28
``square``             centre crop to the shorter side
``resize32-F-aa``      resize to 32×32 with filter F (``nearest bilinear bicubic lanczos box``), antialiased
``resize32-F``         the same without antialiasing (``nearest bilinear bicubic``)
``rgb``                one channel copied to three; three stay
``grey``               ITU-R 601 luma of three channels; one stays
``invert``             255 − x
``hflip``, ``vflip``   mirrored from left to right, or upside down
``rot90``              turned a quarter anticlockwise; ``rot180`` and ``rot270`` likewise
``blur3``              a corruption, with a strength of 1 to 5: see :mod:`oodbench.data.corruptions` for the kinds
``on255``              transparency composited on a ground of grey level 255 (0: black); stands first
``contract50``         pixels moved towards mid-grey, to 50 per cent of their distance from 127.5 (100: nothing, 0: all grey)
=====================  ============================================================================================

Contraction towards a set's own mean, ``shrink50``, is no view of an image but of a whole set, the very images that were
drawn: :meth:`oodbench.data.images.ImageSet.through` applies it, and no identifier can ask for it.

A size may be ``HxW``. Resizing is a known confounder of this experiment (FACTS: one-sided resizing turns an AUROC of .50
into .999), hence the spelled-out names.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from PIL import Image

from oodbench.data.corruptions import KINDS, check_corruption, corrupted, is_corruption
from oodbench.errors import DataError, did_you_mean

Shape = tuple[int, int, int]
FILTERS = {
    "nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS, "box": Image.Resampling.BOX,
}  # fmt: skip
OPERATION = re.compile(
    r"(?P<op>pad|crop|resize)(?P<height>\d+)(x(?P<width>\d+))?(-(?P<filter>[a-z]+))?(?P<aa>-aa)?|rgb|grey|square|invert"
    r"|hflip|vflip|rot(90|180|270)"
    r"|contract(?P<percent>\d\d?|100)|on(?P<ground>\d\d?|1\d\d|2[0-4]\d|25[0-5])"
)
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hflip": lambda images: images[..., ::-1],
    "vflip": lambda images: images[..., ::-1, :],
    "rot90": lambda images: np.rot90(images, 1, (2, 3)),
    "rot180": lambda images: np.rot90(images, 2, (2, 3)),
    "rot270": lambda images: np.rot90(images, 3, (2, 3)),
}
SHAPING = re.compile(r"(pad|crop|resize|on)\d.*|square|rgb|grey")
"""Operations that leave the pictures what they are, in another size or another number of channels."""
SHRINK = re.compile(r"shrink(?P<percent>\d\d?|100)")


def view_between(have: Shape, want: Shape) -> str:
    """The one stated rule that brings a set to its model's shape.

    Same size: nothing. 28 → 32: zero padding. 32 → 28: centre crop. Other sizes: antialiased bilinear resize of the
    centre square. Then grey → RGB by copying, RGB → grey by ITU-R 601 luma.

    >>> view_between((1, 28, 28), (3, 32, 32))
    'pad32,rgb'
    """
    operations = []
    size = f"{want[1]}" if want[1] == want[2] else f"{want[1]}x{want[2]}"
    if have[1:] == (28, 28) and want[1:] == (32, 32):
        operations.append(f"pad{size}")
    elif have[1:] == (32, 32) and want[1:] == (28, 28):
        operations.append(f"crop{size}")
    elif have[1:] != want[1:]:
        if have[1] != have[2] and want[1] == want[2]:
            operations.append("square")
        operations.append(f"resize{size}-bilinear-aa")
    if have[0] != want[0]:
        if (have[0], want[0]) not in ((1, 3), (3, 1)):
            raise DataError(
                f"no rule brings {have[0]} channels to {want[0]}; only grey (1) and RGB (3) are known"
            )
        operations.append("rgb" if want[0] == 3 else "grey")
    return ",".join(operations)


def check_view(view: str) -> None:
    """Raise :class:`DataError` for an operation that does not exist."""
    for place, operation in enumerate(filter(None, view.split(","))):
        if SHRINK.fullmatch(operation):
            raise DataError(
                f"{operation!r} contracts a set that was drawn towards its own mean and is no view that a set is read "
                f"through; load the set without it and call `.through({operation!r})`"
            )
        check_corruption(operation)
        if is_corruption(operation):
            continue
        match = OPERATION.fullmatch(operation)
        if not match:
            raise _no_such(operation)
        if match["op"] == "resize" and match["filter"] not in FILTERS:
            raise DataError(
                f"the view {operation!r} must name its filter: one of {', '.join(FILTERS)}"
            )
        if match["ground"] and place:
            raise DataError(f"the ground {operation!r} must stand first in the view {view!r}")


NAMES = ("pad", "crop", "square", "resize", "rgb", "grey", "invert", "on", "contract", *TURNS)


def _no_such(operation: str) -> DataError:
    name = operation.rstrip("0123456789")
    return DataError(
        f"no view operation is called {operation!r}{did_you_mean(name, [*NAMES, *KINDS])} "
        "See `oodbench.data.views` for what each does"
    )


def until_corruption(view: str | None) -> tuple[str | None, str]:
    """A view in two: what stands before its first corruption, and the rest, empty where it has none.

    What is drawn is corrupted, not the whole set: a ladder of fifty views would fill a disk.
    """
    operations = (view or "").split(",")
    for place, operation in enumerate(operations):
        if is_corruption(operation):
            return ",".join(operations[:place]), ",".join(operations[place:])
    return view, ""


def alteration(view: str | None) -> str:
    """The operations of a view that make other pictures of a set's images: all but those of size and channels.

    Colours that are taken away are an alteration where three channels stay.

    >>> alteration("pad32,rgb"), alteration("invert,pad32"), alteration("grey,rgb")
    ('', 'invert', 'grey')
    """
    operations = (view or "").split(",")
    other = [one for one in operations if one and not SHAPING.fullmatch(one)]
    drained = ["grey"] if "grey" in operations and "rgb" in operations else []
    coarsened = [one for one in operations if one.startswith("resize")][:-1]
    return ",".join([*other, *drained, *coarsened])


def apply_view(images: np.ndarray, view: str) -> np.ndarray:
    """Apply a view to uint8 ``(N, C, H, W)``; the result is a new, contiguous uint8 array (or the input for ``""``)."""
    check_view(view)
    for operation in filter(None, view.split(",")):
        images = _apply(images, operation)
    return np.ascontiguousarray(images)


def _apply(images: np.ndarray, operation: str) -> np.ndarray:
    if operation == "rgb":
        return images if images.shape[1] == 3 else np.repeat(images, 3, axis=1)
    if operation == "grey":
        return images if images.shape[1] == 1 else luma(images)
    if operation == "invert":
        return 255 - images
    if operation in TURNS:
        return TURNS[operation](images)
    if is_corruption(operation):
        return corrupted(images, operation)
    if is_ground(operation):
        return on_ground(images, int(operation.removeprefix("on")))
    if operation.startswith("contract"):
        return contracted(images, int(operation.removeprefix("contract")))
    height, width = images.shape[2:]
    if operation == "square":
        return _crop(images, min(height, width), min(height, width))
    match = OPERATION.fullmatch(operation)
    assert match is not None
    to_height, to_width = int(match["height"]), int(match["width"] or match["height"])
    if match["op"] == "resize":
        return _resize(images, to_height, to_width, match["filter"], bool(match["aa"]))
    if match["op"] == "crop":
        return _crop(images, to_height, to_width)
    return _pad(images, to_height, to_width)


def is_ground(view: str) -> bool:
    """Whether a view says nothing but the ground that transparency is composited on."""
    match = OPERATION.fullmatch(view)
    return bool(match and match["ground"])


def on_ground(images: np.ndarray, level: int) -> np.ndarray:
    """``(α·x + (255 − α)·level)/255``, rounded half up, of a last channel α; images without one stay as they are."""
    if images.shape[1] in (1, 3):
        return images
    alpha = images[:, -1:].astype(np.uint32)
    mixed = images[:, :-1] * alpha + (255 - alpha) * level
    return ((mixed + 127) // 255).astype(np.uint8)


def luma(images: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma in the 16-bit fixed point that Pillow uses: ``(N, 3, H, W) -> (N, 1, H, W)``."""
    red, green, blue = (images[:, c : c + 1].astype(np.uint32) for c in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def contracted(images: np.ndarray, percent: int) -> np.ndarray:
    """``127.5 + percent/100·(x − 127.5)``, rounded half up: the graying of Nalisnick et al. 2019, which scales variances."""
    levels = (255 * (100 - percent) + 2 * percent * np.arange(256) + 100) // 200
    return levels.astype(np.uint8)[images]


def shrunk(images: np.ndarray, percent: int) -> np.ndarray:
    """``µ + percent/100·(x − µ)`` with µ the mean of these very images, in whole numbers and rounded half up."""
    n = len(images)
    total = images.sum(0, dtype=np.int64)
    hundredfold = (100 - percent) * total + percent * n * images.astype(np.int64)
    return ((2 * hundredfold + 100 * n) // (200 * n)).astype(np.uint8)


def _crop(images: np.ndarray, to_height: int, to_width: int) -> np.ndarray:
    height, width = images.shape[2:]
    if to_height > height or to_width > width:
        raise DataError(f"cannot crop {height}×{width} images to {to_height}×{to_width}")
    top, left = (height - to_height) // 2, (width - to_width) // 2
    return images[:, :, top : top + to_height, left : left + to_width]


def _pad(images: np.ndarray, to_height: int, to_width: int) -> np.ndarray:
    height, width = images.shape[2:]
    if to_height < height or to_width < width:
        raise DataError(f"cannot pad {height}×{width} images to {to_height}×{to_width}")
    top, left = (to_height - height) // 2, (to_width - width) // 2
    return np.pad(
        images, ((0, 0), (0, 0), (top, to_height - height - top), (left, to_width - width - left))
    )


def _resize(
    images: np.ndarray, to_height: int, to_width: int, name: str, antialias: bool
) -> np.ndarray:
    if antialias:  # Pillow's resize always is
        out = np.empty((*images.shape[:2], to_height, to_width), np.uint8)
        for source, target in zip(
            images.reshape(-1, *images.shape[2:]), out.reshape(-1, to_height, to_width)
        ):
            target[:] = Image.fromarray(source).resize((to_width, to_height), FILTERS[name])
        return out
    import torch  # here, since only this rare view needs it and `plan` must not load it
    from torchvision.transforms.v2 import InterpolationMode, functional

    mode = InterpolationMode(name)
    return functional.resize(
        torch.from_numpy(np.array(images)), [to_height, to_width], mode, antialias=False
    ).numpy()
