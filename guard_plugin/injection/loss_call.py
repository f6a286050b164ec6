"""One evaluation of a classification loss on a network's output."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.origins import Origin
from guard_plugin.penalties import LossFunction

__all__ = ["SUPPORTED", "LossCall", "own_part", "per_example"]

SUPPORTED = (nn.CrossEntropyLoss, nn.NLLLoss)


@dataclass(frozen=True)
class LossCall:
    """What the tap saw: ``loss = criterion(output, targets)``, and where the output came from.

    Args:
        criterion: The criterion's name.
        loss: What the criterion returned.
        output: The network's output that it was called on.
        targets: The targets, or None where the call gave none.
        origin: The network call that made the output; None where the output is not a network's own.
        loss_fn: Returns the host's criterion per example, with its own weights, smoothing and ignored class; raises
            UnsupportedLoss if the criterion has no per-example form.
        paused: Lets module calls pass unseen by the tap.
    """

    criterion: str
    loss: Tensor
    output: Tensor
    targets: Any
    origin: Origin | None
    loss_fn: Callable[[], LossFunction]
    paused: Callable[[], AbstractContextManager[None]]

    @property
    def network(self) -> nn.Module:
        """The network whose output was judged; of one that is distributed over processes, the part in this process."""
        return own_part(self.made_by.network)

    @property
    def inputs(self) -> Tensor:
        """The batch that the network was given, shape (n, ...)."""
        return self.made_by.batch()

    def check_guardable(self) -> None:
        """Refuse, with UnsupportedLoss, a call whose penalty cannot be computed; also at strength 0."""
        self.loss_fn()
        self.made_by.batch()
        self.made_by.check_unchanged(self.output)

    @property
    def made_by(self) -> Origin:
        """The network call that made the output; where it is not known, UnsupportedLoss is raised."""
        if self.origin is None:
            raise UnsupportedLoss(
                f"expected {self.criterion} to be called on a network's own output, found a tensor that was computed "
                f"from one (or made before guarding began): its network and input are unknown; call the criterion on "
                f"what the network returned"
            )
        return self.origin


def own_part(network: nn.Module) -> nn.Module:
    """Return the part in this process of a network that may be distributed over processes.

    A pass through the wrapper would prepare another gradient exchange, and synchronise buffers unasked.
    """
    return network.module if isinstance(network, DistributedDataParallel) else network


def per_example(criterion: Callable[..., Any]) -> LossFunction:
    """Turn a torch criterion into one that returns one loss per example.

    Its label_smoothing, weight and ignore_index hold: a weighted class's losses are multiplied by its weight, and an
    ignored example's loss is 0. Outputs with further dimensions (dense prediction) are averaged per example.

    Args:
        criterion: An ``nn.CrossEntropyLoss`` or ``nn.NLLLoss``, or a subclass that computes as they do.

    Raises:
        UnsupportedLoss: For any other criterion, and for ``reduction="none"``, whose mean the host takes itself.
    """
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
