"""What does one training step cost with each penalty, in time and in memory?

    python examples/overhead.py --arch ConvNetW64 --batch-size 128 --rounds 15 --out overhead
    python examples/overhead.py --arch resnet18 --batch-size 32 --rounds 15 --out overhead

A step is what a training script does with one batch: forward, loss, backward, SGD. Every method has a copy of the
network and, on a CPU, a process of its own, as a script has: in one process a method profits from the memory that
others have left in the heap. In every round each makes `--steps` steps, in an order that rotates; a ratio is to the
plain step of the same round. Time is the clock's or, for a machine that others use too, the process's own on the CPU.
"GUARD" and the other penalties go through `guard_plugin.wrap`, as users have them. "authors" are the passes of GUARD's
published scripts (yumozi/GUARD at 493b19c), written anew from their description, as comparators.

Written to OUT: per case a file of JSON lines (run again, it goes on where it was), and table.md and overhead.png of all
cases in OUT. Memory is the peak above what is held between steps: on a CPU of all that torch's allocator gave out
(not oneDNN's own scratch memory), as its profiler reports it; on CUDA `torch.cuda.max_memory_allocated`.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import guard_plugin
from guard_plugin.diagnostics import matplotlib_figure
from guard_plugin.errors import GuardError, UnusableInput
from guard_plugin.evaluation.distributed import usable_device
from guard_plugin.evaluation.results import versions
from guard_plugin.injection.module_calls import watch_module_calls
from guard_plugin.networks.architectures import build_network

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]

PLAIN = "plain"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PAPER_H, PAPER_STRENGTH, PAPER_SHAPE = 3.0, 100.0, (3, 224, 224)
EPS = 8 / 255 / 0.25  # 8/255 in pixels, in the units of inputs that were divided by a std of 0.25
SGD_RATE = 1e-4  # small: the weights, and so the work, hardly change over a run


def main() -> None:
    """Measure one case, and print the table of all cases in the folder."""
    given = _arguments()
    if given.rounds < 2:
        raise UnusableInput(f"expected --rounds >= 2, as quartiles are taken over them, got {given.rounds}")
    case, device = begin(given)
    measure(case, device, given.rounds, given.out / f"{case.name}.jsonl", given.only)
    cases = [read_case(file) for file in sorted(given.out.glob("*.jsonl"))]
    text = "\n".join(table(one) for one in cases)
    (given.out / "table.md").write_text(text)
    print(text)
    draw(cases, given.out / "overhead.png")


def begin(given: argparse.Namespace) -> tuple[Case, torch.device]:
    """Make ready what the arguments name: the case, the device, the threads and the folder."""
    device = usable_device(given.device)
    if device.type == "cuda" and given.clock == "cpu":
        raise UnusableInput("expected --clock wall on CUDA: the CPU's time is not the GPU's")
    torch.set_num_threads(1)  # until all processes are forked: OpenMP's threads would not be in them
    given.out.mkdir(parents=True, exist_ok=True)
    case = Case(
        given.arch,
        given.batch_size,
        given.size,
        given.classes,
        given.steps,
        given.seed,
        given.clock,
        given.threads,
    )
    return case, device


def _arguments() -> argparse.Namespace:
    parser = case_parser(__doc__, steps="of each method in a round")
    parser.add_argument("--only", action="append", metavar="STEP", help="measure this step, by name; may be repeated")
    return parser.parse_args()


def case_parser(description: str | None, *, steps: str) -> argparse.ArgumentParser:
    """The arguments of every script that measures a case; ``steps`` says what `--steps` counts."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--arch", default="ConvNetW64")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15, help="at least 2; in all, with those of earlier runs")
    parser.add_argument("--steps", type=int, default=1, help=steps)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: what the process used, on a machine that others use too"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    return parser


@dataclass(frozen=True)
class Case:
    """What is measured: a network and a batch."""

    arch: str
    batch_size: int
    size: int
    classes: int
    steps: int
    seed: int
    clock: str
    threads: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.arch}-{self.size}px-batch{self.batch_size}"

    def build(self, device: torch.device) -> tuple[nn.Module, Batch]:
        """The network, and a batch of normalised noise with random labels."""
        torch.manual_seed(self.seed)
        network = build_network(self.arch, channels=3, num_classes=self.classes, im_size=(self.size, self.size))
        images = torch.randn(self.batch_size, 3, self.size, self.size)
        labels = torch.randint(self.classes, (self.batch_size,))
        return network.to(device).train(), (images.to(device), labels.to(device))


@contextmanager
def wrapped(network: nn.Module, **options: Any) -> Iterator[Loss]:
    """The loss of a script that has wrapped its criterion."""
    criterion = guard_plugin.wrap(nn.CrossEntropyLoss(), network, **options)
    try:
        yield lambda network, images, labels: criterion(network(images), labels)
    finally:
        criterion.unwrap()  # its hooks are global: the other methods must not pay for them


@contextmanager
def unwrapped(network: nn.Module, term: Loss | None = None) -> Iterator[Loss]:
    """The loss of a script that adds a term of its own, or none."""
    criterion = nn.CrossEntropyLoss()

    def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        own = criterion(network(images), labels)
        return own if term is None else own + term(network, images, labels)

    yield loss


def published_gradient_form(h: float, strength: float) -> Loss:
    """The passes of pretrain_cifar.py: a whole backward for the direction, then two further forwards.

    The gradient of the difference of two batch-mean losses is differentiated; its norm per example is not squared.
    """

    def term(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with _published_passes(network, images, labels, h) as (here, difference):
            (gradient,) = torch.autograd.grad(difference, here, create_graph=True)
            return strength * gradient.flatten(1).norm(dim=1).mean()

    return term


def published_loss_form(h: float, strength: float) -> Loss:
    """The passes of pretrain.py: the same, but the difference of the losses itself is penalised."""

    def term(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with _published_passes(network, images, labels, h) as (_, difference):
            return strength * difference.abs()

    return term


@contextmanager
def _published_passes(network: nn.Module, images: Tensor, labels: Tensor, h: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Direction, then the difference of the mean losses at the shifted and at the given images, in eval mode."""
    criterion = nn.CrossEntropyLoss()
    here = images.detach().requires_grad_()
    network.eval()
    criterion(network(here), labels).backward()  # of the parameters too, whose gradients are then thrown away
    gradient, here.grad = here.grad, None
    network.zero_grad()
    length = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (images.dim() - 1))
    step = h * (gradient + 1e-7) / (length + 1e-7)
    yield here, criterion(network(here + step), labels) - criterion(network(here), labels)
    network.train()


def train_step(loss: Loss, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The seam that `guard run` opens here."""
    return loss(network, images, labels)


@contextmanager
def attached(network: nn.Module, **options: Any) -> Iterator[Loss]:
    """The loss of an unmodified script under `guard run`."""
    criterion = nn.CrossEntropyLoss()

    def plain(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return criterion(network(images), labels)

    seams = {"guard": ["overhead:train_step"]}
    attachment = guard_plugin.attach("auto", script=__file__, **seams, **options)
    try:
        yield lambda *step: train_step(plain, *step)
    finally:
        attachment.detach()


def methods(shape: tuple[int, int, int]) -> dict[str, Callable[[nn.Module], Any]]:
    """By name, what makes the loss of a network; settings are the paper's, h carried over to this image size."""
    h = guard_plugin.scale_h(PAPER_H, from_shape=PAPER_SHAPE, to_shape=shape)
    loss_form = {"form": "loss", "h": h, "strength": 1.0}
    gradient_form = {"form": "gradient", "h": h, "strength": PAPER_STRENGTH}
    return {
        PLAIN: unwrapped,
        "strength 0": lambda network: attached(network, **{**gradient_form, "strength": 0.0}),
        "GUARD, loss form": lambda network: wrapped(network, **loss_form),
        "GUARD, loss form, guard run": lambda network: attached(network, **loss_form),
        "GUARD, loss form, memory low": lambda network: wrapped(network, memory="low", **loss_form),
        "GUARD, loss form, separate": lambda network: wrapped(network, path="separate", **loss_form),
        "GUARD, loss form, reference": lambda network: wrapped(network, path="reference", **loss_form),
        "GUARD, gradient form": lambda network: wrapped(network, **gradient_form),
        "GUARD, gradient form, guard run": lambda network: attached(network, **gradient_form),
        "GUARD, gradient form, memory low": lambda network: wrapped(network, memory="low", **gradient_form),
        "GUARD, gradient form, separate": lambda network: wrapped(network, path="separate", **gradient_form),
        "GUARD, gradient form, reference": lambda network: wrapped(network, path="reference", **gradient_form),
        "gradient norm": lambda network: wrapped(network, penalty="gradient_norm", strength=1.0),
        "fast training": lambda network: wrapped(network, penalty="fast", eps=EPS),
        "PGD-10 training": lambda network: wrapped(network, penalty="pgd_at", eps=EPS, steps=10),
        "TRADES-10": lambda network: wrapped(network, penalty="trades", eps=EPS, steps=10),
        "authors, loss form": lambda network: unwrapped(network, published_loss_form(h, 1.0)),
        "authors, gradient form": lambda network: unwrapped(network, published_gradient_form(h, PAPER_STRENGTH)),
    }


class Contender:
    """One method with its copy of the network.

    Args:
        network: To be copied.
        make_loss: From the copy to a context with its loss.
        batch: For all its steps.
    """

    def __init__(self, network: nn.Module, make_loss: Callable[[nn.Module], Any], batch: Batch) -> None:
        self.network = copy.deepcopy(network)
        self.batch = batch
        self._make_loss = make_loss
        self._optimizer = torch.optim.SGD(self.network.parameters(), lr=SGD_RATE)

    @contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """Make ready, give the step, and put away."""
        with self._make_loss(self.network) as loss:

            def step() -> None:
                self._optimizer.zero_grad()
                loss(self.network, *self.batch).backward()
                self._optimizer.step()

            yield step
        self._optimizer.zero_grad()

    def seconds(self, steps: int, clock: str) -> float:
        """Time some steps, per step, on one of CLOCKS."""
        now = CLOCKS[clock]
        with self.turn() as step, _no_collection():
            _wait_for(self.batch)
            begin = now()
            for _ in range(steps):
                step()
            _wait_for(self.batch)
            return (now() - begin) / steps

    def passes(self) -> tuple[float, float]:
        """Count one step's forward passes, and the backward passes through them, in whole batches."""
        forwards: list[int] = []
        backwards: list[int] = []

        def count(proceed: Callable[..., Any], module: nn.Module, *args: Any) -> Any:
            output = proceed(*args)
            if module is self.network:
                forwards.append(len(output))
                if output.grad_fn is not None:
                    output.grad_fn.register_hook(lambda *gradients: backwards.append(len(output)))
            return output

        with self.turn() as step:
            for _ in range(2):
                step()  # the first of a network have passes that find out how it behaves
            stop = watch_module_calls(count)  # not a hook, with which a pass would not be shared
            step()
        stop()
        return sum(forwards) / len(self.batch[0]), sum(backwards) / len(self.batch[0])

    def peak_bytes(self) -> int:
        """Measure one step's peak memory above what is held between steps."""
        with self.turn() as step:
            return peak_on_cuda(step) if self.batch[0].is_cuda else peak_on_cpu(step)

    def is_finite(self) -> bool:
        """Whether the weights still are numbers."""
        return all(bool(value.isfinite().all()) for value in self.network.parameters())


class Apart:
    """A contender in a forked process, where that can be.

    Args:
        contender: Has not made a step yet.
        threads: That it may use.
    """

    def __init__(self, contender: Contender, threads: int) -> None:
        self._contender, self._process = contender, None
        if not contender.batch[0].is_cuda:  # CUDA does not survive a fork, and has an allocator of its own
            fork = multiprocessing.get_context("fork")
            self._pipe, there = fork.Pipe()
            self._process = fork.Process(target=_serve, args=(contender, there, threads), daemon=True)
            self._process.start()
            there.close()

    def ask(self, method: str, *args: Any) -> Any:
        """Call a method of the contender.

        Raises:
            ChildProcessError: If it raises, which its process has then printed.
        """
        if self._process is None:
            return getattr(self._contender, method)(*args)
        self._pipe.send((method, args))
        try:
            return self._pipe.recv()
        except EOFError as error:
            raise ChildProcessError(f"{method} failed in its process, which has printed why") from error

    def close(self) -> None:
        """End its process."""
        if self._process is not None:
            self._process.terminate()
            self._process.join()


def _serve(contender: Contender, pipe: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    while True:
        method, args = pipe.recv()
        pipe.send(getattr(contender, method)(*args))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector, which would strike one method and not the other, out of a measured time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _wait_for(batch: Batch) -> None:
    if batch[0].is_cuda:
        torch.cuda.synchronize()


def peak_on_cuda(step: Callable[[], None]) -> int:
    """The caching allocator's own count."""
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() - held


def peak_on_cpu(step: Callable[[], None]) -> int:
    """The highest sum of all that the CPU allocator gave out and took back since the step began."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profile.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((one for one in events if one["name"] == "[memory]"), key=lambda one: one["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def measure(case: Case, device: torch.device, rounds: int, file: Path, only: Sequence[str] | None = None) -> None:
    """Append what is missing of the rounds to a file, after its first line, which tells all that has no spread."""
    network, batch = case.build(device)
    known = methods(tuple(batch[0].shape[1:]))
    names = [PLAIN, *(only or [name for name in known if name != PLAIN])]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnusableInput(f"expected --only to be one of {'; '.join(known)}, got {'; '.join(unknown)}")
    contenders = {name: Apart(Contender(network, known[name], batch), case.threads) for name in names}
    run_rounds(case, device, contenders, rounds, file)


def run_rounds(case: Case, device: torch.device, contenders: Mapping[str, Apart], rounds: int, file: Path) -> None:
    """Append what is missing of the rounds, and end the contenders' processes."""
    torch.set_num_threads(case.threads)
    try:
        done, names = _begun(case, device, contenders, file), list(contenders)
        if done < rounds:
            for contender in contenders.values():
                contender.ask("seconds", 1, case.clock)
        for number in tqdm(range(done, rounds), case.name, disable=None):
            order = names[number % len(names) :] + names[: number % len(names)]
            seconds = {name: contenders[name].ask("seconds", case.steps, case.clock) for name in order}
            _append(file, {"round": number, "seconds": seconds})
        for name, contender in contenders.items():
            if not contender.ask("is_finite"):
                raise ArithmeticError(f"{name}: the weights are no longer finite, so its times mean nothing")
    finally:
        for contender in contenders.values():
            contender.close()


def _begun(case: Case, device: torch.device, contenders: Mapping[str, Apart], file: Path) -> int:
    """Write the first line, or check that it is of the same measurement; return how many rounds are there."""
    allocator = {name: value for name, value in os.environ.items() if name.startswith(("MALLOC_", "THP_MEM", "LD_PRE"))}
    used = {**versions(device), "machine": platform.machine(), "system": platform.system(), "allocator": allocator}
    settings = {"case": vars(case), "methods": list(contenders), "versions": used}
    if file.exists():
        first, *others = file.read_text().splitlines()
        found = {name: json.loads(first)[name] for name in settings}
        if found != settings:
            raise UnusableInput(
                f"{file} holds another measurement: {found}; this one: {settings}. Choose another --out"
            )
        return len(others)
    fixed = {
        "passes": {name: one.ask("passes") for name, one in contenders.items()},
        "peak_bytes": {name: one.ask("peak_bytes") for name, one in contenders.items()},
    }
    _append(file, {**settings, **fixed})
    return 0


def _append(file: Path, line: Mapping[str, Any]) -> None:
    with file.open("a") as stream:
        stream.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Measured:
    """A case's file."""

    fixed: dict[str, Any]
    rounds: list[dict[str, float]]

    @property
    def title(self) -> str:
        """The case in words."""
        case = self.fixed["case"]
        return f"{case['arch']}, batch {case['batch_size']} of 3x{case['size']}x{case['size']}"

    def ratios(self, name: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the rounds' ratios to the plain step."""
        values = [one[name] / one[PLAIN] for one in self.rounds]
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return low, middle, high

    def memory_ratio(self, name: str) -> float:
        """Peak memory over the plain step's."""
        peaks = self.fixed["peak_bytes"]
        return peaks[name] / peaks[PLAIN]


def read_case(file: Path) -> Measured:
    """Read a case's file."""
    first, *others = map(json.loads, file.read_text().splitlines())
    return Measured(first, [one["seconds"] for one in others])


def table(case: Measured) -> str:
    """A case as Markdown."""
    used, settings = case.fixed["versions"], case.fixed["case"]
    rows = [_row(case, name) for name in case.fixed["methods"]]
    return "\n".join(
        [
            f"**{case.title}**: {len(case.rounds)} rounds of {settings['steps']} step(s), {used['device']} "
            f"({used['machine']}), {used['threads']} thread(s), {settings['clock']} time, torch {used['torch']}"
            + "".join(f", {name}={value}" for name, value in used["allocator"].items()),
            "",
            "| step | ms | time, ratio to plain [quartiles] | peak MiB | ratio | forwards | backwards |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _row(case: Measured, name: str) -> str:
    low, middle, high = case.ratios(name)
    milliseconds = 1000 * statistics.median(one[name] for one in case.rounds)
    forwards, backwards = case.fixed["passes"][name]
    cells = [
        name,
        f"{milliseconds:.0f}",
        "1" if name == PLAIN else f"**{middle:.2f}** [{low:.2f}, {high:.2f}]",
        f"{case.fixed['peak_bytes'][name] / 2**20:.0f}",
        f"{case.memory_ratio(name):.2f}",
        f"{forwards:g}",
        f"{backwards:g}",
    ]
    return "| " + " | ".join(cells) + " |"


def draw(cases: list[Measured], file: Path) -> None:
    """Draw the ratios of all cases: time, with quartiles, and memory."""
    figure = matplotlib_figure().Figure(figsize=(9, 0.8 + 0.4 * len(cases[0].fixed["methods"])), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    thickness = 0.8 / len(cases)
    for number, case in enumerate(cases):
        names = [name for name in case.fixed["methods"] if name != PLAIN]
        places = [place + (number - (len(cases) - 1) / 2) * thickness for place in range(len(names))]
        quartiles = [case.ratios(name) for name in names]
        middles = [middle for _, middle, _ in quartiles]
        spread = [[middle - low for low, middle, _ in quartiles], [high - middle for _, middle, high in quartiles]]
        left.barh(places, middles, thickness, xerr=spread, label=case.title)
        right.barh(places, [case.memory_ratio(name) for name in names], thickness)
        left.set_yticks(range(len(names)), names)
    for axes, what in ((left, "time"), (right, "peak memory")):
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel(f"{what} of a step, ratio to the plain step")
    left.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(cases), fontsize="small")
    figure.savefig(file, dpi=80)


if __name__ == "__main__":
    try:
        main()
    except GuardError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
