"""The paper's explanations, run: graying, the terms of the likelihood, samples, and the pages that a run
ends in."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import oodbench as ob
from oodbench.analysis.tasks import AnalysisTask
from oodbench.contract import bits_per_dim
from oodbench.data.views import apply_view
from oodbench.errors import DataError, ModelError
from oodbench.models.glow import Glow
from oodbench.models.noise import keyed_uniform
from oodbench.passes.shards import DrawTask, ShardTask, forget, open_images, samples_path
from oodbench.plan import make_plan
from oodbench.registry import statistics
from oodbench.report import read_results
from oodbench.report.gallery import gallery
from oodbench.report.reproduction import reproduction
from oodbench.report.section import Analysis as AnalysisRows
from oodbench.report.sections import decomposition, likelihoods
from oodbench.runner import Options, run_suite
from oodbench.store import ColumnStore, read_rows
from oodbench.suite import Analysis, Pair, Suite
from oodbench.trials.comparison import ComparisonTask
from oodbench.trials.results import ResultsFolder
from oodbench.trials.rows import TrialTask
from oodbench.work import shard_tasks, work_left
from oodbench.zoo.describe import describe
from oodbench.zoo.families import FAMILIES

FLASH = Analysis(images=20, gray=(0, 50), gray_images=20, samples=4, probes=4)


def suite(**changes):
    given = {
        "name": "t",
        "title": "t",
        "models": ["glow-fashionmnist"],
        "limit": 30,
        "bootstrap": 0,
        "analysis": FLASH,
        "pairs": [Pair(in_dist="fashionmnist", ood=["mnist", "constant"])],
        "scorers": ["likelihood", "typicality"],
    }
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
    settings = Analysis(images=5, gray=(25,), gray_images=5, samples=0, probes=4)
    pairs = [Pair(in_dist="cifar10", ood=["mnist"])]
    plan = make_plan(suite(models=["glow-cifar10"], pairs=pairs, limit=10, analysis=settings))
    (subject,) = plan.subjects
    (ood,) = subject.oods
    assert ood.identifier == "mnist/test[first 2000][10 drawn]@pad32,rgb"
    gray = open_images(subject.grayed[ood]["contract25"].ref)
    assert gray.identifier == "mnist/test[first 2000][5 drawn]@pad32,rgb,contract25"
    assert np.array_equal(gray.images, apply_view(open_images(ood.ref).images[:5], "contract25"))
    plain, contracted = (subject.density[one] for one in (ood, subject.grayed[ood]["contract25"]))
    shown = "density of glow-cifar10 on mnist/test[first 2000]"
    assert plain.label == f"{shown}[10 drawn]@pad32,rgb"
    assert contracted.label == f"{shown}[5 drawn]@pad32,rgb, contracted"
    assert [task.perform() for task in shard_tasks(contracted)] == [5]


# the terms that a likelihood is made of


def test_a_flow_tells_what_its_likelihood_is_made_of():
    glow = ob.load_model("glow-fashionmnist")
    images = torch.from_numpy(np.array(ob.load_images("mnist/test[:6]").images))
    with torch.no_grad():
        terms, (z, log_prob_z, log_det) = glow.log_prob_terms(images), glow.encode(images)
        first, last = glow._by_scale(glow.dequantise(images, keyed_uniform(images, glow.seed)))
        shares = (
            first.log_prob_z + first.log_det / 2,
            last.log_prob_z + last.log_det + first.log_det / 2,
        )
    half = 392 * math.log(2 * math.pi)
    summed = terms["latent_term"] + terms["prior_volume"] + terms["log_det"] - half
    assert torch.allclose(terms["log_prob"], summed, atol=1e-6, rtol=0)
    assert torch.allclose(terms["latent_term"] + terms["prior_volume"] - half, log_prob_z)
    assert torch.allclose(terms["latent_norm"], z.double().norm(dim=1))
    assert torch.allclose(terms["latent_term"], -(terms["latent_norm"] ** 2) / 2)
    assert torch.allclose(terms["log_det"], log_det)
    assert torch.allclose(terms["last_scale_log_prob"], shares[1])
    assert torch.allclose(
        sum(shares) - 784 * math.log(256), terms["log_prob"]
    )  # the scales share the whole out


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
    "glow": {"scales": 1, "steps": 1, "hidden": 2},
    "realnvp": {"scales": 1, "hidden": 2, "couplings": 1},
    "dcgan-vae": {"width": 2, "latent": 2},
    "vae": {"width": 2, "latent": 2},
    "diffusion": {"width": 8},
    "flow-matching": {"width": 8, "steps": 1},
    "residual-vae": {"width": 16, "blocks": 1},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_knows_what_each_family_can_give(family):
    model = FAMILIES[family].build(shape=(1, 32, 32), **SMALL.get(family, {}))
    named = [entry.capability for entry in statistics.values()]
    asked = {
        name for one in named for name in ([one] if isinstance(one, str) else one.values())
    } - {"", "parameters"} | {"sample"}
    assert {name for name in asked if hasattr(model, name)} == FAMILIES[family].capabilities & asked


# samples


def plan_of_drawing(model, n, seed):
    pairs = [
        Pair(in_dist="fashionmnist", ood=["mnist"]),
        Pair(in_dist="mnist", ood=["fashionmnist"]),
    ]
    settings = Analysis(images=20, gray=(0,), samples=n, probes=4)
    return make_plan(suite(models=[model], pairs=pairs, seed=seed, analysis=settings))


def drawing(*arguments):
    (subject,) = plan_of_drawing(*arguments).subjects
    return subject.draws[0]


def drawings_left(folder, *arguments):
    work = work_left(plan_of_drawing(*arguments), ResultsFolder(folder))
    return [job for job in work.jobs if isinstance(job, DrawTask)]


def test_samples_are_drawn_once_and_again_the_same(home, tmp_path):
    first = ("glow-fashionmnist", 3, 1)
    draw = drawing(*first)
    path = samples_path(draw.key)
    assert [job.key for job in drawings_left(tmp_path, *first)] == [draw.key]
    assert draw.perform() == 3
    content = path.read_bytes()
    assert drawings_left(tmp_path, *first) == []
    path.unlink()
    assert [job.key for job in drawings_left(tmp_path, *first)] == [draw.key]
    draw.perform()
    assert path.read_bytes() == content
    others = [("glow-fashionmnist", 3, 2), ("glow-fashionmnist", 4, 1), ("glow-mnist", 3, 1)]
    keys = {drawing(*one).key for one in (first, *others)}
    assert len(keys) == 4
    assert drawing(*first).key == draw.key
    ColumnStore().path(draw.key).unlink()  # the norms before rounding belong to a drawing
    assert [job.key for job in drawings_left(tmp_path, *first)] == [draw.key]


class Overflowing:
    """Draws with their number as pixels, of which each ``every``-th is not finite."""

    def __init__(self, every):
        self.every, self.drawn = every, 0

    def sample_with_norm(self, n, temperature, generator):
        numbers = torch.arange(self.drawn, self.drawn + n)
        self.drawn += n
        norms = torch.where(numbers % self.every == 0, torch.nan, 28.0 * temperature).double()
        return numbers.to(torch.uint8).reshape(n, 1, 1, 1).expand(n, 1, 28, 28), norms


def test_draws_that_overflow_are_counted_and_drawn_again(home, monkeypatch):
    draw = drawing("glow-fashionmnist", 10, 1)
    monkeypatch.setattr("oodbench.passes.shards.load_verified", lambda *_: Overflowing(3))
    assert draw.perform() == 10
    images = np.load(samples_path(draw.key))[:, 0, 0, 0].tolist()
    assert images == [1, 2, 4, 5, 7, 8, 10, 11, 13, 14]
    shard = ColumnStore().get(draw.key)
    assert shard.columns["latent_norm_unrounded"].tolist() == [28.0] * 10
    assert shard.about["overflowed"] == 5


def test_a_flow_whose_draws_all_overflow_is_told(home, monkeypatch):
    draw = drawing("glow-fashionmnist", 1, 1)
    monkeypatch.setattr("oodbench.passes.shards.load_verified", lambda *_: Overflowing(1))
    with pytest.raises(ModelError, match="4 of 4 draws from glow-fashionmnist overflow"):
        draw.perform()


@pytest.mark.parametrize("prior", ["standard", "learned"])
def test_draws_lie_on_the_shell_until_they_are_rounded(prior):
    glow = small_glow(prior)
    images, norms = glow.sample_with_norm(300, generator=torch.Generator().manual_seed(1))
    assert torch.equal(images, glow.sample(300, generator=torch.Generator().manual_seed(1)))
    # χ of 64 dimensions has the mean 7.97 and the standard deviation 0.706
    assert norms.mean().item() == pytest.approx(7.97, abs=0.15)
    assert norms.std().item() == pytest.approx(0.706, rel=0.15)
    _, cooled = glow.sample_with_norm(300, 0.5, torch.Generator().manual_seed(1))
    # the same noise, half as long; what the flow's inverse loses in float32 is less than a thousandth
    assert torch.allclose(cooled, norms / 2, rtol=1e-3)
    with torch.no_grad():
        rounded = glow.log_prob_terms(images)["latent_norm"]
    assert not torch.allclose(rounded, norms, rtol=1e-3)


def small_glow(prior):
    """A Glow whose ActNorm fits images and whose weights are not those of the identity."""
    torch.manual_seed(0)
    glow = Glow((1, 8, 8), 2, 2, hidden=4, prior=prior)
    glow.loss(torch.randint(0, 256, (64, 1, 8, 8)))
    with torch.no_grad():
        for parameter in glow.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return glow.eval()


def test_how_many_are_drawn_follows_what_a_draw_costs_and_how_much_is_here(tmp_path, monkeypatch):
    given = {
        "models": ["glow-fashionmnist", "pixelcnn-fashionmnist", "vae-fashionmnist"],
        "limit": None,
        "analysis": Analysis(gray=(), probes=4),
        "pairs": [Pair(in_dist="fashionmnist", ood=["mnist"])],
    }

    def drawn():
        subjects = make_plan(suite(**given)).subjects
        return {
            one.model.name: {at: images.n for at, images in one.drawn.items()} for one in subjects
        }

    few = {
        "glow-fashionmnist": {1: 48},
        "pixelcnn-fashionmnist": {1: 16},
        "vae-fashionmnist": {1: 48},
    }
    assert drawn() == few
    images = ob.load_images("fashionmnist/test").images[:, 0]
    np.savez(tmp_path / "fashionmnist_test.npz", images=np.concatenate([images] * 5))
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("OODBENCH_HOME", str(tmp_path / "home"))
    forget()
    flow = dict.fromkeys((1, 0.3, 0.5, 0.7, 0.85), 200)
    many = {
        "glow-fashionmnist": flow,
        "pixelcnn-fashionmnist": {1: 16},
        "vae-fashionmnist": {1: 200},
    }
    assert drawn() == many
    given["limit"] = 100
    assert drawn() == few
    forget()


# training images


def test_training_images_are_those_of_the_package_where_no_training_set_is_here():
    plan = make_plan(suite(limit=None, analysis=Analysis(gray=(), samples=0, probes=4)))
    (subject,) = plan.subjects
    assert subject.train.identifier == "fashionmnist/train[100 drawn]"
    assert subject.density[subject.train].images is subject.train


def test_a_second_test_set_has_a_likelihood_and_no_trial(home, tmp_path):
    pairs = [Pair(in_dist="fashionmnist", ood=["constant"], also_test=["mnist", "kmnist"])]
    run_suite(suite(pairs=pairs), Options(), tmp_path)
    rows = [row for row in read_rows(tmp_path / "rows.jsonl") if row["status"] != "skipped"]
    assert {row["ood_name"] for row in rows} == {"constant"}
    (skip,) = (row for row in read_rows(tmp_path / "rows.jsonl") if row["status"] == "skipped")
    assert skip["reason"].startswith("kmnist/test is not on this machine")
    found = {
        row["role"]: row
        for row in read_rows(tmp_path / "analysis.jsonl")
        if row["kind"] == "likelihood"
    }
    assert found["second test"]["images"].startswith("mnist/test")
    section = likelihoods.section(AnalysisRows(read_results(tmp_path)))
    (line,) = section.tables[1][1]
    gap = found["second test"]["log_prob"][0] - found["test"]["log_prob"][0]
    assert line[-1].startswith(f"{gap:+,.0f} ±")
    assert not any("mnist" in cell for cell in section.tables[0][1][0][2:3])


# the run


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A results folder with analysis rows."""
    folder = tmp_path_factory.mktemp("published")
    run_suite(suite(), Options(), folder)
    return folder


def test_analysis_rows_are_the_columns_means(published):
    rows = read_rows(published / "analysis.jsonl")
    # no scorer of this suite reads the members of an ensemble
    kinds = {"likelihood", "graying", "second-order", "samples", "training", "flow"}
    assert {row["kind"] for row in rows} == kinds
    assert {row["status"] for row in rows} == {"ok"}
    glow = ob.load_model("glow-fashionmnist")
    columns = ob.measure(
        glow,
        ob.load_images("mnist/test[first 2000][30 drawn]"),
        "log_prob",
        "latent_term",
    )
    found = next(
        row
        for row in rows
        if row["kind"] == "likelihood" and row["images"] == "mnist/test[first 2000][30 drawn]"
    )
    assert found["log_prob"][0] == pytest.approx(columns["log_prob"].mean(), rel=1e-6)
    assert found["latent_term"][0] == pytest.approx(columns["latent_term"].mean(), rel=1e-5)
    terms = (found[name][0] for name in ("latent_term", "prior_volume", "log_det"))
    constant = 392 * math.log(2 * math.pi)
    assert sum(terms) - constant == pytest.approx(found["log_prob"][0], abs=1e-5)
    gray = next(row for row in rows if row["kind"] == "graying" and row["role"] == "test")
    images = ob.load_images("fashionmnist/test[:20]")
    own = ob.measure(glow, images, "log_prob")["log_prob"]
    for field in ("curve", "own_mean_curve"):
        assert gray[field][-1][:2] == [
            100,
            pytest.approx(bits_per_dim(own, glow.shape).mean(), rel=1e-5),
        ]
    half = ob.measure(glow, images.through("shrink50"), "log_prob")["log_prob"]
    change = next(point for point in gray["own_mean_change"] if point[0] == 50)
    assert change[1] == pytest.approx((half - own).mean(), rel=1e-4)
    assert change[2] == pytest.approx((half - own).std(ddof=1) / math.sqrt(20), rel=1e-4)


def test_the_second_run_draws_all_figures_without_a_pass(published, monkeypatch):
    before = {path.name: path.read_bytes() for path in (published / "figures").iterdir()}
    for path in (published / "figures").iterdir():
        path.unlink()
    performed = []
    for kind in (ShardTask, DrawTask, AnalysisTask, TrialTask, ComparisonTask):
        monkeypatch.setattr(kind, "perform", performed.append)
    run_suite(suite(), Options(), published)
    assert performed == []
    assert {path.name: path.read_bytes() for path in (published / "figures").iterdir()} == before


def test_every_figure_is_there_in_both_forms_with_a_caption(published):
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
    assert all(
        "seed 0" in one.caption and "[30 drawn]" in one.caption
        for one in found
        if one.kind in ("likelihoods", "roc")
    )


def test_the_page_is_self_contained_and_its_twin_says_the_same(published):
    page, twin = (published / "report.html").read_text(), (published / "report.md").read_text()
    assert not re.search(r'(src|href)="https?:', re.sub(r'xmlns[:\w]*="[^"]*"', "", page))
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert "currentColor" in page
    titles = re.findall(r"^## (.*)$", twin, re.M)
    assert titles == re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert len(re.findall("<figure[ >]", page)) == twin.count("![") == page.count('role="img"')


def test_the_shares_of_the_gap_add_up(published):
    ((_, lines),) = decomposition.section(AnalysisRows(read_results(published))).tables
    assert len(lines) == 1  # synthetic sets stand apart
    numbers = [float(re.match(r"[+-][\d.]+", cell)[0]) for cell in lines[0][3:]]
    assert numbers[0] == pytest.approx(sum(numbers[1:]), abs=0.3)


def test_a_failed_pass_is_a_failed_row(home, tmp_path, monkeypatch):
    def broken(task):
        raise ValueError("the disk is on fire")

    monkeypatch.setattr(ShardTask, "perform", broken)
    run_suite(suite(), Options(), tmp_path)
    rows = [row for row in read_rows(tmp_path / "analysis.jsonl") if row["kind"] != "training"]
    assert all(row["status"] == "failed" and "on fire" in row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (lambda self, n: None, "TypeError"),
        (
            lambda self, n, generator: torch.zeros(n, 1, 28, 28),
            "gave float32 (4, 1, 28, 28), not uint8 (4, 1, 28, 28)",
        ),
    ],
)
def test_a_model_that_cannot_be_drawn_from_is_a_failed_row_alone(home, tmp_path, sample, reason):
    from oodbench.registry import models, register_model
    from oodbench.testing import UniformModel

    register_model("odd")(
        type("Odd", (UniformModel,), {"sample": sample, "trained_on": "fashionmnist"})
    )
    try:
        run_suite(suite(models=["odd"]), Options(), tmp_path)
    finally:
        models._entries.pop("odd")
    rows = read_rows(tmp_path / "analysis.jsonl")
    failed = [row for row in rows if row["status"] == "failed"]
    assert {(row["kind"], row["role"]) for row in failed} == {
        ("likelihood", "samples"),
        ("samples", "samples"),
    }
    assert reason in failed[0]["reason"]
    told = f"FAILED: likelihood of odd on samples: {failed[0]['reason']}"
    assert told.replace("<", r"\<") in (tmp_path / "report.md").read_text()
    assert len(rows) > 4


def test_only_keeps_the_other_analysis_rows(home, tmp_path):
    run_suite(suite(), Options(), tmp_path)
    before = (tmp_path / "analysis.jsonl").read_bytes()
    for restriction in ("mnist", "likelihood"):  # the second alone brings no reference images
        run_suite(suite(), Options(), tmp_path, only=[restriction])
        assert (tmp_path / "analysis.jsonl").read_bytes() == before


def test_the_trainings_of_an_ensemble_stand_with_its_model(published):
    rows = [row for row in read_rows(published / "analysis.jsonl") if row["kind"] == "training"]
    members = describe("glow-fashionmnist").ensemble
    assert {row["model"] for row in rows if row["role"] == "member"} == set(members)
    assert all(f"| {name} " in (published / "report.md").read_text() for name in members)


def test_a_suite_without_analysis_has_no_report(home, tmp_path):
    run_suite(suite(analysis=None), Options(), tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert not (tmp_path / "analysis.jsonl").exists()


def test_published_numbers_stand_beside_ours(published):
    section = reproduction(read_results(published))
    (heads, lines), (kinds, tally), *_, (notes, where) = section.tables
    found = [
        dict(zip(notes, note)) | dict(zip(heads, line))
        for line, note in zip(lines, where, strict=True)
    ]
    abstract = next(one for one in found if one["theirs"] == "< 0.5")
    assert abstract["verdict"] == "agrees"
    assert abstract["known differences"].startswith("here ")
    inequalities = dict(zip(kinds, next(line for line in tally if line[0] == "inequalities")))
    assert inequalities["agrees"] == "1"
    assert "Published, and measured again" in (published / "report.md").read_text()
