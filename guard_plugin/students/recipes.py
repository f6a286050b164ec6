"""The recipes by which hosts train students on distilled sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from guard_plugin.distilled import DistilledSet
from guard_plugin.errors import UnusableInput
from guard_plugin.progress import tracked
from guard_plugin.students.augmentation import DSA_STRATEGY, augment, check_strategy
from guard_plugin.students.relabelling import RelabelRecipe
from guard_plugin.students.training import TrainingRecipe

__all__ = ["RECIPES", "Recipe", "recipe_named", "train_student"]


@dataclass(frozen=True)
class Recipe(TrainingRecipe):
    """Training by SGD with one drop of the learning rate, on cross entropy.

    Args:
        name: What the protocol calls the recipe.
        epochs: Passes over the distilled set, >= 1. To shorten a recipe, use ``dataclasses.replace``.
        learning_rate: The learning rate until the drop, > 0.
        momentum: SGD's momentum.
        weight_decay: SGD's L2 penalty.
        batch_size: Images per step; the last batch of an epoch may be smaller.
        decay: The factor on the learning rate at the drop.
        augmentation: A DSA strategy, drawn from for every batch, or None.
        learning_rate_from_set: Whether a learning rate that the distilled set brings goes before ``learning_rate``.

    Raises:
        UnusableInput: If ``epochs`` or ``batch_size`` is below 1, the learning rate is not above 0, or the augmentation
            is unknown.
    """

    name: str
    epochs: int
    learning_rate: float
    momentum: float
    weight_decay: float
    batch_size: int
    decay: float
    augmentation: str | None = None
    learning_rate_from_set: bool = False

    def __post_init__(self) -> None:
        self.check_numbers()
        if self.augmentation is not None:
            check_strategy(self.augmentation)

    @property
    def decay_after(self) -> int:
        """The epoch, from 0, after which the learning rate drops and the momentum starts anew."""
        # DC counts its epochs as range(E + 1) and drops after epoch E // 2 + 1.
        return (self.epochs - 1) // 2 + 1

    def describe(self) -> dict[str, Any]:
        """Return every parameter, for JSON."""
        return {**asdict(self), "decay_after": self.decay_after}

    def fit(self, student: nn.Module, distilled: DistilledSet, epochs: Iterable[int]) -> None:
        """Train a student on the images as they are, in batches drawn from torch's global stream."""
        device = next(student.parameters()).device
        images, labels = distilled.images.to(device), distilled.labels.to(device)
        weights = list(student.parameters())
        sgd = partial(torch.optim.SGD, weights, momentum=self.momentum, weight_decay=self.weight_decay)
        optimizer = sgd(lr=self.learning_rate)
        for epoch in epochs:
            for batch in torch.split(torch.randperm(len(images)).to(device), self.batch_size):
                inputs = augment(images[batch], self.augmentation) if self.augmentation else images[batch]
                loss = F.cross_entropy(student(inputs), labels[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            if epoch == self.decay_after:
                optimizer = sgd(lr=self.learning_rate * self.decay)


# DC's evaluate_synset with its default arguments. On MNIST, and with ConvNetBN, main.py augments in a way of its own
# (get_daparam), which this recipe leaves out.
_DC = Recipe(name="dc", epochs=301, learning_rate=0.01, momentum=0.9, weight_decay=5e-4, batch_size=256, decay=0.1)

# The same, as main.py calls it with --method DSA, and main_DM.py always.
_DSA = replace(_DC, name="dsa", epochs=1001, augmentation=DSA_STRATEGY)

# evaluate_synset of MTT, TESLA and FTD with the default arguments of their distill.py: --epoch_eval_train 1000, --dsa
# True, and the learning rate that was learned along with the images; without one, --lr_teacher, where it starts from.
_MTT = replace(_DC, name="mtt", epochs=1001, augmentation=DSA_STRATEGY, learning_rate_from_set=True)

# train_FKD.py and train_KD.py of SRe2L, with the options of train_FKD.sh and train_KD.sh. Batches are those of its
# relabel_cifar.py: on sets of the size that can be measured here, ImageNet's 1024 would make one step per epoch.
_SRE2L = RelabelRecipe("sre2l", 300, 1e-3, weight_decay=0.01, batch_size=128, temperature=20.0, min_scale=0.08)

RECIPES: dict[str, TrainingRecipe] = {
    "dc": _DC,
    "dsa": _DSA,
    "mtt": _MTT,
    # DATM's distill/evaluation.py and all of its configs: --batch_train 128.
    "datm": replace(_MTT, name="datm", batch_size=128),
    "sre2l": _SRE2L,
    # SRe2L/*small_dataset/relabel_cifar.py with relabel_cifar.sh: RandomCrop(32, padding=4), mixup with Beta(0.8, 0.8),
    # AdamW on all parameters. The script never calls eval() on its teacher.
    "sre2l-cifar": replace(
        _SRE2L,
        name="sre2l-cifar",
        epochs=400,
        temperature=30.0,
        shift=4,
        mix="mixup",
        mix_alpha=0.8,
        decay_all=True,
        teacher_training=True,
    ),
    # zeyuanyin/tiny-imagenet's classification/train_kd.py with script/train_kd.sh.
    "sre2l-tiny": replace(
        _SRE2L,
        name="sre2l-tiny",
        epochs=100,
        learning_rate=0.2,
        weight_decay=1e-4,
        batch_size=256,
        mix="none",
        optimizer="SGD",
        momentum=0.9,
        warmup_epochs=5,
        decay_all=True,
        squared_temperature=True,
    ),
}


def recipe_named(name: str) -> TrainingRecipe:
    """Return the recipe of a name, or refuse an unknown name by ``UnusableInput``."""
    if name not in RECIPES:
        raise UnusableInput(f"unknown recipe {name!r}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name]


def train_student(
    distilled: DistilledSet,
    network: Callable[[], nn.Module],
    recipe: TrainingRecipe,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Train a new network on the distilled images as they are, in the host's own input space.

    Initialisation, shuffling and any randomness of the network's own come from ``seed`` alone, and the caller's random
    streams are left as they were. Weights are drawn on the CPU, so they do not depend on the device. On a CPU, one
    thread computes: several threads add up a weight's gradient in another order, and a student must not depend on
    their number.

    Args:
        distilled: Images with hard labels or class probabilities.
        network: A function that builds an untrained network.
        recipe: Optimiser, schedule, augmentation and number of epochs.
        seed: In [0, 2**63).
        device: Where to train.

    Returns:
        The trained network, on ``device``, in eval mode.
    """
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _fixed_summation_order():
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        student = network().to(device).train()
        epochs = tracked(range(recipe.epochs), f"training student {seed}", recipe.epochs, "epoch")
        recipe.for_set(distilled).fit(student, distilled, epochs)
    return student.eval()


@contextmanager
def _fixed_summation_order() -> Iterator[None]:
    """Let torch add in one order, whatever the number of threads and whatever cuDNN would try."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    settings = cudnn.deterministic, cudnn.benchmark
    try:
        torch.set_num_threads(1)
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark = settings
