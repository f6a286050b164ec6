"""What a column of the results cost."""

from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Cost", "CountedModel"]


@dataclass(frozen=True)
class Cost:
    """The price of measuring one column on one student.

    Args:
        seconds: Time of computing, summed over processes.
        forwards: Examples times forward passes, with the copies that fill passes up (``PASS_UNIT``).
        backwards: Examples times backward passes to the pixels, likewise.
    """

    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Return the price of both."""
        return Cost(self.seconds + other.seconds, self.forwards + other.forwards, self.backwards + other.backwards)

    def __sub__(self, other: "Cost") -> "Cost":
        """Return what was spent after the other was read."""
        return Cost(self.seconds - other.seconds, self.forwards - other.forwards, self.backwards - other.backwards)


class CountedModel(nn.Module):
    """A model that counts the examples it sees, whoever calls it.

    Args:
        model: A classifier in eval mode.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.forwards = 0
        self.backwards = 0

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the model's logits."""
        self.forwards += len(pixels)
        logits: Tensor = self.model(pixels)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]  # torch's own gap
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)
