"""How fast is the benchmark, against the straightforward loop over the attack libraries, and do both agree?

    python examples/bench_attacks.py --dataset FashionMNIST --data DIR --arch ConvNetW32 --n-examples 128 --out DIR

Both measure the same network on the same images on the same machine, in turn, `--repeats` times. Time is the process's
own, because others may use the machine. "Straightforward" is what evaluation scripts do: for each attack, batch by
batch over all images, torchattacks' PGD and MIFGSM, foolbox's Carlini-Wagner, pyautoattack's Square and AutoAttack
(standard). "Ours" are the same attacks of our benchmark, each alone, and then together, as in the preset `paper`, where
AutoAttack uses the column of Square. Written to DIR: the network (trained once, on real images), a line of JSON per
repeat, and the table.

A pair of PGD100 without a random start is measured besides: there, both climb the same path, and the outcome of every
example is compared.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from guard_plugin.attacks import PGD, builtin_registry, parse_attacks, parse_eps
from guard_plugin.attacks.classifier import Classifier
from guard_plugin.evaluation import load_images
from guard_plugin.evaluation.engine import CLEAN, evaluate_model
from guard_plugin.evaluation.results import versions
from guard_plugin.evaluation.worker import CountedModel
from guard_plugin.networks.architectures import build_network
from guard_plugin.networks.pixel_model import PixelModel
from guard_plugin.optional import require
from guard_plugin.spaces.usual import normalization_named

PAPER = "pgd100,square,autoattack,cw,mim20"
CPU = torch.device("cpu")

Perturb = Callable[[Tensor, Tensor], Tensor]


def main() -> None:
    """Measure and print the table."""
    given = _arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(given.threads)
    images = load_images(given.dataset, given.data, n_examples=given.n_examples)
    model = _network(given)
    eps = parse_eps(given.eps)
    lines = given.out / "bench.jsonl"
    settings = {name: str(value) for name, value in vars(given).items() if name not in ("repeats", "out")}
    done = lines.read_text().splitlines() if lines.exists() else []
    if done and json.loads(done[0])["settings"] != settings:
        raise SystemExit(f"{lines} holds a bench of other settings: choose another --out")
    for repeat in range(len(done), given.repeats):
        line = {"repeat": repeat, "settings": settings, **_repeat(model, images, eps, given)}
        with lines.open("a") as file:
            file.write(json.dumps(line) + "\n")
    table = _table([json.loads(line) for line in lines.read_text().splitlines()], given)
    (given.out / "table.md").write_text(table)
    print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data")
    parser.add_argument("--arch", default="ConvNetD1")
    parser.add_argument("--attacks", default=PAPER, help="some of those of the preset `paper`, separated by commas")
    parser.add_argument("--eps", default="1/255")
    parser.add_argument("--train", type=int, default=1000, help="real images that the network is trained on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--n-examples", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _network(given: argparse.Namespace) -> nn.Module:
    """The network, trained on real images or loaded."""
    real = load_images(given.dataset, given.data, split="train", n_examples=given.train)
    channels, height, width = real.pixels.shape[1:]
    torch.manual_seed(0)
    network = build_network(given.arch, channels=channels, num_classes=real.num_classes, im_size=(height, width))
    model = PixelModel(network, normalization_named(given.dataset))
    file = given.out / "network.pt"
    if file.exists():
        network.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in tqdm(range(given.epochs), "train", disable=None):
        for batch in torch.randperm(len(real.labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(real.pixels[batch]), real.labels[batch]).backward()
            optimizer.step()
    torch.save(network.state_dict(), file)
    return model.eval()


def _repeat(model, images, eps, given) -> dict:
    """One turn of each contender."""
    batch_size, libraries = given.batch_size, _libraries(eps)
    attacks = {attack.name: attack for attack in parse_attacks(given.attacks, builtin_registry(), [eps])}
    theirs = {name: _straightforward(model, images, batch_size, libraries[name]) for name in attacks}
    ours = {name: _ours(model, images, batch_size, {name: attack}) for name, attack in attacks.items()}
    together = _ours(model, images, batch_size, attacks) if len(attacks) > 1 else ours[next(iter(attacks))]
    pair_theirs = _straightforward(model, images, batch_size, _torchattacks_pgd(eps, random_start=False))
    pair_ours = _ours(model, images, batch_size, {"pgd": PGD(eps, steps=100, random_start=False)})
    ours = {CLEAN: _ours(model, images, batch_size, {}), **ours}
    clean = _straightforward(model, images, batch_size, lambda counted: lambda pixels, labels: pixels)
    return {
        "theirs": {CLEAN: clean, **theirs},
        "ours": ours,
        "together_seconds": {
            "theirs": clean["seconds"] + sum(one["seconds"] for one in theirs.values()),
            "ours": together["seconds"],
        },
        "pair": {"theirs": pair_theirs, "ours": pair_ours},
        "versions": versions(CPU),
    }


def _ours(model, images, batch_size, attacks) -> dict:
    """Our benchmark with some attacks, or none, from the checks of the network to the outcomes."""
    with _pass_seconds() as in_passes:
        begin = time.process_time()
        records = evaluate_model(lambda: model, images, attacks, batch_size=batch_size, device=CPU)
        seconds = time.process_time() - begin
    return {
        "seconds": seconds,
        "in_passes": sum(in_passes),
        "forwards": sum(record.cost.forwards for record in records.values()),
        "backwards": sum(record.cost.backwards for record in records.values()),
        "correct": np.flatnonzero(records[next(iter(attacks), CLEAN)].correct).tolist(),
    }


@contextmanager
def _pass_seconds() -> Iterator[list[float]]:
    """Collect the process time of each of our forward and backward passes; what is left is the attacks' own."""
    spent: list[float] = []

    def timed(call: Callable) -> Callable:
        def run(*args, **kwargs):
            begin = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent.append(time.process_time() - begin)

        return run

    forward, backward = timed(Classifier._logits), timed(torch.autograd.grad)
    with patch.object(Classifier, "_logits", forward), patch.object(torch.autograd, "grad", backward):
        yield spent


def _straightforward(model, images, batch_size, make: Callable[[nn.Module], Perturb]) -> dict:
    """The loop of an evaluation script: all images, batch by batch; right is what is right after the attack."""
    counted = CountedModel(model).eval()
    begin = time.process_time()
    perturb, right = make(counted), []
    for pixels, labels in zip(images.pixels.split(batch_size), images.labels.split(batch_size)):
        adversarial = perturb(pixels, labels)
        with torch.no_grad():
            right.append(counted(adversarial).argmax(1) == labels)
    return {
        "seconds": time.process_time() - begin,
        "forwards": counted.forwards,
        "backwards": counted.backwards,
        "correct": torch.nonzero(torch.cat(right))[:, 0].tolist(),
    }


def _libraries(eps) -> dict[str, Callable[[nn.Module], Perturb]]:
    """The attacks of the paper's evaluation, each by a library, with the settings that ours have."""
    foolbox, torchattacks = (require(name, needed_by="this bench") for name in ("foolbox", "torchattacks"))
    import pyautoattack
    from pyautoattack.square import SquareAttack

    def square(model: nn.Module) -> Perturb:
        attack = SquareAttack(model, eps=eps.value, n_queries=5000, seed=0, device="cpu", resc_schedule=False)

        def perturb(pixels: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                return attack.perturb(pixels, labels)

        return perturb

    def autoattack(model: nn.Module) -> Perturb:
        attack = pyautoattack.AutoAttack(model, eps=eps.value, seed=0, device="cpu")
        return lambda pixels, labels: attack.run_standard_evaluation(pixels, labels, batch_size=len(pixels))[0]

    def cw(model: nn.Module) -> Perturb:
        attack = foolbox.attacks.L2CarliniWagnerAttack(steps=100, binary_search_steps=9)
        host = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")

        def perturb(pixels: Tensor, labels: Tensor) -> Tensor:
            radius = eps.value * pixels[0].numel() ** 0.5
            raw, _, _ = attack(host, pixels, foolbox.criteria.Misclassification(labels), epsilons=None)
            inside = (raw - pixels).flatten(1).norm(dim=1) <= radius
            return torch.where(inside.view(-1, 1, 1, 1), raw, pixels)

        return perturb

    return {
        "pgd100": _torchattacks_pgd(eps, random_start=True),
        "square": square,
        "autoattack": autoattack,
        "cw": cw,
        "mim20": lambda model: torchattacks.MIFGSM(model, eps=eps.value, alpha=eps.value, steps=20, decay=1.0),
    }


def _torchattacks_pgd(eps, random_start: bool) -> Callable[[nn.Module], Perturb]:
    torchattacks, size = require("torchattacks", needed_by="this bench"), eps.value
    return lambda model: torchattacks.PGD(model, eps=size, alpha=size / 4, steps=100, random_start=random_start)


def _table(repeats: list[dict], given: argparse.Namespace) -> str:
    n = given.n_examples
    rows = [_row(name, repeats, n) for name in repeats[0]["ours"]]
    totals = [one["together_seconds"] for one in repeats]
    pairs = [one["pair"] for one in repeats]
    differing = set(pairs[0]["theirs"]["correct"]) ^ set(pairs[0]["ours"]["correct"])
    used = repeats[0]["versions"]
    packages = ", ".join(f"{name} {used[name]}" for name in ("torch", "torchattacks", "pyautoattack", "guard_plugin"))
    return "\n".join(
        [
            f"{given.dataset}, {given.arch}, {n} test images, eps {given.eps}, batch {given.batch_size}, "
            f"{given.threads} thread(s), {len(repeats)} repeat(s) in turn; {packages}; {platform.machine()} CPU.",
            "",
            "| | accuracy, libraries | ours | seconds, libraries | ours | of these in passes | ratio "
            "| passes per image, libraries | ours |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            f"| **all together** | | | {_seconds(totals, 'theirs')} | {_seconds(totals, 'ours')} | | "
            f"**{_ratio([(one['theirs'], one['ours']) for one in totals])}** | | |",
            "",
            f"PGD100 without random start, against torchattacks: "
            f"{_ratio([(one['theirs']['seconds'], one['ours']['seconds']) for one in pairs])} times as fast; "
            f"the outcome differs on {len(differing)} of {n} examples.",
            "",
            "Seconds are medians of process time; a ratio is the median of the repeats' ratios, with their range. A "
            "pass is a forward or a backward of one image. Our cw ends at the first fooling image in the ball, "
            "foolbox's goes on. Each attack runs alone here; all together, our AutoAttack uses the column of Square.",
            "",
        ]
    )


def _row(name: str, repeats: list[dict], n: int) -> str:
    theirs, ours = [one["theirs"][name] for one in repeats], [one["ours"][name] for one in repeats]
    passes = [f"{(side[0]['forwards'] + side[0]['backwards']) / n:.0f}" for side in (theirs, ours)]
    accuracies = [f"{100 * len(side[0]['correct']) / n:.1f}" for side in (theirs, ours)]
    ratio = _ratio([(a["seconds"], b["seconds"]) for a, b in zip(theirs, ours)])
    seconds = [f"{statistics.median(one['seconds'] for one in side):.1f}" for side in (theirs, ours)]
    in_passes = f"{statistics.median(one['in_passes'] for one in ours):.1f}"
    return "| " + " | ".join([name, *accuracies, *seconds, in_passes, ratio, *passes]) + " |"


def _seconds(totals: list[dict], side: str) -> str:
    return f"{statistics.median(one[side] for one in totals):.1f}"


def _ratio(pairs: list[tuple[float, float]]) -> str:
    ratios = [theirs / ours for theirs, ours in pairs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


if __name__ == "__main__":
    main()
