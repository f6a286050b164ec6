"""The settings of the demo, by method and data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from guard_plugin.errors import UnusableInput
from guard_plugin.versions import keyword_dataclass

__all__ = ["METHODS", "DcSettings", "DemoSettings", "RecoverySettings", "settings_for"]

METHODS = ("sre2l", "dc", "cda")


@keyword_dataclass
class DemoSettings:
    """The settings that every method has.

    Args:
        dataset: "digits" (scikit-learn's, no network), or FashionMNIST or CIFAR10 in ``data``.
        data: The folder of torchvision's data sets; unused for digits.
        arch: The network that distils, and the students' architecture.
        ipc: Images per class.
        iterations: Updates of the distilled images.
        experiments: Independently distilled sets per arm; student k is trained on set k modulo this number.
        students: Students per arm.
        attacks: As for ``guard benchmark``.
        eps: Linf radius in pixel units.
        n_examples: How many test images are attacked (digits has 500).
        seed: Seed of the distillation.
        penalty: The penalty's name.
        strength: Its weight.
        h: Its step, an L2 length in the network's input space.
        form: Its form.
    """

    curvature: ClassVar[Mapping[str, Any]] = {}  # recommended settings of the curvature penalty
    dataset: str = "digits"
    data: str | None = None
    arch: str
    ipc: int = 10
    iterations: int
    experiments: int
    students: int
    attacks: str = "fgsm,pgd20"
    eps: str = "16/255"
    n_examples: int = 500
    seed: int = 0
    penalty: str = "curvature"
    strength: float | None = None
    h: float | None = None
    form: str | None = None

    def penalty_options(self) -> dict[str, Any]:
        """Return the options of ``guard run`` that choose the penalty: those given, over those recommended here."""
        recommended = self.curvature if self.penalty == "curvature" else {}
        given = {"strength": self.strength, "h": self.h, "form": self.form}
        chosen = {key: value for key, value in given.items() if value is not None}
        return {"penalty": self.penalty, **recommended, **chosen}


@keyword_dataclass
class DcSettings(DemoSettings):
    """The settings of gradient matching; examples/sweep.py chose the defaults on the validation split of digits.

    Args:
        lr_img: Learning rate of the distilled images.
    """

    method: ClassVar[str] = "dc"
    curvature: ClassVar[Mapping[str, Any]] = {"strength": 100.0, "h": 0.5, "form": "gradient"}
    arch: str = "ConvNetD1"
    iterations: int = 11
    experiments: int = 2
    students: int = 4
    lr_img: float = 1.0


@keyword_dataclass
class RecoverySettings(DemoSettings):
    """The settings of SRe2L and CDA; where a setting of the penalty is not given, the adapter's recommendation counts.

    Args:
        method: "sre2l" or "cda", which differ in how images are recovered.
        n_train: The teacher is trained on the first so many images; all (but for validation) by default.
        teacher_epochs: Passes over them.
        student_epochs: Passes of a student over the recovered images.
        batch_size: Recovered images per step of a student.
        min_scale: The least part of an image in a student's crop, as in the recovery.
    """

    method: str
    arch: str = "ConvNetBN16-32"
    iterations: int = 200
    experiments: int = 4
    students: int = 4
    n_train: int | None = None
    teacher_epochs: int = 10
    student_epochs: int = 300
    batch_size: int = 50
    min_scale: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in METHODS or self.method == DcSettings.method:
            raise UnusableInput(f"expected method sre2l or cda, got {self.method!r}")


# The defaults for larger data sets than digits, with which a demo takes minutes on two cores.
_LARGER: dict[str, dict[str, Any]] = {
    "dc": {"arch": "ConvNetW32", "experiments": 1, "iterations": 3, "lr_img": 0.1, "students": 2},
    "sre2l": {
        "arch": "ConvNetBN32-64-128",
        "n_train": 8000,
        "teacher_epochs": 5,
        "experiments": 2,
        "students": 2,
    },
}


def settings_for(dataset: str, method: str = METHODS[0], **given: Any) -> DcSettings | RecoverySettings:
    """Return the settings for a data set: those given, over defaults that take minutes on two cores.

    Args:
        dataset: Its name.
        method: "sre2l", "dc" or "cda".
        given: Settings by name.

    Raises:
        UnusableInput: If there is no such method, or it has no such setting.
    """
    kind: type[DcSettings | RecoverySettings] = DcSettings if method == "dc" else RecoverySettings
    strange = sorted(set(given) - {field.name for field in fields(kind)})
    if strange:
        raise UnusableInput(f"--{strange[0].replace('_', '-')} is not for --method {method}: leave it out")
    chosen: dict[str, Any] = {} if method == "dc" else {"method": method}
    if dataset != "digits":
        chosen |= _LARGER["dc" if method == "dc" else "sre2l"]
    return kind(**{**chosen, "dataset": dataset, **given})
