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


@register_statistics(
    {"elbo": "nats", "elbo_above_1": "nats", "elbo_above_2": "nats"},
    version="1",
    capability="log_prob_above",
)
def hierarchy_at_mode(model: Any, images: Tensor) -> dict[str, Tensor]:
    """One-draw bounds, the ELBO and ``L^{>k}(x)`` for k = 1, 2, whose k lowest latents are the prior's mode given those above.

    The form of the code of Havtorn et al. 2021, where the paper speaks of drawing them.
    """
    from oodbench.models.noise import keyed_normal

    noise = keyed_normal(images, model.seed, (1, sum(model.noise_sizes)))
    found = {"elbo": model.log_weights(images, noise)[:, 0]}
    for k in (1, 2):
        at_mode = noise.clone()
        at_mode[:, :, : sum(model.noise_sizes[:k])] = 0
        found[f"elbo_above_{k}"] = model.log_weights(images, at_mode, k)[:, 0]
    return found
