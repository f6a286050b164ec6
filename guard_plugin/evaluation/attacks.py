"""The former place of :mod:`guard_plugin.attacks`, for plugins that import from here."""

from guard_plugin.attacks import *  # noqa: F403
