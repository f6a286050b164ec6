"""The check that every returned adversarial example passes."""

import torch
from torch import Tensor

from guard_plugin.attacks.norms import Norm, distance
from guard_plugin.errors import GuardError

__all__ = ["TOLERANCE", "AuditFailure", "audit_examples"]

TOLERANCE = 1e-6
"""Slack on the norm, for the rounding of float32 pixels."""


class AuditFailure(GuardError):
    """An attack returned something that it was not allowed to return."""


def audit_examples(attack: str, pixels: Tensor, adversarial: Tensor, eps: float, norm: Norm = "linf") -> None:
    """Check examples against the ball of radius ``eps`` around ``pixels``, and the pixel range.

    Args:
        attack: Its name, for the message.
        pixels: Shape (n, channels, height, width), in [0, 1].
        adversarial: What the attack returned for them.
        eps: The radius, in pixel units.
        norm: Of the ball.

    Raises:
        AuditFailure: If shape or type differ, or any value is not finite, outside [0, 1] or outside the ball.
    """
    if adversarial.shape != pixels.shape or adversarial.dtype != pixels.dtype:
        raise AuditFailure(
            f"attack {attack} returned shape {tuple(adversarial.shape)} of {adversarial.dtype} "
            f"for pixels of shape {tuple(pixels.shape)} of {pixels.dtype}"
        )
    if not bool(torch.isfinite(adversarial).all()):
        raise AuditFailure(
            f"attack {attack} returned values that are not finite: either it is broken, or the model's gradient is NaN"
        )
    low, high = float(adversarial.min()), float(adversarial.max())
    if low < 0 or high > 1:
        raise AuditFailure(f"attack {attack} left the pixel range [0, 1]: values from {low:.6g} to {high:.6g}")
    farthest = float(distance(norm, adversarial, pixels).max())
    if farthest > eps + TOLERANCE:
        raise AuditFailure(f"attack {attack} left its ball: {norm} distance {farthest:.8g} where eps is {eps:.8g}")
