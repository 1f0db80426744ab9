"""Leaderboards are a pure function of the stored rows."""

from __future__ import annotations

import json
import random as shuffling
from pathlib import Path

import pytest

from oodbench.errors import StoreError
from oodbench.metrics import METRICS
from oodbench.report import check_report, write_report
from oodbench.report.tables import Notes, metric_cell, scorer_takes, slug
from oodbench.store import write_rows


def row(scorer="likelihood", auroc=0.1, **changes):
    estimates = {f"{name}{end}": auroc for name in METRICS for end in ("", "_low", "_high")}
    given = {
        "schema": 1, "suite": "t", "status": "ok", "model": "glow", "likelihood": "exact", "in_dist": "a/test",
        "in_dist_name": "a", "ood": "b/test", "scorer": scorer, "baseline": False, "tunes_on": "none", "group_size": 1,
        "seed": 0, "n_in": 100, "n_ood": 300, "base_rate": 0.75, "id_bits_per_dim": 3.0, "ood_bits_per_dim": 2.0,
        "shared_images": 0, "synthetic": False, "passes": ["density of glow"],
        "provenance": {"versions": {"torch": "2"}, "device": "cpu", "machine": "x"},
    } | estimates | changes  # fmt: skip
    return given | {"key": f"{given['model']} {given['ood']} {scorer} {given['group_size']}"}


BASELINE = {"baseline": True, "passes": ["moments"]}


def pages(folder, rows):
    write_rows(folder / "rows.jsonl", rows)
    write_rows(folder / "costs.jsonl", [{"schema": 1, "pass": "density of glow", "ms_per_image": 2.5, "device": "cpu"},
                                        {"schema": 1, "pass": "moments", "ms_per_image": 0.1, "device": "cpu"}])  # fmt: skip
    return {path.name: path.read_text() for path in write_report(folder)}


def test_pages_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = [row(scorer, value, ood=ood) for scorer, value in (("x", 0.9), ("y", 0.7)) for ood in ("b/test", "c/test")]
    first = pages(tmp_path / "one", rows)
    shuffling.Random(0).shuffle(rows)
    assert pages(tmp_path / "two", rows) == first
    assert "Do not edit" in first["README.md"]


def test_check_fails_when_a_page_differs(tmp_path):
    pages(tmp_path, [row()])
    assert check_report(tmp_path) == []
    (tmp_path / "a.md").write_text((tmp_path / "a.md").read_text().replace("0.100", "0.900"))
    (tmp_path / "README.md").unlink()
    faults = "\n".join(check_report(tmp_path))
    assert "a.md differs from what its rows give" in faults
    assert "README.md is missing" in faults


def test_pages_without_rows_are_found_and_removed(tmp_path):
    pages(tmp_path, [row()])
    (tmp_path / "old.md").write_text((tmp_path / "a.md").read_text())
    (tmp_path / "notes.md").write_text("by hand")
    assert "old.md has no rows any more" in check_report(tmp_path)[0]
    write_report(tmp_path)
    assert not (tmp_path / "old.md").exists()
    assert (tmp_path / "notes.md").exists()


def test_aupr_stands_beside_its_base_rate(tmp_path):
    page = pages(tmp_path, [row()])["a.md"]
    rates = [text.split("|")[3].strip() for text in page.splitlines() if text.startswith("| *a constant score*")]
    assert rates == ["0.750", "0.250"]


def line(page, start):
    return next(text for text in page.splitlines() if text.startswith(start))


def test_worse_than_chance_is_marked_and_never_folded(tmp_path):
    overview = pages(tmp_path, [row(auroc=0.1), row("base", 0.2, **BASELINE)])["README.md"]
    assert "0.100 [0.100, 0.100] ▼ ‡" in line(overview, "| 1      | likelihood")
    assert "0.200 [0.200, 0.200] ▼ " in line(overview, "| M1     | *base* (model-free)")


def test_incomplete_scorers_are_not_ranked(tmp_path):
    rows = [row("full", 0.6), row("full", 0.7, ood="c/test"), row("half", 0.99)]
    overview = pages(tmp_path, rows)["README.md"]
    assert "full" in line(overview, "| 1")
    assert "not ranked[^1]" in overview
    assert "[^1]: half: 1 of 2 pairs have a result" in overview


def test_models_are_ranked_apart(tmp_path):
    rows = [
        row("x", 0.9),
        row("x", 0.2, model="other", likelihood="ELBO"),
        row("y", 0.5, model="other", likelihood="ELBO"),
    ]
    overview = pages(tmp_path, rows)["README.md"]
    sections = overview.split("## ")
    assert "log p(x) is exact" in next(text for text in sections if text.startswith("glow\n"))
    other = next(text for text in sections if text.startswith("other\n"))
    assert "a bound: ELBO" in other
    assert "| y" in line(other, "| 1")


def test_a_skipped_scorer_is_not_ranked_and_says_why(tmp_path):
    skip = {"schema": 1, "suite": "t", "status": "skipped", "reason": "glow has no background model", "in_dist_name": "a",
            "in_dist": "a", "ood": "b", "model": "glow", "scorer": "ratio", "key": "s"}  # fmt: skip
    made = pages(tmp_path, [row("x", 0.9), skip])
    assert "Not measured, and not ranked: ratio (glow has no background model)." in made["README.md"]
    assert made["a.md"].count("[^1]: glow has no background model") == 1


def test_unlike_rows_are_never_ranked_together(tmp_path):
    rows = [row("x", 0.9), row("y", 0.7, ood="b/test[:50]")]
    overview = pages(tmp_path, rows)["README.md"]
    assert not any(text.startswith("| 1 ") for text in overview.splitlines())
    assert "its rows are of unlike image sets" in overview


def test_synthetic_sets_are_shown_but_not_averaged(tmp_path):
    made = pages(tmp_path, [row("x", 0.2), row("x", 1.0, ood="noise/test", synthetic=True)])
    assert "| 0.200  |" in line(made["README.md"], "| 1")
    assert "noise" not in line(made["README.md"], "| rank")
    assert "noise/test" in made["a.md"]


def test_groups_stand_apart_from_single_images(tmp_path):
    made = pages(tmp_path, [row("x", 0.2), row("x", 1.0, group_size=10, n_in=10, n_ood=30)])
    assert "1.000" not in line(made["README.md"], "| 1")
    assert "groups of 10" in made["a.md"]


def test_failures_and_skips_keep_their_reasons(tmp_path):
    failed = row("y", status="failed", reason="y failed: boom")
    skip = {"schema": 1, "suite": "t", "status": "skipped", "reason": "no model", "in_dist_name": "z", "in_dist": "z",
            "ood": "a", "model": "", "scorer": "", "key": "s"}  # fmt: skip
    made = pages(tmp_path, [row("x", 0.9), failed, skip])
    assert "FAILED[^1]" in made["a.md"]
    assert "[^1]: y failed: boom" in made["a.md"]
    assert "- z → a: no model" in made["README.md"]


def test_bounds_and_shared_images_are_marked(tmp_path):
    page = pages(tmp_path, [row("x", 0.9, likelihood="ELBO", shared_images=7)])["a.md"]
    assert "not exact (a bound: ELBO)" in page
    assert "7 images of a/test occur, pixel by pixel, in b/test too" in page


def test_what_a_scorer_takes_adds_up():
    costs = {"density of a": 2.0, "density of b": 3.0, "code_length_png": 0.5}
    passes = (["code_length_png", "density of a"], ["code_length_png", "density of b"])
    rows = [{"passes": names, "tunes_on": "in-dist ref"} for names in passes]
    assert scorer_takes(rows, costs) == ["1", "2.50–3.50", "in-dist ref"]


def test_cells_and_notes():
    notes = Notes()
    assert metric_cell(None, "auroc", notes) == ""
    assert metric_cell(row(auroc=0.5), "auroc", notes) == "0.500 [0.500, 0.500]"
    assert "too few for an interval" in metric_cell(row(auroc_low=None), "auroc", notes)
    assert notes.mark("x") == notes.mark("x") == "[^1]"
    assert slug("cifar10/test[:2000]@grey") == "cifar10-test-2000-grey"


def test_a_folder_without_rows_is_named(tmp_path):
    with pytest.raises(StoreError, match="has no rows; run the suite first"):
        write_report(tmp_path)


def test_published_leaderboards_are_what_their_rows_give():
    published = [path.parent for path in (Path(__file__).parents[1] / "leaderboards").glob("*/rows.jsonl")]
    assert published
    assert [fault for folder in published for fault in check_report(folder)] == []
    for folder in published:
        for text in (folder / "rows.jsonl").read_text().splitlines():
            assert json.loads(text)["suite"] == folder.name
