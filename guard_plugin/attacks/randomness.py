"""Random numbers that belong to an example, whatever its batch.

Both sources are Philox, which is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a
draw depends on its key and its counter alone, and so neither on the batch size nor on the order nor on the process.

In all functions, ``seed`` is in [0, 2**63); ``indices``, shape (n,), int64, are the examples' positions in the data
set; ``stream`` distinguishes the draws that an attack makes for different purposes; and ``like`` is a tensor of shape
(n, ...) that gives the result its shape, type and device.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard_plugin.attacks.balls import Norm, ball_radius, lengths
from guard_plugin.versions import strict_zip

__all__ = [
    "example_generator",
    "normal_per_example",
    "other_class_per_example",
    "philox4x32",
    "start_per_example",
    "uniform_per_example",
    "words_per_example",
]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def example_generator(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """Return the generator of one example, which has the position ``index`` in the data set."""
    return np.random.Generator(np.random.Philox(key=[seed, index], counter=[0, 0, 0, stream]))


def uniform_per_example(like: Tensor, *, seed: int, indices: Tensor, stream: int = 0) -> Tensor:
    """Draw uniform numbers in [-1, 1) for each example, from (seed, index, stream) alone."""
    shape = like.shape[1:]
    return _drawn(lambda random: random.random(shape, dtype=np.float32), like, seed, indices, stream) * 2 - 1


def normal_per_example(like: Tensor, *, seed: int, indices: Tensor, stream: int = 0) -> Tensor:
    """Draw standard normal numbers for each example, from (seed, index, stream) alone."""
    shape = like.shape[1:]
    return _drawn(lambda random: random.standard_normal(shape, dtype=np.float32), like, seed, indices, stream)


def start_per_example(norm: Norm, like: Tensor, *, eps: float, seed: int, indices: Tensor) -> Tensor:
    """Draw a point of the ball of radius ``eps`` around 0 for each example, in shape (n, channels, height, width).

    In the Linf ball the point is uniform; in the others its direction and its length are.
    """
    if norm == "linf":
        return eps * uniform_per_example(like, seed=seed, indices=indices)
    direction = normal_per_example(like, seed=seed, indices=indices)
    shares = _drawn(lambda random: random.random(dtype=np.float32), like, seed, indices, 1)
    scale = ball_radius(norm, eps, like) * shares.view(-1, 1, 1, 1) / lengths(direction)
    return direction * scale.to(direction.dtype)


def other_class_per_example(labels: Tensor, num_classes: int, *, seed: int, indices: Tensor) -> Tensor:
    """Draw a class for each example, shape (n,), int64, uniform among the classes that are not its label."""
    draws = _drawn(lambda random: random.integers(1, num_classes), labels, seed, indices, 2)
    return (labels + draws) % num_classes


def words_per_example(count: int, *, seed: int, indices: Tensor, times: range) -> Tensor:
    """Draw ``count`` random words for each example and each time in [0, 2**32), from (seed, index, time) alone.

    The words have shape (n, len(times), count), int64, and are uniform in [0, 2**32).
    """
    device = indices.device
    calls = torch.arange(-(-count // 4), device=device)
    at = torch.arange(times.start, times.stop, times.step, device=device)
    example = indices.view(-1, 1, 1)
    words = philox4x32((calls, at.view(1, -1, 1), example & _MASK, example >> 32), (seed & _MASK, seed >> 32))
    return words.flatten(2)[:, :, :count]


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Return the random words of Philox4x32-10, in the shape that the counters broadcast to, and a last dimension of 4.

    Counters, keys and words are whole numbers in [0, 2**32); the tensors are int64.
    """
    a, b, c, d = counter
    for turn in range(_ROUNDS):
        k0, k1 = ((part + turn * weyl) & _MASK for part, weyl in strict_zip(key, _WEYL))
        # The products wrap around in int64, which leaves their 64 bits right; the shift's sign bits are masked away.
        p, q = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = ((q >> 32) & _MASK) ^ b ^ k0, q & _MASK, ((p >> 32) & _MASK) ^ d ^ k1, p & _MASK
    return torch.stack([a, b, c, d], dim=-1)


def _drawn(draw: Callable[[np.random.Generator], Any], like: Tensor, seed: int, indices: Tensor, stream: int) -> Tensor:
    """Return what each example's generator draws, in the type and on the device of ``like``."""
    draws = [draw(example_generator(seed, index, stream)) for index in indices.tolist()]
    return torch.from_numpy(np.stack(draws)).to(like.device, like.dtype)
