"""Code lengths of lossless codecs, in nats, so that they stand beside log-likelihoods without conversion.

The length is that of the whole file that the codec writes (as in Serrà et al. 2020): container bytes included, 57 of
them in a PNG. Lengths differ by a few per cent between bindings and zlib builds, so both versions are part of the
statistic's identity.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from PIL import Image, features

from oodbench.errors import OodbenchError
from oodbench.registry import register_statistics


def _versions(codec: str) -> str:
    return f"pillow {features.version('pil')}, {codec} {features.version(codec)}"


def code_lengths(images: np.ndarray, **options: Any) -> np.ndarray:
    """Nats of each image's encoded file: ``8·bytes·ln 2``; the file is decoded again and must give the same pixels.

    Parameters
    ----------
    images : uint8 ``(B, C, H, W)`` with C = 1 or 3
    options : of :meth:`PIL.Image.Image.save`
    """
    return np.array([_code_length(image, options) for image in images]) * 8 * math.log(2)


def _code_length(image: np.ndarray, options: dict[str, Any]) -> int:
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, **options)
    length = buffer.tell()
    with Image.open(buffer) as decoded:
        if not np.array_equal(np.asarray(decoded), pixels):
            raise OodbenchError(f"the codec {options['format']} lost pixels; its code lengths would mean nothing")
    return length


@register_statistics({"code_length_png": "nats"}, version=f"level 9, {_versions('zlib')}", model_free=True)
def code_length_png(images: np.ndarray) -> dict[str, np.ndarray]:
    """PNG at zlib level 9."""
    return {"code_length_png": code_lengths(images, format="PNG", compress_level=9)}


@register_statistics(
    {"code_length_jp2": "nats"}, version=f"lossless codestream, {_versions('jpg_2000')}", model_free=True
)
def code_length_jp2(images: np.ndarray) -> dict[str, np.ndarray]:
    """JPEG 2000, the bare codestream, reversible wavelet, with the reversible colour transform for RGB."""
    colour = images.shape[1] == 3
    options = {"format": "JPEG2000", "no_jp2": True, "irreversible": False, "mct": int(colour)}
    return {"code_length_jp2": code_lengths(images, **options)}
