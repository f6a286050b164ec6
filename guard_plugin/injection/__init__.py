"""Injection: how the penalty gets into a running host, and how it is proved that it did."""

from guard_plugin.injection.adapter import Adapter
from guard_plugin.injection.faults import Fault
from guard_plugin.injection.ledger import Ledger
from guard_plugin.injection.loss_call import LossCall
from guard_plugin.injection.profile import Profile, RefusedOption, UnguardedOption
from guard_plugin.injection.seams import MODULE_LEVEL, Seam
from guard_plugin.injection.told import ExpectedCount

__all__ = [
    "MODULE_LEVEL",
    "Adapter",
    "ExpectedCount",
    "Fault",
    "Ledger",
    "LossCall",
    "Profile",
    "RefusedOption",
    "Seam",
    "UnguardedOption",
]
