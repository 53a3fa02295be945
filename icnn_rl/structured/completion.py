"""Completion of images: the missing half minimises a network that is convex in it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, final

import torch
import torch.nn.functional as F
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from icnn_rl.adjoints import unrolled
from icnn_rl.functions import ConvexFunction, quadratic
from icnn_rl.networks import Conv, ConvPICNN
from icnn_rl.networks.checks import Shape
from icnn_rl.networks.layers import Layer
from icnn_rl.sets import Box, Euclidean
from icnn_rl.solvers import Solution, minimize
from icnn_rl.structured.half_images import (
    Variations,
    fit_kernel_regression,
    halves,
    joined,
    require_images,
)
from icnn_rl.structured.losses import ArgMinError, LossValue
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Objective, Trainer, TrainingOptions

Form = Literal["convex", "free", "plain"]

PIXELS = Box(0.0, 1.0)
LAYERS: tuple[Layer, ...] = (Conv(8, 5, stride=2, padding=2), Conv(16, 5, stride=2, padding=2))
STEP = 1.0  # of gradient descent: one over the curvature of the quadratic term


@final
class UNet(nn.Module):
    """Three convolutions down, a short code, three convolutions up that also read the way down.

    The code is the only path from distant pixels: a few dozen numbers, so that the network cannot
    memorise a small data set.

    Args:
        shape: of the image, ``(1, height, width)``, both divisible by 8.

    Raises:
        ValueError: the image cannot be halved three times.

    Source: Ronneberger, Fischer & Brox, "U-Net: Convolutional networks for biomedical image
    segmentation", MICCAI 2015.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        _, height, width = shape
        if height % 8 or width % 8:
            raise ValueError(f"shape: expected height and width divisible by 8, got {shape}")
        widths = (1, 8, 16, 32)
        self.down = nn.ModuleList(
            nn.Conv2d(below, above, 5, stride=2, padding=2) for below, above in pairwise(widths)
        )
        coarse = (32, height // 8, width // 8)
        size, code, dropout = 32 * height * width // 64, 32, 0.3
        self.code = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(size, code),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(code, size),
            nn.ReLU(),
            nn.Unflatten(1, coarse),
        )
        self.up = nn.ModuleList(
            nn.Conv2d(above + level, level, 3, padding=1)
            for above, level in ((32, 32), (32, 16), (16, 8))
        )
        self.output = nn.Conv2d(8 + 1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """The answer, flat, ``(B, height * width)``, for x of shape ``(B, *shape)``."""
        centred = x - 0.5
        z, levels = centred, []
        for convolution in self.down:
            z = F.relu(convolution(z))
            levels.append(z)
        z = self.code(z)
        for convolution, level in zip(self.up, reversed(levels), strict=True):
            z = F.relu(convolution(torch.cat([z, level], 1)))
            z = F.interpolate(z, scale_factor=2.0, mode="bilinear")
        answer: Tensor = self.output(torch.cat([z, centred], 1)).flatten(1)
        return 0.5 + answer


@final
class CompletionNetwork(nn.Module):
    """The energy of a missing half y beside a given half x.

        f̃(x, y) = f(x, y) + 1/2 ‖y - r(x)‖²,      ŷ = argmin { f̃(x, y) : y in [0, 1]ⁿ }

    f is a ``ConvPICNN`` and r a ``UNet``, so the answer is the proximal point of a convex function
    at the guess of a plain network. In y, r adds a linear term, -r(x)ᵀy, whose coefficients come
    from a network that sees all of x.

    Args:
        shape: of x and y, ``(1, height, width)``, height and width divisible by 8.
        form: ``convex``; ``free``, for comparison, the same network with Wᶻ of any sign, whose
            minimum has no true bounds; ``plain``, without f: the answer is the guess.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 6.3.
    """

    def __init__(self, shape: Shape, form: Form = "convex") -> None:
        super().__init__()
        if form not in ("convex", "free", "plain"):
            raise ValueError(f"form: expected 'convex', 'free' or 'plain', got {form!r}")
        self.form = form
        self.guess = UNet(shape)
        self.path = None if form == "plain" else ConvPICNN(shape, shape, LAYERS, LAYERS, "softplus")
        if self.path is not None and form == "free":
            self.path.path.nonnegativity = "none"  # no public option: f is not convex

    def condition(self, x: Tensor) -> ConvexFunction:
        """f̃(x, ·) for x of shape ``(B, *shape)``, a batch of functions of flat y."""
        near = quadratic(1.0, self.guess(x))
        return near if self.path is None else self.path.condition(x) + near

    def project_(self) -> None:
        """P₊ on f."""
        if self.path is not None:
            self.path.project_()


def completion_loss(net: CompletionNetwork, vary: Variations) -> Objective:
    """The squared error of answers to variants of the training images, for a ``Trainer``.

    Answers are differentiated through gradient steps. The loss without a margin,
    f̃(x, yᵢ) - min f̃(x, y), would teach f nothing: it is at least 1/2 ‖yᵢ - ŷ‖², with equality only
    where f is linear between the two, so any curvature of f raises it.

    Args:
        net: the energy.
        vary: makes the variants, new ones for every step.
    """
    model = StructuredModel(net, Euclidean())  # at a bound an answer has no gradient
    error = ArgMinError(steps=2, step=STEP)

    def loss(x: Tensor, y: Tensor, start: Tensor | None) -> LossValue:
        return error(model, *halves(vary(joined(x, y))))._replace(answer=None)

    return loss


@torch.no_grad()
def complete(
    net: CompletionNetwork,
    x: Tensor,
    estimate: Tensor | None = None,
    weight: float = 2.0,
    tol: float = 1e-3,
) -> Solution:
    """Missing halves, with certified gaps where the network is convex.

        ŷ = argmin { f̃(x, y) + w/2 ‖y - k(x)‖² : y in [0, 1]ⁿ }

    Args:
        net: the energy f̃.
        x: given halves, ``(B, *shape)``.
        estimate: k(x), another estimate of the missing halves, ``(B, n)``; None for none.
        weight: w ≥ 0.
        tol: certified gap at which an answer is good enough; its distance from the true minimiser
            is at most √(2 tol), the length of a vector of all pixels.

    Returns:
        A ``Solution``; for a ``free`` network the end of a gradient descent, without a proof.
    """
    f = net.condition(x)
    if estimate is not None:
        f = f + quadratic(weight, estimate)
    if net.form == "free":
        step = STEP / (1 + (0.0 if estimate is None else weight))
        return unrolled(f, PIXELS, step, 20, tol=tol)
    return minimize(f, PIXELS, tol, "projected_gradient")


@final
class ImageCompletion:
    """Fills the left half of images, given the right one.

    The energy is a ``CompletionNetwork`` plus, once it is trained, a quadratic around the answer of
    a kernel regression; the sum stays convex.

    Args:
        form: of the network.
        weight: w ≥ 0, of the kernel regression; 0 for the network alone.
        variations: random changes of the training images.
        options: how to train.
        seed: of every random number.

    Attributes:
        net: the fitted network.
        regression: the fitted kernel regression, None without.
        history: a row of numbers for every epoch.
    """

    def __init__(
        self,
        form: Form = "convex",
        *,
        weight: float = 2.0,
        variations: Variations | None = None,
        options: TrainingOptions | None = None,
        seed: int = 0,
    ) -> None:
        if not weight >= 0:
            raise ValueError(f"weight: expected a number >= 0, got {weight}")
        self.form: Form = form
        self.weight = weight
        self.variations = Variations() if variations is None else variations
        self.options = TrainingOptions(epochs=40, batch_size=32) if options is None else options
        self.seed = seed

    def fit(self, images: Tensor) -> ImageCompletion:
        """Learn from whole images.

        Args:
            images: ``(N, height, width)``, floating point numbers in [0, 1], the height divisible
                by 8, the width by 16.

        Raises:
            ValueError: images have another shape or type, or entries outside [0, 1].
            FloatingPointError: training diverged.
        """
        require_images(images)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            regression = fit_kernel_regression(images, self.variations) if self.weight else None
            x, y = halves(images)
            net = CompletionNetwork(x.shape[1:], self.form).to(images)
            loss = completion_loss(net, self.variations)
            trainer = Trainer(net, loss, x, y, self.options, seed=self.seed)
            for _ in trainer.run():
                pass
        self.net, self.regression, self.history = net, regression, trainer.history
        self._size = images.shape[1:]
        return self

    def infer(self, images: Tensor) -> Solution:
        """The missing halves, flat, with certified gaps; left halves of ``images`` are not read.

        Raises:
            NotFittedError: ``fit`` was not called.
            ValueError: images have another shape or type than in training, or given entries
                outside [0, 1].
        """
        if not hasattr(self, "net"):
            raise NotFittedError("this ImageCompletion is not fitted yet: call fit first")
        require_images(images, self._size)
        x, _ = halves(images.to(next(self.net.parameters())))
        estimate = None if self.regression is None else self.regression.predict(x)
        return complete(self.net, x, estimate, self.weight)

    def predict(self, images: Tensor) -> Tensor:
        """The images with their left halves filled, ``(B, height, width)``."""
        return joined(halves(images)[0], self.infer(images).y.to(images))
