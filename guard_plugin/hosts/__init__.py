"""Hosts: what is known of a distillation repository, told from its source and its variables alone."""

from guard_plugin.hosts.adapter import Adapter
from guard_plugin.hosts.faults import Fault
from guard_plugin.hosts.profile import ExpectedCount, Profile, RefusedOption, UnguardedOption
from guard_plugin.hosts.seams import MODULE_LEVEL, Seam

__all__ = ["MODULE_LEVEL", "Adapter", "ExpectedCount", "Fault", "Profile", "RefusedOption", "Seam", "UnguardedOption"]
