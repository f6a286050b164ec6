"""CDA: recover images from the squeezed network from their whole to their parts.

Yin and Shen, "Dataset Distillation via Curriculum Data Synthesis in Large Data Era", TMLR 2024. Written anew from the
paper. This is all that CDA changes in SRe2L (section 3): the least scale of a crop falls over the iterations from the
whole image (global, easy) to SRe2L's (local, hard). To squeeze, relabel and validate, run the scripts in ../sre2l.

    python ../sre2l/squeeze.py --output-dir save
    python recover.py --arch-path save/checkpoint.pth --exp-name test
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from common.arguments import SHARE
from common.recovery import recover, recover_parser

MODES = ("step", "linear", "cosine")


def curriculum(mode: str, progress: float, end: float) -> float:
    """The least scale of a crop: 1 at progress 0, and `end` from progress 1 on."""
    if progress >= 1:
        return end
    share = {"step": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[mode]
    return end + (1 - end) * share


def get_args_parser() -> argparse.ArgumentParser:
    parser = recover_parser("CDA: recover images from a trained network, by curriculum crops.")
    add = parser.add_argument
    add("--easy2hard-mode", default="cosine", choices=MODES, help="how the least scale of a crop falls")
    add("--milestone", type=SHARE, default=1.0, help="share of the iterations after which it has fallen")
    return parser


def main(args: argparse.Namespace) -> None:
    reached = args.milestone * args.iteration  # 0: from the first iteration on, which is SRe2L

    def min_scale(iteration: int) -> float:
        return curriculum(args.easy2hard_mode, iteration / reached if reached else 1.0, args.min_scale_crops)

    recover(args, min_scale)


if __name__ == "__main__":
    main(get_args_parser().parse_args())
