"""The methods that are measured: GUARD as users have it, other penalties, and the passes of its published scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import guard_plugin
from examples.overhead.case import Loss

__all__ = ["PLAIN", "methods"]

PLAIN = "plain"
PAPER_H, PAPER_STRENGTH, PAPER_SHAPE = 3.0, 100.0, (3, 224, 224)
EPS = 8 / 255 / 0.25  # 8/255 in pixels, in the units of inputs that were divided by a std of 0.25


@contextmanager
def wrapped(network: nn.Module, **options: Any) -> Iterator[Loss]:
    """The loss of a script that has wrapped its criterion."""
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), network, **options)
    try:
        yield lambda network, images, labels: criterion(network(images), labels)
    finally:
        criterion.unwrap()  # its hooks are global: the other methods must not pay for them


@contextmanager
def unwrapped(network: nn.Module, term: Loss | None = None) -> Iterator[Loss]:
    """The loss of a script that adds a term of its own, or none."""
    criterion = nn.CrossEntropyLoss()

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        own = criterion(network(images), labels)
        return own if term is None else own + term(network, images, labels)

    yield loss


def published_gradient_form(h: float, strength: float) -> Loss:
    """The passes of pretrain_cifar.py: a whole backward for the direction, then two further forwards.

    The gradient of the difference of two batch-mean losses is differentiated; its norm per example is not squared.
    """

    def term(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with _published_passes(network, images, labels, h) as (here, difference):
            (gradient,) = torch.autograd.grad(difference, here, create_graph=True)
            return strength * gradient.flatten(1).norm(dim=1).mean()

    return term


def published_loss_form(h: float, strength: float) -> Loss:
    """The passes of pretrain.py: the same, but the difference of the losses itself is penalised."""

    def term(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with _published_passes(network, images, labels, h) as (_, difference):
            return strength * difference.abs()

    return term


@contextmanager
def _published_passes(network: nn.Module, images: Tensor, labels: Tensor, h: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Direction, then the difference of the mean losses at the shifted and at the given images, in eval mode."""
    criterion = nn.CrossEntropyLoss()
    here = images.detach().requires_grad_()
    network.eval()
    criterion(network(here), labels).backward()  # of the parameters too, whose gradients are then thrown away
    gradient, here.grad = here.grad, None
    network.zero_grad()
    length = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (images.dim() - 1))
    step = h * (gradient + 1e-7) / (length + 1e-7)
    yield here, criterion(network(here + step), labels) - criterion(network(here), labels)
    network.train()


def train_step(loss: Loss, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The seam that `guard run` opens here."""
    return loss(network, images, labels)


@contextmanager
def attached(network: nn.Module, **options: Any) -> Iterator[Loss]:
    """The loss of an unmodified script under `guard run`."""
    criterion = nn.CrossEntropyLoss()

    def plain(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return criterion(network(images), labels)

    attachment = guard_plugin.attach("auto", script=__file__, guard=["methods:train_step"], **options)
    try:
        yield lambda *step: train_step(plain, *step)
    finally:
        attachment.detach()


def methods(shape: tuple[int, int, int]) -> dict[str, Callable[[nn.Module], Any]]:
    """By name, what makes the loss of a network; settings are the paper's, h carried over to this image size."""
    h = guard_plugin.scale_h(PAPER_H, from_shape=PAPER_SHAPE, to_shape=shape)
    loss_form = {"form": "loss", "h": h, "strength": 1.0}
    gradient_form = {"form": "gradient", "h": h, "strength": PAPER_STRENGTH}
    return {
        PLAIN: unwrapped,
        "strength 0": lambda network: attached(network, **{**gradient_form, "strength": 0.0}),
        "GUARD, loss form": lambda network: wrapped(network, **loss_form),
        "GUARD, loss form, guard run": lambda network: attached(network, **loss_form),
        "GUARD, loss form, batch statistics": lambda network: wrapped(network, batch_statistics=True, **loss_form),
        "GUARD, loss form, memory low": lambda network: wrapped(network, memory="low", **loss_form),
        "GUARD, loss form, separate": lambda network: wrapped(network, path="separate", **loss_form),
        "GUARD, loss form, reference": lambda network: wrapped(network, path="reference", **loss_form),
        "GUARD, gradient form": lambda network: wrapped(network, **gradient_form),
        "GUARD, gradient form, guard run": lambda network: attached(network, **gradient_form),
        "GUARD, gradient form, memory low": lambda network: wrapped(network, memory="low", **gradient_form),
        "GUARD, gradient form, separate": lambda network: wrapped(network, path="separate", **gradient_form),
        "GUARD, gradient form, reference": lambda network: wrapped(network, path="reference", **gradient_form),
        "gradient norm": lambda network: wrapped(network, penalty="gradient_norm", strength=1.0),
        "fast training": lambda network: wrapped(network, penalty="fast", eps=EPS),
        "PGD-10 training": lambda network: wrapped(network, penalty="pgd_at", eps=EPS, steps=10),
        "TRADES-10": lambda network: wrapped(network, penalty="trades", eps=EPS, steps=10),
        "authors, loss form": lambda network: unwrapped(network, published_loss_form(h, 1.0)),
        "authors, gradient form": lambda network: unwrapped(network, published_gradient_form(h, PAPER_STRENGTH)),
    }
