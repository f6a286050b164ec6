"""Average pooling by slices, against torch's own kernel, bit by bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _len_torch_function_stack

from guard_plugin.attacks import Classifier
from guard_plugin.attacks.pooling import FastPooling

OURS = "_PoolBackward"


def pooled(x: Tensor, **settings: object) -> Tensor:
    with FastPooling():
        return functional.avg_pool2d(x, **{"kernel_size": 2, **settings})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"kernel_size": (2, 2), "stride": [2, 2]}], ids=str)
def test_averages_and_gradients_are_torchs_to_the_last_bit(settings, dtype):
    torch.manual_seed(0)
    x = torch.randn(3, 5, 6, 8, dtype=dtype, requires_grad=True)
    ours, torchs = pooled(x, **settings), functional.avg_pool2d(x, **{"kernel_size": 2, **settings})
    weights = torch.randn_like(ours)
    assert ours.grad_fn.name() == OURS and torch.equal(ours, torchs)
    assert torch.equal(*(torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, torchs)))


def test_the_derivatives_are_finite_differences():
    x = torch.randn(1, 2, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pooled, (x,)) and torch.autograd.gradgradcheck(pooled, (x,))


def test_the_image_may_be_named():
    x = torch.randn(1, 1, 2, 2, requires_grad=True)
    with FastPooling():
        y = functional.avg_pool2d(input=x, kernel_size=2)
    assert y.grad_fn.name() == OURS and y.item() == pytest.approx(x.mean().item())


X = (2, 3, 6, 6)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        (X, {"kernel_size": 3}),
        (X, {"stride": 1}),
        (X, {"padding": 1}),
        (X, {"divisor_override": 3}),
        ((2, 3, 5, 6), {}),
        ((2, 3, 6, 5), {"ceil_mode": True}),
        (X[1:], {}),
    ],
    ids=str,
)
def test_what_is_not_plain_is_left_to_torch(shape, settings):
    x = torch.randn(shape, requires_grad=True)
    ours, torchs = pooled(x, **settings), functional.avg_pool2d(x, **{"kernel_size": 2, **settings})
    assert ours.grad_fn.name() == torchs.grad_fn.name() and torch.equal(ours, torchs)


def test_another_memory_format_is_left_to_torch():
    x = torch.randn(X).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert pooled(x).grad_fn.name() != OURS


def test_a_classifier_pools_fast_and_leaves_no_mode_behind():
    assert pooled_by_classifier(nn.Identity()) == OURS
    assert _len_torch_function_stack() == 0


@pytest.mark.parametrize("mark", ["_orig_mod", "_compiled_call_impl"])
def test_a_classifier_leaves_pooling_to_torch_where_a_part_is_compiled(mark):
    part = nn.Identity()
    vars(part)[mark] = nn.Identity().forward  # as torch.compile leaves it
    assert pooled_by_classifier(part) == "AvgPool2DBackward0"


def pooled_by_classifier(part: nn.Module) -> str:
    names: list[str] = []
    model = nn.Sequential(part, nn.AvgPool2d(2), nn.Flatten())
    model[1].register_forward_hook(lambda _, __, output: names.append(output.grad_fn.name()))
    Classifier(model, highest=3, batch_size=8)(torch.rand(8, 1, 4, 4, requires_grad=True))
    return names[0]
