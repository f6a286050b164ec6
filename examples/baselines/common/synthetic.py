"""What synthetic images start from."""

from __future__ import annotations

import torch

from common.data import DatasetInfo, RealImages


def init_synthetic(
    init: str, ipc: int, real: RealImages, info: DatasetInfo, seed: int, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The synthetic images to begin with ("real" or "noise"), ordered by class, and their labels."""
    labels = torch.arange(info.num_classes).repeat_interleave(ipc)
    if init == "real":
        images = torch.cat([real.draw(c, ipc) for c in range(info.num_classes)])
        if len(images) != len(labels):
            raise SystemExit(f"a class has fewer than {ipc} real images to start from (--ipc)")
    else:
        images = torch.randn(len(labels), info.channel, *info.im_size, generator=torch.Generator().manual_seed(seed))
    return images.to(device).requires_grad_(True), labels.to(device)
