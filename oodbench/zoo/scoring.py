"""The form in which a model is scored: folded once, without gradients, and in batches that fit the memory.

Folding changes no density, only rounding: what is constant is computed once, what is linear in a row becomes one map.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from oodbench.contract import DensityModel
from oodbench.models.flows import ActNorm, InvertibleConv
from oodbench.models.pixelcnn import PixelCNN
from oodbench.models.pixelcnn_scoring import ScoredPixelCNN

BATCH_BYTES = 2**25
"""What a batch's largest layer, with its input and output, may take."""
LARGEST_BATCH = 64
PRODUCTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class ChannelMixing(nn.Module):
    """An ActNorm and the 1×1 convolution after it as one affine map with a constant log-determinant.

    ``W·((x + b)·e^s) = (W·diag e^s)·x + W·(b·e^s)``, ``log_det = H·W·(Σ s + log|det W|)``.
    An ActNorm that was never set is a :class:`ModelError`, as in the unfolded model.
    """

    weight: Tensor
    bias: Tensor
    log_det: Tensor

    def __init__(self, norm: ActNorm, conv: InvertibleConv):
        norm.refuse_unset()
        super().__init__()
        scale = torch.exp(norm.log_scale.detach().double()).flatten()
        matrix = conv.matrix().detach()
        weight = matrix.double() * scale
        self.register_buffer("weight", weight.to(matrix.dtype)[:, :, None, None])
        self.register_buffer(
            "bias", (weight @ norm.bias.detach().double().flatten()).to(matrix.dtype)
        )
        self.register_buffer(
            "log_det", norm.log_scale.detach().double().sum() + conv.log_abs_det().detach()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.conv2d(x, self.weight, self.bias), self.log_det * (x.shape[2] * x.shape[3])

    def inverse(self, y: Tensor) -> Tensor:
        inverse = torch.linalg.inv(self.weight[:, :, 0, 0].double()).to(y.dtype)
        return F.conv2d(y - self.bias[:, None, None], inverse[:, :, None, None])


def scoring_form(model: DensityModel) -> DensityModel:
    """A folded copy of one of our models for evaluation, with its ``batch_size``.

    ActNorm goes into the 1×1 convolution after it and weight norm into the weights; convolutions work channels-last, ReLU
    in place. A PixelCNN++ becomes a :class:`~oodbench.models.pixelcnn_scoring.ScoredPixelCNN`.
    The copy cannot be trained and its state dict is another.
    """
    form = copy.deepcopy(model)
    assert isinstance(form, nn.Module)
    form.eval().requires_grad_(False)
    _fold(form)
    form.to(memory_format=torch.channels_last)
    size = batch_size(form)
    if isinstance(form, PixelCNN):
        form = ScoredPixelCNN.of(form)
    form.batch_size = size  # type: ignore[assignment]
    return form


def _fold(module: nn.Module) -> None:
    for name, child in list(
        module.named_children()
    ):  # a list, since children are replaced on the way
        if parametrize.is_parametrized(child, "weight"):
            setattr(module, name, _plain(child))
            continue  # its own children are the parametrisation that has just been computed
        if isinstance(child, nn.ModuleList):
            child = _mixed(child)
            setattr(module, name, child)
        if isinstance(child, nn.Sequential):
            _overwrite(child)
        _fold(child)


def _overwrite(layers: nn.Sequential) -> None:
    """Let each ReLU work in the memory of the convolution or product before it, whose output nobody else reads."""
    for before, layer in pairwise(layers):
        if isinstance(layer, nn.ReLU) and isinstance(before, PRODUCTS):
            layer.inplace = True


def _plain(module: nn.Module) -> nn.Module:
    """The layer with its parametrised weight computed.

    A parametrised layer has a class of its own, made from the layer's, whose property `weight` computes.
    `remove_parametrizations` would take that property from the original too, since a deep copy shares its
    class. So the layer is made of the class below, without `__init__`, which would draw random weights.
    """
    base: Any = type(module).__bases__[0]
    plain: nn.Module = base.__new__(base)
    plain.__dict__ = {**vars(module), "_modules": {}, "_parameters": dict(module._parameters)}
    plain.weight = nn.Parameter(torch.as_tensor(module.weight).detach(), requires_grad=False)
    return plain


def _mixed(layers: nn.ModuleList) -> nn.ModuleList:
    """The layers with each ActNorm that a 1×1 convolution follows joined to it."""
    found: list[nn.Module] = []
    for layer in layers:
        if found and isinstance(found[-1], ActNorm) and isinstance(layer, InvertibleConv):
            found[-1] = ChannelMixing(found[-1], layer)
        else:
            found.append(layer)
    return nn.ModuleList(found)


@torch.no_grad()
def batch_size(model: nn.Module) -> int:
    """How many images a batch may hold so that its largest layer stays within :data:`BATCH_BYTES`: a power of two.

    Found by one image's pass and not by the clock, so that the same model always sees the same batches.
    """
    largest = 4 * math.prod(model.shape)  # type: ignore[arg-type]

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        tensors = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        largest = max(largest, sum(tensor.nbytes for tensor in tensors))

    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(watch) for leaf in leaves]
    parameter = next(model.parameters(), torch.empty(0))
    try:
        model.log_prob(torch.zeros(1, *model.shape, dtype=torch.uint8, device=parameter.device))  # type: ignore[operator, misc]
    finally:
        for handle in handles:
            handle.remove()
    return min(LARGEST_BATCH, 2 ** int(math.log2(max(1, BATCH_BYTES // largest))))
