"""Reference rows with labels: the classes of images, the classifier, its scorers, and where its rows stand."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import struct
import tarfile

import numpy as np
import pytest
import torch
from test_layouts import idx, put, with_md5

import oodbench as ob
from oodbench.analysis.tasks import analysis_tasks
from oodbench.data.catalog import data_card
from oodbench.data.labels import load_labels
from oodbench.data.layouts import layout_source
from oodbench.errors import DataError, ModelError
from oodbench.models.classifier import Classifier
from oodbench.passes.shards import forget
from oodbench.plan import make_plan
from oodbench.report.means import mean_in
from oodbench.runner import Options, run_suite
from oodbench.screen import leaderboard
from oodbench.store import read_rows, standing
from oodbench.suite import suite_of
from oodbench.testing import check_named, check_scorer
from oodbench.zoo.cards import load_card
from oodbench.zoo.train import train

SCORERS = ("msp", "energy", "mahalanobis-features", "knn-features")
CARD = """\
name: tiny
family: classifier
config: {shape: [1, 28, 28], classes: 2, width: 4, features: 8}
trained_on: fashionmnist
likelihood: none
recipe: {seed: 0, steps: 40, batch_size: 32, learning_rate: 1e-2, validate_every: 20 MORE}
"""


# --- classes beside images


@pytest.fixture
def labelled(tmp_path, home, monkeypatch):
    """A folder that stands for FashionMNIST's training images: digits, every third one dark on bright."""
    images = np.array(ob.load_images("mnist/test").images[:, 0])
    labels = (np.arange(len(images)) % 3 == 0).astype(np.int16)
    images[labels == 1] = 255 - images[labels == 1]
    folder = tmp_path / "data"
    folder.mkdir()
    for split, part in (("train", slice(800)), ("ref", slice(800, 2000))):
        np.savez(folder / f"fashionmnist_{split}.npz", images=images[part], labels=labels[part])
    monkeypatch.setenv("OODBENCH_DATA", str(folder))
    return images, labels


def test_classes_stand_beside_their_images(labelled):
    images, labels = labelled
    found = load_labels("fashionmnist/train")
    of_image = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    expected = [of_image[i.tobytes()] for i in ob.load_images("fashionmnist/train").images[:, 0]]
    assert found.dtype == np.int64
    assert found.tolist() == expected
    assert load_labels("fashionmnist/ref").tolist() == labels[800:].tolist()


@pytest.mark.parametrize("identifier", ["fashionmnist/test", "mnist/ref[:20]", "./own/train"])
def test_classes_of_test_images_and_of_other_sets_are_never_read(identifier):
    with pytest.raises(DataError, match="`train` or `ref` of a set of the catalog"):
        load_labels(identifier)


def test_files_without_classes_are_named(home):
    with pytest.raises(DataError, match=r"bundled sample, .* holds none"):
        load_labels("fashionmnist/ref")


@pytest.mark.parametrize("labels", [np.zeros(799, np.int16), np.zeros(800)])
def test_classes_that_do_not_fit_the_images_are_refused(labelled, tmp_path, labels):
    images = labelled[0][:800]
    np.savez(tmp_path / "data" / "fashionmnist_train.npz", images=images, labels=labels)
    with pytest.raises(DataError, match="whole numbers, one an image"):
        load_labels("fashionmnist/train")


def test_labels_of_the_official_files(home, random):
    raw = home / "raw"
    images = random.integers(0, 256, (6, 28, 28)).astype(np.uint8)
    labels = random.integers(0, 10, 6).astype(np.uint8)
    content = struct.pack(">II", 0x801, 6) + labels.tobytes()
    put(raw / "MNIST/raw/train-images-idx3-ubyte.gz", gzip.compress(idx(images)))
    assert layout_source(with_md5("mnist", raw), "train", raw).labels is None
    put(raw / "MNIST/raw/train-labels-idx1-ubyte.gz", gzip.compress(content))
    source = layout_source(with_md5("mnist", raw), "train", raw)
    assert source.labels().tolist() == labels.tolist()
    with pytest.raises(DataError, match="MD5"):
        layout_source(data_card("mnist"), "train", raw).labels()


@pytest.mark.parametrize("kind", ["labels", "fine_labels"])
def test_labels_of_cifars_archive(home, random, kind):
    batch = {"data": random.integers(0, 256, (3, 3072)).astype(np.uint8), kind: [4, 0, 9]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        content = pickle.dumps(batch)
        member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    put(home / "raw" / "cifar-10-python.tar.gz", buffer.getvalue())
    source = layout_source(with_md5("cifar10", home / "raw"), "test", home / "raw")
    assert source.labels().tolist() == [4, 0, 9]
    assert source.decode().shape == (3, 3, 32, 32)


# --- the model


def card(tmp_path, more=""):
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "card.yaml").write_text(CARD.replace(" MORE", more))
    return load_card(str(tmp_path / "card"))


def test_a_classifier_is_trained_on_classes(labelled, tmp_path):
    record = train(card(tmp_path), tmp_path / "out", "cpu", 1, "oodbench train tiny")
    assert record["ref_accuracy"] > 0.9
    assert record["storage"] == "float32"
    assert "ref_bits_per_dim" not in record
    assert json.loads((tmp_path / "out" / "trained.json").read_text()) == record
    assert "ref_cross_entropy" in (tmp_path / "out" / "log.csv").read_text()
    model = ob.load_model(str(tmp_path / "out"))
    images = torch.from_numpy(np.array(ob.load_images("fashionmnist/ref").images))
    right = model.classify(images)[0].argmax(1).numpy() == load_labels("fashionmnist/ref")
    assert right[:1000].mean() == pytest.approx(record["ref_accuracy"], abs=1e-4)


@pytest.mark.parametrize("more", [", watch: [mnist]", ", mutation: 0.1"])
def test_what_needs_a_likelihood_is_refused_before_training(labelled, tmp_path, more):
    with pytest.raises(ModelError, match="are for models with a likelihood"):
        train(card(tmp_path, more), tmp_path / "out", "cpu", 1)


def test_the_loss_is_cross_entropy(random):
    model = Classifier((1, 28, 28), classes=3, width=2, features=4).double().eval()
    images = torch.from_numpy(random.integers(0, 256, (5, 1, 28, 28)).astype(np.uint8))
    logits, features = (one.detach().numpy() for one in model.classify(images))
    weight, bias = (one.detach().numpy() for one in (model.last.weight, model.last.bias))
    assert np.allclose(logits, features @ weight.T + bias)
    labels = [0, 2, 1, 1, 0]
    found = model.loss(images, torch.tensor(labels)).detach().numpy()
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(found, [-np.log(shares[i, label]) for i, label in enumerate(labels)])


def test_check_probes_a_classifier(monkeypatch):
    assert check_named("classifier-fashionmnist") == []
    monkeypatch.setattr(Classifier, "eval", lambda self: self.train())
    forget()  # the model is kept between two checks
    (first, *_) = check_named("classifier-fashionmnist")
    forget()
    assert "depend on the images beside it" in first


# --- its scorers


@pytest.fixture
def columns(random):
    """Reference and test columns: features of three classes, one feature that never responds."""

    def drawn(n, spread):
        features = np.maximum(random.normal(1, spread, (n, 6)), 0)
        features[np.arange(n), random.integers(0, 3, n)] += 4
        features[:, 5] = 0
        return {"features": features, "logits": 3 * features[:, :3] - 5}

    return drawn(300, 0.5), drawn(40, 1.5)


def slow_scores(name, reference, test):
    """The same, an image at a time."""
    classes = reference["logits"].argmax(1)
    features = reference["features"]
    if name == "mahalanobis-features":
        means = [features[classes == one].mean(0) for one in range(3)]
        inverse = np.linalg.pinv(
            sum(
                np.outer(f - means[c], f - means[c]) for f, c in zip(features, classes, strict=True)
            )
            / len(features)
        )
        return [min((x - m) @ inverse @ (x - m) for m in means) for x in test["features"]]
    if name == "knn-features":
        known = [f / np.linalg.norm(f) for f in features]
        own = [x / np.linalg.norm(x) for x in test["features"]]
        return [sorted(np.linalg.norm(x - one) for one in known)[4] for x in own]
    if name == "energy":
        return [-np.log(np.exp(row).sum()) for row in test["logits"]]
    return [-np.log((np.exp(row) / np.exp(row).sum()).max()) for row in test["logits"]]


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_are_what_their_formulas_say(name, columns):
    reference, test = columns
    found = ob.scorer(name).fitted(reference)(test)
    assert np.allclose(found, slow_scores(name, reference, test), rtol=1e-9)
    assert check_scorer(ob.scorer(name)) == []


def test_large_logits_do_not_overflow():
    test = {"logits": np.array([[2000.0, 0.0], [-2000.0, -2000.0]])}
    assert ob.scorer("energy").fitted({})(test).tolist() == [-2000, 2000 - np.log(2)]
    assert ob.scorer("msp").fitted({})(test) == pytest.approx([0, np.log(2)])


def test_an_image_of_the_reference_itself_is_at_distance_zero(columns):
    reference, _ = columns
    same = {name: np.repeat(column[:1], 6, 0) for name, column in reference.items()}
    more = {name: np.concatenate([reference[name], same[name]]) for name in reference}
    assert ob.scorer("knn-features").fitted(more)(same) == pytest.approx(np.zeros(6), abs=1e-12)


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_agree_with_pytorch_ood(name, columns):
    detector = pytest.importorskip("pytorch_ood.detector")
    reference, test = columns
    kept = [0, 1, 2, 3, 4]  # their covariance has a ridge where a feature is constant
    z, x = (torch.from_numpy(side["features"][:, kept]).float() for side in columns)
    logits = torch.from_numpy(test["logits"]).float()
    classes = torch.from_numpy(reference["logits"].argmax(1))
    found = ob.scorer(name).fitted(reference)(test)
    if (
        name == "mahalanobis-features"
    ):  # theirs is half of it, of a sum of squares in place of a covariance
        theirs = (
            2 * len(z) * detector.Mahalanobis(None).fit_features(z, classes).predict_features(x)
        )
    elif name == "knn-features":
        theirs = detector.KNN(None, k=5).fit_features(z, classes).predict_features(x)
    elif name == "energy":
        theirs = detector.EnergyBased(None).predict_logits(logits)
    else:
        theirs = -torch.log(-detector.MaxSoftmax(None).predict_logits(logits))
    assert found == pytest.approx(np.asarray(theirs), rel=1e-3, abs=1e-5)


# --- its rows


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Rows of a density model and a classifier on one pair, and the folder of their pages."""
    fields = {
        "name": "labels", "title": "With labels", "models": ["glow-fashionmnist", "classifier-fashionmnist"],
        "pairs": [{"in_dist": "fashionmnist", "ood": ["mnist"]}], "limit": 120, "bootstrap": 0,
        "scorers": ["likelihood", *SCORERS, "gradient-norm", "code-length-png"],
    }  # fmt: skip
    out = tmp_path_factory.mktemp("labels")
    return run_suite(suite_of(fields), Options(1, "cpu"), out), out


def of(rows, model):
    return {row["scorer"]: row for row in rows if row["model"] == model}


def test_rows_of_a_classifier_say_what_they_are_of(judged):
    found = of(judged[0], "classifier-fashionmnist")
    assert {name for name, row in found.items() if row["status"] == "ok"} == {
        *SCORERS,
        "code-length-png",
    }
    for name, row in found.items():
        if row["status"] == "ok":
            assert row["uses_labels"] is True
            assert (row["likelihood"], row["log_prob_of"]) == ("none", "none")
            assert row["in_dist_bits_per_dim"] is row["ood_bits_per_dim"] is None
            assert standing(row) == ("baseline" if name == "code-length-png" else "labelled")
    assert (
        found["likelihood"]["reason"]
        == "classifier-fashionmnist has no `log_prob`, which log_prob asks for"
    )
    assert "classifier-fashionmnist" in found["gradient-norm"]["reason"]


def test_rows_of_a_density_model_lack_what_needs_a_classifier(judged):
    found = of(judged[0], "glow-fashionmnist")
    assert standing(found["likelihood"]) == "scorer"
    assert not found["likelihood"]["uses_labels"]
    assert all("has no `classify`" in found[name]["reason"] for name in SCORERS)


def test_a_classifiers_scores_are_those_of_its_columns(judged):
    model = ob.load_model("classifier-fashionmnist")
    sets = (f"fashionmnist/{split}[:120]" for split in ("ref", "test"))
    ref, test = (ob.load_images(one, like=model) for one in sets)
    ood = ob.load_images("mnist/test[:120]", like=model)
    ref, test, ood = (ob.measure(model, one, "logits", "features") for one in (ref, test, ood))
    found = of(judged[0], "classifier-fashionmnist")
    for name in SCORERS:
        of_in, of_ood = (np.array(slow(name, ref, side)) for side in (test, ood))
        assert found[name]["auroc"] == pytest.approx((of_ood[:, None] > of_in).mean(), abs=2e-3)


def slow(name, reference, test):
    return ob.scorer(name).fitted(reference)(test)


def test_a_classifier_is_ranked_apart_and_compared_with_nobody(judged):
    rows, out = judged
    models = {row["model"] for row in read_rows(out / "comparisons.jsonl")}
    assert models == {"glow-fashionmnist"}
    names = [line[0] for line in leaderboard(rows)[1]]
    assert names[:2] == ["gradient-norm", "likelihood"]
    assert set(names[2:6]) == {f"{name} ¶" for name in SCORERS}
    assert names[6:] == ["code-length-png *"]
    page = (out / "README.md").read_text()
    assert "A classifier, trained on class labels: it has no log p(x)." in page
    ranks = re.findall(r"^\| (L\d) *\|", page, re.MULTILINE)
    assert ranks == ["L1", "L2", "L3", "L4"]
    tried = [row for row in rows if row["status"] == "ok"]
    assert mean_in(tried, "likelihood") is not None  # though the classifier has none
    assert mean_in(tried, "msp") is not None


def test_explanations_are_of_models_with_a_likelihood():
    fields = {
        "name": "labels", "title": "With labels", "models": ["glow-fashionmnist", "classifier-fashionmnist"], "limit": 40,
        "pairs": [{"in_dist": "fashionmnist", "ood": ["mnist"]}], "scorers": ["likelihood", "msp"], "analysis": {},
    }  # fmt: skip
    plan = make_plan(suite_of(fields))
    assert [one.model.name for one in plan.subjects] == ["glow-fashionmnist"]
    assert {trial.model.name for trial in plan.trials} == {
        "glow-fashionmnist",
        "classifier-fashionmnist",
    }
    tasks = [task.head.get("model", "glow-fashionmnist") for task in analysis_tasks(plan)]
    assert "glow-fashionmnist" in tasks
    assert "classifier-fashionmnist" not in tasks


# --- `ref` by seed


def planned(seed, limit):
    fields = {
        "name": "seeds", "title": "Seeds", "models": ["glow-fashionmnist"], "seed": seed, "limit": limit,
        "pairs": [{"in_dist": "fashionmnist", "ood": ["mnist"]}], "scorers": ["typicality"],
    }  # fmt: skip
    plan = make_plan(suite_of(fields))
    return plan.trials[0], plan.remarks


def test_another_seed_draws_ref_anew_of_the_held_out_pool():
    first, second, third = (planned(seed, 100)[0] for seed in (0, 1, 2))
    assert first.ref.identifier == "fashionmnist/ref[first 1000][100 drawn]"
    assert second.ref.identifier == "fashionmnist/ref[first 1000][100 drawn, seed 1]"
    assert [one.ref.pool for one in (first, second, third)] == [1000] * 3
    pool = {image.tobytes() for image in ob.load_images("fashionmnist/ref").images}
    drawn = [ob.load_images(one.ref.identifier).images for one in (first, second, third)]
    sets = [{image.tobytes() for image in images} for images in drawn]
    assert all(one <= pool and len(one) == 100 for one in sets)
    assert len(sets[0] & sets[1]) < 30
    assert len(sets[1] & sets[2]) < 30
    assert np.array_equal(drawn[0], ob.load_images("fashionmnist/ref").images[:100])
    assert [one.test.identifier for one in (first, second)] == [first.test.identifier] * 2


@pytest.mark.parametrize("limit", [None, 1000, 5000])
def test_a_pool_that_is_all_of_ref_is_said(limit):
    trial, remarks = planned(1, limit)
    assert trial.ref.identifier == "fashionmnist/ref[first 1000]"
    assert trial.ref.pool == trial.ref.n == 1000
    assert any("seed 1 draws no other `ref`" in one for one in remarks)
    assert not any("draws no other" in one for one in planned(0, limit)[1])
