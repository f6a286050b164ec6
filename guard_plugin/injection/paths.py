"""Which way a penalty's gradient is computed: with the host's own pass, in passes of ours, or by torch's graph."""

import functools
import weakref
from collections import Counter
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
from guard_plugin.injection.allocator import returns_memory
from guard_plugin.injection.loss_call import LossCall
from guard_plugin.penalties import Penalty
from guard_plugin.penalties.base import HostPass, Path
from guard_plugin.penalties.fast.network_properties import Conduct, conduct_of, known_conduct, note_not_shared
from guard_plugin.penalties.fast.precomputed import Again, hand_over, reached_leaves
from guard_plugin.penalties.fast.second_order import transformed
from guard_plugin.penalties.fast.shared_forward import Opening, inside_opening
from guard_plugin.penalties.per_example import full_precision

__all__ = ["PathOptions", "Paths"]

# In memory "low", a pass takes this part of the batch.
_LOW_MEMORY_PARTS = 16
# Where memory is returned to the system and given anew, page by page, and a layer's output is large, a pass
# takes as many examples as make it small.
_CPU_LARGE, _CPU_SMALL = 16 * 2**20, 4 * 2**20

_TOO_LARGE = "its layers' outputs are large, and faster on a CPU in parts"
_NOT_A_MEAN = "the host's loss is no constant times the mean of the examples' losses"


@dataclass(frozen=True)
class PathOptions:
    """What a user may say about the way.

    Args:
        memory: "low": the penalty's passes take a small part of the batch at a time.
        path: A way by name, for debugging; "auto" is the best that is possible.
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
        """Take a user's options that are these out of all options; None is not given."""
        given = {name: options.pop(name, None) for name in ("memory", "path")}
        return cls(**{name: value for name, value in given.items() if value is not None})

    @property
    def demanded(self) -> Path | None:
        """The one way that may be gone; None where it is ours to choose."""
        if self.memory == "low":
            return "separate"
        return None if self.path == "auto" else self.path

    def check(self, penalty: Penalty) -> None:
        """Refuse what a penalty has not."""
        if self.demanded is not None and self.demanded not in penalty.paths:
            asked = "memory 'low'" if self.memory == "low" else f"path {self.path!r}"
            raise UnusableInput(
                f"penalty {penalty.name!r} cannot be had with {asked}: it is computed on path "
                f"{' or '.join(penalty.paths)} only"
            )


@dataclass
class Paths:
    """Chooses the way for each loss call, and goes it.

    Args:
        hooks: The plugin manager's hooks.
        options: The user's.
        taken: How many loss calls went each way.
        reasons: And why not a better one.
    """

    hooks: HookRelay
    options: PathOptions = field(default_factory=PathOptions)
    taken: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)

    def open(
        self, penalty: Penalty, module: nn.Module, args: tuple[Any, ...], is_guarded: Callable[[], bool]
    ) -> Opening | str:
        """Open a network call that is about to begin to the penalty, or say why its pass will not serve."""
        reason = self._why_not_open(penalty, module, args)
        if reason:
            return reason
        return Opening(args[0], _inner(module), twice=penalty.differentiates_twice) if is_guarded() else "not guarded"

    def guarded(self, call: LossCall, penalty: Penalty) -> tuple[Tensor, Tensor] | None:
        """Return the loss with the penalty, and the penalty; None where torch's own graph has to serve.

        Raises:
            UnsupportedLoss: If the way that the user named is closed to this call.
        """
        against_known = self._why_not("separate", penalty) or self._why_unknown(call)
        if against_known:
            self._note("reference", against_known)
            return None
        conduct = conduct_of(call.network, call.inputs, call.output, call.largest)
        against_known = conduct.against_known or (conduct.against_parts if self._size(call) < len(call.inputs) else "")
        if against_known:
            self._note("reference", against_known)
            return None
        found = self._shared(call, penalty, conduct)
        if not isinstance(found, str):
            self._note("shared", "")
            return found
        self._note("separate", found)
        return self._separate(call, penalty)

    def to_json(self) -> dict[str, Any]:
        """Return the ways taken, as the ledger writes them."""
        return {path: {"calls": n, "because": dict(self.reasons.get(path, {}))} for path, n in self.taken.items()}

    def _note(self, path: Path, reason: str) -> None:
        demanded = self.options.demanded
        if demanded is not None and demanded != path:
            asked = "memory 'low'" if self.options.memory == "low" else f"path {demanded!r}"
            raise UnsupportedLoss(f"{asked} was asked for, but is closed to this loss call: {reason}; leave it out")
        self.taken[path] += 1
        if reason:
            self.reasons.setdefault(path, Counter())[reason] += 1

    def _why_not(self, path: Path, penalty: Penalty) -> str:
        demanded = self.options.demanded
        if path not in penalty.paths:
            return f"{penalty.name} has no other path"
        if demanded is not None and demanded != path and not (path == "separate" and demanded == "shared"):
            return "asked for"
        if self.hooks.compute_penalty.get_hookimpls():
            return "a plugin computes penalties"
        return ""

    def _why_not_open(self, penalty: Penalty, module: nn.Module, args: tuple[Any, ...]) -> str:
        if penalty.strength == 0 or not module.training or not torch.is_grad_enabled():
            return "not guarded"
        if inside_opening():
            return "it is called within a network, or with another criterion's guard"
        if transformed():
            return "torch.compile, torch.jit.trace or torch.func sees the call"
        if len(args) != 1 or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return "its input is not one tensor of floating point"
        batch, network = args[0], _inner(module)
        if batch.requires_grad or batch.is_inference() or not any(p.requires_grad for p in module.parameters()):
            return "not guarded"  # a transform's input above all: what it returns would require grad, as synthetic data
        conduct = known_conduct(network)
        return (
            self._why_not("shared", penalty)
            or (conduct.against_sharing if conduct is not None else "")
            or (_TOO_LARGE if conduct is not None and self._is_better_in_parts(penalty, batch, conduct) else "")
            or _why_not_this_pass(module, batch)
        )

    def _is_better_in_parts(self, penalty: Penalty, batch: Tensor, conduct: Conduct) -> bool:
        """Tell whether 15 F in parts cost less than 12 F of which many are of the whole batch."""
        free = penalty.differentiates_twice and self.options.demanded != "shared"
        return free and _is_too_large(conduct.largest, batch.device)

    def _why_unknown(self, call: LossCall) -> str:
        """Say why a gradient cannot be computed before the host's backward pass."""
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

    def _shared(self, call: LossCall, penalty: Penalty, conduct: Conduct) -> tuple[Tensor, Tensor] | str:
        opening = call.opening
        if not isinstance(opening, Opening):
            return opening
        if call.output._backward_hooks or call.output.retains_grad:
            return "a hook on its output changes or reads the gradient"
        reason = opening.disturbance or conduct.against_sharing
        if reason:
            note_not_shared(call.network, conduct, reason)
            return reason
        host = HostPass(opening.batch, opening.operations, call.output, call.loss)
        loss_fn, network, targets = call.loss_fn(), call.network, call.targets
        found = penalty.on_host(host, network, targets, loss_fn=loss_fn, size=self._size(call))
        if found is None:
            return _NOT_A_MEAN
        known, value = found
        release = functools.partial(_release, weakref.ref(call.output))
        return hand_over(known, again=_again(call, penalty), own=call.loss, release=release), value

    def _separate(self, call: LossCall, penalty: Penalty) -> tuple[Tensor, Tensor]:
        low = self.options.memory == "low"
        known = penalty.in_parts(
            call.network, call.inputs, call.targets, loss_fn=call.loss_fn(), size=self._size(call), sparing=low
        )
        again = None if low else _again(call, penalty)
        value = hand_over(known, again=again)
        return call.loss + value.to(call.loss.dtype), value

    def _size(self, call: LossCall) -> int:
        """How many examples a pass takes."""
        n = len(call.inputs)
        if self.options.memory == "low":
            return -(-n // _LOW_MEMORY_PARTS)
        if not _is_too_large(call.largest, call.inputs.device):
            return n
        parts = min(n, -(-call.largest // _CPU_SMALL))
        return -(-n // parts)


def _is_too_large(nbytes: int, device: torch.device) -> bool:
    """Tell whether layers with outputs of this size are faster in parts."""
    return device.type == "cpu" and nbytes > _CPU_LARGE and returns_memory()


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


def _again(call: LossCall, penalty: Penalty) -> Again:
    """The penalty by torch's own graph, for a host that differentiates the guarded gradients again."""
    network, inputs, targets, loss_fn, paused = call.network, call.inputs, call.targets, call.loss_fn(), call.paused

    def compute() -> Tensor:
        with paused(), torch.enable_grad():
            return penalty(network, inputs, targets, loss_fn=loss_fn)

    return Again(compute, [inputs, targets, *network.parameters(), *network.buffers()])


def _release(output: "weakref.ref[Tensor]") -> None:
    """Free the graph of the host's own pass, as the backward pass would have that now ends before it."""
    tensor = output()
    if tensor is not None and not tensor._is_view():
        tensor.detach_()
