"""Distilled sets: what hosts write, read safely into one form."""

from guard_plugin.distilled.distilled_set import DistilledSet
from guard_plugin.distilled.input_space import InputSpace
from guard_plugin.distilled.loading import load_untrusted
from guard_plugin.distilled.normalization import Normalization, UndecidedZca
from guard_plugin.distilled.reading import read_distilled, subject_of
from guard_plugin.distilled.whitening import Whitening, ZcaWhitening

__all__ = [
    "DistilledSet",
    "InputSpace",
    "Normalization",
    "UndecidedZca",
    "Whitening",
    "ZcaWhitening",
    "load_untrusted",
    "read_distilled",
    "subject_of",
]
