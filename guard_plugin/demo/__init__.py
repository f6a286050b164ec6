"""``guard demo``: the whole way on small real images, baseline and GUARD side by side."""

from guard_plugin.demo.methods import baseline_folder
from guard_plugin.demo.runner import run_demo
from guard_plugin.demo.settings import METHODS, DcSettings, DemoSettings, RecoverySettings, settings_for

__all__ = ["METHODS", "DcSettings", "DemoSettings", "RecoverySettings", "baseline_folder", "run_demo", "settings_for"]
