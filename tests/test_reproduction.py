"""Published numbers beside ours: the rule of verdicts, one verdict a claim, a cause for each difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from oodbench.paths import PACKAGE
from oodbench.report import read_results
from oodbench.report.reproduction import Claim, claims, reproduction, verdict
from oodbench.report.results import Results
from oodbench.zoo.cards import load_card

REPOSITORY = Path(__file__).parents[1]


def claim(**changes):
    given = {
        "paper": "p",
        "where": "w",
        "model": "m",
        "ours": "glow-fashionmnist",
        "in_dist": "fashionmnist",
        "ood": "mnist",
        "scorer": "likelihood",
        "metric": "auroc",
        "read": "primary",
    }
    return Claim(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "ours", "expected"),
    [
        ({"value": 0.10}, (0.08, 0.07, 0.09), "agrees"),
        ({"value": 0.15}, (0.08, 0.07, 0.09), "differs (same side)"),
        ({"value": 0.15, "spread": 0.02}, (0.08, 0.07, 0.09), "agrees"),
        ({"value": 0.95}, (0.08, 0.07, 0.09), "differs"),
        ({"below": 0.5}, (0.48, 0.46, 0.499), "agrees"),
        ({"below": 0.5}, (0.48, 0.46, 0.501), "differs"),
        ({"above": 0.5}, (0.9, 0.8, 0.95), "agrees"),
        ({"value": 3.0, "metric": "in_dist_bits_per_dim"}, (3.09, None, None), "agrees"),
        ({"value": 3.0, "metric": "in_dist_bits_per_dim"}, (3.11, None, None), "differs"),
        ({"value": 0.9}, (None, None, None), "not comparable: this pair has no row here"),
        ({"value": 0.9, "not_comparable": "why"}, (0.9, 0.9, 0.9), "not comparable: why"),
        ({"value": 0.9, "read": "remembered"}, (0.9, 0.9, 0.9), "not judged: remembered"),
    ],
)
def test_the_verdict_follows_the_rule(changes, ours, expected):
    assert verdict(claim(**changes), *ours) == expected


def measured(n, auroc, **changes):
    given = {
        "model": "glow-fashionmnist", "in_dist": "fashionmnist/test", "ood": "mnist/test", "in_dist_name": "fashionmnist",
        "ood_name": "mnist", "scorer": "typicality", "group_size": 1, "seed": 0, "status": "ok", "schema": 3, "auroc": auroc,
        "auroc_low": auroc - 0.01, "auroc_high": auroc + 0.01, "n_in": n, "n_ood": n, "synthetic": False,
    }  # fmt: skip
    return given | changes


def test_a_claim_is_judged_once_on_the_rows_of_most_images(monkeypatch):
    known = [claim(scorer="typicality", value=0.8), claim(scorer="typicality", value=0.1, read="remembered")]  # fmt: skip
    monkeypatch.setattr("oodbench.report.reproduction.claims", lambda: known)
    rows = [measured(500, 0.7, in_dist="fashionmnist/test[500 drawn]"), measured(2000, 0.82)]
    rows += [measured(2000, 0.2, seed=1)]
    (heads, lines), (_, tally), *_, (notes, where) = reproduction(Results(Path(), rows)).tables
    assert [dict(zip(heads, line))["ours"] for line in lines] == [".820 ±.010", ".820 ±.010"]
    assert [dict(zip(notes, line))["read"] for line in where] == ["primary", "remembered"]
    assert tally == [["AUROCs and rates of methods", "1", "0", "0", "0"]]


def test_sources_that_disagree_on_a_cell_are_shown_as_a_range(monkeypatch):
    told = [(0.7, "a"), (0.9, "b"), (0.78, "c")]
    known = [claim(scorer="typicality", value=value, paper=paper) for value, paper in told]
    known += [claim(scorer="typicality", value=0.1, read="remembered")]
    known += [claim(scorer="likelihood", value=0.06), claim(scorer="likelihood", value=0.08)]
    monkeypatch.setattr("oodbench.report.reproduction.claims", lambda: known)
    rows = [measured(500, 0.82), measured(500, 0.07, scorer="likelihood")]
    _, (heads, lines), *_ = reproduction(Results(Path(), rows)).tables
    (cell,) = [dict(zip(heads, line)) for line in lines]
    assert cell["published range"] == "0.7 – 0.9"
    assert (cell["ours"], cell["ours is"]) == ("0.820", "within")
    assert cell["sources"] == "a, m: 0.7; c, m: 0.78; b, m: 0.9"


def test_claims_since_are_there_with_their_reading():
    papers = [one.paper for one in claims()]
    assert papers.count("Bomatter et al. 2026") == 14
    assert papers.count("Chen et al. 2021") > 100
    cells = [(one.ours, one.ood, one.scorer, one.value) for one in claims()]
    # by hand from the tables: the last columns of two of Chen et al.'s, and a group's
    assert ("glow-celeba32", "svhn", "likelihood", 0.0022) in cells
    assert ("vae-cifar10", "celeba5k", "approximate-mass", 0.4664) in cells
    assert ("glow-cifar10", "svhn", "god2ks", 0.82) in cells
    assert all(one.differs_by or one.not_comparable for one in claims() if one.paper == "Chen et al. 2021")  # fmt: skip


def test_published_pages_give_no_claim_two_verdicts_and_each_difference_a_cause():
    found = {}
    for rows in (REPOSITORY / "leaderboards").glob("*/rows.jsonl"):
        (heads, lines), *_, (notes, where) = reproduction(read_results(rows.parent)).tables
        for line, note in zip(lines, where, strict=True):
            one = dict(zip(notes, note)) | dict(zip(heads, line))
            claim = one["claim"].partition(". ")[2]
            name = (claim, *(one[head] for head in ("paper", "where", "model", "theirs")))
            found.setdefault(name, set()).add(one["verdict"])
            assert not one["verdict"].startswith("differs") or one["known differences"]
    assert not {name: verdicts for name, verdicts in found.items() if len(verdicts) > 1}


def test_claims_are_well_formed():
    assert len(claims()) == len(
        yaml.safe_load((PACKAGE / "report" / "claims.yaml").read_text("utf-8"))
    )
    for one in claims():
        assert [one.value, one.below, one.above].count(None) == 2
        assert one.read in ("primary", "secondary", "figure", "remembered")
        assert load_card(one.ours)
