"""Running a script as it is, and noting what its losses are on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.hosts.seams import MODULE_LEVEL
from guard_plugin.injection.account.ledger import OUTSIDE
from guard_plugin.injection.calls.compiled_functions import COMPILE_NETWORK, watch_compiled_functions
from guard_plugin.injection.calls.loss_call import LossCall
from guard_plugin.injection.calls.network_outputs import Origin
from guard_plugin.injection.calls.real_data import (
    LEARNED,
    PART_OF_LEARNED,
    UNDECIDED,
    is_part_of_learned,
    is_trained,
    why_not_real,
    why_not_real_batch,
)
from guard_plugin.injection.calls.sources import CHANGED_BY_GRADIENTS, Sources
from guard_plugin.injection.calls.stack import StackReader, locals_of
from guard_plugin.injection.calls.tap import Tap
from guard_plugin.injection.launch import run_plain
from guard_plugin.injection.processes.program import Program
from guard_plugin.observation.children import Children
from guard_plugin.observation.formula import numbers_of
from guard_plugin.observation.gradient_use import GradientUse
from guard_plugin.observation.sites import IN_COMPILED, Function, Group, Observation, Verdict
from guard_plugin.penalties.graph import reached_leaves

__all__ = ["observe_program"]


class _Enough(BaseException):
    """Ends a script of which enough was seen; no Exception, so that the script does not handle it."""


def observe_program(program: Program, arguments: Sequence[str], *, calls: int | None = None) -> tuple[Observation, int]:
    """Run a program as Python would, watch its losses, and return what was seen and its exit code.

    Nothing that the script computes is changed. It is ended after ``calls`` loss calls; by default it runs to its end.
    """
    with observing(program.file.resolve(), program.folder, calls=calls) as observation:
        try:
            code = run_plain(program, arguments, stop=_Enough)
        except _Enough:
            code, observation.end = 0, "stopped"
    if code != 0:
        observation.end = "failed"
    return observation, code


@contextlib.contextmanager
def observing(
    script: Path, host: Path, reports: str | None = None, *, calls: int | None = None
) -> Iterator[Observation]:
    """Watch the losses of this process, and of those that it starts; a child process has a folder of reports."""
    observation = Observation(script.name)
    with contextlib.ExitStack() as undo:
        children = Children(script, host, observation, reports)
        undo.callback(children.remove)
        observer = _Observer(host, observation, calls, undo)
        try:
            yield observation
        finally:
            observer.finish()
            if reports is None:
                children.collect()


class _Observer:
    def __init__(self, host: Path, observation: Observation, calls: int | None, undo: contextlib.ExitStack) -> None:
        self._observation, self._calls = observation, calls
        self._reader = StackReader(host)
        self._sources = Sources(self._reader.host_frame)
        undo.callback(self._sources.remove)
        self._tap = Tap(self, begins=self._begins, trained_on=self._trained_on)
        undo.callback(self._tap.remove)
        watch_compiled_functions(undo, self._compiled_loss, self._tap.origins.paused)
        self._use = GradientUse()

    def __call__(self, call: LossCall) -> Tensor:
        """Note a loss call, and leave it as it is."""
        self._stop_if_enough()
        site, stack, frame = self._place(sys._getframe(1))
        verdict, why, batch, shape = self._judge(call, frame)
        network = call.made.origin.reference() if call.made is not None else None
        if verdict == "real":
            self._observation.numbers = self._numbers(frame)
        group = self._observation.note(
            Group(
                site=site,
                stack=stack,
                loss=call.criterion,
                network="?" if network is None else type(network).__name__,
                training=network is not None and network.training,
                verdict=verdict,
                why=why,
                batch=batch,
                shape=shape,
            )
        )
        call.settle_by(call.loss)
        self._use.watch(call.loss, () if call.made is None else call.made.origin.parameters, group)
        return call.loss

    def finish(self) -> None:
        """Note the training of the last step, too."""
        self._tap.origins.judge()
        self._use.remove()
        self._observation.judge()

    def _stop_if_enough(self) -> None:
        if self._calls is not None and self._observation.calls >= self._calls:
            raise _Enough

    def _judge(self, call: LossCall, frame: FrameType | None) -> tuple[Verdict, str, str, tuple[int, ...]]:
        try:
            reason = why_not_real(call)
            if reason is not None and call.made is None:
                return "not guarded", reason, "", ()
            inputs = call.inputs
        except UnsupportedLoss as error:
            return "not guarded", str(error).split("; ")[0], "", ()
        leaves = reached_leaves(inputs) if inputs.requires_grad else []
        for leaf in leaves:
            self._sources.note_learned(leaf)
        batch, learned = self._sources.of(inputs, frame)
        shape = tuple(inputs.shape[1:])
        all_learned = all(self._sources.is_optimized(leaf) for leaf in leaves)
        if reason == LEARNED and not all_learned and is_part_of_learned(inputs):
            reason = PART_OF_LEARNED
        if reason is not None:
            return ("undecided" if reason.startswith(UNDECIDED) else "not guarded"), reason, batch, shape
        if batch == CHANGED_BY_GRADIENTS:
            return "undecided", f"{UNDECIDED}they are adversarial examples, or learned by hand", batch, shape
        if learned:
            return "distilled", "it trains a network on learned images", batch, shape
        try:
            call.criterion_fn()
            call.check_guardable()
        except UnsupportedLoss as error:
            return "unsupported", str(error), batch, shape
        return "real", "a network in training sees real data", batch, shape

    def _begins(self, origin: Origin) -> None:
        self._stop_if_enough()
        network = origin.network
        if network.training and torch.is_grad_enabled() and is_trained(network):
            origin.place = self._place(sys._getframe(1))[:2]

    def _trained_on(self, origin: Origin) -> Callable[[], None] | None:
        try:
            if why_not_real_batch(origin.batch(), self._tap.origins) is not None:
                return None
            batch, learned = self._sources.of(origin.batch(), None)
        except UnsupportedLoss:
            return None
        if learned:
            return None
        (site, stack), network = origin.place, origin.network_name
        shape = tuple(origin.batch().shape[1:])

        def note() -> None:
            why = "a loss that is no loss call (written by hand, or in a compiled function) trains it on real data"
            found = Group(site, stack, "a loss that is not seen", network, True, "unsupported", why, batch, shape)
            self._observation.note(found)

        return note

    def _compiled_loss(self, function: str, loss: Tensor) -> None:
        """Watch a scalar that a compiled function returned: trained on, it is a loss of which nothing else is seen."""
        self._stop_if_enough()
        site, stack = self._place(sys._getframe(1))[:2]
        why = (
            f"{function}, which torch.compile compiled, computes it, inside of which nothing is seen: {COMPILE_NETWORK}"
        )
        found = Group(site, stack, IN_COMPILED, "?", True, "unsupported", why, "")

        def note(*_: object) -> None:
            self._observation.note(replace(found))

        loss.grad_fn.register_hook(note)  # type: ignore[union-attr]

    def _place(self, frame: FrameType | None) -> tuple[str, tuple[Function, ...], FrameType | None]:
        frames = self._host_frames(frame)
        if not frames:
            return OUTSIDE, (), None
        functions = map(self._function, frames)
        stack = tuple(one for one in functions if one[1] == MODULE_LEVEL or not one[1].startswith("<"))
        return f"{self._reader.file_of(frames[-1])}:{frames[-1].f_lineno}", stack, frames[-1]

    def _numbers(self, frame: FrameType | None) -> dict[Function, dict[str, int]]:
        return {self._function(one): numbers_of(locals_of(one)) for one in self._host_frames(frame)}

    def _function(self, frame: FrameType) -> Function:
        return str(self._reader.file_of(frame)).removesuffix(".py").replace("/", "."), frame.f_code.co_name

    def _host_frames(self, frame: FrameType | None) -> list[FrameType]:
        """Return the host's frames on the stack from a frame on, outermost first."""
        frames: list[FrameType] = []
        while (frame := self._reader.host_frame(frame)) is not None:
            frames.insert(0, frame)
            frame = frame.f_back
        return frames
