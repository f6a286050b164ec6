"""Distilled sets: what hosts write, read safely into one form."""

from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.distilled.fkd import FkdLabels, Mix, StoredBatch, View
from guard_plugin.distilled.reading import read_distilled, subject_of
from guard_plugin.files import load_untrusted

__all__ = [
    "DistilledSet",
    "FkdLabels",
    "Mix",
    "StoredBatch",
    "View",
    "load_untrusted",
    "read_distilled",
    "subject_of",
]
