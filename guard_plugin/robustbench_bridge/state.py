"""The file in which an AutoAttack evaluation keeps what it has found, so that a killed one can continue."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file, explain_write_errors, read_json_object

__all__ = ["EvaluationState", "finished_state"]


class EvaluationState:
    """The findings of one evaluation, with the interface that pyautoattack expects of its class of this name.

    pyautoattack 0.2.0 cannot read the state that it writes, and misses a variable where it skips the clean pass. This
    state lets it repeat the clean pass, and then takes out the examples that fell in an earlier run.

    Args:
        path: The file. If it exists, the evaluation continues from it.
        fingerprint: Identifies threat model, model and data: a state belongs to one measurement.

    Raises:
        UnusableInput: If the file is something else, or belongs to another measurement.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path, self._fingerprint = path, fingerprint
        self.run_attacks: set[str] = set()
        self._robust: Tensor | None = None
        if path.exists():
            found, self.run_attacks, self._robust = _read(path)
            if found != fingerprint:
                raise UnusableInput(
                    f"{path} is the AutoAttack state of another measurement: it differs in model, images, labels, norm "
                    f"or eps. Delete it to begin anew, or give another aa_state_path"
                )

    @property
    def robust_flags(self) -> Tensor | None:
        """None, so that pyautoattack makes its clean pass."""
        return None

    @robust_flags.setter
    def robust_flags(self, robust: Tensor) -> None:
        if self._robust is not None:
            robust &= self._robust.to(robust.device)  # in place: pyautoattack goes on with this tensor
        self._robust = robust
        self._write()

    def add_run_attack(self, attack: str) -> None:
        """Note that an attack has run to its end."""
        self.run_attacks.add(attack)
        self._write()

    def to_disk(self, force: bool = False) -> None:
        """Do nothing: each finding is written when it is made."""

    def _write(self) -> None:
        robust = None if self._robust is None else self._robust.tolist()
        stored = {"fingerprint": self._fingerprint, "finished": sorted(self.run_attacks), "robust": robust}
        with explain_write_errors(self._path), atomic_file(self._path) as file:
            file.write(json.dumps(stored).encode())


def finished_state(path: Path | str) -> SimpleNamespace:
    """Read a state for robustbench, which takes the mean of its ``robust_flags``: they must be floats for that.

    Raises:
        UnusableInput: If the file is something else.
    """
    return SimpleNamespace(robust_flags=_read(Path(path))[2].float())


def _read(path: Path) -> tuple[str, set[str], Tensor]:
    try:
        stored = read_json_object(path)
        return stored["fingerprint"], set(stored["finished"]), torch.tensor(stored["robust"], dtype=torch.bool)
    except (UnusableInput, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UnusableInput(
            f"{path} is not an AutoAttack state that guard-plugin wrote ({type(error).__name__}: {error}): "
            f"delete it, or give another aa_state_path"
        ) from error
