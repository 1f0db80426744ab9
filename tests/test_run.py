"""A run end to end on real images: cache, resume, failure of one part, kill, byte-identical rows."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import oodbench as ob
from oodbench import store
from oodbench.errors import StoreError
from oodbench.passes.shards import ShardTask
from oodbench.registry import models as user_models
from oodbench.registry import register_model, register_scorer
from oodbench.registry import scorers as all_scorers
from oodbench.runner import Options, run_suite
from oodbench.suite import Pair, Suite
from oodbench.testing import UniformModel
from oodbench.zoo.cards import ZOO
from oodbench.zoo.describe import describe


def suite(**changes):
    given = {
        "name": "t", "title": "t", "models": ["glow-fashionmnist"], "limit": 30, "bootstrap": 20,
        "pairs": [Pair(in_dist="fashionmnist", ood=["mnist"])],
        "scorers": ["likelihood", "typicality", "likelihood-ratio", "input-complexity-png", "pixel-mean"],
    }  # fmt: skip
    return Suite(**{**given, **changes})


@pytest.fixture
def counted(monkeypatch):
    """Shards measured since, in this process."""
    measured = []

    perform = ShardTask.perform

    def counting(task):
        measured.append(task)
        return perform(task)

    monkeypatch.setattr(ShardTask, "perform", counting)
    return measured


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith(".")
    }


def without_measurement(folder: Path) -> list[dict]:
    """The rows of a folder less what differs between runs: cost, provenance, and their hash."""
    apart = ("cost", "provenance", "measured_sha256")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in apart} for row in rows]


def test_a_finished_run_measures_nothing_and_changes_no_byte(home, tmp_path, counted):
    rows = run_suite(suite(), Options(), tmp_path / "out")
    assert {row["status"] for row in rows} == {"ok"}
    assert (
        len(counted) == 9
    )  # the model on in-dist, OOD and ref; background, PNG and moments on both test sets
    before = snapshot(tmp_path / "out")
    run_suite(suite(), Options(), tmp_path / "out")
    assert len(counted) == 9
    assert snapshot(tmp_path / "out") == before


def test_deleted_figures_are_drawn_again_without_a_pass(home, tmp_path, counted):
    run_suite(suite(), Options(), tmp_path / "out")
    figures = snapshot(tmp_path / "out" / "figures")
    n = len(counted)
    shutil.rmtree(tmp_path / "out" / "figures")
    run_suite(suite(), Options(), tmp_path / "out")
    again = snapshot(tmp_path / "out" / "figures")
    assert {name: content for name, (content, _) in again.items()} == {
        name: content for name, (content, _) in figures.items()
    }
    assert len(counted) == n


def test_columns_outlive_rows_and_serve_other_suites(home, tmp_path, counted):
    run_suite(suite(), Options(), tmp_path / "one")
    first = (tmp_path / "one" / "rows.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "one")
    run_suite(suite(), Options(), tmp_path / "one")
    assert (tmp_path / "one" / "rows.jsonl").read_bytes() == first
    run_suite(suite(name="other", scorers=["likelihood"]), Options(), tmp_path / "two")
    assert len(counted) == 9


def test_a_new_scorer_costs_no_pass(home, tmp_path, counted):
    run_suite(suite(scorers=["likelihood"]), Options(), tmp_path / "out")
    n = len(counted)
    rows = run_suite(suite(scorers=["likelihood", "code-length-png"]), Options(), tmp_path / "out")
    assert [task.statistic for task in counted[n:]] == ["code_length_png"] * 2
    assert len(rows) == 2


def test_seed_weights_and_pixels_are_misses(home, tmp_path, counted):
    only = {"scorers": ["likelihood"]}
    run_suite(suite(**only), Options(), tmp_path / "out")
    run_suite(suite(**only, seed=1), Options(), tmp_path / "seed")
    assert len(counted) == 4
    copy = tmp_path / "copy"
    shutil.copytree(ZOO / "glow-fashionmnist", copy)
    run_suite(suite(**only, models=[str(copy)]), Options(), tmp_path / "same")
    assert len(counted) == 4  # another name, the same weights: hits
    tensors = load_file(copy / "weights.safetensors")
    tensors["top_prior"][0, 0] += 1e-4
    save_file(tensors, copy / "weights.safetensors")
    trained = json.loads((copy / "trained.json").read_text())
    trained["weights_sha256"] = hashlib.sha256(
        (copy / "weights.safetensors").read_bytes()
    ).hexdigest()
    (copy / "trained.json").write_text(json.dumps(trained))
    run_suite(suite(**only, models=[str(copy)]), Options(), tmp_path / "weight")
    assert len(counted) == 6
    changed = np.array(ob.load_images("mnist/test[:30]").images)
    changed[7, 0, 3, 3] ^= 1
    np.save(tmp_path / "changed.npy", changed)
    pairs = [Pair(in_dist="fashionmnist", ood=[str(tmp_path / "changed.npy")])]
    run_suite(suite(**only, pairs=pairs), Options(), tmp_path / "pixel")
    assert len(counted) == 7


def test_workers_change_no_byte(home, tmp_path, monkeypatch):
    many = suite(limit=1100, scorers=["likelihood", "input-complexity-png"])
    run_suite(many, Options(workers=1), tmp_path / "one")
    shutil.rmtree(home / "columns")
    run_suite(many, Options(workers=2), tmp_path / "two")
    assert without_measurement(tmp_path / "one") == without_measurement(tmp_path / "two")


def test_an_interrupted_run_measures_only_the_rest(home, tmp_path, monkeypatch):
    measured = []

    perform = ShardTask.perform

    def interrupted(task):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(task)
        return perform(task)

    monkeypatch.setattr(ShardTask, "perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite(), Options(), tmp_path / "out")
    rest = []
    monkeypatch.setattr(ShardTask, "perform", lambda task: (rest.append(task), perform(task))[1])
    run_suite(suite(), Options(), tmp_path / "out")
    assert len(rest) == 9 - 3


def test_kill_9_in_a_pass_loses_nothing_but_the_shards_in_flight(home, tmp_path):
    command = [
        sys.executable,
        "-m",
        "oodbench.cli",
        "run",
        "--suite",
        "quick",
        "--workers",
        "2",
        "--limit",
        "1500",
    ]
    environment = {**os.environ, "OODBENCH_HOME": str(home)}
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 120
    while len(list((home / "columns").rglob("*.npz"))) < 3 and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # orphaned workers notice and leave
    saved = {
        path: path.stat().st_mtime_ns
        for path in (home / "columns").rglob("*.npz")
        if not path.name.startswith(".")
    }
    assert saved
    assert not (tmp_path / "out" / "rows.jsonl").exists()
    subprocess.run(
        [*command, "--out", str(tmp_path / "out")], env=environment, check=True, capture_output=True
    )
    assert {path: path.stat().st_mtime_ns for path in saved} == saved
    subprocess.run([*command, "--out", str(tmp_path / "whole")], env={**environment, "OODBENCH_HOME": str(tmp_path / "fresh")},
                   check=True, capture_output=True)  # fmt: skip
    assert without_measurement(tmp_path / "out") == without_measurement(tmp_path / "whole")


@pytest.fixture
def plugins():
    """Entries that a test registers, taken back afterwards."""
    yield
    for kind in (all_scorers, user_models):
        for name in [name for name in kind._entries if name.startswith("test-")]:
            del kind._entries[name]
    describe.cache_clear()


def test_one_broken_scorer_leaves_the_others(home, tmp_path, plugins):
    @register_scorer("test-boom")
    def boom(log_prob):
        raise ValueError("boom")

    rows = run_suite(
        suite(scorers=["likelihood", "test-boom", "typicality"]), Options(), tmp_path / "out"
    )
    assert sorted(row["status"] for row in rows) == ["failed", "ok", "ok"]
    failed = next(row for row in rows if row["status"] == "failed")
    assert failed["reason"] == "test-boom failed: ValueError: boom"
    assert "FAILED[^" in (tmp_path / "out" / "fashionmnist.md").read_text()


class Partial(UniformModel):
    """NaN on the darkest images, an error on none."""

    trained_on = "fashionmnist"

    def log_prob(self, images):
        log_prob = super().log_prob(images)
        log_prob[images.flatten(1).double().mean(1) < 15] = float("nan")
        return log_prob


def test_non_finite_log_probabilities_are_counted_and_never_replaced(home, tmp_path, plugins):
    register_model("test-partial")(Partial)
    rows = run_suite(
        suite(models=["test-partial"], scorers=["likelihood"]), Options(), tmp_path / "out"
    )
    assert rows[0]["status"] == "failed"
    assert (
        "values of log_prob on mnist/test[first 2000][30 drawn] are NaN or infinite"
        in rows[0]["reason"]
    )
    assert "auroc" not in rows[0]
    assert re.search(
        r"^\[\^1\]: \d+ of 30 values of log_prob on mnist/test.* are NaN or infinite$",
        (tmp_path / "out" / "fashionmnist.md").read_text("utf-8"),
        re.M,
    )
    assert "not finite" in (tmp_path / "out" / "fashionmnist-details.md").read_text("utf-8")


class Raising(UniformModel):
    trained_on = "fashionmnist"

    def log_prob(self, images):
        raise RuntimeError("out of memory")


def test_a_model_that_raises_fails_its_trials_alone(home, tmp_path, plugins):
    register_model("test-raising")(Raising)
    models = ["test-raising", "glow-fashionmnist"]
    rows = run_suite(suite(models=models, scorers=["likelihood"]), Options(), tmp_path / "out")
    assert {row["model"]: row["status"] for row in rows} == {
        "test-raising": "failed",
        "glow-fashionmnist": "ok",
    }
    assert (
        next(row["reason"] for row in rows if "reason" in row)
        == "density of test-raising failed: RuntimeError: out of memory"
    )


def test_only_keeps_the_other_rows(home, tmp_path, counted):
    whole = run_suite(suite(), Options(), tmp_path / "out")
    again = run_suite(suite(), Options(), tmp_path / "out", only=["typicality"])
    assert again == whole
    assert len(counted) == 9


def test_a_cache_that_cannot_be_written_stops_with_a_sentence(home, tmp_path, monkeypatch):
    home.mkdir()
    (home / "columns").write_text("in the way")
    with pytest.raises(StoreError, match="cannot write"):
        run_suite(suite(), Options(), tmp_path / "out")


SCRIPT = """
import oodbench as ob

@ob.register_scorer("from-a-script")
def from_a_script(log_prob):
    return -log_prob

suite = ob.run("mine.yaml", "out", workers=2)
print(suite.set_index("scorer").auroc.to_dict())
"""


def test_a_script_needs_no_guard_and_may_register_in_place(home, tmp_path):
    """Workers neither run the user's script again nor miss what it registered."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntitle: Mine\nmodels: [glow-fashionmnist]\nlimit: 600\nbootstrap: 10\n"
        "pairs: [{in_dist: fashionmnist, ood: [mnist]}]\nscorers: [likelihood, pixel-mean, from-a-script]\n"
    )
    environment = {**os.environ, "OODBENCH_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("from-a-script") == 1
    found = ast.literal_eval(done.stdout)
    assert found["from-a-script"] == found["likelihood"]


def test_workers_know_everything_built_in():
    program = (
        "import oodbench.runner\nfrom oodbench.registry import models, scorers, statistics\n"
        "print(len(scorers) > 0, [*scorers.local, *statistics.local, *models.local])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True []\n"


def test_run_returns_a_table(home, tmp_path):
    table = ob.run("quick", tmp_path / "out", limit=20, only=["likelihood"], workers=1)
    assert table.loc[table.scorer == "likelihood", "auroc"].between(0, 0.5).all()
    assert {"provenance.torch", "in_dist_bits_per_dim"} <= set(table.columns)
    assert store.read_rows(tmp_path / "out" / "rows.jsonl")
