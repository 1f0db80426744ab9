"""From a card to a model with verified weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from oodbench.errors import ModelError, UnknownNameError
from oodbench.models.diffusion import small_diffusion
from oodbench.models.gated_pixelcnn import GatedPixelCNN
from oodbench.models.glow import Glow
from oodbench.models.hvae import HierarchicalVAE
from oodbench.models.masked_pixelcnn import MaskedPixelCNN
from oodbench.models.pixelcnn import PixelCNN
from oodbench.models.realnvp import RealNVP
from oodbench.models.vae import dcgan_vae, mlp_vae, rosca_vae
from oodbench.zoo.cards import Card, wrong_file
from oodbench.zoo.describe import UserModel, describe

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "glow": Glow,
    "realnvp": RealNVP,
    "pixelcnn++": PixelCNN,
    "gated-pixelcnn": GatedPixelCNN,
    "masked-pixelcnn": MaskedPixelCNN,
    "vae": rosca_vae,
    "dcgan-vae": dcgan_vae,
    "mlp-vae": mlp_vae,
    "hierarchical-vae": HierarchicalVAE,
    "diffusion": small_diffusion,
}


def build(card: Card) -> nn.Module:
    """The card's architecture, not yet trained."""
    if card.family not in FAMILIES:
        raise UnknownNameError("model family", card.family, FAMILIES)
    try:
        return FAMILIES[card.family](**card.config)
    except TypeError as error:
        raise ModelError(f"{card.name}: its configuration does not fit the family {card.family!r}: {error}") from error


def load_model(reference: str, seed: int = 0, device: str = "cpu") -> Any:
    """Load a model in evaluation mode: from the zoo, from a card's folder, or one that a plugin registered.

    Parameters
    ----------
    reference : name (``oodbench list models``), or path to a card
    seed : of the model's dequantisation noise
    device : ``cpu``, ``cuda``, …

    Raises
    ------
    UnknownNameError : no such card
    ModelError : weights missing, damaged, of another hash, or of another shape than the card says

    Example
    -------
    >>> import oodbench as ob
    >>> ob.load_model("glow-fashionmnist").shape
    (1, 28, 28)
    """
    described = describe(reference)
    if isinstance(described, UserModel):
        model = described.model
    else:
        model = build(described).to(memory_format=torch.channels_last)
        load_weights(model, described)
    if hasattr(model, "seed"):
        model.seed = seed
    return model.eval().to(device) if isinstance(model, nn.Module) else model


def load_weights(model: nn.Module, card: Card) -> None:
    """Read, verify and fill in the card's weights; each way in which they can be wrong has its own sentence."""
    tensors = parse_weights(card.read_weights(), card.weights)
    own = model.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or extra:
        raise ModelError(
            f"{card.weights} does not fit {card.name}'s configuration: "
            f"{len(missing)} keys missing ({_some(missing)}), {len(extra)} unknown ({_some(extra)})"
        )
    for key, tensor in own.items():
        if tensor.shape != tensors[key].shape:
            raise ModelError(
                f"{card.weights}: {key} has shape {tuple(tensors[key].shape)}, the card's model wants {tuple(tensor.shape)}"
            )
    model.load_state_dict(tensors)


def parse_weights(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes."""
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error}): {wrong_file(content)}") from error


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + ", …" * (len(keys) > 3) if keys else "none"
