"""What a method of distillation brings to the demo."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from guard_plugin.demo.settings import DemoSettings

__all__ = ["DemoMethod"]

SettingsT = TypeVar("SettingsT", bound=DemoSettings)


class DemoMethod(ABC, Generic[SettingsT]):
    """One arm of the demo, from real images to a distilled set.

    Args:
        settings: What to do.
    """

    def __init__(self, settings: SettingsT) -> None:
        self.settings = settings

    @property
    @abstractmethod
    def adapter(self) -> str:
        """The name of the adapter whose host it runs."""

    @abstractmethod
    def distil(self, options: Mapping[str, Any], folder: Path) -> Path:
        """Run the host.

        Args:
            options: The penalty's settings.
            folder: For all files of this arm.

        Returns:
            The distilled file or folder.

        Raises:
            GuardError: If a step failed.
        """

    def evaluation(self, folder: Path) -> dict[str, Any]:
        """What ``benchmark_distilled`` is told beyond what all methods have in common."""
        del folder
        return {}
