"""Count how often the attacks make a GPU's host wait, per forward pass.

    python examples/count_waits.py

A GPU's queue runs empty while the host waits for a value, for a number of rows, or for the end of a copy. Counts do
not depend on the machine, so a CPU counts what a GPU would meet. Each attack is called once, with the checks before
and after it; half of the examples or more withstand it. The libraries' attacks are counted for comparison.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from guard_plugin.attacks import builtin_registry, parse_attacks, parse_eps
from guard_plugin.networks.architectures import build_network
from guard_plugin.optional import require

ATTACKS = "fgsm,pgd100,mim20,square1000,square1000-l2,cw,apgd-ce,apgd-t,fab-t"
EPS = parse_eps("1/255")

# Operations whose value, or whose number of rows, the host needs; and copies of the host's numbers to the device.
_OPERATIONS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique", "lift_fresh")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")  # by a mask, they look for its rows
_METHODS = ("tolist", "numpy", "cpu")


class _Operations(TorchDispatchMode):
    def __init__(self, counts: "Counter[str]") -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _INDEXING:
            self._counts[name] += sum(index is not None and index.dtype == torch.bool for index in args[1])
        self._counts[name] += name in _OPERATIONS
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, counts: "Counter[str]") -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        self._counts[name] += name in _METHODS
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator["Counter[str]"]:
    """Count waits by the name of what waits, while this is on."""
    counts: Counter[str] = Counter()
    with _Methods(counts), _Operations(counts):
        yield counts


class Passes(nn.Module):
    """A classifier that counts its forward passes, of whatever size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, 0

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits."""
        self.passes += 1
        logits: Tensor = self.model(pixels)
        return logits


def count(attack: Callable[[nn.Module, Tensor, Tensor], Any], model: nn.Module, pixels: Tensor) -> tuple[int, Counter]:
    """Return the forward passes and the waits of an attack on examples that the model gets right."""
    passed = Passes(model).eval()
    with torch.no_grad():
        labels = model(pixels).argmax(1)
    with waits() as counts:
        attack(passed, pixels, labels)
    return passed.passes, counts


def ours() -> dict[str, Callable[[nn.Module, Tensor, Tensor], Any]]:
    """Our attacks by name, each as the benchmark calls it."""

    def called(attack: Any) -> Callable[[nn.Module, Tensor, Tensor], Any]:
        return lambda model, pixels, labels: attack(model, pixels, labels, indices=torch.arange(len(labels)))

    return {attack.name: called(attack) for attack in parse_attacks(ATTACKS, builtin_registry(), [EPS])}


def theirs() -> dict[str, Callable[[nn.Module, Tensor, Tensor], Any]]:
    """The parts of pyautoattack, and PGD of torchattacks."""
    torchattacks = require("torchattacks", needed_by="this count")
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    made: dict[str, Callable[[nn.Module], Any]] = {
        "pgd100": lambda model: torchattacks.PGD(model, eps=EPS.value, alpha=EPS.value / 4, steps=100),
        "square1000": lambda model: SquareAttack(model, eps=EPS.value, n_queries=1000, resc_schedule=False).perturb,
        "apgd-ce": lambda model: APGDAttack(model, eps=EPS.value).perturb,
        "apgd-t": lambda model: APGDAttack_targeted(model, eps=EPS.value).perturb,
        "fab-t": lambda model: FABAttack_PT(model, eps=EPS.value, targeted=True).perturb,
    }
    return {name: lambda model, pixels, labels, make=make: make(model)(pixels, labels) for name, make in made.items()}


def example() -> tuple[nn.Module, Tensor]:
    """A small network, and examples of which some withstand the attacks."""
    torch.manual_seed(0)
    model = build_network("ConvNet-d2-w16", channels=3, num_classes=10, im_size=(16, 16)).eval()
    pixels = torch.rand(48, 3, 16, 16)
    with torch.no_grad():
        model.classifier.bias -= model(pixels).mean(0)  # or all images would be of one class, far from the others
    return model, pixels


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", action="store_true", help="print which operations, too")
    given = parser.parse_args()
    model, pixels = example()
    print("| attack | passes | waits | per pass |\n| --- | --- | --- | --- |")
    for whose, attacks in ("ours", ours()), ("library", theirs()):
        for name, attack in attacks.items():
            passes, counts = count(attack, model, pixels)
            total = sum(counts.values())
            print(f"| {name}, {whose} | {passes} | {total} | {total / passes:.2f} |", flush=True)
            if given.names:
                print({name: number for name, number in counts.most_common() if number})


if __name__ == "__main__":
    main()
