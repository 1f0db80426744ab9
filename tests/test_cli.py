"""The command line as a person meets it: what it prints, how it fails."""

from __future__ import annotations

import importlib.metadata
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from oodbench import registry
from oodbench.cli import main
from oodbench.data.images import load_images


def oodbench(*arguments, code=0):
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output + result.stderr
    assert "Traceback" not in result.output + result.stderr
    return " ".join((result.output + result.stderr).split())


@pytest.fixture
def here(tmp_path, monkeypatch, home):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_report_and_check(here):
    printed = oodbench("run", "--suite", "quick", "--limit", "20", "--workers", "1")
    assert "glow-fashionmnist" in printed
    assert "▼" in printed
    assert "runs/quick/README.md" in printed
    assert "every page is what its rows give" in oodbench("report", "runs/quick", "--check")
    page = here / "runs/quick/README.md"
    page.write_text(page.read_text() + "edited")
    assert "differs from what its rows give" in oodbench("report", "runs/quick", "--check", code=1)
    oodbench("report", "runs/quick")
    oodbench("report", "runs/quick", "--check")
    page.write_text("by hand")
    assert "differs from what its rows give" in oodbench("report", "runs/quick", "--check", code=1)
    assert "README.md was not written by oodbench" in oodbench("report", "runs/quick", code=1)
    assert page.read_text() == "by hand"


def test_plan_prints_passes_trials_and_skips(here):
    printed = oodbench("plan", "--limit", "20", "--all")
    cifar10, svhn = (f"{name}/test[first 2000][20 drawn]" for name in ("cifar10", "svhn"))
    assert f"measure density of glow-cifar10 on {svhn} (20 images, 1 of 1 shards left)" in printed
    assert f"evaluate typicality, groups of 10 with glow-cifar10: {cifar10} → {svhn}" in printed
    assert (
        "skip cifar100 → imagenet7k: no model of the suite 'paper' is trained on cifar100"
        in printed
    )
    assert "celeba5k → cifar10: celeba/train is not on this machine; to get it: download" in printed


@pytest.mark.parametrize("what", ["models", "data", "scorers", "statistics", "suites"])
def test_lists(what, here):
    printed = oodbench("list", what)
    assert {
        "models": "glow-cifar10",
        "data": "svhn",
        "scorers": "typicality",
        "statistics": "code_length_png",
        "suites": "paper",
    }[what] in printed


@pytest.mark.parametrize("name", ["glow-cifar10", "svhn", "typicality", "log_prob", "paper"])
def test_show(name, here):
    assert name in oodbench("show", name)


MISTAKES = [
    (["run", "--suite", "papr"], "no suite is called 'papr'; did you mean 'paper'"),
    (["run", "--suite", "none.yaml"], "none.yaml cannot be read"),
    (["run", "--only", "svnh"], "did you mean 'svhn'"),
    (["run", "--plugin", "none.py"], "none.py does not exist"),
    (["run", "--device", "cuda:7"], "the device 'cuda:7' is not available here; available: cpu"),
    (["run", "--limit", "0"], "Invalid value for '--limit'"),
    (["show", "typicallity"], "did you mean 'typicality'"),
    (["report", "nowhere"], "nowhere/rows.jsonl has no rows; run the suite first"),
    (["train", "glow-cifr10"], "did you mean 'glow-cifar10'"),
    (["train", "glow-cifar10"], "cifar10/train is not on this machine; to get it: `oodbench data fetch cifar10`"),
    (["data", "fetch", "mnst"], "no image set is called 'mnst'; did you mean 'mnist'"),
    (["data", "fetch", "celeba"], "celeba cannot be fetched by a program: download img_align_celeba.zip"),
    (["list", "model"], "'model' is not one of"),
    (["check", "none.py"], "none.py does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_mistakes_are_sentences(here, arguments, sentence):
    code = 2 if "Invalid value" in sentence or "not one of" in sentence else 1
    if sys_has_cuda() and "cuda" in sentence:
        pytest.skip("this machine has an accelerator")
    assert sentence in oodbench(*arguments, code=code)


def sys_has_cuda():
    import torch

    return torch.cuda.is_available()


def test_interruption_is_a_sentence(here, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("oodbench.runner.carry_out", interrupted)
    assert "What is finished is kept: the same command goes on from here" in oodbench(
        "run", "--suite", "quick", code=130
    )


def test_a_plugin_that_raises_is_named_with_its_line(here):
    (here / "bad.py").write_text("import oodbench\n\n1 / 0\n")
    assert "bad.py, line 3 raised ZeroDivisionError: division by zero" in oodbench(
        "check", "bad.py", code=1
    )
    (here / "syntax.py").write_text("def f(:\n")
    assert "syntax.py, line 1 raised SyntaxError" in oodbench(
        "run", "--plugin", "syntax.py", code=1
    )


def test_a_script_that_ends_the_program_is_named(here):
    (here / "script.py").write_text("import sys\n\nsys.exit(0)\n")
    said = oodbench("check", "script.py", code=1)
    assert "script.py, line 3 ends the program when it is loaded" in said
    assert "__main__" in said


def test_check_takes_the_models_that_run_takes(here):
    source = (
        "class {name}:\n    shape = (1, 28, 28)\n    likelihood = 'exact'\n    trained_on = 'fashionmnist'\n"
        "    def log_prob(self, images):\n        return {value}\n"
    )
    good = source.format(name="Good", value="-images.double().flatten(1).mean(1) - 3000")
    bad = source.format(name="Bad", value="None")
    (here / "mine.py").write_text(f"{good}\n{bad}")
    assert "Bad: log_prob returns None" in oodbench("check", "mine.py", code=1)
    assert "Good: all contract tests passed" in oodbench("check", "mine.py:Good")
    assert "has no model 'Goood'" in oodbench("check", "mine.py:Goood", code=1)


def test_a_plugin_without_anything_says_so(here):
    (here / "empty.py").write_text("")
    assert "registers no scorer and no model" in oodbench("check", "empty.py", code=1)


def test_fetch_draws_bars_for_files_of_known_and_unknown_size(here, monkeypatch):
    def fetching(card, start, progress):
        for name, size in (("known", 10), ("unknown", 0)):
            start(name, size)
            progress(name, 10)
        return [load_images("mnist/test[:3]")]

    monkeypatch.setattr("oodbench.data.fetch.fetch", fetching)
    assert "mnist/test[first 2000][3 drawn]: 3 images, sha256" in oodbench("data", "fetch", "mnist")


def test_data_list_and_verify(here, monkeypatch):
    assert "test 2,000 of 10,000" in oodbench("show", "cifar10")
    verified = oodbench("data", "verify", "svhn")
    sample = "bundled sample, the first in the official order"
    assert f"svhn/test: 2,000 images of (3, 32, 32) from {sample}" in verified
    monkeypatch.setenv("OODBENCH_DATA", str(here))
    np.savez(here / "svhn_test.npz", images=np.zeros((3000, 32, 32, 3), np.uint8))
    content = (here / "svhn_test.npz").read_bytes()
    (here / "svhn_test.npz").write_bytes(content[:-40])
    assert "svhn_test.npz cannot be read as images" in oodbench("data", "verify", "svhn", code=1)


class Point:
    """An entry point of an installed plugin."""

    def __init__(self, name, load):
        self.name, self.load = name, load


def test_installed_plugins_are_found_and_a_broken_one_is_left_out(here, monkeypatch):
    def register():
        registry.register_scorer("installed-scorer")(lambda log_prob: -log_prob)

    def broken():
        raise ImportError("no module named 'missing'")

    points = [Point("good", register), Point("bad", broken)]
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: points if group == "oodbench.plugins" else [],
    )
    monkeypatch.setattr(registry, "broken_plugins", {})
    monkeypatch.setattr(registry.scorers, "_loaded", False)
    monkeypatch.setattr(registry, "_entry_points_loaded", False)
    try:
        printed = oodbench("list", "scorers")
        assert "installed-scorer" in printed
        assert (
            "The installed plugin 'bad' is left out, since it fails to load: ImportError: no module named 'missing'"
            in printed
        )
    finally:
        registry.scorers._entries.pop("installed-scorer", None)


def test_outside_a_clone_the_first_run_is_reported_and_compared(here):
    scorers = ("--only", "likelihood", "--only", "typicality", "--only", "pixel-mean")
    oodbench("run", "--suite", "quick", "--limit", "20", "--workers", "1", *scorers)
    shutil.move("runs/quick", "runs/paper")
    assert "runs/paper/README.md" in oodbench("report")
    assert "likelihood" in oodbench("compare", "likelihood", "typicality")
    printed = oodbench(
        "plan",
        "--suite",
        "quick",
        "--limit",
        "20",
        "--only",
        "likelihood",
        "--out",
        "runs/paper",
        "--all",
    )
    assert "(20 images, cached)" in printed


def test_names_in_square_brackets_are_listed_as_they_are(here, monkeypatch):
    def scorer(log_prob):
        """Nats [of an image], x[0]."""
        return -log_prob

    registry.register_scorer("bracketed")(scorer)
    try:
        assert "Nats [of an image], x[0]." in oodbench("list", "scorers")
    finally:
        registry.scorers._entries.pop("bracketed", None)


def test_a_copied_leaderboard_can_be_reported_anywhere(here):
    oodbench("run", "--suite", "quick", "--limit", "20", "--workers", "1", "--only", "likelihood")
    shutil.move("runs/quick", "elsewhere")
    oodbench("report", "elsewhere", "--check")
