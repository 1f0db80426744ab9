"""Checkpoints that people already have, told apart by their keys and turned into cards of ours.

Each converter accounts for every tensor of its files: one that is missing, and one that nothing reads, is an error.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from oodbench.errors import ModelError, OodbenchError, did_you_mean
from oodbench.models.logistic import mixture_width
from oodbench.models.masked_pixelcnn import MaskedConv
from oodbench.names import checked_name
from oodbench.paths import write_whole
from oodbench.scaling import checked_mean, checked_shape, checked_std, is_count
from oodbench.zoo.checkpoints import Checkpoint, first_words, read_checkpoint
from oodbench.zoo.describe import unknown_set
from oodbench.zoo.families import family

Tensors = dict[str, Tensor]
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Imported:
    """A foreign checkpoint in our terms; ``notes`` say in sentences what was chosen, dropped and assumed."""

    family: str
    config: dict[str, Any]
    likelihood: str
    tensors: Tensors
    notes: tuple[str, ...] = ()


def glow_pytorch(state: Checkpoint) -> Imported:
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
    found: Tensors = {}
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
    found["top_prior"] = _top_prior(state)
    config = {
        "shape": [squeezed // 4, *(side * 2**scales for side in state["prior_h"].shape[2:])], "scales": scales, "steps": steps,
        "hidden": hidden, "coupling": "affine" if affine else "additive", "lu": f"{first}.invconv.lower" in state,
    }  # fmt: skip
    return Imported("glow", config, "uniform dequantisation, one draw", found)


def _top_prior(state: Checkpoint) -> Tensor:
    """Mean and log standard deviation of the last latents, which a convolution of zeros gives: only its bias is left."""
    start = state["prior_h"]
    if start.any():
        raise ModelError(
            f"{state.path}: prior_h is not zero, so this Glow's prior is not the one that this format has"
        )
    top = torch.zeros(start.shape[1])
    if "learn_top_fn.conv.bias" in state:
        top = state["learn_top_fn.conv.bias"] * torch.exp(3 * state["learn_top_fn.logs"]).flatten()
        state.leave("learn_top_fn.conv.weight", "it multiplies prior_h, which is zero")
    return top.reshape(1, -1, 1, 1)


LU = {
    "p": "permutation",
    "sign_s": "sign",
    "log_s": "log_diagonal",
    "lower": "lower",
    "upper": "upper",
}
"""What the format calls the factors of a 1×1 convolution → what they are called here."""


def _mixing(state: Checkpoint, source: str, target: str) -> Tensors:
    if f"{source}.weight" in state:
        return {f"{target}.weight": state[f"{source}.weight"]}
    return {f"{target}.{ours}": state[f"{source}.{theirs}"] for theirs, ours in LU.items()}


def _normed_conv(state: Checkpoint, source: str, target: str) -> Tensors:
    """A convolution without bias and its ActNorm: ``(W*x + b)·e^s = (W·e^s)*x + b·e^s``."""
    scale = torch.exp(state[f"{source}.actnorm.logs"]).reshape(-1, 1, 1, 1)
    bias = state[f"{source}.actnorm.bias"].flatten() * scale.flatten()
    return {f"{target}.weight": state[f"{source}.conv.weight"] * scale, f"{target}.bias": bias}


def _scaled_conv(state: Checkpoint, source: str, target: str, interleaved: bool) -> Tensors:
    """A convolution with output scales ``e^{3s}``; interleaved pairs of outputs become two halves."""
    scale = torch.exp(3 * state[f"{source}.logs"]).reshape(-1, 1, 1, 1)
    weight, bias = (
        state[f"{source}.conv.weight"] * scale,
        state[f"{source}.conv.bias"] * scale.flatten(),
    )
    if interleaved:
        weight, bias = torch.cat([weight[0::2], weight[1::2]]), torch.cat([bias[0::2], bias[1::2]])
    return {f"{target}.weight": weight, f"{target}.bias": bias}


PIXEL_CNN_PARTS = {
    "enter_up": "u_init", "enter_left": "ul_init", "down_up": "downsize_u_stream", "down_left": "downsize_ul_stream",
    "up_up": "upsize_u_stream", "up_left": "upsize_ul_stream", "out": "nin_out",
    "enter": "conv_input", "leave": "conv_out", "skip": "nin_skip",
}  # fmt: skip
"""What parts of a PixelCNN++ are called here → what pixel-cnn-pp calls them."""
PIXEL_CNN_STREAMS = {
    "encode_up": ("up_layers", "u_stream"), "encode_left": ("up_layers", "ul_stream"),
    "decode_up": ("down_layers", "u_stream"), "decode_left": ("down_layers", "ul_stream"),
}  # fmt: skip
"""Of the residual blocks: stream here → its layers and stream there."""
WEIGHT_NORM = {
    "parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v", "bias": "bias",
}  # fmt: skip
"""What parts of a weight-normed layer are called here → there."""


def pixel_cnn_pp(state: Checkpoint, options: Options) -> Imported:
    """PixelCNN++ as pclucas14/pixel-cnn-pp saves it: the same network, its 1×1 layers linear, mixtures in another order."""
    filters, inward = state["u_init.conv.weight_v"].shape[:2]
    channels = inward - 1  # one more tells padding from black
    mixtures = state["nin_out.lin_a.bias"].shape[0] // mixture_width(channels)
    resnets = len({key.split(".")[3] for key in state if key.startswith("up_layers.0.u_stream.")})
    side = 28 if channels == 1 else 32
    shape = list(options.get("shape", [channels, side, side]))
    config = {
        "shape": shape, "filters": filters, "resnets": resnets, "mixtures": mixtures, "scales": 3,
    }  # fmt: skip
    with torch.device("meta"):
        own = family("pixelcnn++").build(**config).state_dict()
    found = {ours: _of_pixel_cnn_pp(state, ours) for ours in own}
    order = _mixture_order(channels, mixtures)
    found |= {key: tensor[order] for key, tensor in found.items() if key.startswith("out.")}
    assumed = f"the file does not say the images' size; {shape} is taken, --option shape=[C,H,W] says another"
    notes = () if "shape" in options else (assumed,)
    return Imported("pixelcnn++", config, "exact", found, notes)


def _of_pixel_cnn_pp(state: Checkpoint, ours: str) -> Tensor:
    """The tensor that a PixelCNN++ here has under the name ``ours``."""
    part = next(part for part in WEIGHT_NORM if ours.endswith(f".{part}"))
    first, *path = ours.removesuffix(f".{part}").split(".")
    linear = "conv" not in path
    if first in PIXEL_CNN_STREAMS:
        layers, stream = PIXEL_CNN_STREAMS[first]
        scale, block, layer = path[:3]
        names = [layers, scale, stream, block, PIXEL_CNN_PARTS[layer]]
    else:
        names = [PIXEL_CNN_PARTS[first], *(one for one in path if one != "conv")]
    names.append("lin_a" if linear else "deconv" if first in ("up_up", "up_left") else "conv")
    tensor = state[".".join([*names, WEIGHT_NORM[part]])]
    return tensor[..., None, None] if linear and part != "bias" else tensor


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


def likelihood_regret(encoder: Checkpoint, decoder: Checkpoint) -> Imported:
    """The DCGAN VAE of XavierXiao/Likelihood-Regret: two files, log-variances where we keep log standard deviations."""
    width, channels = encoder["main.input-conv.weight"].shape[:2]
    latent = encoder["conv1.weight"].shape[0]
    down = [("input-conv", "input-BN")]
    down += [
        (f"pyramid:{n}-{2 * n}:conv", f"pyramid:{2 * n}:batchnorm") for n in (width, 2 * width)
    ]
    up = [(f"initial:{latent}-{4 * width}:convt", f"initial:{4 * width}:batchnorm")]
    up += [(f"pyramid:{2 * n}-{n}:convt", f"pyramid:{n}:batchnorm") for n in (2 * width, width)]
    found: Tensors = {}
    for number, (conv, norm) in enumerate(down):
        found |= _conv_and_norm(encoder, conv, norm, "encoder", 3 * number)
    for number, (conv, norm) in enumerate(up):
        found |= _conv_and_norm(decoder, conv, norm, "decoder", 1 + 3 * number)
    for kind in ("weight", "bias"):
        mean, log_variance = encoder[f"conv1.{kind}"], encoder[f"conv2.{kind}"]
        found[f"encoder.9.{kind}"] = torch.cat([mean, log_variance / 2])
    out = decoder[f"main.final:{width}-{channels}:convt.weight"].unflatten(1, (channels, 256))
    found["decoder.10.weight"] = out.transpose(1, 2).flatten(1, 2)  # level-major, as ours
    config = {"shape": [channels, 32, 32], "latent": latent, "width": width, "samples": 16}
    return Imported("dcgan-vae", config, "importance-weighted bound, k = 16", found)


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
"""Tensors of a batch normalisation."""


def _conv_and_norm(state: Checkpoint, conv: str, norm: str, target: str, position: int) -> Tensors:
    """A convolution without bias at a position of ours, and the batch normalisation after it."""
    found = {f"{target}.{position}.weight": state[f"main.{conv}.weight"]}
    return found | {
        f"{target}.{position + 1}.{kind}": state[f"main.{norm}.{kind}"] for kind in NORM
    }


def pytorch_vae(state: Checkpoint, options: Options) -> Imported:
    """The fully connected VAE of PyTorch's examples (fc1, fc21, fc22, fc3, fc4)."""
    found = {}
    for kind in ("weight", "bias"):
        found[f"encoder.1.{kind}"] = state[f"fc1.{kind}"]
        found[f"encoder.3.{kind}"] = torch.cat([state[f"fc21.{kind}"], state[f"fc22.{kind}"] / 2])
        found[f"decoder.0.{kind}"] = state[f"fc3.{kind}"]
        found[f"decoder.2.{kind}"] = state[f"fc4.{kind}"]
    hidden, latent = state["fc1.weight"].shape[0], state["fc21.weight"].shape[0]
    config = {"shape": list(options["shape"]), "latent": latent, "hidden": hidden, "samples": 16}
    return Imported(
        "mlp-vae", config, "Bernoulli on grey values, no density of 8-bit images; k = 16", found
    )


MASKED_LAYERS = {
    "conv1": "enter", "block.conv1": "block.0", "block.conv2": "block.2", "block.conv3": "block.4",
    "conv2": "leave.1", "conv3": "leave.3",
}  # fmt: skip
"""Layer of a masked PixelCNN there → here."""


def masked_pixelcnn(state: Checkpoint, options: Options) -> Imported:
    """A masked PixelCNN with one shared residual block; how often it is applied is not in the file: ``repeats``."""
    found = {
        f"{ours}.{kind}": state[f"{theirs}.{kind}"]
        for theirs, ours in MASKED_LAYERS.items()
        for kind in ("weight", "bias")
    }
    config = {
        "shape": list(options["shape"]), "hidden": state["block.conv1.weight"].shape[0], "repeats": options["repeats"],
        "mean": options["mean"], "std": options["std"],
    }  # fmt: skip
    network = family("masked-pixelcnn").build(**config)
    for theirs, ours in MASKED_LAYERS.items():
        layer = network.get_submodule(ours)
        assert isinstance(layer, MaskedConv)
        _check_mask(state, f"{theirs}.mask", layer.mask)
    return Imported("masked-pixelcnn", config, "exact", found)


def _check_mask(state: Checkpoint, key: str, mask: Tensor) -> None:
    """A mask that the file holds is the one that the layer has here."""
    if key in state and not (state[key] == mask).all():
        raise ModelError(
            f"{state.path}: {key} is not raster order's, so this PixelCNN sees other pixels than the family masked-pixelcnn"
        )


def _whole(value: Any) -> int:
    if not is_count(value):
        raise ModelError(f"repeats must be a whole number of at least 1, not {value!r}")
    return int(value)


CHECKS: dict[str, Callable[[Any, int], Any]] = {
    "shape": lambda value, channels: checked_shape(value),
    "repeats": lambda value, channels: _whole(value),
    "mean": checked_mean,
    "std": checked_std,
}
"""Option → its value, checked, given the number of channels."""


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint: keys that tell it, files it comes in, what must or may be given beside it, and its conversion."""

    title: str
    keys: tuple[str, ...]
    """One for each file: how a key begins that only this file has."""
    convert: Callable[[list[Checkpoint], Options], Imported]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = field(default=())

    def checked(self, options: Options, file: Path) -> Options:
        """The options, where they are this format's and each has a value that it can have."""
        known = {*self.needs, *self.takes}
        for name in options:
            if name not in known:
                which = did_you_mean(name, known) if known else "; it takes none."
                raise ModelError(f"a {self.title} takes no option {name!r}{which}")
        missing = [name for name in self.needs if name not in options]
        if missing:
            what = ", ".join(missing)
            raise ModelError(
                f"{file} is a {self.title}; its file does not hold {what}: give --option NAME=VALUE"
            )
        channels = checked_shape(options["shape"])[0] if "shape" in options else 0
        return {name: CHECKS[name](value, channels) for name, value in options.items()}


FORMATS = [
    Format(
        "Glow of y0ast/Glow-PyTorch", ("prior_h",), lambda states, options: glow_pytorch(states[0]),
    ),
    Format(
        "PixelCNN++ of pclucas14/pixel-cnn-pp", ("u_init.conv.weight_v",),
        lambda states, options: pixel_cnn_pp(states[0], options), takes=("shape",),
    ),
    Format(
        "DCGAN VAE of XavierXiao/Likelihood-Regret", ("main.input-conv", "main.initial"),
        lambda states, options: likelihood_regret(*states),
    ),
    Format(
        "fully connected VAE of PyTorch's examples", ("fc21.weight",),
        lambda states, options: pytorch_vae(states[0], options), needs=("shape",),
    ),
    Format(
        "masked PixelCNN with a shared block", ("block.conv1.mask",),
        lambda states, options: masked_pixelcnn(states[0], options), needs=("shape", "repeats", "mean", "std"),
    ),
]  # fmt: skip


def convert(files: list[Path], options: Options, state: str = "") -> Imported:
    """Tell the format of checkpoint files by their keys and convert them.

    Parameters
    ----------
    files : all files of one model, in any order
    options : what the files do not hold
    state : the entry to read of a file that holds several, such as ``ema``

    Raises
    ------
    ModelError : no known format, a file too few or too many, an option that is missing, unknown or of another kind, a
        tensor that is missing or that nothing reads, or weights that do not fit
    """
    checkpoints = [read_checkpoint(file, state) for file in files]
    for known in FORMATS:
        present = [_with_key(checkpoints, start) for start in known.keys]
        own = [one for one in present if one is not None]
        if not own:
            continue
        if len(own) != len(known.keys) or len(own) != len(files):
            count = f"{len(known.keys)} files" if len(known.keys) > 1 else "one file"
            raise ModelError(
                f"{files[0]} is of a {known.title}, which comes in {count}; give all of them, and no other"
            )
        imported = _converted(known, own, known.checked(options, files[0]))
        _check_fit(imported, known, files[0])
        _check_all_read(known, own)
        notes = [note for one in own for note in one.notes]
        return Imported(
            imported.family, imported.config, imported.likelihood, imported.tensors, (*notes, *imported.notes)
        )  # fmt: skip
    raise ModelError(_unknown_format(checkpoints[0]))


def _with_key(checkpoints: list[Checkpoint], start: str) -> Checkpoint | None:
    """The file that has a key which begins so."""
    having = (one for one in checkpoints if any(key.startswith(start) for key in one))
    return next(having, None)


def _converted(known: Format, own: list[Checkpoint], options: Options) -> Imported:
    try:
        return known.convert(own, options)
    except OodbenchError:
        raise
    except Exception as error:  # shapes that do not go together fail in each converter's own way
        raise ModelError(
            f"{own[0].path} begins like a {known.title}, but its tensors do not have such a model's shapes ({error})"
        ) from error


def _check_all_read(known: Format, own: list[Checkpoint]) -> None:
    for checkpoint in own:
        left = checkpoint.unread
        if left:
            some = ", ".join(left[:6]) + ", …" * (len(left) > 6)
            raise ModelError(
                f"{checkpoint.path} is like a {known.title}, but holds {len(left)} tensors that such a model has not, so it "
                f"is another model (a conditional one?) and is not imported: {some}"
            )


def _unknown_format(checkpoint: Checkpoint) -> str:
    some = ", ".join(list(checkpoint)[:4])
    titles = "; ".join(known.title for known in FORMATS)
    words = first_words(checkpoint)
    counts = ", ".join(f"{word}. ({n})" for word, n in words.items())
    several = (
        f" It holds {counts}: `--state {next(iter(words))}` reads one of these."
        if 1 < len(words) < 6
        else ""
    )
    return f"{checkpoint.path} matches no known format (its keys begin with {some}). Known: {titles}.{several}"


def _check_fit(imported: Imported, known: Format, file: Path) -> None:
    own = family(imported.family).build(**imported.config).state_dict()
    unlike = [
        key
        for key in own
        if key not in imported.tensors or imported.tensors[key].shape != own[key].shape
    ]
    extra = [key for key in imported.tensors if key not in own]
    whole = [
        key
        for key, tensor in imported.tensors.items()
        if key in own and own[key].is_floating_point() and not tensor.is_floating_point()
    ]
    if whole:
        raise ModelError(
            f"{file} holds whole numbers of type {imported.tensors[whole[0]].dtype} where {whole[0]} has real ones: a quantised "
            "model, or one that was cast; save its weights as floats"
        )
    if unlike or extra:
        what = "the options given" if known.needs else f"a {known.title}"
        raise ModelError(
            f"{file} does not fit {what}: {', '.join([*unlike, *extra][:4])} differ from the model's"
        )


CARD_FILES = ("card.yaml", "trained.json", "weights.safetensors", "log.csv", "checkpoints")
"""What a card's folder may hold."""


def write_card(
    imported: Imported,
    folder: Path,
    name: str,
    trained_on: str,
    view: str,
    record: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Write an imported model as a card folder.

    Raises
    ------
    ModelError : a name that no model can have, no image set that is known here, or a card that lies there already, unless
        it is to be overwritten
    """
    checked_name("model", name)
    unknown = unknown_set(trained_on)
    if unknown:
        raise ModelError(f"{name} cannot have been trained on {trained_on!r}: {unknown}")
    _check_free(folder, overwrite)
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
        "notes": list(imported.notes),
        **record,
    }
    write_whole(folder / "weights.safetensors", lambda file: file.write(content))
    card = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    write_whole(folder / "card.yaml", lambda file: file.write(card.encode()))
    write_whole(
        folder / "trained.json",
        lambda file: file.write((json.dumps(trained, indent=1) + "\n").encode()),
    )


def _check_free(folder: Path, overwrite: bool) -> None:
    """No card lies in the folder, or it is to be overwritten: then nothing of its training is left to go on from."""
    there = [name for name in CARD_FILES if (folder / name).exists()]
    if there and not overwrite:
        raise ModelError(
            f"{folder} holds a card already ({', '.join(there)}); choose another --out, or give --overwrite"
        )
    (folder / "log.csv").unlink(missing_ok=True)
    for name in ("checkpoints", "lightning"):
        shutil.rmtree(folder / name, ignore_errors=True)
