"""Which network, on which input, made a given output."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.weak import WeakTensorKeyDictionary

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties.fast.precomputed import version_of
from guard_plugin.penalties.fast.shared_forward import SharedForward, host_tensor

__all__ = ["ForwardSharer", "Origin", "Origins", "RootCallObserver"]

ForwardSharer = Callable[[nn.Module, tuple[Any, ...]], SharedForward | str]
"""Lets the penalty share the forward pass of a network call that is about to begin, or says why not."""

RootCallObserver = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any], Any], Tensor | None]
"""Sees every outermost call (module, args, kwargs, output); returns what a loss call shall return, None for others."""


@dataclass(frozen=True)
class Origin:
    """The call that made an output: ``network(*args, **kwargs)``.

    ``parameters`` are those that the network had during the call, ``versions`` count in-place changes to the inputs
    before it, and ``output_version`` those to the output after it. ``shared`` is the call's forward pass where the
    penalty shares it, or why it does not.
    """

    network: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    parameters: tuple[Tensor, ...]
    versions: tuple[int, ...]
    output_version: int
    shared: SharedForward | str

    def batch(self) -> Tensor:
        """Return the one tensor that the network was called with; refuse another call, and a tensor modified since."""
        if len(self.args) != 1 or self.kwargs or not isinstance(self.args[0], Tensor):
            raise UnsupportedLoss(
                f"expected the host to call its network with one tensor, found {type(self.network).__name__} called "
                f"with {len(self.args)} positional and {len(self.kwargs)} keyword arguments; give it one tensor"
            )
        batch: Tensor = self.args[0]
        if (version_of(batch),) != self.versions:
            raise UnsupportedLoss(
                f"the batch that {type(self.network).__name__} was called with was modified in place, by the network "
                f"or before its loss was computed, so the penalty would look at other data; modify a copy instead"
            )
        return batch

    def check_unchanged(self, output: Tensor) -> None:
        """Refuse an output that was modified in place since, or that the network made with other parameters."""
        name = type(self.network).__name__
        if output._version != self.output_version:
            raise UnsupportedLoss(
                f"the output of {name} was modified in place before its loss was computed, so the loss is not on what "
                f"the network returns; write output = output / t in place of output /= t, and give it to the network"
            )
        now = tuple(self.network.parameters())
        if len(now) != len(self.parameters) or any(a is not b for a, b in zip(now, self.parameters, strict=True)):
            raise UnsupportedLoss(
                f"{name} had other parameters when it was called (torch.func.functional_call?), so a penalty on those "
                f"that it has now would reach none of the tensors that are trained; call the network itself"
            )


@dataclass
class _Begun:
    """A call that has begun and will be remembered; ``caller`` is the frame that makes the call."""

    caller: FrameType
    versions: tuple[int, ...]
    shared: SharedForward | str


class _ThreadState(threading.local):
    # Per thread, because hooks also run in the replica threads of DataParallel.
    def __init__(self) -> None:
        self.depth = 0
        self.paused = False
        self.begun: list[_Begun] = []  # more than one where a watched network calls itself
        self.made_by = WeakTensorKeyDictionary()


class Origins:
    """Remembers, while installed, the origin of each network output, through torch's public global module hooks.

    It remembers the outputs of one ``network``, wherever it is called, or by default those of every outermost call,
    but for a call that ``observer`` takes for a loss call.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        observer: RootCallObserver | None = None,
        share_forward: ForwardSharer | None = None,
    ) -> None:
        self._network = network
        self._observer = observer
        self._share_forward = share_forward
        self._state = _ThreadState()
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            # always_call: a forward that raises must not leave the depth wrong for a host that goes on.
            register_module_forward_hook(self._leave, with_kwargs=True, always_call=True),  # type: ignore[arg-type]
        ]

    def remove(self) -> None:
        """Take the hooks off; safe to call twice."""
        for handle in self._handles:
            handle.remove()
            torch_module._global_forward_hooks_with_kwargs.pop(handle.id, None)  # torch leaves this entry behind
        self._handles = []
        self._end_begun(lambda begun: True)

    def of(self, output: Tensor) -> Origin | None:
        """Return the origin of an output of this thread, or None where no network is known to have made it."""
        origin: Origin | None = self._state.made_by.get(output)  # type: ignore[no-untyped-call]
        return origin

    @property
    def idle(self) -> bool:
        """Whether this thread is outside all module calls and not paused."""
        return self._state.depth == 0 and not self._state.paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let module calls of this thread pass unseen."""
        self._state.paused = True
        try:
            yield
        finally:
            self._state.paused = False

    def _enter(self, module: nn.Module, args: Any) -> Any:
        state = self._state
        if state.paused:
            return None
        watched = self._watches(module)
        state.depth += 1
        if not watched:
            return None
        if state.begun:
            self._end_begun(lambda begun: not _is_running(begun.caller))
        args = _host_tensors(args)
        versions = tuple([version_of(argument) for argument in args if isinstance(argument, Tensor)])
        shared = self._share_forward(module, args) if self._share_forward else "not guarded"
        state.begun.append(_Begun(sys._getframe(1), versions, shared))
        return (shared.input,) if isinstance(shared, SharedForward) else None

    def _leave(self, module: nn.Module, args: tuple[Any, ...], *kwargs_and_output: Any) -> Tensor | None:
        # After a forward that raised, torch calls without kwargs, whatever was registered (2.6 to 2.15).
        kwargs, output = kwargs_and_output if len(kwargs_and_output) > 1 else ({}, *kwargs_and_output)
        state = self._state
        if state.paused:
            return None
        state.depth -= 1
        if not self._watches(module):
            return None
        begun = state.begun.pop()
        if isinstance(begun.shared, SharedForward):
            begun.shared.close()
        handed_through = any([argument is output for argument in args])
        args = _host_tensors(args)
        loss = self._observer(module, args, kwargs, output) if self._observer else None
        # An output that is the input would keep itself alive.
        if loss is None and isinstance(output, Tensor) and output.requires_grad and not handed_through:
            self._state.made_by[output] = Origin(
                network=module,
                args=args,
                kwargs=kwargs,
                parameters=tuple(module.parameters()),
                versions=begun.versions,
                output_version=output._version,
                shared=begun.shared,
            )
        return loss

    def _end_begun(self, is_over: Callable[[_Begun], bool]) -> None:
        """Close calls that KeyboardInterrupt ended: torch runs no hook then, not even one that is always called."""
        while self._state.begun and is_over(self._state.begun[-1]):
            shared = self._state.begun.pop().shared
            if isinstance(shared, SharedForward):
                shared.close()

    def _watches(self, module: nn.Module) -> bool:
        """Tell, outside of its call, whether a module's call is one to remember."""
        return self._state.depth == 0 if self._network is None else module is self._network


def _is_running(frame: FrameType) -> bool:
    running: FrameType | None = sys._getframe()
    while running is not None and running is not frame:
        running = running.f_back
    return running is not None


def _host_tensors(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple([host_tensor(argument) for argument in args])
