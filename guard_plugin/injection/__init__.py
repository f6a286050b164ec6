"""Injection: how the penalty gets into a running host, and how it is proved that it did."""

from guard_plugin.injection.adapter import Adapter, ExpectedCount, Profile
from guard_plugin.injection.ledger import Ledger
from guard_plugin.injection.loss_call import LossCall
from guard_plugin.injection.seams import MODULE_LEVEL, Seam

__all__ = ["MODULE_LEVEL", "Adapter", "ExpectedCount", "Ledger", "LossCall", "Profile", "Seam"]
