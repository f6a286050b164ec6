"""A teacher in place of pretrained weights, for hosts that load their teacher from torchvision and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from guard_plugin.errors import NothingGuarded, UnusableInput
from guard_plugin.files import file_sha256, read_state_dict
from guard_plugin.injection.patching import patch
from guard_plugin.optional import require
from guard_plugin.versions import require_torch

__all__ = ["Teacher"]


class Teacher:
    """Gives a checkpoint, from :meth:`install` on, to callers that ask torchvision for weights.

    A host asks for its teacher first; requests that follow for another architecture (a verifier's) get torchvision's.
    UnusableInput is raised where the checkpoint cannot be read, or torchvision is not installed.
    """

    def __init__(self, file: Path) -> None:
        require_torch(2, 0, to="give hosts a teacher in place of torchvision's weights")
        self.file = file
        self.given_for: list[str] = []
        self._state = read_state_dict(file).tensors
        self.sha256 = file_sha256(file)
        self._models: Any = require("torchvision.models", needed_by="--teacher")

    def install(self, undo: ExitStack) -> None:
        """Give the checkpoint until ``undo`` is closed."""
        patch(undo, self._models.WeightsEnum, "get_state_dict", self._give)

    def _give(self, original: Callable[..., Any], weights: Any, *args: Any, **kwargs: Any) -> Any:
        expected = self._expected(weights)
        found = {name: value.shape for name, value in self._state.items()}
        if expected != found:
            if self.given_for:
                return original(weights, *args, **kwargs)
            raise UnusableInput(self._why_refused(weights, expected, found))
        self.given_for.append(str(weights))
        return {name: value.clone() for name, value in self._state.items()}

    def problem(self) -> NothingGuarded | None:
        """Return the error of a run that ended well but never asked for the teacher; None where it did."""
        if self.given_for:
            return None
        return NothingGuarded(
            f"expected the script to ask torchvision for pretrained weights, to give it {self.file}; found that it "
            f"never did: what it used is another network"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the teacher as the ledger writes it."""
        return {"file": str(self.file), "sha256": self.sha256, "given_for": list(self.given_for)}

    def _expected(self, weights: Any) -> dict[str, torch.Size]:
        """The shapes of the network that pretrained weights are for."""
        kind = type(weights)
        name = next(name for name in self._models.list_models() if self._models.get_model_weights(name) is kind)
        with torch.device("meta"):
            network = self._models.get_model(name, weights=None, num_classes=len(weights.meta["categories"]))
        return {key: value.shape for key, value in network.state_dict().items()}

    def _why_refused(self, weights: Any, expected: Mapping[str, torch.Size], found: Mapping[str, torch.Size]) -> str:
        missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        if missing or extra:
            return (
                f"the script asks for {weights}, and {self.file} is another network: missing {missing[:3] or 'none'}, "
                f"unknown {extra[:3] or 'none'}; train a teacher of the architecture that the script names"
            )
        other = next(name for name in expected if expected[name] != found[name])
        return (
            f"the script asks for {weights}: expected {other} of shape {tuple(expected[other])}, found "
            f"{tuple(found[other])} in {self.file}: another number of classes, or another stem"
        )
