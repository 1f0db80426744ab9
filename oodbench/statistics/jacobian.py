"""How a flow stretches space around an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 64
"""Rows of the Jacobian that are computed together."""


@register_statistics(
    {"log_singular_values": "log full scales"}, version="2", capability="latent_shapes", differentiates=True
)  # fmt: skip
def generative_jacobian(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Logarithms of the singular values of ``∂x/∂z`` at z = f(x), ascending, ``(B, D)``; z is the flow's own latent.

    They are the negated ones of ``∂z/∂x``, which takes D backward passes an image.
    """
    import torch

    def latent(y: Tensor) -> Tensor:
        return torch.cat([z.flatten(1) for z in model.flow(y[None])[0]], 1)[0]

    found = []
    for image in images.split(1):
        y = model.input_and_log_prob(image)[0].detach()[0]
        jacobian = torch.func.jacrev(latent, chunk_size=AT_ONCE)(y).flatten(1)
        # without its graph, half a gigabyte an image that would be kept until the batch ends
        found.append(-torch.linalg.svdvals(jacobian.detach().double()).log())
    return {"log_singular_values": torch.stack(found)}
