"""Curvature reports in short: quantiles as numbers and as a table, and distributions as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guard_plugin.diagnostics.curvature import CurvatureReport
from guard_plugin.evaluation.tables import text_table
from guard_plugin.files import atomic_file, explain_write_errors
from guard_plugin.optional import require
from guard_plugin.versions import strict_zip

__all__ = ["curvature_table", "draw_curvature", "matplotlib_figure", "summary"]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_ROWS = {"largest": "lambda_1", "surrogate": "surrogate", "cosine": "|cos(z, v1)|", "gradient_norm": "||g||"}
_HISTOGRAMS = {
    "largest": "largest eigenvalue of the input Hessian",
    "surrogate": "||grad l(x + hz) - grad l(x)|| / h",
}
_BINS = 40
_DECADES = 6  # below the largest value; smaller values are drawn in the first bin


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
        "quantiles": dict(strict_zip(map(str, _QUANTILES), quantiles)),
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


def matplotlib_figure() -> Any:
    """Import ``matplotlib.figure``, which draws without a display or global state.

    Raises:
        UnusableInput: If matplotlib is not installed.
    """
    return require("matplotlib.figure", needed_by="a plot")


def draw_curvature(reports: Mapping[str, CurvatureReport], file: Path) -> None:
    """Draw histograms of the largest eigenvalues and of the surrogates, all networks in one figure.

    Args:
        reports: The reports by the network's name.
        file: The PNG to write.

    Raises:
        UnusableInput: If matplotlib is not installed, or the file cannot be written.
    """
    figure = matplotlib_figure().Figure(figsize=(10, 4), layout="constrained")
    for axes, (field, title) in strict_zip(figure.subplots(1, 2), _HISTOGRAMS.items()):
        values = {name: getattr(report, field) for name, report in reports.items()}
        highest = max(float(one.max()) for one in values.values())
        highest = highest if highest > 0 else 1.0
        edges = np.geomspace(highest * 10.0**-_DECADES, highest, _BINS + 1)
        for name, one in values.items():
            clipped = np.clip(one.double().numpy(), edges[0], edges[-1])
            axes.hist(clipped, bins=edges, histtype="step", linewidth=1.5, label=name)
        axes.set_xscale("log")
        axes.set_xlabel(f"{title}\n(values below {edges[0]:.1g} in the first bin)")
        axes.set_ylabel("examples")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", fontsize="small")
    with explain_write_errors(file, "Choose another --out"), atomic_file(file) as stream:
        figure.savefig(stream, format="png", dpi=150)
