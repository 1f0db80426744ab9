"""What a density model says of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor

UNITS = {
    "log_prob": "nats",
    "log_prob_z": "nats",
    "log_det": "nats",
    "latent_norm": "1",
    "last_scale_log_prob": "nats",
    "reconstruction": "nats",
    "kl": "nats",
    "posterior_entropy": "nats",
    "prior_cross_entropy": "nats",
}


OF_FLOWS, OF_VAES = "encode", "posterior"
CAPABILITIES = {
    **dict.fromkeys(("log_prob_z", "log_det", "latent_norm"), OF_FLOWS),
    **dict.fromkeys(("reconstruction", "kl", "posterior_entropy", "prior_cross_entropy"), OF_VAES),
    "last_scale_log_prob": "latent_shapes",
}


@register_statistics(UNITS, version="3", capability=CAPABILITIES)
def density(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``log_prob`` of any model, with what it is made of where the model tells.

    Our own flows and VAEs have ``log_prob_terms``; of a user's flow with ``encode`` there are ``log_prob_z``, ``log_det``
    and the norm of z.
    """
    if hasattr(model, "log_prob_terms"):
        return dict(model.log_prob_terms(images))
    if not hasattr(model, "encode"):
        return {"log_prob": model.log_prob(images)}
    z, log_prob_z, log_det = model.encode(images)
    norm = z.flatten(1).double().norm(dim=1)
    return {
        "log_prob": log_prob_z + log_det,
        "log_prob_z": log_prob_z,
        "log_det": log_det,
        "latent_norm": norm,
    }
