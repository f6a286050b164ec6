"""Penalties: what is added to the loss on real data."""

from guard_plugin.penalties.base import LossFunction, Penalty
from guard_plugin.penalties.curvature import Curvature, curvature_penalty, scale_h
from guard_plugin.penalties.undisturbed import undisturbed

__all__ = ["Curvature", "LossFunction", "Penalty", "curvature_penalty", "scale_h", "undisturbed"]
