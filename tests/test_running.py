"""The order of work, and what a person sees of it: rows early, one line of state, JSON, silence, a summary a pair."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial

import pytest

from oodbench import running
from oodbench.analysis.tasks import AnalysisTask
from oodbench.passes.costs import Costs, published
from oodbench.passes.executors import Serial
from oodbench.passes.queue import Queue
from oodbench.passes.shards import ShardTask
from oodbench.plan import make_plan
from oodbench.report import leaderboard, read_results
from oodbench.runner import Options, run_suite
from oodbench.suite import Analysis, Pair, Suite, load_suite
from oodbench.summary import SKIPS, pair_tables, skip_summary
from oodbench.trials.results import ResultsFolder
from oodbench.trials.rows import TrialTask
from oodbench.work import cheapest_first, work_left


def suite(**changes):
    given = {
        "name": "t", "title": "t", "models": ["glow-fashionmnist", "vae-fashionmnist"], "limit": 30, "bootstrap": 20,
        "pairs": [Pair(in_dist="fashionmnist", ood=["noise", "mnist"])],
        "scorers": ["typicality", "likelihood", "likelihood-ratio", "pixel-mean"],
    }  # fmt: skip
    return Suite(**{**given, **changes})


@dataclass(frozen=True)
class Step:
    """A job that does nothing."""

    key: str
    after: frozenset[str] = field(default_factory=frozenset)
    here: bool = False

    @property
    def label(self):
        return self.key

    def perform(self):
        return self.key


def test_of_what_can_be_done_the_first_in_the_list_goes_first():
    jobs = [Step("row b", frozenset("bc")), Step("row a", frozenset("a")), *map(Step, "abcd"), Step("last")]  # fmt: skip
    done = [result for _, result in Queue(Serial(), lambda keys: []).run(jobs)]
    assert done == ["a", "row a", "b", "c", "row b", "d", "last"]


def test_rows_come_before_what_only_explains(home, tmp_path):
    small = Analysis(images=10, gray=(0, 50), gray_images=10, samples=4, few_samples=4)
    _, work = work_of(suite(analysis=small), tmp_path)
    rows = [job for job in work.jobs if isinstance(job, TrialTask)]
    read = {key for row in rows for key in row.after}
    of_rows = [place for place, job in enumerate(work.jobs) if job in rows or job.key in read]
    explaining = [place for place, job in enumerate(work.jobs) if isinstance(job, AnalysisTask)]
    assert max(of_rows) == len(of_rows) - 1
    assert min(explaining) == len(work.jobs) - len(explaining)


def test_cheap_trials_are_measured_first():
    plan = make_plan(suite(limit=200))
    names = [one.name for one in dict.fromkeys(cheapest_first(plan, Costs.of([])))]
    assert names.index("density of glow-fashionmnist") < names.index("density of vae-fashionmnist")


def test_costs_that_travel_name_every_pass_of_the_paper():
    plan = make_plan(load_suite("paper"))
    assert {one.name for one in plan.passes} <= set(published()["passes"])


def test_costs_measured_here_come_before_those_that_travel(home, tmp_path):
    made = suite(models=["glow-fashionmnist"])
    run_suite(made, Options(1, show="quiet"), tmp_path / "out")
    name = "density of glow-fashionmnist"
    found = Costs.of(make_plan(made).passes)
    assert found.an_image(name) != published()["passes"][name]
    assert found.an_image("of nobody") == found.unknown > 0


def work_of(made, folder):
    plan = make_plan(made)
    return plan, work_left(plan, ResultsFolder(folder))


def test_a_tally_counts_passes_images_and_rows_to_their_ends(home, tmp_path):
    _, work = work_of(suite(), tmp_path)
    tally = running.Tally(work, workers=2)
    assert tally.seconds_left == pytest.approx(work.seconds / 2)
    assert sum(job.images_here for job in work.jobs if isinstance(job, ShardTask)) == tally.images
    for job in work.jobs:
        tally.advance(job)
    assert (tally.passes_done, tally.images_done, tally.rows_done) == (tally.passes, tally.images, tally.rows)  # fmt: skip
    assert tally.seconds_left == pytest.approx(0, abs=1e-6)


def test_a_log_has_the_plan_at_once_and_a_line_now_and_then(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(running, "EVERY", 0.05)
    run_suite(suite(), Options(1), tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("t: ")
    assert "CPU-seconds" in lines[0]
    assert any(" rows, " in line and " left" in line for line in lines[1:])
    assert sum("likelihood AUROC" in line for line in lines) == 2  # a model, on real images
    run_suite(suite(), Options(1), tmp_path / "out")
    assert capsys.readouterr().err.splitlines()[0].endswith("rows are there")


def test_quiet_says_nothing(home, tmp_path, capsys):
    run_suite(suite(), Options(1, show="quiet"), tmp_path / "out")
    assert capsys.readouterr() == ("", "")


def test_json_is_an_object_a_line(home, tmp_path, capsys):
    rows = run_suite(suite(), Options(1, show="json"), tmp_path / "out")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["event"] == "plan"
    assert events[0]["rows"] == len(events) - 1
    told = {event["row"]["key"] for event in events[1:]}
    assert told == {row["key"] for row in rows if row["status"] == "ok"}


def row(scorer, auroc, model="glow", pair=("a", "b"), **changes):
    in_dist, ood = pair
    given = {
        "scorer": scorer, "auroc": auroc, "auroc_low": None, "auroc_high": None, "model": model, "baseline": False,
        "in_dist": f"{in_dist}/test", "ood": f"{ood}/test", "in_dist_name": in_dist, "ood_name": ood, "status": "ok",
        "synthetic": False, "group_size": 1, "seed": 0, "tunes_on": "none", "reason": "",
    }  # fmt: skip
    return given | changes


def test_pairs_come_in_the_suite_s_order_and_tell_what_leads():
    made = suite(
        models=["glow"], pairs=[Pair(in_dist="b", ood=["a"]), Pair(in_dist="a", ood=["b"])]
    )
    ahead = row("typicality", 0.8, auroc_low=0.7, auroc_high=0.9)
    rows = [
        row("likelihood", 0.1, auroc_low=0.0, auroc_high=0.2),
        ahead,
        row("png", 0.7, baseline=True),
    ]
    rows += [row("likelihood", 0.6, pair=("b", "a"))]
    first, second = pair_tables(rows, made)
    assert first.title == "b/test → a/test"
    assert first.lead == "leads: likelihood with glow, 0.600"
    assert [line[0] for line in second.lines] == ["typicality", "likelihood ◂", "png * ‡"]
    assert second.lead == "leads: typicality with glow, 0.800; the bar: png, 0.700"


def test_views_of_one_set_are_pairs_of_their_own_and_ladders_stay_on_the_page():
    ood = ["a@hflip", "a@rot90", "a@blur1"]
    made = suite(models=["glow"], pairs=[Pair(in_dist="a", ood=ood)])
    rows = [
        row("likelihood", auroc, pair=("a", "a"), ood=f"a/test[first 9]@{view}")
        for view, auroc in (("rot90", 0.6), ("hflip", 0.5), ("blur1", 0.4))
    ]
    assert [one.title.split("@")[1] for one in pair_tables(rows, made)] == ["hflip", "rot90"]


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ((0.75, 0.85, 0.6, 0.74), "leads: typicality with glow, 0.800"),
        ((0.70, 0.85, 0.6, 0.74), "not told apart: typicality with glow, 0.800 and likelihood with glow, 0.700"),
        ((None, None, None, None), "not told apart: typicality with glow, 0.800 and likelihood with glow, 0.700"),
    ],
)  # fmt: skip
def test_a_lead_is_one_where_intervals_do_not_overlap(ends, told):
    low, high, other_low, other_high = ends
    rows = [
        row("typicality", 0.8, auroc_low=low, auroc_high=high),
        row("likelihood", 0.7, auroc_low=other_low, auroc_high=other_high),
        row("typicality", 0.79, seed=1),  # the same one again
        row("failing", None, status="failed"),
    ]
    made = suite(models=["glow"], pairs=[Pair(in_dist="a", ood=["b"])])
    (table,) = pair_tables(rows, made)
    assert table.lead == told


def test_skips_take_few_lines():
    skipped = partial(row, auroc=None, status="skipped")
    rows = [skipped(f"s{n}", reason=f"reason {n}") for n in range(SKIPS + 3)]
    lines = skip_summary(rows, "page.md")
    assert len(lines) == SKIPS
    assert lines[-1] == "skipped: … and for 4 more reasons, see page.md"
    assert len(skip_summary(rows[:SKIPS], "page.md")) == SKIPS


def test_pages_are_made_again_only_where_something_changed(home, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    made = suite(models=["glow-fashionmnist"], scorers=["likelihood"])
    run_suite(made, Options(1, show="quiet"), folder)
    read = []
    monkeypatch.setattr(leaderboard, "read_results", lambda folder: read.append(folder) or read_results(folder))  # fmt: skip
    run_suite(made, Options(1, show="quiet"), folder)
    assert read == []
    page = folder / "README.md"
    content = page.read_text()
    page.write_text(content.replace("likelihood", "likelyhood"))
    run_suite(made, Options(1, show="quiet"), folder)
    assert page.read_text() == content
    assert read


def test_a_scorer_that_a_model_lacks_stands_where_its_mean_over_the_others_is():
    rows = [
        row("high", 0.9),
        row("high", 0.8, model="vae"),
        row("low", 0.2),
        row("low", 0.3, model="vae"),
    ]
    rows += [
        row("middle", 0.5),
        row("png", 0.6, baseline=True),
        row("png", 0.6, baseline=True, model="vae"),
    ]
    made = suite(models=["glow", "vae"], pairs=[Pair(in_dist="a", ood=["b"])])
    (table,) = pair_tables(rows, made)
    assert [line[0] for line in table.lines] == ["high", "middle", "low", "png * ‡"]
