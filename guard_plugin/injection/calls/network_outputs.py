"""A network call, and the tensors that it returned."""

from __future__ import annotations

import dataclasses
import operator
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.injection.calls.plain_attributes import PlainAttributes, changed_attribute
from guard_plugin.penalties.fast.precomputed import version_of
from guard_plugin.penalties.fast.shared_forward import SharedForward
from guard_plugin.versions import keeps_graph

__all__ = ["Origin", "Output", "parts_of", "versions_of"]


class _Weakly(weakref.ref[Tensor]):
    """A tensor among arguments that is not kept alive."""


@dataclass(eq=False)
class Origin:
    """A network call, ``network(*args, **kwargs)``, with the arguments that the host gave it.

    ``parameters`` are those that the network had during the call, ``training`` is its mode then, and ``versions`` count
    in-place changes to its tensors before it. ``attributes`` are those that it had when the call ended, but for what
    the call changed. ``shared`` is the call's forward pass where the penalty shares it, or why
    it does not. ``constant`` tells that it returned a tensor of numbers that does not require grad, and ``returned``
    that it returned one that does. ``place`` is set by
    ``begins`` where it must be known by which loss the call's output is trained; ``settled`` tells that it is known,
    and ``unsupported`` holds the errors of losses on it that have no form per example.
    """

    reference: weakref.ref[nn.Module]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    parameters: tuple[Tensor, ...]
    training: bool
    versions: tuple[int, ...]
    shared: SharedForward | str = "not guarded"
    attributes: PlainAttributes = field(default_factory=dict)
    constant: bool = False
    returned: bool = False
    settled: bool = False
    place: Any = None
    unsupported: list[UnsupportedLoss] = field(default_factory=list)

    @property
    def network(self) -> nn.Module:
        """The network; UnsupportedLoss is raised where the host has thrown it away."""
        network = self.reference()
        if network is None:
            raise UnsupportedLoss(
                "expected the network to exist when its loss is computed, found that it was deleted before; keep it"
            )
        return network

    @property
    def network_name(self) -> str:
        """The network's class, for messages."""
        network = self.reference()
        return "a network that was deleted since" if network is None else type(network).__name__

    @property
    def arguments(self) -> dict[int | str, Any]:
        """All arguments, by position or keyword."""
        arguments: dict[int | str, Any] = dict(enumerate(self.args))
        arguments.update(self.kwargs)
        found = {key: one() if isinstance(one, _Weakly) else one for key, one in arguments.items()}
        if any(found[key] is None and arguments[key] is not None for key in found):
            raise UnsupportedLoss(
                f"expected the batch that {self.network_name} was called with to exist when its loss is computed after "
                f"a backward pass through its output, found that it was deleted; keep it"
            )
        return found

    def release(self) -> None:
        """Hold the batch weakly from now on: its graph is freed, and a host may keep the loss for much longer."""
        self.args = tuple(map(_weakly, self.args))
        self.kwargs = {name: _weakly(one) for name, one in self.kwargs.items()}
        self.shared = "the graph of its pass is freed"

    def batch_argument(self) -> int | str:
        """Return which argument the batch is: the only tensor of floating point. Refuse a call with none or several."""
        tensors = [key for key, value in self.arguments.items() if _is_floating(value)]
        if len(tensors) != 1:
            raise UnsupportedLoss(
                f"expected the host to call its network with one tensor of floating point, the batch, found "
                f"{type(self.network).__name__} called with {len(tensors)} of them in {len(self.args)} positional and "
                f"{len(self.kwargs)} keyword arguments; give it one tensor"
            )
        return tensors[0]

    def batch(self) -> Tensor:
        """Return the batch that the network was called with; refuse a call with a tensor that was modified since."""
        batch: Tensor = self.arguments[self.batch_argument()]
        if versions_of(self.arguments.values()) != self.versions:
            raise UnsupportedLoss(
                f"the batch that {type(self.network).__name__} was called with was modified in place, by the network "
                f"or before its loss was computed, so the penalty would look at other data; modify a copy instead"
            )
        return batch

    def check_call(self) -> None:
        """Refuse a network whose class has a __call__ of its own: what it does there would be done twice."""
        call = type(self.network).__call__
        if call is not nn.Module.__call__ and not str(call.__module__).startswith("torch"):
            raise UnsupportedLoss(
                f"expected {type(self.network).__name__} to be called as torch calls a module, found a __call__ of its "
                f"own, whose work the penalty could not tell from the network's; do this work in forward()"
            )

    def check_attributes(self) -> None:
        """Refuse a network that may compute otherwise now than during the call."""
        changed = changed_attribute(self.network, self.attributes)
        if changed:
            raise UnsupportedLoss(
                f"expected {self.network_name} to be as it was called when its loss is computed, found another "
                f"{changed!r}, by which it may compute otherwise; compute each loss before you change it"
            )

    def check_parameters(self) -> None:
        """Refuse a network that has other parameters now than during the call."""
        now = tuple(self.network.parameters())
        if len(now) != len(self.parameters) or any(map(operator.is_not, now, self.parameters)):
            raise UnsupportedLoss(
                f"{type(self.network).__name__} had other parameters when it was called (torch.func.functional_call?), "
                f"so a penalty on those that it has now would reach none of the tensors that are trained; call the "
                f"network itself"
            )


@dataclass(frozen=True)
class Output:
    """One tensor of what a network call returned.

    ``pick`` leads to it: an index or key per level of what was returned. ``value`` shares its memory, and ``version``
    counts its in-place changes until it was returned. ``origins`` are those of all who watch: several criteria may be
    wrapped for one network.
    """

    origin: Origin
    pick: tuple[Any, ...]
    value: Tensor
    version: int
    origins: list[Origin]

    def settle_by(self, loss: Tensor) -> None:
        """Take it for known by which loss the output is trained, once gradients flow from this one."""
        if loss.grad_fn is not None and any(origin.place is not None for origin in self.origins):
            loss.grad_fn.register_hook(self._settle)

    def _settle(self, *_: Any) -> None:
        for origin in self.origins:
            origin.settled = True
            if not keeps_graph():
                origin.release()

    def check_unchanged(self) -> None:
        """Refuse an output that was modified in place since, unseen by autograd."""
        if version_of(self.value) != self.version:
            raise UnsupportedLoss(
                f"the output of {type(self.origin.network).__name__} was modified in place before its loss was "
                f"computed, so the loss is not on what the network returns; write output = output / t in place of "
                f"output /= t"
            )


def parts_of(returned: Any) -> Mapping[Any, Any]:
    """Return the parts of what a network returned, by index, key or name; none of a tensor or an unknown object.

    Of a dataclass these are its fields, and of another object its attributes that are tensors or hold parts.
    """
    if isinstance(returned, (tuple, list)):
        return dict(enumerate(returned))
    if isinstance(returned, Mapping):
        return returned
    if isinstance(returned, (Tensor, nn.Module)):
        return {}
    if dataclasses.is_dataclass(returned):
        names = [field.name for field in dataclasses.fields(returned)]
        return {name: getattr(returned, name) for name in names if hasattr(returned, name)}  # of init=False, unset
    slots = [name for kind in type(returned).__mro__ for name in _slots(kind) if hasattr(returned, name)]
    attributes = {**getattr(returned, "__dict__", {}), **{name: getattr(returned, name) for name in slots}}
    return {name: part for name, part in attributes.items() if isinstance(part, (Tensor, tuple, list, Mapping))}


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _weakly(argument: Any) -> Any:
    return _Weakly(argument) if isinstance(argument, Tensor) else argument


def versions_of(arguments: Iterable[Any]) -> tuple[int, ...]:
    """Return how often each tensor among the arguments was changed in place."""
    return tuple([version_of(argument) for argument in arguments if isinstance(argument, Tensor)])


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
