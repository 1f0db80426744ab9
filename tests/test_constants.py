"""Numbers and sentences that a reader of a row relies on, each held by a value that is written here."""

from __future__ import annotations

import importlib.util
import math
import os

import numpy as np
import pytest
import sklearn.model_selection
import torch
from click.testing import CliRunner
from PIL import Image
from rich.cells import cell_len
from torch.nn import functional as F

import oodbench as ob
from oodbench.cli import main
from oodbench.data.catalog import catalog
from oodbench.data.division import split_indices
from oodbench.data.own import own_sets
from oodbench.errors import DataError, MissingDataError, ScorerError
from oodbench.metrics import METRICS, auroc, detection_metrics
from oodbench.metrics.comparison import critical_difference, difference
from oodbench.metrics.intervals import proportion
from oodbench.models.diffusion import Diffusion, linear_log_snr, small_diffusion
from oodbench.models.logistic import scaled
from oodbench.models.masked_pixelcnn import MaskedPixelCNN
from oodbench.models.pixel_likelihood import PixelLikelihood
from oodbench.models.vae import dcgan_vae, mlp_vae, rosca_vae
from oodbench.passes.batches import prepare
from oodbench.passes.executors import default_workers
from oodbench.passes.values import shard_starts
from oodbench.plan import make_plan
from oodbench.registry import models as user_models
from oodbench.registry import register_model
from oodbench.scorers.fitted import tail_probability
from oodbench.suite import Analysis, Pair, Suite
from oodbench.testing import UniformModel
from oodbench.zoo.describe import describe


def oodbench(*arguments, code=0, width=None):
    result = CliRunner(env={"COLUMNS": str(width)} if width else None).invoke(main, list(arguments))
    assert result.exit_code == code, result.output + result.stderr
    return result.output + result.stderr


# --- metrics ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_in", "n_ood", "far"), [(3, 3, 0.5010188), (3, 9, 0.6209952), (100, 40, 0.9655112)]
)
def test_the_interval_at_exactly_zero_and_one_is_newcombe_s(n_in, n_ood, far):
    low, high = np.arange(n_in), 1000 + np.arange(n_ood)
    assert auroc(low, high) == pytest.approx((1, far, 1), abs=1e-7)
    low, high = np.arange(n_ood), 1000 + np.arange(n_in)
    assert auroc(high, low) == pytest.approx((0, 0, 1 - far), abs=1e-7)


def test_wilson_s_interval_of_a_rate():
    assert proportion(2, 10) == pytest.approx((0.2, 0.0566822, 0.5098375), abs=1e-7)
    assert proportion(0, 3) == pytest.approx((0, 0, 0.5614970), abs=1e-7)


def test_two_images_of_each_class_are_enough_for_intervals_and_one_is_not():
    two = detection_metrics(np.array([0.0, 2.0]), np.array([1.0, 3.0]), 50)
    assert all(np.isfinite(two[name]).all() for name in METRICS)
    one = detection_metrics(np.array([0.0]), np.array([1.0, 3.0]), 50)
    assert all(
        np.isnan(one[name][1:]).all() and one[name].value == one[name].value for name in METRICS
    )


def test_the_bootstrap_has_a_thousand_replicates_and_seed_zero():
    random = np.random.default_rng(0)
    scores = random.normal(size=12), random.normal(1, 1, 9)
    assert detection_metrics(*scores) == detection_metrics(*scores, 1000, 0)
    assert detection_metrics(*scores) != detection_metrics(*scores, 1000, 1)


def test_the_interval_of_a_difference_lies_around_it():
    covariance = np.array([[0.0004, 0.0001], [0.0001, 0.0009]])
    found = difference(np.array([0.8, 0.7]), covariance, 0, 1)
    half = 1.959964 * math.sqrt(0.0011)
    assert found.estimate == pytest.approx((0.1, 0.1 - half, 0.1 + half), abs=1e-7)
    assert found.p == pytest.approx(math.erfc(0.1 / math.sqrt(0.0011) / math.sqrt(2)), rel=1e-9)


def test_nemenyi_s_difference_is_demsar_s_table():
    assert critical_difference(5, 30) == pytest.approx(2.728 * math.sqrt(5 * 6 / 180), rel=1e-3)


# --- scorers ------------------------------------------------------------------------------------


class SearchedError(Exception):
    """A search that is not to be made."""


@pytest.mark.parametrize(
    ("name", "column", "kinds"),
    [
        ("msma-gmm", "score_norms_by_width", ["full"]),
        ("msma-gmm-snr", "score_norms", ["full"]),
        ("diffpath-6d", "path_moments", ["full", "tied", "diag", "spherical"]),
    ],
)
def test_mixtures_are_chosen_among_these_sizes_in_five_folds(
    monkeypatch, random, name, column, kinds
):
    asked = {}

    def search(estimator, grid, **options):
        asked.update(grid, **options)
        raise SearchedError

    monkeypatch.setattr(sklearn.model_selection, "GridSearchCV", search)
    with pytest.raises(SearchedError):
        ob.scorer(name).fitted({column: random.normal(size=(50, 6))})
    assert asked == {"n_components": [2, 5, 10, 20], "covariance_type": kinds, "cv": 5}


LEAST = {
    "dose-kde": 20,
    "dose-svm": 20,
    "dose-kde-vae": 20,
    "dose-svm-vae": 20,
    "msma-gmm": 50,
    "msma-gmm-snr": 50,
    "diffpath-6d": 50,
    "msma-knn": 5,
    "msma-knn-snr": 5,
    "gradient-layers": 10,
    "fisher-combination": 40,
    "sitn": 20,
    "residual-whiteness": 20,
    "dose-copod": 20,
    "dose-mahalanobis": 20,
    "dose-copod-vae": 20,
    "dose-mahalanobis-vae": 20,
    "likelihood-path-copod": 20,
    "likelihood-path-mahalanobis": 20,
    "diffpath-1d": 20,
}
"""Reference images without which a scorer cannot be fitted."""


@pytest.mark.parametrize("name", LEAST)
def test_a_scorer_is_fitted_to_so_many_images_and_not_to_one_less(monkeypatch, random, name):
    def search(*given, **options):
        raise SearchedError

    monkeypatch.setattr(sklearn.model_selection, "GridSearchCV", search)
    tables = {"score_norms", "score_norms_by_width", "path_moments", "layer_gradient_norms"}
    scorer, least = ob.scorer(name), LEAST[name]
    sizes = {need: (least, 6) if need in tables else least for need in scorer.fit_needs}
    reference = {need: random.normal(size=size) for need, size in sizes.items()}
    fewer = {need: column[1:] for need, column in reference.items()}
    with pytest.raises(
        ScorerError, match=f"at least {least} in-dist reference images, not {least - 1};"
    ):
        scorer.fitted(fewer)
    try:
        scorer.fitted(reference)
    except SearchedError:  # it came as far as the mixture
        assert name in ("msma-gmm", "msma-gmm-snr", "diffpath-6d")


def test_a_p_value_counts_what_is_larger_and_not_what_is_equal():
    assert tail_probability(np.array([1.0, 2.0, 2.0, 3.0]), np.array([0, 2, 3, 4])).tolist() == [
        1,
        0.25,
        0,
        0,
    ]


# --- models -------------------------------------------------------------------------------------


def raster_mask(kernel):
    """Of a convolution that sees the pixels up to its own in raster order."""
    mask = torch.zeros(kernel * kernel, dtype=torch.float64)
    mask[: kernel * kernel // 2 + 1] = 1
    return mask.reshape(kernel, kernel)


def test_the_masked_pixelcnn_s_block_is_added_to_its_input():
    torch.manual_seed(0)
    model = MaskedPixelCNN((1, 6, 5), hidden=3, repeats=2, bins=4).double()
    assert len(list(model.block)) == 6
    x = torch.randn(2, 1, 6, 5, dtype=torch.float64)
    first, middle, last = model.block[0], model.block[2], model.block[4]
    with torch.no_grad():
        h = model.enter(x)
        for _ in range(2):
            inner = F.relu(F.conv2d(h, first.weight, first.bias))
            inner = F.relu(F.conv2d(inner, middle.weight * raster_mask(3), middle.bias, padding=1))
            h = h + F.relu(F.conv2d(inner, last.weight, last.bias))
        expected = model.leave(h).unflatten(1, (4, 1))
        assert torch.allclose(model.logits(x), expected, rtol=1e-12)
    assert (h - model.enter(x)).abs().max() > 1e-3


def test_a_gaussian_decoder_is_a_normal_of_unit_variance_over_a_bin_of_one_255th():
    levels = torch.tensor([0, 51, 255]).reshape(1, 1, 1, 3)
    out = torch.tensor([0.0, 0.5, 0.5]).double().reshape(1, 1, 1, 3)
    pixels = PixelLikelihood("gaussian", 1, 256)
    found = pixels.log_prob(scaled(levels, 256, torch.float64), out).item()
    squares = 0 + 0.3**2 + 0.5**2
    assert found == pytest.approx(
        -0.5 * squares - 3 * math.log(255 * math.sqrt(2 * math.pi)), rel=1e-12
    )
    assert pixels.sample(out).flatten().tolist() == [0, 128, 128]


@pytest.mark.parametrize("make", [mlp_vae, dcgan_vae])
def test_encoders_of_others_take_pixels_from_zero_to_one(make):
    seen = make((1, 32, 32)).encoder_input(scaled(torch.tensor([0, 51, 255]), 256, torch.float64))
    assert seen.tolist() == pytest.approx([0, 0.2, 1])


def test_our_encoder_takes_pixels_from_minus_one_to_one():
    seen = rosca_vae((1, 4, 4), width=1).encoder_input(
        scaled(torch.tensor([0, 255]), 256, torch.float64)
    )
    assert seen.tolist() == [-1, 1]


def test_a_small_diffusion_is_what_its_cards_leave_out():
    model = small_diffusion((1, 8, 8))
    assert model.network.enter.out_channels == 32
    assert (len(model.log_snr), model.terms, model.bins, model.seed) == (1000, 16, 256, 0)
    assert linear_log_snr(3).tolist() == pytest.approx([13.3, 4.15, -5])


class Linear(torch.nn.Module):
    """Predicts a share of what it sees as noise."""

    def __init__(self):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x_t, t):
        return self.share * x_t


def test_a_bound_has_no_more_terms_than_steps_between_times():
    model = Diffusion((1, 1, 1), Linear(), torch.tensor([3.0, 1.0, 0.0, -1.0]), terms=50)
    assert model.terms == 3
    assert model.strata == [(1, 2), (2, 3), (3, 4)]


def test_the_loss_of_a_diffusion_is_the_negative_bound():
    """On one black pixel whose terms are integrals by hand: ``E(ε − s(αx + σε))² = (1 − sσ)² + (sαx)²``."""
    log_snr = torch.tensor([3.0, 0.5, 0.0], dtype=torch.float64)
    model = Diffusion((1, 1, 1), Linear(), log_snr, terms=2, bins=4)
    alpha, sigma = torch.sigmoid(log_snr).sqrt().tolist(), torch.sigmoid(-log_snr).sqrt().tolist()
    steps = 0.0
    for t in (1, 2):
        weight = 0.5 * math.expm1(log_snr[t - 1] - log_snr[t])
        steps += weight * ((1 - 0.5 * sigma[t]) ** 2 + (0.5 * alpha[t]) ** 2)
    prior = 0.5 * (alpha[2] ** 2 + sigma[2] ** 2 - 1) - math.log(sigma[2])
    noise = np.linspace(-8, 8, 4001)
    weights = np.exp(-0.5 * noise**2) / np.exp(-0.5 * noise**2).sum()
    guess = (1 - 0.5 * sigma[0]) * (-alpha[0] + sigma[0] * noise) / alpha[0]  # of the pixel, −1
    beyond = (-1 + 1 / 3 - guess) * alpha[0] / sigma[0]
    known = weights @ torch.special.log_ndtr(torch.from_numpy(beyond)).numpy()
    torch.manual_seed(0)
    with torch.no_grad():
        losses = model.loss(torch.zeros(40_000, 1, 1, 1, dtype=torch.uint8))
    assert prior == pytest.approx(0.3465736, abs=1e-6)
    assert losses.mean().item() == pytest.approx(
        steps + prior - known, abs=4 * losses.std().item() / 200
    )
    assert losses.std().item() / 200 < 0.05


# --- data ---------------------------------------------------------------------------------------


def test_the_order_of_ref_never_changes():
    assert split_indices(60_000)["ref"][:5].tolist() == [3196, 59096, 40146, 39646, 1722]
    assert len(split_indices(60_000)["ref"]) == 6000
    assert split_indices(20)["ref"].tolist() == [3, 6]


def test_generated_sets_are_coloured_and_32_wide_unless_a_model_asks():
    assert ob.load_images("noise").images.shape == (500, 3, 32, 32)
    assert ob.load_images("constant").images.shape == (500, 3, 32, 32)
    assert ob.load_images("constant", shape=(1, 8, 6)).images.shape == (256, 1, 8, 6)


@pytest.fixture
def own(tmp_path, home, monkeypatch):
    """A user's folder of data."""
    monkeypatch.setenv("OODBENCH_DATA", str(tmp_path))
    return tmp_path


def test_a_file_named_as_a_set_is_whole_and_divided_where_a_split_is_named(own, random):
    images = random.integers(0, 256, (40, 8, 8)).astype(np.uint8)
    np.savez(own / "mine.npz", images=images)
    assert np.array_equal(ob.load_images("mine").images[:, 0], images)
    assert [len(ob.load_images(f"mine/{split}")) for split in ("train", "ref", "test")] == [
        28,
        6,
        6,
    ]
    np.savez(own / "mine_test.npz", images=images[:5])
    for split in ("train", "ref"):
        with pytest.raises(
            MissingDataError, match=rf"mine has no split '{split}' .* it has test \(5"
        ):
            ob.load_images(f"mine/{split}")


def test_own_sets_are_listed_in_order(own):
    names = [f"{letter}set" for letter in "hbdacgfe"]
    for name in names:
        np.savez(own / f"{name}_test.npz", images=np.zeros((2, 8, 8), np.uint8))
    assert own_sets(catalog()) == sorted(names)


def test_colours_and_places_of_a_folder_of_images(tmp_path, home, random):
    colour = random.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    grey = random.integers(0, 256, (5, 7)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "b.png")
    found = ob.load_images(str(tmp_path)).images
    assert found.shape == (2, 3, 5, 7)
    for channel in range(3):
        assert np.array_equal(found[0, channel], colour[:, :, channel])
        assert np.array_equal(found[1, channel], grey)


def test_unequal_images_of_a_folder_are_named_with_their_shapes(tmp_path, home):
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((6, 7), np.uint8)).save(tmp_path / "b.png")
    with pytest.raises(
        DataError, match=r"unequal shapes \(\(1, 5, 7\) and \(1, 6, 7\), …\); name a view"
    ):
        ob.load_images(str(tmp_path))


# --- how work is divided ------------------------------------------------------------------------


def test_a_shard_has_500_images():
    assert list(shard_starts(1001)) == [0, 500, 1000]
    assert list(shard_starts(500)) == [0]


@pytest.mark.parametrize(("n", "first"), [(500, 300), (400, 200), (250, 125), (31, 15)])
def test_a_pass_is_prepared_on_the_last_200_reference_images_or_on_half(n, first):
    class Prepared:
        name = "prepared"
        prepare = staticmethod(lambda model, images: images)
        model_free = False
        too_few = staticmethod(lambda images, numbers: None)

    reference = np.arange(n, dtype=np.int16).reshape(n, 1, 1, 1)
    (seen,) = prepare(Prepared, None, reference)
    assert seen.flatten().tolist() == list(range(first, n))


def test_a_cpu_has_a_worker_a_core_and_an_accelerator_one_in_all(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert default_workers("cpu") == 3
    assert default_workers("cuda:1") == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 99)
    assert default_workers("cpu") == 16


def test_what_a_suite_leaves_out():
    suite = Suite(
        name="s",
        title="",
        models=["m"],
        pairs=[Pair(in_dist="a", ood=["b"])],
        scorers=["likelihood"],
    )
    assert (suite.seed, suite.bootstrap, suite.limit, suite.analysis) == (0, 1000, None, None)
    analysis = Analysis()
    assert (analysis.images, analysis.train, analysis.probes) == (200, 1000, 64)
    assert (analysis.samples, analysis.few_samples, analysis.slow_samples) == (200, 48, 16)
    assert analysis.temperatures == (0.3, 0.5, 0.7, 0.85)
    assert analysis.gray == (0, 12, 25, 37, 50, 62, 75, 87)


def test_a_statistic_whose_package_is_missing_is_a_skip_that_names_it(home, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "imagecodecs" else find(name, *rest),
    )
    pairs = [Pair(in_dist="fashionmnist", ood=["mnist"])]
    scorers = ["input-complexity-jxl"]
    suite = Suite(
        name="s", title="", models=["glow-fashionmnist"], pairs=pairs, scorers=scorers, limit=5
    )
    made = make_plan(suite)
    assert not made.trials
    assert [skip.reason for skip in made.skips] == [
        "code_length_jxl needs the package imagecodecs: `pip install 'oodbench[codecs]'`"
    ]


# --- what the command line prints ---------------------------------------------------------------


def test_a_registered_model_is_shown_with_what_it_was_trained_on(home):
    class Trained(UniformModel):
        trained_on = "mnist"

    register_model("const-trained")(Trained)
    register_model("const-nowhere")(UniformModel)
    try:
        shown = oodbench("show", "const-trained")
        assert "model const-trained: shape (1, 28, 28), trained on mnist, exact" in shown
        shown = oodbench("show", "const-nowhere")
        assert "model const-nowhere: shape (1, 28, 28), trained on not stated, exact" in shown
    finally:
        for name in ("const-trained", "const-nowhere"):
            user_models._entries.pop(name, None)
        describe.cache_clear()


def test_a_training_is_shown_with_three_digits(home, tmp_path, monkeypatch):
    log = "step,ref_bits_per_dim,auroc_mnist\n99,3.14159,0.27182\n"
    folder = describe("glow-mnist").folder

    def read(card):
        (tmp_path / "log.csv").write_text(log)
        return original(card.model_copy(update={"folder": tmp_path}))

    from oodbench import listing

    original = listing.training_log
    monkeypatch.setattr(listing, "training_log", read)
    assert folder.name == "glow-mnist"
    assert "step 100: 3.142 bits/dim, AUROC mnist 0.272" in oodbench("show", "glow-mnist").replace(
        "'", ""
    )
    assert "0.2718" not in oodbench("show", "glow-mnist")


def test_fetched_weights_are_told_in_megabytes(home, tmp_path, monkeypatch):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(bytes(2_500_000))
    monkeypatch.setattr("oodbench.zoo.hub.fetch_weights", lambda card: file)
    assert f"glow-mnist: 2.5 MB, as its card says, in {file}" in oodbench("fetch", "glow-mnist")


def test_damaged_sets_are_counted(own):
    for name in ("svhn", "mnist"):
        (own / f"{name}_test.npz").write_bytes(b"PK\x03\x04 cut short")
    printed = oodbench("data", "verify", "svhn", "mnist", "fashionmnist", code=1)
    assert "Error: 2 image sets are damaged" in printed


def test_a_wide_table_that_is_piped_has_lines_of_160(home):
    lines = oodbench("list", "scorers", "--wide", width=80).splitlines()
    assert 120 < max(map(cell_len, lines)) <= 160


def test_seed_zero_is_a_seed(home):
    printed = oodbench(
        "plan", "--suite", "quick", "--limit", "5", "--seed", "0", "--only", "likelihood"
    )
    assert "0 skips" in printed
