"""How often an attack makes a GPU's host wait. The counts do not depend on the machine."""

import dataclasses
import importlib.util

import pytest
import torch

from guard_plugin.attacks import builtin_registry, criteria, parse_attacks, parse_eps
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def count_waits():
    specification = importlib.util.spec_from_file_location("count_waits", ROOT / "examples" / "count_waits.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def of_host(tensor):
    """The host asks for two values and a number of rows, sends numbers, and indexes with a mask."""
    if tensor.sum() > 0:
        float(tensor[0])
    tensor.nonzero()
    torch.tensor([1, 2]) + 1
    tensor[tensor > 0].tolist()


def test_what_waits_is_counted(count_waits):
    with count_waits.waits() as counts:
        of_host(torch.ones(3))
    kinds = {"_local_scalar_dense": 2, "nonzero": 1, "lift_fresh": 1, "index": 1, "tolist": 1}
    assert {name: number for name, number in counts.items() if number} == kinds


def test_what_stays_on_the_device_is_not_counted(count_waits):
    with count_waits.waits() as counts:
        values = torch.arange(6.0)
        values[torch.arange(2)] = torch.where(values[:2] > 0, values[:2], 1)
        values.masked_fill_(values > 3, 0).clamp_(0, 1)
    assert not sum(counts.values())


@pytest.mark.parametrize(
    "name", ["pgd100", "mim20", "square100", "square100-l2@0.2", "cw", "apgd-ce", "apgd-t", "fab-t"]
)
def test_an_attack_waits_at_most_once_in_two_passes(count_waits, name):
    model, pixels = count_waits.example()
    (attack,) = parse_attacks(name, builtin_registry(), [parse_eps("1/255")])
    shorter = {"cw": {"searches": 3}, "apgd-t": {"target_classes": 2}, "fab-t": {"target_classes": 2}}.get(name, {})
    attack = dataclasses.replace(attack, **shorter)
    fooled = []

    def call(passed, pixels, labels):
        found = attack(passed, pixels, labels, indices=torch.arange(len(labels)))
        fooled.append((model(found).argmax(1) != labels).float().mean())

    passes, counts = count_waits.count(call, model, pixels)
    assert sum(counts.values()) <= passes / 2
    assert 0 < fooled[0] < 1


@pytest.mark.parametrize(
    "name", ["pgd30@4/255", "mim10", "square60@4/255", "square60-l2@0.3", "cw", "apgd-ce", "apgd-ce-l2@0.1"]
)
def test_finished_examples_stand_still_until_they_are_left_out(count_waits, name, monkeypatch):
    """How often the examples that are left are packed together changes no bit."""
    model, pixels = count_waits.example()
    pixels, indices = pixels[:20], torch.arange(20)
    labels = model(pixels).argmax(1)
    (attack,) = parse_attacks(name, builtin_registry(), [parse_eps("1/255")])
    attack = dataclasses.replace(attack, **{"steps": 40} if "steps" in attack.settings() else {})
    found = []
    for every in (1, 4, 1000):
        monkeypatch.setattr(criteria, "_PACKED_EVERY", every)
        found.append(attack(model, pixels, labels, indices=indices))
    assert (model(found[0]).argmax(1) != labels).any()
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
