"""The curvature penalty with its parameters' gradient computed at once: the same numbers, faster or in less memory.

With F a forward pass, and a backward pass 2 F (F if it gives the batch's gradient alone), a plain step is 3 F. The loss
form is a difference of two batch means, so its gradient is the difference of their gradients, and one backward pass
gives the first mean's gradient and the direction z. The gradient form is a sum over examples of || g2 - g1 ||^2, whose
gradient is that of 2 <d, g2> - 2 <d, g1> with d = g2 - g1 held fixed: the graph of each point is differentiated, and
freed, by itself. Where the host's own pass serves as the first point, a step is 6 F in the loss form and 12 F in the
gradient form; else it is 9 F and 15 F.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from guard_plugin.penalties.fast.precomputed import PrecomputedGradient
from guard_plugin.penalties.fast.second_order import SecondOrder
from guard_plugin.penalties.fast.shared_forward import SharedForward
from guard_plugin.penalties.graph import Mark, reached_leaves
from guard_plugin.penalties.per_example import Losses, unit

__all__ = ["Step", "gradient_form", "gradient_form_on_host", "loss_form", "loss_form_on_host"]

_MOST_ROUNDING = 0.03  # of gradients in bfloat16, in parts of the largest value


@dataclass(frozen=True)
class Step:
    """What the passes of one penalty need.

    Args:
        losses: From a batch of n inputs to n losses; the network has its evaluation behaviour.
        h: The L2 length of the step from an example.
        strength: The penalty's weight.
        begin: When the penalty's own passes began; None where other threads make their graphs (DataParallel).
    """

    losses: Losses
    h: float
    strength: float
    begin: Mark | None = field(default_factory=Mark)

    @property
    def n(self) -> int:
        """How many examples the batch has."""
        return len(self.losses.targets)

    def weights(self, losses: Tensor, sign: int) -> Tensor:
        """Return what each of these losses counts for in the mean of all n, times ``sign``: a cotangent."""
        return torch.full_like(losses, sign / self.n)

    def parts(self, size: int) -> Iterator[tuple[slice, Losses]]:
        """Yield each part of the batch, and its losses as a function of its inputs."""
        for begin in range(0, self.n, size):
            part = slice(begin, begin + size)
            yield part, replace(self.losses, targets=self.losses.targets[part])


def loss_form(step: Step, x: Tensor, *, size: int) -> PrecomputedGradient:
    """Compute the loss form, strength * | mean l(x + h z) - mean l(x) |, part by part.

    Each point's graph is freed before the next one is made.
    """
    gap = PrecomputedGradient(x.new_zeros(()))
    for part, losses in step.parts(size):
        here = x[part].detach().requires_grad_()
        before = losses(here)
        leaves = reached_leaves(before, but=[here], since=step.begin)
        (of_here,) = gap.differentiate([before], leaves, [step.weights(before, -1)], also=[here])
        # One by one, so that both points' gradients are never held at once.
        after = losses(torch.sub(here.detach(), unit(of_here), alpha=step.h))
        gap.differentiate([after], reached_leaves(after, since=step.begin), [step.weights(after, 1)])
        gap.value = gap.value + (after.detach().sum() - before.detach().sum()) / step.n
    weight = step.strength * gap.value.sign()
    return gap.scaled(weight * gap.value, weight)


def loss_form_on_host(
    step: Step, shared: SharedForward, output: Tensor, loss: Tensor
) -> tuple[PrecomputedGradient, Tensor] | None:
    """Compute the host's loss plus the penalty from the host's own pass, and the penalty's value.

    Returns None where the host's loss is not, up to a constant, the mean of the per-example losses: one backward pass
    cannot serve both then.
    """
    losses = step.losses.of_outputs(output)
    direct = reached_leaves(loss, losses, beyond=output)
    leaves = reached_leaves(output, but=[shared.batch], since=shared.mark)
    if {id(leaf) for leaf in direct} & {id(leaf) for leaf in leaves}:
        return None
    # The gap is l(x + h z) - l(x): what belongs to x carries a minus.
    own, minus_here, gap = (PrecomputedGradient(loss.detach()) for _ in range(3))
    (of_output,) = own.differentiate([loss], direct, also=[output], keep=True)
    (ours,) = gap.differentiate([losses], direct, [step.weights(losses, -1)], also=[output], keep=True)
    ratio = _ratio(of_output, ours)
    if ratio is None:
        return None
    (of_batch,) = minus_here.differentiate([output], leaves, [ours], also=[shared.batch], keep=True)
    after = step.losses(torch.sub(shared.batch.detach(), unit(of_batch), alpha=step.h))
    gap.differentiate([after], reached_leaves(after, since=step.begin), [step.weights(after, 1)])
    difference = after.detach().mean() - losses.detach().mean()
    weight = step.strength * difference.sign()
    value = weight * difference
    total = gap.scaled(loss.detach() + value, weight)
    total.add_all(minus_here.scaled(minus_here.value, ratio + weight))
    total.add_all(own)
    return total, value


def gradient_form(step: Step, x: Tensor, *, size: int, low_memory: bool) -> PrecomputedGradient:
    """Compute the gradient form, strength * mean_i || grad l_i(x_i + h z_i) - grad l_i(x_i) ||^2, part by part.

    With ``low_memory`` the graph of one point is held at a time, for 2 F more.
    """
    total = PrecomputedGradient(x.new_zeros(()))
    for part, losses in step.parts(size):
        here = x[part].detach().requires_grad_()
        gradient, operations = _of_batch(step, losses, here)
        if low_memory:
            gradient = gradient.detach()
        cotangent = _add_second_point(total, step, losses, here.detach(), gradient.detach())
        if low_memory:
            gradient, operations = _of_batch(step, losses, here)
        _add(total, [gradient], [cotangent], operations, keep=False)
    return total


def gradient_form_on_host(
    step: Step, shared: SharedForward, output: Tensor, loss: Tensor
) -> tuple[PrecomputedGradient, Tensor]:
    """Compute the host's loss plus the penalty from the host's own pass, and the penalty's value."""
    with shared.operations:
        losses = step.losses.of_outputs(output)
    reached_leaves(losses, loss, since=shared.mark)
    gradient = shared.operations.gradient_of_batch(losses)
    total = PrecomputedGradient(losses.new_zeros(()))
    cotangent = _add_second_point(total, step, step.losses, shared.batch.detach(), gradient.detach())
    cotangents = [torch.ones_like(loss), cotangent]
    _add(total, [loss, gradient], cotangents, shared.operations, keep=True)
    return PrecomputedGradient(loss.detach() + total.value, total.gradients), total.value


def _add_second_point(total: PrecomputedGradient, step: Step, losses: Losses, x: Tensor, gradient: Tensor) -> Tensor:
    """Add the second point's part of the gradient form; return the cotangent of the first point's input gradient."""
    shifted = torch.add(x, unit(gradient), alpha=step.h).requires_grad_()
    shifted_gradient, operations = _of_batch(step, losses, shifted)
    difference, weight = shifted_gradient.detach() - gradient, step.strength / step.n
    total.value = total.value + weight * difference.square().sum()
    _add(total, [shifted_gradient], [2 * weight * difference], operations, keep=False)
    return -2 * weight * difference


def _of_batch(step: Step, losses: Losses, batch: Tensor) -> tuple[Tensor, SecondOrder]:
    """Return the losses' gradient for the batch, to be differentiated again, and the operations it came through."""
    operations = SecondOrder(batch)
    with operations:
        values = losses(batch)
    reached_leaves(values, since=step.begin)  # raises ComputedBefore, which the gradient's own graph could not tell
    return operations.gradient_of_batch(values), operations


def _add(
    total: PrecomputedGradient, outputs: list[Tensor], cotangents: list[Tensor], operations: SecondOrder, *, keep: bool
) -> None:
    """Add the gradients of <outputs, cotangents> for all leaves but the batch."""
    leaves = reached_leaves(*outputs, but=[operations.batch])
    with operations.for_parameters(total.add):
        total.differentiate(outputs, leaves, cotangents, keep=keep)


def _ratio(host: Tensor, ours: Tensor) -> Tensor | None:
    """Return c where host = c * ours, up to rounding; None where there is no such c. A GPU is waited for once."""
    theirs, mine = host.reshape(-1).double(), ours.reshape(-1).double()
    ratio = torch.dot(theirs, mine) / torch.dot(mine, mine)
    difference = torch.addcmul(theirs, ratio, mine, value=-1)
    off, largest = torch._foreach_norm([difference, theirs], float("inf"))
    tolerance = min(64 * torch.finfo(host.dtype).eps, _MOST_ROUNDING)
    return ratio.to(host.dtype) if off <= largest * tolerance else None
