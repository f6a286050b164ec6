"""Random numbers that belong to an example, not to a batch."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["uniform_per_example"]


def uniform_per_example(like: Tensor, *, seed: int, indices: Tensor) -> Tensor:
    """Uniform numbers in [-1, 1), drawn for each example from (seed, index) alone.

    The generator is Philox, which is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    2011), so a draw depends neither on the batch size nor on the order nor on the process.

    Args:
        like: Gives shape (n, ...), type and device.
        seed: In [0, 2**63).
        indices: Shape (n,): the examples' positions in the data set.

    Returns:
        The shape of ``like``.
    """
    draws = [
        np.random.Generator(np.random.Philox(key=[seed, index])).random(like.shape[1:], dtype=np.float32)
        for index in indices.tolist()
    ]
    return torch.from_numpy(np.stack(draws)).to(like.device, like.dtype) * 2 - 1
