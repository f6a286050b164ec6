"""Counter-based random words: any of them at once, for many examples, without drawing those before it."""

import torch
from torch import Tensor

__all__ = ["philox4x32", "words_per_example"]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> Tensor:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Args:
        counter: Four tensors of int64 that broadcast to one shape, values in [0, 2**32).
        key: Two numbers in [0, 2**32).

    Returns:
        int64 in [0, 2**32), of that shape with a last dimension of 4: the random words.
    """
    a, b, c, d = counter
    for turn in range(_ROUNDS):
        k0, k1 = ((part + turn * weyl) & _MASK for part, weyl in zip(key, _WEYL, strict=True))
        # The products wrap around in int64, which leaves their 64 bits right; the shift's sign bits are masked away.
        p, q = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = ((q >> 32) & _MASK) ^ b ^ k0, q & _MASK, ((p >> 32) & _MASK) ^ d ^ k1, p & _MASK
    return torch.stack([a, b, c, d], dim=-1)


def words_per_example(count: int, *, seed: int, indices: Tensor, times: range) -> Tensor:
    """Uniform random words for each example and each time, from (seed, index, time) alone.

    Args:
        count: Words for each example and time, >= 1.
        seed: In [0, 2**63).
        indices: Shape (n,), int64: the examples' positions in the data set.
        times: In [0, 2**32).

    Returns:
        Shape (n, len(times), count), int64 in [0, 2**32).
    """
    device = indices.device
    calls = torch.arange(-(-count // 4), device=device)
    at = torch.arange(times.start, times.stop, times.step, device=device)
    example = indices.view(-1, 1, 1)
    words = philox4x32((calls, at.view(1, -1, 1), example & _MASK, example >> 32), (seed & _MASK, seed >> 32))
    return words.flatten(2)[:, :, :count]
