"""Distilled sets: what hosts write, read safely into one form."""

from guard_plugin.distilled.checkpoints import read_state
from guard_plugin.distilled.digests import file_sha256
from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.distilled.fkd import FkdLabels, StoredBatch
from guard_plugin.distilled.input_space import InputSpace
from guard_plugin.distilled.loading import load_untrusted
from guard_plugin.distilled.normalization import Normalization, UndecidedZca
from guard_plugin.distilled.reading import read_distilled, subject_of
from guard_plugin.distilled.views import Mix, View
from guard_plugin.distilled.whitening import Whitening, ZcaWhitening

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
]
