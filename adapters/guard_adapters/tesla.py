"""TESLA: Cui et al., "Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory", ICML 2023."""

from collections.abc import Sequence
from pathlib import Path

from guard_adapters.trajectories import buffer_profile, distill_profile
from guard_adapters.trajectory_files import read_trajectory_sets
from guard_plugin import hookimpl
from guard_plugin.distilled import DistilledSet
from guard_plugin.hosts import Adapter

__all__ = ["read_distilled", "register_adapters"]

_TESLA = Adapter(
    name="tesla",
    host="justincui03/tesla (tried at 488842e)",
    profiles=(buffer_profile("buffer.py"), distill_profile("distill.py")),
    settings={"gradient": {"h": 0.43, "strength": 1.0}, "loss": {"h": 0.43, "strength": 1.0}},
)


@hookimpl
def register_adapters() -> Sequence[Adapter]:
    """Bring the adapter "tesla"."""
    return [_TESLA]


@hookimpl(trylast=True)  # whoever has a better reader for this host, comes first
def read_distilled(adapter: str, path: Path) -> Sequence[DistilledSet] | None:
    """Read images, labels and learning rates of a run: a folder, or one of its ``images_*.pt``."""
    return read_trajectory_sets(path) if adapter == _TESLA.name else None
