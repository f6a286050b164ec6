"""Naming the layer that cannot be differentiated as the penalty needs it, which torch's own errors do not."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.errors import UnsupportedLoss
from guard_plugin.penalties.graph import NoSecondDerivative, check_differentiable
from guard_plugin.penalties.passes import alike

__all__ = ["derivatives_explained", "is_about_inplace"]


@contextmanager
def derivatives_explained(network: nn.Module, inputs: Tensor, *, fix: str) -> Iterator[None]:
    """Name the layer where an input gradient cannot be had, or cannot be differentiated again.

    Args:
        network: The network, inside :func:`guard_plugin.penalties.undisturbed`.
        inputs: A batch, shape (n, ...).
        fix: What the user can do where there is no second derivative.

    Raises:
        UnsupportedLoss: In place of NoSecondDerivative, and of torch's error about in-place operations.
    """
    try:
        yield
    except NoSecondDerivative:
        layers = ", ".join(_layers_without(network, inputs[:2])) or "an operation that is no layer of its own"
        raise UnsupportedLoss(
            f"expected a network that can be differentiated twice, found {layers}, for which torch has no second "
            f"derivative; {fix}, or use another layer"
        ) from None
    except RuntimeError as error:
        if not is_about_inplace(error):
            raise
        inplace = [f"{name} ({type(part).__name__})" for name, part in network.named_modules() if _is_inplace(part)]
        raise UnsupportedLoss(
            f"expected a network whose evaluation can be differentiated, found that a layer changes in place what "
            f"another one needs (one of {', '.join(inplace) or 'its operations'}; after a dropout, this shows in "
            f"evaluation only); build it with inplace=False"
        ) from error


def is_about_inplace(error: RuntimeError) -> bool:
    """Tell torch's error about a tensor that was changed in place from others."""
    return "modified by an inplace operation" in str(error)


def _is_inplace(part: nn.Module) -> bool:
    return getattr(part, "inplace", False) is True


def _layers_without(network: nn.Module, inputs: Tensor) -> list[str]:
    """Name the innermost modules whose calls cannot be differentiated twice, in a pass of these inputs."""
    trial = _Trial()
    parts = [
        (name, part, part.forward, "forward" in vars(part))
        for name, part in network.named_modules()
        if not isinstance(part, torch.jit.ScriptModule)
    ]
    for name, part, forward, _ in parts:
        part.forward = partial(trial, name, part, forward)
    try:
        with torch.enable_grad(), alike(network, inputs.device):
            network(inputs.detach().clone())
    finally:
        for _, part, forward, is_own in parts:
            if is_own:
                part.forward = forward
            else:
                del part.forward
    found = trial.found
    inner = [name for name in found if not any(_is_inside(other, name) for other in found)]
    return [f"{name} ({found[name]})" if name else f"the network ({found[name]}) itself" for name in inner]


def _is_inside(name: str, of: str) -> bool:
    return name != of and (not of or name.startswith(f"{of}."))


class _Trial:
    """Tries each module that is called, and notes as ``found``, by name, the class of those without a derivative."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._under_way = False

    def __call__(self, name: str, part: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._under_way:
            self._try(name, part, forward, args, kwargs)
        return forward(*args, **kwargs)

    def _try(
        self, name: str, part: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        leaves = {place: one.detach().requires_grad_() for place, one in enumerate(args) if _is_floating(one)}
        self._under_way = True
        try:
            output = forward(*(leaves[i].clone() if i in leaves else one for i, one in enumerate(args)), **kwargs)
        finally:
            self._under_way = False
        if not (isinstance(output, Tensor) and output.requires_grad and leaves):
            return
        total = output.square().sum()  # whose own gradient depends on the output, as that of a loss does
        gradients = torch.autograd.grad(total, list(leaves.values()), create_graph=True, allow_unused=True)
        try:
            check_differentiable(*[gradient for gradient in gradients if gradient is not None])
        except NoSecondDerivative:
            self.found[name] = type(part).__name__


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
