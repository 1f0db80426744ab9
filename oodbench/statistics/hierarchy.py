"""Bounds of a hierarchical VAE that leave out the latents nearest to the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor


@register_statistics(
    {"log_prob_above_1": "nats", "log_prob_above_2": "nats"},
    version="1",
    capability="log_prob_above",
)
def hierarchy(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``L^{>k}(x)`` for k = 1, 2: the k lowest latents are drawn from the prior given those above (Havtorn et al. 2021)."""
    return {f"log_prob_above_{k}": model.log_prob_above(images, k) for k in (1, 2)}
