"""Curvature reports in short: quantiles, as numbers and as a table."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from guard_plugin.diagnostics.curvature import CurvatureReport
from guard_plugin.evaluation.tables import text_table

__all__ = ["QUANTILES", "curvature_table", "summary"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

_ROWS = {"largest": "lambda_1", "surrogate": "surrogate", "cosine": "|cos(z, v1)|", "gradient_norm": "||g||"}


def summary(report: CurvatureReport) -> dict[str, Any]:
    """Means and quantiles of what is defined, and how many examples did not converge.

    Args:
        report: Of n >= 1 examples.

    Returns:
        For JSON; of the cosine, which may be undefined everywhere, None.
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
    quantiles = torch.quantile(defined, torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
    return {
        "n": len(defined),
        "mean": float(defined.mean()),
        "quantiles": {str(q): value for q, value in zip(QUANTILES, quantiles, strict=True)},
    }


def curvature_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay the summaries of several networks out, one below the other.

    Args:
        summaries: What ``summary`` returned, by the network's name.

    Returns:
        Lines of text.
    """
    return "\n\n".join(f"{_headline(name, one)}\n{_table(one)}" for name, one in summaries.items())


def _headline(name: str, one: Mapping[str, Any]) -> str:
    return f"{name}: {one['n']} examples, of which {one['not_converged']} did not converge"


def _table(one: Mapping[str, Any]) -> str:
    rows = [(title, *_cells(one[row])) for row, title in _ROWS.items()]
    return text_table([("", "mean", *(f"{q:.0%}" for q in QUANTILES)), *rows])


def _cells(spread: Mapping[str, Any] | None) -> list[str]:
    if spread is None:
        return ["undefined", *[""] * len(QUANTILES)]
    return [f"{value:.4g}" for value in (spread["mean"], *spread["quantiles"].values())]
