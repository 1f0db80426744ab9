"""Golden numbers of the shipped weights: a change of arithmetic, noise or decoding shows here first."""

from __future__ import annotations

from pathlib import Path

import pytest

import oodbench as ob
from oodbench.registry import scorers
from oodbench.runner import Options, run_suite
from oodbench.suite import Pair, Suite
from oodbench.zoo.cards import load_card

LOG_PROB = {
    "glow-additive-cifar10": [-5364.3641, -5236.9656, -5800.5010],
    "glow-additive-fashionmnist": [-1156.7207, -1507.8425, -803.1328],
    "diffusion-cifar10": [-6960.3055, -6570.1112, -7126.7607],
    "diffusion-fashionmnist": [-913.9688, -1157.8003, -515.0090],
    "glow-celeba32": [-6516.3186, -5895.9343, -6418.9538],
    "glow-cifar10": [-5127.4793, -5018.4818, -5588.9669],
    "glow-cifar10-background": [-9073.0746, -7802.8168, -8136.2868],
    "glow-fashionmnist": [-833.0088, -1120.1639, -531.0254],
    "glow-fashionmnist-background": [-1084.9524, -1357.1915, -795.2212],
    "glow-imagenet32": [-6005.3824, -5791.7482, -6430.0626],
    "glow-mnist": [-629.4846, -841.7990, -395.7840],
    "glow-small-cifar10-1": [-5831.6703, -5503.2451, -5972.2390],
    "glow-small-cifar10-2": [-5943.3622, -5521.7507, -5989.2559],
    "glow-small-cifar10-3": [-5902.9663, -5622.4877, -6081.2511],
    "glow-small-cifar10-4": [-5867.9000, -5482.6858, -5982.8912],
    "glow-small-cifar10-5": [-5918.6947, -5541.1729, -6018.8297],
    "glow-small-fashionmnist-1": [-1035.7390, -1387.8362, -684.8894],
    "glow-small-fashionmnist-2": [-1086.6263, -1412.5363, -680.5730],
    "glow-small-fashionmnist-3": [-1019.2246, -1359.0810, -663.1535],
    "glow-small-fashionmnist-4": [-1080.8541, -1380.1487, -654.1002],
    "glow-small-fashionmnist-5": [-1008.3216, -1362.7684, -635.6883],
    "glow-standard-cifar10": [-5493.3499, -5251.6005, -5778.7231],
    "glow-standard-fashionmnist": [-946.9571, -1248.9328, -602.8014],
    "glow-svhn": [-4955.3340, -4554.5129, -5043.9782],
    "cvglow-cifar10": [-7848.7371, -7792.2398, -7837.3215],
    "cvglow-fashionmnist": [-2529.7177, -2596.8178, -2465.1087],
    "hvae-cifar10": [-6548.4714, -5948.5473, -6737.3864],
    "hvae-fashionmnist": [-846.7328, -1062.0999, -469.7727],
    "pixelcnn-cifar10": [-5676.1023, -5140.3614, -5717.8077],
    "pixelcnn-cifar10-background": [-11145.4891, -10998.8745, -11323.7953],
    "pixelcnn-fashionmnist": [-702.3586, -943.6022, -409.1873],
    "pixelcnn-fashionmnist-background": [-864.0396, -1087.3382, -587.2600],
    "vae-cifar10": [-10779.8517, -10707.6435, -11759.6238],
    "vae-fashionmnist": [-949.7502, -1237.8539, -556.9383],
}
"""First three MNIST (28×28) or SVHN (32×32) test images, nats, seed 0."""


@pytest.mark.parametrize("name", LOG_PROB)
def test_log_prob_of_the_first_test_images(name):
    model = ob.load_model(name)
    images = ob.load_images(
        f"{'mnist' if model.shape[0] == 1 else 'svhn'}/test[first 3]", like=model
    )
    assert ob.measure(model, images, "log_prob")["log_prob"] == pytest.approx(
        LOG_PROB[name], rel=1e-5
    )


AUROC = {
    "glow-fashionmnist": {
        "anderson-darling": 0.637,
        "approximate-mass": 0.833,
        "code-length-jp2-two-sided": 0.721,
        "box-pierce": 0.568,
        "chi2": 0.761,
        "code-length-png": 0.005,
        "code-length-png-short": 0.995,
        "code-length-png-two-sided": 0.987,
        "code-length-webp-two-sided": 0.999,
        "dose-copod": 0.947,
        "dose-kde": 0.964,
        "dose-mahalanobis": 0.96,
        "dose-svm": 0.952,
        "ensemble-likelihood": 0.073,
        "fisher-combination": 0.895,
        "god1ks": 0.577,
        "god2ks": 0.552,
        "god2ks-pixels": 0.788,
        "gradient-layers": 0.567,
        "gradient-norm": 0.79,
        "image-numbers-kde": 0.958,
        "input-complexity-jp2": 0.358,
        "input-complexity-min": 1.0,
        "input-complexity-png": 1.0,
        "input-complexity-webp": 1.0,
        "klod-diagonal": 0.649,
        "ks": 0.767,
        "last-scale-likelihood": 0.122,
        "latent-kurtosis": 0.616,
        "lid": 0.98,
        "likelihood": 0.067,
        "likelihood-ratio": 0.907,
        "likelihood-two-sided": 0.863,
        "mmd": 0.662,
        "nearest-pixels": 0.95,
        "osada-mixture": 0.98,
        "osada-mixture-latent": 0.967,
        "pca-reconstruction": 0.954,
        "pixel-mean": 0.099,
        "pixel-mean-low": 0.901,
        "pixel-mean-two-sided": 0.811,
        "pixel-variance": 0.357,
        "pixel-variance-low": 0.643,
        "pixel-variance-two-sided": 0.32,
        "sitn": 0.604,
        "typicality": 0.877,
        "waic": 0.204,
        "waic-per-dim": 0.079,
    },
    "vae-fashionmnist": {
        "dose-copod-vae": 0.938,
        "dose-kde-vae": 0.984,
        "dose-mahalanobis-vae": 0.992,
        "dose-svm-vae": 1.0,
        "likelihood-path-copod": 0.601,
        "likelihood-path-mahalanobis": 0.967,
        "likelihood-regret": 0.986,
        "vae-kl": 0.788,
        "vae-reconstruction": 0.112,
    },
    "hvae-fashionmnist": {
        "hvae-ratio-1": 0.206,
        "hvae-ratio-1-drawn": 0.223,
        "hvae-ratio-2": 0.662,
        "hvae-ratio-2-drawn": 0.606,
    },
    "diffusion-fashionmnist": {
        "complexity-corrected-ratio": 1.0,
        "denoising-error": 0.816,
        "diffpath-1d": 0.443,
        "diffpath-6d": 0.71,
        "diffusion-reconstruction": 0.313,
        "gepc": 0.59,
        "msma-gmm": 0.709,
        "msma-gmm-snr": 0.818,
        "msma-knn": 0.603,
        "msma-knn-snr": 0.731,
        "scoped": 0.519,
    },
    "glow-cifar10": {"general-ratio": 0.67},
    "pixelcnn-fashionmnist": {
        "residual-whiteness": 0.778,
        "whiteness-2d": 0.833,
        "whiteness-rows": 0.668,
    },
}
"""AUROC of each scorer by model, 30 images drawn: FashionMNIST against MNIST, CIFAR-10 against SVHN, seed 0."""
COSTLY = {"gradient-norm", "gradient-layers", "fisher-combination", "likelihood-regret", "lid", "diffusion-reconstruction",
          "msma-gmm", "msma-knn", "msma-gmm-snr", "msma-knn-snr", "diffpath-6d",
          "diffpath-1d", "gepc", "scoped", "complexity-corrected-ratio", "denoising-error", "osada-mixture",
          "osada-mixture-latent"}  # fmt: skip


def golden_suite(model: str, names: list[str]) -> Suite:
    in_dist = load_card(model).trained_on
    pair = Pair(in_dist=in_dist, ood=["mnist" if in_dist == "fashionmnist" else "svhn"])
    limits = {"lid": 10, "fisher-combination": 80}
    limits |= dict.fromkeys(("msma-gmm", "msma-gmm-snr", "diffpath-6d"), 60)
    limits |= dict.fromkeys(("osada-mixture", "osada-mixture-latent"), 60)
    limit = limits.get(names[0], 30)
    return Suite(
        name="golden",
        title="",
        models=[model],
        pairs=[pair],
        scorers=names,
        limit=limit,
        bootstrap=0,
    )


def golden(model: str, names: list[str], folder: Path) -> dict[str, float]:
    rows = run_suite(golden_suite(model, names), Options(), folder)
    return {row["scorer"]: row["auroc"] for row in rows if row["status"] == "ok"}


@pytest.mark.parametrize("model", [model for model, own in AUROC.items() if own.keys() - COSTLY])
def test_auroc_of_each_scorer(model, tmp_path):
    names = [name for name in AUROC[model] if name not in COSTLY]
    assert golden(model, names, tmp_path) == pytest.approx(
        {name: AUROC[model][name] for name in names}, abs=2e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", AUROC)
def test_auroc_of_each_costly_scorer(model, tmp_path):
    for name in COSTLY & set(AUROC[model]):
        assert golden(model, [name], tmp_path / name) == pytest.approx(
            {name: AUROC[model][name]}, abs=5e-3
        )


def test_every_scorer_has_a_golden_number():
    # packages that may be absent; validation images, of which tests/test_seen.py has the laws; `train`, which does not travel
    optional = {"input-complexity-jxl", "code-length-jxl-two-sided", "likelihood-ratio-tuned"}
    optional |= {"diffusion-reconstruction-lpips"}
    optional |= {
        "msp",
        "energy",
        "mahalanobis-features",
        "knn-features",
    }  # tests/test_classifier.py has theirs
    of_train = {name for name in scorers if scorers[name].tunes_on == "in-dist train"}
    assert {name for own in AUROC.values() for name in own} == set(scorers) - optional - of_train
