"""A small network among torchvision's models, for hosts' scripts that name a model and would take hours with a ResNet.

Importing this module registers it as "small_teacher". As in a ResNet, ``conv1`` and ``maxpool`` come first, which
scripts for small images replace.
"""

import torchvision
from torch import Tensor, nn
from torchvision.models._api import register_model

__all__ = ["small_teacher"]


class _SmallTeacher(nn.Module):
    """Three convolutions with BatchNorm, and one linear layer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1: nn.Module = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU()
        self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2, self.bn2 = nn.Conv2d(64, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv3, self.bn3 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(8), nn.Linear(32 * 64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        seen = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        seen = self.relu(self.bn3(self.conv3(self.relu(self.bn2(self.conv2(seen))))))
        logits: Tensor = self.fc(self.pool(seen).flatten(1))
        return logits


def small_teacher(*, weights: None = None, num_classes: int = 1000) -> nn.Module:
    """Build it, untrained."""
    return _SmallTeacher(num_classes)


# torchvision lists the models of its own package, and some scripts look there without asking get_model.
small_teacher.__module__ = f"{torchvision.models.__name__}.small_teacher"
register_model()(small_teacher)
torchvision.models.small_teacher = small_teacher
