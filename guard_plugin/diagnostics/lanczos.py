"""The largest eigenvalue of symmetric operators of which only products are known, for a batch at once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from guard_plugin.diagnostics.hessian import dot, norms, scaled
from guard_plugin.penalties.per_example import unit

__all__ = ["Eigenpairs", "largest_eigenpairs", "tolerated"]

_ROUNDING = 4  # units of ||H|| times the machine epsilon that a residual may be, whatever its eigenvalue


class Eigenpairs(NamedTuple):
    """One eigenpair per example; each tensor but ``vectors`` has the shape (n,)."""

    values: Tensor  # the Rayleigh quotients v^T H v
    vectors: Tensor  # unit vectors v, in the shape of the start
    residuals: Tensor  # ||H v - value v||, from a product of its own; some eigenvalue lies within this distance
    scales: Tensor  # the largest magnitude among the Ritz values, a lower estimate of ||H||
    steps: Tensor  # Lanczos steps, each one product


def largest_eigenpairs(product: Callable[[Tensor], Tensor], start: Tensor, *, steps: int, tol: float) -> Eigenpairs:
    """Find the algebraically largest eigenvalue of each example's operator by Lanczos' method.

    Power iteration converges to the eigenvalue of largest magnitude, which may be a negative one, and slowly where two
    are close; Lanczos has both ends of the spectrum from the same products. Bases are orthogonalised in full, twice.
    An example's result is the one of the step at which its own estimate met ``tol``, so it does not depend on how long
    the others of the batch went on.

    Args:
        product: Maps vectors, shape (n, ...), to the products of n symmetric operators with them. It is called once
            more than there are steps, for the residuals.
        start: Shape (n, ...): where to start, nowhere zero; random ones meet every eigenvector with probability 1.
        steps: The most Lanczos steps, >= 1; memory grows with it. More than the number of values are never needed.
        tol: Stop where the residual's estimate falls to what ``tolerated`` allows.
    """
    last = min(steps, start[0].numel())
    basis = [unit(start)]
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    vectors, scales = torch.zeros_like(start), start.new_zeros(len(start))
    done = torch.zeros(len(start), dtype=torch.int64)
    for k in range(1, last + 1):
        rest = product(basis[-1])
        alphas.append(dot(basis[-1], rest))
        for one in basis * 2:
            rest = rest - scaled(one, dot(one, rest))
        values, weights = _ritz(alphas, betas)
        betas.append(norms(rest))
        magnitudes = values.abs().amax(dim=1)
        allowed = tolerated(values[:, -1], magnitudes, tol=tol, dtype=start.dtype)
        small = betas[-1].double().cpu() * weights[:, -1, -1].abs() <= allowed
        ending = (done == 0) & (small | (k == last))
        if bool(ending.any()):
            done[ending] = k
            mine, top = ending.to(start.device), weights[:, :, -1].to(start)
            vector = torch.stack([scaled(one, top[:, j]) for j, one in enumerate(basis)]).sum(dim=0)
            vectors[mine] = unit(vector)[mine]
            scales[mine] = magnitudes.to(scales)[mine]
        if bool((done > 0).all()):
            break
        basis.append(unit(rest))  # 0 where the Krylov space is exhausted: that example is done
    image = product(vectors)
    found = dot(vectors, image)
    return Eigenpairs(found, vectors, norms(image - scaled(vectors, found)), scales, done)


def tolerated(values: Tensor, scales: Tensor, *, tol: float, dtype: torch.dtype) -> Tensor:
    """Return the residuals at which eigenvalues count as found: ``tol`` times their magnitude, or rounding to ||H||.

    It is the eigenvalue's own magnitude that counts: next to a large negative end of the spectrum, any vector of the
    null space has a residual that is small against ||H||, which ``scales`` estimates.
    """
    return torch.maximum(tol * values.abs(), _ROUNDING * torch.finfo(dtype).eps * scales)


def _ritz(alphas: list[Tensor], betas: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the tridiagonal matrices' eigenvalues, ascending, and eigenvectors, in float64 on the CPU."""
    matrix = torch.diag_embed(torch.stack(alphas, dim=1).double().cpu())
    if betas:
        beside = torch.stack(betas, dim=1).double().cpu()
        matrix = matrix + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors
