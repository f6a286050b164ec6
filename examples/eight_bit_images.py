"""Write a distilled set as 8-bit images: recipes in which a teacher labels views take no others.

    python examples/eight_bit_images.py dc res_DC_FashionMNIST_ConvNetW32_10ipc.pt images.npz
    guard benchmark --adapter plain --distilled images.npz --recipe sre2l --teacher checkpoint.pth ...

Values beyond black and white, which optimised images have, are clipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from guard_plugin.distilled import read_distilled
from guard_plugin.plugins import installed_plugins


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("adapter", help="whose file it is")
    parser.add_argument("distilled", type=Path, help="a distilled set of normalised images")
    parser.add_argument("out", type=Path, help="the .npz file to write")
    args = parser.parse_args()
    (distilled,) = read_distilled(installed_plugins().hook, args.adapter, args.distilled)
    pixels = distilled.normalization.to_pixels(distilled.images).clamp(0, 1)
    mean, std = distilled.normalization.mean, distilled.normalization.std
    levels = (pixels * 255).round().byte().numpy()
    np.savez(args.out, images=levels, labels=distilled.hard_labels.numpy(), mean=np.array(mean), std=np.array(std))


if __name__ == "__main__":
    main()
