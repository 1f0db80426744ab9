"""Softmax models over pixels that are standardised channel by channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oodbench.models.autoregressive import SoftmaxAutoregressive
from oodbench.scaling import checked_mean, checked_std


class StandardisedAutoregressive(SoftmaxAutoregressive):
    """A softmax over the levels of each dimension, with pixels ``(x/(bins − 1) − mean)/std``.

    Parameters
    ----------
    mean, std : one number for all channels, or one for each
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        mean: float | Sequence[float],
        std: float | Sequence[float],
        bins: int,
    ):
        super().__init__(shape, 0.0, 1.0, bins)
        self._keep("pixel_mean", checked_mean(mean, shape[0]))
        self._keep("pixel_std", checked_std(std, shape[0]))

    def _keep(self, name: str, value: float | Sequence[float]) -> None:
        each = torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1)
        self.register_buffer(name, each, persistent=False)

    def _standardised(self, images: Tensor) -> Tensor:
        scaled = super()._standardised(images)
        return (scaled - self.pixel_mean.to(scaled.dtype)) / self.pixel_std.to(scaled.dtype)
