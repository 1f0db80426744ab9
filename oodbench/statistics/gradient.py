"""Gradients of log p: with respect to the input, and to the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oodbench.registry import register_statistics

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 1e-8
"""Added to the diagonal Fisher information, as Bergamin et al. do."""
SMALLEST = 1e-30
"""Added to a layer's squared gradient norm before its logarithm."""


@register_statistics(
    {"input_gradient_norm": "nats"}, version="1", capability="input_and_log_prob", differentiates=True
)  # fmt: skip
def input_gradient(model: Any, images: Tensor) -> dict[str, Tensor]:
    """``‖∇_x log p(x)‖₂`` over all pixels and channels, x in units of the full scale, noise of the model held fixed."""
    import torch

    x, log_prob = model.input_and_log_prob(images)
    (gradient,) = torch.autograd.grad(log_prob.sum(), x)
    return {"input_gradient_norm": gradient.flatten(1).double().norm(dim=1)}


def diagonal_fisher(model: Any, reference: Tensor) -> list[Tensor]:
    """The mean squared gradient of each parameter over in-dist reference images: the Fisher information's diagonal."""
    from oodbench.statistics.parameter_gradients import gradients_together

    total: list[Any] = [0.0] * sum(one.requires_grad for one in model.parameters())
    for gradients in gradients_together(model, reference):
        total = [
            one + (gradient.double() ** 2).sum(0)
            for one, gradient in zip(total, gradients, strict=True)
        ]
    return [one / len(reference) for one in total]


@register_statistics(
    {"layer_gradient_norms": "log nats²", "rao_score": "1"},
    version="2",
    capability="parameters",
    differentiates=True,
    prepare=diagonal_fisher,
)
def parameter_gradients(model: Any, images: Tensor, fisher: list[Tensor]) -> dict[str, Tensor]:
    """``log ‖∇_θ log p(x)‖²`` of each parameter tensor, and Rao's score statistic ``‖F^(−½) ∇_θ log p(x)‖₂``.

    F is the diagonal of the Fisher information, from in-dist reference images; tensors without any information there
    are left out of the norms.
    """
    import torch

    from oodbench.statistics.parameter_gradients import gradients_together

    informed = [number for number, layer in enumerate(fisher) if (layer > 0).any()]
    found = [
        torch.stack([_squared_norms(*pair) for pair in zip(gradients, fisher, strict=True)], 2)
        for gradients in gradients_together(model, images)
    ]
    plain, weighed = torch.cat(found, 1)
    return {
        "layer_gradient_norms": (plain[:, informed] + SMALLEST).log(),
        "rao_score": weighed.sum(1).sqrt(),
    }


def _squared_norms(gradients: Tensor, fisher: Tensor) -> Tensor:
    """``‖∇‖²`` and ``‖F^(−½) ∇‖²`` of each image's gradient of one parameter, float64 ``(2, B)``."""
    import torch

    squares = gradients.reshape(len(gradients), -1).double() ** 2
    return torch.stack([squares.sum(1), squares @ (fisher.flatten() + DAMPING).reciprocal()])
