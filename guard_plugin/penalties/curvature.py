"""GUARD's curvature penalty (Xue et al., AAAI 2025), in the form of its Eq. 11, and in that of the published code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnusableInput
from guard_plugin.penalties.base import LossFunction, Penalty
from guard_plugin.penalties.checks import check_batch, check_h
from guard_plugin.penalties.derivatives import derivatives_explained
from guard_plugin.penalties.fast.curvature import (
    Step,
    gradient_form,
    gradient_form_on_host,
    loss_form,
    loss_form_on_host,
)
from guard_plugin.penalties.fast.precomputed import PrecomputedGradient
from guard_plugin.penalties.fast.shared_forward import SharedForward
from guard_plugin.penalties.graph import check_differentiable, gradient_for_batch
from guard_plugin.penalties.network_properties import check_examples_apart
from guard_plugin.penalties.per_example import Losses, cross_entropy, full_precision, unit
from guard_plugin.penalties.undisturbed import undisturbed
from guard_plugin.versions import keyword_dataclass, plain_attention

__all__ = ["Curvature", "Form", "curvature_penalty"]

Form = Literal["gradient", "loss"]


def curvature_penalty(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    h: float,
    strength: float,
    form: Form = "gradient",
    loss_fn: LossFunction | None = None,
) -> Tensor:
    r"""Compute GUARD's penalty on the curvature of the loss along its own input gradient.

    With per-example losses :math:`l_i`, :math:`g_i = \nabla_x l_i(x_i)` and
    :math:`z_i = g_i / \lVert g_i \rVert_2` (0 where :math:`g_i` is 0, and never differentiated through):

    - form "gradient": ``strength * mean_i || grad l_i(x_i + h z_i) - grad l_i(x_i) ||_2^2``  (the paper's Eq. 11)
    - form "loss": ``strength * | mean_i l_i(x_i + h z_i) - mean_i l_i(x_i) |``  (the authors' ``pretrain.py``)

    The model's passes are those of evaluation (running statistics, no dropout), with autocast off and so in the
    parameters' own precision, and leave the model, its buffers and flags, ``.grad`` and random streams as they were.
    At strength 0 no pass is made.

    Args:
        model: Any network from inputs to one tensor of outputs.
        x: A batch of shape (n, ...), n >= 1, of any number of dimensions and memory layout, in the model's own input
            space. It is not modified, and no gradient flows into it.
        y: Targets of length n: class indices, shape (n,), or class probabilities, shape (n, classes).
        h: The step's length, > 0: an L2 length in the model's input space (the paper's is 3, section 5.1, in normalised
            space at 224x224; see :func:`scale_h` for other sizes).
        strength: The weight ("lambda"), >= 0 (the paper's is 100, section 5.1, in the gradient form).
        form: "gradient" or "loss".
        loss_fn: From outputs and targets to n losses, shape (n,). Default: cross entropy. A weighted criterion's
            weights belong inside; the mean is over all n examples.

    Returns:
        A scalar tensor, differentiable with respect to the model's parameters (detached where gradients are off).

    Raises:
        UnusableInput: If h, strength, form, shapes or the model cannot be used.
        UnsupportedLoss: If the model's output for an example depends on the others of the batch, which takes further
            passes to find out, at the model's 1st, 2nd, 4th, 8th ... call.

    Example:
        >>> def half_square(outputs, targets):  # its gradient is x itself, which a step of h changes by h
        ...     return outputs.square().sum(dim=1) / 2
        >>> x, y = torch.ones(2, 4), torch.zeros(2)
        >>> curvature_penalty(nn.Identity(), x, y, h=0.5, strength=1, loss_fn=half_square).item()
        0.25

    The value does not depend on the batch size. The authors' ``pretrain_cifar.py`` takes instead the *unsquared* norm
    of the *batch-mean* loss's gradient, so that its lambda carries 1/n; their ``pretrain.py`` has the loss form, whose
    weight is ``--beta`` (its ``--lamda`` has no effect). docs/penalty.md maps their settings to ours.
    """
    curvature = Curvature(strength=strength, h=h, form=form)
    if strength:
        check_batch(model, x, y)
        check_examples_apart(model, x)
    return curvature(model, x, y, loss_fn=loss_fn or cross_entropy)


@keyword_dataclass
class Curvature(Penalty):
    """The curvature penalty with its settings: see :func:`curvature_penalty`.

    Args:
        h: The step's L2 length in the network's input space, > 0.
        form: "gradient" or "loss".
        h_ramp: Over how many guarded loss calls h rises to its value. CURE's authors, whose regularizer GUARD's
            descends from, ramp h (Moosavi-Dezfooli et al., CVPR 2019).
        batch_statistics: Whether BatchNorm normalises each of the penalty's passes by its batch, as in the host's own,
            and not by running statistics. The losses of a batch then depend on all of its examples, so that this is
            for the loss form, which is a difference of means. The authors' code uses running statistics.
    """

    name: ClassVar[str] = "curvature"
    h: float
    form: Form = "gradient"
    h_ramp: int = 0
    batch_statistics: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_h(self.h)
        if self.form not in get_args(Form):
            raise UnusableInput(f"expected form to be one of {', '.join(get_args(Form))}, got {self.form!r}")
        if self.batch_statistics and self.form != "loss":
            raise UnusableInput(
                f"expected form 'loss' with batch_statistics, got {self.form!r}: it needs the gradient of each example "
                f"apart, which there is not where BatchNorm normalises by the batch; give form 'loss' (--form loss)"
            )

    def __call__(self, network: nn.Module, inputs: Tensor, targets: Tensor, *, loss_fn: LossFunction) -> Tensor:
        """Compute the penalty of one batch."""
        check_batch(network, inputs, targets)
        if self.strength == 0:
            return torch.zeros((), dtype=inputs.dtype, device=inputs.device)
        inputs, targets = full_precision(inputs, targets, network)
        losses = Losses(network, targets, loss_fn)
        compute, second_order = (
            (_gradient_form, plain_attention) if self.form == "gradient" else (_loss_form, nullcontext)
        )
        with self._passes(network, inputs), second_order():
            penalty = self.strength * compute(losses, inputs, self.h)
        return penalty if torch.is_grad_enabled() else penalty.detach()

    def in_parts(self, losses: Losses, inputs: Tensor, *, size: int, low_memory: bool) -> PrecomputedGradient:
        """Compute the penalty and its gradient at once, in passes of at most ``size`` examples of ``inputs``.

        ``losses`` holds the network, its n targets and the host's criterion per example. ``low_memory`` holds as
        little memory as possible, where that takes more passes.
        """
        check_batch(losses.network, inputs, losses.targets)
        inputs, targets = full_precision(inputs, losses.targets, losses.network)
        step = Step(replace(losses, targets=targets), self.h, self.strength)
        if any(isinstance(part, nn.DataParallel) and len(part.device_ids) > 1 for part in losses.network.modules()):
            step = replace(step, begin=None)
        with self._passes(losses.network, inputs):
            if self.form == "loss":
                return loss_form(step, inputs, size=size)
            return gradient_form(step, inputs, size=size, low_memory=low_memory)

    def on_host(
        self, losses: Losses, shared: SharedForward, output: Tensor, loss: Tensor
    ) -> tuple[PrecomputedGradient, Tensor] | None:
        """Compute the host's loss plus the penalty, with their gradient, at once, and the penalty alone.

        ``output`` is what the network returned in the host's own pass, ``shared``, and ``loss`` what the host's
        criterion made of it. Return None where that pass cannot serve for the host's loss.
        """
        check_batch(losses.network, shared.batch, losses.targets)
        compute = gradient_form_on_host if self.form == "gradient" else loss_form_on_host
        network, batch = losses.network, shared.batch
        with self._passes(network, batch):
            return compute(Step(losses, self.h, self.strength), shared, output, loss)

    @contextmanager
    def _passes(self, network: nn.Module, inputs: Tensor) -> Iterator[None]:
        explained = derivatives_explained(network, inputs, fix="use form='loss' (guard run --form loss)")
        undisturbing = undisturbed(network, inputs.device, batch_statistics=self.batch_statistics)
        with undisturbing, torch.enable_grad(), explained:
            yield


def _gradient_form(losses: Losses, x: Tensor, h: float) -> Tensor:
    x = x.detach().requires_grad_()
    gradient = gradient_for_batch(losses(x).sum(), x, create_graph=True)
    check_differentiable(gradient)
    shifted = (x.detach() + h * unit(gradient)).requires_grad_()
    shifted_gradient = gradient_for_batch(losses(shifted).sum(), shifted, create_graph=True)
    return (shifted_gradient - gradient).reshape(len(x), -1).square().sum(dim=1).mean()


def _loss_form(losses: Losses, x: Tensor, h: float) -> Tensor:
    x = x.detach().requires_grad_()
    here = losses(x)
    gradient = gradient_for_batch(here.sum(), x, retain_graph=True)
    there = losses(x.detach() + h * unit(gradient))
    return (there.mean() - here.mean()).abs()
