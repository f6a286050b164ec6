"""The curvature penalty with its parameters' gradient computed at once: the same numbers, faster or in less memory.

With F a forward pass, and a backward pass 2 F (F if it gives the batch's gradient alone), a plain step is 3 F. The loss
form is a difference of two batch means, so its gradient is the difference of theirs, and one backward pass gives the
first's and the direction z. The gradient form is a sum over examples of || g2 - g1 ||^2, whose gradient is that of
2 <d, g2> - 2 <d, g1> with d = g2 - g1 held fixed: each point's graph is differentiated, and freed, by itself. Where
the host's own pass serves as the first point, a step is 6 F in the loss form and 12 F in the gradient form; else 9 F
and 15 F.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard_plugin.penalties.base import HostPass, LossFunction
from guard_plugin.penalties.checks import check_losses
from guard_plugin.penalties.fast.precomputed import Known, reached_leaves
from guard_plugin.penalties.fast.second_order import SecondOrder
from guard_plugin.penalties.per_example import Losses

__all__ = ["Step", "gradient_form", "gradient_form_on_host", "loss_form", "loss_form_on_host"]


@dataclass(frozen=True)
class Step:
    """What the passes of one penalty need.

    Args:
        network: The network, with its evaluation behaviour.
        loss_fn: From outputs and targets to one loss per example.
        targets: Length n.
        direction: From the losses' gradients for the batch to the step h z.
        strength: The weight.
        size: How many examples a pass may take.
        sparing: Hold the graph of one point at a time, for 2 F more in the gradient form.
    """

    network: nn.Module
    loss_fn: LossFunction
    targets: Tensor
    direction: Callable[[Tensor], Tensor]
    strength: float
    size: int
    sparing: bool = False

    @property
    def weight(self) -> float:
        """Of one example in the gradient form."""
        return self.strength / len(self.targets)

    def parts(self) -> Iterator[tuple[slice, Losses]]:
        """Each part of the batch, and its losses as a function of its inputs."""
        for begin in range(0, len(self.targets), self.size):
            part = slice(begin, begin + self.size)
            yield part, Losses(self.network, self.targets[part], self.loss_fn)


def loss_form(step: Step, x: Tensor) -> Known:
    """The loss form, strength * | mean l(x + h z) - mean l(x) |, part by part."""
    gap, n = Known(x.new_zeros(())), len(x)
    for part, losses in step.parts():
        here = x[part].detach().requires_grad_()
        mean = losses(here).sum() / n
        leaves = reached_leaves(mean, but=[here])
        (of_here,) = gap.differentiate([-mean], leaves, also=[here])
        gap.value = gap.value - mean.detach()
        _add_mean(gap, losses, here.detach() + step.direction(-of_here), n)
    return gap.scaled(step.strength * gap.value.abs(), step.strength * gap.value.sign())


def loss_form_on_host(step: Step, host: HostPass) -> tuple[Known, Tensor] | None:
    """The host's loss and the penalty, and the penalty's value; None where the host's loss is not a mean like ours.

    Theirs must be, up to a constant, the mean of the per-example losses, so that one backward pass serves both.
    """
    n = len(step.targets)
    mean = check_losses(step.loss_fn(host.output, step.targets), n).sum() / n
    direct = reached_leaves(host.loss, mean, beyond=host.output)
    leaves = reached_leaves(host.output, but=[host.batch])
    if {id(leaf) for leaf in direct} & {id(leaf) for leaf in leaves}:
        return None
    # The gap is l(x + h z) - l(x): what is of x carries a minus.
    own, minus_here, gap = Known(host.loss.detach()), Known(-mean.detach()), Known(-mean.detach())
    (of_output,) = own.differentiate([host.loss], direct, also=[host.output], keep=True)
    (ours,) = gap.differentiate([-mean], direct, also=[host.output], keep=True)
    ratio = _ratio(of_output, ours)
    if ratio is None:
        return None
    (of_batch,) = minus_here.differentiate([host.output], leaves, [ours], also=[host.batch], keep=True)
    shifted = host.batch.detach() + step.direction(-of_batch)
    for part, losses in step.parts():
        _add_mean(gap, losses, shifted[part], n)
    weight, value = step.strength * gap.value.sign(), step.strength * gap.value.abs()
    total = gap.scaled(host.loss.detach() + value, weight)
    return total.plus(minus_here.scaled(minus_here.value, ratio + weight)).plus(own), value


def gradient_form(step: Step, x: Tensor) -> Known:
    """The gradient form, strength * mean_i || grad l_i(x_i + h z_i) - grad l_i(x_i) ||^2, part by part."""
    total = Known(x.new_zeros(()))
    for part, losses in step.parts():
        here = x[part].detach().requires_grad_()
        gradient, operations = _of_batch(losses, here)
        if step.sparing:
            gradient = gradient.detach()
        difference = _add_second_point(total, step, losses, here.detach(), gradient.detach())
        if step.sparing:
            gradient, operations = _of_batch(losses, here)
        _add(total, [gradient], [-2 * step.weight * difference], here, operations)
    return total


def gradient_form_on_host(step: Step, host: HostPass) -> tuple[Known, Tensor]:
    """The host's loss and the penalty, from the host's own pass; and the penalty's value."""
    operations = host.operations
    losses = check_losses(step.loss_fn(host.output, step.targets), len(step.targets))
    gradient = operations.gradient_of_batch(losses)
    total, x = Known(losses.new_zeros(())), host.batch.detach()
    differences = [
        _add_second_point(total, step, losses, x[part], gradient.detach()[part]) for part, losses in step.parts()
    ]
    cotangents = [torch.ones_like(host.loss), -2 * step.weight * torch.cat(differences)]
    _add(total, [host.loss, gradient], cotangents, host.batch, operations, keep=True)
    return Known(host.loss.detach() + total.value, total.gradients), total.value


def _add_mean(gap: Known, losses: Losses, shifted: Tensor, n: int) -> None:
    mean = losses(shifted).sum() / n
    gap.differentiate([mean], reached_leaves(mean))
    gap.value = gap.value + mean.detach()


def _add_second_point(total: Known, step: Step, losses: Losses, x: Tensor, gradient: Tensor) -> Tensor:
    """Add the part of the second point, and return how much its gradient differs from the first's."""
    shifted = (x + step.direction(gradient)).requires_grad_()
    shifted_gradient, operations = _of_batch(losses, shifted)
    difference = shifted_gradient.detach() - gradient
    total.value = total.value + step.weight * difference.square().sum()
    _add(total, [shifted_gradient], [2 * step.weight * difference], shifted, operations)
    return difference


def _of_batch(losses: Losses, batch: Tensor) -> tuple[Tensor, SecondOrder]:
    """Return the losses' gradient for the batch, to be differentiated again, and the operations it came through."""
    operations = SecondOrder(batch)
    with operations:
        values = losses(batch)
    return operations.gradient_of_batch(values), operations


def _add(
    total: Known,
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    batch: Tensor,
    operations: SecondOrder,
    *,
    keep: bool = False,
) -> None:
    """Add the gradients of <outputs, cotangents> for all leaves but the batch."""
    leaves = reached_leaves(*outputs, but=[batch])
    with operations.for_parameters(total.add):
        total.differentiate(outputs, leaves, cotangents, keep=keep)


def _ratio(host: Tensor, ours: Tensor) -> Tensor | None:
    """Return c where host = c * ours, up to rounding; None where it is not so."""
    theirs, mine = host.double(), ours.double()
    ratio = (theirs * mine).sum() / mine.square().sum()
    rounding = 64 * torch.finfo(host.dtype).eps * theirs.abs().max()
    return ratio.to(host.dtype) if (theirs - ratio * mine).abs().max() <= rounding else None
