"""Run one network's case: some training steps under ``guard_plugin.wrap``, each compared with two others.

The plain run of the same step, on a copy of the network, gives the loss, the gradients, the buffers, the random streams
and all else that must be left as it was; tests/fuzz/reference.py gives what the penalty adds to the loss and gradients.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from guard_plugin import wrap
from guard_plugin.errors import GuardError
from guard_plugin.versions import strict_zip
from tests.fuzz import reference
from tests.fuzz.networks import FEATURES, MUST_BE_REFUSED, Described, Subject, build, draw, smaller
from tests.fuzz.outcome import Disagreement

__all__ = ["run", "run_case", "run_described", "shrink"]

_RTOL = {"float64": 1e-9, "float32": 2e-3}
_PROBES = {"float64": 3, "float32": 12}
_Streams = tuple[Any, Any, Tensor]


def run_case(seed: int, number: int) -> str:
    """Run the case of this seed and number; return its outcome. Raises Disagreement."""
    return run(draw(seed, number))


def run_described(text: str) -> str:
    """Run the case that a disagreement printed."""
    return run(Described.from_json(text))


def shrink(seed: int, number: int, *, seconds: float = 20) -> str:
    """Leave out of a case what its disagreement does not need; return what is left of it, and the disagreement."""
    case, end = draw(seed, number), time.monotonic() + seconds
    words = _disagreement(case)
    tried, candidates = 0, smaller(case)
    while tried < len(candidates) and time.monotonic() < end:
        found = _disagreement(candidates[tried])
        tried += 1
        if found.partition(":")[2][:12] == words.partition(":")[2][:12]:
            case, words, tried = candidates[tried - 1], found, 0
            candidates = smaller(case)
    return f"{words}\n    python -m tests.fuzz --spec '{case.to_json()}'"


def _disagreement(case: Described) -> str:
    try:
        run(case)
    except Disagreement as found:
        return str(found)
    except Exception:  # noqa: BLE001  (a smaller case that cannot be built is no use)
        return ""
    return ""


def run(case: Described) -> str:
    """Run a case; return its outcome in words. Raises Disagreement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Run(case).all_steps()


@dataclass
class _Step:
    """What a step left: ``at_loss``, ``noise`` (of the network's generator) and ``buffers`` are those at the loss."""

    loss: Tensor
    gradients: list[Tensor | None]
    at_loss: _Streams
    noise: Tensor
    buffers: list[Tensor]
    after: _Streams
    seen: int


class _Run:
    def __init__(self, case: Described) -> None:
        self.case, self.features = case, set(case.features)
        self.plain, self.guarded = build(case), build(case)
        self.reference = build(case, reference=True)
        self.dtype = getattr(torch, case.dtype)
        self.output_shape = _output_shape(case, self.reference)
        self.outcomes: set[str] = set()

    def all_steps(self) -> str:
        case = self.case
        plain_criterion, loss_fn = _criterion(case)
        try:
            criterion = wrap(_criterion(case)[0], self.guarded.network, loss_fn=loss_fn, **case.options)
        except GuardError as error:
            return self._refused(error)
        if "setting changed after wrap" in self.features and case.loss["kind"] != "own":
            for one in (plain_criterion, criterion.criterion):
                _change_setting(one)
        # A step that leaves all as it was, with a small length, so that the parameters stay where they mean something.
        optimizer = torch.optim.SGD(self.guarded.trained(), lr=0.05, momentum=0.5) if self.guarded.trained() else None
        for number in range(case.steps):
            x, y = _data(case, number, self.output_shape)
            refused = self._one_step(number, plain_criterion, criterion, x, y)
            if refused:
                return refused
            if case.between:
                self._between(number, criterion, plain_criterion, x, y)
            if optimizer is not None:
                nn.utils.clip_grad_norm_(self.guarded.trained(), 1.0)
                if all(torch.isfinite(p.grad).all() for p in self.guarded.trained() if p.grad is not None):
                    optimizer.step()
            self.plain.take_state(self.guarded, buffers=False)
        return ", ".join(sorted(self.outcomes)) or "agreed"

    def _one_step(self, number: int, plain_criterion: Any, criterion: Any, x: Tensor, y: Tensor) -> str:
        case = self.case
        try:
            theirs = _take_step(self.plain, plain_criterion, x.clone(), y.clone(), number)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            if "compiled" in self.features:  # beside the wrapped criterion of another network
                raise Disagreement(f"step {number}, of an unguarded network: {type(error).__name__}") from error
            return f"torch cannot make the plain step ({type(error).__name__})"
        self.reference.take_state(self.plain)
        due = bool(self.guarded.trained()) and theirs.loss.requires_grad
        wanted = self._wanted_or_why_not(theirs, x, y) if due and case.options["strength"] else []
        before, guarded = criterion.guarded, self.guarded
        own_x, own_y = x.clone(), y.clone()
        try:
            ours = _take_step(guarded, criterion, own_x, own_y, number)
        except GuardError as error:
            return f"refused: {wanted}" if isinstance(wanted, str) else self._refused(error)
        except Exception as error:
            unknown = isinstance(wanted, str) and (case.backward == "create_graph" or "derivative" in str(error))
            if unknown or "3rd+ order derivatives" in str(error):
                return "torch has no derivative to compare with"
            raise Disagreement(f"step {number}: {type(error).__name__}: {str(error)[:300]}") from error
        self._check_left_alone(number, theirs, ours, own_x, own_y, x, y)
        if criterion.guarded != before + (1 if due else 0):
            raise Disagreement(f"step {number}: guarded rose by {criterion.guarded - before}, not by {int(due)}")
        if case.n > 1 and case.options["strength"] and self.features & set(MUST_BE_REFUSED):
            return self._not_refused(number, x)
        if case.options["strength"] == 0 or not due:
            self._check_identical(number, theirs, ours)
            self.outcomes.add("identical at strength 0" if due else "nothing to guard")
        elif isinstance(wanted, str):
            self.outcomes.add(wanted)
        else:
            self._check_penalty(number, theirs, ours, x, y, wanted)
        return ""

    def _not_refused(self, number: int, x: Tensor) -> str:
        """Say why examples that depend on each other could not be seen to; else raise Disagreement."""
        with torch.no_grad(), _streams_kept():
            self.reference.core.eval()
            self.reference.begin_pass()
            outputs = self.reference.output(x.double(), range(len(x)))
        if (outputs - outputs[:1]).abs().max() <= torch.finfo(self.dtype).eps * outputs.abs().max():
            return "its outputs are all equal, which tells nothing of its layers"
        raise Disagreement(f"step {number}: not refused, although the examples of a batch depend on each other")

    def _refused(self, error: GuardError) -> str:
        message, case = str(error), self.case
        reasons = [name for name in case.features if FEATURES[name]]
        for name in ("path", "memory"):
            if name in case.options and "was asked for" in message:
                reasons.append(f"{name} {case.options[name]}")
        if case.backward == "create_graph" and "create_graph" in message:
            reasons.append("create_graph")
        if len(message) < 20 or not reasons:
            raise Disagreement(f"refused, which nothing in the case allows: {message}")
        return f"refused: {reasons[0]}"

    def _check_left_alone(
        self, number: int, theirs: _Step, ours: _Step, own_x: Tensor, own_y: Tensor, x: Tensor, y: Tensor
    ) -> None:
        plain, guarded = self.plain, self.guarded
        for name, a, b in strict_zip(("Python", "numpy", "torch"), theirs.after, ours.after):
            if not _same(a, b):
                raise Disagreement(f"step {number}: the random stream of {name} is not that of the plain run")
        if "input modified" not in self.features and not torch.equal(own_x, x):
            raise Disagreement(f"step {number}: the batch was modified")
        if not torch.equal(own_y, y) or own_x.grad is not None or own_x.requires_grad:
            raise Disagreement(f"step {number}: the batch's gradient or the targets were modified")
        named = strict_zip(plain.core.named_modules(), guarded.core.named_modules())
        for (name, a), (_, b) in named:
            if a.training != b.training:
                raise Disagreement(f"step {number}: the training flag of {name or 'the network'} was changed")
            rounding = 1e4 * torch.finfo(self.dtype).eps if self.case.options["strength"] else 0.0
            for (kind, one), two in strict_zip(_attributes(a).items(), _attributes(b).values()):
                if not _same(one, two, rounding):
                    where = f"{name or 'the network'}.{kind} ({type(a).__name__})"
                    raise Disagreement(f"step {number}: {where} is not that of the plain run: {one!r:.80}, {two!r:.80}")
        if theirs.seen != ours.seen:
            raise Disagreement(f"step {number}: hooks ran {ours.seen} times, in the plain run {theirs.seen} times")

    def _check_identical(self, number: int, theirs: _Step, ours: _Step) -> None:
        if not _same(theirs.loss.detach(), ours.loss.detach()):
            raise Disagreement(f"step {number}: the loss is not that of the plain run, bit by bit")
        if not all(_same(a, b) for a, b in strict_zip(theirs.gradients, ours.gradients)):
            raise Disagreement(f"step {number}: a gradient is not that of the plain run, bit by bit")

    def _wanted_or_why_not(self, theirs: _Step, x: Tensor, y: Tensor) -> list[Tensor] | str:
        try:
            return self._wanted(theirs, x, y)
        except RuntimeError as error:
            if self.case.backward == "create_graph" or "not implemented" in str(error) or "derivative" in str(error):
                return "torch has no derivative to compare with"
            if "inplace operation" in str(error):  # after a dropout, say, which copies in training alone
                return "in evaluation, a layer overwrites what torch needs for the gradient"
            raise

    def _check_penalty(
        self, number: int, theirs: _Step, ours: _Step, x: Tensor, y: Tensor, wanted: list[Tensor]
    ) -> None:
        plain = [theirs.loss.detach(), *map(_or_zero, theirs.gradients, wanted[1:])]
        found = [ours.loss.detach(), *map(_or_zero, ours.gradients, wanted[1:])]
        if not all(torch.isfinite(t).all() for t in [*plain, *wanted]):
            self.outcomes.add("not finite")
            return
        added = [f.double() - p.double() for f, p in strict_zip(found, plain)]
        tolerance = self._tolerance(plain, wanted)
        wrong = _first_wrong(added, wanted, tolerance)
        if wrong is not None and not self._within_rounding(theirs, x, y, added, wanted, tolerance):
            name = ["the value", *(f"the gradient of trained parameter {i}" for i in range(len(wanted)))][wrong]
            error = (added[wrong] - wanted[wrong]).abs().max()
            raise Disagreement(
                f"step {number}: {name} of the penalty is {_number(added[wrong])}, by the formula "
                f"{_number(wanted[wrong])}; they differ by {float(error):.3g}, {float(tolerance[wrong]):.3g} is allowed"
            )
        self.outcomes.add("agreed")

    def _wanted(self, theirs: _Step, x: Tensor, y: Tensor, nudge: torch.Generator | None = None) -> list[Tensor]:
        """Return the penalty and what it adds to each trained parameter's gradient, by the formula."""
        case, subject = self.case, self.reference
        subject.core.eval()
        x = x.double()
        if nudge is not None:
            subject.take_state(self.plain)
        for own, at_loss in strict_zip(subject.core.buffers(), theirs.buffers):
            own.copy_(at_loss)  # a checkpoint that computes a part again changes running statistics again
        if nudge is not None:
            eps = 4 * torch.finfo(self.dtype).eps
            with torch.no_grad():
                x = x * (1 + eps * (2 * torch.rand(x.shape, generator=nudge, dtype=x.dtype) - 1))
                for p in subject.trained():
                    p.mul_(1 + eps * (2 * torch.rand(p.shape, generator=nudge, dtype=p.dtype) - 1))
        subject.begin_pass()
        with _streams_kept():
            value = self._by_formula(theirs, x, y)
            if not value.requires_grad:
                return [value, *(torch.zeros_like(p) for p in subject.trained())]
            gradients = _differentiate(value, subject.trained(), case.backward)
        return [value.detach(), *map(_or_zero, gradients, subject.trained())]

    def _by_formula(self, theirs: _Step, x: Tensor, y: Tensor) -> Tensor:
        case, subject = self.case, self.reference

        def outputs(batch: Tensor, numbers: Sequence[int]) -> Tensor:
            _set_streams(theirs.at_loss)
            subject.core.generator.set_state(theirs.noise)
            return subject.output(batch, numbers)

        def output(i: int, example: Tensor) -> Tensor:
            try:
                return outputs(example.clone(), [i])
            except ValueError:  # torch's normalisations refuse one value per channel, but not two
                return outputs(torch.cat([example, example.detach()]), [i, i])[:1]

        def output_of_all(batch: Tensor) -> Tensor:
            return outputs(batch.clone(), range(len(batch)))

        if case.options.get("batch_statistics"):
            return reference.penalty_in_batch_statistics(output_of_all, _example_loss(case), x, y, case.options)
        return reference.penalty(output, _example_loss(case), x, y, case.options)

    def _tolerance(self, plain: list[Tensor], wanted: list[Tensor]) -> list[Tensor]:
        rtol, eps = _RTOL[self.case.dtype], torch.finfo(self.dtype).eps
        largest = max([t.abs().max() for t in wanted[1:]], default=torch.zeros(()))
        if self.case.options.get("form") == "loss":
            eps *= 1 + self.case.options["strength"]  # the two mean losses cancel
        floor = 3000 * eps * max(float(p.abs().max()) for p in plain)  # a gradient may be 0 by cancellation
        found = []
        for i, w in enumerate(wanted):
            found.append(rtol * (w.abs().max() + (0.01 * largest if i else 0.0)) + floor)
        return found

    def _within_rounding(
        self, theirs: _Step, x: Tensor, y: Tensor, added: list[Tensor], wanted: list[Tensor], tolerance: list[Tensor]
    ) -> bool:
        """Widen the tolerance by what the formula itself changes if its arguments change by a rounding error."""
        nudge = torch.Generator().manual_seed(0)
        for _ in range(_PROBES[self.case.dtype]):
            near = self._wanted(theirs, x, y, nudge)
            for i, (a, b) in enumerate(strict_zip(near, wanted)):
                tolerance[i] = torch.maximum(tolerance[i], 100 * (a - b).abs().max())
        self.reference.take_state(self.plain)
        if _first_wrong(added, wanted, tolerance) is not None:
            return False
        if any(t > 0.01 * w.abs().max() for t, w in strict_zip(tolerance, wanted)):
            self.outcomes.add("ill-conditioned")
        return True

    def _between(self, number: int, criterion: Any, plain_criterion: Any, x: Tensor, y: Tensor) -> None:
        """What hosts do between two steps is left as it is: validation, and losses on synthetic images."""
        if "own noise in evaluation" in self.features:
            return  # validation would move the generator
        before = criterion.guarded
        flags = [(module, module.training) for module in self.guarded.core.modules()]
        self.guarded.core.eval()
        with torch.no_grad(), _streams_kept():
            self.guarded.begin_pass()
            here = criterion(self.guarded.output(x.clone(), range(len(x))), y)
        for module, flag in flags:
            module.training = flag
        if criterion.guarded != before or here.requires_grad:
            raise Disagreement(f"after step {number}: a loss in validation was guarded")
        if "input modified" in self.features:
            return  # a leaf that requires grad cannot be modified
        try:
            theirs = _take_step(self.plain, plain_criterion, x.clone().requires_grad_(), y, number + 100)
            ours = _take_step(self.guarded, criterion, x.clone().requires_grad_(), y, number + 100)
        except GuardError as error:
            self._refused(error)
            return
        if criterion.guarded != before:
            raise Disagreement(f"after step {number}: a loss on synthetic images was guarded")
        self._check_identical(number, theirs, ours)


def _take_step(subject: Subject, criterion: Any, x: Tensor, y: Tensor, number: int) -> _Step:
    case = subject.case
    _seed_streams(case.seed + number)
    for parameter in subject.trained():
        parameter.grad = None
    if "batch of another layout" in case.features and x.dim() > 2:
        x = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if case.channels_last:
        x = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    subject.begin_pass()
    output = subject.output(x, range(len(x)))
    if "retain_grad on the output" in case.features and output.requires_grad:
        output.retain_grad()
    at_loss, noise = _streams(), subject.core.generator.get_state()
    buffers = [buffer.clone() for buffer in subject.core.buffers()]
    loss = criterion(output, y)
    if not loss.requires_grad:
        return _Step(loss, [None for _ in subject.trained()], at_loss, noise, buffers, _streams(), len(subject.seen))
    gradients = _differentiate(loss, subject.trained(), case.backward)
    for parameter, gradient in strict_zip(subject.trained(), gradients):
        parameter.grad = None if gradient is None else gradient.detach().clone()
    return _Step(loss, gradients, at_loss, noise, buffers, _streams(), len(subject.seen))


def _differentiate(loss: Tensor, trained: list[nn.Parameter], how: str) -> list[Tensor | None]:
    """Return what the host has after its backward pass, which it makes in one of several ways."""
    if how == "create_graph":
        first = torch.autograd.grad(loss, trained, create_graph=True, allow_unused=True)
        with_graph = [
            (g * torch.linspace(0.5, 1.5, g.numel(), dtype=g.dtype).reshape(g.shape)).sum()
            for g in first
            if g is not None and g.requires_grad
        ]
        if not with_graph:
            return [None for _ in trained]
        return list(torch.autograd.grad(sum(with_graph), trained, allow_unused=True))
    if how == "grad":
        return list(torch.autograd.grad(loss, trained, allow_unused=True))
    for parameter in trained:
        parameter.grad = None
    if how == "retain_graph":
        loss.backward(retain_graph=True)
    (3 * loss if how == "scaled" else loss).backward()
    return [parameter.grad for parameter in trained]


def _criterion(case: Described) -> tuple[Any, Any]:
    """Return the host's criterion, and the ``loss_fn`` that belongs to it, if ``wrap`` needs one."""
    settings = {name: value for name, value in case.loss.items() if name not in ("kind", "soft")}
    if "weight" in settings:
        settings["weight"] = torch.tensor(settings["weight"], dtype=getattr(torch, case.dtype))
    if case.loss["kind"] != "own":
        return getattr(nn, case.loss["kind"])(**settings), None

    def own(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target, **settings)

    def own_per_example(output: Tensor, target: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(output, target, **{**settings, "reduction": "none"})
        return losses.reshape(len(losses), -1).mean(dim=1)

    return own, own_per_example


def _change_setting(criterion: Any) -> None:
    if hasattr(criterion, "label_smoothing"):
        criterion.label_smoothing = 0.3
    else:
        criterion.ignore_index = 1


def _example_loss(case: Described) -> reference.ExampleLoss:
    given: Mapping[str, Any] = case.loss
    changed = "setting changed after wrap" in case.features
    smoothing, ignored = given.get("label_smoothing", 0.0), given.get("ignore_index", -100)
    if changed and given["kind"] == "CrossEntropyLoss":
        smoothing = 0.3
    if changed and given["kind"] == "NLLLoss":
        ignored = 1
    weight = torch.tensor(given["weight"], dtype=torch.float64) if "weight" in given else None
    return reference.ExampleLoss(given["kind"] == "NLLLoss", weight, smoothing, ignored)


def _data(case: Described, number: int, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return a step's batch, and targets for outputs of this shape, (n, classes, ...)."""
    made = torch.Generator().manual_seed(case.seed + number)
    dtype = getattr(torch, case.dtype)
    x = torch.randn(case.n, *case.shape, generator=made, dtype=torch.float64).to(dtype)
    if case.loss.get("soft"):
        return x, torch.randn(shape, generator=made, dtype=torch.float64).softmax(1).to(dtype)
    y = torch.randint(case.classes, (case.n, *shape[2:]), generator=made)
    if case.loss.get("ignore_index") is not None and not (y != case.loss["ignore_index"]).any():
        y.fill_((case.loss["ignore_index"] + 1) % case.classes)
    return x, y


def _output_shape(case: Described, subject: Subject) -> torch.Size:
    with torch.no_grad(), _streams_kept():
        subject.core.eval()
        subject.begin_pass()
        try:
            return subject.output(torch.zeros(case.n, *case.shape, dtype=torch.float64), range(case.n)).shape
        except (RuntimeError, ValueError, IndexError):
            return torch.Size([case.n, case.classes])  # the plain step will show the same error


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a module holds: buffers, and attributes of its own."""
    kept: dict[str, Any] = {name: buffer.detach() for name, buffer in module.named_buffers(recurse=False)}
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            kept[name] = (value.detach(), value.requires_grad)
        elif isinstance(value, torch.Generator):
            kept[name] = value.get_state()
        elif isinstance(value, (bool, int, float, str)):
            kept[name] = value
    return kept


def _same(a: Any, b: Any, rounding: float = 0.0) -> bool:
    if isinstance(a, Tensor):
        if not isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            return False
        # Attention in the host's own pass, if the penalty shares it, is computed in another order.
        near = torch.isclose(a, b, rtol=rounding, atol=rounding, equal_nan=True) if a.is_floating_point() else a == b
        return bool(near.all())
    if isinstance(a, numpy.ndarray):
        return bool((a == b).all())
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_same(one, two, rounding) for one, two in strict_zip(a, b))
    return bool(a == b)


def _first_wrong(added: list[Tensor], wanted: list[Tensor], tolerance: list[Tensor]) -> int | None:
    for i, (a, w, t) in enumerate(strict_zip(added, wanted, tolerance)):
        if not bool(((a - w).abs() <= t).all()):
            return i
    return None


def _or_zero(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient.detach()


def _number(tensor: Tensor) -> str:
    return f"{float(tensor):.10g}" if tensor.numel() == 1 else f"a tensor of norm {float(tensor.double().norm()):.10g}"


def _streams() -> _Streams:
    return random.getstate(), numpy.random.get_state(), torch.get_rng_state()


def _set_streams(streams: _Streams) -> None:
    random.setstate(streams[0])
    numpy.random.set_state(streams[1])
    torch.set_rng_state(streams[2])


def _seed_streams(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def _streams_kept() -> Iterator[None]:
    streams = _streams()
    try:
        yield
    finally:
        _set_streams(streams)
