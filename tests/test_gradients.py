"""Statistics that need gradients, refitted encoders or a diffusion's path, each against a direct implementation."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

import oodbench as ob
from oodbench.data.images import ImageSet
from oodbench.errors import ModelError, ScorerError
from oodbench.models.diffusion import small_diffusion
from oodbench.models.glow import Glow
from oodbench.models.noise import keyed_normal, keyed_uniform
from oodbench.models.pixelcnn import PixelCNN
from oodbench.models.vae import rosca_vae
from oodbench.statistics.parameter_gradients import (
    gradients_one_by_one,
    gradients_together,
    images_together,
)
from oodbench.testing import UniformModel

LEVELS, STARTS = 10, (2, 4, 6, 8)
DAMPING, SMALLEST = 1e-8, 1e-30
STEPS, LEARNING_RATE, WEIGHT_DECAY, DRAWS = 100, 2e-4, 5e-5, 200
"""As documented, and not imported: another number here is another statistic."""


def image_set(n=4, shape=(1, 4, 4), seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (n, *shape)).astype(np.uint8)
    return ImageSet("random", "test", "", images)


def small_glow():
    torch.manual_seed(0)
    glow = Glow((1, 4, 4), 2, 2, hidden=4).double()
    with torch.no_grad():
        for parameter in glow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        glow.loss(torch.randint(0, 256, (64, 1, 4, 4)))
    return glow.eval()


def small_vae(**options):
    torch.manual_seed(0)
    return (
        rosca_vae((1, 4, 4), latent=2, width=2, decoder="logistic", samples=4, **options)
        .double()
        .eval()
    )


def small_pixelcnn():
    torch.manual_seed(0)
    return PixelCNN((1, 4, 4), filters=4, resnets=1, mixtures=2, scales=1).double().eval()


MODELS = {"glow": small_glow, "vae": small_vae, "pixelcnn": small_pixelcnn}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_input_gradient_is_that_of_finite_differences(make):
    model, images = make(), image_set(2)
    found = ob.measure(model, images, "input_gradient_norm")["input_gradient_norm"]
    pixels = torch.from_numpy(images.images.copy())
    x, _ = model.input_and_log_prob(pixels)

    def log_prob(shifted):
        if isinstance(model, Glow):
            _, log_prob_z, log_det = model.flow(shifted)
            return log_prob_z + log_det
        inner = 2 * shifted - 1
        if isinstance(model, PixelCNN):
            return model._mixture(inner).log_prob_per_dim(inner).flatten(1).sum(1)
        noise = keyed_normal(pixels, model.seed, (model.samples, model.latent))
        return torch.logsumexp(model.weighed(inner, *model.posterior(inner), noise).sum(2), 1)

    squares = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for unit in torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4):
            squares += ((log_prob(x + 1e-6 * unit) - log_prob(x - 1e-6 * unit)) / 2e-6) ** 2
    assert found == pytest.approx(squares.sqrt().numpy(), rel=1e-3)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_log_prob_of_the_input_is_log_prob(make):
    model, images = make(), torch.from_numpy(image_set(3).images.copy())
    assert torch.allclose(model.input_and_log_prob(images)[1], model.log_prob(images))


def test_parameter_gradients_by_hand():
    model, images, ref = small_glow(), image_set(3), image_set(6, seed=1)
    found = ob.measure(model, images, "layer_gradient_norms", "rao_score", reference=ref)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradients(pixels):
        return [
            torch.autograd.grad(
                model.log_prob(torch.from_numpy(pixels[None].copy())).sum(), parameters
            )
        ]

    fisher = [torch.zeros_like(p) for p in parameters]
    for pixels in ref.images[3:]:  # the first half is left to scorers
        for total, gradient in zip(fisher, *gradients(pixels)):
            total += gradient**2 / 3
    for number, pixels in enumerate(images.images):
        (own,) = gradients(pixels)
        norms = [
            math.log((g**2).sum().item() + SMALLEST) for g, f in zip(own, fisher) if (f > 0).any()
        ]
        assert found["layer_gradient_norms"][number] == pytest.approx(norms)
        rao = sum(((g**2) / (f + DAMPING)).sum().item() for g, f in zip(own, fisher))
        assert found["rao_score"][number] == pytest.approx(math.sqrt(rao))


def test_gradients_are_a_pure_function_of_the_image():
    model, images, ref = small_glow(), image_set(5), image_set(6, seed=1)
    whole = ob.measure(model, images, "rao_score", reference=ref)["rao_score"]
    few = ob.measure(
        model, ImageSet("", "", "", images.images[[3, 1]]), "rao_score", reference=ref
    )["rao_score"]
    assert few == pytest.approx(whole[[3, 1]], rel=1e-9)


def test_a_model_without_gradients_is_told():
    class Frozen(torch.nn.Module):
        shape = (1, 4, 4)

        def log_prob(self, images):
            return torch.zeros(len(images), dtype=torch.float64)

    with pytest.raises(ModelError, match="Frozen gives no gradient of log_prob"):
        list(gradients_together(Frozen(), torch.zeros(1, 1, 4, 4)))
    with pytest.raises(ScorerError, match="prepared on in-dist reference images"):
        ob.measure(small_glow(), image_set(), "rao_score")
    with pytest.raises(AttributeError):
        ob.measure(UniformModel((1, 4, 4)), image_set(), "input_gradient_norm")


def test_a_parameter_that_an_image_does_not_use_has_a_gradient_of_zero():
    class Partly(torch.nn.Module):
        shape = (1, 4, 4)

        def __init__(self):
            super().__init__()
            self.used = torch.nn.Parameter(torch.tensor(2.0))
            self.unused = torch.nn.Parameter(torch.ones(3))

        def log_prob(self, images):
            return -self.used * images.flatten(1).double().sum(1)

    image = torch.full((1, 1, 4, 4), 2, dtype=torch.uint8)
    for gradients in (gradients_one_by_one, gradients_together):
        ((used, unused),) = gradients(Partly(), image)
        assert used.tolist() == [-32]
        assert unused.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_gradients_together_are_those_of_one_image_after_another(make):
    model, images = make(), torch.from_numpy(image_set(19).images.copy())
    assert images_together(model) == 16  # so that the last images are filled up
    together, plain = (
        [torch.cat(parameter) for parameter in zip(*gradients(model, images))]
        for gradients in (gradients_together, gradients_one_by_one)
    )
    for found, expected in zip(together, plain, strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10 * expected.abs().max())


def test_gradients_in_single_precision_do_not_depend_on_the_images_beside():
    model = ob.load_model("glow-fashionmnist")
    images = torch.from_numpy(ob.load_images("fashionmnist/test[:5]").images.copy())
    whole, few = (next(gradients_together(model, one)) for one in (images, images[[3, 1]]))
    for of_whole, of_few in zip(whole, few, strict=True):
        assert torch.equal(of_whole[[3, 1]], of_few)


def test_a_model_that_cannot_be_traced_keeps_the_loop():
    class Branching(torch.nn.Module):
        shape = (1, 4, 4)

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(2.0))

        def log_prob(self, images):
            total = images.flatten(1).double().sum(1)
            return -self.weight * (total if total.max().item() > 16 else 3 * total)

    model = Branching()
    images = torch.stack([torch.full((1, 4, 4), value, dtype=torch.uint8) for value in (1, 2)])
    found = torch.cat([gradient for (gradient,) in gradients_together(model, images)])
    assert found.tolist() == [-48, -32]


def test_fewer_images_go_together_where_a_model_has_many_parameters():
    large = torch.nn.Linear(2**12, 2**13, device="meta")
    assert images_together(large) == 2
    assert images_together(torch.nn.Linear(2**14, 2**15, device="meta")) == 1


def test_singular_values_multiply_to_the_volume():
    model, images = small_glow(), image_set(3)
    found = ob.measure(model, images, "log_singular_values", "log_det")
    volume = found["log_det"] + 16 * math.log(256)  # of z by the scaled image
    assert found["log_singular_values"].sum(1) == pytest.approx(-volume, rel=1e-9)
    assert (np.diff(found["log_singular_values"], axis=1) >= 0).all()
    y = model.dequantise(
        pixels := torch.from_numpy(images.images[:1].copy()), keyed_uniform(pixels, model.seed)
    )
    columns = []
    with torch.no_grad():
        for unit in torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4):
            ends = [
                torch.cat([z.flatten(1) for z in model.flow(y + s * unit)[0]], 1)
                for s in (1e-6, -1e-6)
            ]
            columns.append((ends[0] - ends[1])[0] / 2e-6)
    by_differences = torch.linalg.svdvals(torch.stack(columns, 1)).log()
    assert found["log_singular_values"][0] == pytest.approx(-by_differences.numpy(), abs=1e-4)


def regret_of_one(model, pixels):
    """The encoder copied, fitted to one image by torch's own Adam, and compared."""
    images = torch.from_numpy(pixels[None].copy())
    fitted = copy.deepcopy(model)
    draws = keyed_normal(images, model.seed, (DRAWS, model.latent))
    noise = keyed_normal(images, model.seed + 1, (STEPS, model.latent))
    optimiser = torch.optim.Adam(
        fitted.encoder.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    for step in range(STEPS):
        optimiser.zero_grad()
        (-fitted.log_weights(images, noise[:, step : step + 1]).sum()).backward()
        optimiser.step()
    with torch.no_grad():
        before, after = (torch.logsumexp(m.log_weights(images, draws), 1) for m in (model, fitted))
    return (after - before).item()


def test_likelihood_regret_of_a_batch_is_that_of_one_at_a_time():
    model, images = small_vae(), image_set(4)
    model.encoder[-1].bias.data[: model.latent] += (
        3  # a posterior far from the prior, so that there is something to regret
    )
    kept = {name: parameter.clone() for name, parameter in model.named_parameters()}
    found = ob.measure(model, images, "likelihood_regret")["likelihood_regret"]
    assert found == pytest.approx(
        [regret_of_one(model, pixels) for pixels in images.images], rel=1e-6
    )
    assert (found > 0.01).all()
    assert all(torch.equal(parameter, kept[name]) for name, parameter in model.named_parameters())


def small_diffusion_model():
    torch.manual_seed(0)
    model = small_diffusion((1, 8, 8), width=8, steps=50, terms=4).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def test_diffusion_statistics_by_hand():
    model, images = small_diffusion_model(), image_set(2, (1, 8, 8))
    found = ob.measure(model, images, "score_norms", "reconstruction_errors", "path_moments")
    times = [round(49 * level / 9) for level in range(LEVELS)]
    for number, pixels in enumerate(images.images):
        image = torch.from_numpy(pixels[None].copy())
        x = image.double() / 127.5 - 1

        def at(time):
            return tuple(scale.item() for scale in model.scales(torch.tensor([time])))

        def noise_of(x_t, time):
            with torch.no_grad():
                return model.network(x_t, torch.tensor([time]))

        def step(x_t, start, end):
            (alpha, sigma), (alpha_s, sigma_s) = at(start), at(end)
            noise = noise_of(x_t, start)
            return alpha_s * (x_t - sigma * noise) / alpha + sigma_s * noise, noise

        norms = [noise_of(at(time)[0] * x, time).norm().item() for time in times]
        assert found["score_norms"][number] == pytest.approx(norms)
        errors = []
        draws = keyed_normal(image, model.seed, (len(STARTS), 1, 8, 8))
        for k, start in enumerate(STARTS):
            x_t = at(times[start])[0] * x + at(times[start])[1] * draws[:, k]
            for level in range(start, 0, -1):
                x_t, _ = step(x_t, times[level], times[level - 1])
            denoised = (x_t - at(0)[1] * noise_of(x_t, 0)) / at(0)[0]
            errors.append(((denoised - x) ** 2).mean().item())
        assert found["reconstruction_errors"][number] == pytest.approx(errors)
        x_t, path = at(0)[0] * x, []
        for level in range(LEVELS):
            x_t, noise = step(x_t, times[level], times[min(level + 1, LEVELS - 1)])
            path.append(noise.flatten())
        along = torch.stack(path)
        change = (along[1:] - along[:-1]) * LEVELS
        moments = [
            (values**power).sum().item() for values in (along, change) for power in (1, 2, 3)
        ]
        # the network sees sin(128πx), which makes rounding grow a hundredfold a step
        assert found["path_moments"][number] == pytest.approx(moments, rel=1e-2)


def test_hierarchy_is_the_bound_with_latents_left_out():
    model = ob.load_model("hvae-fashionmnist")
    images = ob.load_images("fashionmnist/test[:4]")
    found = ob.measure(model, images, "log_prob", "log_prob_above_1", "log_prob_above_2")
    assert (found["log_prob"] > found["log_prob_above_1"]).all()
    assert (found["log_prob_above_1"] > found["log_prob_above_2"]).all()
    with torch.no_grad():
        direct = model.log_prob_above(torch.from_numpy(np.array(images.images)), 1)
    assert found["log_prob_above_1"] == pytest.approx(direct.numpy())


@pytest.mark.parametrize("codec", ["webp", "jxl"])
def test_codecs_are_lossless_and_measure_complexity(codec, random):
    if codec == "jxl":
        pytest.importorskip("imagecodecs", reason="the extra `codecs` is not installed")
    name = f"code_length_{codec}"
    noise = random.integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    flat = np.full((3, 3, 32, 32), 77, np.uint8)
    for images in (noise, noise[:, :1]):
        of_noise = ob.measure(None, ImageSet("", "", "", images), name)[name]
        of_flat = ob.measure(None, ImageSet("", "", "", flat[:, : images.shape[1]]), name)[name]
        assert (of_noise > 0.99 * images[0].size * math.log(256)).all()
        assert (of_flat < 60 * 8 * math.log(2)).all()


def test_score_norms_at_the_authors_widths():
    model = small_diffusion((1, 8, 8), width=8, steps=200).double().eval()
    torch.nn.init.normal_(model.network.leave[-1].weight)
    images = ImageSet("", "", "", image_set(3, shape=(1, 8, 8)).images)
    found = ob.measure(model, images, "score_norms_by_width")["score_norms_by_width"]
    x = torch.from_numpy(images.images.copy()).double() / 127.5 - 1
    for level, width in enumerate(np.geomspace(1, 0.01, 10)):
        ratios = (torch.sigmoid(-model.log_snr) / torch.sigmoid(model.log_snr)).sqrt() / 2
        t = int((ratios.log() - math.log(width)).abs().argmin())
        assert ratios[t] == pytest.approx(width, rel=0.1)  # of pixels in [0, 1]
        at, alpha = torch.full((3,), t), torch.sigmoid(model.log_snr[t]).sqrt()
        with torch.no_grad():
            norms = model.network(alpha * x, at).flatten(1).norm(dim=1)
        assert found[:, level] == pytest.approx(norms.numpy(), rel=1e-6)


def test_bounds_with_latents_at_the_prior_s_mode():
    """A prior without width is its mode: then drawing from it is the same."""
    from oodbench.models.hvae import HierarchicalVAE

    model = HierarchicalVAE((1, 8, 8), (2, 2, 2), width=8, samples=1).double().eval()
    images = ImageSet("", "", "", image_set(4, shape=(1, 8, 8)).images)
    pixels = torch.from_numpy(images.images.copy())
    names = "elbo", "elbo_above_1", "elbo_above_2"
    found = ob.measure(model, images, *names)
    with torch.no_grad():
        assert found["elbo"] == pytest.approx(model.log_prob(pixels).numpy())
        for k in (1, 2):
            prior = model.levels[k - 1].prior
            prior.weight[2:], prior.bias[2:] = 0, -60
            narrow = model.log_prob_above(pixels, k).numpy()
            assert found[f"elbo_above_{k}"] == pytest.approx(narrow)
