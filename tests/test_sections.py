"""The paper's explanations: graying, the terms of the likelihood, samples, the report, and published numbers."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
import yaml
from oodbench.analysis.samples import draw_samples, samples_path
from oodbench.passes.shards import ImageRef, open_images
from oodbench.report.story import Told, both_directions, decomposition, overtaking, story

import oodbench as ob
from oodbench.analysis.tasks import grayed
from oodbench.contract import bits_per_dim
from oodbench.data.views import apply_view
from oodbench.errors import DataError
from oodbench.models.glow import Glow
from oodbench.models.noise import keyed_uniform
from oodbench.paths import PACKAGE
from oodbench.registry import statistics
from oodbench.report.gallery import gallery
from oodbench.report.page import html_page, markdown_page
from oodbench.report.reproduction import Claim, claims, reproduction, verdict
from oodbench.runner import Options, run_suite
from oodbench.store import read_rows
from oodbench.suite import Analysis, Pair, Suite
from oodbench.zoo.describe import describe
from oodbench.zoo.families import FAMILIES

FLASH = Analysis(images=20, gray=(0, 50), samples=4, probes=4)


def suite(**changes):
    given = {
        "name": "t", "title": "t", "models": ["glow-fashionmnist"], "limit": 30, "bootstrap": 0, "analysis": FLASH,
        "pairs": [Pair(in_dist="fashionmnist", ood=["mnist", "constant"])], "scorers": ["likelihood", "typicality"],
    }  # fmt: skip
    return Suite(**{**given, **changes})


# graying


def test_contracting_by_one_changes_nothing_and_by_zero_leaves_grey(random):
    images = random.integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
    assert np.array_equal(apply_view(images, "contract100"), images)
    assert set(apply_view(images, "contract0").ravel()) == {128}
    half = apply_view(images, "contract50").astype(float)
    assert np.abs(half - (127.5 + 0.5 * (images - 127.5))).max() <= 0.5
    assert half.var() == pytest.approx(images.var() / 4, rel=0.01)
    with pytest.raises(DataError, match="contract101"):
        apply_view(images, "contract101")


def test_grayed_sets_are_the_model_s_view_contracted():
    plain = ImageRef("mnist/test", (3, 32, 32), 10)
    gray = open_images(grayed(plain, 5, 25))
    assert gray.identifier == "mnist/test[:5]@pad32,rgb,contract25"
    assert np.array_equal(gray.images, apply_view(open_images(plain).images[:5], "contract25"))


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


# the terms that a likelihood is made of


def test_a_flow_tells_what_its_likelihood_is_made_of():
    glow = ob.load_model("glow-fashionmnist")
    images = torch.from_numpy(np.array(ob.load_images("mnist/test[:6]").images))
    with torch.no_grad():
        terms, (_, log_prob_z, log_det) = glow.log_prob_terms(images), glow.encode(images)
        first, last = glow._by_scale(glow.dequantise(images, keyed_uniform(images, glow.seed)))
        shares = first.log_prob_z + first.log_det / 2, last.log_prob_z + last.log_det + first.log_det / 2
    assert torch.allclose(terms["log_prob"], terms["log_prob_z"] + terms["log_det"], atol=1e-6, rtol=0)
    assert torch.allclose(terms["log_prob_z"], log_prob_z)
    assert torch.allclose(terms["log_det"], log_det)
    assert torch.allclose(terms["last_scale_log_prob"], shares[1])
    assert torch.allclose(sum(shares) - 784 * math.log(256), terms["log_prob"])  # the scales share the whole out


def test_the_latent_norm_is_that_of_the_standardised_latents():
    glow = Glow((1, 8, 8), 2, 2, hidden=4, prior="standard").double()
    glow.loss(torch.randint(0, 256, (16, 1, 8, 8)))  # sets ActNorm
    glow.eval()
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        terms, (z, log_prob_z, _) = glow.log_prob_terms(images), glow.encode(images)
    assert torch.allclose(terms["latent_norm"], z.norm(dim=1))
    assert torch.allclose(log_prob_z, -0.5 * terms["latent_norm"] ** 2 - 32 * math.log(2 * math.pi))


def test_a_vae_tells_what_its_bound_is_made_of():
    vae = ob.load_model("vae-fashionmnist")
    images = torch.from_numpy(np.array(ob.load_images("fashionmnist/test[:8]").images))
    with torch.no_grad():
        terms = vae.log_prob_terms(images)
    elbo = terms["reconstruction"] - terms["kl"]
    assert torch.all(terms["log_prob"] > elbo - 5)
    assert torch.all(terms["log_prob"] < elbo + 60)
    assert torch.all(terms["kl"] > 0)
    assert torch.allclose(terms["kl"], terms["prior_cross_entropy"] - terms["posterior_entropy"])
    from torch.distributions import Normal, kl_divergence

    with torch.no_grad():
        mean, log_std = vae.posterior(images.float() / 127.5 - 1)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(terms["kl"].float(), expected, rtol=1e-4)


SMALL = {
    "glow": {"scales": 1, "steps": 1, "hidden": 2}, "realnvp": {"scales": 1, "hidden": 2, "couplings": 1},
    "dcgan-vae": {"width": 2, "latent": 2}, "vae": {"width": 2, "latent": 2}, "diffusion": {"width": 8},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_knows_what_each_family_can_give(family):
    model = FAMILIES[family].build(shape=(1, 32, 32), **SMALL.get(family, {}))
    named = [entry.capability for entry in statistics.values()]
    asked = {name for one in named for name in ([one] if isinstance(one, str) else one.values())} - {""} | {"sample"}
    assert {name for name in asked if hasattr(model, name)} == FAMILIES[family].capabilities & asked


# samples


def test_samples_are_drawn_once_and_again_the_same(home):
    path = draw_samples("glow-fashionmnist", 3, seed=1)
    first, when = path.read_bytes(), path.stat().st_mtime_ns
    assert draw_samples("glow-fashionmnist", 3, seed=1).stat().st_mtime_ns == when
    path.unlink()
    assert draw_samples("glow-fashionmnist", 3, seed=1).read_bytes() == first
    assert samples_path("glow-fashionmnist", 3, 2) != path != samples_path("glow-mnist", 3, 1)


# the run


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A results folder with analysis rows."""
    folder = tmp_path_factory.mktemp("told")
    run_suite(suite(), Options(), folder)
    return folder


def test_analysis_rows_are_the_columns_means(told):
    rows = read_rows(told / "analysis.jsonl")
    assert {row["kind"] for row in rows} == {"likelihood", "graying", "second-order", "training"}
    assert {row["status"] for row in rows} == {"ok"}
    glow = ob.load_model("glow-fashionmnist")
    columns = ob.measure(glow, ob.load_images("mnist/test[:30]"), "log_prob", "log_prob_z", "log_det")
    found = next(row for row in rows if row["kind"] == "likelihood" and row["images"] == "mnist/test[:30]")
    assert found["log_prob"][0] == pytest.approx(columns["log_prob"].mean(), rel=1e-6)
    assert found["log_prob_z"][0] + found["log_det"][0] == pytest.approx(found["log_prob"][0], abs=1e-5)
    gray = next(row for row in rows if row["kind"] == "graying" and row["role"] == "test")
    own = ob.measure(glow, ob.load_images("fashionmnist/test[:20]"), "log_prob")["log_prob"]
    assert gray["curve"][-1][:2] == [100, pytest.approx(bits_per_dim(own, glow.shape).mean(), rel=1e-5)]


def test_the_second_run_draws_all_figures_without_a_pass(told, monkeypatch):
    from oodbench import runner

    before = {path.name: path.read_bytes() for path in (told / "figures").iterdir()}
    for path in (told / "figures").iterdir():
        path.unlink()
    for name in ("measure_shard", "draw", "study_row", "evaluate"):
        monkeypatch.setattr(runner, name, lambda task: pytest.fail("nothing is to be measured again"))
    run_suite(suite(), Options(), told)
    assert {path.name: path.read_bytes() for path in (told / "figures").iterdir()} == before


def test_every_figure_is_there_in_both_forms_with_a_caption(told):
    rows, studies = read_rows(told / "rows.jsonl"), read_rows(told / "analysis.jsonl")
    found = gallery(rows, studies)
    kinds = {"likelihoods", "roc", "decomposition", "graying", "samples", "latents", "data", "training"}
    assert {one.kind for one in found} == kinds
    for one in found:
        assert (told / f"{one.stem}.svg").read_text().count("<svg") == 1
        assert (told / f"{one.stem}.png").read_bytes()[:4] == b"\x89PNG"
    assert all(
        "seed 0" in one.caption and "[:30]" in one.caption for one in found if one.kind in ("likelihoods", "roc")
    )


def test_the_page_is_self_contained_and_its_twin_says_the_same(told):
    page, twin = (told / "report.html").read_text(), (told / "report.md").read_text()
    assert not re.search(r'(src|href)="https?:', re.sub(r'xmlns[:\w]*="[^"]*"', "", page))
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert "currentColor" in page
    titles = re.findall(r"^## (.*)$", twin, re.M)
    assert titles == re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert page.count("<figure>") == twin.count("![") == page.count('role="img"')


def test_the_shares_of_the_gap_add_up(told):
    told_rows = Told(read_rows(told / "rows.jsonl"), read_rows(told / "analysis.jsonl"), [])
    ((_, lines),) = decomposition(told_rows).tables
    assert len(lines) == 1  # synthetic sets are told apart
    numbers = [float(re.match(r"[+-][\d.]+", cell)[0]) for cell in lines[0][3:]]
    assert numbers[0] == pytest.approx(numbers[1] + numbers[2], abs=0.2)


def test_a_failed_pass_is_a_failed_row(home, tmp_path, monkeypatch):
    from oodbench import runner

    def broken(task):
        raise ValueError("the disk is on fire")

    monkeypatch.setattr(runner, "measure_shard", broken)
    run_suite(suite(), Options(), tmp_path)
    rows = [row for row in read_rows(tmp_path / "analysis.jsonl") if row["kind"] != "training"]
    assert all(row["status"] == "failed" and "on fire" in row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (lambda self, n: None, "TypeError"),
        (lambda self, n, generator: torch.zeros(n, 1, 28, 28), "gave float32 (4, 1, 28, 28), not uint8 (4, 1, 28, 28)"),
    ],
)
def test_a_model_that_cannot_be_drawn_from_is_a_failed_row_alone(home, tmp_path, sample, reason):
    from oodbench.registry import models, register_model
    from oodbench.testing import UniformModel

    register_model("odd")(type("Odd", (UniformModel,), {"sample": sample, "trained_on": "fashionmnist"}))
    try:
        run_suite(suite(models=["odd"]), Options(), tmp_path)
    finally:
        models._entries.pop("odd")
    rows = read_rows(tmp_path / "analysis.jsonl")
    failed = [row for row in rows if row["status"] == "failed"]
    assert [row["role"] for row in failed] == ["samples"]
    assert reason in failed[0]["reason"]
    assert f"FAILED: likelihood of odd on samples: {failed[0]['reason']}" in (tmp_path / "report.md").read_text()
    assert len(rows) > 4


def test_only_keeps_the_other_analysis_rows(home, tmp_path):
    run_suite(suite(), Options(), tmp_path)
    before = (tmp_path / "analysis.jsonl").read_bytes()
    for restriction in ("mnist", "likelihood"):  # the second alone brings no reference images
        run_suite(suite(), Options(), tmp_path, only=[restriction])
        assert (tmp_path / "analysis.jsonl").read_bytes() == before


def test_the_figure_of_trainings_leaves_out_unwatched_ones_and_joins_an_ensemble():
    from oodbench.report.figures import Material, training

    log = [{"step": step, "ref_bits_per_dim": 4.0, "auroc_mnist": 0.1} for step in (99, 199)]
    given = ("a", "test", []), ("b", "test", log), ("c-1", "member", log), ("c-2", "member", log)
    common = {"kind": "training", "status": "ok", "in_dist": "fashionmnist/test"}
    rows = [{**common, "model": model, "role": role, "log": own} for model, role, own in given]
    figure = training(Material([], [], rows, []), "")
    assert figure.axes[1].get_legend_handles_labels()[1] == ["b", "ensemble of fashionmnist"]
    single, *members = figure.axes[1].lines
    assert {line.get_color() for line in members} == {members[1].get_color()} != {single.get_color()}
    assert len(members) == 2


def test_the_trainings_of_an_ensemble_are_told_with_its_model(told):
    rows = [row for row in read_rows(told / "analysis.jsonl") if row["kind"] == "training"]
    members = describe("glow-fashionmnist").ensemble
    assert {row["model"] for row in rows if row["role"] == "member"} == set(members)
    assert all(f"| {name} " in (told / "report.md").read_text() for name in members)


def test_a_suite_without_analysis_has_no_report(home, tmp_path):
    run_suite(suite(analysis=None), Options(), tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert not (tmp_path / "analysis.jsonl").exists()


def test_both_directions_join_parts_to_their_sets():
    def likelihood(model, in_dist, images, role):
        return {
            "kind": "likelihood",
            "model": model,
            "in_dist": in_dist,
            "images": images,
            "role": role,
            "synthetic": False,
        }

    def row(model, in_dist, ood, auroc):
        return {"model": model, "in_dist": in_dist, "ood": ood, "scorer": "likelihood", "group_size": 1, "auroc": auroc,
                "status": "ok"}  # fmt: skip

    studies = [
        likelihood("a", "cifar10/test", "cifar10/test", "test"), likelihood("a", "cifar10/test", "svhn/test", "ood"),
        likelihood("b", "svhn10k/test", "svhn10k/test", "test"), likelihood("b", "svhn10k/test", "cifar10/test", "ood"),
    ]  # fmt: skip
    rows = [row("a", "cifar10/test", "svhn/test", 0.1), row("b", "svhn10k/test", "cifar10/test", 0.9)]
    ((_, lines),) = both_directions(Told(rows, studies, [])).tables
    assert lines == [["cifar10 → svhn", "0.100 (a)", "svhn → cifar10", "0.900 (b)"]]


def test_markup_in_names_stays_text(tmp_path):
    from oodbench.report.story import Section

    section = Section("<b>", ["a `code` < b & [link](x.md)"], [(["h"], [["<i>"]])])
    page = html_page("t", [], [section], tmp_path)
    assert "<code>code</code> &lt; b &amp;" in page
    assert '<a href="x.md">link</a>' in page
    assert "<i>" not in page
    assert "## <b>" in markdown_page("t", [], [section])


# published numbers


def claim(**changes):
    given = {"paper": "p", "where": "w", "model": "m", "ours": "glow-fashionmnist", "in_dist": "fashionmnist", "ood": "mnist",
             "scorer": "likelihood", "metric": "auroc", "read": "primary"}  # fmt: skip
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
        ({"value": 3.0, "metric": "id_bits_per_dim"}, (3.09, None, None), "agrees"),
        ({"value": 3.0, "metric": "id_bits_per_dim"}, (3.11, None, None), "differs"),
        ({"value": 0.9}, (None, None, None), "not comparable: this pair has no row here"),
        ({"value": 0.9, "not_comparable": "why"}, (0.9, 0.9, 0.9), "not comparable: why"),
    ],
)
def test_the_verdict_follows_the_rule(changes, ours, expected):
    assert verdict(claim(**changes), *ours) == expected


def test_claims_are_well_formed():
    assert len(claims()) == len(yaml.safe_load((PACKAGE / "report" / "claims.yaml").read_text("utf-8")))
    for one in claims():
        assert [one.value, one.below, one.above].count(None) == 2
        assert one.read in ("primary", "secondary", "figure", "remembered")
        assert ob.models.cards.load_card(one.ours)


def test_published_numbers_stand_beside_ours(told):
    section = reproduction(read_rows(told / "rows.jsonl"))
    ((heads, lines),) = section.tables
    first = dict(zip(heads, lines[0]))
    assert first["published"] == "< 0.5"
    assert first["verdict"] == "agrees"
    assert reproduction([]) is None
    assert json.dumps(lines) in json.dumps([table[1] for s in story_of(told) for table in s.tables])


def story_of(folder):
    rows = read_rows(folder / "rows.jsonl")
    return [*story(rows, read_rows(folder / "analysis.jsonl")), reproduction(rows)]


def test_images_that_must_not_be_passed_on_are_in_no_figure():
    from oodbench.data.catalog import catalog, may_be_shown

    private = {name for name, card in catalog().items() if not may_be_shown(name)}
    assert private == {
        name for name, card in catalog().items() if re.search("ImageNet terms|research only", card.licence)
    }
    assert may_be_shown("a-set-of-mine")
