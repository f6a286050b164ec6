"""Injection: how the penalty gets into a running host, and how it is proved that it did.

Adapters of other distributions import :mod:`guard_plugin.hosts`' names from here too.
"""

from guard_plugin.hosts import (
    MODULE_LEVEL,
    Adapter,
    ExpectedCount,
    Fault,
    Profile,
    RefusedOption,
    Seam,
    UnguardedOption,
)
from guard_plugin.injection.account.ledger import Ledger
from guard_plugin.injection.calls.loss_call import LossCall

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
