"""Curvature of the loss around images, and GUARD's bound on the adversarial loss, measured."""

from guard_plugin.diagnostics.ascent import Ascent, BallAttack
from guard_plugin.diagnostics.bound import bound
from guard_plugin.diagnostics.bound_report import NOTES, BoundReport, ClassBound, bound_table
from guard_plugin.diagnostics.curvature import CurvatureReport, Space, curvature_at, input_curvature
from guard_plugin.diagnostics.features import Features, lipschitz_of_head, penultimate
from guard_plugin.diagnostics.summary import curvature_table, draw_curvature, matplotlib_figure, summary

__all__ = [
    "NOTES",
    "Ascent",
    "BallAttack",
    "BoundReport",
    "ClassBound",
    "CurvatureReport",
    "Features",
    "Space",
    "bound",
    "bound_table",
    "curvature_at",
    "curvature_table",
    "draw_curvature",
    "input_curvature",
    "lipschitz_of_head",
    "matplotlib_figure",
    "penultimate",
    "summary",
]
