"""SRe2L, third step: write the squeezed network's soft labels for many views of the recovered images.

Yin, Xing and Shen, "Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New Perspective",
NeurIPS 2023. Written anew from the paper; the files are those of its code (FKD: Shen and Xing, ECCV 2022).

    python relabel.py --teacher save/checkpoint.pth --data syn_data/test --fkd-path fkd
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from utils import add_view_arguments, draw_view, epoch_batches, fkd_file, read_folder, render, save_fkd

from common.arguments import COUNT, make_parser
from common.checkpoints import load_checkpoint
from common.data import InputError
from common.seeds import SeedStreams, say


def get_args_parser() -> argparse.ArgumentParser:
    parser = make_parser("SRe2L: label views of recovered images.")
    add = parser.add_argument
    add("--teacher", required=True, metavar="FILE", help="checkpoint that squeeze.py wrote")
    add("--data", required=True, metavar="DIR", help="folder of images that recover.py wrote")
    add("--fkd-path", default="fkd", metavar="DIR", help="folder for the soft labels, made if missing")
    add_view_arguments(parser)
    add("--seed", type=COUNT, default=0, help="all that is random but the order of the images follows from it")
    return parser


def main(args: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        teacher = load_checkpoint(args.teacher, device)
        images = read_folder(args.data, teacher.info)
    except InputError as error:
        raise SystemExit(f"relabel.py: {error}") from error
    folder = Path(args.fkd_path)
    if folder.exists() and any(folder.iterdir()):  # labels left over from other images would go unnoticed
        raise SystemExit(f"relabel.py: --fkd-path {args.fkd_path!r} is not empty")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"settings: {vars(args)}")

    torch.manual_seed(SeedStreams(args.seed).next("views"))
    batches = epoch_batches(len(images), args.batch_size, args.fkd_seed)
    for epoch in tqdm(range(args.epochs), desc="relabel", unit="epoch", disable=None):
        for batch, chosen in enumerate(batches):
            shown = [images[number] for number in chosen]
            view = draw_view(shown, args)
            with torch.no_grad():
                logits = teacher.model(render(shown, view, teacher.info, device))
            save_fkd(fkd_file(folder, epoch, batch), view, logits)
    say(f"written: {args.epochs} x {len(batches)} batches in {folder}")


if __name__ == "__main__":
    main(get_args_parser().parse_args())
