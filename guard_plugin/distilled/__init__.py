"""Distilled sets: what hosts write, read safely into one form."""

from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.distilled.fkd import FkdLabels, Mix, StoredBatch, View
from guard_plugin.distilled.reading import read_distilled, subject_of, subject_of_several
from guard_plugin.files import file_sha256, load_untrusted, read_state
from guard_plugin.spaces import InputSpace, Normalization, UndecidedZca, Whitening, ZcaWhitening

__all__ = [
    "DistilledSet",
    "FkdLabels",
    "InputSpace",
    "Mix",
    "Normalization",
    "StoredBatch",
    "UndecidedZca",
    "View",
    "Whitening",
    "ZcaWhitening",
    "file_sha256",
    "load_untrusted",
    "read_distilled",
    "read_state",
    "subject_of",
    "subject_of_several",
]
