import dataclasses
import math
import warnings

import pytest
import torch
from torch import nn

from guard_plugin.attacks import CW, Classifier, builtin_registry, parse_attacks, parse_eps
from guard_plugin.attacks.balls import distance
from guard_plugin.attacks.randomness import other_class_per_example
from guard_plugin.errors import UnusableInput

# Foolbox 3.3.4 imports a deprecated namespace of SciPy.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox
    import torchattacks

WIDE = parse_eps("0.25")
"""Root mean square: far enough to fool everywhere."""

THOROUGH = CW(WIDE, success="smallest", relative_rate=0.3)


@pytest.fixture(scope="module")
def batch(digits_test, mlp):
    """Digits that the network gets right; many pixels are exactly 0 or 1."""
    pixels, labels = digits_test.pixels[:80], digits_test.labels[:80]
    right = mlp(pixels).argmax(1) == labels
    return pixels[right][:40], labels[right][:40], torch.arange(40)


def run(attack, model, batch):
    pixels, labels, indices = batch
    return attack(model, pixels, labels, indices=indices)


def lengths(model, batch, adversarial):
    """The Euclidean change, infinite where the model is not fooled."""
    pixels, labels, _ = batch
    return torch.where(model(adversarial).argmax(1) != labels, distance("l2", adversarial, pixels), torch.inf)


def test_changes_are_as_small_as_those_of_foolbox_at_a_fraction_of_its_cost(mlp, batch):
    batch, passed = tuple(part[:24] for part in batch), []
    count = mlp.register_forward_hook(lambda module, inputs, logits: passed.append(len(logits)))
    try:
        ours = lengths(mlp, batch, run(THOROUGH, mlp, batch))
        spent = sum(passed)
        passed.clear()
        host = foolbox.PyTorchModel(mlp, bounds=(0, 1), device="cpu")
        theirs = foolbox.attacks.L2CarliniWagnerAttack(steps=400)
        found = theirs.run(host, batch[0], foolbox.criteria.Misclassification(batch[1]))
        expected = lengths(mlp, batch, found)
        assert spent < sum(passed) / 3
    finally:
        count.remove()
    assert ours.median() < 1.02 * expected.median()
    assert (ours / expected).median() < 1.02 and (ours / expected).quantile(0.9) < 1.1


def test_changes_are_smaller_than_those_of_foolbox_with_the_same_steps(mlp, batch):
    steps = {"steps": 100, "stepsize": 0.03, "binary_search_steps": 5, "initial_const": 1e-2}
    host = foolbox.PyTorchModel(mlp, bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.L2CarliniWagnerAttack(**steps)
    expected = lengths(mlp, batch, theirs.run(host, batch[0], foolbox.criteria.Misclassification(batch[1])))
    same = dataclasses.replace(THOROUGH, steps=100, relative_rate=0.03 / WIDE.value, searches=5, initial_c=1e-2)
    assert lengths(mlp, batch, run(same, mlp, batch)).median() < 1.02 * expected.median()


def linear(weight, bias):
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros_like(weight), weight]))
        model[1].bias.copy_(torch.tensor([0.0, bias]))
    return model


def test_the_change_is_the_distance_to_a_linear_boundary():
    weight, bias = torch.randn(48), 0.1
    pixels = 0.5 + 0.1 * (torch.rand(24, 48) - 0.5)
    expected = torch.linspace(0.2, 0.6, 24)
    sides = torch.where(torch.arange(24) % 2 == 0, 1.0, -1.0)
    to_boundary = -(pixels @ weight + bias) / weight.norm()
    pixels = (pixels + (to_boundary + sides * expected)[:, None] * weight / weight.norm()).view(24, 3, 4, 4)
    model = linear(weight, bias)
    batch = pixels, (sides > 0).long(), torch.arange(24)
    attack = CW(parse_eps("0.1"), success="smallest", relative_rate=0.5)
    found = lengths(model, batch, run(attack, model, batch))
    assert (found >= expected * (1 - 1e-4)).all()
    assert (found / expected).median() < 1.02 and (found / expected).max() < 1.05


def test_an_example_counts_as_fooled_within_its_ball_only(mlp, batch):
    smallest = lengths(mlp, batch, run(THOROUGH, mlp, batch))
    radius = smallest.sort().values[19].item() * 1.002
    for norm, eps in (("l2", radius), ("rms", radius / 8)):
        same_rate = THOROUGH.relative_rate * WIDE.value / (radius / 8)
        attack = CW(parse_eps(eps), norm=norm, success="smallest", relative_rate=same_rate)
        adversarial = run(attack, mlp, batch)
        fooled = mlp(adversarial).argmax(1) != batch[1]
        assert torch.equal(fooled, smallest <= radius)
        assert torch.equal(adversarial[~fooled], batch[0][~fooled])
        assert distance("l2", adversarial, batch[0]).max() <= radius + 1e-6
        assert adversarial.min() >= 0 and adversarial.max() <= 1


def test_leaving_at_the_first_success_changes_no_success(convnet, batch):
    smallest = CW(parse_eps("0.06"), success="smallest", steps=30)
    passes = []
    fooled = []
    for attack in (smallest, dataclasses.replace(smallest, success="any")):
        passes.append(0)

        def count(module, inputs, logits):
            passes[-1] += len(logits)

        hook = convnet.register_forward_hook(count)
        adversarial = run(attack, convnet, batch)
        hook.remove()
        fooled.append(convnet(adversarial).argmax(1) != batch[1])
    clean = convnet(batch[0]).argmax(1) != batch[1]
    assert (fooled[0] & ~clean).any() and not fooled[0].all()
    assert torch.equal(*fooled)
    assert passes[1] < passes[0]


@pytest.mark.parametrize("success", ["any", "smallest"])
def test_an_example_does_not_depend_on_the_others(mlp, batch, success):
    pixels, labels, indices = batch
    attack = CW(parse_eps("0.06"), success=success, steps=40)
    together = run(attack, mlp, batch)
    changed = (together != pixels).flatten(1).any(1)
    assert changed.any() and not changed.all()
    order = torch.randperm(40)
    shuffled = attack(mlp, pixels[order], labels[order], indices=indices[order], batch_size=16)
    assert torch.equal(shuffled, together[order])
    parts = [run(attack, mlp, (pixels[r], labels[r], indices[r])) for r in indices.split([1, 7, 32])]
    assert torch.equal(torch.cat(parts), together)


def test_a_targeted_attack_reaches_its_targets(mlp, batch):
    attack = dataclasses.replace(THOROUGH, targeted=True, success="any", steps=50)
    adversarial = run(attack, mlp, batch)
    targets = other_class_per_example(batch[1], 10, seed=0, indices=batch[2])
    assert torch.equal(mlp(adversarial).argmax(1), targets)
    nearest = lengths(mlp, batch, run(dataclasses.replace(attack, success="smallest"), mlp, batch))
    assert nearest.median() > lengths(mlp, batch, run(THOROUGH, mlp, batch)).median()


def test_it_works_where_all_other_logits_are_negative(mlp, batch):
    """The margin of torchattacks takes 0 for the highest other logit there, and its attack stops short."""

    class Shifted(nn.Module):
        def forward(self, pixels):
            return mlp(pixels) - 100

    model, pixels, labels = Shifted().eval(), batch[0], batch[1]
    broken = torchattacks.CW(model, c=1, steps=200, lr=0.05)(pixels, labels)
    assert (model(broken).argmax(1) == labels).float().mean() > 0.9
    shifted, plain = (lengths(net, batch, run(THOROUGH, net, batch)) for net in (model, mlp))
    assert (shifted / plain).median() < 1.01 and shifted.max() < torch.inf


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_black_and_white_pixels_move(shade):
    """In torchattacks they are at infinity, and never do."""
    weight = torch.ones(48) * (1 if shade == 0 else -1)
    model = linear(weight, bias=-1.0 if shade == 0 else 47.0)
    batch = torch.full((4, 3, 4, 4), shade), torch.zeros(4, dtype=torch.int64), torch.arange(4)
    broken = torchattacks.CW(model, c=10, steps=300, lr=0.05)(batch[0], batch[1])
    assert torch.equal(broken, batch[0])
    attack = CW(parse_eps("0.05"), success="smallest")
    found = lengths(model, batch, run(attack, model, batch))
    expected = 1 / math.sqrt(48)
    assert (found / expected).max() < 1.05


def test_examples_that_are_finished_are_not_passed(mlp, batch, monkeypatch):
    sizes = []
    gradient = Classifier.gradient
    monkeypatch.setattr(
        Classifier, "gradient", lambda self, x, loss: (sizes.append(len(x)), gradient(self, x, loss))[1]
    )
    run(dataclasses.replace(THOROUGH, success="any"), mlp, batch)
    assert sizes[0] == 40 and sizes[-1] < 40
    assert len(sizes) < THOROUGH.steps * THOROUGH.searches


def test_names():
    found = parse_attacks("cw,cw-targeted,cw-l2@0.5", builtin_registry(), [parse_eps("1/255")])
    assert [(a.name, a.norm, a.eps.text) for a in found] == [
        ("cw", "rms", "1/255"),
        ("cw-targeted", "rms", "1/255"),
        ("cw-l2", "l2", "0.5"),
    ]
    with pytest.raises(UnusableInput, match="no parameters"):
        parse_attacks("cw100", builtin_registry(), [WIDE])


@pytest.mark.parametrize("parameters", [{"steps": 0}, {"searches": 0}, {"relative_rate": 0.0}, {"initial_c": -1.0}])
def test_unusable_parameters_are_refused(parameters):
    with pytest.raises(UnusableInput, match="expected cw with"):
        CW(WIDE, **parameters)
