"""The former place of :mod:`guard_plugin.datasets`, for plugins that import from here."""

from guard_plugin.datasets import *  # noqa: F403
