"""One command from a folder to a row: the model, the images, what is said, and the suite that does the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

import oodbench as ob
from oodbench.cli import main
from oodbench.compose import composed, set_entries, write_suite
from oodbench.data.identifiers import parse_identifier
from oodbench.errors import SuiteError
from oodbench.plan import make_plan
from oodbench.registry import KINDS
from oodbench.suite import load_suite, suite_of
from oodbench.zoo.cards import ZOO

MODEL = """\
import torch

class Sums:
    shape = (1, 28, 28)
    likelihood = "exact"
    def log_prob(self, images):
        return -5.0 * images.double().flatten(1).mean(1) - 3000
"""
REGISTERED = MODEL.replace("class", "import oodbench as ob\n@ob.register_model('sums')\nclass")


@pytest.fixture
def here(tmp_path, monkeypatch, home):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymodel.py").write_text(MODEL)
    images, others = (
        ob.load_images(f"{name}/test[:70]").images for name in ("fashionmnist", "mnist")
    )
    for split, rows in {"train": (0, 30), "ref": (30, 45), "test": (45, 70)}.items():
        folder = tmp_path / "clothes" / split
        folder.mkdir(parents=True)
        for row in range(*rows):
            Image.fromarray(images[row, 0]).save(folder / f"{row}.png")
    np.save(tmp_path / "digits.npy", others[:30])
    (tmp_path / "wide").mkdir()
    for row in range(12):
        Image.fromarray(others[row, 0]).convert("RGB").resize((40, 40)).save(
            tmp_path / "wide" / f"{row}.png"
        )
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        for kind in KINDS:
            kind.drop(file.resolve())


def oodbench(*arguments, code=0):
    result = CliRunner().invoke(main, list(arguments))
    said = result.output + result.stderr
    assert result.exit_code == code, said
    assert "Traceback" not in said
    return " ".join(said.split())


def rows(folder):
    lines = (Path(folder) / "rows.jsonl").read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda row: row["key"])


OWN = (
    "run",
    "--workers",
    "1",
    "--in-dist",
    "clothes",
    "--scorer",
    "likelihood",
    "--scorer",
    "pixel-mean",
)


def test_a_folder_and_a_class_give_rows_and_a_suite_that_gives_the_same_keys(here):
    said = oodbench(*OWN, "--model", "mymodel.py", "--ood", "digits.npy", "--ood", "wide")
    assert "log p of images of 1×28×28" in said
    assert "resized to 28 (bilinear, antialiased), colours made grey by ITU-R 601 luma" in said
    assert "Sums does not say what it is trained on; here it stands for clothes" in said
    assert "→ wide/all" in said
    found = rows("runs/mymodel-on-clothes")
    assert {row["status"] for row in found} == {"ok"}
    assert len(found) == 4
    shutil.rmtree(here / "home" / "columns")
    oodbench("run", "--workers", "1", "--suite", "runs/mymodel-on-clothes.yaml", "--out", "again")
    assert [row["key"] for row in rows("again")] == [row["key"] for row in found]


@pytest.mark.slow
def test_the_suite_goes_to_worker_processes(here):
    (here / "mymodel.py").write_text(REGISTERED)
    oodbench("run", "--workers", "2", "--model", "mymodel.py:sums", "--in-dist", "fashionmnist", "--ood", "digits.npy",
             "--scorer", "likelihood", "--limit", "20", "--out", "two")  # fmt: skip
    (row,) = rows("two")
    assert (row["model"], row["status"], row["in_dist"]) == (
        "sums",
        "ok",
        "fashionmnist/test[first 2000][20 drawn]",
    )
    assert load_suite("two.yaml").limit == 20


def test_models_of_every_kind(here):
    shutil.copytree(ZOO / "glow-small-fashionmnist-1", "card")
    few = ("--ood", "digits.npy", "--scorer", "likelihood", "--limit", "20", "--workers", "1")
    said = {
        model: oodbench("run", "--model", model, "--in-dist", "fashionmnist", *few, "--out", out)
        for model, out in (("glow-small-fashionmnist-1", "zoo"), ("card", "folder"))
    }
    assert [row["auroc"] for row in rows("zoo")] == [row["auroc"] for row in rows("folder")]
    assert "trained on" not in said["card"]
    torch.save({"fc1.weight": torch.zeros(2, 2)}, "odd.pt")
    refused = oodbench("run", "--model", "odd.pt", "--in-dist", "clothes", *few, code=1)
    assert "odd.pt matches no known format" in refused
    assert "`oodbench import` takes options" in refused


def test_a_checkpoint_becomes_a_card_beside_the_results(here, monkeypatch):
    from oodbench.zoo import importers
    from oodbench.zoo.load import load_model

    glow = load_model("glow-small-fashionmnist-1")
    config = yaml.safe_load((ZOO / "glow-small-fashionmnist-1" / "card.yaml").read_text())["config"]
    imported = importers.Imported("glow", config, "one draw", glow.state_dict())
    monkeypatch.setattr(importers, "convert", lambda files, options: imported)
    torch.save({}, "weights.pt")
    given = ("run", "--model", "weights.pt", "--in-dist", "clothes", "--ood", "digits.npy")
    more = ("--scorer", "likelihood", "--limit", "20", "--workers", "1")
    for _ in range(2):
        oodbench(*given, *more)
    assert (here / "runs" / "weights-on-clothes-model" / "card.yaml").exists()
    (row,) = rows("runs/weights-on-clothes")
    assert row["model"] == "weights"
    record = here / "runs" / "weights-on-clothes-model" / "trained.json"
    record.write_text(record.read_text().replace("weights.pt", "another.pt"))
    assert "holds another model" in oodbench(*given, *more, code=1)


@pytest.mark.slow
def test_a_small_glow_is_trained_and_judged(here, monkeypatch):
    monkeypatch.setattr("oodbench.compose.STEPS", 20)
    given = ("run", "--train", "glow", "--in-dist", "clothes", "--limit", "10", "--workers", "1")
    said = oodbench(*given)
    assert "No --ood: noise and constant images" in said
    assert {row["ood_name"] for row in rows("runs/glow-on-clothes")} == {"noise", "constant"}
    assert "was trained before" in oodbench(*given)


MISTAKES = [
    (["--suite", "paper", "--model", "x", "--in-dist", "clothes", "--ood", "wide"], "--suite names models", 2),
    (["--model", "mymodel.py", "--ood", "wide"], "--in-dist is missing", 2),
    (["--in-dist", "clothes", "--ood", "wide"], "give --model", 2),
    (["--in-dist", "clothes", "--model", "mymodel.py", "--train", "glow"], "one of the two", 2),
    (["--in-dist", "clothes", "--model", "mymodel.py"], "--ood is missing", 2),
    (["--scorer", "likelihood"], "--in-dist is missing", 2),
    (["--in-dist", "clothes", "--ood", "wide", "--model", "glow-fashonmnist"], "did you mean 'glow-fashionmnist'", 1),
    (["--in-dist", "clothes", "--ood", "wide", "--model", "wide"], "wide is no model: a model's folder holds a card.yaml", 1),
    (["--in-dist", "clothes", "--ood", "wide", "--model", "mymodel.py:Sum"], "has no model 'Sum'; did you mean 'Sums'", 1),
    (["--in-dist", "clothes", "--ood", "wide", "--model", "none.py"], "none.py does not exist", 1),
    (["--in-dist", "clothes", "--ood", "wide", "--model", "none.pt"], "there is no none.pt, seen from", 1),
    (["--in-dist", "clothes", "--ood", "wide", "--model", "two.py"], "two.py holds 2 models; name one of them: two.py:A", 1),
    (["--in-dist", "clothes", "--ood", "wide", "--model", "empty.py"], "empty.py holds no model", 1),
    (["--in-dist", "clothes", "--ood", "wid", "--model", "mymodel.py"], "no image set is called 'wid'", 1),
    (["--in-dist", "cloths", "--ood", "wide", "--model", "mymodel.py"], "no image set is called 'cloths'", 1),
    (["--in-dist", "clothes", "--ood", "wide", "--model", "mymodel.py", "--scorer", "likelyhood"], "did you mean 'likelihood'", 1),  # noqa: E501
    (["--in-dist", "clothes", "--ood", "a b=wide", "--model", "mymodel.py"], "the image set name 'a b' holds ' '", 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"), MISTAKES, ids=[one[1] for one in MISTAKES]
)
def test_mistakes_are_sentences(here, arguments, sentence, code):
    (here / "two.py").write_text(MODEL.replace("Sums", "A") + MODEL.replace("Sums", "B"))
    (here / "empty.py").write_text("")
    assert sentence in oodbench("run", *arguments, code=code)


def test_what_gives_no_row_says_so_and_fails(here):
    said = oodbench(*OWN, "--model", "mymodel.py", "--ood", "clothes", "--out", "none", code=1)
    assert "holds the same images as the in-dist set" in said
    assert "nothing could be judged" in said


def test_rows_of_an_earlier_run_do_not_hide_that_nothing_was_judged(here):
    oodbench(*OWN, "--model", "mymodel.py", "--ood", "digits.npy", "--out", "same")
    said = oodbench(*OWN, "--model", "mymodel.py", "--ood", "./wid", "--out", "same", code=1)
    assert "nothing could be judged" in said
    assert len(rows("same")) > 0


def test_two_sets_that_end_alike_are_told_apart(here):
    for parent in ("easy", "hard"):
        shutil.copytree("wide", f"{parent}/images")
    shown = [next(iter(entry)) for entry in set_entries(["easy/images", "hard/images"])]
    assert shown == ["easy-images", "hard-images"]
    assert set_entries(["mine=easy/images"]) == [{"mine": str(here / "easy" / "images")}]
    assert set_entries(["svhn/test[:5]@grey", "mnist"]) == ["svhn/test[:5]@grey", "mnist"]
    assert set_entries(["wide[:5]"]) == [f"{here / 'wide'}[:5]"]
    (here / "a=b").mkdir()
    assert set_entries(["a=b"]) == [str(here / "a=b")]


def test_paths_hold_from_every_folder_however_they_are_written(here, monkeypatch):
    np.savez("two.npz", x_train=np.zeros((9, 4, 4), np.uint8), y=np.zeros(9))
    (here / "wide").rename("v1@x [y]")
    written = ["two.npz#x_train", "two.npz#x_train[:3]", "'v1@x [y]'", "'v1@x [y]'/train[:3]"]
    here_meant = [parse_identifier(text) for text in written]
    entries = set_entries(written)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    meant = [parse_identifier(str(entry)) for entry in entries]
    assert [replace(one, name="") for one in meant] == [replace(one, name="") for one in here_meant]
    assert [one.name for one in meant] == [str(here / one.name) for one in here_meant]


def test_a_suite_that_was_edited_is_left_alone(here):
    suite = composed("glow-fashionmnist", "fashionmnist", ["mnist"], name="mine")
    path = here / "mine.yaml"
    write_suite(suite, path)
    assert load_suite(str(path)) == suite
    write_suite(suite.model_copy(update={"limit": 5}), path)
    assert load_suite(str(path)).limit == 5
    path.write_text(path.read_text() + "seed: 3\n")
    with pytest.raises(SuiteError, match="was edited"):
        write_suite(suite, path)
    assert load_suite(str(path)).seed == 3


def test_a_pair_names_models_of_its_suite(home):
    fields = {
        "name": "t", "title": "t", "models": ["glow-fashionmnist", "glow-mnist"], "scorers": ["pixel-mean"], "limit": 20,
        "pairs": [{"in_dist": "fashionmnist", "ood": ["noise"], "models": ["glow-mnist"]}],
    }  # fmt: skip
    plan = make_plan(suite_of(fields))
    assert [trial.model.name for trial in plan.trials] == ["glow-mnist"]
    assert (
        "glow-mnist says that it is trained on mnist; here it stands for fashionmnist"
        in " ".join(plan.remarks)
    )
    fields["pairs"][0]["models"] = ["glow-mnst"]
    with pytest.raises(
        SuiteError, match="'glow-mnst', which the suite's models do not; did you mean 'glow-mnist'"
    ):
        suite_of(fields)


def test_plugins_of_a_suite_bring_its_models_and_no_others(here):
    (here / "more.py").write_text(REGISTERED + REGISTERED.replace("'sums'", "'other'"))
    fields = {
        "name": "t", "title": "t", "models": ["sums"], "scorers": ["likelihood"], "limit": 10, "bootstrap": 0,
        "plugins": ["more.py"], "pairs": [{"in_dist": "fashionmnist", "ood": ["mnist"], "models": ["sums"]}],
    }  # fmt: skip
    (here / "t.yaml").write_text(yaml.safe_dump(fields))
    table = ob.run("t.yaml", "out", workers=1)
    assert table.model.tolist() == ["sums"]
    assert "evaluate likelihood with sums" in oodbench("plan", "--suite", "t.yaml", "--all")


# skeletons


@pytest.mark.parametrize(
    ("kind", "file"), [("scorer", "mine.py"), ("model", "mine.py"), ("suite", "mine.yaml")]
)
def test_skeletons_pass_check(here, kind, file):
    assert f"oodbench check {file}" in oodbench("new", kind, "mine")
    said = oodbench("check", file)
    assert "all contract tests passed" in said or "a suite that can be run here" in said
    assert "is there already" in oodbench("new", kind, "mine", code=1)
    text = (here / file).read_text()
    assert max(map(len, text.splitlines())) <= 130
    assert "#" in text


def test_names_of_skeletons(here):
    oodbench("new", "scorer", "3-d.é")
    assert "all contract tests passed" in oodbench("check", "3-d.é.py")
    assert "holds '/'" in oodbench("new", "model", "a/b", code=1)


def test_check_of_a_suite_that_gives_nothing(here):
    oodbench("new", "suite", "mine")
    text = (here / "mine.yaml").read_text()
    (here / "mine.yaml").write_text(text.replace("in_dist: fashionmnist", "in_dist: cifar10"))
    said = oodbench("check", "mine.yaml", code=1)
    assert "no model of the suite 'mine' is trained on cifar10" in said
    assert "gives no row on this machine" in said
