"""Penalties: terms that the loss on real data receives, added to it or in its place."""

from guard_plugin.penalties.adversarial import FastTraining, PgdTraining, Trades
from guard_plugin.penalties.base import LossFunction, Penalty
from guard_plugin.penalties.curvature import Curvature, curvature_penalty
from guard_plugin.penalties.gradient_norm import GradientNorm
from guard_plugin.penalties.sizes import scale_h, scale_strength
from guard_plugin.penalties.undisturbed import undisturbed

__all__ = [
    "Curvature",
    "FastTraining",
    "GradientNorm",
    "LossFunction",
    "Penalty",
    "PgdTraining",
    "Trades",
    "curvature_penalty",
    "scale_h",
    "scale_strength",
    "undisturbed",
]
