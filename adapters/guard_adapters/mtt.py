"""MTT and its descendants: Cazenavette et al., "Dataset Distillation by Matching Training Trajectories", CVPR 2022.

Also FTD (Du et al., CVPR 2023) and DATM (Guo et al., ICLR 2024), whose experts train with a sharpness-aware optimizer.
"""

from guard_adapters.hooks import hooks_of
from guard_adapters.recommended import SETTINGS, SETTINGS_FOR
from guard_adapters.trajectories import buffer_profile, distill_profile, no_augmentation
from guard_adapters.trajectory_files import read_trajectory_sets
from guard_plugin.hosts import Adapter, Profile
from guard_plugin.hosts.faults import cuda_only

__all__ = ["read_distilled", "register_adapters"]

# FTD's and DATM's scripts lie a folder below the modules that they import, and say so relative to the current folder.
_BELOW = ("..",)
_BASELINE = "utils/utils_baseline.py"

_MTT = Adapter(
    name="mtt",
    host="GeorgeCazenavette/mtt-distillation (tried at 50dccea), AngusDujw/FTD-distillation (711532a), "
    "NUS-HPC-AI-Lab/DATM (97ae510)",
    profiles=(
        buffer_profile("buffer.py"),
        distill_profile("distill.py"),
        buffer_profile("buffer/buffer_FTD.py", "utils.utils_gsam", losses_per_step=2, roots=_BELOW),
        *(
            distill_profile(f"distill/{name}.py", _BASELINE, roots=_BELOW)
            for name in ("distill_FTD", "DATM", "DATM_tesla")
        ),
        Profile(
            "distill/evaluation.py",
            unguarded="it evaluates images that were distilled before",
            roots=_BELOW,
            faults=(*cuda_only(_BASELINE), no_augmentation("distill/evaluation.py")),
        ),
    ),
    settings=SETTINGS,
    settings_for=SETTINGS_FOR,
)

register_adapters, read_distilled = hooks_of(_MTT, read_trajectory_sets)
