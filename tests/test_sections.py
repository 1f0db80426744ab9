"""The report's sections and figures: pure functions of what a folder stores."""

from __future__ import annotations

import hashlib
import json
import re

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from oodbench.errors import StoreError
from oodbench.paths import PACKAGE
from oodbench.report import check_report, figures, read_results, write_report
from oodbench.report.figures import draw, likelihoods, training
from oodbench.report.gallery import gallery
from oodbench.report.made import labelled, sizes_sentence
from oodbench.report.older import RENAMED_MODELS, renamed
from oodbench.report.page import html_page, markdown_page
from oodbench.report.results import Results
from oodbench.report.section import Analysis, Section
from oodbench.report.sections import (
    both_directions,
    conclusions,
    constant_volume,
    decomposition,
    graying,
    samples,
    second_order,
    statements,
)
from oodbench.report.sections.graying import overtaking
from oodbench.report.sections.likelihoods import section as likelihoods_section
from oodbench.report.sections.training import section as training_section
from oodbench.report.sections.training import trainings
from oodbench.store import read_rows, write_rows
from oodbench.trials.curves import grid, histograms, pixel_moments, roc, scatter

IN, OOD = "fashionmnist/test[:40]", "mnist/test[:40]"
COMMON = {"schema": 3, "model": "glow-fashionmnist", "in_dist": IN, "seed": 0, "status": "ok"}


GLOW = labelled("glow-fashionmnist", "glow-fashionmnist")
"""The subject of a sentence that judges on that model."""


def keyed(row):
    return row | {"key": hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()}


def trial(scorer, auroc, **changes):
    ends = {f"auroc{end}": auroc for end in ("", "_low", "_high")}
    return keyed(
        COMMON
        | ends
        | {
            "suite": "t",
            "likelihood": "exact",
            "in_dist_name": "fashionmnist",
            "ood": OOD,
            "scorer": scorer,
            "baseline": scorer.startswith("pixel"),
            "tunes_on": "none",
            "group_size": 1,
            "n_in": 40,
            "n_ood": 40,
            "base_rate": 0.5,
            "in_dist_bits_per_dim": 3.0,
            "ood_bits_per_dim": 2.0,
            "shared_images": 0,
            "synthetic": False,
            "passes": ["density of glow-fashionmnist"],
            "provenance": {},
        }
        | changes
    )


def explained(kind, role, images, **values):
    given = {
        "kind": kind,
        "role": role,
        "images": images,
        "synthetic": False,
        "n": 40,
        "dimensions": 784,
    }
    return keyed(COMMON | given | values)


def curve(kind, **values):
    return keyed(
        {name: COMMON[name] for name in ("schema", "model", "in_dist", "seed")}
        | {"kind": kind}
        | values
    )


def likelihood(role, images, z, det):
    values = {
        "log_prob": [z + det, 1.0, z + det],
        "latent_term": [z, 1.0, z],
        "prior_volume": [100.0, 1.0, 100.0],
        "log_det": [det - 100, 1.0, det - 100],
    }
    bits = [-(z + det) / 500, 0.01, -(z + det) / 500]
    return explained(
        "likelihood", role, images, **values, bits_per_dim=bits, latent_norm=[28.0, 0.1, 28.0]
    )


def log_probs(random):
    return {IN: random.normal(-1500, 100, 40), OOD: random.normal(-1200, 50, 40)}


PANELS = ("into", "kept", "shift", "log scale", "out", "z 1", "z 2")


def scales(*squares):
    return [
        {"shape": [2, 14, 14], "mean_square": [mean, 0.1], "prior_volume": 3.0, "log_det": -40.0}
        for mean in squares
    ]


def write_coupling(folder, images):
    lines = [np.hstack([images[number, 0]] * len(PANELS)) for number in (4, 8)]
    Image.fromarray(np.vstack(lines)).save(folder / "grids/coupling.png")


def coupling_row(folder):
    digest = hashlib.sha256((folder / "grids/coupling.png").read_bytes()).hexdigest()
    panels = [{"name": name, "low": -3, "high": 3} for name in PANELS]
    sets = [
        {"set": name, "role": role, "log_det": 1.5} for name, role in ((IN, "test"), (OOD, "ood"))
    ]
    return curve("coupling", sets=sets, panels=panels, file="grids/coupling.png", sha256=digest)


def folder_of(folder, random, log_prob=None):
    """A results folder with everything that pages and figures show."""
    log_prob = log_prob or log_probs(random)
    images = random.integers(0, 256, (16, 1, 28, 28)).astype(np.uint8)
    files = {name: grid(images[start:], 8) for name, start in (("samples", 0), (IN, 4), (OOD, 8))}
    curves = [curve("likelihoods", ood=OOD, **histograms(log_prob))]
    for one in curves[0]["sets"]:
        one["bits_per_dim_median"] = 2.5
    for scorer in ("likelihood", "pixel-mean", "typicality"):
        rates = roc(random.normal(0, 1, 40), random.normal(1, 1, 40))
        curves.append(
            curve(
                "roc", ood=OOD, scorer=scorer, baseline=scorer == "pixel-mean", auroc=0.7, **rates
            )
        )
    for column in ("latent_term", "prior_volume", "log_det"):
        curves.append(curve("decomposition", column=column, **histograms(log_prob)))
    for quantity, values in pixel_moments(images).items():
        curves.append(curve("data", quantity=quantity, **histograms({IN: values, OOD: values / 2})))
    points = [
        {"set": name, "role": role, **scatter(random.normal(28, 1, 40), log_prob[IN])}
        for name, role in (("samples", "samples"), (IN, "test"), (OOD, "ood"))
    ]
    curves.append(curve("latents", dimensions=784, sets=points))
    (folder / "grids").mkdir(parents=True)
    for number, (name, content) in enumerate(files.items()):
        (folder / f"grids/{number}.png").write_bytes(content)
        role = {"samples": "samples", IN: "test", OOD: "ood"}[name]
        digest = hashlib.sha256(content).hexdigest()
        shown = {"set": name, "role": role, "n": 8, "bits_per_dim_median": 2.5}
        curves.append(curve("grid", **shown, file=f"grids/{number}.png", sha256=digest))
    write_coupling(folder, images)
    curves.append(coupling_row(folder))
    steps = [{"step": step, "ref_bits_per_dim": 4.0, "auroc_mnist": 0.1} for step in (99, 199)]
    analysis = [
        likelihood("train", "fashionmnist/train[:40]", -900, -600),
        likelihood("test", IN, -1000, -500),
        likelihood("ood", OOD, -800, -400),
        likelihood("samples", "samples", -1000, -500),
        explained(
            "graying",
            "test",
            IN,
            curve=[[0, 1.0, 0.1, 1.0], [100, 3.0, 0.1, 3.0]],
            in_dist_bits_per_dim=[3, 0, 3],
        ),
        explained("training", "test", IN, log=steps),
        explained("flow", "test", IN, images_measured=40, scales=scales(1.0, 1.1)),
        explained("flow", "ood", OOD, images_measured=40, scales=scales(0.3, 1.1)),
        explained(
            "second-order",
            "ood",
            OOD,
            measured=[9.0, 1.0],
            first=[1.0, 0.0],
            second=[5.0, 1.0],
            diagonal=[4.0, 1.0],
            closed_form=None,
            variance_sums=[[2.0], [1.0]],
        ),
    ]
    write_rows(
        folder / "rows.jsonl",
        [trial("likelihood", 0.1), trial("pixel-mean", 0.6), trial("typicality", 0.9)],
    )
    write_rows(folder / "analysis.jsonl", analysis)
    write_rows(folder / "curves.jsonl", curves)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = folder_of(tmp_path_factory.mktemp("published"), np.random.default_rng(0))
    write_report(folder)
    return folder


# figures


def test_a_folder_has_every_figure_in_both_forms_with_a_caption(published):
    found = gallery(read_results(published))
    kinds = {
        "likelihoods",
        "roc",
        "decomposition",
        "coupling",
        "graying",
        "samples",
        "latents",
        "data",
        "training",
        "thumbnail",
    }
    assert {one.kind for one in found} == kinds
    for one in found:
        assert (published / one.file).read_text().count("<svg") == 1
    drawing = (published / "figures/glow-fashionmnist-coupling.svg").read_text()
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", drawing)
    assert [name for name in PANELS if name in shown] == list(PANELS)
    assert drawing.count("<image") == 2 * len(PANELS)
    told = [one.caption for one in found if one.kind in ("likelihoods", "roc")]
    assert all("seed 0" in caption and "[:40]" in caption for caption in told)
    assert check_report(published) == []


def test_deleted_figures_are_drawn_again_byte_for_byte_and_no_other(published):
    figures = published / "figures"
    before = {path.name: path.read_bytes() for path in figures.iterdir()}
    times = {path.name: path.stat().st_mtime_ns for path in figures.iterdir()}
    gone = [path for path in figures.iterdir() if "roc" in path.name or "samples" in path.name]
    for path in gone:
        path.unlink()
    assert "glow-fashionmnist-roc.svg is not drawn from its rows" in "".join(
        check_report(published)
    )
    write_report(published)
    assert {path.name: path.read_bytes() for path in figures.iterdir()} == before
    same = [path for path in figures.iterdir() if path not in gone]
    assert all(path.stat().st_mtime_ns == times[path.name] for path in same)
    assert check_report(published) == []


def test_a_figure_follows_its_rows(tmp_path, random):
    folder = folder_of(tmp_path / "f", random)
    write_report(folder)
    before = (folder / "figures/glow-fashionmnist-roc.svg").read_bytes()
    path = folder / "curves.jsonl"
    curves = read_rows(path)
    write_rows(path, [row | {"auroc": 0.8} if row["kind"] == "roc" else row for row in curves])
    assert "glow-fashionmnist-roc.svg is not drawn" in "".join(check_report(folder))
    write_report(folder)
    assert (folder / "figures/glow-fashionmnist-roc.svg").read_bytes() != before
    path.unlink()
    assert "glow-fashionmnist-roc.svg has no rows any more" in "".join(check_report(folder))
    write_report(folder)
    kinds = {one.name.split("-")[-1] for one in (folder / "figures").glob("*.svg")}
    assert kinds == {"graying.svg", "training.svg"}


def test_a_notebook_s_backend_and_style_neither_change_nor_count(published, tmp_path):
    found = [one for one in gallery(read_results(published)) if one.kind == "roc"]
    backend, size = mpl.get_backend(), mpl.rcParams["font.size"]
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        draw(tmp_path, found)
        assert mpl.rcParams["font.size"] == 30
    assert (mpl.get_backend(), mpl.rcParams["font.size"]) == (backend, size)
    name = found[0].file
    assert (tmp_path / name).read_bytes() == (published / name).read_bytes()


@pytest.mark.parametrize("holes", [1, 40])
def test_values_that_are_not_finite_are_counted_and_the_pages_written(tmp_path, random, holes):
    log_prob = log_probs(random)
    log_prob[OOD][:holes] = np.nan
    folder = folder_of(tmp_path / "f", random, log_prob)
    write_report(folder)
    counted = f"Left out, being NaN or infinite: {holes} of 40 values on {OOD}."
    assert counted in (folder / "report.md").read_text()
    assert (folder / "figures/glow-fashionmnist-likelihoods.svg").exists()


def test_nothing_finite_is_a_figure_that_says_so(tmp_path, random):
    folder = folder_of(tmp_path / "f", random, {IN: np.full(40, np.nan), OOD: np.full(40, np.inf)})
    write_report(folder)
    assert "no finite value" in (folder / "figures/glow-fashionmnist-likelihoods.svg").read_text()


def test_a_grid_that_is_not_its_row_s_is_refused(tmp_path, random):
    folder = folder_of(tmp_path / "f", random)
    path = folder / "grids/0.png"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(StoreError, match=r"0\.png is not the picture that its row names"):
        write_report(folder)
    path.write_bytes(content)
    write_report(folder)
    path.unlink()
    assert "0.png: No such file" in "".join(check_report(folder))


def test_sets_of_one_short_name_have_a_legend_entry_each(tmp_path, random):
    sets = {name: random.normal(size=40) for name in ("a$b/test", "a$b/train", "_c/test", *"defgh")}
    rows = [curve("data", quantity=name, **histograms(sets)) for name in ("mean", "variance")]
    write_rows(tmp_path / "curves.jsonl", rows)
    write_rows(tmp_path / "rows.jsonl", [trial("x", 0.5)])
    write_report(tmp_path)
    shown = re.findall(
        r"<text[^>]*>([^<]*)</text>", (tmp_path / "figures/fashionmnist-data.svg").read_text()
    )
    for label in ("a$b/test", "a$b/train", "\u200b_c", *"defgh"):
        assert shown.count(label) == 2, label


def test_the_figure_of_trainings_leaves_out_unwatched_ones_and_joins_an_ensemble():
    log = [{"step": step, "ref_bits_per_dim": 4.0, "auroc_mnist": 0.1} for step in (99, 199)]
    given = ("a", "test", []), ("b", "test", log), ("c-1", "member", log), ("c-2", "member", log)
    common = {"kind": "training", "status": "ok", "in_dist": "fashionmnist/test"}
    rows = [{**common, "model": model, "role": role, "log": own} for model, role, own in given]
    figure = training(trainings(rows), PACKAGE)
    assert figure.axes[1].get_legend_handles_labels()[1] == ["b", "ensemble of fashionmnist"]
    single, *members = figure.axes[1].lines
    assert (
        {line.get_color() for line in members} == {members[1].get_color()} != {single.get_color()}
    )
    assert len(members) == 2


def test_contracted_sets_of_two_views_have_a_legend_entry_each(tmp_path, random):
    folder = folder_of(tmp_path / "f", random)
    points = {
        "curve": [[0, 1.0, 0.1, 1.0], [100, 3.0, 0.1, 3.0]],
        "in_dist_bits_per_dim": [3, 0, 3],
    }
    rows = [
        explained("graying", "ood", name, **points) for name in ("a/test@x", "a/test@y", "b/test@x")
    ]
    write_rows(folder / "analysis.jsonl", rows)
    write_report(folder)
    drawing = (folder / "figures/glow-fashionmnist-graying.svg").read_text()
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", drawing)
    assert {"a/test@x", "a/test@y", "b/test"} <= set(shown)


# sections


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ([[0, 1.0], [50, 2.0], [100, 4.0]], 75.0),
        ([[0, 1.0], [100, 2.0]], 100.0),
        ([[0, 5.0], [100, 6.0]], None),
        ([[0, 5.0], [50, 2.0], [100, 4.0]], 75.0),
    ],
)
def test_the_factor_at_which_a_set_overtakes(curve, expected):
    assert overtaking({"curve": curve, "in_dist_bits_per_dim": [3.0, 0, 0]}) == expected


def test_the_shares_of_the_gap_add_up(published):
    ((_, lines),) = decomposition.section(Analysis(read_results(published))).tables
    shares = ["+200.0 (+67%)", "+0.0 (+0%)", "+100.0 (+33%)"]
    assert lines == [["glow-fashionmnist", IN, OOD, "+300.0 ± 1.4", *shares]]


def test_medians_stand_beside_means_that_a_few_images_make(published):
    results = read_results(published)
    for row in results.analysis:
        if row["kind"] == "likelihood" and row["role"] == "ood":
            row["log_prob"] = [-1e9, 1e9, -700.0]
    (line,) = decomposition.section(Analysis(results)).tables[0][1]
    assert line[3].endswith("median +800.0")
    assert line[4].endswith("median +200.0")


def test_rows_of_a_log_prior_in_one_piece_say_so(published):
    results = read_results(published)
    for row in results.analysis:
        if row["kind"] == "likelihood":
            row["log_prob_z"] = row.pop("latent_term")
    analysis = Analysis(results)
    found = decomposition.section(analysis)
    assert found.text[0].startswith("Learned prior, two terms")
    assert found.tables[0][0][-2:] == ["of log p(z)", "of the log-determinant"]
    assert constant_volume.section(analysis).tables[0][1] == []


def test_constant_volume_is_said_of_models_without_any_volume_that_varies(published):
    results = read_results(published)
    rows = [row for row in results.analysis if row["kind"] == "likelihood"]
    assert constant_volume.section(Analysis(results)).tables[0][1] == []
    for row in rows:
        row["log_det"] = [-100.0, 0.0, -100.0]
    assert constant_volume.section(Analysis(results)).tables[0][1] == []  # the prior's varies
    for row in rows:
        row["prior_volume"] = [0.0, 0.0, 0.0]
    found = constant_volume.section(Analysis(results))
    assert len(found.tables[0][1]) == 1
    assert found.text[1].endswith("the higher mean log p on 1 of 1 pairs.")


def headline(results, **changes):
    """The one pair of the folder, with other values in its likelihood rows of the given roles."""
    for row in results.analysis:
        if row["kind"] == "likelihood" and row["role"] in changes:
            row.update(changes[row["role"]])
    return Analysis(results)


def said(analysis):
    return {one.said: (one.ours, one.agrees) for one in statements.statements(analysis)}


def test_statements_of_the_paper_have_our_numbers_and_a_verdict(published):
    analysis = headline(read_results(published))
    assert said(analysis) == {"most of the gap is volume": ("33%", False)}
    found = statements.section(analysis)
    assert found.tables[0][1][0][2:4] == ["glow-fashionmnist", "fashionmnist → mnist"]
    tally, models = found.text[1].split(". ")
    assert tally == "Of 1 lines that are more than remembered, 0 agree and 1 differ"
    assert models == sizes_sentence(["glow-fashionmnist"])
    volume = {"log_det": [-400.0, 1.0, -400.0]}
    more = headline(read_results(published), ood={**volume, "log_prob": [-1100.0, 1.0, -1100.0]})
    assert said(more)["most of the gap is volume"] == ("50%", False)
    less = {"latent_term": [-960.0, 1.0, -960.0], "log_prob": [-1260.0, 1.0, -1260.0]}
    assert said(headline(read_results(published), ood=less)) == {
        "most of the gap is volume": ("83%", True)
    }


def test_without_volume_the_statement_is_the_auroc(published):
    still = {"prior_volume": [0.0, 0.0, 0.0], "log_det": [-500.0, 0.0, -500.0]}
    analysis = headline(read_results(published), test=still, ood=still)
    (ours, agrees) = said(analysis)["inverted with constant volume too"]
    assert (ours, agrees) == ("AUROC 0.100 [0.100, 0.100]", True)
    answers = conclusions.section(analysis).text
    assert "glow-fashionmnist → mnist 0.100" in next(
        one for one in answers if "inverted 1 of 1" in one
    )


def test_variance_sums_are_held_to_the_paper_s(published):
    results = read_results(published)
    sums = {"cifar10/test": [61.9, 59.2, 68.1], "svhn/test": [49.6, 52.7, 60.0]}
    for row in results.curves:
        if row["kind"] == "data" and row["quantity"] == "variance":
            row["sets"] = [
                {"set": name, "variance_sums": [[value, 0.1] for value in own]}
                for name, own in sums.items()
            ]
    found = [one for one in statements.statements(Analysis(results)) if one.model == "none"]
    assert [(one.about, one.agrees) for one in found] == [
        ("cifar10/test", True),
        ("svhn/test", False),
    ]


def test_conclusions_are_made_of_rows_and_name_their_exceptions(published):
    found = conclusions.section(Analysis(read_results(published)))
    assert found.tables == []
    assert found.text[1] == (
        "Is it so (small models)? Raw likelihood is below chance on the paper's inversions on 1 of 1."
    )
    assert found.text[2] == (
        "Is it the volume (small models)? Volume makes more than half of the gap on 0 of 1 pairs "
        "(exceptions: glow-fashionmnist → mnist)."
    )
    assert found.text[-1] == conclusions.GANS
    nothing = Results(published, read_results(published).rows)
    assert conclusions.section(Analysis(nothing)).text == []


def test_cards_of_another_name_are_shown_under_today_s():
    """Two Glows with a learned prior were published as constant-volume ones."""
    identity, name = next(iter(RENAMED_MODELS.items()))

    def names(*identities):
        old = {"model": "cvglow-fashionmnist", "status": "ok"}
        rows = [old | {"inputs": {"models": {old["model"]: one}}} for one in identities]
        skipped = {"model": old["model"], "status": "skipped"}
        found = renamed({"rows": [*rows, skipped], "analysis": [old]}, "rows")
        return {row["model"] for own in found.values() for row in own}

    assert names(identity, identity) == {name}
    assert names("another") == {"cvglow-fashionmnist"}  # a card of that name with other weights
    assert names(identity, "another") == {"cvglow-fashionmnist"}


def test_the_page_is_self_contained_and_its_twin_says_the_same(published):
    page, twin = (published / "report.html").read_text(), (published / "report.md").read_text()
    assert not re.search(r'(src|href)="https?:', re.sub(r'xmlns[:\w]*="[^"]*"', "", page))
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert "currentColor" in page
    titles = re.findall(r"^## (.*)$", twin, re.M)
    assert titles == re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert len(titles) > 6
    assert len(re.findall("<figure[ >]", page)) == twin.count("![") == page.count('role="img"')


def test_both_directions_join_parts_to_their_sets():
    def likelihood(model, in_dist, images, role):
        return {
            "kind": "likelihood",
            "seed": 0,
            "status": "ok",
            "model": model,
            "in_dist": in_dist,
            "images": images,
            "role": role,
            "synthetic": False,
        }

    def row(model, in_dist, ood, auroc):
        return {
            "model": model,
            "in_dist": in_dist,
            "ood": ood,
            "scorer": "likelihood",
            "group_size": 1,
            "auroc": auroc,
            "status": "ok",
            "seed": 0,
            "auroc_low": None,
        }

    analysis = [
        likelihood("a", "cifar10/test", "cifar10/test", "test"),
        likelihood("a", "cifar10/test", "svhn/test", "ood"),
        likelihood("b", "svhn10k/test", "svhn10k/test", "test"),
        likelihood("b", "svhn10k/test", "cifar10/test", "ood"),
    ]
    rows = [
        row("a", "cifar10/test", "svhn/test", 0.1),
        row("b", "svhn10k/test", "cifar10/test", 0.9),
    ]
    ((_, lines),) = both_directions.section(Analysis(Results(PACKAGE, rows, analysis))).tables
    assert lines == [["cifar10 → svhn", "0.100 (a)", "svhn → cifar10", "0.900 (b)"]]


def test_markup_in_names_stays_text(tmp_path):
    section = Section("<b>", ["a `code` < b & [link](x.md)"], [(["h"], [["<i>"]])])
    page = html_page("t", [], [section], tmp_path)
    assert "<code>code</code> &lt; b &amp;" in page
    assert '<a href="x.md">link</a>' in page
    assert "<i>" not in page
    assert "## <b>" in markdown_page("t", [], [section])


# signs, sizes and contraction


def second_order_row(images=OOD, **values):
    given = {
        "measured": [10.0, 1.0],
        "first": [1.0, 0.1],
        "second": [50.0, 5.0],
        "diagonal": [-400.0, 1.0],
        "at_data": [3.0, 8.0],
        "closed_form": None,
        "variance_sums": [[2.0], [1.0]],
    }
    return explained("second-order", "ood", images, **given | values)


def made(analysis, curves=()):
    return Analysis(Results(PACKAGE, [trial("likelihood", 0.1)], analysis, curves=list(curves)))


def test_the_section_on_signs_leads_with_the_tally_and_the_median_ratio():
    rows = [
        second_order_row("a/test"),
        second_order_row("b/test", second=[-50.0, 5.0]),
        second_order_row("c/test", second=[6.0, 5.0]),
        second_order_row("d/test", measured=[-31.0, 47.0], second=[-9000.0, 10.0]),
    ]
    found = second_order.section(made(rows))
    assert found.text[0].startswith(
        "The expansion predicts the sign of 4 gaps: 1 right, 1 wrong, 2 undecided; in the median its "
        "size is 4.90 × the measured one. The paper's diagonal form predicts the sign of 4 gaps: 0 right, 3 wrong"
    )
    tallies, gaps, *_ = found.tables
    assert [line[1:5] for line in tallies[1]] == [
        ["1", "1", "2", "4"],
        ["0", "3", "1", "4"],
        ["0", "0", "4", "4"],
    ]
    assert [line[5:7] for line in gaps[1]] == [
        ["right", "5.10 ×"],
        ["wrong", "4.90 ×"],
        ["undecided", "0.70 ×"],
        ["undecided", "–"],
    ]


def test_the_data_alone_are_judged_on_models_of_every_family():
    rows = [likelihood("test", IN, -1000, -500), likelihood("ood", OOD, -800, -400)]
    rows = [{name: value for name, value in row.items() if name != "log_det"} for row in rows]
    sums = {IN: [[2.0, 0.1]], OOD: [[1.0, 0.1]]}
    data = curve("data", quantity="variance", **histograms({IN: np.arange(4), OOD: np.arange(3)}))
    for one in data["sets"]:
        one["variance_sums"] = sums[one["set"]]
    found = second_order.section(made(rows, [data]))
    assert "predict the sign of 1 gap: 1 right, 0 wrong, 0 undecided" in found.text[0]
    assert found.tables[3][1] == [
        [IN, OOD, "2.0 against 1.0", "inside", "glow-fashionmnist", "–", "–"]
    ]
    data["sets"][1]["variance_sums"] = [[1.9, 0.1]]  # no difference beyond the errors
    assert second_order.section(made(rows, [data])).tables[3][1] == []


def test_assumptions_have_numbers_and_a_dash_where_rows_lack_them():
    known = {
        "means_apart": 0.5,
        "off_diagonal": [0.9, None],
        "curvature_spread": [-200.0, 100.0],
        "prior_volume_spread": 12.5,
    }
    found = second_order.section(made([second_order_row(**known)]))
    assert found.tables[-1][1][0][3:] == ["0.02", "0.50", "90%", "–", "0.50", "12.5"]
    assert "the means lie 0.50 in-dist radii apart" in found.text[-1]
    assert "A dash" not in found.text[-1]
    older = second_order.section(made([second_order_row()]))
    assert older.tables[-1][1][0][3:] == ["0.02", *"–––––"]
    assert "A dash stands where a row was measured before" in older.text[-1]


def grayed(change, own_mean=None):
    points = {
        "curve": [[50, 2.0, 0.1, 2.0], [100, 3.0, 0.1, 3.0]],
        "in_dist_bits_per_dim": [3, 0, 3],
    }
    moved = {"change": change, "own_mean_change": own_mean or change} if change else {}
    return explained("graying", "test", IN, **points, **moved)


def test_the_figure_of_contraction_has_both_centres_and_histograms():
    points = [[50, 2.0, 0.1, 2.0], [100, 3.0, 0.1, 3.0]]
    row = grayed([[50, 1.0, 0.1]]) | {"own_mean_curve": [[50, 4.0, 0.1, 4.0], *points[1:]]}
    columns = {"test": [0.0, 1.0], "contract50": [2.0, 3.0], "shrink50": [4.0, 5.0]}
    shown = curve(
        "contracted", **histograms({name: np.array(one) for name, one in columns.items()})
    )
    for one in shown["sets"]:
        one["contraction"] = "" if one["set"] == "test" else one["set"]
    grey, mean, *below = figures.graying([row, shown], PACKAGE).axes
    assert [one.lines[0].get_ydata().tolist() for one in (grey, mean)] == [[2, 3], [4, 3]]
    assert "mid-grey" in grey.get_xlabel()
    assert "the set's mean" in mean.get_xlabel()
    labels = [axes.get_legend_handles_labels()[1] for axes in below]
    assert labels == [
        ["as it is", "50 % towards mid-grey"],
        ["as it is", "50 % towards its mean"],
    ]
    assert len(figures.graying([grayed(None)], PACKAGE).axes) == 1


def test_words_on_contraction_follow_from_the_numbers():
    lowered, mixed = (
        [[0, 9.0, 1.0], [50, -20.0, 2.0], [75, -9.0, 2.0]],
        [[50, 20.0, 2.0], [75, 1.0, 2.0]],
    )
    found = graying.section(made([grayed(lowered, mixed)]))
    assert found.text[0] == (
        "Moderate contraction of the in-dist set, to 50 % and less far: towards mid-grey it raises the likelihood of 0 "
        "of 1 models, lowers that of 1, and does neither throughout for 0; towards its own mean it raises the "
        "likelihood of 0 of 1 models, lowers that of 0, and does neither throughout for 1."
    )
    assert found.text[-1] == (
        f"{GLOW}, moderate contraction of {IN}: towards mid-grey it lowers log p (75 %: -9.0 ± 2.0, 50 %: "
        "-20.0 ± 2.0 nats); towards its own mean it raises log p at 50 %, leaves log p within its error at 75 % "
        "(75 %: +1.0 ± 2.0, 50 %: +20.0 ± 2.0 nats)."
    )


def test_rows_without_paired_changes_are_judged_by_their_curve():
    found = graying.section(made([grayed(None)]))
    nats = 784 * np.log(2)
    assert (
        f"it raises log p (50 %: +{nats:.1f} ± {nats * 0.1 * np.sqrt(2):.1f} nats)"
        in found.text[-1]
    )
    assert found.tables[1][1][0][-1] == "–"
    assert "towards its own mean it" not in found.text[0]


def test_images_that_must_not_be_passed_on_are_in_no_figure():
    from oodbench.data.catalog import catalog, may_be_shown

    private = {name for name, card in catalog().items() if not may_be_shown(name)}
    assert private == {
        name
        for name, card in catalog().items()
        if re.search("ImageNet terms|research only", card.licence)
    }
    assert may_be_shown("a-set-of-mine")


# samples


def lying(role, images, norm, **changes):
    """A likelihood row of a flow whose latents have this median norm, in units of √784 = 28."""
    norms = {} if norm is None else {"latent_norm": [28 * norm, 0.1, 28 * norm]}
    return explained("likelihood", role, images, bits_per_dim=[3.0, 0.01, 3.0], **norms, **changes)


def at(temperature, unrounded, rounded):
    norms = {"latent_norm": rounded, "latent_norm_unrounded": unrounded}
    scaled = {name: value and [28 * value, 0.1, 28 * value] for name, value in norms.items()}
    about = {"temperature": temperature, "n": 40, "pixel_variance": 0.1 * temperature}
    about["overflowed"] = None if unrounded is None else 3
    return {**about, **scaled, "bits_per_dim": [3.0 * temperature, 0.01, 3.0 * temperature]}


def drawn(*temperatures):
    sets = [
        {"set": name, "role": role, "draws_likelier": count, "pixel_variance": 0.05}
        for name, role, count in ((IN, "test", 11), (OOD, "ood", 7))
    ]
    return explained("samples", "samples", "samples", sets=sets, temperatures=list(temperatures))


def of_samples(*rows):
    return samples.section(Analysis(Results(PACKAGE, [], list(rows))))


@pytest.mark.parametrize(
    ("in_dist", "ood", "applies"),
    [
        (0.9, 0.65, True),
        (1.0, 0.94, True),  # the shell ends at 1 − √2/28 = 0.949
        (1.0, 0.96, False),
        (0.9, 0.92, False),  # not nearer to the mode than in-dist
        (1.0, 1.08, False),
    ],
)
def test_the_shell_argument_applies_to_sets_inside_the_shell(in_dist, ood, applies):
    rows = lying("test", IN, in_dist), lying("ood", OOD, ood), lying("samples", "samples", 1.05)
    sentence = of_samples(*rows, drawn(at(1.0, 1.0, 1.05))).text[-1]
    verb = "applies" if applies else "does not apply"
    assert sentence == (
        f"{GLOW}: the shell argument {verb} to mnist ({ood:.2f}); in brackets ‖z‖/√D, in-dist {in_dist:.2f}, of draws "
        "1.05; of 40 draws are likelier: 7 than the median mnist image, 11 than the median in-dist one."
    )


def test_draws_have_their_norm_before_and_after_rounding_and_at_each_temperature():
    rows = lying("test", IN, 0.99), lying("ood", OOD, 1.1), lying("samples", "samples", 1.07)
    section = of_samples(*rows, drawn(at(0.5, 0.5, 0.7), at(1.0, 1.0, 1.07)))
    told = "the draws of these flows lie at 1.07 √D; at 1.00 √D before that."
    assert any(words.endswith(told) for words in section.text)
    assert any(words.endswith("3 of 43 of glow-fashionmnist.") for words in section.text)
    (heads, lines), (_, cooled) = section.tables
    shown = [dict(zip(heads, line, strict=True)) for line in lines]
    assert [one["‖z‖/√D"] for one in shown] == ["1.070", "0.990", "1.100"]
    assert [one["unrounded"] for one in shown] == ["1.000", "–", "–"]
    assert [one["draws likelier"] for one in shown] == ["–", "11 of 40", "7 of 40"]
    assert [line[2:] for line in cooled[:2]] == [
        ["0.5", "40", "1.500 ± 0.010", "0.700", "0.500", "0.0500"],
        ["1", "40", "3.000 ± 0.010", "1.070", "1.000", "0.1000"],
    ]


def test_rows_from_before_samples_were_compared_have_dashes_and_a_verdict():
    rows = lying("test", IN, 0.99), lying("ood", OOD, 1.1), lying("samples", "samples", 1.07)
    section = of_samples(*rows)
    assert any(words.endswith("before that they were not measured.") for words in section.text)
    (_, lines), (_, cooled) = section.tables
    sentence = section.text[-1]
    assert "does not apply to mnist (1.10)" in sentence
    assert sentence.endswith("median OOD image was not measured.")
    assert all(line[-1] == line[-3] == "–" for line in lines)
    assert cooled == []


def test_a_model_without_latents_is_asked_for_its_draws_alone():
    rows = lying("test", IN, None), lying("ood", OOD, None), lying("samples", "samples", None)
    section = of_samples(*rows, drawn(at(1.0, None, None)))
    assert section.text[-1].startswith(
        f"{GLOW}: it gives no latents whose norm could be compared; of 40 draws"
    )
    assert not any("these flows" in words for words in section.text)


def test_training_images_are_unfilled_and_named_by_their_role(tmp_path, random):
    folder = folder_of(tmp_path / "f", random)
    sets = {**log_probs(random), "fashionmnist/train[100 drawn]": random.normal(-1500, 100, 100)}
    row = curve("likelihoods", ood=OOD, **histograms(sets))
    drawn = {**row, "auroc": 0.1, "synthetic": False}
    for one, role in zip(row["sets"], ("test", "ood", "train"), strict=True):
        one |= {"role": role, "bits_per_dim_median": 2.5}
    (axes,) = likelihoods([drawn], folder).axes
    assert axes.get_title() == "→ mnist AUROC .100"
    assert [bool(patch.get_fill()) for patch in axes.patches].count(True) == 2
    assert len(axes.patches) == 5
    names = axes.get_legend_handles_labels()[1]
    assert [name.split(",")[0] for name in names] == ["fashionmnist", "mnist", "training images"]
    rows = [one for one in read_rows(folder / "curves.jsonl") if one["kind"] != "likelihoods"]
    write_rows(folder / "curves.jsonl", [*rows, row])
    write_report(folder)
    told = r"unfilled of 100 of its training images (fashionmnist/train\[100 drawn])"
    assert told in (folder / "report.md").read_text()


# words that are made of numbers


def directed(in_dist, ood, auroc, model):
    sets = {"in_dist": f"{in_dist}/test", "in_dist_name": in_dist, "model": model}
    rows = [trial("likelihood", auroc, ood=f"{ood}/test", **sets)]
    about = [
        likelihood("test", f"{in_dist}/test", 0, 0) | sets,
        likelihood("ood", f"{ood}/test", 0, 0) | sets,
    ]
    return rows, about


@pytest.mark.parametrize(
    ("aurocs", "told"),
    [
        ((0.1, 0.9, 0.2), "on 1 of 1 pairs (b of a and b)."),
        ((0.9, 0.1, 0.8), "on 1 of 1 pairs (a of a and b)."),
        ((0.1, 0.1, 0.1), "on 0 of 1 pairs; not so on a and b."),
        ((0.1, 0.9, 0.8), "on 0 of 1 pairs; not so on a and b."),
    ],
)
def test_which_set_is_the_likelier_one_in_both_directions_is_counted(aurocs, told):
    pairs = [("a", "b", "one"), ("b", "a", "two"), ("a", "b", "three")]
    made = [directed(*own[:2], auroc, own[2]) for own, auroc in zip(pairs, aurocs, strict=True)]
    rows, about = ([one for own in made for one in own[place]] for place in (0, 1))
    found = both_directions.section(Analysis(Results(PACKAGE, rows, about)))
    assert found.text[-1].endswith(told)


def test_where_the_auroc_was_best_beside_the_fit_is_counted():
    logs = [
        [(3.0, 0.1), (2.0, 0.2)],
        [(3.0, 0.2), (2.0, 0.1)],
        [(3.0, 0.1), (2.0, 0.3), (2.5, 0.2)],
    ]
    rows = [
        explained("training", "test", IN, model=f"m{n}", log=[
            {"step": step, "ref_bits_per_dim": bits, "auroc_mnist": auroc} for step, (bits, auroc) in enumerate(log)
        ])
        for n, log in enumerate(logs)
    ]  # fmt: skip
    found = training_section(Analysis(Results(PACKAGE, [trial("likelihood", 0.1)], rows)))
    assert found.text[-1].startswith(
        "On 2 of 3 lines the AUROC is best at the validation of the best fit"
    )


def test_bits_of_training_images_say_how_many_they_are(published):
    found = likelihoods_section(Analysis(read_results(published)))
    heads, lines = found.tables[0]
    cells = [line[heads.index("train bits/dim")] for line in lines]
    train = [row for row in read_results(published).explained if row.get("role") == "train"]
    expected = [f"(n = {row['n']:,})" for row in train if row["kind"] == "likelihood"]
    assert expected
    assert all(cell.endswith(expected[0]) for cell in cells)


def test_the_section_on_flows_says_at_which_scale_ood_latents_differ(published):
    page = (published / "report.md").read_text()
    assert "How flows work" in page
    assert (
        "differ most from in-dist ones at scale 1 of 2, mean z² 0.300 against 1.000 (5 standard errors)."
        in page
    )
