import dataclasses
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from guard_plugin.attacks import (
    FGSM,
    MIM,
    PGD,
    Attack,
    AuditFailure,
    Classifier,
    Criterion,
    builtin_registry,
    parse_attacks,
    parse_eps,
    pgd,
    uniform_per_example,
)
from guard_plugin.attacks.balls import distance
from guard_plugin.attacks.randomness import other_class_per_example, start_per_example
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import attacks as former
from guard_plugin.networks.architectures import build_network

# Foolbox 3.3.4 imports a deprecated namespace of SciPy.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox
    import torchattacks

EPS = parse_eps("8/255")


@pytest.fixture(scope="module")
def batch(digits_test):
    return digits_test.pixels[:64], digits_test.labels[:64], torch.arange(64)


def run(attack, model, batch):
    pixels, labels, indices = batch
    return attack(model, pixels, labels, indices=indices)


@pytest.mark.parametrize("arch", ["mlp", "convnet"])
@pytest.mark.parametrize("steps", [None, 1, 10])
def test_elementwise_equal_to_foolbox(request, arch, steps, batch):
    model = request.getfixturevalue(arch)
    pixels, labels, _ = batch
    if steps is None:
        ours, theirs = FGSM(EPS, success="last"), foolbox.attacks.LinfFastGradientAttack()
    else:
        ours = PGD(EPS, steps=steps, random_start=False, success="last")
        theirs = foolbox.attacks.LinfPGD(abs_stepsize=EPS.value / 4, steps=steps, random_start=False)
    host = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, expected, _ = theirs(host, pixels, foolbox.criteria.Misclassification(labels), epsilons=EPS.value)
    adversarial = run(ours, model, batch)
    assert not torch.equal(adversarial, pixels)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-6)


TORCHATTACKS = {
    "mim": (
        MIM(EPS, steps=10, relative_alpha=0.25, success="last"),
        lambda model: torchattacks.MIFGSM(model, eps=EPS.value, alpha=EPS.value / 4, steps=10, decay=1.0),
    ),
    "pgd-linf": (
        PGD(EPS, steps=20, random_start=False, success="last"),
        lambda model: torchattacks.PGD(model, eps=EPS.value, alpha=EPS.value / 4, steps=20, random_start=False),
    ),
    "pgd-l2": (
        PGD(parse_eps("0.5"), norm="l2", steps=20, random_start=False, success="last"),
        lambda model: torchattacks.PGDL2(model, eps=0.5, alpha=0.125, steps=20, random_start=False),
    ),
}


@pytest.mark.parametrize("arch", ["mlp", "convnet"])
@pytest.mark.parametrize("case", TORCHATTACKS)
@pytest.mark.parametrize("targeted", [False, True])
def test_elementwise_equal_to_torchattacks(request, arch, case, targeted, batch):
    model = request.getfixturevalue(arch)
    pixels, labels, indices = batch
    ours, make = TORCHATTACKS[case]
    ours, theirs = dataclasses.replace(ours, targeted=targeted), make(model)
    if targeted:
        theirs.set_mode_targeted_by_label(quiet=True)
        labels_given = other_class_per_example(labels, 10, seed=0, indices=indices)
    else:
        labels_given = labels
    adversarial = run(ours, model, batch)
    assert not torch.equal(adversarial, pixels)
    off = (adversarial - theirs(pixels, labels_given)).abs().flatten(1).amax(dim=1)
    # On some CPUs, rounding tips a ReLU of one example, which then goes another way.
    assert (off > 2e-6).sum() <= 1 and off.median() <= 2e-6


def test_targets_are_uniform_among_the_other_classes():
    labels = torch.arange(4000) % 5
    targets = other_class_per_example(labels, 5, seed=3, indices=torch.arange(4000))
    assert (targets != labels).all()
    counts = torch.bincount((targets - labels) % 5, minlength=5)[1:]
    assert (counts - 1000).abs().max() < 130  # 5 standard deviations


@pytest.mark.parametrize("attack", [PGD(EPS, steps=60), PGD(EPS, steps=61), PGD(EPS, steps=60, targeted=True)])
def test_leaving_out_what_repeats_itself_changes_nothing(convnet, batch, attack, monkeypatch):
    """The last iterates, with and without the shortcut."""
    attack = dataclasses.replace(attack, success="last")
    calls = []
    count = convnet.register_forward_hook(lambda module, inputs, logits: calls.append(len(logits)))
    try:
        short = run(attack, convnet, batch)
        spent = sum(calls)
        monkeypatch.setattr(pgd._Moving, "without_cycles", lambda self, period, steps_left: self)
        calls.clear()
        plain = run(attack, convnet, batch)
    finally:
        count.remove()
    assert torch.equal(short, plain)
    assert spent < sum(calls)


def test_an_example_is_fooled_where_any_iterate_fools(convnet, batch):
    labels = batch[1]
    any_, last = (run(PGD(EPS, steps=20, success=success), convnet, batch) for success in ("any", "last"))
    fooled_any, fooled_last = (convnet(images).argmax(1) != labels for images in (any_, last))
    assert fooled_last.any() and not fooled_last.all()
    assert not (fooled_last & ~fooled_any).any()
    assert torch.equal(any_[~fooled_any], last[~fooled_any])


@pytest.mark.parametrize("norm", ["l2", "rms"])
def test_a_random_start_is_in_its_ball(batch, norm):
    pixels, _, indices = batch
    start = start_per_example(norm, pixels, eps=0.25, seed=0, indices=indices)
    far = distance(norm, start, torch.zeros_like(start)) / 0.25
    assert far.max() <= 1 and far.min() < 0.1 and 0.4 < far.mean() < 0.6
    assert start.mean().abs() < 0.02


def test_the_rms_ball_is_the_euclidean_one_in_other_units(mlp, batch):
    rms = run(PGD(parse_eps("0.05"), norm="rms", steps=5), mlp, batch)
    euclidean = run(PGD(parse_eps(str(0.05 * 8)), norm="l2", steps=5), mlp, batch)
    torch.testing.assert_close(rms, euclidean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("arch", ["mlp", "convnet"])
def test_no_bit_depends_on_the_size_of_the_passes(request, arch, batch):
    model = request.getfixturevalue(arch)
    pixels, labels, _ = batch
    criterion = Criterion(labels)
    logits, gradients = Classifier(model, highest=9, batch_size=64).gradient(pixels, criterion.cross_entropy())
    for size in (1, 16, 48):
        classifier = Classifier(model, highest=9, batch_size=size)
        again, gradients_again = classifier.gradient(pixels, criterion.cross_entropy())
        assert torch.equal(logits, again) and torch.equal(gradients, gradients_again)
        assert torch.equal(logits, classifier.logits(pixels))
    few = torch.tensor([40, 3, 17])
    alone, gradients_alone = classifier.gradient(pixels[few], criterion.of(few).cross_entropy())
    assert torch.equal(logits[few], alone) and torch.equal(gradients[few], gradients_alone)


def test_a_cpu_passes_large_images_in_parts_that_change_no_bit():
    """In parts of 16 images of CIFAR's size, whoever asks for a graph, and of 48 without one."""
    torch.manual_seed(0)
    model = build_network("ConvNet-d2-w8", channels=3, num_classes=10, im_size=(32, 32)).eval()
    pixels, labels = torch.rand(48, 3, 32, 32), torch.arange(48) % 10
    leaf = pixels.clone().requires_grad_()
    whole = model(leaf)
    (expected,) = torch.autograd.grad(nn.functional.cross_entropy(whole, labels, reduction="sum"), leaf)
    sizes = []
    hook = model.register_forward_hook(lambda module, inputs, logits: sizes.append(len(logits)))
    classifier = Classifier(model, highest=9, batch_size=48)
    logits, gradients = classifier.gradient(pixels, Criterion(labels).cross_entropy())
    assert torch.equal(logits, whole) and torch.equal(gradients, expected)
    assert torch.equal(classifier.logits(pixels), whole) and torch.equal(classifier(pixels), whole)
    assert sizes == [16] * 3 + [48] + [16] * 3
    hook.remove()


@pytest.mark.parametrize("targets", [None, torch.tensor([1, 0, 2])])
def test_the_margin_is_negative_where_the_goal_is_reached(targets):
    logits = torch.tensor([[3.0, 1.0, 2.0], [1.0, 4.0, 2.5], [0.0, 0.5, 2.0]])
    criterion = Criterion(torch.tensor([0, 0, 1]), targets)
    margin = criterion.margin(logits)
    expected = [1.0, -3.0, -1.5] if targets is None else [2.0, 3.0, -1.5]
    torch.testing.assert_close(margin, torch.tensor(expected))
    assert torch.equal(margin < 0, criterion.reached(logits))


def test_plugins_may_use_the_former_names_of_the_criterion(mlp, batch):
    assert former.Goal is Criterion
    pixels, labels, indices = batch
    classifier = Classifier(mlp, highest=9, batch_size=64)
    goal = FGSM(EPS, targeted=True).goal(classifier, pixels, labels, indices)
    assert torch.equal(goal.targets, other_class_per_example(labels, 10, seed=0, indices=indices))


def test_momentum_over_a_zero_gradient_is_zero(batch):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    nn.init.zeros_(flat[1].weight)
    assert torch.equal(run(MIM(EPS, success="last"), flat, batch), batch[0])


def test_random_start_fills_the_ball_and_pgd_climbs(mlp, batch):
    pixels, labels, indices = batch
    start = uniform_per_example(pixels, seed=0, indices=indices)
    assert -1 <= start.min() < -0.99 and 0.99 < start.max() < 1 and abs(start.mean()) < 0.03
    loss = nn.CrossEntropyLoss()
    attacks = FGSM(EPS, success="last"), PGD(EPS, success="last")
    losses = [loss(mlp(x), labels).item() for x in (pixels, *(run(attack, mlp, batch) for attack in attacks))]
    assert losses[0] < losses[1] < losses[2]


def test_pgd_starts_where_the_draw_says(batch):
    """Where the gradient is zero everywhere, PGD stays at its start."""
    pixels, _, indices = batch
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    nn.init.zeros_(flat[1].weight)
    start = (pixels + EPS.value * uniform_per_example(pixels, seed=9, indices=indices)).clamp(0, 1)
    torch.testing.assert_close(run(PGD(EPS, seed=9, steps=3), flat, batch), start, rtol=0, atol=1e-6)
    assert torch.equal(run(PGD(EPS, steps=3, random_start=False), flat, batch), pixels)


def test_draws_belong_to_the_example(batch):
    pixels, _, indices = batch
    draws = uniform_per_example(pixels, seed=5, indices=indices)
    one_by_one = [uniform_per_example(pixels[i : i + 1], seed=5, indices=indices[i : i + 1]) for i in range(64)]
    assert torch.equal(draws, torch.cat(one_by_one))
    shuffled = torch.randperm(64)
    assert torch.equal(draws[shuffled], uniform_per_example(pixels, seed=5, indices=indices[shuffled]))
    assert not torch.equal(draws, uniform_per_example(pixels, seed=6, indices=indices))
    assert len(draws.flatten(1).unique(dim=0)) == 64


def test_order_of_the_batch_does_not_matter(mlp, batch):
    pixels, labels, indices = batch
    attack, order = PGD(EPS, steps=5), torch.arange(63, -1, -1)
    adversarial = run(attack, mlp, batch)
    reversed_ = attack(mlp, pixels[order], labels[order], indices=indices[order])
    torch.testing.assert_close(reversed_, adversarial[order], rtol=0, atol=1e-6)


class OtherPrecision(nn.Module):
    """Gives a network's logits in another type than its pixels have."""

    def __init__(self, network, dtype):
        super().__init__()
        self.network, self.dtype = network, dtype
        self.eval()

    def forward(self, pixels):
        return self.network(pixels).to(self.dtype)


@pytest.mark.parametrize("attack", ["fgsm", "pgd3", "mim3", "square20", "apgd-ce", "apgd-t", "fab-t", "cw"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_may_answer_in_another_precision(mlp, batch, attack, dtype):
    few = tuple(part[:8] for part in batch)
    (one,) = parse_attacks(attack, builtin_registry(), [EPS if attack != "cw" else parse_eps("1")])
    adversarial = run(one, OtherPrecision(mlp, dtype), few)
    assert adversarial.dtype == torch.float32
    if dtype == torch.float64:  # no bit of the logits is lost
        assert torch.equal(adversarial, run(one, mlp, few))


def test_an_attack_leaves_no_trace(mlp, batch):
    mlp.zero_grad()
    parameters = list(mlp.parameters())
    parameters[0].requires_grad_(False)
    streams = torch.get_rng_state(), np.random.get_state()[1].copy()
    try:
        with torch.no_grad():
            adversarial = run(PGD(EPS, steps=2), mlp, batch)
        assert [p.requires_grad for p in parameters] == [False] + [True] * (len(parameters) - 1)
    finally:
        parameters[0].requires_grad_(True)
    assert all(p.grad is None for p in parameters)
    assert not adversarial.requires_grad and not batch[0].requires_grad
    assert torch.equal(torch.get_rng_state(), streams[0])
    np.testing.assert_array_equal(np.random.get_state()[1], streams[1])


@dataclass(frozen=True)
class Broken(Attack):
    """Returns whatever ``breakage`` makes of the pixels."""

    family: ClassVar[str] = "broken"
    breakage: str = ""

    def _perturb(self, classifier, pixels, labels, indices):
        eps = self.eps.value
        return {
            "ball": lambda: pixels + torch.where(pixels < 0.5, 1.01, -1.01) * eps,
            "range": lambda: pixels - eps,
            "nan": lambda: pixels * float("nan"),
            "shape": lambda: pixels[:, :, 1:],
            "type": lambda: pixels.double(),
            "none": lambda: pixels,
        }[self.breakage]()


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("ball", "left its ball"),
        ("range", "pixel range"),
        ("nan", "not finite"),
        ("shape", "shape"),
        ("type", "float64"),
    ],
)
def test_the_audit_catches_broken_attacks(mlp, batch, breakage, message):
    with pytest.raises(AuditFailure, match=f"attack broken.*{message}"):
        run(Broken(EPS, breakage=breakage), mlp, batch)
    assert all(p.requires_grad for p in mlp.parameters())
    assert torch.equal(run(Broken(EPS, breakage="none"), mlp, batch), batch[0])


def test_unusable_batches_are_refused(mlp, batch):
    pixels, labels, indices = batch
    with pytest.raises(UnusableInput, match=r"pixels in \[0, 1\]"):
        run(FGSM(EPS), mlp, (pixels * 255, labels, indices))
    with pytest.raises(UnusableInput, match="labels up to 10"):
        run(FGSM(EPS), mlp, (pixels, labels + 1, indices))
    with pytest.raises(UnusableInput, match="labels >= 0"):
        run(FGSM(EPS), mlp, (pixels, labels - 1, indices))
    with pytest.raises(UnusableInput, match="64 indices"):
        run(FGSM(EPS), mlp, (pixels, labels, indices[:3]))
    with pytest.raises(UnusableInput, match="eval mode"):
        run(FGSM(EPS), nn.Sequential(mlp), batch)


@pytest.mark.parametrize("parameters", [{"steps": 0}, {"relative_alpha": 0.0}, {"seed": -1}])
def test_unusable_parameters_are_refused(parameters):
    with pytest.raises(UnusableInput, match="expected"):
        PGD(EPS, **parameters)


def test_a_transferred_attack_goes_on_where_its_source_is_fooled(convnet, batch):
    for attack in (FGSM(EPS, transfer=True), PGD(EPS, steps=20, transfer=True)):
        assert attack.settings()["success"] == "last"
        own = dataclasses.replace(attack, transfer=False, success="last")
        assert torch.equal(run(attack, convnet, batch), run(own, convnet, batch))
    with pytest.raises(UnusableInput, match="broken stops where the source is fooled.*pgd100-transfer"):
        Broken(EPS, breakage="none", transfer=True)


def test_only_euclidean_radii_may_be_above_1(mlp, batch):
    far = parse_eps("3")
    moved = run(PGD(far, norm="l2", steps=5), mlp, batch)
    assert distance("l2", moved, batch[0]).max() > 1.5
    for norm in ("linf", "rms"):
        with pytest.raises(UnusableInput, match=f"eps <= 1 in norm {norm}"):
            PGD(far, norm=norm)


class NextClass(PGD):
    """A plugin's attack that aims at the class after the true one."""

    family = "next"

    def goal(self, classifier, pixels, labels, indices):
        return Criterion(labels, (labels + 1) % 10)


def test_an_attack_may_have_a_goal_of_its_own(mlp, batch):
    pixels, labels, indices = batch
    found = NextClass(EPS, steps=20)(mlp, pixels, labels, indices=indices)
    plain = PGD(EPS, steps=20)(mlp, pixels, labels, indices=indices)
    aimed = torch.nn.functional.one_hot((labels + 1) % 10, 10).bool()
    assert mlp(found)[aimed].mean() > mlp(plain)[aimed].mean()
