"""Rows are computed again and compared; a withdrawn one keeps its place with its reason; a run says what it was made with."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from oodbench.cli import main
from oodbench.passes.shards import DETERMINISTIC
from oodbench.report import check_report
from oodbench.runner import Options, adapted, run_suite
from oodbench.store import read_rows, write_rows
from oodbench.suite import load_suite
from oodbench.trials.results import ResultsFolder, name_of
from oodbench.verification import TOLERANCE, compared


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of rows of the quick suite, 40 images of each set."""
    folder = tmp_path_factory.mktemp("published") / "quick"
    run_suite(adapted(load_suite("quick"), 40, None, ()), Options(show="quiet"), folder)
    return folder


@pytest.fixture
def folder(published, tmp_path):
    """A copy whose rows may be changed."""
    shutil.copytree(published, tmp_path / "quick")
    return tmp_path / "quick"


def edited(folder, scorer, **changes):
    """Change a row and seal it again, as somebody would who wants it believed; returns its key."""
    rows = read_rows(folder / "rows.jsonl")
    for row in rows:
        if row["scorer"] == scorer and row["group_size"] == 1:
            row.update(changes)
            key = row["key"]
    write_rows(folder / "rows.jsonl", rows)
    return key


def said(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_rows_hold_when_computed_again_and_one_that_was_made_up_does_not(folder):
    made_up = edited(folder, "likelihood", auroc=0.9)
    result = said("verify", folder, "--limit", 40, "--workers", 1)
    lines = [line for line in result.output.splitlines() if " with " in line]
    assert len(lines) == 8
    wrong = [line for line in lines if "DOES NOT HOLD" in line]
    assert len(wrong) == 1
    assert wrong[0].startswith(made_up[:12])
    assert "its auroc is 0.9, and 0." in wrong[0]
    assert result.exit_code == 1
    assert "1 rows do not hold" in result.output


def test_a_sample_and_named_rows_are_the_same_each_time_and_other_limits_are_said(folder):
    key = next(row["key"] for row in read_rows(folder / "rows.jsonl"))
    result = said("verify", folder, key[:16], "--workers", 1)
    assert result.exit_code == 1
    assert f"{key[:12]} DOES NOT HOLD" in result.output
    assert "give the --limit of its run" in result.output
    assert "no row has a key that begins with 'zz'" in said("verify", folder, "zz").output


def test_a_row_of_other_images_is_not_compared(folder):
    row = next(row for row in read_rows(folder / "rows.jsonl") if row["scorer"] == "pixel-mean")
    inputs = row["inputs"] | {"images": row["inputs"]["images"] | {"ood": "0" * 64}}
    key = edited(folder, "pixel-mean", inputs=inputs)
    result = said("verify", folder, key, "--limit", 40, "--workers", 1)
    assert "it was computed from other images than lie here" in result.output


def test_tolerances_are_those_that_are_documented():
    row = dict.fromkeys(TOLERANCE, 0.5) | {"auroc": 0.5}
    for name, tolerance in TOLERANCE.items():
        assert compared(row, row | {name: 0.5 + 0.9 * tolerance}).holds
        assert not compared(row, row | {name: 0.5 + 1.1 * tolerance}).holds
        assert not compared(row, row | {name: None}).holds


def test_metrics_alone_are_verified_from_scores(published):
    result = said("verify", published, "--from-scores")
    assert (result.exit_code, "every row's metrics" in result.output) == (0, True)


def test_a_withdrawn_row_keeps_its_place_with_its_reason(folder):
    key = edited(folder, "likelihood")
    result = said("withdraw", folder, key[:20], "--reason", "its weights | were\nothers")
    assert result.exit_code == 0, result.output
    row = next(row for row in read_rows(folder / "rows.jsonl") if row["key"] == key)
    assert row["withdrawn"] == "its weights | were others"
    page = (folder / "fashionmnist.md").read_text()
    assert "WITHDRAWN" in page
    assert "was withdrawn: its weights \\| were others" in page
    assert f"{row['auroc']:.3f} [" not in page
    assert check_report(folder) == []
    refused = said("withdraw", folder, "0" * 64, "--reason", "x")
    assert "no row has a key" in refused.output


def test_what_a_row_replaces_is_kept_each_time(tmp_path, published):
    row = next(one for one in read_rows(published / "rows.jsonl") if one["status"] == "ok")
    results = ResultsFolder(tmp_path)
    keys = ["1" * 64, "2" * 64, "3" * 64]
    for key in keys:
        with results.held():
            results.merge({"rows": [row | {"key": key, "replaces": None}]})
    (last,) = read_rows(tmp_path / "rows.jsonl")
    history = {one["key"]: one for one in read_rows(tmp_path / "history.jsonl")}
    assert last["key"] == keys[2]
    assert last["replaces"] == keys[1]
    assert history[keys[1]]["replaces"] == keys[0]
    assert history[keys[0]]["replaces"] is None
    assert {name_of("rows", one) for one in history.values()} == {name_of("rows", last)}


def test_a_run_leaves_a_manifest_and_one_that_did_nothing_none(published):
    (found,) = json.loads((published / "manifests.json").read_text())
    assert found["libraries"]["numpy"] == np.__version__
    assert (found["device"], found["tf32"], found["threads"]) == ("cpu", None, 1)
    assert found["executor"] == "serial"
    rows = read_rows(published / "rows.jsonl")
    identities = {name: one for row in rows for name, one in row["inputs"]["models"].items()}
    assert identities.items() <= found["models"].items()
    hashes = {row["inputs"]["images"]["in_dist"] for row in rows}
    assert hashes <= set(found["images"].values())


def test_deterministic_settles_torch(monkeypatch):
    import torch

    from oodbench.passes.shards import settle

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.setenv(DETERMINISTIC, "1")
    try:
        settle()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.allow_tf32 = True
