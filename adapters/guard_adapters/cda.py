"""CDA: Yin and Shen, "Dataset Distillation via Curriculum Data Synthesis in Large Data Era", TMLR 2024.

It differs from SRe2L in how images are recovered; its teachers, labels and students are SRe2L's.
"""

from guard_adapters.hooks import hooks_of
from guard_adapters.recommended import SETTINGS, SETTINGS_FOR
from guard_adapters.recovered_files import read_recovered
from guard_adapters.squeeze import ARCH, IMAGENET, RECOVER, SQUEEZE, TINY
from guard_adapters.sre2l import STEPS_AFTER_RECOVERY
from guard_plugin.hosts import Adapter

__all__ = ["read_distilled", "register_adapters"]

_CDA = Adapter(
    name="cda",
    host="VILA-Lab/SRe2L, folder CDA (tried at 8d00cba), with zeyuanyin/tiny-imagenet (275c667) or torchvision's "
    "references",
    profiles=(
        *SQUEEZE,
        RECOVER.profile("CDA/recover_cda_in1k.py", about=IMAGENET),
        RECOVER.profile("CDA/recover_cda_in21k.py", about=ARCH),
        RECOVER.profile("CDA/recover_cda_tiny.py", about=TINY),
        RECOVER.ours("recover"),
        *STEPS_AFTER_RECOVERY,
    ),
    settings=SETTINGS,
    settings_for=SETTINGS_FOR,
)

register_adapters, read_distilled = hooks_of(_CDA, read_recovered)
