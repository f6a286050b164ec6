"""What a table consists of: cells, each a method under one penalty, of some images per class and one seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

__all__ = ["ARMS", "TABLES", "Arm", "Cell", "Table", "dealt", "fingerprint", "groups"]


@dataclass(frozen=True)
class Arm:
    """A penalty and its settings, as options of ``guard run``; ``guard`` has those that the adapter recommends.

    Args:
        name: Its name.
        options: The options.
        parts: For images that are recovered from one teacher and labelled by another: the two teachers' arms.
    """

    name: str
    options: tuple[str, ...] = ()
    parts: tuple[Arm, Arm] | None = None


# Section 5.4 and Table 3: the weights of the gradient's norm.
_GRADIENT_NORMS = tuple(
    Arm(f"gradient-norm-{weight}", ("--penalty", "gradient_norm", "--strength", weight))
    for weight in ("1e-4", "1e-3", "0.01", "0.1", "1")
)
_BASELINE, _GUARD = Arm("baseline", ("--strength", "0")), Arm("guard")
# In no table of the paper: the form in its authors' pretrain.py, at the strength that was recommended first and at the
# best of docs/measurements.md's sweeps with students that are trained to their end.
_LOSS_FORM = Arm("guard-loss", ("--form", "loss", "--strength", "1"))
_LOSS_FORM_3 = Arm("guard-loss-3", ("--form", "loss", "--strength", "3"))
# Ten times the recommended strengths, for methods on whose loss these are a few percent.
_STRONG = (
    Arm("guard-1000", ("--strength", "1000")),
    Arm("guard-loss-10", ("--form", "loss", "--strength", "10")),
)
# Ablations of the loss form: its step, or its weight (1.5 in the mean), rises over half or all of a teacher's losses,
# which are 378; its passes normalise by the batch, as the host's own does.
_ABLATIONS = (
    Arm("guard-loss-h-ramp", (*_LOSS_FORM.options, "--h-ramp", "189")),
    Arm("guard-loss-3-ramp", (*_LOSS_FORM_3.options, "--strength-ramp", "378")),
    Arm("guard-loss-batch-statistics", (*_LOSS_FORM.options, "--set", "batch_statistics=true")),
)
# Section 3.2 does not give the radius of the weak attack: the one that the table is attacked with, and larger ones.
_ADVERSARIAL, *_LARGER_RADII = (
    Arm(name, ("--penalty", "pgd_at", "--strength", "1", "--set", f"eps={radius}/255"))
    for name, radius in (("adversarial", 1), ("adversarial-4", 4), ("adversarial-8", 8))
)
# What a guarded teacher is for: the images alone, or the labels alone.
_PARTS = (Arm("guard-images", parts=(_GUARD, _BASELINE)), Arm("guard-labels", parts=(_BASELINE, _GUARD)))

_OTHERS = (_LOSS_FORM, _LOSS_FORM_3, *_STRONG, *_ABLATIONS, _ADVERSARIAL, *_LARGER_RADII, *_GRADIENT_NORMS, *_PARTS)
ARMS = {arm.name: arm for arm in (_BASELINE, _GUARD, *_OTHERS)}


@dataclass(frozen=True)
class Table:
    """One of the paper's tables: its number there, and its methods, penalties and images per class."""

    number: int
    methods: tuple[str, ...]
    arms: tuple[Arm, ...]
    ipcs: tuple[int, ...]

    def cells(self, datasets: Iterable[str], seeds: int, arms: Sequence[Arm] = ()) -> list[Cell]:
        """Return its cells, all seeds of one group together; with these arms in place of its own, if any are given."""
        factors = (self.methods, datasets, self.ipcs, arms or self.arms, range(seeds))
        return [Cell(method, arm, dataset, ipc, seed) for method, dataset, ipc, arm, seed in product(*factors)]


TABLES = {
    table.number: table
    for table in (
        Table(1, ("sre2l",), (_BASELINE, _GUARD, _ADVERSARIAL), (1, 10)),
        Table(2, ("sre2l", "mtt", "tesla"), (_BASELINE, _GUARD), (1, 10)),
        Table(3, ("sre2l",), (_BASELINE, _GUARD, *_GRADIENT_NORMS), (1, 10)),
        Table(5, ("dc", "sre2l", "cda"), (_BASELINE, _GUARD), (1, 10)),
    )
}


@dataclass(frozen=True)
class Cell:
    """One distillation: what it is made with names it, so that cells that tables share are run once."""

    method: str
    arm: Arm = field(repr=False)
    dataset: str
    ipc: int
    seed: int

    @property
    def group(self) -> str:
        """The name of what is measured together: all seeds of a method under one penalty."""
        return f"{self.dataset}-{self.method}-ipc{self.ipc}-{self.arm.name}"


def groups(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the cells by group, in order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    return found


def dealt(names: Sequence[str], share: str) -> list[str]:
    """Return a machine's share "I/N" of the groups: each N-th, from the I-th on.

    Raises:
        ValueError: If the share is not of that form, with 1 <= I <= N.
    """
    number, _, of = share.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise ValueError(f"expected --cell I/N with 1 <= I <= N, such as 1/4, got {share!r}")
    return list(names[int(number) - 1 :: int(of)])


def fingerprint(arguments: Sequence[str]) -> str:
    """Return a short hash of the command that makes something: other settings are another folder."""
    return hashlib.sha256(json.dumps(list(arguments)).encode()).hexdigest()[:8]
