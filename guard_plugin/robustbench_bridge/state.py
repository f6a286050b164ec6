"""What an AutoAttack evaluation has found so far, on the disk, so that a killed one goes on."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file

__all__ = ["ReportedState", "SavedState"]


@dataclass
class SavedState:
    """The findings of one evaluation.

    Args:
        path: Where they are kept.
        fingerprint: Of model, data and threat model: a state belongs to one measurement.
        finished: Names of the attacks that have run to their end.
        robust: Per example, whether it has withstood everything so far, shape (n,), bool; None before the clean pass.
    """

    path: Path
    fingerprint: str
    finished: set[str] = field(default_factory=set)
    robust: Tensor | None = None

    @classmethod
    def read(cls, path: Path) -> "SavedState":
        """Read what ``write`` has written.

        Raises:
            UnusableInput: If the file is something else.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            flags = stored["robust"]
            robust = None if flags is None else torch.tensor(flags, dtype=torch.bool)
            return cls(path, stored["fingerprint"], set(stored["finished"]), robust)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnusableInput(
                f"{path} is not an AutoAttack state that guard-plugin wrote ({type(error).__name__}: {error}): "
                f"delete it, or give another aa_state_path"
            ) from error

    def write(self) -> None:
        """Write the state, complete or not at all."""
        flags = None if self.robust is None else self.robust.tolist()
        stored = {"fingerprint": self.fingerprint, "finished": sorted(self.finished), "robust": flags}
        with atomic_file(self.path) as file:
            file.write(json.dumps(stored).encode())


class ReportedState:
    """A state as robustbench reads it at the end: it takes the mean of the flags, which must be floats for that.

    Args:
        robust_flags: Per example, 1 where it has withstood everything and 0 elsewhere; None before the clean pass.
    """

    def __init__(self, robust_flags: Tensor | None) -> None:
        self.robust_flags = robust_flags

    @classmethod
    def from_disk(cls, path: Path | str) -> "ReportedState":
        """Read a saved state.

        Raises:
            UnusableInput: If the file is something else.
        """
        robust = SavedState.read(Path(path)).robust
        return cls(None if robust is None else robust.float())
