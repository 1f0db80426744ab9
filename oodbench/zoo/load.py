"""From a card to a model with verified weights."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from oodbench.contract import DensityModel
from oodbench.errors import ModelError, OodbenchError
from oodbench.foreign import parsing
from oodbench.zoo.cards import Card, wrong_file
from oodbench.zoo.describe import UserModel, describe
from oodbench.zoo.families import family


def build(card: Card) -> nn.Module:
    """The card's architecture, not yet trained."""
    try:
        return family(card.family).build(**card.config)
    except OodbenchError:
        raise
    except Exception as error:  # a number that no layer can have fails in each layer's own way
        raise ModelError(
            f"{card.name}: its configuration does not fit the family {card.family!r}: {error}"
        ) from error


def load_model(reference: str, seed: int = 0, device: str = "cpu") -> DensityModel:
    """Load a model in evaluation mode: from the zoo, from a card's folder, or one that a plugin registered.

    A classifier has ``classify(images) -> (logits, features)`` in place of ``log_prob``.

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
        model = described.with_seed(seed)
        return model.eval().to(device) if isinstance(model, nn.Module) else model
    network = build(described).to(memory_format=torch.channels_last)
    load_weights(network, described)
    if hasattr(network, "seed"):
        network.seed = seed  # type: ignore[assignment]
    network.eval().to(device)
    return cast(DensityModel, network)


def drawn_weights(card: Card) -> bytes:
    """The weights of a card's model before training, in the format of a weights file; drawn from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = build(card).state_dict()
    # an ActNorm that no batch has set scales by 1, which is what it is before training
    found = {
        name: torch.ones_like(one) if name.endswith("initialised") else one
        for name, one in drawn.items()
    }
    return save_safetensors({name: one.contiguous() for name, one in found.items()})


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
    with parsing(card.weights, ModelError, f"weights of {card.name}"):
        model.load_state_dict(tensors)


def parse_weights(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes."""
    with parsing(path, ModelError, "a whole safetensors file", wrong_file(content)):
        return load_safetensors(content)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + ", …" * (len(keys) > 3) if keys else "none"
