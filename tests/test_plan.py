"""The plan: passes are shared, every skip has its reason, unknown names are errors."""

from __future__ import annotations

import numpy as np
import pytest

from oodbench.errors import UnknownNameError
from oodbench.passes.shards import open_images
from oodbench.plan import make_plan
from oodbench.suite import Pair, Suite, load_suite
from oodbench.zoo.describe import describe
from oodbench.zoo.families import family
from oodbench.zoo.importers import Imported, write_card


def suite(**changes):
    given = {
        "name": "t", "title": "t", "models": ["glow-fashionmnist"], "limit": 20,
        "pairs": [Pair(in_dist="fashionmnist", ood=["mnist"])], "scorers": ["likelihood"],
    }  # fmt: skip
    return Suite(**{**given, **changes})


def test_scorers_share_passes():
    one = make_plan(suite())
    many = make_plan(
        suite(
            scorers=["likelihood", "typicality", "input-complexity-png"],
            group_sizes={"typicality": [2, 5]},
        )
    )
    assert len(one.trials) == 1
    assert len(one.passes) == 2  # the model on each set
    assert len(many.trials) == 5
    assert len(many.passes) == 2 + 1 + 2  # ref for typicality, code lengths of both sets


def test_passes_grow_with_sets_not_with_pairs():
    plan = make_plan(
        suite(pairs=[Pair(in_dist="fashionmnist", ood=["mnist", "noise", "constant"])])
    )
    assert len(plan.passes) == 4


def reasons(plan):
    return [skip.reason for skip in plan.skips]


def test_skips_are_sentences():
    pairs = [
        Pair(in_dist="mnist", ood=["fashionmnist"]),
        Pair(in_dist="fashionmnist", ood=["kmnist", "fashionmnist"]),
    ]
    found = reasons(make_plan(suite(pairs=pairs)))
    assert found[0] == "no model of the suite 't' is trained on mnist"
    assert "kmnist/test is not on this machine; to get it: `oodbench data fetch kmnist`" in found[1]
    assert (
        found[2]
        == "fashionmnist/test[first 2000][20 drawn] holds the same images as the in-dist set"
    )


def test_a_model_without_background_skips_the_ratio():
    plan = make_plan(
        suite(models=["glow-fashionmnist-background"], scorers=["likelihood", "likelihood-ratio"])
    )
    assert len(plan.trials) == 1
    assert reasons(plan) == [
        "glow-fashionmnist-background has no background model, which background_log_prob asks for"
    ]


def test_untrained_models_are_skipped_with_the_command(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "card.yaml").write_text(
        "name: fresh\nfamily: glow\nconfig: {shape: [1, 28, 28], scales: 2, steps: 1, hidden: 4}\n"
        "trained_on: fashionmnist\nlikelihood: uniform dequantisation, one draw\n"
    )
    assert reasons(make_plan(suite(models=[str(tmp_path / "m")]))) == [
        f"fresh has no weights; make them: `oodbench train {tmp_path}/m --out {tmp_path}/m`"
    ]


def test_a_card_s_own_view_takes_the_place_of_the_rule(tmp_path):
    config = {"shape": [1, 32, 32], "width": 2, "latent": 3}
    tensors = family("dcgan-vae").build(**config).state_dict()
    imported = Imported("dcgan-vae", config, "importance-weighted bound", tensors)
    write_card(imported, tmp_path / "xiao", "xiao", "fashionmnist", "resize32-bilinear-aa", {})
    pairs = [Pair(in_dist="fashionmnist", ood=["mnist", "noise", "mnist@pad32"])]
    trials = make_plan(suite(models=[str(tmp_path / "xiao")], pairs=pairs)).trials
    drawn = "[first 2000][20 drawn]"
    assert {trial.test.identifier for trial in trials} == {
        f"fashionmnist/test{drawn}@resize32-bilinear-aa"
    }
    assert [trial.ood.identifier for trial in trials] == [
        f"mnist/test{drawn}@resize32-bilinear-aa",
        "noise/test[20 drawn]",
        f"mnist/test{drawn}@pad32",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"models": ["glow-fashionmnst"]},
            "no model is called 'glow-fashionmnst'; did you mean 'glow-fashionmnist'",
        ),
        (
            {"scorers": ["typicallity"]},
            "no scorer is called 'typicallity'; did you mean 'typicality'",
        ),
        ({"group_sizes": {"typical": [2]}}, "no scorer is called 'typical'"),
        (
            {"pairs": [Pair(in_dist="fashionmnist", ood=["minst"])]},
            "no image set is called 'minst'; did you mean 'mnist'",
        ),
    ],
)
def test_unknown_names_are_errors(changes, message):
    with pytest.raises(UnknownNameError, match=message):
        make_plan(suite(**changes))


def test_only_restricts_and_is_checked():
    paper = load_suite("paper")
    plan = make_plan(paper, ["svhn", "likelihood"])
    of_cifar10 = {name for name in paper.models if describe(name).trained_on == "cifar10"}
    assert {(trial.model.name, trial.scorer.name) for trial in plan.trials} == {
        (name, "likelihood") for name in of_cifar10
    }
    both = make_plan(paper, ["glow-cifar10", "likelihood", "pixel-mean"])
    assert {(trial.model.name, trial.scorer.name) for trial in both.trials} == {
        ("glow-cifar10", "likelihood"),
        ("glow-cifar10", "pixel-mean"),
    }
    with pytest.raises(UnknownNameError, match="did you mean 'svhn'"):
        make_plan(paper, ["svnh"])


def test_shared_images_are_counted(tmp_path, home):
    from oodbench.passes.values import ImageRef
    from oodbench.trials.rows import shared_images

    mnist = open_images(ImageRef("mnist/test", (1, 28, 28), 20)).images
    fashion = open_images(ImageRef("fashionmnist/test", (1, 28, 28), 20)).images
    np.save(tmp_path / "mixed.npy", np.concatenate([fashion[:3], mnist]))
    mixed = ImageRef(str(tmp_path / "mixed.npy"), (1, 28, 28))
    own = ImageRef("fashionmnist/test", (1, 28, 28), 20)
    assert shared_images(own, "a", mixed, "b") == 3
    np.save(tmp_path / "doubled.npy", np.concatenate([mnist[:1]] * 5))
    assert shared_images(ImageRef(str(tmp_path / "doubled.npy"), (1, 28, 28)), "c", mixed, "b") == 5


def test_what_a_model_cannot_give_is_a_skip_with_a_sentence():
    names = [
        "likelihood",
        "dose-kde",
        "vae-kl",
        "hvae-ratio-1",
        "msma-gmm",
        "likelihood-regret",
        "general-ratio",
    ]
    plan = make_plan(suite(models=["pixelcnn-fashionmnist"], scorers=names))
    assert [trial.scorer.name for trial in plan.trials] == ["likelihood"]
    assert reasons(plan) == [
        "pixelcnn-fashionmnist has no `encode`, which latent_term asks for",
        "pixelcnn-fashionmnist has no `posterior`, which kl asks for",
        "pixelcnn-fashionmnist has no `log_prob_above`, which elbo asks for",
        "pixelcnn-fashionmnist has no `score`, which score_norms_by_width asks for",
        "pixelcnn-fashionmnist has no `posterior`, which likelihood_regret asks for",
        "pixelcnn-fashionmnist has no general model, which general_log_prob asks for",
    ]


def test_a_codec_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    plan = make_plan(suite(scorers=["likelihood", "input-complexity-jxl"]))
    assert reasons(plan) == [
        "code_length_jxl needs the package imagecodecs: `pip install 'oodbench[codecs]'`"
    ]


def test_prepared_statistics_know_their_reference_images():
    plan = make_plan(suite(scorers=["gradient-norm"]))
    own = [p for p in plan.passes if p.name.startswith("parameter_gradients")]
    assert {p.prepared_on.identifier for p in own} == {"fashionmnist/ref[first 1000][20 drawn]"}
    assert all(p.prepared_on is None for p in plan.passes if p not in own)
