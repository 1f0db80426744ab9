"""Statistics: laws of a measurement, codecs, moments."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import oodbench as ob
from oodbench.errors import OodbenchError, ScorerError, UnknownNameError
from oodbench.passes import batches
from oodbench.registry import statistics
from oodbench.statistics import complexity
from oodbench.statistics.density import density
from oodbench.testing import PixelHistogram, UniformModel, check_model


@pytest.fixture(scope="module")
def glow():
    return ob.load_model("glow-fashionmnist")


def test_a_uniform_model_gives_eight_bits():
    images = ob.load_images("cifar10/test[:5]")
    log_prob = ob.measure(UniformModel((3, 32, 32)), images, "log_prob")["log_prob"]
    assert ob.bits_per_dim(log_prob, images.shape) == pytest.approx(8, abs=1e-12)


def test_an_exact_discrete_model_sums_to_one():
    model = PixelHistogram(np.array([[[[0, 1], [1, 2]]]], np.uint8), bins=3)
    levels = torch.cartesian_prod(*[torch.arange(3)] * 4).reshape(-1, 1, 2, 2).to(torch.uint8)
    assert torch.exp(model.log_prob(levels)).sum().item() == pytest.approx(1, abs=1e-12)


def test_batch_size_order_and_subset_change_nothing(glow, monkeypatch):
    images = ob.load_images("mnist/test[:70]", like=glow)
    whole = ob.measure(glow, images, "log_prob")["log_prob"]
    for size in (1, 7):
        monkeypatch.setattr(batches, "BATCH", size)
        assert ob.measure(glow, images, "log_prob")["log_prob"] == pytest.approx(whole, rel=1e-5)
    turned = type(images)(images.name, images.split, "", images.images[::-1])
    assert ob.measure(glow, turned, "log_prob")["log_prob"][::-1] == pytest.approx(whole, rel=1e-5)
    assert ob.measure(glow, images.drawn(9), "log_prob")["log_prob"] == pytest.approx(
        whole[:9], rel=1e-5
    )


def test_the_terms_add_up(glow):
    names = ("log_prob", "latent_term", "prior_volume", "log_det")
    log_prob, *terms = ob.measure(glow, ob.load_images("mnist/test[:20]"), *names).values()
    assert log_prob == pytest.approx(sum(terms) - 392 * math.log(2 * math.pi), abs=1e-6)


class HalfOfUser:
    """A user's flow without `log_prob_terms`: y = x / 16 + 1, a prior N(1, σ²) with σ of each image's own corner pixel."""

    shape = (1, 2, 2)

    def encode(self, images):
        x = images.double()
        log_std = x[:, 0, 0, 0] / 512
        z = (x / 16) / torch.exp(log_std)[:, None, None, None]
        log_prob_z = torch.distributions.Normal(0, 1).log_prob(z).flatten(1).sum(1) - 4 * log_std
        return z.flatten(1), log_prob_z, torch.full((len(x),), -4 * math.log(16.0)).double()

    def log_prob(self, images):
        _, log_prob_z, log_det = self.encode(images)
        return log_prob_z + log_det


def test_the_volume_of_a_user_s_prior_is_what_a_standard_gaussian_leaves():
    images = torch.randint(0, 256, (9, 1, 2, 2), dtype=torch.uint8)
    found = density(HalfOfUser(), images)
    expected = -4 * images[:, 0, 0, 0].double() / 512
    assert torch.allclose(found["prior_volume"], expected, atol=1e-3)
    assert torch.allclose(found["latent_term"], -(HalfOfUser().encode(images)[0] ** 2).sum(1) / 2)
    black = density(HalfOfUser(), torch.zeros(1, 1, 2, 2, dtype=torch.uint8))
    assert black["prior_volume"].item() == 0


def test_a_model_without_a_capability_says_so():
    with pytest.raises(ScorerError, match="UniformModel gives no 'log_det'"):
        ob.measure(UniformModel(), ob.load_images("mnist/test[:2]"), "log_det")
    with pytest.raises(UnknownNameError, match="did you mean 'log_prob'"):
        ob.measure(UniformModel(), ob.load_images("mnist/test[:2]"), "log_pro")


@pytest.mark.parametrize("identifier", ["mnist/test[:6]", "cifar10/test[:6]"])
def test_code_lengths_are_those_of_whole_lossless_files(identifier):
    images = ob.load_images(identifier)
    found = ob.measure(None, images, "code_length_png", "code_length_jp2")
    for image, nats in zip(images.images, found["code_length_png"], strict=True):
        pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=9)
        assert nats == pytest.approx(8 * len(file.getvalue()) * math.log(2))
    assert (found["code_length_jp2"] > 0).all()
    assert (found["code_length_jp2"] < 2 * images.images[0].size * 8 * math.log(2)).all()


def test_a_lossy_codec_is_refused():
    with pytest.raises(OodbenchError, match="lost pixels"):
        complexity.code_lengths(
            ob.load_images("cifar10/test[:1]").images, format="JPEG", quality=50
        )


def test_noise_does_not_compress_and_constants_do():
    noise, constant = (
        ob.load_images(f"{name}[:5]", shape=(3, 32, 32)) for name in ("noise", "constant")
    )
    for statistic in ("code_length_png", "code_length_jp2"):
        lengths = [ob.measure(None, images, statistic)[statistic] for images in (noise, constant)]
        assert lengths[0].min() > 3072 * 8 * math.log(2)
        assert lengths[1].max() < lengths[0].min() / 10


def test_codec_versions_are_part_of_the_identity():
    assert "zlib" in statistics["code_length_png"].identity
    assert "jpg_2000" in statistics["code_length_jp2"].identity


def test_moments():
    images = ob.load_images("cifar10/test[:3]")
    found = ob.measure(None, images, "pixel_mean", "pixel_variance")
    pixels = images.images[1].astype(float) / 255
    assert found["pixel_mean"][1] == pytest.approx(pixels.mean())
    assert found["pixel_variance"][1] == pytest.approx(pixels.var())


def test_shipped_models_keep_the_contract():
    for name in (
        "glow-fashionmnist",
        "glow-fashionmnist-background",
        "glow-cifar10",
        "glow-cifar10-background",
    ):
        assert check_model(ob.load_model(name), name) == []


class Broken(UniformModel):
    """Breaks one promise at a time."""

    def __init__(self, how):
        super().__init__()
        self.how, self.calls, self.remembered = how, 0, None

    def _first_mean(self, log_prob):
        """As an ActNorm that sets itself on the first batch after loading."""
        if self.remembered is None:
            self.remembered = log_prob.mean()
        return self.remembered

    def log_prob(self, images):
        self.calls += 1
        log_prob = super().log_prob(images) - images.double().flatten(1).sum(1)
        return {
            "float32": lambda: log_prob.float(),
            "fresh noise": lambda: log_prob + self.calls,
            "batch": lambda: log_prob - log_prob.mean(),
            "order": lambda: log_prob - torch.arange(len(log_prob)),
            "input": lambda: (log_prob, images.zero_())[0],
            "constant": lambda: log_prob + 784 * 1000,
            "sign": lambda: -(1e6 + log_prob),
            "nan": lambda: log_prob * torch.nan,
            "mean": lambda: log_prob.mean(),
            "first batch": lambda: log_prob + self._first_mean(log_prob),
        }[self.how]()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("float32", "sum in float64"),
        ("fresh noise", "draw noise from"),
        ("batch", "batches of 1 and of 64 disagree"),
        ("order", "order of images"),
        ("input", "changes its input"),
        ("constant", "D·log 256"),
        ("sign", "wrong sign"),
        ("nan", "64 of 64 log-probabilities are NaN"),
        ("mean", "one number for the whole batch"),
        ("first batch", "the first batch after loading changes all scores"),
    ],
)
def test_each_broken_promise_has_its_sentence(how, sentence):
    assert any(sentence in fault for fault in check_model(Broken(how)))


def test_a_model_that_raises_or_is_none_is_named():
    assert "needs an attribute shape" in check_model(object())[0]
    model = UniformModel()
    model.log_prob = lambda images: 1 / 0
    assert "raises ZeroDivisionError" in check_model(model)[0]
