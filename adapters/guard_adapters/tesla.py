"""TESLA: Cui et al., "Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory", ICML 2023."""

from guard_adapters.hooks import hooks_of
from guard_adapters.recommended import SETTINGS, SETTINGS_FOR
from guard_adapters.trajectories import buffer_profile, distill_profile
from guard_adapters.trajectory_files import read_trajectory_sets
from guard_plugin.hosts import Adapter

__all__ = ["read_distilled", "register_adapters"]

_TESLA = Adapter(
    name="tesla",
    host="justincui03/tesla (tried at 488842e)",
    profiles=(buffer_profile("buffer.py"), distill_profile("distill.py")),
    settings=SETTINGS,
    settings_for=SETTINGS_FOR,
)

register_adapters, read_distilled = hooks_of(_TESLA, read_trajectory_sets)
