"""The laws of identity: a change of anything that can change a number is a miss; no change is a hit, and changes no byte."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import oodbench
import oodbench as ob
from oodbench import runner
from oodbench.errors import OodbenchError, SuiteError
from oodbench.passes.shards import DrawTask, ShardTask, forget
from oodbench.plan import make_plan
from oodbench.registry import Registry, load_plugin, models, scorers, statistics
from oodbench.runner import Options, run_suite
from oodbench.store import read_rows
from oodbench.suite import Analysis, Pair, Suite, load_suite
from oodbench.trials.rows import TrialTask
from oodbench.zoo.cards import ZOO

PLUGIN = '''
import functools, pathlib, numpy as np, torch, oodbench as ob
from helper import shift
CONSTANT = 1.0

def scaled(by):
    def decorate(function):
        @functools.wraps(function)
        def inner(pixel_mean):
            return by * function(pixel_mean)
        return inner
    return decorate

@ob.register_scorer("mine")
@scaled(2.0)
def mine(pixel_mean):
    """What it does."""
    return np.sin(pixel_mean * 9 + CONSTANT) + shift()

@ob.register_scorer("own")
class Own:
    quantile = 0.25
    def fit(self, log_prob): return np.quantile(log_prob, self.quantile)
    def score(self, centre, log_prob): return np.abs(log_prob - centre)

class Net:
    def __init__(self, scale):
        self.scale, self.weights = scale, torch.load(pathlib.Path(__file__).parent / "net.pt")

@ob.register_model("held")
class Held:
    shape, trained_on, likelihood = (1, 28, 28), "fashionmnist", "exact"
    def __init__(self):
        self.net, self.numbers = Net(3.0), [1, {"two": np.arange(3.0)}]
    def log_prob(self, images):
        x = images.double().flatten(1) / 255
        return -(x * self.net.weights).sum(1).abs() * self.net.scale - shift() - 5000
'''
HELPER = "def shift():\n    return 0.5\n"


@pytest.fixture(autouse=True)
def _apart(home, monkeypatch):
    """What a test registers is gone after it, and no figure is drawn."""
    for registry in (models, scorers, statistics):
        len(registry)  # loads what is built in
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_sources", dict(registry._sources))
    monkeypatch.setattr(
        "oodbench.report.leaderboard.draw_stale", lambda folder, illustrations: None
    )


@pytest.fixture
def done(monkeypatch):
    """Names of the tasks that were carried out since, by kind."""
    found = {ShardTask: [], DrawTask: [], TrialTask: []}

    def counting(kind, perform):
        return lambda task: (found[kind].append(str(task)), perform(task))[1]

    for kind in found:
        monkeypatch.setattr(kind, "perform", counting(kind, kind.perform))
    return found


@pytest.fixture
def plugin(tmp_path):
    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "helper.py").write_text(HELPER)
    torch.save(torch.linspace(0, 1, 784, dtype=torch.float64), folder / "net.pt")
    load_plugin(folder / "mine.py")
    return folder


def suite(**changes):
    given = {
        "name": "t", "title": "t", "models": ["held"], "limit": 20, "bootstrap": 0,
        "pairs": [Pair(in_dist="fashionmnist", ood=["mnist"])], "scorers": ["mine", "own"],
    }  # fmt: skip
    return Suite(**{**given, **changes})


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def again(folder: Path, done, **changes) -> tuple[list[str], list[str]]:
    """What another run measures and judges."""
    for tasks in done.values():
        tasks.clear()
    forget()
    rows = run_suite(suite(**changes), Options(), folder)
    assert {row["status"] for row in rows} == {"ok"}
    return done[ShardTask], sorted(name.split(" ")[0] for name in done[TrialTask])


EDITS = {
    "a constant": ("mine.py", "CONSTANT = 1.0", "CONSTANT = 2.0"),
    "a decorator's argument": ("mine.py", "@scaled(2.0)", "@scaled(-2.0)"),
    "a class attribute": ("mine.py", "quantile = 0.25", "quantile = 0.75"),
    "a helper module": ("helper.py", "0.5", "0.75"),
    "a number of the model": ("mine.py", "Net(3.0)", "Net(4.0)"),
    "a number in a dict in a list": ("mine.py", "np.arange(3.0)", "np.arange(4.0)"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_a_plugin_is_a_miss_in_the_same_process(plugin, tmp_path, done, edit):
    again(tmp_path / "out", done)
    name, old, new = EDITS[edit]
    replaced(plugin / name, old, new)
    load_plugin(plugin / "mine.py")
    measured, judged = again(tmp_path / "out", done)
    assert judged == ["mine", "own"]
    assert [name for name in measured if "density of held" in name]


def test_a_retrained_network_in_a_plain_class_is_another_model(plugin, tmp_path, done):
    again(tmp_path / "out", done)
    before = {
        row["scorer"]: row["inputs"]["models"] for row in read_rows(tmp_path / "out" / "rows.jsonl")
    }
    weights = torch.load(plugin / "net.pt")
    weights[5] += 1e-9
    torch.save(weights, plugin / "net.pt")
    measured, judged = again(tmp_path / "out", done)
    assert len(measured) == 3  # in-dist, OOD and ref; pixel_mean is of no model
    assert judged == ["mine", "own"]
    after = {
        row["scorer"]: row["inputs"]["models"] for row in read_rows(tmp_path / "out" / "rows.jsonl")
    }
    assert before["own"] != after["own"]


@pytest.mark.parametrize("change", [None, "docstring", "comment"])
def test_no_change_is_a_hit_and_changes_no_byte(plugin, tmp_path, home, done, change):
    again(tmp_path / "out", done)
    before = snapshot(home), snapshot(tmp_path / "out")
    if change == "docstring":
        replaced(plugin / "mine.py", "What it does.", "What it does, in other words.")
    if change == "comment":
        replaced(plugin / "helper.py", "    return", "    # why\n    return")
    load_plugin(plugin / "mine.py")
    assert again(tmp_path / "out", done) == ([], [])
    assert (snapshot(home), snapshot(tmp_path / "out")) == before


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def card(tmp_path: Path, name: str = "copy") -> Path:
    """A card of one's own: a shipped small Glow under another folder."""
    folder = tmp_path / name
    folder.mkdir()
    for file in (ZOO / "glow-small-fashionmnist-1").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def of_card(folder: Path, **changes):
    return {"models": [str(folder)], "scorers": ["likelihood", "pixel-mean"], "limit": 12} | changes


def reweighted(folder: Path, change) -> None:
    import hashlib

    path = folder / "weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    trained = json.loads((folder / "trained.json").read_text())
    trained["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "trained.json").write_text(json.dumps(trained))


def test_one_weight_of_a_card_is_another_model(tmp_path, done):
    folder = card(tmp_path)
    again(tmp_path / "out", done, **of_card(folder))

    def nudge(tensors):
        name = next(name for name in sorted(tensors) if tensors[name].is_floating_point())
        tensors[name].view(-1)[0] += 1e-3

    reweighted(folder, nudge)
    measured, judged = again(tmp_path / "out", done, **of_card(folder))
    assert len(measured) == 2
    assert judged == ["likelihood", "pixel-mean"]  # bits/dim of the model stand in every row


def test_a_renamed_card_s_rows_carry_the_new_name_and_share_its_columns(tmp_path, done):
    folder = card(tmp_path)
    rows = run_suite(suite(**of_card(folder)), Options(), tmp_path / "out")
    old = rows[0]["model"]
    replaced(folder / "card.yaml", f"name: {old}", "name: renamed")
    measured, judged = again(tmp_path / "out", done, **of_card(folder))
    assert (measured, judged) == ([], ["likelihood", "pixel-mean"])
    assert {row["model"] for row in read_rows(tmp_path / "out" / "rows.jsonl")} == {old, "renamed"}


def test_a_new_version_of_a_family_is_a_miss(tmp_path, done, monkeypatch):
    from oodbench.zoo import families

    folder = card(tmp_path)
    again(tmp_path / "out", done, **of_card(folder))
    known = families.family("glow")
    newer = dataclasses.replace(known, version=f"{known.version}-mended")
    monkeypatch.setitem(families.FAMILIES, "glow", newer)
    measured, judged = again(tmp_path / "out", done, **of_card(folder))
    assert (len(measured), judged) == (2, ["likelihood", "pixel-mean"])


def test_a_new_version_of_a_statistic_is_a_miss(tmp_path, done, monkeypatch):
    folder = card(tmp_path)
    again(tmp_path / "out", done, **of_card(folder))
    entry = statistics["pixel_mean"]
    newer = dataclasses.replace(entry, version=f"{entry.version}-mended")
    for name in entry.statistics:
        monkeypatch.setitem(statistics._entries, name, newer)
    measured, judged = again(tmp_path / "out", done, **of_card(folder))
    assert (len(measured), judged) == (2, ["pixel-mean"])


def test_a_new_version_of_a_sampler_draws_again(tmp_path, done, monkeypatch):
    from oodbench.zoo import families

    settings = Analysis(images=4, gray=(), samples=2, probes=2)
    folder = card(tmp_path)
    given = of_card(folder, analysis=settings, scorers=["likelihood"])
    monkeypatch.setattr("oodbench.analysis.tasks._second_order", _cheap)
    again(tmp_path / "out", done, **given)
    assert len(done[DrawTask]) == 1
    again(tmp_path / "out", done, **given)
    assert done[DrawTask] == []
    known = families.family("glow")
    newer = dataclasses.replace(known, sampler_version=f"{known.sampler_version}-mended")
    monkeypatch.setitem(families.FAMILIES, "glow", newer)
    again(tmp_path / "out", done, **given)
    assert len(done[DrawTask]) == 1


def _cheap(plan, subject, images):
    """A quick task in place of the second-order expansion, which takes seconds."""
    from oodbench.analysis import tasks

    return tasks._graying(plan, subject, "ood", images)


def test_one_pixel_is_another_set(plugin, tmp_path, done):
    images = np.array(ob.load_images("mnist/test").drawn(20).images)
    np.save(tmp_path / "own.npy", images)
    pairs = [Pair(in_dist="fashionmnist", ood=[str(tmp_path / "own.npy")])]
    again(tmp_path / "out", done, pairs=pairs)
    images[3, 0, 4, 4] ^= 1
    np.save(tmp_path / "own.npy", images)
    measured, judged = again(tmp_path / "out", done, pairs=pairs)
    assert {name.split(" on ")[1].split("/")[0] for name in measured} == {"own"}
    assert judged == ["mine", "own"]


def test_two_names_of_one_content_are_two_rows_that_share_columns(tmp_path, done):
    (tmp_path / "two.py").write_text(
        "import oodbench as ob\nfrom oodbench.testing import UniformModel\n"
        "class Flat(UniformModel):\n    trained_on = 'fashionmnist'\n"
        "ob.register_model('flat-a')(lambda: Flat())\nob.register_model('flat-b')(lambda: Flat())\n"
    )
    load_plugin(tmp_path / "two.py")
    np.save(tmp_path / "alias.npy", ob.load_images("mnist/test").drawn(20).images)
    twice = suite(
        models=["flat-a", "flat-b"],
        scorers=["pixel-mean"],
        pairs=[Pair(in_dist="fashionmnist", ood=["mnist", str(tmp_path / "alias.npy")])],
    )
    plan = make_plan(twice)
    rows = run_suite(twice, Options(), tmp_path / "out")
    planned = sorted((trial.model.name, trial.ood.identifier) for trial in plan.trials)
    assert sorted((row["model"], row["ood"]) for row in rows) == planned
    assert len(set(planned)) == 4
    assert len(done[ShardTask]) == 4  # moments and density, in-dist and OOD, each once


def test_every_planned_trial_is_a_row_and_every_skip_one(plugin, tmp_path):
    many = suite(
        models=["held", "glow-small-fashionmnist-1"],
        pairs=[
            Pair(in_dist="fashionmnist", ood=["mnist", "noise"]),
            Pair(in_dist="mnist", ood=["fashionmnist"]),
        ],
        scorers=["mine", "own", "likelihood", "likelihood-ratio"],
        group_sizes={"own": [2, 11, 15]},
    )
    plan = make_plan(many)
    rows = run_suite(many, Options(), tmp_path / "out")
    skipped = [row for row in rows if row["status"] == "skipped"]
    assert len(rows) - len(skipped) == len(plan.trials) > 0
    assert len(skipped) == len(plan.skips) > 0


def test_a_worker_refuses_a_model_that_is_not_its_task_s(plugin):
    from oodbench.work import shard_tasks

    plan = make_plan(suite())
    (task,) = (one for trial in plan.trials[:1] for one in shard_tasks(trial.density["test"]))
    task.perform()
    other = dataclasses.replace(task, model_identity="0" * 64)
    with pytest.raises(OodbenchError, match="another one in a worker process than in the plan"):
        other.perform()
    with pytest.raises(OodbenchError, match=r"statistic .* is another here"):
        dataclasses.replace(task, identity="density:0").perform()
    with pytest.raises(OodbenchError, match=r"images of .* changed"):
        dataclasses.replace(task, pixels="0" * 64).perform()


MADE_ANEW = """
import os, oodbench as ob
from oodbench.testing import UniformModel
@ob.register_model("anew")
class Anew(UniformModel):
    trained_on = "fashionmnist"
    def __init__(self):
        super().__init__()
        self.where = {where}
"""


@pytest.mark.parametrize(("where", "sentence"), [
    ("float(os.getpid())", "comes out differently each time that it is made; it is measured in this process"),
    ("open(os.devnull)", "anew is measured anew in each run"),
])  # fmt: skip
def test_a_model_that_no_other_process_can_make_is_measured_here(
    tmp_path, caplog, capsys, where, sentence
):
    path = tmp_path / "anew.py"
    path.write_text(MADE_ANEW.format(where=where))
    load_plugin(path)
    only = suite(models=["anew"], scorers=["likelihood", "pixel-mean"])
    rows = run_suite(only, Options(workers=2, plugins=(path,)), tmp_path / "out")
    assert [row["status"] for row in rows] == ["ok", "ok"]
    said = " ".join([*caplog.messages, *capsys.readouterr().err.split()])
    assert said.count(sentence) == 1


def test_two_folders_of_one_name_are_told_apart_or_refused(plugin, tmp_path):
    from PIL import Image

    for name, low in (("cats", 0), ("dogs", 128)):
        (tmp_path / name / "images").mkdir(parents=True)
        for number in range(4):
            picture = (
                np.random.RandomState(number).randint(low, low + 128, (28, 28)).astype(np.uint8)
            )
            Image.fromarray(picture).save(tmp_path / name / "images" / f"{number}.png")
    paths = [str(tmp_path / name / "images") for name in ("cats", "dogs")]
    with pytest.raises(SuiteError, match=r"would both be shown as .* give one a name of its own"):
        make_plan(suite(pairs=[Pair(in_dist="fashionmnist", ood=paths)]))
    named = [Pair(in_dist="fashionmnist", ood=[{"cats": paths[0]}, {"dogs": paths[1]}])]
    rows = run_suite(suite(pairs=named), Options(), tmp_path / "out")
    assert sorted({row["ood_name"] for row in rows}) == ["cats", "dogs"]
    aurocs = [
        {row["auroc"] for row in rows if (row["scorer"], row["ood_name"]) == ("own", name)}
        for name in ("cats", "dogs")
    ]
    assert aurocs[0] != aurocs[1]


def test_after_the_plan_the_driver_looks_no_name_up(tmp_path, monkeypatch):
    """Workers are processes of their own, which get names again: nothing is replaced there. Pages tell what shipped cards are,
    on which no row depends."""
    import sys

    def raising(*_, **__):
        raise AssertionError("the driver looks a name up")

    def planned(*arguments):
        plan = make_plan(*arguments)
        own = {name: one for name, one in sys.modules.items() if name.startswith("oodbench")}
        for module in [one for name, one in own.items() if "oodbench.report" not in name]:
            for name in (
                "describe",
                "open_images",
                "load_images",
                "load_verified",
                "load_model",
                "load_card",
            ):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, raising)
        for method in ("__getitem__", "__contains__", "get", "__iter__"):
            monkeypatch.setattr(Registry, method, raising)
        return plan

    monkeypatch.setattr(runner, "make_plan", planned)
    limited = load_suite("quick").model_copy(update={"limit": 20})
    rows = run_suite(limited, Options(workers=2), tmp_path / "out")
    assert {row["status"] for row in rows} == {"ok"}
    assert len(rows) == 8


def test_public_names_are_no_module_files():
    package = Path(oodbench.__file__).parent
    files = {path.stem for path in package.glob("*.py")} | {
        path.name for path in package.iterdir() if path.is_dir()
    }
    assert not {name for name in oodbench.__all__ if name in files}
    assert not files & {"run", "measure", "evaluate", "scores", "results"}
