"""Lanczos' method against torch.linalg.eigh on matrices that are given in full."""

import pytest
import torch
from torch import Tensor

from guard_plugin.diagnostics.lanczos import largest_eigenpairs, tolerated


def symmetric(spectrum: list[float]) -> Tensor:
    basis, _ = torch.linalg.qr(torch.randn(len(spectrum), len(spectrum), dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ basis.T


def solve(matrices: Tensor, *, steps: int = 50, tol: float = 1e-10):
    start = torch.randn(matrices.shape[:2], dtype=torch.float64)
    return largest_eigenpairs(lambda v: torch.einsum("nij,nj->ni", matrices, v), start, steps=steps, tol=tol)


def test_the_algebraically_largest_is_found_where_a_negative_one_is_larger_in_magnitude():
    matrix = symmetric([-9.0, -2.0, 0.5, 1.0, 3.0])
    assert solve(matrix[None]).values.item() == pytest.approx(3.0, abs=1e-9)


def test_a_negative_definite_matrix_has_its_least_negative_eigenvalue():
    assert solve(symmetric([-5.0, -3.0, -1.0])[None]).values.item() == pytest.approx(-1.0, abs=1e-9)


def test_clustered_eigenvalues_agree_with_eigh():
    matrices = torch.stack([symmetric(torch.linspace(0, 1, 30).tolist()) for _ in range(3)])
    found = solve(matrices)
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(matrices)[:, -1], rtol=1e-9, atol=0)


def test_the_vector_is_eighs_up_to_its_sign():
    matrix = symmetric([0.0, 1.0, 2.0, 4.0])
    vector = solve(matrix[None]).vectors[0]
    top = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    torch.testing.assert_close((vector @ top).abs(), torch.ones((), dtype=torch.float64))


def test_a_low_rank_matrix_needs_no_more_steps_than_its_rank_and_one():
    assert int(solve(symmetric([0.0] * 17 + [1.0, 2.0, 3.0])[None], tol=1e-8).steps) <= 4


def test_the_zero_matrix_has_the_eigenvalue_zero_at_once():
    found = solve(torch.zeros(1, 6, 6, dtype=torch.float64))
    assert (found.values.item(), found.residuals.item(), int(found.steps)) == (0.0, 0.0, 1)


def test_a_residual_tells_that_there_were_too_few_steps():
    matrix = symmetric(torch.linspace(0, 1, 40).tolist())
    found = solve(matrix[None], steps=4)
    by_hand = matrix @ found.vectors[0] - found.values[0] * found.vectors[0]
    assert found.residuals.item() == pytest.approx(by_hand.norm().item(), rel=1e-9)
    assert found.residuals.item() > 1e-3


def test_some_eigenvalue_lies_within_the_residual():
    matrix = symmetric(torch.linspace(0, 1, 40).tolist())
    found = solve(matrix[None], steps=4)
    assert (torch.linalg.eigvalsh(matrix) - found.values).abs().min() <= found.residuals.item()


def test_an_example_does_not_depend_on_how_long_the_others_go_on():
    easy, hard = symmetric([0.0] * 37 + [1.0, 2.0, 4.0]), symmetric(torch.linspace(-1, 1, 40).tolist())
    start = torch.randn(2, 40, dtype=torch.float64)

    def solved(chosen: list[int]):
        matrices = torch.stack([easy, hard])[chosen]
        product = lambda v: torch.einsum("nij,nj->ni", matrices, v)  # noqa: E731
        return largest_eigenpairs(product, start[chosen], steps=50, tol=1e-2)

    both, alone = solved([0, 1]), solved([0])
    assert int(both.steps[0]) == int(alone.steps[0]) < int(both.steps[1])
    torch.testing.assert_close(both.residuals[0], alone.residuals[0], rtol=1e-6, atol=1e-12)


def in_float32(diagonal: Tensor, *, n: int = 8, tol: float = 1e-3):
    return largest_eigenpairs(lambda v: v * diagonal, torch.rand(n, len(diagonal)) * 2 - 1, steps=30, tol=tol)


@pytest.mark.parametrize("top", [0.001, 0.003, 0.01, 0.03])
def test_the_null_space_is_not_taken_for_the_top_where_the_negative_end_dominates(top):
    diagonal = torch.zeros(3072)
    diagonal[0], diagonal[1] = -1.0, top
    found = in_float32(diagonal)
    torch.testing.assert_close(found.values, torch.full((8,), top), rtol=1e-2, atol=0)


def test_a_top_of_zero_stops_at_what_is_rounding_next_to_the_operators_norm():
    diagonal = torch.zeros(3072)
    diagonal[0] = -1.0
    found = in_float32(diagonal)
    assert int(found.steps.max()) <= 3
    assert found.residuals.le(tolerated(found.values, found.scales, tol=1e-3, dtype=torch.float32)).all()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_float32_eigenvalues_whose_squares_leave_its_range_are_found(size):
    found = in_float32(torch.tensor([size, size / 2, 0.0, 0.0]))
    torch.testing.assert_close(found.values / size, torch.ones(8), rtol=1e-5, atol=0)
