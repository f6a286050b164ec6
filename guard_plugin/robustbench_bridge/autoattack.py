"""AutoAttack's old interface, which robustbench calls, on top of pyautoattack."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.datasets import tensors_sha256
from guard_plugin.errors import UnusableInput
from guard_plugin.robustbench_bridge.packages import required
from guard_plugin.robustbench_bridge.state import ReportedState, SavedState
from guard_plugin.robustbench_bridge.substitutes import replaced_attribute

__all__ = ["AutoAttack", "autoattack_modules"]


class AutoAttack:
    """The ensemble of attacks, as pyautoattack computes it.

    Args:
        model: A classifier in pixel space, in eval mode.
        norm: "Linf", "L2" or "L1".
        eps: Radius of the ball.
        seed: Source of random draws; the clock by default, as in AutoAttack.
        version: "standard", "plus" or "rand".
        device: Where to compute; by default, where the model is.
        log_path: A file that the log is added to.
    """

    def __init__(
        self,
        model: nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        version: str = "standard",
        device: torch.device | str | None = None,
        log_path: Path | str | None = None,
    ) -> None:
        self._model = model
        self._device = _device_of(model) if device is None else torch.device(device)
        self._log_path = log_path
        self._threat = f"{version} {norm} {eps!r}"
        self._attack: Any = required("pyautoattack").AutoAttack(
            model, norm=norm, eps=eps, seed=seed, version=version, device=self._device
        )

    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, state_path: Path | str | None = None
    ) -> Tensor:
        """Attack all examples, each attack only those that withstood the ones before.

        The model's parameters, the random generators and the trace function are left as they were found.

        Args:
            x_orig: Shape (n, channels, height, width), in [0, 1].
            y_orig: Shape (n,), int64: the true classes.
            bs: Examples per pass.
            state_path: Where to keep what has been found, and to go on from.

        Returns:
            Adversarial examples of this very run; an example that withstood is returned as it was.

        Raises:
            UnusableInput: If the state is not one, or belongs to another measurement.
        """
        with _undisturbed(self._model, self._device), _logged_to(self._log_path):
            if state_path is None:
                return self._run(x_orig, y_orig, bs)
            fingerprint = f"{self._threat} {_sha256(self._model, x_orig, y_orig)}"
            return self._go_on(_open_state(Path(state_path), fingerprint), x_orig, y_orig, bs)

    def _run(self, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        adversarial, _ = self._attack.run_standard_evaluation(images, labels, batch_size=batch_size)
        return torch.as_tensor(adversarial)

    def _go_on(self, state: SavedState, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
        """Run the attacks that are left, on the examples that are left.

        pyautoattack 0.2.0 cannot go on itself: it writes a state that it cannot read, and then misses a variable.
        """
        rows = slice(None) if state.robust is None else torch.nonzero(state.robust).flatten()
        attacks = self._attack.attacks_to_run
        left = [attack for attack in attacks if attack not in state.finished]
        adversarial = images.clone()
        if left and len(labels[rows]):
            with replaced_attribute(
                "pyautoattack.autoattack", "EvaluationState", _Findings.of(state, rows, len(labels))
            ):
                self._attack.attacks_to_run = left
                try:
                    adversarial[rows] = self._run(images[rows], labels[rows], batch_size)
                finally:
                    self._attack.attacks_to_run = attacks
        return adversarial


class _Findings:
    """Stands in for pyautoattack's EvaluationState: keeps what is found on some rows of the data.

    Args:
        state: Where it is kept.
        rows: Which examples pyautoattack sees.
        n: How many there are in all.
    """

    def __init__(self, state: SavedState, rows: slice | Tensor, n: int) -> None:
        self._state = state
        self._rows = rows
        self._n = n
        self._flags: Tensor | None = None
        self.run_attacks: set[str] = set()
        self.clean_accuracy = float("nan")

    @classmethod
    def of(cls, state: SavedState, rows: slice | Tensor, n: int) -> Callable[..., "_Findings"]:
        """What pyautoattack calls in the place of its class."""

        def make(attacks_to_run: set[str], path: None) -> _Findings:
            del attacks_to_run, path
            return cls(state, rows, n)

        return make

    @property
    def robust_flags(self) -> Tensor | None:
        return self._flags

    @robust_flags.setter
    def robust_flags(self, flags: Tensor) -> None:
        self._flags = flags
        if self._state.robust is None:
            self._state.robust = torch.zeros(self._n, dtype=torch.bool)
        self._state.robust[self._rows] = flags.cpu()
        self._state.write()

    def add_run_attack(self, attack: str) -> None:
        self._state.finished.add(attack)
        self._state.write()

    def to_disk(self, force: bool = False) -> None:
        """Nothing is left to write: everything is written when it is found."""


def _open_state(path: Path, fingerprint: str) -> SavedState:
    if not path.exists():
        return SavedState(path, fingerprint)
    state = SavedState.read(path)
    if state.fingerprint != fingerprint:
        raise UnusableInput(
            f"{path} is the AutoAttack state of another measurement: it differs in model, images, labels, norm or eps. "
            f"Delete it to begin anew, or give another aa_state_path"
        )
    return state


def _sha256(model: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Of the model's parameters and buffers, whatever their type, and of the data."""
    parts = [tensor.detach().cpu().reshape(-1).view(torch.uint8) for tensor in model.state_dict().values()]
    return tensors_sha256(*parts, images, labels)


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def _undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put back what pyautoattack changes: global random generators, the trace function, the parameters' gradients."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trace = sys.gettrace()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            for parameter in trainable:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trainable:
                parameter.requires_grad_(True)
            sys.settrace(trace)


@contextmanager
def _logged_to(path: Path | str | None) -> Iterator[None]:
    """Write the log of the attacks to a file."""
    if path is None:
        yield
        return
    logger = logging.getLogger("auto-attack")
    handler = logging.FileHandler(path, encoding="utf-8")
    level, disabled, threshold = logger.level, logger.disabled, logger.manager.disable
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    # Whoever configures logging may have switched off what there was before; the user asked for this log.
    logger.disabled = False
    logging.disable(logging.NOTSET)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.disabled = disabled
        logging.disable(threshold)
        logger.removeHandler(handler)
        handler.close()


def autoattack_modules() -> dict[str, ModuleType]:
    """The modules ``autoattack`` and ``autoattack.state``, as far as robustbench imports from them."""
    package, state = ModuleType("autoattack"), ModuleType("autoattack.state")
    vars(package).update(AutoAttack=AutoAttack, state=state, __path__=[])
    vars(state).update(EvaluationState=ReportedState)
    return {"autoattack": package, "autoattack.state": state}
