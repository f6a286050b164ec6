"""Quantiles against numpy's, and the figure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from guard_plugin.diagnostics import CurvatureReport, curvature_table, draw_curvature, matplotlib_figure, summary


def report(largest: Tensor, cosine: Tensor | None = None) -> CurvatureReport:
    zeros = torch.zeros(len(largest))
    return CurvatureReport(
        loss=zeros,
        gradient_norm=zeros,
        largest=largest,
        residual=zeros,
        converged=torch.arange(len(largest)) > 1,
        steps=zeros.long(),
        surrogate=largest / 2,
        cosine=zeros if cosine is None else cosine,
        h=1.0,
    )


def test_quantiles_are_numpys():
    largest = torch.rand(37)
    found = summary(report(largest))["largest"]["quantiles"]
    expected = {str(q): np.quantile(largest.double().numpy(), q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    assert found == pytest.approx(expected)


def test_examples_that_did_not_converge_are_counted():
    assert summary(report(torch.rand(5)))["not_converged"] == 2


def test_undefined_cosines_are_left_out_and_the_others_counted():
    found = summary(report(torch.rand(3), torch.tensor([math.nan, 0.25, 0.75])))["cosine"]
    assert (found["n"], found["mean"]) == (2, 0.5)


def test_a_cosine_that_is_undefined_everywhere_has_no_quantiles():
    found = summary(report(torch.rand(2), torch.full((2,), math.nan)))
    assert found["cosine"] is None
    assert "undefined" in curvature_table({"a": found})


@pytest.fixture
def axes(monkeypatch, tmp_path):
    """The two axes of a drawn figure."""
    figures = []
    plain = matplotlib_figure().Figure.savefig

    def kept(figure, *arguments, **options):
        figures.append(figure)
        return plain(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib_figure().Figure, "savefig", kept)

    def draw(reports: dict[str, CurvatureReport]):
        draw_curvature(reports, tmp_path / "drawn.png")
        return figures[0].axes

    return draw


def test_every_network_has_a_line_in_both_histograms(axes):
    left, right = axes({"a": report(torch.rand(9)), "b": report(torch.rand(9))})
    assert [len(one.patches) for one in (left, right)] == [2, 2]


def test_every_example_is_drawn_even_where_its_curvature_is_not_positive(axes):
    left, _ = axes({"a": report(torch.tensor([-1.0, 0.0, 1e-12, 0.5, 2.0]))})
    counts = left.patches[0].get_xy()[:, 1]
    assert sorted(counts[counts > 0].tolist())[-1] == 3  # in the first bin


def test_networks_without_any_curvature_can_be_drawn(axes):
    left, _ = axes({"a": report(torch.zeros(3))})
    assert max(left.patches[0].get_xy()[:, 1]) == 3
