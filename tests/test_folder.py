"""A results folder: a run never leaves less than it found, and nothing that it did not write passes for a result."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from oodbench.errors import StoreError
from oodbench.passes.work import ShardTask
from oodbench.registry import load_plugin, models, register_scorer, scorers
from oodbench.runner import Options, run_suite
from oodbench.store import read_rows, sealed_row, write_rows
from oodbench.suite import Pair, Suite
from oodbench.trials.recount import score_faults
from oodbench.trials.results import ResultsFolder
from oodbench.trials.scores import RECORD, archive_scores, has_scores

PAIR = {"suite": "t", "model": "m", "in_dist": "a", "ood": "b", "seed": 0}


@pytest.fixture(autouse=True)
def _apart(home, monkeypatch):
    """What a test registers is gone after it, and no figure is drawn."""
    for registry in (models, scorers):
        len(registry)  # loads what is built in
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_sources", dict(registry._sources))
    monkeypatch.setattr(
        "oodbench.report.leaderboard.draw_stale", lambda folder, illustrations: None
    )


@pytest.fixture
def measured(monkeypatch):
    """Shards measured since."""
    tasks, perform = [], ShardTask.perform
    monkeypatch.setattr(ShardTask, "perform", lambda task: (tasks.append(task), perform(task))[1])
    return tasks


@pytest.fixture
def flat(tmp_path):
    """A plugin's model that costs nothing."""
    path = tmp_path / "flat.py"
    path.write_text(
        "import oodbench as ob\nfrom oodbench.testing import UniformModel\n"
        "@ob.register_model('flat')\nclass Flat(UniformModel):\n    trained_on = 'fashionmnist'\n"
    )
    load_plugin(path)


def suite(**changes):
    given = {
        "name": "t", "title": "t", "models": ["flat"], "limit": 20, "bootstrap": 0,
        "pairs": [Pair(in_dist="fashionmnist", ood=["mnist"])], "scorers": ["pixel-mean", "pixel-variance"],
    }  # fmt: skip
    return Suite(**{**given, **changes})


def values(folder: Path) -> list[dict]:
    apart = ("cost", "provenance", "measured_sha256")
    return [
        {name: row[name] for name in row if name not in apart}
        for row in read_rows(folder / "rows.jsonl")
    ]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert re.search(old, text)
    path.write_text(re.sub(old, new, text, count=1))


def row(status="ok", key="k", **values):
    return {
        "schema": 3,
        "key": key,
        "status": status,
        **PAIR,
        "scorer": "s",
        "group_size": 1,
        **values,
    }


def merged(folder, *rows, table="rows"):
    results = ResultsFolder(folder)
    with results.held():
        return results.merge({table: rows})


@pytest.mark.parametrize(
    ("old", "new"),
    [('"auroc": ', '"auroc": 1'), ('"status": "ok"', '"status": "okay"'), (r"\{", "[")],
)
def test_an_edited_line_is_set_aside_and_computed_again(flat, tmp_path, measured, old, new):
    run_suite(suite(), Options(), tmp_path / "out")
    before, n = values(tmp_path / "out"), len(measured)
    edit(tmp_path / "out" / "rows.jsonl", old, new)
    with pytest.raises(StoreError, match="run the suite again"):
        read_rows(tmp_path / "out" / "rows.jsonl")
    run_suite(suite(), Options(), tmp_path / "out")
    assert values(tmp_path / "out") == before
    assert len(measured) == n
    assert len((tmp_path / "out" / "rows.damaged.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("number", ["1", "2", "7"])
def test_a_flipped_schema_is_damage_and_neither_an_old_row_nor_a_newer_one(flat, tmp_path, number):
    run_suite(suite(), Options(), tmp_path / "out")
    before = values(tmp_path / "out")
    edit(tmp_path / "out" / "rows.jsonl", '"schema": 3', f'"schema": {number}')
    run_suite(suite(), Options(), tmp_path / "out")
    assert values(tmp_path / "out") == before


def test_a_row_of_a_newer_version_is_refused(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [sealed_row(row() | {"schema": 4})])
    with pytest.raises(StoreError, match="newer version"):
        ResultsFolder(tmp_path)


def test_damage_of_rows_that_this_run_does_not_plan_is_set_aside_too(flat, tmp_path):
    run_suite(suite(), Options(), tmp_path / "out")
    for table in ("rows", "curves", "comparisons"):
        edit(tmp_path / "out" / f"{table}.jsonl", '"seed": 0', '"seed": 9')
    run_suite(
        suite(limit=19), Options(), tmp_path / "out"
    )  # its pages are written, of what is sound
    assert [row["in_dist"] for row in values(tmp_path / "out")].count(
        "fashionmnist/test[first 2000][20 drawn]"
    ) == 1


@pytest.mark.parametrize("table", ["curves", "comparisons"])
def test_a_table_that_is_gone_is_computed_again(flat, tmp_path, measured, table):
    run_suite(suite(), Options(), tmp_path / "out")
    path = tmp_path / "out" / f"{table}.jsonl"
    before, n = path.read_bytes(), len(measured)
    path.unlink()
    run_suite(suite(), Options(), tmp_path / "out")
    assert path.read_bytes() == before
    assert len(measured) == n


def test_a_failed_row_does_not_replace_a_measured_one(tmp_path):
    good, bad = row(auroc=0.5), row("failed", key="other", reason="r")
    merged(tmp_path, good)
    assert merged(tmp_path, bad) == [bad]
    assert [one["status"] for one in read_rows(tmp_path / "rows.jsonl")] == ["ok"]
    better = row(key="other", auroc=0.6, replaces=None)
    assert merged(tmp_path, better) == []
    (stored,) = read_rows(tmp_path / "rows.jsonl")
    assert (stored["auroc"], stored["replaces"]) == (0.6, "k")


def test_a_row_judged_again_keeps_what_it_replaced(tmp_path):
    for key in ("one", "two", "two"):
        merged(tmp_path, row(key=key, auroc=0.5, replaces=None))
    (stored,) = read_rows(tmp_path / "rows.jsonl")
    assert stored["replaces"] == "one"


def test_a_comparison_that_failed_is_made_when_its_scores_are_there(flat, tmp_path):
    failing = [True]

    @register_scorer("sometimes")
    def sometimes(pixel_mean):
        if failing[0]:
            raise SystemExit(3)
        return pixel_mean

    three = suite(scorers=["pixel-mean", "pixel-variance", "sometimes"])
    rows = run_suite(three, Options(), tmp_path / "out")
    (reason,) = [one["reason"] for one in rows if one["status"] == "failed"]
    assert reason == "sometimes failed: SystemExit: 3"
    (compared,) = read_rows(tmp_path / "out" / "comparisons.jsonl")
    assert compared["scorers"] == ["pixel-mean", "pixel-variance"]
    failing[0] = False
    rows = run_suite(three, Options(), tmp_path / "out")
    assert {one["status"] for one in rows} == {"ok"}
    (compared,) = read_rows(tmp_path / "out" / "comparisons.jsonl")
    assert compared["scorers"] == ["pixel-mean", "pixel-variance", "sometimes"]


@pytest.mark.parametrize(("error", "said"), [
    ("KeyError('')", "KeyError: ''"),
    ("MemoryError()", "MemoryError: out of memory"),
    ("ValueError()", "raised without a message"),
])  # fmt: skip
def test_whatever_a_scorer_raises_is_one_row_and_its_sentence(flat, tmp_path, error, said):
    path = tmp_path / "raises.py"
    path.write_text(
        f"import oodbench as ob\n@ob.register_scorer('raises')\ndef raises(pixel_mean):\n    raise {error}\n"
    )
    load_plugin(path)
    rows = run_suite(suite(scorers=["pixel-mean", "raises"]), Options(), tmp_path / "out")
    assert {one["scorer"]: one["status"] for one in rows} == {
        "pixel-mean": "ok",
        "raises": "failed",
    }
    assert said in next(one["reason"] for one in rows if one["scorer"] == "raises")


def test_a_model_of_huge_or_missing_numbers_leaves_the_others_and_the_pages(tmp_path):
    path = tmp_path / "huge.py"
    path.write_text(
        "import torch, oodbench as ob\nfrom oodbench.testing import UniformModel\n"
        "def make(name, value):\n"
        "    @ob.register_model(name)\n"
        "    class Odd(UniformModel):\n"
        "        trained_on = 'fashionmnist'\n"
        "        def log_prob(self, x):\n"
        "            y = -x.double().flatten(1).sum(1)\n"
        "            y[::3] = value\n"
        "            return y\n"
        "for name, value in dict(huge=-1e308, less=-float('inf'), nan=float('nan')).items(): make(name, value)\n"
    )
    load_plugin(path)
    few = {"images": 4, "samples": 0, "probes": 2, "gray": [50]}
    odd = suite(
        models=["huge", "less", "nan", "glow-small-fashionmnist-1"],
        scorers=["likelihood"],
        analysis=few,
    )
    rows = run_suite(odd, Options(), tmp_path / "out")
    status = {one["model"]: one["status"] for one in rows}
    assert len(rows) == 4
    assert status["glow-small-fashionmnist-1"] == "ok"
    assert (status["less"], status["nan"]) == ("failed", "failed")
    assert (tmp_path / "out" / "README.md").exists()


def test_a_file_of_ones_own_is_refused_before_work(flat, tmp_path, measured):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine\n")
    with pytest.raises(StoreError, match="did not write"):
        run_suite(suite(), Options(), out)
    assert (out / "README.md").read_text() == "mine\n"
    (out / "README.md").unlink()
    run_suite(suite(), Options(), out)
    (out / "README.md").write_text("mine again\n")
    n = len(measured)
    with pytest.raises(StoreError, match=r"README\.md"):
        run_suite(suite(limit=10), Options(), out)
    assert (out / "README.md").read_text() == "mine again\n"
    assert len(measured) == n


def test_another_suite_is_refused(flat, tmp_path):
    run_suite(suite(), Options(), tmp_path / "out")
    with pytest.raises(StoreError, match="rows of the suite 't', not of 'u'"):
        run_suite(suite(name="u"), Options(), tmp_path / "out")


def test_limits_and_seeds_stand_beside_each_other(flat, tmp_path):
    for changes in ({}, {"limit": 15}, {"seed": 1}):
        run_suite(suite(**changes), Options(), tmp_path / "out", only=["pixel-mean"])
    found = [(one["seed"], one["in_dist"]) for one in values(tmp_path / "out")]
    assert len(set(found)) == 3


def test_skips_are_planned_anew_and_those_of_other_names_stay(flat, tmp_path):
    both = suite(
        pairs=[Pair(in_dist="fashionmnist", ood=["mnist", "svhn"])], scorers=["pixel-mean", "lid"]
    )

    def skipped(rows):
        return sorted((one["scorer"], one["ood"]) for one in rows if one["status"] == "skipped")

    first = skipped(run_suite(both, Options(), tmp_path / "out"))
    assert first
    assert (
        skipped(run_suite(both, Options(), tmp_path / "out", only=["pixel-mean", "mnist"])) == first
    )
    sure = both.model_copy(
        update={"pairs": [Pair(in_dist="fashionmnist", ood=["mnist"])], "scorers": ["pixel-mean"]}
    )
    assert skipped(run_suite(sure, Options(), tmp_path / "out")) == []


def test_groups_that_cannot_be_are_a_skip_each(flat, tmp_path):
    groups = suite(scorers=["pixel-mean"], group_sizes={"pixel-mean": [5, 15, 18]})
    rows = run_suite(groups, Options(), tmp_path / "out")
    assert sorted((one["status"], one["group_size"]) for one in rows) == [
        ("ok", 1),
        ("ok", 5),
        ("skipped", 15),
        ("skipped", 18),
    ]


def test_runs_at_once_into_one_folder_merge(flat, tmp_path):
    four = suite(
        pairs=[Pair(in_dist="fashionmnist", ood=["mnist", "noise"])],
        scorers=["pixel-mean", "pixel-variance", "code-length-png", "likelihood"],
    )
    faults = []

    def one(only):
        try:
            run_suite(four, Options(), tmp_path / "out", only=only)
        except Exception as error:  # told by the main thread
            faults.append(error)

    chosen = [[name, ood] for name in four.scorers for ood in ("mnist", "noise")]
    threads = [threading.Thread(target=one, args=(only,)) for only in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    rows = read_rows(tmp_path / "out" / "rows.jsonl")
    assert sorted((row["scorer"], row["ood_name"]) for row in rows) == sorted(map(tuple, chosen))
    assert all(has_scores(tmp_path / "out", row) for row in rows)


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_scores_are_made_again_without_a_pass(flat, tmp_path, measured, damage):
    out = tmp_path / "out"
    run_suite(suite(), Options(), out)
    path, n = out / "scores" / "flat" / "pixel-mean.npz", len(measured)
    before, data = path.read_bytes(), bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[200] ^= 8
        path.write_bytes(data[:-50] if damage == "cut" else data)
    assert score_faults(out)
    rows = values(out)
    run_suite(suite(), Options(), out)
    assert path.read_bytes() == before
    assert values(out) == rows
    assert len(measured) == n
    assert score_faults(out) == []


def test_scores_that_travel_apart_are_not_missed(flat, tmp_path, measured, caplog):
    out = tmp_path / "out"
    run_suite(suite(), Options(), out)
    archive_scores(out, tmp_path / "scores.tar")
    assert (out / RECORD).exists()
    shutil.rmtree(out / "scores")
    n, before = len(measured), values(out)
    run_suite(suite(), Options(), out)
    assert len(measured) == n
    assert values(out) == before
    assert not (out / "scores").exists()
    assert "unpack the archive" in score_faults(out)[0]
    # a new scorer is judged; the comparison with those whose scores are elsewhere stands as it was
    rows = run_suite(
        suite(scorers=["pixel-mean", "pixel-variance", "code-length-png"]), Options(), out
    )
    assert {row["status"] for row in rows} == {"ok"}
    (compared,) = read_rows(out / "comparisons.jsonl")
    assert compared["scorers"] == ["pixel-mean", "pixel-variance"]


def test_a_truncated_copy_of_images_costs_time_and_no_row(flat, tmp_path, home):
    run_suite(suite(), Options(), tmp_path / "out")
    copies = list((home / "images").rglob("*.npy"))
    assert copies
    for copy in copies:
        copy.write_bytes(copy.read_bytes()[:-500])
    rows = run_suite(
        suite(scorers=["pixel-mean", "pixel-variance", "code-length-png"]),
        Options(),
        tmp_path / "out",
    )
    assert [row["status"] for row in rows] == ["ok"] * 3


def test_older_rows_stand_beside_new_ones_and_are_said_to_be_older(flat, tmp_path):
    out, older = tmp_path / "out", []
    run_suite(suite(), Options(), out)
    for one in read_rows(out / "rows.jsonl"):
        plain = {name: value for name, value in one.items() if not name.endswith("_sha256")}
        older.append(plain | {"schema": 2, "scorer": one["scorer"].replace("pixel", "old")})
    write_rows(out / "rows.jsonl", [*older, *read_rows(out / "rows.jsonl")])
    rows = run_suite(suite(), Options(), out)
    assert sorted(row["schema"] for row in rows) == [2, 2, 3, 3]
    assert "2 of 4 rows are of schema 2" in (out / "README.md").read_text()


def test_older_rows_of_one_name_are_replaced(flat, tmp_path):
    out = tmp_path / "out"
    run_suite(suite(), Options(), out)
    rows = read_rows(out / "rows.jsonl")
    plain = [
        {name: value for name, value in one.items() if not name.endswith("_sha256")} for one in rows
    ]
    write_rows(
        out / "rows.jsonl", [one | {"schema": 2, "key": f"old{n}"} for n, one in enumerate(plain)]
    )
    again = run_suite(suite(), Options(), out)
    assert [row["schema"] for row in again] == [3, 3]
    assert {row["replaces"] for row in again} == {"old0", "old1"}


def test_damage_is_told_once(flat, tmp_path, caplog):
    run_suite(suite(), Options(), tmp_path / "out")
    edit(tmp_path / "out" / "rows.jsonl", '"seed": 0', '"seed": 9')
    with caplog.at_level(logging.WARNING, "oodbench"):
        run_suite(suite(), Options(), tmp_path / "out")
    assert len([one for one in caplog.messages if "not what was written" in one]) == 1


def test_rows_are_what_their_scores_give(flat, tmp_path):
    out = tmp_path / "out"
    run_suite(suite(), Options(), out)
    rows = read_rows(out / "rows.jsonl")
    rows[0] = sealed_row(rows[0] | {"auroc": 0.999})  # sealed anew, by somebody who knows how
    write_rows(out / "rows.jsonl", rows)
    (fault,) = score_faults(out)
    assert "0.999" in fault
    assert json.loads((out / "rows.jsonl").read_text().splitlines()[0])
    assert np.isfinite(rows[1]["auroc"])
