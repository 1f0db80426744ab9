"""Cards and weights: verified, data only, each wrong file with its own sentence."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save

import oodbench as ob
from oodbench.errors import ModelError, SuiteError, UnknownNameError
from oodbench.zoo.cards import ZOO, Recipe, load_card, zoo
from oodbench.zoo.describe import describe, relatives


@pytest.fixture
def card(tmp_path):
    """A copy of a shipped card, to be damaged."""
    folder = tmp_path / "copy"
    shutil.copytree(ZOO / "glow-fashionmnist", folder)
    return folder


def edit(card, old, new):
    describe.cache_clear()
    text = (ZOO / "glow-fashionmnist" / "card.yaml").read_text()
    assert old in text
    (card / "card.yaml").write_text(text.replace(old, new))


def replace_weights(card, content, record=True):
    (card / "weights.safetensors").write_bytes(content)
    if record:
        trained = json.loads((card / "trained.json").read_text())
        trained["weights_sha256"] = hashlib.sha256(content).hexdigest()
        (card / "trained.json").write_text(json.dumps(trained))


def error(card):
    with pytest.raises(ModelError) as raised:
        ob.load_model(str(card))
    return str(raised.value)


AWAITED = {"vae-residual-cifar10"}
"""Cards whose weights may be still to come, beside the paper's."""


def test_the_zoo_is_trained_and_named_like_its_folders():
    assert {
        "glow-fashionmnist",
        "glow-cifar10",
        "glow-fashionmnist-background",
        "glow-cifar10-background",
    } <= set(zoo())
    untrained = {name for name in zoo() if not (load_card(name).folder / "trained.json").exists()}
    awaited = {name for name in zoo() if name.startswith("paper-")} | AWAITED
    assert untrained <= awaited
    for name in untrained:
        assert load_card(name).recipe is not None
        with pytest.raises(ModelError, match=f"make them: `oodbench train {name}`"):
            load_card(name).trained()
    for name in set(zoo()) - untrained:
        loaded = load_card(name)
        assert loaded.name == name
        assert (
            loaded.trained()["weights_sha256"]
            == hashlib.sha256(loaded.weights.read_bytes()).hexdigest()
        )
        assert loaded.recipe is None or Recipe(**loaded.trained()["recipe"]) == loaded.recipe
        assert loaded.trained()["command"].startswith(f"oodbench train {name}")
        assert loaded.trained().get("storage_moves_bits_per_dim", 0) < 1e-3


def test_a_copy_of_a_card_scores_the_same(card):
    images = ob.load_images("mnist/test[:4]")
    found = [
        ob.measure(ob.load_model(m), images, "log_prob")["log_prob"]
        for m in ("glow-fashionmnist", str(card))
    ]
    assert found[0].tolist() == found[1].tolist()
    assert (
        load_card("glow-fashionmnist").identity() == load_card(str(card / "card.yaml")).identity()
    )


def test_another_configuration_is_another_model(card):
    edit(card, "hidden: 96", "hidden: 96, prior: standard")
    assert load_card(str(card)).identity() != load_card("glow-fashionmnist").identity()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"<!DOCTYPE html><title>404</title>",
            "it is an HTML page, saved in place of the weights; download it again",
        ),
        (b"PK\x03\x04" + bytes(40), "it is a pickled PyTorch file, which is never opened here"),
        (b"\x80\x02}q\x00.", "it is a pickled PyTorch file, which is never opened here"),
        (b"", "it is cut short, damaged or another version"),
    ],
)
def test_each_wrong_file_has_its_sentence(card, content, sentence):
    replace_weights(card, content, record=False)
    assert sentence in error(card)
    replace_weights(card, content)  # the same where the card's hash agrees
    assert sentence in error(card)


def test_a_pickle_is_never_executed(card, tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        assert any(name.endswith("data.pkl") for name in archive.namelist())
    replace_weights(card, (tmp_path / "x.pt").read_bytes())
    assert "never opened here" in error(card)


def test_truncated_weights_are_named(card):
    replace_weights(card, (card / "weights.safetensors").read_bytes()[:5000])
    assert "cannot be read as a whole safetensors file" in error(card)


def test_one_changed_bit_is_found(card):
    content = bytearray((card / "weights.safetensors").read_bytes())
    content[-9] ^= 1
    replace_weights(card, bytes(content), record=False)
    assert "its card says" in error(card)


def test_missing_and_extra_keys_are_named(card):
    tensors = load_file(card / "weights.safetensors")
    tensors["module.top_prior"] = tensors.pop("top_prior")
    replace_weights(card, save(tensors))
    assert "1 keys missing (top_prior), 1 unknown (module.top_prior)" in error(card)


def test_wrong_shapes_are_named(card):
    tensors = load_file(card / "weights.safetensors")
    tensors["top_prior"] = torch.zeros(3)
    replace_weights(card, save(tensors))
    assert "top_prior has shape (3,), the card's model wants (1, 16, 1, 1)" in error(card)


def test_a_card_without_weights_names_the_command(card):
    (card / "weights.safetensors").unlink()
    assert (
        f"has no weights on this machine; make them: `oodbench train {card} --out {card}`"
        in error(card)
    )


def test_unknown_models_and_families(card):
    with pytest.raises(UnknownNameError, match="did you mean 'glow-cifar10'"):
        ob.load_model("glow-cifar")
    edit(card, "family: glow", "family: glo")
    with pytest.raises(SuiteError, match="no model family is called 'glo'; did you mean 'glow'"):
        ob.load_model(str(card))
    edit(card, "hidden: 96", "hiden: 96")
    assert "configuration does not fit the family 'glow'" in error(card)


def test_a_faulty_card_names_its_line(card):
    edit(card, "background:", "bakground:")
    with pytest.raises(
        SuiteError, match=r"card\.yaml:\d+: bakground: no such field; did you mean 'background'"
    ):
        load_card(str(card))


def test_the_background_of_a_card_at_a_path_is_its_sibling(card, tmp_path):
    assert relatives("glow-fashionmnist", "background") == ["glow-fashionmnist-background"]
    assert relatives(str(card), "background") == [
        "glow-fashionmnist-background"
    ]  # the zoo's, where there is no sibling
    shutil.copytree(ZOO / "glow-fashionmnist-background", tmp_path / "glow-fashionmnist-background")
    assert relatives(str(card), "background") == [str(tmp_path / "glow-fashionmnist-background")]
