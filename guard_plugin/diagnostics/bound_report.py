"""Both sides of GUARD's bound as values, JSON and a table."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from guard_plugin.diagnostics.curvature import Space
from guard_plugin.evaluation.tables import text_table

__all__ = ["NOTES", "ROUNDED_UP", "BoundReport", "ClassBound", "bound_table"]

ROUNDED_UP = 1 + 1e-5
"""The factor by which float32's rounding may lift a loss or a distance above its bound."""

NOTES = (
    "The adversarial losses are what an attack found: lower estimates. A violation is certain, up to that of the other "
    "terms; that the inequality held is not proved.",
    "The proposition speaks of the quadratic model of the loss. Where the real images' own adversarial loss is above "
    "what that model allows (loss, gradient and curvature term), the expansion fails at this rho.",
    "The proposition assumes that the loss is convex in the input, that the features are invertible and linear, and "
    "that the adversarial loss is L-Lipschitz in them. Penultimate features are neither linear nor invertible. For "
    "these, L is exact for the clean loss, and taken for the adversarial one. For others it is the largest slope "
    "between two examples: a lower estimate.",
    "Eq. 8 drops the gradient term of Proposition 1 (Eq. 7): gradients on real images are taken to be small.",
)
"""What a reader of the numbers has to know."""


@dataclass(frozen=True)
class ClassBound:
    """Both sides for one class; each value is a mean over its real or its distilled images.

    Args:
        label: The class c.
        n_real: Real images.
        n_distilled: Distilled images.
        loss: E l(x) on real images.
        gradient_norm: E ||grad l(x)||_2 on real images.
        curvature: E lambda_1(x) on real images.
        not_converged: On how many of them lambda_1 did not converge.
        gradient_term: rho times ``gradient_norm``.
        curvature_term: rho^2 / 2 times E max(lambda_1(x), 0).
        lipschitz: L.
        sigma: Mean of ||f(x') - E f(x)||_2 over distilled images.
        distance_of_means: ||E f(x') - E f(x)||_2, what distribution matching makes small; at most ``sigma``. The bound
            is about single images x', each at its own distance, so it needs ``sigma``.
        adversarial_loss: Mean of the largest loss that the attack found around each distilled image.
        adversarial_loss_real: The same around real images.
        images_held: Distilled images whose own adversarial loss stays below Eq. 8 with their own sigma.
        images_held_with_gradient: The same for Eq. 7, which has the gradient term.
    """

    label: int
    n_real: int
    n_distilled: int
    loss: float
    gradient_norm: float
    curvature: float
    not_converged: int
    gradient_term: float
    curvature_term: float
    lipschitz: float
    sigma: float
    distance_of_means: float
    adversarial_loss: float
    adversarial_loss_real: float
    images_held: int
    images_held_with_gradient: int

    @property
    def right(self) -> float:
        """The right side of Eq. 8: loss, curvature term and L sigma."""
        return self.loss + self.curvature_term + self.lipschitz * self.sigma

    @property
    def right_with_gradient(self) -> float:
        """The right side of Eq. 7 (Proposition 1), which has the gradient term too."""
        return self.right + self.gradient_term

    @property
    def quadratic(self) -> float:
        """The right side of Eq. 6: the largest mean adversarial loss on real images that the quadratic model allows."""
        return self.loss + self.gradient_term + self.curvature_term

    def to_json(self) -> dict[str, Any]:
        """Return all values and verdicts."""
        return {
            **asdict(self),
            **{name: getattr(self, name) for name in ("right", "right_with_gradient", "quadratic")},
            "held": self.adversarial_loss <= self.right * ROUNDED_UP,
            "held_with_gradient": self.adversarial_loss <= self.right_with_gradient * ROUNDED_UP,
            "quadratic_model_held": self.adversarial_loss_real <= self.quadratic * ROUNDED_UP,
        }


@dataclass(frozen=True)
class BoundReport:
    """Both sides of the bound, per class.

    Args:
        classes: The classes that have real and distilled images.
        missing: The classes that have images of one kind only.
        rho: The ball's L2 radius.
        space: The space that the ball is in.
        lipschitz: Where L comes from: "exact" for penultimate features, "largest slope" for others.
    """

    classes: tuple[ClassBound, ...]
    missing: tuple[int, ...]
    rho: float
    space: Space
    lipschitz: str

    def to_json(self) -> dict[str, Any]:
        """Return settings, classes and notes."""
        settings = {"rho": self.rho, "space": self.space, "lipschitz": self.lipschitz, "missing": list(self.missing)}
        return {**settings, "classes": [one.to_json() for one in self.classes], "notes": list(NOTES)}


_COLUMNS = {
    "label": "class",
    "loss": "E l",
    "gradient_term": "rho E||g||",
    "curvature_term": "rho^2/2 E l1",
    "lipschitz": "L",
    "sigma": "sigma",
    "right": "right",
    "right_with_gradient": "+ grad.",
    "adversarial_loss": "adv. x'",
    "held": "held",
    "held_with_gradient": "+ grad.",
    "adversarial_loss_real": "adv. x",
    "quadratic": "model",
}


def bound_table(report: BoundReport) -> str:
    """Lay out both sides of the bound as lines of text: a line per class, then the verdicts and the notes on them.

    Args:
        report: What ``bound`` returned.
    """
    classes = report.classes
    verdicts = [one.to_json() for one in classes]
    n, images = len(classes), sum(one.n_distilled for one in classes)
    share = sum(one.lipschitz * one.sigma / one.right for one in classes) / n

    def count(key: str) -> int:
        return sum(verdict[key] for verdict in verdicts)

    return "\n".join(
        [
            text_table([tuple(_COLUMNS.values()), *([_cell(one[name]) for name in _COLUMNS] for one in verdicts)]),
            "",
            f"held, Eq. 8: {count('held')} of {n} classes, {count('images_held')} of {images} distilled images",
            f"held, Eq. 7, with the gradient term: {count('held_with_gradient')} of {n} classes, "
            f"{count('images_held_with_gradient')} of {images} distilled images",
            f"the quadratic model, Eq. 6, held on real images: {count('quadratic_model_held')} of {n} classes",
            f"L sigma is {share:.0%} of the right side, on average over the classes",
            f"lambda_1 did not converge on {count('not_converged')} of {count('n_real')} real images",
            f"L: {report.lipschitz}; rho: {report.rho:g} in {report.space} space"
            + (f"; classes without real or without distilled images: {report.missing}" if report.missing else ""),
            *(textwrap.fill(note, 118, initial_indent="- ", subsequent_indent="  ") for note in NOTES),
        ]
    )


def _cell(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else f"{value:.3g}"
