"""Which network, on which input, made a given tensor."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.injection.calls.call_watch import CallWatch
from guard_plugin.injection.calls.derivation import Derivation, derive
from guard_plugin.injection.calls.module_calls import uncompiled, watch_module_calls
from guard_plugin.injection.calls.network_outputs import Origin, Output, parts_of, versions_of
from guard_plugin.penalties.attributes import held
from guard_plugin.penalties.fast.precomputed import version_of
from guard_plugin.penalties.fast.shared_forward import SharedForward, host_tensor
from guard_plugin.versions import keeps_graph

__all__ = ["ForwardSharer", "Origins", "RootCallObserver", "TrainingObserver", "own_passes"]

ForwardSharer = Callable[[Origin], "SharedForward | str"]
"""Lets the penalty share the forward pass of a network call that is about to begin, or says why not."""

RootCallObserver = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Any], "Tensor | None"]
"""Sees every outermost call (module, args, kwargs, output); returns what a loss call shall return, None for others."""

TrainingObserver = Callable[[Origin], "Callable[[], None] | None"]
"""Sees each call to whose output gradients flow that no loss call settled; returns what to do if none does in time."""


_own_passes: list[None] = []


class _OwnPasses(threading.local):
    here = False


_own = _OwnPasses()


class _ThreadState(threading.local):
    # Per thread, because DataParallel calls its replicas in threads of their own.
    inside = False
    paused = False


class Origins:
    """Remembers, while installed, the origin of each network output.

    It remembers the outputs of one ``network``, wherever it is called, or by default those of every outermost call, but
    for a call that ``observer`` takes for a loss call. ``begins`` sees each call to remember before it is made, and
    ``trained_on`` each one through whose output gradients flow; what it returns is done at the network's next call, or
    by :meth:`judge`, if no loss call has settled by then what the output is trained on.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        observer: RootCallObserver | None = None,
        begins: Callable[[Origin], None] | None = None,
        share_forward: ForwardSharer | None = None,
        trained_on: TrainingObserver | None = None,
    ) -> None:
        self._network = None if network is None else weakref.ref(uncompiled(network))
        self._observer = observer
        self._begins = begins
        self._share_forward = share_forward
        self.trained_on = trained_on
        self._state = _ThreadState()
        self._unsettled: list[tuple[Origin, Callable[[], None]]] = []
        # Of each output that is alive, the network: a host may keep nothing else. By id, as tensors do not compare.
        self._made: dict[int, tuple[weakref.ref[Tensor], nn.Module]] = {}
        self._called: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.as_called: deque[Any] = deque(maxlen=4)  # few, as each keeps its network: a host may judge several outputs
        self._stop_watching = watch_module_calls(self._call)

    def remove(self) -> None:
        """Watch no longer; safe to call twice."""
        self._stop_watching()
        self._made.clear()
        self._called.clear()
        self.as_called.clear()
        self._unsettled.clear()
        self.trained_on = None

    def of(self, tensor: Tensor, *, search: bool = False) -> tuple[Output | None, Derivation]:
        """Return the network output that a tensor is, or was derived from, and how; None where it is not known.

        With ``search``, an output that lies anywhere behind the tensor is found, too.
        """
        return derive(tensor, self._find, search=search)

    def network_of_node(self, node: Any) -> nn.Module | None:
        """Return the network with parameters that returned the tensor of an autograd node, or None."""
        outputs = [one for one in node.metadata.values() if isinstance(one, Output)]
        return outputs[0].origin.network if outputs and outputs[0].origin.parameters else None

    def _find(self, node: Any, number: int) -> Output | None:
        found: Output | None = node.metadata.get((id(self), number))
        return found

    def network_of(self, tensor: Tensor) -> nn.Module | None:
        """Return the network with parameters that returned a tensor, or what it is a view of; None if not known."""
        for one in (tensor, tensor._base):
            known = self._made.get(id(one))
            if known is not None and known[0]() is one and next(known[1].parameters(), None) is not None:
                return known[1]
        return None

    def network_with(self, tensor: Tensor) -> nn.Module | None:
        """Return a network that was called and has this parameter, or None."""
        if not isinstance(tensor, nn.Parameter):
            return None
        return next((one for one in self._called if any(tensor is parameter for parameter in one.parameters())), None)

    def judge(self, network: nn.Module | None = None) -> None:
        """Do what ``trained_on`` returned for each call of a network, by default of all, that is not settled."""
        due = [one for one in self._unsettled if network is None or one[0].reference() in (None, network)]
        self._unsettled = [one for one in self._unsettled if one not in due]
        for origin, verdict in due:
            if not origin.settled:
                verdict()

    def note_training(self, origin: Origin) -> None:
        """Note that gradients flow to the output of a call."""
        if _own_passes or self.trained_on is None or origin.settled or any(one is origin for one, _ in self._unsettled):
            return
        verdict = self.trained_on(origin)
        if verdict is not None:
            self._unsettled.append((origin, verdict))

    @property
    def idle(self) -> bool:
        """Whether this thread is outside all module calls and not paused."""
        return not (self._state.inside or self._state.paused)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let module calls of this thread pass unseen."""
        before, self._state.paused = self._state.paused, True
        try:
            yield
        finally:
            self._state.paused = before

    def _call(self, proceed: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        state = self._state
        watched = not state.inside if self._network is None else uncompiled(module) is self._network()
        # Several may watch a network, and each has passes of its own; what torch.jit traces shall hold nothing of ours.
        if state.paused or _own.here or not watched or torch._C._get_tracing_state() is not None:
            return proceed(*args, **kwargs)
        own = tuple([host_tensor(argument) for argument in args])  # another watcher may share this call
        versions = versions_of((*own, *kwargs.values()))
        origin = Origin(weakref.ref(module), own, kwargs, tuple(module.parameters()), module.training, versions)
        outermost, state.inside = not state.inside, True
        try:
            if self._begins is not None and outermost:
                self.judge(module)
                self._begins(origin)
            watch = CallWatch(module, origin.parameters) if self._network or origin.place is not None else None
            output = self._proceed(partial(proceed, *args, **kwargs), proceed, origin)
        finally:
            if outermost:
                state.inside = False
        loss = self._observer(module, args, kwargs, output) if self._observer else None
        if loss is not None:
            return loss
        self._called.add(module)
        self._remember(origin, output, (), ())
        if watch is not None:
            self._note_effects(origin, watch)
        return output

    def _note_effects(self, origin: Origin, watch: CallWatch) -> None:
        """Note what a call on whose output a loss may be guarded left as it was, and how it may train unseen."""
        origin.attributes = watch.left_alone()
        if watch.trained():
            self.note_training(origin)
        if origin.place is not None and not origin.returned:
            for kept in held(list(origin.network.modules())):
                if isinstance(kept, Tensor) and kept.grad_fn is not None:
                    kept.grad_fn.register_hook(partial(_note_flow, weakref.ref(self), origin))

    def _proceed(self, as_it_is: Callable[[], Any], proceed: Callable[..., Any], origin: Origin) -> Any:
        if self._share_forward is not None:
            origin.shared = self._share_forward(origin)
        if not isinstance(origin.shared, SharedForward):
            return as_it_is()
        try:
            return proceed(origin.shared.input)
        finally:
            origin.shared.close()

    def _remember(self, origin: Origin, returned: Any, pick: tuple[Any, ...], inside: tuple[Any, ...]) -> None:
        """Remember each tensor that was returned, which may lie in an object that leads back to one it is inside of."""
        if isinstance(returned, Tensor):
            self._remember_tensor(origin, returned, pick)
        elif not any(returned is one for one in inside):
            for key, part in parts_of(returned).items():
                self._remember(origin, part, (*pick, key), (*inside, returned))

    def _remember_tensor(self, origin: Origin, output: Tensor, pick: tuple[Any, ...]) -> None:
        node: Any = output.grad_fn
        origin.constant |= output.is_floating_point() and not output.requires_grad
        if any(output is argument for argument in origin.arguments.values()) or (
            node is None and not origin.parameters
        ):
            return
        key, made = id(output), self._made
        made[key] = (weakref.ref(output, lambda gone: made.pop(key, None)), origin.network)
        if node is None:
            return
        origin.returned = True
        origins = node.metadata.setdefault((Output, output.output_nr), [])
        origins.append(origin)
        value = output.detach()
        node.metadata[(id(self), output.output_nr)] = Output(origin, pick, value, version_of(output), origins)
        node.register_hook(partial(_note_flow, weakref.ref(self), origin))


@contextmanager
def own_passes() -> Iterator[None]:
    """Take this thread's calls meanwhile for passes of the penalty, and what flows to outputs in any, as autograd's."""
    before, _own.here = _own.here, True
    _own_passes.append(None)
    try:
        yield
    finally:
        _own_passes.pop()
        _own.here = before


def _note_flow(alive: weakref.ref[Origins], origin: Origin, *gradients: Any) -> None:
    origins = alive()
    if origins is not None and origin.place is not None:
        origins.note_training(origin)
    if not (_own_passes or keeps_graph()):
        origin.release()
