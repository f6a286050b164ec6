"""One evaluation of a classification loss on a network's output."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.calls.as_called import as_called
from guard_plugin.injection.calls.derivation import Derivation
from guard_plugin.injection.calls.module_calls import uncompiled
from guard_plugin.injection.calls.network_outputs import Origin, Output
from guard_plugin.injection.calls.origins import Origins
from guard_plugin.injection.calls.stack import Place
from guard_plugin.penalties import LossFunction

__all__ = ["SUPPORTED", "LossCall", "judged_and_targets", "per_example"]

SUPPORTED = (nn.CrossEntropyLoss, nn.NLLLoss)


@dataclass(frozen=True)
class LossCall:
    """What the tap saw: ``loss = criterion(output, targets)``, and where the output came from.

    Args:
        criterion: The criterion's name.
        loss: What the criterion returned.
        output: The tensor that it was called on: a network's output, or what the host computed from one.
        targets: The targets, or None where the call gave none.
        made: The network's output; None where it is not known.
        derivation: What the host computed from it before.
        criterion_fn: Returns the host's criterion per example, with its own weights, smoothing and ignored class;
            raises UnsupportedLoss if the criterion has no per-example form.
        origins: What knows the networks' outputs.
        place: Where the call was made; None under :func:`guard_plugin.wrap`.
    """

    criterion: str
    loss: Tensor
    output: Tensor
    targets: Any
    made: Output | None
    derivation: Derivation
    criterion_fn: Callable[[], LossFunction]
    origins: Origins
    place: Place | None = None

    @cached_property
    def network(self) -> nn.Module:
        """The network, from a batch to the output that is judged; without DistributedDataParallel and torch.compile."""
        return as_called(self._made, self.origins.as_called)

    @cached_property
    def inputs(self) -> Tensor:
        """The batch that the network was given, shape (n, ...); those rows of it whose outputs are judged."""
        return self.derivation.of_rows(self.made_by.batch())

    @property
    def network_output(self) -> Tensor:
        """The network's own output for these inputs, detached."""
        return self.derivation.of_rows(self._made.value)

    def loss_fn(self) -> LossFunction:
        """Return the host's loss per example, as a function of the network's output."""
        of_criterion, of_output = self.criterion_fn(), self.derivation.of_output
        return of_criterion if self.derivation.is_direct else lambda out, targets: of_criterion(of_output(out), targets)

    def judged_network(self) -> nn.Module:
        """Return the network up to the tensor that the criterion is called on."""
        return self.network if self.derivation.is_direct else _Judged(self.network, self.derivation.of_output)

    def check_guardable(self) -> None:
        """Refuse, with UnsupportedLoss, a call that shows that its penalty cannot be computed; also at strength 0.

        What only the penalty's own passes show, such as a network that detaches its input, is not known here.
        """
        self.made_by.batch()
        self.made_by.check_parameters()
        self.made_by.check_attributes()
        self.made_by.check_call()
        self._made.check_unchanged()
        if self.derivation.obstacle:
            raise UnsupportedLoss(
                f"expected {self.criterion} to be called on an output of {type(self.made_by.network).__name__}, found "
                f"a tensor that was computed from it by {self.derivation.obstacle}, which guard-plugin cannot do again "
                f"on other outputs (it can: casts, views, slices, scaling by constants, softmax); move the operation "
                f"into the network, or use guard_plugin.wrap(criterion, model, loss_fn=...)"
            )

    def settle_by(self, loss: Tensor) -> None:
        """Take it for known by which loss the network is trained, once gradients flow from what the host gets."""
        if self.made is not None:
            self.made.settle_by(loss)

    @property
    def made_by(self) -> Origin:
        """The network call that made the output; where it is not known, UnsupportedLoss is raised."""
        return self._made.origin

    @property
    def _made(self) -> Output:
        if self.made is None:
            raise UnsupportedLoss(
                f"expected {self.criterion} to be called on a network's own output, found a tensor that no network "
                f"call is known to have made (it was made before guarding began, in a compiled function, or from "
                f"several calls): its network and input are unknown; call the criterion on what the network returned"
            )
        return self.made


class _Judged(nn.Module):
    """A network, and what the host computes from its output before the criterion gets it."""

    def __init__(self, network: nn.Module, of_output: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.of_output = network, of_output

    def forward(self, inputs: Tensor) -> Tensor:
        return self.of_output(self.network(inputs))


def judged_and_targets(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what a criterion, called as torch's are, judges, and the targets; None for one that it was not given."""
    judged = args[0] if args else kwargs.get("input")
    targets = args[1] if len(args) > 1 else kwargs.get("target")
    return judged, targets


def per_example(criterion: Callable[..., Any]) -> LossFunction:
    """Turn a torch criterion into one that returns one loss per example.

    Its label_smoothing, weight and ignore_index hold: a weighted class's losses are multiplied by its weight, and an
    ignored example's loss is 0. Outputs with further dimensions (dense prediction) are averaged per example.

    Args:
        criterion: An ``nn.CrossEntropyLoss`` or ``nn.NLLLoss``, or a subclass that computes as they do.

    Raises:
        UnsupportedLoss: For any other criterion, and for ``reduction="none"``, whose mean the host takes itself.
    """
    criterion = uncompiled(criterion)
    if not isinstance(criterion, nn.Module):
        raise UnsupportedLoss(
            f"expected a criterion that is a module ({', '.join(kind.__name__ for kind in SUPPORTED)}), found "
            f"{getattr(criterion, '__name__', type(criterion).__name__)}, whose form per example is not known, as its "
            f"settings come with each call; use the module in its place, nn.CrossEntropyLoss() for "
            f"functional.cross_entropy, or guard_plugin.wrap(criterion, model, loss_fn=...) with its per-example form"
        )
    forward = getattr(type(criterion), "forward", None)
    if not isinstance(criterion, SUPPORTED) or forward not in [kind.forward for kind in SUPPORTED]:
        raise UnsupportedLoss(
            f"expected a classification criterion ({', '.join(kind.__name__ for kind in SUPPORTED)}, or their "
            f"functional forms), found {type(criterion).__name__}; for a loss of your own, use "
            f"guard_plugin.wrap(criterion, model, loss_fn=...) with its per-example form"
        )
    if criterion.reduction == "none":
        raise UnsupportedLoss(
            f"expected {type(criterion).__name__} to return a scalar, found reduction='none': what the host makes of "
            f"its losses is unknown; use reduction='mean'"
        )
    unreduced = copy.copy(criterion)
    unreduced.reduction = "none"

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        # .forward, not the call: the criterion's own hooks are the host's, for its own calls.
        values: Tensor = unreduced.forward(outputs, targets)
        return values if values.dim() == 1 else values.flatten(1).mean(dim=1)

    return losses
