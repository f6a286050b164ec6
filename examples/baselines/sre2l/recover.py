"""SRe2L, second step: recover images of every class from the squeezed network.

Yin, Xing and Shen, "Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective",
NeurIPS 2023. Written anew from the paper. Every iteration crops from the same range of scales.

    python recover.py --arch-path save/checkpoint.pth --exp-name test
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from common.recovery import recover, recover_parser


def main(args: argparse.Namespace) -> None:
    recover(args, min_scale=lambda iteration: args.min_scale_crops)


if __name__ == "__main__":
    main(recover_parser("SRe2L: recover images from a trained network.").parse_args())
