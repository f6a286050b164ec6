"""Which way a penalty's gradient is computed: with the host's own pass, in passes of its own, or by torch's graph."""

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from pluggy import HookRelay
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrize

from guard_plugin.errors import UnsupportedLoss, UnusableInput
from guard_plugin.injection.ledger import PathCounts
from guard_plugin.injection.loss_call import LossCall
from guard_plugin.penalties import Curvature, Penalty
from guard_plugin.penalties.fast.network_properties import (
    NetworkProperties,
    forbid_sharing,
    known_properties,
    properties_of,
)
from guard_plugin.penalties.fast.precomputed import reached_leaves, recompute_if_unmodified, with_precomputed_gradient
from guard_plugin.penalties.fast.second_order import transformed
from guard_plugin.penalties.fast.shared_forward import SharedForward, inside_shared_forward
from guard_plugin.penalties.per_example import Losses, full_precision

__all__ = ["PathOptions", "Paths"]

Path = Literal["shared", "separate", "reference"]
"""How a penalty's gradient is computed: "reference" differentiates torch's own graph of passes that the penalty makes;
"separate" makes such passes too, and computes the gradient at once; "shared" computes it at once, with the host's own
forward pass as one of the passes. Every penalty has "reference"; the curvature penalty has all three."""

# With memory "low", a pass takes this part of the batch.
_LOW_MEMORY_PARTS = 16

_NOT_A_MEAN = "the host's loss is no constant times the mean of the examples' losses"


@dataclass(frozen=True)
class PathOptions:
    """What a user may say about the way.

    Args:
        memory: "low": the penalty's passes take a small part of the batch at a time.
        path: The only way that may be taken, for debugging; "auto" takes the fastest that is possible.

    Raises:
        UnusableInput: If a value is unknown, or the two contradict each other.
    """

    memory: Literal["normal", "low"] = "normal"
    path: Path | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("memory", self.memory, ("normal", "low")),
            ("path", self.path, ("auto", *get_args(Path))),
        ):
            if value not in known:
                raise UnusableInput(f"expected {name} to be one of {', '.join(known)}, got {value!r}")
        if self.memory == "low" and self.path not in ("auto", "separate"):
            raise UnusableInput(f"expected path auto or separate with memory low, got {self.path!r}")

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> "PathOptions":
        """Take these options out of all of a user's options; one that is None counts as not given."""
        given = {name: options.pop(name, None) for name in ("memory", "path")}
        return cls(**{name: value for name, value in given.items() if value is not None})

    @property
    def demanded(self) -> Path | None:
        """The only way that may be taken; None where the choice is free."""
        if self.memory == "low":
            return "separate"
        return None if self.path == "auto" else self.path

    @property
    def asked(self) -> str:
        """The option that demands a way, for messages."""
        return "memory 'low'" if self.memory == "low" else f"path {self.path!r}"

    def check(self, penalty: Penalty) -> None:
        """Refuse a penalty that has no such way.

        Raises:
            UnusableInput: If it has not.
        """
        if self.demanded not in (None, "reference") and not isinstance(penalty, Curvature):
            raise UnusableInput(
                f"penalty {penalty.name!r} cannot be had with {self.asked}: it is computed on path reference only"
            )


@dataclass
class Paths:
    """Chooses the way for each loss call, and takes it.

    Args:
        hooks: The plugin manager's hooks.
        options: The user's options.
    """

    hooks: HookRelay
    options: PathOptions = field(default_factory=PathOptions)
    counts: PathCounts = field(init=False)

    def __post_init__(self) -> None:
        self.counts = PathCounts(self.options.memory)

    def share_forward(
        self, penalty: Penalty, module: nn.Module, args: tuple[Any, ...], is_guarded: Callable[[], bool]
    ) -> SharedForward | str:
        """Share the forward pass of a network call that is about to begin, or say why the pass will not serve.

        Args:
            penalty: The penalty that the call's loss would receive.
            module: The network that is called.
            args: Its positional arguments.
            is_guarded: Tells whether loss calls are guarded here; asked last, because it walks the stack.
        """
        if not isinstance(penalty, Curvature):
            return self._why_not("shared", penalty)
        reason = self._why_not_shared(penalty, module, args)
        if reason:
            return reason
        if not is_guarded():
            return "not guarded"
        return SharedForward(args[0], _inner(module), twice=penalty.form == "gradient")

    def guarded(self, call: LossCall, penalty: Penalty) -> tuple[Tensor, Tensor] | None:
        """Return the loss with the penalty, and the penalty; None where torch's own graph has to serve.

        Raises:
            UnsupportedLoss: If the way that the user demands is closed to this call.
        """
        reason = self._why_not("separate", penalty) or self._why_not_precomputed(call)
        if reason or not isinstance(penalty, Curvature):
            self._note("reference", reason)
            return None
        properties = properties_of(call.network, call.inputs, call.output)
        in_parts = self._part_size(call) < len(call.inputs)
        reason = properties.against_precomputing or (properties.against_parts if in_parts else "")
        if reason:
            self._note("reference", reason)
            return None
        found = self._shared(call, penalty, properties)
        if not isinstance(found, str):
            self._note("shared", "")
            return found
        self._note("separate", found)
        return self._separate(call, penalty)

    def _note(self, path: Path, reason: str) -> None:
        demanded = self.options.demanded
        if demanded is not None and demanded != path:
            raise UnsupportedLoss(
                f"{self.options.asked} was asked for, but is closed to this loss call: {reason}; leave it out"
            )
        self.counts.note(path, reason)

    def _why_not(self, path: Path, penalty: Penalty) -> str:
        demanded = self.options.demanded
        if not isinstance(penalty, Curvature):
            return f"{penalty.name} has no other path"
        if demanded is not None and demanded != path and not (path == "separate" and demanded == "shared"):
            return "asked for"
        return "a plugin computes penalties" if self.hooks.compute_penalty.get_hookimpls() else ""

    def _why_not_shared(self, penalty: Curvature, module: nn.Module, args: tuple[Any, ...]) -> str:
        if penalty.strength == 0 or not module.training or not torch.is_grad_enabled():
            return "not guarded"
        if inside_shared_forward():
            return "it is called within a network, or with another criterion's guard"
        if transformed():
            return "torch.compile, torch.jit.trace or torch.func sees the call"
        if len(args) != 1 or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return "its input is not one tensor of floating point"
        batch = args[0]
        if batch.requires_grad or batch.is_inference() or not any(p.requires_grad for p in module.parameters()):
            return "not guarded"  # a transform's input above all: what it returns would require grad, as synthetic data
        properties = known_properties(_inner(module))
        against_sharing = properties.against_sharing if properties is not None else ""
        return self._why_not("shared", penalty) or against_sharing or _why_not_this_pass(module, batch)

    def _why_not_precomputed(self, call: LossCall) -> str:
        """Say why the gradient cannot be computed before the host's backward pass."""
        targets = call.targets
        if isinstance(targets, Tensor) and targets.requires_grad and not targets.is_leaf:
            return "its targets are computed from what is trained"
        if call.loss.dim() != 0:
            return "the host's loss is no scalar"
        if any(leaf._backward_hooks for leaf in reached_leaves(call.loss)):
            return "a hook on a parameter changes or reads its gradient"
        if parametrize._cache_enabled:
            return "parametrized weights are computed once for several passes"
        return ""

    def _shared(self, call: LossCall, penalty: Curvature, properties: NetworkProperties) -> tuple[Tensor, Tensor] | str:
        shared = call.shared
        if not isinstance(shared, SharedForward):
            return shared
        if call.output._backward_hooks or call.output.retains_grad:
            return "a hook on its output changes or reads the gradient"
        reason = shared.disturbance or properties.against_sharing
        if reason:
            forbid_sharing(call.network, properties, reason)
            return reason
        losses = Losses(call.network, call.targets, call.loss_fn())
        found = penalty.on_host(losses, shared, call.output, call.loss)
        if found is None:
            return _NOT_A_MEAN
        precomputed, value = found
        release = functools.partial(_release, weakref.ref(call.output))
        recompute = _recompute(call, penalty)
        return with_precomputed_gradient(precomputed, recompute=recompute, own=call.loss, release=release), value

    def _separate(self, call: LossCall, penalty: Curvature) -> tuple[Tensor, Tensor]:
        low = self.options.memory == "low"
        losses = Losses(call.network, call.targets, call.loss_fn())
        precomputed = penalty.in_parts(losses, call.inputs, size=self._part_size(call), low_memory=low)
        value = with_precomputed_gradient(precomputed, recompute=None if low else _recompute(call, penalty))
        return call.loss + value.to(call.loss.dtype), value

    def _part_size(self, call: LossCall) -> int:
        """Return how many examples a pass takes."""
        n = len(call.inputs)
        return -(-n // _LOW_MEMORY_PARTS) if self.options.memory == "low" else n


def _inner(module: nn.Module) -> nn.Module:
    return module.module if isinstance(module, DistributedDataParallel) else module


def _why_not_this_pass(module: nn.Module, batch: Tensor) -> str:
    if isinstance(module, DataParallel) and len(module.device_ids) > 1:
        return "it is spread over several devices"
    if isinstance(module, DistributedDataParallel) and module.static_graph:
        return "DDP's static_graph needs the gradients to pass its output"
    if torch.is_autocast_enabled(batch.device.type):
        return "autocast is on"
    if full_precision(batch, batch, _inner(module))[0].dtype != batch.dtype:
        return "its input is of less precision than its parameters"
    if torch_module._global_backward_hooks or torch_module._global_backward_pre_hooks:
        return "a hook on modules reads gradients"
    if any(part._backward_hooks or part._backward_pre_hooks for part in module.modules()):
        return "a hook on its modules reads gradients"
    return ""


def _recompute(call: LossCall, penalty: Penalty) -> Callable[[], Tensor]:
    """Return the penalty by torch's own graph, for a host that differentiates the guarded gradients again."""
    network, inputs, targets, loss_fn, paused = call.network, call.inputs, call.targets, call.loss_fn(), call.paused

    def compute() -> Tensor:
        with paused(), torch.enable_grad():
            return penalty(network, inputs, targets, loss_fn=loss_fn)

    return recompute_if_unmodified(compute, [inputs, targets, *network.parameters(), *network.buffers()])


def _release(output: "weakref.ref[Tensor]") -> None:
    """Free the graph of the host's own pass, as the backward pass would have that now ends before it."""
    tensor = output()
    if tensor is not None and not tensor._is_view():
        tensor.detach_()
