"""Which way a penalty's gradient is computed: with the host's own pass, in passes of its own, or by torch's graph."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrize

from guard_plugin.errors import UnsupportedLoss, UnusableInput
from guard_plugin.injection.account.tallies import PathCounts
from guard_plugin.injection.calls.as_called import own_part
from guard_plugin.injection.calls.loss_call import LossCall
from guard_plugin.injection.calls.module_calls import uncompiled
from guard_plugin.injection.calls.origins import own_passes
from guard_plugin.injection.calls.real_data import is_trained
from guard_plugin.penalties import Curvature, Penalty
from guard_plugin.penalties.fast.precomputed import recompute_if_unmodified, with_precomputed_gradient
from guard_plugin.penalties.fast.shared_forward import SharedForward, inside_shared_forward
from guard_plugin.penalties.graph import ComputedBefore, nodes_behind, reached_leaves
from guard_plugin.penalties.network_properties import NetworkProperties, forbid, known_properties, properties_of
from guard_plugin.penalties.per_example import Losses, full_precision
from guard_plugin.penalties.reads_training import is_torchs
from guard_plugin.versions import WHY_REFERENCE_ONLY, is_autocast_enabled, is_transformed, saved_tensors_are_hooked

if TYPE_CHECKING:
    from pluggy import HookRelay  # which pluggy 1.0 to 1.2 do not have
    from typing_extensions import TypeGuard

__all__ = ["Paths", "penalty_cut_off"]

Path = Literal["shared", "separate", "reference"]
"""How a penalty's gradient is computed: "reference" differentiates torch's own graph of passes that the penalty makes;
"separate" makes such passes too, and computes the gradient at once; "shared" computes it at once, with the host's own
forward pass as one of the passes. Every penalty has "reference"; the curvature penalty has all three."""

_COMPUTED_BEFORE = "its weights are computed outside of its forward pass"

# A shared pass begins with a copy of the batch that requires grad, and so would what it returns.
_CONSTANT = "it returns a tensor that no gradient flows to"

# With memory "low", a pass takes this part of the batch.
_LOW_MEMORY_PARTS = 16


class Paths:
    """Chooses the way for each loss call, and takes it.

    Two of the user's options are taken out of ``options``; one that is None counts as not given. With ``memory`` "low",
    the penalty's passes take a small part of the batch at a time. ``path`` is the only way that may be taken, for
    debugging; "auto" takes the fastest that is possible. UnusableInput is raised where a value is unknown, or the two
    contradict each other.
    """

    def __init__(self, hooks: HookRelay, options: dict[str, Any]) -> None:
        given = []
        for name, known in (("memory", ("normal", "low")), ("path", ("auto", *get_args(Path)))):
            value = options.pop(name, None)
            if value not in (None, *known):
                raise UnusableInput(f"expected {name} to be one of {', '.join(known)}, got {value!r}")
            given.append(known[0] if value is None else value)
        memory, path = given
        if memory == "low" and path not in ("auto", "separate"):
            raise UnusableInput(f"expected path auto or separate with memory low, got {path!r}")
        self.counts = PathCounts(memory)
        self.hooks = hooks
        self._low_memory = memory == "low"
        self._asked = "memory 'low'" if self._low_memory else f"path {path!r}"
        # Of each network that is called, the one that was examined: from the batch alone to the judged tensor.
        self._examined: weakref.WeakKeyDictionary[nn.Module, weakref.ref[nn.Module]] = weakref.WeakKeyDictionary()
        self._demanded = "separate" if self._low_memory else None if path == "auto" else path

    def in_words(self) -> str:
        """Say what the user demands, as it goes on after the penalty; empty where that is nothing."""
        return ", " + self._asked.replace("'", "") if self._demanded else ""

    def check(self, penalty: Penalty) -> None:
        """Refuse, with UnusableInput, a penalty, or a torch, that does not have the way that the user demands."""
        if self._demanded not in (None, "reference") and WHY_REFERENCE_ONLY:
            raise UnusableInput(f"{self._asked} cannot be had: {WHY_REFERENCE_ONLY}")
        if self._demanded not in (None, "reference") and not _has_fast_ways(penalty):
            raise UnusableInput(
                f"penalty {penalty.name!r} cannot be had with {self._asked}: it is computed on path reference only"
            )
        if self._low_memory and penalty.batch_statistics:
            raise UnusableInput("expected memory 'normal' with batch_statistics: parts of a batch have their own")

    def share_forward(
        self, penalty: Penalty, module: nn.Module, args: tuple[Any, ...], is_guarded: Callable[[], bool]
    ) -> SharedForward | str:
        """Share the forward pass of a network call that is about to begin, or say why the pass will not serve.

        ``penalty`` is the one that the call's loss would receive; ``is_guarded`` tells whether loss calls are guarded
        here, and is asked last, because it walks the stack.
        """
        if not _has_fast_ways(penalty) or WHY_REFERENCE_ONLY:
            return self._why_not("shared", penalty)
        reason = self._why_not_shared(penalty, module, args)
        if reason:
            return reason
        if not is_guarded():
            return "not guarded"
        twice, in_batches = penalty.form == "gradient", penalty.batch_statistics
        return SharedForward(args[0], own_part(module), twice=twice, batch_statistics=in_batches)

    def guarded(self, call: LossCall, penalty: Penalty) -> tuple[Tensor, Tensor] | None:
        """Return the loss with the penalty, and the penalty; None where torch's own graph has to serve."""
        in_batches = penalty.batch_statistics
        properties = properties_of(call.network, call.inputs, call.network_output, batch_statistics=in_batches)
        self._examined[own_part(call.made_by.network)] = weakref.ref(call.network)
        if call.made_by.constant:
            forbid(call.network, against_sharing=_CONSTANT)
        reason = self._why_not("separate", penalty) or self._why_not_precomputed(call)
        if reason or not _has_fast_ways(penalty):
            self._note("reference", reason)
            return None
        n = len(call.inputs)
        # Where nothing is known of parts yet, the batch is passed as a whole.
        whole = properties.against_parts if self._low_memory and not properties.lasting else ""
        size = -(-n // _LOW_MEMORY_PARTS) if self._low_memory and not whole else n
        reason = properties.against_precomputing or (properties.against_parts if size < n else "")
        if reason:
            self._note("reference", reason, lasting=properties.lasting)
            return None
        try:
            found = self._shared(call, penalty, properties)
            if not isinstance(found, str):
                self._note("shared", "")
                return found
            losses, low = Losses(call.network, call.targets, call.loss_fn()), self._low_memory
            precomputed = penalty.in_parts(losses, call.inputs, size=size, low_memory=low)
        except ValueError as error:  # a layer that needs several values
            if size == n:
                raise
            self._note("reference", f"it cannot be passed {size} of its examples: {error}")  # which is refused
            return None
        except ComputedBefore:
            forbid(call.network, against_precomputing=_COMPUTED_BEFORE)
            self._note("reference", _COMPUTED_BEFORE)
            return None
        self._note("separate", whole or found, lasting=properties.lasting)
        value = with_precomputed_gradient(precomputed, recompute=None if low else _recompute(call, penalty))
        if not value.requires_grad:
            raise penalty_cut_off(penalty)
        return call.loss + value.to(call.loss.dtype), value

    def _note(self, path: Path, reason: str, *, lasting: bool = True) -> None:
        """Count a call's way; refuse one that was not asked for, unless the reason may not hold for the next call."""
        if lasting and self._demanded not in (None, path):
            raise UnsupportedLoss(
                f"{self._asked} was asked for, but is closed to this loss call: {reason}; leave it out"
            )
        self.counts.note(path, reason)

    def _why_not(self, path: Literal["shared", "separate"], penalty: Penalty) -> str:
        if not _has_fast_ways(penalty):
            return f"{penalty.name} has no other path"
        if WHY_REFERENCE_ONLY:
            return WHY_REFERENCE_ONLY
        if self._demanded not in (None, path) and (path, self._demanded) != ("separate", "shared"):
            return "asked for"
        others = len(self.hooks.compute_penalty.get_hookimpls()) > 1  # one is guard-plugin's own
        return "a plugin computes penalties" if others else ""

    def _why_not_shared(self, penalty: Curvature, module: nn.Module, args: tuple[Any, ...]) -> str:
        if penalty.strength == 0 or not module.training or not torch.is_grad_enabled():
            return "not guarded"
        if inside_shared_forward():
            return "it is called within a network, or with another criterion's guard"
        if is_transformed():
            return "torch.compile, torch.jit.trace or torch.func sees the call"
        if len(args) != 1 or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return "its input is not one tensor of floating point"
        batch = args[0]
        if batch.requires_grad or batch.is_inference() or not is_trained(module):
            return "not guarded"  # a transform's input above all: what it returns would require grad, as synthetic data
        examined = self._examined.get(own_part(module), weakref.ref(own_part(module)))()
        in_batches = penalty.batch_statistics
        properties = known_properties(examined, batch_statistics=in_batches) if examined is not None else None
        if properties is None:  # but for the path that is demanded, for debugging
            against_sharing = "" if self._demanded == "shared" else "it was not examined before"
        else:
            against_sharing = properties.against_sharing
        return self._why_not("shared", penalty) or _why_not_this_pass(module, batch) or against_sharing

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
        shared = call.made_by.shared
        if not isinstance(shared, SharedForward):
            return shared
        if call.output._backward_hooks or call.output.retains_grad:
            return "a hook on its output changes or reads the gradient"
        reason = shared.disturbance or properties.against_sharing or _why_not_this_loss(call)
        if reason:
            forbid(call.network, against_sharing=reason)
            return reason
        losses = Losses(call.network, call.targets, call.loss_fn())
        found = penalty.on_host(losses, shared, call.output, call.loss)
        if found is None:
            return "the host's loss is no constant times the mean of the examples' losses"
        precomputed, value = found
        release = functools.partial(_release, weakref.ref(call.output))
        recompute = _recompute(call, penalty)
        return with_precomputed_gradient(precomputed, recompute=recompute, own=call.loss, release=release), value


def penalty_cut_off(penalty: Penalty) -> UnsupportedLoss:
    """Return the error of a penalty of which no gradient reaches the network."""
    return UnsupportedLoss(
        f"expected gradients of penalty {penalty.name!r} to reach the network's parameters, found that none does: a "
        f"plugin computes it otherwise than by call.network itself (by a copy), or in evaluation the network computes "
        f"by other tensors than its parameters, cuts its input off (torch.no_grad, .detach(), numpy) or rounds it; "
        f"apply this step to the batch before the network gets it"
    )


def _has_fast_ways(penalty: Penalty) -> TypeGuard[Curvature]:
    """Tell whether a penalty is computed as Curvature is; a subclass may compute another one."""
    return isinstance(penalty, Curvature) and type(penalty).__call__ is Curvature.__call__


def _why_not_this_pass(module: nn.Module, batch: Tensor) -> str:
    if any(_is_compiled(part) for part in module.modules()):
        return "torch.compile compiled it, and what it compiled cannot be differentiated twice"
    if isinstance(module, DataParallel) and len(module.device_ids) > 1:
        return "it is spread over several devices"
    if isinstance(module, DistributedDataParallel) and module.static_graph:
        return "DDP's static_graph needs the gradients to pass its output"
    if is_autocast_enabled(batch.device.type):
        return "autocast is on"
    if saved_tensors_are_hooked():
        return "hooks on saved tensors are on, as in torch.utils.checkpoint, which may make the pass twice"
    if full_precision(batch, batch, own_part(module))[0].dtype != batch.dtype:
        return "its input is of less precision than its parameters"
    return _why_not_hooked(module)


def _why_not_hooked(module: nn.Module) -> str:
    parts = list(module.modules())
    backward = [torch_module._global_backward_hooks, torch_module._global_backward_pre_hooks]
    if any(backward) or any(part._backward_hooks or part._backward_pre_hooks for part in parts):
        return "a hook on its modules reads gradients"
    forward = [torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks]
    forward += [hooks for part in parts for hooks in (part._forward_hooks, part._forward_pre_hooks)]
    own = [hook for hooks in forward for hook in hooks.values() if not is_torchs(hook)]
    return "a hook on its modules sees its forward pass" if own else ""


def _why_not_this_loss(call: LossCall) -> str:
    if not call.derivation.is_direct:
        return "its loss is on what the host computed from its output"
    names = {node.name() for node in nodes_behind(call.output)}
    once = sorted(names & {"CheckpointFunctionBackward", "CompiledFunctionBackward"})
    return f"{once[0]} cannot be differentiated twice" if once else ""


def _is_compiled(module: nn.Module) -> bool:
    return uncompiled(module) is not module or getattr(module, "_compiled_call_impl", None) is not None


def _recompute(call: LossCall, penalty: Penalty) -> Callable[[], Tensor]:
    """Return the penalty by torch's own graph, for a host that differentiates the guarded gradients again."""
    network, inputs, targets, loss_fn = call.network, call.inputs, call.targets, call.loss_fn()
    paused = call.origins.paused  # not the call, which holds the loss and its graph

    def compute() -> Tensor:
        with paused(), own_passes(), torch.enable_grad():
            return penalty(network, inputs, targets, loss_fn=loss_fn)

    return recompute_if_unmodified(compute, [inputs, targets, *network.parameters(), *network.buffers()])


def _release(output: weakref.ref[Tensor]) -> None:
    """Free the graph of the host's own pass, as the backward pass would have that now ends before it."""
    tensor = output()
    if tensor is not None and not tensor._is_view():
        tensor.detach_()
