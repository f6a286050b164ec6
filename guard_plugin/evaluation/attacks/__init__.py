"""Attacks in pixel space: each example checked before, and audited after."""

from guard_plugin.evaluation.attacks.audit import AuditFailure
from guard_plugin.evaluation.attacks.base import Attack, Classifier
from guard_plugin.evaluation.attacks.eps import Eps, parse_eps
from guard_plugin.evaluation.attacks.fgsm import FGSM
from guard_plugin.evaluation.attacks.gradients import cross_entropy_gradient
from guard_plugin.evaluation.attacks.pgd import PGD
from guard_plugin.evaluation.attacks.randomness import uniform_per_example
from guard_plugin.evaluation.attacks.registry import ATTACKS, PRESETS, builtin_registry, parse_attacks

__all__ = [
    "ATTACKS",
    "FGSM",
    "PGD",
    "PRESETS",
    "Attack",
    "AuditFailure",
    "Classifier",
    "Eps",
    "builtin_registry",
    "cross_entropy_gradient",
    "parse_attacks",
    "parse_eps",
    "uniform_per_example",
]
