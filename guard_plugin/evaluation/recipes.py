"""How a student is trained on a distilled set: one recipe per way that hosts do it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput

__all__ = ["RECIPES", "Recipe", "recipe_named", "train_student"]


@dataclass(frozen=True)
class Recipe:
    """Training by SGD with one drop of the learning rate, on cross entropy, without augmentation.

    Args:
        name: What the protocol calls it.
        epochs: Passes over the distilled set, >= 1. To shorten a recipe, use ``dataclasses.replace``.
        learning_rate: Until the drop.
        momentum: Of SGD.
        weight_decay: L2 penalty of SGD.
        batch_size: Images per step; the last batch of an epoch may be smaller.
        decay: Factor on the learning rate at the drop.

    Raises:
        UnusableInput: If ``epochs`` or ``batch_size`` is below 1.
    """

    name: str
    epochs: int
    learning_rate: float
    momentum: float
    weight_decay: float
    batch_size: int
    decay: float

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UnusableInput(
                f"expected a recipe of at least one epoch and one image per batch, "
                f"got epochs={self.epochs}, batch_size={self.batch_size}"
            )

    @property
    def decay_after(self) -> int:
        """The epoch, from 0, after which the learning rate drops and the momentum starts anew."""
        # DC counts its epochs as range(E + 1) and drops after epoch E // 2 + 1.
        return (self.epochs - 1) // 2 + 1

    def describe(self) -> dict[str, Any]:
        """Every parameter, for JSON."""
        return {**asdict(self), "decay_after": self.decay_after}


# DC's evaluate_synset with its default arguments. DC also augments for --method DSA, for MNIST and for ConvNetBN,
# which this recipe leaves out.
RECIPES = {
    "dc": Recipe(name="dc", epochs=301, learning_rate=0.01, momentum=0.9, weight_decay=5e-4, batch_size=256, decay=0.1),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnusableInput: If there is none.
    """
    if name not in RECIPES:
        raise UnusableInput(f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def train_student(
    distilled: DistilledSet,
    network: Callable[[], nn.Module],
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> nn.Module:
    """Train a new network on the distilled images as they are, in the host's own input space.

    Initialisation, shuffling and any randomness of the network's own come from ``seed`` alone, and the caller's random
    streams are left as they were. Weights are drawn on the CPU, so they do not depend on the device.

    Args:
        distilled: Images with hard labels or class probabilities.
        network: Builds an untrained network.
        recipe: Optimiser, schedule and number of epochs.
        seed: In [0, 2**63).
        device: Where to train.
        progress: Whether to show a progress bar, where standard error is a terminal.

    Returns:
        The trained network, on ``device``, in eval mode.
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        student = network().to(device).train()
        _fit(
            student,
            distilled,
            recipe,
            tqdm(range(recipe.epochs), f"student {seed}", disable=None if progress else True),
        )
    return student.eval()


def _fit(student: nn.Module, distilled: DistilledSet, recipe: Recipe, epochs: "tqdm[int]") -> None:
    device = next(student.parameters()).device
    images, labels = distilled.images.to(device), distilled.labels.to(device)
    optimizer = _optimizer(student, recipe, recipe.learning_rate)
    for epoch in epochs:
        for batch in torch.split(torch.randperm(len(images)).to(device), recipe.batch_size):
            loss = F.cross_entropy(student(images[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        if epoch == recipe.decay_after:
            optimizer = _optimizer(student, recipe, recipe.learning_rate * recipe.decay)


def _optimizer(student: nn.Module, recipe: Recipe, learning_rate: float) -> torch.optim.SGD:
    return torch.optim.SGD(
        student.parameters(), lr=learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
