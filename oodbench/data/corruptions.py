"""A ladder of corruptions: views that damage an image in one of five strengths, 1 the weakest.

The kinds are like, and where the table says so the strengths are, those of CIFAR-10-C (Hendrycks & Dietterich, ICLR 2019,
arXiv:1903.12261); the code is our own, so that the pixels are not those of its files. A corruption is a pure function of
the image: what is random in it is keyed by a hash of the pixels and by the kind, so that all strengths of one kind draw
the same noise and the ladder of an image has no jumps but those of its strength.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from oodbench.errors import DataError

STRENGTHS = (1, 2, 3, 4, 5)
BLOCK = 256
"""Images that are corrupted at once; no number depends on it."""
FORM = re.compile(r"(?P<kind>[a-z]+)(?P<strength>\d*)")
Corrupt = Callable[[np.ndarray, Any], np.ndarray]
"""Of uint8 images ``(N, C, H, W)`` and the value of a strength: levels of grey as floats, before rounding and clipping."""


@dataclass(frozen=True)
class Kind:
    """One kind of corruption.

    Attributes
    ----------
    about : what it does, and the unit of its values
    values : of the strengths 1 to 5
    corrupt : the levels of corrupted images
    as_published : the values are those of CIFAR-10-C
    """

    about: str
    values: tuple[Any, ...]
    corrupt: Corrupt
    as_published: bool = False


def corrupted(images: np.ndarray, operation: str) -> np.ndarray:
    """Apply one corruption, ``blur3``, to uint8 ``(N, C, H, W)``; rounded, and clipped to 0…255."""
    name, strength = operation[:-1], int(operation[-1])
    kind = KINDS[name]
    value = kind.values[strength - 1]
    out = np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        block = slice(start, start + BLOCK)
        levels = kind.corrupt(images[block], value)
        out[block] = np.rint(levels).clip(0, 255)
    return out


def is_corruption(operation: str) -> bool:
    """Whether an operation of a view is a corruption of a strength that exists."""
    match = FORM.fullmatch(operation)
    return bool(match and match["kind"] in KINDS and match["strength"] in map(str, STRENGTHS))


def check_corruption(operation: str) -> None:
    """Raise :class:`DataError` for a kind of corruption without one of the five strengths; other operations pass."""
    match = FORM.fullmatch(operation)
    if match and match["kind"] in KINDS and not is_corruption(operation):
        kind = match["kind"]
        raise DataError(
            f"the corruption {operation!r} has no strength that exists: write one of 1 to 5 behind it, {kind}1 to {kind}5"
        )


def rung(identifier: str) -> tuple[str, int] | None:
    """Kind and strength of an image set that is seen through one corruption; None for any other set.

    >>> rung("cifar10/test[300 drawn]@blur3")
    ('blur', 3)
    """
    _, at, view = identifier.rpartition("@")
    operations = [one for one in view.split(",") if at and is_corruption(one)]
    if len(operations) != 1:
        return None
    return operations[0][:-1], int(operations[0][-1])


def _bits(images: np.ndarray, kind: str, channels: int | None = None) -> np.ndarray:
    """Uniform numbers in (0, 1) for each pixel, from a Philox stream keyed by kind and image."""
    shape = images.shape[1:] if channels is None else (channels, *images.shape[2:])
    size = int(np.prod(shape))
    bits = np.empty((len(images), size), np.uint32)
    for image, out in zip(images, bits, strict=True):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16, key=kind.encode()).digest()
        stream = np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(-(-size // 2))
        out[:] = stream.view(np.uint32)[:size]
    return (bits.reshape(-1, *shape) + 0.5) * 2.0**-32


def _normal(images: np.ndarray, kind: str) -> np.ndarray:
    from scipy.special import ndtri  # here, since `plan` must not load it

    return np.asarray(ndtri(_bits(images, kind)))


def _gaussian_noise(images: np.ndarray, deviation: float) -> np.ndarray:
    return images + 255 * deviation * _normal(images, "gaussnoise")


def _speckle_noise(images: np.ndarray, deviation: float) -> np.ndarray:
    return images * (1 + deviation * _normal(images, "speckle"))


def _shot_noise(images: np.ndarray, photons: float) -> np.ndarray:
    """Poisson counts by inversion: there are but 256 levels, and each has its table."""
    from scipy.special import pdtr

    uniform = _bits(images, "shotnoise")
    counts = np.zeros(images.shape)
    possible = np.arange(2 * photons + 50)  # more than ten deviations above the largest mean
    for level in np.unique(images):
        here = images == level
        table = pdtr(possible, photons * int(level) / 255)
        counts[here] = np.searchsorted(table, uniform[here])
    return 255 * counts / photons


def _impulse_noise(images: np.ndarray, share: float) -> np.ndarray:
    uniform = _bits(images, "impulse")
    dark, bright = uniform < share / 2, uniform > 1 - share / 2
    return np.where(dark, 0.0, np.where(bright, 255.0, images))


def _filtered(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation with a kernel of odd height and width and of sum 1, the edges mirrored."""
    height, width = images.shape[2:]
    down, right = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(images, ((0, 0), (0, 0), (down, down), (right, right)), "symmetric")
    total = np.zeros(images.shape)
    for i, j in np.argwhere(kernel):
        total += kernel[i, j] * padded[:, :, i : i + height, j : j + width]
    return total


def _gaussian_blur(images: np.ndarray, deviation: float) -> np.ndarray:
    reach = int(np.ceil(4 * deviation))
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    line /= line.sum()
    return _filtered(images, np.outer(line, line))


def _defocus(images: np.ndarray, radius: float) -> np.ndarray:
    """A disc whose rim fades over one pixel."""
    reach = int(np.ceil(radius))
    across = np.arange(-reach, reach + 1)
    disc = (radius + 0.5 - np.hypot(across[:, None], across)).clip(0, 1)
    return _filtered(images, disc / disc.sum())


def _motion(images: np.ndarray, length: int) -> np.ndarray:
    return _filtered(images, np.full((1, length), 1 / length))


def _pixelate(images: np.ndarray, share: float) -> np.ndarray:
    height, width = images.shape[2:]
    small = int(width * share), int(height * share)
    box = Image.Resampling.BOX
    out = np.empty(images.shape)
    for image, target in zip(images, out, strict=True):
        for channel, plane in zip(image, target, strict=True):
            coarse = Image.fromarray(channel).resize(small, box)
            plane[:] = coarse.resize((width, height), box)
    return out


def _jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    out = np.empty(images.shape)
    for image, target in zip(images, out, strict=True):
        with io.BytesIO() as file:
            _picture(image).save(file, "JPEG", quality=quality)
            coded = np.asarray(Image.open(file))
        target[:] = coded[None] if coded.ndim == 2 else coded.transpose(2, 0, 1)
    return out


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def _contrast(images: np.ndarray, share: float) -> np.ndarray:
    mean = images.mean((2, 3), keepdims=True)
    return mean + share * (images - mean)


def _brighter(images: np.ndarray, share: float) -> np.ndarray:
    return images + 255 * share


def _darker(images: np.ndarray, share: float) -> np.ndarray:
    return images * share


def _fog(images: np.ndarray, amount: float) -> np.ndarray:
    """``(x + a·f)/(1 + a)`` with f clouds of two sizes, alike in all channels."""
    clouds = _clouds(_bits(images, "fog", channels=1))
    return (images + amount * 255 * clouds) / (1 + amount)


def _clouds(uniform: np.ndarray) -> np.ndarray:
    """Coarse random grids of 4×4 and 8×8, enlarged and mixed two to one."""
    height, width = uniform.shape[2:]
    out = np.empty(uniform.shape)
    for numbers, target in zip(uniform[:, 0].astype(np.float32), out, strict=True):
        grids = (Image.fromarray(numbers[:side, :side]) for side in (4, 8))
        large, small = (
            np.asarray(grid.resize((width, height), Image.Resampling.BILINEAR)) for grid in grids
        )
        target[0] = (2 * large + small) / 3
    return out


def _faded(images: np.ndarray, share: float) -> np.ndarray:
    if images.shape[1] == 1:
        raise DataError(
            "the corruption `faded` takes colour away, and grey images have none; use another one for them"
        )
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    grey = (weights * images).sum(1, keepdims=True)
    return grey + share * (images - grey)


KINDS: dict[str, Kind] = {
    "gaussnoise": Kind("Gaussian noise, its deviation in shares of white", (0.04, 0.06, 0.08, 0.09, 0.1), _gaussian_noise, True),
    "shotnoise": Kind("Poisson noise, photons of a white pixel", (500, 250, 100, 75, 50), _shot_noise, True),
    "impulse": Kind("pixels made black or white, their share", (0.01, 0.02, 0.03, 0.05, 0.07), _impulse_noise, True),
    "speckle": Kind("noise in proportion to the level, its deviation", (0.06, 0.1, 0.12, 0.16, 0.2), _speckle_noise, True),
    "blur": Kind("Gaussian blur, its deviation in pixels", (0.4, 0.6, 0.7, 0.8, 1.0), _gaussian_blur, True),
    "defocus": Kind("blur by a disc, its radius in pixels", (0.6, 0.8, 1.0, 1.5, 2.0), _defocus),
    "motion": Kind("horizontal blur, its length in pixels", (3, 5, 7, 9, 11), _motion),
    "pixelate": Kind("fewer pixels, enlarged again, the share kept on a side", (0.95, 0.9, 0.85, 0.75, 0.65), _pixelate, True),
    "jpeg": Kind("JPEG, its quality", (80, 65, 58, 50, 40), _jpeg, True),
    "contrast": Kind("less contrast about each channel's mean, the share kept", (0.75, 0.5, 0.4, 0.3, 0.15), _contrast, True),
    "brighter": Kind("a level added, as a share of white", (0.05, 0.1, 0.15, 0.2, 0.3), _brighter),
    "darker": Kind("levels multiplied, the share kept", (0.9, 0.8, 0.65, 0.5, 0.35), _darker),
    "fog": Kind("clouds mixed in, their weight beside the image's", (0.2, 0.5, 0.75, 1.0, 1.5), _fog),
    "faded": Kind("less colour, the share kept; of colour images alone", (0.8, 0.6, 0.4, 0.2, 0.0), _faded),
}  # fmt: skip
"""The kinds by name; a name with a strength behind it is an operation of a view."""
