import pytest
import torch
from pyautoattack import fab_projections

from guard_plugin.attacks.projections import project_l2, project_linf

OURS_AND_THEIRS = [(project_linf, fab_projections.projection_linf), (project_l2, fab_projections.projection_l2)]


@pytest.mark.parametrize(("ours", "theirs"), OURS_AND_THEIRS)
@pytest.mark.parametrize("size", [5, 48, 100])
def test_steps_are_elementwise_those_of_pyautoattack(ours, theirs, size):
    """On hyperplanes through the box, far beyond it, through the point, and with weights of 0; many values tie."""
    torch.manual_seed(size)
    points = (torch.rand(400, size) * 4).round() / 4
    weights = torch.randn(400, size)
    weights[::3, ::2] = 0
    through = (weights * torch.rand(400, size)).sum(1)
    offsets = torch.where(torch.arange(400) % 2 == 0, through, through + 2 * weights.abs().sum(1))
    offsets[:40] = (weights * points).sum(1)[:40]
    steps = ours(points, weights, offsets)
    assert torch.equal(steps, theirs(points, weights.clone(), offsets.clone()))
    off = ((points + steps) * weights).sum(1) - offsets
    assert 0.2 < (off.abs() < 1e-3).float().mean() < 0.95
    assert (points + steps).min() > -1e-6 and (points + steps).max() < 1 + 1e-6
