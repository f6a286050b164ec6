"""Where a batch's values come from: what an optimizer has is learned, whenever it got it."""

import pytest
import torch

from guard_plugin.injection.calls.sources import Sources


@pytest.fixture
def sources():
    found = Sources(lambda frame: None)
    yield found
    found.remove()


@pytest.mark.parametrize("when", ["at its beginning", "later"])
def test_copies_of_what_an_optimizer_has_are_learned(sources, when):
    images, scale = torch.rand(4, 3, 2, 2, requires_grad=True), torch.zeros(1, requires_grad=True)
    if when == "later":
        torch.optim.SGD([scale], lr=0.1).add_param_group({"params": [images]})
    else:
        torch.optim.SGD([{"params": [scale]}, {"params": [images]}], lr=0.1)
    assert sources.is_optimized(images) and sources.is_optimized(scale)
    assert sources.of(images.detach().clone(), None) == ("a copy of learned images", True)
    assert sources.of(torch.rand(4, 3, 2, 2), None) == ("a tensor on which nothing is learned", False)
