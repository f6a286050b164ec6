"""What one call of a network changed: attributes by which it computes, and parameters that it trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from guard_plugin.injection.calls.plain_attributes import PlainAttributes, own_modules, plain_attributes

__all__ = ["CallWatch"]


class CallWatch:
    """Looks at a network before a call, to be asked after it."""

    def __init__(self, network: nn.Module, parameters: Sequence[Tensor]) -> None:
        self._modules, self._parameters = own_modules(network), parameters
        self._attributes, self._marks = plain_attributes(self._modules), _marks(parameters)

    def left_alone(self) -> PlainAttributes:
        """Return the attributes that are what they were before."""
        before = self._attributes
        now = plain_attributes(self._modules)
        return {key: value for key, value in now.items() if key in before and before[key] == value}

    def trained(self) -> bool:
        """Tell whether parameters got a gradient, or were changed in place."""
        return self._marks != _marks(self._parameters)


def _marks(parameters: Sequence[Tensor]) -> list[Any]:
    trained = [one for one in parameters if one.requires_grad and one.is_leaf]
    return [(one._version, id(one.grad), 0 if one.grad is None else one.grad._version) for one in trained]
