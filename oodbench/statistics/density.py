"""What a density model says of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor


@register_statistics({"log_prob": "nats", "log_prob_z": "nats", "log_det": "nats"}, version="2")
def density(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``log_prob`` of any model; of one with ``encode`` also the two terms that it is the sum of."""
    if not hasattr(model, "encode"):
        return {"log_prob": model.log_prob(images)}
    _, log_prob_z, log_det = model.encode(images)
    return {"log_prob": log_prob_z + log_det, "log_prob_z": log_prob_z, "log_det": log_det}
