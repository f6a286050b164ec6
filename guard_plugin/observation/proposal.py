"""The ``guard run auto`` command for a script that was observed, or why there is none."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guard_plugin.hosts.seams import MODULE_LEVEL
from guard_plugin.injection.calls.compiled_functions import COMPILE_NETWORK
from guard_plugin.injection.calls.sources import CHANGED_BY_GRADIENTS
from guard_plugin.observation.sites import IN_COMPILED, Function, Group, Observation
from guard_plugin.penalties import scale_h

__all__ = ["Proposal", "propose"]

# The paper's h and strength (section 5.1), and the shape that the authors' scripts train on.
_PAPERS_H, _PAPERS_SHAPE, _PAPERS_STRENGTH = 3.0, (3, 224, 224), 100.0

_SHARED = (
    "losses on real data and others are computed at {}: guard run tells them apart by their inputs; where it says that "
    "it cannot, observe without --calls, to the script's end, for the number of losses (--expect)"
)


@dataclass(frozen=True)
class Proposal:
    """Where GUARD belongs in a script.

    Args:
        guard: Functions under which the losses on real data are.
        suspend: Functions under which losses are that look like these.
        real: Lines that are on real data although that cannot be told.
        made_by: What makes batches of real data, where nothing else tells them from others.
        expect: How many losses must be guarded, if the script ran to its end.
        shape: The shape of one real input.
        why_not: Why no command can be proposed; empty where one can.
        notes: What the user should know besides.
    """

    guard: tuple[Function, ...] = ()
    suspend: tuple[Function, ...] = ()
    real: tuple[str, ...] = ()
    made_by: tuple[str, ...] = ()
    expect: int | None = None
    shape: tuple[int, ...] = ()
    why_not: str = ""
    notes: tuple[str, ...] = ()

    @property
    def h(self) -> float:
        """The paper's h, carried over to images of this shape."""
        return scale_h(_PAPERS_H, from_shape=_PAPERS_SHAPE, to_shape=self.shape)

    @staticmethod
    def names(functions: Sequence[Function]) -> list[str]:
        """Name functions as ``guard run`` takes them."""
        return [module if name == MODULE_LEVEL else f"{module}:{name}" for module, name in functions]

    def command(self, script: Sequence[str]) -> str:
        """Return the command for a script and its arguments, ready for a shell."""
        words = ["guard", "run", "--strength", f"{_PAPERS_STRENGTH:g}", "--h", f"{self.h:.2g}", "auto"]
        seams = {"--guard": self.names(self.guard), "--suspend": self.names(self.suspend)}
        for option, texts in {**seams, "--real": self.real, "--made-by": self.made_by}.items():
            for text in texts:
                words += [option, text]
        words += [] if self.expect is None else ["--expect", str(self.expect)]
        return shlex.join([*words, *script])


def propose(observation: Observation) -> Proposal:
    """Propose the seams that guard exactly the losses on real data, or say why that cannot be done."""
    real = observation.of("real")
    unsupported = [group for group in observation.of("unsupported") if group.training]
    notes = tuple(_notes(observation, unsupported))
    if not real:
        return Proposal(why_not=_why_nothing(observation, unsupported), notes=notes)
    wrong = [*observation.of("distilled"), *observation.of("looked at"), *_changed_by_gradients(observation)]
    guard = tuple(dict.fromkeys(group.stack[-1] for group in real if group.stack))
    if not guard or any(not group.stack for group in real):
        return Proposal(why_not="losses on real data are computed outside of the host's files", notes=notes)
    on_real = {function for group in real for function in group.stack}
    suspend: dict[Function, None] = {}
    real_made_by = tuple(dict.fromkeys(group.batch for group in real))
    made_by: tuple[str, ...] = ()
    for group in (group for group in wrong if set(guard) & set(group.stack)):
        apart = [function for function in group.stack if function not in on_real and function[1] != MODULE_LEVEL]
        if apart:
            suspend[apart[-1]] = None
        elif group.batch not in real_made_by:
            made_by = real_made_by
        else:
            return Proposal(
                why_not=f"{group.site} computes losses that GUARD belongs to, and others ({group.why}), by the same "
                f"functions on batches that are made alike: write a plugin whose is_real_data tells them apart "
                f"(docs/writing-an-adapter.md)",
                notes=notes,
            )
    number = sum(group.calls for group in real)
    expect = number if observation.end == "complete" and not observation.children else None
    # Without a number, auto asks what cannot be told, which a part of learned images cannot be.
    unclear = any("requires grad" in group.batch and set(guard) & set(group.stack) for group in observation.groups)
    lines = tuple(dict.fromkeys(group.site for group in real)) if expect is None and unclear else ()
    shared = _sites_of_others(observation).intersection(lines)
    if shared:  # to call them real would guard the others, too
        lines, notes = (), (*notes, _SHARED.format(", ".join(sorted(shared))))
    return Proposal(guard, tuple(suspend), lines, made_by, expect, real[0].shape, notes=notes)


def _sites_of_others(observation: Observation) -> set[str]:
    """Return the lines at which losses are that were not found to be on real data."""
    return {group.site for group in observation.groups if group.verdict != "real"}


def _notes(observation: Observation, unsupported: Sequence[Group]) -> Iterator[str]:
    for group in unsupported:
        on = "" if group.loss == IN_COMPILED else " on real data"
        yield f"{group.calls} losses at {group.site} ({group.loss}){on} cannot be guarded: {group.why}"
    for group in observation.of("undecided"):
        yield f"{group.calls} losses at {group.site} are {group.why}"
    for group in observation.of("looked at"):
        if group.discarded:
            where = f"{group.calls} losses at {group.site}"
            yield f"{where} are on real data, but {group.why}: a penalty would change nothing"
    if observation.end != "complete":
        yield f"the script {'failed' if observation.end == 'failed' else 'was stopped'}: later losses are not known"
    if observation.children:
        started = ", ".join(f"{n} x {child}" for child, n in observation.children.items())
        yield f"child processes ({started}) did not say what they saw: they were killed, or have a run() of their own"
    for program in observation.programs:
        yield f"{program!r} is a program of its own, and was not observed"


def _changed_by_gradients(observation: Observation) -> list[Group]:
    """Return the losses of which cannot be told whether they are on real data, and which a guard would take for it."""
    return [group for group in observation.of("undecided") if group.batch == CHANGED_BY_GRADIENTS]


def _why_nothing(observation: Observation, unsupported: Sequence[Group]) -> str:
    if observation.end != "complete":
        what = "failed before one did" if observation.end == "failed" else "was stopped: observe more of them"
        return f"none of the {observation.calls} losses seen trains a network on real data, and the script {what}"
    if observation.children:
        return "the losses may be in child processes that did not say what they saw"
    if observation.programs and not observation.calls:
        return "the losses may be in the programs that the script started: observe these"
    compiled = dict.fromkeys(group.site for group in unsupported if group.loss == IN_COMPILED)
    if compiled:
        return (
            f"functions that torch.compile compiled compute the losses at {', '.join(compiled)}, inside of which "
            f"nothing can be guarded: {COMPILE_NETWORK}, then observe again"
        )
    if unsupported:
        places = ", ".join(dict.fromkeys(f"{group.loss} at {group.site}" for group in unsupported))
        return (
            f"networks are trained on real data by losses that have no form per example here ({places}): GUARD needs a "
            f"classification loss; wrap one by hand, guard_plugin.wrap(criterion, model, loss_fn=...)"
        )
    changed = [group for group in _changed_by_gradients(observation) if group.trained and group.stack]
    if changed:
        places = ", ".join(dict.fromkeys(group.site for group in changed))
        options = " ".join(f"--guard {name}" for name in Proposal.names([group.stack[-1] for group in changed]))
        return (
            f"networks are trained on images that were changed by gradients, but that no optimizer has ({places}): "
            f"learned by hand, or adversarial examples. If they are such of real images, guard run auto {options} "
            f"guards them"
        )
    if not observation.calls:
        return "no classification loss was computed: GUARD has no loss here to add its penalty to"
    whys = dict.fromkeys(group.why for group in observation.groups)
    return (
        f"no network was seen that learns from real data ({'; '.join(whys)}): GUARD belongs into the script that "
        f"trains networks on real data, such as the teacher's"
    )
