"""What a model is: its identity follows all that changes its numbers, and its names exist."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import oodbench as ob
from oodbench.cli import main
from oodbench.contract import DensityModel
from oodbench.errors import ModelError, OodbenchError, SuiteError
from oodbench.registry import load_plugin, register_model
from oodbench.zoo import families
from oodbench.zoo.cards import ZOO, load_card, zoo
from oodbench.zoo.describe import describe, made_twice, unknown_names, unknown_set
from oodbench.zoo.families import FAMILIES, SCORING, family, scoring_code
from oodbench.zoo.train import train


def released_families():
    """Version and code digest of each family, for the record of releases."""
    return {name: (entry.version, entry.code()) for name, entry in FAMILIES.items()}


def released_samplers():
    """Version and code digest of each family's sampler."""
    drawing = {name: entry for name, entry in FAMILIES.items() if entry.sampler_version}
    return {name: (entry.sampler_version, entry.sampler_code()) for name, entry in drawing.items()}


def released_scoring():
    """Version and code digest of the folded form."""
    return SCORING, scoring_code()


# --- families


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_a_version_for_each_thing_that_it_does(name):
    entry = family(name)
    assert entry.version
    assert bool(entry.sampler_version) == ("sample" in entry.capabilities)


def test_unlike_code_has_unlike_digests():
    digests = {entry.module: entry.code() for entry in FAMILIES.values()}
    assert len(set(digests.values())) == len(digests)
    assert scoring_code() not in digests.values()


def test_every_family_is_in_the_record_s_reach():
    assert set(released_families()) == set(FAMILIES)
    assert set(FAMILIES) - set(released_samplers()) == {"classifier"}  # which draws nothing
    assert released_scoring()[0] == SCORING


# --- cards


def with_version(monkeypatch, name, version):
    monkeypatch.setitem(families.FAMILIES, name, replace(families.FAMILIES[name], version=version))


def test_a_new_version_of_the_code_is_another_model(monkeypatch):
    glow, vae = load_card("glow-fashionmnist"), load_card("vae-fashionmnist")
    before = glow.identity(), vae.identity()
    with_version(monkeypatch, "glow", "next")
    assert glow.identity() != before[0]
    assert vae.identity() == before[1]
    monkeypatch.undo()
    assert (glow.identity(), vae.identity()) == before
    monkeypatch.setattr("oodbench.zoo.cards.SCORING", "next")
    assert glow.identity() != before[0]


def written(folder, **changes):
    fields = {
        "name": "fresh", "family": "glow", "config": {"shape": [1, 28, 28], "scales": 2, "steps": 1, "hidden": 4},
        "trained_on": "fashionmnist", "likelihood": "uniform dequantisation, one draw",
        "recipe": {"steps": 1, "learning_rate": 1e-3},
    } | changes  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "card.yaml").write_text(
        json.dumps(fields, indent=1, ensure_ascii=False)
    )  # JSON is YAML
    return load_card(str(folder))


@pytest.mark.parametrize(
    "name", ["", "a/b", "../a", ".a", "a b", "a\u2028b", "a|b", "<a>", "x" * 101]
)
def test_a_card_s_name_is_an_identifier(tmp_path, name):
    with pytest.raises(SuiteError, match=r"card\.yaml:2: name: "):
        written(tmp_path / "card", name=name)


@pytest.mark.parametrize("name", ["a", "Glow-3.1_b+c=d", "модель-1", "x" * 100])
def test_names_of_any_script_are_identifiers(tmp_path, name):
    assert written(tmp_path / "card", name=name).name == name


def test_a_family_that_does_not_exist_is_found_when_the_card_is_read(tmp_path):
    with pytest.raises(
        SuiteError,
        match=r"card\.yaml:3: family: no model family is called 'glo'; did you mean 'glow'",
    ):
        written(tmp_path / "card", family="glo")


def test_the_hint_for_an_untrained_card_can_be_followed(tmp_path, home):
    folder = tmp_path / "my card"
    card = written(folder)
    with pytest.raises(ModelError) as raised:
        card.identity()
    command = str(raised.value).split("`")[1]
    assert command == f"oodbench train '{folder}' --out '{folder}'"
    shutil.copy(ZOO / "glow-mnist" / "trained.json", folder)
    with pytest.raises(ModelError, match="on this machine; make them: `oodbench train '"):
        card.identity()
    hosted = card.model_copy(update={"hosted": {"repo": "owner/name"}})
    with pytest.raises(ModelError, match=f"get them: `oodbench fetch '{folder}'`"):
        hosted.identity()


def test_a_training_s_seed_is_what_the_record_says(tmp_path):
    assert describe("glow-fashionmnist").training_seed == 1
    assert describe("glow-small-cifar10-3").training_seed == 13
    card = written(tmp_path / "card")
    assert card.training_seed is None  # not trained
    (card.folder / "trained.json").write_text('{"weights_sha256": "0"}')
    assert card.training_seed is None  # imported


def test_every_shipped_card_names_what_exists():
    assert [fault for name in zoo() for fault in unknown_names(load_card(name))] == []


def test_names_on_a_card_are_compared_with_what_exists(tmp_path):
    written(tmp_path / "sibling")
    recipe = {"steps": 1, "learning_rate": 1e-3, "watch": ["svhn", "svnh"]}
    card = written(
        tmp_path / "card", trained_on="FashionMNIST", background="siblin", general="glow-cifar11",
        ensemble=["sibling", "glow-mnist", "glow-mnits"], recipe=recipe,
    )  # fmt: skip
    faults = unknown_names(card)
    assert [fault.split(": ")[1] for fault in faults] == [
        "background", "general", "ensemble", "trained_on", "recipe.watch",
    ]  # fmt: skip
    near = ("sibling", "glow-cifar10", "glow-mnist", "fashionmnist", "svhn")
    for fault, name in zip(faults, near, strict=True):
        assert f"did you mean {name!r}" in fault
    with pytest.raises(
        ModelError, match="trained_on: no image set is called 'FashionMNIST'; did you mean"
    ):
        train(card, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sets_of_one_s_own_are_known(tmp_path, monkeypatch):
    np.savez(tmp_path / "my_scans_train.npz", images=np.zeros((4, 8, 8), np.uint8))
    assert unknown_set("my_scans") is not None
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    assert [unknown_set(name) for name in ("my_scans", "my-scans", "cifar10", str(tmp_path))] == [
        None
    ] * 4
    assert "did you mean 'my_scans'" in unknown_set("my_scan")
    assert unknown_set("") is not None
    assert unknown_set("cifar10/train") is not None


def test_an_import_onto_an_unknown_set_writes_nothing(tmp_path):
    state = {
        f"{name}.{kind}": torch.ones(2, 2)
        for name in ("fc1", "fc21", "fc22", "fc3")
        for kind in ("weight", "bias")
    }
    shapes = {"fc1": (5, 16), "fc21": (3, 5), "fc22": (3, 5), "fc3": (5, 3), "fc4": (16, 5)}
    state = {f"{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    state |= {f"{name}.bias": torch.ones(shape[0]) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "vae.pth")

    def run(out, trained_on):
        arguments = [
            "import",
            str(tmp_path / "vae.pth"),
            "--out",
            str(tmp_path / out),
            "--option",
            "shape=[1,4,4]",
        ]
        return CliRunner().invoke(main, [*arguments, "--trained-on", trained_on])

    refused = run("vae", "FashionMNIST")
    assert isinstance(refused.exception, (OodbenchError, SystemExit))
    assert "did you mean 'fashionmnist'" in refused.output + str(refused.exception)
    assert "name" in (refused := run("my vae", "fashionmnist")).output + str(refused.exception)
    assert list(tmp_path.iterdir()) == [tmp_path / "vae.pth"]
    assert run("vae", "fashionmnist").exit_code == 0


# --- models of users

PLUGIN = """
import pathlib, torch, oodbench as ob
from helper_of_tests import scale

OFFSET = 4000.0

@ob.register_model(pathlib.Path(__file__).parent.name)  # no text of the file tells two copies apart
class Wrapped:
    shape = (1, 4, 4); trained_on = "fashionmnist"; likelihood = "exact"
    def __init__(self):
        self.net = torch.nn.Linear(16, 1, dtype=torch.float64)
        torch.nn.init.constant_(self.net.weight, 0.5); torch.nn.init.zeros_(self.net.bias)
        self.levels = 256
        self.table = {"a": [1, 2.5]}
    def log_prob(self, images):
        '''Nats.'''
        return self.net(images.double().flatten(1))[:, 0] * scale() - OFFSET  # a comment
"""
HELPER = "def scale():\n    return 1.0\n"
EDITS = {
    "a weight": ("weight, 0.5", "weight, 0.25"),
    "a number": ("self.levels = 256", "self.levels = 255"),
    "a number within": ("2.5", "2.75"),
    "a constant": ("OFFSET = 4000.0", "OFFSET = 4001.0"),
    "the code": ("- OFFSET", "+ OFFSET"),
    "a class attribute": ('likelihood = "exact"', 'likelihood = "bound"'),
    "the helper": ("return 1.0", "return 2.0"),
}


@pytest.fixture
def plugin(tmp_path):
    """Load a plugin with its helper from a folder of its own; returns the model as described."""
    made = iter(range(100))

    def load(text=PLUGIN, helper=HELPER):
        name = f"{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]}-{next(made)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "helper_of_tests.py").write_text(helper)
        (folder / "mine.py").write_text(text)
        load_plugin(folder / "mine.py")
        return describe(name)

    return load


@pytest.mark.parametrize("what", EDITS)
def test_one_edit_is_another_model(plugin, what):
    old, new = EDITS[what]
    assert (old in PLUGIN) != (old in HELPER)
    before, after = plugin(), plugin(PLUGIN.replace(old, new), HELPER.replace(old, new))
    assert before.identity() != after.identity()


def test_no_edit_is_the_same_model(plugin):
    before, unlike = (
        plugin(),
        PLUGIN.replace("# a comment", "").replace("'''Nats.'''", "'''In nats.'''"),
    )
    assert plugin().identity() == before.identity()
    assert plugin(unlike).identity() == before.identity()


HELD = """
import pathlib, torch, oodbench as ob
@ob.register_model(pathlib.Path(__file__).parent.name)  # no text of the file tells two copies apart
class Held:
    shape = (1, 4, 4); trained_on = "fashionmnist"
    def __init__(self):
        self.handle = (number for number in range(3))
    def log_prob(self, images):
        return -images.double().flatten(1).sum(1)
"""


def test_what_cannot_be_hashed_is_another_model_in_each_run(plugin):
    model = plugin(HELD)
    first = model.identity()
    assert model.identity() == first
    assert model.unhashable.startswith(f"{model.name} is measured anew in each run, since ")
    assert "handle" in model.unhashable
    assert "`identity()`" in model.unhashable
    describe.cache_clear()
    assert describe(model.name).identity() != first


def test_a_model_may_say_who_it_is(plugin):
    says = HELD + "    def identity(self):\n        return 'one'\n"
    one, same, two = (
        plugin(says),
        plugin(says),
        plugin(says.replace("'one'", "open(__file__).name and 'two'")),
    )
    assert one.unhashable == ""
    assert one.identity() == same.identity() != two.identity()
    with pytest.raises(ModelError, match=r"identity\(\) of the model .* must return a text, not 3"):
        plugin(says.replace("'one'", "3"))
    with pytest.raises(ModelError, match=r"identity\(\) of the model .* raises ZeroDivisionError"):
        plugin(says.replace("'one'", "1 / 0"))


def test_a_layer_called_identity_says_nothing(plugin):
    layer = PLUGIN.replace("self.levels = 256", "self.identity = torch.nn.Identity()")
    assert plugin(layer).unhashable == ""


class Brightness:
    shape, trained_on, likelihood, seed = (1, 4, 4), "fashionmnist", "exact", 0

    def log_prob(self, images):
        return -images.double().flatten(1).sum(1) - self.seed


class Counted(Brightness):
    made = 0

    def __init__(self):
        type(self).made += 1


def test_a_model_is_made_once_and_that_one_is_measured():
    register_model("counted-once")(Counted)
    before = Counted.made
    model = ob.load_model("counted-once")
    assert model is describe("counted-once").model
    assert isinstance(model, DensityModel)
    assert Counted.made == before + 1
    assert describe("counted-once").local


def test_each_seed_keeps_its_noise():
    register_model("counted-seeds")(Brightness)
    identity = describe("counted-seeds").identity()
    one = ob.load_model("counted-seeds", seed=1)
    two = ob.load_model("counted-seeds", seed=2)
    assert (one.seed, two.seed) == (1, 2)
    assert ob.load_model("counted-seeds", seed=1) is one
    assert describe("counted-seeds").identity() == identity


def test_a_model_that_comes_out_differently_is_told():
    register_model("counted-steady")(Brightness)
    assert made_twice("counted-steady") is None
    assert made_twice("glow-mnist") is None

    class Fitted(Brightness):
        def __init__(self):
            self.mean = torch.get_num_threads()

    register_model("counted-fitted")(Fitted)
    threads = torch.get_num_threads()
    assert made_twice("counted-fitted").startswith(
        "counted-fitted comes out differently each time it is made"
    )
    assert torch.get_num_threads() == threads


def test_a_card_and_a_user_s_model_can_be_read_alike():
    register_model("counted-alike")(Brightness)
    shared = ("name", "reference", "likelihood", "exact", "shape", "trained_on", "background", "general", "ensemble",
              "view", "local", "family", "training_seed", "unhashable", "sampler_version")  # fmt: skip
    for model in (describe("glow-cifar10"), describe("counted-alike")):
        assert all(hasattr(model, name) for name in shared)
        assert model.gives("log_prob" if model.name == "counted-alike" else "encode")
        assert not model.gives("no_such_method")
        assert len(model.identity()) == 64
