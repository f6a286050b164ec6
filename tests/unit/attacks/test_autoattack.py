import dataclasses
import random
import sys

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack as TheirAutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from torch import nn

from guard_plugin.attacks import (
    APGDCE,
    APGDT,
    FABT,
    PRESETS,
    AutoAttack,
    Classifier,
    apgd,
    builtin_registry,
    parse_attacks,
    parse_eps,
    parse_radii,
)
from guard_plugin.attacks.balls import distance
from guard_plugin.attacks.square import Square
from guard_plugin.errors import UnusableInput

EPS = parse_eps("16/255")
RADII = {"linf": EPS, "l2": parse_eps("0.3")}
LIBRARY_NORMS = {"linf": "Linf", "l2": "L2"}

norms = pytest.mark.parametrize("norm", ["linf", "l2"])


@pytest.fixture(scope="module")
def batch(digits_test):
    return digits_test.pixels[:48], digits_test.labels[:48], torch.arange(48)


def run(attack, model, batch, **passes):
    pixels, labels, indices = batch
    return attack(model, pixels, labels, indices=indices, **passes)


def library_options(norm, steps):
    return {"norm": LIBRARY_NORMS[norm], "eps": RADII[norm].value, "n_iter": steps}


def with_their_draws(monkeypatch, seed):
    """Give our attack what pyautoattack draws for the whole batch."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(pixels, *, seed, indices, stream):
        return 2 * torch.rand(pixels.shape, generator=generator) - 1

    def normal(pixels, *, seed, indices, stream):
        return torch.randn(pixels.shape, generator=generator)

    monkeypatch.setattr(apgd, "uniform_per_example", uniform)
    monkeypatch.setattr(apgd, "normal_per_example", normal)


def fooled_share(model, batch, adversarial):
    return (model(adversarial).argmax(1) != batch[1]).float().mean()


def assert_the_same_climb(ours, theirs, model, batch, monkeypatch):
    """Every iterate is the same, up to the first that fools; theirs goes on from there. Ours is what it returns."""
    monkeypatch.setattr(apgd, "is_time_to_pack", lambda step, steps: False)
    found, expected = [], []
    gradient, call = Classifier.gradient, Classifier.__call__
    with monkeypatch.context() as patch:
        patch.setattr(
            Classifier, "gradient", lambda self, x, loss: (found.append(x.clone()), gradient(self, x, loss))[1]
        )
        adversarial = run(ours, model, batch)
    with monkeypatch.context() as patch, torch.random.fork_rng():

        def record(self, x):
            if x.requires_grad:
                expected.append(x.detach().clone())
            return call(self, x)

        patch.setattr(Classifier, "__call__", record)
        theirs.perturb(*batch[:2])
    assert len(found) == len(expected) and len(found) % (ours.steps + 1) == 0
    places = (model(batch[0]).argmax(1) == batch[1]).nonzero()[:, 0]
    returned = batch[0].clone()
    for first in range(0, len(found), ours.steps + 1):
        live = torch.ones_like(places, dtype=torch.bool)
        for step in range(first, first + ours.steps + 1):
            assert torch.equal(found[step][live], expected[step][live])
            fooled = live & (model(expected[step]).argmax(1) != batch[1][places])
            returned[places[fooled]] = expected[step][fooled]
            live &= ~fooled
        places = places[live]
    assert 0 < len(places) < len(batch[0])
    assert torch.equal(adversarial, returned)


@norms
@pytest.mark.parametrize("arch", ["mlp", "convnet"])
def test_apgd_ce_is_elementwise_equal_to_pyautoattack_from_the_same_start(request, arch, batch, norm, monkeypatch):
    model = request.getfixturevalue(arch)
    classifier = Classifier(model, highest=9, batch_size=48)
    theirs = APGDAttack(classifier, seed=3, **library_options(norm, 30))
    with_their_draws(monkeypatch, 3)
    assert_the_same_climb(APGDCE(RADII[norm], norm=norm, steps=30), theirs, model, batch, monkeypatch)


@norms
def test_apgd_t_is_elementwise_equal_to_pyautoattack_from_the_same_starts(mlp, batch, norm, monkeypatch):
    classifier = Classifier(mlp, highest=9, batch_size=48)
    theirs = APGDAttack_targeted(classifier, seed=3, n_target_classes=9, **library_options(norm, 30))
    with_their_draws(monkeypatch, 3)
    assert_the_same_climb(APGDT(RADII[norm], norm=norm, steps=30), theirs, mlp, batch, monkeypatch)


@norms
def test_fab_t_is_elementwise_equal_to_pyautoattack(mlp, batch, norm):
    classifier = Classifier(mlp, highest=9, batch_size=48)
    fab = FABAttack_PT(classifier, n_restarts=1, targeted=True, n_target_classes=9, **library_options(norm, 10))
    with torch.random.fork_rng():
        expected = fab.perturb(*batch[:2])
    adversarial = run(FABT(RADII[norm], norm=norm, steps=10), mlp, batch)
    assert not torch.equal(adversarial, batch[0])
    assert torch.equal(adversarial, expected)


class Short(AutoAttack):
    """AutoAttack with less of everything, to save time."""

    @property
    def parts(self):
        ce, targeted, fab, square = super().parts
        targeted, fab = (dataclasses.replace(part, steps=12, target_classes=3) for part in (targeted, fab))
        return dataclasses.replace(ce, steps=12), targeted, fab, dataclasses.replace(square, queries=100)


def theirs_shortened(model, norm):
    theirs = TheirAutoAttack(
        model,
        norm=LIBRARY_NORMS[norm],
        eps=RADII[norm].value,
        seed=5,
        version="custom",
        attacks=["apgd-ce", "apgd-t", "fab-t", "square"],
    )
    options = library_options(norm, 12)
    theirs.apgd = APGDAttack(model, device="cpu", **options)
    theirs.apgd_targeted = APGDAttack_targeted(model, n_target_classes=3, device="cpu", **options)
    theirs.fab = FABAttack_PT(model, n_target_classes=3, **options)
    theirs.square.n_queries = 100
    theirs.logger.disabled = True
    return theirs


@norms
def test_autoattack_is_as_strong_as_pyautoattack(mlp, digits_test, norm):
    batch = digits_test.pixels[:120], digits_test.labels[:120], torch.arange(120)
    trace = sys.gettrace()
    with torch.random.fork_rng():
        expected, _ = theirs_shortened(mlp, norm).run_standard_evaluation(*batch[:2])
    sys.settrace(trace)
    clean, theirs = fooled_share(mlp, batch, batch[0]), fooled_share(mlp, batch, expected)
    assert theirs > clean + 0.1
    ours = fooled_share(mlp, batch, run(Short(RADII[norm], norm=norm), mlp, batch))
    assert (ours - theirs).abs() < 2 * (theirs * (1 - theirs) / 120).sqrt()


@norms
def test_what_fools_any_part_falls_to_autoattack(mlp, batch, norm):
    attack = Short(RADII[norm], norm=norm)
    fooled = mlp(run(attack, mlp, batch)).argmax(1) != batch[1]
    for part in attack.parts:
        assert not ((mlp(run(part, mlp, batch)).argmax(1) != batch[1]) & ~fooled).any()


def test_autoattack_runs_its_parts_each_on_what_is_left(mlp, batch, monkeypatch):
    """Each part fools the example of its own number, by the image of another class."""
    pixels, _, indices = batch
    labels = mlp(pixels).argmax(1)
    others = [int((labels != labels[number]).nonzero()[0]) for number in range(4)]
    seen = []

    def fooling(number):
        def perturb(self, classifier, pixels_left, labels_left, indices_left):
            seen.append((self.family, indices_left.tolist()))
            return torch.where(indices_left.view(-1, 1, 1, 1) == number, pixels[others[number]], pixels_left)

        return perturb

    for number, part in enumerate((APGDCE, APGDT, FABT, Square)):
        monkeypatch.setattr(part, "_perturb", fooling(number))
    adversarial = AutoAttack(parse_eps("1"))(mlp, pixels, labels, indices=indices)
    families = "apgd-ce", "apgd-t", "fab-t", "square"
    assert seen == [(family, list(range(number, 48))) for number, family in enumerate(families)]
    assert torch.equal(adversarial, torch.cat([pixels[others], pixels[4:]]))


def test_the_parts_share_what_autoattack_was_given():
    attack = AutoAttack(RADII["l2"], seed=4, norm="l2")
    assert [part.name for part in attack.parts] == [
        f"{family}-l2" for family in ("apgd-ce", "apgd-t", "fab-t", "square")
    ]
    assert all((part.eps, part.seed) == (attack.eps, 4) for part in attack.parts)
    assert [part["name"] for part in attack.settings()["parts"]] == [part.name for part in attack.parts]


def test_the_parts_have_the_parameters_of_the_standard_version():
    standard = TheirAutoAttack(nn.Identity(), eps=EPS.value)
    ce, targeted, fab, square = AutoAttack(EPS).parts
    assert [part.family for part in (ce, targeted, fab, square)] == standard.attacks_to_run
    assert ce.steps == standard.apgd.n_iter
    assert (targeted.steps, targeted.target_classes) == (
        standard.apgd_targeted.n_iter,
        standard.apgd_targeted.n_target_classes,
    )
    assert (fab.steps, fab.target_classes) == (standard.fab.n_iter, standard.fab.n_target_classes)
    assert (square.queries, square.p_init) == (standard.square.n_queries, standard.square.p_init)
    restarts = (standard.apgd, standard.apgd_targeted, standard.fab, standard.square)
    assert [part.n_restarts for part in restarts] == [1, 1, 1, 1]


@norms
@pytest.mark.parametrize("make", [APGDCE, APGDT, FABT])
def test_no_example_depends_on_the_others(mlp, batch, norm, make):
    attack = make(RADII[norm], norm=norm, steps=6)
    pixels, labels, indices = batch
    whole = run(attack, mlp, batch)
    assert not torch.equal(whole, pixels)
    assert torch.equal(run(attack, mlp, batch, batch_size=16), whole)
    order = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    for rows in order.split(17):
        assert torch.equal(run(attack, mlp, (pixels[rows], labels[rows], indices[rows])), whole[rows])


@pytest.fixture
def starts(monkeypatch):
    """Where the runs of Auto-PGD start, less the image."""
    seen = []
    gradient = Classifier.gradient

    def spy(self, pixels, loss):
        seen.append(pixels)
        return gradient(self, pixels, loss)

    monkeypatch.setattr(Classifier, "gradient", spy)
    return seen


@norms
def test_starts_lie_on_the_ball_and_belong_to_example_target_and_seed(batch, norm, starts):
    """On a model that nothing fools."""
    eps, flat = RADII[norm], linear(10)
    nn.init.zeros_(flat[1].weight)
    grey = 0.25 + batch[0] / 2  # so that no start leaves [0, 1]
    given = grey, torch.full_like(batch[1], int(flat(grey[:1]).argmax())), batch[2]
    run(APGDT(eps, norm=norm, steps=1, target_classes=2), flat, given)
    run(APGDT(eps, norm=norm, steps=1, target_classes=1, seed=1), flat, given)
    first, second, other_seed = (start - grey for start in starts[::2])
    far = distance(norm, first, torch.zeros_like(first))
    torch.testing.assert_close(far, torch.full_like(far, eps.value), rtol=0, atol=1e-6)
    assert first.mean().abs() < 0.1 * first.std()
    for other in (first.roll(1, 0), second, other_seed):
        assert ((first - other).flatten(1).abs().amax(1) > 0.1 * eps.value).all()


@pytest.mark.parametrize("make", [APGDCE, APGDT, FABT, Short])
def test_an_attack_leaves_no_trace(mlp, batch, make):
    mlp.zero_grad()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), sys.gettrace()
    run(make(EPS) if make is Short else make(EPS, steps=2), mlp, batch)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2] and sys.gettrace() is states[3]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in mlp.parameters())


def linear(classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).eval()


def few_classes(batch, classes):
    return batch[0], batch[1] % classes, batch[2]


@pytest.mark.parametrize("make", [APGDT, AutoAttack])
def test_the_targeted_dlr_loss_needs_four_classes(batch, make):
    with pytest.raises(UnusableInput, match=rf"attack {make.family} needs 4 classes or more, and there are 3"):
        run(make(EPS), linear(3), few_classes(batch, 3))


@pytest.mark.parametrize(("make", "classes"), [(APGDCE, 2), (FABT, 2), (FABT, 3), (APGDT, 4)])
def test_with_few_classes_all_wrong_ones_are_aimed_at(batch, make, classes):
    model, given = linear(classes), few_classes(batch, classes)
    adversarial = run(make(EPS, steps=5), model, given)
    assert fooled_share(model, given, adversarial) > fooled_share(model, given, given[0])


def test_zero_gradients_make_no_noise(batch, capfd):
    flat = linear(10)
    nn.init.zeros_(flat[1].weight)
    labels = torch.full_like(batch[1], int(flat(batch[0][:1]).argmax()))
    adversarial = run(APGDT(EPS, steps=2), flat, (batch[0], labels, batch[2]))
    assert torch.equal(adversarial, batch[0])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("make", [lambda: APGDCE(EPS, steps=0), lambda: FABT(EPS, target_classes=0)])
def test_unusable_parameters_are_refused(make):
    with pytest.raises(UnusableInput, match=r"expected .* >= 1, got 0"):
        make()


@pytest.mark.parametrize(
    ("preset", "eps", "names"),
    [
        ("paper", 1 / 255, ["pgd100", "square", "autoattack", "cw", "mim20"]),
        ("robustbench", 8 / 255, ["autoattack"]),
        (
            "guard-official",
            1 / 255,
            ["official-pgd", "official-square", "official-autoattack", "official-cw", "official-mim"],
        ),
        ("quick", None, ["fgsm", "pgd10"]),
    ],
)
def test_presets_are_attacks_with_a_radius(preset, eps, names):
    radii = parse_radii(preset, None if eps else ["2/255"])
    attacks = parse_attacks(preset, builtin_registry(), radii)
    assert [attack.name for attack in attacks] == names
    assert {attack.eps.value for attack in attacks} == {eps or 2 / 255}
    assert preset in PRESETS


def test_attacks_are_named_with_their_norms():
    names = "apgd-ce,apgd-t-l2,fab-t,autoattack-l2"
    attacks = parse_attacks(names, builtin_registry(), [EPS])
    assert [type(attack) for attack in attacks] == [APGDCE, APGDT, FABT, AutoAttack]
    assert ",".join(attack.name for attack in attacks) == names
