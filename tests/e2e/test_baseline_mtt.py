"""The trajectory-matching baselines in examples/, MTT and TESLA, as they are without the plugin."""

import importlib
import re
import sys
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from guard_plugin.versions import strict_zip

BASELINES = Path(__file__).resolve().parents[2] / "examples" / "baselines"
LOCAL = ("buffer", "distill", "utils", "common")

EXPERTS = (
    *("--dataset", "digits", "--model", "MLP", "--batch_train", "250", "--dsa", "False"),
    *("--num_experts", "2", "--save_interval", "1", "--train_epochs", "2", "--lr_teacher", "0.02"),
)
DISTILL = (
    *("--dataset", "digits", "--model", "MLP", "--dsa", "False", "--Iteration", "2", "--eval_it", "0"),
    *("--max_start_epoch", "1", "--expert_epochs", "1", "--syn_steps", "2", "--lr_img", "1", "--lr_lr", "1e-7"),
)

pytest.importorskip("sklearn")
pytestmark = pytest.mark.long


@contextmanager
def own_modules(*folders):
    """Hosts share module names: what is imported here is seen by no other host and no other test."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in LOCAL}
    for name in before:
        del sys.modules[name]
    path = list(sys.path)
    sys.path[:0] = map(str, folders)
    try:
        yield
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name.split(".")[0] in LOCAL]:
            del sys.modules[name]
        sys.modules.update(before)


class Host:
    """One baseline: its modules, and its scripts as commands."""

    def __init__(self, name):
        with own_modules(BASELINES / name, BASELINES):
            self.buffer, self.distill, self.utils = map(importlib.import_module, ("buffer", "distill", "utils"))
            self.common = {
                part: importlib.import_module(f"common.{part}")
                for part in ("data", "flat", "matching", "networks", "trajectories", "whitening")
            }

    def run(self, script, *arguments):
        """What `python SCRIPT ARGUMENTS` does, in this process."""
        module = {"buffer": self.buffer, "distill": self.distill}[script]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
            patch.setattr(torch.cuda, "is_available", lambda: False)
            module.main(module.parse_args())


@pytest.fixture(scope="module")
def hosts():
    return {name: Host(name) for name in ("mtt", "tesla")}


@pytest.fixture(params=["mtt", "tesla"])
def host(request, hosts):
    return hosts[request.param]


@pytest.fixture(scope="module")
def experts(hosts, tmp_path_factory):
    """A folder of quick experts, for the tests that only read them."""
    folder = tmp_path_factory.mktemp("experts")
    hosts["mtt"].run("buffer", *EXPERTS, "--buffer_path", folder)
    return folder


def load(path):
    return torch.load(path, weights_only=True)


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.pt"))


def distilled(host, experts, out, *arguments):
    """Distil into a folder; returns all that was written, by name."""
    host.run("distill", *DISTILL, "--buffer_path", experts, "--save_path", out, *arguments)
    return {path.stem: load(path) for path in out.rglob("*.pt")}


# ---------------------------------------------------------------------------------------------------------------------
# buffer.py


def test_buffers_are_lists_of_snapshots_that_differ(host, tmp_path):
    host.run("buffer", *EXPERTS, "--buffer_path", tmp_path, "--num_experts", "4", "--save_interval", "2")
    folder = tmp_path / "digits_NO_ZCA" / "MLP"
    assert written(tmp_path) == [f"digits_NO_ZCA/MLP/replay_buffer_{n}.pt" for n in (0, 1)]
    first, second = load(folder / "replay_buffer_0.pt"), load(folder / "replay_buffer_1.pt")
    info = host.common["data"].DATASETS["digits"]
    shapes = [p.shape for p in host.common["networks"].get_network("MLP", info, 0, "cpu").parameters()]
    for trajectory in (*first, *second):
        assert len(trajectory) == 3
        assert all([p.shape for p in snapshot] == shapes for snapshot in trajectory)
        for earlier, later in zip(trajectory, trajectory[1:]):
            assert all(not torch.equal(a, b) for a, b in strict_zip(earlier, later))
    starts = [trajectory[0][0] for trajectory in (*first, *second)]
    assert all(not torch.equal(a, b) for i, a in enumerate(starts) for b in starts[:i])


def test_experts_are_trained_on_the_first_images(host, tmp_path):
    made = {}
    for count in ("", "1000", "300"):
        folder = tmp_path / (count or "all")
        host.run("buffer", *EXPERTS, "--buffer_path", folder, *(("--n_train", count) if count else ()))
        made[count] = load(folder / "digits_NO_ZCA" / "MLP" / "replay_buffer_0.pt")[0][-1]
    assert all(torch.equal(a, b) for a, b in strict_zip(made[""], made["1000"]))
    assert not torch.equal(made[""][0], made["300"][0])


def test_buffers_are_added_to_those_that_are_there(host, tmp_path, capsys):
    host.run("buffer", *EXPERTS, "--buffer_path", tmp_path)
    assert "files are in" not in capsys.readouterr().out
    folder = tmp_path / "digits_NO_ZCA" / "MLP"
    before = [(folder / f"replay_buffer_{n}.pt").read_bytes() for n in (0, 1)]
    host.run("buffer", *EXPERTS, "--buffer_path", tmp_path, "--seed", "0", "--num_experts", "1")
    host.run("buffer", *EXPERTS, "--buffer_path", tmp_path, "--seed", "1", "--num_experts", "1")
    assert "2 files are in" in capsys.readouterr().out
    same, other = load(folder / "replay_buffer_2.pt"), load(folder / "replay_buffer_3.pt")
    assert before == [(folder / f"replay_buffer_{n}.pt").read_bytes() for n in (0, 1)]
    assert all(torch.equal(a, b) for a, b in strict_zip(same[0][-1], load(folder / "replay_buffer_0.pt")[0][-1]))
    assert not torch.equal(same[0][-1][0], other[0][-1][0])


def test_buffer_options_count(host, tmp_path):
    """Each changes the experts, and whitened images have a folder of their own."""
    last = {}
    for options in ((), ("--dsa", "True"), ("--zca",), ("--mom", "0.5"), ("--l2", "0.5"), ("--batch_train", "500")):
        out = tmp_path / "_".join(("x", *options))
        host.run("buffer", *EXPERTS, "--num_experts", "1", "--buffer_path", out, *options)
        (path,) = out.rglob("*.pt")
        assert path.parent.parent.name == ("digits" if "--zca" in options else "digits_NO_ZCA")
        last[options] = load(path)[0][-1][0]
    values = list(last.values())
    assert all(not torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])


def test_batch_norm_experts_hold_parameters_only(host, tmp_path):
    host.run("buffer", *EXPERTS, "--model", "ConvNetBN", "--num_experts", "1", "--buffer_path", tmp_path)
    snapshot = load(tmp_path / "digits_NO_ZCA" / "ConvNetBN" / "replay_buffer_0.pt")[0][0]
    assert len(snapshot) == 3 * (2 + 2) + 2
    content = distilled(host, tmp_path, tmp_path / "out", "--model", "ConvNetBN")
    assert content["images_best"].isfinite().all()


def count_epochs(host, monkeypatch):
    modes, epoch = [], host.utils.epoch

    def counting(mode, **options):
        modes.append((mode, options["aug"]))
        return epoch(mode, **options)

    monkeypatch.setattr(host.buffer, "epoch", counting)
    return modes


def test_mtt_tests_each_epoch_and_tesla_the_last(hosts, tmp_path, monkeypatch):
    train, test = ("train", True), ("test", False)
    for name, expected in (("mtt", [train, test] * 2), ("tesla", [train, train, test])):
        modes = count_epochs(hosts[name], monkeypatch)
        hosts[name].run("buffer", *EXPERTS, "--num_experts", "1", "--buffer_path", tmp_path / name)
        assert modes == expected


def test_an_adapter_can_count_on_these_names(host, tmp_path, monkeypatch):
    """In `main`, at each loss call: trainloader, save_dir, args; the criterion is called from `epoch` itself."""
    seen = []

    def hook(module, inputs):
        if isinstance(module, nn.CrossEntropyLoss):
            frame = sys._getframe(1)
            while frame.f_code.co_filename != host.utils.__file__:
                frame = frame.f_back
            caller = frame.f_back
            while caller.f_code.co_name != "main":
                caller = caller.f_back
            assert frame.f_code.co_name == "epoch"
            assert Path(caller.f_locals["save_dir"]) == tmp_path / "digits_NO_ZCA" / "MLP"
            args = caller.f_locals["args"]
            expected = args.num_experts * args.train_epochs * len(caller.f_locals["trainloader"])
            seen.append((frame.f_locals["mode"], frame.f_locals["net"].training, inputs[0].requires_grad, expected))

    handle = nn.modules.module.register_module_forward_pre_hook(hook)
    try:
        host.run("buffer", *EXPERTS, "--buffer_path", tmp_path)
    finally:
        handle.remove()
    assert {call[:3] for call in seen} == {("train", True, True), ("test", False, True)}
    assert {call[3] for call in seen} == {sum(call[0] == "train" for call in seen)} == {16}


def test_tesla_mse_is_squared_error_of_one_hot_labels(hosts, tmp_path):
    """Against one step computed by hand."""
    tesla = hosts["tesla"]
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 2, 1])
    expected = (net(images) - torch.eye(3)[labels]).square().mean()
    gradient = torch.autograd.grad(expected, net[1].weight)[0]
    before = net[1].weight.detach().clone()
    loader = tesla.common["data"].TensorLoader(images, labels, 5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    args = Namespace(device="cpu", dsa=False)
    loss, accuracy = tesla.utils.epoch("train", loader, net, optimizer, nn.MSELoss(), args, aug=True)
    assert loss == pytest.approx(float(expected.detach()))
    assert accuracy * 5 == pytest.approx(round(accuracy * 5))
    torch.testing.assert_close(net[1].weight.detach(), before - 0.5 * gradient)

    tesla.run("buffer", *EXPERTS, "--loss_type", "mse", "--num_experts", "1", "--buffer_path", tmp_path)
    assert len(written(tmp_path)) == 1


def test_soft_labels_train_and_count(hosts):
    """TESLA's students learn from class probabilities; the likeliest class counts as the right one."""
    tesla = hosts["tesla"]
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, soft = torch.rand(4, 1, 2, 2), torch.rand(4, 3).softmax(dim=1)
    loader = tesla.common["data"].TensorLoader(images, soft, 4)
    loss, accuracy = tesla.utils.epoch(
        "test", loader, net, None, nn.CrossEntropyLoss(), Namespace(device="cpu", dsa=False), aug=False
    )
    expected = -(soft * net(images).log_softmax(dim=1)).sum(dim=1).mean()
    assert loss == pytest.approx(float(expected.detach()))
    assert accuracy == float((net(images).argmax(dim=1) == soft.argmax(dim=1)).float().mean())


def test_textures_are_refused(host):
    loader = host.common["data"].TensorLoader(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), 2)
    args = Namespace(device="cpu", dsa=False, lr_net=0.1, epoch_eval_train=1, batch_train=2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="not textures"):
        host.utils.epoch("train", loader, net, None, nn.CrossEntropyLoss(), args, True, texture=True)
    with pytest.raises(ValueError, match="not textures"):
        host.utils.evaluate_synset(0, net, loader.images, loader.labels, loader, args, texture=True)


def test_evaluation_returns_what_it_measured(host):
    loader = host.common["data"].TensorLoader(torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]), 4)
    args = Namespace(device="cpu", dsa=False, lr_net=0.1, epoch_eval_train=3, batch_train=4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    content = host.utils.evaluate_synset(0, net, loader.images, loader.labels, loader, args, return_loss=True)
    trained, accs, acc, losses, loss = content
    assert trained is net
    assert len(accs) == len(losses) == 3
    assert losses[0] > losses[1] > losses[2] > loss
    assert (loss, acc) == host.utils.epoch("test", loader, net, None, nn.CrossEntropyLoss(), args, False)
    assert len(host.utils.evaluate_synset(0, net, loader.images, loader.labels, loader, args)) == 3


# ---------------------------------------------------------------------------------------------------------------------
# The mathematics


def problem(host, steps, batch=None):
    """A small matching problem in float64, as keyword arguments of both baselines' matching functions."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
    flatten = host.common["flat"].flatten
    start = flatten(net.parameters()).detach()
    return net, {
        "network": host.common["flat"].FlatNetwork(net),
        "criterion": nn.CrossEntropyLoss(),
        "start": start,
        "target": start + 0.1 * torch.randn_like(start),
        "images": torch.randn(6, 1, 4, 4, dtype=torch.float64, requires_grad=True),
        "labels": torch.tensor([0, 0, 1, 1, 2, 2]),
        "lr": torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
        "plan": host.common["matching"].plan_steps(6, batch, steps),
        "args": Namespace(dsa=False, dsa_strategy="none"),
    }


def oracle(net, start, target, images, labels, lr, plan, unroll, **_):
    """The matching loss written out with one tensor per parameter; without unrolling, students are constants."""
    names = [name for name, _ in net.named_parameters()]
    sizes = [p.numel() for p in net.parameters()]
    shapes = [p.shape for p in net.parameters()]

    def parts(flat):
        return [part.view(shape) for part, shape in strict_zip(flat.split(sizes), shapes)]

    student = [part.clone().requires_grad_(True) for part in parts(start)]
    total = [torch.zeros_like(part) for part in student]
    for step in plan:
        at = student if unroll else [part.detach().requires_grad_(True) for part in student]
        output = functional_call(net, dict(strict_zip(names, at)), images[step.indices])
        loss = -output.log_softmax(dim=1)[range(len(step.indices)), labels[step.indices]].mean()
        gradients = torch.autograd.grad(loss, at, create_graph=True)
        total = [t + g for t, g in strict_zip(total, gradients)]
        student = [s - lr * g for s, g in strict_zip(student, gradients)]
    ends = [s - lr * t for s, t in strict_zip(parts(start), total)]
    missed = sum(((a - b) ** 2).sum() for a, b in strict_zip(ends, parts(target)))
    return missed / sum(((a - b) ** 2).sum() for a, b in strict_zip(parts(start), parts(target)))


@pytest.mark.parametrize(("steps", "batch"), [(1, None), (3, None), (5, 2)])
def test_mtt_is_the_unrolled_loss(hosts, steps, batch):
    net, settings = problem(hosts["mtt"], steps, batch)
    loss = hosts["mtt"].distill.matching_loss(**settings)
    expected = oracle(net, **settings, unroll=True)
    torch.testing.assert_close(loss, expected)
    wanted = (settings["images"], settings["lr"])
    torch.testing.assert_close(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted))


@pytest.mark.parametrize(("steps", "batch"), [(1, None), (3, None), (5, 2)])
def test_tesla_is_that_loss_with_students_held(hosts, steps, batch):
    """The gradient of the unrolled loss for one step; for more, that in which each student is a constant."""
    net, settings = problem(hosts["tesla"], steps, batch)
    loss, gradients = hosts["tesla"].distill.matching_gradients(**settings)
    wanted = (settings["images"], settings["lr"])
    unrolled, held = (oracle(net, **settings, unroll=unroll) for unroll in (True, False))
    torch.testing.assert_close(loss, unrolled.detach())
    assert not loss.requires_grad and not settings["start"].requires_grad
    torch.testing.assert_close(gradients, torch.autograd.grad(held, wanted))
    exact = torch.autograd.grad(unrolled, wanted)
    assert torch.allclose(gradients[0], exact[0], rtol=1e-6) == (steps == 1)


def test_tesla_augments_alike_in_both_passes(hosts):
    """With augmentation, too, the constant-memory gradient is that of its own loss: a small step lowers it as told."""
    _, settings = problem(hosts["tesla"], 1)
    settings["args"] = Namespace(dsa=True, dsa_strategy="color_crop_cutout")
    matching = hosts["tesla"].distill.matching_gradients
    loss, (gradient, _) = matching(**settings)
    direction = torch.randn_like(gradient)
    moved = {**settings, "images": (settings["images"].detach() + 1e-6 * direction).requires_grad_(True)}
    slope = (matching(**moved)[0] - loss) / 1e-6
    torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-4, atol=1e-8)


def test_tesla_needs_no_more_memory_for_more_steps(hosts):
    """The most bytes that graphs hold at any time."""
    held = {}
    for name, function in (("mtt", "matching_loss"), ("tesla", "matching_gradients")):
        for steps in (2, 8):
            _, settings = problem(hosts[name], steps)
            alive, most = 0, 0

            class Saved:
                def __init__(self, tensor):
                    nonlocal alive, most
                    self.tensor = tensor
                    alive += 1
                    most = max(most, alive)

                def __del__(self):
                    nonlocal alive
                    alive -= 1

            with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
                getattr(hosts[name].distill, function)(**settings)
            held[name, steps] = most
    assert held["mtt", 8] > 3 * held["mtt", 2]
    assert held["tesla", 8] == held["tesla", 2]


def test_steps_take_every_image_equally_often(hosts):
    plan = hosts["mtt"].common["matching"].plan_steps(10, 4, 6)
    assert sorted(len(step.indices) for step in plan) == [2, 2, 4, 4, 4, 4]
    for half in (plan[:3], plan[3:]):
        assert sorted(torch.cat([step.indices for step in half]).tolist()) == list(range(10))
    assert not torch.equal(torch.cat([s.indices for s in plan[:3]]), torch.cat([s.indices for s in plan[3:]]))
    assert len({step.seed for step in plan}) == 6


def test_whitening(hosts):
    """Covariance S / (S + eps) in the directions of the images' own, and back again."""
    whitening = hosts["mtt"].common["whitening"].ZCAWhitening
    mix = torch.randn(12, 12, dtype=torch.float64)
    images = (torch.randn(500, 12, dtype=torch.float64) @ mix + 3).view(500, 3, 2, 2)
    zca = whitening(images)
    whitened = zca(images)
    assert whitened.shape == images.shape
    torch.testing.assert_close(zca.inverse(whitened), images)
    before = torch.cov(images.flatten(1).T)
    torch.testing.assert_close(
        torch.cov(whitened.flatten(1).T), before @ torch.linalg.inv(before + 0.1 * torch.eye(12, dtype=torch.float64))
    )
    torch.testing.assert_close(whitened.mean(dim=0), torch.zeros(3, 2, 2, dtype=torch.float64))
    # Zero-phase: a symmetric map, so that images stay recognisable, and one that suits images not in the fit.
    one = zca(images[:1] + 1) - zca(images[:1])
    expected = torch.linalg.inv(before + 0.1 * torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(one.flatten() @ one.flatten(), expected.sum())


def test_whitened_inputs_are_fitted_on_the_training_pixels(hosts):
    common = hosts["mtt"].common
    (train, _), (test, _), zca = common["whitening"].get_inputs("digits", "data", True, "cpu")
    (pixels, labels), (test_pixels, _) = common["data"].get_dataset("digits", "data", normalise=False)
    assert pixels.min() == 0 and pixels.max() == 1
    torch.testing.assert_close(zca.inverse(train), pixels, atol=1e-4, rtol=0)
    torch.testing.assert_close(zca.inverse(test), test_pixels, atol=1e-4, rtol=0)
    assert train.mean(dim=0).abs().max() < 1e-4 < test.mean(dim=0).abs().max()
    (normalised, same), _, none = common["whitening"].get_inputs("digits", "data", False, "cpu")
    assert none is None and torch.equal(labels, same)
    torch.testing.assert_close(normalised, (pixels - 0.3051) / 0.3753)


def test_flat_network_leaves_nothing_behind(hosts):
    common = hosts["mtt"].common
    net = common["networks"].get_network("ConvNetBN", common["data"].DATASETS["digits"], 0, "cpu")
    images = torch.rand(4, 1, 8, 8)
    expected = net.train()(images).detach()
    flat = common["flat"].flatten(net.parameters()).detach()
    network = common["flat"].FlatNetwork(net)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    torch.testing.assert_close(network(images, flat), expected)
    assert not torch.allclose(network(images, flat * 1.5), expected)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())


# ---------------------------------------------------------------------------------------------------------------------
# distill.py


def test_files_without_evaluation(host, experts, tmp_path, capsys):
    content = distilled(host, experts, tmp_path / "out", "--ipc", "2")
    names = {f"{what}_{it}" for what in ("images", "labels", "lr") for it in ("2", "best")}
    assert set(content) == names
    assert all((tmp_path / "out" / "digits" / "run0" / f"{name}.pt").exists() for name in names)
    assert "the last one is saved as the best" in capsys.readouterr().out
    images, labels, lr = (content[f"{what}_best"] for what in ("images", "labels", "lr"))
    assert images.shape == (20, 1, 8, 8) and images.dtype == torch.float32 and not images.requires_grad
    assert labels.tolist() == [c for c in range(10) for _ in range(2)] and labels.dtype == torch.int64
    assert lr.shape == () and not lr.requires_grad
    assert all(torch.equal(content[f"{what}_best"], content[f"{what}_2"]) for what in ("images", "labels", "lr"))
    distilled(host, experts, tmp_path / "out")
    assert (tmp_path / "out" / "digits" / "run1" / "images_best.pt").exists()
    with pytest.raises(SystemExit, match="run1 exists; give another --run_name"):
        distilled(host, experts, tmp_path / "out", "--run_name", "run1")


def test_the_best_evaluation_is_kept(host, experts, tmp_path, capsys, monkeypatch):
    """Accuracies as given: iteration 1 is the best, 0 was for a while, and the last is saved whatever it is."""
    given = iter([0.3, 0.5, 0.8, 0.6, 0.1, 0.1])
    rates = []

    def evaluate(it_eval, net, images, labels, testloader, args):
        rates.append(args.lr_net)
        return net, [], next(given)

    monkeypatch.setattr(host.distill, "evaluate_synset", evaluate)
    content = distilled(host, experts, tmp_path, "--eval_it", "1", "--num_eval", "2", "--lr_lr", "1e-4")
    assert set(content) == {f"{what}_{it}" for what in ("images", "labels", "lr") for it in ("0", "1", "2", "best")}
    assert torch.equal(content["images_best"], content["images_1"])
    assert not torch.equal(content["images_best"], content["images_2"])
    assert rates == [float(content[f"lr_{it}"]) for it in (0, 0, 1, 1, 2, 2)]
    assert len(set(rates)) == 3
    means = re.findall(r"iteration (\d), 2 MLP: test acc = ([\d.]+)", capsys.readouterr().out)
    assert means == [("0", "0.4000"), ("1", "0.7000"), ("2", "0.1000")]


def test_seed_decides_every_bit(host, experts, tmp_path):
    """Nor does an evaluation, which draws random numbers, change what is distilled."""
    settings = ("--dsa", "True", "--syn_steps", "3", "--batch_syn", "4")
    first = distilled(host, experts, tmp_path / "a", *settings)
    evaluation = ("--eval_it", "1", "--num_eval", "1", "--epoch_eval_train", "1")
    again = distilled(host, experts, tmp_path / "b", *settings, *evaluation)
    other = distilled(host, experts, tmp_path / "c", *settings, "--seed", "1")
    assert torch.equal(first["images_2"], again["images_2"])
    assert torch.equal(first["lr_2"], again["lr_2"])
    assert not torch.equal(first["images_2"], other["images_2"])


def test_expert_seed_decides_every_bit(host, tmp_path):
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        host.run("buffer", *EXPERTS, "--dsa", "True", "--buffer_path", tmp_path / name, "--seed", seed)
    a, b, c = ([path.read_bytes() for path in sorted((tmp_path / name).rglob("*.pt"))] for name in "abc")
    assert a == b
    assert all(mine != other for mine, other in strict_zip(a, c))


def test_start_from_noise_or_from_real_images(host, experts, tmp_path):
    starts = {}
    for init in ("noise", "real"):
        content = distilled(host, experts, tmp_path / init, "--pix_init", init, "--Iteration", "0")
        starts[init] = content["images_0"]
    (pixels, labels), _ = host.common["data"].get_dataset("digits", "data")
    for c, image in enumerate(starts["real"]):
        assert (pixels[labels == c] == image).flatten(1).all(dim=1).any()
    assert starts["noise"].min() < -2


def test_zca_writes_both_spaces(host, tmp_path):
    host.run("buffer", *EXPERTS, "--num_experts", "1", "--zca", "--buffer_path", tmp_path)
    content = distilled(host, tmp_path, tmp_path / "out", "--zca", "--num_eval", "1", "--Iteration", "0")
    assert set(content) == {*(f"{w}_{it}" for w in ("images", "labels", "lr") for it in ("0", "best")), "images_zca_0"}
    (pixels, labels), _ = host.common["data"].get_dataset("digits", "data", normalise=False)
    for c, image in enumerate(content["images_zca_0"]):
        assert (pixels[labels == c] - image).abs().flatten(1).amax(dim=1).min() < 1e-4
    assert not torch.allclose(content["images_0"], content["images_zca_0"], atol=0.1)


def test_teacher_labels(hosts, experts, tmp_path, monkeypatch):
    """The labels in the file are what the expert's later parameters say of the images before the last update."""
    tesla = hosts["tesla"]
    calls, teacher_labels = [], tesla.distill.teacher_labels
    monkeypatch.setattr(
        tesla.distill, "teacher_labels", lambda *given: calls.append(given[1:]) or teacher_labels(*given)
    )
    content = distilled(tesla, experts, tmp_path, "--teacher_label", "--expert_epochs", "2", "--Iteration", "1")
    ((target, _),) = calls
    info = tesla.common["data"].DATASETS["digits"]
    ends = [load(path)[0][2] for path in sorted(experts.rglob("*.pt"))]
    (end,) = (end for end in ends if torch.equal(tesla.common["flat"].flatten(end), target))
    net = tesla.common["networks"].get_network("MLP", info, 0, "cpu")
    with torch.no_grad():
        for parameter, value in strict_zip(net.parameters(), end):
            parameter.copy_(value)
    start = distilled(tesla, experts, tmp_path / "start", "--Iteration", "0", "--teacher_label")
    expected = net(start["images_0"]).softmax(dim=1).detach()
    torch.testing.assert_close(content["labels_1"], expected)
    assert torch.equal(start["labels_0"], torch.eye(10))


def test_experts_are_taken_as_asked(host, experts, tmp_path):
    """From every file, the first max_experts of each; start epochs below max_start_epoch, all of them."""
    load_experts = host.common["trajectories"].load_experts
    info = host.common["data"].DATASETS["digits"]
    net = host.common["networks"].get_network("MLP", info, 0, "cpu")
    folder = experts / "digits_NO_ZCA" / "MLP"
    assert len(load_experts(folder, None, 2, net)) == 2
    torch.save([load(folder / f"replay_buffer_{n}.pt")[0] for n in (0, 1)], tmp_path / "replay_buffer_0.pt")
    assert len(load_experts(tmp_path, None, 2, net)) == 2
    (one,) = load_experts(tmp_path, 1, 2, net)
    assert torch.equal(one[2][0], load(folder / "replay_buffer_0.pt")[0][2][0])

    args = SimpleNamespace(max_start_epoch=2, expert_epochs=1, device="cpu")
    matching = object.__new__(host.common["matching"].Distillation)
    matching.args, matching._experts = args, [one]
    matching._draws = np.random.default_rng(0)
    flat = [host.common["flat"].flatten(snapshot) for snapshot in one]
    drawn = [matching.draw_segment() for _ in range(20)]
    at = {next(k for k in range(3) if torch.equal(flat[k], start)) for start, _ in drawn}
    assert at == {0, 1}
    assert all(any(torch.equal(flat[k], s) and torch.equal(flat[k + 1], t) for k in (0, 1)) for s, t in drawn)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max_start_epoch", "2", "--expert_epochs", "2"), "lead to epoch 3"),
        (("--model", "ConvNetD2"), "no replay_buffer_0.pt in"),
        (("--zca",), "no replay_buffer_0.pt in"),
        (("--ipc", "2000"), "fewer than 2000 real images"),
        (("--lr_img", "1e30", "--Iteration", "5"), "lower --lr_img"),
        (("--lr_teacher", "10", "--lr_lr", "1"), "the learning rate became -.*; lower --lr_lr"),
        (("--model", "ConvNetD4"), "too many for images of 8x8"),
        (("--dataset", "MNIST", "--data_path", "nowhere"), "no replay_buffer_0.pt in"),
    ],
)
def test_distill_says_what_is_wrong(host, experts, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        distilled(host, experts, tmp_path / "out", *arguments)
    assert written(tmp_path) == []


def test_unusable_buffers(host, experts, tmp_path):
    folder = tmp_path / "digits_NO_ZCA" / "MLP"
    folder.mkdir(parents=True)
    (folder / "replay_buffer_0.pt").write_text("no archive")
    with pytest.raises(SystemExit, match=r"replay_buffer_0\.pt cannot be read"):
        distilled(host, tmp_path, tmp_path / "out")
    torch.save([[[torch.zeros(3)]]], folder / "replay_buffer_0.pt")
    with pytest.raises(SystemExit, match="experts of another network"):
        distilled(host, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--num_experts", "3", "--save_interval", "2"), "--num_experts 3 is not a multiple of --save_interval 2"),
        (("--dsa", "yes"), "argument --dsa: invalid choice"),
        (("--dsa_strategy", "flip_melt"), "unknown augmentation 'melt'"),
        (("--lr_teacher", "0"), "--lr_teacher: 0 is not above 0"),
        (("--mom", "nan"), "--mom: nan is not at least 0"),
    ],
)
def test_bad_arguments_of_buffer(host, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        host.run("buffer", *EXPERTS, "--buffer_path", tmp_path, *arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "CIFAR10", "--data_path", "nowhere"), "no usable CIFAR10 in the folder 'nowhere'"),
        (("--model", "ConvNetD4"), "too many for images of 8x8"),
        (("--n_train", "1001"), "digits has 1000 images to train on, fewer than 1001"),
        (("--lr_teacher", "1e30"), "expert 0 diverged"),
    ],
)
def test_buffer_says_what_is_wrong(host, tmp_path, arguments, message):
    pytest.importorskip("torchvision")
    with pytest.raises(SystemExit, match=message):
        host.run("buffer", *EXPERTS, "--buffer_path", tmp_path, *arguments)
    assert written(tmp_path) == []


def test_default_save_intervals(hosts, tmp_path):
    for name, interval in (("mtt", 10), ("tesla", 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["buffer.py"])
            assert hosts[name].buffer.parse_args().save_interval == interval


@pytest.fixture(scope="module")
def good_experts(hosts, tmp_path_factory):
    """Experts that have learnt something, on a network that learns it fast."""
    folder = tmp_path_factory.mktemp("good_experts")
    settings = ("--model", "ConvNetD1", "--batch_train", "32", "--num_experts", "2", "--train_epochs", "5")
    hosts["mtt"].run("buffer", *EXPERTS, *settings, "--buffer_path", folder)
    return folder


def test_distilled_images_teach(host, good_experts, tmp_path, capsys):
    """One distilled image per class teaches students more than the real one that it started from."""
    settings = ("--dataset", "digits", "--model", "ConvNetD1", "--dsa", "False", "--max_start_epoch", "4")
    evaluation = ("--Iteration", "40", "--eval_it", "40", "--num_eval", "1", "--epoch_eval_train", "200")
    places = ("--buffer_path", good_experts, "--save_path", tmp_path)
    host.run("distill", *settings, *evaluation, *places)
    real, distilled_images = map(float, re.findall(r"1 ConvNetD1: test acc = ([\d.]+)", capsys.readouterr().out))
    assert distilled_images > real + 0.05
