"""Code lengths of lossless codecs, in nats, so that they stand beside log-likelihoods without conversion.

The length is that of the whole file that the codec writes (as in Serrà et al. 2020): container bytes included, which the
statistic's version states. A constant offset moves no AUROC, but decides which codec is the shortest. Lengths differ by a
few per cent between bindings and zlib builds, so both versions are part of the statistic's identity.
"""

from __future__ import annotations

import importlib.metadata
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
            raise OodbenchError(
                f"the codec {options['format']} lost pixels; its code lengths would mean nothing"
            )
    return length


@register_statistics(
    {"code_length_png": "nats"},
    version="level 9, container 57 bytes",
    built_with=_versions("zlib"),
    model_free=True,
)
def code_length_png(images: np.ndarray) -> dict[str, np.ndarray]:
    """PNG at zlib level 9."""
    return {"code_length_png": code_lengths(images, format="PNG", compress_level=9)}


@register_statistics(
    {"code_length_jp2": "nats"},
    version="lossless codestream",
    built_with=_versions("jpg_2000"),
    model_free=True,
)
def code_length_jp2(images: np.ndarray) -> dict[str, np.ndarray]:
    """JPEG 2000, the bare codestream, reversible wavelet, with the reversible colour transform for RGB."""
    colour = images.shape[1] == 3
    options = {"format": "JPEG2000", "no_jp2": True, "irreversible": False, "mct": int(colour)}
    return {"code_length_jp2": code_lengths(images, **options)}


@register_statistics(
    {"code_length_webp": "nats"},
    version="lossless, method 6, container 20 bytes",
    built_with=_versions("webp"),
    model_free=True,
)
def code_length_webp(images: np.ndarray) -> dict[str, np.ndarray]:
    """Lossless WebP at its greatest effort; grey images are stored as three equal channels, which cost next to nothing."""
    rgb = np.repeat(images, 3, 1) if images.shape[1] == 1 else images
    return {
        "code_length_webp": code_lengths(rgb, format="WEBP", lossless=True, quality=100, method=6)
    }


def _jxl_version() -> str:
    try:
        return f"imagecodecs {importlib.metadata.version('imagecodecs')}"
    except importlib.metadata.PackageNotFoundError:
        return "imagecodecs is not installed"


@register_statistics(
    {"code_length_jxl": "nats"},
    version="lossless codestream, effort 7",
    built_with=_jxl_version(),
    model_free=True,
    package=("imagecodecs", "codecs"),
)
def code_length_jxl(images: np.ndarray) -> dict[str, np.ndarray]:
    """Lossless JPEG XL, the successor of FLIF, as a bare codestream."""
    import imagecodecs

    lengths = []
    for image in images:
        pixels = np.ascontiguousarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        code = imagecodecs.jpegxl_encode(pixels, lossless=True, effort=7, usecontainer=False)
        if not np.array_equal(imagecodecs.jpegxl_decode(code), pixels):
            raise OodbenchError("JPEG XL lost pixels; its code lengths would mean nothing")
        lengths.append(len(code))
    return {"code_length_jxl": np.array(lengths) * 8 * math.log(2)}
