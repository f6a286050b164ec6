"""Attacks in pixel space, which check the examples that they are given and audit those that they return."""

from guard_plugin.attacks.apgd import APGDCE, APGDT
from guard_plugin.attacks.autoattack import AutoAttack
from guard_plugin.attacks.balls import AuditFailure, Eps, Norm, parse_eps
from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier, Loss
from guard_plugin.attacks.criteria import Criterion, Goal
from guard_plugin.attacks.cw import CW
from guard_plugin.attacks.fab import FABT
from guard_plugin.attacks.fgsm import FGSM
from guard_plugin.attacks.mim import MIM
from guard_plugin.attacks.official import OfficialAutoAttack, OfficialCW, OfficialMIM, OfficialPGD, OfficialSquare
from guard_plugin.attacks.pgd import PGD
from guard_plugin.attacks.randomness import example_generator, uniform_per_example
from guard_plugin.attacks.registry import ATTACKS, PRESETS, builtin_registry, check_classes, parse_attacks, parse_radii
from guard_plugin.attacks.square import Square

__all__ = [
    "APGDCE",
    "APGDT",
    "ATTACKS",
    "CW",
    "FABT",
    "FGSM",
    "MIM",
    "PGD",
    "PRESETS",
    "Attack",
    "AuditFailure",
    "AutoAttack",
    "Classifier",
    "Criterion",
    "Eps",
    "Goal",
    "Loss",
    "Norm",
    "OfficialAutoAttack",
    "OfficialCW",
    "OfficialMIM",
    "OfficialPGD",
    "OfficialSquare",
    "Square",
    "builtin_registry",
    "check_classes",
    "example_generator",
    "parse_attacks",
    "parse_eps",
    "parse_radii",
    "uniform_per_example",
]
