"""A scalar that hands over gradients that are known, against the scalar that has to be differentiated."""

import gc
import weakref
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties.fast.precomputed import (
    PrecomputedGradient,
    recompute_if_unmodified,
    with_precomputed_gradient,
)
from guard_plugin.versions import strict_zip

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def tensors() -> list[Tensor]:
    return [torch.randn(3, requires_grad=True), torch.randn(2, 2, requires_grad=True)]


def direct(a: Tensor, b: Tensor) -> Tensor:
    return (a.sin().sum() * b.square().sum()).exp().log1p()


def known(tensors: list[Tensor]) -> PrecomputedGradient:
    value = direct(*tensors)
    return made(value.detach(), tensors, torch.autograd.grad(value, tensors))


def made(value: Tensor, tensors: list[Tensor], gradients: Sequence[Tensor]) -> PrecomputedGradient:
    return PrecomputedGradient(value, {id(t): (t, g.clone()) for t, g in strict_zip(tensors, gradients)})


def close(got: object, wanted: object) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_backward_fills_the_gradients_and_adds_up(tensors):
    wanted = torch.autograd.grad(direct(*tensors), tensors)
    scalar = with_precomputed_gradient(known(tensors), recompute=None)
    close(scalar.detach(), direct(*tensors).detach())
    scalar.backward()
    close([tensor.grad for tensor in tensors], list(wanted))
    with_precomputed_gradient(known(tensors), recompute=None).backward()
    close([tensor.grad for tensor in tensors], [2 * gradient for gradient in wanted])


def test_gradients_of_large_and_small_tensors_add_up_over_passes():
    large, small = torch.randn(2**17 + 1, requires_grad=True), torch.randn(3, requires_grad=True)  # large: over 1 MiB
    view = torch.arange(4.0)[1:]
    total = PrecomputedGradient(torch.zeros(()))
    total.add(small, view)
    for factor in (1.0, 2.0, 3.0):
        total.add(small, view)
        total.differentiate([factor * (large.square().sum() + small.pow(3).sum())], [large, small])
    close(total.gradients[id(large)][1], 6 * 2 * large.detach())
    close(total.gradients[id(small)][1], 6 * 3 * small.detach().square() + 4 * view)
    close(view, torch.arange(1.0, 4.0))


def test_a_subset_may_be_asked_for(tensors):
    (wanted,) = torch.autograd.grad(direct(*tensors), tensors[1])
    close(torch.autograd.grad(with_precomputed_gradient(known(tensors), recompute=None), tensors[1])[0], wanted)
    assert tensors[0].grad is None and tensors[1].grad is None


def test_what_the_host_makes_of_the_scalar_weights_the_gradients(tensors):
    wanted = torch.autograd.grad(direct(*tensors).square() * 3, tensors)
    close(torch.autograd.grad(with_precomputed_gradient(known(tensors), recompute=None).square() * 3, tensors), wanted)


def test_with_retain_graph_backward_may_be_called_twice_and_without_not(tensors):
    scalar = with_precomputed_gradient(known(tensors), recompute=None)
    scalar.backward(retain_graph=True)
    once = [tensor.grad.clone() for tensor in tensors]
    scalar.backward()
    close([tensor.grad for tensor in tensors], [2 * gradient for gradient in once])
    with pytest.raises(RuntimeError, match="second time"):
        scalar.backward()


def test_the_gradients_are_freed_by_backward(tensors):
    gradients = known(tensors)
    alive = [weakref.ref(gradient) for _, gradient in gradients.gradients.values()]
    scalar = with_precomputed_gradient(gradients, recompute=None)
    del gradients
    gc.collect()
    assert all(one() is not None for one in alive)
    scalar.backward()
    gc.collect()
    assert scalar.requires_grad and not any(one() is not None for one in alive)


def test_gradients_can_be_differentiated_again(tensors):
    def second(scalar: Tensor) -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(2 * scalar, tensors, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), tensors)

    scalar = with_precomputed_gradient(known(tensors), recompute=lambda: direct(*tensors))
    close(second(scalar), second(direct(*tensors)))


def test_a_part_with_a_graph_of_its_own_is_differentiated_again_with_the_rest(tensors):
    def second(scalar: Tensor) -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(2 * scalar, tensors, create_graph=True)
        return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), tensors)

    def own() -> Tensor:
        return tensors[0].cos().sum() * tensors[1].sum()

    total = direct(*tensors) + own()
    gradients = made(total.detach(), tensors, torch.autograd.grad(total, tensors))
    scalar = with_precomputed_gradient(gradients, recompute=lambda: direct(*tensors), own=own())
    close(second(scalar), second(direct(*tensors) + own()))


def test_differentiating_again_is_refused_where_nothing_is_left_to_differentiate(tensors):
    scalar = with_precomputed_gradient(known(tensors), recompute=None)
    with pytest.raises(UnsupportedLoss, match="create_graph=True: memory .low."):
        torch.autograd.grad(scalar, tensors, create_graph=True)


def test_differentiating_again_is_refused_where_a_parameter_has_changed(tensors):
    recompute = recompute_if_unmodified(lambda: direct(*tensors), tensors)
    scalar = with_precomputed_gradient(known(tensors), recompute=recompute)
    with torch.no_grad():
        tensors[1].add_(1)
    with pytest.raises(UnsupportedLoss, match="inputs modified in place.*path=.reference"):
        torch.autograd.grad(scalar, tensors, create_graph=True)


def test_without_gradients_the_value_is_a_constant(tensors):
    gradients = known(tensors)
    with torch.no_grad():
        assert not with_precomputed_gradient(gradients, recompute=None).requires_grad
    assert not with_precomputed_gradient(PrecomputedGradient(torch.tensor(2.0)), recompute=None).requires_grad


def test_gradients_may_be_weighted():
    tensor = torch.randn(3, requires_grad=True)
    scalar = with_precomputed_gradient(
        made(torch.tensor(1.0), [tensor], [torch.ones(3)]).scaled(torch.tensor(7.0), 10.0), recompute=None
    )
    assert scalar == 7
    close(torch.autograd.grad(scalar, tensor), (torch.full((3,), 10.0),))


def test_what_the_host_does_to_its_gradients_does_not_reach_the_precomputed_ones(tensors):
    wanted, scalar = (
        torch.autograd.grad(direct(*tensors), tensors),
        with_precomputed_gradient(known(tensors), recompute=None),
    )
    scalar.backward(retain_graph=True)
    for tensor in tensors:
        tensor.grad.zero_()
    scalar.backward()
    close([tensor.grad for tensor in tensors], list(wanted))


def test_a_hook_on_a_tensor_sees_its_gradient(tensors):
    seen: list[Tensor] = []
    tensors[0].register_post_accumulate_grad_hook(lambda tensor: seen.append(tensor.grad.clone()))
    with_precomputed_gradient(known(tensors), recompute=None).backward()
    close(seen, [torch.autograd.grad(direct(*tensors), tensors[0])[0]])
