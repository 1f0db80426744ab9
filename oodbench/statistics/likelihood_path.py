"""Norms along a VAE's way from an image to its latents and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor


@register_statistics(
    {"path_error": "1", "path_mean_norm": "1", "path_std_norm": "1"}, version="1", capability="posterior"
)  # fmt: skip
def likelihood_path(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``‖x − x̂‖``, ``‖µ_z‖`` and ``‖σ_z‖``: x in [−1, 1], x̂ the decoder's mean image at µ_z, σ_z the posterior's deviations.

    The Likelihood Path principle, arXiv:2401.04933. One pass of the encoder and one of the decoder, nothing drawn.
    """
    x = model.as_input(images)
    mean, log_std = model.posterior(x)
    error = x - mean_image(model.pixels, model.decoder(mean).to(x.dtype))
    return {
        "path_error": error.flatten(1).double().norm(dim=1),
        "path_mean_norm": mean.double().norm(dim=1),
        "path_std_norm": log_std.double().exp().norm(dim=1),
    }


def mean_image(pixels: Any, out: Tensor) -> Tensor:
    """The mean of a decoder's distribution, in [−1, 1]: of a logistic before it is cut into levels."""
    import torch

    if pixels.kind == "logistic":
        return out.chunk(2, 1)[0]
    if pixels.kind == "bernoulli":
        return 2 * torch.sigmoid(out) - 1
    if pixels.kind == "gaussian":
        return 2 * out - 1
    share = torch.softmax(out.unflatten(1, (pixels.bins, pixels.channels)), 1)
    levels = torch.linspace(-1, 1, pixels.bins, dtype=out.dtype, device=out.device)
    return torch.einsum("bkchw,k->bchw", share, levels)
