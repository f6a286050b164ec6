"""SRe2L: Yin, Xing and Shen, "Squeeze, Recover and Relabel", NeurIPS 2023."""

from guard_adapters.hooks import hooks_of
from guard_adapters.recommended import SETTINGS, SETTINGS_FOR
from guard_adapters.recovered_files import read_recovered
from guard_adapters.squeeze import SQUEEZE, later_step, our_step
from guard_plugin.hosts import Adapter

__all__ = ["RECOVERS", "STEPS_AFTER_RECOVERY", "read_distilled", "register_adapters"]

RECOVERS = "recovers images from a teacher"
_RELABELS = "softens labels with a teacher"
_VALIDATES = "trains students on recovered images"

STEPS_AFTER_RECOVERY = (
    later_step("SRe2L/*small_dataset/relabel_cifar.py", _VALIDATES),
    later_step("SRe2L/relabel/generate_soft_label.py", _RELABELS),
    # They import from the folder above theirs, which they put on the path relative to the current one.
    *(later_step(f"SRe2L/validate/train_{labels}.py", _VALIDATES, roots=("..",)) for labels in ("FKD", "KD")),
    later_step("classification/train_kd.py", _VALIDATES),
    our_step("relabel", _RELABELS),
    our_step("validate", _VALIDATES),
)

_SRE2L = Adapter(
    name="sre2l",
    host="VILA-Lab/SRe2L (tried at 8d00cba), with zeyuanyin/tiny-imagenet (275c667) or torchvision's references",
    profiles=(
        *SQUEEZE,
        *(later_step(f"SRe2L/*small_dataset/recover_{data}.py", RECOVERS) for data in ("cifar", "tiny")),
        *(later_step(f"SRe2L/recover/{folder}data_synthesis.py", RECOVERS) for folder in ("", "multi_gpu/")),
        our_step("recover", RECOVERS),
        *STEPS_AFTER_RECOVERY,
    ),
    settings=SETTINGS,
    settings_for=SETTINGS_FOR,
)

register_adapters, read_distilled = hooks_of(_SRE2L, read_recovered)
