"""Types for argparse, and the options that baselines share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import torch

from common.augmentation import parse_strategy
from common.data import DATASETS
from common.networks import MODELS


def number(
    kind: Callable[[str], float], least: float, most: float = math.inf, *, open_end: bool = False
) -> Callable[[str], float]:
    """An argparse type: a finite int or float from `least` (or, with an open end, from above it) to `most`."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a valid {kind.__name__}") from None
        if not math.isfinite(value) or value < least or (open_end and value == least):
            raise argparse.ArgumentTypeError(f"{text} is not {'above' if open_end else 'at least'} {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{text} is not at most {most}")
        return value

    return parse


NATURAL, COUNT = number(int, 1), number(int, 0)
POSITIVE, NOT_NEGATIVE = number(float, 0, open_end=True), number(float, 0)
SHARE, SOME_SHARE = number(float, 0, 1), number(float, 0, 1, open_end=True)


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser that shows defaults and takes no abbreviated options."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )


def _strategy(text: str) -> str:
    try:
        parse_strategy(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def add_matching_options(parser: argparse.ArgumentParser) -> None:
    """The options that the two scripts of trajectory matching, buffer.py and distill.py, have in common."""
    add = parser.add_argument
    add("--dataset", default="CIFAR10", choices=tuple(DATASETS), help="real data")
    add("--model", default="ConvNet", choices=MODELS, metavar="NAME", help=f"network: {', '.join(MODELS)}")
    add("--batch_train", type=NATURAL, default=256, help="batch size in training networks")
    add("--dsa", default="True", choices=("True", "False"), help="differentiable augmentation, or none")
    add("--dsa_strategy", type=_strategy, default="color_crop_cutout_flip_scale_rotate", help="augmentations, or none")
    add("--data_path", default="data", help="folder with the real data, where the data set needs one")
    add("--buffer_path", default="./buffers", help="folder of the experts' trajectories")
    add("--zca", action="store_true", help="whiten the images")
    add("--seed", type=COUNT, default=0, help="all that is random follows from it")


def _settled(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with what follows from them."""
    args.dsa = args.dsa == "True"
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def parse_expert_options(parser: argparse.ArgumentParser, save_interval: int) -> argparse.Namespace:
    """The command line of a buffer.py that trains experts, checked; `save_interval` is that option's default."""
    add_matching_options(parser)
    add = parser.add_argument
    add("--num_experts", type=NATURAL, default=100, help="networks to train")
    add("--lr_teacher", type=POSITIVE, default=0.01, help="their learning rate")
    add("--train_epochs", type=NATURAL, default=50, help="their epochs")
    add("--n_train", type=NATURAL, default=None, help="train them on the first so many real images; None: all")
    add("--mom", type=NOT_NEGATIVE, default=0.0, help="their momentum")
    add("--l2", type=NOT_NEGATIVE, default=0.0, help="their weight decay")
    add("--save_interval", type=NATURAL, default=save_interval, help="experts in a file")
    args = parser.parse_args()
    if args.num_experts % args.save_interval:
        parser.error(
            f"--num_experts {args.num_experts} is not a multiple of --save_interval {args.save_interval}: "
            "only full files are written, so the last experts would be lost"
        )
    return _settled(args)


def parse_distill_options(parser: argparse.ArgumentParser, lr_img: float) -> argparse.Namespace:
    """The command line of a distill.py that matches trajectories, checked; `lr_img` is that option's default.

    The defaults are for the small data set "digits"; the papers list theirs for each of their experiments.
    """
    add_matching_options(parser)
    add = parser.add_argument
    add("--ipc", type=NATURAL, default=1, help="synthetic images per class")
    add("--pix_init", default="real", choices=("real", "noise"), help="what the synthetic images start from")
    add("--Iteration", type=COUNT, default=100, help="updates of the synthetic images")
    add("--lr_img", type=POSITIVE, default=lr_img, help="learning rate of the synthetic images")
    add("--lr_lr", type=NOT_NEGATIVE, default=1e-5, help="learning rate of the students' learning rate")
    add("--lr_teacher", "--lr_init", type=POSITIVE, default=0.02, help="what the students' learning rate starts from")
    add("--batch_syn", type=NATURAL, default=None, help="synthetic images in a step of a student; None: all")
    add("--syn_steps", type=NATURAL, default=10, help="steps of a student")
    add("--expert_epochs", type=NATURAL, default=2, help="epochs of an expert that these steps should come to")
    add("--max_start_epoch", type=NATURAL, default=5, help="they start at a random epoch below this one")
    add("--max_experts", type=NATURAL, default=None, help="experts to take from each file; None: all")
    add("--eval_it", type=COUNT, default=50, help="iterations between evaluations, the last included; 0: none at all")
    add("--num_eval", type=NATURAL, default=3, help="networks trained and tested in an evaluation")
    add("--epoch_eval_train", type=NATURAL, default=300, help="epochs of training in an evaluation")
    add("--save_path", default="./logged_files", help="folder for the results, made if missing")
    add("--run_name", default=None, help="folder of this run in it; None: the first free one of run0, run1, ...")
    return _settled(parser.parse_args())
