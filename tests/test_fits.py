"""Work done once: a scorer is fitted once a run, a set scored once, a trial resampled once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from executor_tasks import Modules

from oodbench.analysis.tasks import analysis_tasks
from oodbench.judging import Given, judgement
from oodbench.metrics import detection_metrics
from oodbench.passes.executors import executor_for
from oodbench.plan import make_plan
from oodbench.registry import scorers
from oodbench.runner import Options, run_suite
from oodbench.store import read_rows
from oodbench.suite import Suite
from oodbench.trials import comparison, fits, replicates
from oodbench.trials.fits import FittedScorer, Memory, columns_digest
from oodbench.trials.given import About
from oodbench.trials.results import ResultsFolder
from oodbench.trials.rows import trial_tasks
from oodbench.types import Scorer


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    monkeypatch.setattr(fits, "_states", Memory(32))
    monkeypatch.setattr(fits, "_scores", Memory(64))


class Counted:
    """Typicality that counts how often it is asked."""

    def __init__(self):
        self.fits, self.scored = 0, []

    def fit(self, log_prob):
        self.fits += 1
        return log_prob.mean()

    def score(self, mean, log_prob):
        self.scored.append(len(log_prob))
        return abs(log_prob - mean)

    def scorer(self, name="counted"):
        need = ("log_prob",)
        return Scorer(name, need, need, self.fit, self.score, code=lambda: "1")


def test_equal_numbers_are_fitted_and_scored_once(random):
    counted = Counted()
    scorer, ref = counted.scorer(), {"log_prob": random.normal(size=20), "other": np.zeros(20)}
    test = {"log_prob": random.normal(size=30)}
    one = FittedScorer(scorer, "counted:1", ref)(test)
    again = FittedScorer(scorer, "counted:1", {"log_prob": ref["log_prob"].copy()})(test)
    assert (one == abs(test["log_prob"] - ref["log_prob"].mean())).all()
    assert again is one
    assert (counted.fits, counted.scored) == (1, [30])
    FittedScorer(scorer, "counted:2", ref)(test)  # its code is another
    changed = {"log_prob": ref["log_prob"] + 1}
    assert (FittedScorer(scorer, "counted:1", changed)(test) != one).any()
    assert counted.fits == 3


def test_scores_that_are_remembered_cannot_be_written(random):
    plain = Scorer("plain", ("log_prob",), (), None, lambda log_prob: log_prob)
    column = random.normal(size=5)
    scores = FittedScorer(plain, "plain:1", {})({"log_prob": column})
    with pytest.raises(ValueError, match="read-only"):
        scores[0] = 0
    column[0] = 7  # the caller's own
    assert scores[0] != 7
    assert FittedScorer(plain, "plain:1", {})({"log_prob": column})[0] == 7


def test_digests_tell_names_types_and_shapes_apart():
    a = np.arange(6.0)
    columns = [{"a": a}, {"b": a}, {"a": a.reshape(3, 2)}, {"a": a.astype(np.float32)}, {}]
    assert len({columns_digest(one) for one in columns}) == len(columns)
    assert columns_digest({"a": a[::-1][::-1]}) == columns_digest({"a": a})


def test_a_memory_forgets_the_oldest_and_what_failed():
    memory, made = Memory(2), []

    def make(key):
        made.append(key)
        return key

    for key in "abacab":
        assert memory.found(key, lambda key=key: make(key)) == key
    assert made == ["a", "b", "c", "b"]
    with pytest.raises(ZeroDivisionError):
        memory.found("x", lambda: 1 // 0)
    assert memory.found("x", lambda: 2) == 2


def test_given_numbers_of_one_shape_are_not_mistaken_for_each_other(tmp_path, random):
    """Their tasks read no pass, so that nothing but the numbers tells them apart."""
    files = {}
    for name, shift in (("in", 0), ("a", 1), ("b", 3), ("ref", 0)):
        files[name] = random.normal(shift, 1, 80) - 2000
        np.savez(tmp_path / f"{name}.npz", log_prob=files[name])
    oods = [(name, tmp_path / f"{name}.npz") for name in "ab"]
    given = Given(("in", tmp_path / "in.npz"), oods, tmp_path / "ref.npz")
    found = judgement(given, About("s", "mine", bootstrap=20))
    rows = {(one.row["scorer"], one.row["ood"]): one.row for one in found.judged}
    mean = files["ref"].mean()
    for name in "ab":
        sides = [abs(files[side] - mean) for side in ("in", name)]
        expected = detection_metrics(*sides, 20, 0)
        row = rows["typicality", name]
        for metric, one in expected.items():
            ends = [row[f"{metric}{end}"] for end in ("", "_low", "_high")]
            assert ends == pytest.approx(list(one), abs=1e-12)


SUITE = Suite(
    name="once", title="t", models=["glow-small-fashionmnist-1"], limit=20, bootstrap=10,
    pairs=[{"in_dist": "fashionmnist", "ood": ["mnist", "constant"]}],
    scorers=["likelihood", "typicality", "pixel-mean"], group_sizes={"typicality": [2]},
)  # fmt: skip


def test_a_run_fits_each_scorer_once_and_resamples_each_trial_once(tmp_path, monkeypatch):
    fitted, resampled = [], []
    typicality = scorers["typicality"]

    def fit(log_prob):
        fitted.append(len(log_prob))
        return typicality.fit(log_prob)

    monkeypatch.setitem(scorers._entries, "typicality", replace(typicality, fit=fit))
    plain = replicates.detection
    monkeypatch.setattr(replicates, "detection", lambda *a: resampled.append(a) or plain(*a))
    rows = run_suite(SUITE, Options(), tmp_path / "out")
    sound = [row for row in rows if row["status"] == "ok" and row["scorer"] == "typicality"]
    assert len(sound) == 4  # two sets, single images and groups
    assert fitted == [20, 16, 16, 16, 16, 16]  # all of ref, and each of five folds left out
    assert resampled == []  # the comparison has read what the rows' own bootstrap gave
    (compared,) = read_rows(tmp_path / "out" / "comparisons.jsonl")
    single = {
        row["scorer"]: row
        for row in rows
        if row.get("group_size") == 1 and row["ood_name"] == "mnist"
    }
    values = compared["paired"]["aupr_ood"]["value"]
    assert values == [single[name]["aupr_ood"] for name in compared["scorers"]]


def test_a_comparison_without_kept_replicates_says_the_same(tmp_path, home):
    run_suite(SUITE, Options(), tmp_path / "out")
    (row,) = read_rows(tmp_path / "out" / "comparisons.jsonl")
    kept = list((home / "replicates").rglob("*.npz"))
    assert len(kept) == 3  # neither of groups nor of generated images
    for path in kept:
        path.unlink()
    (task,) = comparison.comparison_tasks(
        read_rows(tmp_path / "out" / "rows.jsonl"), tmp_path / "out"
    )
    (again,) = task.perform()["comparisons"]
    assert again == {name: row[name] for name in again}


def test_processes_that_judge_alone_import_no_torch(tmp_path, home):
    """Importing it takes seconds in each of them, which rows and comparisons have no use for."""
    results = ResultsFolder(tmp_path / "out")
    plan = make_plan(SUITE, (), "cpu")
    tasks = [*trial_tasks(plan), *(one for one in analysis_tasks(plan))]
    run_suite(SUITE, Options(), tmp_path / "out")
    rows = read_rows(tmp_path / "out" / "rows.jsonl")
    tasks += comparison.comparison_tasks(rows, results.folder)
    with executor_for(2) as executor:
        for task in tasks:
            executor.submit(Modules(task, ("torch", "pandas", "matplotlib")))
        found = [result for _, result in executor.results()]
    assert {kind for kind, _ in found} == {"Judged", "Found", "dict"}
    assert [imported for _, imported in found if imported] == []
