from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from guard_plugin.attacks import PGD, Attack, AutoAttack, Square, parse_eps
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import benchmark
from guard_plugin.evaluation.engine import GRADIENTS
from guard_plugin.evaluation.records import Cost, Record
from guard_plugin.evaluation.warnings import find_warnings
from tests.unit.evaluation.test_engine import Coupled, Saturated

EPS, LARGER = parse_eps("8/255"), parse_eps("16/255")
ALL = np.ones(100, dtype=np.bool_)


@dataclass(frozen=True)
class Blind(Attack):
    family: ClassVar[str] = "blind"
    whitebox: ClassVar[bool] = False

    def _perturb(self, classifier, pixels, labels, indices):
        return pixels


def but(*wrong: int):
    right = ALL.copy()
    right[list(wrong)] = False
    return right


def found(attacks, outcomes, flat=None, farthest=0.0):
    correct = {"clean": ALL, **outcomes}
    records = {column: Record(flags, Cost(), farthest=farthest) for column, flags in correct.items()}
    stacked = {column: flags[None] for column, flags in correct.items()}
    if flat is not None:
        records[GRADIENTS] = Record(~flat, Cost())
    return find_warnings([records], attacks, stacked, 10)


def test_nothing_is_said_of_an_ordinary_benchmark():
    attacks = {"pgd@8": PGD(EPS), "pgd@16": PGD(LARGER), "blind@8": Blind(EPS)}
    outcomes = {"pgd@8": but(1, 2), "pgd@16": but(1, 2, 3), "blind@8": but(1)}
    assert found(attacks, outcomes, flat=~ALL) == []


def test_examples_without_a_gradient_are_told():
    (warning,) = found({"pgd": PGD(EPS)}, {"pgd": ALL}, flat=~but(3, 4))
    assert warning["column"] == "clean" and "2 of 100" in warning["reason"] and "masked" in warning["reason"]


@pytest.mark.parametrize(("fallen", "flagged"), [((5, 6), True), ((5,), False), ((1, 2), False)])
@pytest.mark.parametrize("attack", [Blind(EPS), PGD(EPS, steps=1, transfer=True)])
def test_a_blind_attack_that_does_better_is_a_sign(attack, fallen, flagged):
    warnings = found({"pgd": PGD(EPS), "other": attack}, {"pgd": but(1, 2), "other": but(*fallen)})
    assert [warning["column"] for warning in warnings] == (["other"] if flagged else [])


@pytest.mark.parametrize(("square", "flagged"), [((7, 8), True), ((7,), False), ((1, 2, 3), False)])
def test_a_blind_part_of_autoattack_that_does_better_is_a_sign(square, flagged):
    parts = {"apgd-ce": but(1, 2), "apgd-t": but(3), "fab-t": ALL, "square": but(*square)}
    outcomes = {f"auto+{part}": outcome for part, outcome in parts.items()}
    warnings = found({"auto": AutoAttack(EPS)}, {"auto": np.logical_and.reduce([*parts.values()]), **outcomes})
    assert [warning["column"] for warning in warnings] == (["auto"] if flagged else [])
    assert not flagged or "2.0 % of all examples fall to square alone" in warnings[0]["reason"]


@pytest.mark.parametrize("other", [Blind(EPS), PGD(EPS, steps=1, transfer=True)])
@pytest.mark.parametrize(("fallen", "flagged"), [((5, 6), True), ((1, 3), False)])
def test_gradient_parts_of_autoattack_are_what_a_blind_attack_is_held_to(other, fallen, flagged):
    parts = {"apgd-ce": but(1, 2), "apgd-t": but(3), "fab-t": ALL, "square": but(5)}
    outcomes = {f"auto+{part}": outcome for part, outcome in parts.items()}
    outcomes |= {"auto": np.logical_and.reduce([*parts.values()]), "other": but(*fallen)}
    warnings = found({"auto": AutoAttack(EPS), "other": other}, outcomes)
    assert [warning["column"] for warning in warnings] == (["other"] if flagged else [])


def test_a_targeted_attack_is_no_measure_of_what_gradients_can_do():
    targeted = {"aimed": PGD(EPS, targeted=True), "blind": Blind(EPS)}
    outcomes = {"aimed": ALL, "blind": but(*range(20))}
    assert found(targeted, outcomes) == []
    (warning,) = found({**targeted, "pgd": PGD(EPS)}, {**outcomes, "pgd": but(*range(10))})
    assert warning["column"] == "blind" and "10.0 % of all examples" in warning["reason"]


class Quantised(nn.Module):
    """Leaks a gradient that leads nowhere: gradient attacks fail, and Square does not."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        return self.model((pixels * 8).round() / 8 + 1e-4 * torch.sin(3000 * pixels))


@dataclass(frozen=True)
class Short(AutoAttack):
    """Fewer steps and queries than AutoAttack's."""

    family: ClassVar[str] = "short"

    @property
    def parts(self):
        return PGD(self.eps, steps=10), Square(self.eps, queries=200)


def test_a_composite_alone_tells_of_masked_gradients(mlp, digits_test):
    data, registry = (digits_test.pixels[:40], digits_test.labels[:40]), {"short": Short}
    found = [
        benchmark(model.eval(), dataset=data, attacks="short", eps="32/255", registry=registry).flags
        for model in (Quantised(mlp), mlp)
    ]
    assert [["sign of masked gradients" in flag for flag in flags] for flags in found] == [[True], []]


def test_a_root_is_refused_before_any_attack(mlp, digits_test):
    Coupled.seen.clear()

    class Root(nn.Module):
        def forward(self, pixels):
            return mlp(pixels.sqrt())

    data = digits_test.pixels[:8], digits_test.labels[:8]
    with pytest.raises(UnusableInput, match="expected finite gradients"):
        benchmark(Root().eval(), dataset=data, attacks="coupled", eps="8/255", registry={"coupled": Coupled})
    assert not Coupled.seen


def test_another_ball_is_another_matter():
    assert not found({"pgd": PGD(EPS), "blind": Blind(LARGER)}, {"pgd": ALL, "blind": but(1, 2, 3)})


def test_accuracy_that_rises_with_eps_is_a_sign():
    (warning,) = found({"small": PGD(EPS), "large": PGD(LARGER)}, {"small": but(1, 2, 3), "large": but(1)})
    assert warning["column"] == "large" and "2.0 points higher than at the smaller 8/255" in warning["reason"]


def test_a_coupled_attack_outside_its_ball_is_told():
    (warning,) = found({"coupled": Coupled(EPS)}, {"coupled": ALL}, farthest=0.05)
    assert warning["column"] == "coupled" and "left its ball: linf distance 0.05 at eps 8/255" in warning["reason"]


def test_clean_accuracy_next_to_chance_is_a_sign():
    correct = {"clean": ~but(*range(14))[None]}
    (warning,) = find_warnings([{"clean": Record(correct["clean"][0], Cost())}], {}, correct, 10)
    assert warning["column"] == "clean" and "14.0 % is next to chance (10.0 %)" in warning["reason"]
    assert not find_warnings([], {}, {"clean": ~but(*range(16))[None]}, 10)


@pytest.mark.parametrize(
    ("right", "classes", "flagged"), [(54, 2, True), (56, 2, False), (37, 3, True), (48, 3, False)]
)
def test_chance_is_near_with_few_classes_too(right, classes, flagged):
    clean = ~but(*range(right))[None]
    assert bool(find_warnings([{"clean": Record(clean[0], Cost())}], {}, {"clean": clean}, classes)) == flagged


def test_the_one_liner_tells_too():
    pixels = torch.full((4, 1, 4, 4), 0.9)
    result = benchmark(Saturated().eval(), dataset=(pixels, torch.ones(4, dtype=torch.int64)), eps=0.01)
    assert result.clean_accuracy == result.worst_case == 1
    assert [flag.split(":")[0] for flag in result.flags] == ["clean"]
