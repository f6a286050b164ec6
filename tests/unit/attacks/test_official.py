import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchattacks
from torch import nn

from guard_plugin.attacks import (
    MIM,
    OfficialAutoAttack,
    OfficialCW,
    OfficialMIM,
    OfficialPGD,
    OfficialSquare,
    official,
    parse_eps,
)
from guard_plugin.errors import UnusableInput

EPS = parse_eps("1/255")
WIDE = parse_eps("16/255")
ALL = [OfficialPGD, OfficialSquare, OfficialAutoAttack, OfficialCW, OfficialMIM]


@pytest.fixture(scope="module")
def batch(digits_test):
    return digits_test.pixels[:30], digits_test.labels[:30], torch.arange(100, 130)


@pytest.fixture
def few_queries(monkeypatch):
    """Square and AutoAttack as they are, but with 60 queries instead of 5000."""
    original = torchattacks.Square.__init__

    def shortened(self, *args, n_queries=5000, **options):
        original(self, *args, n_queries=60, **options)

    monkeypatch.setattr(torchattacks.Square, "__init__", shortened)


def run(attack, model, batch):
    pixels, labels, indices = batch
    return attack(model, pixels, labels, indices=indices)


class Filled(nn.Module):
    """A model that fills batches up to a multiple of 16, as ours are, lest sums round differently."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        missing = -len(pixels) % 16
        return self.model(torch.cat([pixels, pixels[-1:].detach().expand(missing, 1, 8, 8)]))[: len(pixels)]


THEIRS = {
    "pgd": (OfficialPGD(WIDE), lambda model: torchattacks.PGD(model, eps=16 / 255, alpha=4 / 255, steps=100)),
    "pgd-1": (OfficialPGD(EPS), lambda model: torchattacks.PGD(model, eps=1 / 255, alpha=0.25 / 255, steps=100)),
    "square": (OfficialSquare(WIDE), lambda model: torchattacks.Square(model, eps=16 / 255)),
    "autoattack": (
        OfficialAutoAttack(WIDE, seed=7),
        lambda model: torchattacks.AutoAttack(model, eps=16 / 255, seed=7),
    ),
    "cw": (OfficialCW(WIDE), lambda model: torchattacks.CW(model, c=0.0001)),
}


@pytest.mark.parametrize("case", THEIRS)
def test_elementwise_equal_to_torchattacks_batch_by_batch(mlp, batch, case, few_queries):
    ours, make = THEIRS[case]
    theirs, (pixels, labels, indices), expected = make(Filled(mlp).eval()), batch, []
    with torch.random.fork_rng():
        for rows in torch.arange(30).split(25):
            torch.manual_seed(official.chunk_seed(ours.seed, int(indices[rows[0]])))
            expected.append(theirs(pixels[rows], labels[rows]).detach())
    adversarial = run(ours, mlp, batch)
    assert not torch.equal(adversarial, pixels)
    assert torch.equal(adversarial, torch.cat(expected))


def test_pgd_draws_anew_for_every_batch_and_seed(batch):
    """Where the gradient is zero everywhere, PGD stays at its start."""
    pixels = torch.full((50, 1, 8, 8), 0.5)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    nn.init.zeros_(flat[1].weight)
    given = pixels, torch.zeros(50, dtype=torch.int64), torch.arange(50)
    starts = run(OfficialPGD(EPS), flat, given)
    assert torch.equal(starts, run(OfficialPGD(EPS), flat, given))
    assert not torch.equal(starts[:25], starts[25:])
    assert not torch.equal(starts, run(OfficialPGD(EPS, seed=1), flat, given))
    assert (starts - pixels).abs().max() * 255 == pytest.approx(1, abs=0.01)


def test_a_batch_is_attacked_alike_whatever_else_is_given(mlp, batch):
    pixels, labels, indices = batch
    attack = OfficialPGD(WIDE)
    whole = run(attack, mlp, batch)
    assert torch.equal(whole[:25], run(attack, mlp, (pixels[:25], labels[:25], indices[:25])))
    assert torch.equal(whole[25:], run(attack, mlp, (pixels[25:], labels[25:], indices[25:])))
    assert attack.coupled == 25


def test_wrong_examples_are_attacked_too(mlp, batch):
    pixels, labels, _ = batch
    wrong = mlp(pixels).argmax(1) != labels
    assert wrong.any()
    assert ((run(OfficialMIM(WIDE), mlp, batch) - pixels).flatten(1).abs().amax(1)[wrong] > 0.01).all()


def gray_threshold(level):
    """Class 1 where a picture is brighter than ``level`` in the mean."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(64), torch.full((64,), 100 / 64)]))
        model[1].bias.copy_(torch.tensor([100 * level, 0.0]))
    return model


def test_cw_takes_one_step_of_its_optimizer_and_leaves_the_ball():
    """The flaw that makes the authors' CW column an FGSM at 1.275/255.

    Half of Adam's first step of 0.01 is 1.275/255 in a gray pixel; then the distance outweighs c = 1e-4.
    """
    pixels, labels = torch.full((25, 1, 8, 8), 0.5), torch.zeros(25, dtype=torch.int64)
    for brighter, fooled in [(1.2, True), (1.3, False)]:
        model = gray_threshold(0.5 + brighter / 255)
        images = run(OfficialCW(EPS), model, (pixels, labels, torch.arange(25)))
        assert (model(images).argmax(1) == int(fooled)).all()
        moved = (images - pixels).abs().amax((1, 2, 3)) * 255
        torch.testing.assert_close(moved, torch.full((25,), 1.275 if fooled else 0.0), rtol=0, atol=0.001)


@pytest.mark.parametrize(("make", "expected"), [(OfficialPGD, 100), (OfficialCW, 6), (OfficialMIM, 20)])
def test_so_many_steps_are_taken(mlp, batch, make, expected):
    """CW's early stop ends it after 6 of 50."""
    passes = []
    handle = mlp.register_forward_hook(lambda module, inputs, logits: passes.append(len(logits)))
    try:
        run(make(EPS), mlp, tuple(part[:25] for part in batch))
    finally:
        handle.remove()
    assert len(passes) == expected + 1  # one to see whether gradients reach the pixels


def test_mim_of_a_single_example_is_torchattacks(mlp, batch):
    """The L1 norm of a batch of one is the mean times a constant, which no sign depends on."""
    theirs = torchattacks.MIFGSM(Filled(mlp).eval(), eps=16 / 255, alpha=16 / 255, steps=20, decay=1.0)
    changed = 0
    for i in range(10):
        one = tuple(part[i : i + 1] for part in batch)
        adversarial = run(OfficialMIM(WIDE), mlp, one)
        torch.testing.assert_close(adversarial, theirs(*one[:2]), rtol=0, atol=1e-6)
        changed += not torch.equal(adversarial, one[0])
    assert changed == 10


def test_mim_weighs_gradients_by_the_whole_batch(mlp, batch):
    """Against the formula in float64, and unlike the attack in which every example has its own norm."""
    pixels, labels, _ = few = tuple(part[:25] for part in batch)
    adversarial = run(OfficialMIM(WIDE), mlp, few)
    per_example = run(MIM(WIDE, success="last"), mlp, few)
    assert ((adversarial - per_example).abs() > 1e-3).float().mean() > 0.002
    images, total = pixels.clone(), torch.zeros(25, 1, 8, 8, dtype=torch.float64)
    for _ in range(20):
        images.requires_grad_()
        loss = -torch.log_softmax(mlp(images), 1)[range(25), labels].mean()
        gradient = torch.autograd.grad(loss, images)[0].double()
        total += gradient / gradient.abs().sum()
        moved = images.detach() + 16 / 255 * total.sign().float()
        images = torch.minimum(torch.maximum(moved, pixels - 16 / 255), pixels + 16 / 255).clamp(0, 1)
    assert ((adversarial - images).abs() > 1e-5).float().mean() < 0.002


@pytest.mark.parametrize("make", ALL)
def test_an_attack_leaves_no_trace(mlp, batch, make, few_queries, capfd):
    mlp.zero_grad()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    run(make(EPS), mlp, batch)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in mlp.parameters())
    assert not mlp.training
    assert capfd.readouterr() == ("", "")


def test_autoattack_needs_the_ten_classes_that_the_library_takes_for_granted(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9)).eval()
    pixels, labels, indices = batch
    with pytest.raises(UnusableInput, match="needs 10 classes or more, and there are 9"):
        run(OfficialAutoAttack(EPS), model, (pixels, labels % 9, indices))


@pytest.mark.parametrize("make", ALL[:-1])
def test_a_missing_library_is_named_with_what_installs_it(mlp, batch, make, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(UnusableInput, match=r"pip install --no-deps torchattacks==3\.5\.1"):
        run(make(EPS), mlp, batch)


def test_another_version_of_the_library_is_refused(mlp, batch, monkeypatch):
    monkeypatch.setattr(official, "version", lambda name: "3.6.0")
    with pytest.raises(UnusableInput, match=r"installed one is 3\.6\.0: pip install --no-deps torchattacks==3\.5\.1"):
        run(OfficialPGD(EPS), mlp, batch)


@pytest.mark.parametrize("make", ALL)
def test_every_parameter_is_recorded_and_none_can_be_chosen(make):
    settings = make(EPS).settings()
    assert settings["coupled"] == 25
    assert make.constants and make.constants.items() <= settings.items()
    with pytest.raises(UnusableInput, match="takes no parameters"):
        make.from_spec("20", eps=EPS)
    with pytest.raises(UnusableInput, match="stops where the source is fooled"):
        replace(make(EPS), transfer=True)


def test_the_recorded_parameters_are_those_of_the_library(mlp):
    pgd, square, autoattack, cw, _ = (attack.constants for attack in ALL)
    parts = torchattacks.AutoAttack(mlp, eps=EPS.value, seed=0)._autoattack.attacks
    assert [type(part).__name__ for part in parts] == ["APGD", "APGDT", "FAB", "Square"]
    assert {part.steps for part in parts[:3]} == {autoattack["steps"]}
    assert {part.n_target_classes for part in parts[1:3]} == {autoattack["target_classes"]}
    for recorded in (square, autoattack):
        assert (parts[3].n_queries, parts[3].rescale_schedule) == (recorded["queries"], recorded["resc_schedule"])
    theirs = torchattacks.Square(mlp, eps=EPS.value)
    assert (theirs.n_queries, theirs.p_init, theirs.rescale_schedule, theirs.seed) == (*square.values(), 0)
    theirs = torchattacks.CW(mlp, c=0.0001)
    assert (theirs.c, theirs.kappa, theirs.steps, theirs.lr) == tuple(cw.values())
    assert pgd["relative_alpha"] * (1 / 255) == 0.25 / 255
