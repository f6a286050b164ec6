"""A scalar whose gradient was computed before the backward pass that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties.graph import batch_cut_off
from guard_plugin.versions import keeps_graph, products_with, strict_zip

__all__ = ["PrecomputedGradient", "recompute_if_unmodified", "version_of", "with_precomputed_gradient"]

_ONCE = "the guarded gradients cannot be had with create_graph=True: "
_ONCE_LOW = f"{_ONCE}memory 'low' computes them only once; use memory 'normal'"
_ONCE_DONE = (
    f"{_ONCE}the loss was differentiated without create_graph before; use path='reference' (--set path=reference)"
)

# A gradient of at most so many bytes waits for others, to be added together with them: operations cost time, too.
_SMALL = 2**18


@dataclass
class PrecomputedGradient:
    """A scalar and its gradient, added up part by part: by id of a tensor, the tensor and the gradient for it."""

    value: Tensor
    gradients: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _own: set[int] = field(default_factory=set)  # whose gradients are in tensors that nobody else has
    _waiting: list[dict[int, tuple[Tensor, Tensor]]] = field(default_factory=list)  # each with a tensor once

    def add(self, tensor: Tensor, gradient: Tensor) -> None:
        """Add a gradient, which is not modified, to a tensor's: a small one when :meth:`differentiate` ends."""
        added = {id(tensor): (tensor, gradient)}
        if not _is_small(tensor):
            self._add_each(added)
            return
        for waiting in self._waiting:
            if id(tensor) not in waiting:
                waiting.update(added)
                return
        self._waiting.append(added)

    def _add_each(self, added: dict[int, tuple[Tensor, Tensor]]) -> None:
        """Add one gradient for each of several tensors, in few operations."""
        own = [key for key in added if key in self._own]
        shared = [key for key in added if key in self.gradients and key not in self._own]
        if own:
            torch._foreach_add_([self.gradients[key][1] for key in own], [added[key][1] for key in own])
        if shared:
            sums = torch._foreach_add([self.gradients[key][1] for key in shared], [added[key][1] for key in shared])
            self.gradients.update((key, (added[key][0], one)) for key, one in strict_zip(shared, sums))
            self._own.update(shared)
        for key in [key for key in added if key not in self.gradients]:
            tensor, gradient = added[key]
            # A view is copied: what autograd hands out for two tensors may lie in one memory.
            self.gradients[key] = (tensor, gradient.clone() if gradient._is_view() else gradient)

    def differentiate(
        self,
        outputs: Sequence[Tensor],
        leaves: Sequence[Tensor],
        cotangents: Sequence[Tensor] | None = None,
        *,
        also: Sequence[Tensor] = (),
        keep: bool = False,
    ) -> list[Tensor]:
        """Add the gradients of <outputs, cotangents> for leaves; large ones one by one, so as not to hold all at once.

        The cotangents are by default 1, for scalars. The gradients for ``also``, further tensors, are returned;
        UnsupportedLoss is raised if one of them is not reached. The graph is freed unless ``keep``.
        """
        if not (leaves or also):
            return []
        if also and not all(output.requires_grad for output in outputs):
            raise batch_cut_off()
        zeros: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        large = [leaf for leaf in leaves if not _is_small(leaf)]
        handles = [leaf.register_hook(partial(self._take, leaf, zeros)) for leaf in large]  # type: ignore[no-untyped-call]
        try:
            found = torch.autograd.grad(outputs, [*also, *leaves], cotangents, retain_graph=keep, allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
        if any(gradient is None for gradient in found[: len(also)]):
            raise batch_cut_off()
        for leaf, gradient in strict_zip(leaves, found[len(also) :]):
            if gradient is not None and _is_small(leaf):
                self.add(leaf, gradient)
        while self._waiting:
            self._add_each(self._waiting.pop(0))
        return list(found[: len(also)])

    def _take(
        self, leaf: Tensor, zeros: dict[tuple[torch.dtype, torch.device], Tensor], gradient: Tensor | None
    ) -> Tensor | None:
        if gradient is None:  # torch runs hooks on undefined gradients, too
            return None
        self.add(leaf, gradient)
        kind = gradient.dtype, gradient.device
        zeros[kind] = zeros[kind] if kind in zeros else gradient.new_zeros(())
        return zeros[kind].expand_as(gradient)  # what autograd then holds takes no memory

    def scaled(self, value: Tensor, weight: Tensor | float) -> PrecomputedGradient:
        """Return ``value`` with these gradients times ``weight``. This object is not to be used any more."""
        products = products_with([gradient for _, gradient in self.gradients.values()], weight)
        scaled = {key: (tensor, one) for (key, (tensor, _)), one in strict_zip(self.gradients.items(), products)}
        return PrecomputedGradient(value, scaled, set(scaled))

    def add_all(self, other: PrecomputedGradient) -> None:
        """Add another one's gradients, but not its value. The other object is not to be used any more."""
        self._add_each(other.gradients)


def _is_small(tensor: Tensor) -> bool:
    return tensor.numel() * tensor.element_size() <= _SMALL


def version_of(tensor: Tensor) -> int:
    """Count a tensor's in-place changes; a tensor of torch.inference_mode, which keeps no count, has 0."""
    return 0 if tensor.is_inference() else tensor._version


def recompute_if_unmodified(compute: Callable[[], Tensor], watched: Iterable[Tensor]) -> Callable[[], Tensor]:
    """Return ``compute``, which then raises UnsupportedLoss if a watched tensor was modified in place since now."""
    versions = [(tensor, version_of(tensor)) for tensor in watched]

    def recompute() -> Tensor:
        if any(version_of(tensor) != version for tensor, version in versions):
            raise UnsupportedLoss(
                "expected network and batch as they were when the loss was computed, found parameters, buffers or "
                "inputs modified in place before backward(create_graph=True): the penalty cannot be computed again; "
                "use path='reference' (guard run --set path=reference)"
            )
        return compute()

    return recompute


def with_precomputed_gradient(
    precomputed: PrecomputedGradient,
    *,
    recompute: Callable[[], Tensor] | None,
    own: Tensor | None = None,
    release: Callable[[], None] | None = None,
) -> Tensor:
    """Return a scalar whose first derivatives are the precomputed ones.

    The gradients travel on when the host calls ``backward()`` or ``autograd.grad()`` on what it made of the scalar,
    times the gradient that arrives there: into ``.grad``, and through the hooks of DDP and GradScaler.

    Args:
        precomputed: The value and its gradients.
        recompute: Computes the same scalar with torch's own graph, where the host differentiates with
            ``create_graph=True``; the backward pass raises UnsupportedLoss then if it is None or raises that itself.
        own: A part of the scalar that has a graph, which ``recompute`` therefore leaves out.
        release: Called at the end of a backward pass that frees its graph.
    """
    if not precomputed.gradients or not torch.is_grad_enabled():
        return precomputed.value.detach()
    tensors, gradients = strict_zip(*precomputed.gradients.values())
    kept = () if own is None else (own,)
    scalar: Tensor = _Precomputed.apply(precomputed.value.detach(), recompute, release, kept, gradients, *tensors)
    return scalar


class _Precomputed(Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, recompute: Any, release: Any, own: Any, gradients: Any, *tensors: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*gradients, *own)  # so that backward() frees them
        ctx.recompute, ctx.release, ctx.tensors, ctx.done = recompute, release, tensors, False
        return value.clone()

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> Any:
        saved, count = ctx.saved_tensors, len(ctx.tensors)
        if torch.is_grad_enabled():
            if ctx.recompute is None:
                raise UnsupportedLoss(_ONCE_DONE if ctx.done else _ONCE_LOW)
            scalar = sum(saved[count:], ctx.recompute())
            found = torch.autograd.grad(scalar, ctx.tensors, weight, create_graph=True, allow_unused=True)
            return *[None] * 5, *found
        # What `recompute` holds, batch and network, must not live as long as a loss that the host keeps.
        ctx.recompute, ctx.done = None, True
        if ctx.release is not None and not keeps_graph():
            torch.autograd.Variable._execution_engine.queue_callback(ctx.release)  # other parts may need it until then
        # Beside a loss of the host's own no copy is needed: autograd returns the sum. On CUDA, asking would wait.
        batched = torch._C._functorch.is_batchedtensor(weight)  # is_grads_batched=True
        if len(saved) == count and not batched and not weight.is_cuda and weight == 1:
            return *[None] * 5, *saved
        weighted = [one * weight for one in saved[:count]] if batched else products_with(saved[:count], weight)
        return *[None] * 5, *weighted
