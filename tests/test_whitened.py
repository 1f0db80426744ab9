"""What models turn images into, and the tests of whether that is white standard normal noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from test_pixelcnn import everything, small_pixelcnn

import oodbench as ob
from oodbench.models.noise import keyed_uniform
from oodbench.models.pixelcnn_residuals import SMALLEST, cumulative, mixture_residuals
from oodbench.statistics.normality import (
    DIRECTIONS,
    directions,
    normality,
)
from oodbench.statistics.whitened import OF_NOISE, OF_PICTURES, latent, residual
from oodbench.statistics.whiteness import whiteness_2d, whiteness_rows
from oodbench.zoo.load import load_model
from oodbench.zoo.scoring import scoring_form

# --- each number, slowly


def own_standard(z):
    return (z - z.mean()) / z.std()


def autocorrelation(w, k):
    pairs = [w[i] * w[i + k] for i in range(len(w) - k)]
    return sum(pairs) / len(pairs)


def slow_anderson_darling(z):
    w, count = np.sort(own_standard(z)), len(z)
    total = 0.0
    for k in range(1, count + 1):
        logs = stats.norm.logcdf(w[k - 1]) + stats.norm.logsf(w[count - k])
        total += (2 * k - 1) * logs
    return -count - total / count


def slow_spectrum_cv(z):
    power = np.abs(np.fft.rfft(z)) ** 2
    return power.std() / power.mean()


def slow_box_pierce(z, lags):
    return len(z) * np.mean([autocorrelation(own_standard(z), k) ** 2 for k in lags])


SLOW = {
    "ks": lambda z: stats.kstest(z, "norm").statistic,
    "anderson_darling": slow_anderson_darling,
    "chi2": lambda z: stats.chisquare(np.histogram(stats.norm.cdf(z), 20, (0, 1))[0]).statistic,
    "kurtosis": stats.kurtosis,
    "skew": stats.skew,
    "spectrum_cv": slow_spectrum_cv,
    "box_pierce": lambda z: slow_box_pierce(z, range(1, 201)),
}


@pytest.fixture
def numbers(random):
    """White noise, a heavy tail, a skew, and what is smooth."""
    smooth = np.cumsum(random.normal(size=588))
    noise = random.normal(size=588)
    return np.stack([noise, random.standard_t(3, 588), np.exp(noise), smooth, 1e-3 * noise + 9])


@pytest.mark.parametrize("name", SLOW)
def test_a_number_is_that_of_one_image_at_a_time(name, numbers):
    found = normality(torch.from_numpy(numbers))[name]
    assert found.numpy() == pytest.approx([SLOW[name](z) for z in numbers], rel=1e-7)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_anderson_darling_is_scipy_s_with_the_other_deviation(numbers):
    """scipy divides by the deviation with D − 1, which is 0.1 % more here."""
    found = normality(torch.from_numpy(numbers[:3]))["anderson_darling"].numpy()
    theirs = [stats.anderson(z, "norm").statistic for z in numbers[:3]]
    assert found == pytest.approx(theirs, rel=0.02)


def test_projections_are_on_unit_vectors_that_stay(numbers):
    vectors = directions(588).T.numpy()
    assert vectors.shape == (DIRECTIONS, 588)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(DIRECTIONS))
    drawn = np.random.RandomState(0).standard_normal(588)
    assert vectors[0] == pytest.approx(drawn / np.sqrt((drawn**2).sum()))
    assert abs(vectors @ vectors.T - np.eye(DIRECTIONS)).max() < 0.25
    found = normality(torch.from_numpy(numbers))["projections"].numpy()
    assert found == pytest.approx(np.array([[v @ z for v in vectors] for z in numbers]))


def slow_whiteness_2d(z):
    (channels, height, width), squares = z.shape, []
    for channel in range(channels):
        w = own_standard(z[channel])
        for down, right in [(0, 1), (1, -1), (1, 0), (1, 1)]:
            pairs = [
                w[row, column] * w[row + down, column + right]
                for row in range(height - down)
                for column in range(width)
                if 0 <= column + right < width
            ]
            squares.append(np.mean(pairs) ** 2)
    return height * width * np.mean(squares)


def slow_whiteness_rows(z):
    width = z.shape[2]
    return slow_box_pierce(z.reshape(-1), [k * width for k in range(1, 6)])


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 6, 8)])
def test_whiteness_is_that_of_pairs_of_pixels(shape, random):
    noise = random.normal(size=(2, *shape))
    z = np.concatenate([noise, noise.cumsum(2), noise.cumsum(3) + 4])
    assert whiteness_2d(z) == pytest.approx([slow_whiteness_2d(one) for one in z])
    assert whiteness_rows(z) == pytest.approx([slow_whiteness_rows(one) for one in z])


def of_noise(count, lags):
    """What ``D · mean ρ̂_k²`` is of white noise on average: a mean product of n pairs has the variance 1/n."""
    return np.mean([count / (count - k) for k in lags])


def test_white_noise_has_the_values_that_theory_gives(random):
    z = torch.from_numpy(random.normal(size=(400, 3, 16, 16)))
    found = {name: column.numpy() for name, column in normality(z).items()}
    # E[A²] with both parameters fitted; the mean of √D·KS is √(π/2)·ln 2
    expected = {"ks": 0.8687 / np.sqrt(768), "anderson_darling": 0.3845, "chi2": 19, "kurtosis": 0,
                "skew": 0, "spectrum_cv": 1, "box_pierce": of_noise(768, range(1, 201))}  # fmt: skip
    for name, value in expected.items():
        error = found[name].std() / np.sqrt(400)
        assert abs(found[name].mean() - value) < 4 * error + 0.02 * abs(value), name
    assert stats.kstest(found["projections"].ravel(), "norm").pvalue > 1e-3
    pairs = np.array([16 * 15, 15 * 15, 16 * 15, 15 * 15])
    assert whiteness_2d(z.numpy()).mean() == pytest.approx((256 / pairs).mean(), rel=0.05)
    expected = of_noise(768, range(16, 81, 16))
    assert whiteness_rows(z.numpy()).mean() == pytest.approx(expected, rel=0.1)


def test_fewer_numbers_than_lags_use_those_that_there_are(random):
    z = random.normal(size=(2, 12))
    found = normality(torch.from_numpy(z))["box_pierce"].numpy()
    assert found == pytest.approx([slow_box_pierce(one, range(1, 12)) for one in z])


# --- latents


class GaussianFlow:
    """Independent Gaussian pixels: z = (x + noise − 128)/20."""

    shape = (1, 16, 16)

    def encode(self, images):
        z = (images.double() + keyed_uniform(images, 0).double() - 128) / 20
        log_prob_z = torch.distributions.Normal(0, 1).log_prob(z).flatten(1).sum(1)
        return z, log_prob_z, torch.full((len(z),), -256 * np.log(20.0)).double()

    def log_prob(self, images):
        _, log_prob_z, log_det = self.encode(images)
        return log_prob_z + log_det


def gaussian_images(random, n):
    return (128 + 20 * random.normal(size=(n, 1, 16, 16))).clip(0, 255).astype(np.uint8)


def smooth_images(random, n):
    """Slopes of the same levels: each pixel alone looks like one in-dist."""
    slope = np.linspace(-1.7, 1.7, 16)
    z = slope[:, None] * random.normal(1, 0.2, (n, 1, 1, 1)) + 0.4 * random.normal(
        size=(n, 1, 16, 16)
    )
    return (128 + 20 * z).clip(0, 255).astype(np.uint8)


def columns_of(compute, model, images):
    found = compute(model, torch.from_numpy(images))
    return {name: np.asarray(column) for name, column in found.items()}


def auroc(name, compute, model, random):
    ref, test = (columns_of(compute, model, gaussian_images(random, 200)) for _ in range(2))
    far = columns_of(compute, model, smooth_images(random, 100))
    score = ob.scorer(name).fitted(ref)
    return ob.auroc(score(test), score(far)).value


def test_the_right_flow_s_latents_are_standard_normal(random):
    images = torch.from_numpy(gaussian_images(random, 200))
    z = GaussianFlow().encode(images)[0].numpy()
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    found = latent(GaussianFlow(), images)
    assert found["chi2"].mean().item() == pytest.approx(19, abs=2)
    expected = of_noise(256, range(1, 201))
    assert found["box_pierce"].mean().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("name", ["box-pierce", "sitn"])
def test_smooth_images_leave_latents_that_are_not_white(name, random):
    assert auroc(name, latent, GaussianFlow(), random) > 0.95


def test_the_latents_are_those_of_encode():
    model = ob.load_model("glow-fashionmnist")
    images = ob.load_images("mnist/test[:4]", like=model)
    found = ob.measure(model, images, *OF_NOISE)
    z = model.encode(torch.from_numpy(np.array(images.images)))[0].double().numpy()
    for name in ("ks", "spectrum_cv", "kurtosis"):
        assert found[name] == pytest.approx([SLOW[name](one) for one in z], rel=1e-5)
    assert found["projections"].shape == (4, DIRECTIONS)


# --- residuals


@torch.no_grad()
def slow_u(model, images):
    """P(X < x | past) and P(X = x | past) by the probabilities of all levels at one place after another."""
    below, own = torch.zeros(images.shape).double(), torch.zeros(images.shape).double()
    for place in np.ndindex(*images.shape):
        level, changed = images[place].item(), images[place[0]].repeat(model.bins, 1, 1, 1)
        changed[(slice(None), *place[1:])] = torch.arange(model.bins, dtype=torch.uint8)
        p = torch.exp(model.log_prob_per_dim(changed))[(slice(None), *place[1:])]
        below[place], own[place] = p[:level].sum(), p[level]
    return below, own


@pytest.mark.parametrize(("shape", "bins"), [((1, 2, 2), 3), ((3, 1, 2), 2), ((2, 2, 1), 3)])
def test_u_is_the_sum_of_the_probabilities_below(shape, bins):
    model = small_pixelcnn(shape, bins=bins, scales=1)
    images = everything(shape, bins)[::5]
    below, own = slow_u(model, images)
    v = keyed_uniform(images, 0).double()
    expected = (below + v * own).clamp(SMALLEST, 1 - SMALLEST)
    found = torch.special.ndtr(mixture_residuals(model, images))
    assert torch.allclose(found, expected, atol=1e-9)


def test_u_of_256_levels_and_three_colours():
    model = small_pixelcnn((3, 2, 2), scales=1)
    images = torch.randint(0, 256, (3, 3, 2, 2), dtype=torch.uint8)
    images[0, :, 0, 0], images[1, :, 1, 1] = 0, 255
    below, own = slow_u(model, images)
    x = 2 * images.double() / 255 - 1
    found = cumulative(model._mixture(x), x)
    assert torch.allclose(found[0], below, atol=1e-12)
    assert torch.allclose(found[1], below + own, atol=1e-12)


@pytest.mark.parametrize(("shape", "bins"), [((1, 4, 4), 256), ((3, 2, 2), 256), ((1, 4, 4), 3)])
def test_u_is_uniform_for_the_model_s_own_draws(shape, bins):
    model = small_pixelcnn(shape, bins=bins)
    images = model.sample(800, torch.Generator().manual_seed(1))
    z = mixture_residuals(model, images).detach().flatten(1)
    u = torch.special.ndtr(z)
    assert all(stats.kstest(one, "uniform").pvalue > 1e-4 for one in u.T.numpy())
    correlations = np.corrcoef(z.T.numpy()) - np.eye(z.shape[1])
    assert abs(correlations).max() < 4.5 / np.sqrt(800)


def test_another_image_than_the_model_s_is_told_apart():
    """The law above can fail."""
    model = small_pixelcnn((1, 4, 4))
    images = model.sample(800, torch.Generator().manual_seed(1))
    lighter = (images.int() + 40).clamp(0, 255).to(torch.uint8)
    u = torch.special.ndtr(mixture_residuals(model, lighter).detach())
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue < 1e-6


class IndependentPixels:
    """A user's autoregressive model: all levels equally likely, whatever was before."""

    shape = (1, 16, 16)

    def residuals(self, images):
        return torch.special.ndtri((images.double() + keyed_uniform(images, 0).double()) / 256)


class OfGaussian(IndependentPixels):
    def residuals(self, images):
        return GaussianFlow().encode(images)[0]


@pytest.mark.parametrize("name", ["whiteness-2d", "whiteness-rows", "residual-whiteness"])
def test_smooth_images_leave_residuals_that_are_not_white(name, random):
    assert auroc(name, residual, OfGaussian(), random) > 0.95


def test_a_user_s_residuals_are_measured(random):
    images = random.integers(0, 256, (60, 1, 16, 16)).astype(np.uint8)
    found = columns_of(residual, IndependentPixels(), images)
    assert set(found) == {*OF_PICTURES, *(f"residual_{name}" for name in OF_NOISE)}
    z = IndependentPixels().residuals(torch.from_numpy(images)).numpy()
    assert found["whiteness_2d"][:3] == pytest.approx([slow_whiteness_2d(one) for one in z[:3]])
    expected = [SLOW["box_pierce"](one.ravel()) for one in z[:3]]
    assert found["residual_box_pierce"][:3] == pytest.approx(expected)


def test_the_scored_form_leaves_the_same_residuals(monkeypatch):
    model = ob.load_model("pixelcnn-fashionmnist")
    images = ob.load_images("mnist/test[:10]", like=model)
    plain = model.residuals(torch.from_numpy(np.array(images.images)))
    assert plain.shape == (10, 1, 28, 28)
    form = scoring_form(model)
    assert torch.allclose(
        mixture_residuals(form, torch.from_numpy(np.array(images.images))), plain, atol=2e-3
    )
    whole = ob.measure(form, images, *OF_PICTURES)
    for name in OF_PICTURES:
        compute = {"whiteness_2d": slow_whiteness_2d, "whiteness_rows": slow_whiteness_rows}[name]
        assert whole[name] == pytest.approx([compute(one) for one in plain.numpy()], rel=1e-3)
    form.batch_size = 3
    assert ob.measure(form, images, *OF_PICTURES)["whiteness_2d"] == pytest.approx(
        whole["whiteness_2d"], rel=1e-5
    )


def test_the_residuals_noise_has_the_model_s_seed():
    images = torch.from_numpy(np.array(ob.load_images("mnist/test[:3]").images))
    first, again, other = (load_model("pixelcnn-fashionmnist", seed) for seed in (0, 0, 1))
    z, same, another = (one.residuals(images) for one in (first, again, other))
    assert torch.equal(z, same)
    assert not torch.allclose(z, another, atol=0.1)
    assert torch.allclose(mixture_residuals(scoring_form(other), images), another, atol=2e-3)
    assert torch.equal(first.log_prob(images), other.log_prob(images))
