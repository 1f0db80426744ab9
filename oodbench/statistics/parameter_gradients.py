"""Gradients of log p with respect to a model's parameters, image by image: one at a time, or several by one trace."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from oodbench.errors import ModelError

AT_ONCE = 16
"""Images whose gradients are computed together: always as many, so that rounding is the same in any batch."""
GRADIENT_BYTES = 2**29
"""What their gradients may take; fewer images go together where a model has many parameters."""


def gradients_one_by_one(model: Any, images: Tensor) -> Iterator[list[Tensor]]:
    """``∇_θ log p(x)`` of one image after another, ``(1, *shape)`` for each parameter: the plain form, for any model.

    Raises
    ------
    ModelError : log p does not depend differentiably on the parameters
    """
    parameters = [one for one in model.parameters() if one.requires_grad]
    for image in images.split(1):
        log_prob = _differentiable(model, image).sum()
        found = torch.autograd.grad(log_prob, parameters, allow_unused=True)
        yield [
            torch.zeros_like(p)[None] if g is None else g[None]
            for g, p in zip(found, parameters, strict=True)
        ]


def gradients_together(model: Any, images: Tensor) -> Iterator[list[Tensor]]:
    """``∇_θ log p(x)`` of several images at a time, ``(b, *shape)`` for each parameter.

    By ``torch.vmap``, which runs each layer once for all of them; a model that cannot be traced is differentiated by
    :func:`gradients_one_by_one`. An image's gradients do not depend on the images beside it.

    Raises
    ------
    ModelError : log p does not depend differentiably on the parameters
    """
    _differentiable(model, images[:1])
    size, traced = images_together(model), _traced(model)
    for few in images.split(size):
        filling = few[-1:].expand(size - len(few), *few.shape[1:])
        try:
            with transforming():
                found = traced(torch.cat([few, filling]))
        except Exception:  # each library has its own way to say that it cannot be traced
            yield from gradients_one_by_one(model, few)
        else:
            yield [gradient[: len(few)] for gradient in found]


def images_together(model: Any) -> int:
    """How many images :func:`gradients_together` takes at a time: a power of two, by the size of the parameters alone."""
    bytes_of_one = sum(one.nbytes for one in model.parameters() if one.requires_grad)
    return min(AT_ONCE, 2 ** int(math.log2(max(1, GRADIENT_BYTES // bytes_of_one))))


def _differentiable(model: Any, image: Tensor) -> Tensor:
    """log p of an image, ``(1,)``, that a gradient with respect to the parameters can be taken of."""
    log_prob: Tensor = model.log_prob(image)
    trained = any(one.requires_grad for one in model.parameters())
    if not trained or not log_prob.requires_grad:
        raise ModelError(
            f"{type(model).__name__} gives no gradient of log_prob with respect to its parameters; "
            "is it computed under torch.no_grad, or outside torch?"
        )
    return log_prob


@contextmanager
def transforming() -> Iterator[None]:
    """Inside, ``torch.func`` does not warn of the deprecated ``torch.jit`` that it loads itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", FutureWarning)
        yield


class _Scored(nn.Module):
    """A model whose ``forward`` is ``log_prob``, which is what ``functional_call`` calls."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        log_prob: Tensor = self.model.log_prob(images)  # type: ignore[operator]
        return log_prob


def _traced(model: Any) -> Callable[[Tensor], list[Tensor]]:
    """The gradients of all images given, ``(B, *shape)`` for each parameter."""
    scored = _Scored(model)
    named = scored.named_parameters()
    parameters = {name: one.detach() for name, one in named if one.requires_grad}

    def log_prob(values: dict[str, Tensor], image: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(scored, values, (image[None],))
        return found[0]

    together = torch.vmap(torch.func.grad(log_prob), in_dims=(None, 0))
    return lambda images: list(together(parameters, images).values())
