"""The distributions of curvature, overlaid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from guard_plugin.diagnostics.curvature import CurvatureReport
from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file
from guard_plugin.optional import require

__all__ = ["draw_curvature", "matplotlib_figure"]

_BINS = 40
_DECADES = 6  # below the largest value; smaller values are drawn in the first bin


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
    left, right = figure.subplots(1, 2)
    _histograms(left, {name: one.largest for name, one in reports.items()}, "largest eigenvalue of the input Hessian")
    _histograms(right, {name: one.surrogate for name, one in reports.items()}, "||grad l(x + hz) - grad l(x)|| / h")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", fontsize="small")
    try:
        with atomic_file(file) as stream:
            figure.savefig(stream, format="png", dpi=150)
    except OSError as error:
        raise UnusableInput(f"cannot write {file}: {error}. Choose another --out") from error


def _histograms(axes: Any, values: Mapping[str, Tensor], title: str) -> None:
    highest = max(float(one.max()) for one in values.values())
    highest = highest if highest > 0 else 1.0
    edges = np.geomspace(highest * 10.0**-_DECADES, highest, _BINS + 1)
    for name, one in values.items():
        clipped = np.clip(one.double().numpy(), edges[0], edges[-1])
        axes.hist(clipped, bins=edges, histtype="step", linewidth=1.5, label=name)
    axes.set_xscale("log")
    axes.set_xlabel(f"{title}\n(values below {edges[0]:.1g} in the first bin)")
    axes.set_ylabel("examples")
