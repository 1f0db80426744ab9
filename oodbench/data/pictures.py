"""One picture of a file as uint8 ``(C, H, W)``, as its owner means it; what cannot be read so is refused with a sentence.

Grey pictures, in whatever form they are kept, have one channel, colours three, and one more where they are transparent.
Sixteen bits are brought to eight by dropping the lower ones, as Pillow does with colours; the file says how many bits there
are. The orientation that a camera noted is applied.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from oodbench.data.folders import LONGEST, begins_as_picture, first_bytes, shown
from oodbench.errors import DataError

FORMATS = (
    "PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "PPM", "TIFF", "GIF", "JPEG2000", "AVIF",
)  # fmt: skip
"""Of Pillow's; the others are left out, since some of them start other programs."""
LARGEST = 89_000_000
"""Pixels of the largest picture that is opened: a small file may hold many gigabytes of one colour."""
GREY, GREY_ALPHA, COLOUR_ALPHA = 1, 2, 4
ORIENTATION, TURNED = 274, (5, 6, 7, 8)
BITS, PHOTOMETRIC, SAMPLE_FORMAT, LOWEST, HIGHEST = 258, 262, 339, 340, 341
"""Tags of TIFF; the last two are SMinSampleValue and SMaxSampleValue, the values that are black and white."""
WHITE_IS_ZERO, SIGNED = 0, 2
DARK = 64
"""Of 256 levels: a set of deep pictures none of which comes so high holds values of fewer bits than its files say."""


@dataclass(frozen=True)
class Picture:
    """A picture that is not yet open: a file, or bytes from a table of pictures."""

    name: str
    content: Path | bytes

    @property
    def shown(self) -> str:
        return shown(self.name)


@dataclass(frozen=True)
class Pixels:
    """Decoded pixels, uint8 ``(C, H, W)``, and whether the file keeps more than eight bits of each."""

    values: np.ndarray
    deep: bool = False


@dataclass(frozen=True)
class _Kept:
    """How a file keeps its pixels, which is forgotten once they are decoded.

    Attributes
    ----------
    format : Pillow's name of it
    raw : what Pillow says of the parts of the file, with the mode and the bits of each
    tags : of a TIFF
    """

    format: str
    raw: str
    tags: dict[int, Any]

    @property
    def deep(self) -> bool:
        """Whether it keeps sixteen bits of a pixel, or some number between."""
        return bool(re.search(r";(12|16)", self.raw))

    @property
    def signed(self) -> bool:
        return self.number(SAMPLE_FORMAT) == SIGNED

    @property
    def deep_grey_alpha(self) -> bool:
        """Whether it keeps grey and alpha of sixteen bits, which Pillow gives as colours and alpha."""
        return "LA;16" in self.raw

    def number(self, tag: int) -> float | None:
        """The value of a tag, the first of several; None where there is none."""
        value = self.tags.get(tag)
        if isinstance(value, tuple):
            value = value[0] if value else None
        return None if value is None else float(value)


def _kept(image: Image.Image) -> _Kept:
    parts = " ".join(map(str, getattr(image, "tile", [])))
    raw = f"{image.mode} {parts}"
    return _Kept(str(image.format), raw, dict(getattr(image, "tag_v2", {})))


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    """A picture, opened and not yet decoded; whatever goes wrong inside is a :class:`DataError` that names the file."""
    content = picture.content
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        with Image.open(source, formats=_formats()) as image:
            _check_opened(picture, image)
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{picture.shown} is too large to be opened ({error}); make it smaller or remove it"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(_unidentified(picture)) from error
    except Exception as error:  # each format has its own ways to be broken
        raise DataError(
            f"{picture.shown} is not a readable image ({error}); remove it or get it again"
        ) from error


def _unidentified(picture: Picture) -> str:
    content = picture.content
    if begins_as_picture(content[:LONGEST] if isinstance(content, bytes) else first_bytes(content)):
        return (
            f"{picture.shown} is not a readable image: it begins as one, but is cut short, or of bits, channels or compression "
            "that Pillow does not read; get it again, or save it as a PNG, grey or RGB of 8 bits"
        )
    return (
        f"{picture.shown} is not a readable image (its content is none of {', '.join(_formats())}); "
        "remove it or get it again"
    )


def _check_opened(picture: Picture, image: Image.Image) -> None:
    width, height = image.size
    if width * height > LARGEST:
        raise DataError(
            f"{picture.shown} has {width:,} × {height:,} pixels, more than the {LARGEST:,} that are opened; "
            "make it smaller or remove it"
        )
    if not width * height:
        raise DataError(f"{picture.shown} is {width} × {height} pixels, no picture; remove it")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # whose further frames are a camera's own previews
        raise DataError(
            f"{picture.shown} holds {frames} pictures (animated, or of several pages); "
            "save each that is meant as a file of its own"
        )


def header(picture: Picture) -> tuple[int, int, int]:
    """Channels (1 for grey, 3 for colours), height and width of a picture, upright; decoded only where it has to be."""
    with _opened(picture) as image:
        width, height = image.size
        if _orientation(image) in TURNED:
            width, height = height, width
        channels = GREY if _is_grey(image) else 3
        return channels, height, width


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # asking a PNG for it would decode all of it
    return int(image.getexif().get(ORIENTATION, 1))


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        return decoded_palette(image).shape[0] <= GREY_ALPHA
    if _kept(image).deep_grey_alpha:
        return True
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def decode(picture: Picture) -> Pixels:
    """All pixels of a picture: one, two (grey and alpha), three or four channels; an alpha that hides nothing is dropped.

    Raises
    ------
    DataError : it cannot be read, or nothing in the file says which value is black and which is white
    """
    with _opened(picture) as image:
        kept = _kept(image)
        image.load()
        upright = ImageOps.exif_transpose(image)
        pixels = _pixels(picture, upright, kept)
    opaque = len(pixels) in (GREY_ALPHA, COLOUR_ALPHA) and bool((pixels[-1] == 255).all())
    return Pixels(np.ascontiguousarray(pixels[:-1] if opaque else pixels), kept.deep)


def _pixels(picture: Picture, image: Image.Image, kept: _Kept) -> np.ndarray:
    mode = image.mode
    if mode in ("P", "PA"):
        return decoded_palette(image)
    _check_key(picture, image, kept)
    if mode in ("I", "F") or mode.startswith("I;16") or kept.signed:
        return _scaled(picture, image, kept)[None]
    if mode in ("LA", "La", "RGBA", "RGBa") or "transparency" in image.info:
        grey = mode in ("1", "L", "LA", "La")
        transparent = image.convert("LA" if grey and mode != "1" else "RGBA")
        return _channels(transparent, grey or kept.deep_grey_alpha)
    if mode in ("1", "L"):
        return np.asarray(image.convert("L"))[None]
    if mode in ("RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        return _channels(image.convert("RGB"))
    raise DataError(
        f"{picture.shown} has pixels of mode {mode}, which are not read; save it as grey or RGB of 8 bits"
    )


def _check_key(picture: Picture, image: Image.Image, kept: _Kept) -> None:
    """Refuse a transparent colour that Pillow compares with pixels of other bits than its own."""
    if "transparency" in image.info and re.search(r";(2|4|16)", kept.raw):
        raise DataError(
            f"{picture.shown} names one colour as transparent, in other than 8 bits, which is not read; "
            "save it with an alpha channel or without transparency"
        )


def _channels(image: Image.Image, grey: bool = False) -> np.ndarray:
    """``(H, W, C)`` to ``(C, H, W)``; of RGBA that is grey, one colour and alpha."""
    pixels = np.asarray(image).transpose(2, 0, 1)
    return pixels[[0, -1]] if grey else pixels


def decoded_palette(image: Image.Image) -> np.ndarray:
    """A picture of indices into a palette, as grey where the colours that it uses are grey."""
    pixels = np.asarray(image.convert("RGBA")).transpose(2, 0, 1)
    red, green, blue, alpha = pixels
    grey = np.array_equal(red, green) and np.array_equal(green, blue)
    colours = [red] if grey else [red, green, blue]
    return np.stack(colours if (alpha == 255).all() else [*colours, alpha])


def _scaled(picture: Picture, image: Image.Image, kept: _Kept) -> np.ndarray:
    """Values of more than eight bits, or with a sign, as eight, where the file says which is black and which white."""
    values = np.asarray(image)
    if image.mode == "L":  # as Pillow gives eight bits with a sign
        values = values.view(np.int8)
    low, high = kept.number(LOWEST), kept.number(HIGHEST)
    if low is not None and high is not None and low < high:
        grey = _between(values, low, high)
    elif kept.signed or not _of_known_bits(image.mode, kept):
        raise DataError(_unscaled(picture, image.mode, values, kept.deep))
    else:
        bits = int(kept.number(BITS) or 16)
        grey = (values.astype(np.int64) >> (bits - 8)).clip(0, 255).astype(np.uint8)
    return 255 - grey if kept.tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey


def _of_known_bits(mode: str, kept: _Kept) -> bool:
    """Whether the values are sixteen bits, or as many as the file says; of Netpbm Pillow has brought them to sixteen."""
    return mode.startswith("I;16") or (mode == "I" and (kept.deep or kept.format == "PPM"))


def _between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (values.astype(np.float64) - low) / (high - low)
    return np.floor(scaled.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _unscaled(picture: Picture, mode: str, values: np.ndarray, deep: bool) -> str:
    kinds = {"F": "32-bit floats", "L": "8 bits with a sign"}
    kind = "16 bits with a sign" if deep else kinds.get(mode, "32-bit integers")
    span = "no finite value"
    if np.isfinite(values).any():
        span = f"values from {np.nanmin(values):g} to {np.nanmax(values):g}"
    return (
        f"{picture.shown} has pixels of mode {mode} ({kind}, {span}), and nothing in the file "
        "says which value is black and which is white; scale them to 0…255 and save them as 8 bits"
    )
