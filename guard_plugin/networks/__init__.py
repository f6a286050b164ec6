"""Networks: built by name, loaded from checkpoints, and checked before they are attacked."""

from guard_plugin.networks.architectures import ARCHITECTURES, build_network
from guard_plugin.networks.checkpoints import checkpoint_subject, load_checkpoint
from guard_plugin.networks.pixel_model import PixelModel, check_classifier, check_mode, finite_logits

__all__ = [
    "ARCHITECTURES",
    "PixelModel",
    "build_network",
    "check_classifier",
    "check_mode",
    "checkpoint_subject",
    "finite_logits",
    "load_checkpoint",
]
