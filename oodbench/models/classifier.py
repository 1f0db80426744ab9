"""A small convolutional classifier: no density, but the features and logits that scorers with labels read."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _block(*channels: int) -> nn.Sequential:
    """3×3 convolutions between these channels, each with batch normalisation and ReLU, then the maximum over 2×2 pixels."""
    layers: list[nn.Module] = []
    for before, width in pairwise(channels):
        layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        layers += [nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


class Classifier(nn.Module):
    """Three blocks of one, two and two convolutions, the mean over pixels, a layer of features, and a linear layer of logits.

    An image's logits depend on no other image: batch normalisation uses the running moments of the training.

    Parameters
    ----------
    shape : ``(C, H, W)`` of the images
    classes : how many there are
    width : channels of the first block; each further block has twice as many
    features : numbers of the penultimate layer, after its ReLU
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int = 10, width: int = 16, features: int = 64
    ):
        super().__init__()
        self.shape, self.classes = tuple(shape), classes
        self.blocks = nn.Sequential(
            _block(shape[0], width),
            _block(width, 2 * width, 2 * width),
            _block(2 * width, 4 * width, 4 * width),
        )
        self.penultimate = nn.Linear(4 * width, features)
        self.last = nn.Linear(features, classes)

    def classify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 ``(B, C, H, W)`` to logits ``(B, classes)`` and features ``(B, features)``, the input of the last layer."""
        x = images.to(self.last.weight.dtype) / 127.5 - 1
        features = torch.relu(self.penultimate(self.blocks(x).mean((2, 3))))
        return self.last(features), features

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy ``−log softmax(logits)[label]`` of each image, in nats ``(B,)``."""
        return F.cross_entropy(self.classify(images)[0], labels, reduction="none")
