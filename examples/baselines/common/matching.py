"""What baselines that match training trajectories share: all of a distill.py but the matching itself.

Cazenavette et al., "Dataset Distillation by Matching Training Trajectories", CVPR 2022: a student starts where an
expert was at some epoch, takes `syn_steps` steps on the synthetic images, and the images and the student's learning
rate are changed so that it ends nearer to where the expert was `expert_epochs` later.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common.augmentation import diff_augment
from common.data import DATASETS, TEST_BATCH, InputError, RealImages, TensorLoader
from common.flat import FlatNetwork, flatten
from common.networks import get_eval_model, get_network
from common.seeds import SeedStreams, say
from common.synthetic import init_synthetic
from common.trajectories import buffer_folder, load_experts
from common.whitening import get_inputs

REPORT_EVERY = 10
MOMENTUM = 0.5  # of the synthetic images and of the learning rate


@dataclass(frozen=True)
class Step:
    """One step of a student: which images it takes, and the seed of their augmentation."""

    indices: torch.Tensor
    seed: int


def plan_steps(count: int, batch: int | None, steps: int) -> list[Step]:
    """The steps of a student over `count` images: batch after batch of one random order, then of the next."""
    order: list[torch.Tensor] = []
    plan = []
    for _ in range(steps):
        order = order or list(torch.randperm(count).split(batch or count))
        plan.append(Step(order.pop(), int(torch.randint(2**31, ()))))
    return plan


def augmented(images: torch.Tensor, step: Step, args: argparse.Namespace) -> torch.Tensor:
    """The images of a step as the student sees them; the same at each call."""
    chosen = images[step.indices.to(images.device)]
    if not args.dsa:
        return chosen
    torch.manual_seed(step.seed)  # from the global stream each image gets an augmentation of its own
    return diff_augment(chosen, args.dsa_strategy)


def claim_folder(args: argparse.Namespace) -> Path:
    """Make the folder that a run writes to: that of --run_name, or else the first free one of run0, run1, ..."""
    parent = Path(args.save_path) / args.dataset
    parent.mkdir(parents=True, exist_ok=True)
    names = [args.run_name] if args.run_name is not None else (f"run{number}" for number in itertools.count())
    for name in names:
        with contextlib.suppress(FileExistsError):
            (parent / name).mkdir(parents=True)
            return parent / name
    raise SystemExit(f"distill.py: {parent / name} exists; give another --run_name")


class Distillation:
    """A synthetic set and a learning rate that are to be learned, the experts to learn from, and the updates.

    Attributes:
        images: the synthetic images, ordered by class, in the space that networks see (normalised or whitened).
        labels: their labels: a class each, unless the baseline sets class probabilities.
        lr: the learning rate of students.
        network: the students' network, without parameters of its own.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.info, self.seeds = args, DATASETS[args.dataset], SeedStreams(args.seed)
        expert_dir, last_epoch = buffer_folder(args), args.max_start_epoch - 1 + args.expert_epochs
        try:
            net = get_network(args.model, self.info, args.seed, args.device)  # does it fit the images?
            self._experts = load_experts(expert_dir, args.max_experts, last_epoch, net)
            real, test, self._zca = get_inputs(args.dataset, args.data_path, args.zca, args.device)
        except (ValueError, InputError) as error:
            raise SystemExit(f"distill.py: {error}") from error
        self.network = FlatNetwork(net)
        self._testloader = TensorLoader(*test, TEST_BATCH)
        self._init_learnable(*real)
        self._draws = np.random.default_rng(self.seeds.next("segments"))
        self._folder = claim_folder(args)
        self._best = -math.inf
        say(f"settings: {vars(args)}")
        say(f"{len(self._experts)} experts from {expert_dir}; results go to {self._folder}")

    def _init_learnable(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        args = self.args
        real = RealImages(images, labels, self.info.num_classes, self.seeds.next("real images"))
        noise_seed = self.seeds.next("noise")
        self.images, self.labels = init_synthetic(args.pix_init, args.ipc, real, self.info, noise_seed, args.device)
        self.lr = torch.tensor(args.lr_teacher, device=args.device, requires_grad=True)
        groups = [{"params": [self.images], "lr": args.lr_img}, {"params": [self.lr], "lr": args.lr_lr}]
        self._optimizer = torch.optim.SGD(groups, momentum=MOMENTUM)

    def iterations(self, evaluate_synset: Callable[..., tuple]) -> Iterator[int]:
        """The number of each update to make; evaluates and saves the synthetic set before, between and after them."""
        args = self.args
        for it in tqdm(range(args.Iteration), desc="distillation", unit="it", disable=None):
            if args.eval_it and it % args.eval_it == 0:
                self._evaluate(it, evaluate_synset)
            # A stream of its own for each update, whatever an evaluation has drawn.
            torch.manual_seed(self.seeds.next("iteration"))
            yield it
        self._finish(evaluate_synset)

    def draw_segment(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where a random expert was at a random epoch, and `expert_epochs` later, as vectors."""
        trajectory = self._experts[self._draws.integers(len(self._experts))]
        start = int(self._draws.integers(self.args.max_start_epoch))
        ends = (trajectory[start], trajectory[start + self.args.expert_epochs])
        first, last = (flatten(parameters).to(self.args.device) for parameters in ends)
        return first, last

    def plan_steps(self) -> list[Step]:
        return plan_steps(len(self.images), self.args.batch_syn, self.args.syn_steps)

    def update(self, it: int, loss: torch.Tensor, gradients: tuple[torch.Tensor, torch.Tensor]) -> None:
        """One step of the images and of the learning rate along the loss's gradients with respect to them."""
        self.images.grad, self.lr.grad = gradients
        self._optimizer.step()
        if not (math.isfinite(loss.item()) and self.images.isfinite().all()):
            raise SystemExit(
                f"distill.py: the matching loss is {loss.item()} at iteration {it}; lower --lr_img or --lr_lr"
            )
        if not self.lr.item() > 0:
            raise SystemExit(f"distill.py: the learning rate became {self.lr.item()} at iteration {it}; lower --lr_lr")
        if it % REPORT_EVERY == 0:
            say(f"iter = {it:04d}, loss = {loss.item():.4f}, lr = {self.lr.item():.5f}")

    def _evaluate(self, it: int, evaluate_synset: Callable[..., tuple]) -> None:
        """Test the synthetic set on new networks; save it if it is the best so far."""
        args, model_eval = self.args, get_eval_model(self.args.model)
        args.lr_net = self.lr.item()
        accs = []
        for it_eval in range(args.num_eval):
            net = get_network(model_eval, self.info, self.seeds.next("evaluation"), args.device)
            images, labels = self.images.detach().clone(), self.labels.clone()
            accs.append(evaluate_synset(it_eval, net, images, labels, self._testloader, args)[2])
        mean = float(np.mean(accs))
        say(f"iteration {it}, {len(accs)} {model_eval}: test acc = {mean:.4f}, std = {np.std(accs):.4f}")
        if mean > self._best:
            self._best = mean
            self._save(it, best=True)

    def _finish(self, evaluate_synset: Callable[..., tuple]) -> None:
        it = self.args.Iteration
        if self.args.eval_it:
            self._evaluate(it, evaluate_synset)
            self._save(it, best=False)
        else:
            say("no evaluation chose the best synthetic set: the last one is saved as the best")
            self._save(it, best=True)
        say(f"written: {self._folder}")

    def _save(self, it: int, best: bool) -> None:
        """Write the synthetic set as that of an iteration, and as the best one."""
        learned = {"images": self.images, "labels": self.labels, "lr": self.lr}
        suffixes = (it, "best") if best else (it,)
        files = {f"{name}_{suffix}": tensor for suffix in suffixes for name, tensor in learned.items()}
        if self._zca is not None:
            files[f"images_zca_{it}"] = self._zca.inverse(self.images.detach())
        for name, tensor in files.items():
            torch.save(tensor.detach().cpu().clone(), self._folder / f"{name}.pt")
