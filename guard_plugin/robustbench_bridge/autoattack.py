"""AutoAttack's old interface, which robustbench calls, on top of pyautoattack, and the file of its findings."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from guard_plugin.datasets import tensors_sha256
from guard_plugin.errors import UnusableInput
from guard_plugin.files import atomic_file, explain_write_errors, read_json_object
from guard_plugin.optional import require

__all__ = ["AutoAttack", "EvaluationState", "finished_state", "other_versions_refused"]

_VERSIONS = ("robustbench==1.1.1", "pyautoattack==0.2.0")


@contextmanager
def other_versions_refused() -> Iterator[None]:
    """Refuse an installed robustbench or pyautoattack that lacks a name which is replaced here."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        raise UnusableInput(
            f"expected {' and '.join(_VERSIONS)}, which guard-plugin's repairs are written for; the installed versions "
            f"differ ({error}): pip install {' '.join(_VERSIONS)}"
        ) from error


class AutoAttack:
    """pyautoattack's AutoAttack as robustbench calls it; ``settings`` are its norm, eps, version and seed."""

    def __init__(
        self, model: nn.Module, *, device: torch.device | str, log_path: Path | str | None = None, **settings: Any
    ) -> None:
        self._device, self._log_path = torch.device(device), log_path
        self._library = require("pyautoattack.autoattack", needed_by="AutoAttack")
        self._attack = self._library.AutoAttack(model, device=device, **settings)

    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int, state_path: Path | str | None = None
    ) -> Tensor:
        """Attack all examples in passes of ``bs``, each attack only those that withstood the attacks before it.

        A killed evaluation continues from the file ``state_path``. The call returns the adversarial examples that it
        has found itself; an example that withstood is returned as it was.
        """
        with ExitStack() as stack:
            self._restore_afterwards(stack)
            if self._log_path is not None:
                self._log_to_file(stack, self._log_path)
            if state_path is not None:
                state = EvaluationState(Path(state_path), self._fingerprint(x_orig, y_orig))
                with other_versions_refused():
                    stack.enter_context(patch.object(self._library, "EvaluationState", lambda *_, **__: state))
            adversarial: Tensor = self._attack.run_standard_evaluation(x_orig, y_orig, batch_size=bs)[0]
        return adversarial

    def _restore_afterwards(self, stack: ExitStack) -> None:
        """Let the stack put back random generators, trace function and parameters, which pyautoattack changes."""
        stack.enter_context(torch.random.fork_rng([self._device] if self._device.type == "cuda" else []))
        stack.callback(sys.settrace, sys.gettrace())
        for parameter in self._attack.model.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_(False)

    def _log_to_file(self, stack: ExitStack, path: Path | str) -> None:
        """Give the attacks a logger that also writes to a file, even where the program has switched off its loggers."""
        logger = logging.Logger("auto-attack", logging.DEBUG)
        logger.manager = logging.Manager(logging.root)  # logging.disable() acts on the manager that loggers share
        logger.parent = self._attack.logger
        logger.addHandler(stack.enter_context(closing(logging.FileHandler(path, encoding="utf-8"))))
        for part in (self._attack, self._attack.apgd, self._attack.apgd_targeted):
            stack.enter_context(patch.object(part, "logger", logger))

    def _fingerprint(self, images: Tensor, labels: Tensor) -> str:
        """Identify the threat model, and by their SHA-256 the data and the model's parameters and buffers."""
        state = self._attack.model.state_dict()
        parts = [tensor.detach().cpu().reshape(-1).view(torch.uint8) for tensor in state.values()]
        threat = f"{self._attack.version} {self._attack.norm} {self._attack.epsilon!r}"
        return f"{threat} {tensors_sha256(*parts, images, labels)}"


class EvaluationState:
    """The findings of one evaluation, with the interface that pyautoattack expects of its class of this name.

    pyautoattack 0.2.0 cannot read the state that it writes, and misses a variable where it skips the clean pass. This
    state lets it repeat the clean pass, and then takes out the examples that fell in an earlier run.

    The fingerprint identifies threat model, model and data: an existing file of another measurement is refused.
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
    """Read a state for robustbench, which takes the mean of its ``robust_flags``: they must be floats for that."""
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
