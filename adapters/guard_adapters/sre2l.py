"""SRe2L: Yin, Xing and Shen, "Squeeze, Recover and Relabel", NeurIPS 2023."""

from guard_adapters.hooks import hooks_of
from guard_adapters.recommended import SETTINGS, SETTINGS_FOR
from guard_adapters.recovered_files import read_recovered
from guard_adapters.squeeze import IMAGENET, RECOVER, RELABEL, SQUEEZE, TINY, VALIDATE
from guard_plugin.hosts import Adapter

__all__ = ["STEPS_AFTER_RECOVERY", "read_distilled", "register_adapters"]

STEPS_AFTER_RECOVERY = (
    VALIDATE.profile("SRe2L/*small_dataset/relabel_cifar.py"),
    RELABEL.profile("SRe2L/relabel/generate_soft_label.py"),
    # They import from the folder above theirs, which they put on the path relative to the current one.
    *(VALIDATE.profile(f"SRe2L/validate/train_{labels}.py", roots=("..",)) for labels in ("FKD", "KD")),
    VALIDATE.profile("classification/train_kd.py"),
    RELABEL.ours("relabel"),
    VALIDATE.ours("validate"),
)

_SRE2L = Adapter(
    name="sre2l",
    host="VILA-Lab/SRe2L (tried at 8d00cba), with zeyuanyin/tiny-imagenet (275c667) or torchvision's references",
    profiles=(
        *SQUEEZE,
        RECOVER.profile("SRe2L/*small_dataset/recover_cifar.py"),
        RECOVER.profile("SRe2L/*small_dataset/recover_tiny.py", about=TINY),
        *(RECOVER.profile(f"SRe2L/recover/{folder}data_synthesis.py", about=IMAGENET) for folder in ("", "multi_gpu/")),
        RECOVER.ours("recover"),
        *STEPS_AFTER_RECOVERY,
    ),
    settings=SETTINGS,
    settings_for=SETTINGS_FOR,
)

register_adapters, read_distilled = hooks_of(_SRE2L, read_recovered)
