"""Input spaces: what networks are fed, pixels that were normalised or whitened."""

from guard_plugin.spaces.input_space import InputSpace
from guard_plugin.spaces.normalization import Normalization, UndecidedZca
from guard_plugin.spaces.whitening import Whitening, ZcaWhitening

__all__ = ["InputSpace", "Normalization", "UndecidedZca", "Whitening", "ZcaWhitening"]
