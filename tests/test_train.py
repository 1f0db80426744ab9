"""Training: a card in, a complete card out, resumable, with ref never trained on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

import oodbench as ob
from oodbench.errors import MissingDataError, ModelError
from oodbench.metrics.ranking import area_under_roc
from oodbench.zoo.cards import Recipe, load_card
from oodbench.zoo.train import Dealt, Fit, _loader, mutate, train

CARD = """\
name: tiny
family: glow
config: {shape: [1, 28, 28], scales: 2, steps: 1, hidden: 4}
trained_on: tiny
likelihood: uniform dequantisation, one draw
recipe: {seed: 3, steps: STEPS, batch_size: 16, learning_rate: 1e-2, validate_every: 8, mutation: MUTATION}
"""


@pytest.fixture
def card(tmp_path, home, monkeypatch):
    """A tiny card over a folder of real images."""
    images = ob.load_images("mnist/test[:400]").images
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "tiny_train.npz", images=images[:, 0])
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path / "data"))

    def make(name="card", steps=16, mutation=0.0):
        folder = tmp_path / name
        folder.mkdir()
        text = CARD.replace("STEPS", str(steps)).replace("MUTATION", str(mutation))
        (folder / "card.yaml").write_text(text)
        return load_card(str(folder))

    return make


def test_a_card_is_trained_into_a_loadable_card(card, tmp_path):
    record = train(card(steps=80), tmp_path / "out", "cpu", 1, "oodbench train tiny")
    assert record["steps"] == 80
    assert record["train"]["set"] == "tiny/train"
    assert json.loads((tmp_path / "out" / "trained.json").read_text()) == record
    assert "ref_bits_per_dim" in (tmp_path / "out" / "log.csv").read_text()
    model = ob.load_model(str(tmp_path / "out"))
    images = ob.load_images("tiny/ref", like=model)
    log_prob = ob.measure(model, images, "log_prob")["log_prob"]
    assert ob.bits_per_dim(log_prob, images.shape).mean() == pytest.approx(
        record["ref_bits_per_dim"], abs=0.1
    )
    assert record["ref_bits_per_dim"] < 8


def test_the_same_seed_gives_the_same_weights(card, tmp_path):
    made = card()
    first, second = (train(made, tmp_path / name, "cpu", 1) for name in ("one", "two"))
    assert first["weights_sha256"] == second["weights_sha256"]


def test_training_goes_on_from_its_last_checkpoint(card, tmp_path, capsys):
    train(card("short", steps=8), tmp_path / "out", "cpu", 1)
    record = train(card("long", steps=16), tmp_path / "out", "cpu", 1)
    assert record["steps"] == 16
    log = pd.read_csv(tmp_path / "out" / "log.csv")
    assert log.step.tolist() == [7, 15]  # of both sittings
    assert log.notna().all(axis=None)
    assert load_card(str(tmp_path / "out")).recipe.steps == 16
    assert (
        train(load_card(str(tmp_path / "long")), tmp_path / "out", "cpu", 1) == record
    )  # nothing left to do


def test_ref_and_train_share_no_image(card):
    card()
    train_set, ref = ob.load_images("tiny/train").images, ob.load_images("tiny/ref").images
    assert len(train_set) == 360
    assert len(ref) == 40
    assert not {x.tobytes() for x in train_set} & {x.tobytes() for x in ref}


def test_a_background_model_sees_mutated_pixels(card, tmp_path):
    record = train(card("noisy", mutation=0.3), tmp_path / "out", "cpu", 1)
    assert record["recipe"]["mutation"] == 0.3


def test_mutation_replaces_the_stated_share_of_pixels():
    images = torch.full((50, 3, 32, 32), 7, dtype=torch.uint8)
    changed = (
        (mutate(images, 0.2, torch.Generator().manual_seed(0)) != images).double().mean().item()
    )
    assert changed == pytest.approx(0.2 * 255 / 256, abs=0.005)
    assert torch.equal(mutate(images, 0.0), images)
    values = mutate(images, 1.0, torch.Generator().manual_seed(0)).double()
    assert values.mean().item() == pytest.approx(127.5, abs=1)


class Exploding(torch.nn.Module):
    """Its loss has an infinite gradient at black images."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def loss(self, images):
        return torch.sqrt(images.double().flatten(1).sum(1) * self.weight)


def test_a_step_without_a_finite_gradient_is_left_out():
    fit = Fit(Exploding(), Recipe(steps=1, learning_rate=0.1))
    optimiser = torch.optim.SGD(fit.parameters(), 0.1)
    for images, moves in ((torch.zeros(2, 1, 2, 2), False), (torch.ones(2, 1, 2, 2), True)):
        before = fit.model.weight.item()
        optimiser.zero_grad()
        (fit.model.loss(images).mean() / 4).backward()
        fit.configure_gradient_clipping(optimiser)
        optimiser.step()
        assert (fit.model.weight.item() != before) is moves
        assert np.isfinite(fit.model.weight.item())


class Recording(Logger):
    """A logger as a person may bring: told metrics, and shown images by `log_image`."""

    name, version = "recording", 0
    told, shown = [], []

    def __init__(self, save_dir):
        super().__init__()
        self.folder = save_dir

    @property
    def experiment(self):
        return None

    def log_hyperparams(self, *_, **__):
        pass

    def log_metrics(self, metrics, step=None):
        self.told.append((step, dict(metrics)))

    def log_image(self, key, images, step):
        self.shown.append((key, step, *images))


def test_a_logger_is_told_metrics_and_shown_early_samples(card, tmp_path):
    Recording.told.clear()
    Recording.shown.clear()
    path = f"{__name__}:Recording"
    record = train(card(steps=32), tmp_path / "out", "cpu", 1, logger=path)
    assert [step for step, found in Recording.told if "ref_bits_per_dim" in found] == [
        7,
        15,
        23,
        31,
    ]
    assert [step for _, step, _ in Recording.shown] == [8, 16, 32]  # validations 1, 2 and 4
    assert all(Path(shown).stat().st_size > 100 for *_, shown in Recording.shown)
    plain = train(card("again", steps=32), tmp_path / "plain", "cpu", 1)
    assert plain["weights_sha256"] == record["weights_sha256"]  # drawing changes no training
    assert not (tmp_path / "plain" / "previews").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no_such_module.Logger", "No module named"), ("pytorch_lightning.loggers.NoLogger", "has no attribute"),
        ("pathlib.Path", "no logger of Lightning"), ("Logger", "cannot be had"),
    ],
)  # fmt: skip
def test_what_is_no_logger_is_named_before_work(card, tmp_path, path, said):
    with pytest.raises(ModelError, match=said):
        train(card(), tmp_path / "out", "cpu", 1, logger=path)
    assert not (tmp_path / "out").exists()


def test_the_last_step_is_validated_too(card, tmp_path):
    record = train(card(steps=60), tmp_path / "out", "cpu", 1)
    log = pd.read_csv(tmp_path / "out" / "log.csv")
    assert log[log.ref_bits_per_dim.notna()].step.tolist() == [7, 15, 23, 31, 39, 47, 55, 60]
    assert record["steps"] == 60
    assert record["ref_bits_per_dim"] == pytest.approx(log.ref_bits_per_dim.min(), abs=1e-4)
    assert log.ref_bits_per_dim.idxmin() == len(log) - 1  # the best one here
    model = ob.load_model(str(tmp_path / "out"))
    found = ob.measure(model, ob.load_images("tiny/ref", like=model), "log_prob")["log_prob"]
    assert ob.bits_per_dim(found, (1, 28, 28)).mean() == pytest.approx(
        record["ref_bits_per_dim"], abs=0.1
    )


def test_settings_that_exclude_one_another_are_refused_before_work(card, tmp_path):
    made = card()

    def said(**changes):
        recipe = made.recipe.model_copy(update=changes)
        with pytest.raises(ModelError) as raised:
            train(made.model_copy(update={"recipe": recipe}), tmp_path / "out", "cpu", 1)
        assert not (tmp_path / "out").exists()
        return str(raised.value)

    assert "recipe.validate_every is 17, more than the 16 steps" in said(validate_every=17)
    assert "tiny/train has 360 images, fewer than a batch of 361" in said(batch_size=361)


def test_another_card_s_training_is_not_gone_on_with(card, tmp_path):
    train(card(), tmp_path / "out", "cpu", 1)
    with pytest.raises(ModelError, match="holds the training of another card or recipe"):
        train(card("other", mutation=0.1), tmp_path / "out", "cpu", 1)


def test_a_device_that_is_not_here_is_one_sentence(card, tmp_path):
    with pytest.raises(ModelError, match="the device 'warp' cannot be trained on here"):
        train(card(), tmp_path / "out", "warp", 1)


def test_a_training_that_diverges_is_told(card, tmp_path):
    made = card()
    recipe = made.recipe.model_copy(
        update={"learning_rate": 1e30, "gradient_clip": 1e30, "warmup": 0}
    )
    with pytest.raises(ModelError, match="diverged"):
        train(made.model_copy(update={"recipe": recipe}), tmp_path / "out", "cpu", 1)


def test_what_cannot_be_trained_says_why(card, home, tmp_path):
    made = card()
    with pytest.raises(ModelError, match="no recipe"):
        train(made.model_copy(update={"recipe": None}), tmp_path / "out")
    with pytest.raises(MissingDataError, match="oodbench data fetch kmnist"):
        train(made.model_copy(update={"trained_on": "kmnist"}), tmp_path / "out")


def test_training_watches_how_well_raw_likelihood_detects(card, tmp_path):
    made = card()
    watching = made.recipe.model_copy(update={"watch": ["fashionmnist"]})
    train(made.model_copy(update={"recipe": watching}), tmp_path / "out", "cpu", 1)
    log = pd.read_csv(tmp_path / "out" / "log.csv")
    model = ob.load_model(str(tmp_path / "out"))
    scores = {
        name: -ob.measure(model, ob.load_images(name), "log_prob")["log_prob"]
        for name in ("tiny/ref", "fashionmnist[:500]")
    }
    expected = area_under_roc(scores["tiny/ref"], scores["fashionmnist[:500]"])
    assert log.auroc_fashionmnist.iloc[-1] == pytest.approx(
        expected, abs=5e-3
    )  # of the weights as stored


def test_weights_are_stored_in_half_precision_where_that_changes_nothing(
    card, tmp_path, monkeypatch
):
    monkeypatch.setattr("oodbench.zoo.train.HALF_FROM", 16)  # the tiny model's largest tensors
    record = train(card(), tmp_path / "half", "cpu", 1)
    assert record["storage"] == "float16"
    assert record["storage_moves_bits_per_dim"] < 1e-3
    monkeypatch.setattr("oodbench.zoo.train.HALF_LIMIT", 0)
    assert train(card("again"), tmp_path / "full", "cpu", 1)["storage"] == "float32"
    half, full = (tmp_path / name / "weights.safetensors" for name in ("half", "full"))
    assert half.stat().st_size < 0.95 * full.stat().st_size
    images = ob.load_images("tiny/ref")
    one, two = (
        ob.measure(ob.load_model(str(path.parent)), images, "log_prob")["log_prob"]
        for path in (half, full)
    )
    assert ob.bits_per_dim(one - two, images.shape) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("realnvp", "couplings: 1, hidden: 8"),
        ("gated-pixelcnn", "features: 8, layers: 1"),
        ("vae", "latent: 4, width: 2"),
        ("hierarchical-vae", "latents: [1, 2], width: 8"),
        ("diffusion", "width: 8, terms: 2"),
    ],
)
def test_every_family_learns(card, tmp_path, family, config):
    made = card(steps=24)
    text = (made.folder / "card.yaml").read_text()
    old = "family: glow\nconfig: {shape: [1, 28, 28], scales: 2, steps: 1, hidden: 4}"
    assert old in text
    (made.folder / "card.yaml").write_text(
        text.replace(old, f"family: {family}\nconfig: {{shape: [1, 28, 28], {config}}}")
    )
    train(load_card(str(made.folder)), tmp_path / "out", "cpu", 1)
    validated = pd.read_csv(tmp_path / "out" / "log.csv").ref_bits_per_dim
    assert validated.iloc[-1] < validated.iloc[0]


def test_images_are_dealt_out_without_overlap():
    sampler = Dealt(103, 4, seed=3)
    assert len(sampler) == 25
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        with ranks_of(4) as ranks:
            hands = [list(sampler) for _ in ranks]
        dealt = [image for hand in hands for image in hand]
        assert {len(hand) for hand in hands} == {25}
        assert len(set(dealt)) == len(dealt) == 100
        assert set(dealt) <= set(range(103))
        orders.append(dealt)
    assert orders[0] != orders[1]


@contextmanager
def ranks_of(n):
    """Each process's rank in turn, as torch tells it."""
    ranks = iter(range(n))
    with (
        patch("torch.distributed.is_initialized", return_value=True),
        patch("torch.distributed.get_rank", side_effect=lambda: next(ranks)),
    ):
        yield range(n)


class Affine(torch.nn.Module):
    """A loss without noise, whose gradient is another one for each image."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(12, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )

    def loss(self, images):
        return self.layers(images.flatten(1).float() / 255)[:, 0] ** 2


class Kept(pl.Callback):
    """Writes the gradient of the first step, and the images that this process saw in it."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_start(self, trainer, module, batch, index):
        torch.save(batch[0].clone(), self.folder / f"images-{trainer.world_size}-{trainer.global_rank}.pt")  # fmt: skip

    def on_after_backward(self, trainer, module):
        gradient = torch.cat([one.grad.flatten() for one in module.parameters()])
        torch.save(gradient.clone(), self.folder / f"gradient-{trainer.world_size}-{trainer.global_rank}.pt")  # fmt: skip


def first_step(folder, devices):
    """One step of a training on so many processes: gloo, on the CPU."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 2, 2), np.uint8)
    recipe = Recipe(learning_rate=1e-3, steps=1, batch_size=16, validate_every=1, gradient_clip=1e9)
    loader = _loader(images, batch_size=16 // devices, shuffle=True, dealt=Dealt(64, devices, 0))
    strategy = "ddp_fork" if devices > 1 else "auto"
    trainer = pl.Trainer(
        accelerator="cpu", devices=devices, strategy=strategy, max_steps=1, logger=False, callbacks=[Kept(folder)],
        use_distributed_sampler=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(Fit(Affine(), recipe), loader)


def test_the_gradient_of_two_processes_is_that_of_one_on_the_joined_batch(tmp_path):
    for devices in (1, 2):
        first_step(tmp_path, devices)
    one, *two = (torch.load(tmp_path / f"gradient-{n}-{r}.pt") for n, r in ((1, 0), (2, 0), (2, 1)))
    seen = [torch.load(tmp_path / f"images-{n}-{r}.pt") for n, r in ((1, 0), (2, 0), (2, 1))]
    joined = {image.numpy().tobytes() for image in torch.cat(seen[1:])}
    assert joined == {image.numpy().tobytes() for image in seen[0]}
    assert len(joined) == 16
    assert one.abs().max() > 1e-4
    for gradient in two:
        assert torch.allclose(gradient, one, rtol=0, atol=1e-6)


def test_a_batch_that_cannot_be_divided_is_refused_before_any_work(card, tmp_path):
    with pytest.raises(ModelError, match="a batch of 16 cannot be divided among 3 devices"):
        train(card(), tmp_path / "out", "cpu", 1, devices=3)
    assert not (tmp_path / "out").exists()


def test_the_command_trains_with_two_processes(card, tmp_path):
    folder = card(steps=16).folder
    command = [
        sys.executable,
        "-m",
        "oodbench",
        "train",
        str(folder),
        "--out",
        str(tmp_path / "out"),
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, "--device", "cpu", "--devices", "2"],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    record = json.loads((tmp_path / "out" / "trained.json").read_text())
    assert (record["devices"], record["steps"]) == (2, 16)
    assert ended.stdout.count("bits/dim on") == 1
    assert ob.load_model(str(tmp_path / "out")).shape == (1, 28, 28)
