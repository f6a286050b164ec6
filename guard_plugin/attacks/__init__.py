"""Attacks in pixel space: each example checked before, and audited after."""

from guard_plugin.attacks.apgd import APGDCE, APGDT
from guard_plugin.attacks.audit import AuditFailure
from guard_plugin.attacks.autoattack import AutoAttack
from guard_plugin.attacks.base import Attack
from guard_plugin.attacks.classifier import Classifier, Loss
from guard_plugin.attacks.criteria import Goal
from guard_plugin.attacks.cw import CW
from guard_plugin.attacks.eps import Eps, parse_eps
from guard_plugin.attacks.fab import FABT
from guard_plugin.attacks.fgsm import FGSM
from guard_plugin.attacks.mim import MIM
from guard_plugin.attacks.norms import Norm
from guard_plugin.attacks.official import (
    OfficialAutoAttack,
    OfficialCW,
    OfficialMIM,
    OfficialPGD,
    OfficialSquare,
)
from guard_plugin.attacks.pgd import PGD
from guard_plugin.attacks.presets import PRESETS
from guard_plugin.attacks.randomness import example_generator, uniform_per_example
from guard_plugin.attacks.registry import (
    ATTACKS,
    builtin_registry,
    check_classes,
    parse_attacks,
    parse_radii,
)
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
