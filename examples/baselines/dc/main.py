"""Dataset condensation by gradient matching: a few synthetic images that train a network like the real ones do.

DC: Zhao, Mopuri and Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021. DSA: Zhao and Bilen, "Dataset
Condensation with Differentiable Siamese Augmentation", ICML 2021. Written anew from the papers.

    python main.py --dataset digits --model ConvNetW32 --ipc 10 --Iteration 10 --save_path result
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))  # common/ lies beside this folder
from utils import epoch, evaluate_synset, get_loops, match_loss

from common.arguments import COUNT, NATURAL, POSITIVE, make_parser
from common.augmentation import diff_augment, parse_strategy
from common.data import DATASETS, TEST_BATCH, DatasetInfo, InputError, RealImages, TensorLoader, get_dataset
from common.networks import MODELS, get_eval_model, get_network
from common.seeds import SeedStreams, say
from common.synthetic import init_synthetic

EVALUATE_EVERY = 500
REPORT_EVERY = 10
BN_IMAGES_PER_CLASS = 16


def parse_args() -> argparse.Namespace:
    """The command line, checked, with what follows from it (loops, device)."""
    parser = make_parser("Dataset condensation by gradient matching (DC, DSA).")
    add = parser.add_argument
    add("--method", default="DC", choices=("DC", "DSA"), help="without or with Siamese augmentation")
    add("--dataset", default="CIFAR10", choices=tuple(DATASETS), help="real data")
    add("--model", default="ConvNet", choices=MODELS, metavar="NAME", help=f"network: {', '.join(MODELS)}")
    add("--ipc", type=NATURAL, default=1, help="synthetic images per class")
    add("--num_exp", type=NATURAL, default=5, help="experiments, each with a synthetic set of its own")
    add("--num_eval", type=COUNT, default=20, help="networks trained and tested in one evaluation; 0 for none")
    add("--epoch_eval_train", type=NATURAL, default=300, help="epochs of training in an evaluation")
    add("--Iteration", type=COUNT, default=1000, help="number of the last iteration; the first is 0")
    add("--lr_img", type=POSITIVE, default=0.1, help="learning rate of the synthetic images")
    add("--lr_net", type=POSITIVE, default=0.01, help="learning rate of the networks")
    add("--batch_real", type=NATURAL, default=256, help="real images of one class in a batch")
    add("--batch_train", type=NATURAL, default=256, help="batch size in training on synthetic images")
    add("--init", default="noise", choices=("noise", "real"), help="what the synthetic images start from")
    add("--dsa_strategy", default="color_crop_cutout_flip_scale_rotate", help="augmentations of DSA, or none")
    add("--data_path", default="data", help="folder with the real data, where the data set needs one")
    add("--save_path", default="result", help="folder for the results, made if missing")
    add("--dis_metric", default="ours", choices=("ours", "mse", "cos"), help="distance between gradients")
    add("--seed", type=COUNT, default=0, help="all that is random follows from it")
    add("--outer_loop", type=NATURAL, default=None, help="image updates per iteration; None: by the papers, from ipc")
    add("--inner_loop", type=NATURAL, default=None, help="network epochs per image update; None: as above")
    args = parser.parse_args()
    try:
        parse_strategy(args.dsa_strategy)
        if args.outer_loop is None or args.inner_loop is None:
            outer_loop, inner_loop = get_loops(args.ipc)
            args.outer_loop = args.outer_loop or outer_loop
            args.inner_loop = args.inner_loop or inner_loop
    except ValueError as error:
        parser.error(f"{error}; give --outer_loop and --inner_loop" if "loops" in str(error) else str(error))
    args.dsa = args.method == "DSA"
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def freeze_batch_norm(net: nn.Module, real: RealImages, num_classes: int) -> None:
    """Take BatchNorm's statistics from real images and hold them; a few synthetic images would give poor ones.

    Only the BatchNorm modules go to eval: the network itself stays in train.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    net.train()
    with torch.no_grad():
        net(torch.cat([real.draw(c, BN_IMAGES_PER_CLASS) for c in range(num_classes)]))
    for module in norms:
        module.eval()


def class_distance(
    net: nn.Module,
    criterion: nn.Module,
    img_real: torch.Tensor,
    img_syn: torch.Tensor,
    c: int,
    args: argparse.Namespace,
) -> torch.Tensor:
    """The distance between the network's gradients on real and on synthetic images of the class c."""
    parameters = list(net.parameters())
    lab_real = torch.full((len(img_real),), c, device=args.device)
    lab_syn = torch.full((len(img_syn),), c, device=args.device)

    loss_real = criterion(net(img_real), lab_real)
    gw_real = torch.autograd.grad(loss_real, parameters)

    loss_syn = criterion(net(img_syn), lab_syn)
    gw_syn = torch.autograd.grad(loss_syn, parameters, create_graph=True)
    return match_loss(gw_syn, tuple(gradient.detach() for gradient in gw_real), args)


def update_images(
    net: nn.Module,
    criterion: nn.Module,
    real: RealImages,
    image_syn: torch.Tensor,
    optimizer_img: torch.optim.Optimizer,
    num_classes: int,
    seeds: SeedStreams,
    args: argparse.Namespace,
) -> float:
    """One step of the synthetic images, over all classes; returns the sum of the distances."""
    distances = []
    for c in range(num_classes):
        img_real = real.draw(c, args.batch_real)
        img_syn = image_syn[c * args.ipc : (c + 1) * args.ipc]
        if args.dsa:  # Siamese: one seed, so that both get the same augmentation
            seed = seeds.next("augmentation")
            img_real = diff_augment(img_real, args.dsa_strategy, seed)
            img_syn = diff_augment(img_syn, args.dsa_strategy, seed)
        distances.append(class_distance(net, criterion, img_real, img_syn, c, args))
    loss = torch.stack(distances).sum()
    optimizer_img.zero_grad()
    loss.backward()
    optimizer_img.step()
    return loss.item()


def distill_iteration(
    criterion: nn.Module,
    real: RealImages,
    image_syn: torch.Tensor,
    label_syn: torch.Tensor,
    optimizer_img: torch.optim.Optimizer,
    info: DatasetInfo,
    seeds: SeedStreams,
    args: argparse.Namespace,
) -> float:
    """Match gradients along the training of one new network; returns the mean distance of a class."""
    net = get_network(args.model, info, seeds.next("network"), args.device)
    net.train()
    optimizer_net = torch.optim.SGD(net.parameters(), lr=args.lr_net)
    total = 0.0
    for step in range(args.outer_loop):
        freeze_batch_norm(net, real, info.num_classes)
        total += update_images(net, criterion, real, image_syn, optimizer_img, info.num_classes, seeds, args)
        # Trained on the synthetic images as they are now, so that matching sees the network at several ages.
        if step < args.outer_loop - 1:
            loader = TensorLoader(image_syn.detach().clone(), label_syn, args.batch_train, shuffle=True)
            for _ in range(args.inner_loop):
                epoch("train", loader, net, optimizer_net, criterion, args, aug=args.dsa)
    return total / (info.num_classes * args.outer_loop)


def evaluate(
    image_syn: torch.Tensor,
    label_syn: torch.Tensor,
    testloader: TensorLoader,
    info: DatasetInfo,
    it: int,
    seeds: SeedStreams,
    args: argparse.Namespace,
) -> list[np.float64]:
    """Test accuracies of num_eval new networks that were trained on the synthetic images."""
    model_eval = get_eval_model(args.model)
    accs: list[np.float64] = []
    for it_eval in range(args.num_eval):
        net = get_network(model_eval, info, seeds.next("evaluation"), args.device)
        images, labels = image_syn.detach().clone(), label_syn.clone()
        _, _, acc_test = evaluate_synset(it_eval, net, images, labels, testloader, args)
        accs.append(np.float64(acc_test))
    if accs:
        say(f"iteration {it}, {len(accs)} {model_eval}: test acc = {np.mean(accs):.4f}, std = {np.std(accs):.4f}")
    return accs


def save_picture(image_syn: torch.Tensor, info: DatasetInfo, exp: int, it: int, args: argparse.Namespace) -> None:
    """Write the synthetic images as one PNG, a row per class."""
    from torchvision.utils import save_image

    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    pixels = (image_syn.detach().cpu() * std + mean).clamp(0, 1)
    name = f"vis_{args.method}_{args.dataset}_{args.model}_{args.ipc}ipc_exp{exp}_iter{it}.png"
    save_image(pixels, Path(args.save_path) / name, nrow=args.ipc)


def main() -> None:
    args = parse_args()
    info = DATASETS[args.dataset]
    num_classes = info.num_classes
    model_eval = get_eval_model(args.model)
    seeds = SeedStreams(args.seed)
    try:
        get_network(args.model, info, args.seed, args.device)  # does it fit the images?
        (images, labels), (test_images, test_labels) = get_dataset(args.dataset, args.data_path)
    except (ValueError, InputError) as error:
        raise SystemExit(f"main.py: {error}") from error
    images = images.to(args.device)
    testloader = TensorLoader(test_images, test_labels, TEST_BATCH)
    save_path = Path(args.save_path)
    save_path.mkdir(parents=True, exist_ok=True)
    say(f"settings: {vars(args)}")

    data: list[list[torch.Tensor]] = []
    accs_all_exps: dict[str, list[np.float64]] = {model_eval: []}
    for exp in range(args.num_exp):
        say(f"experiment {exp}: {len(images)} real images, {num_classes * args.ipc} synthetic ones from {args.init}")
        real = RealImages(images, labels, num_classes, seeds.next("real images"))
        noise_seed = seeds.next("noise")
        image_syn, label_syn = init_synthetic(args.init, args.ipc, real, info, noise_seed, args.device)
        optimizer_img = torch.optim.SGD([image_syn], lr=args.lr_img, momentum=0.5)
        criterion = nn.CrossEntropyLoss().to(args.device)

        for it in tqdm(range(args.Iteration + 1), desc=f"experiment {exp}", unit="it", disable=None):
            if it % EVALUATE_EVERY == 0 and it < args.Iteration:
                evaluate(image_syn, label_syn, testloader, info, it, seeds, args)
                save_picture(image_syn, info, exp, it, args)
            loss = distill_iteration(criterion, real, image_syn, label_syn, optimizer_img, info, seeds, args)
            if not math.isfinite(loss):
                raise SystemExit(f"main.py: the matching loss is {loss} at iteration {it}; lower --lr_img or --lr_net")
            if it % REPORT_EVERY == 0:
                say(f"iter = {it:04d}, loss = {loss:.4f}")

        # After the last update, so that the accuracies on record are those of the images that are saved.
        accs_all_exps[model_eval] += evaluate(image_syn, label_syn, testloader, info, args.Iteration, seeds, args)
        save_picture(image_syn, info, exp, args.Iteration, args)
        data.append([image_syn.detach().cpu().clone(), label_syn.cpu().clone()])
        result = save_path / f"res_{args.method}_{args.dataset}_{args.model}_{args.ipc}ipc.pt"
        torch.save({"data": data, "accs_all_exps": accs_all_exps}, result)
        say(f"written: {result}")

    accs = accs_all_exps[model_eval]
    if accs:
        say(f"{len(accs)} {model_eval} on {args.num_exp} sets: mean = {np.mean(accs):.2%}, std = {np.std(accs):.2%}")


if __name__ == "__main__":
    main()
