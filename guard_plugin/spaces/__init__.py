"""Input spaces: what networks take, pixels that were normalised or whitened."""

from guard_plugin.spaces.input_space import InputSpace, Normalization
from guard_plugin.spaces.whitening import UndecidedZca, Whitening, ZcaWhitening

__all__ = ["InputSpace", "Normalization", "UndecidedZca", "Whitening", "ZcaWhitening"]
