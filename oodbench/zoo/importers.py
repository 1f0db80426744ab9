"""Checkpoints that people already have, told apart by their keys and turned into cards of ours.

A checkpoint is opened with ``weights_only=True``: tensors and plain containers, nothing is executed.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from oodbench.errors import ModelError
from oodbench.models.logistic import mixture_width
from oodbench.names import checked_name
from oodbench.paths import write_whole
from oodbench.zoo.cards import wrong_file
from oodbench.zoo.describe import unknown_set
from oodbench.zoo.families import family

State = dict[str, Tensor]


@dataclass(frozen=True)
class Imported:
    """A foreign checkpoint in our terms."""

    family: str
    config: dict[str, Any]
    likelihood: str
    tensors: State


def read_checkpoint(path: Path) -> State:
    """The tensors of a ``.pt``/``.pth``/``.safetensors`` file, without a ``module.`` prefix.

    Raises
    ------
    ModelError : not a checkpoint of tensors; the message says what it seems to be
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}") from error
    except pickle.UnpicklingError as error:
        if path.read_bytes()[:1] == b"<":
            raise ModelError(f"{path} cannot be opened: {wrong_file(path.read_bytes())}") from error
        raise ModelError(
            f"{path} holds more than tensors and is not opened, since unpickling runs whatever it says. Save the "
            "state dict alone: torch.save(model.state_dict(), …)"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be opened: it is cut short, damaged or no checkpoint; get it again"
        ) from error
    state = (
        loaded.get("state_dict", loaded.get("model", loaded))
        if isinstance(loaded, Mapping)
        else None
    )
    if not isinstance(state, Mapping) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise ModelError(
            f"{path} is not a state dict of tensors; save one with torch.save(model.state_dict(), …)"
        )
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def glow_pytorch(state: State) -> Imported:
    """Glow as y0ast/Glow-PyTorch saves it: same flow, the couplings' ActNorm and output scales folded into convolutions.

    Everything that its ``hparams.json`` holds follows from the shapes. ActNorm counts as initialised, though the format
    keeps that flag outside the file.
    """
    flow_steps = {
        key.split(".")[2] for key in state if key.endswith((".invconv.lower", ".invconv.weight"))
    }
    scales = 1 + sum(
        key.startswith("flow.layers.") and key.endswith(".conv.conv.weight") for key in state
    )
    steps = len(flow_steps) // scales
    first = "flow.layers.1"
    squeezed, (hidden, kept) = (
        state[f"{first}.actnorm.bias"].shape[1],
        state[f"{first}.block.0.conv.weight"].shape[:2],
    )
    affine = state[f"{first}.block.4.conv.weight"].shape[0] == 2 * (squeezed - kept)
    found: State = {}
    for scale in range(scales):
        for step in range(steps):
            source = f"flow.layers.{scale * (steps + 2) + 1 + step}"
            target = f"scales.{scale}.{step}.layers"
            found |= {
                f"{target}.0.bias": state[f"{source}.actnorm.bias"],
                f"{target}.0.log_scale": state[f"{source}.actnorm.logs"],
                f"{target}.0.initialised": torch.ones((), dtype=torch.uint8),
                **_mixing(state, f"{source}.invconv", f"{target}.1"),
                **_normed_conv(state, f"{source}.block.0", f"{target}.2.net.0"),
                **_normed_conv(state, f"{source}.block.2", f"{target}.2.net.2"),
                **_scaled_conv(state, f"{source}.block.4", f"{target}.2.net.4", interleaved=affine),
            }
        if scale < scales - 1:
            split = f"flow.layers.{(scale + 1) * (steps + 2) - 1}.conv"
            found |= _scaled_conv(state, split, f"split_priors.{scale}", interleaved=True)
    channels = state["prior_h"].shape[1]
    top = torch.zeros(channels)
    if "learn_top_fn.conv.bias" in state:  # a convolution of zeros: only its bias is left
        top = state["learn_top_fn.conv.bias"] * torch.exp(3 * state["learn_top_fn.logs"]).flatten()
    found["top_prior"] = top.reshape(1, channels, 1, 1)
    config = {
        "shape": [squeezed // 4, *(side * 2**scales for side in state["prior_h"].shape[2:])], "scales": scales, "steps": steps,
        "hidden": hidden, "coupling": "affine" if affine else "additive", "lu": f"{first}.invconv.lower" in state,
    }  # fmt: skip
    return Imported("glow", config, "uniform dequantisation, one draw", found)


def _mixing(state: State, source: str, target: str) -> State:
    renamed = {"p": "permutation", "sign_s": "sign", "log_s": "log_diagonal"}
    own = {
        key.rsplit(".", 1)[1]: tensor
        for key, tensor in state.items()
        if key.startswith(f"{source}.")
    }
    return {f"{target}.{renamed.get(name, name)}": tensor for name, tensor in own.items()}


def _normed_conv(state: State, source: str, target: str) -> State:
    """A convolution without bias and its ActNorm: ``(W*x + b)·e^s = (W·e^s)*x + b·e^s``."""
    scale = torch.exp(state[f"{source}.actnorm.logs"]).reshape(-1, 1, 1, 1)
    bias = state[f"{source}.actnorm.bias"].flatten() * scale.flatten()
    return {f"{target}.weight": state[f"{source}.conv.weight"] * scale, f"{target}.bias": bias}


def _scaled_conv(state: State, source: str, target: str, interleaved: bool) -> State:
    """A convolution with output scales ``e^{3s}``; interleaved pairs of outputs become two halves."""
    scale = torch.exp(3 * state[f"{source}.logs"]).reshape(-1, 1, 1, 1)
    weight, bias = (
        state[f"{source}.conv.weight"] * scale,
        state[f"{source}.conv.bias"] * scale.flatten(),
    )
    if interleaved:
        weight, bias = torch.cat([weight[0::2], weight[1::2]]), torch.cat([bias[0::2], bias[1::2]])
    return {f"{target}.weight": weight, f"{target}.bias": bias}


def pixel_cnn_pp(state: State) -> Imported:
    """PixelCNN++ as pclucas14/pixel-cnn-pp saves it: the same network, its 1×1 layers linear, mixtures in another order."""
    renamed = {"u_init": "enter_up", "ul_init": "enter_left", "nin_out": "out", "downsize_u_stream": "down_up",
               "downsize_ul_stream": "down_left", "upsize_u_stream": "up_up", "upsize_ul_stream": "up_left"}  # fmt: skip
    parts = {"conv_input": "enter", "conv_out": "leave", "nin_skip": "skip"}
    streams = {("up_layers", "u_stream"): "encode_up", ("up_layers", "ul_stream"): "encode_left",
               ("down_layers", "u_stream"): "decode_up", ("down_layers", "ul_stream"): "decode_left"}  # fmt: skip
    found: State = {}
    for key, tensor in state.items():
        *path, kind = [part for part in key.split(".") if part not in ("conv", "deconv", "lin_a")]
        if path[0] in ("up_layers", "down_layers"):
            layer, scale, stream, block, part = path
            path = [streams[layer, stream], scale, block, parts[part]]
        else:
            path[0] = renamed[path[0]]
        linear = ".lin_a." in key
        target = ".".join(path if linear else [*path, "conv"])
        if kind == "bias":
            found[f"{target}.bias"] = tensor
        else:
            number = {"weight_g": 0, "weight_v": 1}[kind]
            found[f"{target}.parametrizations.weight.original{number}"] = (
                tensor[..., None, None] if linear else tensor
            )
    channels, filters = (
        state["u_init.conv.weight_v"].shape[1] - 1,
        state["u_init.conv.weight_v"].shape[0],
    )
    mixtures = state["nin_out.lin_a.bias"].shape[0] // mixture_width(channels)
    order = _mixture_order(channels, mixtures)
    found |= {key: tensor[order] for key, tensor in found.items() if key.startswith("out.")}
    resnets = len({key.split(".")[3] for key in state if key.startswith("up_layers.0.u_stream.")})
    side = 28 if channels == 1 else 32
    config = {
        "shape": [channels, side, side],
        "filters": filters,
        "resnets": resnets,
        "mixtures": mixtures,
        "scales": 3,
    }
    return Imported("pixelcnn++", config, "exact", found)


def _mixture_order(channels: int, mixtures: int) -> list[int]:
    """Where our parameters (component by component) stand among theirs (logits, then by channel: means, scales, coefficients)."""
    kinds = 3 if channels > 1 else 2

    def theirs(channel: int, kind: int, component: int) -> int:
        return mixtures * (1 + channel * kinds + kind) + component

    coefficients = range(channels * (channels - 1) // 2)
    slots = (
        [(c, 0) for c in range(channels)]
        + [(c, 1) for c in range(channels)]
        + [(c, 2) for c in coefficients]
    )
    return [
        index
        for k in range(mixtures)
        for index in (k, *(theirs(channel, kind, k) for channel, kind in slots))
    ]


def likelihood_regret(encoder: State, decoder: State) -> Imported:
    """The DCGAN VAE of XavierXiao/Likelihood-Regret: two files, log-variances where we keep log standard deviations."""
    found: State = {}
    _copy_in_order(encoder, found, "encoder", ["main."])
    means, variances = (
        [encoder[f"{name}.{kind}"] for kind in ("weight", "bias")] for name in ("conv1", "conv2")
    )
    for kind, mean, log_variance in zip(("weight", "bias"), means, variances, strict=True):
        found[f"encoder.9.{kind}"] = torch.cat([mean, log_variance / 2])
    _copy_in_order(decoder, found, "decoder", ["main.initial", "main.pyramid"], first=1)
    out = decoder[next(key for key in decoder if key.startswith("main.final"))]
    channels = out.shape[1] // 256
    found["decoder.10.weight"] = (
        out.unflatten(1, (channels, 256)).transpose(1, 2).flatten(1, 2)
    )  # level-major, as ours
    latent, width = encoder["conv1.weight"].shape[0], encoder["main.input-conv.weight"].shape[0]
    config = {"shape": [channels, 32, 32], "latent": latent, "width": width, "samples": 16}
    return Imported("dcgan-vae", config, "importance-weighted bound, k = 16", found)


def _copy_in_order(
    state: State, found: State, target: str, prefixes: list[str], first: int = 0
) -> None:
    """Copy (convolution, batch norm) pairs in their order to positions 0, 1, 3, 4, … (ReLUs between) after ``first``."""
    modules = list(
        dict.fromkeys(key.rsplit(".", 1)[0] for key in state if key.startswith(tuple(prefixes)))
    )
    for number, module in enumerate(modules):
        position = first + number // 2 * 3 + number % 2
        own = {
            key.rsplit(".", 1)[1]: value
            for key, value in state.items()
            if key.rsplit(".", 1)[0] == module
        }
        found |= {f"{target}.{position}.{name}": value for name, value in own.items()}


def pytorch_vae(state: State, shape: list[int]) -> Imported:
    """The fully connected VAE of PyTorch's examples (fc1, fc21, fc22, fc3, fc4)."""
    found = {}
    for kind in ("weight", "bias"):
        found[f"encoder.1.{kind}"] = state[f"fc1.{kind}"]
        found[f"encoder.3.{kind}"] = torch.cat([state[f"fc21.{kind}"], state[f"fc22.{kind}"] / 2])
        found[f"decoder.0.{kind}"] = state[f"fc3.{kind}"]
        found[f"decoder.2.{kind}"] = state[f"fc4.{kind}"]
    hidden, latent = state["fc1.weight"].shape[0], state["fc21.weight"].shape[0]
    config = {"shape": shape, "latent": latent, "hidden": hidden, "samples": 16}
    return Imported(
        "mlp-vae", config, "Bernoulli on grey values, no density of 8-bit images; k = 16", found
    )


def masked_pixelcnn(state: State, options: Mapping[str, Any]) -> Imported:
    """A masked PixelCNN with one shared residual block; how often it is applied is not in the file: ``repeats``."""
    names = {"conv1": "enter", "block.conv1": "block.0", "block.conv2": "block.2", "block.conv3": "block.4",
             "conv2": "leave.1", "conv3": "leave.3"}  # fmt: skip
    found = {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
    }
    config = {
        "shape": list(options["shape"]), "hidden": state["block.conv1.weight"].shape[0], "repeats": int(options["repeats"]),
        "mean": float(options["mean"]), "std": float(options["std"]),
    }  # fmt: skip
    return Imported("masked-pixelcnn", config, "exact", found)


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint: keys that tell it, files it comes in, what must be given beside it, and its conversion."""

    title: str
    keys: tuple[str, ...]
    """One for each file: how a key begins that only this file has."""
    options: tuple[str, ...]
    convert: Callable[[list[State], Mapping[str, Any]], Imported]


FORMATS = [
    Format(
        "Glow of y0ast/Glow-PyTorch", ("prior_h",), (),
        lambda states, options: glow_pytorch(states[0]),
    ),
    Format(
        "PixelCNN++ of pclucas14/pixel-cnn-pp", ("u_init.conv.weight_v",), (),
        lambda states, options: pixel_cnn_pp(states[0]),
    ),
    Format(
        "DCGAN VAE of XavierXiao/Likelihood-Regret", ("main.input-conv", "main.initial"), (),
        lambda states, options: likelihood_regret(*states),
    ),
    Format(
        "fully connected VAE of PyTorch's examples", ("fc21.weight",), ("shape",),
        lambda states, options: pytorch_vae(states[0], list(options["shape"])),
    ),
    Format(
        "masked PixelCNN with a shared block", ("block.conv1.mask",), ("shape", "repeats", "mean", "std"),
        lambda states, options: masked_pixelcnn(states[0], options),
    ),
]  # fmt: skip


def convert(files: list[Path], options: Mapping[str, Any]) -> Imported:
    """Tell the format of checkpoint files by their keys and convert them.

    Parameters
    ----------
    files : all files of one model, in any order
    options : what the files do not hold

    Raises
    ------
    ModelError : no known format, a file of it is missing, an option is missing, or the weights do not fit
    """
    states = [read_checkpoint(file) for file in files]
    for known in FORMATS:
        present = [
            next((s for s in states if any(k.startswith(start) for k in s)), None)
            for start in known.keys
        ]
        if not any(present):
            continue
        if not all(present):
            raise ModelError(
                f"{files[0]} is one file of a {known.title}, which comes in {len(known.keys)}; give them all"
            )
        missing = [name for name in known.options if name not in options]
        if missing:
            what = ", ".join(missing)
            raise ModelError(
                f"{files[0]} is a {known.title}; its file does not hold {what}: give --option NAME=VALUE"
            )
        imported = known.convert([state for state in present if state is not None], options)
        _check_fit(imported, files[0])
        return imported
    some = ", ".join(list(states[0])[:4])
    titles = "; ".join(known.title for known in FORMATS)
    raise ModelError(
        f"{files[0]} matches no known format (its keys begin with {some}). Known: {titles}"
    )


def _check_fit(imported: Imported, file: Path) -> None:
    own = family(imported.family).build(**imported.config).state_dict()
    unlike = [
        key
        for key in own
        if key not in imported.tensors or imported.tensors[key].shape != own[key].shape
    ]
    extra = [key for key in imported.tensors if key not in own]
    if unlike or extra:
        raise ModelError(
            f"{file} does not fit the options given: {', '.join([*unlike, *extra][:4])} differ from the model's"
        )


def write_card(
    imported: Imported,
    folder: Path,
    name: str,
    trained_on: str,
    view: str,
    record: Mapping[str, Any],
) -> None:
    """Write an imported model as a card folder.

    Raises
    ------
    ModelError : a name that no model can have, or no image set that is known here
    """
    checked_name("model", name)
    unknown = unknown_set(trained_on)
    if unknown:
        raise ModelError(f"{name} cannot have been trained on {trained_on!r}: {unknown}")
    content = save(
        {key: tensor.detach().clone().contiguous() for key, tensor in imported.tensors.items()}
    )
    fields = {
        "name": name, "family": imported.family, "config": imported.config, "trained_on": trained_on,
        "likelihood": imported.likelihood, "licence": "of the original",
    } | ({"view": view} if view else {})  # fmt: skip
    trained = {
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "parameters": sum(tensor.numel() for tensor in imported.tensors.values()),
        **record,
    }
    write_whole(folder / "weights.safetensors", lambda file: file.write(content))
    card = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    write_whole(folder / "card.yaml", lambda file: file.write(card.encode()))
    write_whole(
        folder / "trained.json",
        lambda file: file.write((json.dumps(trained, indent=1) + "\n").encode()),
    )
