import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.attacks import (
    FGSM,
    PGD,
    Attack,
    AuditFailure,
    cross_entropy_gradient,
    parse_eps,
    uniform_per_example,
)

# Foolbox 3.3.4 imports a deprecated namespace of SciPy.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import foolbox

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
        ours, theirs = FGSM(EPS), foolbox.attacks.LinfFastGradientAttack()
    else:
        ours = PGD(EPS, steps=steps, random_start=False)
        theirs = foolbox.attacks.LinfPGD(abs_stepsize=EPS.value / 4, steps=steps, random_start=False)
    host = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, expected, _ = theirs(host, pixels, foolbox.criteria.Misclassification(labels), epsilons=EPS.value)
    adversarial = run(ours, model, batch)
    assert not torch.equal(adversarial, pixels)
    torch.testing.assert_close(adversarial, expected, rtol=0, atol=1e-6)


def test_gradients_are_per_example(mlp, batch):
    pixels, labels, _ = batch
    together = cross_entropy_gradient(mlp, pixels, labels)
    alone = [cross_entropy_gradient(mlp, pixels[i : i + 1], labels[i : i + 1]) for i in range(8)]
    torch.testing.assert_close(together[:8], torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_random_start_fills_the_ball_and_pgd_climbs(mlp, batch):
    pixels, labels, indices = batch
    start = uniform_per_example(pixels, seed=0, indices=indices)
    assert -1 <= start.min() < -0.99 and 0.99 < start.max() < 1 and abs(start.mean()) < 0.03
    loss = nn.CrossEntropyLoss()
    losses = [loss(mlp(x), labels).item() for x in (pixels, run(FGSM(EPS), mlp, batch), run(PGD(EPS), mlp, batch))]
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


def test_masked_gradients_are_refused(mlp, batch):
    class Detached(nn.Module):
        def forward(self, pixels):
            return mlp(pixels.detach())

    with pytest.raises(UnusableInput, match="no gradient reaches the pixels"):
        run(FGSM(EPS), Detached().eval(), batch)


@pytest.mark.parametrize("parameters", [{"steps": 0}, {"relative_alpha": 0.0}, {"seed": -1}])
def test_unusable_parameters_are_refused(parameters):
    with pytest.raises(UnusableInput, match="expected"):
        PGD(EPS, **parameters)
