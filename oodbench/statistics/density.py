"""What a density model says of an image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor

UNITS = {
    "log_prob": "nats",
    "latent_term": "nats",
    "prior_volume": "nats",
    "log_det": "nats",
    "latent_norm": "1",
    "last_scale_log_prob": "nats",
    "reconstruction": "nats",
    "kl": "nats",
    "posterior_entropy": "nats",
    "prior_cross_entropy": "nats",
}


ROUNDING = 1e-6
"""Share of a log density below which a difference may be rounding in single precision."""
OF_FLOWS, OF_VAES = "encode", "posterior"
CAPABILITIES = {
    "log_prob": "log_prob",
    **dict.fromkeys(("latent_term", "prior_volume", "log_det", "latent_norm"), OF_FLOWS),
    **dict.fromkeys(("reconstruction", "kl", "posterior_entropy", "prior_cross_entropy"), OF_VAES),
    "last_scale_log_prob": "latent_shapes",
}


@register_statistics(UNITS, version="4", capability=CAPABILITIES)
def density(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``log_prob`` of any model, with what it is made of where the model tells.

    Our own flows and VAEs have ``log_prob_terms``. A user's flow with ``encode`` gives z standardised by its prior: then
    ``log p(x) = −½‖z‖² + prior_volume + log_det − (D/2)·log 2π``, and the second is what its ``log_prob_z`` holds besides.
    """
    if hasattr(model, "log_prob_terms"):
        return dict(model.log_prob_terms(images))
    if not hasattr(model, "encode"):
        return {"log_prob": model.log_prob(images)}
    z, log_prob_z, log_det = model.encode(images)
    norm = z.flatten(1).double().norm(dim=1)
    latent_term = -0.5 * norm**2
    return {
        "log_prob": log_prob_z + log_det,
        "latent_term": latent_term,
        "prior_volume": _beside(latent_term, log_prob_z, z[0].numel()),
        "log_det": log_det,
        "latent_norm": norm,
    }


def _beside(latent_term: Tensor, log_prob_z: Tensor, dimensions: int) -> Tensor:
    """What log p(z) holds beside a standard Gaussian's terms; less than float32 resolves of it is nothing."""
    volume = log_prob_z.double() - latent_term + 0.5 * math.log(2 * math.pi) * dimensions
    return volume.where(volume.abs() > ROUNDING * log_prob_z.abs(), 0.0)
