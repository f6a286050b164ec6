"""What is reported of both sides of GUARD's bound."""

import textwrap
from dataclasses import asdict, dataclass
from typing import Any, overload

from torch import Tensor

from guard_plugin.diagnostics.curvature import Space
from guard_plugin.evaluation.tables import text_table

__all__ = ["NOTES", "BoundReport", "ClassBound", "at_most", "bound_table"]

_ROUNDING = 1e-5  # relative, of losses in float32

NOTES = (
    "The adversarial losses are what an attack found: lower estimates. A violation is certain, up to that of the other "
    "terms; that the inequality held is not proved.",
    "The proposition speaks of the quadratic model of the loss. Where the real images' own adversarial loss is above "
    "what that model allows (loss, gradient and curvature term), the expansion fails at this rho.",
    "The proposition assumes that the adversarial loss is convex and L-Lipschitz in the features. For penultimate "
    "features and a linear last layer this is so for the clean loss, and L is exact for it; for the adversarial loss "
    "it is an assumption. For other features L is the largest slope between two examples: a lower estimate.",
    "The bound as the authors' page prints it has no gradient term, which the quadratic model has: that takes for "
    "granted that the gradient on real images is small.",
)
"""What a reader of the numbers has to know."""


@overload
def at_most(left: float, right: float) -> bool: ...
@overload
def at_most(left: Tensor, right: Tensor) -> Tensor: ...
def at_most(left: float | Tensor, right: float | Tensor) -> bool | Tensor:
    """Whether left <= right, both >= 0, up to the rounding of float32."""
    return left <= right * (1 + _ROUNDING)


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
        sigma: Mean of ||h(x') - E h(x)||_2 over distilled images.
        distance_of_means: ||E h(x') - E h(x)||_2, what distribution matching makes small; at most ``sigma``. The bound
            is about single images x', each at its own distance, so it needs ``sigma``.
        adversarial_loss: Mean of the largest loss that the attack found around each distilled image.
        adversarial_loss_real: The same around real images.
        images_held: Distilled images whose own adversarial loss stays below the bound with their own sigma.
        images_held_with_gradient: The same, with the gradient term.
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
        """The right side as the authors print it: loss, curvature term and L sigma."""
        return self.loss + self.curvature_term + self.lipschitz * self.sigma

    @property
    def right_with_gradient(self) -> float:
        """The right side with the gradient term, which the quadratic model has."""
        return self.right + self.gradient_term

    @property
    def quadratic(self) -> float:
        """What the quadratic model allows the mean adversarial loss on real images at most."""
        return self.loss + self.gradient_term + self.curvature_term

    def to_json(self) -> dict[str, Any]:
        """All values and verdicts."""
        return {
            **asdict(self),
            "right": self.right,
            "right_with_gradient": self.right_with_gradient,
            "quadratic": self.quadratic,
            "held": at_most(self.adversarial_loss, self.right),
            "held_with_gradient": at_most(self.adversarial_loss, self.right_with_gradient),
            "quadratic_model_held": at_most(self.adversarial_loss_real, self.quadratic),
        }


@dataclass(frozen=True)
class BoundReport:
    """Both sides of the bound, per class.

    Args:
        classes: Those with real and with distilled images.
        missing: Classes of which one of the two is missing.
        rho: The ball's L2 radius.
        space: Where the ball is.
        lipschitz: How L was had: "exact" for penultimate features, "largest slope" for others.
    """

    classes: tuple[ClassBound, ...]
    missing: tuple[int, ...]
    rho: float
    space: Space
    lipschitz: str

    def to_json(self) -> dict[str, Any]:
        """Settings, classes and notes."""
        settings = {"rho": self.rho, "space": self.space, "lipschitz": self.lipschitz, "missing": list(self.missing)}
        return {**settings, "classes": [one.to_json() for one in self.classes], "notes": list(NOTES)}


_TERMS = ("E l", "rho E||g||", "rho^2/2 E l1", "L", "sigma")
_HEADER = ("class", *_TERMS, "right", "+ grad.", "adv. x'", "held", "+ grad.", "adv. x", "model")


def bound_table(report: BoundReport) -> str:
    """Lay both sides of the bound out, a line per class, with the verdicts and what has to be known about them.

    Args:
        report: What ``bound`` returned.

    Returns:
        Lines of text.
    """
    verdicts = [one.to_json() for one in report.classes]
    n, images = len(verdicts), sum(one.n_distilled for one in report.classes)
    unfinished = sum(one.not_converged for one in report.classes)

    def count(key: str) -> int:
        return sum(verdict[key] for verdict in verdicts)

    return "\n".join(
        [
            text_table([_HEADER, *map(_row, report.classes)]),
            "",
            f"held, as published: {count('held')} of {n} classes, {count('images_held')} of {images} distilled images",
            f"held, with the gradient term: {count('held_with_gradient')} of {n} classes, "
            f"{count('images_held_with_gradient')} of {images} distilled images",
            f"real images' adversarial loss within the quadratic model: {count('quadratic_model_held')} of {n} classes",
            f"L sigma is {_mean_share(report):.0%} of the right side, on average over the classes",
            f"lambda_1 did not converge on {unfinished} of {sum(one.n_real for one in report.classes)} real images",
            f"L: {report.lipschitz}; rho: {report.rho:g} in {report.space} space"
            + (f"; classes without real or without distilled images: {report.missing}" if report.missing else ""),
            *(textwrap.fill(note, 118, initial_indent="- ", subsequent_indent="  ") for note in NOTES),
        ]
    )


def _mean_share(report: BoundReport) -> float:
    return sum(one.lipschitz * one.sigma / one.right for one in report.classes) / len(report.classes)


def _row(one: ClassBound) -> list[str]:
    verdicts = one.to_json()
    terms = (one.loss, one.gradient_term, one.curvature_term, one.lipschitz, one.sigma)
    sides = (one.right, one.right_with_gradient, one.adversarial_loss)
    return [
        str(one.label),
        *map(_short, (*terms, *sides)),
        *("yes" if verdicts[key] else "no" for key in ("held", "held_with_gradient")),
        *map(_short, (one.adversarial_loss_real, one.quadratic)),
    ]


def _short(value: float) -> str:
    return f"{value:.3g}"
