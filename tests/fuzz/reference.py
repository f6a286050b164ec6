"""The penalties by their formulas (docs/penalty.md), one example at a time, in float64.

Nothing here is slower to read than the formula, and nothing comes from guard_plugin: each gradient is that of one
example's loss, in a batch of one, by ``torch.autograd.grad``; the parameters' gradient is left to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["ExampleLoss", "penalty", "penalty_in_batch_statistics"]

ExampleOutput = Callable[[int, Tensor], Tensor]
"""From an example's number and its values, shape (1, ...), to what the network makes of it, shape (1, classes, ...)."""


@dataclass(frozen=True)
class ExampleLoss:
    """Cross entropy of one example, as torch's documentation defines it; the mean over positions, where it has them."""

    log_probabilities: bool = False
    weight: Tensor | None = None
    label_smoothing: float = 0.0
    ignore_index: int = -100

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``output``, shape (1, C, ...), for one target: class numbers, or probabilities."""
        classes = output.shape[1]
        scores = output[0].reshape(classes, -1)  # (C, positions)
        log_p = scores if self.log_probabilities else scores - torch.logsumexp(scores, dim=0)
        weight = torch.ones(classes, dtype=scores.dtype) if self.weight is None else self.weight.to(scores.dtype)
        smoothing, losses = self.label_smoothing, []
        for position in range(scores.shape[1]):
            if target.is_floating_point():
                wanted = target.reshape(classes, -1)[:, position].to(scores.dtype)
            else:
                label = int(target.reshape(-1)[position])
                if label == self.ignore_index:
                    losses.append(scores.new_zeros(()))
                    continue
                wanted = torch.nn.functional.one_hot(torch.tensor(label), classes).to(scores.dtype)
            wanted = (1 - smoothing) * wanted + smoothing / classes
            losses.append(-(weight * wanted * log_p[:, position]).sum())
        return torch.stack(losses).mean()


def penalty(output: ExampleOutput, loss: ExampleLoss, x: Tensor, y: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Return the penalty of a batch, a scalar with torch's own graph to the parameters.

    ``settings`` are those of ``guard_plugin.wrap``: ``penalty``, ``form``, ``h`` and ``strength``.
    """
    terms = []
    for i in range(len(x)):
        here = x[i : i + 1].detach().double().requires_grad_()
        value = loss(output(i, here), y[i])
        g = _gradient(value, here)
        if settings.get("penalty") == "gradient_norm":
            terms.append(g.square().sum())
            continue
        shifted = (here.detach() + settings["h"] * _unit(g.detach())).requires_grad_()
        shifted_value = loss(output(i, shifted), y[i])
        if settings["form"] == "loss":
            terms.append(shifted_value - value)
        else:
            terms.append((_gradient(shifted_value, shifted) - g).square().sum())
    mean = torch.stack(terms).mean()
    return settings["strength"] * (mean.abs() if settings.get("form") == "loss" else mean)


def penalty_in_batch_statistics(
    output: Callable[[Tensor], Tensor], loss: ExampleLoss, x: Tensor, y: Tensor, settings: Mapping[str, Any]
) -> Tensor:
    """Return the loss form where ``output`` of a batch, shape (n, classes, ...), depends on all of its examples."""

    def mean_loss(batch: Tensor) -> Tensor:
        outputs = output(batch)
        return torch.stack([loss(outputs[i : i + 1], y[i]) for i in range(len(batch))]).mean()

    here = x.detach().double().requires_grad_()
    value = mean_loss(here)
    z = torch.stack([_unit(g) for g in _gradient(value, here).detach()])
    return settings["strength"] * (mean_loss(here.detach() + settings["h"] * z) - value).abs()


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(value, x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if found is None else found


def _unit(g: Tensor) -> Tensor:
    largest = g.abs().max()
    if largest == 0:
        return g
    return g / largest / (g / largest).norm()
