"""Distilled sets: what hosts write, read safely into one form."""

from guard_plugin.distilled.distilled_set import DistilledSet, Normalization
from guard_plugin.distilled.loading import load_untrusted

__all__ = ["DistilledSet", "Normalization", "load_untrusted"]
