"""Distilled sets: what hosts write, read safely into one form."""

from guard_plugin.distilled.distilled_set import DistilledSet, Normalization
from guard_plugin.distilled.loading import load_untrusted
from guard_plugin.distilled.reading import read_distilled, subject_of

__all__ = ["DistilledSet", "Normalization", "load_untrusted", "read_distilled", "subject_of"]
