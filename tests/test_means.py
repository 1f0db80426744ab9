"""Near and far pairs, means over in-dist sets with the worst pair beside, ladders of corruptions, and sets that nobody else
can make: in suites and on pages."""

from __future__ import annotations

import numpy as np
import pytest
from test_report import pages, row
from test_suite import GOOD, fault

import oodbench as ob
from oodbench.report.figures import draw
from oodbench.report.gallery import gallery
from oodbench.report.ladders import by_kind, ladder_table
from oodbench.report.results import read_results
from oodbench.report.tables import only_here_notes
from oodbench.screen import leaderboard
from oodbench.suite import Pair, load_suite


def columns(page, start):
    """Head → cell of the first line of a page that begins with ``start``, of the table that it stands in."""
    lines = page.splitlines()
    at = next(number for number, text in enumerate(lines) if text.startswith(start))
    head = max(number for number in range(at) if lines[number].startswith("|:")) - 1
    cells = [
        [cell.strip() for cell in lines[number].strip("|").split("|")] for number in (head, at)
    ]
    return dict(zip(*cells, strict=True))


def test_a_pair_says_which_of_its_sets_are_near_and_far():
    pair = Pair(in_dist="a", ood=["noise"], near=["b"], far=["c", {"d": "d.npz"}])
    assert pair.ood == ["noise", "b", "c", {"d": "d.npz"}]
    assert [pair.nearness(one) for one in pair.ood] == [None, "near", "far", "far"]
    again = Pair(**pair.model_dump())
    assert again == pair
    named = Pair(in_dist="a", ood=["b", "c"], near=["b"])
    assert named.ood == ["b", "c"]


def test_corruptions_stand_for_five_sets_a_kind():
    pair = Pair(in_dist="a", corruptions=["blur", "jpeg"])
    assert pair.ood[:5] == [f"a@blur{strength}" for strength in range(1, 6)]
    assert len(pair.ood) == 10
    assert Pair(in_dist="a@grey", corruptions=["fog"]).ood[0] == "a@grey,fog1"
    assert Pair(in_dist={"mine": "x.npz"}, corruptions=["fog"]).ood[0] == {
        "mine-fog1": "x.npz@fog1"
    }


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("near: [mnist], far: [mnist]", "mnist is said to be near and far; name it in one of them"),
        ("ood: []", "it names no OOD set; write some in `ood`, `near`, `far` or `corruptions`"),
        ("near: [mnist, mnist]", "'mnist' stands twice"),
    ],
)
def test_what_a_pair_says_is_checked(tmp_path, pair, message):
    text = GOOD.replace("ood: [mnist]", pair)
    assert message in fault(tmp_path, text)
    assert "/mine.yaml:" in fault(tmp_path, text)


def test_wide_holds_what_it_says():
    wide = load_suite("wide")
    assert [pair.in_dist for pair in wide.pairs] == [
        "fashionmnist", "mnist", "cifar10", "svhn10k", "celeba5k", "imagenet7k",
    ]  # fmt: skip
    assert wide.limit == 2000
    for pair in wide.pairs:
        unsaid = [entry for entry in pair.ood if pair.nearness(entry) is None]
        assert unsaid == ["noise", "constant"]
        assert f"{pair.in_dist}@rot90" in pair.near


ROWS = [
    row("x", 0.9, nearness="far"),
    row("x", 0.5, ood="c/test", nearness="near"),
    row("x", 0.1, ood="a/test@blur1"),
    row("x", 1.0, ood="noise/test", synthetic=True),
    row("x", 0.2, model="other", in_dist="z/test", in_dist_name="z"),
    row("y", 0.6, model="other", in_dist="z/test", in_dist_name="z"),
]


def test_a_mean_has_its_worst_pair_beside_it(tmp_path):
    page = pages(tmp_path, ROWS)["README.md"]
    assert "best mean: **x** .700 (worst .500, c, glow)" in page
    heads = list(columns(page.split("## In-dist: a")[1], "| x "))
    assert heads == ["scorer", "→ c", "→ b"]  # near before far


def test_a_mean_over_all_counts_each_in_dist_set_once(tmp_path):
    page = pages(tmp_path, ROWS)["README.md"]
    # (0.7 + 0.2)/2, not 1.6/3
    assert "**Best over all: x**, mean AUROC .450, worst pair .200 ▼ (z → b, other)" in page
    table = page.split("## Over all in-dist sets")[1]
    x, y = (columns(table, f"| {name}<br>") for name in "xy")
    assert (x["a"], x["z"]) == (".700<br><sub>.500</sub>", ".200<br><sub>.200 ▼</sub>")
    assert (y["a"], y["z"]) == ("", ".600<br><sub>.600</sub>")
    heads, lines = leaderboard(ROWS)
    shown = dict(zip(heads, lines[0], strict=True))
    assert (shown["scorer"], shown["mean"], shown["worst"]) == ("x", "0.450", "0.200")


def test_a_scorer_that_a_model_lacks_has_no_mean(tmp_path):
    rows = [
        row("x", 0.9),
        row("x", 0.3, in_dist="z/test", in_dist_name="z"),
        row("x", 0.7, model="other"),
        row("y", 0.8),
    ]
    table = pages(tmp_path, rows)["README.md"].split("## Over all in-dist sets")[1]
    assert columns(table, "| x<br>")["a"] == ".800<br><sub>.700</sub>"
    assert columns(table, "| y<br>")["a"] == ""


def test_flipped_images_have_a_column_of_their_own(tmp_path):
    rows = [row("x", 0.9, ood="a/test[first 9]@hflip"), row("x", 0.4, ood="b/test@pad32,rgb")]
    made = pages(tmp_path, rows)
    assert "worst pair .400 ▼ (a → b, glow)" in made["README.md"]
    assert columns(made["matrix.md"], "| a ")["a@hflip"] == ".900"
    assert "both" not in made["matrix.md"].split("## x")[1]


def ladder_rows():
    kinds = {"blur": 0.5, "jpeg": 0.4}
    return [
        row(scorer, low + 0.1 * strength, ood=f"a/test@{kind}{strength}", baseline=baseline)
        for kind, low in kinds.items()
        for strength in range(1, 6)
        for scorer, baseline in (("x", False), ("plain", True))
    ]


def test_a_ladder_is_a_column_a_kind_and_no_pair(tmp_path):
    made = pages(tmp_path, [*ladder_rows(), row("x", 0.3)])
    assert "mean AUROC .300" in made["README.md"]
    for page in ("a.md", "a-details.md"):
        ladder = made[page].split("strengths 1 to 5")[1]
        assert columns(ladder, "| x ")["jpeg"] == ".50 .60 .70 .80 .90"
    assert "10 rungs of ladders" in made["README.md"]
    assert "blur" not in made["matrix.md"]
    assert columns(made["a.md"], "| x ")["→ b"].startswith(".300")
    alone = ladder_table([row("x", 0.04, ood="a/test@fog2")])
    assert columns(alone, "| x")["fog"] == "– .04▼ – – –"
    assert ladder_table([row("x", 0.3)]) == ""


def test_each_scorer_has_a_figure_of_its_ladders(tmp_path):
    pages(tmp_path, ladder_rows())
    figures = [one for one in gallery(read_results(tmp_path)) if one.kind == "corruptions"]
    assert [one.of for one in figures] == ["plain", "x"]
    drawn = {(one["corruption"], one["strength"]): one["auroc"] for one in figures[1].drawn_from}
    assert drawn["blur", 5] == pytest.approx(1.0)
    assert len(drawn) == 10
    draw(tmp_path, figures)
    svg = (tmp_path / "figures/x-corruptions.svg").read_text("utf-8")
    assert ">jpeg<" in svg
    assert ">strength<" in svg
    assert (
        "![corruptions of x](figures/x-corruptions.svg)"
        in pages(tmp_path, ladder_rows())["README.md"]
    )
    assert list(by_kind(ladder_rows())["blur"]) == [1, 2, 3, 4, 5]


def test_every_page_says_which_of_its_sets_nobody_else_can_make(tmp_path):
    made = pages(
        tmp_path,
        [row("x", 0.9, ood="celeba5k/test"), row("y", 0.2, ood="celeba5k/test", baseline=True)],
    )
    why = "its images are half-size copies that were JPEG-coded twice"
    for name, shown in {"README.md": "celeba5k", "a.md": "celeba5k", "matrix.md": "celeba"}.items():
        assert f"Nobody else can make {shown}: {why}" in made[name]
    assert only_here_notes(["glow-celeba32"], [["svhn10k → mnist"]]) == []


def test_a_suite_with_a_ladder_runs_to_its_pages(tmp_path, home):
    pairs = "{in_dist: fashionmnist, near: [mnist], corruptions: [darker]}"
    text = GOOD.replace("{in_dist: fashionmnist, ood: [mnist]}", pairs)
    text = text.replace("[likelihood]", "[pixel-mean]") + "limit: 20\nbootstrap: 0\n"
    (tmp_path / "mine.yaml").write_text(text)
    table = ob.run(str(tmp_path / "mine.yaml"), out=tmp_path / "out")
    said = dict(zip(table["ood"], table["nearness"], strict=True))
    assert said["mnist/test[first 2000][20 drawn]"] == "near"
    assert said["fashionmnist/test[first 2000][20 drawn]@darker5"] not in ("near", "far")
    page = (tmp_path / "out/fashionmnist.md").read_text("utf-8").split("strengths 1 to 5")[1]
    shown = columns(page, "| *pixel-mean*")
    rungs = [float(one.rstrip("▼")) for one in shown["darker"].split()]
    assert rungs == sorted(
        rungs, reverse=True
    )  # the darker, the lower the mean, which is the score
    assert len(rungs) == 5
    assert np.ptp(rungs) > 0.1
