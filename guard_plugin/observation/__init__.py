"""Watching a script of a host that nobody prepared: where its losses are, and which of them GUARD belongs to."""

from guard_plugin.observation.proposal import Proposal, propose
from guard_plugin.observation.run import observe_program
from guard_plugin.observation.sites import Group, Observation

__all__ = ["Group", "Observation", "Proposal", "observe_program", "propose"]
