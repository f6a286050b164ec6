"""A network in the place of torchvision's ResNets, for hosts' scripts that would take hours with these on a CPU.

The scripts replace its first convolution and its pooling, as they do with a ResNet's.
"""

from torch import Tensor, nn

__all__ = ["SmallNetwork", "as_the_hosts_change_it"]


class SmallNetwork(nn.Module):
    """Three convolutions with BatchNorm."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1: nn.Module = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.maxpool: nn.Module = nn.MaxPool2d(3, stride=2, padding=1)
        self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(64, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64)
        self.fc = nn.Linear(64 * 16, num_classes)
        self.pool = nn.AdaptiveAvgPool2d(4)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        seen = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        seen = self.relu(self.bn3(self.conv3(self.relu(self.bn2(self.conv2(seen))))))
        logits: Tensor = self.fc(self.pool(seen).flatten(1))
        return logits


def as_the_hosts_change_it(num_classes: int) -> nn.Module:
    """Return a new network with the stem that both scripts give a ResNet."""
    network = SmallNetwork(num_classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    network.maxpool = nn.Identity()
    return network
