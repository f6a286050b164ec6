"""AutoAttack's old interface, which robustbench calls, on top of pyautoattack."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from guard_plugin.datasets import tensors_sha256
from guard_plugin.errors import UnusableInput
from guard_plugin.optional import require
from guard_plugin.robustbench_bridge.state import EvaluationState

__all__ = ["AutoAttack", "other_versions_refused"]

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
    """pyautoattack's AutoAttack, as robustbench calls it.

    Args:
        model: A classifier in pixel space, in eval mode.
        device: Where the model is.
        log_path: A file to which the log is added.
        settings: norm, eps, version and seed, as pyautoattack takes them.
    """

    def __init__(
        self, model: nn.Module, *, device: torch.device | str, log_path: Path | str | None = None, **settings: Any
    ) -> None:
        self._device, self._log_path = torch.device(device), log_path
        self._library = require("pyautoattack.autoattack", needed_by="AutoAttack")
        self._attack = self._library.AutoAttack(model, device=device, **settings)

    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int, state_path: Path | str | None = None
    ) -> Tensor:
        """Attack all examples, each attack only those that withstood the attacks before it.

        Args:
            x_orig: Shape (n, channels, height, width), in [0, 1].
            y_orig: Shape (n,), int64: the true classes.
            bs: Examples per pass.
            state_path: A file that keeps what has been found, and from which a killed evaluation continues.

        Returns:
            The adversarial examples that this call has found; an example that withstood is returned as it was.

        Raises:
            UnusableInput: If the file is not a state, or belongs to another measurement.
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
