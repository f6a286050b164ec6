"""Curvature reports in short: quantiles, as numbers and as a table."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from guard_plugin.diagnostics.curvature import CurvatureReport
from guard_plugin.evaluation.tables import text_table

__all__ = ["curvature_table", "summary"]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

_ROWS = {"largest": "lambda_1", "surrogate": "surrogate", "cosine": "|cos(z, v1)|", "gradient_norm": "||g||"}


def summary(report: CurvatureReport) -> dict[str, Any]:
    """Compute means and quantiles of the values that are defined, and count the examples that did not converge.

    Args:
        report: A report of n >= 1 examples.

    Returns:
        The numbers, for JSON; None for the cosine where it is undefined for all examples.
    """
    return {
        "n": len(report.largest),
        "not_converged": int((~report.converged).sum()),
        **{name: _spread(getattr(report, name)) for name in _ROWS},
    }


def _spread(values: Tensor) -> dict[str, Any] | None:
    defined = values[~values.isnan()].double()
    if not len(defined):
        return None
    quantiles = torch.quantile(defined, torch.tensor(_QUANTILES, dtype=torch.float64)).tolist()
    return {
        "n": len(defined),
        "mean": float(defined.mean()),
        "quantiles": dict(zip(map(str, _QUANTILES), quantiles, strict=True)),
    }


def curvature_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out the summaries of several networks, one below the other, as lines of text.

    Args:
        summaries: What ``summary`` returned, by the network's name.
    """
    header = ("", "mean", *(f"{q:.0%}" for q in _QUANTILES))
    return "\n\n".join(
        f"{name}: {one['n']} examples, of which {one['not_converged']} did not converge\n"
        + text_table([header, *((title, *_cells(one[row])) for row, title in _ROWS.items())])
        for name, one in summaries.items()
    )


def _cells(spread: Mapping[str, Any] | None) -> list[str]:
    if spread is None:
        return ["undefined", *[""] * len(_QUANTILES)]
    return [f"{value:.4g}" for value in (spread["mean"], *spread["quantiles"].values())]
