"""Ideas for a cheaper GUARD step, each measured whether or not it wins: its cost, and what it gives up.

    python examples/ideas.py --arch ConvNetW64 --batch-size 128 --rounds 15 --out ideas
    python examples/ideas.py --arch resnet18 --batch-size 32 --rounds 15 --clock cpu --out ideas

None of them is GUARD's default. Steps, rounds, ratios and memory are those of overhead.py, which lies beside this file.

- A part of the batch: the penalty of randomly drawn examples, by guard_plugin.curvature_penalty, which makes all of
  its own passes; what guard_plugin.wrap shares with the step's own pass, it cannot. In the gradient form, a mean over
  examples, this is an unbiased estimate. In the loss form it is NOT: the absolute value is taken after the mean, and
  the mean of absolute values is larger than the absolute value of the mean wherever parts of a batch differ in sign.
- Every k-th step: k times the penalty; unbiased over time. Times and passes are means over k steps,
  memory is the peak of the k.
- Second difference: the penalty | mean_i l_i(x + hz) - 2 l_i(x) + l_i(x - hz) |, another one than either form.
- Finite difference: the gradient form's parameter gradient from first-order gradients alone. Another penalty on ReLU
  networks: its steps see kinks, which the derivative does not. How far it is off is measured, also where neither
  rounding nor kinks are.
- What GUARD's ways are made of, taken away: its own second-order convolution and group norm; whole batches, or parts of
  them, whatever the machine's allocator does; in memory low, each weight's contribution taken at once, and the graph of
  one point at a time.
- channels_last: of the network and its images.
- torch.compile: of the network for the penalty's passes, in the loss form; it has no double backward.

The estimates' second table is of the penalty's parameter gradient, with its weight, on one batch of a network that has
learned for some steps: relative error sqrt(E||e - g||^2) / ||g|| and bias ||E e - g|| / ||g||, of which chance alone
gives the standard error that stands beside it. To judge them: the same error of the plain loss's gradient on a batch,
against a batch 16 times as large, and how large each error is beside that one.

Written to OUT, per case: a file of JSON lines, where a further run goes on; what is known of the estimates and of
compiling, as .json; and all tables, as .md. Only the first is gone on with; the others are made anew.
"""

import argparse
import copy
import itertools
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from overhead import (
    PAPER_H,
    PAPER_SHAPE,
    PAPER_STRENGTH,
    PLAIN,
    Apart,
    Batch,
    Case,
    Contender,
    Loss,
    Measured,
    begin,
    case_parser,
    read_case,
    run_rounds,
    table,
    unwrapped,
    wrapped,
)
from torch import Tensor, nn
from torch.nn import functional

import guard_plugin
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.injection import paths
from guard_plugin.penalties import curvature, undisturbed
from guard_plugin.penalties.fast.curvature import gradient_form
from guard_plugin.penalties.fast.second_order import SecondOrder
from guard_plugin.penalties.fast.second_order.wanted import Wanted

PARTS = {"half the batch": 2, "quarter of the batch": 4}
GUARD_LOW = "GUARD, gradient form, memory low"
PERIODS = {"every 2nd step": 2, "every 4th step": 4}
WITHOUT: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "torch's own second derivatives": (
        SecondOrder,
        "__torch_function__",
        lambda self, func, types, args=(), kwargs=None: func(*args, **(kwargs or {})),
    ),
    "whole batches": (paths, "returns_memory", lambda: False),
    "in parts": (paths, "returns_memory", lambda: True),
}
WITHOUT_IN_MEMORY_LOW: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "contributions left to torch": (Wanted, "of_weight", lambda self, weight, gradient: gradient),
    "both points at once": (curvature, "gradient_form", lambda step, x: gradient_form(replace(step, sparing=False), x)),
}
FINITE_STEP = 1e-3
FINITE_STEPS = (1e-1, 1e-2, FINITE_STEP, 1e-4)
CONTRAST = 0.3  # of a class's pattern; the pixels' noise is 1
LEARNING_STEPS = 10
LARGER = 16  # how many batches the one has that a batch is compared with


def main() -> None:
    """Measure one case, and print its tables."""
    given = _arguments()
    for name in ("rounds", "draws"):
        if getattr(given, name) < 2:
            raise UnusableInput(f"expected --{name} >= 2, as a spread is taken over them, got {getattr(given, name)}")
    if given.batch_size < max(PARTS.values()):
        raise UnusableInput(f"expected --batch-size >= 4, as a quarter of it is drawn, got {given.batch_size}")
    case, device = begin(given)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # compiled anew in each run, so that the time for it is known
        text = report(case, device, given.rounds, given.draws, given.out)
    (given.out / f"{case.name}.md").write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = case_parser(__doc__, steps="of each idea in a round; k times as many of a k-th step")
    parser.add_argument("--draws", type=int, default=64, help="of each estimate, for its error; at least 2")
    return parser.parse_args()


# What is tried


@dataclass(frozen=True)
class Idea:
    """How a step is made.

    Args:
        make_loss: From the network to a context with its loss, as a contender of overhead.py takes it.
        against: The step that it would stand in for.
        cycle: After how many steps it begins anew.
        memory_format: Of the network's weights and the images.
    """

    make_loss: Callable[[nn.Module], Any]
    against: str = PLAIN
    cycle: int = 1
    memory_format: torch.memory_format = torch.contiguous_format


class Tried(Contender):
    """An idea with its copy of the network."""

    def __init__(self, network: nn.Module, idea: Idea, batch: Batch) -> None:
        images, labels = batch
        super().__init__(network, idea.make_loss, (images.contiguous(memory_format=idea.memory_format), labels))
        self._cycle = idea.cycle
        self.network.to(memory_format=idea.memory_format)

    @contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """Make ready, give a whole cycle of steps, and put away."""
        with super().turn() as step:

            def cycle() -> None:
                for _ in range(self._cycle):
                    step()

            yield cycle

    def seconds(self, steps: int, clock: str) -> float:
        """Time whole cycles, per step."""
        return super().seconds(steps, clock) / self._cycle

    def passes(self) -> tuple[float, float]:
        """Count a cycle's, per step, uncompiled: compiled code would have to be made anew for the counting hooks."""
        with torch.compiler.set_stance("force_eager"):
            forwards, backwards = super().passes()
        return forwards / self._cycle, backwards / self._cycle


def ideas(shape: tuple[int, int, int], *, compiled: bool) -> dict[str, Idea]:
    """All that is tried, by name; settings are the paper's, h carried over to this image size.

    Args:
        shape: Of an image.
        compiled: Whether torch.compile is among them.
    """
    last = torch.channels_last
    found = {PLAIN: Idea(unwrapped), f"{PLAIN}, channels_last": Idea(unwrapped, memory_format=last)}
    for form, settings in forms(shape).items():
        guard = f"GUARD, {form} form"
        penalty = partial(guard_plugin.curvature_penalty, **settings)
        found[guard] = Idea(partial(wrapped, **settings))
        for name, part in PARTS.items():
            found[f"{name}, {form} form"] = Idea(partial(unwrapped, term=on_part(penalty, part)), guard)
        for name, k in PERIODS.items():
            found[f"{name}, {form} form"] = Idea(partial(every, k, settings), guard, cycle=k)
        for name, patch in WITHOUT.items():
            found[f"{guard}, {name}"] = Idea(partial(without, patch, settings), guard)
        found[f"{guard}, channels_last"] = Idea(
            partial(wrapped, **settings), f"{PLAIN}, channels_last", memory_format=last
        )
    low = {**forms(shape)["gradient"], "memory": "low"}
    found[GUARD_LOW] = Idea(partial(wrapped, **low))
    for name, patch in WITHOUT_IN_MEMORY_LOW.items():
        found[f"{GUARD_LOW}, {name}"] = Idea(partial(without, patch, low), GUARD_LOW)
    h = guard_plugin.scale_h(PAPER_H, from_shape=PAPER_SHAPE, to_shape=shape)
    found["second difference"] = Idea(partial(given, second_difference(h, 1.0)), "GUARD, loss form")
    term = finite_difference(h, PAPER_STRENGTH)
    found["finite difference"] = Idea(partial(unwrapped, term=term), "GUARD, gradient form")
    if compiled:
        term = compiled_penalty(partial(guard_plugin.curvature_penalty, **forms(shape)["loss"]))
        found["torch.compile of the penalty's passes, loss form"] = Idea(
            partial(unwrapped, term=term), "GUARD, loss form"
        )
        found[f"{PLAIN}, torch.compile"] = Idea(partial(given, compiled_plain))
    return found


def forms(shape: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    """The settings of both forms for images of that shape."""
    h = guard_plugin.scale_h(PAPER_H, from_shape=PAPER_SHAPE, to_shape=shape)
    return {
        "loss": {"form": "loss", "h": h, "strength": 1.0},
        "gradient": {"form": "gradient", "h": h, "strength": PAPER_STRENGTH},
    }


@contextmanager
def without(patch: tuple[Any, str, Callable[..., Any]], settings: dict[str, Any], network: nn.Module) -> Iterator[Loss]:
    """GUARD's loss with one of its functions replaced."""
    with mock.patch.object(*patch), wrapped(network, **settings) as loss:
        yield loss


@contextmanager
def given(loss: Loss, network: nn.Module) -> Iterator[Loss]:
    """A whole loss as a context."""
    del network
    yield loss


def on_part(penalty: Loss, part: int, seed: int = 0) -> Loss:
    """The penalty of a part of the batch, drawn anew in each call; its weight is the same, as it is a mean."""
    stream = torch.Generator().manual_seed(seed)

    def term(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        drawn = torch.randperm(len(images), generator=stream)[: len(images) // part].to(images.device)
        return penalty(network, images[drawn], labels[drawn])

    return term


@contextmanager
def every(k: int, settings: dict[str, Any], network: nn.Module) -> Iterator[Loss]:
    """The loss with k times the penalty in the first, the k-th after it, and so on."""
    scaled = {**settings, "strength": k * settings["strength"]}
    numbers = itertools.count()

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        if next(numbers) % k:
            return functional.cross_entropy(network(images), labels)
        with wrapped(network, **scaled) as guarded:  # for this step alone: its hooks would slow the others
            return guarded(network, images, labels)

    yield loss


def second_difference(h: float, strength: float) -> Loss:
    """The loss with the second difference of the mean loss along z.

    The pass that trains also gives z and l(x), unless the network behaves differently in evaluation; both ends are one
    pass of twice the batch.
    """

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        trained = each(network, images, labels)
        with undisturbed(network, images.device):
            here = each(network, images, labels) if mode_dependent(network) else trained
            (gradient,) = torch.autograd.grad(here.sum(), images, retain_graph=True)
            step = h * unit(gradient)
            images = images.detach()
            ends = each(network, torch.cat([images + step, images - step]), labels.repeat(2))
        return trained.mean() + strength * (2 * ends.mean() - 2 * here.mean()).abs()

    return loss


def mode_dependent(network: nn.Module) -> bool:
    """Whether a layer makes something else of its inputs in evaluation."""
    return any(
        (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0)
        or (isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats)
        for module in network.modules()
    )


def finite_difference(h: float, strength: float, step: float = FINITE_STEP) -> Loss:
    """The gradient form's value, and in place of its parameter gradient one from first-order gradients.

    With d_i the difference of both ends' input gradients, the parameter gradient is that of 2 mean_i d_i . (grad
    l_i(x + hz) - grad l_i(x)), d_i fixed; each product is taken as a difference of losses over a step along d_i.

    Args:
        h: The penalty's step.
        strength: Its weight.
        step: The length of the longest example's step along d_i.
    """

    def term(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        n, parameters = len(images), list(network.parameters())
        with undisturbed(network, images.device):
            gradient, of_here = first_order(network, images, labels, parameters)
            ends = images + h * unit(gradient)
            gradient_there, of_there = first_order(network, ends, labels, parameters)
            difference = gradient_there - gradient
            lengths = difference.flatten(1).norm(dim=1)
            scale = step / lengths.max().clamp_min(torch.finfo(lengths.dtype).tiny)
            moved = torch.cat([ends + scale * difference, images + scale * difference])
            losses = each(network, moved, labels.repeat(2))
            of_moved = torch.autograd.grad(losses[:n].sum() - losses[n:].sum(), parameters, materialize_grads=True)
        factor = 2 * strength / (n * scale)
        estimate = [factor * (a - b + c) for a, b, c in zip(of_moved, of_there, of_here, strict=True)]
        return with_gradient(strength * lengths.square().mean(), parameters, estimate)

    return term


def first_order(
    network: nn.Module, images: Tensor, labels: Tensor, parameters: list[nn.Parameter]
) -> tuple[Tensor, list[Tensor]]:
    """Per-example input gradients, and the parameters' gradient of the sum, from one pass."""
    images = images.detach().requires_grad_()
    losses = each(network, images, labels)
    first, *others = torch.autograd.grad(losses.sum(), [images, *parameters], materialize_grads=True)
    return first, others


def with_gradient(value: Tensor, parameters: list[nn.Parameter], gradients: list[Tensor]) -> Tensor:
    """A scalar of that value, whose derivative is known already."""
    linear = torch.stack([(p * g).sum() for p, g in zip(parameters, gradients, strict=True)]).sum()
    return value + (linear - linear.detach())


def each(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The losses of the examples."""
    return functional.cross_entropy(network(images), labels, reduction="none")


def unit(gradient: Tensor) -> Tensor:
    """Each example's gradient with length 1."""
    return functional.normalize(gradient.flatten(1), dim=1).view(gradient.shape)


# Compiling


def compiler_found() -> str | None:
    """The C++ compiler that torch.compile would use on a CPU."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


@cache
def compiled_network(network: nn.Module) -> nn.Module:
    """Compiled once, however often it is used; with the network's own parameters."""
    return torch.compile(network)  # type: ignore[return-value]


def compiled_penalty(penalty: Loss) -> Loss:
    """The penalty through a compiled network."""
    return lambda network, images, labels: penalty(compiled_network(network), images, labels)


def compiled_plain(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The plain loss of a compiled network: what a script that compiles anyway would compare with."""
    return functional.cross_entropy(compiled_network(network)(images), labels)


# Time and memory


def measure(case: Case, device: torch.device, rounds: int, file: Path) -> dict[str, float]:
    """Append what is missing of the rounds to a file, as overhead.py does.

    Returns:
        Seconds, on the wall's clock, that the first step of each idea with torch.compile took: nearly all of it is
        compiling.
    """
    network, batch = case.build(device)
    found = ideas((3, case.size, case.size), compiled=bool(compiler_found()))
    tried = {name: Apart(Tried(network, idea, batch), case.threads) for name, idea in found.items()}
    compiling = {name: one.ask("seconds", 1, "wall") for name, one in tried.items() if "compile" in name}
    run_rounds(case, device, tried, rounds, file)
    return compiling


def ratio_table(case: Measured, found: dict[str, Idea]) -> str:
    """Each idea beside the step that it would stand in for."""
    rows = [
        f"| {name} | {idea.against} | {_quartiles(case, name, idea.against)} |"
        for name, idea in found.items()
        if idea.against != PLAIN
    ]
    return "\n".join(["| step | beside | time, ratio [quartiles] |", "|---|---|---|", *rows, ""])


def _quartiles(case: Measured, name: str, against: str) -> str:
    ratios = [one[name] / one[against] for one in case.rounds]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"**{middle:.2f}** [{low:.2f}, {high:.2f}]"


# What the estimates give up


@dataclass(frozen=True)
class Spread:
    """How draws of an estimate lie around what they estimate, whose length is the unit of the first three.

    Args:
        error: Root of the mean squared distance.
        bias: Distance of the mean.
        chance: What bias an unbiased estimate would show with so many draws, by its own spread.
        length: Of what is estimated.
    """

    error: float
    bias: float
    chance: float
    length: float


def spread(draws: Iterable[Tensor], exact: Tensor) -> Spread:
    """Measure at least two draws."""
    total, squares, count = torch.zeros_like(exact), 0.0, 0
    for draw in draws:
        off = draw - exact
        total, squares, count = total + off, squares + float(off.square().sum()), count + 1
    bias, length = float(total.norm()) / count, float(exact.norm())
    variance = max(squares - count * bias**2, 0.0) / (count - 1)
    return Spread(math.sqrt(squares / count) / length, bias / length, math.sqrt(variance / count) / length, length)


def parameter_gradient(loss: Loss, network: nn.Module, batch: Batch) -> Tensor:
    """All parameters' gradient as one vector, in double precision for the sums over draws."""
    value = loss(network, *batch)
    gradients = torch.autograd.grad(value, list(network.parameters()), materialize_grads=True)
    return torch.cat([one.flatten() for one in gradients]).double()


def batches(case: Case, device: torch.device) -> Iterator[Batch]:
    """Images of low-resolution patterns, one per class, with pixel noise: separable, and no label is wrong."""
    stream = torch.Generator().manual_seed(case.seed)
    patterns = CONTRAST * torch.randn(case.classes, 3, 4, 4, generator=stream)
    patterns = functional.interpolate(patterns, (case.size, case.size))
    while True:
        labels = torch.randint(case.classes, (case.batch_size,), generator=stream)
        images = patterns[labels] + torch.randn(case.batch_size, 3, case.size, case.size, generator=stream)
        yield images.to(device), labels.to(device)


def learned(case: Case, device: torch.device, stream: Iterator[Batch]) -> nn.Module:
    """The case's network, in evaluation, after some steps."""
    network, _ = case.build(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for images, labels in itertools.islice(stream, LEARNING_STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


def estimates(case: Case, device: torch.device, draws: int) -> dict[str, Any]:
    """Measure all estimates on one batch of a network that has learned, for JSON."""
    stream = batches(case, device)
    network = learned(case, device, stream)
    many = list(itertools.islice(stream, LARGER))
    between, within = {PLAIN: between_batches(plain_loss, network, many)}, {}
    for number, (form, settings) in enumerate(forms((3, case.size, case.size)).items()):
        penalty = partial(guard_plugin.curvature_penalty, **settings)
        between[f"penalty, {form} form"] = between_batches(penalty, network, many)
        for name, one in of_form(penalty, network, many[0], draws, case.seed + number).items():
            within[f"{name}, {form} form"] = one
    h = forms((3, case.size, case.size))["gradient"]["h"]
    return {
        "draws": draws,
        "loss": plain_loss(network, *many[0]).item(),
        "falls": falling(network, many[0], h),
        "a batch for 16": {name: asdict(one) for name, one in between.items()},
        "estimates": {name: asdict(one) for name, one in within.items()},
        "finite differences": finite_deviations(network, many[0], h),
    }


def plain_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The plain loss."""
    return each(network, images, labels).mean()


def between_batches(loss: Loss, network: nn.Module, many: list[Batch]) -> Spread:
    """A batch's gradient, for the mean of them all; there is no bias, by construction."""
    gradients = [parameter_gradient(loss, network, batch) for batch in many]
    return spread(gradients, sum(gradients[1:], gradients[0]) / len(gradients))


def of_form(penalty: Loss, network: nn.Module, batch: Batch, draws: int, seed: int) -> dict[str, Spread]:
    """The estimates of one batch's penalty."""
    exact = parameter_gradient(penalty, network, batch)
    found = {}
    for name, part in PARTS.items():
        term = on_part(penalty, part, seed)
        found[name] = spread((parameter_gradient(term, network, batch) for _ in range(draws)), exact)
    for name, k in PERIODS.items():  # k times it or nothing: known without drawing
        found[name] = Spread(math.sqrt(k - 1), 0.0, 0.0, float(exact.norm()))
    return found


def falling(network: nn.Module, batch: Batch, h: float) -> float:
    """The share of examples whose loss is lower at the step's end: the loss form's parts differ in sign by them."""
    images, labels = batch
    gradient, _ = first_order(network, images, labels, [])
    with torch.no_grad():
        rise = each(network, images + h * unit(gradient), labels) - each(network, images, labels)
    return (rise < 0).double().mean().item()


def finite_deviations(network: nn.Module, batch: Batch, h: float) -> dict[str, dict[str, float]]:
    """By network and step: the finite difference's distance from the exact gradient, over its length."""
    double = copy.deepcopy(network).double()
    tried = {
        "float32": network,
        "float64": double,  # without rounding, and so the kinks alone
        "float64, GELU for ReLU": gelu_for_relu(double),  # neither
    }
    return {name: _deviations(one, batch, h) for name, one in tried.items()}


def _deviations(network: nn.Module, batch: Batch, h: float) -> dict[str, float]:
    batch = (batch[0].to(next(network.parameters()).dtype), batch[1])
    exact = parameter_gradient(partial(guard_plugin.curvature_penalty, h=h, strength=1.0), network, batch)
    found = {}
    for step in FINITE_STEPS:
        off = parameter_gradient(finite_difference(h, 1.0, step), network, batch) - exact
        found[str(step)] = float(off.norm() / exact.norm())
    return found


def gelu_for_relu(network: nn.Module) -> nn.Module:
    """A copy with the same weights, whose activations have no kink; other kinks, as of max pooling, stay."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.GELU())
    return network


# What is told


def report(case: Case, device: torch.device, rounds: int, draws: int, out: Path) -> str:
    """Measure, keep and tell all of a case, as Markdown."""
    compiling = measure(case, device, rounds, out / f"{case.name}.jsonl")
    found = {"compiling": compiling, **estimates(case, device, draws)}
    (out / f"{case.name}.json").write_text(json.dumps(found, indent=1))
    measured = read_case(out / f"{case.name}.jsonl")
    tried = ideas((3, case.size, case.size), compiled=bool(compiler_found()))
    return "\n".join([table(measured), ratio_table(measured, tried), compile_line(compiling), estimate_table(found)])


def compile_line(compiling: dict[str, float]) -> str:
    """What compiling took."""
    if not compiling:
        return "torch.compile was not tried: there is no C++ compiler (CXX, or g++).\n"
    seconds = ", ".join(f"{name} {one:.0f} s" for name, one in compiling.items())
    return (
        f"First step, nearly all of it compiling, which no time above holds: {seconds}. The second finds what the "
        f"first has made.\n"
    )


def estimate_table(found: dict[str, Any]) -> str:
    """The estimates as Markdown."""
    between, within = (
        {name: Spread(**one) for name, one in found[key].items()} for key in ("a batch for 16", "estimates")
    )
    unit_of = between[PLAIN].error * between[PLAIN].length
    rows = [
        f"| {name}, one batch for {LARGER} | {one.error:.3f} | | | {one.error * one.length / unit_of:.2f} |"
        for name, one in between.items()
    ] + [
        f"| {name} | {one.error:.3f} | {one.bias:.3f} | {one.chance:.3f} | {one.error * one.length / unit_of:.2f} |"
        for name, one in within.items()
    ]
    steps = [
        f"| {step} | " + " | ".join(f"{one[str(step)]:.4f}" for one in found["finite differences"].values()) + " |"
        for step in FINITE_STEPS
    ]
    return "\n".join(
        [
            f"{found['draws']} draws of each part of a batch (a k-th step's figures are known), on one batch whose "
            f"mean loss is {found['loss']:.3f} after {LEARNING_STEPS} steps. The loss form's parts of a batch are not "
            f"unbiased, because of the absolute value: they are wrong wherever their mean has another sign than the "
            f"batch's. Here the loss falls along z for {found['falls']:.1%} of the examples.",
            "",
            "| gradient of | relative error | bias | bias by chance alone | error, over the plain batch's own |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "The finite difference is another penalty. Its parameter gradient's relative distance from the exact one:",
            "",
            "| step | " + " | ".join(found["finite differences"]) + " |",
            "|---|" + "---|" * len(found["finite differences"]),
            *steps,
            "",
        ]
    )


if __name__ == "__main__":
    try:
        main()
    except GuardError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
