"""Random numbers that belong to an example, not to a batch."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from guard_plugin.attacks.norms import Norm, ball_radius, lengths

__all__ = ["example_generator", "other_class_per_example", "start_per_example", "uniform_per_example"]


def example_generator(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """The generator of one example.

    It is Philox, which is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), so a draw
    depends neither on the batch size nor on the order nor on the process.

    Args:
        seed: In [0, 2**63).
        index: The example's position in the data set.
        stream: Tells apart what an attack draws for different purposes.
    """
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, 0, stream]))


def uniform_per_example(like: Tensor, *, seed: int, indices: Tensor) -> Tensor:
    """Uniform numbers in [-1, 1), drawn for each example from (seed, index) alone.

    Args:
        like: Gives shape (n, ...), type and device.
        seed: In [0, 2**63).
        indices: Shape (n,): the examples' positions in the data set.

    Returns:
        The shape of ``like``.
    """
    return _drawn(like, seed, indices, lambda random: random.random(like.shape[1:], dtype=np.float32)) * 2 - 1


def start_per_example(norm: Norm, like: Tensor, *, eps: float, seed: int, indices: Tensor) -> Tensor:
    """A random point of each example's ball around 0: uniform in the Linf ball; else of uniform direction and length.

    Args:
        norm: Of the ball.
        like: Gives shape (n, ...), type and device.
        eps: Radius of the ball.
        seed: In [0, 2**63).
        indices: Shape (n,): the examples' positions in the data set.

    Returns:
        The shape of ``like``.
    """
    if norm == "linf":
        return eps * uniform_per_example(like, seed=seed, indices=indices)
    direction = _drawn(like, seed, indices, lambda random: random.standard_normal(like.shape[1:], dtype=np.float32))
    length = _drawn(like[:, 0, 0, 0], seed, indices, lambda random: random.random((), dtype=np.float32), stream=1)
    scale = ball_radius(norm, eps, like) * length.view(-1, 1, 1, 1) / lengths(direction)
    return direction * scale.to(direction.dtype)


def other_class_per_example(labels: Tensor, num_classes: int, *, seed: int, indices: Tensor) -> Tensor:
    """A class for each example, uniform among those that are not its own.

    Args:
        labels: Shape (n,), int64.
        num_classes: At least 2.
        seed: In [0, 2**63).
        indices: Shape (n,): the examples' positions in the data set.

    Returns:
        Shape (n,), int64.
    """
    draws = [int(example_generator(seed, index, stream=2).integers(1, num_classes)) for index in indices.tolist()]
    return (labels + torch.tensor(draws, device=labels.device)) % num_classes


def _drawn(
    like: Tensor,
    seed: int,
    indices: Tensor,
    draw: Callable[[np.random.Generator], NDArray[np.float32] | np.float32 | float],
    stream: int = 0,
) -> Tensor:
    draws = [draw(example_generator(seed, index, stream)) for index in indices.tolist()]
    return torch.from_numpy(np.stack(draws)).to(like.device, like.dtype)
