"""A model whose gradients say nothing is refused by every attack that follows them."""

import pytest
import torch
from torch import nn

from guard_plugin.attacks import ATTACKS, Square, parse_eps
from guard_plugin.errors import UnusableInput

WHITEBOX = [attack for attack in ATTACKS if attack.whitebox]


class Changed(nn.Module):
    """A model whose images are changed first."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change

    def forward(self, pixels):
        return self.model(self.change(pixels))


MASKS = {
    "detached": (torch.Tensor.detach, "no gradient reaches the pixels"),
    "root": (torch.sqrt, "expected finite gradients"),  # of a pixel that is 0, it is infinite
    "logarithm": (lambda x: torch.where(x > 0, x.log(), 0 * x), "expected finite gradients"),  # NaN, behind the mask
}


@pytest.fixture
def batch(digits_test):
    return digits_test.pixels[:16], digits_test.labels[:16], torch.arange(16)


def run(attack, model, batch):
    pixels, labels, indices = batch
    return attack(model.eval(), pixels, labels, indices=indices)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("make", WHITEBOX, ids=lambda one: one.family)
def test_masked_gradients_are_refused(mlp, batch, make, mask):
    change, message = MASKS[mask]
    if make.family.startswith("official") and mask != "detached":
        pytest.skip("these are reproduced with their faults: evaluation refuses such a model before them")
    with pytest.raises(UnusableInput, match=message):
        run(make(parse_eps("8/255")), Changed(mlp, change), batch)


@pytest.mark.parametrize("mask", MASKS)
def test_square_needs_no_gradients(mlp, batch, mask):
    run(Square(parse_eps("8/255"), queries=10), Changed(mlp, MASKS[mask][0]), batch)
