"""CDA: Yin and Shen, "Dataset Distillation via Curriculum Data Synthesis in Large Data Era", TMLR 2024.

It differs from SRe2L in how images are recovered; its teachers, labels and students are SRe2L's.
"""

from collections.abc import Sequence
from pathlib import Path

from guard_adapters.recovered_files import read_recovered
from guard_adapters.squeeze import SETTINGS, SQUEEZE, later_step, our_step
from guard_adapters.sre2l import RECOVERS, STEPS_AFTER_RECOVERY
from guard_plugin import hookimpl
from guard_plugin.distilled import DistilledSet
from guard_plugin.hosts import Adapter

__all__ = ["read_distilled", "register_adapters"]

_CDA = Adapter(
    name="cda",
    host="VILA-Lab/SRe2L, folder CDA (tried at 8d00cba), with zeyuanyin/tiny-imagenet (275c667) or torchvision's "
    "references",
    profiles=(
        *SQUEEZE,
        *(later_step(f"CDA/recover_cda_{data}.py", RECOVERS) for data in ("in1k", "in21k", "tiny")),
        our_step("recover", RECOVERS),
        *STEPS_AFTER_RECOVERY,
    ),
    settings=SETTINGS,
)


@hookimpl
def register_adapters() -> Sequence[Adapter]:
    """Bring the adapter "cda"."""
    return [_CDA]


@hookimpl(trylast=True)  # whoever has a better reader for this host, comes first
def read_distilled(adapter: str, path: Path) -> Sequence[DistilledSet] | None:
    """Read a folder of recovered images."""
    return read_recovered(path) if adapter == _CDA.name else None
