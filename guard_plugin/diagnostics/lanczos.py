"""The largest eigenvalue of symmetric operators of which only products are known, for a batch at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from guard_plugin.diagnostics.hessian import dot, norms, scaled
from guard_plugin.penalties.per_example import unit

__all__ = ["Eigenpairs", "largest_eigenpairs", "tolerated"]

_ROUNDING = 4  # units of ||H|| times the machine epsilon that a residual may be, whatever its eigenvalue


@dataclass(frozen=True)
class Eigenpairs:
    """One eigenpair per example.

    Args:
        values: Shape (n,): the Rayleigh quotients v^T H v.
        vectors: The shape of the start: unit vectors v.
        residuals: Shape (n,): ||H v - value v||, from a product of its own; some eigenvalue lies within this distance.
        scales: Shape (n,): the largest magnitude among the Ritz values, a lower estimate of ||H||.
        steps: Shape (n,): Lanczos steps, each one product.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    scales: Tensor
    steps: Tensor


def largest_eigenpairs(product: Callable[[Tensor], Tensor], start: Tensor, *, steps: int, tol: float) -> Eigenpairs:
    """Find the algebraically largest eigenvalue of each example's operator by Lanczos' method.

    Power iteration converges to the eigenvalue of largest magnitude, which may be a negative one, and slowly where two
    are close; Lanczos has both ends of the spectrum from the same products. Bases are orthogonalised in full, twice.
    An example's result is the one of the step at which its own estimate met ``tol``, so it does not depend on how long
    the others of the batch went on.

    Args:
        product: Maps vectors, shape (n, ...), to the products of n symmetric operators with them.
        start: Shape (n, ...): where to start, nowhere zero; random ones meet every eigenvector with probability 1.
        steps: The most Lanczos steps, >= 1; memory grows with it. More than the number of values are never needed.
        tol: Stop where the residual's estimate falls to what ``tolerated`` allows.

    Returns:
        The eigenpairs; one more product than steps is spent, on the residuals.
    """
    last = min(steps, start[0].numel())
    basis = [unit(start)]
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    done = torch.zeros(len(start), dtype=torch.int64)
    for k in range(1, last + 1):
        image = product(basis[-1])
        alphas.append(dot(basis[-1], image))
        rest = _orthogonalised(_orthogonalised(image, basis), basis)
        betas.append(norms(rest))
        values, weights = _ritz(alphas, betas)
        allowed = tolerated(values[:, -1], values.abs().amax(dim=1), tol=tol, dtype=start.dtype)
        small = betas[-1].double().cpu() * weights[:, -1, -1].abs() <= allowed
        done = torch.where((done == 0) & (small | (k == last)), k, done)
        if bool((done > 0).all()):
            break
        basis.append(unit(rest))  # 0 where the Krylov space is exhausted: that example is done
    vectors, scales = _chosen(basis, alphas, betas, done)
    image = product(vectors)
    found = dot(vectors, image)
    return Eigenpairs(found, vectors, norms(image - scaled(vectors, found)), scales, done)


def tolerated(values: Tensor, scales: Tensor, *, tol: float, dtype: torch.dtype) -> Tensor:
    """Return the residuals at which eigenvalues count as found.

    It is the eigenvalue's own magnitude that counts: next to a large negative end of the spectrum, any vector of the
    null space has a residual that is small against ||H||.

    Args:
        values: Shape (n,): the eigenvalues.
        scales: Shape (n,): estimates of ||H||.
        tol: A residual may be this share of the eigenvalue's magnitude, or what is rounding to ||H||, if that is more.
        dtype: The precision that the rounding is of.
    """
    return torch.maximum(tol * values.abs(), _ROUNDING * torch.finfo(dtype).eps * scales)


def _orthogonalised(vectors: Tensor, basis: list[Tensor]) -> Tensor:
    for one in basis:
        vectors = vectors - scaled(one, dot(one, vectors))
    return vectors


def _ritz(alphas: list[Tensor], betas: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the tridiagonal matrices' eigenvalues, ascending, and eigenvectors, in float64 on the CPU."""
    matrix = torch.diag_embed(torch.stack(alphas, dim=1).double().cpu())
    if len(alphas) > 1:
        beside = torch.stack(betas[: len(alphas) - 1], dim=1).double().cpu()
        matrix = matrix + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


def _chosen(basis: list[Tensor], alphas: list[Tensor], betas: list[Tensor], done: Tensor) -> tuple[Tensor, Tensor]:
    """Return each example's top Ritz vector and largest Ritz value's magnitude, at its own number of steps."""
    vectors, scales = torch.zeros_like(basis[0]), torch.zeros_like(alphas[0])
    for k in sorted(set(done.tolist())):
        values, weights = _ritz(alphas[:k], betas[:k])
        mine = (done == k).to(basis[0].device)
        top = weights[:, :, -1].to(basis[0])
        vector = torch.stack([scaled(basis[j], top[:, j]) for j in range(k)]).sum(dim=0)
        vectors[mine] = unit(vector)[mine]
        scales[mine] = values.abs().amax(dim=1).to(scales)[mine]
    return vectors, scales
