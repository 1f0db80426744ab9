"""Who wins a pair: images, trainings and seeds must all leave the lead standing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oodbench.report import made
from oodbench.report.leads import conclusion, contests, leads_table
from oodbench.report.made import labelled, reported_bits, size_words, sizes_sentence, training_of
from oodbench.report.results import Results
from oodbench.report.section import Analysis
from oodbench.zoo.cards import load_card, zoo

IN, OOD = "cifar10/test", "svhn/test"


def compared(best=0.9, second=0.8, error=0.01, model="glow-cifar10", seed=0, base=0.5, ood=OOD):
    """A comparison of three scorers whose differences have the standard error √2 · error."""
    return {
        "schema": 3, "status": "ok", "suite": "t", "key": f"{model}{seed}{ood}",
        "model": model, "in_dist": IN, "ood": ood, "seed": seed,
        "scorers": ["base", "one", "two"], "baselines": ["base"], "auroc": [base, best, second],
        "covariance": (np.eye(3) * error**2).tolist(), "paired": None, "correlation": {}, "oracle_dual_threshold": None,
    }  # fmt: skip


def members(*aurocs, model="glow-cifar10", images=OOD):
    return {
        "schema": 3, "status": "ok", "kind": "members", "model": model, "in_dist": IN, "images": images, "seed": 0,
        "role": "ood", "aurocs": list(aurocs),
    }  # fmt: skip


def results(*comparisons, analysis=()):
    return Results(Path(), [], analysis=list(analysis), comparisons=list(comparisons))


def test_a_clear_lead_wins():
    (one,) = contests(results(compared()))
    assert one.winner == "one"
    assert one.lead.gap.value == pytest.approx(0.1)
    assert (one.trainings, one.seeds) == (None, None)


@pytest.mark.parametrize(("gap", "wins"), [(0.05, True), (0.02, False)])
def test_images_must_leave_the_lead_standing(gap, wins):
    (one,) = contests(
        results(compared(0.8 + gap))
    )  # half of the interval is 1.96 · √2 · .01 = .028
    assert bool(one.winner) is wins
    assert one.undistinguished == ["one", "two"]


@pytest.mark.parametrize(("last", "wins"), [(0.09, True), (0.2, False)])
def test_the_members_of_an_ensemble_must_leave_it_standing(last, wins):
    rows = [members(0.05, 0.07, last), members(0.0, 1.0, images="other/test")]
    (one,) = contests(results(compared(), analysis=rows))
    assert (one.trainings.width, one.trainings.n) == (pytest.approx(last - 0.05), 3)
    assert bool(one.winner) is wins


@pytest.mark.parametrize(("other", "wins"), [(0.87, True), (0.75, False)])
def test_models_that_differ_in_their_training_s_seed_must(other, wins):
    names = ["glow-small-cifar10-1", "glow-small-cifar10-2", "glow-cifar10"]
    rows = [compared(model=names[0]), compared(other, model=names[1]), compared(model=names[2])]
    by_model = {one.row["model"]: one for one in contests(results(*rows))}
    own, apart = by_model[names[0]], by_model[names[2]]
    assert (own.trainings.width, own.trainings.n) == (pytest.approx(0.9 - other), 2)
    assert bool(own.winner) is wins
    assert apart.trainings is None  # another recipe
    assert apart.winner == "one"


@pytest.mark.parametrize(("other", "wins"), [(0.87, True), (0.75, False)])
def test_seeds_must(other, wins):
    first, _ = contests(results(compared(), compared(other, seed=1)))
    assert (first.seeds.width, first.seeds.n) == (pytest.approx(0.9 - other), 2)
    assert bool(first.winner) is wins


def test_the_front_page_names_winners_and_marks_those_below_the_bar():
    rows = [compared(), compared(0.8, 0.8, model="mine"), compared(base=0.95, ood="b/test")]
    known = results(*rows)
    table = leads_table(known, contests(known))
    shown = [line for line in table.splitlines() if line.startswith("| ")][1:]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown]
    assert [line[2] for line in lines] == ["**one**", "**one** ‡", "not distinguished: one, two"]
    assert lines[0][4:] == ["+0.100 [+0.072, +0.128] over two", "one", "one"]
    assert leads_table(known, []) == ""


def test_the_conclusion_counts_winners_and_names_the_rest():
    rows = [compared(), compared(0.8, 0.8, model="mine"), compared(base=0.95, ood="b/test")]
    said = conclusion(Analysis(results(*rows, analysis=[members(0.05, 0.06)])))
    assert "on 2 of 3 pairs (one on 2, 1 of them not above the best model-free baseline)" in said
    assert "not distinguished (how many): mine → svhn (2)" in said
    assert "trainings were repeated for 1 of these pairs, seeds for 0" in said
    assert conclusion(Analysis(results())) == ""


# what models are


def trained():
    return [name for name in zoo() if (load_card(name).folder / "trained.json").exists()]


def test_words_on_sizes_are_the_records():
    for name in trained():
        record = load_card(name).record()
        assert f"{record['parameters'] / 1e6:.2f} M parameters, {record['steps']:,} steps" in size_words(name)  # fmt: skip
        assert size_words(name).startswith("small model: ") is (record["parameters"] < made.SMALL)
    sizes = [load_card(name).record()["parameters"] for name in trained()]
    said = sizes_sentence(["mine", *trained()])
    assert f"{min(sizes) / 1e6:.2f} to {max(sizes) / 1e6:.2f} M parameters" in said


def test_nothing_is_said_of_a_user_s_model():
    assert (size_words("mine"), reported_bits("mine"), sizes_sentence(["mine"])) == ("", "", "")
    assert labelled("mine", "mine") == "mine"
    assert training_of("mine") == "mine"
    assert size_words("paper-glow-cifar10") == ""  # not trained


def test_members_of_an_ensemble_are_trainings_of_one_recipe_and_their_model_is_not():
    for name in ("glow-cifar10", "glow-fashionmnist"):
        alike = {training_of(one) for one in load_card(name).ensemble}
        assert len(alike) == 1
        assert training_of(name) not in alike


def test_every_published_fit_has_a_source():
    for name in trained():
        said = reported_bits(name)
        assert (
            said == "none known for this family on this set" or "(" in said or "no number" in said
        )
