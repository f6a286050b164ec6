"""Count what a GPU would be given in a guarded training step: operations dispatched, and waits for the host.

    python examples/count_operations.py

Counts do not depend on the machine: small networks on a GPU are bound by them. A plain step is forward, loss, backward
and SGD with momentum (foreach, as on a GPU). The first guarded steps, which examine the network, are left out. "All"
counts whatever torch dispatches; "of a GPU" leaves out what gives a GPU nothing to do: views, and memory set aside.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import guard_plugin

sys.path.append(str(Path(__file__).resolve().parent / "baselines"))
from common.networks import build

# Operations whose result a host needs before it can go on: a GPU's queue runs empty.
WAITS = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "unique")

# Views and the like, which give a GPU nothing to do.
FREE = (
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "detach", "alias", "expand", "t", "transpose", "permute"),
    *("unsqueeze", "squeeze", "select", "slice", "split", "unbind", "as_strided", "empty", "empty_like", "lift_fresh"),
    *("_record_function_enter_new", "_record_function_exit", "promote_types"),
)

FORMS: dict[str, dict[str, Any]] = {
    "loss form": {"form": "loss"},
    "loss form, batch statistics": {"form": "loss", "batch_statistics": True},
    "gradient form": {"form": "gradient"},
}


class Operations(TorchDispatchMode):
    """Counts operations by name while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation."""
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def of_gpu(self) -> int:
        """How many would run on a GPU."""
        return sum(count for name, count in self.counts.items() if name not in FREE)

    @property
    def all(self) -> int:
        """How many were dispatched."""
        return sum(self.counts.values())

    @property
    def waits(self) -> int:
        """How many make the host wait."""
        return sum(self.counts[name] for name in WAITS)


def steps(network: nn.Module, shape: tuple[int, ...], **penalty: Any) -> Callable[[], None]:
    """Return a training step of a network, guarded where a penalty is given."""
    torch.manual_seed(0)
    x, y = torch.randn(8, *shape), torch.arange(8) % 10
    criterion: Any = nn.CrossEntropyLoss()
    if penalty:
        criterion = guard_plugin.wrap(criterion, network, **penalty)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, foreach=True)

    def step() -> None:
        optimizer.zero_grad()
        criterion(network(x), y).backward()
        optimizer.step()

    return step


def count(step: Callable[[], None], *, skip: int = 10) -> Operations:
    """Count one step's operations, after those in which networks are examined (the 1st, 2nd, 4th and 8th)."""
    for _ in range(skip):
        step()
    with Operations() as operations:
        step()
    return operations


def networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    """The networks, and the shapes of their inputs."""
    from torchvision.models import resnet18

    return {
        "ConvNet, GroupNorm": (lambda: build("ConvNet", 3, 10, (32, 32)), (3, 32, 32)),
        "ConvNet, BatchNorm": (lambda: build("ConvNetBN", 3, 10, (32, 32)), (3, 32, 32)),
        "ResNet-18": (lambda: resnet18(num_classes=10), (3, 64, 64)),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", action="store_true", help="print which operations, too")
    args = parser.parse_args()
    head = ("network", "step", "all", "over plain", "of a GPU", "over plain", "waits")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    for name, (make, shape) in networks().items():
        plain = count(steps(make(), shape))
        print(f"| {name} | plain | {plain.all} | | {plain.of_gpu} | | {plain.waits} |")
        for form, settings in FORMS.items():
            guarded = count(steps(make(), shape, strength=1.0, h=0.4, **settings))
            of_all, of_gpu = guarded.all / plain.all, guarded.of_gpu / plain.of_gpu
            counts = f"{guarded.all} | {of_all:.2f} | {guarded.of_gpu} | {of_gpu:.2f} | {guarded.waits}"
            print(f"| {name} | {form} | {counts} |")
            if args.names:
                print({k: (v, plain.counts[k]) for k, v in guarded.counts.most_common() if k not in FREE})


if __name__ == "__main__":
    main()
