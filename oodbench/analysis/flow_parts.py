"""How a flow works, on a few images: one coupling taken apart, and what each scale makes of the latents."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from oodbench.analysis.material import Material, SetValue
from oodbench.models.flows import CheckerboardCoupling, Coupling
from oodbench.models.multiscale import FactoredOut, MultiscaleFlow
from oodbench.models.noise import keyed_uniform
from oodbench.passes.shards import load_verified

IMAGES = 64
"""Images of each set that scale by scale means are taken over."""
COUPLINGS = (CheckerboardCoupling, Coupling)
WIDEST = 3.0
"""Standard deviations of the latents and of what goes through a coupling that a picture shows."""
Result = tuple[dict[str, Any], Mapping[str, bytes]]


def flow(material: Material) -> Result:
    """What each scale gives of a set: ``mean(z²)`` with its error, and means of the volumes, nats.

    z is standardised by the prior, so that the first is 1 for draws from the model.
    """
    model, (one,) = _model(material), material.sets
    rows = one.rows_of(IMAGES)
    with torch.no_grad():
        found = [_scale(scale) for scale in model._by_scale(_dequantised(model, one, rows))]
    return {"images_measured": len(rows), "scales": found}, {}


def _scale(found: FactoredOut) -> dict[str, Any]:
    numbers = found.latent[0].numel()
    square = (found.squared_norm / numbers).numpy()
    error = square.std(ddof=1) / np.sqrt(len(square)) if len(square) > 1 else 0.0
    return {
        "shape": list(found.latent.shape[1:]),
        "mean_square": [float(square.mean()), float(error)],
        "prior_volume": float(found.prior_volume.mean()),
        "log_det": float(found.log_det.mean()),
    }


def coupling(material: Material) -> Result:
    """The first coupling of a flow, and the latents of each scale, of one image of each set, as a picture.

    A line for each set, and in it one panel beside another, each as high and as wide as an image: what goes into the coupling,
    which values it keeps, shift and log scale of the others, what comes out, and the latents scale by scale.
    """
    model = _model(material)
    inputs = (_dequantised(model, one, one.rows_of(1)) for one in material.sets)
    found = [taken_apart(model, y) for y in inputs]
    spans = {name: _span(name, [parts[name] for parts, _ in found]) for name in found[0][0]}
    lines = [[_grey(parts[name], *spans[name]) for name in spans] for parts, _ in found]
    picture = _png(np.concatenate([np.concatenate(line, 2) for line in lines], 1))
    return {
        "sets": [
            {"set": one.identifier, "role": one.role, "log_det": log_det}
            for one, (_, log_det) in zip(material.sets, found, strict=True)
        ],
        "panels": [{"name": name, "low": low, "high": high} for name, (low, high) in spans.items()],
        "sha256": hashlib.sha256(picture).hexdigest(),
    }, {material.options["file"]: picture}


def _model(material: Material) -> MultiscaleFlow:
    options = material.options
    found = load_verified(options["model"], options["identity"], options["seed"], "cpu", False)
    assert isinstance(found, MultiscaleFlow)  # what gives `latent_shapes`
    return found


def _dequantised(model: MultiscaleFlow, one: SetValue, rows: np.ndarray) -> Tensor:
    images = torch.from_numpy(np.array(one.images()[rows]))
    return model.dequantise(images, keyed_uniform(images, model.seed))


@torch.no_grad()
def taken_apart(model: MultiscaleFlow, y: Tensor) -> tuple[dict[str, np.ndarray], float]:
    """What the first coupling does to one dequantised image, and its log-determinant there, nats.

    The latents of each scale are there too; all are ``(C, H, W)``, laid out as pixels.
    """
    latents = {
        f"z {number}": _laid_out(found.standardised, model.shape)
        for number, found in enumerate(model._by_scale(y), 1)
    }
    layer, x = _first_coupling(model, y)
    out, log_det = layer(x)
    kept = out == x
    # with what it keeps held fixed a coupling is affine: what goes to 0 is −t, and to 1 is 1/s − t
    to_zero, to_one = (layer.inverse(torch.where(kept, x, float(end))) for end in (0, 1))
    shown = {
        "into": x,
        "kept": kept.to(x.dtype),
        "shift": torch.where(kept, 0.0, -to_zero),
        "log scale": torch.where(kept, 0.0, -torch.log(to_one - to_zero)),
        "out": out,
    }
    pixels = {name: _as_pixels(value, model.shape) for name, value in shown.items()}
    return pixels | latents, float(log_det)


def _first_coupling(
    model: MultiscaleFlow, y: Tensor
) -> tuple[CheckerboardCoupling | Coupling, Tensor]:
    """A flow's first coupling, and what comes to it when dequantised images go through the flow."""
    coupling = next(step for step in model.modules() if isinstance(step, COUPLINGS))
    came: list[Tensor] = []
    watch = coupling.register_forward_pre_hook(lambda _, inputs: came.append(inputs[0]))
    try:
        model.flow(y)
    finally:
        watch.remove()
    return coupling, came[0]


def _as_pixels(value: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """``(C, H, W)`` of one image; channels that hold squeezed pixels where these came from."""
    unsqueezed = F.pixel_shuffle(value, 2) if value.shape[1] == 4 * shape[0] else value
    found: np.ndarray = unsqueezed[0].float().numpy()
    return found


def _laid_out(latent: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """The channels of one image's latents as tiles of one picture of the image's size, which they never exceed in number."""
    height, width = latent.shape[2:]
    across = shape[2] // width
    found = np.full((1, *shape[1:]), np.nan, np.float32)
    for place, tile in enumerate(latent[0].float().numpy()[: across * (shape[1] // height)]):
        row, column = divmod(place, across)
        found[0, row * height : (row + 1) * height, column * width : (column + 1) * width] = tile
    return np.repeat(found, shape[0], 0)


def _span(name: str, values: list[np.ndarray]) -> tuple[float, float]:
    """What is black and what is white: the same for all images, and 0 in the middle but of what is kept."""
    if name == "kept":
        return 0.0, 1.0
    if name in ("shift", "log scale"):
        largest = max(float(np.abs(one).max()) for one in values)
        return -largest, largest
    return -WIDEST, WIDEST


def _grey(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """``(C, H, W)`` as levels, mid-grey where there is nothing."""
    share = (value - low) / ((high - low) or 1.0)
    return np.rint(255 * np.nan_to_num(share, nan=0.5).clip(0, 1)).astype(np.uint8)


def _png(picture: np.ndarray) -> bytes:
    """``(C, H, W)`` as the bytes of a PNG file, of one channel or of the first three."""
    file = io.BytesIO()
    shown = picture[0] if len(picture) < 3 else picture[:3].transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(shown)).save(file, "PNG")
    return file.getvalue()
