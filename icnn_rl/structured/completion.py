"""Completion of images: the missing half minimises a network that is convex in it."""

from __future__ import annotations

from typing import Literal, final

import torch
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from icnn_rl.adjoints import unrolled
from icnn_rl.functions import ConvexFunction, quadratic
from icnn_rl.networks import Conv, ConvPICNN
from icnn_rl.networks.layers import Layer, Shape
from icnn_rl.sets import Box, Euclidean
from icnn_rl.solvers import Solution, minimize
from icnn_rl.structured.hourglass import Hourglass
from icnn_rl.structured.local_kernel import LocalKernelRegression
from icnn_rl.structured.losses import ArgMinError, LossValue
from icnn_rl.structured.model import StructuredModel
from icnn_rl.structured.training import Objective, Trainer, TrainingOptions
from icnn_rl.structured.variations import Variations

Form = Literal["convex", "free", "plain"]

PIXELS = Box(0.0, 1.0)
LAYERS: tuple[Layer, ...] = (Conv(8, 5, stride=2, padding=2), Conv(16, 5, stride=2, padding=2))
STEP = 1.0  # of gradient descent, 1 / γ
TRAINING_STEPS, DESCENT_STEPS = 2, 20  # those differentiated; those taken where f is not convex
COPIES = 12  # variants of each image that the expert learns


def halves(images: Tensor) -> tuple[Tensor, Tensor]:
    """The given right half, mirrored to lie over the missing left half, and that one, flat.

    Args:
        images: ``(N, height, width)``.

    Returns:
        x of shape ``(N, 1, height, width / 2)`` and y of shape ``(N, height * width / 2)``.
    """
    middle = images.shape[2] // 2
    return images[:, None, :, middle:].flip(-1), images[:, :, :middle].flatten(1)


def joined(x: Tensor, y: Tensor) -> Tensor:
    """The images whose ``halves`` are x and y."""
    given = x.squeeze(1)
    return torch.cat([y.view_as(given), given.flip(-1)], -1)


@final
class CompletionNetwork(nn.Module):
    """The energy of a missing half y beside a given half x.

        f̃(x, y) = f(x, y) + 1/2 ‖y - r(x)‖²,      ŷ = argmin { f̃(x, y) : y in [0, 1]ⁿ }

    f is a ``ConvPICNN`` and r an ``Hourglass``, so the answer is the proximal point of a convex
    function at the guess of a plain network. For a convex network of y, r is one more linear term,
    -r(x)ᵀy, whose coefficients come from a network that sees all of x.

    Args:
        shape: of x and y, ``(1, height, width)``, height and width divisible by 8.
        form: ``convex``; ``free``, the same network with Wᶻ of any sign, for comparison: no bound
            on its minimum is true; ``plain``, without f, so that the answer is the guess.

    Source: Amos, Xu & Kolter, "Input Convex Neural Networks", ICML 2017, section 6.3.
    """

    def __init__(self, shape: Shape, form: Form = "convex") -> None:
        super().__init__()
        if form not in ("convex", "free", "plain"):
            raise ValueError(f"form: expected 'convex', 'free' or 'plain', got {form!r}")
        self.form = form
        self.guess = Hourglass(shape)
        self.path = None if form == "plain" else ConvPICNN(shape, shape, LAYERS, LAYERS, "softplus")
        if self.path is not None and form == "free":
            self.path.path.nonnegativity = "none"  # not a choice of its users: it is not convex

    def condition(self, x: Tensor) -> ConvexFunction:
        """f̃(x, ·) for x of shape ``(B, *shape)``, a batch of functions of flat y."""
        near = quadratic(1.0, self.guess(x))
        return near if self.path is None else self.path.condition(x) + near

    def project_(self) -> None:
        """P₊ on f, where it is to be convex."""
        if self.path is not None:
            self.path.project_()


def completion_loss(net: CompletionNetwork, vary: Variations) -> Objective:
    """The squared error of answers to variants of the training images, for a ``Trainer``.

    Answers are differentiated through gradient steps. f̃(x, yᵢ) - min f̃(x, y), the loss
    without a margin, would teach f nothing: as f̃(x, yᵢ) - f̃(x, ŷ) ≥ 1/2 ‖yᵢ - ŷ‖², and equal only
    where f is linear between the two, any curvature of f raises it.

    Args:
        net: the energy.
        vary: makes the variants, new ones for every step.
    """
    model = StructuredModel(net, Euclidean())  # an answer held at a bound would have no gradient
    error = ArgMinError(steps=TRAINING_STEPS, step=STEP)

    def loss(x: Tensor, y: Tensor, start: Tensor | None) -> LossValue:
        return error(model, *halves(vary(joined(x, y))))

    return loss


@torch.no_grad()
def complete(
    net: CompletionNetwork,
    x: Tensor,
    opinion: Tensor | None = None,
    weight: float = 2.0,
    tol: float = 1e-3,
) -> Solution:
    """Missing halves, with certified gaps where the network is convex.

        ŷ = argmin { f̃(x, y) + w/2 ‖y - k(x)‖² : y in [0, 1]ⁿ }

    Args:
        net: the energy f̃.
        x: given halves, ``(B, *shape)``.
        opinion: k(x), what someone else takes the missing halves to be, ``(B, n)``; None for none.
        weight: w ≥ 0.
        tol: certified gap at which an answer is good enough; its distance from the true minimiser
            is at most √(2 tol), the length of a vector of all pixels.

    Returns:
        A ``Solution``; of a ``free`` network it is the end of a descent, and proves nothing.
    """
    f = net.condition(x)
    if opinion is not None:
        f = f + quadratic(weight, opinion)
    if net.form == "free":
        step = STEP / (1 + (0.0 if opinion is None else weight))
        return unrolled(f, PIXELS, step, DESCENT_STEPS, tol=tol)
    return minimize(f, PIXELS, tol, "projected_gradient")


@final
class ImageCompletion:
    """Fills the left half of images, given the right one.

    The energy is that of a ``CompletionNetwork``, to which a term that pulls to the opinion of a
    kernel regression is added once it is trained; energies add up, and stay convex.

    Args:
        form: of the network.
        weight: w ≥ 0, of the kernel regression's opinion; 0 for the network alone.
        variations: how the images to learn from are varied.
        options: how to train.
        seed: of every random number.

    Attributes:
        net: the fitted network.
        expert: the fitted kernel regression, None without.
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
        default = TrainingOptions(epochs=40, batch_size=32, warm_start=False)
        self.options = default if options is None else options
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
            expert = None if self.weight == 0 else learn_expert(images, self.variations)
            x, y = halves(images)
            net = CompletionNetwork(x.shape[1:], self.form).to(images)
            loss = completion_loss(net, self.variations)
            trainer = Trainer(net, loss, x, y, self.options, seed=self.seed)
            for _ in trainer.run():
                pass
        self.net, self.expert, self.history = net, expert, trainer.history
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
        opinion = None if self.expert is None else self.expert.predict(x)
        return complete(self.net, x, opinion, self.weight)

    def predict(self, images: Tensor) -> Tensor:
        """The images with their left halves filled, ``(B, height, width)``."""
        return joined(halves(images)[0], self.infer(images).y.to(images))


def learn_expert(images: Tensor, vary: Variations) -> LocalKernelRegression:
    """A kernel regression from half to half, learnt from several variants of each image."""
    return LocalKernelRegression().fit(*halves(torch.cat([vary(images) for _ in range(COPIES)])))


def require_images(images: Tensor, size: torch.Size | None = None) -> None:
    """Refuse what are no grey images, to learn from or to complete.

    Args:
        images: the images.
        size: height and width in training; None for images to learn from, which are read whole.

    Raises:
        ValueError: their type, number, shape or entries are wrong.
    """
    if not images.is_floating_point():
        raise ValueError(f"images: expected floating point numbers, got {images.dtype}")
    if images.dim() != 3 or not len(images) or images.shape[1] % 8 or images.shape[2] % 16:
        raise ValueError(
            "images: expected shape (N, height, width), N >= 1, the height divisible by 8, the "
            f"width by 16, got {tuple(images.shape)}"
        )
    if size is not None and images.shape[1:] != size:
        raise ValueError(
            f"images: expected height and width {tuple(size)} as in training, "
            f"got {tuple(images.shape[1:])}"
        )
    read = images if size is None else halves(images)[0]
    if not bool(((read >= 0) & (read <= 1)).all()):
        least, most = read.aminmax()
        raise ValueError(f"images: expected entries in [0, 1], got {least:g} to {most:g}")
