"""Checkpoints of others: each importer against an independent forward computation, and every wrong file by its sentence."""

from __future__ import annotations

import importlib.util
import math
import os
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import SHARED
from torch.nn import functional as F

import oodbench as ob
from oodbench.cli import main
from oodbench.errors import ModelError
from oodbench.zoo.families import family
from oodbench.zoo.importers import FORMATS, convert, read_checkpoint, write_card


@pytest.fixture
def shared_weights() -> Path:
    """The folder of weights that others trained: OODBENCH_WEIGHTS, or `weights` beside the full data sets."""
    beside = Path(SHARED).parent / "weights" if SHARED else None
    folder = Path(os.environ["OODBENCH_WEIGHTS"]) if "OODBENCH_WEIGHTS" in os.environ else beside
    if folder is None or not folder.is_dir():
        pytest.skip("OODBENCH_WEIGHTS names no folder of weights that others trained")
    return folder


# --- Glow-PyTorch: a small file of its format, and its forward pass written out


def glow_pytorch_state(coupling, steps=2, scales=2, hidden=5, learn_top=True):
    torch.manual_seed(0)
    state, channels = {}, 1

    def conv(name, inward, outward, kernel, bias):
        state[f"{name}.conv.weight"] = 0.1 * torch.randn(outward, inward, kernel, kernel)
        if bias:
            state[f"{name}.conv.bias"] = 0.1 * torch.randn(outward)
            state[f"{name}.logs"] = 0.1 * torch.randn(outward, 1, 1)
        else:
            for part in ("bias", "logs"):
                state[f"{name}.actnorm.{part}"] = 0.1 * torch.randn(1, outward, 1, 1)

    for scale in range(scales):
        channels *= 4
        for step in range(steps):
            layer = f"flow.layers.{scale * (steps + 2) + 1 + step}"
            for part in ("bias", "logs"):
                state[f"{layer}.actnorm.{part}"] = 0.1 * torch.randn(1, channels, 1, 1)
            state[f"{layer}.invconv.weight"] = torch.linalg.qr(torch.randn(channels, channels))[0]
            conv(f"{layer}.block.0", channels // 2, hidden, 3, bias=False)
            conv(f"{layer}.block.2", hidden, hidden, 1, bias=False)
            conv(
                f"{layer}.block.4",
                hidden,
                channels if coupling == "affine" else channels // 2,
                3,
                bias=True,
            )
        if scale < scales - 1:
            conv(
                f"flow.layers.{(scale + 1) * (steps + 2) - 1}.conv",
                channels // 2,
                channels,
                3,
                bias=True,
            )
            channels //= 2
    if learn_top:
        conv("learn_top_fn", 2 * channels, 2 * channels, 3, bias=True)
    state["prior_h"] = torch.zeros(1, 2 * channels, 2, 2)
    return state, {"K": steps, "L": scales, "flow_coupling": coupling}


def reference_log_prob(state, options, y):
    """Nats of the format's own arithmetic: uninterleaved features, log-variances, output scales kept apart."""

    def scaled_conv(name, x):
        out = F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding=1)
        return out * torch.exp(3 * state[f"{name}.logs"])

    def normed_conv(name, x, padding):
        out = F.conv2d(x, state[f"{name}.conv.weight"], padding=padding)
        return (out + state[f"{name}.actnorm.bias"]) * torch.exp(state[f"{name}.actnorm.logs"])

    def gaussian(x, mean, logs):
        return (
            -0.5 * (2 * logs + (x - mean) ** 2 / torch.exp(2 * logs) + math.log(2 * math.pi))
        ).sum((1, 2, 3))

    total, steps = torch.zeros(len(y), dtype=y.dtype), options["K"]
    for scale in range(options["L"]):
        batch, channels, height, width = y.shape
        y = y.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        y = y.reshape(batch, 4 * channels, height // 2, width // 2)
        pixels = height * width // 4
        for step in range(steps):
            layer = f"flow.layers.{scale * (steps + 2) + 1 + step}"
            y = (y + state[f"{layer}.actnorm.bias"]) * torch.exp(state[f"{layer}.actnorm.logs"])
            total = total + pixels * state[f"{layer}.actnorm.logs"].sum()
            weight = state[f"{layer}.invconv.weight"]
            y = torch.einsum("ij,bjhw->bihw", weight, y)
            total = total + pixels * torch.slogdet(weight)[1]
            first, second = y.chunk(2, 1)
            h = F.relu(normed_conv(f"{layer}.block.0", first, 1))
            h = scaled_conv(f"{layer}.block.4", F.relu(normed_conv(f"{layer}.block.2", h, 0)))
            if options["flow_coupling"] == "affine":
                scale_factor = torch.sigmoid(h[:, 1::2] + 2)
                second = (second + h[:, 0::2]) * scale_factor
                total = total + torch.log(scale_factor).sum((1, 2, 3))
            else:
                second = second + h
            y = torch.cat([first, second], 1)
        if scale < options["L"] - 1:
            y, out = y.chunk(2, 1)
            h = scaled_conv(f"flow.layers.{(scale + 1) * (steps + 2) - 1}.conv", y)
            total = total + gaussian(out, h[:, 0::2], h[:, 1::2])
    top = state["prior_h"].to(y.dtype)
    if "learn_top_fn.logs" in state:
        top = scaled_conv("learn_top_fn", top)
    return total + gaussian(y, *top.chunk(2, 1))


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("coupling", "learn_top"), [("affine", True), ("affine", False), ("additive", True)]
)
def test_glow_pytorch(tmp_path, coupling, learn_top, prefix):
    state, options = glow_pytorch_state(coupling, learn_top=learn_top)
    torch.save({prefix + key: tensor for key, tensor in state.items()}, tmp_path / "glow.pt")
    imported = convert([tmp_path / "glow.pt"], {})
    glow = family(imported.family).build(**imported.config).double()
    glow.load_state_dict(imported.tensors)
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    noise = torch.rand(images.shape, dtype=torch.float64)
    double = {key: tensor.double() for key, tensor in state.items()}
    with torch.no_grad():
        found = glow.eval().log_prob_with(images, noise)
        expected = reference_log_prob(
            double, options, glow.dequantise(images, noise)
        ) - 64 * math.log(256)
    assert torch.allclose(found, expected, rtol=1e-6)  # the converted weights are float32


# --- pixel-cnn-pp: a small file of its format, and its forward pass written out


def pixel_cnn_pp_state(channels, filters=3, mixtures=2):
    torch.manual_seed(0)
    state = {}

    def add(name, *shape, kind):
        state[f"{name}.{kind}.weight_v"] = 0.3 * torch.randn(*shape)
        state[f"{name}.{kind}.weight_g"] = 0.5 + torch.rand(shape[0], *[1] * (len(shape) - 1))
        state[f"{name}.{kind}.bias"] = 0.3 * torch.randn(shape[1] if kind == "deconv" else shape[0])

    def block(name, kernel, skips):
        add(f"{name}.conv_input", filters, 2 * filters, *kernel, kind="conv")
        add(f"{name}.conv_out", 2 * filters, 2 * filters, *kernel, kind="conv")
        if skips:
            add(f"{name}.nin_skip", filters, 2 * skips * filters, kind="lin_a")

    for layers, counts, skips in (
        ("up_layers", (1, 1, 1), (0, 1)),
        ("down_layers", (1, 2, 2), (1, 2)),
    ):
        for scale, count in enumerate(counts):
            for number in range(count):
                block(f"{layers}.{scale}.u_stream.{number}", (2, 3), skips[0])
                block(f"{layers}.{scale}.ul_stream.{number}", (2, 2), skips[1])
    for scale in range(2):
        for stream, kernel in (("u", (2, 3)), ("ul", (2, 2))):
            add(f"downsize_{stream}_stream.{scale}", filters, filters, *kernel, kind="conv")
            add(f"upsize_{stream}_stream.{scale}", filters, filters, *kernel, kind="deconv")
    add("u_init", filters, channels + 1, 2, 3, kind="conv")
    add("ul_init.0", filters, channels + 1, 1, 3, kind="conv")
    add("ul_init.1", filters, channels + 1, 2, 1, kind="conv")
    add("nin_out", mixtures * (10 if channels == 3 else 3), filters, kind="lin_a")
    return state


def reference_parameters(state, x):
    """The format's own network: its streams, skips and shifts, with the weight norm undone by hand."""

    def weight(name):
        v = state[f"{name}.weight_v"]
        return (
            state[f"{name}.weight_g"]
            * v
            / v.flatten(1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1))
        )

    def conv(name, h, right=False, stride=1):
        w = weight(f"{name}.conv")
        height, width = w.shape[2:]
        side = (width - 1, 0) if right else ((width - 1) // 2, (width - 1) // 2)
        return F.conv2d(F.pad(h, (*side, height - 1, 0)), w, state[f"{name}.conv.bias"], stride)

    def grow(name, h, right):
        out = F.conv_transpose2d(
            h, weight(f"{name}.deconv"), state[f"{name}.deconv.bias"], 2, output_padding=1
        )
        out = out[:, :, :-1]
        return out[:, :, :, :-1] if right else out[:, :, :, 1:-1]

    def linear(name, h):
        return F.linear(
            h.permute(0, 2, 3, 1), weight(f"{name}.lin_a"), state[f"{name}.lin_a.bias"]
        ).permute(0, 3, 1, 2)

    def twice(h):
        return F.elu(torch.cat([h, -h], 1))

    def block(name, h, right, skip=None):
        inner = conv(f"{name}.conv_input", twice(h), right)
        if skip is not None:
            inner = inner + linear(f"{name}.nin_skip", twice(skip))
        a, b = conv(f"{name}.conv_out", twice(inner), right).chunk(2, 1)
        return h + a * torch.sigmoid(b)

    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    down, across = (
        (lambda h: F.pad(h, (0, 0, 1, 0))[:, :, :-1]),
        (lambda h: F.pad(h, (1, 0))[..., :-1]),
    )
    us, uls = (
        [down(conv("u_init", x))],
        [down(conv("ul_init.0", x)) + across(conv("ul_init.1", x, right=True))],
    )
    for scale in range(3):
        us.append(block(f"up_layers.{scale}.u_stream.0", us[-1], False))
        uls.append(block(f"up_layers.{scale}.ul_stream.0", uls[-1], True, us[-1]))
        if scale < 2:
            us.append(conv(f"downsize_u_stream.{scale}", us[-1], stride=2))
            uls.append(conv(f"downsize_ul_stream.{scale}", uls[-1], right=True, stride=2))
    u, ul = us.pop(), uls.pop()
    for scale in range(3):
        for number in range(1 if scale == 0 else 2):
            u = block(f"down_layers.{scale}.u_stream.{number}", u, False, us.pop())
            ul = block(
                f"down_layers.{scale}.ul_stream.{number}", ul, True, torch.cat([u, uls.pop()], 1)
            )
        if scale < 2:
            u, ul = (
                grow(f"upsize_u_stream.{scale}", u, False),
                grow(f"upsize_ul_stream.{scale}", ul, True),
            )
    return linear("nin_out", F.elu(ul))


def reference_mixture(parameters, x, mixtures):
    """Its loss: logits first, then for each channel means, log-scales and, in colour, coefficients."""
    channels = x.shape[1]
    logits, rest = parameters[:, :mixtures], parameters[:, mixtures:]
    rest = rest.unflatten(1, (channels, -1, mixtures))  # (B, C, kinds, K, H, W)
    joint = F.log_softmax(logits, 1)
    for channel in range(channels):
        mean = rest[:, channel, 0]
        if channel == 1:
            mean = mean + torch.tanh(rest[:, 0, 2]) * x[:, None, 0]
        if channel == 2:
            mean = (
                mean
                + torch.tanh(rest[:, 1, 2]) * x[:, None, 0]
                + torch.tanh(rest[:, 2, 2]) * x[:, None, 1]
            )
        inverse = torch.exp(-rest[:, channel, 1].clamp(min=-7))
        value = x[:, None, channel]
        upper = torch.where(value > 0.999, 1.0, torch.sigmoid(inverse * (value - mean + 1 / 255)))
        lower = torch.where(value < -0.999, 0.0, torch.sigmoid(inverse * (value - mean - 1 / 255)))
        joint = joint + torch.log(upper - lower)
    return torch.logsumexp(joint, 1).sum((1, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_cnn_pp(tmp_path, channels):
    state = pixel_cnn_pp_state(channels)
    torch.save({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "pixelcnn.pt")
    imported = convert([tmp_path / "pixelcnn.pt"], {})
    model = family(imported.family).build(**imported.config)
    model.load_state_dict(imported.tensors)
    images = torch.randint(100, 160, (2, *imported.config["shape"]), dtype=torch.uint8)
    images[:, :, :2] = torch.tensor([0, 255], dtype=torch.uint8)[:, None]
    x = images.double() / 127.5 - 1
    with torch.no_grad():
        found = model.double().eval().log_prob(images)
        double = {key: tensor.double() for key, tensor in state.items()}
        expected = reference_mixture(reference_parameters(double, x), x, mixtures=2)
    assert torch.allclose(found, expected, rtol=1e-5)


# --- three checkpoints that others trained


def imported_model(tmp_path, name, files, trained_on, *options, view=""):
    arguments = [
        "import",
        *map(str, files),
        "--out",
        str(tmp_path / name),
        "--trained-on",
        trained_on,
        "--view",
        view,
    ]
    result = CliRunner().invoke(
        main, arguments + [word for option in options for word in ("--option", option)]
    )
    assert result.exit_code == 0, result.output
    return ob.load_model(str(tmp_path / name))


def float_images(identifier):
    return torch.from_numpy(np.array(ob.load_images(identifier).images))


def test_likelihood_regret_vae(tmp_path, shared_weights):
    folder, view = shared_weights / "likelihood-regret-fmnist", "resize32-bilinear-aa"
    files = [folder / "netG_pixel.pth", folder / "netE_pixel.pth"]
    model = imported_model(tmp_path, "xiao", files, "fashionmnist", view=view)
    down, up = (
        torch.load(folder / name, weights_only=True, map_location="cpu")
        for name in ("netE_pixel.pth", "netG_pixel.pth")
    )
    images = float_images(f"fashionmnist/test[:6]@{view}")

    def norm(state, name, x):
        parts = [
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        ]
        return F.relu(F.batch_norm(x, *parts))

    h = images / 255
    for conv, batch_norm in [("input-conv", "input-BN"), ("pyramid:32-64:conv", "pyramid:64:batchnorm"),
                             ("pyramid:64-128:conv", "pyramid:128:batchnorm")]:  # fmt: skip
        h = norm(
            down,
            f"main.{batch_norm}",
            F.conv2d(h, down[f"main.{conv}.weight"], stride=2, padding=1),
        )
    mean, log_variance = (
        F.conv2d(h, down[f"{c}.weight"], down[f"{c}.bias"]).flatten(1) for c in ("conv1", "conv2")
    )
    with torch.no_grad():
        found_mean, found_log_std = model.posterior(images / 255 * 2 - 1)
    assert torch.allclose(found_mean, mean, atol=1e-4)
    assert torch.allclose(found_log_std, log_variance / 2, atol=1e-4)

    z = mean
    h = z[:, :, None, None]
    for conv, batch_norm, stride, padding in [
        ("initial:100-128:convt", "initial:128:batchnorm", 1, 0),
        ("pyramid:128-64:convt", "pyramid:64:batchnorm", 2, 1),
        ("pyramid:64-32:convt", "pyramid:32:batchnorm", 2, 1),
    ]:
        h = norm(
            up,
            f"main.{batch_norm}",
            F.conv_transpose2d(h, up[f"main.{conv}.weight"], stride=stride, padding=padding),
        )
    logits = F.conv_transpose2d(h, up["main.final:32-1:convt.weight"], stride=2, padding=1)
    expected = -F.cross_entropy(logits, images[:, 0].long(), reduction="none").double().sum((1, 2))
    with torch.no_grad():
        assert torch.allclose(model.log_likelihood(images / 255 * 2 - 1, z), expected, rtol=1e-5)


def test_likelihood_regret_vae_prefers_mnist(tmp_path, shared_weights):
    """Its authors' saved likelihoods (200 images a set, 1,000 draws) give 0.191 and 3.19 bits/dim in-dist."""
    folder, view = shared_weights / "likelihood-regret-fmnist", "resize32-bilinear-aa"
    model = imported_model(
        tmp_path, "xiao", sorted(folder.glob("*.pth")), "fashionmnist", view=view
    )
    sets = [ob.load_images(f"{name}/test[:100]@{view}") for name in ("fashionmnist", "mnist")]
    test, ood = (ob.measure(model, images, "log_prob")["log_prob"] for images in sets)
    assert ob.auroc(-test, -ood).value == pytest.approx(0.19, abs=0.07)
    assert ob.bits_per_dim(test, (1, 32, 32)).mean() == pytest.approx(3.1, abs=0.2)


def test_pytorch_example_vae(tmp_path, shared_weights):
    file = shared_weights / "mlp-vae-fmnist" / "vae_fashion_mnist.pth"
    model = imported_model(tmp_path, "mlp", [file], "fashionmnist", "shape=[1,28,28]")
    assert "no density of 8-bit images" in (tmp_path / "mlp" / "card.yaml").read_text()
    state = torch.load(file, weights_only=True, map_location="cpu")
    x = float_images("fashionmnist/test[:4]") / 255

    def linear(name, h):
        return F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"])

    h = F.relu(linear("fc1", x.flatten(1)))
    probability = torch.sigmoid(linear("fc4", F.relu(linear("fc3", linear("fc21", h)))))
    expected = -F.binary_cross_entropy(probability, x.flatten(1), reduction="none").double().sum(1)
    with torch.no_grad():
        mean, log_std = model.posterior(2 * x - 1)
        assert torch.allclose(mean, linear("fc21", h), atol=1e-5)
        assert torch.allclose(log_std, linear("fc22", h) / 2, atol=1e-5)
        assert torch.allclose(model.log_likelihood(2 * x - 1, mean), expected, rtol=1e-5)


def test_masked_pixelcnn(tmp_path, shared_weights):
    file = shared_weights / "pixelcnn-mnist" / "PixelCNN_MNIST.pth"
    options = ("shape=[1,28,28]", "repeats=5", "mean=0.1307", "std=0.3081")
    model = imported_model(tmp_path, "pixel", [file], "mnist", *options)
    state = torch.load(file, weights_only=True, map_location="cpu")
    images = float_images("mnist/test[:20]")

    def conv(name, h):
        weight = state[f"{name}.weight"] * state[f"{name}.mask"]
        return F.conv2d(h, weight, state[f"{name}.bias"], padding=weight.shape[2] // 2)

    h = conv("conv1", (images / 255 - 0.1307) / 0.3081)
    for _ in range(5):
        h = h + F.relu(
            conv("block.conv3", F.relu(conv("block.conv2", F.relu(conv("block.conv1", h)))))
        )
    logits = conv("conv3", F.relu(conv("conv2", F.relu(h))))
    expected = -F.cross_entropy(logits, images[:, 0].long(), reduction="none").double().sum((1, 2))
    with torch.no_grad():
        found = model.log_prob(images)
    assert torch.allclose(found, expected, rtol=1e-5)
    assert ob.bits_per_dim(found.numpy(), (1, 28, 28)).mean() < 1.5


# --- untrusted files


class Evil:
    def __reduce__(self):
        return os.mkdir, ("was-here",)


def sentence(path, options=()):
    with pytest.raises(ModelError) as raised:
        convert([path], dict(options))
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_each_wrong_file_has_its_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(Evil()))
    assert "holds more than tensors and is not opened" in sentence(path)
    torch.save(Evil(), path)
    assert "holds more than tensors and is not opened" in sentence(path)
    assert not (tmp_path / "was-here").exists()
    path.write_bytes(b"<!DOCTYPE html>")
    assert "HTML page" in sentence(path)
    with tarfile.open(path, "w"):
        pass
    assert "cannot be opened" in sentence(path)
    torch.save({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:400])
    assert "cut short, damaged or no checkpoint" in sentence(path)
    torch.save([1, 2], path)
    assert "not a state dict of tensors but a list" in sentence(path)
    for empty in ({}, {"epoch": 3}, {0: torch.ones(1)}, {"loss": torch.ones(())}):
        torch.save(empty, path)
        assert "not a state dict of tensors" in sentence(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    assert "cut short, damaged or no checkpoint" in sentence(path)
    torch.save({"some.weight": torch.ones(1)}, path)
    assert "matches no known format (its keys begin with some.weight)" in sentence(path)
    assert "there is no file" in sentence(tmp_path / "none.pt")


def test_missing_options_files_and_shapes_are_named(tmp_path):
    state = {
        f"{name}.{kind}": torch.ones(2, 2)
        for name in ("fc1", "fc21", "fc22", "fc3", "fc4")
        for kind in ("weight", "bias")
    }
    torch.save(state, tmp_path / "vae.pt")
    assert "does not hold shape: give --option NAME=VALUE" in sentence(tmp_path / "vae.pt")
    assert "does not fit the options given: encoder.1.weight" in sentence(
        tmp_path / "vae.pt", {"shape": [1, 8, 8]}.items()
    )
    torch.save({"main.input-conv.weight": torch.ones(1)}, tmp_path / "netE.pt")
    assert "comes in 2 files; give all of them" in sentence(tmp_path / "netE.pt")


def test_an_imported_card_is_a_card(tmp_path):
    state, _ = glow_pytorch_state("affine")
    torch.save(state, tmp_path / "glow.pt")
    imported = convert([tmp_path / "glow.pt"], {})
    write_card(imported, tmp_path / "card", "card", "mnist", "", {})
    found = ob.load_model(str(tmp_path / "card")).state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in imported.tensors.items())
    assert read_checkpoint(tmp_path / "card" / "weights.safetensors").keys() == found.keys()


# --- every tensor is accounted for, every choice told


def saved(tmp_path, value, name="glow.pt"):
    torch.save(value, tmp_path / name)
    return tmp_path / name


def test_a_class_conditional_glow_is_not_an_unconditional_one(tmp_path):
    state, _ = glow_pytorch_state("affine")
    state["project_ycond.linear.weight"] = torch.ones(16, 10)
    state["project_class.linear.bias"] = torch.ones(10)
    said = sentence(saved(tmp_path, state))
    assert "holds 2 tensors that such a model has not" in said
    assert "project_ycond.linear.weight, project_class.linear.bias" in said


def formats():
    """A file or two of each format, with the options that it needs."""
    shapes = {"fc1": (5, 16), "fc21": (3, 5), "fc22": (3, 5), "fc3": (5, 3), "fc4": (16, 5)}
    vae = {f"{name}.weight": torch.rand(shape) for name, shape in shapes.items()}
    vae |= {f"{name}.bias": torch.rand(shape[0]) for name, shape in shapes.items()}
    return {
        "glow": ([glow_pytorch_state("affine")[0]], {}),
        "pixelcnn++": ([pixel_cnn_pp_state(3)], {}),
        "dcgan-vae": (list(likelihood_regret_states()), {}),
        "mlp-vae": ([vae], {"shape": [1, 4, 4]}),
        "masked-pixelcnn": (
            [masked_state()], {"shape": [3, 8, 8], "repeats": 2, "mean": 0.5, "std": [0.2, 0.3, 0.4]},
        ),
    }  # fmt: skip


def likelihood_regret_states(width=2, latent=3):
    torch.manual_seed(0)

    def norm(name, n):
        kinds = ("weight", "bias", "running_mean", "running_var")
        return {f"main.{name}.{kind}": torch.rand(n) for kind in kinds} | {
            f"main.{name}.num_batches_tracked": torch.tensor(7)
        }

    encoder = {f"conv{n}.weight": torch.rand(latent, 4 * width, 4, 4) for n in (1, 2)}
    encoder |= {f"conv{n}.bias": torch.rand(latent) for n in (1, 2)}
    encoder |= {"main.input-conv.weight": torch.rand(width, 1, 4, 4), **norm("input-BN", width)}
    decoder = {
        f"main.initial:{latent}-{4 * width}:convt.weight": torch.rand(latent, 4 * width, 4, 4)
    } | norm(f"initial:{4 * width}:batchnorm", 4 * width)
    for n in (width, 2 * width):
        encoder |= {f"main.pyramid:{n}-{2 * n}:conv.weight": torch.rand(2 * n, n, 4, 4)}
        encoder |= norm(f"pyramid:{2 * n}:batchnorm", 2 * n)
        decoder |= {f"main.pyramid:{2 * n}-{n}:convt.weight": torch.rand(2 * n, n, 4, 4)}
        decoder |= norm(f"pyramid:{n}:batchnorm", n)
    return encoder, decoder | {f"main.final:{width}-1:convt.weight": torch.rand(width, 256, 4, 4)}


def masked_state(hidden=2, channels=3):
    torch.manual_seed(0)
    layers = {
        "conv1": (channels, 2 * hidden, 7), "block.conv1": (2 * hidden, hidden, 1), "block.conv2": (hidden, hidden, 3),
        "block.conv3": (hidden, 2 * hidden, 1), "conv2": (2 * hidden, 2 * hidden, 1), "conv3": (2 * hidden, 256 * channels, 1),
    }  # fmt: skip
    state = {}
    for name, (inward, outward, kernel) in layers.items():
        state[f"{name}.weight"] = torch.randn(outward, inward, kernel, kernel)
        state[f"{name}.bias"] = torch.randn(outward)
        mask = torch.ones(outward, inward, kernel, kernel)
        mask[:, :, kernel // 2, kernel // 2 + (name != "conv1") :] = 0
        mask[:, :, kernel // 2 + 1 :] = 0
        state[f"{name}.mask"] = mask
    return state


@pytest.mark.parametrize("name", formats())
def test_a_missing_and_a_surplus_tensor_are_named_in_every_format(tmp_path, name):
    states, options = formats()[name]
    paths = [saved(tmp_path, state, f"{number}.pt") for number, state in enumerate(states)]
    whole = convert(paths, options)
    assert whole.family == name
    for path, state in zip(paths, states, strict=True):
        torch.save(state | {"stray.weight": torch.ones(2)}, path)
        with pytest.raises(ModelError, match=r"holds 1 tensors that .* stray\.weight"):
            convert(paths, options)
        for key in list(state)[:: -(-len(state) // 8)]:
            if key.startswith("learn_top_fn.conv.weight") or key.endswith(".mask"):
                continue  # not read, or compared only where it is there
            torch.save({k: v for k, v in state.items() if k != key}, path)
            with pytest.raises(ModelError, match=r"glow|\.pt"):
                convert(paths, options)
        torch.save(state, path)
    extra = saved(tmp_path, {"fc9.weight": torch.ones(1)}, "extra.pt")
    with pytest.raises(ModelError, match="and no other"):
        convert([*paths, extra], options)


def test_wrappers_list_their_entries_and_one_is_chosen(tmp_path):
    state, _ = glow_pytorch_state("affine")
    ema = {key: tensor + (tensor != 0) * 0.01 for key, tensor in state.items()}
    path = saved(
        tmp_path,
        {
            "epoch": 3,
            "model": state,
            "ema": {"shadow": ema},
            "optimizer": {"state": {0: {"m": torch.ones(3)}}},
        },
    )
    said = sentence(path)
    assert (
        f"holds several states: model ({len(state)} tensors), ema.shadow ({len(ema)} tensors)"
        in said
    )
    found = {name: convert([path], {}, name) for name in ("model", "ema.shadow")}
    assert any(
        "'ema.shadow' is read; it holds epoch (int)" in note for note in found["ema.shadow"].notes
    )
    key = "scales.0.0.layers.0.bias"
    moved = found["ema.shadow"].tensors[key] - found["model"].tensors[key]
    assert torch.allclose(moved, torch.full_like(moved, 0.01), atol=1e-6)
    with pytest.raises(ModelError, match="none is called 'emma': model"):
        convert([path], {}, "emma")
    lightning = {f"model.{key}": tensor for key, tensor in state.items()}
    lightning |= {f"ema_model.{key}": tensor for key, tensor in ema.items()}
    path = saved(tmp_path, {"state_dict": lightning, "epoch": 3}, "lightning.ckpt")
    assert f"It holds model. ({len(state)}), ema_model. ({len(ema)}): `--state model`" in sentence(
        path
    )
    chosen = convert([path], {}, "ema_model")
    assert torch.equal(chosen.tensors[key], found["ema.shadow"].tensors[key])
    assert any(f"{len(state)} others not" in note for note in chosen.notes)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.model."]
)
def test_common_prefixes_are_dropped_and_named(tmp_path, prefix):
    state, _ = glow_pytorch_state("affine")
    found = convert([saved(tmp_path, {prefix + key: tensor for key, tensor in state.items()})], {})
    plain = convert([saved(tmp_path, state)], {})
    assert found.tensors.keys() == plain.tensors.keys()
    dropped = [note for note in found.notes if "prefix" in note]
    assert [note.split()[3] for note in dropped] == [f"{part}." for part in prefix.split(".")[:-1]]
    torch.save(
        {"module." + k if "block" in k else k: v for k, v in state.items()}, tmp_path / "half.pt"
    )
    assert "has no 'flow.layers.1.block.0.conv.weight'" in sentence(tmp_path / "half.pt")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"shape": 28}, r"shape must be \[C, H, W\], for instance \[1, 28, 28\], not 28"),
        ({"shape": [3, 8, -8]}, "shape must be"),
        ({"shape": ["3", 8, 8]}, "shape must be"),
        ({"repeats": -1}, "repeats must be a whole number of at least 1, not -1"),
        ({"repeats": 1.5}, "repeats must be"),
        ({"repeats": True}, "repeats must be"),
        ({"std": 0}, "std must be above 0"),
        ({"std": [0.1, 0.2]}, "std must be one number, or one for each of 3 channels"),
        ({"mean": "0.5"}, "mean must be one number"),
        ({"mean": [0.1, float("nan"), 0.1]}, "mean must be one number"),
        ({"men": 0.5}, "takes no option 'men'; did you mean 'mean'"),
    ],
)
def test_options_are_typed_and_checked(tmp_path, option, said):
    (state,), options = formats()["masked-pixelcnn"]
    with pytest.raises(ModelError, match=said):
        convert([saved(tmp_path, state)], options | option)


def test_a_mean_for_each_channel_standardises_each(tmp_path):
    (state,), options = formats()["masked-pixelcnn"]
    imported = convert([saved(tmp_path, state)], options | {"mean": [0.1, 0.2, 0.3]})
    model = family(imported.family).build(**imported.config)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4]))
    assert torch.allclose(model._standardised(images), (images / 255 - mean) / std, atol=1e-6)
    other = saved(
        tmp_path, state | {"conv1.mask": torch.ones_like(state["conv1.mask"])}, "other.pt"
    )
    with pytest.raises(ModelError, match=r"conv1\.mask is not raster order's"):
        convert([other], options)


def test_a_card_s_numbers_are_checked_when_it_is_read(tmp_path):
    from oodbench.errors import SuiteError
    from oodbench.zoo.cards import load_card

    card = "name: m\nfamily: gated-pixelcnn\ntrained_on: mnist\nlikelihood: exact\nconfig: "
    for config, said in {
        "{shape: 28}": "shape must be", "{}": "shape must be", "{shape: [1, 28, 28], std: 0}": "std must be above 0",
        "{shape: [3, 8, 8], mean: [0.5, 0.5]}": "one for each of 3 channels",
    }.items():  # fmt: skip
        (tmp_path / "card.yaml").write_text(card + config)
        with pytest.raises(SuiteError, match=rf"card\.yaml:5: config: .*{said}"):
            load_card(str(tmp_path))
    (tmp_path / "card.yaml").write_text(
        card + "{shape: [3, 8, 8], features: 3, mean: [0.1, 0.2, 0.3]}"
    )
    assert load_card(str(tmp_path)).shape == (3, 8, 8)


def test_nan_weights_and_a_prior_that_is_none_are_refused(tmp_path):
    state, _ = glow_pytorch_state("affine")
    assert "prior_h is not zero" in sentence(
        saved(tmp_path, state | {"prior_h": state["prior_h"] + 1})
    )
    broken = state | {"learn_top_fn.logs": state["learn_top_fn.logs"] / 0}
    assert "learn_top_fn.logs holds NaN or infinite" in sentence(saved(tmp_path, broken))


def test_whole_numbers_for_weights_are_refused(tmp_path):
    state, _ = glow_pytorch_state("affine")
    name = next(name for name in state if name.endswith(("invconv.weight", "lower")))
    said = sentence(saved(tmp_path, state | {name: state[name].to(torch.int8)}))
    assert "whole numbers of type torch.int8" in said
    assert "save its weights as floats" in said


def test_importing_over_a_card_asks(tmp_path):
    state, _ = glow_pytorch_state("affine")
    arguments = [
        "import",
        str(saved(tmp_path, state)),
        "--out",
        str(tmp_path / "card"),
        "--trained-on",
        "mnist",
    ]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0
    assert (
        "learn_top_fn.conv.weight is not used, since it multiplies prior_h, which is zero"
        in first.output
    )
    (tmp_path / "card" / "log.csv").write_text("step\n")
    (tmp_path / "card" / "checkpoints").mkdir()
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "holds a card already" in again.output
    assert "--overwrite" in again.output
    assert (tmp_path / "card" / "log.csv").exists()
    assert CliRunner().invoke(main, [*arguments, "--overwrite"]).exit_code == 0
    assert not (tmp_path / "card" / "log.csv").exists()
    assert not (tmp_path / "card" / "checkpoints").exists()


@pytest.mark.parametrize(
    "options", [["shape"], ["shape=[1,"], ["repeats=1", "repeats=2"], ["x=2026-13-45"]]
)
def test_options_that_cannot_be_read_are_one_sentence(tmp_path, options):
    words = [word for option in options for word in ("--option", option)]
    path = saved(tmp_path, glow_pytorch_state("affine")[0])
    found = CliRunner().invoke(
        main, ["import", str(path), "--out", "x", "--trained-on", "mnist", *words]
    )
    assert found.exit_code == 1
    assert found.output.startswith("Error: --option ")


# the script on public checkpoints


def published_script():
    path = Path(__file__).parents[1] / "benchmarks" / "published_models.py"
    spec = importlib.util.spec_from_file_location("published_models", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    return module


def test_every_format_has_a_public_checkpoint_with_its_source():
    script = published_script()
    assert len(script.PUBLISHED) == len(FORMATS)
    assert all(
        one.where.startswith("https://github.com/") and one.licence for one in script.PUBLISHED
    )


def test_public_checkpoints_that_are_here_are_measured_and_the_others_named(
    tmp_path, monkeypatch, capsys
):
    script = published_script()
    folder = tmp_path / "files" / "deeper"
    folder.mkdir(parents=True)
    torch.save(pixel_cnn_pp_state(3), folder / script.PUBLISHED[1].files[0])
    torch.save({"a": torch.zeros(1)}, folder / script.PUBLISHED[4].files[0])
    arguments = [str(tmp_path / "files"), "--limit", "8", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["published_models.py", *arguments])
    script.main()  # no exit code but 0
    out = capsys.readouterr().out
    told = {part.split(":")[0]: part for part in out.split("\n\n")}
    told = {name.strip(): part for name, part in told.items()}
    assert "not measured: glow_affine_coupling.pt is not below" in told["glow-y0ast"]
    assert "ours: " in told["pixelcnn-pclucas14"]
    assert "likelihood" in told["pixelcnn-pclucas14"]
    assert (
        "not measured: netE_pixel.pth, netG_pixel.pth is not below" in told["vae-likelihood-regret"]
    )
    assert "not measured: " in told["vae-pytorch-example"]
    assert "reported: 2.95" in told["pixelcnn-pclucas14"]
