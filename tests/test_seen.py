"""What a scorer has seen: models, training images, validation sets. What no author declares is derived."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_net import write_card

import oodbench as ob
from oodbench import cli
from oodbench.data import training
from oodbench.data.identifiers import parse_identifier
from oodbench.data.training import training_images
from oodbench.errors import ScorerError, SuiteError
from oodbench.passes.values import ImageRef, Images
from oodbench.registry import load_plugin, register_scorer, scorers, statistics
from oodbench.report.matrix import matrix_page
from oodbench.report.results import Results
from oodbench.report.tables import short
from oodbench.resolver import Resolver, read_by, same_pictures, seen_by
from oodbench.runner import Options, run_suite
from oodbench.screen import leaderboard
from oodbench.store import is_ranked, read_rows
from oodbench.suite import Suite, load_suite, named, suite_names
from oodbench.testing import check_scorer
from oodbench.trials.recount import score_faults
from oodbench.types import split_need


@pytest.fixture(autouse=True)
def _scorers_of_one_test():
    len(scorers)
    before = dict(scorers._entries), dict(scorers._sources)
    yield
    scorers._entries, scorers._sources = before


# --- a baseline is what needs no model, whatever its author says


@pytest.mark.parametrize("said", [None, False, True])
def test_a_scorer_of_pixel_numbers_alone_is_a_baseline(said):
    register_scorer("sizes", baseline=said)(lambda pixel_mean, code_length_png: pixel_mean)
    assert ob.scorer("sizes").baseline


@pytest.mark.parametrize("said", [None, False, True])
def test_a_scorer_that_reads_a_model_is_no_baseline(said):
    class Fitted:
        def fit(self, log_prob):
            return log_prob.mean()

        def score(self, mean, pixel_mean):
            return pixel_mean

    register_scorer("fits", baseline=said)(Fitted)
    register_scorer("reads", baseline=said)(lambda pixel_mean, background_log_prob: pixel_mean)
    assert not ob.scorer("fits").baseline
    assert not ob.scorer("reads").baseline


def test_every_shipped_baseline_is_one_by_its_needs():
    for scorer in scorers.values():
        free = [statistics[split_need(need)[0]].model_free for need in scorer.all_needs]
        assert scorer.baseline is all(free)
        assert scorer.said_baseline is None
    assert {"code-length-png", "pixel-mean"} <= {s.name for s in scorers.values() if s.baseline}


def test_check_says_where_an_author_is_wrong():
    register_scorer("sizes", baseline=False)(lambda pixel_mean: pixel_mean)
    register_scorer("reads", baseline=True)(lambda log_prob: -log_prob)
    (of_sizes,), (of_reads,) = (check_scorer(ob.scorer(name)) for name in ("sizes", "reads"))
    assert "nothing that it needs is a model's: it is ranked among the baselines" in of_sizes
    assert "log_prob is a model's: it is ranked among the scorers of models" in of_reads


def test_check_says_that_a_scorer_is_a_baseline(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import oodbench as ob\n@ob.register_scorer('bright')\ndef bright(pixel_mean): return pixel_mean\n"
        "@ob.register_scorer('dark')\ndef dark(log_prob): return -log_prob\n"
    )
    load_plugin(plugin)
    said = CliRunner().invoke(cli.main, ["check", str(plugin)])
    assert said.exit_code == 0, said.output
    passed = "all contract tests passed"
    assert said.output.splitlines() == [
        f"bright: {passed} (model-free: it is ranked among the baselines)",
        f"dark: {passed}",
    ]


# --- models that were trained on the OOD set


@pytest.mark.parametrize(
    ("trained_on", "ood", "same"),
    [
        ("svhn", "svhn/test[:500]", True),
        ("svhn", "svhn/train@resize28-box-aa,grey", True),
        ("svhn10k", "svhn", True),
        ("celeba5k", "celeba/test", True),
        ("celeba", "celeba5k", True),
        ("imagenet7k", "imagenet7k", True),
        ("imagenet7k", "cinic10-imagenet", True),
        ("imagenet32", "imagenet7k", True),
        ("imagenet64", "imagenet1000[:20]@pad32", True),
        ("imagenet7k", "cifar10", False),
        ("cifar10", "cifar100", False),
        ("mnist", "emnist-letters", False),
        ("fashionmnist", "fashionmnist/ref@invert", False),
        ("cifar10", "cifar10/ref@grey,rgb", False),
        ("fashionmnist/train@invert", "fashionmnist/test@pad32,invert,rgb", True),
        ("", "svhn", False),
        ("./mine", "././mine/test", True),
        ("./mine", "./yours/test", False),
    ],
)
def test_which_sets_have_the_same_pictures(trained_on, ood, same):
    assert same_pictures(trained_on, ood) is same
    assert same_pictures(ood, trained_on) is same


def test_the_real_case_is_seen_from_the_cards():
    """glow-cifar10's general model was trained on the part of ImageNet that `paper` judges it on."""
    resolver = Resolver(0, "cpu")
    model = resolver.model("glow-cifar10")
    oods = {
        name: Images(ImageRef(name, model.shape), name, name, "test", "", (), 1)
        for name in ("imagenet7k/test", "imagenet1000/test", "svhn/test", "cifar10/test")
    }
    seen = {
        scorer: {name: seen_by(read_by(ob.scorer(scorer), model).values(), ood) for name, ood in oods.items()}
        for scorer in ("likelihood", "general-ratio", "waic", "code-length-png")
    }  # fmt: skip
    general, own = ("glow-imagenet32",), ("glow-cifar10",)
    members = tuple(f"glow-small-cifar10-{k}" for k in range(1, 6))
    foreign = {"imagenet7k/test": (), "imagenet1000/test": (), "svhn/test": ()}
    by_general = {"imagenet7k/test": general, "imagenet1000/test": general, "svhn/test": ()}
    assert seen == {
        "likelihood": foreign | {"cifar10/test": own},
        "general-ratio": by_general | {"cifar10/test": own},
        "waic": foreign | {"cifar10/test": members},
        "code-length-png": foreign | {"cifar10/test": ()},
    }


READS = {
    "likelihood": {"net-glow"},
    "likelihood-ratio": {"net-glow", "net-background"},
    "general-ratio": {"net-glow", "net-glow-b"},
    "likelihood-ratio-tuned": {"net-glow", "net-background", "net-glow-b"},
    "pixel-mean": set(),
}
LEFT_OUT = [1, 4, 7]
"""Places in ``far`` of images that are among the training images."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three Glows on sets of noise: the model, its background and its general one; a folder for each run of them."""
    folder = tmp_path_factory.mktemp("seen")
    random = np.random.default_rng(3)
    sizes = {"near_train": 60, "near_test": 20, "far_test": 24, "third_test": 22, "other_test": 9}
    images = {
        name: random.integers(0, 150 + 12 * k, (n, 8, 8)).astype(np.uint8)
        for k, (name, n) in enumerate(sizes.items())
    }
    images["far_test"][LEFT_OUT] = images["near_train"][[0, 30, 59]]
    (folder / "data").mkdir()
    for name, own in images.items():
        np.savez(folder / "data" / f"{name}.npz", images=own)

    def run(name, changes=None, **trained_on):
        """The rows of a suite whose general model and background were trained on what is said."""
        here = folder / name
        here.mkdir()
        for card in ("net-background", "net-glow-b"):
            write_card(here, card, trained_on=trained_on.get(card.replace("-", "_"), "other"))
        relatives = {"background": "net-background", "general": "net-glow-b"}
        glow = write_card(here, "net-glow", backgrounds=["net-glow-b"], **relatives)
        suite = {
            "name": "seen", "title": "Seen", "models": [glow], "bootstrap": 0, "scorers": list(READS),
            "pairs": [{"in_dist": "near", "ood": ["far", "third"]}], "validation": {"near": "near/ref@invert"},
        }  # fmt: skip
        chosen = Suite.model_validate(suite | (changes or {}))
        return run_suite(chosen, Options(), here / "out")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_HOME", str(folder / "home"))
        patch.setenv("OODBENCH_DATA", str(folder / "data"))
        yield SimpleNamespace(folder=folder, images=images, run=run)


@pytest.fixture(scope="module")
def clean(world):
    """The rows of a suite in which no model has seen an OOD set."""
    return world.run("clean")


@pytest.fixture(scope="module")
def planted(world):
    """The same where the general model's card says that it was trained on ``far``."""
    return world.run("planted", net_glow_b="far")


def by_name(rows):
    return {(row["scorer"], row["ood"].split("/")[0]): row for row in rows}


def scorers_of(page):
    """The scorers of a page's first table in its order, and the cells of each by column."""
    lines = page[page.index("| scorer ") :].split("\n\n")[0].splitlines()
    heads, _, *cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return [line[0] for line in cells], {
        line[0]: dict(zip(heads[1:], line[1:], strict=True)) for line in cells
    }


def test_rows_say_what_each_model_was_trained_on(clean):
    assert len(clean) == 2 * len(READS)
    for row in clean:
        trained = {"net-glow": "near"}
        assert row["trained_on"] == {
            name: trained.get(name, "other") for name in READS[row["scorer"]]
        }
        assert row["seen"] == []
        assert is_ranked(row)


def test_a_planted_card_marks_the_cells_of_the_scorers_that_read_it_and_no_others(planted):
    for (scorer, ood), row in by_name(planted).items():
        told = ood == "far" and "net-glow-b" in READS[scorer]
        assert row["status"] == "ok"
        assert row["seen"] == (["net-glow-b"] if told else []), (scorer, ood)
        assert is_ranked(row) is not told


def test_a_marked_cell_is_shown_and_ranked_nowhere(world, planted):
    out = world.folder / "planted" / "out"
    row = by_name(planted)["general-ratio", "far"]
    shown = rf"{short(row['auroc'])} ±\.\d{{3}}( ▼)?( ‡)? §(\[\^\d+\])"
    for name in ("README.md", "near.md"):
        front = (out / name).read_text("utf-8")
        names, table = scorers_of(front)
        assert names.index("general-ratio") > names.index("likelihood-ratio")  # lacks a mean
        mark = re.fullmatch(shown, table["general-ratio"]["→ far"])[3]
        assert (
            f"{mark}: general-ratio reads net-glow-b, trained on far, whose images are those of far/test "
            "or of its kin: ranked nowhere" in front
        )
        assert "§" not in table["general-ratio"]["→ third"]
        assert "**" not in table["general-ratio"]["→ far"]  # the best of those that are ranked
        assert table["likelihood"]["→ far"].startswith("**")
        assert "best mean: **likelihood**" in front.replace("Best", "best")
    front = (out / "README.md").read_text("utf-8")
    assert "**Best over all: likelihood**" in front
    compared = {row["ood"]: row["scorers"] for row in read_rows(out / "comparisons.jsonl")}
    assert "general-ratio" not in compared["far/test"]
    assert "general-ratio" in compared["third/test"]
    page = (out / "comparison.md").read_text("utf-8")
    assert "general-ratio" not in page.split("## Ranks")[1].split("## ")[0]
    matrix = (out / "matrix.md").read_text("utf-8").split("## general-ratio")[1].split("##")[0]
    assert f"| {short(row['auroc'])} § |" in matrix
    assert matrix.count("§") == 1
    heads, lines = leaderboard(planted)
    on_screen = {cells[0]: cells for cells in lines}["general-ratio"]
    assert on_screen[heads.index("mean")] == ""
    assert on_screen[heads.index("→ far/test")].endswith(" §")
    assert not on_screen[heads.index("→ third/test")].endswith("§")


def test_without_the_card_the_same_scorer_is_ranked(world, clean):
    front = (world.folder / "clean" / "out" / "README.md").read_text("utf-8")
    names, table = scorers_of(front)
    assert names[0] == "general-ratio"
    assert table["general-ratio"]["→ far"].startswith("**")
    assert "**Best over all: general-ratio**" in front
    assert "§" not in front


def test_both_directions_of_the_matrix_leave_a_marked_cell_out():
    common = {
        "model": "m",
        "seed": 0,
        "group_size": 1,
        "synthetic": False,
        "status": "ok",
        "scorer": "s",
        "baseline": False,
        "tunes_on": "none",
        "schema": 3,
    }
    there = common | {"in_dist": "a/test", "in_dist_name": "a", "ood": "b/test", "auroc": 0.9}
    back = common | {
        "in_dist": "b/test",
        "in_dist_name": "b",
        "ood": "a/test",
        "auroc": 0.8,
        "model": "n",
    }
    marked = back | {"model": "o", "auroc": 0.99, "seen": ["g"], "trained_on": {"g": "a"}}
    page = matrix_page(Results(Path(), [there, back, marked]))
    assert "a → b 0.900, b → a 0.800: lowest 0.800" in page
    assert ".990 §" in page


def test_a_marked_cell_moves_no_scorer_in_the_matrix():
    common = {
        "model": "m",
        "seed": 0,
        "group_size": 1,
        "synthetic": False,
        "status": "ok",
        "schema": 3,
    }
    common |= {"in_dist": "a/test", "in_dist_name": "a", "baseline": False, "tunes_on": "none"}
    found = {("honest", "b"): 0.6, ("honest", "c"): 0.6, ("seeing", "c"): 0.5}
    rows = [
        common | {"scorer": scorer, "ood": f"{ood}/test", "auroc": auroc}
        for (scorer, ood), auroc in found.items()
    ]
    told = {"seen": ["g"], "trained_on": {"g": "b"}}
    rows += [
        common | told | {"scorer": name, "ood": "b/test", "auroc": 0.99}
        for name in ("seeing", "all-seeing")
    ]
    page = matrix_page(Results(Path(), rows))
    assert re.findall(r"^## (.*)$", page, re.M) == ["honest", "seeing", "all-seeing"]


# --- images that a model was trained on


def test_training_images_are_left_out_of_every_row_of_the_pair(world, clean):
    kept = np.delete(np.arange(24), LEFT_OUT)
    dark = {name: own.mean((1, 2)) / 255 for name, own in world.images.items()}
    for (_, ood), row in by_name(clean).items():
        assert row["left_out"] == (3 if ood == "far" else 0)
        # of the set of the background and the general model there is no `train`
        assert row["left_out_checked"] == {"near": "all", "other": "none"}
        assert row["n_ood"] == (21 if ood == "far" else 22)
    row = by_name(clean)["pixel-mean", "far"]
    assert row["auroc"] == ob.auroc(dark["near_test"], dark["far_test"][kept]).value
    table = ob.scores(world.folder / "clean" / "out", scorer="pixel-mean", ood="far")
    of_ood = table[table.side == "ood"]
    assert of_ood.image.tolist() == kept.tolist()
    assert of_ood.score.to_numpy() == pytest.approx(dark["far_test"][kept], rel=1e-12)
    page = (world.folder / "clean" / "out" / "near-details.md").read_text("utf-8")
    assert "3 images of far/test are left out: they are among the training images of near" in page
    assert "among the training images of other, since none of these are on the machine" in page


def test_bits_per_dim_are_of_the_images_that_are_judged(world, clean):
    model = ob.load_model(str(world.folder / "clean" / "net-glow"))
    kept = np.delete(world.images["far_test"], LEFT_OUT, 0)[:, None]
    with torch.no_grad():
        log_prob = model.log_prob(torch.from_numpy(kept)).numpy()
    bits = -log_prob.mean() / (64 * math.log(2))
    assert by_name(clean)["likelihood", "far"]["ood_bits_per_dim"] == pytest.approx(bits, rel=1e-6)


def test_scores_that_are_stored_give_the_rows_again(world, clean):
    assert score_faults(world.folder / "clean" / "out") == []


def test_a_set_that_only_training_images_make_up_is_a_skip(world):
    np.savez(world.folder / "data" / "copied_test.npz", images=world.images["near_train"][:9])
    pairs = [{"in_dist": "near", "ood": ["copied"]}]
    rows = world.run("copied", {"pairs": pairs, "scorers": ["likelihood"]})
    (row,) = rows
    assert row["status"] == "skipped"
    assert "9 of the 9 images of copied/test are left out" in row["reason"]


def test_digests_of_training_images_are_kept(world, monkeypatch):
    """Of a set of the catalog the images are not opened again."""
    data = world.folder / "data"
    np.savez(data / "usps_train.npz", images=world.images["near_train"])
    seen = parse_identifier("usps")
    first = training_images(seen, (1, 8, 8))
    assert len(first.digests) == 60
    assert first.here == "some"  # of 7,291
    monkeypatch.setattr(training, "read_images", None)
    assert training_images(seen, (1, 8, 8)) == first
    monkeypatch.undo()
    monkeypatch.setenv("OODBENCH_DATA", str(data))
    monkeypatch.setenv("OODBENCH_HOME", str(world.folder / "home"))
    np.savez(data / "usps_train.npz", images=world.images["near_train"][:50])
    assert len(training_images(seen, (1, 8, 8)).digests) == 50
    assert training_images(parse_identifier("kmnist"), (1, 28, 28)) == (set(), "none")


# --- scorers that tune on validation OOD images


def log_prob_of(world, name, images):
    model = ob.load_model(str(world.folder / "clean" / name))
    return model.log_prob(torch.from_numpy(images)).numpy()


def expected_choice(world):
    """The background with the larger AUROC on inverted reference images, by counting."""
    order = np.argsort(np.random.Philox(key=181009136).random_raw(60), kind="stable")
    ref = world.images["near_train"][order[:6]][:, None]
    of_sides = []
    for side in (ref, 255 - ref):
        models = ("net-glow", "net-background", "net-glow-b")
        with torch.no_grad():
            logs = {name: log_prob_of(world, name, side) for name in models}
        of_sides.append([logs[b] - logs["net-glow"] for b in models[1:]])
    aurocs = [np.mean(o[:, None] > i) for i, o in zip(*of_sides, strict=True)]
    return ("net-background", "net-glow-b")[int(np.argmax(aurocs))]


def test_a_row_says_what_its_scorer_chose_on_what_and_from_what(world, clean):
    rows = by_name(clean)
    for ood in ("far", "third"):
        row = rows["likelihood-ratio-tuned", ood]
        assert row["tunes_on"] == "validation OOD"
        assert row["tuned"] == {
            "in_dist": "near/ref",
            "on": "near/ref@invert",
            "from": {"background": ["net-background", "net-glow-b"]},
            "choice": {"background": expected_choice(world)},
        }
        assert row["ref"] == "near/ref"
        assert row["ref_division"] == "all of ref tunes"
        assert row["inputs"]["images"].keys() == {"in_dist", "ood", "ref", "validation"}
        assert row["inputs"]["models"].keys() == READS["likelihood-ratio-tuned"]
    others = (row for row in clean if row["scorer"] != "likelihood-ratio-tuned")
    assert all(row["tuned"] is None for row in others)
    if expected_choice(world) == "net-background":
        for ood in ("far", "third"):
            tuned, plain = (rows[f"likelihood-ratio{end}", ood] for end in ("-tuned", ""))
            assert tuned["auroc"] == plain["auroc"]


def test_rows_that_tuned_are_ranked_apart(world, clean):
    out = world.folder / "clean" / "out"
    front, own = ((out / name).read_text("utf-8") for name in ("README.md", "near.md"))
    assert "likelihood-ratio-tuned" not in front
    names, table = scorers_of(own)
    tuned = "likelihood-ratio-tuned (tuned)"
    assert names[-2:] == [tuned, "*pixel-mean* (model-free)"]
    assert "**" not in "".join(table[tuned].values())
    marks = {cell[cell.rindex("[^") :] for cell in table[tuned].values()}
    (mark,) = marks  # the choice is one over both pairs
    choice = "likelihood-ratio-tuned with net-glow chose on near/ref against near/ref@invert: background ="
    assert f"{mark}: {choice}" in own
    for row in read_rows(out / "comparisons.jsonl"):
        assert row["tuned"] == ["likelihood-ratio-tuned"]
        assert "likelihood-ratio-tuned" in row["scorers"]
    page = (out / "comparison.md").read_text("utf-8")
    best = page.split("## What a scorer measures")[0]
    assert "likelihood-ratio-tuned" not in best
    lines = [cells[0] for cells in leaderboard(clean)[1]]
    assert lines[-2:] == ["likelihood-ratio-tuned †", "pixel-mean *"]


GRID = {"weight": (0.0, 0.5, 2.0)}


class Weighted:
    """Chooses a weight, after it was fitted."""

    def fit(self, log_prob):
        return log_prob.mean()

    def tune(self, mean, in_dist, validation):
        assert in_dist.keys() == validation.keys() == {"log_prob", "pixel_mean"}
        gap = validation["pixel_mean"].mean() - in_dist["pixel_mean"].mean()
        return {"weight": 2.0 if gap > 0 else 0.5}

    def score(self, mean, tuned, log_prob, pixel_mean):
        return abs(log_prob - mean) + tuned["weight"] * pixel_mean


def columns(shift):
    random = np.random.default_rng(5)
    return {"log_prob": random.normal(-900, 5, 30), "pixel_mean": random.uniform(size=30) + shift}


def test_a_scorer_may_fit_and_then_tune():
    register_scorer("weighted", grid=GRID)(Weighted)
    scorer, ref, dark, bright = ob.scorer("weighted"), columns(0), columns(-0.2), columns(0.2)
    assert scorer.tunes_on == "validation OOD"
    for validation, weight in ((dark, 0.5), (bright, 2.0)):
        score = scorer.fitted(ref, validation)
        expected = abs(ref["log_prob"] - ref["log_prob"].mean()) + weight * ref["pixel_mean"]
        assert score(ref) == pytest.approx(expected, rel=1e-12)
    assert check_scorer(scorer) == []
    with pytest.raises(ScorerError, match="tunes on validation OOD images, and there are none"):
        scorer.fitted(ref)


def of_order(self, in_dist, validation):
    return {"weight": 0.5 if in_dist["log_prob"][0] > in_dist["log_prob"][-1] else 2.0}


def outside(self, in_dist, validation):
    return {"weight": 0.7}


def nothing(self, in_dist, validation):
    return None


@pytest.mark.parametrize(
    ("tune", "sentence"),
    [
        (of_order, "what it tunes to depends on the order of the images"),
        (
            outside,
            "tunes to {'weight': 0.7}, which is not of its grid, {'weight': [0.0, 0.5, 2.0]}",
        ),
        (nothing, "tunes to None, which is not of its grid"),
    ],
)
def test_check_tells_what_is_wrong_with_tuning(tune, sentence):
    score = lambda self, tuned, log_prob: tuned["weight"] * log_prob  # noqa: E731
    register_scorer("tuner", grid=GRID)(type("Tuner", (), {"tune": tune, "score": score}))
    assert any(sentence in fault for fault in check_scorer(ob.scorer("tuner")))


def plain(self, tuned, log_prob):
    return log_prob


@pytest.mark.parametrize(
    ("options", "tune", "sentence"),
    [
        ({}, outside, "say what from, grid="),
        ({"grid": GRID}, None, "no method `tune`"),
        (
            {"grid": GRID},
            lambda self, in_dist: {},
            "must take columns of in-dist and of validation",
        ),
        ({"grid": GRID, "tunes_on": "none"}, outside, "it tunes on validation OOD, not on none"),
        (
            {"grid": {"weight": 3}},
            outside,
            "must give a list of numbers or texts for 'weight', not 3",
        ),
        ({"grid": {"b": "backgrounds"}}, outside, "chooses a background, and needs no statistic"),
    ],
)
def test_what_cannot_be_a_tuning_scorer_is_refused(options, tune, sentence):
    methods = {"score": plain if tune else lambda self, log_prob: log_prob}
    methods |= {"tune": tune} if tune else {}
    with pytest.raises(ScorerError, match=sentence):
        register_scorer("refused", **options)(type("Refused", (), methods))


@pytest.mark.parametrize(
    ("validation", "sentence"),
    [
        ({"near": "far/test"}, "far/test is, or is another split of, far, on which scorers are judged"),
        ({"near": "far/ref"}, "is, or is another split of, far"),
        ({"near": "near/ref"}, "are images of the in-dist set near itself"),
        ({"neer": "near/ref@invert"}, "'neer' is the in-dist set of no pair of this suite; did you mean 'near'"),
        ({"near": "copy"}, "copy/test shares 24 images with far/test, on which scorers are judged"),
    ],
)  # fmt: skip
def test_validation_images_that_are_judged_on_are_refused(world, validation, sentence, request):
    np.savez(world.folder / "data" / "copy_test.npz", images=world.images["far_test"])
    name = f"refused{request.node.callspec.indices}".replace(" ", "")
    with pytest.raises(SuiteError, match=re.escape(sentence)):
        world.run(re.sub(r"\W", "", name), {"validation": validation})


def test_without_validation_images_a_scorer_that_tunes_is_a_skip(world):
    scorers = {
        "scorers": ["likelihood-ratio-tuned"],
        "pairs": [{"in_dist": "near", "ood": ["far"]}],
    }
    (row,) = world.run("unnamed", scorers | {"validation": {}})
    assert row["status"] == "skipped"
    assert "of which the suite names none for near" in row["reason"]
    (row,) = world.run("absent", scorers | {"validation": {"near": "kmnist"}})
    assert row["reason"].startswith("kmnist/test is not on this machine")


def test_shipped_suites_tune_on_sets_that_they_judge_nothing_on():
    for name in suite_names():
        suite = load_suite(name)
        oods = [entry for pair in suite.pairs for _, entry in map(named, pair.ood)]
        judged = [(one, ood) for one in suite.validation.values() for ood in oods]
        assert not any(same_pictures(*each) for each in judged)
    known = {in_dist for name in suite_names() for in_dist in load_suite(name).validation}
    assert known == {"fashionmnist", "cifar10"}


def test_a_detector_without_validation_images_says_so():
    detector = ob.OutlierDetector("glow-fashionmnist", "likelihood-ratio-tuned")
    with pytest.raises(ScorerError, match="tunes on validation OOD images"):
        detector.fit(np.zeros((4, 1, 28, 28), np.uint8))
