"""Gradients of log p: with respect to the input, and to the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oodbench.errors import ModelError
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


def image_gradients(model: Any, images: Tensor) -> Iterator[list[Tensor]]:
    """``∇_θ log p(x)`` of one image after another, a tensor for each parameter.

    Raises
    ------
    ModelError : log p does not depend differentiably on the parameters
    """
    import torch

    parameters = [p for p in model.parameters() if p.requires_grad]
    for image in images.split(1):
        log_prob = model.log_prob(image)
        if not parameters or not log_prob.requires_grad:
            raise ModelError(
                f"{type(model).__name__} gives no gradient of log_prob with respect to its parameters; "
                "is it computed under torch.no_grad, or outside torch?"
            )
        found = torch.autograd.grad(log_prob.sum(), parameters, allow_unused=True)
        yield [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)
        ]


def diagonal_fisher(model: Any, reference: Tensor) -> list[Tensor]:
    """The mean squared gradient of each parameter over in-dist reference images: the Fisher information's diagonal."""
    total: list[Tensor] = []
    for gradients in image_gradients(model, reference):
        squares = [gradient.double() ** 2 for gradient in gradients]
        total = (
            [one + other for one, other in zip(total, squares, strict=True)] if total else squares
        )
    return [one / len(reference) for one in total]


@register_statistics(
    {"layer_gradient_norms": "log nats²", "rao_score": "1"},
    version="1",
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

    informed = [bool((one > 0).any()) for one in fisher]
    norms, scores = [], []
    for gradients in image_gradients(model, images):
        squares = [gradient.double() ** 2 for gradient in gradients]
        norms.append(
            torch.stack(
                [
                    (s.sum() + SMALLEST).log()
                    for s, kept in zip(squares, informed, strict=True)
                    if kept
                ]
            )
        )
        scores.append(
            math.sqrt(
                sum(float((s / (f + DAMPING)).sum()) for s, f in zip(squares, fisher, strict=True))
            )
        )
    return {
        "layer_gradient_norms": torch.stack(norms),
        "rao_score": torch.tensor(scores, dtype=torch.float64),
    }
