"""Completion of images: halves, the energy, its answers, and what the helpers promise."""

from __future__ import annotations

import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor

from icnn_rl.structured.completion import CompletionNetwork, ImageCompletion, UNet, complete
from icnn_rl.structured.half_images import LocalKernelRegression, Variations, halves, joined
from icnn_rl.structured.training import TrainingOptions

SIDE = 16
OPTIONS = TrainingOptions(epochs=20, batch_size=8, learning_rate=1e-3)
STILL = Variations(turn=0.0, stretch=0.0, shift=0.0, mirrored=0.0, contrast=0.0, brightness=0.0)


def blobs(count: int, seed: int) -> Tensor:
    """Symmetric pairs of spots at random heights and distances, the left ones darker."""
    generator = torch.Generator().manual_seed(seed)
    height, reach = 4 + 8 * torch.rand(2, count, 1, 1, generator=generator)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    offset = columns - (SIDE - 1) / 2
    spots = torch.exp(-((rows - height) ** 2 + (offset.abs() - reach / 2) ** 2) / 6)
    return spots * torch.where(offset < 0, 0.5, 1.0)


def mse(a: Tensor, b: Tensor) -> float:
    return (a - b).square().mean().item()


@pytest.fixture(scope="module")
def fitted() -> ImageCompletion:
    return ImageCompletion(variations=STILL, options=OPTIONS).fit(blobs(64, seed=0))


def test_halves_lie_over_each_other_and_join_again() -> None:
    images = torch.rand(3, 4, 6)
    x, y = halves(images)
    assert torch.equal(joined(x, y), images)
    symmetric = torch.cat([images[:, :, :3], images[:, :, :3].flip(-1)], -1)
    x, y = halves(symmetric)
    assert torch.equal(x.flatten(1), y)


def test_completions_beat_the_mean_image_and_the_mirror_image(fitted: ImageCompletion) -> None:
    train, test = blobs(64, seed=0), blobs(32, seed=1)
    x, y = halves(test)
    error = mse(fitted.infer(test).y, y)
    assert error < 0.2 * mse(halves(train)[1].mean(0), y)
    assert error < 0.2 * mse(x.flatten(1), y)
    assert mse(complete(fitted.net, x).y, y) < 0.5 * mse(halves(train)[1].mean(0), y)


def test_given_half_is_kept_and_the_other_not_read(fitted: ImageCompletion) -> None:
    test = blobs(4, seed=1)
    blank = test.clone()
    blank[:, :, : SIDE // 2] = 0.0
    filled = fitted.predict(blank)
    assert torch.equal(filled[:, :, SIDE // 2 :], test[:, :, SIDE // 2 :])
    assert torch.equal(filled, fitted.predict(test))


def test_gaps_are_certified_and_true(fitted: ImageCompletion) -> None:
    x, _ = halves(blobs(8, seed=2))
    solution = complete(fitted.net, x, tol=1e-3)
    assert solution.converged.all()
    with torch.no_grad():
        f = fitted.net.condition(x)
        for y in (torch.rand(8, 128), halves(blobs(8, seed=2))[1], solution.y + 0.01):
            assert (f.value(y.clamp(0, 1)) >= solution.lower_bound).all()
    exact = complete(fitted.net, x, tol=1e-5)
    distance = (solution.y - exact.y).square().sum(-1)
    assert (distance <= 2 * (solution.gap + exact.gap)).all()


def test_energy_of_a_trained_network_is_convex(fitted: ImageCompletion) -> None:
    x, _ = halves(blobs(16, seed=3))
    a, b = torch.rand(2, 16, 128)
    with torch.no_grad():
        f = fitted.net.condition(x)
        assert f.strong_convexity == 1.0
        middle = (f.value(a) + f.value(b)) / 2 - (a - b).square().sum(-1) / 8
        assert (f.value((a + b) / 2) <= middle + 1e-5).all()


def test_estimate_pulls_the_answer_by_its_weight() -> None:
    torch.manual_seed(0)
    net = CompletionNetwork((1, 16, 8), "plain").eval()
    x, estimate = torch.rand(2, 1, 16, 8), torch.rand(2, 128)
    guess = net.guess(x).clamp(0, 1)
    assert torch.allclose(complete(net, x).y, guess, atol=1e-3)
    both = complete(net, x, estimate, weight=3.0, tol=1e-6)
    assert torch.allclose(both.y, ((net.guess(x) + 3 * estimate) / 4).clamp(0, 1), atol=1e-3)


def test_free_network_may_leave_the_cone_and_the_convex_one_may_not() -> None:
    images = blobs(32, seed=0)
    options = TrainingOptions(epochs=2, batch_size=16, learning_rate=1e-2)
    least = {}
    for form in ("convex", "free"):
        net = ImageCompletion(form, weight=0.0, options=options).fit(images).net
        assert net.path is not None
        least[form] = min(w.min().item() for w in net.path.path.weight_z() if w is not None)
    assert least["convex"] >= 0.0
    assert least["free"] < 0.0


def test_fits_of_one_seed_agree() -> None:
    images, options = blobs(32, seed=0), TrainingOptions(epochs=1)
    first, second = (ImageCompletion(options=options, seed=3).fit(images) for _ in range(2))
    assert torch.equal(first.predict(images[:4]), second.predict(images[:4]))


def test_kernel_regression_recalls_what_it_learnt() -> None:
    x, y = halves(blobs(20, seed=0))
    regression = LocalKernelRegression(bands=4, ridge=1e-9).fit(x, y)
    assert mse(regression.predict(x), y) < 1e-6


def test_variations_stay_images_and_may_change_nothing() -> None:
    images = blobs(5, seed=0)
    assert torch.allclose(STILL(images), images, atol=1e-5)
    flipped = Variations(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)(images)
    assert torch.allclose(flipped, images.flip(-1), atol=1e-5)
    varied = Variations()(images)
    assert varied.shape == images.shape
    assert ((varied >= 0) & (varied <= 1)).all()
    assert not torch.allclose(varied, images, atol=1e-3)


def test_what_is_completed_is_checked_as_what_is_learnt(fitted: ImageCompletion) -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        ImageCompletion().infer(blobs(4, seed=0))
    with pytest.raises(ValueError, match=r"entries in \[0, 1\], got .* to 2"):
        fitted.predict(255 * blobs(4, seed=0))
    with pytest.raises(ValueError, match=r"floating point numbers, got torch\.uint8"):
        fitted.predict(torch.zeros(4, SIDE, SIDE, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"N >= 1.*got \(0, 16, 16\)"):
        fitted.predict(blobs(0, seed=0))
    with pytest.raises(ValueError, match=r"\(16, 16\) as in training, got \(24, 32\)"):
        fitted.predict(torch.rand(4, 24, 32))
    hidden = blobs(4, seed=1)
    hidden[:, :, : SIDE // 2] = torch.nan  # not read
    assert torch.equal(fitted.predict(hidden), fitted.predict(blobs(4, seed=1)))


def test_images_of_double_precision_are_completed() -> None:
    images, options = blobs(16, seed=0).double(), TrainingOptions(epochs=1)
    completion = ImageCompletion(options=options).fit(images)
    assert completion.infer(images).y.dtype == torch.float64
    filled = completion.predict(images.float())
    assert filled.dtype == torch.float32
    assert torch.equal(filled[:, :, SIDE // 2 :], images.float()[:, :, SIDE // 2 :])


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"entries in \[0, 1\], got .* to 2"):
        ImageCompletion().fit(255 * blobs(4, seed=0))
    for shape in ((4, 16, 24), (4, 12, 16), (0, 16, 16), (16, 16)):
        with pytest.raises(ValueError, match=r"expected shape \(N, height, width\).*got"):
            ImageCompletion().fit(torch.rand(shape))
    with pytest.raises(ValueError, match=r"floating point numbers, got torch\.uint8"):
        ImageCompletion().fit(torch.zeros(4, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match="entries in"):
        ImageCompletion().fit(torch.full((4, 16, 16), torch.nan))
    with pytest.raises(ValueError, match="weight"):
        ImageCompletion(weight=-1.0)
    with pytest.raises(ValueError, match="form"):
        CompletionNetwork((1, 16, 8), "concave")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="divisible by 8"):
        UNet((1, 20, 8))
    with pytest.raises(ValueError, match="bands"):
        LocalKernelRegression(bands=5).fit(*halves(blobs(4, seed=0)))
