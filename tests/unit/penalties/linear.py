"""Linear models, for which what an adversary can do is known in closed form."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output, target, reduction="none")


def binary(d: int = 5) -> nn.Linear:
    """Two classes: the log-odds of class 1 are w x + b with w and b the differences of the rows."""
    return nn.Linear(d, 2)


def batch(n: int = 6, d: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(n, d), torch.arange(n) % 2


def log_odds(net: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """w and, per example, w x + b."""
    w = net.weight[1] - net.weight[0]
    return w, x @ w + net.bias[1] - net.bias[0]


def signs(y: Tensor) -> Tensor:
    return (2 * y - 1).to(torch.get_default_dtype())
